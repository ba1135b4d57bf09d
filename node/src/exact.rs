//! Exact results ("aggregated" releases): a person of the study asks, a person of the hospital looks and decides.
//!
//! A question whose permit lists it as aggregated never runs by itself: it is noted, and waits (`Answering::asked_exact`).
//! Somebody at the hospital looks at the table as it would leave ([`Answering::look`]) and lets it out ([`Answering::let_out`])
//! or refuses it ([`refuse`]), by the command line or the console: both do it here.
//!
//! Promises: what was permitted is verified again on that day; the guard ([`guard`]) and the record of cohort, decision, snapshot
//! and eligible day are one durable transaction, before a release is made; the release is stored with its receipt before
//! anybody is served it, and from then on served as every release is. Whoever is stopped between the two goes on from the
//! record, and there is one release. A person's no and the guard's no are the same code and words to whoever asked.
//!
//! Deliberately absent: hidden numbers (a table comes from `Preview` alone), a number of patients in any error, note or log,
//! and any way to release without a person.

pub mod guard;
mod record;
mod review;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    record::refuse,
    review::{Looked, Out, Shown},
};

use sekisho_aggregation::exact::HiddenWhy;
use sekisho_protocol::refusal::{Code, Refusal};
use tracing::info;

use crate::{
    answer::{Answering, Question},
    exact::guard::Close,
    execute::ExecuteError,
    ledger::{Decided, LedgerError, NewRequest, RunKey, RunState},
    seeds::NoRandomness,
};

/// How many digits the mark of a table has.
pub const MARK: usize = 12;

/// Why nothing was shown or decided.
#[derive(Debug, thiserror::Error)]
pub enum ExactError {
    /// The ledger: no such request, decided before, no database.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the asker would be told now: the permit does not hold any more, the study is suspended, the data are not there.
    #[error("it cannot be answered now: {0}")]
    Refused(#[from] Refusal),
    /// The guard says no; it is refused for ever.
    #[error("refused: {0}. It is refused for this run; a run on a later cut of the data is another question")]
    TooClose(Close),
    /// Somebody saw another table.
    #[error(
        "the table is another one than you looked at: data or opt-outs have changed since; look at it again / 表が確認時と異なります。もう一度確認してください"
    )]
    Changed,
    /// Another person, or another command, let it out meanwhile.
    #[error("it was let out by another command meanwhile; look at it again")]
    Meanwhile,
    /// The rows cannot be read.
    #[error("the rows cannot be read: {0}")]
    Execute(#[from] ExecuteError),
    /// Reading takes too long.
    #[error("reading the rows takes longer than limits.query_timeout_s")]
    Time,
    /// A step that should not fail.
    #[error("{0}")]
    Failed(&'static str),
}

impl From<NoRandomness> for ExactError {
    fn from(_: NoRandomness) -> Self {
        Self::Failed("the operating system gives no random numbers")
    }
}

/// What the asker hears while nobody has decided.
pub fn waiting() -> Refusal {
    Refusal::new(Code::ExactWaiting, "a person at this hospital looks at exact results before they leave")
}

/// What the asker hears for ever when a person, or the guard, has said no.
pub fn refused() -> Refusal {
    Refusal::new(Code::ExactRefused, "this hospital does not let this exact result out")
}

/// How many rows of a table are hidden and by which rule, in words.
pub fn hidden_in_words(why: &HiddenWhy) -> String {
    let HiddenWhy { rows, few, dominated, complementary } = *why;
    format!(
        "{} of {rows} rows are hidden: {few} for few patients, {dominated} for dominance, {complementary} to protect those",
        few + dominated + complementary
    )
}

impl Answering {
    /// That an exact result may be served: it was let out and made. Otherwise the question is noted, and waits.
    ///
    /// # Errors
    /// `exact_waiting`, `exact_refused`, `suspended`, `replayed_nonce`, `busy`.
    pub(crate) async fn asked_exact(&self, question: &Question) -> Result<(), Refusal> {
        match self.ledger.find(&question.key).await?.map(|run| run.state) {
            Some(RunState::Released(_)) => return Ok(()),
            Some(RunState::Lost) => return Err(LedgerError::Lost.into()),
            Some(RunState::Reserved) | None => {}
        }
        let new = NewRequest {
            key: question.key,
            study_id: &question.study_id,
            query: question.query,
            envelope: &question.said.query,
            nonce: &question.nonce,
            nonce_expires: question.nonce_expires,
            at: self.clock.now(),
        };
        match self.ledger.request_exact(&new).await? {
            None | Some(Decided::Released) => {
                info!("an exact result waits for a person: `sekisho-node exact list`");
                Err(waiting())
            }
            Some(Decided::Refused | Decided::TooClose) => Err(refused()),
        }
    }

    /// That an exact result was not refused, for a dry run: nothing is noted.
    ///
    /// # Errors
    /// `exact_refused`.
    pub(crate) async fn not_refused(&self, key: &RunKey) -> Result<(), Refusal> {
        match self.ledger.exact_decision(key).await?.flatten() {
            None | Some(Decided::Released) => Ok(()),
            Some(Decided::Refused | Decided::TooClose) => Err(refused()),
        }
    }
}
