//! The coordinator's log for a regulator: what was entered, by whom it was signed, and the proof that it is in the log.
//!
//! Deliberately absent: any belief in what is shown. Statement and proof are files that somebody else's software checks
//! (`docs/verify.py`); an entry whose statement was erased still has its place.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use sekisho_protocol::{digest::Digest, log::entry::Kind, pages::Language, refusal::Refusal};
use serde_json::Value;

use super::{
    names::{Names, Signer},
    table::{Cell, Table},
};
use crate::{
    documents::unavailable,
    store::{LogFilter, Logged, Store},
};

/// How many entries a page has.
pub const PAGE: u32 = 50;

/// A statement of the log, decoded.
pub struct Statement {
    /// SHA-256 of its bytes: what the entry commits to.
    pub statement: Digest,
    /// SHA-256 of what was signed: what other documents call it; none of checkpoints.
    pub payload: Option<Digest>,
    /// What kind of document it says that it is.
    pub payload_type: String,
    /// What it says, in lines.
    pub text: String,
    /// What it is about, in a few words.
    pub about: String,
    /// The keys that signed.
    keys: Vec<Digest>,
    /// The time that it states itself.
    stated: Option<DateTime<Utc>>,
}

impl Statement {
    /// Decodes a DSSE envelope of any kind, or a signed checkpoint.
    pub fn decode(bytes: &[u8]) -> Self {
        let raw = || String::from_utf8_lossy(bytes).into_owned();
        let mut statement = Self {
            statement: Digest::of(bytes),
            payload: None,
            payload_type: String::new(),
            text: String::new(),
            about: String::new(),
            keys: Vec::new(),
            stated: None,
        };
        let envelope: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let payload = envelope["payload"].as_str().and_then(|text| BASE64.decode(text).ok());
        let Some(payload) = payload else {
            // A checkpoint: its first line is the name of its log.
            statement.text = raw();
            statement.about = statement.text.lines().take(2).collect::<Vec<_>>().join(", ");
            return statement;
        };
        let document: Value = serde_json::from_slice(&payload).unwrap_or_default();
        statement.payload = Some(Digest::of(&payload));
        statement.payload_type = envelope["payloadType"].as_str().unwrap_or_default().into();
        statement.text = serde_json::to_string_pretty(&document).unwrap_or_else(|_| raw());
        let signatures = envelope["signatures"].as_array().into_iter().flatten();
        statement.keys = signatures.filter_map(|s| s["keyid"].as_str()?.parse().ok()).collect();
        let about = [
            "node",
            "study_id",
            "id",
            "application",
            "regulator",
            "version",
            "seq",
            "run",
            "micro_rho",
            "release_kind",
            "exact_since",
        ];
        let said = about.into_iter().filter_map(|name| match &document[name] {
            Value::String(text) => Some(format!("{name}: {text}")),
            Value::Number(number) => Some(format!("{name}: {number}")),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        });
        statement.about = said.collect::<Vec<_>>().join(", ");
        let times = ["at", "issued"].into_iter().filter_map(|name| document[name].as_str()?.parse().ok());
        statement.stated = times.into_iter().next();
        statement
    }

    /// Who signed.
    pub fn signers(&self, names: &Names) -> Vec<Signer> {
        names.all(self.keys.iter().copied())
    }

    /// When it came here, or else the time that it states.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn known_at(&self, store: &Store) -> Result<Option<DateTime<Utc>>, Refusal> {
        let came = match self.payload {
            Some(payload) => store.came_at(payload).await.map_err(unavailable)?,
            None => None,
        };
        Ok(came.or(self.stated))
    }
}

/// A page of entries, the newest first, and before which entry the next page is.
///
/// # Errors
/// When the database cannot be read.
pub async fn page(
    language: Language,
    store: &Store,
    names: &Names,
    filter: LogFilter,
) -> Result<(Table, Option<u64>), Refusal> {
    let columns = [
        ("Entry", "番号"),
        ("Kind", "種類"),
        ("Known since", "記録日時"),
        ("About", "内容"),
        ("Signed by", "署名者"),
        ("SHA-256 of the statement", "文書の SHA-256"),
    ];
    let mut entries = store.newest_entries(filter, PAGE + 1).await.map_err(unavailable)?;
    let more = entries.len() > PAGE as usize;
    entries.truncate(PAGE as usize);
    let next = entries.last().filter(|_| more).map(|entry| entry.index);
    let mut rows = Vec::new();
    for Logged { index, kind, statement } in entries {
        let erased = || language.say("The statement was erased", "文書は消去済み").to_string();
        let decoded = statement.as_deref().map(Statement::decode);
        let at = match &decoded {
            Some(statement) => statement.known_at(store).await?,
            None => None,
        };
        let signers = decoded.as_ref().map(|statement| statement.signers(names)).unwrap_or_default();
        rows.push([
            Cell::linked(index.to_string(), format!("/regulator/log/{index}")),
            Cell::words(name(language, kind)),
            at.map(Cell::time).unwrap_or_default(),
            Cell::words(decoded.as_ref().map_or_else(erased, |statement| statement.about.clone())),
            Cell::signers(language, &signers),
            Cell::words(decoded.map(|statement| statement.statement.short()).unwrap_or_default()),
        ]);
    }
    let caption = language.say("Entries of the log, the newest first", "ログの記録（新しい順）");
    Ok((Table::new(language, caption, columns).with(rows), next))
}

/// What a kind of entry is called.
pub fn name(language: Language, kind: Kind) -> &'static str {
    let (english, japanese) = match kind {
        Kind::Roster => ("Roster of members", "参加機関の名簿"),
        Kind::Status => ("Status: what is void or suspended", "失効・停止の一覧"),
        Kind::Committee => ("Committee", "審査委員会の構成"),
        Kind::Governance => ("Change of the governance key", "運営鍵の更新"),
        Kind::Orders => ("Regulator's orders", "監督機関の命令"),
        Kind::Catalogue => ("Hospital's catalogue", "医療機関のカタログ"),
        Kind::Application => ("Application", "申請"),
        Kind::Review => ("Review of an application", "申請の審査"),
        Kind::Decision => ("Refusal of an application", "申請の不許可"),
        Kind::Permit => ("Permit", "許可"),
        Kind::Acceptance => ("Hospital's answer to a permit", "許可への医療機関の回答"),
        Kind::Query => ("Query", "照会"),
        Kind::Reservation => ("Charge", "予算の引当て"),
        Kind::Receipt => ("Receipt", "受領証"),
        Kind::Refusal => ("Refusal", "拒否"),
        Kind::OutputReview => ("Review of a result", "結果の審査"),
        Kind::Release => ("Release", "公表された結果"),
        Kind::Policy => ("Hospital's policy", "医療機関の方針"),
        Kind::Replay => ("Replay by an inspector", "検査官による再計算"),
        Kind::Alert => ("Alert", "警告"),
        Kind::Checkpoint => ("Checkpoint of a hospital's log", "医療機関のログのチェックポイント"),
        Kind::Schema => ("Schema of the data", "データの定義"),
        Kind::Publication => ("Publication", "公表"),
        Kind::WriteOff => ("Write-off of a lost log", "失われたログの償却"),
    };
    language.say(english, japanese)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_shown_as_what_they_are() {
        let signed = |payload: &str| {
            let key = Digest::of(b"key");
            let payload = BASE64.encode(payload);
            format!(r#"{{"payloadType":"t","payload":"{payload}","signatures":[{{"keyid":"{key}","sig":""}}]}}"#)
        };
        let receipt = signed(r#"{"node":"tokyo","run":2,"at":"2026-01-01T00:00:00Z","sql":["<b>"]}"#);
        let statement = Statement::decode(receipt.as_bytes());
        assert_eq!(statement.about, "node: tokyo, run: 2");
        assert_eq!(statement.keys, [Digest::of(b"key")]);
        assert!(statement.stated.is_some() && statement.text.contains("\"<b>\""));
        for (bytes, about) in [
            (&b"log/tokyo\n12\nroot\n"[..], "log/tokyo, 12"),
            (b"", ""),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"{\"payload\": 7}", "{\"payload\": 7}"),
            (signed("not JSON").as_bytes(), ""),
        ] {
            assert_eq!(Statement::decode(bytes).about, about, "{bytes:?}");
        }
    }
}
