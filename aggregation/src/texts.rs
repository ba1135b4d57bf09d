//! How many rows an engine may have in its hands at once, so that texts fit its memory.
//!
//! The engine's memory limit counts what is kept (sorts, hash tables), not the columns of the batch that is being computed. These
//! are small but for texts: a literal of 60,000 bytes, or a text that was put together, stands in every row of a batch, and
//! in each column that is made of it. One patient's row, multiplied by a join, so took as many gigabytes as somebody wanted,
//! and a process that dies tells that the row was there. With many texts a batch has fewer rows; how many is decided from the plan alone.

use arrow::datatypes::DataType;
use datafusion_common::{
    DFSchema,
    tree_node::{TreeNode, TreeNodeRecursion},
};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::scalar::function::MAX_TEXT;

/// The rows of a batch of few texts.
const MAX_ROWS: usize = 8_192;

/// The most rows of one batch of `plan`, of which the texts take about half of `memory` bytes at most.
pub fn rows_per_batch(plan: &LogicalPlan, memory: usize) -> usize {
    (memory / 2 / MAX_TEXT / texts(plan).max(1)).clamp(1, MAX_ROWS)
}

/// The most texts of one row that any operator of `plan` has at once: columns, and what is computed of them.
fn texts(plan: &LogicalPlan) -> usize {
    let mut most = 0;
    // The closure never fails, so neither does the walk.
    let _ = plan.apply_with_subqueries(|node| {
        let columns = |schema: &DFSchema| schema.fields().iter().filter(|f| is_text(f.data_type())).count();
        let inputs = node.inputs();
        let expressions = node.expressions();
        let computed: usize =
            expressions.iter().map(|e| inputs.iter().map(|i| computed(e, i.schema())).max().unwrap_or(0)).sum();
        most = most.max(columns(node.schema()) + computed);
        Ok(TreeNodeRecursion::Continue)
    });
    most
}

/// How many texts are computed on the way to an expression.
fn computed(expr: &Expr, schema: &DFSchema) -> usize {
    let mut count = 0;
    let _ = expr.apply(|e| {
        let plain = matches!(e, Expr::Column(_) | Expr::Literal(..) | Expr::Alias(_));
        // What has no type over this input is another's, and counted there; else it is taken for a text.
        count += usize::from(!plain && e.get_type(schema).is_ok_and(|kind| is_text(&kind)));
        Ok(TreeNodeRecursion::Continue)
    });
    count
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{example, sql};

    #[test]
    fn the_more_texts_the_fewer_rows() {
        let rows = |sql: &str| rows_per_batch(&sql::plan(sql, &example::schema()).unwrap().typed, 1 << 30);
        let computed = |n: usize| {
            let columns: Vec<String> = (0..n).map(|i| format!("note || 'n' AS c{i}")).collect();
            format!("SELECT {} FROM (SELECT note FROM stay) t", columns.join(", "))
        };
        assert_eq!(rows("SELECT age FROM (SELECT age FROM stay) t"), 8_192 / 2, "sex and note are scanned");
        // A text computed, and its column.
        assert_eq!([1, 4, 64].map(|n| rows(&computed(n))), [4_096, 1_024, 64]);
        assert_eq!(rows_per_batch(&sql::plan(&computed(64), &example::schema()).unwrap().typed, 1 << 20), 1);
    }
}
