//! From SQL text to a typed logical plan over the public schema.
//!
//! The planner is DataFusion's; the catalogue holds only the tables of `schema/1`, and functions come from
//! a short list, so that what is not listed does not exist. A node plans from the text itself and never runs a
//! plan that somebody else made. Nothing here sees a row.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion_common::{DataFusionError, TableReference, config::ConfigOptions, tree_node::TreeNodeRecursion};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, LogicalPlan, ScalarUDF, TableSource, WindowUDF,
    planner::{ContextProvider, ExprPlanner},
};
use datafusion_optimizer::analyzer::{AnalyzerRule, type_coercion::TypeCoercion};
use datafusion_sql::{
    parser::{DFParserBuilder, Statement},
    planner::{ParserOptions, SqlToRel},
    sqlparser::{
        ast,
        dialect::PostgreSqlDialect,
        keywords::Keyword,
        tokenizer::{Token, Tokenizer},
    },
};
use sekisho_protocol::{
    query::MAX_SQL_BYTES,
    refusal::{Code, Refusal},
    schema::{Kind, Schema, Table},
};

/// How deeply a statement may nest.
const MAX_NESTING: usize = 48;
/// How deeply parentheses may nest.
const MAX_PARENTHESES: usize = 12;
/// The most operators of a statement.
const MAX_OPERATORS: usize = 256;
/// The most parts of a plan, views and CTEs put in place.
const MAX_PARTS: usize = 500;

/// A statement planned twice: as written, for what follows the release, and with its types made equal, for the analysis.
pub(crate) struct Planned {
    pub(crate) as_written: LogicalPlan,
    pub(crate) typed: LogicalPlan,
}

/// The arrow type of a column: `Int64`, `Decimal128(18, scale)`, `Utf8`, `Date32` or `Boolean`.
pub fn arrow_type(kind: Kind, scale: u8) -> DataType {
    match kind {
        Kind::Int64 => DataType::Int64,
        Kind::Decimal => DataType::Decimal128(18, scale.cast_signed()),
        Kind::Text => DataType::Utf8,
        Kind::Date => DataType::Date32,
        Kind::Bool => DataType::Boolean,
    }
}

/// The arrow schema of a table; every column may be NULL.
pub fn arrow_schema(table: &Table) -> SchemaRef {
    let fields = table.columns.iter().map(|c| Field::new(&c.name, arrow_type(c.kind, c.scale), true));
    Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()))
}

/// Parses and plans one SELECT.
///
/// # Errors
/// `too_large`, `sql_syntax`, `sql_unsupported` or `sql_unknown_name`.
pub(crate) fn plan(sql: &str, schema: &Schema) -> Result<Planned, Refusal> {
    if sql.len() > MAX_SQL_BYTES {
        let detail = format!("the SQL has {} bytes; at most {MAX_SQL_BYTES} are read", sql.len());
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    check_operators(sql)?;
    let statement = parse(sql)?;
    let catalogue = Catalogue::new(schema);
    let options =
        ParserOptions { parse_float_as_decimal: true, map_string_types_to_utf8view: false, ..ParserOptions::default() };
    let planner = SqlToRel::new_with_options(&catalogue, options);
    let as_written = planner.statement_to_plan(statement).map_err(refuse)?;
    check_parts(&as_written)?;
    let typed = TypeCoercion::new().analyze(as_written.clone(), &catalogue.options).map_err(refuse)?;
    Ok(Planned { as_written, typed })
}

/// Counts the operators of the text: a chain of them is as deep as it is long, and what walks it recurses.
fn check_operators(sql: &str) -> Result<(), Refusal> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize();
    let tokens = tokens.map_err(|e| Refusal::new(Code::SqlSyntax, e.to_string()))?;
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: other tokens do not nest")]
    let operator = |token: &&Token| match token {
        Token::Word(word) => {
            matches!(
                word.keyword,
                Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::UNION | Keyword::JOIN | Keyword::IS
            )
        }
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::SemiColon => false,
        _ => true,
    };
    // The planner types nested calls anew at each level: its work doubles with the depth.
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in &tokens {
        if *token == Token::LParen {
            depth += 1;
        } else if *token == Token::RParen {
            depth = depth.saturating_sub(1);
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_PARENTHESES {
        let detail = format!("parentheses are nested {deepest} deep; at most {MAX_PARENTHESES} are read");
        return Err(Refusal::new(Code::SqlUnsupported, detail));
    }
    // Names that begin so are those of the hidden columns that carry the patient and the intervals.
    let reserved = |token: &Token| matches!(token, Token::Word(word) if word.value.starts_with("__"));
    if tokens.iter().any(reserved) {
        return Err(Refusal::new(Code::SqlUnsupported, "a name that begins with __ is reserved: choose another"));
    }
    let operators = tokens.iter().filter(operator).count();
    if operators > MAX_OPERATORS {
        let detail = format!(
            "the SQL has {operators} operators; at most {MAX_OPERATORS} are read (a list of values is better written with IN)"
        );
        return Err(Refusal::new(Code::SqlUnsupported, detail));
    }
    Ok(())
}

/// Counts a plan's parts, and stops early: CTEs that use each other twice make 2^n of them from n lines.
fn check_parts(plan: &LogicalPlan) -> Result<(), Refusal> {
    let mut parts = 0;
    // The closure never fails, so neither does the walk.
    let _ = plan.apply_with_subqueries(|_| {
        parts += 1;
        Ok(if parts > MAX_PARTS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    if parts > MAX_PARTS {
        let detail = format!("the query has more than {MAX_PARTS} parts, views put in place; write it shorter");
        return Err(Refusal::new(Code::SqlUnsupported, detail));
    }
    Ok(())
}

fn parse(sql: &str) -> Result<Statement, Refusal> {
    let syntax = |e: &dyn std::fmt::Display| Refusal::new(Code::SqlSyntax, bounded(&e.to_string()));
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&PostgreSqlDialect {})
        .with_recursion_limit(MAX_NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| syntax(&e))?;
    let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
        return Err(Refusal::new(Code::SqlSyntax, "write exactly one statement"));
    };
    match &statement {
        Statement::Statement(inner) => {
            let ast::Statement::Query(query) = &**inner else {
                return Err(Refusal::new(Code::SqlUnsupported, "only a SELECT is admitted"));
            };
            check_views(query)?;
            Ok(statement)
        }
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Explain(_) | Statement::Reset(_) => {
            Err(Refusal::new(Code::SqlUnsupported, "only a SELECT is admitted"))
        }
    }
}

/// Which relations each CTE of a statement reads, by lower-case name; CTEs of the same name are taken together.
#[derive(Default)]
struct Views(HashMap<String, Vec<String>>);

fn relations(query: &impl ast::Visit) -> Vec<String> {
    let mut names = Vec::new();
    let _: ControlFlow<()> = ast::visit_relations(query, |name| {
        names.push(name.to_string().to_lowercase());
        ControlFlow::Continue(())
    });
    names
}

impl ast::Visitor for Views {
    type Break = ();

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            let name = cte.alias.name.to_string().to_lowercase();
            self.0.entry(name).or_default().extend(relations(&*cte.query));
        }
        ControlFlow::Continue(())
    }
}

impl Views {
    /// Takes what `name` stands for off `left`; false when it does not suffice.
    fn fits(&self, name: &str, left: &mut usize, depth: usize) -> bool {
        *left = left.saturating_sub(1);
        let inner = self.0.get(name).map(Vec::as_slice).unwrap_or_default();
        *left > 0 && depth < MAX_NESTING && inner.iter().all(|n| self.fits(n, left, depth + 1))
    }
}

/// Counts the relations that a query reads once every CTE stands in its place, before it is planned: CTEs that use each other
/// twice make 2^n of n lines, and the planner walks them all.
fn check_views(query: &ast::Query) -> Result<(), Refusal> {
    use ast::Visit;
    let mut views = Views::default();
    let _ = query.visit(&mut views);
    let mut left = MAX_PARTS;
    if relations(&*query.body).iter().all(|name| views.fits(name, &mut left, 0)) {
        return Ok(());
    }
    let detail = format!(
        "the query reads more than {MAX_PARTS} parts, CTEs put in place, or nests them deeper than {MAX_NESTING}"
    );
    Err(Refusal::new(Code::SqlUnsupported, detail))
}

/// What the planner said, with a stable code. Planner errors speak of the text and the schema, both public.
fn refuse(error: DataFusionError) -> Refusal {
    let error = error.find_root();
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign errors; any other is an unsupported construct")]
    let code = match error {
        DataFusionError::SQL(..) => Code::SqlSyntax,
        DataFusionError::SchemaError(..) => Code::SqlUnknownName,
        DataFusionError::Plan(text) if text.contains("not found") || text.contains("No table") => Code::SqlUnknownName,
        DataFusionError::Diagnostic(..) => Code::SqlUnknownName,
        _ => Code::SqlUnsupported,
    };
    let text = error.strip_backtrace();
    let text = text.strip_prefix("Error during planning: ").unwrap_or(&text);
    match text.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\'')) {
        Some((name, _)) => {
            Refusal::new(code, bounded(&format!("the function {name} is not admitted: use count, sum, avg")))
        }
        None => Refusal::new(code, bounded(text)),
    }
}

/// The first 400 characters: a planner may quote a whole expression.
fn bounded(text: &str) -> String {
    text.chars().take(400).collect()
}

/// The public schema as DataFusion's planner wants it.
struct Catalogue {
    tables: HashMap<String, Arc<dyn TableSource>>,
    scalars: HashMap<&'static str, Arc<ScalarUDF>>,
    aggregates: HashMap<&'static str, Arc<AggregateUDF>>,
    windows: HashMap<String, Arc<WindowUDF>>,
    planners: Vec<Arc<dyn ExprPlanner>>,
    options: ConfigOptions,
}

#[derive(Debug)]
struct SchemaTable(SchemaRef);

impl TableSource for SchemaTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }
}

impl Catalogue {
    fn new(schema: &Schema) -> Self {
        use datafusion_functions::{core, datetime, math, string, unicode};
        use datafusion_functions_aggregate::{
            approx_percentile_cont, average, correlation, count, covariance, grouping, median, min_max,
            percentile_cont, stddev, sum, variance,
        };
        use datafusion_functions_window::all_default_window_functions;
        let source = |t: &Table| Arc::new(SchemaTable(arrow_schema(t))) as Arc<dyn TableSource>;
        Self {
            tables: schema.tables.iter().map(|t| (t.name.clone(), source(t))).collect(),
            // Total functions only: none of these fails, or panics, on any value of its type.
            scalars: HashMap::from([
                ("coalesce", core::coalesce()),
                ("nullif", core::nullif()),
                ("least", core::least()),
                ("greatest", core::greatest()),
                ("abs", math::abs()),
                ("round", math::round()),
                ("floor", math::floor()),
                ("ceil", math::ceil()),
                ("sqrt", math::sqrt()),
                ("ln", math::ln()),
                ("exp", math::exp()),
                ("power", math::power()),
                ("date_part", datetime::date_part()),
                ("lower", string::lower()),
                ("upper", string::upper()),
                ("starts_with", string::starts_with()),
                ("character_length", unicode::character_length()),
                ("left", unicode::left()),
                ("substr", unicode::substr()),
            ]),
            aggregates: HashMap::from([
                ("count", count::count_udaf()),
                ("sum", sum::sum_udaf()),
                ("avg", average::avg_udaf()),
                ("min", min_max::min_udaf()),
                ("max", min_max::max_udaf()),
                ("var_samp", variance::var_samp_udaf()),
                ("var_pop", variance::var_pop_udaf()),
                ("stddev_samp", stddev::stddev_udaf()),
                ("stddev_pop", stddev::stddev_pop_udaf()),
                ("covar_samp", covariance::covar_samp_udaf()),
                ("covar_pop", covariance::covar_pop_udaf()),
                ("corr", correlation::corr_udaf()),
                ("median", median::median_udaf()),
                ("percentile_cont", percentile_cont::percentile_cont_udaf()),
                ("approx_percentile_cont", approx_percentile_cont::approx_percentile_cont_udaf()),
                ("grouping", grouping::grouping_udaf()),
            ]),
            windows: all_default_window_functions().into_iter().map(|w| (w.name().to_string(), w)).collect(),
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
