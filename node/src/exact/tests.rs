//! Exact results over a node in this process: from the question to the table, and what is refused.

use std::{
    fmt::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::{DateTime, Days, TimeDelta, Utc};
use sekisho_protocol::{
    clock::Clock,
    digest::Digest,
    dsse::Envelope,
    log::entry::Kind,
    permit::{AllowedQuery, Permit, Preset, ReleaseKind, Statistic},
    receipt::Receipt,
    record::RefusalRecord,
    turns::{Pace, Turns},
    units::MicroRho,
};

use super::*;
use crate::{
    answer::tests::{Case, code},
    hooks::Hooks,
    ledger::{Act, COMMAND_LINE, MAX_WAITING, Said},
    register::{Entry, EventKind},
    slots::Slots,
};

pub(crate) const BY_AGE: &str = "SELECT CASE WHEN age < 50 THEN 'young' ELSE 'old' END AS who, count(*) AS n, \
    count(DISTINCT pid) AS patients FROM stay GROUP BY 1";
const ALL: &str = "SELECT count(*) AS n FROM stay";
const YOUNG: &str = "SELECT count(*) AS n FROM stay WHERE age < 50";

/// A clock that is put forward.
struct Turned(Mutex<DateTime<Utc>>);

impl Clock for Turned {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}

struct Desk {
    case: Case,
    clock: Arc<Turned>,
}

/// So many patients of this age each, numbered from `first` on.
pub(crate) fn stays(groups: &[(u32, u32, u32)]) -> String {
    let mut text = String::new();
    for (first, patients, age) in groups {
        for n in *first..first + patients {
            writeln!(text, "p{n},{age}").unwrap();
        }
    }
    text
}

impl Desk {
    async fn over(stays: &str, hooks: Hooks) -> Self {
        let clock = Arc::new(Turned(Mutex::new(DateTime::from_timestamp(1_750_000_000, 0).unwrap())));
        let turned = Arc::clone(&clock);
        let mut case = Case::new(|node| {
            node.trust.exact_min_patients = Some(10);
            node.clock = turned;
            node.hooks = hooks;
            // Two of one study at once.
            node.slots = Slots::new(8);
            node.turns = Turns::new(Pace::MOST);
        })
        .await;
        case.over(stays).await;
        Self { case, clock }
    }

    /// A permit of the study `study` that lists these queries as aggregated.
    async fn permit(&self, study: &str, sqls: &[&str]) -> Digest {
        self.case.permit_with(1, 10_000, (0, 0), |permit| exact(permit, study, sqls)).await
    }

    async fn ask(&self, permit: Digest, sql: &str, run: u32) -> String {
        code(self.case.node.answer(&self.case.query_of(permit, sql, run, (0, 0))).await)
    }

    /// Asks, and lets the newest request out as a person does who looked at it.
    async fn let_out(&self, permit: Digest, sql: &str, run: u32) -> Result<Out, ExactError> {
        assert_eq!(self.ask(permit, sql, run).await, "exact_waiting");
        self.decide(self.newest().await).await
    }

    async fn newest(&self) -> i64 {
        self.case.node.ledger.exact_requests(false).await.unwrap().iter().map(|r| r.request).max().unwrap()
    }

    async fn decide(&self, request: i64) -> Result<Out, ExactError> {
        let shown = self.case.node.look(request).await?.shown.unwrap();
        self.case.node.let_out(request, "mori", self.said("checked"), &shown.mark()).await
    }

    fn said<'a>(&self, reason: &'a str) -> Said<'a> {
        Said { by: COMMAND_LINE, reason, at: self.clock.now() }
    }

    /// A day later, with this data.
    async fn next_day(&self, stays: Option<&str>) {
        self.case.renew().await;
        *self.clock.0.lock().unwrap() += TimeDelta::days(1);
        if let Some(stays) = stays {
            self.case.take_at(stays, "true", self.clock.now()).await;
        }
    }

    async fn opt_out(&self, patients: impl Iterator<Item = u32>) {
        let at = self.clock.now();
        let told = |n| Entry::new(&format!("p{n}"), EventKind::OptedOut, Some(at.date_naive()), None, at).unwrap();
        let entries: Vec<_> = patients.map(told).collect();
        self.case.node.register.record_all(&entries, "records-office", at).await.unwrap();
    }

    async fn receipts(&self) -> Vec<Receipt> {
        let entries = self.case.node.ledger.log().entries_of(Kind::Receipt, 0, 99).await.unwrap();
        let read = |bytes: Vec<u8>| Envelope::from_json::<Receipt>(&bytes).unwrap().peek::<Receipt>().unwrap().0;
        entries.into_iter().map(|entry| read(entry.opened.unwrap().statement)).collect()
    }
}

pub(crate) fn exact(permit: &mut Permit, study: &str, sqls: &[&str]) {
    let listed =
        |sql: &&str| AllowedQuery { sha256: Digest::of(sql.as_bytes()), max_runs: 9, release: ReleaseKind::Aggregated };
    let mut queries: Vec<_> = sqls.iter().map(listed).collect();
    queries.push(AllowedQuery {
        sha256: Digest::of(crate::answer::tests::SQL.as_bytes()),
        max_runs: 9,
        release: ReleaseKind::Noised,
    });
    (permit.id, permit.study_id) = (study.into(), study.into());
    permit.release_kinds = vec![ReleaseKind::Noised, ReleaseKind::Aggregated];
    permit.disclosure = Preset::JpNdb;
    permit.allowed_queries = Some(queries);
    permit.allowed_statistics = vec![Statistic::Count, Statistic::CountDistinct];
}

#[tokio::test]
async fn an_exact_result_waits_for_a_person_and_is_the_same_for_ever() {
    let desk = Desk::over(&stays(&[(0, 40, 40), (100, 30, 60)]), Hooks::default()).await;
    let node = &desk.case.node;
    let permit = desk.permit("study", &[BY_AGE]).await;
    assert_eq!(desk.case.ask(permit, 1).await, "ok", "a noised one");
    for _ in 0..2 {
        assert_eq!(desk.ask(permit, BY_AGE, 1).await, "exact_waiting");
    }
    assert_eq!(node.ledger.exact_requests(true).await.unwrap().len(), 1, "noted once");
    let dry = node.dry_run(&desk.case.query_of(permit, BY_AGE, 1, (0, 0))).await.unwrap();
    assert_eq!((dry.micro_rho, dry.stored), (MicroRho::ZERO, false));

    let looked = node.look(1).await.unwrap();
    assert_eq!((looked.person.as_str(), looked.permit.as_str(), looked.sql.as_str()), ("hanako", "study/1", BY_AGE));
    let shown = looked.shown.unwrap();
    assert_eq!((shown.rules.min_patients, &shown.close, shown.recorded), (10, &None, false));
    let table = format!("{:?}", shown.table.rows);
    assert!(table.contains("young") && table.contains("40") && table.contains("30"), "{table}");
    let wrong = node.let_out(1, "mori", desk.said("checked"), "000000000000").await;
    assert!(matches!(wrong, Err(ExactError::Changed)));
    assert_eq!(desk.ask(permit, BY_AGE, 1).await, "exact_waiting");
    assert_eq!(node.ledger.exact_since().await.unwrap(), None);

    let out = node.let_out(1, "mori", desk.said("checked"), &shown.mark()).await.unwrap();
    assert_eq!(out.table.unwrap().mark().short(), shown.mark());
    let mut answers = Vec::new();
    for day in 0..2 {
        let answer = node.answer(&desk.case.query_of(permit, BY_AGE, 1, (0, 0))).await.map_err(|r| r.detail).unwrap();
        answers.push((answer.release.to_bytes(), answer.receipt.to_json()));
        if day == 0 {
            desk.next_day(Some(&stays(&[(0, 1, 40)]))).await;
            desk.opt_out(0..40).await;
        }
    }
    assert_eq!(answers[0], answers[1], "byte for byte");
    assert!(node.dry_run(&desk.case.query_of(permit, BY_AGE, 1, (0, 0))).await.unwrap().stored);
    assert!(matches!(desk.decide_again(1).await, ExactError::Ledger(LedgerError::Decided { .. })));

    let first_day = out.as_of;
    assert_eq!(node.ledger.exact_since().await.unwrap(), Some(first_day));
    assert_eq!(desk.case.ask(permit, 2).await, "ok", "a noised one after it");
    let receipts = desk.receipts().await;
    let said: Vec<_> = receipts.iter().map(|r| (r.release_kind, r.exact_since, r.micro_rho.get())).collect();
    let (noised, exact, since) = (ReleaseKind::Noised, ReleaseKind::Aggregated, Some(first_day));
    assert_eq!(said, [(noised, None, 1000), (exact, since, 0), (noised, since, 1000)]);
    let reservations = node.ledger.log().entries_of(Kind::Reservation, 0, 99).await.unwrap();
    assert_eq!(reservations.len(), 3);
    let done = node.ledger.operations(9).await.unwrap().remove(0);
    assert_eq!((done.act, done.what.as_str(), done.by.as_str()), (Act::ReleaseExact, "1", COMMAND_LINE));
}

#[tokio::test]
async fn what_a_person_or_the_guard_refuses_is_refused_for_ever_in_the_same_words() {
    let desk = Desk::over(&stays(&[(0, 40, 40), (100, 30, 60)]), Hooks::default()).await;
    let node = &desk.case.node;
    let permit = desk.permit("study", &[BY_AGE, ALL, YOUNG]).await;
    assert_eq!(desk.ask(permit, YOUNG, 1).await, "exact_waiting");
    refuse(&node.ledger, ("west", &node.signing), 1, "mori", desk.said("rare")).await.unwrap();
    desk.let_out(permit, BY_AGE, 1).await.unwrap();
    let close = desk.let_out(permit, ALL, 1).await;
    assert!(matches!(close, Err(ExactError::TooClose(Close::Near(_)))));
    let mut refusals = Vec::new();
    for sql in [YOUNG, ALL] {
        let query = desk.case.query_of(permit, sql, 1, (0, 0));
        let refusal = node.answer(&query).await.map(|_| ()).unwrap_err();
        assert_eq!(refusal, node.dry_run(&query).await.map(|_| ()).unwrap_err());
        refusals.push(refusal);
    }
    assert_eq!(refusals[0].code, Code::ExactRefused);
    assert_eq!(refusals[0], refusals[1]);
    for (request, decided) in [(1, Decided::Refused), (3, Decided::TooClose)] {
        assert!(matches!(desk.decide_again(request).await, ExactError::Ledger(LedgerError::Decided { .. })));
        let again = refuse(&node.ledger, ("west", &node.signing), request, "mori", desk.said("again")).await;
        assert!(matches!(again, Err(ExactError::Ledger(LedgerError::Decided { .. }))));
        let known = node.ledger.exact_request(request).await.unwrap().unwrap();
        assert_eq!(known.decision.unwrap().decided, decided);
    }
    let entries = node.ledger.log().entries_of(Kind::Refusal, 0, 9).await.unwrap();
    let read =
        |bytes: Vec<u8>| Envelope::from_json::<RefusalRecord>(&bytes).unwrap().peek::<RefusalRecord>().unwrap().0;
    let codes: Vec<_> = entries.into_iter().map(|e| read(e.opened.unwrap().statement).code).collect();
    assert_eq!(codes, [Code::ExactRefused; 2]);
}

impl Desk {
    async fn decide_again(&self, request: i64) -> ExactError {
        self.case.node.let_out(request, "mori", self.said("again"), "000000000000").await.map(|_| ()).unwrap_err()
    }
}

#[tokio::test]
async fn the_guard_looks_at_every_study_and_at_every_cut_of_the_data() {
    let first = [(0, 40, 40), (100, 30, 60)];
    let desk = Desk::over(&stays(&first), Hooks::default()).await;
    let (one, other) = (desk.permit("study", &[BY_AGE, YOUNG]).await, desk.permit("other", &[ALL, BY_AGE]).await);
    desk.let_out(one, BY_AGE, 1).await.unwrap();
    // The same patients, by another question and study; the same question on the same cut, by another study.
    assert_eq!(close(desk.let_out(other, ALL, 1).await), "near");
    assert_eq!(close(desk.let_out(other, BY_AGE, 1).await), "same_cut");
    desk.let_out(one, YOUNG, 1).await.unwrap();
    // An opt-out of nine between two cuts, and of ten.
    desk.opt_out(0..9).await;
    desk.next_day(Some(&stays(&first))).await;
    assert_eq!(close(desk.let_out(one, BY_AGE, 2).await), "near");
    desk.opt_out(9..10).await;
    desk.let_out(one, BY_AGE, 3).await.unwrap();
    // Ten fewer than the young of the first cut too.
    desk.let_out(one, YOUNG, 2).await.unwrap();
    // Nobody is left who is young enough.
    desk.next_day(Some(&stays(&[(0, 19, 40), (100, 30, 60)]))).await;
    assert_eq!(close(desk.let_out(one, YOUNG, 3).await), "few_patients");
    let releases = desk.case.node.ledger.exact_releases().await.unwrap();
    assert_eq!(releases.len(), 4);
    assert!(releases.iter().all(|release| release.made));
}

fn close(out: Result<Out, ExactError>) -> &'static str {
    match out {
        Ok(_) => "released",
        Err(ExactError::TooClose(close)) => close.as_str(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn of_two_releases_that_are_too_close_one_passes_however_they_come() {
    let desk = Desk::over(&stays(&[(0, 40, 40), (100, 30, 60)]), Hooks::default()).await;
    let permit = desk.permit("study", &[BY_AGE, ALL]).await;
    for sql in [BY_AGE, ALL] {
        assert_eq!(desk.ask(permit, sql, 1).await, "exact_waiting");
    }
    let (node, said) = (&desk.case.node, desk.said("checked"));
    let marks = [node.look(1).await.unwrap().shown.unwrap().mark(), node.look(2).await.unwrap().shown.unwrap().mark()];
    let (a, b) = tokio::join!(node.let_out(1, "a", said, &marks[0]), node.let_out(2, "b", said, &marks[1]));
    let mut ended = [close(a), close(b)];
    ended.sort_unstable();
    assert_eq!(ended, ["near", "released"]);
    assert_eq!(desk.receipts().await.len(), 1);
}

#[tokio::test]
async fn a_stop_at_any_line_releases_nothing_twice_and_goes_on_from_the_record() {
    let first = stays(&[(0, 40, 40), (100, 30, 60)]);
    for point in ["exact_read", "exact_recorded", "exact_made", "released"] {
        let armed = Arc::new(AtomicBool::new(true));
        let (at, dies) = (point, Arc::clone(&armed));
        let hooks = Hooks::new(move |passed| assert!(passed != at || !dies.swap(false, Ordering::Relaxed), "a stop"));
        let desk = Desk::over(&first, hooks).await;
        let permit = desk.permit("study", &[BY_AGE]).await;
        assert_eq!(desk.ask(permit, BY_AGE, 1).await, "exact_waiting");
        let mark = desk.case.node.look(1).await.unwrap().shown.unwrap().mark();
        let (node, said) = (Arc::clone(&desk.case.node), Said { by: "x", reason: "r", at: desk.clock.now() });
        let let_out = |node: Arc<Answering>| {
            let (said, mark) = (said, mark.clone());
            tokio::spawn(async move { node.let_out(1, "mori", said, &mark).await.map(|out| out.as_of) })
        };
        assert!(let_out(Arc::clone(&node)).await.unwrap_err().is_panic(), "{point}");
        let recorded = node.ledger.exact_releases().await.unwrap();
        assert_eq!(recorded.len(), usize::from(point != "exact_read"), "{point}");
        assert!(
            node.ledger.interrupted().await.unwrap().is_empty(),
            "{point}: a person goes on, and nothing was asked of data"
        );
        let day = desk.clock.now().date_naive();
        // Data and opt-outs of a later day are not in what was recorded.
        desk.next_day(Some(&stays(&[(0, 30, 40), (100, 20, 60)]))).await;
        let request = node.ledger.exact_request(1).await.unwrap().unwrap();
        match point {
            "exact_read" => {
                assert_eq!((request.state(), desk.ask(permit, BY_AGE, 1).await.as_str()), ("waiting", "exact_waiting"));
                assert!(matches!(let_out(Arc::clone(&node)).await.unwrap(), Err(ExactError::Changed)));
                assert_eq!(desk.decide(1).await.unwrap().as_of, day + Days::new(1));
            }
            "released" => assert_eq!(request.state(), "released"),
            _ => {
                let state = (request.state(), desk.ask(permit, BY_AGE, 1).await);
                assert_eq!((state.0, state.1.as_str()), ("unfinished", "exact_waiting"), "{point}");
                assert!(node.look(1).await.unwrap().shown.unwrap().recorded);
                assert_eq!(let_out(Arc::clone(&node)).await.unwrap().unwrap(), day, "{point}: as recorded");
            }
        }
        assert_eq!(desk.ask(permit, BY_AGE, 1).await, "ok", "{point}");
        assert_eq!((desk.receipts().await.len(), node.ledger.exact_releases().await.unwrap().len()), (1, 1), "{point}");
    }
}

#[tokio::test]
async fn an_exact_result_is_for_those_who_switched_it_on_and_asked_as_it_was_permitted() {
    let desk = Desk::over(&stays(&[(0, 40, 40)]), Hooks::default()).await;
    let permit = desk.permit("study", &[ALL]).await;
    let asked = |micro_rho, sql| desk.case.query_of(permit, sql, 1, (micro_rho, 0));
    assert_eq!(code(desk.case.node.answer(&asked(1, ALL)).await), "budget_query");
    assert_eq!(code(desk.case.node.answer(&asked(0, crate::answer::tests::SQL)).await), "budget_query");
    assert_eq!(code(desk.case.node.answer(&asked(0, YOUNG)).await), "query_not_listed");
    assert!(desk.case.node.ledger.exact_requests(false).await.unwrap().is_empty());
    let off = Case::new(|_| {}).await;
    let permit = off.permit_with(1, 10_000, (0, 0), |permit| exact(permit, "study", &[ALL])).await;
    assert_eq!(code(off.node.answer(&off.query_of(permit, ALL, 1, (0, 0))).await), "policy");
    let stored = off.node.documents.permit(permit).await.unwrap().unwrap();
    assert_eq!(stored.refused(), Some(Code::Policy));
}

#[tokio::test]
async fn so_many_questions_of_a_study_wait_and_no_more() {
    let desk = Desk::over(&stays(&[(0, 40, 40)]), Hooks::default()).await;
    let permit = desk
        .case
        .permit_with(1, 10_000, (0, 0), |permit| {
            exact(permit, "study", &[ALL]);
            permit.allowed_queries.as_mut().unwrap()[0].max_runs = 1000;
        })
        .await;
    for run in 1..=MAX_WAITING {
        assert_eq!(desk.ask(permit, ALL, run).await, "exact_waiting");
    }
    assert_eq!(desk.ask(permit, ALL, MAX_WAITING + 1).await, "busy");
    assert_eq!(desk.ask(permit, ALL, 1).await, "exact_waiting", "what waits goes on waiting");
    let node = &desk.case.node;
    refuse(&node.ledger, ("west", &node.signing), 1, "mori", desk.said("many")).await.unwrap();
    assert_eq!(desk.ask(permit, ALL, MAX_WAITING + 1).await, "exact_waiting");
}
