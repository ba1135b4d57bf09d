//! `sekisho budget`: what a study has left at each hospital, from the hospitals' signed acceptances and receipts.

use clap::Args;

use super::{
    Context,
    failure::{Exit, Failure},
    print::{self, Output},
};
use crate::report::{BudgetReport, HolderBudget};

/// Whose budget.
#[derive(Debug, Args)]
pub struct Command {
    /// A study's id, or the id or digest of one of its permits.
    #[arg(value_name = "STUDY|PERMIT")]
    name: String,
    /// For people or for programs.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// Prints the budget.
///
/// # Errors
/// When no such study is known, or the coordinator cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    let report = context.door().await?.budget(&command.name).await?;
    match command.output {
        Output::Json => print::out(&print::json(&report)?)?,
        Output::Table => {
            print::out(&table(&report))?;
            for (name, day) in report.holders.iter().filter_map(|h| Some((&h.name, h.exact_since?))) {
                print::note(&format!("warning: {name}: {}", print::no_guarantee(day)));
            }
            print::note(
                "from acceptances and receipts; runs without an answer are not in it: `sekisho query --dry-run` has it exactly",
            );
        }
    }
    Ok(Exit::Done)
}

fn table(report: &BudgetReport) -> String {
    let facts = [("study", report.study_id.clone()), ("permits", report.permits.join(", "))];
    let row = |h: &HolderBudget| {
        let since = h.exact_since.map(|day| day.to_string()).unwrap_or_default();
        [h.name.clone(), h.answer.clone(), h.earmark.to_string(), h.spent.to_string(), h.left.to_string(), since]
    };
    let header = ["hospital", "answer", "set aside", "spent", "left at most", "no guarantee since"];
    let holders = print::table(header, report.holders.iter().map(row));
    format!("{}\n{holders}", print::pairs(&facts))
}
