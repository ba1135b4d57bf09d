//! Which fields an application must have: data (`requirements.toml`) with articles of law, by legal basis.
//!
//! Works on JSON, so that a draft which is not yet an application can be judged, and so that no field of the law is named in
//! code. Deliberately absent: whether what is written is true or enough; that is a committee's question.

use sekisho_protocol::{application::Application, permit::Basis, purpose::DeclaredPurpose};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const REQUIREMENTS: &str = include_str!("requirements.toml");

/// How a person is asked for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// Free text.
    Text,
    /// A name or a word of a list.
    Word,
    /// Several, separated by commas.
    Words,
    /// Yes or no.
    Yes,
    /// A whole number.
    Number,
    /// A point in time, or a day from its first second on.
    Instant,
    /// A day.
    Day,
    /// A public key, or a file with one.
    Key,
    /// A schema by digest or file.
    Schema,
    /// SQL, or a file with it.
    Sql,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    PublicMandate,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequiredBy {
    of: String,
    by: String,
}

/// A field of an application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Where it is: `applicant.name`, `people[].role`.
    pub path: String,
    /// How one asks for it.
    pub kind: FieldKind,
    when: Option<When>,
    /// The value that is written without asking; who wants another writes the file.
    pub only: Option<String>,
    /// What it is, in English.
    pub en: String,
    /// And in Japanese.
    pub ja: String,
    #[serde(default)]
    required: Vec<RequiredBy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group(Vec<Basis>);

/// All fields, in the order in which they are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirements {
    groups: std::collections::BTreeMap<String, Group>,
    field: Vec<Field>,
}

/// A field that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Which: `people[2].training`, counted from 1.
    pub field: String,
    /// Where the law asks for it.
    pub article: String,
    /// What it is, in English.
    pub en: String,
    /// And in Japanese.
    pub ja: String,
}

impl Field {
    /// No law asks for it; a person may leave it out.
    pub fn is_optional(&self) -> bool {
        self.required.is_empty()
    }
}

impl Requirements {
    /// The requirements that this software ships.
    ///
    /// # Errors
    /// When they are not well-formed, which a test rules out.
    pub fn read() -> Result<Self, toml::de::Error> {
        toml::from_str(REQUIREMENTS)
    }

    /// All fields, in order.
    pub fn fields(&self) -> &[Field] {
        &self.field
    }

    /// Where the law asks for `field` under `basis`; none when it need not be there.
    pub fn article<'a>(&self, field: &'a Field, basis: Basis) -> Option<&'a str> {
        let asks = |r: &&RequiredBy| self.groups.get(&r.of).is_some_and(|group| group.0.contains(&basis));
        field.required.iter().find(asks).map(|r| r.by.as_str())
    }

    /// What a draft lacks. Of a list that is empty each field of its entries is missing.
    pub fn missing(&self, draft: &Value) -> Vec<Missing> {
        let basis = draft.get("basis").cloned().and_then(|basis| serde_json::from_value::<Basis>(basis).ok());
        let Some(basis) = basis else {
            return vec![Missing {
                field: "basis".into(),
                article: "EHDS Art. 67-69, NGMIA".into(),
                en: "The legal basis".into(),
                ja: "法的根拠".into(),
            }];
        };
        let mandate = needs_mandate(draft);
        let mut missing = Vec::new();
        for field in &self.field {
            let Some(article) = self.article(field, basis) else { continue };
            if field.when == Some(When::PublicMandate) && !mandate {
                continue;
            }
            for place in absent(draft, &field.path) {
                let (en, ja) = (field.en.clone(), field.ja.clone());
                missing.push(Missing { field: place, article: article.into(), en, ja });
            }
        }
        missing
    }

    /// What an application lacks.
    ///
    /// # Errors
    /// When it has no form in JSON, which every application has.
    pub fn missing_in(&self, application: &Application) -> Result<Vec<Missing>, serde_json::Error> {
        Ok(self.missing(&serde_json::to_value(application)?))
    }

    /// Whether `field` is asked for at all, given the purposes of `draft`.
    pub fn applies(&self, field: &Field, draft: &Value) -> bool {
        field.when != Some(When::PublicMandate) || needs_mandate(draft)
    }
}

fn needs_mandate(draft: &Value) -> bool {
    let purposes = draft.get("purposes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    purposes.filter_map(|text| text.parse::<DeclaredPurpose>().ok()).any(|purpose| match purpose {
        DeclaredPurpose::Permissible(purpose) => purpose.needs_public_mandate(),
        DeclaredPurpose::Prohibited(_) => false,
    })
}

/// The places of `path` at which `value` has nothing.
fn absent(value: &Value, path: &str) -> Vec<String> {
    let missing = || vec![path.to_string()];
    let Some((list, rest)) = path.split_once("[].") else {
        let found = path.split('.').try_fold(value, |value, name| value.get(name));
        return if found.is_none_or(is_empty) { missing() } else { Vec::new() };
    };
    match value.get(list).and_then(Value::as_array) {
        Some(entries) if !entries.is_empty() => {
            let of =
                |(place, entry)| absent(entry, rest).into_iter().map(move |name| format!("{list}[{place}].{name}"));
            (1..).zip(entries).flat_map(of).collect()
        }
        Some(_) | None => missing(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.trim().is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(_) | Value::Number(_) | Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_group_and_kind_of_the_file_is_known_and_each_field_has_two_languages() {
        let requirements = Requirements::read().unwrap();
        for field in requirements.fields() {
            assert!(!field.en.is_empty() && !field.ja.is_ascii(), "{}", field.path);
            for required in &field.required {
                assert!(requirements.groups.contains_key(&required.of), "{}: {}", field.path, required.of);
                assert!(!required.by.is_empty());
            }
        }
    }

    fn fields(draft: &Value) -> Vec<String> {
        Requirements::read().unwrap().missing(draft).into_iter().map(|m| m.field).collect()
    }

    #[test]
    fn what_the_law_asks_for_depends_on_the_basis() {
        assert_eq!(fields(&json!({})), ["basis"]);
        let of = |basis: &str| fields(&json!({ "basis": basis }));
        for (basis, has, lacks) in [
            ("EHDS-69", "statistic_content", "ethics.body"),
            ("EHDS-68", "period.justification", "statistic_content"),
            ("JP-NGMIA-anonymised", "jp.certified_operator", "stigma_declaration"),
            ("JP-ethics", "ethics.id", "jp.contract_id"),
        ] {
            let missing = of(basis);
            assert!(missing.iter().any(|m| m == has) && !missing.iter().any(|m| m == lacks), "{basis}: {missing:?}");
        }
    }

    #[test]
    fn a_public_mandate_is_asked_for_by_its_purposes_alone() {
        for (purpose, asked) in [("official_statistics", true), ("scientific_research", false)] {
            let missing = fields(&json!({"basis": "EHDS-69", "purposes": [purpose]}));
            assert_eq!(missing.iter().any(|m| m == "public_mandate"), asked, "{purpose}");
        }
    }

    #[test]
    fn an_entry_of_a_list_is_named_by_its_place() {
        let people = json!([{"id": "ada", "role": "x", "key": "k", "training": "2026"}, {"id": "bob", "role": " "}]);
        let missing = fields(&json!({"basis": "JP-ethics", "people": people}));
        let of_people: Vec<_> = missing.iter().filter(|m| m.starts_with("people")).collect();
        assert_eq!(of_people, ["people[2].role", "people[2].key", "people[2].training"]);
    }
}
