//! The links between a question and its released cells, each looked at by itself.

use std::{io, path::Path, sync::Arc};

use datafusion::prelude::SessionContext;
use sekisho_aggregation::{
    exact::{Claim, Cohort, History, Reviewed},
    inspection::Inspection,
    plan::PrivatePlan,
    release::Release,
    reservation::{Charge, Ledger as Charges, Reservation},
};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, DsseError, Envelope},
    key_file::{self, KeyFileError},
    keys::PublicKey,
    permit::Permit,
    query::Query,
    receipt::Receipt,
};

use super::{Exact, Held, Inspecting, Question};
use crate::{
    answer::{SOFTWARE, commitment},
    data::snapshot::{self, Snapshot, SnapshotError},
    execute::{execute, execute_exact},
    holding::tables,
    ledger::{Asked, Kept, StoredRelease},
    register::RegisterError,
    seeds::{Seed, SeedKey},
};

/// All that cells are made again from.
pub(super) struct Again<'a> {
    pub(super) kept: &'a Kept,
    pub(super) question: &'a Question,
    pub(super) plan: Arc<PrivatePlan>,
    pub(super) snapshot: Snapshot,
    pub(super) release: Release,
    pub(super) seed: Seed,
}

/// The charge of a run that was made: nothing is charged for making it again.
struct Settled<'a>(&'a Kept);

impl Charges for Settled<'_> {
    type Record = ();
    type Error = ();

    async fn charge(&self, charge: &Charge) -> Result<(), ()> {
        let Kept { charged, .. } = self.0;
        let same_run = (charge.permit, charge.query_key, charge.run)
            == (charged.key.permit, charged.key.query_key, charged.key.run);
        let same_cost = (charge.micro_rho, charge.atto_delta) == (charged.cost.micro_rho, charged.cost.atto_delta);
        if same_run && same_cost { Ok(()) } else { Err(()) }
    }
}

fn holds(text: impl Into<String>) -> Held {
    Held::Holds(text.into())
}

fn broken(text: impl Into<String>) -> Held {
    Held::Broken(text.into())
}

fn unknown(text: impl Into<String>) -> Held {
    Held::Unknown(text.into())
}

/// A document in an envelope, or as it is; with its digest, and with the envelope if there is one.
fn document<D: Document>(signed: bool, bytes: &[u8]) -> Option<(D, Digest, Option<Envelope>)> {
    if !signed {
        return serde_json::from_slice(bytes).ok().map(|document| (document, Digest::of(bytes), None));
    }
    let envelope = Envelope::from_json::<D>(bytes).ok()?;
    let (document, digest) = envelope.peek::<D>().ok()?;
    Some((document, digest, Some(envelope)))
}

impl Inspecting {
    pub(super) async fn question(&self, kept: &Kept) -> (Option<Question>, Held) {
        let Some(asked) = &kept.asked else {
            return (None, unknown("the run was charged by software that did not keep questions yet"));
        };
        match self.asked(kept, asked).await {
            Ok((question, text)) => (Some(question), holds(text)),
            Err(held) => (None, held),
        }
    }

    async fn asked(&self, kept: &Kept, asked: &Asked) -> Result<(Question, &'static str), Held> {
        let (permit, permit_digest, permit_envelope) = document::<Permit>(asked.signed, &asked.permit)
            .ok_or_else(|| broken("the stored permit cannot be read"))?;
        let (query, query_digest, query_envelope) =
            document::<Query>(asked.signed, &asked.query).ok_or_else(|| broken("the stored query cannot be read"))?;
        let key = &kept.charged.key;
        if permit_digest != key.permit || query.permit != key.permit {
            return Err(broken("the stored permit is not the one that was charged"));
        }
        if query_digest != kept.charged.query || query.key() != key.query_key || query.run != key.run {
            return Err(broken("the stored query is not the one that was charged"));
        }
        let (Some(permit_envelope), Some(query_envelope)) = (permit_envelope, query_envelope) else {
            let question = Question { query, permit, person: None };
            return Ok((question, "the hospital's own count for its catalogue, as it was charged"));
        };
        let committee = self.documents.committee_of(key.permit).await;
        let committee = committee.map_err(|refusal| unknown(format!("the committee is not known: {refusal}")))?;
        // As it was: keys that became void since do not undo what was decided before.
        let decided = committee.verify_permit(&permit_envelope, |_| false);
        decided.map_err(|error| broken(format!("the committee's signatures on the permit: {error}")))?;
        let persons: Vec<PublicKey> = permit.authorised_persons.iter().map(|person| person.key).collect();
        let signed = query_envelope.verify::<Query>(&persons, 1);
        let signed = signed.map_err(|error| broken(format!("the person's signature on the query: {error}")))?;
        let signer = permit.authorised_persons.iter().find(|p| signed.signers().contains(&p.key.fingerprint()));
        let person = signer.map(|person| person.id.clone());
        Ok((Question { query, permit, person }, "query and permit are those that were charged, with their signatures"))
    }

    pub(super) fn receipt(&self, kept: &Kept, stored: &[u8]) -> (Option<(Receipt, Digest)>, Held) {
        let Some((receipt, digest, Some(envelope))) = document::<Receipt>(true, stored) else {
            return (None, broken("the stored receipt cannot be read"));
        };
        let held = self.receipt_held(kept, &receipt, &envelope);
        (Some((receipt, digest)), held)
    }

    fn receipt_held(&self, kept: &Kept, receipt: &Receipt, envelope: &Envelope) -> Held {
        let keys = match own_keys(&self.signing_key) {
            Ok(keys) => keys,
            Err(error) => return unknown(format!("the node's own keys: {error}")),
        };
        match envelope.verify::<Receipt>(&keys, 1) {
            Ok(_) => {}
            Err(DsseError::Quorum { .. }) => {
                return unknown("no key of this node that is still beside the signing key signed it");
            }
            Err(error) => return broken(error.to_string()),
        }
        let (charged, run) = (&kept.charged, &kept.run);
        let about = (receipt.permit, receipt.query_key, receipt.run)
            == (charged.key.permit, charged.key.query_key, charged.key.run)
            && (&receipt.node, &receipt.study_id) == (&self.name, &charged.study_id)
            && (receipt.micro_rho, receipt.atto_delta) == (charged.cost.micro_rho, charged.cost.atto_delta)
            && (receipt.as_of, receipt.at) == (run.as_of, run.charged_at);
        if !about {
            return broken("the receipt says something else than the ledger of this charge");
        }
        if !kept.logged {
            return broken("the log does not have this receipt");
        }
        // A run that died and was asked again by another message has that one's digest in its receipt.
        let other = if receipt.query == charged.query { "" } else { "; another message asked the same run again" };
        holds(format!("signed by this node, about this charge, and in the log{other}"))
    }

    pub(super) async fn snapshot(
        &self,
        kept: &Kept,
        stored: &StoredRelease,
        receipt: Option<&Receipt>,
    ) -> (Option<Snapshot>, Held) {
        let id = &kept.run.snapshot;
        let opened = snapshot::data_set_of(&self.snapshots, id).and_then(|data_set| {
            let mut of_set = self.mappings.iter().filter(|mapping| mapping.id() == data_set);
            let mut last = Err(SnapshotError::Unknown(data_set.clone()));
            // An older mapping may have been given beside the one that is configured.
            while let (Err(_), Some(mapping)) = (&last, of_set.next()) {
                last = snapshot::open_by_id(mapping, &self.snapshots, id);
            }
            last
        });
        let checked = match opened {
            Ok(snapshot) => {
                let checking = tokio::task::spawn_blocking(move || snapshot.verify_files().map(|()| snapshot));
                match checking.await {
                    Ok(checked) => checked,
                    Err(_) => return (None, unknown("the snapshot's files could not be read to their end")),
                }
            }
            Err(error) => Err(error),
        };
        let snapshot = match checked {
            Ok(snapshot) => snapshot,
            Err(error) => return (None, not_opened(&error)),
        };
        let held = opens(&stored.salts, 0, snapshot.manifest_digest(), receipt.map(|r| r.snapshot_commitment));
        (Some(snapshot), held.unwrap_or_else(|| holds("every byte of the run's snapshot is what it was")))
    }

    pub(super) async fn register(&self, kept: &Kept, stored: &StoredRelease, receipt: Option<&Receipt>) -> Held {
        match self.register.commitment(kept.run.register_seq).await {
            Ok(digest) => opens(&stored.salts, 32, digest, receipt.map(|r| r.register_commitment))
                .unwrap_or_else(|| holds("the register up to the charge is what it was")),
            Err(RegisterError::NotYet { .. }) => broken("the register is shorter than it was at the charge"),
            // Its own words may count events.
            Err(_) => unknown("the register cannot be read"),
        }
    }

    pub(super) async fn plan(
        &self,
        kept: &Kept,
        question: Option<&Question>,
        receipt: Option<&Receipt>,
    ) -> (Option<Arc<PrivatePlan>>, Held) {
        let Some(Question { query, permit, .. }) = question else {
            return (None, unknown("without the question there is no plan"));
        };
        let Some(mapping) = self.mappings.iter().find(|mapping| mapping.schema().digest() == permit.schema) else {
            let schema = permit.schema.short();
            return (
                None,
                unknown(format!("no data set is mapped to schema {schema}: give its old mapping with --mapping")),
            );
        };
        let (query, permit, schema) = (query.clone(), permit.clone(), Arc::clone(mapping.schema()));
        // The text may nest: threads of the runtime have a deep stack.
        let analysis = tokio::task::spawn_blocking(move || {
            PrivatePlan::analyse_with(&query.sql, schema.document(), &permit, query.micro_rho, &query.terms)
        });
        let plan = match analysis.await {
            Ok(Ok(plan)) => Arc::new(plan),
            Ok(Err(refusal)) => {
                return (None, broken(format!("the question is not admitted by this software: {refusal}")));
            }
            Err(_) => return (None, unknown("the analysis of the SQL stopped")),
        };
        let Some(receipt) = receipt else { return (None, unknown("there is no receipt to compare it with")) };
        let charged = &kept.charged;
        if plan.digest() != receipt.plan {
            return (None, broken(format!("the plan of the question is not the receipt's{}", made_by(receipt))));
        }
        if (plan.micro_rho(), plan.atto_delta()) != (charged.cost.micro_rho, charged.cost.atto_delta) {
            return (None, broken("the plan costs something else than was charged"));
        }
        (Some(plan), holds("planned again from the SQL, the same plan"))
    }

    pub(super) fn seed(&self, kept: &Kept) -> (Option<Seed>, Held) {
        let Some(sealed) = &kept.seed else {
            return (None, unknown("the release was made by software that did not keep seeds yet"));
        };
        let key = match SeedKey::read(&SeedKey::path_beside(&self.signing_key)) {
            Ok(key) => key,
            Err(error) => return (None, unknown(format!("the key of seeds: {error}"))),
        };
        match key.open(sealed, &kept.charged.key) {
            Ok(seed) => (Some(seed), holds("it opens")),
            Err(error @ crate::seeds::SeedError::OtherKey { .. }) => (None, unknown(error.to_string())),
            Err(error @ crate::seeds::SeedError::Changed) => (None, broken(error.to_string())),
        }
    }

    pub(super) async fn cells(&self, again: Again<'_>, receipt: Option<&Receipt>) -> (Option<Exact>, Held) {
        if again.plan.exact().is_some() {
            let held = self.exact_again(again).await.unwrap_or_else(|held| held);
            return (None, marked(held, receipt));
        }
        let Again { kept, question, plan, snapshot, release, seed } = again;
        let made = self.made_again(kept, question, &plan, &snapshot, release, &seed).await;
        let inspection = match made {
            Ok(inspection) => inspection,
            Err(held) => return (None, held),
        };
        let verdict = inspection.verdict();
        let held = match (verdict.header, verdict.numbers) {
            (true, true) => holds("exact cells and noise are the released cells, every one"),
            (true, false) => broken("exact cells and noise are not the released cells"),
            (false, _) => broken("made again, the release has another header: other names, noise or nonce"),
        };
        (Some(Exact { inspection, seed }), marked(held, receipt))
    }

    /// The run once more, as `Answering::run` makes it.
    async fn made_again(
        &self,
        kept: &Kept,
        question: &Question,
        plan: &Arc<PrivatePlan>,
        snapshot: &Snapshot,
        release: Release,
        seed: &Seed,
    ) -> Result<Inspection, Held> {
        let key = &kept.charged.key;
        let reservation = Reservation::make(plan, key.permit, key.query_key, key.run, &Settled(kept)).await;
        let reservation = reservation.map_err(|()| broken("the plan is not what was charged"))?;
        let tables = self.tables_again(kept, question, plan, snapshot).await?;
        let raw = execute(plan, &reservation, &tables).await;
        let raw = raw.map_err(|error| unknown(format!("the rows could not be read: {error}")))?;
        let inspection = Inspection::of(plan, raw, &reservation, release, &mut seed.generator());
        let inspection = inspection.ok_or_else(|| broken("no release could be made"))?;
        let Some(biting) = self.biting(question).await else { return Ok(inspection) };
        let reservation = Reservation::make(&biting, key.permit, key.query_key, key.run, &Settled(kept)).await;
        let reservation = reservation.map_err(|()| broken("the plan is not what was charged"))?;
        let raw = execute(&biting, &reservation, &tables).await;
        let raw = raw.map_err(|error| unknown(format!("the rows could not be read: {error}")))?;
        inspection.with_clamped(&biting, &raw).ok_or_else(|| broken("what was clamped could not be counted"))
    }

    /// An exact release once more, as `Answering::let_out` makes it. Its cells are shown to nobody but as they left.
    async fn exact_again(&self, again: Again<'_>) -> Result<Held, Held> {
        let Again { kept, question, plan, snapshot, release, seed } = again;
        let key = kept.charged.key;
        let said =
            release.header().exact.as_ref().ok_or_else(|| broken("the release does not say that it is exact"))?;
        if said.cut != snapshot.taken_at().date_naive() {
            return Err(broken("the release is of another day's data than its snapshot"));
        }
        let (rules, cut) = (said.rules, said.cut);
        let tables = self.tables_again(kept, question, &plan, &snapshot).await?;
        let raw = execute_exact(&plan, &tables).await;
        let raw = raw.map_err(|error| unknown(format!("the rows could not be read: {error}")))?;
        let seeds = SeedKey::read(&SeedKey::path_beside(&self.signing_key));
        let seeds = seeds.map_err(|error| unknown(format!("the key of seeds: {error}")))?;
        let cohort = raw.cohort(&seeds.cohorts()).ok_or_else(|| broken("the plan is not exact"))?;
        let recorded = self.ledger.cohort(&key).await.map_err(|error| unknown(error.to_string()))?;
        let recorded = recorded.ok_or_else(|| broken("the history of exact releases does not have it"))?;
        if recorded.difference(&cohort) > 0 {
            return Err(broken("it is about other patients than the history of exact releases says"));
        }
        let reviewed = Reviewed::make(&plan, key.permit, key.query_key, key.run, &cohort, &Settled(kept)).await;
        let reviewed = reviewed.map_err(|()| broken("the plan is not what was recorded"))?;
        let made = tokio::task::spawn_blocking(move || {
            let (as_of, synthetic) = (release.header().as_of, snapshot.synthetic());
            let made = Release::exact(&plan, raw, &reviewed, &rules, as_of, cut, synthetic, &mut seed.generator());
            made.map(|made| made == release)
        });
        match made.await.ok().flatten() {
            Some(true) => {
                Ok(holds("made again, hidden and rounded, the exact cells are the released cells, every one"))
            }
            Some(false) => Ok(broken("made again, the exact release is another one")),
            None => Err(broken("no release could be made")),
        }
    }

    /// The tables that the run read.
    async fn tables_again(
        &self,
        kept: &Kept,
        question: &Question,
        plan: &PrivatePlan,
        snapshot: &Snapshot,
    ) -> Result<SessionContext, Held> {
        let own_rule = kept.run.own_rule.ok_or_else(|| unknown("the hospital's rule at the charge is not known"))?;
        let (rules, run) = ([question.permit.optout, own_rule], &kept.run);
        let kind = plan.patient_kind().ok_or_else(|| broken("the plan has patients of two types"))?;
        let eligible = self.register.eligible(kind, &rules, run.as_of, run.register_seq).await;
        let eligible = eligible.map_err(|_| unknown("it cannot be read who was eligible"))?;
        let tables = tables(snapshot, eligible, self.memory_bytes);
        tables.map_err(|_| unknown("a table of the run's snapshot cannot be opened"))
    }

    /// The plan of the same question that measures how much its bounds bit; none when that is not asked for, or nothing can be clamped.
    async fn biting(&self, question: &Question) -> Option<Arc<PrivatePlan>> {
        let mapping = self.mappings.iter().find(|mapping| mapping.schema().digest() == question.permit.schema);
        let mapping = mapping.filter(|_| self.clamped)?;
        let (mut query, permit, schema) =
            (question.query.clone(), question.permit.clone(), Arc::clone(mapping.schema()));
        // What share of rho it gets changes no exact number.
        query.terms.bite_percent.get_or_insert(10);
        let analysis = tokio::task::spawn_blocking(move || {
            PrivatePlan::analyse_with(&query.sql, schema.document(), &permit, query.micro_rho, &query.terms)
        });
        analysis.await.ok()?.ok().map(Arc::new)
    }
}

impl History for Settled<'_> {
    type Record = ();
    type Error = ();

    async fn record(&self, claim: &Claim, _: &Cohort) -> Result<(), ()> {
        let key = self.0.charged.key;
        let same_run = (claim.permit, claim.query_key, claim.run) == (key.permit, key.query_key, key.run);
        if same_run { Ok(()) } else { Err(()) }
    }
}

/// What is broken, with what is to be said where the release was made by other software.
fn marked(held: Held, receipt: Option<&Receipt>) -> Held {
    match held {
        Held::Broken(text) => broken(format!("{text}{}", receipt.map(made_by).unwrap_or_default())),
        other @ (Held::Holds(_) | Held::Unknown(_)) => other,
    }
}

/// The stored release, and whether the receipt names it.
pub(super) fn release(stored: &StoredRelease, receipt: Option<&Receipt>) -> (Option<Release>, Held) {
    let release = match Release::from_bytes(&stored.header, &stored.cells) {
        Ok(release) => release,
        Err(error) => return (None, broken(error.to_string())),
    };
    let Some(receipt) = receipt else {
        return (Some(release), unknown("there is no receipt to compare it with"));
    };
    let header = release.header();
    let same = (header.permit, header.query_key, header.run, header.plan)
        == (receipt.permit, receipt.query_key, receipt.run, receipt.plan)
        && (header.micro_rho, header.atto_delta) == (receipt.micro_rho, receipt.atto_delta)
        && (header.as_of, header.synthetic) == (receipt.as_of, receipt.synthetic);
    let held = if release.digest() != receipt.release {
        broken("the stored release is not the one that the receipt names")
    } else if !same {
        broken("the release says something else of itself than the receipt")
    } else {
        holds("the stored release is the one that the receipt names")
    };
    (Some(release), held)
}

/// Why a commitment does not open with the salt at `at`; none when it does.
fn opens(salts: &[u8], at: usize, digest: Digest, said: Option<Digest>) -> Option<Held> {
    let Some(said) = said else { return Some(unknown("there is no receipt to compare it with")) };
    let Some(salt) = salts.get(at..at + 32).filter(|_| salts.len() == 64) else {
        return Some(broken("the stored salts are not two of 32 bytes"));
    };
    let changed = "the receipt's commitment does not open: this, or the stored salt, is not what it was";
    (commitment(salt, digest) != said).then(|| broken(changed))
}

/// A snapshot that is gone or of another schema cannot be looked at; one that is not what its manifest says is broken. Its id
/// depends on data, and is not told.
fn not_opened(error: &SnapshotError) -> Held {
    match error {
        SnapshotError::Damaged { reason, .. } => broken(format!("the run's snapshot is damaged: {reason}")),
        SnapshotError::Io { path, source } if source.kind() == io::ErrorKind::NotFound => {
            let file = path.file_name().unwrap_or_default().display();
            broken(format!("the run's snapshot lacks {file}"))
        }
        SnapshotError::Io { source, .. } => unknown(format!("the run's snapshot cannot be read: {source}")),
        SnapshotError::OtherSchema { found, expected, .. } => unknown(format!(
            "the run's snapshot is of schema {found}, the mapping of {expected}: give the old mapping with --mapping"
        )),
        SnapshotError::Unknown(_) => unknown("the run's snapshot, or a mapping of its data set, is not there"),
        SnapshotError::Busy(_)
        | SnapshotError::Mismatch { .. }
        | SnapshotError::Read { .. }
        | SnapshotError::Write { .. }
        | SnapshotError::ManyRows { .. }
        | SnapshotError::Moving { .. } => unknown("the run's snapshot cannot be opened"),
    }
}

/// What is to be said where the release was made by other software.
fn made_by(receipt: &Receipt) -> String {
    if receipt.software == SOFTWARE {
        return String::new();
    }
    format!("; it was made by {}, and this is {SOFTWARE}: make it again with that version", receipt.software)
}

/// The public keys in the files of the signing key: the one in use, the next one, and those that gave way.
fn own_keys(signing: &Path) -> Result<Vec<PublicKey>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: signing.into(), source };
    let mut keys = vec![key_file::read(signing)?.public()];
    let stem = signing.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let folder = signing.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let other = name.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".pem")).unwrap_or_default();
        if other.starts_with(".retired-") || other == ".next" {
            keys.push(key_file::read(&path)?.public());
        }
    }
    Ok(keys)
}
