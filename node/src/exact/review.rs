//! A person looks at one exact result, and decides.

use std::{sync::Arc, time::Duration};

use chrono::NaiveDate;
use sekisho_aggregation::{
    exact::{Cohort, HiddenWhy, Preview, Reviewed},
    fold::RawCells,
    plan::PrivatePlan,
    release::Release,
};
use sekisho_protocol::{
    digest::Digest,
    disclosure::Rules,
    dsse::{Envelope, Verified},
    orders::obey,
    permit::{OptOut, Permit, ReleaseKind},
    query::Query,
    receipt::Receipt,
    refusal::{Code, Refusal},
    units::AttoDelta,
};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    ExactError,
    guard::{Candidate, Close},
    record::Desk,
};
use crate::{
    answer::{Account, Answering},
    data::snapshot::Snapshot,
    execute::execute_exact,
    guard::{gives, in_force},
    holding::{DataSet, tables},
    ledger::{Cost, ExactRequest, LedgerError, Run, RunState, Said, StoredRelease},
    policy::{Asked as Question, Person},
    released::Table,
    seeds::Seed,
    slots::Slot,
};

/// How long the analysis of the SQL may take.
const ANALYSIS: Duration = Duration::from_secs(10);

/// An exact result, as a person looks at it.
pub struct Looked {
    /// The request.
    pub request: ExactRequest,
    /// The SQL.
    pub sql: String,
    /// The permit, as ID/VERSION.
    pub permit: String,
    /// Who asked, by the permit's name.
    pub person: String,
    /// What it looks like, where there is something to decide.
    pub shown: Option<Shown>,
}

/// The table as it would leave.
pub struct Shown {
    /// Under which rules: the permit's preset, and the hospital's least number where it is higher.
    pub rules: Rules,
    /// The day of the snapshot.
    pub cut: NaiveDate,
    /// The day as of which patients are eligible.
    pub as_of: NaiveDate,
    /// Hidden rows are marked; nothing in it tells of one.
    pub table: Table,
    /// How many rows are hidden, and why.
    pub hidden: HiddenWhy,
    /// What the guard says; none when it would let it out.
    pub close: Option<Close>,
    /// It was let out before, and is not made yet.
    pub recorded: bool,
}

impl Shown {
    /// What tells this table from any other: it says that a person saw it.
    pub fn mark(&self) -> String {
        self.table.mark().short()
    }
}

/// An exact result that was let out.
pub struct Out {
    /// The number of the charge of nothing.
    pub charge_id: i64,
    /// The digest of the receipt.
    pub receipt: Digest,
    /// The day of the snapshot.
    pub cut: NaiveDate,
    /// The day as of which patients were eligible.
    pub as_of: NaiveDate,
    /// The table that leaves; none where another command made the release.
    pub table: Option<Table>,
}

/// A request that was verified again, with the plan that this node makes of it.
pub(super) struct Opened {
    pub(super) request: ExactRequest,
    pub(super) query: Query,
    pub(super) permit: Verified<Permit>,
    pub(super) permit_said: Vec<u8>,
    plan: Arc<PrivatePlan>,
    data: Arc<DataSet>,
    /// The permit's preset, with the hospital's least number of today.
    rules: Rules,
    _slot: Arc<Slot>,
}

/// What a run reads: of the record where there is one, and otherwise of now.
pub(super) struct Bound {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) register_seq: i64,
    pub(super) as_of: NaiveDate,
    pub(super) own_rule: OptOut,
    /// Never weaker than what the guard compared by.
    rules: Rules,
}

impl Bound {
    fn is_of(&self, run: &Run) -> bool {
        (self.snapshot.id(), self.register_seq, self.as_of) == (&*run.snapshot, run.register_seq, run.as_of)
            && run.own_rule == Some(self.own_rule)
    }

    fn cut(&self) -> NaiveDate {
        self.snapshot.taken_at().date_naive()
    }
}

/// What was read, and what would leave.
struct Read {
    raw: RawCells,
    cohort: Cohort,
    table: Table,
    hidden: HiddenWhy,
}

impl Answering {
    /// Shows a request. Where there is something to decide the rows are read, for the table as it would leave; nothing is
    /// written.
    ///
    /// # Errors
    /// When there is no such request, it would not be answered now, or the rows cannot be read.
    pub async fn look(&self, number: i64) -> Result<Looked, ExactError> {
        let request = self.request(number).await?;
        let envelope = Envelope::from_json::<Query>(&request.envelope).map_err(Refusal::from)?;
        let (query, _) = envelope.peek::<Query>().map_err(Refusal::from)?;
        let stored = self.documents.permit(request.key.permit).await?.ok_or_else(|| unknown(request.key.permit))?;
        let (permit, _) = stored.envelope()?.peek::<Permit>().map_err(Refusal::from)?;
        let person = permit.authorised_persons.iter().find(|p| envelope.key_ids().any(|id| id == p.key_fingerprint));
        let mut looked = Looked {
            sql: query.sql,
            permit: format!("{}/{}", permit.id, permit.version),
            person: person.map(|p| p.id.clone()).unwrap_or_default(),
            shown: None,
            request,
        };
        if !looked.request.is_open() {
            return Ok(looked);
        }
        let opened = self.opened(looked.request.clone()).await?;
        let (bound, recorded) = self.bound(&opened).await?;
        let read = self.read(&opened, &bound).await?;
        let close = match recorded {
            true => None,
            false => self.ledger.exact_verdict(&self.candidate(&opened, &bound, &read.cohort)).await?,
        };
        let (rules, cut, as_of) = (bound.rules, bound.cut(), bound.as_of);
        let Read { table, hidden, raw: _, cohort: _ } = read;
        looked.shown = Some(Shown { rules, cut, as_of, table, hidden, close, recorded });
        Ok(looked)
    }

    /// Lets an exact result out: guard, record, release, in this order. `seen` is the mark of the table that the person looked
    /// at: no other one leaves.
    ///
    /// # Errors
    /// Those of [`look`](Self::look); when the guard says no, which is recorded; when it was refused before. After
    /// [`ExactError::Meanwhile`] or a failure the request can be let out again, as it was recorded.
    pub async fn let_out(&self, number: i64, who: &str, said: Said<'_>, seen: &str) -> Result<Out, ExactError> {
        let opened = self.opened(self.request(number).await?).await?;
        let (bound, _) = self.bound(&opened).await?;
        let Read { raw, cohort, table, hidden: _ } = self.read(&opened, &bound).await?;
        if seen != table.mark().short() {
            return Err(ExactError::Changed);
        }
        self.hooks.at("exact_read");
        let (plan, key) = (Arc::clone(&opened.plan), opened.request.key);
        let desk = Desk { node: self, opened: &opened, bound: &bound, who, said };
        let reviewed = Reviewed::make(&plan, key.permit, key.query_key, key.run, &cohort, &desk).await?;
        self.hooks.at("exact_recorded");
        let run = reviewed.record().clone();
        let (cut, as_of) = (bound.cut(), bound.as_of);
        if let RunState::Released(stored) = &run.state {
            let receipt = receipt_of(stored)?;
            return Ok(Out { charge_id: run.charge_id, receipt, cut, as_of: run.as_of, table: None });
        }
        // Cells of another day or snapshot than was recorded do not leave.
        if !bound.is_of(&run) {
            return Err(ExactError::Meanwhile);
        }
        let seed = Seed::draw()?;
        let sealed = self.seeds.seal(&seed, &key)?;
        let (rules, synthetic) = (bound.rules, bound.snapshot.synthetic());
        let release = tokio::task::spawn_blocking(move || {
            Release::exact(&plan, raw, &reviewed, &rules, as_of, cut, synthetic, &mut seed.generator())
        });
        let release = release.await.ok().flatten().ok_or(ExactError::Failed("no release could be made"))?;
        let commitments = self.commitments(&bound.snapshot, run.register_seq).await?;
        let account = Account {
            key,
            study_id: &opened.request.study_id,
            query: opened.request.query,
            plan: opened.plan.digest(),
            cost: Cost::ZERO,
            kind: ReleaseKind::Aggregated,
            synthetic,
        };
        let receipt = self.receipt(&account, &run, &release, &commitments).await?;
        let (header, cells) = release.to_bytes();
        let stored = StoredRelease { header, cells, receipt: receipt.to_json(), salts: commitments.salts };
        self.hooks.at("exact_made");
        match self.ledger.complete(run.charge_id, &stored, &sealed).await {
            Ok(()) => {}
            // Another command was faster, on the same record.
            Err(LedgerError::AlreadyReleased) => return Err(ExactError::Meanwhile),
            Err(error) => return Err(error.into()),
        }
        self.hooks.at("released");
        info!(request = number, study = %opened.request.study_id, by = who, "an exact result was let out");
        Ok(Out { charge_id: run.charge_id, receipt: receipt_of(&stored)?, cut, as_of, table: Some(table) })
    }

    async fn request(&self, number: i64) -> Result<ExactRequest, ExactError> {
        Ok(self.ledger.exact_request(number).await?.ok_or(LedgerError::UnknownRequest(number))?)
    }

    /// Verifies again what was verified when it was asked: signatures, permit, status, orders, the hospital's answer and policy.
    async fn opened(&self, request: ExactRequest) -> Result<Opened, ExactError> {
        if !request.is_open() {
            let decision = request.decision.ok_or(ExactError::Failed("a request without a decision is open"))?;
            return Err(LedgerError::Decided { decision: Box::new(decision) }.into());
        }
        let now = self.clock.now();
        self.standing.check()?;
        let least = self.trust.exact_min_patients;
        gives(ReleaseKind::Aggregated, least)?;
        let stored = self.documents.permit(request.key.permit).await?.ok_or_else(|| unknown(request.key.permit))?;
        if let Some(code) = stored.refused() {
            return Err(Refusal::new(code, "this hospital does not answer under the permit").into());
        }
        let (status, permit_said) = (self.documents.status(now).await?, stored.envelope()?.to_json());
        let permit = self.documents.believe_permit(&permit_said, &status).await?;
        in_force(&permit, &status, now)?;
        let orders = self.documents.orders().await?;
        obey(orders.iter().map(Verified::document), &self.trust.concern(&permit), now)?;
        self.ledger.open(&request.study_id, request.key.permit).await?;
        let envelope = Envelope::from_json::<Query>(&request.envelope).map_err(Refusal::from)?;
        let keys: Vec<_> = permit.authorised_persons.iter().map(|person| person.key).collect();
        let query = envelope.verify::<Query>(&keys, 1).map_err(Refusal::from)?;
        let signer = permit.authorised_persons.iter().find(|p| query.signers().contains(&p.key_fingerprint));
        let person = signer.map(|p| Person { id: p.id.clone(), role: p.role.clone() }).unwrap_or_default();
        let slot = self.slots.take(&request.study_id, self.patience()).await?;
        let data = self.data_for(permit.schema)?;
        let plan = planned(&query, &permit, &data).await?;
        let rules = plan.exact().ok_or(ExactError::Failed("the permit does not list the query as aggregated"))?;
        let rules = rules.with_at_least(least.unwrap_or(u32::MAX));
        self.policy.allow(&Question::new(&permit, person, &plan, AttoDelta::ZERO, data.facts()))?;
        let query = query.document().clone();
        Ok(Opened { request, query, permit, permit_said, plan, data, rules, _slot: slot })
    }

    /// What the run reads, and whether that was recorded before.
    async fn bound(&self, opened: &Opened) -> Result<(Bound, bool), ExactError> {
        let current = opened.data.snapshot(opened.plan.tables()).await;
        let Some(run) = self.ledger.find(&opened.request.key).await? else {
            let (register_seq, as_of) = (self.register.seq().await.map_err(Refusal::from)?, self.clock.today());
            let (own_rule, rules) = (self.own_rule, opened.rules);
            return Ok((Bound { snapshot: current?, register_seq, as_of, own_rule, rules }, false));
        };
        let recorded = self.ledger.exact_least(&opened.request.key).await?;
        let rules =
            opened.rules.with_at_least(recorded.ok_or(ExactError::Failed("the history does not have the run"))?);
        let held = match current {
            Ok(snapshot) => snapshot,
            // The source may have changed since: the run has its own snapshot.
            Err(_) => opened.data.held()?,
        };
        let snapshot = opened.data.snapshot_of_run(&held, &run.snapshot)?;
        let own_rule = run.own_rule.unwrap_or(self.own_rule);
        Ok((Bound { snapshot, register_seq: run.register_seq, as_of: run.as_of, own_rule, rules }, true))
    }

    /// Reads the rows, and keeps of them what would leave, the exact cells, and whom they are of.
    async fn read(&self, opened: &Opened, bound: &Bound) -> Result<Read, ExactError> {
        let plan = &opened.plan;
        let kind = plan.patient_kind().ok_or(ExactError::Failed("patients of two types"))?;
        let rules = [opened.permit.optout, bound.own_rule];
        let eligible = self.register.eligible(kind, &rules, bound.as_of, bound.register_seq).await;
        let eligible = eligible.map_err(Refusal::from)?;
        let tables = tables(&bound.snapshot, eligible, self.memory_bytes);
        let tables = tables.map_err(|_| ExactError::Failed("a table of the snapshot cannot be opened"))?;
        let raw = timeout(self.timeout, execute_exact(plan, &tables)).await.map_err(|_| ExactError::Time)??;
        let cohort = raw.cohort(&self.seeds.cohorts()).ok_or(ExactError::Failed("the plan is not exact"))?;
        let (of, rules) = (Arc::clone(plan), bound.rules);
        let made = tokio::task::spawn_blocking(move || Preview::of(&of, &raw, &rules).map(|preview| (raw, preview)));
        let made = made.await.ok().flatten();
        let (raw, preview) = made.ok_or(ExactError::Failed("no table can be made of the rows"))?;
        let table = Table::whole(plan, &preview).await;
        let table = table.inspect_err(|error| warn!(%error, "an exact table cannot be shown"));
        let table = table.map_err(|_| ExactError::Failed("the table cannot be shown"))?;
        Ok(Read { raw, cohort, table, hidden: preview.hidden_why() })
    }

    pub(super) fn candidate<'a>(&self, opened: &Opened, bound: &Bound, cohort: &'a Cohort) -> Candidate<'a> {
        Candidate {
            sql: Digest::of(opened.query.sql.as_bytes()),
            cut: bound.cut(),
            min_patients: bound.rules.min_patients,
            cohort,
            key: self.seeds.fingerprint(),
        }
    }
}

fn unknown(permit: Digest) -> Refusal {
    Refusal::new(Code::PermitUnknown, format!("no permit {} here", permit.short()))
}

/// The plan of a request. The text is hostile, as every question's is.
async fn planned(query: &Query, permit: &Permit, data: &Arc<DataSet>) -> Result<Arc<PrivatePlan>, Refusal> {
    let (query, permit, data) = (query.clone(), permit.clone(), Arc::clone(data));
    let analysis = tokio::task::spawn_blocking(move || {
        PrivatePlan::analyse_with(&query.sql, data.schema(), &permit, query.micro_rho, &query.terms)
    });
    match timeout(ANALYSIS, analysis).await {
        Ok(Ok(plan)) => plan.map(Arc::new),
        Ok(Err(_)) | Err(_) => Err(Refusal::new(Code::Busy, "the analysis of the SQL takes too long")),
    }
}

fn receipt_of(stored: &StoredRelease) -> Result<Digest, ExactError> {
    let envelope = Envelope::from_json::<Receipt>(&stored.receipt).map_err(Refusal::from)?;
    Ok(envelope.digest::<Receipt>().map_err(Refusal::from)?)
}
