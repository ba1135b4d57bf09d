//! How long permits, committees, keys and orders count, at their boundaries and with a given clock, against a node's own
//! code.

use std::{path::Path, sync::Arc};

use chrono::{DateTime, Duration, Utc};
use sekisho_node::permits;
use sekisho_protocol::{
    committee::{Committee, CommitteeMember},
    digest::Digest,
    dsse::{Document, Envelope},
    governance::Governance,
    keys::SecretKey,
    orders::{Entry, Orders, Target},
    permit::Permit,
    receipt::Acceptance,
    refusal::Code,
    roster::Roster,
    status::{PermitVersion, RevokedPermit, Status},
};
use sekisho_sim::solo::{NAME, Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};

const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex";

struct Case {
    solo: Solo,
    clock: TestClock,
    start: DateTime<Utc>,
    dir: tempfile::TempDir,
    runs: std::cell::Cell<u32>,
}

async fn case() -> Case {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let csv = dir.path().join("stay.csv");
    stays(&csv, &[(1, "female", 50, 3), (2, "male", 60, 5)]);
    let data = vec![(SCHEMA, mapping("set", &csv, true))];
    let plan = Plan { data, register_rule: "eu-ehds", register: None, budget: (10_000_000, 1_000_000) };
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(clock.clone())).await.unwrap();
    let start = solo.now();
    Case { solo, clock, start, dir, runs: std::cell::Cell::new(0) }
}

impl Case {
    fn permit(&self, study: &str) -> Permit {
        let permit = self.solo.permit(study, "stay", &COLUMNS, |p| {
            p["dp"]["micro_rho_per_query"] = 1000.into();
            p["dp"]["micro_rho_total"] = 50_000.into();
        });
        permit.unwrap()
    }

    /// Sets the clock to so many seconds after the start.
    fn at(&self, seconds: i64) {
        self.clock.pass(self.start + Duration::seconds(seconds) - self.solo.now());
    }

    /// What becomes of a new run under a permit.
    async fn ask(&self, permit: Digest) -> Result<(), Code> {
        self.runs.set(self.runs.get() + 1);
        let query = self.solo.query(permit, SQL, 1000, self.runs.get());
        self.solo.ask(&query).await.map(|_| ()).map_err(|refusal| refusal.code)
    }

    async fn put<D: Document>(&self, document: &D, keys: &[&SecretKey]) -> Result<(), Code> {
        self.solo.put(document, keys).await.map(|_| ()).map_err(|refusal| refusal.code)
    }

    async fn status(&self, seq: u64, change: impl FnOnce(&mut Status)) {
        let mut status = self.solo.status(seq);
        change(&mut status);
        self.put(&status, &[&self.solo.governance]).await.unwrap();
    }

    /// The code of the hospital's signed answer to a permit that these keys sign.
    async fn answer(&self, permit: &Permit, keys: &[&SecretKey]) -> Result<Option<Code>, Code> {
        let envelope = self.solo.put(permit, keys).await.map_err(|refusal| refusal.code)?.unwrap();
        Ok(envelope.peek::<Acceptance>().unwrap().0.refused)
    }

    fn orders(&self, seq: u64, entries: Vec<(Target, i64)>) -> Orders {
        let entry = |(target, seconds): (Target, i64)| Entry {
            target,
            reason: "an inspection".into(),
            expires: self.start + Duration::seconds(seconds),
        };
        let entries = entries.into_iter().map(entry).collect();
        Orders { regulator: "ministry".into(), seq, prev: None, issued: self.start, entries }
    }
}

fn key() -> SecretKey {
    SecretKey::generate(&mut rand::rng())
}

const HOUR: i64 = 3600;

#[tokio::test]
async fn a_permit_holds_from_its_first_second_to_before_its_last() {
    let case = case().await;
    let mut permit = case.permit("study");
    permit.validity.from = case.start + Duration::seconds(HOUR);
    permit.validity.to = case.start + Duration::seconds(2 * HOUR);
    let digest = case.solo.grant(&permit).await.unwrap();
    for (second, expect) in [
        (HOUR - 1, Err(Code::PermitNotYetValid)),
        (HOUR, Ok(())),
        (2 * HOUR - 1, Ok(())),
        (2 * HOUR, Err(Code::PermitExpired)),
    ] {
        case.at(second);
        assert_eq!(case.ask(digest).await, expect, "second {second}");
    }
}

#[tokio::test]
async fn a_permit_is_amended_suspended_resumed_revoked_and_the_status_runs_out() {
    let case = case().await;
    let first = case.permit("study");
    let one = case.solo.grant(&first).await.unwrap();
    assert_eq!(case.ask(one).await, Ok(()));
    let both = [&case.solo.committee[0], &case.solo.committee[1]];
    let next = |version, supersedes| Permit { version, supersedes, ..first.clone() };
    let elsewhere = Permit { study_id: "fresh-budget".into(), ..next(2, Some(one)) };
    for (fact, wrong, code) in [
        ("of nothing", next(2, None), Code::Supersession),
        ("of another", next(2, Some(Digest::of(b"?"))), Code::Supersession),
        ("with a gap, of the first", next(3, Some(one)), Code::Supersession),
        ("another first", next(1, Some(one)), Code::OlderDocument),
        ("for a study with a fresh budget", elsewhere, Code::Supersession),
    ] {
        assert_eq!(case.answer(&wrong, &both).await, Err(code), "{fact}");
    }
    let two = case.solo.grant(&next(2, Some(one))).await.unwrap();
    // The study's spending goes on: the first version's run is charged to the second's budget.
    assert_eq!(case.ask(two).await, Ok(()));
    let budget = case.solo.node.ledger.budget().await.unwrap();
    assert_eq!((budget.studies.len(), budget.studies[0].spent.get()), (1, 2000));
    case.status(3, |s| s.permit_versions = vec![PermitVersion { id: "study".into(), version: 2 }]).await;
    assert_eq!((case.ask(one).await, case.ask(two).await), (Err(Code::PermitSuperseded), Ok(())));
    case.status(5, |s| s.suspended_studies = vec!["study".into()]).await;
    assert_eq!(case.ask(two).await, Err(Code::Suspended));
    case.status(7, |_| {}).await;
    assert_eq!(case.ask(two).await, Ok(()));
    let revoked = RevokedPermit { permit: two, reason: "a test".into(), at: case.start };
    case.status(9, |s| s.revoked_permits = vec![revoked.clone()]).await;
    assert_eq!(case.ask(two).await, Err(Code::PermitRevoked));
    assert_eq!(case.put(&case.solo.status(8), &[&case.solo.governance]).await, Err(Code::OlderDocument));
    // Whoever keeps later statuses back keeps them back until this one expires.
    case.at(24 * HOUR - 1);
    assert_eq!(case.ask(two).await, Err(Code::PermitRevoked));
    case.at(24 * HOUR);
    assert_eq!(case.ask(two).await, Err(Code::StaleStatus));
}

#[tokio::test]
async fn a_committee_gives_way_and_what_it_signed_goes_on() {
    let case = case().await;
    let [a, b, c] = &case.solo.committee;
    let running = case.solo.grant(&case.permit("running")).await.unwrap();
    let (x, y) = (key(), key());
    let member =
        |name: &str, key: &SecretKey| CommitteeMember { name: name.into(), role: "ethicist".into(), key: key.public() };
    let committee = |seq, prev, members: Vec<CommitteeMember>| Committee {
        issued: Some(case.start),
        reason: "an election".into(),
        prev,
        seq,
        ..Committee::pinned(2, Vec::new(), false, members).unwrap()
    };
    // b leaves, x comes; in the one after it c leaves and y comes.
    let second = committee(1, None, vec![member("a", a), member("c", c), member("x", &x)]);
    let digest = Envelope::sign(&second, &[]).unwrap().peek::<Committee>().unwrap().1;
    let third = committee(2, Some(digest), vec![member("a", a), member("x", &x), member("y", &y)]);
    assert_eq!(case.put(&third, &[a, b]).await, Err(Code::OlderDocument), "with a gap");
    assert_eq!(case.put(&second, &[a, &x]).await, Err(Code::QuorumNotMet), "by the new one");
    assert_eq!(case.put(&second, &[a, b]).await, Ok(()));
    assert_eq!(case.put(&second, &[a, b]).await, Ok(()), "the same again");
    let rival = Committee { reason: "another".into(), ..second.clone() };
    assert_eq!(case.put(&rival, &[a, b]).await, Err(Code::OlderDocument));

    assert_eq!(case.ask(running).await, Ok(()), "a study goes on");
    assert_eq!(case.answer(&case.permit("running"), &[a, b]).await, Ok(None), "its permit is the same one");
    assert_eq!(
        case.answer(&case.permit("later"), &[a, b]).await,
        Err(Code::QuorumNotMet),
        "who left signs nothing new"
    );
    assert_eq!(case.answer(&case.permit("later"), &[a, &x]).await, Ok(None));
    assert_eq!(case.put(&third, &[a, b]).await, Err(Code::QuorumNotMet), "nor the committee after the next");
    assert_eq!(case.put(&third, &[c, &x]).await, Ok(()));

    // A key that was stolen does not count for anything it ever signed; the committee in force signs the permit anew.
    case.status(3, |s| s.void_keys = vec![b.public().fingerprint()]).await;
    assert_eq!(case.ask(running).await, Err(Code::QuorumNotMet));
    assert_eq!(case.answer(&case.permit("running"), &[a, &y]).await, Ok(None));
    assert_eq!(case.ask(running).await, Ok(()));
    let seqs = case.solo.node.documents.seqs().await.unwrap();
    assert_eq!(seqs.committee, 2);
}

#[tokio::test]
async fn a_regulators_order_is_obeyed_until_it_lapses_or_is_lifted() {
    let case = case().await;
    let permit = case.solo.grant(&case.permit("study")).await.unwrap();
    let peer = case.solo.coordinator_peer.clone();
    let regulator = &case.solo.regulator;
    let targets = [
        Target::Study("study".into()),
        Target::DataUser("solo".into()),
        Target::Holder(NAME.into()),
        Target::Coordinator(peer),
    ];
    // Numbers with gaps, so that no list names the one before.
    for (n, target) in targets.into_iter().enumerate() {
        let (seq, from) = (1 + 4 * n as u64, 2 * HOUR * n as i64);
        case.at(from);
        case.put(&case.orders(seq, vec![(target.clone(), from + HOUR)]), &[regulator]).await.unwrap();
        case.at(from + HOUR - 1);
        assert_eq!(case.ask(permit).await, Err(Code::RegulatorOrder), "{target}");
        let new = case.permit(&format!("new-{n}"));
        let hits_new = !matches!(target, Target::Study(_));
        let both = [&case.solo.committee[0], &case.solo.committee[1]];
        assert_eq!(case.answer(&new, &both).await, Ok(hits_new.then_some(Code::RegulatorOrder)), "{target}");
        case.at(from + HOUR);
        assert_eq!(case.ask(permit).await, Ok(()), "{target} has lapsed");
    }
    case.at(10 * HOUR);
    case.put(&case.orders(21, vec![(Target::Study("study".into()), 20 * HOUR)]), &[regulator]).await.unwrap();
    assert_eq!(case.ask(permit).await, Err(Code::RegulatorOrder));
    let older = case.orders(20, Vec::new());
    assert_eq!(case.put(&older, &[regulator]).await, Err(Code::OlderDocument), "an older list lifts nothing");
    let lifted = case.orders(23, Vec::new());
    assert_eq!(case.put(&lifted, &[&case.solo.governance]).await, Err(Code::QuorumNotMet), "nobody else lifts it");
    let other = Orders { regulator: "somebody".into(), ..case.orders(1, Vec::new()) };
    assert_eq!(case.put(&other, &[regulator]).await, Err(Code::NotAuthorised));
    case.put(&lifted, &[regulator]).await.unwrap();
    assert_eq!(case.ask(permit).await, Ok(()));
}

#[tokio::test]
async fn orders_that_the_coordinator_withholds_are_handed_in_by_hand_beside_the_running_node() {
    let case = case().await;
    let permit = case.solo.grant(&case.permit("study")).await.unwrap();
    let orders = case.orders(1, vec![(Target::Study("study".into()), HOUR)]);
    let file = case.dir.path().join("orders.dsse.json");
    std::fs::write(&file, Envelope::sign(&orders, &[&case.solo.regulator]).unwrap().to_json()).unwrap();
    let run = |args: &[&str]| {
        let config = case.dir.path().join("node/node.toml");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_party"))
            .args(["node"])
            .args(args)
            .args([Path::new("--config"), &config])
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(case.ask(permit).await, Ok(()));
    assert_eq!(run(&["orders", "put", file.to_str().unwrap()]), (true, "ministry 1: 1 entries\n".into()));
    assert_eq!(case.ask(permit).await, Err(Code::RegulatorOrder));
    let (shown, text) = run(&["orders", "show"]);
    assert!(shown && text.contains("study study") && text.contains("an inspection"), "{text}");
}

#[tokio::test]
async fn a_governance_key_gives_way_and_a_stolen_one_is_left_behind_by_hand() {
    let case = case().await;
    let permit = case.solo.grant(&case.permit("study")).await.unwrap();
    let (old, new, thief, rescue) = (&case.solo.governance, key(), key(), key());
    let rotation = |seq, prev, to: &SecretKey| Governance {
        seq,
        prev,
        new_key: to.public(),
        issued: case.start,
        reason: "a year has passed".into(),
    };
    assert_eq!(case.put(&rotation(1, None, &new), &[old]).await, Err(Code::QuorumNotMet));
    assert_eq!(case.put(&rotation(1, None, &new), &[old, &new]).await, Ok(()));
    // What was taken before stays until it expires; from now on only the new key signs.
    assert_eq!(case.ask(permit).await, Ok(()));
    assert_eq!(case.put(&case.solo.status(3), &[old]).await, Err(Code::QuorumNotMet));
    assert_eq!(case.put(&case.solo.status(3), &[&new]).await, Ok(()));
    let roster = Roster { seq: 3, ..case.solo.roster() };
    assert_eq!(case.put(&roster, &[old]).await, Err(Code::QuorumNotMet));
    assert_eq!(case.put(&roster, &[&new]).await, Ok(()));

    // The new key is stolen: the thief rotates as well as its owner could, and takes the numbers to the end.
    let first = Envelope::sign(&rotation(1, None, &new), &[]).unwrap().peek::<Governance>().unwrap().1;
    assert_eq!(case.put(&rotation(2, Some(first), &thief), &[&new, &thief]).await, Ok(()));
    let mut hostile = case.solo.status(1 << 62);
    hostile.suspended_studies = vec!["study".into()];
    assert_eq!(case.put(&hostile, &[&thief]).await, Ok(()));
    assert_eq!(case.ask(permit).await, Err(Code::Suspended));

    let documents = &case.solo.node.documents;
    assert!(documents.pin_governance(rescue.public(), " ", case.start).await.is_err(), "a pin has a reason");
    assert_eq!(documents.pin_governance(rescue.public(), "stolen", case.start).await.unwrap(), 1);
    assert_eq!(case.ask(permit).await, Err(Code::StaleRoster), "nothing is known of the new key's documents yet");
    assert_eq!(case.put(&case.solo.status(1 << 63 >> 1), &[&thief]).await, Err(Code::QuorumNotMet));
    assert_eq!(case.put(&case.solo.roster(), &[&rescue]).await, Ok(()), "numbers begin anew");
    assert_eq!(case.put(&case.solo.status(1), &[&rescue]).await, Ok(()));
    assert_eq!(case.ask(permit).await, Ok(()), "permits, committee and budget are what they were");
    let pins = documents.governance_pins().await.unwrap();
    assert_eq!((pins.len(), pins[0].key, pins[0].reason.as_str()), (1, rescue.public(), "stolen"));
    assert_eq!(case.solo.node.ledger.budget().await.unwrap().studies.len(), 1);
}

#[tokio::test]
async fn a_permit_that_is_handed_in_again_with_too_few_signatures_changes_nothing() {
    let case = case().await;
    let permit = case.permit("study");
    let digest = case.solo.grant(&permit).await.unwrap();
    let [a, ..] = &case.solo.committee;
    let alone = Envelope::sign(&permit, &[a]).unwrap();
    let refused = permits::put(&case.solo.node, &alone.to_json()).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::QuorumNotMet);
    assert_eq!(case.ask(digest).await, Ok(()));
}
