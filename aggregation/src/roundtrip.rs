//! From SQL and rows to the released table, through every step that a node and the coordinator take: tests of what only shows in
//! the whole.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Float64Type, Int64Type, Schema},
    record_batch::RecordBatch,
};
use chrono::NaiveDate;
use rand::SeedableRng;
use rand_chacha::ChaCha20Rng;
use sekisho_protocol::{
    digest::Digest,
    permit::{Mechanism, Permit, Statistic},
    query::{NarrowBounds, Terms},
    refusal::{Code, Refusal},
    schema::Bounds,
    units::{AttoDelta, MicroRho},
};

use crate::{
    combine::{Combined, check, combine},
    domain::KeyValue,
    example,
    fold::{Fold, RawCells, Read},
    inspection::{Console, Inspection, ShownMeasure, ShownNumber, Verdict},
    plan::{CellKey, PrivatePlan},
    release::Release,
    reservation::{Charge, Ledger, Reservation},
};

pub(crate) struct Free;

impl Ledger for Free {
    type Record = ();
    type Error = ();

    async fn charge(&self, _: &Charge) -> Result<(), ()> {
        Ok(())
    }
}

/// Polls a future that never waits.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn permit() -> Permit {
    let mut permit = example::permit(5, 3);
    permit.allowed_statistics = vec![
        Statistic::Count,
        Statistic::CountDistinct,
        Statistic::Sum,
        Statistic::Avg,
        Statistic::Variance,
        Statistic::Quantile,
    ];
    permit.dp.atto_delta_per_query = AttoDelta::try_from(1_000_000_000).unwrap();
    permit.dp.atto_delta_total = permit.dp.atto_delta_per_query;
    permit
}

fn plan(sql: &str, permit: &Permit, micro_rho: u64, terms: &Terms) -> Result<Arc<PrivatePlan>, Refusal> {
    let rho = MicroRho::try_from(micro_rho).unwrap();
    PrivatePlan::analyse_with(sql, &example::schema(), permit, rho, terms).map(Arc::new)
}

/// One row: patient, then the columns that a plan's row has after it, as texts or numbers.
pub(crate) enum Cell {
    Text(&'static str),
    Number(i64),
}

/// The exact cells of rows that are sorted by patient.
pub(crate) fn raw(plan: &Arc<PrivatePlan>, rows: &[(i64, Vec<Cell>)]) -> RawCells {
    let mut parts = Vec::new();
    for place in 0..plan.parts().len() {
        let width = plan.parts()[place].rows().schema().fields().len();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>())];
        for i in 0..width - 1 {
            let text = |(_, cells): &(i64, Vec<Cell>)| match cells[i] {
                Cell::Text(text) => Some(text),
                Cell::Number(_) => None,
            };
            let number = |(_, cells): &(i64, Vec<Cell>)| match cells[i] {
                Cell::Number(number) => Some(number),
                Cell::Text(_) => None,
            };
            let array: ArrayRef = if rows.iter().any(|r| text(r).is_some()) {
                Arc::new(rows.iter().map(text).collect::<StringArray>())
            } else {
                Arc::new(rows.iter().map(number).collect::<Int64Array>())
            };
            columns.push(array);
        }
        let fields: Vec<Field> =
            columns.iter().enumerate().map(|(i, c)| Field::new(format!("c{i}"), c.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        // In two partitions, which meet their names in another order.
        let half = rows.iter().position(|(id, _)| *id > rows[rows.len() / 2].0).unwrap_or(rows.len());
        let halves = [batch.slice(0, half), batch.slice(half, rows.len() - half)];
        let folds = halves.iter().map(|part| {
            let mut fold = Fold::new(plan, place).unwrap();
            fold.push(part).unwrap();
            fold
        });
        parts.push(Fold::finish(plan, place, folds.collect()).unwrap());
    }
    RawCells::of(parts)
}

/// One hospital's release of such rows.
fn release(plan: &Arc<PrivatePlan>, rows: &[(i64, Vec<Cell>)], seed: u64) -> Release {
    let digest = Digest::of(b"question");
    let reservation = now(Reservation::make(plan, digest, digest, 1, &Free)).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let release = Release::make(plan, raw(plan, rows), &reservation, NaiveDate::default(), true, &mut rng).unwrap();
    // As it is stored, and as it is sent.
    let (header, cells) = release.to_bytes();
    assert!(Release::from_bytes(&header, &cells).unwrap() == release);
    let sent = Release::from_batch(&release.to_batch().unwrap()).unwrap();
    assert!(check(plan, digest, digest, 1, &sent).is_ok());
    sent
}

pub(crate) fn table(plan: &PrivatePlan, releases: &[&Release]) -> (Combined, RecordBatch) {
    let all = combine(plan, releases).unwrap();
    let table = plan.released_cells(&all, true, 0.95, &[]).unwrap().remove(0);
    (all, table)
}

pub(crate) fn texts(batch: &RecordBatch, column: usize) -> Vec<Option<String>> {
    let column = cast(batch.column(column), &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|t| t.map(ToString::to_string)).collect()
}

pub(crate) fn whole(batch: &RecordBatch, column: usize) -> Vec<i64> {
    batch.column(column).as_primitive::<Int64Type>().values().to_vec()
}

pub(crate) fn real(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().values().to_vec()
}

/// Enough rho for noise that rounds away.
const HUGE: u64 = 1_000_000_000_000_000;

#[test]
fn margins_are_the_sums_of_released_cells() {
    let sql =
        "SELECT sex, died, count(*), count(DISTINCT patient_id), grouping(died) FROM stay GROUP BY CUBE(sex, died)";
    // At a rho at which noise is far larger than any count.
    let plan = plan(sql, &permit(), 200, &Terms::default()).unwrap();
    let part = &plan.parts()[0];
    // 4 cells of sex, 3 of died.
    assert_eq!((part.cells(), part.sets().len(), part.measures().len()), (12, 4, 5));
    let rows: Vec<_> = (0..60_i64)
        .map(|i| (i / 2, vec![Cell::Text(["female", "male"][i as usize % 2]), Cell::Number(i % 2)]))
        .collect();
    let mut rows = rows;
    // Booleans come as such.
    rows.iter_mut().for_each(|(_, cells)| cells.truncate(1));
    let release = {
        let bools: ArrayRef = Arc::new((0..60).map(|i| Some(i % 3 == 0)).collect::<arrow::array::BooleanArray>());
        let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
        let sexes: ArrayRef = Arc::new((0..60).map(|i| Some(["female", "male"][i % 2])).collect::<StringArray>());
        let batch = RecordBatch::try_from_iter([("c0", ids), ("c1", sexes), ("c2", bools)]).unwrap();
        let mut fold = Fold::new(&plan, 0).unwrap();
        fold.push(&batch).unwrap();
        let raw = RawCells::of(vec![Fold::finish(&plan, 0, vec![fold]).unwrap()]);
        let digest = Digest::of(b"question");
        let reservation = now(Reservation::make(&plan, digest, digest, 1, &Free)).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        Release::make(&plan, raw, &reservation, NaiveDate::default(), true, &mut rng).unwrap()
    };
    let (_, table) = table(&plan, &[&release]);
    // 12 + 4 + 3 + 1 rows; the columns are sex, died, the set, count, patients, grouping.
    assert_eq!(table.num_rows(), 20);
    let counts = whole(&table, 3);
    // Each is rounded by itself from 2^32 steps a row, so sums agree up to their number.
    let near = |a: i64, b: i64, terms: i64| assert!((a - b).abs() <= terms, "{a} and {b}: {counts:?}");
    let total: i64 = counts[..12].iter().sum();
    near(counts[19], total, 12);
    near(counts[12], counts[..3].iter().sum(), 3);
    assert!(counts[..12].iter().any(|c| c.abs() > 100), "{counts:?}");
    // Intervals of margins are wider: of four times as many noises twice as wide.
    let (low, high) = (real(&table, "__0_0_low"), real(&table, "__0_0_high"));
    let width = |row: usize| high[row] - low[row];
    assert!((width(16) / width(0) - 2.0).abs() < 0.02, "{} {}", width(16), width(0));
    let grouping = whole(&table, 5);
    assert_eq!((grouping[0], grouping[12], grouping[16], grouping[19]), (0, 1, 0, 1));
    let notes = texts(&table, table.num_columns() - 1);
    assert_eq!((notes[0].as_deref(), notes[12].as_deref()), (Some(""), Some("all of died")));
}

#[test]
fn names_of_a_private_key_come_out_with_many_patients_and_not_with_few() {
    let sql = "SELECT note, count(*), count(DISTINCT patient_id) FROM stay GROUP BY note";
    assert_eq!(plan(sql, &permit(), 1000, &Terms::default()).err().unwrap().code, Code::UnknownDomain);
    let terms = Terms { atto_delta: AttoDelta::try_from(1_000_000_000).unwrap(), ..Terms::default() };
    for more in ["GROUP BY note, free", "GROUP BY ROLLUP(note)"] {
        let refusal =
            self::plan(&format!("SELECT note, count(*) FROM stay {more}"), &permit(), 1000, &terms).err().unwrap();
        assert!(refusal.code == Code::UnknownDomain && refusal.detail.contains("at most"), "{refusal}");
    }
    let plan = plan(sql, &permit(), 500_000, &terms).unwrap();
    assert_eq!(plan.atto_delta(), terms.atto_delta);
    let hospital = |extra: i64| -> Vec<(i64, Vec<Cell>)> {
        let common = (0..400).map(|i| (i, vec![Cell::Text(["J44", "I10"][usize::from(i % 4 == 0)])]));
        let rare = (400..403).map(|i| (i, vec![Cell::Text("Q99")]));
        let more = (403..403 + extra).map(|i| (i, vec![Cell::Text("E11")]));
        common.chain(rare).chain(more).collect()
    };
    let (first, second) = (release(&plan, &hospital(0), 1), release(&plan, &hospital(300), 2));
    let names = |r: &Release| r.header().parts[0].names.clone().unwrap().len();
    assert_eq!((names(&first), names(&second)), (2, 3));
    let (all, table) = table(&plan, &[&first, &second]);
    let shown: Vec<_> = texts(&table, 0).into_iter().flatten().collect();
    assert_eq!(shown, ["E11", "I10", "J44"]);
    let counts = whole(&table, 1);
    for (got, want) in counts.iter().zip([300, 200, 600]) {
        assert!((got - want).abs() < 60, "{counts:?}");
    }
    assert_eq!(texts(&table, table.num_columns() - 1)[0].as_deref(), Some("below the threshold at 1 of 2 hospitals"));
    // The first hospital's own table, in the rows of the combined one.
    let own = combine(&plan, &[&first]).unwrap().aligned(&plan, &all);
    let own = plan.released_cells(&own, true, 0.95, &[]).unwrap().remove(0);
    assert!(own.column(1).is_null(0) && own.column(1).is_valid(1));
    assert_eq!(plan.judged(&combine(&plan, &[&first]).unwrap().aligned(&plan, &all))[0], (i128::MAX, false));
}

#[test]
fn a_study_of_pure_epsilon_gets_laplace_noise() {
    let mut permit = permit();
    permit.dp.mechanism = Mechanism::Laplace;
    permit.dp.atto_delta_per_query = AttoDelta::ZERO;
    let sql = "SELECT sex, count(*), sum(days) FROM stay GROUP BY sex";
    // epsilon²/2 = 0.5: an epsilon of 1, half for each.
    let plan = plan(sql, &permit, 500_000, &Terms::default()).unwrap();
    let measure = &plan.parts()[0].measures()[0];
    assert_eq!(measure.price, crate::plan::Price::Epsilon(500_000));
    // Scale k/epsilon = 10 rows: a deviation of 10·sqrt(2).
    let deviation = plan.parts()[0].deviation(measure).unwrap();
    assert!((deviation - 14.142).abs() < 0.01, "{deviation}");
    let rows: Vec<_> = (0..500).map(|i| (i, vec![Cell::Text("male"), Cell::Number(10)])).collect();
    let released: Vec<Release> = (0..200).map(|seed| release(&plan, &rows, seed)).collect();
    let (mut squares, mut inside) = (0.0, 0);
    for one in &released {
        let (_, table) = table(&plan, &[one]);
        let error = whole(&table, 1)[1] as f64 - 500.0;
        squares += error * error;
        inside += u32::from(real(&table, "__0_0_low")[1] <= 500.0 && real(&table, "__0_0_high")[1] >= 500.0);
    }
    let found = (squares / 200.0).sqrt();
    assert!((10.0..19.0).contains(&found), "{found}");
    assert!(inside >= 180, "{inside}");
}

#[test]
fn terms_narrow_and_divide_and_never_widen() {
    let sql = "SELECT avg(days), count(*) FROM stay";
    let bounds = |min: &str, max: &str| {
        let bounds = Bounds { min: min.into(), max: max.into() };
        vec![NarrowBounds { table: "stay".into(), column: "days".into(), bounds }]
    };
    let terms = Terms {
        bounds: bounds("0", "20"),
        rows_per_patient: Some(2),
        shares: vec![3, 1],
        bite_percent: Some(10),
        ..Terms::default()
    };
    let narrow = plan(sql, &permit(), HUGE, &terms).unwrap();
    let part = &narrow.parts()[0];
    assert_eq!((part.arguments[0].range, part.rows_per_patient), (Some((0, 20)), 2));
    let price = |i: usize| match part.measures()[i].price {
        crate::plan::Price::Rho(rho) => rho.get(),
        crate::plan::Price::Epsilon(_) => 0,
    };
    // Ninety per cent in eight parts: three for each of the mean's two measures, two for the count; the rest for two bites.
    assert_eq!((price(0), price(1), price(2)), (HUGE / 80 * 27, HUGE / 80 * 27, HUGE / 80 * 18));
    assert_eq!(part.bites.len(), 2);
    // Two patients with three rows each, of which one is clamped.
    let row = |id: i64, days: i64| (id, vec![Cell::Number(days), Cell::Number(days)]);
    let mut rows = vec![row(1, 5), row(1, 5), row(1, 90), row(2, 5), row(2, 5), row(2, 5), row(3, 7)];
    // The second column counts only where the bound bites.
    for (_, cells) in &mut rows {
        let Cell::Number(days) = cells[0] else { continue };
        cells[1] = if days > 20 { Cell::Number(1) } else { Cell::Text("") };
    }
    let column = |i: usize| -> ArrayRef {
        let of = |(_, cells): &(i64, Vec<Cell>)| match cells[i] {
            Cell::Number(n) => Some(n),
            Cell::Text(_) => None,
        };
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| Some(*id)).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("c0", ids), ("c1", column(0)), ("c2", column(1))]).unwrap();
    let mut fold = Fold::new(&narrow, 0).unwrap();
    fold.push(&batch).unwrap();
    let raw = RawCells::of(vec![Fold::finish(&narrow, 0, vec![fold]).unwrap()]);
    let digest = Digest::of(b"question");
    let reservation = now(Reservation::make(&narrow, digest, digest, 1, &Free)).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let release = Release::make(&narrow, raw, &reservation, NaiveDate::default(), true, &mut rng).unwrap();
    let all = combine(&narrow, &[&release]).unwrap();
    let bites: Vec<(String, f64)> = narrow.bites(&all, 0.95).into_iter().map(|(what, i)| (what, i.estimate)).collect();
    // A clamped row of a patient with three rows under a bound of two weighs two thirds.
    assert!((bites[0].1 - 2.0 / 3.0).abs() < 0.01 && bites[0].0.contains("clamped"), "{bites:?}");
    assert!((bites[1].1 - 2.0).abs() < 0.01 && bites[1].0.contains("weighted down"), "{bites:?}");
    for (terms, words) in [
        (Terms { bounds: bounds("-1", "20"), ..Terms::default() }, "inside"),
        (Terms { bounds: bounds("0", "101"), ..Terms::default() }, "inside"),
        (Terms { rows_per_patient: Some(6), ..Terms::default() }, "above"),
        (Terms { groups_per_patient: Some(4), ..Terms::default() }, "above"),
        (Terms { shares: vec![1], ..Terms::default() }, "2 aggregates"),
        (Terms { atto_delta: AttoDelta::MAX, ..Terms::default() }, "above"),
        (Terms { atto_delta: AttoDelta::try_from(5).unwrap(), ..Terms::default() }, "public"),
    ] {
        let refusal = plan(sql, &permit(), 1000, &terms).err().unwrap_or_else(|| panic!("{terms:?} is admitted"));
        assert_eq!(refusal.code, Code::Terms, "{refusal}");
        assert!(refusal.detail.contains(words), "{refusal}");
    }
}

/// A number that was shown: its measure and cell; exact, noise, and as released.
struct Seen {
    measure: String,
    cell: Vec<CellKey>,
    exact: i128,
    noise: i128,
    released: Option<i128>,
}

/// An inspector's screen that keeps what it is shown.
#[derive(Default)]
struct Screen {
    read: Vec<[u64; 4]>,
    kept_back: usize,
    clamped: Vec<(String, i128, i128)>,
    numbers: Vec<Seen>,
    measure: String,
}

impl Console for Screen {
    fn read(&mut self, part: usize, read: &Read, kept_back: usize) {
        assert_eq!(part, self.read.len());
        self.read.push([read.rows, read.patients, read.heavy, read.spread]);
        self.kept_back += kept_back;
    }

    fn clamped(&mut self, what: &str, exact: i128, unit: i128) {
        self.clamped.push((what.into(), exact, unit));
    }

    fn measure(&mut self, measure: &ShownMeasure<'_>) {
        self.measure = measure.name.into();
    }

    fn number(&mut self, number: &ShownNumber) -> bool {
        let ShownNumber { cell, node: _, exact, noise, released } = number;
        let (measure, cell) = (self.measure.clone(), cell.clone());
        self.numbers.push(Seen { measure, cell, exact: *exact, noise: *noise, released: *released });
        true
    }
}

#[test]
fn the_same_cells_and_seed_are_the_same_release_and_nothing_else_is() {
    let digest = Digest::of(b"question");
    let inspect = |plan: &Arc<PrivatePlan>, rows: &[(i64, Vec<Cell>)], stored: &Release, seed| {
        let reservation = now(Reservation::make(plan, digest, digest, 1, &Free)).unwrap();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Inspection::of(plan, raw(plan, rows), &reservation, stored.clone(), &mut rng).unwrap()
    };
    let (whole, broken) = (Verdict { header: true, numbers: true }, Verdict { header: true, numbers: false });
    // Seven rows of patient 1 under a bound of five; three groups of patient 2 under one of three, five of patient 3.
    let sql = "SELECT note, count(*), count(DISTINCT patient_id) FROM stay GROUP BY note";
    let terms = Terms { atto_delta: AttoDelta::try_from(1_000_000_000).unwrap(), ..Terms::default() };
    let plan = plan(sql, &permit(), 1_000_000, &terms).unwrap();
    let mut rows: Vec<(i64, Vec<Cell>)> = (0..7).map(|_| (1, vec![Cell::Text("a")])).collect();
    rows.extend(["a", "b", "c"].map(|note| (2, vec![Cell::Text(note)])));
    rows.extend(["a", "b", "c", "d", "e"].map(|note| (3, vec![Cell::Text(note)])));
    rows.extend((4..9_000).map(|patient| (patient, vec![Cell::Text(["a", "b"][patient as usize % 2])])));
    let stored = release(&plan, &rows, 7);
    let inspection = inspect(&plan, &rows, &stored, 7);
    assert_eq!(inspection.verdict(), whole);
    let mut screen = Screen::default();
    inspection.show(&mut screen);
    assert_eq!(screen.read, [[7 + 3 + 5 + 8_996, 8_999, 1, 1]]);
    // Names with three patients at most stay below the threshold.
    assert_eq!(screen.kept_back, 3);
    let names = stored.header().parts[0].names.as_ref().unwrap();
    assert_eq!(names.len(), 2);
    let numbers: usize = stored.parts()[0].iter().map(Vec::len).sum();
    assert_eq!(screen.numbers.len(), numbers);
    assert!(screen.numbers.iter().all(|seen| Some(seen.exact + seen.noise) == seen.released));
    assert!(screen.numbers.iter().any(|seen| seen.noise != 0));
    let rows_of = |name: &str| {
        let cell = [CellKey::Value(KeyValue::Text(name.into()))];
        screen.numbers.iter().find(|seen| seen.measure == "rows" && seen.cell == cell).unwrap().exact
    };
    let one = plan.parts()[0].weight_one();
    // Seven of patient 1 weigh five; patient 2 has one and patient 3 one.
    assert_eq!(rows_of("a"), 7 * (5 * one / 7) + 2 * one + 4_498 * one);
    assert_eq!(rows_of("b"), 2 * one + 4_498 * one);

    assert_eq!(inspect(&plan, &rows, &stored, 8).verdict(), Verdict { header: false, numbers: false });
    let (header, mut cells) = stored.to_bytes();
    cells[0] ^= 1;
    let tampered = Release::from_bytes(&header, &cells).unwrap();
    assert_eq!(inspect(&plan, &rows, &tampered, 7).verdict(), broken);
    rows.pop();
    assert_eq!(inspect(&plan, &rows, &stored, 7).verdict(), broken);
}
