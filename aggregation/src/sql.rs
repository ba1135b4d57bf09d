//! From SQL text to a typed logical plan over the public schema.
//!
//! The planner is DataFusion's; the catalogue holds only the tables of `schema/1`, and functions come from
//! a short list, so that what is not listed does not exist. A node plans from the text itself and never runs a
//! plan that somebody else made. Nothing here sees a row.

mod catalogue;
mod limits;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use datafusion_common::DataFusionError;
use datafusion_expr::LogicalPlan;
use datafusion_optimizer::analyzer::{AnalyzerRule, type_coercion::TypeCoercion};
use datafusion_sql::{
    parser::{DFParserBuilder, Statement},
    planner::{ParserOptions, SqlToRel},
    sqlparser::{ast, dialect::PostgreSqlDialect},
};
use sekisho_protocol::{
    query::MAX_SQL_BYTES,
    refusal::{Code, Refusal},
    schema::{Kind, Schema, Table},
};

use crate::place;
use catalogue::Catalogue;
use limits::{check_operators, check_parts, check_views};

/// How deeply a statement may nest.
const MAX_NESTING: usize = 48;

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
    let options = ParserOptions {
        parse_float_as_decimal: true,
        map_string_types_to_utf8view: false,
        // Refusals name places.
        collect_spans: true,
        ..ParserOptions::default()
    };
    let planner = SqlToRel::new_with_options(&catalogue, options);
    let as_written = planner.statement_to_plan(statement).map_err(refuse)?;
    check_parts(&as_written)?;
    let typed = TypeCoercion::new().analyze(as_written.clone(), &catalogue.options).map_err(refuse)?;
    Ok(Planned { as_written, typed })
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

/// What the planner said, with a stable code. Planner errors speak of the text and the schema, both public.
fn refuse(error: DataFusionError) -> Refusal {
    let place = error.diagnostic().and_then(|d| d.span).map(place::start);
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
    let refusal = match text.strip_prefix("Invalid function '").and_then(|rest| rest.split_once('\'')) {
        Some((name, _)) => {
            let detail = format!("the function {name} is not admitted: docs/sql.md lists those that are");
            Refusal::new(code, bounded(&detail))
        }
        None => Refusal::new(code, bounded(text)),
    };
    place::at(refusal, place)
}

/// The first 400 characters: a planner may quote a whole expression.
fn bounded(text: &str) -> String {
    text.chars().take(400).collect()
}
