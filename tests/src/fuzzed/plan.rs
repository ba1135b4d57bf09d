//! Structured SQL to a plan: the patient is kept all the way.

use arbitrary::Unstructured;
use sekisho_aggregation::{
    analyse::{MAX_CELLS, MAX_NUMBERS},
    plan::PrivatePlan,
};

use super::{
    walk::{self, Of},
    words,
    world::world,
};

/// The statement that these bytes stand for.
///
/// # Panics
/// Never.
pub fn statement(input: &[u8]) -> String {
    words::statement(&mut Unstructured::new(input)).unwrap()
}

/// What is admitted keeps patients apart, is bounded, and is the same when it is asked again.
///
/// # Panics
/// When it does not.
pub fn run(input: &[u8]) {
    let sql = statement(input);
    if let Ok(plan) = world().analyse(&sql) {
        holds(&sql, &plan);
    }
}

/// What holds of every admitted plan.
///
/// # Panics
/// When it does not.
pub fn holds(sql: &str, plan: &PrivatePlan) {
    for part in plan.parts() {
        let found = walk::rows(part.rows(), &world().schema);
        let rows = found.unwrap_or_else(|why| panic!("{why}\n{sql}\n{}", part.rows().display_indent()));
        assert!(rows.protected, "{sql}\n{}", part.rows().display_indent());
        let first = part.rows().schema().field(0).name();
        assert_eq!((first.as_str(), rows.columns.first()), ("c0", Some(&Of::Patient)), "{sql}");
        assert!(part.cells() <= MAX_CELLS, "{} cells: {sql}", part.cells());
    }
    assert!((1..=MAX_NUMBERS).contains(&plan.most_numbers()), "{} numbers: {sql}", plan.most_numbers());
    let again = world().analyse(sql).unwrap();
    assert_eq!(plan.canonical(), again.canonical(), "{sql}");
    assert_eq!(plan.digest(), again.digest(), "{sql}");
    plan.explain();
    plan.measure_columns().unwrap();
}
