//! What went wrong, as `application/problem+json` (RFC 9457): a stable code, titles in English and Japanese, and a detail that
//! holds no value of the request.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// The sorts of problems; their codes are never renamed or used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// No such path.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The request was sent to another machine's name, or from another site's page.
    HostNotLocal,
    /// There is no token, or no caller has it.
    TokenUnknown,
    /// So many wrong tokens came that no more are looked at for a while.
    TooManyWrongTokens,
    /// The body is not declared as JSON.
    NotJson,
    /// The body is no JSON, or neither an event nor a list of events.
    Malformed,
    /// An event is not as it must be.
    EventInvalid,
    /// An event stands in the list twice.
    EventTwice,
    /// The list is longer than one request may have.
    TooManyEvents,
    /// The body is longer than one request may have.
    BodyTooLarge,
    /// The header `Idempotency-Key` is missing, or too long.
    KeyMissing,
    /// The key was used for another body.
    KeyReused,
    /// The node cannot answer now.
    Unavailable,
}

impl ProblemKind {
    /// Status, code, and the titles in English and Japanese.
    const fn said(self) -> (StatusCode, &'static str, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "There is no such path.", "そのパスはありません。"),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The path does not take this method.",
                "このパスではそのメソッドを使えません。",
            ),
            Self::HostNotLocal => (
                StatusCode::FORBIDDEN,
                "host_not_local",
                "The request was not sent to this machine's own address. Send it to the address of local.address.",
                "このマシン自身のアドレス宛ての要求ではありません。local.address のアドレスに送ってください。",
            ),
            Self::TokenUnknown => (
                StatusCode::UNAUTHORIZED,
                "token_unknown",
                "The token is missing or unknown. Make one with `sekisho-node local token NAME`.",
                "トークンがないか、登録されていません。`sekisho-node local token 名前` で発行してください。",
            ),
            Self::TooManyWrongTokens => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_wrong_tokens",
                "Too many wrong tokens came. Use a right one, or wait a minute.",
                "誤ったトークンが多すぎます。正しいトークンを使うか、1 分待ってください。",
            ),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "Send JSON, with the header Content-Type: application/json.",
                "Content-Type: application/json を付けて JSON を送ってください。",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "malformed",
                "The body is neither an event nor a list of events in JSON. Nothing was recorded.",
                "本文が出来事の JSON、またはその配列ではありません。何も記録していません。",
            ),
            Self::EventInvalid => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "event_invalid",
                "An event is not as it must be. Nothing was recorded.",
                "出来事の内容に誤りがあります。何も記録していません。",
            ),
            Self::EventTwice => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "event_twice",
                "An event stands in the list twice. Nothing was recorded.",
                "同じ出来事が配列に二度あります。何も記録していません。",
            ),
            Self::TooManyEvents => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_many_events",
                "A request may have at most 1000 events. Nothing was recorded.",
                "1 回の要求は 1000 件までです。何も記録していません。",
            ),
            Self::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "A body may have at most 1 MiB. Nothing was recorded.",
                "本文は 1 MiB までです。何も記録していません。",
            ),
            Self::KeyMissing => (
                StatusCode::BAD_REQUEST,
                "key_missing",
                "Send the header Idempotency-Key with 1 to 128 characters of your choice, a new one for each change. Nothing was recorded.",
                "変更ごとに新しい 1〜128 文字の Idempotency-Key ヘッダーを付けてください。何も記録していません。",
            ),
            Self::KeyReused => (
                StatusCode::CONFLICT,
                "key_reused",
                "This Idempotency-Key was used for another body. Nothing was recorded.",
                "この Idempotency-Key は別の内容で使われています。何も記録していません。",
            ),
            Self::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "The node cannot answer now; its log says why. Send the request again, with the same Idempotency-Key.",
                "ノードは今応答できません (理由はログにあります)。同じ Idempotency-Key でもう一度送ってください。",
            ),
        }
    }
}

/// One problem, and where it lies.
#[derive(Debug)]
pub struct Problem {
    kind: ProblemKind,
    detail: Option<String>,
    /// Which event of the list, from 0.
    index: Option<usize>,
}

impl Problem {
    /// A problem that its title says everything about.
    pub const fn of(kind: ProblemKind) -> Self {
        Self { kind, detail: None, index: None }
    }

    /// A problem with more to say, which must not be a value of the request.
    pub fn with(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::of(kind) }
    }

    /// A problem of the event at place `index` of the list, from 0.
    pub fn at(kind: ProblemKind, index: usize, detail: impl Into<String>) -> Self {
        Self { index: Some(index), ..Self::with(kind, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, title, title_ja) = self.kind.said();
        let mut body = json!({
            "type": format!("urn:sekisho:problem:{code}"), "code": code, "status": status.as_u16(), "title": title,
            "title_ja": title_ja,
        });
        if let Some(detail) = self.detail {
            body["detail"] = detail.into();
        }
        if let Some(index) = self.index {
            body["index"] = index.into();
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match status {
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            StatusCode::TOO_MANY_REQUESTS => headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60")),
            _ => None,
        };
        response
    }
}
