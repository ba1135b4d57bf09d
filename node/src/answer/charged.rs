//! From the charge to the release and its receipt.

use std::sync::Arc;

use chrono::NaiveDate;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::{
    release::Release,
    reservation::{Charge, Ledger as Charges, Reservation},
};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    permit::ReleaseKind,
    receipt::{Receipt, ReservationRecord},
    record::RefusalRecord,
    refusal::{Code, Refusal},
};
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, warn};

use super::{Answer, Answering, Question, Reading, SOFTWARE};
use crate::{
    data::snapshot::Snapshot,
    execute::execute,
    holding::tables,
    ledger::{Asked, ChargeRequest, Cost, Reserved, Run, RunKey, RunState, StoredRelease},
    seeds::{SealedSeed, Seed},
};

/// What opens a receipt's commitments, and these.
pub(crate) struct Commitments {
    pub(crate) salts: Vec<u8>,
    snapshot: Digest,
    register: Digest,
}

/// What a receipt is of.
pub(crate) struct Account<'a> {
    pub(crate) key: RunKey,
    pub(crate) study_id: &'a str,
    pub(crate) query: Digest,
    pub(crate) plan: Digest,
    pub(crate) cost: Cost,
    pub(crate) kind: ReleaseKind,
    pub(crate) synthetic: bool,
}

/// Why a run that was charged has no release: for the node's own log.
struct Failed(String);

/// How a question ended, of which nobody knows yet and nothing is written: when a run ended depends on data, and the
/// ledger's state and the log's size are seen by others.
pub(crate) struct Ended(How);

enum How {
    /// It is a run that was released before.
    Served(Box<Answer>),
    /// A release that is on no disk.
    Made(Box<Made>),
    /// It was charged, and there is no release.
    Failed { charge_id: i64, why: String },
}

struct Made {
    charge_id: i64,
    answer: Answer,
    stored: StoredRelease,
    sealed: SealedSeed,
}

impl Answering {
    /// Serves a stored release, or reserves, executes and adds noise, all before `deadline`. [`Answering::settle`] does the
    /// rest; a process that dies between the two runs again on the same charge, and nobody saw the release that was lost.
    pub(crate) async fn charged(
        self: &Arc<Self>,
        question: &Arc<Question>,
        deadline: Instant,
    ) -> Result<Ended, Refusal> {
        if let Some(Run { state: RunState::Released(stored), .. }) = self.ledger.find(&question.key).await? {
            return Ok(Ended(How::Served(Box::new(served(&stored)?))));
        }
        if question.reading.plan.exact().is_some() {
            // No run of one makes itself: a person here does.
            return Err(crate::exact::waiting());
        }
        let charges = Durable { answering: self, question, register_seq: self.register.seq().await? };
        let (plan, key) = (&question.reading.plan, question.key);
        let reservation = Reservation::make(plan, key.permit, key.query_key, key.run, &charges).await?;
        // From here on there is one code: a cause could tell of the data. A task of its own, so that a panic is one
        // cause more, and so is a run that never comes back to be told of its deadline.
        let charge_id = reservation.record().charge_id;
        let (node, asked) = (Arc::clone(self), Arc::clone(question));
        let mut run = tokio::spawn(async move { node.run(&asked, reservation).await }.in_current_span());
        let why = match timeout_at(deadline, &mut run).await {
            Ok(Ok(Ok(how))) => return Ok(Ended(how)),
            Ok(Ok(Err(Failed(why)))) => why,
            Ok(Err(_)) => "the run panicked".into(),
            Err(_) => {
                run.abort();
                "the time limit was reached".into()
            }
        };
        Ok(Ended(How::Failed { charge_id, why }))
    }

    /// Makes what a question ended in durable and part of the log: to be called when the answer may leave, and not before.
    ///
    /// # Errors
    /// `no_answer`.
    pub(crate) async fn settle(&self, question: &Question, ended: Ended) -> Result<Answer, Refusal> {
        let (charge_id, why) = match ended.0 {
            How::Served(answer) => return Ok(*answer),
            How::Made(made) => {
                let Made { charge_id, answer, stored, sealed } = *made;
                self.hooks.at("noised");
                match self.ledger.complete(charge_id, &stored, &sealed).await {
                    Ok(()) => {
                        self.hooks.at("released");
                        return Ok(answer);
                    }
                    Err(error) => (charge_id, error.to_string()),
                }
            }
            How::Failed { charge_id, why } => (charge_id, why),
        };
        warn!(why, "charged, and no answer");
        if let Err(error) = self.failed(charge_id, question).await {
            warn!(%error, "a query without an answer was not counted");
        }
        Err(Refusal::new(Code::NoAnswer, "the query was charged and has no answer"))
    }

    /// Counts and logs a charged run that gave no answer.
    async fn failed(&self, charge_id: i64, question: &Question) -> Result<(), Refusal> {
        let at = self.clock.now();
        let record = RefusalRecord {
            node: self.trust.name.clone(),
            permit: question.key.permit,
            query: question.query,
            query_key: question.key.query_key,
            run: question.key.run,
            code: Code::NoAnswer,
            at,
        };
        let entry = Envelope::sign(&record, &[&self.signing])?.to_json();
        Ok(self.ledger.fail(charge_id, &entry, at).await?)
    }

    async fn run(&self, question: &Question, reservation: Reservation<Run>) -> Result<How, Failed> {
        self.hooks.at("reserved");
        let run = reservation.record().clone();
        let failed = Failed;
        if let RunState::Released(stored) = &run.state {
            return served(stored).map(Box::new).map(How::Served).map_err(|e| failed(e.detail));
        }
        let Reading { plan, data, snapshot, _slot: _ } = &question.reading;
        // The hospital's own rule is fixed by the charge, as the day is.
        let rules = [question.optout, run.own_rule.unwrap_or(self.own_rule)];
        let kind = plan.patient_kind().ok_or_else(|| failed("patients of two types".into()))?;
        let eligible = self.register.eligible(kind, &rules, run.as_of, run.register_seq).await;
        let eligible = eligible.map_err(|_| failed("the register".into()))?;
        let snapshot = data.snapshot_of_run(snapshot, &run.snapshot).map_err(|e| failed(e.detail))?;
        let tables = tables(&snapshot, eligible, self.memory_bytes).map_err(|e| failed(e.to_string()))?;
        let raw = execute(plan, &reservation, &tables).await.map_err(|e| failed(e.to_string()))?;
        let (plan, charge, synthetic) = (Arc::clone(plan), reservation.charge().clone(), snapshot.synthetic());
        // Noise for many cells takes seconds of a processor: not on a thread that others wait for.
        let seed = Seed::draw().map_err(|e| failed(e.to_string()))?;
        let sealed = self.seeds.seal(&seed, &question.key).map_err(|e| failed(e.to_string()))?;
        let release = tokio::task::spawn_blocking(move || {
            Release::make(&plan, raw, &reservation, run.as_of, synthetic, &mut seed.generator())
        });
        let release = release.await.ok().flatten().ok_or_else(|| failed("no release could be made".into()))?;
        let commitments = self.commitments(&snapshot, run.register_seq).await;
        let commitments = commitments.map_err(|_| failed("the register".into()))?;
        let account = Account {
            key: question.key,
            study_id: &question.study_id,
            query: question.query,
            plan: question.reading.plan.digest(),
            cost: Cost { micro_rho: charge.micro_rho, atto_delta: charge.atto_delta },
            kind: ReleaseKind::Noised,
            synthetic,
        };
        let receipt = self.receipt(&account, &run, &release, &commitments).await;
        let receipt = receipt.map_err(|e| failed(e.detail))?;
        let (header, cells) = release.to_bytes();
        let stored = StoredRelease { header, cells, receipt: receipt.to_json(), salts: commitments.salts };
        let answer = Answer { release, receipt };
        Ok(How::Made(Box::new(Made { charge_id: run.charge_id, answer, stored, sealed })))
    }

    pub(crate) async fn commitments(&self, snapshot: &Snapshot, register_seq: i64) -> Result<Commitments, Refusal> {
        let mut salts = vec![0; 64];
        ChaCha20Rng::from_os_rng().fill_bytes(&mut salts);
        let register = self.register.commitment(register_seq).await?;
        let (snapshot, register) =
            (commitment(&salts[..32], snapshot.manifest_digest()), commitment(&salts[32..], register));
        Ok(Commitments { salts, snapshot, register })
    }

    /// The signed receipt of a release.
    pub(crate) async fn receipt(
        &self,
        of: &Account<'_>,
        run: &Run,
        release: &Release,
        commitments: &Commitments,
    ) -> Result<Envelope, Refusal> {
        let receipt = Receipt {
            node: self.trust.name.clone(),
            permit: of.key.permit,
            study_id: of.study_id.into(),
            query: of.query,
            query_key: of.key.query_key,
            run: of.key.run,
            plan: of.plan,
            micro_rho: of.cost.micro_rho,
            atto_delta: of.cost.atto_delta,
            synthetic: of.synthetic,
            snapshot_commitment: commitments.snapshot,
            register_commitment: commitments.register,
            as_of: run.as_of,
            release: release.digest(),
            software: SOFTWARE.into(),
            at: run.charged_at,
            release_kind: of.kind,
            exact_since: self.ledger.exact_since().await?,
        };
        Ok(Envelope::sign(&receipt, &[&self.signing])?)
    }
}

/// What a receipt says of a digest that depends on data.
pub(crate) fn commitment(salt: &[u8], what: Digest) -> Digest {
    Digest::of_parts(&[b"sekisho commitment v1", salt, what.as_bytes()])
}

pub(crate) fn served(stored: &StoredRelease) -> Result<Answer, Refusal> {
    let broken = || Refusal::new(Code::NoAnswer, "a stored release cannot be read");
    let release = Release::from_bytes(&stored.header, &stored.cells).map_err(|_| broken())?;
    let receipt = Envelope::from_json::<Receipt>(&stored.receipt).map_err(|_| broken())?;
    Ok(Answer { release, receipt })
}

/// The ledger as the reservation sees it: a charge with all that the run is bound to.
pub(super) struct Durable<'a> {
    pub(super) answering: &'a Answering,
    pub(super) question: &'a Question,
    pub(super) register_seq: i64,
}

impl Charges for Durable<'_> {
    type Record = Run;
    type Error = Refusal;

    async fn charge(&self, charge: &Charge) -> Result<Run, Refusal> {
        let (node, question) = (self.answering, self.question);
        let at = node.clock.now();
        let as_of: NaiveDate = node.clock.today();
        let record = ReservationRecord {
            node: node.trust.name.clone(),
            study_id: question.study_id.clone(),
            query: question.query,
            query_key: charge.query_key,
            run: charge.run,
            micro_rho: charge.micro_rho,
            atto_delta: charge.atto_delta,
            at,
        };
        let entry = Envelope::sign(&record, &[&node.signing])?.to_json();
        let request = ChargeRequest {
            key: RunKey { permit: charge.permit, query_key: charge.query_key, run: charge.run },
            study_id: question.study_id.clone(),
            permit_total: question.permit_total,
            query: question.query,
            nonce: question.nonce.clone(),
            nonce_expires: question.nonce_expires,
            cost: Cost { micro_rho: charge.micro_rho, atto_delta: charge.atto_delta },
            register_seq: self.register_seq,
            as_of,
            snapshot: question.reading.snapshot.id().to_string(),
            asked: Asked {
                signed: question.said.signed,
                query: question.said.query.clone(),
                permit: question.said.permit.clone(),
                own_rule: node.own_rule,
            },
            at,
        };
        match node.ledger.reserve(&request, &entry).await? {
            Reserved::New(run) | Reserved::Existing(run) => Ok(run),
        }
    }
}
