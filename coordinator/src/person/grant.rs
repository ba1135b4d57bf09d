//! A permit as an application asks for it: the draft of a grant, and the terms of dry runs before there is any permit.
//!
//! What the application does not say (issuer, reasons, the rule for opt-outs) is drafted, and a committee writes over it.

use std::path::Path;

use chrono::{DateTime, Utc};
use sekisho_protocol::{
    application::Application,
    digest::Digest,
    permit::{AllowedQuery, AuthorisedPerson, Basis, Decision, OptOut, OptOutRule, Permit, PermittedTable, Validity},
    refusal::{Code, Refusal},
};
use serde_json::Value;

use super::{Context, application, failure::Failure, permit as permits, permit_file, review};
use crate::periods::Periods;

/// The permit that grants all of `application`, decided on the day of `now` for reasons yet to be written.
///
/// # Errors
/// When the application lacks what a permit must have.
pub fn permit(application: &Application, digest: Digest, now: DateTime<Utc>) -> Result<Permit, Failure> {
    let lacks = |field: &str| {
        Failure::input(
            format!("the application has no {field}"),
            "fill it in; `sekisho application check` lists them all",
        )
    };
    let purposes = application.permissible_purposes().map_err(Refusal::from)?;
    let person = |p: &sekisho_protocol::application::Person| AuthorisedPerson {
        id: p.id.clone(),
        role: p.role.clone(),
        key: p.key,
        key_fingerprint: p.key_fingerprint,
    };
    let table = |t: &sekisho_protocol::application::RequestedTable| PermittedTable {
        table: t.table.clone(),
        columns: t.columns.clone(),
        holder_nodes: t.holder_nodes.clone(),
    };
    let allowed = |q: &sekisho_protocol::application::RequestedQuery| AllowedQuery {
        sha256: q.sha256,
        max_runs: q.max_runs,
        release: q.release,
    };
    let (Some(from), Some(to)) = (application.period.from, application.period.to) else {
        return Err(lacks("period.from and period.to"));
    };
    let country = &application.applicant.country;
    Ok(Permit {
        id: application.id.clone(),
        version: 1,
        supersedes: None,
        application_id: Some(application.id.clone()),
        application: Some(digest),
        basis: application.basis,
        issuer: String::new(),
        decision: Decision { date: now.date_naive(), reasons: String::new(), recused: Vec::new() },
        purposes,
        data_user: application.applicant.name.clone(),
        country: Some(country.clone()).filter(|country| !country.is_empty()),
        principal_investigator: application.principal_investigator.clone(),
        authorised_persons: application.people.iter().map(person).collect(),
        study_id: application.study_id.clone(),
        schema: application.schema.ok_or_else(|| lacks("schema"))?,
        data: application.data.iter().map(table).collect(),
        allowed_queries: application.only_these_queries.then(|| application.queries.iter().map(allowed).collect()),
        allowed_statistics: application.statistics.clone(),
        release_kinds: application.release_kinds.clone(),
        disclosure: application.disclosure.ok_or_else(|| lacks("disclosure"))?,
        dp: application.dp.clone().ok_or_else(|| lacks("dp"))?,
        optout: optout(application.basis)?,
        output_review: application.output_review,
        validity: Validity { from, to },
        results_due: None,
        conditions: Vec::new(),
    })
}

/// A permit that grants what an application asks for, but for what the file at `from` says otherwise. With a member's key the
/// coordinator says who is recused, and which version of the permit is next.
///
/// # Errors
/// When the file leaves out what is the committee's to write, or grants more, or the coordinator cannot be reached.
pub async fn answering(name: &str, key: Option<&Path>, from: &Path, context: &Context) -> Result<Permit, Failure> {
    let over = permit_file::value(from)?;
    let fetched = application::find(name, key, None, context).await?;
    let asked = fetched.application.document();
    let mut draft = permit(asked, fetched.application.digest(), context.now)?;
    if let Some(key) = key {
        draft.decision.recused = review::conflicts(&asked.id, key, context).await?;
        let id = over.get("id").and_then(Value::as_str).unwrap_or(&draft.id);
        match permits::fetch(&mut context.door().await?, id).await {
            Ok((_, before, digest)) => {
                (draft.version, draft.supersedes) = (before.version.saturating_add(1), Some(digest));
            }
            Err(failure) if failure.code() == Code::PermitUnknown.as_str() => {}
            Err(failure) => return Err(failure),
        }
    }
    let mut draft = serde_json::to_value(draft).map_err(|e| Failure::input(e.to_string(), "this build is broken"))?;
    written_over(&mut draft, over);
    let permit = permit_file::of_value(draft, from)?;
    if permit.issuer.is_empty() || permit.decision.reasons.is_empty() {
        let detail = format!("{}: issuer and decision.reasons are the committee's to write", from.display());
        return Err(Failure::input(detail, "write them into the file"));
    }
    permit.within(asked).map_err(Refusal::from)?;
    Ok(permit)
}

/// The periods of a legal basis.
///
/// # Errors
/// When this software's own are malformed, which a test rules out.
pub fn periods(basis: Basis) -> Result<Periods, Failure> {
    let mut presets = Periods::presets().map_err(|e| Failure::input(e.to_string(), "this build is broken"))?;
    let name = Periods::preset_of(basis);
    presets.remove(name).ok_or_else(|| Failure::input(format!("there is no preset {name}"), "this build is broken"))
}

fn optout(basis: Basis) -> Result<OptOut, Failure> {
    let rule = match basis {
        Basis::Ehds68 | Basis::Ehds69 | Basis::Ehds72 => OptOutRule::EuEhds,
        Basis::JpNgmiaAnonymised | Basis::JpNgmiaPseudonymised | Basis::JpEthics => OptOutRule::JpNgmia,
    };
    Ok(OptOut { rule, days: periods(basis)?.notice.map_or(0, |period| period.days) })
}

/// Writes `over` into `draft`: tables are merged, everything else is replaced.
pub fn written_over(draft: &mut Value, over: Value) {
    match (draft, over) {
        (Value::Object(draft), Value::Object(over)) => {
            for (name, value) in over {
                written_over(draft.entry(name).or_insert(Value::Null), value);
            }
        }
        (draft, over) => *draft = over,
    }
}
