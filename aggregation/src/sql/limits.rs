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
/// The most commas, those between literals aside: what a list names is compared with all else that it names.
const MAX_COMMAS: usize = 1_500;
/// The most bytes of a name: one that is not known is compared with all that are.
const MAX_NAME: usize = 256;
/// The most relations that one SELECT names after FROM: the columns of each are put beside all others, one after another.
const MAX_FROM: usize = 32;
/// The most columns of VALUES.
const MAX_VALUES_COLUMNS: usize = 64;
/// The most parts of a plan, views and CTEs put in place.
const MAX_PARTS: usize = 500;

/// Whether a word is an operator, or nests without parentheses: a chain of any of them is as deep as it is long.
fn nests(word: Keyword) -> bool {
    use Keyword as K;
    let logic = matches!(word, K::AND | K::OR | K::XOR | K::NOT | K::IS | K::NOTNULL | K::IN | K::BETWEEN);
    let text = matches!(word, K::LIKE | K::ILIKE | K::RLIKE | K::REGEXP | K::MATCH | K::SIMILAR | K::COLLATE);
    let infix = matches!(word, K::MEMBER | K::OVERLAPS | K::OPERATOR | K::DIV | K::AT);
    let prefix = matches!(word, K::INTERVAL | K::PRIOR | K::CONNECT_BY_ROOT | K::EXPLAIN);
    let relations = matches!(word, K::JOIN | K::APPLY | K::UNION | K::EXCEPT | K::INTERSECT | K::MINUS);
    logic || text || infix || prefix || relations
}

/// Counts the operators of the text: a chain of them is as deep as it is long, and what walks it recurses.
pub(super) fn check_operators(sql: &str) -> Result<(), Refusal> {
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql).tokenize();
    let tokens = tokens.map_err(|e| Refusal::new(Code::SqlSyntax, e.to_string()))?;
    check_nesting(&tokens)?;
    check_lists(&tokens)?;
    // Names that begin so are those of the hidden columns that carry the patient and the intervals.
    let reserved = |token: &Token| matches!(token, Token::Word(word) if word.value.starts_with("__"));
    if tokens.iter().any(reserved) {
        return Err(unsupported("a name that begins with __ is reserved: choose another"));
    }
    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum: other tokens do not nest")]
    let operator = |token: &&Token| match token {
        Token::Word(word) => nests(word.keyword),
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
    let operators = tokens.iter().filter(operator).count();
    if operators > MAX_OPERATORS {
        return Err(unsupported(format!(
            "the SQL has {operators} operators; at most {MAX_OPERATORS} are read (a list of values is better written with IN)"
        )));
    }
    Ok(())
}

fn unsupported(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::SqlUnsupported, detail)
}

/// The planner types nested calls, and the parser nested arrays, anew at each level: its work doubles with the depth.
fn check_nesting(tokens: &[Token]) -> Result<(), Refusal> {
    let (mut depth, mut deepest) = (0_usize, 0);
    for token in tokens {
        if matches!(token, Token::LParen | Token::LBracket | Token::LBrace) {
            depth += 1;
        } else if matches!(token, Token::RParen | Token::RBracket | Token::RBrace) {
            depth = depth.saturating_sub(1);
        }
        deepest = deepest.max(depth);
    }
    if deepest > MAX_PARENTHESES {
        return Err(unsupported(format!("parentheses are nested {deepest} deep; at most {MAX_PARENTHESES} are read")));
    }
    Ok(())
}

/// The planner's work grows with the square of a list of names, and with the length of a name that is not known.
fn check_lists(tokens: &[Token]) -> Result<(), Refusal> {
    let bytes = |token: &Token| if let Token::Word(word) = token { word.value.len() } else { 0 };
    if let Some(long) = tokens.iter().map(bytes).find(|bytes| *bytes > MAX_NAME) {
        return Err(unsupported(format!("a name has {long} bytes; at most {MAX_NAME} are read")));
    }
    let literal = |token: &Token| matches!(token, Token::Number(..) | Token::SingleQuotedString(_));
    let words: Vec<&Token> = tokens.iter().filter(|t| !matches!(t, Token::Whitespace(_))).collect();
    let names = words.windows(3).filter(|w| *w[1] == Token::Comma && !(literal(w[0]) && literal(w[2])));
    let commas = names.count();
    if commas > MAX_COMMAS {
        return Err(unsupported(format!("the SQL lists more than {MAX_COMMAS} columns or rows; ask in parts")));
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
        return Err(unsupported(detail));
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

/// Finds a SELECT that names too many relations, and VALUES that are too wide.
struct Wide;

impl ast::Visitor for Wide {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Refusal> {
        let relations = select.from.iter().map(|from| 1 + from.joins.len()).sum::<usize>();
        if relations > MAX_FROM {
            let detail = format!("a SELECT reads {relations} relations; at most {MAX_FROM} are joined at once");
            return ControlFlow::Break(unsupported(detail));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Refusal> {
        let ast::SetExpr::Values(values) = &*query.body else { return ControlFlow::Continue(()) };
        let columns = values.rows.iter().map(|row| row.content.len()).max().unwrap_or(0);
        if columns > MAX_VALUES_COLUMNS {
            let detail = format!("VALUES of {columns} columns; at most {MAX_VALUES_COLUMNS} are read");
            return ControlFlow::Break(unsupported(detail));
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
    if let ControlFlow::Break(refusal) = query.visit(&mut Wide) {
        return Err(refusal);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, said: Option<&str>) {
        let refused = check_operators(sql).err();
        match (refused, said) {
            (None, None) => {}
            (Some(refusal), Some(said)) => assert!(refusal.detail.contains(said), "{refusal}: {said}"),
            (refused, said) => panic!("{refused:?}, not {said:?}: {:.80}", sql),
        }
    }

    #[test]
    fn a_text_is_bounded_by_its_words_before_it_is_parsed() {
        let selecting = |condition: &str| format!("SELECT count(*) FROM visit WHERE {condition}");
        for link in
            [" LIKE b", " ILIKE b", " SIMILAR TO b", " IN (1)", " NOTNULL", " IS NULL", " AT TIME ZONE 'x'", " AND b"]
        {
            check(&selecting(&format!("a{}", link.repeat(300))), Some("operators"));
            check(&selecting(&format!("a{}", link.repeat(100))), None);
        }
        for before in ["INTERVAL ", "NOT ", "PRIOR ", "- "] {
            check(&selecting(&format!("{}a", before.repeat(300))), Some("operators"));
        }
        for set in [" EXCEPT SELECT 1", " INTERSECT SELECT 1", " UNION SELECT 1"] {
            check(&format!("SELECT 1{}", set.repeat(300)), Some("operators"));
        }
        check(&selecting(&format!("a = {}1{}", "ARRAY[".repeat(13), "]".repeat(13))), Some("nested 13 deep"));
        check(&format!("SELECT {}", "a, ".repeat(1_600)), Some("1500 columns"));
        check(&selecting(&format!("a IN ({}1)", "'E11', 2, ".repeat(4_000))), None);
        check(&selecting(&format!("{} = 1", "x".repeat(257))), Some("257 bytes"));
    }
}
