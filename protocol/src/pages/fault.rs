//! What goes wrong with a request, and the page that tells people: a stable code, what happened and what to do.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::refusal::Refusal;

/// What a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The request is not as it must be.
    BadRequest,
    /// The caller's role does not do this, or another site sent the form.
    Forbidden,
    /// There is no such page.
    NotFound,
    /// Too many requests, or too many wrong tokens.
    TooMany,
    /// The server cannot answer now.
    Unavailable,
}

impl FaultKind {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TooMany => "too_many_requests",
            Self::Unavailable => "unavailable",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a status means that no handler of ours gave.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Self::NotFound,
            StatusCode::TOO_MANY_REQUESTS => Self::TooMany,
            status if status.is_server_error() => Self::Unavailable,
            _ => Self::BadRequest,
        }
    }

    /// Title, and what to do, in English and Japanese.
    pub(super) const fn words(self) -> [(&'static str, &'static str); 2] {
        match self {
            Self::BadRequest => [
                ("This request cannot be answered", "この要求にはお答えできません"),
                (
                    "Go back, check what was entered, and try again.",
                    "前のページに戻り、入力内容を確かめて、もう一度お試しください。",
                ),
            ],
            Self::Forbidden => [
                ("This is not open to you", "このページはご利用いただけません"),
                (
                    "Sign in with a token of the right role. If you sent a form, open its page again and send it from there.",
                    "必要な役割のトークンでログインしてください。フォームを送信した場合は、そのページを開き直して、もう一度送信してください。",
                ),
            ],
            Self::NotFound => [
                ("There is no such page", "ページが見つかりません"),
                (
                    "Check the address, or begin at the first page.",
                    "アドレスを確かめるか、トップページからお進みください。",
                ),
            ],
            Self::TooMany => [
                ("Too many requests", "要求が多すぎます"),
                ("Wait a minute, and try again.", "1分ほど待ってから、もう一度お試しください。"),
            ],
            Self::Unavailable => [
                ("The page cannot be shown now", "現在このページを表示できません"),
                (
                    "Try again later. If it goes on, tell the operator; the server's log has the cause.",
                    "しばらくしてから、もう一度お試しください。続く場合は運用者にご連絡ください。原因はサーバーのログにあります。",
                ),
            ],
        }
    }
}

/// A request that is not answered, and why.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What it met.
    pub(super) kind: FaultKind,
    /// What exactly, in English and Japanese.
    pub(super) detail: Option<(String, String)>,
}

impl Fault {
    fn of(kind: FaultKind) -> Self {
        Self { kind, detail: None }
    }

    /// There is no such page, or nothing that the caller may know of.
    pub fn not_found() -> Self {
        Self::of(FaultKind::NotFound)
    }

    /// The caller's role does not do this.
    pub fn forbidden() -> Self {
        Self::of(FaultKind::Forbidden)
    }

    /// Too many requests.
    pub fn too_many() -> Self {
        Self::of(FaultKind::TooMany)
    }

    /// The request is not as it must be: what is wrong, in English and Japanese.
    pub fn bad_request(english: impl Into<String>, japanese: impl Into<String>) -> Self {
        Self { kind: FaultKind::BadRequest, detail: Some((english.into(), japanese.into())) }
    }

    /// The server cannot answer; the log hears why, the caller does not.
    pub fn unavailable(error: impl std::fmt::Display) -> Self {
        tracing::warn!(%error, "a page cannot be shown");
        Self::of(FaultKind::Unavailable)
    }

    /// What it met.
    pub fn kind(&self) -> FaultKind {
        self.kind
    }
}

/// A refusal is said as it is: its words hold nothing of patients, and its code is in the documentation.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        use crate::refusal::Code::{ApplicationUnknown, NotWitnessed, PermitUnknown, ResultUnknown, Unavailable};
        if [NotWitnessed, Unavailable].contains(&refusal.code) {
            return Self::unavailable(refusal);
        }
        if [ApplicationUnknown, PermitUnknown, ResultUnknown].contains(&refusal.code) {
            return Self::not_found();
        }
        let detail = format!("{}: {}. {}", refusal.code, refusal.detail, refusal.code.advice());
        Self::bad_request(detail.clone(), detail)
    }
}

/// A bare answer with the fault beside it; [`super::guarded`] makes the page, which knows the visitor's language.
impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
