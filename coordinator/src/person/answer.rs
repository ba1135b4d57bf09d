//! A result as a table, as CSV and as JSON; for Arrow and Parquet see `described`.
//!
//! The door sends one table: the column [`HOLDER`], the SQL's own columns, `<name>_low` and `<name>_high` after
//! each that is an aggregate, and `cell_note`. Tables for people round by the width of the interval and show
//! `value [low, high]`, of an exact number that is not rounded the value alone; CSV and JSON keep every value exact (CSV
//! does not defuse text that a spreadsheet would read as a formula: import such columns as text). JSON has no infinity: such bounds are `null` there.
//!
//! NULL keys are `NULL` in tables, empty in CSV (an empty text is `""` there), `null` in JSON. A suppressed cell
//! is `–` in tables, else empty or `null`, with the note beside it.

mod described;

use std::collections::BTreeMap;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    compute::concat_batches,
    datatypes::{DataType, Float64Type, Int64Type, SchemaRef},
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use comfy_table::CellAlignment;
use sekisho_aggregation::after::CELL_NOTE;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    door::Answer,
    failure::Failure,
    number::{digits_for, fixed, significant},
    print::{empty, plain},
};
use crate::{
    listing::quoted,
    report::{ALL_HOLDERS, HOLDER, ResultReport},
};

/// A result's rows, in one piece.
pub struct Rows {
    batch: RecordBatch,
    holders: Vec<String>,
}

/// A column as people see it: alone, or with its interval.
struct Shown {
    index: usize,
    bounded: bool,
}

/// A result as people see it, for whoever lays it out.
pub struct Grid {
    /// The columns.
    pub header: Vec<Heading>,
    /// The rows.
    pub rows: Vec<GridRow>,
}

impl Grid {
    /// Whether something is to be said of a row.
    pub fn noted(&self) -> bool {
        self.rows.iter().any(|row| !row.note.is_empty())
    }
}

/// A column's name.
pub struct Heading {
    /// As the SQL says.
    pub name: String,
    /// Its values are aggregates with intervals.
    pub bounded: bool,
    /// Its values are numbers.
    pub number: bool,
}

/// A row.
pub struct GridRow {
    /// The hospital, or [`ALL_HOLDERS`].
    pub holder: String,
    /// Its values, one a column.
    pub cells: Vec<Cell>,
    /// What is to be said of it: `suppressed`, and why.
    pub note: String,
}

/// A value.
pub struct Cell {
    /// Rounded, with its interval.
    pub text: String,
    /// Value, lower and upper bound, where it has them.
    pub interval: Option<[f64; 3]>,
}

impl Rows {
    /// The rows of an answer.
    ///
    /// # Errors
    /// When the answer has no column of holders.
    pub fn of(answer: &Answer) -> Result<Self, Failure> {
        Self::of_batches(&answer.schema, &answer.batches)
    }

    /// The rows of some tables of one schema.
    ///
    /// # Errors
    /// When they have no column of holders.
    pub fn of_batches(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Self, Failure> {
        let wrong = |e: arrow::error::ArrowError| Failure::answer("result", e);
        let batch = concat_batches(schema, batches).map_err(wrong)?;
        let names = batch.column_by_name(HOLDER).ok_or_else(|| Failure::answer("result", "it has no holders"))?;
        let holders = (0..batch.num_rows()).map(|row| text(names, row).map(Option::unwrap_or_default));
        let holders = holders.collect::<Result<_, _>>()?;
        Ok(Self { batch, holders })
    }

    fn name(&self, column: usize) -> String {
        self.batch.schema_ref().field(column).name().clone()
    }

    /// The rows of the combined table, or all.
    fn chosen(&self, by_holder: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.batch.num_rows()).filter(move |row| by_holder || self.holders[*row] == ALL_HOLDERS)
    }

    /// The column and the two after it are an aggregate and its bounds.
    fn is_bounded(&self, column: usize) -> bool {
        let is = |offset: usize, side: &str| {
            self.batch.schema_ref().fields().get(column + offset).is_some_and(|field| {
                *field.data_type() == DataType::Float64 && *field.name() == format!("{}_{side}", self.name(column))
            })
        };
        is(1, "low") && is(2, "high")
    }

    /// The columns for people: without holder and note, bounds taken together with what they bound.
    fn shown(&self) -> Vec<Shown> {
        let (mut shown, mut index) = (Vec::new(), 0);
        while index < self.batch.num_columns() {
            let bounded = self.is_bounded(index);
            if ![HOLDER, CELL_NOTE].contains(&self.name(index).as_str()) {
                shown.push(Shown { index, bounded });
            }
            index += if bounded { 3 } else { 1 };
        }
        shown
    }

    fn note(&self, row: usize) -> Result<String, Failure> {
        let column = self.batch.column_by_name(CELL_NOTE);
        column.map_or_else(|| Ok(String::new()), |c| text(c, row).map(Option::unwrap_or_default))
    }

    /// The combined rows for people, or with `by_holder` all, at most `most`.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn grid(&self, by_holder: bool, most: usize) -> Result<Grid, Failure> {
        self.laid_out(self.chosen(by_holder).take(most))
    }

    /// The rows of one hospital, or of [`ALL_HOLDERS`], for people, at most `most`; and how many there are.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn of_holder(&self, holder: &str, most: usize) -> Result<(Grid, usize), Failure> {
        let own: Vec<usize> = self.chosen(true).filter(|row| self.holders[*row] == holder).collect();
        Ok((self.laid_out(own.iter().copied().take(most))?, own.len()))
    }

    fn laid_out(&self, rows: impl Iterator<Item = usize>) -> Result<Grid, Failure> {
        let shown = self.shown();
        let heading = |s: &Shown| Heading {
            name: self.name(s.index),
            bounded: s.bounded,
            number: self.batch.column(s.index).data_type().is_numeric(),
        };
        let row = |row: usize| {
            let cell = |s: &Shown| Ok(Cell { text: self.cell(s, row)?, interval: self.interval(s, row) });
            let cells = shown.iter().map(cell).collect::<Result<_, Failure>>()?;
            Ok(GridRow { holder: self.holders[row].clone(), cells, note: self.note(row)? })
        };
        let rows = rows.map(row).collect::<Result<_, Failure>>()?;
        Ok(Grid { header: shown.iter().map(heading).collect(), rows })
    }

    /// The hospitals that have rows of their own, in their order.
    pub fn hospitals(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.holders.iter().map(String::as_str).filter(|h| *h != ALL_HOLDERS).collect();
        names.dedup();
        names
    }

    /// How many rows there are, over all hospitals and the combined table.
    pub fn count(&self) -> usize {
        self.holders.len()
    }

    /// The combined table for people, or with `by_holder` every hospital's rows.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn table(&self, by_holder: bool) -> Result<String, Failure> {
        let grid = self.grid(by_holder, usize::MAX)?;
        let noted = grid.noted();
        let Grid { header, rows } = grid;
        let mut table = empty();
        let names = by_holder.then(|| "hospital".to_string()).into_iter().chain(header.iter().map(|h| h.name.clone()));
        table.set_header(names.chain(noted.then(|| "note".to_string())).map(|name| plain(&name)));
        for GridRow { holder, cells, note } in rows {
            let texts = by_holder.then_some(holder).into_iter().chain(cells.into_iter().map(|cell| cell.text));
            table.add_row(texts.chain(noted.then_some(note)).map(|text| plain(&text)).collect::<Vec<_>>());
        }
        for (position, heading) in header.iter().enumerate() {
            if let Some(column) = table.column_mut(position + usize::from(by_holder)).filter(|_| heading.number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Ok(table.trim_fmt())
    }

    /// Value and bounds of an aggregate that is shown.
    #[expect(clippy::cast_precision_loss, reason = "a count becomes a real number, to be drawn")]
    fn interval(&self, shown: &Shown, row: usize) -> Option<[f64; 3]> {
        let column = self.batch.column(shown.index);
        if !shown.bounded || column.is_null(row) {
            return None;
        }
        let counted = column.as_primitive_opt::<Int64Type>().map(|c| c.value(row) as f64);
        let value = counted.or_else(|| column.as_primitive_opt::<Float64Type>().map(|c| c.value(row)))?;
        let (low, high) = self.bounds(shown, row);
        Some([value, low, high])
    }

    /// The bounds of an aggregate; not a number where there are none.
    fn bounds(&self, shown: &Shown, row: usize) -> (f64, f64) {
        let bound = |offset| {
            let column = self.batch.column(shown.index + offset).as_primitive_opt::<Float64Type>();
            column.filter(|c| c.is_valid(row)).map_or(f64::NAN, |c| c.value(row))
        };
        (bound(1), bound(2))
    }

    fn cell(&self, shown: &Shown, row: usize) -> Result<String, Failure> {
        let column = self.batch.column(shown.index);
        if column.is_null(row) {
            return Ok(if shown.bounded { "–" } else { "NULL" }.into());
        }
        let float = column.as_primitive_opt::<Float64Type>().map(|c| c.value(row));
        if !shown.bounded {
            return float.map_or_else(|| text(column, row).map(Option::unwrap_or_default), |v| Ok(significant(v)));
        }
        let (low, high) = self.bounds(shown, row);
        if low.total_cmp(&high).is_eq() {
            // An exact number is all there is to say.
            return text(column, row).map(Option::unwrap_or_default);
        }
        if let Some(count) = column.as_primitive_opt::<Int64Type>() {
            return Ok(format!("{} [{}, {}]", count.value(row), fixed(low.floor(), 0), fixed(high.ceil(), 0)));
        }
        let digits = digits_for((high - low) / 2.0, 1);
        let value = float.map_or_else(|| text(column, row).map(Option::unwrap_or_default), |v| Ok(fixed(v, digits)))?;
        Ok(format!("{value} [{}, {}]", fixed(low, digits), fixed(high, digits)))
    }

    /// Every column of the combined table, or with `by_holder` of all rows, as RFC 4180 with LF line ends.
    ///
    /// # Errors
    /// When a value has no text.
    pub fn csv(&self, by_holder: bool) -> Result<String, Failure> {
        let header: Vec<String> = (0..self.batch.num_columns()).map(|c| quoted(&self.name(c))).collect();
        let mut lines = vec![header.join(",")];
        for row in self.chosen(by_holder) {
            let cells = (0..self.batch.num_columns()).map(|column| self.field(column, row));
            lines.push(cells.collect::<Result<Vec<String>, Failure>>()?.join(","));
        }
        Ok(lines.join("\n"))
    }

    fn field(&self, column: usize, row: usize) -> Result<String, Failure> {
        let text = text(self.batch.column(column), row)?.unwrap_or_default();
        let nothing = self.batch.column(column).is_null(row) || self.name(column) == CELL_NOTE && text.is_empty();
        Ok(if nothing { text } else { quoted(&text) })
    }

    /// The report, the combined rows, and each hospital's rows.
    ///
    /// # Errors
    /// When a value has no form in JSON.
    pub fn json(&self, report: &ResultReport) -> Result<String, Failure> {
        let mut by_holder: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
        for (row, holder) in self.holders.iter().enumerate().filter(|(_, h)| *h != ALL_HOLDERS) {
            by_holder.entry(holder).or_default().push(Row { rows: self, row });
        }
        let rows = self.chosen(false).map(|row| Row { rows: self, row }).collect();
        super::print::json(&Whole { report, rows, by_holder })
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    report: &'a ResultReport,
    rows: Vec<Row<'a>>,
    by_holder: BTreeMap<&'a str, Vec<Row<'a>>>,
}

/// One row as a JSON object, columns in order, without its holder.
struct Row<'a> {
    rows: &'a Rows,
    row: usize,
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (index, column) in self.rows.batch.columns().iter().enumerate() {
            let name = self.rows.name(index);
            if name == HOLDER {
                continue;
            }
            if column.is_null(self.row) {
                map.serialize_entry(&name, &())?;
            } else if let Some(values) = column.as_primitive_opt::<Int64Type>() {
                map.serialize_entry(&name, &values.value(self.row))?;
            } else if let Some(values) = column.as_primitive_opt::<Float64Type>() {
                map.serialize_entry(&name, &values.value(self.row))?;
            } else if let Some(values) = column.as_boolean_opt() {
                map.serialize_entry(&name, &values.value(self.row))?;
            } else {
                let value = text(column, self.row).map_err(serde::ser::Error::custom)?;
                map.serialize_entry(&name, &value)?;
            }
        }
        map.end()
    }
}

/// The exact text of a value; none for NULL.
fn text(column: &ArrayRef, row: usize) -> Result<Option<String>, Failure> {
    if column.is_null(row) {
        return Ok(None);
    }
    if let Some(values) = column.as_primitive_opt::<Float64Type>() {
        return Ok(Some(values.value(row).to_string()));
    }
    let format = ArrayFormatter::try_new(column, &FormatOptions::default());
    let value = format.and_then(|f| f.value(row).try_to_string());
    value.map(Some).map_err(|e| Failure::answer("result", e))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Float64Array, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    pub(super) fn rows() -> Rows {
        let text = |values: Vec<Option<&str>>| Arc::new(StringArray::from(values)) as ArrayRef;
        let float = |values: Vec<Option<f64>>| Arc::new(Float64Array::from(values)) as ArrayRef;
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("holder", text([ALL_HOLDERS, ALL_HOLDERS, ALL_HOLDERS, "tokyo"].map(Some).into())),
            ("病棟", text(vec![Some("内科, \"A\""), None, Some(""), Some("内科, \"A\"")])),
            ("n", Arc::new(Int64Array::from(vec![Some(1234), Some(-3), None, Some(600)]))),
            ("n_low", float(vec![Some(1220.4), Some(-17.2), None, Some(590.0)])),
            ("n_high", float(vec![Some(1247.6), Some(11.2), None, Some(610.0)])),
            ("mean", float(vec![Some(156.123_456), Some(-0.001), None, Some(150.0)])),
            ("mean_low", float(vec![Some(154.0), Some(f64::NEG_INFINITY), None, Some(149.0)])),
            ("mean_high", float(vec![Some(158.2), Some(f64::INFINITY), None, Some(151.0)])),
            ("cell_note", text(vec![Some(""), Some("病棟 outside its domain"), Some("suppressed"), Some("")])),
        ];
        let fields: Vec<Field> = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
        let columns: Vec<ArrayRef> = columns.into_iter().map(|(_, c)| c).collect();
        let holders = vec![ALL_HOLDERS.into(), ALL_HOLDERS.into(), ALL_HOLDERS.into(), "tokyo".into()];
        Rows { batch: RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap(), holders }
    }

    #[test]
    fn a_table_shows_intervals_nulls_and_suppressed_cells() {
        let table = rows().table(false).unwrap();
        let line = |text: &str| table.lines().find(|l| l.contains(text)).unwrap_or_else(|| panic!("{text}: {table}"));
        assert!(line("1234").contains("1234 [1220, 1248]"), "{table}");
        assert!(line("1234").contains("156.1 [154.0, 158.2]"), "{table}");
        assert!(line("NULL").contains("-3 [-18, 12]"), "{table}");
        assert!(line("NULL").contains("0.001 [-∞, ∞]"), "{table}");
        assert_eq!(line("suppressed").matches('–').count(), 2, "{table}");
        assert!(!table.contains("tokyo") && !table.contains("n_low"), "{table}");
    }

    #[test]
    fn each_hospital_has_its_rows_when_asked() {
        let table = rows().table(true).unwrap();
        assert!(table.lines().any(|l| l.contains("tokyo") && l.contains("600 [590, 610]")), "{table}");
    }

    #[test]
    fn csv_is_exact_and_quoted() {
        assert_eq!(
            rows().csv(false).unwrap(),
            "holder,病棟,n,n_low,n_high,mean,mean_low,mean_high,cell_note\n\
             (all),\"内科, \"\"A\"\"\",1234,1220.4,1247.6,156.123456,154,158.2,\n\
             (all),,-3,-17.2,11.2,-0.001,-inf,inf,病棟 outside its domain\n\
             (all),\"\",,,,,,,suppressed"
        );
        assert_eq!(rows().csv(true).unwrap().lines().count(), 5);
    }

    #[test]
    fn json_rows_have_null_for_nothing() {
        let rows = rows();
        let value = serde_json::to_value(Row { rows: &rows, row: 1 }).unwrap();
        assert_eq!(value["病棟"], serde_json::Value::Null);
        assert_eq!(value["n"], -3);
        assert_eq!(value.get("holder"), None);
        let text = serde_json::to_string(&Row { rows: &rows, row: 0 }).unwrap();
        assert!(text.starts_with("{\"病棟\":\"内科, \\\"A\\\"\",\"n\":1234,"), "{text}");
    }
}
