//! Step charts over time, drawn by the server as SVG: what each value was from one moment to the next.
//!
//! Promises: nothing but numbers and texts of ours go into a path; every line has its name beside it and a pattern of its own, so
//! that nobody needs to tell colours apart; a chart is never without a table of the same numbers, which the page puts under it.
//! Deliberately absent: scripts, styles (a strict CSP allows neither in a page), and any number that its caller did not give.

use std::fmt::Write;

use askama::Template;
use chrono::{DateTime, TimeDelta, Utc};
use sekisho_protocol::pages::grouped;

/// The drawing's size, in units of its own.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// What the axes and the names of lines take of it.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 170.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 46.0;
/// How far apart the names of two lines are at least.
const LINE_HEIGHT: f64 = 18.0;

/// How a line is drawn: never two alike in one chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// Thin, of dots.
    Dotted,
    /// Of dashes.
    Dashed,
    /// Thick, with a mark at each change.
    Solid,
}

impl Stroke {
    /// Its class.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Dotted => "chart-dotted",
            Self::Dashed => "chart-dashed",
            Self::Solid => "chart-solid",
        }
    }

    /// `stroke-dasharray`.
    const fn dashes(self) -> &'static str {
        match self {
            Self::Dotted => "2 4",
            Self::Dashed => "9 5",
            Self::Solid => "none",
        }
    }

    /// Dark enough beside white, whatever eyes make of the colour.
    const fn colour(self) -> &'static str {
        match self {
            Self::Dotted => "#626264",
            Self::Dashed => "#6a3e00",
            Self::Solid => "#0017c1",
        }
    }

    const fn width(self) -> &'static str {
        match self {
            Self::Dotted | Self::Dashed => "2",
            Self::Solid => "3",
        }
    }
}

/// One line: what holds from each moment on.
#[derive(Clone, Debug)]
pub struct Steps {
    /// What it is called.
    pub name: String,
    /// How it is drawn.
    pub stroke: Stroke,
    /// The moments, the earliest first, with the value from then on.
    pub points: Vec<(DateTime<Utc>, u64)>,
}

/// What is said about a chart.
#[derive(Clone, Debug)]
pub struct Words {
    /// An id that no other chart of the page has: letters, digits and hyphens.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// The same in a sentence with its last numbers, for who does not see it.
    pub description: String,
    /// The unit of the upright axis.
    pub unit: String,
    /// What the other axis is: the time, and of which zone.
    pub time: String,
}

/// A chart, laid out; it renders to the SVG.
#[derive(Template)]
#[template(path = "regulator/chart.svg")]
pub struct Chart {
    words: Words,
    values: Vec<Tick>,
    times: Vec<Tick>,
    lines: Vec<Drawn>,
}

/// A mark of an axis.
struct Tick {
    at: String,
    label: String,
}

/// A line, laid out.
struct Drawn {
    name: String,
    stroke: Stroke,
    path: String,
    marks: Vec<(String, String)>,
    name_at: String,
}

impl Chart {
    /// The chart of these lines until `until`.
    pub fn new(words: Words, lines: Vec<Steps>, until: DateTime<Utc>) -> Self {
        let points = || lines.iter().flat_map(|line| &line.points);
        let from = points().map(|(at, _)| *at).min().unwrap_or(until);
        let until = points().map(|(at, _)| *at).fold(until, DateTime::max).max(from + TimeDelta::minutes(1));
        let most = points().map(|(_, value)| *value).max().unwrap_or(0);
        let step = nice_step(most);
        let top = most.div_ceil(step).max(1).saturating_mul(step);
        let scale = Scale { from, until, top };
        let values = (0..=top / step).map(|n| n * step);
        let values = values.map(|value| Tick { at: number(scale.y(value)), label: grouped(value) }).collect();
        let mut lines: Vec<Drawn> = lines.into_iter().map(|line| drawn(line, &scale)).collect();
        apart(&mut lines);
        Self { words, values, times: times(&scale), lines }
    }
}

/// Where moments and values are in the drawing.
struct Scale {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    top: u64,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
    fn x(&self, at: DateTime<Utc>) -> f64 {
        let (part, all) = ((at - self.from).num_seconds() as f64, (self.until - self.from).num_seconds() as f64);
        LEFT + (WIDTH - LEFT - RIGHT) * part / all
    }

    #[expect(clippy::cast_precision_loss, reason = "a place in a drawing")]
    fn y(&self, value: u64) -> f64 {
        let part = value as f64 / self.top as f64;
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part
    }
}

fn number(place: f64) -> String {
    format!("{place:.1}")
}

/// The step of the upright axis: 1, 2 or 5 times a power of ten, so that there are three to six marks above zero.
fn nice_step(most: u64) -> u64 {
    let mut power: u64 = 1;
    loop {
        for step in [1, 2, 5].map(|n| power.saturating_mul(n)) {
            if most.div_ceil(step) <= 5 {
                return step;
            }
        }
        power = power.saturating_mul(10);
    }
}

/// Five moments of the lower axis: days, or times of day when there are few.
fn times(scale: &Scale) -> Vec<Tick> {
    let span = scale.until - scale.from;
    let format = match span.num_hours() {
        0 => "%H:%M:%S",
        1..96 => "%m-%d %H:%M",
        _ => "%Y-%m-%d",
    };
    let tick = |n: i32| {
        let at = scale.from + span * n / 4;
        Tick { at: number(scale.x(at)), label: at.format(format).to_string() }
    };
    (0..=4).map(tick).collect()
}

fn drawn(line: Steps, scale: &Scale) -> Drawn {
    let (mut path, mut marks, mut last) = (String::new(), Vec::new(), None);
    for (at, value) in &line.points {
        let (x, y) = (number(scale.x(*at)), number(scale.y(*value)));
        // Writing to a text cannot fail.
        let _ = match last {
            None => write!(path, "M{x} {y}"),
            Some(_) => write!(path, "H{x}V{y}"),
        };
        if line.stroke == Stroke::Solid {
            marks.push((x, y));
        }
        last = Some(scale.y(*value));
    }
    if last.is_some() {
        let _ = write!(path, "H{}", number(WIDTH - RIGHT));
    }
    let name_at = number(last.unwrap_or(HEIGHT - BOTTOM));
    Drawn { name: line.name, stroke: line.stroke, path, marks, name_at }
}

/// Moves the names of lines apart that would be written over one another: down from the highest, and back up from the end.
fn apart(lines: &mut [Drawn]) {
    let place = |line: &Drawn| line.name_at.parse::<f64>().unwrap_or(0.0);
    let mut order: Vec<usize> = (0..lines.len()).collect();
    order.sort_by(|a, b| place(&lines[*a]).total_cmp(&place(&lines[*b])));
    let mut above = f64::NEG_INFINITY;
    for index in &order {
        above = place(&lines[*index]).max(above + LINE_HEIGHT);
        lines[*index].name_at = number(above);
    }
    let mut below = HEIGHT - BOTTOM + LINE_HEIGHT;
    for index in order.iter().rev() {
        below = place(&lines[*index]).min(below - LINE_HEIGHT);
        lines[*index].name_at = number(below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).unwrap() + TimeDelta::hours(hours)
    }

    fn words(title: &str) -> Words {
        let text = || title.to_string();
        Words { id: "c-1".into(), title: text(), description: text(), unit: text(), time: text() }
    }

    fn line(name: &str, stroke: Stroke, points: &[(i64, u64)]) -> Steps {
        Steps { name: name.into(), stroke, points: points.iter().map(|(hour, value)| (at(*hour), *value)).collect() }
    }

    #[test]
    fn axes_have_three_to_six_round_marks() {
        for (most, expect) in [(0, 1), (1, 1), (5, 1), (6, 2), (10, 2), (11, 5), (1000, 200), (26_000, 10_000)] {
            assert_eq!(nice_step(most), expect, "{most}");
        }
        assert!(u64::MAX.div_ceil(nice_step(u64::MAX)) <= 5);
    }

    #[test]
    fn a_line_goes_from_step_to_step_and_on_to_the_end() {
        let spent = line("spent", Stroke::Solid, &[(0, 0), (10, 100), (20, 200)]);
        let chart = Chart::new(words("t"), vec![spent], at(40));
        assert_eq!(chart.lines[0].path, "M92.0 254.0H206.5V147.0H321.0V40.0H550.0");
        assert_eq!(chart.lines[0].marks.len(), 3);
        let labels: Vec<_> = chart.values.iter().map(|tick| tick.label.as_str()).collect();
        assert_eq!(labels, ["0", "50", "100", "150", "200"]);
    }

    #[test]
    fn names_of_lines_that_end_together_are_apart() {
        let lines = ["a", "b", "c"].map(|name| line(name, Stroke::Dashed, &[(0, 7)]));
        let chart = Chart::new(words("t"), lines.into(), at(1));
        let mut places: Vec<f64> = chart.lines.iter().map(|line| line.name_at.parse().unwrap()).collect();
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= LINE_HEIGHT - 0.1), "{places:?}");
        assert!(places[0] >= TOP - 0.1 && places[2] <= HEIGHT - BOTTOM + 0.1, "{places:?}");
    }

    #[test]
    fn hostile_texts_stay_texts_and_nothing_is_styled_or_scripted() {
        let hostile = "</title><script>alert(1)</script>\"'&\u{202e}";
        let chart = Chart::new(words(hostile), vec![line(hostile, Stroke::Solid, &[(0, 1)])], at(1));
        let svg = chart.render().unwrap();
        assert!(!svg.contains("<script") && !svg.contains("style=") && !svg.contains(" on"), "{svg}");
        assert!(svg.contains("&lt;script&gt;") || svg.contains("&#60;script&#62;"), "{svg}");
        let empty = Chart::new(words("t"), Vec::new(), at(0)).render().unwrap();
        assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
    }
}
