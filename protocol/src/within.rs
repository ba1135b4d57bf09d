//! Whether a permit grants no more than was applied for.
//!
//! One pure comparison, shared by the member's own machine before it signs, by the coordinator, and by whoever else holds both
//! documents. Deliberately absent: who signed either, and whether the application was complete.

use chrono::{DateTime, Utc};

use crate::{
    application::Application,
    permit::{Dp, OutputReview, Permit, Preset, ReleaseKind},
    refusal::{Code, Refusal},
};

/// The field in which a permit is wider than the application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: the permit has {permitted}, the application {requested}")]
pub struct Wider {
    /// The permit's field: `dp.micro_rho_total`.
    pub field: &'static str,
    /// What the permit grants.
    pub permitted: String,
    /// What was applied for.
    pub requested: String,
}

impl From<Wider> for Refusal {
    fn from(wider: Wider) -> Self {
        Self::new(Code::WiderThanApplication, wider.to_string())
    }
}

fn rule(holds: bool, field: &'static str, permitted: impl ToString, requested: impl ToString) -> Result<(), Wider> {
    if holds {
        return Ok(());
    }
    let short = |text: String| text.chars().take(100).collect();
    Err(Wider { field, permitted: short(permitted.to_string()), requested: short(requested.to_string()) })
}

/// The first of `permitted` that is not among `requested`.
fn among<T: PartialEq>(
    field: &'static str,
    permitted: &[T],
    requested: &[T],
    name: impl Fn(&T) -> String,
) -> Result<(), Wider> {
    match permitted.iter().find(|value| !requested.contains(value)) {
        Some(value) => rule(false, field, name(value), list(requested.iter().map(name))),
        None => Ok(()),
    }
}

fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

impl Preset {
    /// Whether tables under this preset hide all that they hide under `other`, in the same way.
    pub fn is_no_laxer_than(self, other: Self) -> bool {
        self.rules().at_least(&other.rules())
    }
}

impl OutputReview {
    /// Whether at least as many people see a result first.
    pub fn is_no_laxer_than(self, other: Self) -> bool {
        match (self, other) {
            (_, Self::Automatic) | (Self::TwoPerson, Self::TwoPerson) => true,
            (Self::Automatic, Self::TwoPerson) => false,
        }
    }
}

impl Permit {
    /// Checks that this permit grants nothing beyond `application`, field by field. What the application leaves out was not
    /// applied for.
    ///
    /// # Errors
    /// The first field in which it is wider, with both values.
    pub fn within(&self, application: &Application) -> Result<(), Wider> {
        let id = self.application_id.as_deref().unwrap_or("none");
        rule(id == application.id, "application_id", id, &application.id)?;
        rule(self.basis == application.basis, "basis", word(&self.basis), word(&application.basis))?;
        let requested = application.applicant.name.as_str();
        rule(self.data_user == requested, "data_user", &self.data_user, requested)?;
        let (country, requested) = (self.country.as_deref().unwrap_or_default(), &application.applicant.country);
        rule(country == requested, "country", country, requested)?;
        let (leader, requested) = (&self.principal_investigator, &application.principal_investigator);
        rule(leader == requested, "principal_investigator", leader, requested)?;
        rule(self.study_id == application.study_id, "study_id", &self.study_id, &application.study_id)?;
        let requested = application.schema.map_or("none".into(), |digest| digest.to_string());
        rule(Some(self.schema) == application.schema, "schema", self.schema, requested)?;
        let purposes: Vec<_> = application.purposes.iter().filter_map(|p| p.permissible().ok()).collect();
        among("purposes", &self.purposes, &purposes, |p| p.as_str().into())?;
        for person in &self.authorised_persons {
            let known =
                application.people.iter().any(|p| p.key == person.key && p.id == person.id && p.role == person.role);
            let people = || list(application.people.iter().map(|p| p.id.clone()));
            rule(known, "authorised_persons", format!("{} ({})", person.id, person.key_fingerprint.short()), people())?;
        }
        self.data_within(application)?;
        among("allowed_statistics", &self.allowed_statistics, &application.statistics, |s| s.as_str().into())?;
        among("release_kinds", &self.release_kinds, &application.release_kinds, word)?;
        let requested = application.disclosure.map_or("none applied for".into(), |preset| word(&preset));
        let holds = application.disclosure.is_some_and(|preset| self.disclosure.is_no_laxer_than(preset));
        rule(holds, "disclosure", word(&self.disclosure), requested)?;
        let holds = self.output_review.is_no_laxer_than(application.output_review);
        rule(holds, "output_review", word(&self.output_review), word(&application.output_review))?;
        match &application.dp {
            Some(dp) => dp_within(&self.dp, dp)?,
            None => rule(false, "dp", "privacy parameters", "none")?,
        }
        self.queries_within(application)?;
        let at = |instant: Option<DateTime<Utc>>| instant.map_or("none".into(), |i| i.to_rfc3339());
        let (from, to) = (application.period.from, application.period.to);
        let holds = from.is_some_and(|from| self.validity.from >= from);
        rule(holds, "validity.from", self.validity.from.to_rfc3339(), at(from))?;
        let holds = to.is_some_and(|to| self.validity.to <= to);
        rule(holds, "validity.to", self.validity.to.to_rfc3339(), at(to))
    }

    fn data_within(&self, application: &Application) -> Result<(), Wider> {
        for permitted in &self.data {
            let Some(requested) = application.data.iter().find(|t| t.table == permitted.table) else {
                return rule(
                    false,
                    "data.table",
                    &permitted.table,
                    list(application.data.iter().map(|t| t.table.clone())),
                );
            };
            among("data.columns", &permitted.columns, &requested.columns, Clone::clone)?;
            among("data.holder_nodes", &permitted.holder_nodes, &requested.holder_nodes, Clone::clone)?;
        }
        Ok(())
    }

    /// A list in the permit names queries of the application; an application for its own queries alone asks for a list.
    fn queries_within(&self, application: &Application) -> Result<(), Wider> {
        let Some(allowed) = &self.allowed_queries else {
            return rule(!application.only_these_queries, "allowed_queries", "any query", "a list of queries");
        };
        for query in allowed {
            let requested = application.queries.iter().find(|q| q.sha256 == query.sha256);
            let runs = requested.map_or("no such query".into(), |q| format!("{} runs of it", q.max_runs));
            let permitted = format!("{} runs of {}", query.max_runs, query.sha256.short());
            rule(requested.is_some_and(|q| query.max_runs <= q.max_runs), "allowed_queries", permitted, runs)?;
            let asked = requested.map_or(ReleaseKind::Noised, |q| q.release);
            let as_asked = query.release.is_noised() || query.release == asked;
            rule(as_asked, "allowed_queries", query.release.as_str(), asked.as_str())?;
        }
        Ok(())
    }
}

fn dp_within(permitted: &Dp, requested: &Dp) -> Result<(), Wider> {
    // Of the assumption, and of the delta of reports, the permit may take the more careful value.
    let Dp {
        rows_per_patient: rows,
        groups_per_patient: groups,
        sites_per_patient: sites,
        micro_rho_per_query: query,
        micro_rho_total: total,
        delta_for_reports: reports,
        mechanism,
        atto_delta_per_query: delta,
        atto_delta_total: delta_total,
    } = permitted;
    rule(*rows <= requested.rows_per_patient, "dp.rows_per_patient", rows, requested.rows_per_patient)?;
    rule(*groups <= requested.groups_per_patient, "dp.groups_per_patient", groups, requested.groups_per_patient)?;
    rule(*sites >= requested.sites_per_patient, "dp.sites_per_patient", sites, requested.sites_per_patient)?;
    rule(*query <= requested.micro_rho_per_query, "dp.micro_rho_per_query", query, requested.micro_rho_per_query)?;
    rule(*total <= requested.micro_rho_total, "dp.micro_rho_total", total, requested.micro_rho_total)?;
    let number = |text: &str| text.parse::<f64>().unwrap_or(f64::NAN);
    let holds = number(reports) <= number(&requested.delta_for_reports);
    rule(holds, "dp.delta_for_reports", reports, &requested.delta_for_reports)?;
    rule(*mechanism == requested.mechanism, "dp.mechanism", word(mechanism), word(&requested.mechanism))?;
    rule(*delta <= requested.atto_delta_per_query, "dp.atto_delta_per_query", delta, requested.atto_delta_per_query)?;
    rule(*delta_total <= requested.atto_delta_total, "dp.atto_delta_total", delta_total, requested.atto_delta_total)
}

#[cfg(test)]
mod tests;
