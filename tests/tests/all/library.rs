//! One query at library level, from text to released cells over plain tables: no node, no network, no signature, no noise.

use std::{collections::HashMap, sync::Arc};

use chrono::NaiveDate;
use datafusion::{
    arrow::{
        array::AsArray,
        compute::{cast, concat_batches},
        datatypes::DataType,
        record_batch::RecordBatch,
    },
    catalog::TableProvider,
    common::tree_node::{Transformed, TreeNode},
    datasource::provider_as_source,
    logical_expr::{LogicalPlan, LogicalPlanBuilder, col},
    prelude::{SessionConfig, SessionContext},
};
use rand::{SeedableRng, rngs::StdRng};
use sekisho_aggregation::{
    combine::combine,
    fold::{Fold, RawCells},
    plan::{Part, PrivatePlan},
    release::Release,
    reservation::Reservation,
};
use sekisho_protocol::{digest::Digest, permit::Permit, refusal::Refusal, schema::Schema, units::MicroRho};
pub use sekisho_tests::fuzzed::world::{NoLedger, permit};
use sekisho_tests::{fuzzed::world::RHO, zero_noise::ZeroNoise};

/// A schema, a permit for all of it, and tables of that schema.
pub struct Library {
    pub schema: Schema,
    pub permit: Permit,
    pub tables: SessionContext,
}

/// A session in which plain SQL means what it means to the analysis: fixed point for decimals, text as `Utf8`.
pub fn session() -> SessionContext {
    let config = SessionConfig::new()
        .with_target_partitions(1)
        .set_bool("datafusion.sql_parser.parse_float_as_decimal", true)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
        .set_str("datafusion.sql_parser.dialect", "PostgreSQL");
    SessionContext::new_with_config(config)
}

impl Library {
    pub fn analyse(&self, sql: &str) -> Result<PrivatePlan, Refusal> {
        PrivatePlan::analyse(sql, &self.schema, &self.permit, MicroRho::try_from(RHO).unwrap())
    }

    /// The rows that are folded, sorted by patient; what the engine says if it cannot run an admitted plan.
    pub async fn rows(&self, plan: &PrivatePlan, part: &Part) -> Result<Vec<RecordBatch>, String> {
        let mut sources: HashMap<String, Arc<dyn TableProvider>> = HashMap::new();
        for table in plan.tables() {
            sources.insert(table.clone(), self.tables.table_provider(table.as_str()).await.unwrap());
        }
        let bound = part.rows().clone().transform_up(|node| {
            let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
            let source = provider_as_source(Arc::clone(&sources[scan.table_name.table()]));
            let scan = LogicalPlanBuilder::scan(scan.table_name, source, scan.projection)?;
            Ok(Transformed::yes(scan.build()?))
        });
        let sorted = LogicalPlanBuilder::from(bound.unwrap().data).sort([col("c0").sort(true, true)]).unwrap();
        let rows = self.tables.execute_logical_plan(sorted.build().unwrap()).await.unwrap();
        rows.collect().await.map_err(|e| e.to_string())
    }

    /// The release of `plan` without noise, and the most rows of one patient that went into it.
    pub async fn release(&self, plan: &Arc<PrivatePlan>) -> Result<(Release, u64), String> {
        let (mut parts, mut most) = (Vec::new(), 0);
        for part in plan.parts() {
            parts.push(self.rows(plan, part).await?);
            most = most.max(parts.last().map_or(0, |rows| most_rows(rows)));
        }
        let Ok(reservation) = Reservation::make(plan, Digest::of(b"p"), Digest::of(b"q"), 1, &NoLedger).await;
        // A release of no rows tells how many numbers of which noise there are.
        let nothing = folded(plan, &vec![Vec::new(); parts.len()]);
        let mut any = StdRng::seed_from_u64(1);
        let nothing = Release::make(plan, nothing, &reservation, NaiveDate::default(), true, &mut any).unwrap();
        let mut zero = ZeroNoise::for_release(nothing.header());
        let raw = folded(plan, &parts);
        Ok((Release::make(plan, raw, &reservation, NaiveDate::default(), true, &mut zero).unwrap(), most))
    }

    /// What a person reads: the SQL's own columns, intervals beside them, and `cell_note`.
    pub async fn table(&self, plan: &PrivatePlan, release: &Release) -> RecordBatch {
        let cells = plan.released_cells(&combine(plan, &[release]).unwrap(), true, 0.95, &[]).unwrap();
        let (session, mut scans) = (session(), Vec::new());
        for (part, cells) in cells.into_iter().enumerate() {
            let name = format!("cells_{part}");
            session.register_batch(&name, cells).unwrap();
            scans.push(session.table(&name).await.unwrap().into_unoptimized_plan());
        }
        let after = session.execute_logical_plan(plan.after_release(scans).unwrap()).await.unwrap();
        let schema = Arc::clone(after.schema().inner());
        let batches = after.collect().await.unwrap();
        batches
            .first()
            .map_or_else(|| RecordBatch::new_empty(schema), |b| concat_batches(&b.schema(), &batches).unwrap())
    }
}

/// The exact cells of these rows, those of each part.
pub fn folded(plan: &Arc<PrivatePlan>, parts: &[Vec<RecordBatch>]) -> RawCells {
    let part = |(place, rows): (usize, &Vec<RecordBatch>)| {
        let mut fold = Fold::new(plan, place).unwrap();
        for batch in rows {
            fold.push(batch).unwrap();
        }
        Fold::finish(plan, place, vec![fold]).unwrap()
    };
    RawCells::of(parts.iter().enumerate().map(part).collect())
}

/// The most rows of one patient, column `c0`, in rows sorted by it.
fn most_rows(rows: &[RecordBatch]) -> u64 {
    let mut of: HashMap<String, u64> = HashMap::new();
    for batch in rows {
        let patients = cast(batch.column(0), &DataType::Utf8).unwrap();
        for patient in patients.as_string::<i32>().iter().flatten() {
            *of.entry(patient.to_string()).or_default() += 1;
        }
    }
    of.into_values().max().unwrap_or(0)
}
