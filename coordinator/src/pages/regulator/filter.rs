//! What a regulator looks for: the form as it was sent, and the same checked.
//!
//! A field that is empty asks for nothing. What does not parse is said beside the form, and finds nothing: a search that silently
//! left out a condition would lie to an inspector.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;

use super::{names::Signer, table::part};

/// The longest text of a field in bytes.
const MAX_TEXT: usize = 200;
/// The most pages of a list.
const MAX_PAGE: usize = 10_000;

/// The form, as it was sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Form {
    /// What is listed: `queries`, `uses` or `incidents`.
    pub list: String,
    /// Part of the study's id.
    pub study: String,
    /// Part of the organisation's name.
    pub organisation: String,
    /// Part of a hospital's name.
    pub holder: String,
    /// Part of a person's name, or the first digits of a key's fingerprint.
    pub person: String,
    /// The code of a purpose.
    pub purpose: String,
    /// The code of a state.
    pub state: String,
    /// The first day.
    pub from: String,
    /// The last day.
    pub to: String,
    /// The page, from 1.
    pub page: String,
    /// `csv` or `json`.
    pub format: String,
}

/// Which list is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum List {
    /// Rounds.
    #[default]
    Queries,
    /// Applications and permits.
    Uses,
    /// Refusals and anomalies.
    Incidents,
}

impl List {
    /// The name in addresses and files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queries => "queries",
            Self::Uses => "uses",
            Self::Incidents => "incidents",
        }
    }
}

/// What is wrong with a form, in English and Japanese.
pub type Wrong = (&'static str, &'static str);

/// The form, checked.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// What is listed.
    pub list: List,
    study: String,
    organisation: String,
    holder: String,
    person: String,
    purpose: String,
    state: String,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    /// The page, from 0.
    pub page: usize,
}

impl TryFrom<&Form> for Filter {
    type Error = Wrong;

    fn try_from(form: &Form) -> Result<Self, Wrong> {
        let texts = [&form.study, &form.organisation, &form.holder, &form.person, &form.purpose, &form.state];
        if texts.iter().any(|text| text.len() > MAX_TEXT) {
            return Err(("A field has at most 200 bytes.", "各欄の入力は200バイトまでです。"));
        }
        let list = match form.list.as_str() {
            "" | "queries" => List::Queries,
            "uses" => List::Uses,
            "incidents" => List::Incidents,
            _ => return Err(("There is no such list.", "そのような一覧はありません。")),
        };
        let page = match form.page.as_str() {
            "" => 1,
            text => text.parse().unwrap_or(0),
        };
        if !(1..=MAX_PAGE).contains(&page) {
            return Err(("A page is a number from 1 to 10000.", "ページ番号は1から10000までの数字です。"));
        }
        let (from, to) = (day(&form.from)?, day(&form.to)?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(("The first day is after the last day.", "開始日が終了日より後になっています。"));
        }
        let start = |day: NaiveDate| day.and_time(NaiveTime::MIN).and_utc();
        let text = |text: &String| text.trim().to_lowercase();
        Ok(Self {
            list,
            study: text(&form.study),
            organisation: text(&form.organisation),
            holder: text(&form.holder),
            person: text(&form.person),
            purpose: form.purpose.clone(),
            state: form.state.clone(),
            from: from.map(start),
            to: to.and_then(|day| day.checked_add_days(Days::new(1))).map(start),
            page: page - 1,
        })
    }
}

fn day(text: &str) -> Result<Option<NaiveDate>, Wrong> {
    let wrong = ("A day is written as 2026-11-21.", "日付は 2026-11-21 のように入力してください。");
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| wrong)
}

fn has(text: &str, wanted: &str) -> bool {
    wanted.is_empty() || text.to_lowercase().contains(wanted)
}

/// Something that may be looked for.
pub struct Subject<'a> {
    /// The organisation.
    pub organisation: &'a str,
    /// The hospitals.
    pub holders: Vec<&'a str>,
    /// Names of persons who have no key here.
    pub investigator: &'a str,
    /// Persons.
    pub persons: &'a [Signer],
    /// The codes of its purposes.
    pub purposes: Vec<&'a str>,
    /// The code of its state.
    pub state: &'a str,
    /// From when to when it was; without an end it goes on.
    pub span: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
}

impl Filter {
    /// Whether things of this study are wanted.
    pub fn wants_study(&self, study: &str) -> bool {
        has(study, &self.study)
    }

    /// Whether this is wanted, of a study that is.
    pub fn wants(&self, subject: Subject<'_>) -> bool {
        let Subject { organisation, holders, investigator, persons, purposes, state, span } = subject;
        let person = |signer: &Signer| {
            let named = signer.name.as_ref().is_some_and(|name| has(name, &self.person));
            named || signer.key.to_string().starts_with(&self.person)
        };
        has(organisation, &self.organisation)
            && (self.holder.is_empty() || holders.into_iter().any(|holder| has(holder, &self.holder)))
            && (self.person.is_empty() || has(investigator, &self.person) || persons.iter().any(person))
            && (self.purpose.is_empty() || purposes.into_iter().any(|purpose| purpose == self.purpose))
            && (self.state.is_empty() || state == self.state)
            && self.to.is_none_or(|to| span.0.is_none_or(|from| from < to))
            && self.from.is_none_or(|from| span.1.is_none_or(|to| from <= to))
    }
}

impl Form {
    /// The address of the same search with another page, list or format: what begins with `?`.
    pub fn query(&self, list: &str, page: Option<usize>, format: Option<&str>) -> String {
        let page = page.map(|page| page.to_string()).unwrap_or_default();
        let fields = [
            ("list", list),
            ("study", &self.study),
            ("organisation", &self.organisation),
            ("holder", &self.holder),
            ("person", &self.person),
            ("purpose", &self.purpose),
            ("state", &self.state),
            ("from", &self.from),
            ("to", &self.to),
            ("page", &page),
            ("format", format.unwrap_or_default()),
        ];
        let set = fields.into_iter().filter(|(_, value)| !value.is_empty());
        format!("?{}", set.map(|(name, value)| format!("{name}={}", part(value))).collect::<Vec<_>>().join("&"))
    }
}

#[cfg(test)]
mod tests {
    use sekisho_protocol::digest::Digest;

    use super::*;
    use crate::use_register::words::text;

    fn at(day: &str) -> DateTime<Utc> {
        format!("{day}T12:00:00Z").parse().unwrap()
    }

    #[test]
    fn a_condition_lets_through_what_it_says_and_an_empty_one_everything() {
        let ann = Signer { name: Some("Ann".into()), role: text("", ""), key: Digest::of(b"ann") };
        let key = ann.key.to_string();
        let form = |field: &str, value: &str| {
            let json = serde_json::json!({field: value});
            serde_json::from_value::<Form>(json).unwrap()
        };
        for (field, value, found) in [
            ("study", "", true),
            ("organisation", "kyoto", true),
            ("organisation", "OSAKA", false),
            ("holder", "ok", true),
            ("holder", "nara", false),
            ("person", "ann", true),
            ("person", "Dr. In", true),
            ("person", &key[..12], true),
            ("person", &key[1..12], false),
            ("person", "bob", false),
            ("purpose", "art53-1-a", true),
            ("purpose", "art53-1", false),
            ("state", "released", true),
            ("state", "refused", false),
            ("from", "2026-03-02", true),
            ("from", "2026-03-03", false),
            ("to", "2026-03-02", true),
            ("to", "2026-03-01", false),
        ] {
            let filter = Filter::try_from(&form(field, value)).unwrap();
            let when = Some(at("2026-03-02"));
            let subject = Subject {
                organisation: "Kyoto University",
                holders: vec!["tokyo", "osaka"],
                investigator: "Dr. Ines",
                persons: std::slice::from_ref(&ann),
                purposes: vec!["art53-1-a"],
                state: "released",
                span: (when, when),
            };
            assert_eq!(filter.wants(subject), found, "{field}={value}");
        }
        let filter = Filter::try_from(&form("study", "Study-1")).unwrap();
        assert!(filter.wants_study("my-study-12") && !filter.wants_study("study-2"));
    }

    #[test]
    fn what_does_not_parse_is_said_and_finds_nothing() {
        let long = "x".repeat(201);
        for (field, value) in [
            ("from", "yesterday"),
            ("to", "2026-02-30"),
            ("page", "0"),
            ("page", "-1"),
            ("page", "99999"),
            ("list", "persons"),
            ("study", &long),
        ] {
            let form: Form = serde_json::from_value(serde_json::json!({field: value})).unwrap();
            assert!(Filter::try_from(&form).is_err(), "{field}={value}");
        }
        let form = Form { from: "2026-02-02".into(), to: "2026-02-01".into(), ..Form::default() };
        assert!(Filter::try_from(&form).is_err());
    }

    #[test]
    fn an_address_keeps_every_condition() {
        let form = Form { person: "a&b=\"<".into(), study: "s".into(), page: "7".into(), ..Form::default() };
        assert_eq!(form.query("uses", Some(2), None), "?list=uses&study=s&person=a%26b%3D%22%3C&page=2");
    }
}
