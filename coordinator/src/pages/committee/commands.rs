//! What a member does on their own machine with an application, as command lines.
//!
//! Promises: each line is one that `sekisho` takes; what the member has to fill in is in capital letters. Deliberately
//! absent: the member's key, of which only the file's name is a placeholder.

use super::{super::command_line::line, application::Shown};
use crate::report::ApplicationState;

/// The file of the member's key, of which we know nothing.
pub const KEY: &str = "YOUR-KEY.pem";

/// Something to do.
#[derive(Debug)]
pub struct Step {
    /// What, in English.
    pub en: &'static str,
    /// What, in Japanese.
    pub ja: &'static str,
    /// The lines, to be run one after the other.
    pub lines: Vec<String>,
    /// What a file must hold before, with its name.
    pub file: Option<(&'static str, &'static str)>,
}

/// What the committee writes of a permit that an application asks for.
const PERMIT: &str = "issuer = \"THE COMMITTEE'S NAME\"\n\n[decision]\nreasons = \"WHY THE USE IS LAWFUL\"\n";

/// What can be done with an application in its state.
pub fn steps(shown: &Shown) -> Vec<Step> {
    let id = shown.application.id.as_str();
    let review = |verb: &str, more: &[&str]| {
        line(["sekisho", "review", verb, id].into_iter().chain(more.iter().copied()).chain(["--key", KEY]))
    };
    let step = |en, ja, lines| Step { en, ja, lines, file: None };
    let look = step(
        "Look at it on your own machine, with dry runs made there",
        "手元の端末で申請を確かめ、試算をやり直す",
        vec![review("show", &["--recompute"])],
    );
    let ask = step(
        "Ask for a new version",
        "修正を依頼する",
        vec![review("request-changes", &["--reasons", "WHAT IS TO BE CHANGED"])],
    );
    let remark = step("Remark on it", "意見を述べる", vec![review("comment", &["--reasons", "YOUR REMARK"])]);
    let recuse = step(
        "Declare a conflict of interest, and take no part from here on",
        "利益相反を申告し、以後の審査から外れる",
        vec![review("conflict", &["--reasons", "YOUR REASON"])],
    );
    let complete = step(
        "Find it complete: nothing is missing that the law asks for",
        "形式が整っていると認める（法令が求める項目に欠けがない）",
        vec![review("complete", &[])],
    );
    let sign = review("approve", &["--permit", "permit.dsse.json", "--reasons", "WHY THE USE IS LAWFUL"]);
    let draft = Step {
        en: "Approve, as the first member: draft the permit, compare it with the application, sign it, and pass the file on",
        ja: "許可に賛成する（最初の委員）：許可証の案を作り、申請と照合して署名し、ファイルを次の委員に渡す",
        lines: vec![
            line([
                "sekisho",
                "permit",
                "new",
                "--from",
                "permit.toml",
                "--application",
                id,
                "--key",
                KEY,
                "--out",
                "permit.dsse.json",
            ]),
            sign.clone(),
        ],
        file: Some(("permit.toml", PERMIT)),
    };
    let join = step(
        "Approve, as the next member: compare the same file with the application and sign it",
        "許可に賛成する（次の委員）：同じファイルを申請と照合して署名する",
        vec![sign],
    );
    let submit = step(
        "With a quorum of signatures: hand the permit in, here below or by",
        "定足数の署名がそろったら：許可証を提出する（下の欄、または次のコマンド）",
        vec![line(["sekisho", "permit", "submit", "permit.dsse.json"])],
    );
    let refuse = step(
        "Refuse: sign the committee's refusal with its reasons, which are published; then pass the file on or, with a quorum, hand it in",
        "不許可とする：理由（公表されます）を付けた不許可決定に署名し、次の委員に渡す。定足数がそろったら提出する",
        vec![
            review("refuse", &["--decision", "refusal.dsse.json", "--reasons", "WHY THE USE IS UNLAWFUL"]),
            line(["sekisho", "review", "submit", "refusal.dsse.json"]),
        ],
    );
    match shown.report.state {
        ApplicationState::Submitted | ApplicationState::ChangesRequested => vec![look, complete, ask, remark, recuse],
        ApplicationState::Complete => vec![look, draft, join, submit, refuse, ask, remark, recuse],
        ApplicationState::Permitted | ApplicationState::Refused => vec![look, remark, recuse],
    }
}
