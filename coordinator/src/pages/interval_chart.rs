//! A chart of values with their intervals: a dot and a whisker for each group, drawn here as SVG.
//!
//! Promises: every drawn number is one of the table beside it, as it was released; what is hidden has its row and no
//! dot, and never one at zero; an interval without end runs off the edge with an arrow. Deliberately absent: colours
//! and styles, which are the style sheet's, and scripts.

use sekisho_protocol::pages::Language;

use super::states;
use crate::person::{answer::Grid, number::fixed};

/// The most rows that are drawn; the table has the others.
pub const MOST_ROWS: usize = 60;
/// The longest label that is drawn, in characters of a full width.
const LABEL: usize = 15;

/// Widths and heights of the picture, in its own units.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 230.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 8.0;
const ROW: f64 = 26.0;
const AXIS: f64 = 40.0;

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct IntervalChart {
    /// What is drawn: the column's name.
    pub name: String,
    /// A row for each group.
    pub rows: Vec<Mark>,
    /// The axis.
    pub ticks: Vec<Tick>,
    /// Where zero is, when it is inside.
    pub zero: Option<f64>,
    /// Groups that are not drawn.
    pub left_out: usize,
    /// The picture's width.
    pub width: f64,
    /// The picture's height.
    pub height: f64,
    /// The plot's left edge.
    pub left: f64,
    /// The plot's right edge.
    pub right: f64,
    /// The plot's lower edge.
    pub bottom: f64,
}

/// One group.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its keys, shortened.
    pub label: String,
    /// Its keys and its value, in full.
    pub title: String,
    /// The middle of its row.
    pub y: f64,
    /// The dot and the whisker; none of a group that is hidden.
    pub drawn: Option<Drawn>,
}

/// A dot with its whisker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The dot.
    pub x: f64,
    /// The whisker's left end.
    pub low: f64,
    /// The whisker's right end.
    pub high: f64,
    /// The interval has no lower end.
    pub open_low: bool,
    /// The interval has no upper end.
    pub open_high: bool,
}

/// A number on the axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where.
    pub x: f64,
    /// Which.
    pub text: String,
}

impl IntervalChart {
    /// A chart of each column of `grid` that has intervals, over the rows of `holder`, for readers of `language`.
    pub fn all(grid: &Grid, holder: &str, language: Language) -> Vec<Self> {
        let bounded = grid.header.iter().enumerate().filter(|(_, heading)| heading.bounded);
        bounded.filter_map(|(column, heading)| Self::of(grid, holder, column, &heading.name, language)).collect()
    }

    fn of(grid: &Grid, holder: &str, column: usize, name: &str, language: Language) -> Option<Self> {
        let rows: Vec<_> = grid.rows.iter().filter(|row| row.holder == holder).collect();
        let drawn = &rows[..rows.len().min(MOST_ROWS)];
        let finite = drawn.iter().filter_map(|row| row.cells.get(column)?.interval).flatten().filter(|n| n.is_finite());
        let scale = Scale::over(finite)?;
        let keys = |cells: &[crate::person::answer::Cell]| {
            let keys = cells.iter().zip(&grid.header).filter(|(_, heading)| !heading.bounded);
            keys.map(|(cell, _)| cell.text.as_str()).collect::<Vec<_>>().join(" · ")
        };
        let mark = |(place, row): (f64, &&crate::person::answer::GridRow)| {
            let (keys, cell) = (keys(&row.cells), row.cells.get(column)?);
            let about = states::note(&about(&row.note), &language);
            let label = if about.is_empty() { keys } else { format!("{keys} ({about})") };
            let value = if cell.interval.is_none() && !row.note.is_empty() { &row.note } else { &cell.text };
            Some(Mark {
                title: if label.is_empty() { value.clone() } else { format!("{label}: {value}") },
                label: shortened(&label),
                y: tenths(TOP + ROW * (place + 0.5)),
                drawn: cell.interval.map(|interval| scale.drawn(interval)),
            })
        };
        let places = std::iter::successors(Some(0.0), |place| Some(place + 1.0));
        let marks: Vec<Mark> = places.zip(drawn).filter_map(mark).collect();
        let bottom = marks.last()?.y + ROW / 2.0;
        Some(Self {
            name: name.into(),
            rows: marks,
            ticks: scale.ticks(),
            zero: (scale.low < 0.0 && scale.high > 0.0).then(|| scale.x(0.0)),
            left_out: rows.len() - drawn.len(),
            width: WIDTH,
            height: tenths(bottom + AXIS),
            left: LEFT,
            right: WIDTH - RIGHT,
            bottom: tenths(bottom),
        })
    }
}

/// From values to places.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    step: f64,
}

impl Scale {
    /// A scale on which all `numbers` lie, between two round ones; none without any number.
    fn over(numbers: impl Iterator<Item = f64>) -> Option<Self> {
        let (low, high) = numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(n), high.max(n)));
        if low > high {
            return None;
        }
        // Where zero is near, it is shown: a distance is then read as a share.
        let (low, high) = match (low, high) {
            (low, high) if low > 0.0 && low < high / 2.0 => (0.0, high),
            (low, high) if high < 0.0 && high > low / 2.0 => (low, 0.0),
            (low, high) if low == high => (low - 1.0, high + 1.0),
            other => other,
        };
        let rough = (high - low) / 5.0;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * ten).into_iter().find(|step| *step >= rough).unwrap_or(10.0 * ten);
        let scale = Self { low: (low / step).floor() * step, high: (high / step).ceil() * step, step };
        // Numbers so large that a step changes nothing have no axis.
        (step.is_finite() && scale.low < scale.high && scale.low + step > scale.low).then_some(scale)
    }

    fn x(self, value: f64) -> f64 {
        tenths(LEFT + (value - self.low) / (self.high - self.low) * (WIDTH - RIGHT - LEFT))
    }

    fn drawn(self, [value, low, high]: [f64; 3]) -> Drawn {
        let (open_low, open_high) = (!low.is_finite(), !high.is_finite());
        let value = value.clamp(self.low, self.high);
        Drawn {
            x: self.x(value),
            low: if open_low { LEFT } else { self.x(low) },
            high: if open_high { WIDTH - RIGHT } else { self.x(high) },
            open_low,
            open_high,
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a step has at most 12 digits behind")]
    fn ticks(self) -> Vec<Tick> {
        let digits = (-self.step.log10().floor()).clamp(0.0, 12.0) as usize;
        let values = std::iter::successors(Some(0.0), |n| Some(n + 1.0)).map(|n| self.low + n * self.step);
        let inside = values.take_while(|value| *value <= self.high + self.step / 2.0).take(12);
        inside.map(|value| Tick { x: self.x(value), text: fixed(value, digits) }).collect()
    }
}

/// What a note says of the group itself: that it is a margin, or what is outside of a domain.
fn about(note: &str) -> String {
    let parts = note.split("; ").filter(|part| part.ends_with(" outside its domain") || part.starts_with("all of "));
    parts.collect::<Vec<_>>().join("; ")
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The label as far as there is room for it.
fn shortened(label: &str) -> String {
    let width = |c: char| if c.is_ascii() { 1 } else { 2 };
    let mut left = 2 * LABEL;
    if label.chars().map(width).sum::<usize>() <= left {
        return label.into();
    }
    let fits = label.chars().take_while(|c| {
        left = left.saturating_sub(width(*c));
        left > 1
    });
    format!("{}…", fits.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::person::answer::{Cell, GridRow, Heading};

    fn grid(rows: &[(&str, &str, Option<[f64; 3]>)]) -> Grid {
        let heading = |name: &str, bounded| Heading { name: name.into(), bounded, number: bounded };
        let row = |(key, note, interval): &(&str, &str, Option<[f64; 3]>)| {
            let text = interval.map_or("–".to_string(), |[value, _, _]| value.to_string());
            let key = Cell { text: (*key).into(), interval: None };
            GridRow {
                holder: "(all)".into(),
                cells: vec![key, Cell { text, interval: *interval }],
                note: (*note).into(),
            }
        };
        Grid { header: vec![heading("sex", false), heading("n", true)], rows: rows.iter().map(row).collect() }
    }

    fn one(rows: &[(&str, &str, Option<[f64; 3]>)]) -> IntervalChart {
        IntervalChart::all(&grid(rows), "(all)", Language::En).remove(0)
    }

    #[test]
    fn a_dot_lies_in_its_whisker_and_the_axis_is_round() {
        let chart = one(&[("F", "", Some([1234.0, 1220.0, 1248.0])), ("M", "", Some([600.0, 590.0, 610.0]))]);
        let texts: Vec<_> = chart.ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(texts, ["0", "500", "1000", "1500"]);
        for mark in &chart.rows {
            let drawn = mark.drawn.unwrap();
            assert!(LEFT <= drawn.low && drawn.low < drawn.x && drawn.x < drawn.high && drawn.high <= chart.right);
        }
        assert_eq!(chart.rows[0].title, "F: 1234");
        assert_eq!(chart.zero, None, "zero is the edge");
    }

    #[test]
    fn what_is_hidden_has_its_row_and_no_dot() {
        let chart = one(&[("F", "", Some([10.0, 5.0, 15.0])), ("M", "suppressed", None)]);
        assert_eq!((chart.rows[1].drawn, chart.rows[1].title.as_str()), (None, "M: suppressed"));
        let chart = one(&[("NULL", "suppressed; sex outside its domain", None), ("M", "", Some([1.0, 0.0, 2.0]))]);
        assert_eq!(chart.rows[0].label, "NULL (sex outside its domain)");
        assert!(IntervalChart::all(&grid(&[("M", "suppressed", None)]), "(all)", Language::En).is_empty());
        assert!(IntervalChart::all(&grid(&[("M", "", Some([1.0, 0.0, 2.0]))]), "tokyo", Language::En).is_empty());
    }

    #[test]
    fn an_interval_without_end_runs_off_the_edge() {
        let [inf, no] = [f64::INFINITY, f64::NEG_INFINITY];
        let chart = one(&[("F", "", Some([-3.0, no, inf])), ("M", "", Some([4.0, 1.0, 9.0]))]);
        let drawn = chart.rows[0].drawn.unwrap();
        assert_eq!((drawn.open_low, drawn.open_high, drawn.low, drawn.high), (true, true, chart.left, chart.right));
        assert!(chart.zero.is_some_and(|x| drawn.x < x));
    }

    #[test]
    fn no_numbers_make_an_endless_axis() {
        for interval in [[0.0; 3], [1e300, -1e300, 1e300], [1e-300, 0.0, 1e-300], [5.0, 5.0, 5.0], [f64::NAN; 3]] {
            let charts = IntervalChart::all(&grid(&[("F", "", Some(interval))]), "(all)", Language::En);
            for chart in charts {
                assert!((2..=12).contains(&chart.ticks.len()), "{interval:?}: {:?}", chart.ticks);
                assert!(chart.ticks.iter().all(|tick| tick.x.is_finite()));
            }
        }
    }

    #[test]
    fn labels_are_shortened_and_many_rows_are_left_to_the_table() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"a".repeat(40)), format!("{}…", "a".repeat(28)));
        assert_eq!(shortened(&"病".repeat(40)), format!("{}…", "病".repeat(14)));
        let rows: Vec<_> = (0..70).map(|_| ("F", "", Some([1.0, 0.0, 2.0]))).collect();
        let chart = one(&rows);
        assert_eq!((chart.rows.len(), chart.left_out), (MOST_ROWS, 10));
    }
}
