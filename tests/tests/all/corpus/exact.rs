//! Exact releases under rules that hide nothing, against plain DataFusion: the queries of the corpus that an exact plan admits.

use std::{path::Path, sync::Arc};

use chrono::NaiveDate;
use rand::{SeedableRng, rngs::StdRng};
use sekisho_aggregation::{
    exact::{Claim, Cohort, CohortKey, History, Reviewed},
    plan::PrivatePlan,
    release::Release,
};
use sekisho_protocol::{
    digest::Digest,
    permit::{AllowedQuery, ReleaseKind},
    query::Terms,
    refusal::{Code, Refusal},
    units::MicroRho,
};

use super::{compare, generate, plain, source::Source};
use crate::library::{Library, folded};

/// The files of statements of which some are counts, sums and means.
const STATEMENTS: &[&str] = &["aggregates", "cohorts", "per_patient", "windows", "relations", "afterwards"];

/// How many queries must be admitted and equal.
const AT_LEAST: usize = 60;

/// A history that lets everything pass.
struct Open;

impl History for Open {
    type Record = ();
    type Error = std::convert::Infallible;

    async fn record(&self, _: &Claim, _: &Cohort) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The plan of a query that the permit lists as aggregated.
fn analyse(library: &Library, sql: &str) -> Result<PrivatePlan, Refusal> {
    let mut permit = library.permit.clone();
    let sha256 = Digest::of(sql.as_bytes());
    permit.allowed_queries = Some(vec![AllowedQuery { sha256, max_runs: 1, release: ReleaseKind::Aggregated }]);
    PrivatePlan::analyse_with(sql, &library.schema, &permit, MicroRho::ZERO, &Terms::default())
}

async fn release(library: &Library, plan: &Arc<PrivatePlan>) -> Result<Release, String> {
    let rows = library.rows(plan, &plan.parts()[0]).await?;
    let raw = folded(plan, &[rows]);
    let cohort = raw.cohort(&CohortKey::new([1; 32])).unwrap();
    let Ok(reviewed) = Reviewed::make(plan, Digest::of(b"p"), Digest::of(b"q"), 1, &cohort, &Open).await;
    let (day, mut rng) = (NaiveDate::default(), StdRng::seed_from_u64(1));
    let rules = *plan.exact().unwrap();
    Ok(Release::exact(plan, raw, &reviewed, &rules, day, day, true, &mut rng).unwrap())
}

/// Every exact table is that of plain SQL; whatever is refused is refused for what exact plans do not admit.
pub async fn agrees(name: &str, folder: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::read(name);
    let tables = source.load(folder, dir.path()).await;
    let library = Library { permit: source.permit(), schema: source.schema(), tables };
    let (mut wrong, mut equal) = (Vec::new(), 0);
    for sql in generate::queries(&source, STATEMENTS) {
        let plan = match analyse(&library, &sql) {
            Ok(plan) => Arc::new(plan),
            Err(refusal) if matches!(refusal.code, Code::StatisticNotPermitted | Code::SqlUnsupported) => continue,
            Err(refusal) => {
                wrong.push(format!("refused: {sql}\n  {refusal}"));
                continue;
            }
        };
        let got = match release(&library, &plan).await {
            Ok(release) => compare::released(&plan, &library.table(&plan, &release).await),
            Err(error) => {
                wrong.push(format!("admitted, and cannot run: {sql}\n  {error}"));
                continue;
            }
        };
        let want = plain::datafusion(&library.tables, &sql, compare::keys(&plan)).await;
        match want.and_then(|want| got.equals(&want)) {
            Ok(()) => equal += 1,
            Err(difference) => wrong.push(format!("differs: {sql}\n  {difference}")),
        }
    }
    eprintln!("{}: {equal} exact tables are equal", source.title);
    assert!(wrong.is_empty(), "{}: {}:\n{}", source.title, wrong.len(), wrong.join("\n"));
    assert!(equal >= AT_LEAST, "{}: only {equal} queries", source.title);
}
