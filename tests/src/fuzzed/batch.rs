//! What a hospital sends as its release, from header and numbers to the table of the answer; `answer.rs` reads them out of Arrow.
//!
//! The first byte chooses the question, and whether the rest is a header with numbers after its line, or the numbers alone of a
//! release whose header is right.

use std::sync::{Arc, OnceLock};

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
use sekisho_protocol::{
    digest::Digest,
    query::Terms,
    units::{AttoDelta, MicroRho},
};

use super::world::{NoLedger, RHO, world};

const SQL: [&str; 4] = [
    "SELECT sex, region, count(*) FROM person GROUP BY ROLLUP (sex, region)",
    "SELECT icd10, count(*) AS n, sum(days) AS d FROM visit GROUP BY icd10",
    "SELECT kind, min(days), max(days) FROM visit GROUP BY kind",
    "SELECT covar_samp(v.days, p.birth_year), corr(v.days, p.birth_year) FROM visit v JOIN person p ON p.patient_id = v.patient_id",
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
    // A delta is asked for where names are not public, and nowhere else.
    let delta = if sql.contains("icd10") { 1_000_000_000 } else { 0 };
    let (mut permit, delta) = (world().permit.clone(), AttoDelta::try_from(delta).unwrap());
    (permit.dp.atto_delta_per_query, permit.dp.atto_delta_total) = (delta, delta);
    let terms = Terms { atto_delta: delta, ..Terms::default() };
    let rho = MicroRho::try_from(RHO).unwrap();
    let plan = PrivatePlan::analyse_with(sql, &world().schema, &permit, rho, &terms);
    let plan = Arc::new(plan.unwrap_or_else(|refusal| panic!("{refusal}: {sql}")));
    let nobody = |part| Fold::finish(&plan, part, vec![Fold::new(&plan, part).unwrap()]).unwrap();
    let raw = RawCells::of((0..plan.parts().len()).map(nobody).collect());
    let Ok(reservation) = block_on(Reservation::make(&plan, self::permit(), key(), 1, &NoLedger));
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
    let release = if choice / 4 % 2 == 0 {
        let header = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        let numbers = rest.get(header + 1..).unwrap_or_default();
        Release::from_bytes(&rest[..header], &numbers[..numbers.len() / 16 * 16]).ok()
    } else {
        numbered(&asked.release, rest)
    };
    if let Some(release) = release {
        believed(asked, &release);
    }
}

/// A release that was read: it is written as it was, and if it is one of the question, it makes a table.
///
/// # Panics
/// When it does not.
pub fn believed(asked: &Asked, release: &Release) {
    let (header, numbers) = release.to_bytes();
    assert_eq!(Release::from_bytes(&header, &numbers).unwrap().digest(), release.digest());
    let batch = release.to_batch().map(|batch| Release::from_batch(&batch).unwrap().digest());
    assert!(batch.is_err() || batch.is_ok_and(|digest| digest == release.digest()));
    if check(&asked.plan, permit(), key(), 1, release).is_ok() {
        table(asked, release);
    }
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
