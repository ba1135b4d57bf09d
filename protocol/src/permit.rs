//! `permit/1`: what a committee granted, signed by k of its n members.
//!
//! The fields are those of EHDS Arts. 67-69 and of NGMIA practice that a machine acts on. A request can
//! narrow a permit, never widen it.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    keys::PublicKey,
    roster::is_name,
    units::{AttoDelta, MicroRho},
};

/// The most entries in any list of a permit.
pub const MAX_ENTRIES: usize = 1024;

/// The legal basis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Basis {
    /// EHDS Art. 68: data permit.
    #[serde(rename = "EHDS-68")]
    Ehds68,
    /// EHDS Art. 69: data request, a statistical answer only.
    #[serde(rename = "EHDS-69")]
    Ehds69,
    /// EHDS Art. 72: trusted holder.
    #[serde(rename = "EHDS-72")]
    Ehds72,
    /// NGMIA, anonymised.
    #[serde(rename = "JP-NGMIA-anonymised")]
    JpNgmiaAnonymised,
    /// NGMIA, pseudonymised.
    #[serde(rename = "JP-NGMIA-pseudonymised")]
    JpNgmiaPseudonymised,
    /// An ethics committee's approval.
    #[serde(rename = "JP-ethics")]
    JpEthics,
}

impl Basis {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ehds68 => "EHDS-68",
            Self::Ehds69 => "EHDS-69",
            Self::Ehds72 => "EHDS-72",
            Self::JpNgmiaAnonymised => "JP-NGMIA-anonymised",
            Self::JpNgmiaPseudonymised => "JP-NGMIA-pseudonymised",
            Self::JpEthics => "JP-ethics",
        }
    }

    /// The basis for people, in English and Japanese.
    pub const fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Ehds68 => ("EHDS Art. 68: data permit", "EHDS 第68条（データ許可）"),
            Self::Ehds69 => ("EHDS Art. 69: data request, statistics only", "EHDS 第69条（データ請求：統計のみ）"),
            Self::Ehds72 => ("EHDS Art. 72: trusted holder", "EHDS 第72条（信頼された保有者）"),
            Self::JpNgmiaAnonymised => {
                ("NGMIA: anonymised medical information", "次世代医療基盤法（匿名加工医療情報）")
            }
            Self::JpNgmiaPseudonymised => {
                ("NGMIA: pseudonymised medical information", "次世代医療基盤法（仮名加工医療情報）")
            }
            Self::JpEthics => ("Approval by an ethics committee", "倫理審査委員会の承認"),
        }
    }
}

/// The purposes of EHDS Art. 53(1): a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Purpose {
    /// (a) public or occupational health.
    PublicHealth,
    /// (b) policy and regulation.
    PolicyAndRegulation,
    /// (c) official statistics.
    OfficialStatistics,
    /// (d) education.
    Education,
    /// (e) scientific research, with development, algorithms and device evaluation.
    ScientificResearch,
    /// (f) improving care.
    ImprovingCare,
}

/// A statistic that a query may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// `count(*)` and `count(column)`.
    Count,
    /// `count(DISTINCT patient)`.
    CountDistinct,
    /// `sum`.
    Sum,
    /// `avg`.
    Avg,
    /// Variances and standard deviations.
    Variance,
    /// Covariances and correlations.
    Covariance,
    /// Medians and other quantiles.
    Quantile,
    /// Minima and maxima.
    Extreme,
}

impl Statistic {
    /// The name in documents and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::CountDistinct => "count_distinct",
            Self::Sum => "sum",
            Self::Avg => "avg",
            Self::Variance => "variance",
            Self::Covariance => "covariance",
            Self::Quantile => "quantile",
            Self::Extreme => "extreme",
        }
    }
}

/// What kind of release a permit allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseKind {
    /// Noised under differential privacy.
    #[default]
    Noised,
    /// Exact statistics under the preset's rules: only of queries that the permit lists, once per dated cut of the data, after
    /// a person at the hospital has looked at them.
    Aggregated,
}

impl ReleaseKind {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Noised => "noised",
            Self::Aggregated => "aggregated",
        }
    }

    /// Whether it is the kind of every document that does not say.
    pub fn is_noised(&self) -> bool {
        *self == Self::Noised
    }
}

/// The disclosure rule for published tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Japan's national database: 1-9 patients hidden, 0 may be shown.
    JpNdb,
    /// US CMS: 1-10 hidden.
    Cms,
    /// OpenSAFELY: 7 and less hidden, the rest rounded to 5.
    Opensafely,
    /// DataSHIELD: 1-2 hidden.
    Datashield,
    /// ACRO: under 10 hidden, dominated sums too, the rest rounded to 5.
    Acro,
    /// Nothing hidden beyond the noise; for synthetic data and for method studies.
    None,
}

/// Which patients a study leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptOutRule {
    /// Notified at least `days` ago, not opted out, not dead before notice.
    JpNgmia,
    /// Not opted out (EHDS Art. 71).
    EuEhds,
}

/// A person who may ask under the permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorisedPerson {
    /// Who it is: an id of the study's choice.
    pub id: String,
    /// What they do in the study.
    pub role: String,
    /// The key that signs their queries.
    pub key: PublicKey,
    /// SHA-256 of the key, as people compare it.
    pub key_fingerprint: Digest,
}

/// One table of the permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermittedTable {
    /// The table of the schema.
    pub table: String,
    /// The columns that may be used; the patient column is always usable, and only to count patients.
    pub columns: Vec<String>,
    /// The hospitals that may be asked, by roster name.
    pub holder_nodes: Vec<String>,
}

/// The privacy parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dp {
    /// How many rows of one patient count in full.
    pub rows_per_patient: u32,
    /// In how many groups one patient is counted by `count(DISTINCT patient)`.
    pub groups_per_patient: u32,
    /// At how many hospitals one patient may be: an assumption that reports state.
    pub sites_per_patient: u32,
    /// The most that one query may cost.
    pub micro_rho_per_query: MicroRho,
    /// What the whole study may cost at each hospital.
    pub micro_rho_total: MicroRho,
    /// The delta at which reports give epsilon, as text: "1e-6".
    pub delta_for_reports: String,
    /// The noise: `gaussian` unless the study asks for pure epsilon.
    #[serde(default, skip_serializing_if = "Mechanism::is_gaussian")]
    pub mechanism: Mechanism,
    /// The most delta that one query may spend on group keys that are not public; with zero there are none.
    #[serde(default, skip_serializing_if = "AttoDelta::is_zero")]
    pub atto_delta_per_query: AttoDelta,
    /// The delta of the whole study at each hospital.
    #[serde(default, skip_serializing_if = "AttoDelta::is_zero")]
    pub atto_delta_total: AttoDelta,
}

impl Dp {
    /// The rules that the parameters keep.
    ///
    /// # Errors
    /// A sentence that names the field and the rule.
    pub fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule((1..=1_000_000).contains(&self.rows_per_patient), "dp.rows_per_patient is 1 to 1000000")?;
        rule((1..=1_000_000).contains(&self.groups_per_patient), "dp.groups_per_patient is 1 to 1000000")?;
        rule((1..=1000).contains(&self.sites_per_patient), "dp.sites_per_patient is 1 to 1000")?;
        rule(self.micro_rho_per_query > MicroRho::ZERO, "dp.micro_rho_per_query must be above 0")?;
        rule(self.micro_rho_per_query <= self.micro_rho_total, "dp.micro_rho_per_query is above micro_rho_total")?;
        rule(self.atto_delta_per_query <= self.atto_delta_total, "dp.atto_delta_per_query is above atto_delta_total")?;
        rule(
            self.mechanism == Mechanism::Gaussian || self.atto_delta_total.is_zero(),
            "dp.mechanism laplace is pure epsilon: it has no delta",
        )?;
        let delta: Option<f64> = self.delta_for_reports.parse().ok();
        rule(delta.is_some_and(|d| d > 0.0 && d < 1.0), "dp.delta_for_reports is between 0 and 1")
    }
}

/// The distribution of a study's noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// Discrete Gaussian: zCDP.
    #[default]
    Gaussian,
    /// Discrete Laplace: pure epsilon-DP, charged as epsilon²/2.
    Laplace,
}

impl Mechanism {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_gaussian(&self) -> bool {
        *self == Self::Gaussian
    }
}

/// Which patients the permit leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptOut {
    /// The rule.
    pub rule: OptOutRule,
    /// Days between notice and first use, for `jp-ngmia`.
    pub days: u32,
}

/// The committee's decision, as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The day of the decision.
    pub date: NaiveDate,
    /// Why it was granted.
    pub reasons: String,
    /// Members who declared a conflict of interest, by the fingerprint of their key: their signatures do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recused: Vec<Digest>,
}

/// A query that may be asked, where the permit lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedQuery {
    /// SHA-256 of the SQL text, byte by byte.
    pub sha256: Digest,
    /// The highest run number that may be asked.
    pub max_runs: u32,
    /// How its answers are released: a query is `aggregated` when the permit says so here, whatever is asked.
    #[serde(default, skip_serializing_if = "ReleaseKind::is_noised")]
    pub release: ReleaseKind,
}

/// Who sees a result before the person who asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputReview {
    /// Nobody: noise and preset are all.
    #[default]
    Automatic,
    /// Two reviewers at the coordinator: a procedure of the coordinator, not a protection by the nodes.
    TwoPerson,
}

impl OutputReview {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
    fn is_automatic(&self) -> bool {
        *self == Self::Automatic
    }
}

/// From when to when the permit holds: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// The first second.
    pub from: DateTime<Utc>,
    /// The first second at which it no longer holds.
    pub to: DateTime<Utc>,
}

/// The permit document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permit {
    /// The permit's id; versions share it.
    pub id: String,
    /// Grows with each version.
    pub version: u32,
    /// The digest of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Digest>,
    /// The application that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_id: Option<String>,
    /// That application's digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<Digest>,
    /// The legal basis.
    pub basis: Basis,
    /// Who issued it.
    pub issuer: String,
    /// The decision.
    pub decision: Decision,
    /// What for.
    pub purposes: Vec<Purpose>,
    /// The organisation that asks.
    pub data_user: String,
    /// Where the organisation is: ISO 3166-1 alpha-2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Who answers for the study.
    pub principal_investigator: String,
    /// Who may ask.
    pub authorised_persons: Vec<AuthorisedPerson>,
    /// The study that the budget belongs to; superseding a permit never resets it.
    pub study_id: String,
    /// The schema, by digest.
    pub schema: Digest,
    /// Tables, columns and holders.
    pub data: Vec<PermittedTable>,
    /// The queries that may be asked; without a list, any within the permit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_queries: Option<Vec<AllowedQuery>>,
    /// The statistics that may be asked for.
    pub allowed_statistics: Vec<Statistic>,
    /// The kinds of release.
    pub release_kinds: Vec<ReleaseKind>,
    /// The disclosure rule of published tables.
    pub disclosure: Preset,
    /// The privacy parameters.
    pub dp: Dp,
    /// Which patients are left out.
    pub optout: OptOut,
    /// Who sees results first.
    #[serde(default, skip_serializing_if = "OutputReview::is_automatic")]
    pub output_review: OutputReview,
    /// From when to when.
    pub validity: Validity,
    /// When results must be public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_due: Option<NaiveDate>,
    /// Further conditions, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

impl Permit {
    /// The permitted use of `table`.
    pub fn table(&self, table: &str) -> Option<&PermittedTable> {
        self.data.iter().find(|t| t.table == table)
    }

    /// Every hospital that the permit names, each once, sorted.
    pub fn holders(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.data.iter().flat_map(|t| t.holder_nodes.iter().cloned()).collect();
        names.into_iter().collect()
    }

    /// The entry of this SQL text in the permit's list of queries.
    pub fn listed(&self, sql: &str) -> Option<&AllowedQuery> {
        let sha256 = Digest::of(sql.as_bytes());
        self.allowed_queries.as_ref()?.iter().find(|entry| entry.sha256 == sha256)
    }

    /// How answers to this SQL text are released: as the permit's list says, and noised where it says nothing.
    pub fn release_of(&self, sql: &str) -> ReleaseKind {
        self.listed(sql).map_or(ReleaseKind::Noised, |entry| entry.release)
    }

    /// The authorised person whose key has this fingerprint.
    pub fn person(&self, fingerprint: Digest) -> Option<&AuthorisedPerson> {
        self.authorised_persons.iter().find(|p| p.key_fingerprint == fingerprint)
    }

    /// The rules that kinds of release and listed queries keep together.
    fn check_releases(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        let kinds = &self.release_kinds;
        rule(!kinds.is_empty() && kinds.len() <= 2, "release_kinds must name noised, aggregated or both")?;
        let listed = self.allowed_queries.as_deref().unwrap_or_default();
        let digests: BTreeSet<_> = listed.iter().map(|entry| entry.sha256).collect();
        rule(digests.len() == listed.len(), "allowed_queries lists each query once")?;
        let of = |kind: ReleaseKind| listed.iter().filter(|entry| entry.release == kind).count();
        if kinds.contains(&ReleaseKind::Aggregated) {
            rule(
                of(ReleaseKind::Aggregated) > 0,
                "release_kinds has aggregated: allowed_queries must list such a query",
            )?;
            rule(
                self.disclosure != Preset::None,
                "aggregated releases need a disclosure preset: with none nothing would be hidden",
            )?;
        } else {
            rule(of(ReleaseKind::Aggregated) == 0, "a listed query is aggregated, and release_kinds has only noised")?;
        }
        rule(
            kinds.contains(&ReleaseKind::Noised) || (!listed.is_empty() && of(ReleaseKind::Noised) == 0),
            "release_kinds has only aggregated: allowed_queries must list all queries, as aggregated",
        )
    }
}

impl Document for Permit {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.permit.v1+json";
    const NAME: &'static str = "permit";
    const MAX_BYTES: usize = 1 << 20;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(
            is_name(&self.id) && is_name(&self.study_id),
            "id and study_id are 1-64 lower-case letters, digits and hyphens",
        )?;
        rule(self.study_id != crate::catalogue::STUDY, "study_id catalogue is every hospital's own")?;
        rule(self.version >= 1, "version counts from 1")?;
        rule(!self.purposes.is_empty(), "purposes must name at least one purpose")?;
        rule(
            !self.authorised_persons.is_empty() && self.authorised_persons.len() <= MAX_ENTRIES,
            "authorised_persons must name at least one person",
        )?;
        for person in &self.authorised_persons {
            rule(person.key.fingerprint() == person.key_fingerprint, "a key_fingerprint is not that of its key")?;
        }
        rule(!self.data.is_empty() && self.data.len() <= MAX_ENTRIES, "data must name at least one table")?;
        let tables: BTreeSet<_> = self.data.iter().map(|t| &t.table).collect();
        rule(tables.len() == self.data.len(), "data names each table once")?;
        for table in &self.data {
            rule(table.columns.len() <= MAX_ENTRIES && table.holder_nodes.len() <= MAX_ENTRIES, "a list is too long")?;
        }
        rule(!self.holders().is_empty(), "data must name at least one holder node")?;
        let country = |c: &String| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase());
        rule(self.country.as_ref().is_none_or(country), "country is two capital letters (ISO 3166-1)")?;
        rule(
            self.allowed_queries.as_ref().is_none_or(|q| !q.is_empty() && q.len() <= MAX_ENTRIES),
            "allowed_queries lists 1 to 1024 queries, or is left out",
        )?;
        rule(self.decision.recused.len() <= MAX_ENTRIES, "decision.recused is too long")?;
        rule(!self.allowed_statistics.is_empty(), "allowed_statistics must name at least one")?;
        self.check_releases()?;
        self.dp.check()?;
        rule(self.validity.from < self.validity.to, "validity.from must be before validity.to")?;
        rule(
            self.validity.to - self.validity.from <= chrono::Duration::days(3653),
            "a permit holds at most 10 years (EHDS Art. 68)",
        )
    }
}

#[cfg(test)]
mod tests;
