//! From combined integers to the table that people read.
//!
//! Estimates and intervals come from the noise's known variance alone; the disclosure preset hides cells by
//! their *released* patient count, never by a raw one; then whatever the SQL says after its aggregate (HAVING,
//! ORDER BY, LIMIT) runs on released cells. All of it is post-processing and costs nothing.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray},
    datatypes::{DataType, Field, Schema},
    record_batch::RecordBatch,
};
use datafusion_common::{Column, DataFusionError};
use datafusion_expr::{Expr, Limit, LogicalPlan, LogicalPlanBuilder, col};
use sekisho_protocol::permit::Preset;

use crate::{
    analyse::reducing,
    combine::Combined,
    domain::KeyValue,
    interval::Interval,
    plan::{CellKey, Measure, Output, PrivatePlan},
};

/// The name of the column that says what is particular about a cell.
pub const CELL_NOTE: &str = "cell_note";

/// What is particular about a released cell.
const SUPPRESSED: &str = "suppressed";
const INCOMPLETE: &str = "incomplete";

fn hidden_names(outputs: usize) -> impl Iterator<Item = String> {
    (0..outputs).flat_map(|i| [format!("__low_{i}"), format!("__high_{i}")]).chain(["__note".to_string()])
}

/// Whether the preset hides a cell with this released number of patients.
pub fn hides(preset: Preset, patients: i128) -> bool {
    match preset {
        Preset::JpNdb => (1..=9).contains(&patients),
        Preset::Cms => (1..=10).contains(&patients),
        Preset::Opensafely => patients <= 7,
        Preset::None => false,
    }
}

/// `value` in lattice units as whole units, halves away from zero.
fn rounded(value: i128, unit: i128) -> i128 {
    let half = if value >= 0 { unit / 2 } else { -(unit / 2) };
    value.saturating_add(half) / unit
}

impl PrivatePlan {
    /// The released number of patients of each cell, rounded: by it the preset judges.
    pub fn guard_values(&self, combined: &Combined) -> Vec<i128> {
        let unit = self.unit(&self.measures()[self.guard()]);
        combined.cells[self.guard()].iter().map(|patients| rounded(*patients, unit)).collect()
    }

    /// Which cells the preset hides.
    pub fn hidden(&self, combined: &Combined) -> Vec<bool> {
        self.guard_values(combined).into_iter().map(|patients| hides(self.preset(), patients)).collect()
    }

    /// Every cell with its keys, estimates and intervals at `level`: columns `c0…` for keys, then for outputs, then
    /// `__low_i`, `__high_i` for each output and `__note`.
    ///
    /// `complete` is false when a hospital that was asked is missing. `also_hidden` hides cells beside those that the preset
    /// hides, one flag for each cell; empty for none.
    ///
    /// # Errors
    /// None is expected; arrow's when lengths differ.
    pub fn released_cells(
        &self,
        combined: &Combined,
        complete: bool,
        level: f64,
        also_hidden: &[bool],
    ) -> Result<RecordBatch, DataFusionError> {
        let cells: Vec<Vec<CellKey>> = (0..self.cells()).map(|ordinal| self.cell(ordinal)).collect();
        let hidden_too = |cell: usize| also_hidden.get(cell).copied().unwrap_or(false);
        let shown: Vec<bool> =
            self.hidden(combined).into_iter().enumerate().map(|(cell, hidden)| !hidden && !hidden_too(cell)).collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (i, key) in self.keys().iter().enumerate() {
            let value = |cell: &Vec<CellKey>| match &cell[i] {
                CellKey::Value(value) => Some(value.clone()),
                CellKey::Null | CellKey::Outside => None,
            };
            let values: Vec<Option<KeyValue>> = cells.iter().map(value).collect();
            columns.push(key.image.kind.array(&values));
        }
        let mut bounds: Vec<ArrayRef> = Vec::new();
        for output in self.outputs() {
            let intervals: Vec<Option<Interval>> = (0..self.cells())
                .map(|cell| shown[cell].then(|| self.interval(output, combined, cell, level)))
                .collect();
            columns.push(self.output_array(output, combined, &intervals));
            bounds.push(Arc::new(intervals.iter().map(|i| i.map(|i| i.lower)).collect::<Float64Array>()));
            bounds.push(Arc::new(intervals.iter().map(|i| i.map(|i| i.upper)).collect::<Float64Array>()));
        }
        let note = |(cell, shown): (&Vec<CellKey>, &bool)| {
            let mut notes = Vec::new();
            if !shown {
                notes.push(SUPPRESSED.to_string());
            }
            if !complete {
                notes.push(INCOMPLETE.to_string());
            }
            for (key, value) in self.keys().iter().zip(cell) {
                if *value == CellKey::Outside {
                    notes.push(format!("{} outside its domain", key.name));
                }
            }
            Some(notes.join("; "))
        };
        columns.extend(bounds);
        columns.push(Arc::new(cells.iter().zip(&shown).map(note).collect::<StringArray>()));
        let names = (0..self.keys().len() + self.outputs().len())
            .map(|i| format!("c{i}"))
            .chain(hidden_names(self.outputs().len()));
        let fields: Vec<Field> = names.zip(&columns).map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    #[expect(clippy::cast_precision_loss, reason = "units and centres become real numbers for display")]
    fn interval(&self, output: &Output, combined: &Combined, cell: usize, level: f64) -> Interval {
        let scale = |measure: usize| 1.0 / self.unit(&self.measures()[measure]) as f64;
        let whole = |i: Interval| if self.preset() == Preset::Opensafely { to_five(i) } else { i };
        match output {
            Output::Count { measure } => {
                let sd = combined.standard_deviations[*measure];
                whole(Interval::for_sum(combined.cells[*measure][cell], sd, scale(*measure), level))
            }
            Output::Sum { measure } => {
                let sd = combined.standard_deviations[*measure];
                Interval::for_sum(combined.cells[*measure][cell], sd, scale(*measure), level)
            }
            Output::Avg { sum, count } => {
                let (lo, hi) = self.natural_range(*sum);
                let Measure::Sum { argument, centre } = self.measures()[*sum] else {
                    return Interval { estimate: f64::NAN, lower: f64::NEG_INFINITY, upper: f64::INFINITY };
                };
                let centre = centre as f64 / 10_f64.powi(self.arguments[argument].scale.cast_signed());
                // Steps of the sum per step of the count are units of the argument's scale.
                let natural = scale(*sum) / scale(*count);
                let ratio = Interval::for_ratio(
                    combined.cells[*sum][cell],
                    combined.standard_deviations[*sum],
                    combined.cells[*count][cell],
                    combined.standard_deviations[*count],
                    level,
                    (lo - centre) / natural,
                    (hi - centre) / natural,
                )
                .scaled(natural);
                Interval { estimate: ratio.estimate + centre, lower: ratio.lower + centre, upper: ratio.upper + centre }
            }
        }
    }

    /// Counts, and sums of integers, as `Int64`; other sums and means as `Float64`.
    fn output_array(&self, output: &Output, combined: &Combined, intervals: &[Option<Interval>]) -> ArrayRef {
        let whole = match output {
            Output::Count { measure } => Some(*measure),
            Output::Sum { measure } => match &self.measures()[*measure] {
                Measure::Sum { argument, .. } if self.arguments[*argument].scale == 0 => Some(*measure),
                Measure::Sum { .. } | Measure::Rows | Measure::Present { .. } | Measure::Patients { .. } => None,
            },
            Output::Avg { .. } => None,
        };
        let Some(measure) = whole else {
            return Arc::new(intervals.iter().map(|i| i.map(|i| i.estimate)).collect::<Float64Array>());
        };
        let unit = self.unit(&self.measures()[measure]);
        let five = self.preset() == Preset::Opensafely && matches!(output, Output::Count { .. });
        let value = |(cell, interval): (usize, &Option<Interval>)| {
            interval.as_ref()?;
            let value = rounded(combined.cells[measure][cell], unit);
            let value = if five { rounded(value, 5) * 5 } else { value };
            i64::try_from(value).ok()
        };
        Arc::new(intervals.iter().enumerate().map(value).collect::<Int64Array>())
    }

    /// What the SQL says after its aggregate, over `cells`: a scan of [`released_cells`](Self::released_cells).
    ///
    /// The columns are the SQL's own, then `__low_i`, `__high_i` and `__note`.
    ///
    /// # Errors
    /// When the rest of the SQL cannot be planned over the cells' types.
    pub fn after_release(&self, cells: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let aggregate = self.aggregate()?;
        let named = aggregate
            .schema
            .iter()
            .enumerate()
            .map(|(i, (qualifier, field))| col(format!("c{i}")).alias_qualified(qualifier.cloned(), field.name()));
        let named: Vec<Expr> = named.chain(hidden_names(self.outputs().len()).map(col)).collect();
        let cells = LogicalPlanBuilder::from(cells).project(named)?.build()?;
        self.rebuild(self.as_written(), &cells)
    }

    fn aggregate(&self) -> Result<&datafusion_expr::Aggregate, DataFusionError> {
        reducing(self.as_written()).map_err(|e| DataFusionError::Plan(e.to_string()))
    }

    fn rebuild(&self, plan: &LogicalPlan, cells: &LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the analysis admitted only these")]
        match plan {
            LogicalPlan::Aggregate(_) => Ok(cells.clone()),
            LogicalPlan::Projection(projection) => {
                let input = self.rebuild(&projection.input, cells)?;
                let extra = hidden_names(self.outputs().len()).map(|name| Expr::Column(Column::from_name(name)));
                LogicalPlanBuilder::from(input).project(projection.expr.iter().cloned().chain(extra))?.build()
            }
            LogicalPlan::Filter(filter) => {
                LogicalPlanBuilder::from(self.rebuild(&filter.input, cells)?).filter(filter.predicate.clone())?.build()
            }
            LogicalPlan::Sort(sort) => {
                let input = self.rebuild(&sort.input, cells)?;
                LogicalPlanBuilder::from(input).sort_with_limit(sort.expr.clone(), sort.fetch)?.build()
            }
            LogicalPlan::Limit(limit) => {
                let input = Arc::new(self.rebuild(&limit.input, cells)?);
                Ok(LogicalPlan::Limit(Limit { skip: limit.skip.clone(), fetch: limit.fetch.clone(), input }))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                LogicalPlanBuilder::from(self.rebuild(&alias.input, cells)?).alias(alias.alias.clone())?.build()
            }
            other => Err(DataFusionError::Plan(format!("{} after an aggregate", other.display()))),
        }
    }

    /// Puts each output's bounds beside it: the SQL's columns, with `<name>_low` and `<name>_high` after those that are
    /// aggregates, and [`CELL_NOTE`] at the end.
    ///
    /// # Errors
    /// When `processed` does not come from [`after_release`](Self::after_release).
    pub fn beside(&self, processed: &RecordBatch) -> Result<RecordBatch, DataFusionError> {
        let outputs = self.outputs().len();
        let own = processed.num_columns().checked_sub(2 * outputs + 1);
        let own = own.ok_or_else(|| DataFusionError::Plan("a table without its bounds".into()))?;
        let schema = processed.schema();
        let (mut fields, mut columns): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
        for i in 0..own {
            let name = schema.field(i).name();
            fields.push(schema.field(i).clone());
            columns.push(Arc::clone(processed.column(i)));
            if let Some(output) = self.source(self.as_written(), i).and_then(|s| s.checked_sub(self.keys().len())) {
                for (side, offset) in [("low", 0), ("high", 1)] {
                    fields.push(Field::new(format!("{name}_{side}"), DataType::Float64, true));
                    columns.push(Arc::clone(processed.column(own + 2 * output + offset)));
                }
            }
        }
        fields.push(Field::new(CELL_NOTE, DataType::Utf8, true));
        columns.push(Arc::clone(processed.column(processed.num_columns() - 1)));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Which column of the aggregate the `index`th column of `plan` is.
    fn source(&self, plan: &LogicalPlan, index: usize) -> Option<usize> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the analysis admitted only these")]
        match plan {
            LogicalPlan::Aggregate(_) => Some(index),
            LogicalPlan::Projection(projection) => {
                let Expr::Column(column) = projection.expr.get(index)?.clone().unalias_nested().data else {
                    return None;
                };
                self.source(&projection.input, projection.input.schema().maybe_index_of_column(&column)?)
            }
            LogicalPlan::Filter(filter) => self.source(&filter.input, index),
            LogicalPlan::Sort(sort) => self.source(&sort.input, index),
            LogicalPlan::Limit(limit) => self.source(&limit.input, index),
            LogicalPlan::SubqueryAlias(alias) => self.source(&alias.input, index),
            _ => None,
        }
    }
}

/// An interval whose ends are multiples of 5, outwards, as `opensafely` rounds.
fn to_five(interval: Interval) -> Interval {
    Interval {
        estimate: (interval.estimate / 5.0).round() * 5.0,
        lower: (interval.lower / 5.0).floor() * 5.0,
        upper: (interval.upper / 5.0).ceil() * 5.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_judge_released_counts() {
        for (preset, hidden, shown) in [
            (Preset::JpNdb, vec![1, 9], vec![-3, 0, 10]),
            (Preset::Cms, vec![1, 10], vec![0, 11]),
            (Preset::Opensafely, vec![-3, 0, 7], vec![8]),
            (Preset::None, vec![], vec![-1, 0, 1]),
        ] {
            assert!(hidden.into_iter().all(|n| hides(preset, n)), "{preset:?}");
            assert!(shown.into_iter().all(|n| !hides(preset, n)), "{preset:?}");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_with_halves_away_from_zero() {
        for (value, unit, expect) in [(14, 10, 1), (15, 10, 2), (-15, 10, -2), (-14, 10, -1), (7, 1, 7), (13, 5, 3)] {
            assert_eq!(rounded(value, unit), expect, "{value} / {unit}");
        }
    }
}
