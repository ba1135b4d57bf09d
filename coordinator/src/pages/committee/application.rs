//! An application as a member of the committee judges it: what it says, what changed, what others said, what its
//! queries would cost and how exact they would be, and what the hospitals hold.
//!
//! Promises: dry runs are made here by the engine of the nodes, as `sekisho review show --recompute` makes them on the
//! member's machine, and compared with the applicant's own. Deliberately absent: any decision; that is signed
//! elsewhere.

use chrono::{DateTime, Utc};
use sekisho_aggregation::plan::PrivatePlan;
use sekisho_protocol::{
    application::{Application, DryRun, RequestedQuery},
    catalogue::{Catalogue, Estimate},
    digest::Digest,
    dsse::Verified,
    pages::Language,
    permit::{Purpose, ReleaseKind},
    refusal::{Code, Refusal},
    review::{Review, Step, Verdict},
    schema::Schema,
};

use super::compared::{Change, changes};
use crate::{
    catalogue::fitness::{Fitness, fitness},
    documents::{Current, Documents, unavailable},
    person::{
        application::{dry_run, missing},
        failure::Failure,
        grant,
        permit::{word, words as named},
    },
    report::ApplicationReport,
    requirements::Missing,
    use_register::words,
};

/// One version.
#[derive(Debug)]
pub struct Version {
    /// Its number.
    pub number: u32,
    /// Its digest.
    pub digest: Digest,
    /// When it was handed in.
    pub put_at: DateTime<Utc>,
    /// Who of its people signed it.
    pub signed_by: String,
    /// What is different from the version before.
    pub changes: Vec<Change>,
}

/// What a member said.
#[derive(Debug)]
pub struct Said {
    /// The member, or the key of one who left.
    pub member: String,
    /// When.
    pub at: DateTime<Utc>,
    /// It is of the newest version.
    pub newest: bool,
    /// About which question.
    pub step: Step,
    /// What.
    pub verdict: Verdict,
    /// Why.
    pub reasons: String,
}

/// A query, with what it would cost.
#[derive(Debug)]
pub struct Planned {
    /// As it was applied for.
    pub query: RequestedQuery,
    /// What the engine says here.
    pub run: DryRun,
    /// The applicant's own figures are others.
    pub differs: bool,
    /// Which hospitals could answer, by what they declare.
    pub hospitals: Vec<Fitness>,
}

/// What one hospital declares of one table that is asked for.
#[derive(Debug)]
pub struct Holding {
    /// The hospital.
    pub node: String,
    /// The table.
    pub table: String,
    /// The data set's title in English and Japanese; none when the hospital declares no such table.
    pub title: Option<(String, String)>,
    /// No real patient is in it.
    pub synthetic: bool,
    /// From when to when.
    pub period: String,
    /// Records and patients, noised.
    pub counts: Option<(Estimate, Estimate)>,
    /// Columns that are asked for and not there.
    pub lacks: Vec<String>,
}

/// Everything on the page.
#[derive(Debug)]
pub struct Shown {
    /// How far it is.
    pub report: ApplicationReport,
    /// The newest version.
    pub application: Verified<Application>,
    /// All versions, the newest first.
    pub versions: Vec<Version>,
    /// What the law asks for and is missing.
    pub missing: Vec<Missing>,
    /// What members said, the latest first.
    pub said: Vec<Said>,
    /// The queries; or why no dry run can be made.
    pub planned: Result<Vec<Planned>, Failure>,
    /// What the hospitals hold of what is asked for.
    pub holdings: Vec<Holding>,
}

impl Shown {
    /// What the application says, field by field, in words; those that are empty too.
    pub fn texts(&self, language: &Language) -> Vec<(&'static str, String)> {
        let asked = self.application.document();
        let say = |en, ja| language.say(en, ja);
        let day = |at: Option<DateTime<Utc>>| at.map(|at| at.format("%Y-%m-%d").to_string()).unwrap_or_default();
        let basis = words::basis(asked.basis).label;
        let mut texts = vec![
            (say("Functions", "申請者の業務"), asked.applicant.functions.clone()),
            (say("Legal basis", "法的根拠"), language.say(&basis.en, &basis.ja).to_string()),
            (say("Responsible", "研究責任者"), asked.principal_investigator.clone()),
            (say("Purposes", "利用目的"), purposes(asked, language)),
            (say("Public mandate", "公的な任務"), asked.public_mandate.clone()),
            (say("Use", "利用の内容"), asked.use_description.clone()),
            (say("Benefit", "期待される公益"), asked.expected_benefit.clone()),
            (say("Study", "研究"), asked.study_id.clone()),
            (say("Form of data", "データの形式"), asked.level.as_ref().map(word).unwrap_or_default()),
            (say("Why in this form", "形式の理由"), asked.level_justification.clone()),
            (say("Safeguards", "安全管理措置"), asked.safeguards.clone()),
            (say("Period", "利用期間"), format!("{} – {}", day(asked.period.from), day(asked.period.to))),
            (say("Why so long", "期間の理由"), asked.period.justification.clone()),
            (say("Stigma", "差別・偏見への配慮"), asked.stigma_declaration.clone()),
            (
                say("Prohibited uses", "禁止された利用"),
                say(
                    if asked.prohibited_uses_acknowledged { "acknowledged" } else { "not acknowledged" },
                    if asked.prohibited_uses_acknowledged { "確認済み" } else { "未確認" },
                )
                .into(),
            ),
            (say("Expected result", "期待される結果"), asked.result_expected.clone()),
            (say("Content of statistics", "統計の内容"), asked.statistic_content.clone()),
            (say("Statistics", "統計量"), named(&asked.statistics)),
            (say("Kinds of release", "公表の種類"), kinds(asked, language)),
            (say("Disclosure rule", "秘匿規則"), disclosure(asked, language)),
            (say("Review of results", "結果の審査"), word(&asked.output_review)),
        ];
        if let Some(dp) = &asked.dp {
            let (query, total) = (dp.micro_rho_per_query, dp.micro_rho_total);
            let cost = say("at most a query, at each hospital; in all:", "（1照会・医療機関ごとの上限）、総額");
            texts.push((say("Cost", "費用"), format!("{query} {cost} {total}")));
            let (rows, groups, sites) = (dp.rows_per_patient, dp.groups_per_patient, dp.sites_per_patient);
            texts.push((
                say("Bounds of a patient", "患者1人の上限"),
                match language {
                    Language::En => {
                        format!("{rows} rows and {groups} groups in full; at {sites} hospitals at most (assumed)")
                    }
                    Language::Ja => format!("{rows} 行・{groups} 群まで全量、最大 {sites} 医療機関（想定）"),
                },
            ));
        }
        if let Some(ethics) = &asked.ethics {
            let date = ethics.date.map(|date| date.to_string()).unwrap_or_default();
            texts.push((say("Ethics committee", "倫理審査"), format!("{} {} {date}", ethics.body, ethics.id)));
        }
        if let Some(jp) = &asked.jp {
            let text = format!("{}, {}, {}", jp.certified_operator, jp.contract_id, jp.review_committee);
            texts.push((say("Operator, contract, reviewed by", "認定事業者・契約・審査委員会"), text));
        }
        texts
    }
}

/// The application `id`.
///
/// # Errors
/// `application_unknown`, or when the database cannot be read.
pub async fn shown(documents: &Documents, id: &str, now: DateTime<Utc>) -> Result<Shown, Refusal> {
    let (report, kept) = documents.application(id).await?;
    let current = documents.current();
    let said = said(documents, id, report.digest).await?;
    let version = |(i, (application, put_at)): (usize, &(Verified<Application>, DateTime<Utc>))| {
        let signer = |key: &Digest| application.person(*key).map_or_else(|| key.short(), |person| person.id.clone());
        Version {
            number: application.version,
            digest: application.digest(),
            put_at: *put_at,
            signed_by: application.signers().iter().map(signer).collect::<Vec<_>>().join(", "),
            // The newest comes first.
            changes: kept.get(i + 1).map_or_else(Vec::new, |(before, _)| changes(before, application)),
        }
    };
    let versions = kept.iter().enumerate().map(version).collect();
    let newest = kept.into_iter().next().map(|(application, _)| application);
    let application = newest.ok_or_else(|| Refusal::new(Code::ApplicationUnknown, id))?;
    let missing = missing(&application).unwrap_or_default();
    let holdings = holdings(&application, &current);
    let (asked, known) = (application.document().clone(), current.clone());
    // Planning takes processor time, so it keeps off the threads that answer.
    let planned = tokio::task::spawn_blocking(move || planned(&asked, &known, now)).await.map_err(unavailable)?;
    Ok(Shown { report, application, versions, missing, said, planned, holdings })
}

/// The purposes in words; what no law permits is named by its code.
fn purposes(asked: &Application, language: &Language) -> String {
    let Ok(permissible) = asked.permissible_purposes() else { return named(&asked.purposes) };
    let text = |purpose: &Purpose| {
        let label = words::purpose(*purpose).label;
        language.say(&label.en, &label.ja).to_string()
    };
    permissible.iter().map(text).collect::<Vec<_>>().join(language.say(", ", "、"))
}

fn kinds(asked: &Application, language: &Language) -> String {
    let text = |kind: &ReleaseKind| {
        let (en, ja) = kind.in_words();
        language.say(en, ja)
    };
    asked.release_kinds.iter().map(text).collect::<Vec<_>>().join(language.say("; ", "、"))
}

fn disclosure(asked: &Application, language: &Language) -> String {
    asked.disclosure.map_or_else(String::new, |preset| {
        let (en, ja) = preset.rules().in_words();
        format!("{}: {}", word(&preset), language.say(&en, &ja))
    })
}

async fn said(documents: &Documents, id: &str, newest: Digest) -> Result<Vec<Said>, Refusal> {
    let one = |report: crate::report::ReviewReport| {
        let (review, _) = report.envelope.peek::<Review>()?;
        Ok(Said {
            member: report.member.unwrap_or_else(|| review.member.short()),
            at: review.at,
            newest: review.digest == newest,
            step: review.step,
            verdict: review.verdict,
            reasons: review.reasons,
        })
    };
    documents.reviews_of(id).await?.into_iter().map(one).collect()
}

fn planned(application: &Application, current: &Current, now: DateTime<Utc>) -> Result<Vec<Planned>, Failure> {
    let digest =
        application.schema.ok_or_else(|| Failure::input("the application names no schema", "ask for a new version"))?;
    let schema = current.schema(digest)?;
    let runs = dry_run::all(application, schema, now)?;
    let differing = dry_run::compare(application, &runs);
    let permit = grant::permit(application, Digest::of(b""), now)?;
    let one = |(place, (query, run)): (usize, (&RequestedQuery, DryRun))| {
        let rho = dry_run::price(query, &permit);
        let plan = PrivatePlan::analyse_with(&query.sql, schema, &permit, rho, &query.terms);
        Planned {
            query: query.clone(),
            differs: differing.contains(&place),
            hospitals: plan.map_or_else(|_| Vec::new(), |plan| fit(current, schema, digest, &plan)),
            run,
        }
    };
    Ok((1..).zip(application.queries.iter().zip(runs)).map(one).collect())
}

fn fit(current: &Current, schema: &Schema, digest: Digest, plan: &PrivatePlan) -> Vec<Fitness> {
    current.catalogues().map(|catalogue| fitness(catalogue, schema, Some(digest), plan)).collect()
}

/// What the hospitals of each requested table declare of it.
fn holdings(application: &Application, current: &Current) -> Vec<Holding> {
    let mut holdings = Vec::new();
    for table in &application.data {
        for node in &table.holder_nodes {
            let catalogue = current.catalogue(node).map(|held| held.verified().document());
            holdings.push(holding(node, &table.table, &table.columns, application.schema, catalogue));
        }
    }
    holdings
}

fn holding(
    node: &str,
    table: &str,
    columns: &[String],
    schema: Option<Digest>,
    catalogue: Option<&Catalogue>,
) -> Holding {
    let nothing = Holding {
        node: node.into(),
        table: table.into(),
        title: None,
        synthetic: false,
        period: String::new(),
        counts: None,
        lacks: columns.to_vec(),
    };
    let with_table = catalogue.into_iter().flat_map(|c| &c.data_sets).filter(|set| set.table(table).is_some());
    // Of several the one that is mapped to the application's schema.
    let best = with_table.min_by_key(|set| Some(set.schema.digest) != schema);
    let Some((set, entry)) = best.and_then(|set| Some((set, set.table(table)?))) else { return nothing };
    let to = |to: Option<chrono::NaiveDate>| to.map(|day| day.to_string()).unwrap_or_default();
    let words = |language: &str| {
        let mut words = set.declared.title.words();
        // Who wrote in one language alone is read in that one.
        let own = set.declared.title.words().find(|(code, _)| *code == language).or_else(|| words.next());
        own.map_or_else(|| set.id.clone(), |(_, text)| text.to_string())
    };
    Holding {
        title: Some((words("en"), words("ja"))),
        synthetic: set.synthetic,
        period: entry.period.as_ref().map(|p| format!("{} – {}", p.from, to(p.to))).unwrap_or_default(),
        counts: entry.counts.as_ref().map(|counts| (counts.records, counts.individuals)),
        lacks: columns.iter().filter(|column| entry.column(column).is_none()).cloned().collect(),
        ..nothing
    }
}
