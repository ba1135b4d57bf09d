//! What a hospital sends as its release, from bytes to the table of the answer.
//!
//! The first byte chooses the question, and whether the rest is a stream of Arrow Flight messages; the header and the numbers of a release; or only
//! the numbers of a release whose header is right.

use std::sync::{Arc, OnceLock};

use arrow_flight::FlightData;
use chrono::NaiveDate;
use futures::executor::block_on;
use rand::{SeedableRng, rngs::StdRng};
use sekisho_aggregation::{
    combine::{check, combine},
    fold::{Fold, RawCells},
    plan::PrivatePlan,
    release::Release,
    reservation::Reservation,
};
use sekisho_coordinator::round::collect::read;
use sekisho_protocol::digest::Digest;

use super::world::{NoLedger, world};

const SQL: [&str; 4] = [
    "SELECT sex, count(*) AS n, avg(birth_year) AS y, var_pop(birth_year) AS v FROM person GROUP BY sex",
    "SELECT icd10, count(*) AS n, sum(days) AS d FROM visit GROUP BY icd10",
    "SELECT kind, median(days) AS m, max(days) AS w, count(DISTINCT patient_id) AS p FROM visit GROUP BY ROLLUP (kind)",
    "SELECT corr(value, value) AS r, avg(value) AS a FROM measurement UNION ALL SELECT max(days), stddev(days) FROM drug",
];

/// A question with a release of it that has no rows.
pub struct Asked {
    /// What was asked.
    pub plan: Arc<PrivatePlan>,
    /// Nobody's release.
    pub release: Release,
}

fn permit() -> Digest {
    Digest::of(b"permit")
}

fn key() -> Digest {
    Digest::of(b"key")
}

/// The questions.
///
/// # Panics
/// When one is no longer admitted.
pub fn asked() -> &'static [Asked] {
    static ASKED: OnceLock<Vec<Asked>> = OnceLock::new();
    ASKED.get_or_init(|| SQL.iter().map(|sql| ask(sql)).collect())
}

fn ask(sql: &str) -> Asked {
    let plan = Arc::new(world().analyse(sql).unwrap());
    let nobody = |part| Fold::finish(&plan, part, vec![Fold::new(&plan, part).unwrap()]).unwrap();
    let raw = RawCells::of((0..plan.parts().len()).map(nobody).collect());
    let Ok(reservation) = block_on(Reservation::make(&plan, permit(), key(), 1, &NoLedger));
    let mut rng = StdRng::seed_from_u64(6);
    let release = Release::make(&plan, raw, &reservation, NaiveDate::default(), true, &mut rng).unwrap();
    Asked { plan, release }
}

/// One input.
///
/// # Panics
/// When what was read is not what was sent, or a believed release makes no table.
pub fn run(input: &[u8]) {
    let Some((choice, rest)) = input.split_first() else { return };
    let asked = &asked()[usize::from(choice % 4)];
    let release = match choice / 4 % 4 {
        0 => streamed(&asked.plan, rest),
        1 => {
            let header = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let numbers = rest.get(header + 1..).unwrap_or_default();
            Release::from_bytes(&rest[..header], &numbers[..numbers.len() / 16 * 16]).ok()
        }
        _ => numbered(&asked.release, rest),
    };
    let Some(release) = release else { return };
    let (header, numbers) = release.to_bytes();
    assert_eq!(Release::from_bytes(&header, &numbers).unwrap().digest(), release.digest());
    if check(&asked.plan, permit(), key(), 1, &release).is_ok() {
        table(asked, &release);
    }
}

/// Messages, each a header and a body with a length of two bytes before either, as the coordinator reads them.
pub fn messages(mut bytes: &[u8]) -> Vec<FlightData> {
    let mut all = Vec::new();
    let mut field = || {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (field, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        bytes = rest;
        Some(field.to_vec())
    };
    while let (Some(header), Some(body)) = (field(), field()) {
        all.push(FlightData { data_header: header.into(), data_body: body.into(), ..FlightData::default() });
    }
    all
}

fn streamed(plan: &PrivatePlan, bytes: &[u8]) -> Option<Release> {
    let messages = futures::stream::iter(messages(bytes).into_iter().map(Ok));
    let batch = block_on(read(plan, messages)).ok()?;
    assert!(batch.num_columns() == 1 && batch.num_rows() <= plan.most_numbers(), "{} rows", batch.num_rows());
    let release = Release::from_batch(&batch).ok()?;
    let again = release.to_batch().unwrap();
    assert_eq!(Release::from_batch(&again).unwrap().digest(), release.digest());
    Some(release)
}

/// The header of `release` over these numbers, again and again; those too large are cut, as Arrow's type has it.
fn numbered(release: &Release, bytes: &[u8]) -> Option<Release> {
    let (header, cells) = release.to_bytes();
    let largest = 10_i128.pow(38) - 1;
    let mut number = bytes.chunks(16).cycle().map(|chunk| {
        let mut all = [0; 16];
        all[..chunk.len()].copy_from_slice(chunk);
        i128::from_le_bytes(all).clamp(-largest, largest)
    });
    let numbers: Vec<u8> = (0..cells.len() / 16).filter_map(|_| number.next()).flat_map(i128::to_le_bytes).collect();
    Release::from_bytes(&header, &numbers).ok()
}

/// The table that a person reads, of this release alone and of two like it.
fn table(asked: &Asked, release: &Release) {
    let plan = &asked.plan;
    let mut all = None;
    for releases in [&[release, &asked.release][..], &[release]] {
        let Ok(combined) = combine(plan, releases) else { continue };
        let combined = match &all {
            None => combined,
            Some(all) => combined.aligned(plan, all),
        };
        plan.released_cells(&combined, true, 0.95, &[]).unwrap();
        plan.bites(&combined, 0.95);
        plan.judged(&combined);
        all = Some(combined);
    }
}
