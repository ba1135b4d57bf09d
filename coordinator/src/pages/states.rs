//! States as people read them on the pages of the committee and of data users: a word in each language, and a colour
//! that repeats it.

use sekisho_protocol::{
    output_review::{Standing, Verdict as OutputVerdict},
    pages::Language,
    refusal::Code,
    review::{Step, Verdict},
};

use super::{committee::overview::Conflict, user::results::State as RoundState};
use crate::{
    catalogue::fitness::Answer,
    duties::{About, RESULTS_DUE, State as DutyState, Task, VALIDITY, What},
    report::{ApplicationState, HolderReport, HolderState},
};

/// A state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Its class in the style sheet.
    pub class: &'static str,
    /// In English.
    pub en: &'static str,
    /// In Japanese.
    pub ja: &'static str,
}

const fn chip(class: &'static str, en: &'static str, ja: &'static str) -> Chip {
    Chip { class, en, ja }
}

const OK: &str = "chip chip-ok";
const WAIT: &str = "chip chip-wait";
const STOP: &str = "chip chip-stop";
const NEW: &str = "chip chip-new";
const PLAIN: &str = "chip";

/// What is to be said of a row of a result, in the reader's language; words that are not known stay as they are.
pub fn note(note: &str, language: &Language) -> String {
    let one = |part: &str| {
        if *language == Language::En {
            return part.to_string();
        }
        let threshold = part.strip_prefix("below the threshold at ").and_then(|rest| rest.strip_suffix(" hospitals"));
        match part {
            "suppressed" => "秘匿".into(),
            "incomplete" => "一部の医療機関が未回答".into(),
            _ => match (part.strip_suffix(" outside its domain"), part.strip_prefix("all of "), threshold) {
                (Some(key), _, _) => format!("{key}：定義域の外"),
                (None, Some(key), _) => format!("{key}：計"),
                (None, None, Some(of)) => format!("閾値未満の医療機関：{}", of.replace(" of ", " / ")),
                (None, None, None) => part.into(),
            },
        }
    };
    note.split("; ").map(one).collect::<Vec<_>>().join(language.say("; ", "、"))
}

/// The document that something has to be done about.
pub fn about(about: &About, language: &Language) -> String {
    if *language == Language::En {
        return about.to_string();
    }
    let what = match about.what {
        What::Application => "申請",
        What::Refusal => "不許可の決定",
        What::Permit => "許可",
    };
    format!("{what} {} 版 {}", about.id, about.version)
}

/// What asks for a duty; articles of law are as the periods have them.
pub fn article<'a>(article: &'a str, language: &Language) -> &'a str {
    match (article, language) {
        (VALIDITY, Language::Ja) => "許可の有効期間",
        (RESULTS_DUE, Language::Ja) => "許可が定める公表期限",
        (other, _) => other,
    }
}

/// How far an application is.
pub const fn application(state: &ApplicationState) -> Chip {
    match state {
        ApplicationState::Submitted => chip(NEW, "submitted", "提出済み"),
        ApplicationState::ChangesRequested => chip(WAIT, "changes requested", "修正依頼中"),
        ApplicationState::Complete => chip(WAIT, "complete, to be decided", "形式審査済み・決定待ち"),
        ApplicationState::Permitted => chip(OK, "permitted", "許可"),
        ApplicationState::Refused => chip(STOP, "refused", "不許可"),
    }
}

/// Why a member takes no part.
pub const fn conflict(conflict: &Conflict) -> Chip {
    match conflict {
        Conflict::Declared => chip(STOP, "conflict of interest declared", "利益相反（申告済み）"),
        Conflict::Applies => chip(STOP, "conflict of interest: named in the application", "利益相反（申請の関係者）"),
    }
}

/// What a member said of an application.
pub const fn verdict(verdict: &Verdict) -> Chip {
    match verdict {
        Verdict::Comment => chip(PLAIN, "comment", "意見"),
        Verdict::ChangesRequested => chip(WAIT, "changes requested", "修正依頼"),
        Verdict::Complete => chip(NEW, "complete", "形式は完備"),
        Verdict::Approve => chip(OK, "approve", "賛成"),
        Verdict::Refuse => chip(STOP, "refuse", "反対"),
        Verdict::Conflict => chip(STOP, "conflict of interest", "利益相反"),
    }
}

/// Which question it was about.
pub const fn step(step: &Step) -> Chip {
    match step {
        Step::Completeness => chip(PLAIN, "completeness", "形式審査"),
        Step::Lawfulness => chip(PLAIN, "lawfulness", "実質審査"),
    }
}

/// What a reviewer said of a result.
pub const fn output_verdict(verdict: &OutputVerdict) -> Chip {
    match verdict {
        OutputVerdict::Release => chip(OK, "release", "公開可"),
        OutputVerdict::Refuse => chip(STOP, "refuse", "公開不可"),
    }
}

/// Where a result stands.
pub const fn standing(standing: &Standing) -> Chip {
    match standing {
        Standing::Awaiting => chip(WAIT, "waits for reviewers", "審査待ち"),
        Standing::Released => chip(OK, "released", "公開可"),
        Standing::Refused => chip(STOP, "refused", "公開不可"),
    }
}

/// What has to be done.
pub const fn task(task: &Task) -> Chip {
    match task {
        Task::Decide => chip(PLAIN, "decide", "決定"),
        Task::PublishDecision => chip(PLAIN, "publish the decision", "決定の公表"),
        Task::EndPermit => chip(PLAIN, "the permit ends", "許可の終了"),
        Task::PublishResults => chip(PLAIN, "publish results", "結果の公表"),
        Task::KeepLogs => chip(PLAIN, "keep logs until then", "記録の保存期限"),
    }
}

/// How a duty stands.
pub const fn duty(state: &DutyState) -> Chip {
    match state {
        DutyState::Late => chip(STOP, "late", "期限超過"),
        DutyState::Soon => chip(WAIT, "soon", "まもなく"),
        DutyState::Open => chip(PLAIN, "open", "未了"),
        DutyState::Done => chip(OK, "done", "完了"),
    }
}

/// Whether a hospital can answer, by what it declares.
pub const fn answer(answer: &Answer) -> Chip {
    match answer {
        Answer::Yes => chip(OK, "yes", "可"),
        Answer::AfterMapping => chip(WAIT, "after mapping", "項目の対応付け後に可"),
        Answer::No => chip(STOP, "no", "不可"),
    }
}

/// How far a round is.
pub const fn round(state: &RoundState) -> Chip {
    match state {
        RoundState::Running => chip(NEW, "running", "実行中"),
        RoundState::Interrupted => chip(WAIT, "interrupted: ask the same run again", "中断（同じ実行番号で再照会）"),
        RoundState::Waiting => chip(WAIT, "people at hospitals look at it", "医療機関の担当者が確認中"),
        RoundState::Nothing => chip(STOP, "no hospital answered", "回答なし"),
        RoundState::Complete => chip(OK, "complete", "完了"),
        RoundState::Incomplete => chip(WAIT, "incomplete", "一部未回答"),
        RoundState::Awaiting => chip(WAIT, "waits for reviewers", "審査待ち"),
        RoundState::Refused => chip(STOP, "refused by a reviewer", "公開不可"),
        RoundState::TakenBack => chip(STOP, "the permit does not hold any more", "許可が無効"),
        RoundState::Lost => chip(STOP, "cannot be read", "読み取れません"),
    }
}

/// What a hospital did.
pub const fn holder(state: &HolderState) -> Chip {
    match state {
        HolderState::Answered => chip(OK, "answered", "回答"),
        HolderState::Refused => chip(STOP, "refused", "拒否"),
        HolderState::NoAnswer => chip(STOP, "no answer", "回答なし"),
        HolderState::Offline => chip(WAIT, "offline", "接続なし"),
    }
}

/// What a hospital did in a round: one where a person looks at an exact result has not refused.
pub fn did(report: &HolderReport) -> Chip {
    if report.waits() {
        chip(WAIT, "waits for a person there", "担当者の確認待ち")
    } else {
        holder(&report.state)
    }
}

/// Whether something can be asked under a permit, and why not.
pub const fn permit(void: &Option<Code>) -> Chip {
    match void {
        None => chip(OK, "valid", "有効"),
        Some(Code::PermitNotYetValid) => chip(NEW, "not valid yet", "開始前"),
        Some(Code::PermitExpired) => chip(PLAIN, "expired", "期間終了"),
        Some(Code::PermitSuperseded) => chip(PLAIN, "a newer version is in force", "新しい版あり"),
        Some(Code::PermitRevoked) => chip(STOP, "revoked", "取消し"),
        Some(Code::Suspended) => chip(STOP, "suspended", "停止中"),
        Some(_) => chip(STOP, "cannot be used now", "現在利用不可"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_rows_are_said_in_both_languages() {
        for (of, en, ja) in [
            ("", "", ""),
            ("suppressed; 病棟 outside its domain", "suppressed; 病棟 outside its domain", "秘匿、病棟：定義域の外"),
            ("incomplete; all of sex", "incomplete; all of sex", "一部の医療機関が未回答、sex：計"),
            (
                "below the threshold at 2 of 3 hospitals",
                "below the threshold at 2 of 3 hospitals",
                "閾値未満の医療機関：2 / 3",
            ),
            ("something new", "something new", "something new"),
        ] {
            assert_eq!((note(of, &Language::En).as_str(), note(of, &Language::Ja).as_str()), (en, ja));
        }
    }
}
