//! A hospital's own question: how many records and patients a table has, and how often its columns have a value.
//!
//! It is an ordinary private plan over ordinary SQL. The permit in it is nobody's grant: it holds the bounds and the price for
//! the analysis and the ledger, and the version is the draw's number, so that each draw is a run of its own.

use chrono::{DateTime, TimeDelta, Utc};
use sekisho_aggregation::{
    plan::{Output, PrivatePlan},
    release::Release,
};
use sekisho_protocol::{
    catalogue::{Counts, Estimate, Present, STUDY},
    digest::Digest,
    permit::{
        Basis, Decision, Dp, Mechanism, OptOut, OutputReview, Permit, PermittedTable, Preset, ReleaseKind, Statistic,
        Validity,
    },
    query::{Query, Terms},
    refusal::Refusal,
    schema::Schema,
    units::{AttoDelta, MicroRho},
};
use serde::{Deserialize, Serialize};

use super::declaration::Counted;
use crate::ledger::RunKey;

/// A count as it is asked, whole, so that it is asked again in the same words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnCount {
    permit: Permit,
    query: Query,
    columns: Vec<String>,
}

/// What a count is made of.
pub(super) struct Wanted<'a> {
    pub(super) node: &'a str,
    pub(super) schema: Digest,
    pub(super) data_set: &'a str,
    pub(super) table: &'a str,
    pub(super) patient: &'a str,
    pub(super) counted: &'a Counted,
    pub(super) optout: OptOut,
    pub(super) micro_rho: MicroRho,
    pub(super) total: MicroRho,
    pub(super) nonce: [u8; 16],
    pub(super) now: DateTime<Utc>,
}

impl OwnCount {
    /// The question of draw number `draw`.
    pub(super) fn new(wanted: &Wanted<'_>, draw: u32) -> Self {
        let Wanted { node, table, counted, .. } = wanted;
        let permit = Permit {
            id: STUDY.into(),
            version: draw,
            supersedes: None,
            application_id: None,
            application: None,
            basis: Basis::JpEthics,
            issuer: (*node).into(),
            decision: Decision {
                date: wanted.now.date_naive(),
                reasons: format!("counts of {} for the hospital's own catalogue", wanted.data_set),
                recused: Vec::new(),
            },
            purposes: Vec::new(),
            data_user: (*node).into(),
            country: None,
            principal_investigator: (*node).into(),
            authorised_persons: Vec::new(),
            study_id: STUDY.into(),
            schema: wanted.schema,
            data: vec![PermittedTable {
                table: (*table).into(),
                columns: counted.columns.clone(),
                holder_nodes: vec![(*node).into()],
            }],
            allowed_queries: None,
            allowed_statistics: vec![Statistic::Count, Statistic::CountDistinct],
            release_kinds: vec![ReleaseKind::Noised],
            disclosure: Preset::None,
            dp: Dp {
                rows_per_patient: counted.rows_per_patient,
                groups_per_patient: 1,
                sites_per_patient: 1,
                micro_rho_per_query: wanted.micro_rho,
                micro_rho_total: wanted.total,
                delta_for_reports: "1e-6".into(),
                mechanism: Mechanism::Gaussian,
                atto_delta_per_query: AttoDelta::ZERO,
                atto_delta_total: AttoDelta::ZERO,
            },
            optout: wanted.optout,
            output_review: OutputReview::Automatic,
            validity: Validity { from: wanted.now, to: wanted.now + TimeDelta::days(1) },
            results_due: None,
            conditions: Vec::new(),
        };
        let query = Query {
            permit: Self::digest_of(&permit),
            sql: sql(table, wanted.patient, &counted.columns),
            holders: vec![(*node).into()],
            micro_rho: wanted.micro_rho,
            run: 1,
            expires: wanted.now + TimeDelta::hours(1),
            nonce: hex::encode(wanted.nonce),
            terms: Terms::default(),
        };
        Self { permit, query, columns: counted.columns.clone() }
    }

    fn digest_of<T: Serialize>(document: &T) -> Digest {
        Digest::of(&Self::bytes_of(document))
    }

    fn bytes_of<T: Serialize>(document: &T) -> Vec<u8> {
        // Strings and numbers only: this cannot fail.
        serde_json::to_vec(document).unwrap_or_default()
    }

    /// Query and permit in the bytes that their digests are of.
    pub(crate) fn written(&self) -> [Vec<u8>; 2] {
        [Self::bytes_of(&self.query), Self::bytes_of(&self.permit)]
    }

    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    pub(crate) fn permit_digest(&self) -> Digest {
        self.query.permit
    }

    pub(crate) fn query(&self) -> &Query {
        &self.query
    }

    pub(crate) fn query_digest(&self) -> Digest {
        Self::digest_of(&self.query)
    }

    pub(super) fn key(&self) -> RunKey {
        RunKey { permit: self.permit_digest(), query_key: self.query.key(), run: self.query.run }
    }

    /// The plan of the question.
    ///
    /// # Errors
    /// The refusal of the analysis, such as a rho that cannot be divided over so many columns.
    pub(super) fn plan(&self, schema: &Schema) -> Result<PrivatePlan, Refusal> {
        PrivatePlan::analyse(&self.query.sql, schema, &self.permit, self.query.micro_rho)
    }

    /// What `release` says; none when it is of another plan.
    pub(super) fn counts(&self, plan: &PrivatePlan, release: &Release) -> Option<Counts> {
        if release.header().plan != plan.digest() {
            return None;
        }
        let (part, numbers) = (plan.parts().first()?, release.parts().first()?);
        let estimate = |output: &Output| {
            let place = match output {
                Output::One { measure } => *measure,
                Output::Patients { measures } => *measures.first()?,
                Output::Avg { .. }
                | Output::Moments { .. }
                | Output::Quantile { .. }
                | Output::Extreme { .. }
                | Output::Grouping { .. } => return None,
            };
            let measure = part.measures().get(place)?;
            let (number, unit) = (*numbers.get(place)?.first()?, part.unit(measure));
            let half = if number < 0 { -(unit / 2) } else { unit / 2 };
            let whole = number.saturating_add(half).checked_div(unit)?;
            Some(Estimate {
                estimate: i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX }),
                standard_deviation: up(part.deviation(measure)?),
            })
        };
        let mut found = part.outputs().iter().map(estimate);
        let (records, individuals) = (found.next()??, found.next()??);
        let present = |column: &String| Some(Present { column: column.clone(), records: found.next()?? });
        Some(Counts {
            drawn_on: release.header().as_of,
            micro_rho: release.header().micro_rho,
            rows_per_patient: self.permit.dp.rows_per_patient,
            release: release.digest(),
            records,
            individuals,
            present: self.columns.iter().map(present).collect::<Option<_>>()?,
        })
    }
}

/// A standard deviation as a whole number, rounded up.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative, and casts saturate")]
fn up(deviation: f64) -> u64 {
    deviation.ceil() as u64
}

/// Names are those of a schema: lower-case letters, digits and underscores; quoted, since one may be a word of SQL.
fn sql(table: &str, patient: &str, columns: &[String]) -> String {
    let mut items = vec!["count(*) AS n".to_string(), format!("count(DISTINCT \"{patient}\") AS p")];
    items.extend(columns.iter().enumerate().map(|(i, column)| format!("count(\"{column}\") AS c{i}")));
    format!("SELECT {} FROM \"{table}\"", items.join(", "))
}
