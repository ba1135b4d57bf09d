//! What an operator sees of the budget: the caps, what is set aside, what was spent.

use std::path::Path;

use chrono::NaiveDate;
use comfy_table::{Table, presets::UTF8_BORDERS_ONLY};
use miette::{IntoDiagnostic, Result};
use sekisho_protocol::clock::Clock;
use serde_json::json;

use super::{Output, opened};
use crate::ledger::{Budget, Ledger, WindowBudget};

/// Prints the budget of the node that is configured at `path`.
pub(super) async fn budget(path: &Path, output: Output, clock: &impl Clock) -> Result<()> {
    let (config, ledger, _) = opened(path).await?;
    let budget = ledger.budget().await.into_diagnostic()?;
    let window = ledger.window(clock.now()).await.into_diagnostic()?;
    match output {
        Output::Json => println!("{}", json(&config.name, &budget, window, &ledger).await?),
        Output::Table => {
            println!("{}", text(&budget, window));
            println!("{}", guarantee(ledger.exact_since().await.into_diagnostic()?));
        }
    }
    Ok(())
}

async fn json(node: &str, budget: &Budget, window: Option<WindowBudget>, ledger: &Ledger) -> Result<serde_json::Value> {
    let studies = budget.studies.iter().map(|s| {
        json!({
            "study_id": s.study_id, "earmark_micro_rho": s.earmark, "spent_micro_rho": s.spent,
            "spent_atto_delta": s.spent_delta, "suspended": s.suspended,
        })
    });
    let window = window.map(|w| {
        json!({
            "days": w.window.days, "cap_micro_rho": w.window.micro_rho, "spent_micro_rho": w.spent,
            "left_micro_rho": w.left(),
        })
    });
    Ok(json!({
        "node": node, "cap_micro_rho": budget.cap, "earmarked_micro_rho": budget.earmarked,
        "spent_micro_rho": budget.spent, "cap_atto_delta": budget.cap_delta, "spent_atto_delta": budget.spent_delta,
        "window": window, "exact_since": ledger.exact_since().await.into_diagnostic()?,
        "log_entries": ledger.log().len().await.into_diagnostic()?,
        "studies": studies.collect::<Vec<_>>(),
    }))
}

fn text(budget: &Budget, window: Option<WindowBudget>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["study", "earmarked", "spent", "left", "delta spent", "rests"]);
    for s in &budget.studies {
        let left = s.earmark.saturating_sub(s.spent);
        let rests = if s.suspended { "yes" } else { "" };
        let amounts = [s.earmark.to_string(), s.spent.to_string(), left.to_string(), s.spent_delta.to_string()];
        table.add_row([s.study_id.clone()].into_iter().chain(amounts).chain([rests.into()]));
    }
    let lifetime = format!("lifetime cap {}, set aside {}, spent {}", budget.cap, budget.earmarked, budget.spent);
    let window = window.map_or("no window: budget.window_days is not set".into(), |w| {
        format!("last {} days: cap {}, spent {}, left {}", w.window.days, w.window.micro_rho, w.spent, w.left())
    });
    format!("{table}\n{lifetime}\n{window}\nlifetime cap {}, spent {}", budget.cap_delta, budget.spent_delta)
}

/// Whether the budget's guarantee holds for these patients.
fn guarantee(exact_since: Option<NaiveDate>) -> String {
    match exact_since {
        None => "no exact result was released: the guarantee of differential privacy holds / 差分プライバシーの保証は有効です".into(),
        Some(day) => format!(
            "since {day} no guarantee of differential privacy holds for these patients: exact results were released \
             (`sekisho-node exact history`) / {day} 以降、正確な集計の公開により差分プライバシーの保証はありません"
        ),
    }
}

#[cfg(test)]
mod tests {
    use sekisho_node_config::Window;
    use sekisho_protocol::units::{AttoDelta, MicroRho};

    use super::*;
    use crate::ledger::StudyBudget;

    #[test]
    fn the_table_shows_caps_what_is_spent_and_what_is_left() {
        let rho = |amount| MicroRho::try_from(amount).unwrap();
        let delta = |amount| AttoDelta::try_from(amount).unwrap();
        let study = |study_id: &str, spent, suspended| StudyBudget {
            study_id: study_id.into(),
            earmark: rho(500),
            spent: rho(spent),
            spent_delta: delta(spent / 10),
            suspended,
        };
        let budget = Budget {
            cap: rho(5000),
            spent: rho(150),
            earmarked: rho(1000),
            cap_delta: delta(77),
            spent_delta: delta(15),
            studies: vec![study("alpha", 100, false), study("beta", 50, true)],
        };
        let window = WindowBudget { window: Window { days: 30, micro_rho: rho(200) }, spent: rho(40) };
        let shown = text(&budget, Some(window));
        for (row, said) in [
            ("alpha", "500 micro-rho 100 micro-rho 400 micro-rho 10 atto-delta"),
            ("beta", "500 micro-rho 50 micro-rho 450 micro-rho 5 atto-delta yes"),
            ("last 30 days", "last 30 days: cap 200 micro-rho, spent 40 micro-rho, left 160 micro-rho"),
            ("lifetime cap 5000", "lifetime cap 5000 micro-rho, set aside 1000 micro-rho, spent 150 micro-rho"),
            ("lifetime cap 77", "lifetime cap 77 atto-delta, spent 15 atto-delta"),
        ] {
            let line = shown.lines().find(|line| line.contains(row)).unwrap_or_default();
            let words: Vec<_> = line.split_whitespace().collect();
            assert!(words.join(" ").contains(said), "{row}: {shown}");
        }
        assert!(text(&budget, None).contains("no window"));
    }
}
