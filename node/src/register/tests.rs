use sekisho_protocol::permit::OptOutRule;

use super::*;

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000, 0).unwrap()
}

fn ngmia(days: u32) -> OptOut {
    OptOut { rule: OptOutRule::JpNgmia, days }
}

fn ehds() -> OptOut {
    OptOut { rule: OptOutRule::EuEhds, days: 0 }
}

async fn open() -> (tempfile::TempDir, Register) {
    let dir = tempfile::tempdir().unwrap();
    let register = Register::new(Store::open(&dir.path().join("node.db")).await.unwrap());
    (dir, register)
}

async fn import(register: &Register, csv: impl AsRef<[u8]>) -> Result<Imported, RegisterError> {
    register.import(csv.as_ref(), "tests", now(), &|_| {}).await
}

/// Whether patient 1 with these events is eligible under the rule, by the set of both kinds and by the status.
async fn check(events: &[(EventKind, &str)], rules: &[OptOut], as_of: &str) -> bool {
    let (_dir, register) = open().await;
    for (kind, on) in events {
        register.record("1", *kind, day(on), "tests", now()).await.unwrap();
    }
    let seq = register.seq().await.unwrap();
    let int = register.eligible(Kind::Int64, rules, day(as_of), seq).await.unwrap().int_run(1, &mut 0).0;
    let text = register.eligible(Kind::Text, rules, day(as_of), seq).await.unwrap().contains_text("1", &mut 0);
    assert_eq!(int, text, "{events:?} on {as_of}");
    if let Some(status) = register.status("1").await.unwrap() {
        assert_eq!(int, status.eligible(rules, day(as_of)).unwrap());
    }
    int
}

const TOLD: EventKind = EventKind::Notified;
const OUT: EventKind = EventKind::OptedOut;
const BACK: EventKind = EventKind::OptOutWithdrawn;
const DIED: EventKind = EventKind::Died;

#[tokio::test]
async fn under_ngmia_only_who_was_told_in_time_and_did_not_object_is_eligible() {
    for (events, as_of, expect) in [
        (&[][..], "2025-06-01", false),
        (&[(TOLD, "2025-05-02")], "2025-06-01", true),
        (&[(TOLD, "2025-05-03")], "2025-06-01", false),
        (&[(TOLD, "2025-05-20"), (TOLD, "2025-01-01")], "2025-06-01", true),
        (&[(TOLD, "2025-01-01"), (OUT, "2025-06-01")], "2025-06-01", false),
        (&[(TOLD, "2025-01-01"), (OUT, "2025-06-02")], "2025-06-01", true),
        (&[(TOLD, "2025-01-01"), (OUT, "2025-06-02")], "2025-06-02", false),
        (&[(TOLD, "2025-01-01"), (DIED, "2025-01-02")], "2025-06-01", true),
        (&[(TOLD, "2025-01-01"), (DIED, "2025-01-01")], "2025-06-01", true),
        (&[(TOLD, "2025-01-01"), (DIED, "2024-12-31")], "2025-06-01", false),
        (&[(DIED, "2024-12-31")], "2025-06-01", false),
    ] {
        assert_eq!(check(events, &[ngmia(30)], as_of).await, expect, "{events:?} on {as_of}");
    }
}

#[tokio::test]
async fn an_opt_out_acts_from_its_day_until_a_later_withdrawal() {
    for (events, as_of, expect) in [
        (&[][..], "2025-06-01", true),
        (&[(DIED, "2024-12-31")], "2025-06-01", true),
        (&[(OUT, "2025-05-01")], "2025-04-30", true),
        (&[(OUT, "2025-05-01")], "2025-05-01", false),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-03")], "2025-05-02", false),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-03")], "2025-05-03", true),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-01")], "2025-05-01", true),
        (&[(BACK, "2025-05-01"), (OUT, "2025-05-01")], "2025-05-01", false),
        (&[(BACK, "2025-05-03"), (OUT, "2025-05-01")], "2025-06-01", false),
        (&[(OUT, "2025-05-03"), (BACK, "2025-05-01")], "2025-06-01", false),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-02"), (OUT, "2025-05-03")], "2025-05-02", true),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-02"), (OUT, "2025-05-03")], "2025-05-03", false),
        (&[(OUT, "2025-05-01"), (BACK, "2025-05-02"), (OUT, "2025-05-02")], "2025-06-01", false),
    ] {
        assert_eq!(check(events, &[ehds()], as_of).await, expect, "{events:?} on {as_of}");
        let told = [&[(TOLD, "2020-01-01")], events].concat();
        let dead_before_notice = events.contains(&(DIED, "2019-12-31"));
        assert_eq!(check(&told, &[ngmia(30)], as_of).await, expect && !dead_before_notice, "{told:?} on {as_of}");
    }
}

#[tokio::test]
async fn all_rules_hold_at_once_and_none_is_no_answer() {
    let told = [(TOLD, "2025-05-02")];
    for (rules, expect) in [
        (&[ngmia(30), ehds()][..], true),
        (&[ehds(), ngmia(31)], false),
        (&[ngmia(10), ngmia(31)], false),
        (&[ngmia(u32::MAX)], false),
        (&[ehds()], true),
    ] {
        assert_eq!(check(&told, rules, "2025-06-01").await, expect, "{rules:?}");
    }
    let (_dir, register) = open().await;
    let nobody = register.eligible(Kind::Text, &[], day("2025-06-01"), 0).await;
    assert!(matches!(nobody.err(), Some(RegisterError::NoRule)));
    let dates = register.eligible(Kind::Date, &[ehds()], day("2025-06-01"), 0).await;
    assert!(matches!(dates.err(), Some(RegisterError::Kind)));
}

#[tokio::test]
async fn a_set_is_the_same_whatever_is_recorded_later() {
    let (_dir, register) = open().await;
    register.record("1", TOLD, day("2025-01-01"), "tests", now()).await.unwrap();
    let (then, digest) = (register.seq().await.unwrap(), register.commitment(1).await.unwrap());
    register.record("1", OUT, day("2025-01-01"), "tests", now()).await.unwrap();
    for (at_seq, expect) in [(then, true), (then + 1, false)] {
        // Enough other sets to put the first out of the cache.
        for days in 0..6 {
            let set = register.eligible(Kind::Text, &[ngmia(days)], day("2025-06-01"), at_seq).await.unwrap();
            assert_eq!(set.contains_text("1", &mut 0), expect, "up to {at_seq}");
        }
    }
    assert_ne!(register.commitment(2).await.unwrap(), digest);
    assert_eq!(register.commitment(1).await.unwrap(), digest);
    let fresh = Register::new(register.store.clone());
    assert_eq!(fresh.commitment(2).await.unwrap(), register.commitment(2).await.unwrap());
    let later = register.eligible(Kind::Text, &[ehds()], day("2025-06-01"), 3).await;
    assert!(matches!(later.err(), Some(RegisterError::NotYet { asked: 3, newest: 2 })));
    assert!(matches!(register.commitment(3).await, Err(RegisterError::NotYet { .. })));
}

#[tokio::test]
async fn an_integer_is_eligible_only_if_every_way_of_writing_it_is() {
    let (_dir, register) = open().await;
    import(&register, "patient_id,notified_on,opted_out_on,died_on\n7,2025-01-01,,\n007,2025-01-01,2025-02-01,\n8,2025-01-01,,\nA9,2025-01-01,,\n -1 ,2025-01-01,,\n")
        .await
        .unwrap();
    let seq = register.seq().await.unwrap();
    let ints = register.eligible(Kind::Int64, &[ngmia(30)], day("2025-06-01"), seq).await.unwrap();
    for (id, expect) in [(7, false), (8, true), (9, false), (-1, true)] {
        assert_eq!(ints.int_run(id, &mut 0).0, expect, "{id}");
    }
    assert!(!ints.contains_text("8", &mut 0), "a set of integers knows no text");
    let texts = register.eligible(Kind::Text, &[ngmia(30)], day("2025-06-01"), seq).await.unwrap();
    for (id, expect) in [("7", true), ("007", false), ("A9", true), (" A9 ", true), ("a9", false), ("", false)] {
        assert_eq!(texts.contains_text(id, &mut 0), expect, "{id}");
    }
    assert!(!texts.int_run(8, &mut 0).0, "a set of text knows no integers");
}

#[tokio::test]
async fn importing_a_file_again_adds_nothing_and_takes_no_withdrawal_back() {
    let (_dir, register) = open().await;
    let csv = "\u{feff}died_on,patient_id,notified_on,opted_out_on\r\n\
        ,\"p,1\",2025-01-01,2025-02-01\r\n\r\n2025-03-01,p2,2025-01-01,\r\n,p3,,\r\n,p2,2025-01-01,";
    assert_eq!(import(&register, csv).await.unwrap(), Imported { lines: 4, events: 4 });
    assert_eq!(import(&register, csv).await.unwrap(), Imported { lines: 4, events: 0 });
    register.record("p,1", BACK, day("2025-02-02"), "tests", now()).await.unwrap();
    assert_eq!(import(&register, csv).await.unwrap().events, 0);
    let status = register.status("p,1").await.unwrap().unwrap();
    assert!(!status.opted_out(day("2025-06-01")) && status.opted_out(day("2025-02-01")));
    let kinds: Vec<_> = status.events.iter().map(|e| (e.seq, e.kind)).collect();
    assert_eq!(kinds, [(1, TOLD), (2, OUT), (5, BACK)]);
    assert!(register.status("p3").await.unwrap().is_none());
    let expect = Counts { patients: 2, notified: 2, opted_out: 0, died: 1, events: 5 };
    assert_eq!(register.counts(day("2025-06-01")).await.unwrap(), expect);
}

#[tokio::test]
async fn a_bad_line_is_named_without_its_content_and_nothing_is_imported() {
    let (_dir, register) = open().await;
    let header = "patient_id,notified_on,opted_out_on,died_on\nSECRET0,2025-01-01,,\n";
    let long = format!("{header}{}\n", "SECRET".repeat(1000));
    for (csv, line) in [
        (String::new(), 1),
        ("SECRET,2025-01-01,,\n".into(), 1),
        ("patient_id,notified_on,opted_out_on\n".into(), 1),
        ("patient_id,notified_on,opted_out_on,patient_id\n".into(), 1),
        (format!("{header}SECRET,2025-02-30,,\n"), 3),
        (format!("{header}SECRET,2025-2-3,,\n"), 3),
        (format!("{header}SECRET,0202-01-01,,\n"), 3),
        (format!("{header}SECRET,+12025-01-01,,\n"), 3),
        (format!("{header}SECRET,2025/01/01,,\n"), 3),
        (format!("{header}\nSECRET,,\n"), 4),
        (format!("{header},2025-01-01,,\n"), 3),
        (format!("{header}\"SECRET,2025-01-01,,\n"), 3),
        (format!("{header}\"SECRET\"x,2025-01-01,,\n"), 3),
        (format!("{header}SE\"CRET,2025-01-01,,\n"), 3),
        (format!("{header}SEC\tRET,2025-01-01,,\n"), 3),
        (format!("{header}{},,,\n", "SECRET".repeat(50)), 3),
        (long, 3),
    ] {
        let error = import(&register, &csv).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.starts_with(&format!("line {line}: ")), "{csv}: {shown}");
        assert!(!shown.contains("SECRET") && !shown.contains("2025"), "{shown}");
    }
    let shift_jis = [header.as_bytes(), b"\x8a\x8e,,,\n"].concat();
    assert!(matches!(import(&register, shift_jis).await, Err(RegisterError::Line { line: 3, .. })));
    assert_eq!(register.seq().await.unwrap(), 0);
}

#[tokio::test]
async fn many_lines_are_imported_from_a_file_in_their_order_with_progress() {
    let (dir, register) = open().await;
    let mut csv = String::from("patient_id,notified_on,opted_out_on,died_on\n");
    for id in 0..50_001 {
        csv += &format!("{id},2025-01-01,{},\n", if id % 10 == 0 { "2025-01-02" } else { "" });
    }
    let path = dir.path().join("register.csv");
    std::fs::write(&path, csv).unwrap();
    let read = Mutex::new(Vec::new());
    let progress = |lines: u64| read.lock().unwrap().push(lines);
    let done = register.import_csv(&path, "tests", now(), &progress).await.unwrap();
    assert_eq!(done, Imported { lines: 50_001, events: 55_002 });
    assert_eq!(*read.lock().unwrap(), [50_000]);
    let set = register.eligible(Kind::Int64, &[ngmia(30)], day("2025-06-01"), 55_002).await.unwrap();
    assert_eq!((0..60_000).filter(|id| set.int_run(*id, &mut 0).0).count(), 45_000);
    assert_eq!(register.status("49999").await.unwrap().unwrap().events[0].seq, 55_000);
    let missing = register.import_csv(&dir.path().join("none.csv"), "tests", now(), &progress).await;
    assert!(matches!(missing, Err(RegisterError::Read(_))));
}

#[tokio::test]
async fn the_register_is_only_ever_added_to() {
    let (dir, register) = open().await;
    register.record("1", OUT, day("2025-01-01"), "tests", now()).await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("node.db"));
    let tamper = sqlx::SqlitePool::connect_with(options).await.unwrap();
    for statement in [
        "UPDATE register_event SET on_date = '2030-01-01'",
        "DELETE FROM register_event",
        "INSERT OR REPLACE INTO register_event VALUES (1, '1', 'notified', '2025-01-01', 'x', 'x')",
        "INSERT INTO register_event VALUES (9, '1', 'notified', '2025-01-01', 'x', 'x')",
        "INSERT INTO register_event VALUES (2, '1', 'nothing', '2025-01-01', 'x', 'x')",
    ] {
        assert!(sqlx::query(statement).execute(&tamper).await.is_err(), "{statement}");
    }
    for (patient, on, by) in [(" ", "2025-01-01", "x"), ("1", "1025-01-01", "x"), ("1", "2025-01-01", " ")] {
        let refused = register.record(patient, OUT, day(on), by, now()).await;
        assert!(matches!(refused, Err(RegisterError::Event(_))), "{patient} {on} {by}");
    }
}
