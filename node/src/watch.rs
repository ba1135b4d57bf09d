//! What is out of the ordinary: rules that speak at once, and the numbers that monitoring reads.
//!
//! Promises: when a rule speaks, an alert is in the ledger's log, signed, and where the configuration says so the study is
//! suspended, durably and in the same transaction; a rule that speaks often, or a day with many alerts, adds nothing to the
//! disk; a study is suspended only for what its own authorised persons sent, or for what was charged to it, so that neither
//! the coordinator nor a stranger can suspend one by sending rubbish in its name. Charges and runs without an answer are
//! counted in the ledger; refusals and strangers are counted in memory and written down every few seconds, so that a restart
//! forgets no more than that.
//!
//! Deliberately absent: anything of rows or patients, how long anything took, who asked.

mod meters;
mod recent;
mod rules;
mod scrape;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_node_config::{CountRule, Watch as Rules};
use sekisho_protocol::{
    alert::{Alert, Rule},
    catalogue,
    clock::Clock,
    dsse::{DsseError, Envelope},
    refusal::Code,
    transport::Network,
};
use tracing::warn;

pub use self::{recent::RefusedMessage, scrape::Scrape};

use self::{
    meters::Meters,
    recent::Recent,
    rules::{Before, Sightings, begin, follows, is_askers, share},
};
use crate::{
    keys::Signing,
    ledger::{Ledger, LedgerError, NewAlert, Sighted},
};

/// How often what was counted is written down.
const EVERY: Duration = Duration::from_secs(5);
/// For so long nothing more is said of a coordinator's log that forked: what was said has the evidence.
const FORKED: Duration = Duration::from_secs(86_400);
/// The most studies whose refusals are counted at once.
const MAX_STUDIES: usize = 1000;

/// What somebody asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer.
    Query,
    /// The price of one.
    DryRun,
}

/// Why a node is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An alert cannot be signed.
    #[error("an alert cannot be signed: {0}")]
    Sign(#[from] DsseError),
    /// A counter has no proper name.
    #[error("a metric: {0}")]
    Metric(#[from] prometheus::Error),
}

/// The events of one rule about one study.
type Key = (Rule, Option<String>);

/// What was counted, and of what the disk does not know yet.
#[derive(Default)]
struct Counted {
    sightings: BTreeMap<Key, Sightings>,
    unwritten: BTreeSet<Key>,
}

/// A rule that speaks.
struct Spoken {
    rule: Rule,
    study_id: Option<String>,
    observed: u64,
    threshold: u64,
    window: Duration,
    suspend: bool,
    evidence: Vec<Vec<u8>>,
}

/// Watches over one node.
pub struct Watch {
    name: String,
    rules: Rules,
    ledger: Ledger,
    signing: Arc<Signing>,
    clock: Arc<dyn Clock>,
    meters: Meters,
    counted: Mutex<Counted>,
    /// One alert after the other: what one looks at, the one before has written.
    turn: tokio::sync::Mutex<()>,
    reached: Mutex<Option<DateTime<Utc>>>,
    recent: Recent,
}

/// The coordinator is there, until this is dropped.
pub struct Reached<'a>(&'a Mutex<Option<DateTime<Utc>>>);

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        *lock(self.0) = None;
    }
}

impl Watch {
    /// Goes on from what the ledger holds.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn open(
        name: &str,
        rules: Rules,
        ledger: Ledger,
        signing: Arc<Signing>,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, WatchError> {
        let sightings = ledger.sightings().await?.into_iter();
        let sightings = sightings.map(|s| ((s.rule, s.study_id), Sightings::of(s.times))).collect();
        let counted = Mutex::new(Counted { sightings, unwritten: BTreeSet::new() });
        let meters = Meters::new()?;
        let (turn, reached, recent) = (tokio::sync::Mutex::default(), Mutex::default(), Recent::default());
        Ok(Arc::new(Self { name: name.into(), rules, ledger, signing, clock, meters, counted, turn, reached, recent }))
    }

    /// Says that the coordinator is there.
    pub fn reached(&self) -> Reached<'_> {
        *lock(&self.reached) = Some(self.clock.now());
        Reached(&self.reached)
    }

    /// Whether the coordinator is there: it speaks with this node on its control stream.
    pub fn is_reached(&self) -> bool {
        self.reached_since().is_some()
    }

    /// Since when the coordinator is there.
    pub fn reached_since(&self) -> Option<DateTime<Utc>> {
        *lock(&self.reached)
    }

    /// What was refused since the process began: the newest first, and no more than a bound.
    pub fn recently_refused(&self) -> Vec<RefusedMessage> {
        self.recent.newest_first()
    }

    /// A question was refused before anything was charged. `study` is the one in whose name an authorised person signed; none
    /// where that is not proven. The rule that speaks has acted when this returns, even if the caller goes away.
    pub async fn refused(self: &Arc<Self>, asked: Asked, code: Code, study: Option<&str>) {
        self.meters.asked(asked, Some(code));
        self.recent.add(RefusedMessage { at: self.clock.now(), asked, code, study_id: study.map(str::to_owned) });
        if code == Code::NotOnRoster {
            return self.stranger().await;
        }
        if is_askers(code) {
            let rule = self.rules.refusals;
            self.sighted(Rule::Refusals, study, &rule).await;
        }
    }

    /// Somebody else than the pinned coordinator was met.
    pub async fn stranger(self: &Arc<Self>) {
        self.sighted(Rule::UnexpectedPeer, None, &self.rules.unexpected_peer).await;
    }

    /// The coordinator signed checkpoints that do not continue one another: `evidence`, which goes into the log with the alert.
    pub async fn forked(self: &Arc<Self>, evidence: Vec<Vec<u8>>) {
        let spoken = Spoken {
            rule: Rule::ForkedLog,
            study_id: None,
            observed: 1,
            threshold: 1,
            window: FORKED,
            suspend: false,
            evidence,
        };
        self.speak(spoken).await;
    }

    /// A dry run was allowed.
    pub fn allowed(&self) {
        self.meters.asked(Asked::DryRun, None);
    }

    /// A query that was admitted is answered, or not. To be called when its answer may leave: what a rule does then tells
    /// nobody how long the query took.
    pub async fn ended(self: &Arc<Self>, study: &str, code: Option<Code>) {
        match code {
            None => self.meters.asked(Asked::Query, None),
            Some(Code::NoAnswer) => {
                self.meters.asked(Asked::Query, code);
                self.failed(study).await;
            }
            Some(code) => return self.refused(Asked::Query, code, Some(study)).await,
        }
        self.charged(study).await;
    }

    /// Writes down what was counted, for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = self.write_down().await {
                warn!(%error, "what the rules counted is not written down");
            }
        }
    }

    /// Takes note of each time that another party answers where the coordinator is dialled.
    pub async fn strangers(self: Arc<Self>, network: Network) {
        let mut strangers = network.strangers();
        while strangers.changed().await.is_ok() {
            strangers.borrow_and_update();
            self.stranger().await;
        }
    }

    /// Writes down what was counted since the last time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_down(&self) -> Result<(), LedgerError> {
        let sightings: Vec<Sighted> = {
            let mut counted = lock(&self.counted);
            let unwritten = std::mem::take(&mut counted.unwritten);
            let times = |key: &Key| counted.sightings.get(key).map(|s| s.times().collect()).unwrap_or_default();
            unwritten.iter().map(|key| Sighted { rule: key.0, study_id: key.1.clone(), times: times(key) }).collect()
        };
        if sightings.is_empty() { Ok(()) } else { self.ledger.keep_sightings(&sightings).await }
    }

    /// Counts an event, and speaks when there are enough.
    async fn sighted(self: &Arc<Self>, rule: Rule, study: Option<&str>, counts: &CountRule) {
        let (now, key) = (self.clock.now(), (rule, study.map(str::to_owned)));
        let enough = {
            let mut counted = lock(&self.counted);
            if counted.sightings.len() >= MAX_STUDIES && !counted.sightings.contains_key(&key) {
                self.make_room(&mut counted, now);
            }
            let enough = counted.sightings.entry(key.clone()).or_default().one_more(counts, now);
            counted.unwritten.insert(key);
            enough
        };
        let Some(observed) = enough else { return };
        self.speak(Spoken {
            rule,
            study_id: study.map(str::to_owned),
            observed,
            threshold: counts.count.into(),
            window: counts.window,
            suspend: counts.suspend,
            evidence: Vec::new(),
        })
        .await;
    }

    /// Forgets what is out of its window, and if that is nothing, everything that is not about a stranger.
    fn make_room(&self, counted: &mut Counted, now: DateTime<Utc>) {
        let before = counted.sightings.len();
        let gone = |(rule, _): &Key, seen: &Sightings| match rule {
            Rule::UnexpectedPeer => seen.is_over(&self.rules.unexpected_peer, now),
            Rule::Refusals => seen.is_over(&self.rules.refusals, now),
            Rule::NoAnswer | Rule::StudyBudget | Rule::LifetimeBudget | Rule::ForkedLog => true,
        };
        let Counted { sightings, unwritten } = counted;
        let mut retain = |keep: &dyn Fn(&Key, &Sightings) -> bool| {
            unwritten.extend(sightings.extract_if(.., |key, seen| !keep(key, seen)).map(|(key, _)| key));
            sightings.len()
        };
        if retain(&|key, seen| !gone(key, seen)) == before {
            retain(&|(rule, _), _| *rule == Rule::UnexpectedPeer);
        }
    }

    /// A charged run of a study had no answer.
    async fn failed(self: &Arc<Self>, study: &str) {
        let counts = self.rules.no_answer;
        let since = self.since(Rule::NoAnswer, Some(study), counts.window).await;
        let found = match since {
            Ok(since) => self.ledger.no_answers_after(study, since).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(observed) if observed >= u64::from(counts.count) => {
                let (study_id, threshold) = (Some(study.to_owned()), u64::from(counts.count));
                let CountRule { window, suspend, .. } = counts;
                let evidence = Vec::new();
                self.speak(Spoken { rule: Rule::NoAnswer, study_id, observed, threshold, window, suspend, evidence })
                    .await;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "runs without an answer were not looked at"),
        }
    }

    /// Something was charged to a study, or was before.
    async fn charged(self: &Arc<Self>, study: &str) {
        for (rule, study) in [(Rule::StudyBudget, Some(study)), (Rule::LifetimeBudget, None)] {
            match self.burns(rule, study).await {
                Ok(Some(spoken)) => self.speak(spoken).await,
                Ok(None) => {}
                Err(error) => warn!(%error, "budgets were not looked at"),
            }
        }
    }

    /// Whether a study, or without one all of them, spent too large a share.
    async fn burns(&self, rule: Rule, study: Option<&str>) -> Result<Option<Spoken>, LedgerError> {
        let budget = self.rules.budget;
        let (total, percent) = match study {
            // The hospital's own counts are spent at once, as it decided.
            Some(catalogue::STUDY) => return Ok(None),
            Some(study) => (self.ledger.earmarked(study).await?.unwrap_or_default(), budget.study_percent),
            None => (self.ledger.lifetime(), budget.lifetime_percent),
        };
        let since = self.since(rule, study, budget.window).await?;
        let (observed, threshold) = (self.ledger.charged_after(study, since).await?.get(), share(total, percent));
        Ok((observed >= threshold).then(|| Spoken {
            rule,
            study_id: study.map(str::to_owned),
            observed,
            threshold,
            window: budget.window,
            suspend: budget.suspend && study.is_some(),
            evidence: Vec::new(),
        }))
    }

    /// From when on events count: the window's beginning, or the last alert about the same.
    async fn since(&self, rule: Rule, study: Option<&str>, window: Duration) -> Result<DateTime<Utc>, LedgerError> {
        let begin = begin(window, self.clock.now());
        Ok(self.ledger.last_alert(rule, study).await?.map_or(begin, |last| last.max(begin)))
    }

    /// A rule speaks: a task of its own, so that whoever asked and went away stops nothing.
    async fn speak(self: &Arc<Self>, spoken: Spoken) {
        let watch = Arc::clone(self);
        let told = tokio::spawn(async move {
            if let Err(error) = watch.raise(&spoken).await {
                warn!(rule = spoken.rule.as_str(), %error, "an alert could not be written, or a study not suspended");
            }
        });
        if told.await.is_err() {
            warn!("an alert stopped");
        }
    }

    async fn raise(&self, spoken: &Spoken) -> Result<(), WatchError> {
        let _turn = self.turn.lock().await;
        let (now, study) = (self.clock.now(), spoken.study_id.as_deref());
        let open = match study {
            Some(study) if spoken.suspend => !self.ledger.is_suspended(study).await?,
            Some(_) | None => false,
        };
        let before = Before {
            last: self.ledger.last_alert(spoken.rule, study).await?,
            today: self.ledger.alerts_after(now.checked_sub_signed(TimeDelta::days(1)).unwrap_or(now)).await?,
            open,
        };
        let follows = follows(&before, spoken.window, now);
        let alert = Alert {
            node: self.name.clone(),
            rule: spoken.rule,
            study_id: spoken.study_id.clone(),
            observed: spoken.observed,
            threshold: spoken.threshold,
            window_s: spoken.window.as_secs(),
            suspended: follows.suspend,
            at: now,
        };
        let envelope = Envelope::sign(&alert, &[&self.signing])?.to_json();
        let new =
            NewAlert { rule: spoken.rule, study_id: study, at: now, envelope: &envelope, evidence: &spoken.evidence };
        let reason = format!("alert: {}", spoken.rule);
        let suspend = study.filter(|_| follows.suspend).map(|study| (study, reason.as_str(), now));
        if follows.alert || follows.suspend {
            self.ledger.raise(follows.alert.then_some(&new), suspend).await?;
            let Alert { observed, threshold, window_s, suspended, .. } = alert;
            warn!(rule = spoken.rule.as_str(), study, observed, threshold, window_s, suspended, "alert");
        }
        self.meters.spoke(spoken.rule, follows.alert, follows.suspend);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
