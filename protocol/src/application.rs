//! `application/1`: what somebody asks a committee to permit, signed by a person who would ask the queries.
//!
//! The fields are those of EHDS Arts. 67 and 69 and of NGMIA practice. An application need not be complete to be signed and
//! handed in: that is the first question of its review, and which fields the law asks for is data elsewhere. It is always
//! bounded, whatever is missing.
//!
//! What a permit is compared with ([`crate::within`]) is written here in the permit's own terms. The dry runs that are
//! attached are the applicant's own words: a committee makes them again.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    disclosure::Rules,
    dsse::Document,
    keys::PublicKey,
    permit::{Basis, Dp, OutputReview, Preset, Purpose, ReleaseKind, Statistic},
    purpose::{DeclaredPurpose, PurposeError},
    query::{MAX_SQL_BYTES, Terms},
    roster::is_name,
    units::{AttoDelta, MicroRho},
};

/// The most entries of a list, but for queries.
pub const MAX_ENTRIES: usize = 1024;
/// The most queries of an application.
pub const MAX_QUERIES: usize = 64;
/// The longest text in bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// How often an application may be changed.
pub const MAX_VERSION: u32 = 100;

/// Who applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Applicant {
    /// The organisation or person; the permit's `data_user`.
    pub name: String,
    /// What they do.
    pub functions: String,
    /// Public, academic, industry, …
    pub sector: String,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// A person who would ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// Who it is: an id of the study's choice.
    pub id: String,
    /// What they do in the study.
    pub role: String,
    /// The key that signs their queries.
    pub key: PublicKey,
    /// SHA-256 of the key, as people compare it.
    pub key_fingerprint: Digest,
    /// What they were trained in, and when.
    #[serde(default)]
    pub training: String,
}

/// A table, and what is wanted of it where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedTable {
    /// The table of the schema.
    pub table: String,
    /// Its columns.
    #[serde(default)]
    pub columns: Vec<String>,
    /// The hospitals, by roster name.
    #[serde(default)]
    pub holder_nodes: Vec<String>,
    /// The data set, as the catalogue calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dataset: String,
    /// Categories of EHDS Art. 51.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// From when to when the data are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub time_range: String,
    /// Of which region.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub geography: String,
}

/// In which form data are asked for: nothing but statistics leaves this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Anonymous statistics.
    Statistics,
}

/// For how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Period {
    /// The first second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<DateTime<Utc>>,
    /// The first second at which the permit need no longer hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<DateTime<Utc>>,
    /// Why so long.
    pub justification: String,
}

/// An ethics committee's opinion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ethics {
    /// Which committee.
    pub body: String,
    /// Its number for the opinion.
    pub id: String,
    /// Of which day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date: Option<NaiveDate>,
}

/// What Japan's law on next-generation medical infrastructure asks besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jp {
    /// The certified operator.
    pub certified_operator: String,
    /// The contract with it.
    pub contract_id: String,
    /// The committee that reviewed the use.
    pub review_committee: String,
}

/// What a measure's noise is in a dry run. Numbers are text: nothing that is signed is a floating point number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRunMeasure {
    /// What is measured, in words.
    pub measure: String,
    /// The standard deviation per cell and hospital.
    pub standard_deviation: String,
    /// It counts rows or patients; else it is in units of the column.
    pub counts: bool,
    /// For cells of [`DryRun::cell_sizes`]: the noise of a count as a percentage of the cell, that of a sum for each row.
    pub relative: Vec<String>,
}

/// What the engine says of a query under what the application asks for, before any permit exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Whether nodes would admit it.
    pub admissible: bool,
    /// Why not: code and words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The rules of an exact release: it costs nothing, and no guarantee of differential privacy holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Rules>,
    /// What each hospital would charge for one run.
    pub micro_rho: MicroRho,
    /// And in delta.
    #[serde(default, skip_serializing_if = "AttoDelta::is_zero")]
    pub atto_delta: AttoDelta,
    /// The delta at which epsilon is given; empty of exact releases.
    pub delta: String,
    /// Epsilon of one run for a patient at one hospital; empty of exact releases.
    pub epsilon: String,
    /// How many cells a release has.
    pub cells: u64,
    /// The sizes of cells for which errors are given.
    pub cell_sizes: Vec<u32>,
    /// The noise.
    pub measures: Vec<DryRunMeasure>,
}

/// A query that the study would ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestedQuery {
    /// The SQL, without white space around it.
    pub sql: String,
    /// SHA-256 of the SQL, byte by byte.
    pub sha256: Digest,
    /// The highest run number.
    #[serde(default = "one")]
    pub max_runs: u32,
    /// How its answers shall be released: exact ones cost no rho.
    #[serde(default, skip_serializing_if = "ReleaseKind::is_noised")]
    pub release: ReleaseKind,
    /// What one run shall cost; without it what one query may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_rho: Option<MicroRho>,
    /// How it is narrowed and divided.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
    /// What the applicant's engine said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRun>,
}

fn one() -> u32 {
    1
}

/// The application document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Its id; versions share it.
    pub id: String,
    /// Counts from 1.
    pub version: u32,
    /// The digest of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supersedes: Option<Digest>,
    /// The legal basis.
    pub basis: Basis,
    /// Who applies.
    #[serde(default)]
    pub applicant: Applicant,
    /// Who answers for the study.
    #[serde(default)]
    pub principal_investigator: String,
    /// Who would ask.
    #[serde(default)]
    pub people: Vec<Person>,
    /// What for.
    #[serde(default)]
    pub purposes: Vec<DeclaredPurpose>,
    /// Proof of a public mandate, for the purposes that need one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_mandate: String,
    /// What will be done with the answers.
    #[serde(default)]
    pub use_description: String,
    /// Who gains by it.
    #[serde(default)]
    pub expected_benefit: String,
    /// The study that the budget will belong to.
    #[serde(default)]
    pub study_id: String,
    /// The schema whose names are used, by digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Digest>,
    /// The data.
    #[serde(default)]
    pub data: Vec<RequestedTable>,
    /// In which form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// Why in that form.
    #[serde(default)]
    pub level_justification: String,
    /// How misuse and re-identification are prevented.
    #[serde(default)]
    pub safeguards: String,
    /// For how long.
    #[serde(default)]
    pub period: Period,
    /// The ethics committee's opinion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethics: Option<Ethics>,
    /// Whether results may stigmatise a group, and what is done about it.
    #[serde(default)]
    pub stigma_declaration: String,
    /// The applicant knows what is prohibited (EHDS Arts. 54 and 61).
    #[serde(default)]
    pub prohibited_uses_acknowledged: bool,
    /// What the answer shall show.
    #[serde(default)]
    pub result_expected: String,
    /// What the statistics contain.
    #[serde(default)]
    pub statistic_content: String,
    /// The statistics.
    #[serde(default)]
    pub statistics: Vec<Statistic>,
    /// The kinds of release.
    #[serde(default)]
    pub release_kinds: Vec<ReleaseKind>,
    /// The disclosure rule of published tables, or a stricter one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disclosure: Option<Preset>,
    /// The privacy parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dp: Option<Dp>,
    /// Who sees results first, or more of them.
    #[serde(default)]
    pub output_review: OutputReview,
    /// Only the queries of the list are asked for.
    #[serde(default)]
    pub only_these_queries: bool,
    /// The queries.
    #[serde(default)]
    pub queries: Vec<RequestedQuery>,
    /// What Japan's law asks besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jp: Option<Jp>,
}

impl Application {
    /// The purposes, when all of them may be granted.
    ///
    /// # Errors
    /// The first that is prohibited, with its article.
    pub fn permissible_purposes(&self) -> Result<Vec<Purpose>, PurposeError> {
        self.purposes.iter().map(|purpose| purpose.permissible()).collect()
    }

    /// The keys of its people.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.people.iter().map(|person| person.key).collect()
    }

    /// The person whose key has this fingerprint.
    pub fn person(&self, fingerprint: Digest) -> Option<&Person> {
        self.people.iter().find(|person| person.key_fingerprint == fingerprint)
    }

    /// Every text that a person wrote.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let Applicant { name, functions, sector, country } = &self.applicant;
        let ethics = self.ethics.iter().flat_map(|e| [&e.body, &e.id]);
        let jp = self.jp.iter().flat_map(|jp| [&jp.certified_operator, &jp.contract_id, &jp.review_committee]);
        let people = self.people.iter().flat_map(|p| [&p.id, &p.role, &p.training]);
        let data = self.data.iter().flat_map(|t| {
            let lists = [&t.columns, &t.holder_nodes, &t.categories].into_iter().flatten();
            [&t.table, &t.dataset, &t.time_range, &t.geography].into_iter().chain(lists)
        });
        [name, functions, sector, country, &self.principal_investigator, &self.public_mandate]
            .into_iter()
            .chain([&self.use_description, &self.expected_benefit, &self.level_justification, &self.safeguards])
            .chain([&self.period.justification, &self.stigma_declaration, &self.result_expected])
            .chain([&self.statistic_content])
            .chain(ethics)
            .chain(jp)
            .chain(people)
            .chain(data)
    }
}

impl RequestedQuery {
    fn check(&self) -> Result<(), String> {
        if self.sql.is_empty() || self.sql.len() > MAX_SQL_BYTES || self.sql.trim() != self.sql {
            return Err(format!("a query's sql has 1 to {MAX_SQL_BYTES} bytes, and no white space around it"));
        }
        if self.sha256 != Digest::of(self.sql.as_bytes()) {
            return Err("a query's sha256 is not that of its sql".into());
        }
        if !(1..=1_000_000).contains(&self.max_runs) {
            return Err("a query's max_runs is 1 to 1000000".into());
        }
        self.terms.check()?;
        let Some(run) = &self.dry_run else { return Ok(()) };
        let measures =
            run.measures.iter().flat_map(|m| [&m.measure, &m.standard_deviation].into_iter().chain(&m.relative));
        let lists = run.measures.len() <= MAX_ENTRIES
            && run.cell_sizes.len() <= 16
            && run.measures.iter().all(|m| m.relative.len() == run.cell_sizes.len());
        if !lists || !measures.chain([&run.delta, &run.epsilon]).all(|text| text.len() <= 1024) {
            return Err("a query's dry_run is too long, or has not one error for each cell size".into());
        }
        if run.refusal.as_ref().is_some_and(|r| r.len() > 4096) || run.admissible == run.refusal.is_some() {
            return Err("a dry_run is admissible, or has a refusal".into());
        }
        Ok(())
    }
}

impl Application {
    /// That what shall be exact can be granted so: a permit lists it.
    fn check_releases(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        let exact: Vec<_> = self.queries.iter().filter(|query| query.release == ReleaseKind::Aggregated).collect();
        rule(
            self.release_kinds.contains(&ReleaseKind::Aggregated) != exact.is_empty(),
            "release_kinds has aggregated exactly when a query's release is aggregated",
        )?;
        if exact.is_empty() {
            return Ok(());
        }
        rule(
            self.only_these_queries,
            "a query's release is aggregated: only_these_queries must be true, since a permit that lists queries allows no \
             others",
        )?;
        rule(
            self.disclosure != Some(Preset::None),
            "a query's release is aggregated: disclosure none would hide nothing",
        )?;
        let free = |query: &&RequestedQuery| query.micro_rho.is_none_or(|rho| rho == MicroRho::ZERO);
        rule(
            exact.iter().all(|query| free(query) && query.terms.is_default()),
            "an aggregated query costs no rho and has no terms: leave micro_rho and terms out",
        )
    }
}

impl Document for Application {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.application.v1+json";
    const NAME: &'static str = "application";
    const MAX_BYTES: usize = 1 << 20;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(is_name(&self.id), "id is 1-64 lower-case letters, digits and hyphens")?;
        rule(
            self.study_id.is_empty() || is_name(&self.study_id),
            "study_id is 1-64 lower-case letters, digits and hyphens",
        )?;
        rule((1..=MAX_VERSION).contains(&self.version), "version counts from 1 to 100")?;
        rule(
            (self.version > 1) == self.supersedes.is_some(),
            "supersedes is the digest of the version before, from version 2 on",
        )?;
        rule(self.texts().all(|text| text.len() <= MAX_TEXT), "a text has at most 16384 bytes")?;
        let country = &self.applicant.country;
        rule(
            country.is_empty() || (country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase())),
            "applicant.country is two capital letters (ISO 3166-1)",
        )?;
        rule(self.people.len() <= MAX_ENTRIES && self.data.len() <= MAX_ENTRIES, "people or data is too long")?;
        rule(self.purposes.len() <= 16 && self.statistics.len() <= 16, "purposes or statistics is too long")?;
        rule(self.release_kinds.len() <= 16, "release_kinds is too long")?;
        let ids: BTreeSet<_> = self.people.iter().map(|p| &p.id).collect();
        rule(ids.len() == self.people.len(), "people names each id once")?;
        for person in &self.people {
            rule(person.key.fingerprint() == person.key_fingerprint, "a key_fingerprint is not that of its key")?;
        }
        let tables: BTreeSet<_> = self.data.iter().map(|t| &t.table).collect();
        rule(tables.len() == self.data.len(), "data names each table once")?;
        for table in &self.data {
            let lists = [&table.columns, &table.holder_nodes, &table.categories];
            rule(lists.iter().all(|list| list.len() <= MAX_ENTRIES), "a list of data is too long")?;
        }
        if let (Some(from), Some(to)) = (self.period.from, self.period.to) {
            rule(from < to, "period.from must be before period.to")?;
        }
        self.dp.as_ref().map_or(Ok(()), Dp::check)?;
        self.check_releases()?;
        rule(self.queries.len() <= MAX_QUERIES, "at most 64 queries are attached")?;
        let digests: BTreeSet<_> = self.queries.iter().map(|q| q.sha256).collect();
        rule(digests.len() == self.queries.len(), "queries names each SQL once")?;
        self.queries.iter().try_for_each(RequestedQuery::check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A draft with one query.
    fn application() -> Application {
        let sql = "SELECT count(*) FROM stay";
        serde_json::from_value(serde_json::json!({
            "id": "a", "version": 1, "basis": "EHDS-69", "release_kinds": ["aggregated"], "disclosure": "jp-ndb",
            "only_these_queries": true,
            "queries": [{"sql": sql, "sha256": Digest::of(sql.as_bytes()), "release": "aggregated"}],
        }))
        .unwrap()
    }

    #[test]
    fn an_exact_query_is_asked_for_as_a_permit_can_grant_it() {
        assert_eq!(application().check(), Ok(()));
        type Change = fn(&mut Application);
        let cases: [(Change, &str); 6] = [
            (|a| a.release_kinds = vec![ReleaseKind::Noised], "release_kinds has aggregated exactly"),
            (|a| a.queries[0].release = ReleaseKind::Noised, "release_kinds has aggregated exactly"),
            (|a| a.only_these_queries = false, "only_these_queries must be true"),
            (|a| a.disclosure = Some(Preset::None), "would hide nothing"),
            (|a| a.queries[0].micro_rho = MicroRho::try_from(1).ok(), "costs no rho"),
            (|a| a.queries[0].terms.rows_per_patient = Some(1), "has no terms"),
        ];
        for (change, why) in cases {
            let mut application = application();
            change(&mut application);
            let said = application.check().unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }
}
