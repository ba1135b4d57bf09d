//! Many at once: a thousand messages of twenty persons of five studies at one node, which has the places of its default
//! configuration, while one study asks without end. New runs, stored runs, dry runs, and one run by several at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use sekisho_node::hooks::Hooks;
use sekisho_protocol::{
    digest::Digest,
    dsse::{Document, Envelope},
    keys::SecretKey,
    log::entry::Kind,
    query::Query,
    receipt::{Receipt, ReservationRecord},
    refusal::Code,
};
use sekisho_sim::solo::{Plan, Solo};
use sekisho_tests::{COLUMNS, SCHEMA, TestClock, mapping, stays};
use serde_json::json;

const SQL: &str = "SELECT count(*) AS n FROM stay";
const STUDIES: usize = 5;
/// Persons of each study.
const PERSONS: usize = 4;
const MESSAGES: usize = 1000;
/// What each study may spend, in runs, and what a run costs.
const RUNS: u32 = 30;
const RHO: u64 = 1000;
/// The study that asks without end.
const GREEDY: usize = 0;

/// The run of a study; all of a study ask the same question.
type Run = (usize, u32);

/// A release and its receipt, in bytes.
type Answered = (Vec<u8>, Vec<u8>);

struct Load {
    solo: Solo,
    permits: Vec<Digest>,
    persons: Vec<Vec<SecretKey>>,
    /// The next run of each study that nobody asked for yet.
    next: Vec<AtomicU32>,
    /// What was answered.
    answers: Mutex<BTreeMap<Run, BTreeSet<Answered>>>,
    told: Mutex<BTreeMap<String, usize>>,
    _dir: tempfile::TempDir,
}

impl Load {
    async fn new() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        let csv = dir.path().join("stay.csv");
        stays(&csv, &[(1, "female", 50, 3), (2, "male", 60, 5)]);
        let data = vec![(SCHEMA, mapping("set", &csv, false))];
        // The lifetime cap is what the studies may spend together, to the last micro-rho.
        let lifetime = STUDIES as u64 * u64::from(RUNS) * RHO;
        let plan = Plan { data, register_rule: "eu-ehds", register: None, budget: (lifetime, RHO) };
        let mut solo = Solo::build(&dir.path().join("node"), &plan, Arc::new(TestClock::new())).await.unwrap();
        // Two runs die after their charge.
        let reserved = AtomicU32::new(0);
        Arc::get_mut(&mut solo.node).unwrap().hooks = Hooks::new(move |point| {
            let dies = point == "reserved" && [20, 40].contains(&reserved.fetch_add(1, Ordering::Relaxed));
            assert!(!dies, "a panic in a run");
        });
        let (mut permits, mut persons) = (Vec::new(), Vec::new());
        for study in 0..=STUDIES {
            let keys: Vec<_> = (0..PERSONS).map(|_| SecretKey::generate(&mut rand::rng())).collect();
            let permit = solo.permit(&format!("study-{study}"), "stay", &COLUMNS, |permit| {
                let person = |(n, key): (usize, &SecretKey)| {
                    let public = key.public();
                    json!({"id": format!("p{n}"), "role": "analyst", "key": public, "key_fingerprint": public.fingerprint()})
                };
                permit["authorised_persons"] = keys.iter().enumerate().map(person).collect();
                permit["dp"]["micro_rho_per_query"] = RHO.into();
                permit["dp"]["micro_rho_total"] = (u64::from(RUNS) * RHO).into();
            });
            permits.push(solo.grant(&permit.unwrap()).await.unwrap());
            persons.push(keys);
        }
        let next = permits.iter().map(|_| AtomicU32::new(1)).collect();
        Arc::new(Self { solo, permits, persons, next, answers: Mutex::default(), told: Mutex::default(), _dir: dir })
    }

    fn query(&self, (study, run): Run) -> Query {
        self.solo.query(self.permits[study], SQL, RHO, run)
    }

    fn new_run(&self, study: usize) -> Run {
        (study, self.next[study].fetch_add(1, Ordering::Relaxed))
    }

    fn tell(&self, said: impl Into<String>) {
        *self.told.lock().unwrap().entry(said.into()).or_default() += 1;
    }

    fn signed(&self, run: Run, person: usize) -> Vec<u8> {
        let routed = self.solo.routed_of(&self.persons[run.0][person], &self.query(run)).unwrap();
        serde_json::to_vec(&routed).unwrap()
    }

    /// Asks until the node is not busy; what came of it.
    async fn ask(&self, run: Run, message: &[u8]) -> Result<(), Code> {
        loop {
            let answer = self.solo.node.answer(message).await;
            let said = match answer {
                Ok(answer) => {
                    let (header, cells) = answer.release.to_bytes();
                    let seen = ([header, cells].concat(), answer.receipt.to_json());
                    self.answers.lock().unwrap().entry(run).or_default().insert(seen);
                    Ok(())
                }
                Err(refusal) if refusal.code == Code::Busy => {
                    self.tell("busy, and asked again");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(refusal) => Err(refusal.code),
            };
            self.tell(said.map_or_else(|code| format!("query: {code}"), |()| "query: answered".into()));
            return said;
        }
    }

    /// Asks, and once more where the run died: on its charge, so that it costs nothing more.
    async fn ask_again(&self, run: Run, message: &[u8]) {
        if self.ask(run, message).await == Err(Code::NoAnswer) {
            self.ask(run, message).await.unwrap();
        }
    }

    async fn dry_run(&self, run: Run, person: usize) {
        let message = self.signed(run, person);
        loop {
            match self.solo.node.dry_run(&message).await {
                Ok(dry) => return self.tell(if dry.stored { "dry run: stored" } else { "dry run: a price" }),
                Err(refusal) if refusal.code == Code::Busy => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(refusal) => return self.tell(format!("dry run: {}", refusal.code)),
            }
        }
    }

    /// What one person sends, one after the other, or the same run with another person at once; how many messages.
    async fn person(self: Arc<Self>, study: usize, person: usize, seed: u64, messages: usize) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut sent = 0;
        while sent < messages {
            match rng.random_range(0..100) {
                0..35 => {
                    let run = self.new_run(study);
                    self.ask_again(run, &self.signed(run, person)).await;
                    sent += 1;
                }
                35..60 => {
                    let run = (study, rng.random_range(1..=RUNS));
                    self.ask_again(run, &self.signed(run, person)).await;
                    sent += 1;
                }
                60..80 => {
                    self.dry_run((study, rng.random_range(1..=2 * RUNS)), person).await;
                    sent += 1;
                }
                _ => {
                    let run = self.new_run(study);
                    let (one, other) = (self.signed(run, person), self.signed(run, (person + 1) % PERSONS));
                    let asked = [self.ask_again(run, &one), self.ask_again(run, &one), self.ask_again(run, &other)];
                    futures::future::join_all(asked).await;
                    sent += 3;
                }
            }
        }
    }

    /// The statements of a kind in the log, each with its place.
    async fn stated<D: Document>(&self, kind: Kind) -> Vec<(u64, D)> {
        let entries = self.solo.node.ledger.log().entries_of(kind, 0, 100_000).await.unwrap();
        let read = |bytes: &[u8]| Envelope::from_json::<D>(bytes).unwrap().peek::<D>().unwrap().0;
        entries.into_iter().map(|entry| (entry.index, read(&entry.opened.unwrap().statement))).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_messages_of_twenty_persons_are_each_charged_once_and_no_study_keeps_another_from_its_budget() {
    let (load, started) = (Load::new().await, Instant::now());
    let ended = Arc::new(AtomicBool::new(false));
    // Beside the thousand: new runs of one study, as fast as it is let.
    let mut greedy = Vec::new();
    for person in 0..PERSONS {
        let (load, ended) = (Arc::clone(&load), Arc::clone(&ended));
        greedy.push(tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let run = load.new_run(GREEDY);
                load.ask_again(run, &load.signed(run, person)).await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }));
    }
    let mut all = Vec::new();
    for study in 0..STUDIES {
        for person in 0..PERSONS {
            let seed = (study * PERSONS + person) as u64;
            all.push(tokio::spawn(Arc::clone(&load).person(study, person, seed, MESSAGES / STUDIES / PERSONS)));
        }
    }
    for person in all {
        person.await.unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    for person in greedy {
        person.await.unwrap();
    }
    println!("{MESSAGES} messages in {:.1} s: {:#?}", started.elapsed().as_secs_f64(), load.told.lock().unwrap());

    // Each study has all that was set aside for it, the greedy one no more; the sixth, for which nothing was left, nothing.
    let budget = load.solo.node.ledger.budget().await.unwrap();
    let total = u64::from(RUNS) * RHO;
    assert_eq!((budget.spent, budget.cap.get()), (budget.cap, STUDIES as u64 * total));
    for study in &budget.studies {
        assert_eq!(
            (study.earmark.get(), study.spent.get(), study.suspended),
            (total, total, false),
            "{}",
            study.study_id
        );
    }
    assert_eq!(load.ask((STUDIES, 1), &load.signed((STUDIES, 1), 0)).await, Err(Code::BudgetLifetime));

    // A charge for each run that has a release, before it in the log, and a release for each charge; once.
    let reserved = load.stated::<ReservationRecord>(Kind::Reservation).await;
    let receipts = load.stated::<Receipt>(Kind::Receipt).await;
    let charges: BTreeMap<_, _> =
        reserved.iter().map(|(at, record)| ((record.query_key, record.run), (at, record))).collect();
    assert_eq!((charges.len(), reserved.len()), (STUDIES * RUNS as usize, STUDIES * RUNS as usize));
    assert_eq!(receipts.len(), charges.len());
    let released: BTreeSet<_> = receipts.iter().map(|(_, receipt)| (receipt.query_key, receipt.run)).collect();
    assert!(charges.keys().eq(&released), "each charge has one receipt");
    for (at, receipt) in &receipts {
        let (before, charge) = charges[&(receipt.query_key, receipt.run)];
        assert!(before < at && charge.micro_rho.get() == RHO && charge.micro_rho == receipt.micro_rho);
        assert_eq!(charge.study_id, receipt.study_id);
    }
    assert_eq!(load.solo.node.ledger.log().entries_of(Kind::Refusal, 0, 99).await.unwrap().len(), 2, "that died");

    // Whoever had an answer to a run had the same one, and it is that of the log.
    let answers = load.answers.lock().unwrap();
    for (run, seen) in answers.iter() {
        assert_eq!(seen.len(), 1, "{run:?}");
        let receipt = Envelope::from_json::<Receipt>(&seen.first().unwrap().1).unwrap().peek::<Receipt>().unwrap().0;
        assert!(run.1 == receipt.run && receipts.iter().any(|(_, logged)| *logged == receipt), "{run:?}");
    }
}
