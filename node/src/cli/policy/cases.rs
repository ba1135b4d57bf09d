//! Cases for a policy, from a TOML file: what is asked, what the policy shall say, and which rule shall say it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use miette::{IntoDiagnostic, Result, WrapErr, miette};
use sekisho_protocol::{
    permit::{Basis, Mechanism, Permit, Purpose, ReleaseKind, Statistic},
    query::Terms,
    units::{AttoDelta, MicroRho},
};
use serde::Deserialize;
use serde_json::json;

use super::{Output, asked, deciding, document, person, read, table};
use crate::{
    permits::Holder,
    policy::{Asked, DataFacts, Finding, Level, Offered, Organisation, Person, Scope, Study},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CasesFile {
    case: Vec<CaseFile>,
}

/// One case: with `permit`, and perhaps `sql`, about documents; else about what it says itself.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    name: String,
    expect: Expect,
    rule: Option<String>,
    permit: Option<PathBuf>,
    sql: Option<String>,
    action: Option<Action>,
    #[serde(default)]
    resource: Resources,
    #[serde(default)]
    principal: PrincipalFile,
    #[serde(default)]
    context: ContextFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Expect {
    Allow,
    Deny,
    Automatic,
    ByHand,
    Refuse,
}

impl Expect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Automatic => "automatic",
            Self::ByHand => "by-hand",
            Self::Refuse => "refuse",
        }
    }
}

/// A statistic, or the acceptance of a permit.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Action {
    Query(Statistic),
    Permit(Accept),
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Accept {
    Accept,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Resources {
    One(String),
    Many(Vec<String>),
}

impl Default for Resources {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PrincipalFile {
    organisation: String,
    country: Option<String>,
    person: Option<String>,
    role: String,
}

impl Default for PrincipalFile {
    fn default() -> Self {
        Self { organisation: "organisation".into(), country: None, person: None, role: "analyst".into() }
    }
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContextFile {
    purposes: Vec<Purpose>,
    basis: Basis,
    mechanism: Mechanism,
    permit_id: String,
    study_id: String,
    synthetic: bool,
    release: ReleaseKind,
    micro_rho: Option<MicroRho>,
    micro_rho_total: MicroRho,
    atto_delta: AttoDelta,
    people: usize,
    days: i64,
    listed_queries: bool,
    two_person_review: bool,
}

impl Default for ContextFile {
    fn default() -> Self {
        Self {
            purposes: vec![Purpose::ScientificResearch],
            basis: Basis::Ehds69,
            mechanism: Mechanism::Gaussian,
            permit_id: "permit".into(),
            study_id: "study".into(),
            synthetic: false,
            release: ReleaseKind::Noised,
            micro_rho: None,
            micro_rho_total: MicroRho::ZERO,
            atto_delta: AttoDelta::ZERO,
            people: 1,
            days: 365,
            listed_queries: false,
            two_person_review: false,
        }
    }
}

/// Runs the cases of the file `path` against the policy of `holder`.
pub(super) fn run(path: &Path, holder: &Holder<'_>, output: Output) -> Result<()> {
    let text = String::from_utf8(read(path)?).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
    let file: CasesFile = toml::from_str(&text).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let (mut rows, mut failing) = (Vec::new(), 0);
    for case in &file.case {
        let (said, findings) = case.decide(holder, folder).wrap_err_with(|| format!("case {:?}", case.name))?;
        let rules = deciding(&findings);
        let holds = said == case.expect && case.rule.as_ref().is_none_or(|rule| rules.contains(rule));
        failing += usize::from(!holds);
        rows.push((case, said, rules, holds));
    }
    match output {
        Output::Json => {
            let rows = rows.iter().map(|(case, said, rules, holds)| {
                json!({"case": case.name, "expect": case.expect.as_str(), "rule": case.rule, "said": said.as_str(),
                    "rules": rules, "holds": holds})
            });
            println!("{}", serde_json::Value::from(rows.collect::<Vec<_>>()));
        }
        Output::Table => {
            let rows = rows.iter().map(|(case, said, rules, holds)| {
                let expect = case
                    .rule
                    .as_ref()
                    .map_or(case.expect.as_str().into(), |rule| format!("{} by {rule}", case.expect.as_str()));
                let rules = rules.iter().cloned().collect::<Vec<_>>().join(", ");
                vec![
                    case.name.clone(),
                    expect,
                    said.as_str().into(),
                    rules,
                    if *holds { "holds" } else { "FAILS" }.into(),
                ]
            });
            println!("{}", table(["case", "expected", "said", "rules", ""], rows));
        }
    }
    match failing {
        0 => Ok(()),
        _ => Err(miette!("{failing} of {} cases fail", file.case.len())),
    }
}

impl CaseFile {
    fn decide(&self, holder: &Holder<'_>, folder: &Path) -> Result<(Expect, Vec<Finding>)> {
        if let Some(path) = &self.permit {
            let permit = document::<Permit>(&folder.join(path))?.1;
            return match &self.sql {
                None => answered(holder, &holder.offered(&permit).into_diagnostic()?),
                Some(sql) => {
                    let person = person(&permit, self.principal.person.as_deref())?;
                    let most = match permit.release_of(sql) {
                        ReleaseKind::Noised => permit.dp.micro_rho_per_query,
                        ReleaseKind::Aggregated => MicroRho::ZERO,
                    };
                    let micro_rho = self.context.micro_rho.unwrap_or(most);
                    let terms = Terms { atto_delta: self.context.atto_delta, ..Terms::default() };
                    let data = holder.data_for(&permit).into_diagnostic()?;
                    explained(holder, &asked(&permit, person, (sql, micro_rho, &terms), data)?)
                }
            };
        }
        let action = self.action.ok_or_else(|| miette!("write `permit`, or `action` and `resource`"))?;
        let (data, scope) = self.scope(holder, action)?;
        let study = self.study(data);
        let micro_rho = self.context.micro_rho.unwrap_or(MicroRho::ZERO);
        match action {
            Action::Query(_) => {
                let id = self.principal.person.clone().unwrap_or_else(|| "person".into());
                let person = Person { id, role: self.principal.role.clone() };
                let (release, atto_delta) = (self.context.release, self.context.atto_delta);
                explained(holder, &Asked { study, person, scope, release, micro_rho, atto_delta })
            }
            Action::Permit(Accept::Accept) => {
                let offered = Offered {
                    study,
                    scope,
                    releases: vec![self.context.release],
                    micro_rho_per_query: micro_rho,
                    micro_rho_total: self.context.micro_rho_total,
                    atto_delta_per_query: self.context.atto_delta,
                    atto_delta_total: self.context.atto_delta,
                    people: self.context.people,
                    days: self.context.days,
                    listed_queries: self.context.listed_queries,
                    two_person_review: self.context.two_person_review,
                };
                answered(holder, &offered)
            }
        }
    }

    /// What the case reads, and the data set that has it.
    fn scope<'a>(&self, holder: &Holder<'a>, action: Action) -> Result<(DataFacts<'a>, Scope)> {
        let names = match &self.resource {
            Resources::One(name) => std::slice::from_ref(name),
            Resources::Many(names) => names,
        };
        let mut scope = Scope::default();
        let mut found = None;
        for name in names {
            let (table, column) = name.split_once('.').map_or((name.as_str(), None), |(t, c)| (t, Some(c)));
            let has = |(_, set): &&(_, DataFacts<'a>)| {
                let table = set.schema.table(table);
                table.is_some_and(|t| column.is_none_or(|c| t.columns.iter().any(|known| known.name == c)))
            };
            let set = holder.data.iter().find(has);
            found = Some(set.ok_or_else(|| miette!("no data set of this hospital has {name}"))?.1);
            scope.tables.insert(table.into());
            scope.columns.extend(column.map(|column| (table.to_string(), column.to_string())));
        }
        scope.statistics = match action {
            Action::Query(statistic) => BTreeSet::from([statistic]),
            Action::Permit(Accept::Accept) => BTreeSet::from([Statistic::Count]),
        };
        Ok((found.ok_or_else(|| miette!("write `resource`: a table, or table.column"))?, scope))
    }

    fn study(&self, data: DataFacts<'_>) -> Study {
        let context = &self.context;
        Study {
            organisation: Organisation {
                name: self.principal.organisation.clone(),
                country: self.principal.country.clone(),
            },
            permit_id: context.permit_id.clone(),
            study_id: context.study_id.clone(),
            purposes: context.purposes.clone(),
            basis: context.basis,
            mechanism: context.mechanism,
            data_set: data.id.into(),
            synthetic: context.synthetic,
        }
    }
}

fn explained(holder: &Holder<'_>, asked: &Asked) -> Result<(Expect, Vec<Finding>)> {
    let findings = holder.policy.explain(asked).into_diagnostic()?;
    Ok((if findings.iter().all(|f| f.allowed) { Expect::Allow } else { Expect::Deny }, findings))
}

fn answered(holder: &Holder<'_>, offered: &Offered) -> Result<(Expect, Vec<Finding>)> {
    let (level, findings) = holder.policy.answer(offered).into_diagnostic()?;
    let said = match level {
        Level::AtOnce => Expect::Automatic,
        Level::ByHand => Expect::ByHand,
        Level::Refused => Expect::Refuse,
    };
    Ok((said, findings))
}
