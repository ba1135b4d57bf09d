//! Every refusal that a node gives, by its stable code, against the node's own code with hostile parties.

use std::{path::Path, sync::Arc};

use chrono::Duration;
use sekisho_node::permits;
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    keys::SecretKey,
    permit::Permit,
    query::{Query, Route},
    refusal::{Code, Refusal},
    roster::Roster,
    status::{PermitVersion, RevokedPermit},
};
use sekisho_sim::solo::{NAME, Plan, Solo};
use sekisho_tests::{COLUMNS, NEGLIGIBLE_NOISE, SCHEMA, TestClock, mapping, stays};
use serde_json::Value;

const SQL: &str = "SELECT sex, count(*) AS n FROM stay GROUP BY sex";
const RHO: u64 = 100_000;
const OTHER_SCHEMA: &str = r#"{"id":"other","version":1,"title":"Visits","tables":[
    {"name":"visit","patient":"patient_id","columns":[{"name":"patient_id","type":"int64"}]}]}"#;

struct Case {
    solo: Solo,
    clock: TestClock,
    permit: Digest,
    _dir: tempfile::TempDir,
}

fn plan(dir: &Path, synthetic: bool, budget: (u64, u64)) -> Plan<'static> {
    let csv = dir.join("stay.csv");
    stays(&csv, &[(1, "female", 50, 3), (1, "female", 51, 4), (2, "male", 60, 5)]);
    let data = vec![(SCHEMA, mapping("set", &csv, synthetic))];
    Plan { data, register_rule: "eu-ehds", register: None, budget }
}

async fn case() -> Case {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let plan = plan(dir.path(), false, (10_000_000, 1_000_000));
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(clock.clone())).await.unwrap();
    let permit = solo.grant(&solo.permit("study", "stay", &COLUMNS, |_| {}).unwrap()).await.unwrap();
    Case { solo, clock, permit, _dir: dir }
}

impl Case {
    fn query(&self) -> Query {
        self.solo.query(self.permit, SQL, RHO, 1)
    }

    async fn code(&self, query: &Query) -> Result<(), Code> {
        self.solo.ask(query).await.map(|_| ()).map_err(|r| r.code)
    }

    async fn granted(&self, change: impl FnOnce(&mut Value)) -> Digest {
        // Each a permit of its own: a second one of the same version would be refused.
        let mut permit = self.solo.permit("other", "stay", &COLUMNS, change).unwrap();
        permit.id = format!("other-{:016x}", rand::random::<u64>());
        self.solo.grant(&permit).await.unwrap()
    }
}

/// The envelope with one character of its first signature, or of its payload, changed.
fn tampered(envelope: &Envelope, field: &str) -> Envelope {
    let mut json: Value = serde_json::to_value(envelope).unwrap();
    let text = if field == "sig" { &mut json["signatures"][0]["sig"] } else { &mut json[field] };
    let mut chars: Vec<char> = text.as_str().unwrap().chars().collect();
    chars[10] = if chars[10] == 'A' { 'B' } else { 'A' };
    *text = Value::String(chars.into_iter().collect());
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn a_proper_query_is_answered_and_the_same_run_is_served_again_free() {
    let case = case().await;
    let first = case.solo.ask(&case.query()).await.unwrap();
    let again = case.solo.ask(&case.query()).await.unwrap();
    assert_eq!(first.release.digest(), again.release.digest());
    assert_eq!(case.solo.node.ledger.budget().await.unwrap().spent.get(), RHO);
    let other_run = case.solo.ask(&case.solo.query(case.permit, SQL, RHO, 2)).await.unwrap();
    assert_ne!(first.release.digest(), other_run.release.digest());
    assert_eq!(case.solo.node.ledger.budget().await.unwrap().spent.get(), 2 * RHO);
}

#[tokio::test]
async fn a_dry_run_says_the_price_and_charges_nothing() {
    let case = case().await;
    let bytes = |q: &Query| serde_json::to_vec(&case.solo.routed(q).unwrap()).unwrap();
    let dry = case.solo.node.dry_run(&bytes(&case.query())).await.unwrap();
    assert_eq!((dry.micro_rho.get(), dry.stored, dry.study_left.get()), (RHO, false, 1_000_000));
    assert_eq!(case.solo.node.ledger.budget().await.unwrap().spent.get(), 0);
    case.solo.ask(&case.query()).await.unwrap();
    let dry = case.solo.node.dry_run(&bytes(&case.query())).await.unwrap();
    assert_eq!((dry.micro_rho.get(), dry.stored), (0, true));
}

#[tokio::test]
async fn permits_that_do_not_hold() {
    let case = case().await;
    let unknown = Query { permit: Digest::of(b"nothing"), ..case.query() };
    assert_eq!(case.code(&unknown).await, Err(Code::PermitUnknown));

    let later =
        case.granted(|p| p["validity"]["from"] = (case.solo.now() + Duration::days(1)).to_rfc3339().into()).await;
    assert_eq!(case.code(&case.solo.query(later, SQL, RHO, 1)).await, Err(Code::PermitNotYetValid));

    let short =
        case.granted(|p| p["validity"]["to"] = (case.solo.now() + Duration::hours(2)).to_rfc3339().into()).await;
    assert_eq!(case.code(&case.solo.query(short, SQL, RHO, 1)).await, Ok(()));
    case.clock.pass(Duration::hours(2));
    // From its last second on.
    assert_eq!(case.code(&case.solo.query(short, SQL, RHO, 2)).await, Err(Code::PermitExpired));

    let mut status = case.solo.status(3);
    status.suspended_studies = vec!["study".into()];
    case.solo.put(&status, &[&case.solo.governance]).await.unwrap();
    assert_eq!(case.code(&case.query()).await, Err(Code::Suspended));

    let mut status = case.solo.status(5);
    status.permit_versions = vec![PermitVersion { id: "study".into(), version: 2 }];
    case.solo.put(&status, &[&case.solo.governance]).await.unwrap();
    assert_eq!(case.code(&case.query()).await, Err(Code::PermitSuperseded));

    let mut status = case.solo.status(7);
    status.revoked_permits = vec![RevokedPermit { permit: case.permit, reason: "a test".into(), at: case.solo.now() }];
    case.solo.put(&status, &[&case.solo.governance]).await.unwrap();
    assert_eq!(case.code(&case.query()).await, Err(Code::PermitRevoked));
}

#[tokio::test]
async fn a_coordinator_that_withholds_a_revocation_withholds_it_until_the_status_expires() {
    let case = case().await;
    case.clock.pass(Duration::hours(24) - Duration::seconds(1));
    assert_eq!(case.code(&case.query()).await, Ok(()));
    case.clock.pass(Duration::seconds(1));
    assert_eq!(case.code(&case.query()).await, Err(Code::StaleStatus));
    case.clock.pass(Duration::days(365));
    assert_eq!(case.code(&case.query()).await, Err(Code::StaleRoster));
}

#[tokio::test]
async fn documents_with_wrong_or_missing_signatures() {
    let case = case().await;
    let solo = &case.solo;
    let permit = solo.permit("signed", "stay", &COLUMNS, |_| {}).unwrap();
    let put = async |keys: &[&SecretKey]| solo.put(&permit, keys).await.map(|_| ()).map_err(|r| r.code);
    let [a, b, _] = &solo.committee;
    let stranger = SecretKey::generate(&mut rand::rng());
    assert_eq!(put(&[a]).await, Err(Code::QuorumNotMet));
    assert_eq!(put(&[a, a]).await, Err(Code::DuplicateSigner));
    assert_eq!(put(&[a, &stranger]).await, Err(Code::QuorumNotMet));
    assert_eq!(put(&[a, &solo.governance]).await, Err(Code::QuorumNotMet));
    let envelope = Envelope::sign(&permit, &[a, b]).unwrap();
    let offer = async |e: &Envelope| permits::put(&solo.node, &e.to_json()).await.map(|_| ()).map_err(|r| r.code);
    assert_eq!(offer(&tampered(&envelope, "sig")).await, Err(Code::BadSignature));
    assert_eq!(offer(&tampered(&envelope, "payload")).await, Err(Code::BadSignature));
    // A voided key no longer counts.
    let mut status = solo.status(3);
    status.void_keys = vec![b.public().fingerprint()];
    solo.put(&status, &[&solo.governance]).await.unwrap();
    assert_eq!(offer(&envelope).await, Err(Code::QuorumNotMet));
    // Only governance signs rosters and statuses, and none is taken back.
    let code = async |r: Result<Option<Envelope>, Refusal>| r.map(|_| ()).map_err(|r| r.code);
    assert_eq!(code(solo.put(&solo.status(5), &[a]).await).await, Err(Code::QuorumNotMet));
    assert_eq!(code(solo.put(&solo.status(1), &[&solo.governance]).await).await, Err(Code::OlderDocument));
    let mut older = solo.roster();
    older.members.pop();
    assert_eq!(code(solo.put(&older, &[&solo.governance]).await).await, Err(Code::OlderDocument));
    older.seq = 0;
    assert_eq!(code(solo.put(&older, &[&solo.governance]).await).await, Err(Code::Malformed));
    for field in ["sig", "payload"] {
        let roster = Envelope::sign(&Roster { seq: 3, ..solo.roster() }, &[&solo.governance]).unwrap();
        assert_eq!(offer(&tampered(&roster, field)).await, Err(Code::BadSignature), "a roster's {field}");
        let status = Envelope::sign(&solo.status(5), &[&solo.governance]).unwrap();
        assert_eq!(offer(&tampered(&status, field)).await, Err(Code::BadSignature), "a status's {field}");
    }
    assert_eq!(permits::put(&solo.node, b"{").await.map(|_| ()).unwrap_err().code, Code::Malformed);
    let huge = vec![b' '; 9 << 20];
    assert_eq!(permits::put(&solo.node, &huge).await.map(|_| ()).unwrap_err().code, Code::TooLarge);
}

#[tokio::test]
async fn a_coordinator_cannot_invent_alter_reroute_or_replay_a_query() {
    let case = case().await;
    let solo = &case.solo;
    let code = async |routed| solo.send(&routed).await.map(|_| ()).map_err(|r: Refusal| r.code);
    let signed_by = |key: &SecretKey, query: &Query| {
        let mut routed = solo.routed(query).unwrap();
        routed.query = Envelope::sign(query, &[key]).unwrap();
        let (_, digest) = routed.query.peek::<Query>().unwrap();
        let route = Route { query: digest, to: NAME.into(), round: "r".into(), expires: query.expires };
        routed.route = Envelope::sign(&route, &[&solo.coordinator]).unwrap();
        routed
    };
    let query = case.query();
    // Made up, and signed with its own key; or by a person whom the permit does not name.
    assert_eq!(code(signed_by(&solo.coordinator, &query)).await, Err(Code::UnknownPerson));
    assert_eq!(code(signed_by(&SecretKey::generate(&mut rand::rng()), &query)).await, Err(Code::UnknownPerson));
    // Altered after the person signed it.
    let mut altered = solo.routed(&query).unwrap();
    altered.query = tampered(&altered.query, "sig");
    assert_eq!(code(altered).await, Err(Code::BadSignature));
    // Sent to a hospital that the person did not ask; or one hospital's message given to another.
    let elsewhere = Query { holders: vec!["elsewhere".into()], ..case.query() };
    assert_eq!(case.code(&elsewhere).await, Err(Code::NotAddressed));
    let mut relayed = solo.routed(&query).unwrap();
    let (_, digest) = relayed.query.peek::<Query>().unwrap();
    let route = Route { query: digest, to: "elsewhere".into(), round: "r".into(), expires: query.expires };
    relayed.route = Envelope::sign(&route, &[&solo.coordinator]).unwrap();
    assert_eq!(code(relayed).await, Err(Code::NotAddressed));
    // Another query's route.
    let mut crossed = solo.routed(&query).unwrap();
    crossed.route = solo.routed(&case.query()).unwrap().route;
    assert_eq!(code(crossed).await, Err(Code::NotAddressed));
    // A route that the coordinator did not sign.
    let mut unrouted = solo.routed(&query).unwrap();
    let route = Route { query: digest, to: NAME.into(), round: "r".into(), expires: query.expires };
    unrouted.route = Envelope::sign(&route, &[&solo.researcher]).unwrap();
    assert_eq!(code(unrouted).await, Err(Code::QuorumNotMet));
    // The same nonce with another question.
    assert_eq!(case.code(&query).await, Ok(()));
    let reused = Query { nonce: query.nonce.clone(), run: 2, ..case.query() };
    assert_eq!(case.code(&reused).await, Err(Code::ReplayedNonce));
    // Kept back until it is stale; or one that would live for ever.
    let kept = solo.routed(&case.query()).unwrap();
    case.clock.pass(Duration::hours(2));
    assert_eq!(code(kept).await, Err(Code::StaleMessage));
    let endless = Query { expires: solo.now() + Duration::days(3), ..case.query() };
    assert_eq!(case.code(&endless).await, Err(Code::StaleMessage));
    // A coordinator whose key the status voids.
    let mut status = solo.status(3);
    status.void_keys = vec![solo.coordinator.public().fingerprint()];
    solo.put(&status, &[&solo.governance]).await.unwrap();
    assert_eq!(case.code(&case.query()).await, Err(Code::NotOnRoster));
}

#[tokio::test]
async fn what_the_permit_does_not_allow() {
    let case = case().await;
    let narrow = case
        .granted(|p| {
            p["data"][0]["columns"] = serde_json::json!(["sex"]);
            p["allowed_statistics"] = serde_json::json!(["count"]);
        })
        .await;
    for (sql, code) in [
        ("SELECT count(*) FROM stay WHERE age > 50", Code::ColumnNotPermitted),
        ("SELECT count(*) FROM elsewhere", Code::SqlUnknownName),
        ("SELECT sum(days) FROM stay", Code::ColumnNotPermitted),
        ("SELECT count(DISTINCT patient_id) FROM stay", Code::StatisticNotPermitted),
    ] {
        assert_eq!(case.code(&case.solo.query(narrow, sql, RHO, 1)).await, Err(code), "{sql}");
    }
    let nowhere = case
        .solo
        .permit("nowhere", "stay", &COLUMNS, |p| p["data"][0]["holder_nodes"] = serde_json::json!(["elsewhere"]));
    let nowhere = case.solo.grant(&nowhere.unwrap()).await.unwrap();
    assert_eq!(case.code(&case.solo.query(nowhere, SQL, RHO, 1)).await, Err(Code::HolderNotPermitted));
    let foreign = case.solo.permit("foreign", "stay", &COLUMNS, |p| p["schema"] = Digest::of(b"x").to_string().into());
    let foreign = case.solo.grant(&foreign.unwrap()).await.unwrap();
    assert_eq!(case.code(&case.solo.query(foreign, SQL, RHO, 1)).await, Err(Code::SchemaMismatch));
    let tables = case.solo.permit("tables", "other_table", &COLUMNS, |_| {}).unwrap();
    let tables = case.solo.grant(&tables).await.unwrap();
    // The hospital has no such table, so that its policy has nothing to allow.
    assert_eq!(case.code(&case.solo.query(tables, SQL, RHO, 1)).await, Err(Code::Policy));
}

#[tokio::test]
async fn sql_that_is_not_admitted() {
    let case = case().await;
    for (sql, code) in [
        ("SELECT * FROM stay", Code::RowLevel),
        ("SELECT sum(free) FROM stay", Code::UnboundedColumn),
        ("SELECT note, count(*) FROM stay GROUP BY note", Code::UnknownDomain),
        ("SELECT count(* FROM stay", Code::SqlSyntax),
        ("SELECT count(*) FROM stay a, stay b", Code::SqlUnsupported),
        ("DELETE FROM stay", Code::SqlUnsupported),
    ] {
        assert_eq!(case.code(&case.solo.query(case.permit, sql, RHO, 1)).await, Err(code), "{sql}");
    }
    // A person's own tool refuses to sign 10 MB; a hostile one sends them all the same.
    let huge = "x".repeat(10 << 20);
    assert_eq!(case.solo.node.answer(huge.as_bytes()).await.map(|_| ()).unwrap_err().code, Code::TooLarge);
    assert_eq!(case.solo.node.answer(b"{}").await.map(|_| ()).unwrap_err().code, Code::Malformed);
    assert_eq!(case.solo.node.ledger.budget().await.unwrap().spent.get(), 0, "a refusal costs nothing");
}

#[tokio::test]
async fn what_is_said_before_the_charge_does_not_depend_on_data() {
    // Three ordinary patients; and one with a thousand rows beyond every bound and domain, among whom many said no.
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let extreme: String = (0..1000).map(|i| format!("7,{i},-5,9223372036854775807,,\"a\nb\"\n")).collect();
    let rows =
        ["1,female,50,3,1,E11\n2,male,60,4,1,E11\n3,male,70,5,1,I10\n".to_string(), format!("8,,,,,\n{extreme}")];
    let said = ["1,2026-01-15,,\n", "7,2026-01-15,2026-02-01,\n8,2026-01-15,,\n9,2026-01-15,2026-03-01,\n"];
    let mut solos = Vec::new();
    for ((dir, rows), said) in dirs.iter().zip(&rows).zip(said) {
        let (csv, register) = (dir.path().join("stay.csv"), dir.path().join("register.csv"));
        std::fs::write(&csv, format!("patient_id,sex,age,days,free,note\n{rows}")).unwrap();
        std::fs::write(&register, format!("patient_id,notified_on,opted_out_on,died_on\n{said}")).unwrap();
        let data = vec![(SCHEMA, mapping("set", &csv, false))];
        let plan = Plan { data, register_rule: "eu-ehds", register: Some(&register), budget: (10_000_000, 1_000_000) };
        let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
        let permit = solo.permit("study", "stay", &COLUMNS, |_| {}).unwrap();
        let permit = solo.grant(&permit).await.unwrap();
        solos.push((solo, permit));
    }
    let mut admitted = 0;
    for sql in [
        SQL,
        "SELECT note, count(*) FROM stay GROUP BY note",
        "SELECT count(*) FROM stay WHERE note = 'E11' AND days / 0 = 1",
        "SELECT count(*) FROM stay WHERE CAST(note AS bigint) > 5",
        "SELECT count(*) FROM stay WHERE TRY_CAST(note AS bigint) > 5",
        "SELECT sum(free) FROM stay",
        "SELECT sum(days * age), median(days), corr(days, age) FROM stay",
        "SELECT days, count(DISTINCT patient_id) FROM stay GROUP BY days",
        "SELECT count(*) FROM stay WHERE patient_id = 7",
        "SELECT * FROM stay",
        "SELECT max(days) FROM stay HAVING count(*) > 2",
    ] {
        let mut answers = Vec::new();
        for (solo, permit) in &solos {
            let routed = solo.routed(&solo.query(*permit, sql, RHO, 1)).unwrap();
            let said = solo.node.dry_run(&serde_json::to_vec(&routed).unwrap()).await;
            answers.push(said.map(|dry| serde_json::to_string(&dry).unwrap()));
        }
        assert_eq!(answers[0], answers[1], "{sql}");
        admitted += usize::from(answers[0].is_ok());
    }
    assert!((3..8).contains(&admitted), "{admitted} of 11 were admitted");
}

#[tokio::test]
async fn budgets_of_query_study_and_lifetime() {
    let case = case().await;
    for (rho, code) in [(RHO + 1, Code::BudgetQuery), (0, Code::BudgetQuery)] {
        assert_eq!(case.code(&case.solo.query(case.permit, SQL, rho, 1)).await, Err(code), "{rho}");
    }
    // Ten runs of a tenth each, and no eleventh; a new version of the permit does not reset it.
    for run in 1..=10 {
        assert_eq!(case.code(&case.solo.query(case.permit, SQL, RHO, run)).await, Ok(()), "run {run}");
    }
    assert_eq!(case.code(&case.solo.query(case.permit, SQL, RHO, 11)).await, Err(Code::BudgetStudy));
    let second = |p: &mut Value| {
        p["version"] = 2.into();
        p["supersedes"] = case.permit.to_string().into();
    };
    let newer = case.solo.permit("study", "stay", &COLUMNS, second).unwrap();
    let newer = case.solo.grant(&newer).await.unwrap();
    assert_eq!(case.code(&case.solo.query(newer, SQL, RHO, 1)).await, Err(Code::BudgetStudy));
    // The stored runs are still served.
    assert_eq!(case.code(&case.solo.query(case.permit, SQL, RHO, 10)).await, Ok(()));
    // Real patients' data has a ceiling that no permit and no configuration raises.
    let greedy = case.granted(|p| {
        p["dp"]["micro_rho_per_query"] = 2_000_000.into();
        p["dp"]["micro_rho_total"] = 2_000_000.into();
    });
    let greedy = greedy.await;
    assert_eq!(case.code(&case.solo.query(greedy, SQL, 1_000_001, 1)).await, Err(Code::BudgetQuery));
}

#[tokio::test]
async fn the_lifetime_cap_is_the_registers_over_all_data_sets() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let mut plan = plan(dir.path(), false, (1_500_000, 1_000_000));
    // Another schema over other data, with the same patients' register.
    let csv = dir.path().join("visit.csv");
    std::fs::write(&csv, "patient_id\n1\n2\n3\n").unwrap();
    let mapping = format!(
        "id = \"visits\"\nsynthetic = false\n[tables.visit]\nsource = {csv:?}\n[tables.visit.columns]\npatient_id = \"patient_id\"\n"
    );
    plan.data.push((OTHER_SCHEMA, mapping));
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(clock)).await.unwrap();
    let first = solo.grant(&solo.permit("first", "stay", &COLUMNS, |_| {}).unwrap()).await.unwrap();
    assert!(solo.ask(&solo.query(first, SQL, RHO, 1)).await.is_ok());
    // A million is set aside for the first study: one over the other data set cannot have another of the 1.5.
    let over_visits = |total: u64| {
        let schema = solo.schemas[1].to_string();
        move |p: &mut Value| {
            p["schema"] = schema.into();
            p["dp"]["micro_rho_total"] = total.into();
        }
    };
    let sql = "SELECT count(*) FROM visit";
    let second = solo.grant(&solo.permit("second", "visit", &[], over_visits(1_000_000)).unwrap()).await.unwrap();
    assert_eq!(solo.ask(&solo.query(second, sql, RHO, 1)).await.map(|_| ()).unwrap_err().code, Code::BudgetLifetime);
    let third = solo.grant(&solo.permit("third", "visit", &[], over_visits(500_000)).unwrap()).await.unwrap();
    assert!(solo.ask(&solo.query(third, sql, RHO, 1)).await.is_ok());
}

#[tokio::test]
async fn a_changed_source_is_not_answered_from_until_a_new_snapshot_is_taken() {
    let case = case().await;
    stays(&case._dir.path().join("stay.csv"), &[(9, "female", 20, 1)]);
    assert_eq!(case.code(&case.query()).await, Err(Code::SourceChanged));
}

#[tokio::test]
async fn the_hospitals_own_ceiling_is_stricter_than_the_permit() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let plan = plan(dir.path(), true, (NEGLIGIBLE_NOISE, 50_000));
    let solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(clock)).await.unwrap();
    let permit: Permit = solo.permit("study", "stay", &COLUMNS, |_| {}).unwrap();
    let permit = solo.grant(&permit).await.unwrap();
    assert_eq!(solo.ask(&solo.query(permit, SQL, 50_001, 1)).await.map(|_| ()).unwrap_err().code, Code::Policy);
    assert!(solo.ask(&solo.query(permit, SQL, 50_000, 1)).await.is_ok());
}
