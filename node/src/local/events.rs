//! `POST /v1/patients/events`: one event or a list of them, recorded whole or not at all, and once under one key.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use sekisho_protocol::digest::Digest;
use serde_json::{Map, Value, json};
use tracing::info;

use super::{Local, Problem, ProblemKind, gate::Caller, unavailable};
use crate::register::{Entry, Once, OnceKey, day};

/// The most events of one request.
pub const MAX_EVENTS: usize = 1000;
/// The most bytes of one request's body.
pub const MAX_BODY_BYTES: usize = 1 << 20;
/// The longest key that a caller may choose, in bytes.
const MAX_KEY_BYTES: usize = 128;

/// Records what the body says, by the caller's name.
pub(super) async fn record(
    State(local): State<Arc<Local>>,
    Extension(Caller(caller)): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::trim);
    let key = key.filter(|key| (1..=MAX_KEY_BYTES).contains(&key.len()));
    let key = key.ok_or(Problem::of(ProblemKind::KeyMissing))?;
    let sort = headers.get(header::CONTENT_TYPE).and_then(|sort| sort.to_str().ok()).unwrap_or_default();
    if !sort.split(';').next().is_some_and(|sort| sort.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::of(ProblemKind::NotJson));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::of(ProblemKind::BodyTooLarge),
        _ => Problem::of(ProblemKind::Malformed),
    })?;
    let now = local.clock.now();
    let entries = entries(&body, now)?;
    let once = OnceKey { caller: &caller, key, body: Digest::of(&body) };
    let answer = |seq: i64| json!({"recorded": entries.len(), "register_seq": seq}).to_string();
    let (answer, before) = match local.uses.register.record_once(&entries, &once, now, answer).await {
        Ok(Once::Now(answer)) => (answer, false),
        Ok(Once::Before(answer)) => (answer, true),
        Ok(Once::OtherBody) => return Err(Problem::of(ProblemKind::KeyReused)),
        Err(error) => return Err(unavailable(error)),
    };
    if !before {
        info!(by = %caller, events = entries.len(), "recorded in the register");
    }
    let mut response = ([(header::CONTENT_TYPE, "application/json")], answer).into_response();
    if before {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The events of a body, each as it may be recorded and none twice.
fn entries(body: &[u8], now: DateTime<Utc>) -> Result<Vec<Entry>, Problem> {
    let body: Value = serde_json::from_slice(body).map_err(|e| {
        Problem::with(ProblemKind::Malformed, format!("no JSON at line {}, column {}", e.line(), e.column()))
    })?;
    let events = match body {
        Value::Array(events) => events,
        event @ Value::Object(_) => vec![event],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(Problem::of(ProblemKind::Malformed));
        }
    };
    if events.is_empty() {
        return Err(Problem::with(ProblemKind::Malformed, "the list is empty"));
    }
    if events.len() > MAX_EVENTS {
        return Err(Problem::of(ProblemKind::TooManyEvents));
    }
    let entry = |(index, event): (usize, &Value)| {
        entry(event, now).map_err(|reason| Problem::at(ProblemKind::EventInvalid, index, reason))
    };
    let entries: Vec<Entry> = events.iter().enumerate().map(entry).collect::<Result<_, _>>()?;
    let mut seen = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if let Some(first) = seen.insert(entry.what(), index) {
            let detail = format!("the same event as at place {first}, counted from 0");
            return Err(Problem::at(ProblemKind::EventTwice, index, detail));
        }
    }
    Ok(entries)
}

/// One event: `patient_id` and `event`, and if it is known `on` and `said_by`.
fn entry(event: &Value, now: DateTime<Utc>) -> Result<Entry, &'static str> {
    const FIELDS: [&str; 4] = ["patient_id", "event", "on", "said_by"];
    let event: &Map<String, Value> = event.as_object().ok_or("an event is a JSON object")?;
    if event.keys().any(|field| !FIELDS.contains(&field.as_str())) {
        return Err("an event has no other fields than patient_id, event, on and said_by");
    }
    let patient = match event.get("patient_id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => id.to_string(),
        _ => return Err("patient_id must be text or an integer"),
    };
    let text = |field: &str, wrong: &'static str| match event.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong),
    };
    let kind = text("event", "event must be text")?.ok_or("event is missing")?.parse()?;
    let on = text("on", "on must be text, YYYY-MM-DD")?.map(day).transpose()?;
    let said_by = text("said_by", "said_by must be text")?.map(str::parse).transpose()?;
    Entry::new(&patient, kind, on, said_by, now)
}
