//! One query at the node, from bytes to a release: verify → admit → plan → reserve → execute → release → log.
//!
//! Before the reservation nothing depends on data, so refusals are distinct. From the reservation on there is an answer
//! or `no_answer`, whatever the cause, a panic too, and it leaves at one of two times ([`Departure`]). A run has one
//! release for ever: it is stored, with its receipt, before it is sent, and served again free; a run that was charged
//! and not released is executed again on the same charge.
//!
//! Who asked what, and what became of it, is in the hospital's log, so that it sees probing; SQL and details are not.

mod charged;
mod question;
#[cfg(test)]
pub(crate) mod tests;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sekisho_aggregation::{plan::PrivatePlan, release::Release};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    dsse::Envelope,
    permit::OptOut,
    receipt::DryRun,
    refusal::{Code, Refusal},
};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, Span, field, info, info_span};

pub(crate) use self::{
    charged::{Account, commitment, served},
    question::{Question, Reading},
};
use crate::{
    catalogue::Shelf,
    departure::Departure,
    documents::{Documents, StoredPermit},
    guard::{AdmittedQuery, InForce, SignedQuery, Trust, VerifiedQuery},
    holding::DataSet,
    hooks::Hooks,
    keys::Signing,
    ledger::{Cost, Ledger, LedgerError, Run, RunState},
    log::Standing,
    policy::{Asked, DataFacts, Person, Policy},
    register::Register,
    seeds::SeedKey,
    slots::{RunLocks, Slot, Slots},
    watch::{self, Watch},
};

/// This node's software, as receipts name it.
pub const SOFTWARE: &str = concat!("sekisho-node ", env!("CARGO_PKG_VERSION"));
/// How long the analysis of one query may take.
const ANALYSIS: Duration = Duration::from_secs(10);

/// Everything that answering needs.
pub struct Answering {
    /// Whom the hospital trusts, and its own limits.
    pub trust: Trust,
    /// The hospital's own policy.
    pub policy: Policy,
    /// The hospital's own rule for its patients; the permit's holds as well.
    pub own_rule: OptOut,
    /// The privacy ledger.
    pub ledger: Ledger,
    /// The patient register.
    pub register: Register,
    /// Roster, status and permits.
    pub documents: Documents,
    /// The hospital's own catalogue.
    pub shelf: Shelf,
    /// The data sets with their snapshots.
    pub data: Vec<Arc<DataSet>>,
    /// Signs receipts, reservations and acceptances.
    pub signing: Arc<Signing>,
    /// Seals the seeds of noise.
    pub seeds: Arc<SeedKey>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long one query may take, from its arrival to its release.
    pub timeout: Duration,
    /// Memory of one execution in bytes.
    pub memory_bytes: usize,
    /// When answers leave.
    pub departure: Departure,
    /// How many queries run at once.
    pub slots: Arc<Slots>,
    /// Kill points of the tests.
    pub hooks: Hooks,
    /// One lock for each run.
    pub locks: RunLocks,
    /// Looks for what is out of the ordinary.
    pub watch: Arc<Watch>,
    /// Whether the log is as the coordinator saw it.
    pub standing: Standing,
}

/// A release with its receipt, as it leaves.
pub struct Answer {
    /// The noised cells.
    pub release: Release,
    /// The signed receipt.
    pub receipt: Envelope,
}

/// Why a message was refused before anything was charged.
struct Unready {
    refusal: Refusal,
    /// The study in whose name an authorised person signed it; none where that is not proven.
    study: Option<String>,
}

impl From<Refusal> for Unready {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, study: None }
    }
}

/// An admitted query with the plan that this node made of it.
struct Ready {
    admitted: Arc<AdmittedQuery>,
    question: Arc<Question>,
}

impl Answering {
    /// Answers a routed query. Whoever drops this future stops nothing that was charged.
    ///
    /// # Errors
    /// A refusal before the reservation; `no_answer` after it.
    pub async fn answer(self: &Arc<Self>, bytes: &[u8]) -> Result<Answer, Refusal> {
        let arrived = Instant::now();
        let span = asked("query");
        let ready = match self.ready(bytes).instrument(span.clone()).await {
            Ok(ready) => ready,
            Err(unready) => return Err(self.unready(&span, watch::Asked::Query, unready).await),
        };
        // An exact result that no person has let out is not made: no row is read, and the answer leaves at once.
        if ready.question.reading.plan.exact().is_some()
            && let Err(refusal) = self.asked_exact(&ready.question).instrument(span.clone()).await
        {
            let study = Some(ready.question.study_id.clone());
            return Err(self.unready(&span, watch::Asked::Query, Unready { refusal, study }).await);
        }
        let task = tokio::spawn(Arc::clone(self).locked(ready, arrived).instrument(span));
        match task.await {
            Ok(answer) => answer,
            Err(_) => {
                self.departure.wait(arrived).await;
                Err(Refusal::new(Code::NoAnswer, "the query stopped"))
            }
        }
    }

    /// A message is refused: the log and the rules hear of it.
    async fn unready(&self, span: &Span, asked: watch::Asked, unready: Unready) -> Refusal {
        let Unready { refusal, study } = unready;
        refused(span, &refusal);
        self.watch.refused(asked, refusal.code, study.as_deref()).instrument(span.clone()).await;
        refusal
    }

    /// Says whether a query would be answered, and its price; no row is touched and nothing is charged.
    ///
    /// # Errors
    /// The refusal that the query would meet before its reservation.
    pub async fn dry_run(&self, bytes: &[u8]) -> Result<DryRun, Refusal> {
        let span = asked("dry run");
        let report = async {
            let ready = self.ready(bytes).await?;
            let study = ready.admitted.permit().study_id.clone();
            let report = self.price(&ready).await;
            report.map_err(|refusal| Unready { refusal, study: Some(study) })
        };
        match report.instrument(span.clone()).await {
            Ok(report) => {
                self.watch.allowed();
                Ok(report)
            }
            Err(unready) => Err(self.unready(&span, watch::Asked::DryRun, unready).await),
        }
    }

    async fn price(&self, ready: &Ready) -> Result<DryRun, Refusal> {
        let run = self.ledger.find(&ready.question.key).await?;
        if run.as_ref().is_some_and(|run| run.state == RunState::Lost) {
            return Err(LedgerError::Lost.into());
        }
        if ready.question.reading.plan.exact().is_some() && run.is_none() {
            self.not_refused(&ready.question.key).await?;
        }
        let permit = ready.admitted.permit();
        let atto_delta = ready.admitted.query().terms.atto_delta;
        let price = Cost { micro_rho: ready.question.reading.plan.micro_rho(), atto_delta };
        let cost = if run.is_some() { Cost::ZERO } else { price };
        let total = Cost::total_of(&permit.dp);
        let left = self.ledger.check(&permit.study_id, total, cost, self.clock.now()).await?;
        let stored = matches!(run, Some(Run { state: RunState::Released(_), .. }));
        Ok(DryRun { micro_rho: cost.micro_rho, stored, study_left: left.study.micro_rho })
    }

    /// Verify, admit, plan: everything before the reservation. What is known of the asker is noted in the span.
    async fn ready(&self, bytes: &[u8]) -> Result<Ready, Unready> {
        let (now, span) = (self.clock.now(), Span::current());
        self.standing.check()?;
        let signed = SignedQuery::from_json(bytes)?;
        let digest = signed.permit()?;
        let in_force = InForce {
            roster: self.documents.roster(now).await?,
            status: self.documents.status(now).await?,
            committee: self.documents.committee_of(digest).await?,
            orders: self.documents.orders().await?,
        };
        span.record("permit", digest.short());
        let Some(stored) = self.documents.permit(digest).await? else {
            return Err(Refusal::new(Code::PermitUnknown, format!("no permit {} here", digest.short())).into());
        };
        span.record("study", field::debug(&stored.study_id));
        let verified = signed.verify(&stored.envelope()?, &self.trust, &in_force, now)?;
        span.record("person", field::debug(verified.person()));
        span.record("query", verified.query().key().short()).record("run", verified.query().run);
        let study = stored.study_id.clone();
        let ready = self.admitted(verified, &stored, &in_force, now).await;
        ready.map_err(|refusal| Unready { refusal, study: Some(study) })
    }

    /// Admit, plan: what the hospital says to a query that an authorised person signed.
    async fn admitted(
        &self,
        verified: VerifiedQuery,
        stored: &StoredPermit,
        in_force: &InForce,
        now: DateTime<Utc>,
    ) -> Result<Ready, Refusal> {
        if let Some(code) = stored.refused() {
            let detail = match (code, stored.reason.as_deref()) {
                (Code::PermitWaiting, _) => {
                    "a person at this hospital decides on the permit; nothing is answered before".into()
                }
                (_, Some(reason)) => format!("this hospital refused the permit: {reason}"),
                (_, None) => "this hospital refused the permit".into(),
            };
            return Err(Refusal::new(code, detail));
        }
        let slot = self.slots.take(&verified.permit().study_id)?;
        let data = self.data_for(verified.permit().schema)?;
        let admitted = Arc::new(verified.admit(&self.trust, &in_force.status, data.synthetic(), now)?);
        self.ledger.open(&admitted.permit().study_id, admitted.permit().digest()).await?;
        let plan = analyse(&admitted, &data, &slot).await?;
        for table in plan.tables() {
            let named = admitted.permit().table(table);
            if !named.is_some_and(|t| t.holder_nodes.contains(&self.trust.name)) {
                let detail = format!("the permit does not name {} for table {table}", self.trust.name);
                return Err(Refusal::new(Code::HolderNotPermitted, detail));
            }
        }
        let allowed = self.policy.allow(&asked_of(&admitted, &plan, &data))?;
        let snapshot = data.snapshot(plan.tables()).await?;
        let question = Question::admitted(&admitted, &allowed, Reading { plan, data, snapshot, _slot: slot });
        Ok(Ready { admitted, question: Arc::new(question) })
    }

    /// The data sets as the policy sees them, with the digest of the schema of each.
    pub(crate) fn held(&self) -> Vec<(Digest, DataFacts<'_>)> {
        self.data.iter().map(|set| (set.schema().digest(), set.facts())).collect()
    }

    pub(crate) fn data_for(&self, schema: Digest) -> Result<Arc<DataSet>, Refusal> {
        let found = self.data.iter().find(|d| d.schema().digest() == schema);
        found.cloned().ok_or_else(|| {
            Refusal::new(Code::SchemaMismatch, format!("no data here is mapped to schema {}", schema.short()))
        })
    }

    /// The charge and the run, under the run's lock, until the answer may leave; then what came of it becomes part of ledger
    /// and log. Lock and slot are held until then, so that nothing tells more of a run's time than its departure.
    async fn locked(self: Arc<Self>, ready: Ready, arrived: Instant) -> Result<Answer, Refusal> {
        let (question, deadline) = (ready.question, arrived + self.timeout);
        let lock = timeout_at(deadline, self.locks.of(question.key).lock_owned()).await;
        let ended = match &lock {
            Ok(_) => self.charged(&question, deadline).await,
            Err(_) => Err(Refusal::new(Code::Busy, "this run was asked for before, and is not done yet")),
        };
        self.departure.wait(arrived).await;
        let answer = match ended {
            Ok(ended) => self.settle(&question, ended).await,
            Err(refusal) => Err(refusal),
        };
        match &answer {
            Ok(_) => info!("answered"),
            Err(refusal) => refused(&Span::current(), refusal),
        }
        // Beside the answer, which waits for no rule.
        let (watch, study, code) =
            (Arc::clone(&self.watch), question.study_id.clone(), answer.as_ref().err().map(|refusal| refusal.code));
        tokio::spawn(async move { watch.ended(&study, code).await }.in_current_span());
        answer
    }
}

/// A span that names who asks what, as far as it is known.
fn asked(what: &'static str) -> Span {
    let empty = field::Empty;
    info_span!("asked", what, permit = empty, study = empty, person = empty, query = empty, run = empty)
}

fn refused(span: &Span, refusal: &Refusal) {
    span.in_scope(|| info!(code = %refusal.code, "not answered"));
}

/// An admitted query as the policy sees it.
fn asked_of(admitted: &AdmittedQuery, plan: &PrivatePlan, data: &DataSet) -> Asked {
    let person = admitted.person().map(|p| Person { id: p.id.clone(), role: p.role.clone() }).unwrap_or_default();
    Asked::new(admitted.permit(), person, plan, admitted.query().terms.atto_delta, data.facts())
}

/// The plan of an admitted query. The text is hostile, so it is read on a thread of its own that has a deep stack, for a
/// while; the slot is taken for as long as that thread works.
async fn analyse(
    admitted: &Arc<AdmittedQuery>,
    data: &Arc<DataSet>,
    slot: &Arc<Slot>,
) -> Result<Arc<PrivatePlan>, Refusal> {
    let (admitted, data, slot) = (Arc::clone(admitted), Arc::clone(data), Arc::clone(slot));
    let analysis = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        let query = admitted.query();
        PrivatePlan::analyse_with(&query.sql, data.schema(), admitted.permit(), query.micro_rho, &query.terms)
    });
    match timeout(ANALYSIS, analysis).await {
        Ok(Ok(plan)) => plan.map(Arc::new),
        Ok(Err(_)) => Err(Refusal::new(Code::Unavailable, "the analysis of the SQL stopped")),
        Err(_) => Err(Refusal::new(Code::Busy, "the analysis of the SQL takes too long")),
    }
}
