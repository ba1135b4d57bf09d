mod caps;
mod exact;
mod write_off;

use std::{collections::BTreeMap, path::Path};

use chrono::NaiveDate;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha12Rng;
use sekisho_protocol::{
    digest::Digest,
    permit::{OptOut, OptOutRule},
    refusal::{Code, Refusal},
};

use super::*;

fn rho(micro_rho: u64) -> MicroRho {
    MicroRho::try_from(micro_rho).unwrap()
}

/// The totals of a permit that allows no delta.
fn total(micro_rho: MicroRho) -> Cost {
    Cost { micro_rho, ..Cost::ZERO }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + second, 0).unwrap()
}

/// What a person says.
fn said() -> Said<'static> {
    Said { by: COMMAND_LINE, reason: "why", at: at(0) }
}

/// Run `run` of question `question`, asked by a message of its own.
fn request(study: &str, question: u64, run: u32, micro_rho: u64) -> ChargeRequest {
    let message = format!("{study} {question} {run}");
    ChargeRequest {
        key: RunKey { permit: Digest::of(study.as_bytes()), query_key: Digest::of(&question.to_be_bytes()), run },
        study_id: study.into(),
        permit_total: total(MicroRho::MAX),
        query: Digest::of(message.as_bytes()),
        nonce: message.clone(),
        nonce_expires: at(60),
        cost: Cost { micro_rho: rho(micro_rho), ..Cost::ZERO },
        register_seq: 7,
        as_of: NaiveDate::from_ymd_opt(2025, 6, 15).unwrap(),
        snapshot: "snapshot-1".into(),
        asked: asked(&message),
        at: at(0),
    }
}

fn asked(message: &str) -> Asked {
    let own_rule = OptOut { rule: OptOutRule::EuEhds, days: 0 };
    Asked { signed: true, query: message.into(), permit: b"permit".into(), own_rule }
}

fn sealed() -> SealedSeed {
    SealedSeed { key: Digest::of(b"key"), nonce: [1; 24], sealed: [2; 48] }
}

fn release() -> StoredRelease {
    StoredRelease {
        header: b"header".into(),
        cells: b"cells".into(),
        receipt: b"receipt".into(),
        salts: b"salts".into(),
    }
}

async fn ledger(dir: &Path, cap: u64) -> Ledger {
    capped(dir, Caps { lifetime: total(rho(cap)), window: None }).await
}

async fn capped(dir: &Path, caps: Caps) -> Ledger {
    Ledger::new(Store::open(&dir.join("node.db")).await.unwrap(), caps)
}

async fn reserve(ledger: &Ledger, request: &ChargeRequest) -> Result<(bool, Run), LedgerError> {
    Ok(match ledger.reserve(request, b"reservation").await? {
        Reserved::New(run) => (true, run),
        Reserved::Existing(run) => (false, run),
    })
}

/// What a caller of `result` is told, and what it says is left.
fn told<T>(result: Result<T, LedgerError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(LedgerError::Study { left, .. }) => format!("study {}", left.get()),
        Err(LedgerError::Lifetime { left, .. }) => format!("lifetime {}", left.get()),
        Err(LedgerError::Window { left, .. }) => format!("window {}", left.get()),
        Err(LedgerError::StudyDelta { left, .. }) => format!("study delta {}", left.get()),
        Err(LedgerError::LifetimeDelta { left, .. }) => format!("lifetime delta {}", left.get()),
        Err(LedgerError::Suspended { what: Suspended::Study(study), reason }) => format!("suspended {study}: {reason}"),
        Err(LedgerError::Suspended { what: Suspended::Everything, reason }) => format!("suspended all: {reason}"),
        Err(LedgerError::Rests { study }) => format!("rests {study}"),
        Err(LedgerError::Permit(code)) => code.to_string(),
        Err(LedgerError::ReplayedNonce) => "nonce".into(),
        Err(LedgerError::AlreadyReleased) => "released".into(),
        Err(LedgerError::UnknownCharge) => "unknown".into(),
        Err(LedgerError::Lost) => "lost".into(),
        Err(LedgerError::Store(e)) => format!("store {e}"),
        Err(
            error @ (LedgerError::ManyWaiting { .. }
            | LedgerError::UnknownRequest(_)
            | LedgerError::Decided { .. }
            | LedgerError::OtherCohorts { .. }),
        ) => panic!("of exact results alone: {error}"),
    }
}

#[tokio::test]
async fn an_earmark_is_the_greatest_of_a_studys_permits_and_all_fit_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    for (study, amount, expect, earmark) in [
        ("a", 60, "ok", 60),
        ("a", 60, "ok", 60),
        ("a", 10, "ok", 60),
        ("b", 41, "lifetime 40", 0),
        ("b", 30, "ok", 30),
        ("a", 70, "ok", 70),
        ("a", 71, "lifetime 70", 70),
        ("b", 31, "lifetime 30", 30),
    ] {
        assert_eq!(told(ledger.earmark(study, rho(amount)).await), expect, "{study} {amount}");
        let found = ledger.budget().await.unwrap();
        let found = found.studies.iter().find(|s| s.study_id == study).map_or(0, |s| s.earmark.get());
        assert_eq!(found, earmark, "{study} {amount}");
    }
}

#[tokio::test]
async fn a_study_pays_from_its_earmark_and_a_run_pays_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    assert_eq!(told(reserve(&ledger, &request("a", 1, 1, 10)).await), "study 0", "no earmark");
    ledger.earmark("a", rho(25)).await.unwrap();
    let (new, run) = reserve(&ledger, &request("a", 1, 1, 10)).await.unwrap();
    assert!(new && run.state == RunState::Reserved && run.charged_at == at(0) && run.micro_rho == rho(10));
    assert_eq!(reserve(&ledger, &request("a", 1, 1, 10)).await.unwrap(), (false, run));
    assert!(reserve(&ledger, &request("a", 1, 2, 10)).await.unwrap().0, "a new run is charged");
    assert_eq!(told(reserve(&ledger, &request("a", 1, 3, 10)).await), "study 5");
    let check = async |cost| ledger.check("a", total(MicroRho::MAX), total(rho(cost)), at(0)).await;
    assert_eq!(told(check(6).await), "study 5");
    let left = Left { study: total(rho(5)), lifetime: total(rho(80)), window: None };
    assert_eq!(check(5).await.unwrap(), left);
    assert_eq!(ledger.log().len().await.unwrap(), 2);
}

#[tokio::test]
async fn a_newer_permit_with_a_lower_total_lowers_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(50)).await.unwrap();
    assert_eq!(told(reserve(&ledger, &request("a", 1, 1, 20)).await), "ok");
    for (total, left) in [(30, 10), (20, 0), (5, 0), (50, 30), (90, 30)] {
        let checked = ledger.check("a", self::total(rho(total)), Cost::ZERO, at(0)).await.unwrap();
        assert_eq!(checked.study.micro_rho, rho(left));
        let asked = ChargeRequest { permit_total: self::total(rho(total)), ..request("a", 2, 1, left + 1) };
        assert_eq!(told(reserve(&ledger, &asked).await), format!("study {left}"), "total {total}");
    }
    let asked = ChargeRequest { permit_total: total(rho(30)), ..request("a", 2, 1, 10) };
    assert_eq!(told(reserve(&ledger, &asked).await), "ok");
}

#[tokio::test]
async fn a_cap_that_was_lowered_binds_studies_that_were_promised_more() {
    let dir = tempfile::tempdir().unwrap();
    ledger(dir.path(), 100).await.earmark("a", rho(80)).await.unwrap();
    let ledger = ledger(dir.path(), 50).await;
    assert_eq!(told(reserve(&ledger, &request("a", 1, 1, 40)).await), "ok");
    assert_eq!(told(reserve(&ledger, &request("a", 1, 2, 40)).await), "lifetime 10");
    assert_eq!(told(ledger.earmark("a", rho(81)).await), "lifetime 50");
}

#[tokio::test]
async fn a_nonce_is_one_messages_until_that_message_is_stale() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(100)).await.unwrap();
    let first = request("a", 1, 1, 10);
    reserve(&ledger, &first).await.unwrap();
    assert_eq!(told(reserve(&ledger, &first).await), "ok", "the same message again");
    let mut other = request("a", 2, 1, 10);
    other.nonce = first.nonce.clone();
    assert_eq!(told(reserve(&ledger, &other).await), "nonce");
    assert_eq!(ledger.budget().await.unwrap().spent, rho(10), "a refusal costs nothing");
    other.at = at(59);
    assert_eq!(told(reserve(&ledger, &other).await), "nonce");
    other.at = at(60);
    other.nonce_expires = at(120);
    assert_eq!(told(reserve(&ledger, &other).await), "ok");
}

#[tokio::test]
async fn a_run_has_one_release_and_its_receipt_is_logged_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(100)).await.unwrap();
    let asked = request("a", 1, 1, 10);
    let (_, run) = reserve(&ledger, &asked).await.unwrap();
    ledger.complete(run.charge_id, &release(), &sealed()).await.unwrap();
    let other = StoredRelease { cells: b"other".into(), ..release() };
    assert_eq!(told(ledger.complete(run.charge_id, &other, &sealed()).await), "released");
    assert_eq!(told(ledger.fail(run.charge_id, b"refusal", at(1)).await), "released");
    assert_eq!(told(ledger.complete(99, &release(), &sealed()).await), "unknown");
    assert_eq!(ledger.find(&asked.key).await.unwrap().unwrap().state, RunState::Released(release()));
    let entries = ledger.log().entries(0, 10).await.unwrap();
    let entries = entries.into_iter().map(|e| (e.index, e.kind, e.opened.unwrap().statement));
    let expected = [(0, Kind::Reservation, b"reservation".to_vec()), (1, Kind::Receipt, b"receipt".to_vec())];
    assert_eq!(entries.collect::<Vec<_>>(), expected);
    assert_eq!(ledger.log().entries(1, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn three_missing_answers_suspend_a_study_whatever_lies_between_and_cost_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(100)).await.unwrap();
    let (mut run, permit) = (0, Digest::of(b"permit"));
    for (answered, suspended) in
        [(true, false), (false, false), (true, false), (false, false), (true, false), (false, true)]
    {
        run += 1;
        let (_, charged) = reserve(&ledger, &request("a", 1, run, 1)).await.unwrap();
        match answered {
            true => ledger.complete(charged.charge_id, &release(), &sealed()).await.unwrap(),
            false => ledger.fail(charged.charge_id, b"refusal", at(1)).await.unwrap(),
        }
        assert_eq!(ledger.open("a", permit).await.is_err(), suspended, "after run {run}");
    }
    assert_eq!(told(reserve(&ledger, &request("a", 1, 7, 1)).await), "rests a");
    assert_eq!(ledger.budget().await.unwrap().spent, rho(6));
    ledger.resume(&Suspended::Study("a".into()), &said()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(told(ledger.open("a", permit).await), "ok", "counted from nothing");
        run += 1;
        let (_, charged) = reserve(&ledger, &request("a", 1, run, 1)).await.unwrap();
        ledger.fail(charged.charge_id, b"refusal", at(1)).await.unwrap();
    }
    assert_eq!(told(ledger.open("a", permit).await), "rests a");
    assert_eq!(told(ledger.open("nobody", permit).await), "ok");
}

#[tokio::test]
async fn what_is_suspended_is_charged_no_more_and_a_resumed_study_is() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    // The operator's command is another process.
    let operator = capped(dir.path(), Caps { lifetime: total(rho(100)), window: None }).await;
    for study in ["a", "b"] {
        ledger.earmark(study, rho(50)).await.unwrap();
    }
    let (a, everything) = (Suspended::Study("a".into()), Suspended::Everything);
    let mut run = 0;
    for (suspend, resume, of_a, of_b) in [
        (Some(&a), None, "suspended a: why", "ok"),
        (Some(&everything), None, "suspended all: why", "suspended all: why"),
        (None, Some(&everything), "suspended a: why", "ok"),
        (Some(&everything), Some(&a), "suspended all: why", "suspended all: why"),
        (None, Some(&everything), "ok", "ok"),
    ] {
        if let Some(what) = suspend {
            operator.suspend(what, &said()).await.unwrap();
        }
        if let Some(what) = resume {
            operator.resume(what, &said()).await.unwrap();
        }
        run += 1;
        for (study, expect) in [("a", of_a), ("b", of_b)] {
            assert_eq!(told(ledger.open(study, Digest::of(study.as_bytes())).await), expect);
            assert_eq!(told(reserve(&ledger, &request(study, 1, run, 1)).await), expect, "{suspend:?} {resume:?}");
        }
    }
    assert!(operator.suspensions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_charge_is_reserved_after_a_suspension_returned() {
    let dir = tempfile::tempdir().unwrap();
    let node = ledger(dir.path(), 1_000_000).await;
    let operator = capped(dir.path(), Caps { lifetime: total(rho(1_000_000)), window: None }).await;
    node.earmark("a", rho(1_000_000)).await.unwrap();
    let mut asking = Vec::new();
    for question in 0..4 {
        let node = node.clone();
        asking.push(tokio::spawn(async move {
            let mut run = 1;
            while reserve(&node, &request("a", question, run, 1)).await.is_ok() {
                run += 1;
            }
            run
        }));
    }
    while node.log().len().await.unwrap() < 20 {
        tokio::task::yield_now().await;
    }
    operator.suspend(&Suspended::Study("a".into()), &said()).await.unwrap();
    let then = node.log().len().await.unwrap();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(node.log().len().await.unwrap(), then);
}

#[tokio::test]
async fn an_earmark_that_is_given_back_covers_what_was_spent_and_serves_others() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(80)).await.unwrap();
    reserve(&ledger, &request("a", 1, 1, 10)).await.unwrap();
    assert_eq!(told(ledger.earmark("b", rho(90)).await), "lifetime 20");
    ledger.give_back("a").await.unwrap();
    ledger.give_back("nobody").await.unwrap();
    ledger.earmark("b", rho(90)).await.unwrap();
    assert_eq!(told(reserve(&ledger, &request("a", 1, 2, 1)).await), "study 0");
    assert_eq!(told(ledger.earmark("a", rho(11)).await), "lifetime 10");
}

#[tokio::test]
async fn what_a_run_is_made_again_from_is_of_its_charge_and_its_release_and_of_no_later_message() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(50)).await.unwrap();
    let first = request("a", 1, 1, 10);
    let (_, run) = reserve(&ledger, &first).await.unwrap();
    assert_eq!(run.own_rule, Some(first.asked.own_rule));
    let kept = ledger.kept(1).await.unwrap().unwrap();
    assert_eq!((kept.charged.released, kept.charged.kept, kept.seed), (false, false, None));
    // The same run asked by another message, after the permit was signed by one more: what was charged stays.
    let other = ChargeRequest {
        query: Digest::of(b"other"),
        nonce: "other".into(),
        asked: Asked { permit: b"signed once more".into(), ..asked("other") },
        ..first.clone()
    };
    assert!(!reserve(&ledger, &other).await.unwrap().0);
    let next = ChargeRequest { asked: other.asked.clone(), ..request("a", 2, 1, 10) };
    assert!(reserve(&ledger, &next).await.unwrap().0);
    ledger.complete(1, &release(), &sealed()).await.unwrap();
    ledger.record_replay(1, b"replay", at(5)).await.unwrap();
    let kept = ledger.kept(1).await.unwrap().unwrap();
    assert_eq!((kept.asked.as_ref(), kept.seed.as_ref()), (Some(&first.asked), Some(&sealed())));
    assert_eq!((kept.charged.released, kept.charged.kept, kept.charged.replays), (true, true, 1));
    assert_eq!((kept.run.state, kept.logged), (RunState::Released(release()), true));
    let newest = ledger.log().entries(2, 9).await.unwrap().into_iter().map(|e| (e.kind, e.opened.unwrap().statement));
    let expected = [(Kind::Receipt, b"receipt".to_vec()), (Kind::Replay, b"replay".to_vec())];
    assert_eq!(newest.collect::<Vec<_>>(), expected);
    // A permit is stored once.
    assert_eq!(ledger.kept(2).await.unwrap().unwrap().asked.unwrap().permit, b"permit");
    assert_eq!(ledger.kept(3).await.unwrap(), None);
    let question = hex::encode(first.key.query_key.as_bytes());
    for (name, study, expect) in [
        (None, None, &[2, 1][..]),
        (None, Some("b"), &[]),
        (Some("1"), None, &[1]),
        (Some("3"), None, &[]),
        (Some(&*format!("{}/1", &question[..12])), None, &[1]),
        (Some(&format!("{}/2", &question[..12])), None, &[]),
    ] {
        let name = name.map(|name| name.parse().unwrap());
        let wanted = Which { study: study.map(str::to_owned), name, limit: 10 };
        let found: Vec<i64> = ledger.charges(&wanted).await.unwrap().iter().map(|c| c.charge_id).collect();
        assert_eq!(found, expect, "{wanted:?}");
    }
    assert_eq!(ledger.charges(&Which { limit: 1, ..Which::default() }).await.unwrap()[0].charge_id, 2);
}

#[tokio::test]
async fn the_database_refuses_tampering() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    ledger.earmark("a", rho(50)).await.unwrap();
    let (_, run) = reserve(&ledger, &request("a", 1, 1, 10)).await.unwrap();
    ledger.complete(run.charge_id, &release(), &sealed()).await.unwrap();
    ledger.record_replay(run.charge_id, b"replay", at(1)).await.unwrap();
    // A plain connection, without the settings of the store.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("node.db"));
    let tamper = sqlx::SqlitePool::connect_with(options).await.unwrap();
    for statement in [
        "DELETE FROM log_leaf",
        "UPDATE charge SET micro_rho = 1",
        "UPDATE charge SET atto_delta = 1",
        "UPDATE charge SET run = 2",
        "DELETE FROM charge",
        "INSERT OR REPLACE INTO charge SELECT charge_id, permit, query_key, run, study_id, query, 1, atto_delta, \
            register_seq, as_of, snapshot, charged_at FROM charge",
        "INSERT OR REPLACE INTO charge SELECT 2, permit, query_key, run, study_id, query, 1, atto_delta, \
            register_seq, as_of, snapshot, charged_at FROM charge",
        "INSERT INTO charge SELECT 2, permit, query_key, 2, study_id, query, 41, atto_delta, \
            register_seq, as_of, snapshot, charged_at FROM charge",
        "INSERT INTO charge SELECT 2, permit, query_key, 2, study_id, query, 0, atto_delta, \
            register_seq, as_of, snapshot, charged_at FROM charge",
        "UPDATE release SET cells = x'00'",
        "DELETE FROM release",
        "INSERT OR REPLACE INTO release VALUES (1, x'00', x'00', x'00', x'00')",
        "UPDATE asked SET query = x'00'",
        "DELETE FROM asked",
        "INSERT OR REPLACE INTO asked SELECT charge_id, 0, x'00', own_rule FROM asked",
        "UPDATE asked_permit SET document = x'00'",
        "DELETE FROM asked_permit",
        "INSERT OR REPLACE INTO asked_permit SELECT digest, x'00' FROM asked_permit",
        "UPDATE release_seed SET sealed = zeroblob(48)",
        "DELETE FROM release_seed",
        "INSERT OR REPLACE INTO release_seed SELECT charge_id, key, nonce, zeroblob(48) FROM release_seed",
        "UPDATE replay SET at = ''",
        "DELETE FROM replay",
        "UPDATE study SET earmark = 5",
        "UPDATE study SET spent = 9",
        "UPDATE charge_day SET micro_rho = 9",
        "DELETE FROM charge_day",
        "DELETE FROM study",
        "INSERT OR REPLACE INTO study (study_id, earmark) VALUES ('a', 0)",
    ] {
        assert!(sqlx::query(statement).execute(&tamper).await.is_err(), "{statement}");
    }
    assert_eq!(ledger.budget().await.unwrap().spent, rho(10));
}

#[tokio::test]
async fn a_ledger_that_is_reopened_knows_everything() {
    let dir = tempfile::tempdir().unwrap();
    let first = ledger(dir.path(), 100).await;
    first.earmark("a", rho(50)).await.unwrap();
    let asked = request("a", 1, 1, 10);
    let (_, run) = reserve(&first, &asked).await.unwrap();
    first.complete(run.charge_id, &release(), &sealed()).await.unwrap();
    let (_, failed) = reserve(&first, &request("a", 1, 2, 10)).await.unwrap();
    first.fail(failed.charge_id, b"refusal", at(1)).await.unwrap();
    let (budget, log) = (first.budget().await.unwrap(), first.log().entries(0, 99).await.unwrap());
    first.store.close().await;
    let again = ledger(dir.path(), 100).await;
    assert_eq!(again.budget().await.unwrap(), budget);
    assert_eq!(again.log().entries(0, 99).await.unwrap(), log);
    assert_eq!(again.find(&asked.key).await.unwrap().unwrap().state, RunState::Released(release()));
    assert!(!reserve(&again, &asked).await.unwrap().0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_tasks_at_once_charge_each_run_once_and_never_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 1000).await;
    ledger.earmark("same", rho(500)).await.unwrap();
    ledger.earmark("different", rho(95)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..50 {
        let ledger = ledger.clone();
        tasks.spawn(async move {
            let mut same = request("same", 1, 1, 10);
            (same.query, same.nonce) = (Digest::of(&[task]), format!("nonce {task}"));
            let new = reserve(&ledger, &same).await.unwrap().0;
            let paid = reserve(&ledger, &request("different", 1, u32::from(task) + 1, 10)).await.is_ok();
            (new, paid)
        });
    }
    let done = tasks.join_all().await;
    assert_eq!(done.iter().filter(|(new, _)| *new).count(), 1);
    assert_eq!(done.iter().filter(|(_, paid)| *paid).count(), 9);
    let budget = ledger.budget().await.unwrap();
    assert_eq!((budget.spent, ledger.log().len().await.unwrap()), (rho(100), 10));
}

/// One sequence of random operations against a ledger and against a model of what it may hold.
async fn a_random_life(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let cap = rng.random_range(50..400);
    let mut ledger = ledger(dir.path(), cap).await;
    let mut runs: BTreeMap<(String, u64, u32), i64> = BTreeMap::new();
    let mut spent: BTreeMap<String, u64> = BTreeMap::new();
    for step in 0..120 {
        let study = ["a", "b", "c"][rng.random_range(0..3)];
        match rng.random_range(0..10) {
            0..2 => {
                let _ = ledger.earmark(study, rho(rng.random_range(0..cap))).await;
            }
            2..8 => {
                let (question, run) = (rng.random_range(0..4), rng.random_range(1..5));
                let mut asked = request(study, question, run, rng.random_range(1..60));
                asked.nonce = format!("{step}");
                match reserve(&ledger, &asked).await {
                    Ok((true, charged)) => {
                        *spent.entry(study.into()).or_default() += charged.micro_rho.get();
                        let before = runs.insert((study.into(), question, run), charged.charge_id);
                        assert_eq!(before, None, "seed {seed}: a run was charged twice");
                    }
                    Ok((false, charged)) => {
                        assert_eq!(runs.get(&(study.into(), question, run)), Some(&charged.charge_id));
                    }
                    Err(LedgerError::Study { .. } | LedgerError::Lifetime { .. }) => {}
                    Err(other) => panic!("seed {seed}: {other}"),
                }
            }
            8 => {
                let charge_id = rng.random_range(0..20);
                let _ = ledger.complete(charge_id, &release(), &sealed()).await;
                let _ = ledger.fail(charge_id, b"refusal", at(step)).await;
            }
            _ => {
                ledger.store.close().await;
                ledger = self::ledger(dir.path(), cap).await;
            }
        }
        let budget = ledger.budget().await.unwrap();
        assert!(budget.spent <= budget.earmarked && budget.earmarked <= budget.cap, "seed {seed}: {budget:?}");
        for study in &budget.studies {
            assert!(study.spent <= study.earmark, "seed {seed}: {study:?}");
            assert_eq!(study.spent.get(), spent.get(&study.study_id).copied().unwrap_or(0), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn no_sequence_of_operations_overspends() {
    for seed in 0..8 {
        a_random_life(seed).await;
    }
}

#[test]
fn a_refusal_has_the_code_of_its_cause_and_no_details_of_the_disk() {
    let path = "/secret/place".into();
    let io = std::io::Error::other("disk");
    for (error, code) in [
        (LedgerError::Study { left: rho(1), asked: rho(2) }, Code::BudgetStudy),
        (LedgerError::Lifetime { left: rho(1), asked: rho(2) }, Code::BudgetLifetime),
        (LedgerError::Window { left: rho(1), asked: rho(2), days: 30 }, Code::BudgetWindow),
        (LedgerError::StudyDelta { left: AttoDelta::ZERO, asked: AttoDelta::MAX }, Code::BudgetStudy),
        (LedgerError::LifetimeDelta { left: AttoDelta::ZERO, asked: AttoDelta::MAX }, Code::BudgetLifetime),
        (LedgerError::ReplayedNonce, Code::ReplayedNonce),
        (LedgerError::AlreadyReleased, Code::NoAnswer),
        (LedgerError::UnknownCharge, Code::NoAnswer),
        (LedgerError::Store(StoreError::File { path, source: io }), Code::Unavailable),
    ] {
        let refusal = Refusal::from(error);
        assert_eq!(refusal.code, code);
        assert!(!refusal.detail.contains("secret"));
    }
}

#[tokio::test]
async fn every_snapshot_that_a_run_is_bound_to_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = ledger(dir.path(), 100).await;
    assert!(ledger.snapshots().await.unwrap().is_empty());
    ledger.earmark("a", rho(100)).await.unwrap();
    for (run, snapshot) in [(1, "old"), (2, "old"), (3, "new")] {
        let request = ChargeRequest { snapshot: snapshot.into(), ..request("a", 1, run, 1) };
        let (_, run) = reserve(&ledger, &request).await.unwrap();
        if run.charge_id == 1 {
            ledger.complete(run.charge_id, &release(), &sealed()).await.unwrap();
        } else {
            ledger.fail(run.charge_id, b"refusal", at(1)).await.unwrap();
        }
    }
    let found = ledger.snapshots().await.unwrap();
    let found: Vec<_> = found.iter().map(|s| (s.snapshot.as_str(), s.runs, s.releases)).collect();
    assert_eq!(found, [("new", 1, 0), ("old", 2, 1)]);
}
