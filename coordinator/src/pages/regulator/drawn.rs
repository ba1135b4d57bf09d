//! A hospital's budget of a study as a chart, and as the table under it, which has the same numbers.

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    pages::{Language, grouped},
    refusal::Code,
};

use super::{
    spending::{Event, Point, Spending},
    table::{Cell, Table},
};
use crate::pages::chart::{Chart, Steps, Stroke, Words};

/// A hospital's chart with the table of its numbers.
pub struct Drawn {
    /// The hospital.
    pub holder: String,
    /// The chart.
    pub chart: Chart,
    /// The numbers.
    pub table: Table,
}

/// A hospital's budget as a chart, and as the table under it.
pub fn draw(language: Language, number: usize, Spending { holder, points }: Spending, now: DateTime<Utc>) -> Drawn {
    let line = |english: &str, japanese: &str, stroke, of: &dyn Fn(&Point) -> u64| Steps {
        name: language.say(english, japanese).into(),
        stroke,
        points: points.iter().map(|point| (point.at, of(point))).collect(),
    };
    let last = points.last();
    let of = |of: &dyn Fn(&Point) -> u64| grouped(last.map(of).unwrap_or(0));
    let (granted, set_aside, spent, left) =
        (of(&|p| p.granted), of(&|p| p.set_aside), of(&|p| p.spent), of(&|p| p.left()));
    let (title, description) = match language {
        Language::En => (
            format!("Privacy budget of the study at {holder}"),
            format!(
                "Step chart over time. Now the permit allows {granted} micro-rho, {holder} set aside {set_aside}, \
                 {spent} are spent and {left} are left."
            ),
        ),
        Language::Ja => (
            format!("{holder} における研究のプライバシー予算"),
            format!(
                "時間の経過に伴う階段状の図。現在、許可の上限は {granted} micro-rho、{holder} が確保した予算は {set_aside}、\
                 消費は {spent}、残りは {left} です。"
            ),
        ),
    };
    let words = Words {
        id: format!("budget-{number}"),
        title: title.clone(),
        description,
        unit: "micro-rho".into(),
        time: language.say("time (UTC)", "日時（UTC）").into(),
    };
    let lines = vec![
        line("Granted", "許可の上限", Stroke::Dotted, &|p| p.granted),
        line("Set aside", "確保した予算", Stroke::Dashed, &|p| p.set_aside),
        line("Spent", "消費", Stroke::Solid, &|p| p.spent),
    ];
    let columns = [
        ("At", "日時"),
        ("What happened", "事象"),
        ("Granted by the permit", "許可の上限"),
        ("Set aside by the hospital", "確保した予算"),
        ("Spent", "消費"),
        ("Left", "残り"),
    ];
    let row = |point: &Point| {
        [
            Cell::time(point.at),
            Cell::words(event(language, point.event)),
            Cell::number(point.granted),
            Cell::number(point.set_aside),
            Cell::number(point.spent),
            Cell::number(point.left()),
        ]
    };
    let caption =
        format!("{title} ({})", language.say("the numbers of the chart, in micro-rho", "図の数値、単位 micro-rho"));
    let table = Table::new(language, &caption, columns).with(points.iter().map(row));
    // A little beyond the last event, so that what happened in a short time long ago is more than one stroke.
    let (first, last) = (points.first().map_or(now, |point| point.at), last.map_or(now, |point| point.at));
    Drawn { chart: Chart::new(words, lines, now.min(last + (last - first) / 4)), table, holder }
}

fn event(language: Language, event: Event) -> String {
    match event {
        Event::Permit(version) => format!("{} {version}", language.say("Permit, version", "許可、版")),
        Event::Accepted => language.say("The hospital accepted", "医療機関が承諾").into(),
        Event::NotAccepted(Code::PermitWaiting) => language.say("The hospital is deciding", "医療機関が検討中").into(),
        Event::NotAccepted(code) => format!("{} ({code})", language.say("The hospital refused", "医療機関が拒否")),
        Event::Charged(micro_rho) => format!("{} {}", language.say("Charged", "消費"), grouped(micro_rho)),
        Event::Exact => {
            language.say("Exact numbers released, without rho", "正確な集計を提供（rho の消費なし）").into()
        }
        Event::Several(number) => format!("{number} {}", language.say("events in one row", "件をまとめて表示")),
    }
}
