//! The files are read back and the truth recounted from them, by other code than counted it.

mod sources;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float64Type};
use chrono::NaiveDate;
use tempfile::TempDir;

use super::{AGE_BANDS, GenerateError, Plan, Truth, generate, generate_in_batches};
use sources::{bytes, dates, eligible, ints, register, table, texts};

const EVENT_TABLES: [&str; 4] = ["stay", "diagnosis", "prescription", "lab"];

fn as_of() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 3, 31).unwrap()
}

fn plan(patients: u64, rows: u64) -> Plan {
    Plan { hospitals: 3, patients, rows, seed: 7, as_of: as_of() }
}

fn made(plan: &Plan) -> (TempDir, Truth) {
    let dir = tempfile::tempdir().unwrap();
    let truth = generate(plan, dir.path(), &|_, _| {}).unwrap();
    (dir, truth)
}

#[test]
fn a_seed_gives_the_same_bytes_again_and_another_seed_others() {
    let plan = plan(400, 3_000);
    let (first, truth) = made(&plan);
    let (second, same) = made(&plan);
    let written = bytes(first.path());
    assert_eq!(written.len(), 3 * 6 + 1);
    assert_eq!(written, bytes(second.path()));
    assert_eq!(truth, same);
    assert_eq!(truth, Truth::load(first.path()).unwrap());

    let (third, other) = made(&Plan { seed: 8, ..plan });
    assert_ne!(truth.hospitals, other.hospitals);
    for (path, bytes) in bytes(third.path()) {
        assert_ne!(written[&path], bytes, "{} is the same", path.display());
    }
}

#[test]
fn rows_do_not_depend_on_the_batch_size() {
    let plan = plan(900, 9_000);
    let (whole, truth) = made(&plan);
    let small = tempfile::tempdir().unwrap();
    let same = generate_in_batches(&plan, small.path(), &|_, _| {}, 7).unwrap();
    assert_eq!(truth, same);
    for hospital in 1..=3 {
        for name in EVENT_TABLES.iter().chain(&["patient_summary"]) {
            let rows = table(whole.path(), hospital, name);
            assert_eq!(rows, table(small.path(), hospital, name));
        }
    }
}

#[test]
fn the_truth_is_what_a_recount_of_the_files_gives() {
    let (dir, truth) = made(&plan(6_000, 4_000));
    let mut eligible_in_all = 0;
    for (index, told) in truth.hospitals.iter().enumerate() {
        let register = register(dir.path(), index + 1);
        let patients = table(dir.path(), index + 1, "patient_summary");
        let ages = ints(&patients, "age");
        let sexes = texts(&patients, "sex");
        let stages = texts(&patients, "diabetes_stage");
        let complications = ints(&patients, "complications");
        let drugs = texts(&patients, "first_drug");
        let events = patients.column_by_name("adverse_event").unwrap();
        let mut mild: HashMap<(&str, Option<&str>), u64> = HashMap::new();
        let mut by_drug: HashMap<&str, (u64, u64)> = HashMap::new();
        let mut eligible_here = 0;
        for (row, id) in ints(&patients, "patient_id").iter().enumerate() {
            if !eligible(register.get(id)) {
                continue;
            }
            eligible_here += 1;
            if stages[row] == Some("mild") && complications[row] == 0 {
                let starts = [0, 18, 40, 65, 75];
                let band = starts.iter().rposition(|from| ages[row] >= *from).unwrap();
                *mild.entry((AGE_BANDS[band], sexes[row])).or_default() += 1;
            }
            let counts = by_drug.entry(drugs[row].unwrap()).or_default();
            counts.0 += 1;
            counts.1 += u64::from(events.as_boolean().value(row));
        }
        assert_eq!(told.patients, patients.num_rows() as u64);
        assert_eq!(told.eligible_patients, eligible_here);
        eligible_in_all += eligible_here;
        let cells = &told.cells;
        assert_eq!(cells.mild_without_complications.len(), 15);
        for cell in &cells.mild_without_complications {
            let found = mild.remove(&(cell.age_band.as_str(), cell.sex.as_deref()));
            assert_eq!(cell.patients, found.unwrap_or(0), "{cell:?}");
        }
        assert!(mild.is_empty(), "cells the truth lacks: {mild:?}");
        assert_eq!(cells.by_first_drug.len(), 3);
        for cell in &cells.by_first_drug {
            let found = by_drug.remove(cell.first_drug.as_str()).unwrap_or((0, 0));
            assert_eq!((cell.patients, cell.adverse_events), found, "{cell:?}");
        }
        assert!(by_drug.is_empty(), "cells the truth lacks: {by_drug:?}");
    }
    assert_eq!(truth.patients, 6_000);
    assert_eq!(truth.eligible_patients, eligible_in_all);
    let combined = truth.combined.by_first_drug.iter();
    assert_eq!(combined.map(|c| c.patients).sum::<u64>(), eligible_in_all);
}

#[test]
fn every_reason_of_the_rule_occurs_and_so_do_its_edges() {
    let (dir, _) = made(&plan(12_000, 0));
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for hospital in 1..=3 {
        let register = register(dir.path(), hospital);
        let patients = table(dir.path(), hospital, "patient_summary");
        for id in ints(&patients, "patient_id") {
            let mut see = |what, if_so| *seen.entry(what).or_default() += u64::from(if_so);
            let Some([notified, opted_out, died]) = register.get(id) else {
                see("never notified", true);
                continue;
            };
            let notified = notified.unwrap();
            let ago = (as_of() - notified).num_days();
            see("notified in the future", ago < 0);
            see("too recently notified", ago < 30);
            see("notified 30 days ago", ago == 30);
            see("opted out", opted_out.is_some());
            see("opted out today", *opted_out == Some(as_of()));
            see("opted out later", opted_out.is_some_and(|on| on > as_of()));
            see("died", died.is_some());
            see("died before", died.is_some_and(|on| on < notified));
            see("died on notice", *died == Some(notified));
        }
    }
    let rows = [
        ("never notified", 30..100),
        ("notified in the future", 0..1),
        ("too recently notified", 180..320),
        ("notified 30 days ago", 80..200),
        ("opted out", 280..450),
        ("opted out today", 10..80),
        ("opted out later", 0..1),
        ("died", 80..170),
        ("died before", 35..90),
        ("died on notice", 1..20),
    ];
    for (what, expected) in rows {
        assert!(expected.contains(&seen[what]), "{what}: {}", seen[what]);
    }
}

#[test]
fn the_planned_rows_are_met_exactly_whatever_their_number() {
    for (patients, rows) in [(3, 0), (5, 1), (700, 13), (300, 20_011), (3, 5_000)] {
        let (dir, truth) = made(&plan(patients, rows));
        let mut found = 0;
        for (index, told) in truth.hospitals.iter().enumerate() {
            let count = |name| table(dir.path(), index + 1, name).num_rows() as u64;
            let counts = EVENT_TABLES.map(count);
            let rows = &told.rows;
            let claimed = [rows.stay, rows.diagnosis, rows.prescription, rows.lab];
            assert_eq!(counts, claimed);
            assert_eq!(told.rows.patient_summary, told.patients);
            found += counts.iter().sum::<u64>();
        }
        assert_eq!(found, rows, "of {patients} patients");
        assert_eq!(truth.patients, patients);
    }
}

#[test]
fn people_at_two_hospitals_agree_on_who_they_are() {
    let (dir, truth) = made(&plan(5_000, 0));
    let mut places: HashMap<String, Vec<(usize, i64, String)>> = HashMap::new();
    for hospital in 1..=3 {
        let patients = table(dir.path(), hospital, "patient_summary");
        let ids = ints(&patients, "patient_id");
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
        assert!(ids.iter().all(|id| id / 100_000_000_000_000 == 7345));
        assert!(!ids.is_sorted());
        let ages = ints(&patients, "age");
        let (sexes, stages) = (texts(&patients, "sex"), texts(&patients, "diabetes_stage"));
        let insurance = texts(&patients, "insurance_no");
        for (row, name) in texts(&patients, "name").into_iter().enumerate() {
            let name = name.unwrap().to_owned();
            assert!(name.starts_with("PLANT-患者-"), "{name}");
            assert!(insurance[row].unwrap().starts_with("PLANT-INS-"));
            let who = (ages[row], sexes[row], stages[row], insurance[row]);
            let place = (hospital, ids[row], format!("{who:?}"));
            places.entry(name).or_default().push(place);
        }
    }
    let two: Vec<_> = places.values().filter(|at| at.len() > 1).collect();
    for at in &two {
        assert_eq!(at.len(), 2);
        assert_ne!(at[0].0, at[1].0, "twice at one hospital");
        assert_ne!(at[0].1, at[1].1, "known by one number at both");
        assert_eq!(at[0].2, at[1].2);
    }
    assert_eq!(two.len() as u64, truth.patients_at_two_hospitals);
    let percent = 100.0 * two.len() as f64 / places.len() as f64;
    assert!((2.8..=3.1).contains(&percent), "{percent} %");
    let tiny = Plan { hospitals: 100, ..plan(100, 99) };
    assert_eq!(made(&tiny).1.patients_at_two_hospitals, 0);
    let alone = Plan { hospitals: 1, ..plan(500, 0) };
    assert_eq!(made(&alone).1.patients_at_two_hospitals, 0);
}

#[test]
fn rates_are_near_those_stated() {
    let (dir, truth) = made(&plan(30_000, 0));
    let cells = &truth.combined.by_first_drug;
    for (cell, (low, high)) in cells.iter().zip([(0.05, 0.075), (0.022, 0.04), (0.006, 0.015)]) {
        let rate = cell.adverse_events as f64 / cell.patients as f64;
        assert!((low..high).contains(&rate), "{cell:?}: {rate}");
    }
    let patients = table(dir.path(), 1, "patient_summary");
    let ages = ints(&patients, "age");
    assert!(ages.iter().all(|age| (0..=104).contains(age)));
    let stages = texts(&patients, "diabetes_stage");
    let diabetics = |from: i64, to: i64| {
        let of_age = (0..ages.len()).filter(|row| (from..to).contains(&ages[*row]));
        let (with, all) =
            of_age.fold((0, 0), |(with, all), row| (with + u64::from(stages[row] != Some("none")), all + 1));
        with as f64 / f64::from(all)
    };
    let rising = [(0, 18), (18, 40), (40, 65), (65, 105)].map(|(from, to)| diabetics(from, to));
    assert!(rising.is_sorted_by(|a, b| a < b), "{rising:?}");
    let sexless = texts(&patients, "sex").iter().filter(|s| s.is_none()).count();
    let share = sexless as f64 / ages.len() as f64;
    assert!((0.002..0.008).contains(&share), "{share}");
    let weights = patients.column_by_name("weight_kg").unwrap();
    assert_eq!(*weights.data_type(), DataType::Decimal128(6, 1));
    let share = weights.null_count() as f64 / ages.len() as f64;
    assert!((0.015..0.025).contains(&share), "{share}");
}

#[test]
fn events_fit_the_patients_they_are_of() {
    let (dir, _) = made(&plan(2_000, 60_000));
    let last = as_of().to_epoch_days();
    let mut deaths = 0;
    for hospital in 1..=3 {
        let patients = table(dir.path(), hospital, "patient_summary");
        let register = register(dir.path(), hospital);
        let known: BTreeSet<i64> = ints(&patients, "patient_id").iter().copied().collect();
        let ages: HashMap<i64, i64> =
            ints(&patients, "patient_id").iter().copied().zip(ints(&patients, "age").iter().copied()).collect();
        for name in EVENT_TABLES {
            let events = table(dir.path(), hospital, name);
            let ids = ints(&events, "patient_id");
            assert!(ids.iter().all(|id| known.contains(id)), "{name}");
            let runs = ids.chunk_by(|a, b| a == b).count();
            assert!(runs > ids.len() / 2, "{name} holds patients together: {runs} runs");
            let column = if name == "stay" { "admitted" } else { "on_date" };
            let days = dates(&events, column);
            assert!(!days.is_sorted(), "{name} is sorted by time");
            for (id, day) in ids.iter().zip(days) {
                // Ages of the dead are those at death; who is not in the register may be one of them.
                let alive = register.get(id).is_some_and(|line| line[2].is_none());
                let before_birth = alive && i64::from(last - day) > ages[id] * 365 + 364;
                assert!(*day <= last && !before_birth, "{name}: {id} on day {day}");
            }
        }
        let stays = table(dir.path(), hospital, "stay");
        let stay_ids = ints(&stays, "stay_id");
        assert_eq!(stay_ids.iter().collect::<HashSet<_>>().len(), stay_ids.len());
        assert!(stay_ids.iter().any(|id| *id < 0) && stay_ids.iter().any(|id| *id > 0));
        let (from, to) = (dates(&stays, "admitted"), dates(&stays, "discharged"));
        for (row, days) in ints(&stays, "days").iter().enumerate() {
            assert!((1..=180).contains(days));
            assert_eq!(i64::from(to[row] - from[row]) + 1, *days);
            assert!(to[row] <= last);
        }
        let outcomes = texts(&stays, "outcome");
        for (row, id) in ints(&stays, "patient_id").iter().enumerate() {
            let died = register.get(id).and_then(|line| line[2]);
            if let (Some("died"), Some(_)) = (outcomes[row], register.get(id)) {
                deaths += 1;
                assert_eq!(died.map(|on| on.to_epoch_days()), Some(to[row]));
            }
        }
        let labs = table(dir.path(), hospital, "lab");
        let values = labs.column_by_name("value").unwrap();
        let values = values.as_primitive::<Float64Type>();
        assert!(values.null_count() > 0);
        assert!(values.iter().flatten().all(|v| v > 0.0 && v.is_finite()));
    }
    assert!(deaths > 0);
}

#[test]
fn codes_have_the_form_of_their_systems() {
    let check = |code: &str, length: usize| {
        assert_eq!(code.len(), length, "{code}");
        assert!(code.bytes().all(|b| b.is_ascii_alphanumeric()), "{code}");
    };
    for (dpc, _) in super::codes::STAYS.iter().chain(super::codes::DIABETIC_STAYS) {
        check(dpc, 14);
    }
    for drug in super::codes::DRUGS.iter().chain(super::codes::DIABETIC_DRUGS) {
        check(drug.atc, 7);
        check(drug.yj, 12);
    }
    for test in super::codes::LABS {
        check(test.jlac10, 17);
    }
}

#[test]
fn progress_rises_to_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let heard = RefCell::new(Vec::new());
    let hear = |done, total| heard.borrow_mut().push((done, total));
    generate_in_batches(&plan(300, 2_000), dir.path(), &hear, 50).unwrap();
    let heard = heard.into_inner();
    assert!(heard.len() > 20, "{} reports", heard.len());
    assert!(heard.is_sorted());
    assert!(heard.iter().all(|(done, total)| *done <= 2_300 && *total == 2_300));
    assert_eq!(heard.last(), Some(&(2_300, 2_300)));
}

#[test]
fn a_directory_that_holds_anything_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let before = bytes(dir.path());
    let refused = generate(&plan(10, 10), dir.path(), &|_, _| {}).unwrap_err();
    assert!(matches!(refused, GenerateError::NotEmpty { .. }), "{refused}");
    assert_eq!(before, bytes(dir.path()));
    let inner = dir.path().join("new/network");
    generate(&plan(10, 10), &inner, &|_, _| {}).unwrap();
}

#[test]
fn a_plan_out_of_range_is_refused_before_anything_is_written() {
    let fine = plan(10, 10);
    let year = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
    #[rustfmt::skip]
    let rows = [
        ("hospitals", Plan { hospitals: 0, ..fine.clone() }),
        ("hospitals", Plan { hospitals: 101, patients: 200, ..fine.clone() }),
        ("patients", Plan { patients: 2, ..fine.clone() }),
        ("patients", Plan { patients: super::MAX_PATIENTS + 1, ..fine.clone() }),
        ("rows", Plan { rows: super::MAX_ROWS + 1, ..fine.clone() }),
        ("as_of", Plan { as_of: year(1969), ..fine.clone() }),
        ("as_of", Plan { as_of: year(2201), ..fine }),
    ];
    for (expected, plan) in rows {
        let dir = tempfile::tempdir().unwrap();
        let refused = generate(&plan, dir.path(), &|_, _| {}).unwrap_err();
        assert!(matches!(refused, GenerateError::Plan { field, .. } if field == expected), "{refused}");
        assert!(bytes(dir.path()).is_empty());
    }
}
