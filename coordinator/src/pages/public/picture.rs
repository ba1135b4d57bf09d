//! The lineage of a result as a picture: boxes from left to right, hospitals below one another between question and release.
//!
//! The server makes it, as SVG without style or script. Whatever others wrote is shortened to its box and cleared of characters
//! that change the direction of text; the page beside it has everything in full, as a list.

use askama::Template;
use sekisho_protocol::{pages::Page, permit::ReleaseKind};

use super::{lineage::Lineage, rho};

const WIDTH: u32 = 192;
const HEIGHT: u32 = 98;
/// Between columns, between the documents of the first column, and between hospitals.
const GAP: u32 = 46;
const BELOW: u32 = 36;
const BETWEEN: u32 = 16;
const MARGIN: u32 = 4;
/// The corner of a line that turns.
const TURN: u32 = 10;

/// How a box looks.
struct Tone {
    fill: &'static str,
    stroke: &'static str,
    ink: &'static str,
    faint: &'static str,
    dashes: &'static str,
}

const PERMISSION: Tone = Tone { fill: "#e8f1fe", stroke: "#0017c1", ink: "#1a1a1a", faint: "#4d4d4d", dashes: "none" };
const QUESTION: Tone = Tone { fill: "#ffffff", stroke: "#1a1a1a", ink: "#1a1a1a", faint: "#4d4d4d", dashes: "none" };
const HOSPITAL: Tone = Tone { fill: "#e6f5ec", stroke: "#197a4b", ink: "#1a1a1a", faint: "#4d4d4d", dashes: "none" };
const SILENT: Tone = Tone { fill: "#ffffff", stroke: "#767676", ink: "#4d4d4d", faint: "#4d4d4d", dashes: "6 4" };
const RELEASE: Tone = Tone { fill: "#0017c1", stroke: "#0017c1", ink: "#ffffff", faint: "#e8f1fe", dashes: "none" };
const LOG: Tone = Tone { fill: "#f2f2f2", stroke: "#4d4d4d", ink: "#1a1a1a", faint: "#4d4d4d", dashes: "none" };

struct Box {
    x: u32,
    y: u32,
    tone: Tone,
    kind: String,
    name: String,
    fact: String,
    digits: String,
    whole: String,
}

struct Line {
    path: String,
    head: String,
    dashes: &'static str,
}

#[derive(Template)]
#[template(path = "public/lineage.svg")]
struct Picture<'a> {
    language: &'static str,
    title: String,
    description: &'a str,
    width: u32,
    height: u32,
    boxes: Vec<Box>,
    lines: Vec<Line>,
}

/// The picture of `lineage` in the language of `page`, with what it says in words.
pub(super) fn svg(lineage: &Lineage, page: &Page, description: &str) -> Result<String, askama::Error> {
    let Drawn { boxes, lines, height } = draw(lineage, page);
    let title = format!("{} {}", page.say("Lineage of release", "集計結果の来歴"), lineage.result.short());
    let width = 5 * WIDTH + 4 * GAP + 2 * MARGIN;
    Picture { language: page.language.code(), title, description, width, height, boxes, lines }.render()
}

struct Drawn {
    boxes: Vec<Box>,
    lines: Vec<Line>,
    height: u32,
}

/// What a box says: its kind, its name, a fact, the first digits of a digest.
type Words = (String, String, String, String);

fn draw(lineage: &Lineage, page: &Page) -> Drawn {
    let permission = permission(lineage, page);
    let hospitals = hospitals(lineage, page);
    let tall = |count: usize, gap: u32| {
        let count = u32::try_from(count).unwrap_or(1).max(1);
        count * HEIGHT + (count - 1) * gap
    };
    let (first, third) = (tall(permission.len(), BELOW), tall(hospitals.len(), BETWEEN));
    let height = first.max(third) + 2 * MARGIN;
    let (middle, column) = (height / 2, |number: u32| MARGIN + number * (WIDTH + GAP));
    let mut drawn = Drawn { boxes: Vec::new(), lines: Vec::new(), height };
    let centred = middle - HEIGHT / 2;

    let mut y = middle - first / 2;
    let last = permission.len() - 1;
    for (place, words) in permission.into_iter().enumerate() {
        drawn.boxes.push(boxed(column(0), y, PERMISSION, words));
        if place < last {
            drawn.lines.push(down(column(0) + WIDTH / 2, y + HEIGHT, y + HEIGHT + BELOW));
            y += HEIGHT + BELOW;
        }
    }
    drawn.lines.push(across((column(0) + WIDTH, y + HEIGHT / 2), (column(1), middle), "none"));
    drawn.boxes.push(boxed(column(1), centred, QUESTION, question(lineage, page)));

    let mut y = middle - third / 2;
    for (answered, words) in hospitals {
        let (tone, dashes) = if answered { (HOSPITAL, "none") } else { (SILENT, "6 4") };
        drawn.lines.push(across((column(1) + WIDTH, middle), (column(2), y + HEIGHT / 2), dashes));
        if answered {
            drawn.lines.push(across((column(2) + WIDTH, y + HEIGHT / 2), (column(3), middle), dashes));
        }
        drawn.boxes.push(boxed(column(2), y, tone, words));
        y += HEIGHT + BETWEEN;
    }
    drawn.boxes.push(boxed(column(3), centred, RELEASE, release(lineage, page)));
    drawn.lines.push(across((column(3) + WIDTH, middle), (column(4), middle), "none"));
    drawn.boxes.push(boxed(column(4), centred, LOG, log(lineage, page)));
    drawn
}

fn permission(lineage: &Lineage, page: &Page) -> Vec<Words> {
    let mut all = Vec::new();
    if let Some(application) = &lineage.application {
        all.push((
            page.say("APPLICATION", "申請").into(),
            application.name.clone(),
            page.day(application.at.date_naive()),
            application.digest.short(),
        ));
    }
    let signers = lineage.decided_by.len();
    let signed = if page.is_japanese() {
        format!("委員 {signers} 名が署名")
    } else {
        format!("signed by {signers} members")
    };
    all.push((
        page.say("DECISION", "決定").into(),
        page.say("Granted", "許可").into(),
        signed,
        page.day(lineage.decided),
    ));
    let permit = &lineage.permit;
    all.push((
        page.say("PERMIT", "利用許可").into(),
        permit.name.clone(),
        lineage.issuer.clone(),
        permit.digest.short(),
    ));
    all
}

fn question(lineage: &Lineage, page: &Page) -> Words {
    let query = &lineage.query;
    let name = page.say("Signed query", "署名付き照会").to_string();
    (page.say("QUESTION", "照会").into(), name, query.at.format("%Y-%m-%d %H:%M UTC").to_string(), query.digest.short())
}

fn hospitals(lineage: &Lineage, page: &Page) -> Vec<(bool, Words)> {
    let answered = lineage.parts.iter().map(|part| {
        let cost = match part.receipt.release_kind {
            ReleaseKind::Noised => {
                format!("{} {}", page.say("receipt, rho", "受領証、rho"), rho(part.receipt.micro_rho.get()))
            }
            ReleaseKind::Aggregated => page.say("receipt, exact", "受領証、正確な集計").into(),
        };
        let kind = page.say("HOSPITAL", "医療機関").to_string();
        (true, (kind, part.receipt.node.clone(), cost, part.digest.short()))
    });
    let silent = lineage.missing.iter().map(|missing| {
        let state = page.say(&missing.state.label.en, &missing.state.label.ja).to_string();
        (false, (page.say("HOSPITAL", "医療機関").into(), missing.name.clone(), state, String::new()))
    });
    answered.chain(silent).collect()
}

fn release(lineage: &Lineage, page: &Page) -> Words {
    let count = lineage.parts.len();
    let of =
        if page.is_japanese() { format!("{count} 医療機関の合計") } else { format!("sum of {count} hospitals") };
    (
        page.say("RELEASE", "集計結果").into(),
        page.say("Noised totals", "ノイズ付き集計").into(),
        of,
        lineage.result.short(),
    )
}

fn log(lineage: &Lineage, page: &Page) -> Words {
    let (logged, all) = lineage.logged();
    let of = if page.is_japanese() {
        format!("{all} 件中 {logged} 件を記録")
    } else {
        format!("{logged} of {all} statements")
    };
    let name = page.say("Transparency log", "透明性ログ").to_string();
    (page.say("LOG", "ログ").into(), name, of, page.say("witnessed by hospitals", "医療機関が連署").into())
}

fn boxed(x: u32, y: u32, tone: Tone, (kind, name, fact, digits): Words) -> Box {
    let whole = clean(&format!("{kind}: {name}. {fact}. {digits}"));
    Box {
        x,
        y,
        tone,
        kind: fit(&kind, 14.0),
        name: fit(&name, 11.0),
        fact: fit(&fact, 13.5),
        digits: fit(&digits, 13.5),
        whole,
    }
}

/// Text without what controls a terminal or turns the direction of what follows.
fn clean(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !c.is_control() && !turns(*c)).collect()
}

/// Text that is at most so many ideographs wide, which are about twice as wide as letters.
fn fit(text: &str, most: f32) -> String {
    let mut wide = 0.0;
    let mut kept = String::new();
    for c in clean(text).chars() {
        wide += if c.is_ascii() { 0.58 } else { 1.0 };
        if wide > most {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

fn down(x: u32, from: u32, to: u32) -> Line {
    let head = format!("M{} {}L{x} {}L{} {}", x - 5, to - 9, to - 1, x + 5, to - 9);
    Line { path: format!("M{x} {from}V{}", to - 2), head, dashes: "none" }
}

/// A line from the right side of one box to the left side of another, that turns half-way.
fn across((x, y): (u32, u32), (to_x, to_y): (u32, u32), dashes: &'static str) -> Line {
    let half = u32::midpoint(x, to_x);
    let turn = TURN.min(y.abs_diff(to_y) / 2);
    let path = if y == to_y {
        format!("M{x} {y}H{}", to_x - 2)
    } else {
        let (leave, arrive) = if to_y > y { (y + turn, to_y - turn) } else { (y - turn, to_y + turn) };
        format!(
            "M{x} {y}H{}Q{half} {y} {half} {leave}V{arrive}Q{half} {to_y} {} {to_y}H{}",
            half - turn,
            half + turn,
            to_x - 2
        )
    };
    let tip = format!("M{} {}L{} {to_y}L{} {}", to_x - 9, to_y - 5, to_x - 1, to_x - 9, to_y + 5);
    Line { path, head: tip, dashes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_in_its_box_and_keeps_its_direction() {
        for (text, most, expect) in [
            ("tokyo", 11.0, "tokyo"),
            ("a\u{202e}b\u{2066}c\nd", 11.0, "abcd"),
            ("東京大学医学部附属病院の研究", 11.0, "東京大学医学部附属病院…"),
            ("an-unusually-long-name-of-a-hospital", 11.0, "an-unusually-long-…"),
        ] {
            assert_eq!(fit(text, most), expect, "{text}");
        }
    }

    #[test]
    fn a_line_turns_half_way_and_ends_at_the_box() {
        assert_eq!(across((0, 10), (40, 10), "none").path, "M0 10H38");
        assert_eq!(across((0, 10), (40, 50), "none").path, "M0 10H10Q20 10 20 20V40Q20 50 30 50H38");
        assert_eq!(across((0, 50), (40, 10), "none").path, "M0 50H10Q20 50 20 40V20Q20 10 30 10H38");
    }
}
