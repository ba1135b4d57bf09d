//! What a question would cost, how large its noise would be, and who would admit it: the answer to `--dry-run`.

use super::waiting;
use crate::{
    person::{
        failure::{Exit, Failure},
        format::{Format, Target},
        number::{relative, significant},
        print,
    },
    report::{DryRunReport, HolderReport, HolderState, NoiseReport},
};

/// The sizes of cells for which a dry run says how large the noise is.
pub(crate) const CELL_SIZES: [u32; 3] = [100, 1000, 10_000];

/// Prints a dry run, and says how it ended.
///
/// # Errors
/// When it cannot be written.
pub(super) fn dry_run(report: &DryRunReport, target: &Target) -> Result<Exit, Failure> {
    let text = if target.format == Format::Json { print::json(report)? } else { price(report) };
    target.text(&text)?;
    let refused = |h: &&HolderReport| h.state == HolderState::Refused && !h.waits();
    report.holders.iter().filter(refused).for_each(print::refusal);
    waiting(&report.holders);
    let any = |state| report.holders.iter().any(|h| h.state == state);
    Ok(if report.holders.iter().any(|h| refused(&h)) {
        Exit::Refused
    } else if any(HolderState::Offline) || any(HolderState::NoAnswer) {
        Exit::Incomplete
    } else {
        Exit::Done
    })
}

/// What a question would cost, how large its noise would be, and what each hospital says.
fn price(report: &DryRunReport) -> String {
    let mut facts = vec![("cells", report.cells.to_string())];
    facts.extend(print::cost(&report.privacy));
    let exact = report.privacy.protection.rules().is_some();
    let row = |h: &HolderReport| {
        let admissible = if h.state == HolderState::Answered { "yes" } else { print::did(h) };
        let stored = match h.stored {
            Some(true) => "stored: free",
            Some(false) if exact => "new: a person there decides",
            Some(false) => "new: charged",
            None => "",
        };
        let left = h.study_left.map(|left| left.get().to_string()).unwrap_or_default();
        let code = h.code.map(|c| c.to_string()).unwrap_or_default();
        [h.name.clone(), admissible.into(), stored.into(), left, code, h.detail.clone().unwrap_or_default()]
    };
    let header = ["hospital", "admissible", "run", "study has left (micro-rho)", "code", "detail"];
    let holders = print::table(header, report.holders.iter().map(row));
    let noise = (!exact).then(|| noise(&report.privacy.noise));
    [Some(print::pairs(&facts)), noise, Some(holders)].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// The noise of each measure in a hospital's cell, and relative to cells of some sizes.
fn noise(reports: &[NoiseReport]) -> String {
    let row = |noise: &NoiseReport| {
        let [small, middle, large] = CELL_SIZES.map(|size| relative(noise.standard_deviation, noise.counts, size));
        [noise.measure.clone(), significant(noise.standard_deviation), small, middle, large]
    };
    let [small, middle, large] = CELL_SIZES.map(|size| format!("in {size} rows"));
    print::table(
        ["noise per cell and hospital", "standard deviation", &small, &middle, &large],
        reports.iter().map(row),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_how_large_the_noise_is() {
        let report: DryRunReport = serde_json::from_value(serde_json::json!({
            "cells": 4,
            "privacy": {"micro_rho": 10, "delta": "1e-6", "epsilon": 0.1, "sites_per_patient": 1,
                "epsilon_all_sites": 0.1, "noise": [
                    {"measure": "rows", "standard_deviation": 9.25, "counts": true},
                    {"measure": "sum", "standard_deviation": 350.0}]},
            "holders": [{"name": "tokyo", "state": "answered", "stored": false, "study_left": 500}],
        }))
        .unwrap();
        let text = price(&report);
        let line = |start: &str| {
            let found = text.lines().find(|line| line.trim_start().starts_with(start));
            found.unwrap_or_else(|| panic!("{start}: {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            line("noise per"),
            "noise per cell and hospital standard deviation in 100 rows in 1000 rows in 10000 rows"
        );
        assert_eq!(line("rows"), "rows 9.250 9.250 % 0.9250 % 0.09250 %");
        assert_eq!(line("sum"), "sum 350.0 3.500 a row 0.3500 a row 0.03500 a row");
        assert_eq!(line("tokyo"), "tokyo yes new: charged 500");
        assert_eq!(line("cells"), "cells 4");
    }
}
