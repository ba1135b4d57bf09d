//! What a policy decides about, in our own words: a query, or a permit that arrived.
//!
//! Everything here comes from documents that were verified, from the plan that this node made of the SQL, and from the
//! hospital's own mapping. Nothing comes from a request otherwise.

use std::collections::BTreeSet;

use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{
    permit::{Basis, Mechanism, OutputReview, Permit, Purpose, ReleaseKind, Statistic},
    schema::Schema,
    units::{AttoDelta, MicroRho},
};

/// The organisation that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organisation {
    /// Its name in the permit.
    pub name: String,
    /// Its country, where the permit says it.
    pub country: Option<String>,
}

/// A person whom the permit authorises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Their id in the permit.
    pub id: String,
    /// What they do in the study.
    pub role: String,
}

/// What is said of the study and of the data, for a query as for a permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Study {
    /// Who asks.
    pub organisation: Organisation,
    /// The permit's id.
    pub permit_id: String,
    /// The study.
    pub study_id: String,
    /// What for.
    pub purposes: Vec<Purpose>,
    /// The legal basis.
    pub basis: Basis,
    /// The noise.
    pub mechanism: Mechanism,
    /// The data set, by its mapping's id.
    pub data_set: String,
    /// It is declared synthetic.
    pub synthetic: bool,
}

/// What is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The tables.
    pub tables: BTreeSet<String>,
    /// The columns as (table, column).
    pub columns: BTreeSet<(String, String)>,
    /// The statistics.
    pub statistics: BTreeSet<Statistic>,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The study.
    pub study: Study,
    /// Who signed it.
    pub person: Person,
    /// What it reads.
    pub scope: Scope,
    /// How its result is released.
    pub release: ReleaseKind,
    /// What it costs.
    pub micro_rho: MicroRho,
    /// The delta that it may spend.
    pub atto_delta: AttoDelta,
}

/// A permit that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The study.
    pub study: Study,
    /// What it allows to read at this hospital.
    pub scope: Scope,
    /// The kinds of release.
    pub releases: Vec<ReleaseKind>,
    /// The most that one query may cost.
    pub micro_rho_per_query: MicroRho,
    /// What the study may cost here.
    pub micro_rho_total: MicroRho,
    /// The most delta of one query.
    pub atto_delta_per_query: AttoDelta,
    /// The delta of the study.
    pub atto_delta_total: AttoDelta,
    /// How many people it authorises.
    pub people: usize,
    /// For how many days it holds.
    pub days: i64,
    /// It lists its queries.
    pub listed_queries: bool,
    /// Results wait for two reviewers.
    pub two_person_review: bool,
}

/// A data set as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct DataFacts<'a> {
    /// Its mapping's id.
    pub id: &'a str,
    /// It is declared synthetic.
    pub synthetic: bool,
    /// What its data is mapped to.
    pub schema: &'a Schema,
}

impl Study {
    fn of(permit: &Permit, data: DataFacts<'_>) -> Self {
        Self {
            organisation: Organisation { name: permit.data_user.clone(), country: permit.country.clone() },
            permit_id: permit.id.clone(),
            study_id: permit.study_id.clone(),
            purposes: permit.purposes.clone(),
            basis: permit.basis,
            mechanism: permit.dp.mechanism,
            data_set: data.id.into(),
            synthetic: data.synthetic,
        }
    }
}

impl Asked {
    /// The query that `person` asks under `permit`, as this node planned it over `data`.
    pub fn new(
        permit: &Permit,
        person: Person,
        plan: &PrivatePlan,
        atto_delta: AttoDelta,
        data: DataFacts<'_>,
    ) -> Self {
        let scope = Scope {
            tables: plan.tables().iter().cloned().collect(),
            columns: plan.columns().iter().cloned().collect(),
            statistics: plan.statistics().iter().copied().collect(),
        };
        let release = if plan.exact().is_some() { ReleaseKind::Aggregated } else { ReleaseKind::Noised };
        Self { study: Study::of(permit, data), person, scope, release, micro_rho: plan.micro_rho(), atto_delta }
    }
}

impl Offered {
    /// The permit as it concerns the hospital `holder`: its tables there, and those of its columns that the schema has.
    pub fn new(permit: &Permit, holder: &str, data: DataFacts<'_>) -> Self {
        let mut scope = Scope { statistics: permit.allowed_statistics.iter().copied().collect(), ..Scope::default() };
        for table in permit.data.iter().filter(|t| t.holder_nodes.iter().any(|name| name == holder)) {
            let Some(known) = data.schema.table(&table.table) else { continue };
            scope.tables.insert(known.name.clone());
            let has = |column: &&String| known.columns.iter().any(|c| c.name == **column);
            let columns = table.columns.iter().filter(has);
            scope.columns.extend(columns.map(|column| (known.name.clone(), column.clone())));
        }
        Self {
            study: Study::of(permit, data),
            scope,
            releases: permit.release_kinds.clone(),
            micro_rho_per_query: permit.dp.micro_rho_per_query,
            micro_rho_total: permit.dp.micro_rho_total,
            atto_delta_per_query: permit.dp.atto_delta_per_query,
            atto_delta_total: permit.dp.atto_delta_total,
            people: permit.authorised_persons.len(),
            days: (permit.validity.to - permit.validity.from).num_days(),
            listed_queries: permit.allowed_queries.is_some(),
            two_person_review: permit.output_review == OutputReview::TwoPerson,
        }
    }
}
