//! The use register's words in Japanese and English: labels of its fields, and names of its codes.

use std::collections::BTreeMap;

use sekisho_protocol::{
    digest::Digest,
    output_review::{Standing, Verdict},
    permit::{Basis, Purpose, ReleaseKind},
};
use serde::{Deserialize, Serialize};

use crate::report::{HolderReport, HolderState};

/// The same in both languages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Japanese.
    pub ja: String,
    /// English.
    pub en: String,
}

/// A stable code with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coded {
    /// For programs.
    pub code: String,
    /// For people.
    pub label: Text,
}

pub(crate) fn text(ja: &str, en: &str) -> Text {
    Text { ja: ja.into(), en: en.into() }
}

pub(crate) fn coded(code: &str, ja: &str, en: &str) -> Coded {
    Coded { code: code.into(), label: text(ja, en) }
}

/// The title of the register.
pub(super) fn title() -> Text {
    text("医療データ利用登録簿", "Register of uses of health data")
}

/// The labels of all fields, by name.
pub(super) fn labels() -> BTreeMap<String, Text> {
    [
        ("allowed_queries", "許可された照会", "Queries that the permit lists"),
        ("answer", "医療機関の回答", "Answer of the hospital"),
        ("answered", "回答した医療機関", "Hospitals that answered"),
        ("application", "申請", "Application"),
        ("asked", "照会先", "Hospitals asked"),
        ("asked_at", "照会日時", "First asked at"),
        ("at", "日時", "At"),
        ("basis", "法的根拠", "Legal basis"),
        ("columns", "項目", "Columns"),
        ("conditions", "条件", "Conditions"),
        ("country", "国", "Country"),
        ("data", "利用データ", "Data"),
        ("data_user", "利用者（組織）", "Data user (organisation)"),
        ("date", "決定日", "Date of decision"),
        ("decided_by", "決定者の役割", "Decided by (roles)"),
        ("decisions", "決定", "Decisions"),
        ("exact_since", "差分プライバシーの保証がなくなった日", "No guarantee of differential privacy since"),
        ("expected_benefit", "期待される公益", "Expected benefit"),
        ("from", "開始", "From"),
        ("generated_at", "作成日時", "Generated at"),
        ("holders", "医療機関", "Hospitals"),
        ("id", "番号", "Number"),
        ("issuer", "決定機関", "Issuer"),
        ("max_runs", "実行番号の上限", "Most runs"),
        ("micro_rho", "プライバシー予算の消費（micro-rho）", "Privacy budget spent (micro-rho)"),
        ("missing", "回答のない医療機関", "Hospitals without an answer"),
        ("output", "結果の公開可否", "Output"),
        ("outcome", "結論", "Outcome"),
        ("period", "利用期間", "Period"),
        ("publications", "公表", "Publications"),
        ("purposes", "利用目的", "Purposes"),
        ("queries", "実行された照会", "Queries run"),
        ("reason", "理由", "Reason"),
        ("reasons", "理由", "Reasons"),
        ("release_kind", "公表の種類", "Kind of release"),
        ("result", "結果の識別子", "Digest of the result"),
        ("results_due", "結果公表の期限", "Results due"),
        ("reviews", "出力審査", "Reviews of output"),
        ("role", "役割", "Role"),
        ("run", "実行番号", "Run"),
        ("runs", "実行回数", "Runs"),
        ("sha256", "照会文の SHA-256", "SHA-256 of the query text"),
        ("software", "ソフトウェア", "Software"),
        ("sql", "照会文（SQL）", "Query text (SQL)"),
        ("state", "状態", "State"),
        ("study", "研究", "Study"),
        ("submitted_at", "申請日時", "Submitted at"),
        ("suppressed_cells", "秘匿されたセル数", "Suppressed cells"),
        ("tables", "表", "Tables"),
        ("to", "終了", "To"),
        ("url", "公表先", "Where"),
        ("use_description", "利用の内容", "Description of the use"),
        ("uses", "利用", "Uses"),
        ("verdict", "判定", "Verdict"),
        ("version", "版", "Version"),
    ]
    .into_iter()
    .map(|(name, ja, en)| (name.to_string(), text(ja, en)))
    .collect()
}

pub(crate) fn purpose(purpose: Purpose) -> Coded {
    let (en, ja) = purpose.in_words();
    coded(purpose.as_str(), ja, en)
}

pub(crate) fn basis(basis: Basis) -> Coded {
    let (en, ja) = basis.in_words();
    coded(basis.as_str(), ja, en)
}

/// Where an application or a permit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    UnderReview,
    Refused,
    NotYetValid,
    InForce,
    Suspended,
    Superseded,
    Expired,
    Revoked,
    WithoutQuorum,
}

pub(super) fn state(state: State) -> Coded {
    let (code, ja, en) = match state {
        State::UnderReview => ("under_review", "審査中", "Under review"),
        State::Refused => ("refused", "不許可", "Refused"),
        State::NotYetValid => ("not_yet_valid", "利用期間前", "Granted, not yet valid"),
        State::InForce => ("in_force", "有効", "In force"),
        State::Suspended => ("suspended", "停止中", "Suspended"),
        State::Superseded => ("superseded", "新しい版に置換", "Replaced by a newer version"),
        State::Expired => ("expired", "期間終了", "Expired"),
        State::Revoked => ("revoked", "取消し", "Revoked"),
        State::WithoutQuorum => ("without_quorum", "署名の定足数を失効", "Void: too few valid signatures"),
    };
    coded(code, ja, en)
}

/// Every state, for filters.
pub(crate) fn states() -> Vec<Coded> {
    use State::{Expired, InForce, NotYetValid, Refused, Revoked, Superseded, Suspended, UnderReview, WithoutQuorum};
    [UnderReview, Refused, NotYetValid, InForce, Suspended, Superseded, Expired, Revoked, WithoutQuorum]
        .map(state)
        .into()
}

pub(super) fn outcome(granted: bool) -> Coded {
    if granted { coded("granted", "許可", "Granted") } else { coded("refused", "不許可", "Refused") }
}

/// What a hospital said to a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PermitAnswer {
    None,
    Waiting,
    Accepted,
    Refused,
}

pub(super) fn permit_answer(answer: PermitAnswer) -> Coded {
    let (code, ja, en) = match answer {
        PermitAnswer::None => ("no_answer", "未回答", "No answer yet"),
        PermitAnswer::Waiting => ("waiting", "検討中", "Deciding"),
        PermitAnswer::Accepted => ("accepted", "承諾", "Accepted"),
        PermitAnswer::Refused => ("refused", "拒否", "Refused"),
    };
    coded(code, ja, en)
}

pub(crate) fn holder_state(state: HolderState) -> Coded {
    let (code, ja, en) = match state {
        HolderState::Answered => ("answered", "回答", "Answered"),
        HolderState::Refused => ("refused", "拒否", "Refused"),
        HolderState::NoAnswer => ("no_answer", "回答なし", "No answer"),
        HolderState::Offline => ("offline", "接続なし", "Offline"),
    };
    coded(code, ja, en)
}

/// What a hospital that gave no answer did: one where a person looks at an exact result has not refused.
pub(crate) fn unanswered(holder: &HolderReport) -> Coded {
    if holder.waits() {
        return coded("waiting", "担当者の確認待ち", "Waits; looked at there first");
    }
    holder_state(holder.state)
}

/// A kind of release.
pub(crate) fn release_kind(kind: ReleaseKind) -> Coded {
    let (en, ja) = kind.in_words();
    coded(kind.as_str(), ja, en)
}

/// What became of a run's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// No hospital released anything.
    Nothing,
    /// It left without a review.
    Automatic,
    /// It is reviewed.
    Reviewed(Standing),
}

impl Output {
    /// Of a result, with where its reviews put it when there are any.
    pub(super) fn of(result: Option<Digest>, standing: Option<Standing>) -> Self {
        match (result, standing) {
            (None, _) => Self::Nothing,
            (Some(_), None) => Self::Automatic,
            (Some(_), Some(standing)) => Self::Reviewed(standing),
        }
    }
}

pub(crate) fn output(output: Output) -> Coded {
    let (code, ja, en) = match output {
        Output::Nothing => ("none", "結果なし", "No result"),
        Output::Automatic => ("automatic", "審査を要しない", "Given out; no review required"),
        Output::Reviewed(Standing::Awaiting) => ("awaiting", "審査待ち", "Waiting for review"),
        Output::Reviewed(Standing::Released) => ("released", "審査のうえ提供", "Given out after review"),
        Output::Reviewed(Standing::Refused) => ("refused", "提供を拒否", "Refused by reviewers"),
    };
    coded(code, ja, en)
}

pub(crate) fn verdict(verdict: Verdict) -> Coded {
    match verdict {
        Verdict::Release => coded("release", "提供可", "Release"),
        Verdict::Refuse => coded("refuse", "提供不可", "Refuse"),
    }
}
