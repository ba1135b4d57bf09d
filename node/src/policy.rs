//! The hospital's own policy: which permits it accepts, and which queries it answers under them, as code in Cedar.
//!
//! Promises: a policy only narrows (it is asked after the permit, and both must allow); what no rule permits is denied, a
//! `forbid` beats every `permit`, and an error of any rule denies, since Cedar leaves a rule out that fails; a query is
//! allowed only when each statistic is allowed on each table and each column; a text that does not parse, does not fit
//! the schema strictly, or has a rule that can never apply is refused with its line.
//!
//! Deliberately absent: templates, a policy that changes while the node runs, and any attribute that is not from a
//! verified document or from the hospital's own mapping. The language: <https://docs.cedarpolicy.com>.

mod facts;
mod request;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use cedar_policy::{
    Authorizer, Decision, Effect, PolicyId, PolicySet, Request, Schema, ValidationMode, ValidationWarning, Validator,
};
use sekisho_protocol::{
    permit::Statistic,
    refusal::{Code, Refusal},
};

pub use self::facts::{Asked, DataFacts, Offered, Organisation, Person, Scope, Study};
use self::request::{Requests, Types};

/// The schema that every policy is held against.
pub const SCHEMA: &str = include_str!("policy/policy.cedarschema");
/// The most bytes of a policy.
pub const MAX_BYTES: u64 = 256 << 10;
const DEFAULT: &str = include_str!("policy/default.cedar");
const AT_ONCE: &str = "acceptPermit";
const BY_HAND: &str = "acceptPermitByHand";

/// The policy that a new node gets: permits wait for a person, unless they shall be accepted `at_once`.
pub fn default_text(at_once: bool) -> String {
    let rule = "@id(\"permits-at-once\")\n";
    let commented = format!("// {rule}// permit");
    if at_once { DEFAULT.replace(&commented, &format!("{rule}permit")) } else { DEFAULT.into() }
}

/// Why a policy is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("the policy {path}: {source}; `policy.file` of the configuration names it", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than it may be.
    #[error("the policy {path} has more than {MAX_BYTES} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file's text is not accepted.
    #[error("the policy {path}, {wrong}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        wrong: Box<PolicyError>,
    },
    /// A rule is wrong.
    #[error("line {line}, column {column}: {reason}\n  {line} | {excerpt}")]
    Rule {
        /// The line, from 1.
        line: usize,
        /// The character in the line, from 1.
        column: usize,
        /// The line.
        excerpt: String,
        /// What is wrong.
        reason: String,
    },
    /// This software's own schema is broken.
    #[error("the schema of policies: {0}")]
    Schema(String),
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its `@id`, where it has one.
    pub id: Option<String>,
    /// The line on which it begins.
    pub line: usize,
    /// It is a `forbid`.
    pub forbids: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(f, "{id} (line {})", self.line),
            None => write!(f, "the rule in line {}", self.line),
        }
    }
}

/// What the policy says of one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A statistic, `acceptPermit` or `acceptPermitByHand`.
    pub action: &'static str,
    /// A table, or table.column.
    pub resource: String,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rules that decided: those that forbid, or those that permit; none when no rule permits.
    pub rules: Vec<Rule>,
    /// The rules that failed.
    pub failed: Vec<Rule>,
}

/// How a permit is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is refused.
    Refused,
    /// A person decides.
    ByHand,
    /// It is accepted.
    AtOnce,
}

/// Proof that the policy allows a query.
#[derive(Debug)]
pub struct Allowed(());

/// A checked policy.
#[derive(Debug)]
pub struct Policy {
    rules: PolicySet,
    places: BTreeMap<PolicyId, Rule>,
    schema: Schema,
    types: Types,
    authorizer: Authorizer,
    warnings: Vec<String>,
    text: String,
    file: Option<PathBuf>,
}

impl Policy {
    /// Reads the policy in the file `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is too large, or [`parse`](Self::parse) refuses it; the error names file and line.
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let io = |source| PolicyError::Io { path: path.into(), source };
        let mut bytes = Vec::new();
        fs::File::open(path).map_err(io)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(PolicyError::TooLarge { path: path.into() });
        }
        let file = |wrong| PolicyError::File { path: path.into(), wrong: Box::new(wrong) };
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            let before = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            file(source::at(&before, before.len(), "the text is not UTF-8: save it as UTF-8".into()))
        })?;
        Ok(Self { file: Some(path.into()), ..Self::parse(text).map_err(file)? })
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// With line and column, when it does not parse, does not fit the schema, names a rule twice, has a template, or a rule
    /// that can never apply.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let broken = |e: &dyn fmt::Display| PolicyError::Schema(e.to_string());
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|e| broken(&e))?;
        let types = Types::new().map_err(|e| broken(&e))?;
        let rules = PolicySet::from_str(text).map_err(|errors| match errors.iter().next() {
            Some(first) => source::error(text, first, None),
            None => source::error(text, &errors, None),
        })?;
        let starts = source::rules(text);
        if rules.num_of_templates() > 0 {
            return Err(source::at(text, 0, "a rule has a slot (`?principal`): write its value instead".into()));
        }
        if starts.len() != rules.num_of_policies() {
            return Err(source::at(text, 0, "the rules cannot be told apart: end each with `;`".into()));
        }
        let start = |id: &PolicyId| {
            let number = id.to_string().strip_prefix("policy").and_then(|n| n.parse::<usize>().ok());
            number.and_then(|n| starts.get(n).copied())
        };
        let (mut places, mut names) = (BTreeMap::new(), BTreeSet::new());
        for policy in rules.policies() {
            let offset = start(policy.id()).unwrap_or(0);
            let id = policy.annotation("id").map(str::to_string);
            if let Some(id) = id.clone().filter(|id| !names.insert(id.clone())) {
                return Err(source::at(text, offset, format!("another rule has the @id {id:?}: give each its own")));
            }
            let forbids = policy.effect() == Effect::Forbid;
            places.insert(policy.id().clone(), Rule { id, line: source::place(text, offset).line, forbids });
        }
        let checked = Validator::new(schema.clone()).validate(&rules, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(source::error(text, error, start(error.policy_id())));
        }
        let never = |w: &&ValidationWarning| {
            matches!(w, ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_))
        };
        if let Some(warning) = checked.validation_warnings().find(never) {
            return Err(source::error(text, warning, start(warning.policy_id())));
        }
        let warnings = checked.validation_warnings();
        let warnings = warnings.map(|w| source::error(text, w, start(w.policy_id())).to_string()).collect();
        let (authorizer, text) = (Authorizer::new(), text.into());
        Ok(Self { rules, places, schema, types, authorizer, warnings, text, file: None })
    }

    /// Its text, as it was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// That every data set, table and column that a rule names is one of `data`: a rule about a column that is not there
    /// would never apply, and nobody would see that it is misspelt.
    ///
    /// # Errors
    /// With the line of the first rule that names another one.
    pub fn check_names(&self, data: &[DataFacts<'_>]) -> Result<(), PolicyError> {
        let tables = || data.iter().flat_map(|set| &set.schema.tables);
        let columns = || tables().flat_map(|t| t.columns.iter().map(move |c| format!("{}.{}", t.name, c.name)));
        for policy in self.rules.policies() {
            for literal in policy.entity_literals() {
                let Some(kind) = self.types.mapped(&literal) else { continue };
                let name: &str = literal.id().unescaped();
                let known = match kind {
                    "data set" => data.iter().any(|set| set.id == name),
                    "table" => tables().any(|table| table.name == name),
                    _ => columns().any(|column| column == name),
                };
                if !known {
                    return Err(self.unknown(policy.id(), &literal, kind));
                }
            }
        }
        Ok(())
    }

    /// That no data set has what the rule names.
    fn unknown(&self, rule: &PolicyId, literal: &cedar_policy::EntityUid, kind: &str) -> PolicyError {
        let line = self.places.get(rule).map_or(1, |rule| rule.line);
        let begin: usize = self.text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        // As it is usually written; else the rule's own line is named.
        let within = self.text.get(begin..).and_then(|rest| rest.find(&literal.to_string())).unwrap_or(0);
        let reason = format!("no data set of this hospital has the {kind} {}", literal.id().unescaped());
        let wrong = source::at(&self.text, begin + within, reason);
        match &self.file {
            Some(path) => PolicyError::File { path: path.clone(), wrong: Box::new(wrong) },
            None => wrong,
        }
    }

    /// The rules, in the order of the text.
    pub fn rules(&self) -> Vec<&Rule> {
        let mut rules: Vec<_> = self.places.values().collect();
        rules.sort_by_key(|rule| rule.line);
        rules
    }

    /// What is odd and no error: text that mixes scripts, for one.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// That the policy allows a query.
    ///
    /// # Errors
    /// `policy`, with the statistic, the table or column, and the rule.
    pub fn allow(&self, asked: &Asked) -> Result<Allowed, Refusal> {
        let requests = self.types.query(asked, &self.schema).map_err(|e| unanswerable(&*e))?;
        let actions = statistics(asked)?;
        let pairs = actions.iter().flat_map(|action| requests.resources.iter().map(move |resource| (action, resource)));
        let mut findings = pairs.map(|(action, resource)| self.find(&requests, action, resource));
        match findings.find(|finding| !finding.allowed) {
            Some(finding) => Err(finding.refusal()),
            None => Ok(Allowed(())),
        }
    }

    /// Everything that the policy says of a query.
    ///
    /// # Errors
    /// `policy`, when the query asks for nothing that a policy could allow.
    pub fn explain(&self, asked: &Asked) -> Result<Vec<Finding>, Refusal> {
        let requests = self.types.query(asked, &self.schema).map_err(|e| unanswerable(&*e))?;
        let mut findings = Vec::new();
        for action in statistics(asked)? {
            findings.extend(requests.resources.iter().map(|resource| self.find(&requests, action, resource)));
        }
        Ok(findings)
    }

    /// How a permit is answered, with what decided it: for each table and column the finding of the highest level that it
    /// reaches, or of by hand when it reaches none.
    ///
    /// # Errors
    /// `policy`, when the permit names nothing that this hospital has.
    pub fn answer(&self, offered: &Offered) -> Result<(Level, Vec<Finding>), Refusal> {
        let requests = self.types.permit(offered, &self.schema).map_err(|e| unanswerable(&*e))?;
        if requests.resources.is_empty() {
            return Err(Refusal::new(Code::Policy, "the permit names no table that this hospital has"));
        }
        let (mut least, mut findings) = (Level::AtOnce, Vec::new());
        for resource in &requests.resources {
            let at_once = self.find(&requests, AT_ONCE, resource);
            let (level, finding) = if at_once.allowed || !at_once.failed.is_empty() {
                (if at_once.allowed { Level::AtOnce } else { Level::Refused }, at_once)
            } else {
                let by_hand = self.find(&requests, BY_HAND, resource);
                (if by_hand.allowed { Level::ByHand } else { Level::Refused }, by_hand)
            };
            least = least.min(level);
            findings.push(finding);
        }
        Ok((least, findings))
    }

    fn find(
        &self,
        requests: &Requests,
        action: &'static str,
        (resource, uid): &(String, cedar_policy::EntityUid),
    ) -> Finding {
        let mut finding =
            Finding { action, resource: resource.clone(), allowed: false, rules: Vec::new(), failed: Vec::new() };
        let (principal, context) = (requests.principal.clone(), requests.context.clone());
        let request = Request::new(principal, self.types.action(action), uid.clone(), context, Some(&self.schema));
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, action, resource, "a question does not fit the schema of policies: denied");
                return finding;
            }
        };
        let response = self.authorizer.is_authorized(&request, &self.rules, &requests.entities);
        let rules = |ids: &mut dyn Iterator<Item = &PolicyId>| {
            let mut rules: Vec<_> = ids.filter_map(|id| self.places.get(id).cloned()).collect();
            rules.sort_by_key(|rule| rule.line);
            rules
        };
        let failed = response.diagnostics().errors().count() > 0;
        finding.failed = rules(&mut response.diagnostics().errors().map(|error| match error {
            cedar_policy::AuthorizationError::PolicyEvaluationError(e) => e.policy_id(),
        }));
        finding.rules = rules(&mut response.diagnostics().reason());
        finding.allowed = response.decision() == Decision::Allow && !failed;
        finding
    }
}

impl Finding {
    /// What whoever asks hears.
    pub fn refusal(&self) -> Refusal {
        let what = format!("{} of {}", self.action, self.resource);
        let detail = match (self.failed.first(), self.rules.first().filter(|rule| rule.forbids)) {
            (Some(rule), _) => {
                tracing::error!(%rule, action = self.action, resource = self.resource, "a rule of the policy failed: denied");
                format!("a rule of this hospital's policy failed on {what}: {rule}")
            }
            (None, Some(rule)) => format!("this hospital's policy forbids {what}: {rule}"),
            (None, None) => format!("no rule of this hospital's policy permits {what}"),
        };
        Refusal::new(Code::Policy, detail)
    }
}

/// The actions of a query.
fn statistics(asked: &Asked) -> Result<Vec<&'static str>, Refusal> {
    let Scope { tables, statistics, .. } = &asked.scope;
    if statistics.is_empty() || tables.is_empty() {
        return Err(Refusal::new(Code::Policy, "the query asks for no statistic of a table"));
    }
    Ok(statistics.iter().map(|statistic: &Statistic| statistic.as_str()).collect())
}

fn unanswerable(error: &(dyn std::error::Error + Send + Sync)) -> Refusal {
    tracing::error!(%error, "a question cannot be put to the policy: denied");
    Refusal::new(Code::Policy, "this hospital's policy cannot be asked about it")
}
