//! From declarations to a signed catalogue: which counts are due, drawing them, and storing the whole.

use std::{collections::BTreeMap, sync::Arc};

use chrono::NaiveDate;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sekisho_aggregation::accounting::Ceilings;
use sekisho_protocol::{
    catalogue::{Catalogue, Counts, DataSet as Described, STUDY, SchemaName, conforms},
    digest::Digest,
    dsse::{Document, DsseError, Envelope},
    refusal::{Code, Refusal},
    units::MicroRho,
};
use tokio::time::Instant;

use super::{Declaration, Draw, OwnCount, Shelf, own_count::Wanted, shelf::Signed};
use crate::{
    answer::{Answering, Question, Reading, served},
    holding::DataSet,
    ledger::{LedgerError, Run, RunState},
    store::StoreError,
};

/// Why no catalogue was published.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A count was not made.
    #[error("table {table} of {data_set} was not counted: {refusal}")]
    Count {
        /// The data set.
        data_set: String,
        /// The table.
        table: String,
        /// Why.
        refusal: Refusal,
    },
    /// The ledger.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogue breaks its own rules.
    #[error("{0}")]
    Document(#[from] DsseError),
    /// What was signed before cannot be read.
    #[error("the catalogue that was signed before cannot be read: {0}")]
    Before(DsseError),
    /// Another command published meanwhile.
    #[error("another command published meanwhile; look at it with `sekisho-node catalogue show`")]
    Raced,
}

/// What happens to the counts of one table at the next `publish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrawState {
    /// They were drawn on this day, and are used again: nothing is charged.
    Stored(NaiveDate),
    /// They were begun and not finished: the same draw goes on, on its charge if it was charged.
    Begun,
    /// They are due: a new draw is charged.
    Due,
    /// They were drawn of another schema and are not due: there are none until then.
    Other,
}

/// The counts of one table before a `publish`.
#[derive(Clone, Debug)]
pub struct TableDraft {
    /// The data set.
    pub data_set: String,
    /// The table.
    pub table: String,
    /// What happens to them.
    pub state: DrawState,
    /// What a new draw costs.
    pub micro_rho: MicroRho,
    counts: Option<Counts>,
    draw: Option<Draw>,
}

/// A catalogue as it would be published now, before anything is charged.
#[derive(Debug)]
pub struct Draft {
    /// The document; due counts are not in it.
    pub catalogue: Catalogue,
    /// Its tables of patients.
    pub tables: Vec<TableDraft>,
}

/// What was published.
#[derive(Debug)]
pub struct Published {
    /// The catalogue in force.
    pub catalogue: Catalogue,
    /// Its digest.
    pub digest: Digest,
    /// What was charged for it now.
    pub charged: MicroRho,
    /// False when nothing had changed: then the one before stays.
    pub fresh: bool,
}

/// A data set with its declaration.
type Declaring = (Arc<DataSet>, Declaration);

/// The catalogue as it would be published now. Nothing is charged.
///
/// # Errors
/// When it breaks its own rules, a question is not admitted, or the database fails.
pub async fn draft(node: &Answering, shelf: &Shelf, sets: &[Declaring]) -> Result<Draft, CatalogueError> {
    let mut tables = Vec::new();
    for (set, declaration) in sets {
        for (table, _) in declaration.counted() {
            tables.push(state(node, shelf, set, declaration, &table.name).await?);
        }
    }
    let counts = tables.iter().map(|t| ((t.data_set.clone(), t.table.clone()), t.counts.clone())).collect();
    let catalogue = document(node, shelf, sets, &counts).await?;
    catalogue.check().map_err(|reason| DsseError::Malformed { name: Catalogue::NAME, reason })?;
    Ok(Draft { catalogue, tables })
}

async fn state(
    node: &Answering,
    shelf: &Shelf,
    set: &DataSet,
    declaration: &Declaration,
    table: &str,
) -> Result<TableDraft, CatalogueError> {
    let data_set = set.mapping().id().to_string();
    let draw = shelf.draw(&data_set, table).await?;
    let (mut state, mut counts) = (DrawState::Due, None);
    if let Some(draw) = &draw {
        let run = node.ledger.find(&draw.question.key()).await?;
        counts = run.as_ref().and_then(|run| counts_of(set, &draw.question, run));
        let age = node.clock.today().signed_duration_since(draw.begun_on).num_days();
        // A clock that was put back makes nothing due.
        if age < i64::from(declaration.redraw_days()) {
            let unfinished = !matches!(run, Some(Run { state: RunState::Released(_), .. }));
            let same = draw.question.permit().schema == set.schema().digest();
            state = match &counts {
                Some(counts) => DrawState::Stored(counts.drawn_on),
                None if unfinished && same => DrawState::Begun,
                None => DrawState::Other,
            };
        }
    }
    Ok(TableDraft { data_set, table: table.into(), state, micro_rho: declaration.micro_rho(), counts, draw })
}

/// What a released run says; none of a run that has no release, or is of another schema.
fn counts_of(set: &DataSet, question: &OwnCount, run: &Run) -> Option<Counts> {
    let RunState::Released(stored) = &run.state else { return None };
    let plan = question.plan(set.schema()).ok()?;
    question.counts(&plan, &served(stored).ok()?.release)
}

/// Draws the counts that are due, and signs and stores the catalogue with the next number. Without any change the one before
/// stays.
///
/// # Errors
/// When a declaration breaks the rules (then nothing was charged), a count is not made, or the database fails. Whatever was
/// charged is used when the command is run again.
pub async fn publish(node: &Arc<Answering>, shelf: &Shelf, sets: &[Declaring]) -> Result<Published, CatalogueError> {
    let draft = draft(node, shelf, sets).await?;
    let total = sets.iter().fold(MicroRho::ZERO, |sum, (_, declaration)| sum.saturating_add(declaration.total()));
    if draft.tables.iter().any(|t| matches!(t.state, DrawState::Due | DrawState::Begun)) {
        node.ledger.earmark(STUDY, total).await?;
    }
    let (mut counts, mut charged) = (BTreeMap::new(), MicroRho::ZERO);
    for table in draft.tables {
        let key = (table.data_set.clone(), table.table.clone());
        let drawn = match table.state {
            DrawState::Stored(_) | DrawState::Other => table.counts,
            DrawState::Due | DrawState::Begun => {
                let (found, cost) = drawn(node, shelf, sets, &table, total).await.map_err(|error| match error {
                    DrawError::Refused(refusal) => {
                        CatalogueError::Count { data_set: key.0.clone(), table: key.1.clone(), refusal }
                    }
                    DrawError::Store(error) => error.into(),
                })?;
                charged = charged.saturating_add(cost);
                Some(found)
            }
        };
        counts.insert(key, drawn);
        node.hooks.at("catalogue_counted");
    }
    let catalogue = document(node, shelf, sets, &counts).await?;
    if let Some((before, digest)) = newest(shelf).await? {
        let same = Catalogue { seq: before.seq, prev: before.prev, issued: before.issued, ..catalogue.clone() };
        if same == before {
            return Ok(Published { catalogue: before, digest, charged, fresh: false });
        }
    }
    let envelope = Envelope::sign(&catalogue, &[&node.signing])?;
    let digest = envelope.peek::<Catalogue>()?.1;
    let signed = Signed { seq: catalogue.seq, digest, envelope: envelope.to_json() };
    if !shelf.put(&signed, catalogue.issued).await? {
        return Err(CatalogueError::Raced);
    }
    node.hooks.at("catalogue_published");
    Ok(Published { catalogue, digest, charged, fresh: true })
}

async fn newest(shelf: &Shelf) -> Result<Option<(Catalogue, Digest)>, CatalogueError> {
    let Some(signed) = shelf.signed(shelf.newest_seq().await?).await? else { return Ok(None) };
    let read = Envelope::from_json::<Catalogue>(&signed.envelope).and_then(|envelope| envelope.peek::<Catalogue>());
    read.map(Some).map_err(CatalogueError::Before)
}

/// The document that follows the newest one, with these counts.
async fn document(
    node: &Answering,
    shelf: &Shelf,
    sets: &[Declaring],
    counts: &BTreeMap<(String, String), Option<Counts>>,
) -> Result<Catalogue, CatalogueError> {
    let name = |set: &DataSet| {
        let schema = set.schema();
        SchemaName { digest: schema.digest(), id: schema.id.clone(), version: schema.version }
    };
    let mut schemas: Vec<(SchemaName, &DataSet)> = Vec::new();
    for (set, _) in sets {
        if schemas.iter().all(|(known, _)| known.digest != set.schema().digest()) {
            schemas.push((name(set), set));
        }
    }
    let described = sets.iter().map(|(set, declaration)| {
        let id = set.mapping().id().to_string();
        let tables = declaration.entries(|table| counts.get(&(id.clone(), table.into())).cloned().flatten());
        let conforms = schemas.iter().map(|(name, set)| conforms(&tables, name.clone(), set.schema())).collect();
        Described {
            synthetic: set.synthetic(),
            schema: name(set),
            redraw_days: declaration.redraw_days(),
            declared: declaration.declared().clone(),
            id,
            tables,
            conforms,
        }
    });
    let before = newest(shelf).await?;
    Ok(Catalogue {
        node: node.trust.name.clone(),
        seq: before.as_ref().map_or(1, |(catalogue, _)| catalogue.seq + 1),
        prev: before.map(|(_, digest)| digest),
        issued: node.clock.now(),
        data_sets: described.collect(),
    })
}

enum DrawError {
    Refused(Refusal),
    Store(StoreError),
}

impl From<Refusal> for DrawError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<LedgerError> for DrawError {
    fn from(error: LedgerError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<StoreError> for DrawError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Draws the counts of one table, or goes on with the draw that was begun; returns them with what was charged now.
async fn drawn(
    node: &Arc<Answering>,
    shelf: &Shelf,
    sets: &[Declaring],
    table: &TableDraft,
    total: MicroRho,
) -> Result<(Counts, MicroRho), DrawError> {
    let lost = |what: &str| Refusal::new(Code::Unavailable, what);
    let of = |set: &Declaring| set.0.mapping().id() == table.data_set;
    let (set, declaration) = sets.iter().find(|set| of(set)).ok_or_else(|| lost("no such data set"))?;
    let entry = declaration.counted().find(|(entry, _)| entry.name == table.table);
    let (entry, counted) = entry.ok_or_else(|| lost("no such table"))?;
    let (mut nonce, now) = ([0; 16], node.clock.now());
    ChaCha20Rng::from_os_rng().fill_bytes(&mut nonce);
    let wanted = Wanted {
        node: &node.trust.name,
        schema: set.schema().digest(),
        data_set: &table.data_set,
        table: &table.table,
        patient: entry.patient.as_deref().unwrap_or_default(),
        counted,
        optout: node.own_rule,
        micro_rho: table.micro_rho,
        total,
        nonce,
        now,
    };
    if table.state == DrawState::Due {
        // What would be refused is refused before it is written down as begun.
        check(node, set, table.micro_rho)?;
        OwnCount::new(&wanted, 1).plan(set.schema())?;
    }
    let draw = match (&table.state, &table.draw) {
        (DrawState::Begun, Some(draw)) => draw.clone(),
        (_, before) => {
            let (after, day) = (before.as_ref().map(|draw| draw.number), node.clock.today());
            let begun = shelf.begin(&table.data_set, &table.table, after, day, |draw| OwnCount::new(&wanted, draw));
            begun.await?
        }
    };
    node.hooks.at("catalogue_begun");
    let question = draw.question;
    check(node, set, question.query().micro_rho)?;
    let slot = node.slots.take(STUDY, node.patience()).await?;
    node.ledger.open(STUDY, question.key().permit).await?;
    let charged_before = node.ledger.find(&question.key()).await?.is_some();
    let plan = Arc::new(question.plan(set.schema())?);
    let snapshot = set.snapshot(plan.tables()).await?;
    let reading = Reading { plan: Arc::clone(&plan), data: Arc::clone(set), snapshot, slot };
    let asked = Arc::new(Question::own(&question, reading));
    let ended = node.charged(&asked, Instant::now() + node.timeout).await?;
    let answer = node.settle(&asked, ended).await?;
    let counts = question.counts(&plan, &answer.release).ok_or_else(|| lost("the release is of another plan"))?;
    let cost = if charged_before { MicroRho::ZERO } else { counts.micro_rho };
    Ok((counts, cost))
}

/// That the hospital's own caps and the ceilings allow a count of this price.
fn check(node: &Answering, set: &DataSet, micro_rho: MicroRho) -> Result<(), Refusal> {
    let ceilings = if set.synthetic() { Ceilings::SYNTHETIC } else { Ceilings::PATIENTS };
    ceilings.check_query(micro_rho).map_err(|e| Refusal::new(Code::BudgetQuery, e.to_string()))?;
    let most = node.trust.max_micro_rho_per_query;
    if micro_rho > most {
        let detail = format!("counts.micro_rho_per_table asks for {micro_rho}; this hospital allows {most} a query");
        return Err(Refusal::new(Code::Policy, detail));
    }
    Ok(())
}
