//! An explanation for people.

use sekisho_protocol::units::AttoDelta;

use super::engine::{Explanation, KeyExplanation, MeasureExplanation, PartExplanation, Step};
use crate::{
    person::{
        number::significant,
        print::{self, plain},
    },
    report::PrivacyReport,
};

/// What was understood: cost and protection, the admitted tree, and each aggregate with its keys and measures. `facts` come
/// first.
pub fn explanation(mut facts: Vec<(&'static str, String)>, privacy: &PrivacyReport, of: &Explanation) -> String {
    let exact = privacy.protection.rules().is_some();
    if !exact {
        facts.push(("mechanism", of.mechanism.clone()));
    }
    facts.extend(print::cost(privacy));
    if exact {
        let once = "once for each dated cut of the data, when a person at the hospital agrees; then no guarantee of \
                    differential privacy holds there any more, for any study";
        facts.push(("answered", once.into()));
    }
    if let Ok(delta) = AttoDelta::try_from(of.atto_delta)
        && !delta.is_zero()
    {
        facts.push(("delta", format!("{:e} more, on group keys that are not public", delta.as_delta())));
    }
    let indented = |step: &Step| [format!("{}{}", "  ".repeat(step.depth), step.operator), step.facts.clone()];
    let steps = print::table(["understood", "what is known"], of.steps.iter().map(indented));
    let several = of.parts.len() > 1;
    let parts = of.parts.iter().enumerate().map(|(place, part)| {
        let title = if several { format!("Aggregate {} of {}", place + 1, of.parts.len()) } else { "Aggregate".into() };
        self::part(&title, part, exact)
    });
    [print::pairs(&facts), steps].into_iter().chain(parts).collect::<Vec<_>>().join("\n\n")
}

fn part(title: &str, part: &PartExplanation, exact: bool) -> String {
    let PartExplanation { keys, cells, sets, rows_per_patient, groups_per_patient, measures, outputs } = part;
    let (rows, groups) = (count(*rows_per_patient, "row"), count(*groups_per_patient, "group"));
    let bounds = if exact {
        "every row of a patient counts in full".into()
    } else {
        format!("a patient counts in full with {rows} and in {groups}")
    };
    let mut lines = vec![format!("{title}: {cells} cells; {bounds}")];
    if sets.len() > 1 {
        let set = |set: &Vec<String>| format!("({})", set.join(", "));
        lines.push(format!("grouping sets: {}", plain(&sets.iter().map(set).collect::<Vec<_>>().join(", "))));
    }
    lines.push(format!("made of them: {}", plain(&outputs.join(", "))));
    if !keys.is_empty() {
        let header = ["key", "type", "cells", "values"];
        lines.push(print::table(header, keys.iter().map(key)));
    }
    if exact {
        let header = ["measure", "kind", "numbers", "clamped to"];
        lines.push(print::table(header, measures.iter().map(measure).map(|[a, b, c, d, ..]| [a, b, c, d])));
    } else {
        let header = ["measure", "kind", "numbers", "clamped to", "sensitivity", "micro-rho", "standard deviation"];
        lines.push(print::table(header, measures.iter().map(measure)));
    }
    lines.join("\n")
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn key(key: &KeyExplanation) -> [String; 4] {
    let KeyExplanation { name, kind, cells, private } = key;
    let values = if *private { "private: shown above a noised threshold" } else { "public" };
    [name.clone(), kind.clone(), cells.to_string(), values.into()]
}

fn measure(measure: &MeasureExplanation) -> [String; 7] {
    let MeasureExplanation { name, kind, numbers, norm, sensitivity, micro_rho, standard_deviation, range } = measure;
    let range = range.map(|(low, high)| format!("{low} to {high}")).unwrap_or_default();
    let sensitivity = format!("{norm} {}", significant(*sensitivity));
    let (rho, noise) = (micro_rho.to_string(), significant(*standard_deviation));
    [name.clone(), kind.clone(), numbers.to_string(), range, sensitivity, rho, noise]
}
