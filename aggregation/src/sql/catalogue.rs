//! The public schema and a short list of functions, as DataFusion's planner wants them: what is not listed does not exist.

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{DataFusionError, TableReference, config::ConfigOptions};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, WindowUDF,
    planner::{ContextProvider, ExprPlanner},
};
use sekisho_protocol::schema::{Schema, Table};

use super::arrow_schema;
use crate::{
    relation,
    scalar::function::{Kind, function},
};

/// The public schema as DataFusion's planner wants it.
pub(super) struct Catalogue {
    tables: HashMap<String, Arc<dyn TableSource>>,
    scalars: HashMap<&'static str, Arc<ScalarUDF>>,
    aggregates: HashMap<&'static str, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    pub(super) options: ConfigOptions,
}

#[derive(Debug)]
struct SchemaTable(SchemaRef);

impl TableSource for SchemaTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }
}

impl Catalogue {
    pub(super) fn new(schema: &Schema) -> Self {
        use datafusion_functions::{core, datetime, math, string, unicode};
        use datafusion_functions_aggregate::{
            bool_and_or, correlation, count, covariance, grouping, median, min_max, percentile_cont, stddev, variance,
        };
        use datafusion_functions_window::all_default_window_functions;
        let source = |t: &Table| Arc::new(SchemaTable(arrow_schema(t))) as Arc<dyn TableSource>;
        Self {
            tables: schema.tables.iter().map(|t| (t.name.clone(), source(t))).collect(),
            // None of these fails, or panics, on a value that `scalar` lets through.
            scalars: HashMap::from([
                ("coalesce", core::coalesce()),
                ("nullif", core::nullif()),
                ("least", core::least()),
                ("greatest", core::greatest()),
                ("date_part", datetime::date_part()),
                ("lower", string::lower()),
                ("upper", string::upper()),
                ("starts_with", string::starts_with()),
                ("character_length", unicode::character_length()),
                ("left", unicode::left()),
                ("substr", unicode::substr()),
                ("right", unicode::right()),
                ("strpos", unicode::strpos()),
                ("btrim", string::btrim()),
                ("ltrim", string::ltrim()),
                ("rtrim", string::rtrim()),
                ("replace", string::replace()),
                ("concat", function(Kind::Concat)),
                ("abs", function(Kind::Abs)),
                ("sign", function(Kind::Sign)),
                ("floor", function(Kind::Floor)),
                ("ceil", function(Kind::Ceil)),
                ("round", function(Kind::Round)),
                ("date_trunc", function(Kind::DateTrunc)),
                // Of released numbers only; `scalar` refuses them elsewhere.
                ("sqrt", math::sqrt()),
                ("ln", math::ln()),
                ("exp", math::exp()),
                ("power", math::power()),
            ]),
            aggregates: HashMap::from([
                ("count", count::count_udaf()),
                ("sum", relation::sum()),
                ("avg", relation::avg()),
                ("min", min_max::min_udaf()),
                ("max", min_max::max_udaf()),
                ("bool_and", bool_and_or::bool_and_udaf()),
                ("bool_or", bool_and_or::bool_or_udaf()),
                // Across patients only; `relation` refuses them per patient.
                ("var_samp", variance::var_samp_udaf()),
                ("var_pop", variance::var_pop_udaf()),
                ("stddev_samp", stddev::stddev_udaf()),
                ("stddev_pop", stddev::stddev_pop_udaf()),
                ("covar_samp", covariance::covar_samp_udaf()),
                ("covar_pop", covariance::covar_pop_udaf()),
                ("corr", correlation::corr_udaf()),
                ("median", median::median_udaf()),
                ("percentile_cont", percentile_cont::percentile_cont_udaf()),
                ("grouping", grouping::grouping_udaf()),
            ]),
            windows: all_default_window_functions()
                .into_iter()
                .chain(relation::numbers())
                .map(|w| (w.name().to_string(), w))
                .collect(),
            planners: vec![
                Arc::new(datafusion_functions::datetime::planner::DatetimeFunctionPlanner),
                Arc::new(datafusion_functions::unicode::planner::UnicodeFunctionPlanner),
                Arc::new(datafusion_functions_aggregate::planner::AggregateFunctionPlanner),
                Arc::new(datafusion_functions_window::planner::WindowFunctionPlanner),
            ],
            options: ConfigOptions::default(),
        }
    }
}

impl ContextProvider for Catalogue {
    fn get_table_source(&self, name: TableReference) -> datafusion_common::Result<Arc<dyn TableSource>> {
        match (name.schema(), self.tables.get(name.table())) {
            (None, Some(source)) => Ok(Arc::clone(source)),
            (Some(_) | None, _) => Err(DataFusionError::Plan(format!("table '{}' not found", name.table()))),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let name = match name {
            "substring" => "substr",
            "trim" => "btrim",
            "ceiling" => "ceil",
            "signum" => "sign",
            "position" => "strpos",
            "datetrunc" => "date_trunc",
            "char_length" | "length" => "character_length",
            "datepart" => "date_part",
            other => other,
        };
        self.scalars.get(name).cloned()
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let name = match name {
            "mean" => "avg",
            "var" | "variance" | "var_sample" => "var_samp",
            "var_population" => "var_pop",
            "stddev" => "stddev_samp",
            "covar" => "covar_samp",
            "quantile_cont" => "percentile_cont",
            other => other,
        };
        self.aggregates.get(name).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.windows.get(name).cloned()
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        self.scalars.keys().map(ToString::to_string).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.aggregates.keys().map(ToString::to_string).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.windows.keys().cloned().collect()
    }
}
