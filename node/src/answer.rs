//! One query at the node, from bytes to a release: verify → admit → plan → reserve → execute → release → log.
//!
//! Before the reservation nothing depends on data, so refusals are distinct. From the reservation on there is an answer
//! or `no_answer`, whatever the cause, and it leaves at a time that the request alone fixes: a multiple of the
//! configured step after its arrival. A run has one release for ever: it is stored, with its receipt, before it is sent,
//! and served again free; a run that was charged and not released is executed again on the same charge.

use std::{sync::Arc, time::Duration};

use chrono::NaiveDate;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::{
    plan::PrivatePlan,
    release::Release,
    reservation::{Charge, Ledger as Charges, Reservation},
};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    dsse::{Envelope, Verified},
    keys::SecretKey,
    permit::OptOut,
    query::Query,
    receipt::{DryRun, Receipt, ReservationRecord},
    refusal::{Code, Refusal},
    units::{AttoDelta, MicroRho},
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};
use tracing::{Instrument, info, info_span, warn};

use crate::{
    data::snapshot::Snapshot,
    documents::Documents,
    execute::{self, execute},
    guard::{AdmittedQuery, InForce, SignedQuery, Trust},
    holding::{DataSet, tables},
    hooks::Hooks,
    ledger::{ChargeRequest, Ledger, Reserved, Run, RunKey, RunState, StoredRelease},
    register::Register,
};

/// This node's software, as receipts name it.
pub const SOFTWARE: &str = concat!("sekisho-node ", env!("CARGO_PKG_VERSION"));
/// Locks over runs: two requests for one run never execute side by side.
const RUN_LOCKS: usize = 64;

/// Everything that answering needs.
pub struct Answering {
    /// Whom the hospital trusts, and its own limits.
    pub trust: Trust,
    /// The hospital's own rule for its patients; the permit's holds as well.
    pub own_rule: OptOut,
    /// The privacy ledger.
    pub ledger: Ledger,
    /// The patient register.
    pub register: Register,
    /// Roster, status and permits.
    pub documents: Documents,
    /// The data sets with their snapshots.
    pub data: Vec<DataSet>,
    /// Signs receipts, reservations and acceptances.
    pub signing: Arc<SecretKey>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Limits of execution.
    pub limits: execute::Limits,
    /// Memory of one execution in bytes.
    pub memory_bytes: usize,
    /// Answers leave at multiples of this.
    pub step: Duration,
    /// How many queries run at once.
    pub slots: Semaphore,
    /// Kill points of the tests.
    pub hooks: Hooks,
    /// One lock for each share of the runs.
    pub locks: RunLocks,
}

/// Locks for runs, chosen by query key.
pub struct RunLocks(Vec<Mutex<()>>);

impl Default for RunLocks {
    fn default() -> Self {
        Self((0..RUN_LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl RunLocks {
    fn of(&self, key: &RunKey) -> &Mutex<()> {
        &self.0[(key.query_key.as_bytes()[0] as usize + key.run as usize) % RUN_LOCKS]
    }
}

/// A release with its receipt, as it leaves.
pub struct Answer {
    /// The noised cells.
    pub release: Release,
    /// The signed receipt.
    pub receipt: Envelope,
}

/// An admitted query with the plan that this node made of it.
struct Ready<'a> {
    admitted: AdmittedQuery,
    plan: Arc<PrivatePlan>,
    data: &'a DataSet,
    snapshot: Arc<Snapshot>,
}

impl Ready<'_> {
    fn key(&self) -> RunKey {
        let query = self.admitted.query();
        RunKey { permit: self.admitted.permit().digest(), query_key: query.key(), run: query.run }
    }
}

impl Answering {
    /// Answers a routed query.
    ///
    /// # Errors
    /// A refusal before the reservation; `no_answer` after it.
    pub async fn answer(&self, bytes: &[u8]) -> Result<Answer, Refusal> {
        let arrived = Instant::now();
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::new(Code::Busy, "too many queries at once"))?;
        let ready = self.ready(bytes).await?;
        let query = ready.admitted.query();
        let span = info_span!("query", query = %query.key().short(), run = query.run, study = %ready.admitted.permit().study_id);
        async {
            let lock = self.locks.of(&ready.key()).lock().await;
            let answer = self.charged(&ready).await;
            drop(lock);
            self.leave(arrived).await;
            match &answer {
                Ok(_) => info!("answered"),
                Err(refusal) => info!(code = %refusal.code, "not answered"),
            }
            answer
        }
        .instrument(span)
        .await
    }

    /// Says whether a query would be answered, and its price; no row is touched and nothing is charged.
    ///
    /// # Errors
    /// The refusal that the query would meet before its reservation.
    pub async fn dry_run(&self, bytes: &[u8]) -> Result<DryRun, Refusal> {
        let _slot = self.slots.try_acquire().map_err(|_| Refusal::new(Code::Busy, "too many queries at once"))?;
        let ready = self.ready(bytes).await?;
        let run = self.ledger.find(&ready.key()).await?;
        let (micro_rho, study) = (ready.plan.micro_rho(), &ready.admitted.permit().study_id);
        let cost = if run.is_some() { MicroRho::ZERO } else { micro_rho };
        let left = self.ledger.check(study, cost).await?;
        let stored = matches!(run, Some(Run { state: RunState::Released(_), .. }));
        Ok(DryRun { micro_rho: cost, stored, study_left: left.study })
    }

    /// Verify, admit, plan: everything before the reservation.
    async fn ready(&self, bytes: &[u8]) -> Result<Ready<'_>, Refusal> {
        let now = self.clock.now();
        let signed = SignedQuery::from_json(bytes)?;
        let in_force = InForce { roster: self.documents.roster(now).await?, status: self.documents.status(now).await? };
        let digest = signed.permit()?;
        let Some(stored) = self.documents.permit(digest).await? else {
            return Err(Refusal::new(Code::PermitUnknown, format!("no permit {} here", digest.short())));
        };
        let verified = signed.verify(&stored.envelope()?, &self.trust, &in_force, now)?;
        if let Some(code) = stored.refused() {
            return Err(Refusal::new(code, "this hospital refused the permit when it arrived"));
        }
        let data = self.data_for(verified.permit().schema)?;
        let admitted = verified.admit(&self.trust, &in_force.status, data.synthetic(), now)?;
        let study = &admitted.permit().study_id;
        if self.ledger.suspended(study).await? {
            return Err(Refusal::new(Code::Suspended, format!("study {study} had too many queries without an answer")));
        }
        let query = admitted.query();
        let plan = PrivatePlan::analyse(&query.sql, data.schema(), admitted.permit(), query.micro_rho)?;
        for table in plan.tables() {
            let named = admitted.permit().table(table);
            if !named.is_some_and(|t| t.holder_nodes.contains(&self.trust.name)) {
                let detail = format!("the permit does not name {} for table {table}", self.trust.name);
                return Err(Refusal::new(Code::HolderNotPermitted, detail));
            }
        }
        let snapshot = data.snapshot(plan.tables())?;
        Ok(Ready { admitted, plan: Arc::new(plan), data, snapshot })
    }

    fn data_for(&self, schema: Digest) -> Result<&DataSet, Refusal> {
        let found = self.data.iter().find(|d| d.schema().digest() == schema);
        found.ok_or_else(|| {
            Refusal::new(Code::SchemaMismatch, format!("no data here is mapped to schema {}", schema.short()))
        })
    }

    /// Serves a stored release, or reserves, executes, releases and logs.
    async fn charged(&self, ready: &Ready<'_>) -> Result<Answer, Refusal> {
        if let Some(Run { state: RunState::Released(stored), .. }) = self.ledger.find(&ready.key()).await? {
            return served(&stored);
        }
        let permit = ready.admitted.permit().digest();
        let query = ready.admitted.query();
        let charges = Durable { answering: self, ready, register_seq: self.register.seq().await? };
        let reservation = Reservation::make(&ready.plan, permit, query.key(), query.run, &charges).await?;
        self.hooks.at("reserved");
        // From here on there is one code: a cause could tell of the data.
        match self.run(ready, reservation).await {
            Ok(answer) => Ok(answer),
            Err(Failed { charge_id, why }) => {
                warn!(why, "charged, and no answer");
                if let Err(error) = self.ledger.fail(charge_id, self.clock.now()).await {
                    warn!(%error, "a query without an answer was not counted");
                }
                Err(Refusal::new(Code::NoAnswer, "the query was charged and has no answer"))
            }
        }
    }

    async fn run(&self, ready: &Ready<'_>, reservation: Reservation<Run>) -> Result<Answer, Failed> {
        let run = reservation.record().clone();
        let failed = |why: String| Failed { charge_id: run.charge_id, why };
        if let RunState::Released(stored) = &run.state {
            return served(stored).map_err(|e| failed(e.detail));
        }
        let permit = ready.admitted.permit();
        let rules = [permit.optout, self.own_rule];
        let kind = ready.plan.patient_kind();
        let eligible = self.register.eligible(kind, &rules, run.as_of, run.register_seq).await;
        let eligible = eligible.map_err(|_| failed("the register".into()))?;
        let snapshot = ready.data.snapshot_of_run(&ready.snapshot, &run.snapshot).map_err(|e| failed(e.detail))?;
        let tables = tables(&snapshot, eligible, self.memory_bytes).map_err(|e| failed(e.to_string()))?;
        let raw = execute(&ready.plan, &reservation, &tables, self.limits).await.map_err(|e| failed(e.to_string()))?;
        let mut rng = ChaCha20Rng::from_os_rng();
        let synthetic = ready.data.synthetic();
        let release = Release::make(&ready.plan, raw, &reservation, run.as_of, synthetic, &mut rng);
        let release = release.ok_or_else(|| failed("no release could be made".into()))?;
        let commitments =
            self.commitments(&snapshot, run.register_seq, &mut rng).await.map_err(|_| failed("the register".into()))?;
        let receipt = self.receipt(ready, reservation.charge(), &run, &release, &commitments);
        let receipt = receipt.map_err(|e| failed(e.to_string()))?;
        let (header, cells) = release.to_bytes();
        let stored = StoredRelease { header, cells, receipt: receipt.to_json(), salts: commitments.salts };
        self.ledger.complete(run.charge_id, &stored).await.map_err(|e| failed(e.to_string()))?;
        self.hooks.at("released");
        Ok(Answer { release, receipt })
    }

    async fn commitments(
        &self,
        snapshot: &Snapshot,
        register_seq: i64,
        rng: &mut ChaCha20Rng,
    ) -> Result<Commitments, Refusal> {
        let mut salts = vec![0; 64];
        rng.fill_bytes(&mut salts);
        let commit = |salt: &[u8], what: Digest| Digest::of_parts(&[b"sekisho commitment v1", salt, what.as_bytes()]);
        let register = self.register.commitment(register_seq).await?;
        let (snapshot, register) = (commit(&salts[..32], snapshot.manifest_digest()), commit(&salts[32..], register));
        Ok(Commitments { salts, snapshot, register })
    }

    fn receipt(
        &self,
        ready: &Ready<'_>,
        charge: &Charge,
        run: &Run,
        release: &Release,
        commitments: &Commitments,
    ) -> Result<Envelope, sekisho_protocol::dsse::DsseError> {
        let receipt = Receipt {
            node: self.trust.name.clone(),
            permit: charge.permit,
            study_id: ready.admitted.permit().study_id.clone(),
            query: ready.admitted.query().digest(),
            query_key: charge.query_key,
            run: charge.run,
            plan: ready.plan.digest(),
            micro_rho: charge.micro_rho,
            atto_delta: charge.atto_delta,
            synthetic: ready.data.synthetic(),
            snapshot_commitment: commitments.snapshot,
            register_commitment: commitments.register,
            as_of: run.as_of,
            release: release.digest(),
            software: SOFTWARE.into(),
            at: run.charged_at,
        };
        Envelope::sign(&receipt, &[&self.signing])
    }

    /// Waits for the next multiple of the step after `arrived`.
    async fn leave(&self, arrived: Instant) {
        let step = self.step.as_millis().max(1);
        let steps = arrived.elapsed().as_millis() / step + 1;
        let at = Duration::from_millis(u64::try_from(steps * step).unwrap_or(u64::MAX));
        tokio::time::sleep_until(arrived + at).await;
    }
}

struct Commitments {
    salts: Vec<u8>,
    snapshot: Digest,
    register: Digest,
}

/// A run that was charged and has no release, and why: for the node's own log.
struct Failed {
    charge_id: i64,
    why: String,
}

fn served(stored: &StoredRelease) -> Result<Answer, Refusal> {
    let broken = || Refusal::new(Code::NoAnswer, "a stored release cannot be read");
    let release = Release::from_bytes(&stored.header, &stored.cells).map_err(|_| broken())?;
    let receipt = Envelope::from_json::<Receipt>(&stored.receipt).map_err(|_| broken())?;
    Ok(Answer { release, receipt })
}

/// The ledger as the reservation sees it: a charge with all that the run is bound to.
struct Durable<'a> {
    answering: &'a Answering,
    ready: &'a Ready<'a>,
    register_seq: i64,
}

impl Charges for Durable<'_> {
    type Record = Run;
    type Error = Refusal;

    async fn charge(&self, charge: &Charge) -> Result<Run, Refusal> {
        let (node, query): (&Answering, &Verified<Query>) = (self.answering, self.ready.admitted.query());
        let study_id = self.ready.admitted.permit().study_id.clone();
        let at = node.clock.now();
        let as_of: NaiveDate = node.clock.today();
        let record = ReservationRecord {
            node: node.trust.name.clone(),
            study_id: study_id.clone(),
            query: query.digest(),
            query_key: charge.query_key,
            run: charge.run,
            micro_rho: charge.micro_rho,
            atto_delta: AttoDelta::ZERO,
            at,
        };
        let entry = Envelope::sign(&record, &[&node.signing])?.to_json();
        let request = ChargeRequest {
            key: RunKey { permit: charge.permit, query_key: charge.query_key, run: charge.run },
            study_id,
            query: query.digest(),
            nonce: query.nonce.clone(),
            nonce_expires: query.expires,
            micro_rho: charge.micro_rho,
            atto_delta: charge.atto_delta,
            register_seq: self.register_seq,
            as_of,
            snapshot: self.ready.snapshot.id().to_string(),
            at,
        };
        match node.ledger.reserve(&request, &entry).await? {
            Reserved::New(run) | Reserved::Existing(run) => Ok(run),
        }
    }
}
