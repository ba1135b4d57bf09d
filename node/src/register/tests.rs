use std::io::Cursor;

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
    import_as(register, csv, Encoding::Auto).await
}

async fn import_as(register: &Register, csv: impl AsRef<[u8]>, encoding: Encoding) -> Result<Imported, RegisterError> {
    let importing = Importing { encoding, ..Importing::by("tests", now()) };
    register.import(Cursor::new(csv.as_ref()), &importing, &|_| {}).await
}

/// The events of a patient: what, when, who said it.
async fn events(register: &Register, patient: &str) -> Vec<String> {
    let status = register.status(patient).await.unwrap().unwrap_or_default();
    let said = |e: &Event| format!("{} {} {}", e.kind.as_str(), e.on, e.said_by.map_or("-", SaidBy::as_str));
    status.events.iter().map(said).collect()
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
        ,\"p,1\",2025-01-01,2025-02-01\r\n\r\n2025-03-01,p2,2025-01-01,\r\n,p3,,\r\n,p2,2025-01-02,";
    assert_eq!(import(&register, csv).await.unwrap(), Imported { lines: 4, events: 5, unknown: None });
    assert_eq!(import(&register, csv).await.unwrap(), Imported { lines: 4, events: 0, unknown: None });
    register.record("p,1", BACK, day("2025-02-02"), "tests", now()).await.unwrap();
    assert_eq!(import(&register, csv).await.unwrap().events, 0);
    let status = register.status("p,1").await.unwrap().unwrap();
    assert!(!status.opted_out(day("2025-06-01")) && status.opted_out(day("2025-02-01")));
    let kinds: Vec<_> = status.events.iter().map(|e| (e.seq, e.kind)).collect();
    assert_eq!(kinds, [(1, TOLD), (2, OUT), (6, BACK)]);
    assert!(register.status("p3").await.unwrap().is_none());
    let expect = Counts { patients: 2, notified: 2, opted_out: 0, died: 1, events: 6 };
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
        (format!("{header}SECRET,2025-06-17,,\n"), 3),
        (format!("{header}SECRET,,2025-06-17,\n"), 3),
        (format!("{header}SECRET,,,2025-06-17\n"), 3),
        ("patient_id,event,said_by\n".into(), 1),
        ("patient_id,event,on,said_by\nSECRET,asked,2025-01-01,\n".into(), 2),
        ("patient_id,event,on,said_by\nSECRET,opted_out,,self\n".into(), 2),
        ("patient_id,event,on,said_by\nSECRET,opted_out,2025-01-01,SECRET\n".into(), 2),
        ("patient_id,event,on,said_by\nSECRET,notified,2025-01-01,self\n".into(), 2),
        ("patient_id,event,on,said_by\nSECRET,opt_out_withdrawn,2025-06-17,self\n".into(), 2),
        (long, 3),
    ] {
        let error = import(&register, &csv).await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.starts_with(&format!("line {line}: ")), "{csv}: {shown}");
        assert!(!shown.contains("SECRET") && !shown.contains("2025"), "{shown}");
    }
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
    let (progress, importing) = (|lines: u64| read.lock().unwrap().push(lines), Importing::by("tests", now()));
    let done = register.import_csv(&path, &importing, &progress).await.unwrap();
    assert_eq!(done, Imported { lines: 50_001, events: 55_002, unknown: None });
    assert_eq!(*read.lock().unwrap(), [50_000]);
    let set = register.eligible(Kind::Int64, &[ngmia(30)], day("2025-06-01"), 55_002).await.unwrap();
    assert_eq!((0..60_000).filter(|id| set.int_run(*id, &mut 0).0).count(), 45_000);
    assert_eq!(register.status("49999").await.unwrap().unwrap().events[0].seq, 55_000);
    let missing = register.import_csv(&dir.path().join("none.csv"), &importing, &progress).await;
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
        "INSERT OR REPLACE INTO register_event VALUES (1, '1', 'notified', '2025-01-01', 'x', 'x', NULL)",
        "INSERT INTO register_event VALUES (9, '1', 'notified', '2025-01-01', 'x', 'x', NULL)",
        "INSERT INTO register_event VALUES (2, '1', 'nothing', '2025-01-01', 'x', 'x', NULL)",
        "INSERT INTO register_event VALUES (2, '1', 'opted_out', '2025-01-01', 'x', 'x', 'nurse')",
        "INSERT INTO register_event VALUES (2, '1', 'died', '2025-01-01', 'x', 'x', 'self')",
    ] {
        assert!(sqlx::query(statement).execute(&tamper).await.is_err(), "{statement}");
    }
    for (patient, on, by) in [(" ", "2025-01-01", "x"), ("1", "1025-01-01", "x"), ("1", "2025-01-01", " ")] {
        let refused = register.record(patient, OUT, day(on), by, now()).await;
        assert!(matches!(refused, Err(RegisterError::Event(_))), "{patient} {on} {by}");
    }
}

#[tokio::test]
async fn an_event_that_stands_twice_in_a_file_is_named_with_both_lines() {
    let (_dir, register) = open().await;
    let wide = "patient_id,notified_on,opted_out_on,died_on\n";
    let long = "patient_id,event,on,said_by\n";
    let many: String = (0..3000).map(|id| format!("{id},2025-01-01,,\n")).collect();
    for (csv, line, first) in [
        (format!("{wide}SECRET,2025-01-01,,\nx,2025-01-01,,\nSECRET,2025-01-01,,\n"), 4, 2),
        (format!("{wide}SECRET,2025-01-01,2025-02-01,\n\nSECRET,,2025-02-01,\n"), 4, 2),
        (format!("{long}SECRET,opted_out,2025-01-01,self\nSECRET,opted_out,2025-01-01,guardian\n"), 3, 2),
        (format!("{wide}{many} 7 ,2025-01-01,,\n"), 3002, 9),
    ] {
        let error = import(&register, &csv).await.unwrap_err();
        assert!(matches!(error, RegisterError::Twice { line: l, first: f } if (l, f) == (line, first)), "{error}");
        assert!(!format!("{error} {error:?}").contains("SECRET"));
        assert_eq!(register.seq().await.unwrap(), 0, "nothing is half done");
    }
    // What stood in the failed file is not remembered, and an event that the register has is none that stands twice.
    for events in [1, 0] {
        let done = import(&register, format!("{wide}SECRET,2025-01-01,,\n")).await.unwrap();
        assert_eq!(done, Imported { lines: 1, events, unknown: None });
    }
}

#[tokio::test]
async fn both_layouts_are_read_in_english_and_japanese_in_utf8_and_cp932() {
    let wide = "患者ＩＤ,通知日,利用停止日,死亡日\n患者①,2025-01-01,2025-02-01,2025-03-01\n";
    let long = "申出者,患者ID,日付,区分\n,患者①,2025-01-01,通知\n遺族,患者①,2025-02-01,利用停止\n\
        本人,患者①,2025-02-02,利用停止の撤回\n,患者①,2025-03-01,死亡\n";
    let english = "patient_id,event,on,said_by\n患者①,notified,2025-01-01,\n患者①,opted_out,2025-02-01,bereaved\n\
        患者①,opt_out_withdrawn,2025-02-02,self\n患者①,died,2025-03-01,\n";
    let (from_wide, from_long) = (
        &["notified 2025-01-01 -", "opted_out 2025-02-01 -", "died 2025-03-01 -"][..],
        &[
            "notified 2025-01-01 -",
            "opted_out 2025-02-01 bereaved",
            "opt_out_withdrawn 2025-02-02 self",
            "died 2025-03-01 -",
        ],
    );
    for (text, expect) in [(wide, from_wide), (long, from_long), (english, from_long)] {
        let (cp932, _, lost) = encoding_rs::SHIFT_JIS.encode(text);
        assert!(!lost && std::str::from_utf8(&cp932).is_err());
        let marked = format!("\u{feff}{text}");
        for (bytes, encoding, taken) in [
            (text.as_bytes(), Encoding::Auto, true),
            (text.as_bytes(), Encoding::Utf8, true),
            (marked.as_bytes(), Encoding::Auto, true),
            (&cp932, Encoding::Auto, true),
            (&cp932, Encoding::Cp932, true),
            (&cp932, Encoding::Utf8, false),
            (text.as_bytes(), Encoding::Cp932, false),
        ] {
            let (_dir, register) = open().await;
            let done = import_as(&register, bytes, encoding).await;
            assert_eq!(done.is_ok(), taken, "{encoding:?}: {done:?}");
            let expect = if taken { expect } else { &[] };
            assert_eq!(events(&register, "患者①").await, expect, "{encoding:?}");
        }
    }
}

#[tokio::test]
async fn a_file_of_no_one_encoding_is_refused_with_the_line_where_the_better_one_ends() {
    let header = b"patient_id,notified_on,opted_out_on,died_on\n";
    let (utf8, cp932) = ("あ,,,\n".as_bytes(), b"\x8a\xb3,,,\n".as_slice());
    for (lines, line) in [
        (&[utf8, utf8, cp932][..], 4),
        (&[cp932, cp932, utf8], 4),
        (&[b"\xff\xfe,,,\n", utf8], 2),
        (&[b"1,,,\n", b"\x8a\n"], 3),
    ] {
        let (_dir, register) = open().await;
        let error = import(&register, [header, lines.concat().as_slice()].concat()).await.unwrap_err();
        assert!(matches!(error, RegisterError::Line { line: l, .. } if l == line), "{lines:?}: {error}");
        assert_eq!(register.seq().await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_old_database_keeps_its_events_and_its_commitment_and_who_said_so_is_part_of_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let old = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql(include_str!("../../migrations/0001_state.sql")).execute(&old).await.unwrap();
    let at = "2025-06-15T15:06:40.000000000Z";
    let insert =
        "INSERT INTO register_event VALUES (1, 'p', 'opted_out', '2025-01-01', 'x', '2025-06-15T15:06:40.000000000Z')";
    sqlx::raw_sql(insert).execute(&old).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 1").execute(&old).await.unwrap();
    old.close().await;
    let register = Register::new(Store::open(&path).await.unwrap());
    // As the software wrote it that had no such field.
    let mut before = b"sekisho register v1\0\0\0\0\0\0\0\x01".to_vec();
    for field in ["p", "opted_out", "2025-01-01", "x", at] {
        before.extend_from_slice(&(field.len() as u64).to_be_bytes());
        before.extend_from_slice(field.as_bytes());
    }
    assert_eq!(register.commitment(1).await.unwrap(), Digest::of(&before));
    assert_eq!(events(&register, "p").await, ["opted_out 2025-01-01 -"]);
    let mut digests = Vec::new();
    for said_by in [None, Some(SaidBy::Patient), Some(SaidBy::Guardian), Some(SaidBy::Bereaved)] {
        let (_dir, register) = open().await;
        let entry = Entry::new("p", OUT, Some(day("2025-01-01")), said_by, now()).unwrap();
        register.record_all(&[entry], "x", now()).await.unwrap();
        digests.push(register.commitment(1).await.unwrap());
    }
    assert_eq!(digests[0], Digest::of(&before));
    assert!((0..4).all(|i| (0..i).all(|j| digests[i] != digests[j])), "{digests:?}");
}

#[tokio::test]
async fn what_is_sent_again_under_a_key_is_recorded_once_and_answered_alike() {
    let (_dir, register) = open().await;
    let send = async |caller: &str, key: &str, body: &[u8], at: DateTime<Utc>| {
        let entry = Entry::new("p", OUT, None, None, now()).unwrap();
        let once = OnceKey { caller, key, body: Digest::of(body) };
        register.record_once(&[entry], &once, at, |seq| seq.to_string()).await.unwrap()
    };
    let (now_, later) = (now(), now() + chrono::TimeDelta::days(KEPT_DAYS + 1));
    for (caller, key, body, at, expect) in [
        ("desk", "a", "1", now_, Once::Now("1".into())),
        ("desk", "a", "1", now_, Once::Before("1".into())),
        ("desk", "a", "2", now_, Once::OtherBody),
        ("desk", "b", "1", now_, Once::Now("2".into())),
        ("ehr", "a", "2", now_, Once::Now("3".into())),
        ("desk", "a", "1", now_, Once::Before("1".into())),
        ("desk", "a", "2", later, Once::Now("4".into())),
    ] {
        assert_eq!(send(caller, key, body.as_bytes(), at).await, expect, "{caller} {key} {body}");
    }
    assert_eq!(register.seq().await.unwrap(), 4);
}
