//! What a text may have, counted before it costs anything.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_expr::LogicalPlan;
use datafusion_sql::sqlparser::{
    ast,
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};
use sekisho_protocol::refusal::{Code, Refusal};

use super::MAX_NESTING;

/// How deeply parentheses may nest.
const MAX_PARENTHESES: usize = 12;
/// The most operators of a statement.
const MAX_OPERATORS: usize = 256;
/// The most parts of a plan, views and CTEs put in place.
const MAX_PARTS: usize = 500;

/// Counts the operators of the text: a chain of them is as deep as it is long, and what walks it recurses.
pub(super) fn check_operators(sql: &str) -> Result<(), Refusal> {
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
pub(super) fn check_parts(plan: &LogicalPlan) -> Result<(), Refusal> {
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
pub(super) fn check_views(query: &ast::Query) -> Result<(), Refusal> {
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
