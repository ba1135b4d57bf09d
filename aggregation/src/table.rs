//! From combined integers to the cells that people read.
//!
//! Estimates and intervals come from the noise's known distribution alone; the disclosure preset hides cells by
//! their *released* patient count, never by a raw one. A margin (a grouping set with fewer keys) is summed from the released cells,
//! so that it is consistent with them; a count of patients has numbers of its own for each grouping set. All of it is
//! post-processing and costs nothing; what the SQL says after its aggregates is in `after`.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray},
    compute::cast,
    datatypes::{Field, Schema},
    record_batch::RecordBatch,
};
use datafusion_common::DataFusionError;
use sekisho_protocol::permit::Preset;

use crate::{
    combine::{Combined, CombinedPart},
    domain::KeyValue,
    exact::Slack,
    interval::{self, Interval},
    noise::Noise,
    plan::{CellKey, Keys, Moment, Output, Part, PrivatePlan, Quantity},
    tree::Estimate,
};

/// What is particular about a released cell.
const SUPPRESSED: &str = "suppressed";
const INCOMPLETE: &str = "incomplete";

/// The ends of the columns that carry an interval: at the level itself, and at the wider one at which all outputs hold together.
pub(crate) const ENDS: [&str; 4] = ["low", "high", "wide_low", "wide_high"];

/// `value` in lattice units as whole units, halves away from zero.
fn rounded(value: i128, unit: i128) -> i128 {
    let half = if value >= 0 { unit / 2 } else { -(unit / 2) };
    value.saturating_add(half) / unit
}

/// The rows of one grouping set: every measure's numbers over its cells.
struct View<'a> {
    part: &'a Part,
    combined: &'a CombinedPart,
    noises: &'a [Noise],
    set: Keys,
    /// For each measure; empty where it has none over this set.
    numbers: Vec<Cow<'a, [i128]>>,
    /// How many cells of all keys one cell here is the sum of.
    summed: u32,
}

impl<'a> View<'a> {
    fn new(part: &'a Part, combined: &'a CombinedPart, noises: &'a [Noise], set: Keys) -> Self {
        let every = part.every_key();
        let projection = part.projection(every, set);
        let cells = part.cells_over(set);
        let summed = projection.len() / cells.max(1);
        let numbers = part.measures.iter().zip(&combined.measures).map(|(measure, numbers)| {
            if part.exact {
                return Cow::Borrowed(
                    part.numbers_of(measure, set).and_then(|own| numbers.get(own)).unwrap_or_default(),
                );
            }
            if measure.over == set {
                return Cow::Borrowed(numbers.as_slice());
            }
            if measure.over != every {
                return Cow::Borrowed(&[][..]);
            }
            // A part with a private key has one grouping set, so there is one name here.
            let width = part.width(measure);
            let mut sums = vec![0_i128; cells * width];
            for (from, to) in numbers.chunks(width).zip(&projection) {
                for (i, number) in from.iter().enumerate() {
                    let sum = &mut sums[*to as usize * width + i];
                    *sum = sum.saturating_add(*number);
                }
            }
            Cow::Owned(sums)
        });
        let numbers = numbers.collect();
        Self { part, combined, noises, set, numbers, summed: u32::try_from(summed).unwrap_or(u32::MAX) }
    }

    /// How many rows there are: names times cells.
    fn rows(&self) -> usize {
        self.combined.names.len() * self.cells()
    }

    fn cells(&self) -> usize {
        self.part.cells_over(self.set)
    }

    fn name(&self, row: usize) -> &(Option<KeyValue>, u32) {
        &self.combined.names[row / self.cells()]
    }

    /// How many independent noises are in a number of a measure.
    fn terms(&self, measure: usize, row: usize) -> u32 {
        let own = self.part.measures[measure].over == self.set;
        let hospitals = if self.part.names.is_some() { self.name(row).1 } else { self.combined.hospitals };
        hospitals.saturating_mul(if own { 1 } else { self.summed })
    }

    /// Whether a row's name was let out by no hospital: as in the table of one hospital, where others let it out.
    fn absent(&self, row: usize) -> bool {
        self.part.names.is_some() && self.name(row).1 == 0
    }

    fn number(&self, measure: usize, row: usize) -> i128 {
        self.numbers[measure].get(row).copied().unwrap_or(0)
    }

    /// A measure in natural units.
    #[expect(clippy::cast_precision_loss, reason = "a unit becomes a real number for display")]
    fn one(&self, measure: usize, row: usize, level: f64) -> Interval {
        let scale = 1.0 / self.part.unit(&self.part.measures[measure]) as f64;
        // An exact part has no noise.
        let Some(noise) = self.noises.get(measure) else {
            return self.exact(measure, row, scale);
        };
        let spread = noise.spread(self.terms(measure, row));
        Interval::of_number(self.number(measure, row), spread, scale, level)
    }

    /// An exact number, between the ends that rounding leaves open. A count is not negative.
    fn exact(&self, measure: usize, row: usize, scale: f64) -> Interval {
        let interval = Interval::rounded(self.number(measure, row), self.slack(measure, row).number, scale);
        let sum = matches!(self.part.measures[measure].quantity, Quantity::Sum { .. });
        if sum { interval } else { interval.within(0.0, f64::INFINITY) }
    }

    /// An exact mean; none where there are no values, as in SQL.
    #[expect(clippy::cast_precision_loss, reason = "a mean is a real number")]
    fn exact_mean(&self, sum: usize, count: usize, row: usize) -> Interval {
        let (lo, hi) = self.part.natural_range(self.centre(sum).0);
        let scale = 1.0 / self.part.unit(&self.part.measures[sum]) as f64;
        let mean = self.number(sum, row) as f64 / self.number(count, row) as f64 * scale;
        let slack = self.slack(sum, row).mean * scale;
        if mean.is_nan() {
            return Interval::exact(f64::NAN);
        }
        Interval { estimate: mean, lower: mean - slack, upper: mean + slack }.within(lo, hi)
    }

    /// How far rounding may have moved an exact number.
    fn slack(&self, measure: usize, row: usize) -> Slack {
        let own = self.part.numbers_of(&self.part.measures[measure], self.set);
        let slack = self.combined.exact.as_ref().and_then(|exact| exact.slack.get(measure)).zip(own);
        let unknown = Slack { number: f64::INFINITY, mean: f64::INFINITY };
        slack.and_then(|(slack, own)| slack.get(own)?.get(row).copied()).unwrap_or(unknown)
    }

    /// The measure that an output is here, if it is one.
    fn single(&self, output: &Output) -> Option<usize> {
        match output {
            Output::One { measure } => Some(*measure),
            Output::Patients { measures } => measures.iter().copied().find(|m| self.part.measures[*m].over == self.set),
            Output::Avg { .. }
            | Output::Moments { .. }
            | Output::Quantile { .. }
            | Output::Extreme { .. }
            | Output::Grouping { .. } => None,
        }
    }

    fn interval(&self, output: &Output, row: usize, level: f64) -> Option<Interval> {
        // That all of m quantities hold together at the level, each fails m times less often.
        let together = |m: usize| 1.0 - (1.0 - level) / f64::from(u32::try_from(m).unwrap_or(u32::MAX));
        Some(match output {
            Output::One { .. } | Output::Patients { .. } => self.one(self.single(output)?, row, level),
            Output::Avg { sum, count } => self.mean(*sum, *count, row, together(2)),
            Output::Moments { moment, count, sums, products } => {
                let level = together(1 + sums.len() + products.len());
                self.moment(*moment, *count, sums, products, row, level)?
            }
            Output::Quantile { measure, millionths } => {
                self.estimate(*measure, row, level)?.quantile(f64::from(*millionths) / 1e6)
            }
            Output::Extreme { measure, greatest: true } => self.estimate(*measure, row, level)?.maximum(),
            Output::Extreme { measure, greatest: false } => self.estimate(*measure, row, level)?.minimum(),
            Output::Grouping { .. } => return None,
        })
    }

    /// `centre + sum / count`, within the range of the values.
    fn mean(&self, sum: usize, count: usize, row: usize, level: f64) -> Interval {
        if self.part.exact {
            return self.exact_mean(sum, count, row);
        }
        let (argument, centre) = self.centre(sum);
        let (lo, hi) = self.part.natural_range(argument);
        let ratio = self.one(sum, row, level).ratio(self.one(count, row, level), lo - centre, hi - centre);
        ratio.add(Interval::exact(centre)).within(lo, hi)
    }

    /// A sum's argument, and its centre in natural units.
    #[expect(clippy::cast_precision_loss, reason = "a centre becomes a real number for display")]
    fn centre(&self, sum: usize) -> (usize, f64) {
        let Quantity::Sum { argument, centre } = self.part.measures[sum].quantity else { return (usize::MAX, 0.0) };
        (argument, centre as f64 / 10_f64.powi(self.part.arguments[argument].scale.cast_signed()))
    }

    fn moment(
        &self,
        moment: Moment,
        count: usize,
        sums: &[usize],
        products: &[usize],
        row: usize,
        level: f64,
    ) -> Option<Interval> {
        let n = self.one(count, row, level);
        let half = |sum: &usize| {
            let (lo, hi) = self.part.natural_range(self.centre(*sum).0);
            (hi - lo) / 2.0
        };
        let (reach, reach_y) = (half(sums.first()?), half(sums.last()?));
        let sums: Vec<Interval> = sums.iter().map(|s| self.one(*s, row, level)).collect();
        // Products are summed about a centre of their own.
        let whole = |p: &usize| self.one(*p, row, level).add(n.mul(Interval::exact(self.centre(*p).1)));
        let products: Vec<Interval> = products.iter().map(whole).collect();
        let most = |x: f64, y: f64, sample: bool| x * y * if sample { 2.0 } else { 1.0 };
        match (moment, sums.as_slice(), products.as_slice()) {
            // What is at most h from the middle has a variance of at most h², and one of n - 1 at most twice that.
            (Moment::Variance { sample }, [x], [xx]) => {
                Some(interval::variance(n, *x, *xx, sample).within(0.0, most(reach, reach, sample)))
            }
            (Moment::Deviation { sample }, [x], [xx]) => {
                Some(interval::variance(n, *x, *xx, sample).within(0.0, most(reach, reach, sample)).sqrt())
            }
            (Moment::Covariance { sample }, [x, y], [xy]) => {
                let most = most(reach, reach_y, sample);
                Some(interval::covariance(n, *x, *y, *xy, sample).within(-most, most))
            }
            (Moment::Correlation, [x, y], [xx, yy, xy]) => Some(interval::correlation(n, *x, *y, *xx, *yy, *xy)),
            _ => None,
        }
    }

    /// What a histogram's numbers say of its values, in natural units.
    #[expect(clippy::cast_precision_loss, reason = "a unit becomes a real number for display")]
    fn estimate(&self, measure: usize, row: usize, level: f64) -> Option<Estimate> {
        let Quantity::Histogram { argument } = self.part.measures[measure].quantity else { return None };
        let tree = self.part.tree(argument)?;
        let numbers = self.numbers[measure].get(row * tree.nodes()..(row + 1) * tree.nodes())?;
        let spread = self.noises[measure].spread(self.terms(measure, row));
        let unit = self.part.unit(&self.part.measures[measure]) as f64;
        let scale = 10_f64.powi(-self.part.arguments[argument].scale.cast_signed());
        Some(Estimate::of(tree, numbers, spread, unit, scale, level))
    }

    /// The number of patients of each row of an exact table, where the query asks for it; `i128::MAX` where it does not.
    fn exact_patients(&self) -> Vec<i128> {
        let of = |quantity: &Quantity| match quantity {
            Quantity::Patients { present: None } => true,
            Quantity::Rows => self.part.one_row,
            Quantity::Patients { present: Some(_) }
            | Quantity::Present { .. }
            | Quantity::Sum { .. }
            | Quantity::Heavy
            | Quantity::Histogram { .. } => false,
        };
        let mut measures = self.part.measures.iter().zip(&self.numbers);
        let counts = measures.find(|(measure, numbers)| of(&measure.quantity) && !numbers.is_empty());
        counts.map_or(vec![i128::MAX; self.rows()], |(_, numbers)| numbers.to_vec())
    }

    /// The released number of patients of each row, rounded: by it the preset judges.
    fn patients(&self, guard: usize) -> impl Iterator<Item = i128> {
        let unit = self.part.unit(&self.part.measures[guard]);
        (0..self.rows()).map(move |row| rounded(self.number(guard, row), unit))
    }
}

/// Which rows of a part's table are hidden: of an exact one those that some hospital hides, and of a noised one those that the
/// preset does.
fn hidden_rows(part: &Part, views: &[View], combined: &CombinedPart, preset: Preset) -> Vec<bool> {
    match &combined.exact {
        Some(exact) => exact.hidden.clone(),
        None => hidden_by_preset(part, views, preset).concat(),
    }
}

fn hidden_by_preset(part: &Part, views: &[View], preset: Preset) -> Vec<Vec<bool>> {
    let judged = views.iter().zip(&part.guards);
    let mut hidden: Vec<Vec<bool>> = judged
        .map(|(view, guard)| {
            view.patients(*guard).enumerate().map(|(row, n)| preset.rules().hides(n) && !view.absent(row)).collect()
        })
        .collect();
    // The most detailed sets come first. A margin of which exactly one cell is hidden would give that cell away.
    for coarse in 0..views.len() {
        for fine in 0..coarse {
            let (from, to) = (views[fine].set, views[coarse].set);
            if from & to != to || from == to {
                continue;
            }
            let mut count = vec![0_u32; hidden[coarse].len()];
            for (cell, margin) in part.projection(from, to).iter().enumerate() {
                count[*margin as usize] += u32::from(hidden[fine][cell]);
            }
            hidden[coarse].iter_mut().zip(count).for_each(|(hidden, count)| *hidden |= count == 1);
        }
    }
    hidden
}

impl Part {
    fn views<'a>(&'a self, combined: &'a CombinedPart, noises: &'a [Noise]) -> Vec<View<'a>> {
        self.sets.iter().map(|set| View::new(self, combined, noises, *set)).collect()
    }

    /// The noise of every measure; an admitted part has one for each, or is exact and has none.
    fn noises(&self) -> Vec<Noise> {
        self.measures.iter().filter_map(|m| self.noise(m)).collect()
    }
}

impl PrivatePlan {
    /// For every row of every part's table: the released number of patients, by which the preset judges, and whether it or a
    /// margin hides the row. Of an exact table the rows are judged at the hospitals: the number is 0 where a row is hidden, and
    /// `i128::MAX` where it is shown and the query does not ask for patients.
    pub fn judged(&self, combined: &Combined) -> Vec<(i128, bool)> {
        let mut rows = Vec::new();
        for (part, combined) in self.parts.iter().zip(&combined.parts) {
            let noises = part.noises();
            let views = part.views(combined, &noises);
            let hidden = hidden_rows(part, &views, combined, self.preset);
            if combined.exact.is_some() {
                // What is hidden has no number; by rules, so many patients as none.
                let patients = views.iter().flat_map(View::exact_patients);
                rows.extend(patients.zip(hidden).map(|(n, hidden)| (if hidden { 0 } else { n }, hidden)));
                continue;
            }
            let patients = views.iter().zip(&part.guards).flat_map(|(view, guard)| {
                // Nothing was added where a name is absent: hiding it would hide nothing.
                let judged = view.patients(*guard).enumerate();
                judged.map(|(row, patients)| if view.absent(row) { i128::MAX } else { patients })
            });
            rows.extend(patients.zip(hidden));
        }
        rows
    }

    /// The table of each part: every cell with its keys, estimates and intervals at `level`. Columns `c0…` are those of the SQL's
    /// aggregate; then for each output `low`, `high`, `wide_low` and `wide_high` with its number, and `note`.
    ///
    /// `complete` is false when a hospital that was asked is missing. `also_hidden` hides rows beside those that the preset
    /// hides, one flag for each row of [`judged`](Self::judged); empty for none.
    ///
    /// # Errors
    /// None is expected; arrow's when lengths differ.
    pub fn released_cells(
        &self,
        combined: &Combined,
        complete: bool,
        level: f64,
        also_hidden: &[bool],
    ) -> Result<Vec<RecordBatch>, DataFusionError> {
        let outputs: usize = self.parts.iter().map(|p| p.outputs.len()).sum();
        let mut also_hidden = also_hidden.iter().copied();
        let mut tables = Vec::new();
        for (place, (part, combined)) in self.parts.iter().zip(&combined.parts).enumerate() {
            let noises = part.noises();
            let views = part.views(combined, &noises);
            let mut hidden = hidden_rows(part, &views, combined, self.preset);
            let absent = views.iter().flat_map(|view| (0..view.rows()).map(|row| view.absent(row)));
            for (hidden, absent) in hidden.iter_mut().zip(absent) {
                *hidden |= also_hidden.next().unwrap_or(false) || absent;
            }
            let levels = (level, 1.0 - (1.0 - level) / f64::from(u32::try_from(outputs).unwrap_or(u32::MAX)));
            let table = Table { plan: self, place, part, views, hidden, complete, levels };
            tables.push(table.batch()?);
        }
        Ok(tables)
    }

    /// How much the bounds bit, as far as it was asked: what was counted, with its interval.
    pub fn bites(&self, combined: &Combined, level: f64) -> Vec<(String, Interval)> {
        let mut all = Vec::new();
        for (part, combined) in self.parts.iter().zip(&combined.parts).filter(|(part, _)| !part.bites.is_empty()) {
            let noises = part.noises();
            let view = View::new(part, combined, &noises, 0);
            all.extend(part.bites.iter().map(|(measure, what)| (what.clone(), view.one(*measure, 0, level))));
        }
        all
    }
}

/// One part's table in the making.
struct Table<'a> {
    plan: &'a PrivatePlan,
    place: usize,
    part: &'a Part,
    views: Vec<View<'a>>,
    hidden: Vec<bool>,
    complete: bool,
    levels: (f64, f64),
}

impl Table<'_> {
    fn batch(&self) -> Result<RecordBatch, DataFusionError> {
        let cells: Vec<Vec<CellKey>> = self
            .views
            .iter()
            .flat_map(|view| {
                let cell = |row: usize| {
                    let name = self.part.names.map(|_| &view.name(row).0);
                    self.part.cell(view.set, row % view.cells(), name)
                };
                (0..view.rows()).map(cell).collect::<Vec<_>>()
            })
            .collect();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for (i, key) in self.part.keys.iter().enumerate() {
            let value = |cell: &Vec<CellKey>| match &cell[i] {
                CellKey::Value(value) => Some(value.clone()),
                CellKey::Null | CellKey::Outside | CellKey::All => None,
            };
            columns.push(key.image.kind.array(&cells.iter().map(value).collect::<Vec<_>>()));
        }
        let aggregate = self.plan.aggregate(self.place)?;
        let own = aggregate.schema.fields();
        // With GROUPING SETS a column says which set a row is of.
        if own.len() == self.part.keys.len() + 1 + self.part.outputs.len() {
            let every: Vec<usize> = (0..self.part.keys.len()).collect();
            columns.push(cast(&self.grouping(&every), own[self.part.keys.len()].data_type())?);
        }
        let mut ends = Vec::new();
        for output in &self.part.outputs {
            let (column, bounds) = self.output(output);
            columns.push(column);
            ends.extend(bounds);
        }
        let visible = columns.len();
        columns.extend(ends);
        columns
            .push(Arc::new(cells.iter().enumerate().map(|(row, cell)| self.note(row, cell)).collect::<StringArray>()));
        let hidden = (0..self.part.outputs.len()).flat_map(|i| ENDS.map(|end| hidden_name(self.place, i, end)));
        let names = (0..visible).map(|i| format!("c{i}")).chain(hidden).chain([note_name(self.place)]);
        let fields: Vec<Field> = names.zip(&columns).map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }

    /// Each row's view, its row there, and whether it is shown.
    fn rows(&self) -> impl Iterator<Item = (&View<'_>, usize, bool)> {
        let rows = self.views.iter().flat_map(|view| (0..view.rows()).map(move |row| (view, row)));
        rows.zip(&self.hidden).map(|((view, row), hidden)| (view, row, !hidden))
    }

    fn grouping(&self, keys: &[usize]) -> ArrayRef {
        let left_out = |set: Keys| keys.iter().fold(0_i64, |bits, key| 2 * bits + i64::from(set & (1 << key) == 0));
        Arc::new(self.rows().map(|(view, ..)| Some(left_out(view.set))).collect::<Int64Array>())
    }

    /// One output's column and the columns of its ends.
    fn output(&self, output: &Output) -> (ArrayRef, Vec<ArrayRef>) {
        if let Output::Grouping { keys } = output {
            let none = || Arc::new(Float64Array::from(vec![None; self.hidden.len()])) as ArrayRef;
            return (self.grouping(keys), (0..ENDS.len()).map(|_| none()).collect());
        }
        let at = |level: f64| -> Vec<Option<Interval>> {
            self.rows().map(|(view, row, shown)| shown.then(|| view.interval(output, row, level)).flatten()).collect()
        };
        let (mut own, mut wide) = (at(self.levels.0), at(self.levels.1));
        let whole = self.whole(output);
        // Exact numbers came rounded.
        let base = if whole == Some(true) && !self.part.exact { self.plan.preset.rules().rounding } else { 1 };
        if base > 1 {
            own.iter_mut().chain(&mut wide).flatten().for_each(|i| *i = to_base(*i, f64::from(base)));
        }
        let end = |of: &dyn Fn(&Interval) -> f64, all: &[Option<Interval>]| {
            let finite = |i: &Option<Interval>| i.as_ref().map(of);
            Arc::new(all.iter().map(finite).map(|v| v.filter(|v| !v.is_nan())).collect::<Float64Array>()) as ArrayRef
        };
        let ends =
            vec![end(&|i| i.lower, &own), end(&|i| i.upper, &own), end(&|i| i.lower, &wide), end(&|i| i.upper, &wide)];
        if whole.is_none() {
            return (end(&|i| i.estimate, &own), ends);
        }
        let value = |((view, row, _), interval): ((&View, usize, bool), &Option<Interval>)| {
            interval.as_ref()?;
            let measure = view.single(output)?;
            let value = rounded(view.number(measure, row), self.part.unit(&self.part.measures[measure]));
            let base = i128::from(base);
            i64::try_from(rounded(value, base) * base).ok()
        };
        (Arc::new(self.rows().zip(&own).map(value).collect::<Int64Array>()), ends)
    }

    /// Whether an output is a whole number, and then whether it is a count. Counts, and sums of integers, are `Int64`; everything
    /// else is `Float64`.
    fn whole(&self, output: &Output) -> Option<bool> {
        let single = self.views.first()?.single(output)?;
        match &self.part.measures[single].quantity {
            Quantity::Sum { argument, .. } => (self.part.arguments[*argument].scale == 0).then_some(false),
            Quantity::Rows
            | Quantity::Present { .. }
            | Quantity::Patients { .. }
            | Quantity::Heavy
            | Quantity::Histogram { .. } => Some(true),
        }
    }

    fn note(&self, row: usize, cell: &[CellKey]) -> Option<String> {
        let mut notes = Vec::new();
        if self.hidden[row] {
            notes.push(SUPPRESSED.to_string());
        }
        if !self.complete {
            notes.push(INCOMPLETE.to_string());
        }
        for (key, value) in self.part.keys.iter().zip(cell) {
            match value {
                CellKey::Outside => notes.push(format!("{} outside its domain", key.name)),
                CellKey::All => notes.push(format!("all of {}", key.name)),
                CellKey::Value(_) | CellKey::Null => {}
            }
        }
        // A part with a private key has one view.
        if let (Some(_), [view]) = (self.part.names, self.views.as_slice()) {
            let (let_out, of) = (view.name(row).1, view.combined.hospitals);
            if let_out < of {
                notes.push(format!("below the threshold at {} of {of} hospitals", of - let_out));
            }
        }
        Some(notes.join("; "))
    }
}

/// The column with one end of an output's interval.
pub(crate) fn hidden_name(part: usize, output: usize, end: &str) -> String {
    format!("__{part}_{output}_{end}")
}

/// The column with what is particular about a row of a part.
pub(crate) fn note_name(part: usize) -> String {
    format!("__{part}_note")
}

/// An interval whose ends are multiples of `base`, outwards.
fn to_base(interval: Interval, base: f64) -> Interval {
    Interval {
        estimate: (interval.estimate / base).round() * base,
        lower: (interval.lower / base).floor() * base,
        upper: (interval.upper / base).ceil() * base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_with_halves_away_from_zero() {
        for (value, unit, expect) in [(14, 10, 1), (15, 10, 2), (-15, 10, -2), (-14, 10, -1), (7, 1, 7), (13, 5, 3)] {
            assert_eq!(rounded(value, unit), expect, "{value} / {unit}");
        }
    }
}
