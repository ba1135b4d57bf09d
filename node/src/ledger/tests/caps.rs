//! The window and delta.

use super::*;

const DAY: i64 = 86_400;

fn delta(atto: u64) -> AttoDelta {
    AttoDelta::try_from(atto).unwrap()
}

fn cost(micro_rho: u64, atto_delta: u64) -> Cost {
    Cost { micro_rho: rho(micro_rho), atto_delta: delta(atto_delta) }
}

/// Caps of so much rho and delta for ever, and of so much rho in so many days.
fn caps(lifetime: (u64, u64), window: Option<(u32, u64)>) -> Caps {
    let window = window.map(|(days, micro_rho)| Window { days, micro_rho: rho(micro_rho) });
    Caps { lifetime: cost(lifetime.0, lifetime.1), window }
}

/// Run `run` of study `study` at `at`, under a permit of this total delta.
fn priced(study: &str, run: u32, price: Cost, total_delta: u64, at: DateTime<Utc>) -> ChargeRequest {
    ChargeRequest {
        cost: price,
        permit_total: Cost { micro_rho: MicroRho::MAX, atto_delta: delta(total_delta) },
        at,
        nonce_expires: at + chrono::Duration::hours(1),
        ..request(study, 1, run, 1)
    }
}

#[tokio::test]
async fn a_window_is_of_all_studies_ends_now_and_frees_a_charge_after_exactly_its_days() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = capped(dir.path(), caps((1000, 0), Some((30, 100)))).await;
    for study in ["a", "b"] {
        ledger.earmark(study, rho(300)).await.unwrap();
    }
    let mut run = 0;
    let month = 30 * DAY;
    for (study, second, micro_rho, expect) in [
        ("a", 0, 60, "ok"),
        ("b", 10, 41, "window 40"),
        ("b", 10, 40, "ok"),
        ("a", 11, 1, "window 0"),
        ("a", month - 1, 1, "window 0"),
        // The first charge was 30 days ago, to the second; the other one ten seconds later.
        ("a", month, 61, "window 60"),
        ("a", month, 60, "ok"),
        ("b", month + 9, 1, "window 0"),
        ("b", month + 10, 40, "ok"),
    ] {
        run += 1;
        let request = priced(study, run, cost(micro_rho, 0), 0, at(second));
        let dry = told(ledger.check(study, request.permit_total, request.cost, request.at).await);
        assert_eq!(dry, expect, "{study} at {second}: {micro_rho}, dry");
        assert_eq!(told(reserve(&ledger, &request).await), expect, "{study} at {second}: {micro_rho}");
        let window = ledger.window(at(second)).await.unwrap().unwrap();
        assert_eq!(window.spent.get() + window.left().get(), 100);
    }
    assert_eq!(ledger.budget().await.unwrap().spent, rho(200), "the other caps count on");
    let spent = async |at| ledger.window(at).await.unwrap().unwrap().spent.get();
    assert_eq!(spent(at(2 * month) - chrono::Duration::nanoseconds(1)).await, 100);
    assert_eq!(spent(at(2 * month)).await, 40);
    assert_eq!(spent(at(2 * month + 10)).await, 0);
}

#[tokio::test]
async fn a_clock_that_is_put_back_frees_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = capped(dir.path(), caps((1000, 0), Some((1, 100)))).await;
    ledger.earmark("a", rho(1000)).await.unwrap();
    assert_eq!(told(reserve(&ledger, &priced("a", 1, cost(100, 0), 0, at(1000 * DAY))).await), "ok");
    for (run, second) in [(2, 1000 * DAY - 1), (3, 999 * DAY), (4, 500 * DAY), (5, 0), (6, -10_000 * DAY)] {
        assert_eq!(told(reserve(&ledger, &priced("a", run, cost(1, 0), 0, at(second))).await), "window 0");
    }
    // A window that begins before the calendar does.
    let ledger = Ledger::new(ledger.store, caps((1000, 0), Some((u32::MAX, 100))));
    assert_eq!(told(reserve(&ledger, &priced("a", 7, cost(1, 0), 0, at(2000 * DAY))).await), "window 0");
}

#[tokio::test]
async fn a_window_raises_no_other_cap_and_what_waiting_does_not_mend_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = capped(dir.path(), caps((150, 5), Some((1, 100)))).await;
    ledger.earmark("a", rho(120)).await.unwrap();
    ledger.earmark("b", rho(30)).await.unwrap();
    let ask =
        async |study: &str, run, price, second| told(reserve(&ledger, &priced(study, run, price, 9, at(second))).await);
    assert_eq!(ask("a", 1, cost(100, 0), 0).await, "ok");
    assert_eq!(ask("a", 2, cost(21, 0), 1).await, "study 20", "and the window is spent too");
    assert_eq!(ask("a", 2, cost(20, 6), 1).await, "lifetime delta 5", "and the window is spent too");
    assert_eq!(ask("a", 2, cost(20, 0), 1).await, "window 0");
    assert_eq!(ask("a", 2, cost(21, 0), DAY).await, "study 20", "a new window, the same study");
    assert_eq!(ask("a", 2, cost(20, 0), DAY).await, "ok");
    assert_eq!(ask("a", 3, cost(1, 0), 9 * DAY).await, "study 0");
    assert_eq!(ask("b", 1, cost(30, 0), 9 * DAY).await, "ok");
    let lower = Ledger::new(ledger.store.clone(), caps((149, 5), Some((1, 149))));
    let left = lower.check("b", cost(1000, 0), Cost::ZERO, at(99 * DAY)).await.unwrap();
    assert_eq!(left, Left { study: Cost::ZERO, lifetime: cost(0, 5), window: Some(rho(149)) });
}

#[tokio::test]
async fn a_studys_delta_is_its_permits_whatever_the_version_and_all_studies_fit_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = capped(dir.path(), caps((1000, 50), None)).await;
    for study in ["a", "b"] {
        ledger.earmark(study, rho(100)).await.unwrap();
    }
    let ask = async |study: &str, permit: &str, run, atto_delta, total| {
        let mut asked = priced(study, run, cost(1, atto_delta), total, at(0));
        asked.key.permit = Digest::of(permit.as_bytes());
        asked.nonce = format!("{permit} {run} {atto_delta}");
        told(reserve(&ledger, &asked).await)
    };
    assert_eq!(ask("a", "v1", 1, 1, 0).await, "study delta 0", "a permit without delta");
    assert_eq!(ask("a", "v1", 1, 31, 30).await, "study delta 30");
    assert_eq!(ask("a", "v1", 1, 20, 30).await, "ok");
    assert_eq!(ask("a", "v1", 2, 11, 30).await, "study delta 10");
    assert_eq!(ask("a", "v2", 1, 11, 30).await, "study delta 10", "a newer version resets nothing");
    assert_eq!(ask("a", "v3", 1, 1, 15).await, "study delta 0", "and may lower the total");
    assert_eq!(ask("a", "v4", 1, 12, 32).await, "ok");
    assert_eq!(ask("b", "b", 1, 19, 100).await, "lifetime delta 18");
    assert_eq!(ask("b", "b", 1, 18, 100).await, "ok");
    assert_eq!(ask("b", "b", 2, 1, 100).await, "lifetime delta 0");
    assert_eq!(ask("b", "b", 3, 0, 100).await, "ok", "without private keys");
    let budget = ledger.budget().await.unwrap();
    assert_eq!((budget.cap_delta, budget.spent_delta), (delta(50), delta(50)));
    let studies: Vec<_> = budget.studies.iter().map(|s| (s.study_id.as_str(), s.spent_delta.get())).collect();
    assert_eq!(studies, [("a", 32), ("b", 18)]);
}

/// A charge as the model knows it: rho and delta in `cost`.
struct Charged {
    study: &'static str,
    at: i64,
    cost: (u64, u64),
}

/// The first cap that `new` would pass, from every charge anew.
fn verdict(charges: &[Charged], caps: &Caps, earmark: u64, total_delta: u64, new: &Charged) -> &'static str {
    let window = caps.window.unwrap();
    let (mut study, mut all, mut recent) = (new.cost, new.cost, new.cost.0);
    for charge in charges {
        let (rho, delta) = charge.cost;
        all = (all.0 + rho, all.1 + delta);
        if charge.study == new.study {
            study = (study.0 + rho, study.1 + delta);
        }
        if new.at - charge.at < i64::from(window.days) * DAY {
            recent += rho;
        }
    }
    let passed = [
        (study.0 > earmark, "study"),
        (study.1 > total_delta, "study delta"),
        (all.0 > caps.lifetime.micro_rho.get(), "lifetime"),
        (all.1 > caps.lifetime.atto_delta.get(), "lifetime delta"),
        (recent > window.micro_rho.get(), "window"),
    ];
    passed.into_iter().find(|(passed, _)| *passed).map_or("ok", |(_, cap)| cap)
}

/// Random charges at random instants, the clock put back at times, against a model. Counts what was said in `said`.
async fn a_random_calendar(seed: u64, said: &mut BTreeMap<&'static str, u32>) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let days = rng.random_range(1..40);
    let caps = caps((rng.random_range(200..1500), rng.random_range(0..200)), Some((days, rng.random_range(20..200))));
    let window = i64::from(days) * DAY;
    let mut ledger = capped(dir.path(), caps).await;
    let (mut charges, mut now) = (Vec::new(), 0_i64);
    let studies = ["a", "b", "c"]
        .map(|study| (study, caps.lifetime.micro_rho.get() / rng.random_range(3..9), rng.random_range(0..150)));
    for (study, earmark, _) in studies {
        ledger.earmark(study, rho(earmark)).await.unwrap();
    }
    for run in 1..150 {
        now += match rng.random_range(0..8) {
            0 => -rng.random_range(0..3 * window),
            1 => window,
            _ => rng.random_range(0..window / 2),
        };
        let (study, earmark, total_delta) = studies[rng.random_range(0..3)];
        let cost = (rng.random_range(1..40), rng.random_range(0..2) * rng.random_range(0..20));
        let new = Charged { study, at: now, cost };
        let expect = verdict(&charges, &caps, earmark, total_delta, &new);
        let request = priced(study, run, self::cost(cost.0, cost.1), total_delta, at(now));
        let dry = told(ledger.check(study, request.permit_total, request.cost, request.at).await);
        let found = told(reserve(&ledger, &request).await);
        assert_eq!(dry, found, "seed {seed}, run {run}");
        assert_eq!(found.trim_end_matches(|c: char| c.is_ascii_digit() || c == ' '), expect, "seed {seed}, run {run}");
        *said.entry(expect).or_default() += 1;
        if expect == "ok" {
            charges.push(new);
        }
        if rng.random_range(0..20) == 0 {
            ledger.store.close().await;
            ledger = capped(dir.path(), caps).await;
        }
    }
    // Whatever the order was: the days before any charge hold at most the window's cap.
    for end in charges.iter().map(|c| c.at) {
        let spent: u64 = charges.iter().filter(|c| c.at <= end && end - c.at < window).map(|c| c.cost.0).sum();
        assert!(spent <= caps.window.unwrap().micro_rho.get(), "seed {seed}: {spent} in the days before {end}");
    }
    let budget = ledger.budget().await.unwrap();
    assert_eq!(budget.spent.get(), charges.iter().map(|c| c.cost.0).sum::<u64>());
    assert_eq!(budget.spent_delta.get(), charges.iter().map(|c| c.cost.1).sum::<u64>());
    assert!(budget.spent <= budget.cap && budget.spent_delta <= budget.cap_delta, "seed {seed}: {budget:?}");
}

#[tokio::test]
async fn no_sequence_of_charges_and_instants_passes_a_cap_in_any_window() {
    let mut said = BTreeMap::new();
    for seed in 0..12 {
        a_random_calendar(seed, &mut said).await;
    }
    // Earmarks fit the lifetime cap of rho, so that a study's own refuses first.
    for verdict in ["ok", "study", "study delta", "lifetime delta", "window"] {
        assert!(said.get(verdict).is_some_and(|times| *times > 10), "{verdict} is hardly tried: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forty_tasks_at_once_pass_neither_the_window_nor_the_delta() {
    for (caps, fit) in [(caps((1000, 1000), Some((1, 100))), 10), (caps((1000, 7), None), 7)] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = capped(dir.path(), caps).await;
        ledger.earmark("a", rho(1000)).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for run in 1..=40 {
            let ledger = ledger.clone();
            let request = priced("a", run, cost(10, 1), 1000, at(run.into()));
            tasks.spawn(async move { reserve(&ledger, &request).await.is_ok() });
        }
        assert_eq!(tasks.join_all().await.iter().filter(|paid| **paid).count(), fit);
    }
}
