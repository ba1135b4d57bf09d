//! Where in the SQL the cause of a refusal stands, as ` (line L, column C)` at the end of its detail.
//!
//! The planner notes where each column was written; a construct without columns is searched for in the text, and has a
//! place only where its word stands there once.

use datafusion_common::{
    Column, Span,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::Expr;
use datafusion_sql::sqlparser::{
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};
use sekisho_protocol::refusal::{MAX_DETAIL, Refusal};

const MARK: &str = " (line ";

/// A line and a column of the text, from 1.
pub(crate) type Place = (u64, u64);

/// Where the first column of `expr` stands.
pub(crate) fn of(expr: &Expr) -> Option<Place> {
    let mut first: Option<Place> = None;
    // The closure never fails, so neither does the walk.
    let _ = expr.apply(|e| {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only columns have a place")]
        let found = match e {
            Expr::Column(Column { spans, .. }) | Expr::OuterReferenceColumn(_, Column { spans, .. }) => {
                spans.first().map(start)
            }
            _ => None,
        };
        first = first.into_iter().chain(found).min();
        Ok(TreeNodeRecursion::Continue)
    });
    first
}

/// Where a span begins.
pub(crate) fn start(span: Span) -> Place {
    (span.start.line, span.start.column)
}

/// The refusal with its place, unless it has one.
pub(crate) fn at(refusal: Refusal, place: Option<Place>) -> Refusal {
    let Some((line, column)) = place.filter(|_| !refusal.detail.contains(MARK)) else { return refusal };
    let place = format!("{MARK}{line}, column {column})");
    let kept = MAX_DETAIL.saturating_sub(place.chars().count());
    let detail = refusal.detail.chars().take(kept).chain(place.chars()).collect();
    Refusal { detail, ..refusal }
}

/// The refusal with the place of the first SQL word that its detail names before a colon, where that stands once in `sql`.
pub(crate) fn in_text(refusal: Refusal, sql: &str) -> Refusal {
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location() else { return refusal };
    let named = refusal.detail.split(':').next().unwrap_or_default();
    let function = named.split("the function ").nth(1).and_then(|rest| rest.split(' ').next());
    let words = named.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|w| w.len() > 1 && w.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
    let once = |name: &str, keyword: bool| {
        let mut found = tokens.iter().filter(|t| {
            matches!(&t.token, Token::Word(w)
                if w.value.eq_ignore_ascii_case(name) && (!keyword || w.keyword != Keyword::NoKeyword))
        });
        match (found.next(), found.next()) {
            (Some(token), None) => Some((token.span.start.line, token.span.start.column)),
            (Some(_) | None, _) => None,
        }
    };
    let place = function.and_then(|f| once(f, false)).or_else(|| words.into_iter().find_map(|w| once(w, true)));
    at(refusal, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sekisho_protocol::refusal::Code;

    #[test]
    fn a_place_survives_a_long_detail_and_is_given_once() {
        let refusal = at(Refusal::new(Code::SqlUnsupported, "x".repeat(2 * MAX_DETAIL)), Some((3, 14)));
        assert_eq!(refusal.detail.chars().count(), MAX_DETAIL);
        assert!(refusal.detail.ends_with("xx (line 3, column 14)"));
        assert_eq!(at(refusal.clone(), Some((4, 1))), refusal);
    }

    #[test]
    fn a_word_has_a_place_only_where_it_stands_once() {
        let refusal = |detail: &str, sql: &str| in_text(Refusal::new(Code::SqlUnsupported, detail), sql).detail;
        let sql = "SELECT count(*)\nFROM (SELECT a FROM t LIMIT 1) u";
        assert_eq!(refusal("LIMIT is not admitted: no", sql), "LIMIT is not admitted: no (line 2, column 23)");
        assert_eq!(refusal("SELECT is twice there", sql), "SELECT is twice there");
        assert_eq!(
            refusal("the function count is not admitted", sql),
            "the function count is not admitted (line 1, column 8)"
        );
        assert_eq!(refusal("nothing: LIMIT", sql), "nothing: LIMIT");
    }
}
