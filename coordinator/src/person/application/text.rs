//! An application for people.

use chrono::{DateTime, SecondsFormat, Utc};
use sekisho_protocol::application::{Application, DryRun, RequestedQuery, RequestedTable};

use crate::{
    person::{
        permit::{word, words},
        print,
    },
    requirements::Missing,
};

/// A point in time, to the second.
pub fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The dry runs that an applicant has just made.
pub fn dry_runs(queries: &[RequestedQuery], made: &[DryRun]) -> String {
    let one = |((place, asked), run)| query(place, asked, Some(run), true);
    (1..).zip(queries).zip(made).map(one).collect::<Vec<_>>().join("\n")
}

/// All that a committee decides on; dry runs are those attached, or `made` in their place.
pub fn application(application: &Application, made: Option<&[DryRun]>) -> String {
    let end = |at: Option<DateTime<Utc>>| at.map_or_else(String::new, instant);
    let applicant = &application.applicant;
    let mut facts = vec![
        ("application", format!("{} version {}", application.id, application.version)),
        ("basis", word(&application.basis)),
        ("applicant", format!("{} ({}, {})", applicant.name, applicant.sector, applicant.country)),
        ("functions", applicant.functions.clone()),
        ("responsible", application.principal_investigator.clone()),
        ("purposes", words(&application.purposes)),
        ("public mandate", application.public_mandate.clone()),
        ("use", application.use_description.clone()),
        ("benefit", application.expected_benefit.clone()),
        ("study", application.study_id.clone()),
        ("schema", application.schema.map(|digest| digest.to_string()).unwrap_or_default()),
        ("form", application.level.as_ref().map(word).unwrap_or_default()),
        ("why so", application.level_justification.clone()),
        ("safeguards", application.safeguards.clone()),
        ("period", format!("from {} to {}", end(application.period.from), end(application.period.to))),
        ("why so long", application.period.justification.clone()),
        ("stigma", application.stigma_declaration.clone()),
        ("prohibited uses", if application.prohibited_uses_acknowledged { "acknowledged" } else { "" }.into()),
        ("result", application.result_expected.clone()),
        ("content", application.statistic_content.clone()),
        ("statistics", words(&application.statistics)),
        ("releases", words(&application.release_kinds)),
        ("disclosure", application.disclosure.as_ref().map(word).unwrap_or_default()),
        ("output review", word(&application.output_review)),
        (
            "queries",
            if application.only_these_queries { "these alone" } else { "these, and others within the rest" }.into(),
        ),
    ];
    facts.extend(application.supersedes.map(|digest| ("supersedes", digest.to_string())));
    if let Some(dp) = &application.dp {
        facts.push((
            "cost",
            format!("{} a query, {} in all, at each hospital", dp.micro_rho_per_query, dp.micro_rho_total),
        ));
        let (rows, groups, sites) = (dp.rows_per_patient, dp.groups_per_patient, dp.sites_per_patient);
        let patients = format!(
            "{rows} rows and {groups} groups of each count in full; each at {sites} hospitals at most (assumed)"
        );
        facts.push(("patients", patients));
    }
    if let Some(ethics) = &application.ethics {
        let date = ethics.date.map(|date| date.to_string()).unwrap_or_default();
        facts.push(("ethics", format!("{} {} {date}", ethics.body, ethics.id)));
    }
    if let Some(jp) = &application.jp {
        let text =
            format!("{}, contract {}, reviewed by {}", jp.certified_operator, jp.contract_id, jp.review_committee);
        facts.push(("NGMIA", text));
    }
    facts.retain(|(_, value)| !value.trim().is_empty());
    let people = application.people.iter();
    let people = people.map(|p| [p.id.clone(), p.role.clone(), p.training.clone(), p.key_fingerprint.to_string()]);
    let data = |t: &RequestedTable| {
        [t.table.clone(), t.columns.join(", "), t.holder_nodes.join(", "), t.dataset.clone(), t.time_range.clone()]
    };
    let mut parts = vec![
        print::pairs(&facts),
        print::table(["person", "role", "training", "key"], people),
        print::table(["table", "columns", "hospitals", "data set", "period"], application.data.iter().map(data)),
    ];
    for (place, query) in application.queries.iter().enumerate() {
        let run = made.map_or(query.dry_run.as_ref(), |made| made.get(place));
        parts.push(self::query(place + 1, query, run, made.is_some()));
    }
    parts.join("\n")
}

fn query(place: usize, query: &RequestedQuery, run: Option<&DryRun>, made_here: bool) -> String {
    let mut facts = vec![
        ("query", format!("{place}: {}", query.sql)),
        ("sha256", query.sha256.to_string()),
        ("runs", format!("at most {}", query.max_runs)),
        ("release", format!("{}: {}", query.release.as_str(), query.release.in_words().0)),
    ];
    let Some(run) = run else {
        facts.push(("dry run", "none is attached".into()));
        return print::pairs(&facts);
    };
    let by = if made_here { "made on this machine" } else { "the applicant's own figures" };
    match &run.refusal {
        Some(refusal) => facts.push(("dry run", format!("NOT admissible: {refusal} ({by})"))),
        None => facts.push(("dry run", format!("admissible, {} cells ({by})", run.cells))),
    }
    match &run.exact {
        Some(rules) => {
            facts.push(("cost", "none: exact, so that no guarantee of differential privacy holds afterwards".into()));
            facts.push(("rules", rules.in_words().0));
        }
        None => facts.push((
            "cost",
            format!("{} a run; epsilon {} at delta {}, at one hospital", run.micro_rho, run.epsilon, run.delta),
        )),
    }
    if run.measures.is_empty() {
        return print::pairs(&facts);
    }
    let mut table = print::empty();
    let sizes = run.cell_sizes.iter().map(|size| format!("in {size} rows"));
    table.set_header(["noise per cell and hospital".to_string(), "standard deviation".into()].into_iter().chain(sizes));
    for measure in &run.measures {
        let cells = [&measure.measure, &measure.standard_deviation].into_iter().chain(&measure.relative);
        table.add_row(cells.map(|cell| print::plain(cell)));
    }
    format!("{}\n{}", print::pairs(&facts), table.trim_fmt())
}

/// What is missing, in two languages.
pub fn missing(missing: &[Missing]) -> impl Iterator<Item = [String; 4]> {
    missing.iter().map(|m| [m.field.clone(), m.en.clone(), m.ja.clone(), m.article.clone()])
}
