//! From SQL and rows to exact releases and their tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::array::Array;
use chrono::NaiveDate;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sekisho_protocol::{
    digest::Digest, disclosure::Rules, permit::Preset, query::Terms, refusal::Code, units::MicroRho,
};

use super::{
    Claim, Cohort, CohortKey, HiddenWhy, History, Preview, Reviewed,
    example::{analyse, permit, plan},
};
use crate::{
    combine::{CombineError, check, combine},
    example,
    fold::RawCells,
    plan::PrivatePlan,
    release::{Release, ReleaseHeader},
    reservation::Reservation,
    roundtrip::{Cell, Free, now, raw, real, table, texts, whole},
};

/// A history that lets everything pass.
struct Open;

impl History for Open {
    type Record = ();
    type Error = ();

    async fn record(&self, _: &Claim, _: &Cohort) -> Result<(), ()> {
        Ok(())
    }
}

type Rows = [(i64, Vec<Cell>)];

const BY_SEX: &str = "SELECT sex, count(*), sum(days), avg(days), count(DISTINCT patient_id) FROM stay GROUP BY sex";

fn key() -> CohortKey {
    CohortKey::new([7; 32])
}

fn question() -> Digest {
    Digest::of(b"question")
}

fn reviewed(plan: &PrivatePlan, raw: &RawCells) -> Reviewed<()> {
    let cohort = raw.cohort(&key()).unwrap();
    now(Reviewed::make(plan, question(), question(), 1, &cohort, &Open)).unwrap()
}

fn made(plan: &PrivatePlan, raw: RawCells, reviewed: &Reviewed<()>, rules: &Rules) -> Option<Release> {
    let (day, mut rng) = (NaiveDate::default(), ChaCha20Rng::seed_from_u64(1));
    Release::exact(plan, raw, reviewed, rules, day, day, true, &mut rng)
}

/// One hospital's release of such rows, as it is sent.
fn release(plan: &Arc<PrivatePlan>, rows: &Rows) -> Release {
    let raw = raw(plan, rows);
    let reviewed = reviewed(plan, &raw);
    let release = made(plan, raw, &reviewed, plan.exact().unwrap()).unwrap();
    let sent = Release::from_batch(&release.to_batch().unwrap()).unwrap();
    assert!(sent == release);
    check(plan, question(), question(), 1, &sent).unwrap();
    sent
}

/// Patients with one row each: so many, of this sex or none (`""`), of so many days.
fn patients(groups: &[(i64, &'static str, i64)]) -> Vec<(i64, Vec<Cell>)> {
    let each = groups.iter().flat_map(|(n, sex, days)| (0..*n).map(move |_| (*sex, *days)));
    // In a column of texts a number is NULL.
    let cell = |sex: &'static str| if sex.is_empty() { Cell::Number(0) } else { Cell::Text(sex) };
    (0..).zip(each).map(|(id, (sex, days))| (id, vec![cell(sex), Cell::Number(days)])).collect()
}

#[test]
fn what_an_exact_plan_admits() {
    let ask = |sql: &str| analyse(sql, &permit(sql, Preset::Acro), 0, &Terms::default());
    for sql in [
        BY_SEX,
        "SELECT count(weight) FROM stay WHERE age > 60",
        "SELECT sex, died, count(*) FROM stay GROUP BY CUBE(sex, died) HAVING count(*) > 10 ORDER BY 1 LIMIT 3",
        "SELECT sex, count(*) FILTER (WHERE died), 1.0 * sum(days) / count(*) FROM stay GROUP BY sex",
        "SELECT count(*) FROM (SELECT patient_id, sum(days) AS d FROM stay GROUP BY patient_id) t WHERE d > 30",
    ] {
        let plan = ask(sql).unwrap_or_else(|refusal| panic!("{sql}: {refusal}"));
        assert!(plan.exact() == Some(&Preset::Acro.rules()) && plan.micro_rho() == MicroRho::ZERO, "{sql}");
        assert!(plan.parts()[0].measures().iter().all(|m| plan.parts()[0].noise(m).is_none()), "{sql}");
    }
    for (sql, code, words) in [
        ("SELECT median(days) FROM stay", Code::StatisticNotPermitted, "count, sum or avg"),
        ("SELECT var_pop(days) FROM stay", Code::StatisticNotPermitted, "count, sum or avg"),
        ("SELECT max(days) FROM stay", Code::StatisticNotPermitted, "count, sum or avg"),
        ("SELECT count(DISTINCT patient_id) FILTER (WHERE died) FROM stay", Code::SqlUnsupported, "group key"),
        ("SELECT note, count(*) FROM stay GROUP BY note", Code::UnknownDomain, "note"),
        (
            "SELECT a.n, b.n FROM (SELECT count(*) AS n FROM stay) a CROSS JOIN (SELECT count(*) AS n FROM stay) b",
            Code::SqlUnsupported,
            "one aggregate",
        ),
        ("SELECT age, days, count(*) FROM stay GROUP BY age, days", Code::SqlUnsupported, "cells"),
        (
            "SELECT sex, died, age / 40, days / 50, age / 60, count(*) FROM stay GROUP BY 1, 2, 3, 4, 5",
            Code::SqlUnsupported,
            "4 group keys",
        ),
    ] {
        let refusal = ask(sql).err().unwrap_or_else(|| panic!("{sql} is admitted"));
        assert!(refusal.code == code && refusal.detail.contains(words), "{sql}: {refusal}");
    }
    let permit = permit(BY_SEX, Preset::Acro);
    let terms = Terms { rows_per_patient: Some(1), ..Terms::default() };
    for (rho, terms, code) in [(1, Terms::default(), Code::BudgetQuery), (0, terms, Code::Terms)] {
        assert_eq!(analyse(BY_SEX, &permit, rho, &terms).err().unwrap().code, code);
    }
    // What the permit does not list costs rho as ever.
    let other = "SELECT count(*) FROM stay";
    assert_eq!(analyse(other, &permit, 0, &Terms::default()).err().unwrap().code, Code::BudgetQuery);
    assert!(analyse(other, &permit, 1000, &Terms::default()).unwrap().exact().is_none());
}

#[test]
fn the_two_doors_do_not_let_each_others_cells_out() {
    let rows = || patients(&[(30, "female", 5), (40, "male", 6)]);
    let (exact, day) = (plan(BY_SEX, Preset::Datashield), NaiveDate::default());
    let noised = analyse(BY_SEX, &example::permit(1, 1), 1000, &Terms::default()).map(Arc::new).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let reservation = now(Reservation::make(&exact, question(), question(), 1, &Free)).unwrap();
    assert!(Release::make(&exact, raw(&exact, &rows()), &reservation, day, true, &mut rng).is_none());
    let rules = exact.exact().unwrap();
    let cohort = raw(&exact, &rows()).cohort(&key()).unwrap();
    let of_noised = now(Reviewed::make(&noised, question(), question(), 1, &cohort, &Open)).unwrap();
    let free = Preset::None.rules();
    for rules in [rules, &free] {
        assert!(made(&noised, raw(&noised, &rows()), &of_noised, rules).is_none());
        // Nor cells of one plan under the other.
        assert!(made(&noised, raw(&exact, &rows()), &of_noised, rules).is_none());
        assert!(made(&exact, raw(&exact, &rows()), &of_noised, rules).is_none());
    }
    let of_exact = || reviewed(&exact, &raw(&exact, &rows()));
    assert!(raw(&noised, &rows()).cohort(&key()).is_none());
    assert!(made(&exact, raw(&noised, &rows()), &of_exact(), rules).is_none());
    // Weaker rules, and another cohort than was reviewed.
    assert!(made(&exact, raw(&exact, &rows()), &of_exact(), &free).is_none());
    assert!(made(&exact, raw(&exact, &rows()[1..]), &of_exact(), rules).is_none());
    assert!(made(&exact, raw(&exact, &rows()), &of_exact(), &rules.with_at_least(20)).is_some());
}

/// Rows, patients, sum of days, and number of days of each combination of keys.
type Plain = BTreeMap<(Option<&'static str>, Option<&'static str>), (i64, BTreeSet<i64>, i64)>;

proptest! {
    #[test]
    fn exact_cells_are_the_plain_statistics_with_all_margins(
        mut rows in prop::collection::vec((0_i64..30, 0_usize..2, 0_usize..2, 0_i64..200), 1..80),
        hiding in any::<bool>(),
    ) {
        const SEXES: [&str; 2] = ["female", "male"];
        const BANDS: [&str; 2] = ["adult", "child"];
        let sql = "SELECT sex, CASE WHEN age < 18 THEN 'child' ELSE 'adult' END AS band, count(*), sum(days), avg(days), \
                   count(DISTINCT patient_id) FROM stay GROUP BY CUBE(sex, band)";
        rows.sort_unstable();
        let mut plain = Plain::new();
        for (id, sex, band, days) in &rows {
            let (sex, band) = (Some(SEXES[*sex]), Some(BANDS[*band]));
            for key in [(sex, band), (sex, None), (None, band), (None, None)] {
                let cell = plain.entry(key).or_default();
                cell.0 += 1;
                cell.1.insert(*id);
                // Clamped to the schema's bounds.
                cell.2 += (*days).min(100);
            }
        }
        let cells = |(_, sex, band, days): &(i64, usize, usize, i64)| {
            vec![Cell::Text(SEXES[*sex]), Cell::Text(BANDS[*band]), Cell::Number(*days)]
        };
        let rows: Vec<_> = rows.iter().map(|row| (row.0, cells(row))).collect();
        let plan = plan(sql, if hiding { Preset::Datashield } else { Preset::None });
        let release = release(&plan, &rows);
        let hidden = &release.header().parts[0].hidden;
        prop_assert!(hiding || hidden.is_empty());
        let (_, table) = table(&plan, &[&release]);
        // 4 times 2 cells, 4 and 2, and all; the columns are sex, band, the set, then the aggregates.
        prop_assert_eq!(table.num_rows(), 15);
        let (sexes, bands, sets) = (texts(&table, 0), texts(&table, 1), texts(&table, 2));
        let (counts, sums, patients) = (whole(&table, 3), whole(&table, 4), whole(&table, 6));
        let (means, low, high) = (real(&table, "c5"), real(&table, "__0_0_low"), real(&table, "__0_1_high"));
        let mut seen = 0;
        for row in 0..table.num_rows() {
            if hidden.contains(&u32::try_from(row).unwrap()) {
                seen += 1;
                prop_assert!((3..7).all(|column| table.column(column).is_null(row)));
                continue;
            }
            let all = |bit: i64| sets[row].as_ref().unwrap().parse::<i64>().unwrap() & bit != 0;
            if (!all(2) && sexes[row].is_none()) || (!all(1) && bands[row].is_none()) {
                // NULL and what is outside the domain: nobody.
                prop_assert_eq!((counts[row], patients[row], sums[row]), (0, 0, 0));
                prop_assert!(table.column(5).is_null(row));
                continue;
            }
            let cell = plain.iter().find(|((sex, band), _)| (*sex, *band) == (sexes[row].as_deref(), bands[row].as_deref()));
            let (n, who, days) = cell.map(|(_, cell)| cell.clone()).unwrap_or_default();
            prop_assert_eq!((counts[row], patients[row], sums[row]), (n, who.len() as i64, days));
            prop_assert_eq!((low[row], high[row]), (n as f64, days as f64));
            if n > 0 {
                seen += 1;
                prop_assert!((means[row] - days as f64 / n as f64).abs() < 1e-9);
            }
        }
        // Nobody's cells may be hidden too.
        prop_assert!(seen == plain.len() || hiding && seen > plain.len());
    }

    #[test]
    fn nothing_of_a_hidden_row_is_in_the_bytes(
        few in (1_i64..3, 1_i64..3),
        cover in (3_i64..60, 3_i64..60),
        days in prop::collection::vec(0_i64..100, 4),
    ) {
        let plan = plan(BY_SEX, Preset::Datashield);
        let one = |few, cover, of_few, of_cover| {
            release(&plan, &patients(&[(few, "female", of_few), (cover, "male", of_cover), (80, "other", 7)]))
        };
        let (a, b) = (one(few.0, cover.0, days[0], days[1]), one(few.1, cover.1, days[2], days[3]));
        let hidden = |release: &Release| release.header().parts[0].hidden.clone();
        prop_assert!(hidden(&a).contains(&0) && hidden(&a).len() >= 2);
        let (_, shown) = table(&plan, &[&a]);
        for row in hidden(&a) {
            prop_assert!((1..5).all(|column| shown.column(column).is_null(row as usize)));
        }
        // Where something else covers for the few, other numbers are shown.
        prop_assume!(hidden(&a) == hidden(&b) && hidden(&a).contains(&1));
        prop_assert!(a.to_bytes() == b.to_bytes());
    }

    #[test]
    fn rounded_tables_hold_the_exact_numbers_between_their_ends(
        hospitals in prop::collection::vec((20_i64..90, 20_i64..90, 1_i64..100, 1_i64..100), 1..4),
    ) {
        // Nobody is hidden for few, so that all is compared; as opensafely rounds.
        let plan = plan(BY_SEX, Preset::Opensafely);
        let groups =
            |(a, b, x, y): &(i64, i64, i64, i64)| [(*a, "female", *x), (*b, "male", *y), (25, "", 1), (25, "other", 2)];
        let releases: Vec<_> = hospitals.iter().map(|h| release(&plan, &patients(&groups(h)))).collect();
        let (_, table) = table(&plan, &releases.iter().collect::<Vec<_>>());
        let exact = |of: fn(&(i64, i64, i64, i64)) -> (i64, i64)| hospitals.iter().map(of).fold((0, 0), |(n, d), (m, e)| (n + m, d + m * e));
        for (row, (n, sum)) in [exact(|h| (h.0, h.2)), exact(|h| (h.1, h.3))].into_iter().enumerate() {
            let exact = [n as f64, sum as f64, sum as f64 / n as f64, n as f64];
            for (output, exact) in exact.into_iter().enumerate() {
                prop_assert!(table.column(1 + output).is_valid(row));
                let end = |name: &str| real(&table, &format!("__0_{output}_{name}"))[row];
                prop_assert!(end("low") <= exact && exact <= end("high"), "{} {} {}", end("low"), exact, end("high"));
                // A count is off by two for each hospital.
                let width = 4.0 * hospitals.len() as f64;
                prop_assert!(output == 1 || output == 2 || end("high") - end("low") <= width);
            }
            prop_assert!(whole(&table, 1)[row] % 5 == 0);
        }
    }
}

#[test]
fn a_mean_stays_and_a_count_is_rounded() {
    let plan = plan(BY_SEX, Preset::Opensafely);
    let rows = patients(&[(42, "female", 10), (57, "male", 20), (33, "other", 30), (30, "", 40)]);
    let (_, table) = table(&plan, &[&release(&plan, &rows)]);
    let (counts, sums, means) = (whole(&table, 1), whole(&table, 2), real(&table, "c3"));
    assert_eq!(table.column(1).null_count(), 0);
    assert_eq!((counts[0], sums[0], means[0]), (40, 400, 10.0));
    assert_eq!((counts[1], sums[1], means[1]), (55, 1_100, 20.0));
    assert_eq!((real(&table, "__0_0_low")[0], real(&table, "__0_0_high")[0]), (38.0, 42.0));
}

#[test]
fn a_combined_row_is_shown_where_every_hospital_shows_it() {
    let plan = plan(BY_SEX, Preset::Datashield);
    let (all, few) = (
        &[(30, "female", 5), (40, "male", 6), (50, "other", 7)],
        &[(2, "female", 5), (40, "male", 6), (50, "other", 7)],
    );
    let (first, second) = (release(&plan, &patients(all)), release(&plan, &patients(few)));
    assert!(first.header().parts[0].hidden.is_empty());
    let hidden = second.header().parts[0].hidden.clone();
    assert!(hidden.contains(&0), "{hidden:?}");
    let (sums, table) = table(&plan, &[&first, &second]);
    let notes = texts(&table, table.num_columns() - 1);
    for (row, (patients, judged)) in plan.judged(&sums).into_iter().enumerate() {
        let expect = hidden.contains(&u32::try_from(row).unwrap());
        assert_eq!((judged, table.column(1).is_null(row)), (expect, expect), "{row}");
        assert_eq!(notes[row].as_ref().unwrap().contains("suppressed"), expect);
        assert!(if expect { patients == 0 } else { patients == i128::from(whole(&table, 4)[row]) });
    }
    assert!(plan.judged(&combine(&plan, &[]).unwrap()).iter().all(|(_, hidden)| *hidden));
}

#[test]
fn a_condition_of_few_patients_hides_its_row() {
    // Fifty of each sex, of whom n died.
    let died = |n: i64, cell: fn(bool) -> Cell| {
        let row = |i: i64| (i, vec![Cell::Text(if i < 50 { "female" } else { "male" }), cell(i % 50 < n)]);
        (0..100).map(row).collect::<Vec<_>>()
    };
    // What is only counted may be a text; a number is NULL among texts.
    let counted: fn(bool) -> Cell = |died| if died { Cell::Text("1") } else { Cell::Number(0) };
    let summed: fn(bool) -> Cell = |died| Cell::Number(died.into());
    for (sql, cell) in [
        ("SELECT sex, count(*) FILTER (WHERE died) FROM stay GROUP BY sex", counted),
        ("SELECT sex, sum(CASE WHEN died THEN 1 ELSE 0 END) FROM stay GROUP BY sex", summed),
    ] {
        let plan = plan(sql, Preset::JpNdb);
        for (n, hidden) in [(3, true), (20, false), (47, true)] {
            let release = release(&plan, &died(n, cell));
            assert_eq!(!release.header().parts[0].hidden.is_empty(), hidden, "{sql}: {n}");
        }
    }
}

#[test]
fn a_release_of_another_kind_or_with_more_than_it_may_say_is_not_taken() {
    let plan = plan(BY_SEX, Preset::Datashield);
    let rows = patients(&[(2, "female", 5), (43, "male", 6), (52, "other", 7)]);
    let good = release(&plan, &rows);
    let altered = |alter: &dyn Fn(&mut ReleaseHeader, &mut Vec<u8>)| {
        let (header, mut cells) = good.to_bytes();
        let mut header: ReleaseHeader = serde_json::from_slice(&header).unwrap();
        alter(&mut header, &mut cells);
        let altered = Release::from_bytes(&serde_json::to_vec(&header).unwrap(), &cells).unwrap();
        check(&plan, question(), question(), 1, &altered)
    };
    type Alter = fn(&mut ReleaseHeader, &mut Vec<u8>);
    let rules = |header: &mut ReleaseHeader, rules: Rules| header.exact.as_mut().unwrap().rules = rules;
    assert_eq!(altered(&|header, _| rules(header, Preset::Acro.rules())), Err(CombineError::OtherPlan), "not rounded");
    assert_eq!(altered(&|header, _| rules(header, Preset::Datashield.rules().with_at_least(5))), Ok(()));
    let wrong: [(&str, Alter); 8] = [
        ("no rules", |header, _| header.exact = None),
        ("weaker rules", |header, _| header.exact.as_mut().unwrap().rules.min_patients = 2),
        ("rules that are none", |header, _| header.exact.as_mut().unwrap().rules.rounding = 0),
        ("a row that is none", |header, _| header.parts[0].hidden.push(4)),
        ("rows out of order", |header, _| header.parts[0].hidden.reverse()),
        ("a hidden number", |_, cells| cells[0] = 2),
        ("a hidden row with its number", |header, _| header.parts[0].hidden.push(3)),
        ("noise", |header, _| {
            header.parts[0].measures[0].noise = Some(serde_json::from_str(r#"{"gaussian":"9/1"}"#).unwrap())
        }),
    ];
    assert_eq!(good.header().parts[0].hidden, [0, 1]);
    for (what, alter) in wrong {
        assert_eq!(altered(&alter), Err(CombineError::OtherPlan), "{what}");
    }
    // A noised release that calls itself exact.
    let noised = analyse(BY_SEX, &example::permit(1, 1), 1000, &Terms::default()).map(Arc::new).unwrap();
    let reservation = now(Reservation::make(&noised, question(), question(), 1, &Free)).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let release =
        Release::make(&noised, raw(&noised, &rows), &reservation, NaiveDate::default(), true, &mut rng).unwrap();
    assert_eq!(check(&noised, question(), question(), 1, &release), Ok(()));
    let (header, cells) = release.to_bytes();
    for alter in [(|header, _| header.exact = good_exact()) as Alter, |header, _| header.parts[0].hidden = vec![0]] {
        let mut header: ReleaseHeader = serde_json::from_slice(&header).unwrap();
        alter(&mut header, &mut Vec::new());
        let altered = Release::from_bytes(&serde_json::to_vec(&header).unwrap(), &cells).unwrap();
        assert_eq!(check(&noised, question(), question(), 1, &altered), Err(CombineError::OtherPlan));
    }
}

fn good_exact() -> Option<crate::release::ExactHeader> {
    Some(crate::release::ExactHeader { rules: Preset::Datashield.rules(), cut: NaiveDate::default() })
}

#[test]
fn a_reviewer_sees_the_table_that_leaves_and_how_many_rows_do_not() {
    let plan = plan(BY_SEX, Preset::Datashield);
    let rows = patients(&[(2, "female", 5), (40, "male", 6), (50, "other", 7)]);
    let preview = Preview::of(&plan, &raw(&plan, &rows), plan.exact().unwrap()).unwrap();
    let (_, leaves) = table(&plan, &[&release(&plan, &rows)]);
    assert_eq!(preview.cells(&plan).unwrap(), [leaves]);
    let why = preview.hidden_why();
    assert_eq!((why.rows, why.few, why.dominated), (4, 1, 0));
    assert!(why.complementary >= 1, "{why:?}");
    assert!(Preview::of(&plan, &raw(&plan, &rows), &Preset::None.rules()).is_none());
    // Nearly all days are one patient's.
    let plan = self::plan(BY_SEX, Preset::Acro);
    let groups: Vec<_> = ["female", "male", "other", ""].iter().map(|sex| (30, *sex, 1)).collect();
    let why = |rows: &Rows| Preview::of(&plan, &raw(&plan, rows), plan.exact().unwrap()).unwrap().hidden_why();
    assert_eq!(why(&patients(&groups)), HiddenWhy { rows: 4, ..HiddenWhy::default() });
    let one = (0..20).map(|_| (200, vec![Cell::Text("male"), Cell::Number(100)]));
    let why = why(&patients(&groups).into_iter().chain(one).collect::<Vec<_>>());
    assert_eq!((why.few, why.dominated), (0, 1), "{why:?}");
}

#[test]
fn cohorts_of_neighbours_differ_by_one() {
    let plan = plan(BY_SEX, Preset::Datashield);
    let of = |ids: std::ops::Range<i64>, key: &CohortKey| {
        let rows: Vec<_> =
            ids.flat_map(|id| [id, id]).map(|id| (id, vec![Cell::Text("male"), Cell::Number(3)])).collect();
        raw(&plan, &rows).cohort(key).unwrap()
    };
    let cohort = of(0..50, &key());
    assert_eq!(cohort.len(), 50);
    for (other, expect) in [(0..50, 0), (0..49, 1), (1..51, 2), (50..60, 60)] {
        assert_eq!(cohort.difference(&of(other.clone(), &key())), expect, "{other:?}");
    }
    assert_eq!(cohort.difference(&of(0..50, &CohortKey::new([8; 32]))), 100);
}
