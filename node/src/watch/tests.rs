use std::sync::atomic::{AtomicI64, Ordering};

use sekisho_node_config::BudgetRule;
use sekisho_protocol::{
    digest::Digest,
    keys::SecretKey,
    log::entry::Kind,
    permit::{OptOut, OptOutRule},
    units::{AttoDelta, MicroRho},
};

use super::*;
use crate::{
    ledger::{COMMAND_LINE, Caps, ChargeRequest, Cost, Reserved, RunKey, Said, Suspended},
    store::Store,
};

/// The rules of these tests: three refusals in a minute, two runs without an answer in an hour, half of a study's budget or a
/// quarter of the lifetime's in an hour.
pub(crate) fn rules() -> Rules {
    let rule = |count, seconds, suspend| CountRule { count, window: Duration::from_secs(seconds), suspend };
    let budget =
        BudgetRule { study_percent: 50, lifetime_percent: 25, window: Duration::from_secs(3600), suspend: false };
    Rules {
        address: None,
        unexpected_peer: rule(1, 3600, false),
        refusals: rule(3, 60, false),
        no_answer: rule(2, 3600, false),
        budget,
    }
}

/// What an operator says.
fn said(at: DateTime<Utc>) -> Said<'static> {
    Said { by: COMMAND_LINE, reason: "under review", at }
}

#[derive(Clone, Default)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000 + self.0.load(Ordering::Relaxed), 0).unwrap()
    }
}

fn rho(amount: u64) -> MicroRho {
    amount.try_into().unwrap()
}

struct Case {
    _dir: tempfile::TempDir,
    store: Store,
    ledger: Ledger,
    clock: Hand,
    signing: Arc<Signing>,
    watch: Arc<Watch>,
}

impl Case {
    /// A lifetime cap of 1,000 micro-rho, of which 100 are set aside for `study` and 500 for `large`.
    async fn new(rules: Rules) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("node.db")).await.unwrap();
        let caps = Caps { lifetime: Cost { micro_rho: rho(1000), atto_delta: AttoDelta::ZERO }, window: None };
        let ledger = Ledger::new(store.clone(), caps);
        ledger.earmark("study", rho(100)).await.unwrap();
        ledger.earmark("large", rho(500)).await.unwrap();
        let (clock, signing) = (Hand::default(), Arc::new(Signing::from(SecretKey::generate(&mut rand::rng()))));
        let watch = open(rules, &ledger, &signing, &clock).await;
        Self { _dir: dir, store, ledger, clock, signing, watch }
    }

    /// The process is another one, on the same database.
    async fn restart(&mut self, rules: Rules) {
        self.watch = open(rules, &self.ledger, &self.signing, &self.clock).await;
    }

    /// The alerts, the oldest first: second, rule, study, observed, threshold, suspended.
    async fn alerts(&self) -> Vec<(i64, &'static str, Option<String>, u64, u64, bool)> {
        let read = |bytes: &Vec<u8>| {
            let envelope = Envelope::from_json::<Alert>(bytes).unwrap();
            let alert = envelope.verify::<Alert>(&[self.signing.public()], 1).unwrap().document().clone();
            assert_eq!(alert.node, "west");
            let second = alert.at.timestamp() - 1_750_000_000;
            (second, alert.rule.as_str(), alert.study_id, alert.observed, alert.threshold, alert.suspended)
        };
        let mut alerts: Vec<_> = self.ledger.alerts(1000).await.unwrap().iter().map(read).collect();
        alerts.reverse();
        alerts
    }

    async fn refuse(&self, second: i64, study: Option<&str>) {
        self.clock.set(second);
        self.watch.refused(Asked::Query, Code::SqlUnsupported, study).await;
    }

    /// Charges a run of a study this much now; it is answered, or not.
    async fn charge(&self, second: i64, study: &str, run: u32, micro_rho: u64, code: Option<Code>) {
        self.clock.set(second);
        let request = ChargeRequest {
            key: RunKey { permit: Digest::of(study.as_bytes()), query_key: Digest::of(b"q"), run },
            study_id: study.into(),
            permit_total: Cost { micro_rho: rho(1000), atto_delta: AttoDelta::ZERO },
            query: Digest::of(format!("{study} {run}").as_bytes()),
            nonce: format!("{study} {run}"),
            nonce_expires: self.clock.now() + TimeDelta::hours(1),
            cost: Cost { micro_rho: rho(micro_rho), atto_delta: AttoDelta::ZERO },
            register_seq: 0,
            as_of: self.clock.today(),
            snapshot: "s".into(),
            at: self.clock.now(),
            asked: crate::ledger::Asked {
                signed: false,
                query: b"{}".to_vec(),
                permit: b"{}".to_vec(),
                own_rule: OptOut { rule: OptOutRule::EuEhds, days: 0 },
            },
        };
        let Reserved::New(run) = self.ledger.reserve(&request, b"reservation").await.unwrap() else {
            panic!("charged")
        };
        if code.is_some() {
            self.ledger.fail(run.charge_id, b"refusal", self.clock.now()).await.unwrap();
        }
        self.watch.ended(study, code).await;
    }
}

async fn open(rules: Rules, ledger: &Ledger, signing: &Arc<Signing>, clock: &Hand) -> Arc<Watch> {
    Watch::open("west", rules, ledger.clone(), Arc::clone(signing), Arc::new(clock.clone())).await.unwrap()
}

fn alert(
    second: i64,
    rule: &'static str,
    study: Option<&str>,
    observed: u64,
    threshold: u64,
    suspended: bool,
) -> (i64, &'static str, Option<String>, u64, u64, bool) {
    (second, rule, study.map(str::to_owned), observed, threshold, suspended)
}

#[tokio::test]
async fn a_burst_of_refusals_is_one_alert_in_the_log_and_a_slow_trickle_is_none() {
    let case = Case::new(rules()).await;
    for second in [0, 30, 60, 90, 120] {
        case.refuse(second, Some("study")).await;
    }
    assert_eq!(case.alerts().await, []);
    // Each study has its own count, and so has what is in nobody's name.
    for study in [Some("study"), Some("large"), None] {
        case.refuse(140, study).await;
    }
    assert_eq!(case.alerts().await, [alert(140, "refusals", Some("study"), 3, 3, false)]);
    // It goes on: the rule has spoken, and the disk gets nothing more.
    for second in 141..700 {
        case.refuse(second, Some("study")).await;
    }
    assert_eq!(case.alerts().await.len(), 1);
    let mut log = case.ledger.log().entries(0, 10).await.unwrap();
    assert_eq!(log.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [Kind::Alert]);
    assert_eq!(log.remove(0).opened.unwrap().statement, case.ledger.alerts(1).await.unwrap()[0]);
    // After a while it speaks again.
    for second in 741..745 {
        case.refuse(second, Some("study")).await;
    }
    assert_eq!(case.alerts().await.len(), 2);
    assert!(!case.ledger.is_suspended("study").await.unwrap());
}

#[tokio::test]
async fn a_study_is_suspended_for_its_own_persons_refusals_alone_and_again_after_it_was_resumed() {
    let mut rules = rules();
    rules.refusals.suspend = true;
    let case = Case::new(rules).await;
    for second in 0..3 {
        case.refuse(second, None).await;
    }
    assert_eq!(case.alerts().await, [alert(2, "refusals", None, 3, 3, false)]);
    for second in 3..6 {
        case.refuse(second, Some("study")).await;
    }
    assert_eq!(case.alerts().await[1], alert(5, "refusals", Some("study"), 3, 3, true));
    let suspended = case.ledger.suspensions().await.unwrap().remove(0);
    assert_eq!((suspended.what, suspended.reason.as_str()), (Suspended::Study("study".into()), "alert: refusals"));
    // Whoever is resumed begins from nothing, and the quiet time does not protect the next burst.
    case.ledger.resume(&Suspended::Study("study".into()), &said(case.clock.now())).await.unwrap();
    case.refuse(6, Some("study")).await;
    case.refuse(7, Some("study")).await;
    assert!(!case.ledger.is_suspended("study").await.unwrap());
    case.refuse(8, Some("study")).await;
    assert!(case.ledger.is_suspended("study").await.unwrap());
    assert_eq!(case.alerts().await.len(), 3);
    // An operator's own suspension keeps its reason.
    let own = Suspended::Study("large".into());
    case.ledger.suspend(&own, &said(case.clock.now())).await.unwrap();
    for second in 9..12 {
        case.refuse(second, Some("large")).await;
    }
    assert!(case.ledger.suspensions().await.unwrap().iter().any(|s| s.what == own && s.reason == "under review"));
}

#[tokio::test]
async fn a_restart_goes_on_counting_where_it_was_written_down_and_what_was_told_is_not_told_again() {
    let mut case = Case::new(rules()).await;
    case.refuse(0, Some("study")).await;
    case.refuse(1, Some("study")).await;
    case.watch.write_down().await.unwrap();
    case.restart(rules()).await;
    case.refuse(2, Some("study")).await;
    assert_eq!(case.alerts().await, [alert(2, "refusals", Some("study"), 3, 3, false)]);
    case.watch.write_down().await.unwrap();
    assert_eq!(case.ledger.sightings().await.unwrap(), []);
    case.restart(rules()).await;
    for second in 3..9 {
        case.refuse(second, Some("study")).await;
    }
    assert_eq!(case.alerts().await.len(), 1, "the alert of before is known");
}

#[tokio::test]
async fn repeated_runs_without_an_answer_are_an_alert_within_the_window() {
    let mut rules = rules();
    rules.no_answer.suspend = true;
    let case = Case::new(rules).await;
    let none = Some(Code::NoAnswer);
    case.charge(0, "study", 1, 1, none).await;
    case.charge(3600, "study", 2, 1, none).await;
    assert_eq!(case.alerts().await, [], "the first one is out of the window");
    case.ledger.resume(&Suspended::Study("study".into()), &said(case.clock.now())).await.unwrap();
    case.charge(3601, "large", 1, 1, none).await;
    case.charge(7199, "study", 3, 1, none).await;
    assert_eq!(case.alerts().await, [alert(7199, "no_answer", Some("study"), 2, 2, true)]);
    assert!(case.ledger.is_suspended("study").await.unwrap());
}

#[tokio::test]
async fn a_budget_that_burns_fast_is_an_alert_for_the_study_and_for_the_lifetime() {
    let mut rules = rules();
    rules.budget.suspend = true;
    let case = Case::new(rules).await;
    case.charge(0, "study", 1, 49, None).await;
    case.charge(3600, "study", 2, 49, None).await;
    assert_eq!(case.alerts().await, [], "no hour had half of it");
    case.charge(3601, "study", 3, 1, None).await;
    assert_eq!(case.alerts().await, [alert(3601, "study_budget", Some("study"), 50, 50, true)]);
    // A quarter of all, by another study that is far from half of its own share; what is left is for nobody to suspend.
    case.charge(3602, "large", 1, 199, None).await;
    assert_eq!(case.alerts().await.len(), 1);
    case.charge(3603, "large", 2, 1, None).await;
    assert_eq!(case.alerts().await[1..], [alert(3603, "lifetime_budget", None, 250, 250, false)]);
    assert_eq!(case.ledger.suspensions().await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_hospitals_own_state_and_load_are_no_refusals_and_a_stranger_is_an_alert_at_once() {
    let case = Case::new(rules()).await;
    for code in [Code::Busy, Code::Unavailable, Code::Suspended, Code::StaleStatus, Code::PermitWaiting] {
        for _ in 0..3 {
            case.watch.refused(Asked::DryRun, code, Some("study")).await;
        }
    }
    assert_eq!(case.alerts().await, []);
    case.clock.set(7);
    case.watch.refused(Asked::Query, Code::NotOnRoster, Some("study")).await;
    case.watch.stranger().await;
    assert_eq!(case.alerts().await, [alert(7, "unexpected_peer", None, 1, 1, false)]);
}

#[tokio::test]
async fn a_day_has_its_most_alerts_and_a_suspension_comes_all_the_same() {
    let mut rules = rules();
    rules.refusals = CountRule { count: 1, window: Duration::from_secs(1), suspend: true };
    let case = Case::new(rules).await;
    let most = i64::try_from(rules::MAX_ALERTS_A_DAY).unwrap();
    for n in 0..most + 5 {
        case.refuse(n, Some(&format!("study-{n}"))).await;
    }
    assert_eq!(i64::try_from(case.alerts().await.len()).unwrap(), most);
    assert_eq!(i64::try_from(case.ledger.suspensions().await.unwrap().len()).unwrap(), most + 5);
    // A day after the first ones there is room again.
    case.refuse(86_400 + 2, Some("another")).await;
    assert_eq!(i64::try_from(case.alerts().await.len()).unwrap(), most + 1);
    let counted = case.watch.meters.registry().gather();
    let unrecorded = counted.iter().find(|f| f.name() == "sekisho_node_alerts_unrecorded_total").unwrap();
    let refusals = unrecorded.get_metric().iter().find(|m| m.get_label()[0].value() == "refusals").unwrap();
    assert_eq!(refusals.get_counter().get_value(), 5.0);
    case.store.close().await;
}
