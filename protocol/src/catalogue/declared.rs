//! What a custodian declares of a data set: the fields of HealthDCAT-AP, in the custodian's words and codes.
//!
//! Codes are the last part of a term in an authority list (`EHRS`, `JPN`, `OMOP-CDM`); which list is meant follows from the field.
//! Whether a term is in the list is not checked: the lists change, and the central catalogue checks.

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

/// The most entries of a list.
const MAX_LIST: usize = 100;
/// The longest text in bytes.
const MAX_TEXT: usize = 4000;
/// The longest address in bytes.
const MAX_ADDRESS: usize = 1000;

/// That a list is not too long.
pub(super) fn list(field: &str, length: usize, most: usize) -> Result<(), String> {
    if length > most { Err(format!("{field}: at most {most} entries")) } else { Ok(()) }
}

/// Whether `code` can be the last part of a term's address.
pub(super) fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Words in Japanese and English; one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Japanese.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ja: String,
    /// English.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub en: String,
}

impl Text {
    /// The words with their language tag, those that are there.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("ja", self.ja.as_str()), ("en", self.en.as_str())].into_iter().filter(|(_, words)| !words.trim().is_empty())
    }

    /// The English words, or the Japanese ones.
    pub fn any(&self) -> &str {
        if self.en.trim().is_empty() { &self.ja } else { &self.en }
    }

    pub(super) fn check(&self, field: &str) -> Result<(), String> {
        if self.words().next().is_none() {
            return Err(format!("{field}: write it in ja, in en, or in both"));
        }
        if self.ja.len() > MAX_TEXT || self.en.len() > MAX_TEXT {
            return Err(format!("{field}: at most {MAX_TEXT} bytes"));
        }
        Ok(())
    }
}

/// Days from `from` to `to`, both inclusive; open when there is no `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    /// The first day.
    pub from: NaiveDate,
    /// The last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NaiveDate>,
}

impl Period {
    pub(super) fn check(self, field: &str) -> Result<(), String> {
        if self.to.is_some_and(|to| to < self.from) {
            Err(format!("{field}: it ends before it begins"))
        } else {
            Ok(())
        }
    }
}

/// How to reach somebody: by mail, by a page, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    /// Whom one reaches.
    pub name: Text,
    /// A mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A page, https:// or http://.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

impl Contact {
    fn check(&self, field: &str) -> Result<(), String> {
        self.name.check(&format!("{field}.name"))?;
        reachable(field, self.email.as_deref(), self.page.as_deref())
    }
}

fn reachable(field: &str, email: Option<&str>, page: Option<&str>) -> Result<(), String> {
    if email.is_none() && page.is_none() {
        return Err(format!("{field}: give email or page"));
    }
    if email.is_some_and(|email| !is_email(email)) {
        return Err(format!("{field}.email: it is no mail address such as data@example.org"));
    }
    page.map_or(Ok(()), |page| address(&format!("{field}.page"), page))
}

/// An organisation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name.
    pub name: Text,
    /// What it is: a code of the health publisher types, such as `healthcare-providers`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// A page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
}

impl Agent {
    fn check(&self, field: &str) -> Result<(), String> {
        self.name.check(&format!("{field}.name"))?;
        codes(&format!("{field}.type"), self.kind.as_slice())?;
        reachable(field, self.email.as_deref(), self.page.as_deref())
    }
}

/// Search words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keywords {
    /// Japanese.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ja: Vec<String>,
    /// English.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub en: Vec<String>,
}

impl Keywords {
    /// The words with their language tag.
    pub fn words(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (ja, en) = (self.ja.iter().map(|word| ("ja", word)), self.en.iter().map(|word| ("en", word)));
        ja.chain(en).map(|(tag, word)| (tag, word.as_str()))
    }
}

/// How the data is reached: through an application, since nothing is handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// What it is called.
    pub title: Text,
    /// Where one applies.
    pub access_url: String,
}

/// Quality, under the headings of EHDS Art. 78.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quality {
    /// Metadata, dictionary, format, source, standards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documentation: Option<Text>,
    /// Completeness, uniqueness, accuracy, validity, timeliness, consistency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub technical_quality: Option<Text>,
    /// How quality is managed: reviews, audits, bias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub management: Option<Text>,
    /// Time, population, representativity, follow-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Text>,
    /// Time between collection and use, and between application and access.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Text>,
    /// Merging, enrichment, changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modifications: Option<Text>,
    /// A page with a certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

impl Quality {
    /// What was said, by heading.
    pub fn headings(&self) -> impl Iterator<Item = (&'static str, &Text)> {
        let headings = [
            ("documentation", &self.documentation),
            ("technical_quality", &self.technical_quality),
            ("management", &self.management),
            ("coverage", &self.coverage),
            ("access", &self.access),
            ("modifications", &self.modifications),
        ];
        headings.into_iter().filter_map(|(heading, text)| Some((heading, text.as_ref()?)))
    }
}

/// What the custodian declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// The title.
    pub title: Text,
    /// What it is.
    pub description: Text,
    /// Search words, at least one.
    pub keywords: Keywords,
    /// Health categories (EHDS Art. 51), at least one: `EHRS`.
    pub health_categories: Vec<String>,
    /// Health themes: `CANCER_DISEASE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health_themes: Vec<String>,
    /// Types of the data set, at least one: `STATISTICAL`.
    pub types: Vec<String>,
    /// Laws that the data set falls under, by address, at least one.
    pub legislation: Vec<String>,
    /// The legal basis of the processing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub legal_basis: Vec<Text>,
    /// What the data was collected for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub purposes: Vec<Text>,
    /// Kinds of personal data, codes of the DPV: `Age`, `HealthRecord`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub personal_data: Vec<String>,
    /// The health data access body.
    pub hdab: Agent,
    /// Who holds the data.
    pub custodian: Agent,
    /// Who publishes this description.
    pub publisher: Agent,
    /// Whom to ask.
    pub contact: Contact,
    /// Where the data comes from.
    pub provenance: Text,
    /// How it is reached.
    pub distribution: Distribution,
    /// Countries: `JPN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spatial: Vec<String>,
    /// The time that the data is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temporal: Option<Period>,
    /// How long it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Period>,
    /// Which population is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub population_coverage: Option<Text>,
    /// The least age to expect, in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_age: Option<u16>,
    /// The greatest age to expect, in years.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u16>,
    /// Languages: `JPN`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub languages: Vec<String>,
    /// How often it changes: `DAILY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
    /// Terminologies in use: `ICD-10`, `LOINC`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub coding_systems: Vec<String>,
    /// Technical standards: `OMOP-CDM`, `FHIR`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conforms_to: Vec<String>,
    /// Pages that describe it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<String>,
    /// Reports and indicators made of it, by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub analytics: Vec<String>,
    /// Its quality.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
}

impl Declared {
    /// The rules of the fields.
    ///
    /// # Errors
    /// A sentence that begins with the field.
    pub fn check(&self) -> Result<(), String> {
        self.title.check("title")?;
        self.description.check("description")?;
        self.provenance.check("provenance")?;
        self.population_coverage.as_ref().map_or(Ok(()), |text| text.check("population_coverage"))?;
        for (field, texts) in [("legal_basis", &self.legal_basis), ("purposes", &self.purposes)] {
            list(field, texts.len(), MAX_LIST)?;
            texts.iter().try_for_each(|text| text.check(field))?;
        }
        list("keywords", self.keywords.words().count(), MAX_LIST)?;
        if self.keywords.words().any(|(_, word)| word.trim().is_empty() || word.len() > 200) {
            return Err("keywords: a word has 1 to 200 bytes".into());
        }
        let one = |field: &str, length| if length == 0 { Err(format!("{field}: at least one")) } else { Ok(()) };
        one("keywords", self.keywords.words().count())?;
        one("health_categories", self.health_categories.len())?;
        one("types", self.types.len())?;
        one("legislation", self.legislation.len())?;
        for (field, given) in [
            ("health_categories", &self.health_categories),
            ("health_themes", &self.health_themes),
            ("types", &self.types),
            ("personal_data", &self.personal_data),
            ("spatial", &self.spatial),
            ("languages", &self.languages),
            ("coding_systems", &self.coding_systems),
            ("conforms_to", &self.conforms_to),
        ] {
            codes(field, given)?;
        }
        codes("frequency", self.frequency.as_slice())?;
        for (field, given) in
            [("legislation", &self.legislation), ("pages", &self.pages), ("analytics", &self.analytics)]
        {
            list(field, given.len(), MAX_LIST)?;
            given.iter().try_for_each(|text| address(field, text))?;
        }
        self.hdab.check("hdab")?;
        self.custodian.check("custodian")?;
        self.publisher.check("publisher")?;
        self.contact.check("contact")?;
        self.distribution.title.check("distribution.title")?;
        address("distribution.access_url", &self.distribution.access_url)?;
        self.temporal.map_or(Ok(()), |period| period.check("temporal"))?;
        self.retention.map_or(Ok(()), |period| period.check("retention"))?;
        if self.min_age.zip(self.max_age).is_some_and(|(min, max)| min > max) || self.max_age > Some(150) {
            return Err("max_age: at least min_age, and at most 150".into());
        }
        let Some(quality) = &self.quality else { return Ok(()) };
        quality.headings().try_for_each(|(heading, text)| text.check(&format!("quality.{heading}")))?;
        quality.certificate.as_ref().map_or(Ok(()), |page| address("quality.certificate", page))
    }
}

fn codes(field: &str, given: &[String]) -> Result<(), String> {
    list(field, given.len(), MAX_LIST)?;
    match given.iter().find(|code| !is_code(code)) {
        Some(code) => Err(format!("{field}: {code:?} is no code: 1-64 letters, digits, '.', '_' and '-'")),
        None => Ok(()),
    }
}

fn is_email(text: &str) -> bool {
    let part = |p: &str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b));
    text.len() <= 254 && text.split_once('@').is_some_and(|(name, host)| part(name) && part(host))
}

/// That `text` is an address that RDF takes as it stands (RFC 3986, with a host).
fn address(field: &str, text: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#@!$&'()*+,;=%".contains(&b);
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let (host, port) = host.split_once(':').unwrap_or((host, ""));
    let fine = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        && port.bytes().all(|b| b.is_ascii_digit())
        && text.len() <= MAX_ADDRESS
        && text.bytes().all(allowed)
        && text.matches('#').count() <= 1
        && text
            .split('%')
            .skip(1)
            .all(|after| after.len() >= 2 && after.bytes().take(2).all(|b| b.is_ascii_hexdigit()));
    if fine {
        return Ok(());
    }
    Err(format!(
        "{field}: it is no address such as https://example.org/page, of at most {MAX_ADDRESS} ASCII characters"
    ))
}
