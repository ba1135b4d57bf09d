//! Two-person review of results, through the door; and what of it the use register shows.

use sekisho_protocol::{
    access::{Access, Item},
    output_review::{OutputReview, Standing, Verdict},
    permit::{AuthorisedPerson, OutputReview as Rule, Preset},
    status::Status,
};

use super::*;
use crate::{
    held::{HeldReport, HeldResult},
    report::{ListWant, RegisterWant},
    store::Kind,
    use_register::UseRegister,
};

/// The member who is recused, and the member who may ask for the data user.
const RECUSED: usize = 2;
const ASKS: usize = 3;

async fn world(modes: &[Mode]) -> World {
    World::with_permit(modes, |permit, reviewers| {
        permit.output_review = Rule::TwoPerson;
        permit.disclosure = Preset::JpNdb;
        permit.decision.recused = vec![reviewers[RECUSED].public().fingerprint()];
        permit.authorised_persons.push(AuthorisedPerson {
            id: "p2".into(),
            role: "statistician".into(),
            key: reviewers[ASKS].public(),
            key_fingerprint: reviewers[ASKS].public().fingerprint(),
        });
    })
    .await
}

impl World {
    async fn read(&self, item: Item, key: &SecretKey) -> Result<Vec<u8>, Refusal> {
        let access = Access { item, issued: now(), expires: now() + Days::minutes(5) };
        self.action("read", Envelope::sign(&access, &[key]).unwrap().to_json()).await
    }

    async fn held(&self, key: &SecretKey) -> Result<Vec<HeldReport>, Refusal> {
        self.read(Item::HeldResults, key).await.map(|body| serde_json::from_slice(&body).unwrap())
    }

    async fn shown(&self, result: Digest, key: &SecretKey) -> Result<HeldResult, Refusal> {
        self.read(Item::HeldResult { result }, key).await.map(|body| serde_json::from_slice(&body).unwrap())
    }

    /// Asks, and says by which code nothing came.
    async fn code(&self, query: &Envelope) -> Code {
        self.ask(query).await.unwrap_err().code
    }

    async fn register(&self) -> UseRegister {
        let want = serde_json::to_vec(&RegisterWant::default()).unwrap();
        serde_json::from_slice(&self.action("register", want).await.unwrap()).unwrap()
    }

    /// The same coordinator after a stop, without its hospitals' connections.
    async fn restarted(self) -> Self {
        let Self { dir, governance, committee, reviewers, person, keys, modes, networks, daemon, permit } = self;
        drop(networks);
        daemon.run_until(async {}).await.unwrap();
        let daemon = start(&dir, &governance, &committee, &reviewers).await.unwrap();
        Self { dir, governance, committee, reviewers, person, keys, modes, networks: Vec::new(), daemon, permit }
    }
}

fn review(held: &HeldReport, verdict: Verdict, key: &SecretKey) -> OutputReview {
    OutputReview {
        permit: held.permit,
        query_key: held.query_key,
        run: held.run,
        result: held.result,
        reviewer: key.public().fingerprint(),
        verdict,
        reasons: format!("to {}", verdict.as_str()),
        at: now(),
    }
}

fn signed(held: &HeldReport, verdict: Verdict, key: &SecretKey) -> Envelope {
    Envelope::sign(&review(held, verdict, key), &[key]).unwrap()
}

#[tokio::test]
async fn a_result_leaves_when_two_reviewers_released_it_and_none_refused() {
    use Verdict::{Refuse, Release};
    let mut w = world(&[Mode::Answers, Mode::Answers]).await;
    let none = w.ask(&w.query(SQL)).await.unwrap();
    assert_eq!(none.1.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "without a release nothing waits");
    w.connect("h0").await;
    let waiting = w.ask(&w.query(SQL)).await.unwrap_err();
    assert_eq!(waiting.code, Code::AwaitingReview);
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview, "asking again changes nothing");

    let held = w.held(&w.reviewers[0]).await.unwrap();
    assert_eq!((held.len(), held[0].standing), (1, Standing::Awaiting));
    let first = held[0].clone();
    assert!(waiting.detail.contains(&first.result.to_string()) && waiting.detail.contains("0 of 2"), "{waiting}");
    // Nobody else sees it, and not even that it is there.
    for (fact, key, code) in [
        ("a stranger", &key(), Code::NotAuthorised),
        ("the person who asked", &w.person, Code::NotAuthorised),
        ("the recused member", &w.reviewers[RECUSED], Code::ConflictOfInterest),
        ("the member who may ask", &w.reviewers[ASKS], Code::ConflictOfInterest),
    ] {
        assert_eq!(w.shown(first.result, key).await.unwrap_err().code, code, "{fact}");
        assert!(w.held(key).await.is_ok_and(|held| held.is_empty()) == (code == Code::ConflictOfInterest), "{fact}");
    }
    let list = serde_json::to_vec(&ListWant { kind: Kind::OutputReview, name: None }).unwrap();
    assert_eq!(w.action("list", list).await.unwrap_err().code, Code::NotAuthorised);

    let [a, b] = [&w.reviewers[0], &w.reviewers[1]];
    let of = |change: fn(&mut OutputReview), key: &SecretKey| {
        let mut changed = review(&first, Release, key);
        change(&mut changed);
        Envelope::sign(&changed, &[key]).unwrap()
    };
    for (fact, envelope, code) in [
        ("a stranger", signed(&first, Release, &key()), Code::NotAuthorised),
        ("the person who asked", signed(&first, Release, &w.person), Code::NotAuthorised),
        ("the recused member", signed(&first, Release, &w.reviewers[RECUSED]), Code::ConflictOfInterest),
        ("the recused member refuses", signed(&first, Refuse, &w.reviewers[RECUSED]), Code::ConflictOfInterest),
        ("the member who may ask", signed(&first, Release, &w.reviewers[ASKS]), Code::ConflictOfInterest),
        ("two on one", Envelope::sign(&review(&first, Release, a), &[a, b]).unwrap(), Code::Malformed),
        ("another result", of(|r| r.result = Digest::of(b"?"), a), Code::ResultUnknown),
        ("another question", of(|r| r.query_key = Digest::of(b"?"), a), Code::Malformed),
        ("another run", of(|r| r.run = 2, a), Code::Malformed),
        ("in another's name", of(|r| r.reviewer = Digest::of(b"?"), a), Code::Malformed),
        ("of tomorrow", of(|r| r.at = now() + Days::days(1), a), Code::StaleMessage),
    ] {
        assert_eq!(w.put(&envelope).await.unwrap_err().code, code, "{fact}");
    }
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview);

    w.put(&signed(&first, Release, a)).await.unwrap();
    w.put(&signed(&first, Release, a)).await.unwrap();
    let twice = of(|r| r.reasons = "again".into(), a);
    assert_eq!(w.put(&twice).await.unwrap_err().code, Code::DuplicateSigner);
    assert_eq!(w.put(&signed(&first, Refuse, a)).await.unwrap_err().code, Code::DuplicateSigner);
    assert!(w.ask(&w.query(SQL)).await.unwrap_err().detail.contains("1 of 2"));

    let mut w = w.restarted().await;
    w.connect("h0").await;
    let held = w.held(&w.reviewers[1]).await.unwrap();
    assert_eq!((held.len(), held[0].result, held[0].reviews.len()), (1, first.result, 1));
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview);
    w.put(&signed(&first, Release, &w.reviewers[1])).await.unwrap();
    let (report, batches) = w.ask(&w.query(SQL)).await.unwrap();
    assert!(!report.complete && batches.iter().any(|batch| batch.num_rows() > 0));

    // One more hospital makes it another result.
    w.connect("h1").await;
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview);
    let held = w.held(&w.committee).await.unwrap();
    let states: Vec<_> = held.iter().map(|h| h.standing).collect();
    assert_eq!(states, [Standing::Awaiting, Standing::Released]);
    let second = held[0].clone();
    assert_ne!(second.result, first.result);
    w.put(&signed(&second, Release, &w.reviewers[0])).await.unwrap();
    w.put(&signed(&second, Refuse, &w.reviewers[1])).await.unwrap();
    w.put(&signed(&second, Release, &w.committee)).await.unwrap();
    let refused = w.ask(&w.query(SQL)).await.unwrap_err();
    assert_eq!(refused.code, Code::OutputRefused);
    assert!(refused.detail.ends_with("to refuse"), "{refused}");

    // A key that is void takes its word with it: the first result waits again, the second is no longer refused.
    let first_status = Envelope::sign(&status(1, None, Vec::new()), &[&w.governance]).unwrap();
    let (_, before) = first_status.peek::<Status>().unwrap();
    let void = status(2, Some(before), vec![w.reviewers[1].public().fingerprint()]);
    w.put(&Envelope::sign(&void, &[&w.governance]).unwrap()).await.unwrap();
    let states: BTreeMap<_, _> =
        w.held(&w.committee).await.unwrap().into_iter().map(|h| (h.result, h.standing)).collect();
    assert_eq!(states, BTreeMap::from([(first.result, Standing::Awaiting), (second.result, Standing::Released)]));
}

#[tokio::test]
async fn a_reviewer_sees_the_tables_and_what_they_tell_beside_earlier_results() {
    let mut w = world(&[Mode::Answers, Mode::Answers]).await;
    w.connect("h0").await;
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview);
    w.connect("h1").await;
    let (query, _) = w.query(SQL).peek::<Query>().unwrap();
    let second = Envelope::sign(&Query { run: 2, ..query }, &[&w.person]).unwrap();
    assert_eq!(w.code(&second).await, Code::AwaitingReview);

    let held = w.held(&w.committee).await.unwrap();
    let [two, one] = [&held[0], &held[1]];
    assert_eq!((two.run, one.run), (2, 1));
    let first = w.shown(one.result, &w.committee).await.unwrap();
    assert_eq!((first.sql.as_str(), first.facts.compared, first.facts.largest_share), (SQL, 0, None));
    assert_eq!(first.asked, ["h0", "h1"]);
    // The fake hospitals release 100, 200, …: each cell has two equal halves.
    let shown = w.shown(two.result, &w.committee).await.unwrap();
    let facts = &shown.facts;
    assert_eq!((facts.hospital_cells, facts.smallest_shown), (2 * facts.cells, Some(100)));
    assert_eq!((facts.hidden_by_preset, facts.hidden_besides), (0, 0));
    assert_eq!((facts.largest_share, facts.dominated), (Some(0.5), 0));
    assert_eq!((facts.compared, facts.not_compared, facts.close.len()), (1, 0, 1));
    // Run 2 has the same numbers at h0 as run 1; the sums are twice as large.
    let close = &facts.close[0];
    assert_eq!((close.result, close.same_question, close.cells, close.close), (one.result, true, 4, 2));
    assert!(close.named.iter().all(|name| name.starts_with("h0: sex=")), "{:?}", close.named);
    let spent: Vec<_> = facts.spent.iter().map(|s| (s.holder.as_str(), s.runs, s.micro_rho)).collect();
    assert_eq!(spent, [("h0", 2, 2000), ("h1", 1, 1000)]);
    assert!(!shown.tables.is_empty());
}

#[tokio::test]
async fn the_use_register_shows_what_waits_and_nothing_of_what_is_in_it() {
    let mut w = world(&[Mode::Answers, Mode::Answers]).await;
    w.connect("h0").await;
    assert_eq!(w.code(&w.query(SQL)).await, Code::AwaitingReview);
    let query = |register: &UseRegister| register.uses[0].queries[0].clone();
    let register = w.register().await;
    assert_eq!((register.uses.len(), register.uses[0].queries.len()), (1, 1));
    let waits = query(&register);
    assert_eq!((waits.output.code.as_str(), waits.suppressed_cells), ("awaiting", None));
    assert_eq!((waits.sql.as_deref(), waits.sha256), (Some(SQL), Some(Digest::of(SQL.as_bytes()))));
    assert_eq!((waits.answered, waits.micro_rho), (vec!["h0".to_string()], 1000));
    assert_eq!((waits.missing[0].name.as_str(), waits.missing[0].code.as_deref()), ("h1", Some("offline")));
    let held = w.held(&w.committee).await.unwrap();
    assert_eq!(waits.result, Some(held[0].result));

    for reviewer in &w.reviewers[..2] {
        w.put(&signed(&held[0], Verdict::Release, reviewer)).await.unwrap();
    }
    w.ask(&w.query(SQL)).await.unwrap();
    let register = w.register().await;
    let left = query(&register);
    assert_eq!((left.output.code.as_str(), left.suppressed_cells), ("released", Some(0)));
    assert_eq!(left.micro_rho, 1000, "served again, charged once");
    let reviews: Vec<_> = left.reviews.iter().map(|r| (r.role.as_str(), r.verdict.code.as_str())).collect();
    assert_eq!(reviews, [("statistics", "release"), ("statistics", "release")]);
    let text = serde_json::to_string(&register).unwrap();
    for person in ["a person", "m-1", &w.person.public().to_string(), &w.person.public().fingerprint().to_string()] {
        assert!(!text.contains(person), "{person}");
    }
    assert!(text.contains("institute"));
    let other = serde_json::to_vec(&RegisterWant { study: Some("study-2".into()) }).unwrap();
    let other: UseRegister = serde_json::from_slice(&w.action("register", other).await.unwrap()).unwrap();
    assert!(other.uses.is_empty());
    assert_eq!(w.action("register", b"1".to_vec()).await.unwrap_err().code, Code::Malformed);
}
