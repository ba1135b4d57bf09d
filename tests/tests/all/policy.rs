//! The hospital's own decisions: its policy narrows every permit, and a person's answer to one travels and acts at once.

use std::{
    cell::{Cell, RefCell},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::{prelude::*, test_runner::TestRunner};
use sekisho_coordinator::store::Store;
use sekisho_node::policy::{Policy, default_text};
use sekisho_protocol::{
    digest::Digest,
    dsse::Envelope,
    receipt::{Acceptance, DecidedBy},
    refusal::Code,
};
use sekisho_sim::{
    network::{Network, Setup, Site},
    solo::{Plan, Solo},
};
use sekisho_tests::{COLUMNS, PermitText, SCHEMA, TestClock, mapping, permit_toml, stays};
use serde_json::{Value, json};

/// A permit and a query, of few words each.
#[derive(Clone, Debug)]
struct Case {
    columns: Vec<&'static str>,
    statistics: Vec<&'static str>,
    purposes: Vec<&'static str>,
    most: u64,
    statistic: &'static str,
    column: &'static str,
    filter: Option<&'static str>,
    micro_rho: u64,
    rules: Vec<usize>,
    more: usize,
}

/// Rules that forbid, with what each of them forbids of queries.
type Forbid = (&'static str, fn(&Case) -> bool);
const FORBIDS: [Forbid; 9] = [
    ("resource == Column::\"stay.age\")", |c| c.column == "age"),
    ("resource == Column::\"stay.note\")", |c| c.filter == Some("note")),
    ("resource in Table::\"stay\") when { context.statistics.contains(Statistic::\"avg\") }", |c| c.statistic == "avg"),
    ("resource) when { context.purposes.contains(Purpose::\"education\") }", |c| c.purposes.contains(&"education")),
    ("resource) when { context.microRho > 700 }", |c| c.micro_rho > 700),
    ("resource) when { context.columns.containsAll([Column::\"stay.days\", Column::\"stay.sex\"]) }", |c| {
        c.column == "days" && c.filter == Some("sex")
    }),
    ("resource) when { principal has country }", |_| false),
    ("resource) when { context.synthetic }", |_| true),
    // It fails on every number above one: that denies.
    ("resource) when { context.microRho * 9223372036854775807 > 0 }", |_| true),
];

impl Case {
    fn sql(&self) -> String {
        let filter = match self.filter {
            None => String::new(),
            Some(column) => format!(" WHERE {column} = 'male'"),
        };
        format!("SELECT {}({}) AS x FROM stay{filter}", self.statistic, self.column)
    }

    fn permit_allows(&self) -> bool {
        let reads = |column: &&str| self.columns.contains(column);
        reads(&self.column)
            && self.filter.as_ref().is_none_or(reads)
            && self.statistics.contains(&self.statistic)
            && self.micro_rho <= self.most
    }

    fn policy_allows(&self) -> bool {
        !self.rules.iter().any(|rule| FORBIDS[*rule].1(self))
    }

    fn policy(&self, more: Option<usize>) -> String {
        let forbids = self.rules.iter().copied().chain(more).map(|rule| FORBIDS[rule].0);
        let forbids = forbids.map(|rule| format!("forbid (principal, action in Action::\"query\", {rule};\n"));
        default_text(true) + &forbids.collect::<String>()
    }
}

fn cases() -> impl Strategy<Value = Case> {
    use prop::sample::{select, subsequence};
    let permit = (
        subsequence(vec!["sex", "age", "days", "note"], 3..=4),
        subsequence(vec!["count", "sum", "avg"], 2..=3),
        subsequence(vec!["scientific_research", "education"], 1..=2),
        select(vec![500_u64, 1000]),
    );
    let query = (
        select(vec!["count", "sum", "avg"]),
        select(vec!["age", "days"]),
        select(vec![None, Some("sex"), Some("note")]),
        select(vec![100_u64, 600, 900, 1100]),
    );
    // Few rules, so that many queries are allowed.
    let rules = subsequence((0..FORBIDS.len()).collect::<Vec<_>>(), 0..=2);
    (permit, query, rules, 0..FORBIDS.len()).prop_map(|(permit, query, rules, more)| Case {
        columns: permit.0,
        statistics: permit.1,
        purposes: permit.2,
        most: permit.3,
        statistic: query.0,
        column: query.1,
        filter: query.2,
        micro_rho: query.3,
        rules,
        more,
    })
}

async fn hospital(dir: &Path) -> Solo {
    let csv = dir.join("stay.csv");
    stays(&csv, &[(1, "female", 50, 3), (2, "male", 60, 5)]);
    let data = vec![(SCHEMA, mapping("set", &csv, true))];
    let plan = Plan { data, register_rule: "eu-ehds", register: None, budget: (1_000_000_000_000, 1_000_000) };
    Solo::build(&dir.join("node"), &plan, Arc::new(TestClock::new())).await.unwrap()
}

fn govern(solo: &mut Solo, policy: &str) {
    Arc::get_mut(&mut solo.node).unwrap().policy = Policy::parse(policy).unwrap();
}

#[test]
fn a_query_is_admitted_exactly_when_permit_and_policy_allow_it_and_a_forbid_never_allows_more() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(16 << 20).build().unwrap();
    let solo = RefCell::new(runtime.block_on(hospital(dir.path())));
    let (number, admitted) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig { cases: 150, failure_persistence: None, ..Default::default() });
    let checked = runner.run(&cases(), |case| {
        number.set(number.get() + 1);
        let mut solo = solo.borrow_mut();
        govern(&mut solo, &case.policy(None));
        let change = |permit: &mut Value| {
            permit["dp"]["micro_rho_per_query"] = case.most.into();
            permit["allowed_statistics"] = json!(case.statistics);
            permit["purposes"] = json!(case.purposes);
        };
        let permit = solo.permit(&format!("study-{}", number.get()), "stay", &case.columns, change).unwrap();
        let permit = runtime.block_on(solo.grant(&permit)).unwrap();
        let ask = |solo: &Solo| {
            let query = solo.query(permit, &case.sql(), case.micro_rho, 1);
            let bytes = serde_json::to_vec(&solo.routed(&query).unwrap()).unwrap();
            runtime.block_on(solo.node.dry_run(&bytes)).map(|_| ()).map_err(|refusal| refusal.code)
        };
        let said = ask(&solo);
        prop_assert_eq!(said.is_ok(), case.permit_allows() && case.policy_allows(), "{:?}", said);
        if case.permit_allows() && !case.policy_allows() {
            prop_assert_eq!(said, Err(Code::Policy));
        }
        admitted.set(admitted.get() + usize::from(said.is_ok()));
        govern(&mut solo, &case.policy(Some(case.more)));
        prop_assert!(said.is_ok() || ask(&solo).is_err());
        Ok(())
    });
    checked.unwrap_or_else(|e| panic!("{e}"));
    assert!((10..140).contains(&admitted.get()), "{} of 150 admitted: the cases say little", admitted.get());
}

const RHO: u64 = 1_000_000;

fn network(dir: &Path) -> Network {
    let csv = dir.join("stay.csv");
    stays(&csv, &(0..200).map(|i| (i, "female", 50, 3)).collect::<Vec<_>>());
    let name = "hospital-1".to_string();
    let setup = Setup {
        budget: Some((100 * RHO, RHO)),
        ..Setup::new(dir.join("network"), vec![Site::new(&name, mapping(&name, &csv, true))], SCHEMA)
    };
    Network::build(&setup, crate::launcher(), &|_| {}).unwrap()
}

/// What run `run` of a count meets: nothing, or the code and the words of its refusal.
fn asked(network: &Network, permit: &str, run: &str) -> String {
    let key = network.key("researcher");
    let sql = "SELECT count(*) AS n FROM stay";
    let args = ["query", "--permit", permit, "--sql", sql, "--key", &key, "--run", run, "--output", "csv"];
    let output = network.ask(&args).unwrap();
    if output.status.success() { "answered".into() } else { String::from_utf8(output.stderr).unwrap() }
}

/// Waits until the coordinator keeps an acceptance that is as `expect` says.
fn kept(network: &Network, permit: &str, expect: impl Fn(&Acceptance) -> bool) -> Acceptance {
    let permit: Digest = permit.parse().unwrap();
    let path = network.dir().join("coordinator/state/coordinator.db");
    assert!(path.exists(), "{}", path.display());
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let acceptances = runtime.block_on(async {
            let store = Store::open(&path).await.unwrap();
            store.acceptances(permit).await.unwrap()
        });
        let read = |(_, bytes): &(String, Vec<u8>)| {
            Envelope::from_json::<Acceptance>(bytes).unwrap().peek::<Acceptance>().unwrap().0
        };
        if let Some(found) = acceptances.iter().map(read).find(&expect) {
            return found;
        }
        assert!(Instant::now() < until, "the coordinator has no such answer");
        std::thread::sleep(Duration::from_millis(250));
    }
}

#[test]
fn a_person_decides_about_a_permit_and_suspends_a_study_beside_the_running_node() {
    let dir = tempfile::tempdir().unwrap();
    let mut network = network(dir.path());
    let hospital = "hospital-1";
    // What `init` writes unless it is told otherwise.
    std::fs::write(network.node_file(hospital, "policy.cedar"), default_text(false)).unwrap();
    network.kill_node(hospital);
    network.start_node(hospital).unwrap();
    network.wait_connected(1).unwrap();
    let text = PermitText {
        study: "by-hand",
        schema: &network.dir().join("schema.dsse.json"),
        researcher: &network.public_key("researcher").unwrap(),
        table: ("stay", &COLUMNS),
        holders: &[hospital.into()],
        bounds: (5, 2),
        micro_rho: (RHO, 20 * RHO),
    };
    let said = network.permit("by-hand", &permit_toml(&text, crate::now())).unwrap_err().to_string();
    assert!(said.contains("permit_waiting"), "{said}");
    let permit = network.node(hospital, &["permits", "list", "--waiting", "--output", "json"]).unwrap();
    let permit: Value = serde_json::from_str(&permit).unwrap();
    assert_eq!(
        (&permit[0]["answer"], &permit[0]["id"], permit.as_array().unwrap().len()),
        (&json!("waiting"), &json!("by-hand"), 1)
    );
    let permit = permit[0]["permit"].as_str().unwrap();
    let says = |run: &str, expect: &str| {
        let said = asked(&network, permit, run);
        assert!(said.contains(expect), "{expect}: {said}");
    };
    says("1", "permit_waiting");
    assert_eq!(kept(&network, permit, |_| true).refused, Some(Code::PermitWaiting));

    network.node(hospital, &["permits", "accept", "by-hand", "--reason", "board of 3 June"]).unwrap();
    let accepted = kept(&network, permit, |a| a.refused.is_none());
    assert_eq!((accepted.decided_by, accepted.reason.as_deref()), (DecidedBy::Hand, Some("board of 3 June")));
    assert_eq!(accepted.earmark.get(), 20 * RHO);
    says("1", "answered");

    network.node(hospital, &["suspend", "by-hand", "--reason", "under review"]).unwrap();
    says("2", "suspended");
    says("2", "under review");
    network.node(hospital, &["suspend", "--all", "--reason", "an incident"]).unwrap();
    network.node(hospital, &["resume", "by-hand"]).unwrap();
    says("2", "an incident");
    network.node(hospital, &["resume", "--all"]).unwrap();
    says("2", "answered");

    network.node(hospital, &["permits", "refuse", &permit[..10], "--reason", "no staff for it"]).unwrap();
    says("3", "permit_refused");
    says("3", "no staff for it");
    let refused = kept(&network, permit, |a| a.refused == Some(Code::PermitRefused));
    assert_eq!((refused.decided_by, refused.reason.as_deref()), (DecidedBy::Hand, Some("no staff for it")));
    let budget = network.node(hospital, &["budget", "--output", "json"]).unwrap();
    let budget: Value = serde_json::from_str(&budget).unwrap();
    assert_eq!(budget["studies"][0]["earmark_micro_rho"], 2 * RHO, "what was spent stays set aside, and no more");
}

#[test]
fn a_policy_with_a_mistake_stops_the_node_and_the_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut network = network(dir.path());
    let (hospital, file) = ("hospital-1", network.node_file("hospital-1", "policy.cedar"));
    network.kill_node(hospital);
    for (rules, said) in [
        ("permit (principal, action, resource);\nforbid (principal, action, resource", "line 2"),
        ("permit (principal, action == Action::\"cuont\", resource);", "cuont"),
        (
            "permit (principal, action, resource);\n\nforbid (principal, action, resource == Column::\"stay.agee\");",
            "line 3",
        ),
    ] {
        std::fs::write(&file, rules).unwrap();
        let checked = network.node(hospital, &["policy", "check"]).unwrap_err().to_string();
        assert!(checked.contains(said) && checked.contains("policy.cedar"), "{checked}");
        assert!(network.start_node(hospital).is_err(), "{rules}");
        let log = std::fs::read_to_string(network.dir().join("logs/hospital-1.log")).unwrap();
        assert!(log.contains(said) && log.contains("policy.cedar"), "{log}");
    }
    std::fs::remove_file(&file).unwrap();
    assert!(network.start_node(hospital).is_err(), "without a policy");
    std::fs::write(&file, default_text(true)).unwrap();
    network.start_node(hospital).unwrap();
}
