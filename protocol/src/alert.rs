//! `alert/1`: a node's signed note in its own log that something was out of the ordinary.
//!
//! It is for the hospital and for whoever inspects its log. Nothing in it comes from rows: it says which rule spoke, about
//! which study, and the numbers that made it speak, which are of messages and charges. No patient, no person, no text from
//! outside.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{dsse::Document, roster::is_name};

/// What is out of the ordinary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Somebody else than the pinned coordinator answered or asked, or a query came by a key that counts no longer.
    UnexpectedPeer,
    /// Many messages were refused.
    Refusals,
    /// Charged queries had no answer.
    NoAnswer,
    /// A study spends its budget fast.
    StudyBudget,
    /// All studies together spend the lifetime budget fast.
    LifetimeBudget,
    /// The coordinator or another hospital signed a checkpoint that does not continue what this node witnessed of its log.
    ForkedLog,
}

impl Rule {
    /// Every rule, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::UnexpectedPeer,
        Self::Refusals,
        Self::NoAnswer,
        Self::StudyBudget,
        Self::LifetimeBudget,
        Self::ForkedLog,
    ];

    /// Its stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnexpectedPeer => "unexpected_peer",
            Self::Refusals => "refusals",
            Self::NoAnswer => "no_answer",
            Self::StudyBudget => "study_budget",
            Self::LifetimeBudget => "lifetime_budget",
            Self::ForkedLog => "forked_log",
        }
    }

    /// Whether `observed` and `threshold` are micro-rho; otherwise they count events.
    pub const fn counts_rho(self) -> bool {
        match self {
            Self::StudyBudget | Self::LifetimeBudget => true,
            Self::UnexpectedPeer | Self::Refusals | Self::NoAnswer | Self::ForkedLog => false,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such rule")]
pub struct UnknownRule;

impl FromStr for Rule {
    type Err = UnknownRule;

    fn from_str(name: &str) -> Result<Self, UnknownRule> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == name).ok_or(UnknownRule)
    }
}

/// The alert document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// The hospital, by roster name.
    pub node: String,
    /// What is out of the ordinary.
    pub rule: Rule,
    /// The study that it is about; none where it is about no study, or where who asked is not proven.
    pub study_id: Option<String>,
    /// What was observed in the window: events, or micro-rho ([`Rule::counts_rho`]).
    pub observed: u64,
    /// From what on the rule speaks, in the same unit.
    pub threshold: u64,
    /// The window, in seconds.
    pub window_s: u64,
    /// The node suspended the study for it.
    pub suspended: bool,
    /// When.
    pub at: DateTime<Utc>,
}

impl Document for Alert {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.alert.v1+json";
    const NAME: &'static str = "alert";
    const MAX_BYTES: usize = 4 << 10;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_string()) };
        rule(is_name(&self.node), "node is 1-64 lower-case letters, digits and hyphens")?;
        rule(
            self.study_id.as_deref().is_none_or(is_name),
            "study_id is 1-64 lower-case letters, digits and hyphens, or absent",
        )?;
        let of_study = match self.rule {
            Rule::UnexpectedPeer | Rule::LifetimeBudget | Rule::ForkedLog => self.study_id.is_none(),
            Rule::NoAnswer | Rule::StudyBudget => self.study_id.is_some(),
            Rule::Refusals => true,
        };
        rule(
            of_study,
            "unexpected_peer, lifetime_budget and forked_log name no study, no_answer and study_budget name one",
        )?;
        rule(!self.suspended || self.study_id.is_some(), "what was suspended is a study")?;
        rule(
            self.threshold > 0 && self.observed >= self.threshold,
            "observed is at least threshold, which is above 0",
        )?;
        rule((1..=366 * 86_400).contains(&self.window_s), "window_s is 1 to 31622400")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert() -> Alert {
        Alert {
            node: "west".into(),
            rule: Rule::Refusals,
            study_id: Some("study".into()),
            observed: 30,
            threshold: 30,
            window_s: 600,
            suspended: false,
            at: DateTime::from_timestamp(1_750_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn an_alert_names_a_study_where_its_rule_is_about_one_and_what_it_observed_is_enough() {
        let check = |change: fn(&mut Alert), expect: bool| {
            let mut alert = alert();
            change(&mut alert);
            assert_eq!(alert.check().is_ok(), expect, "{alert:?}");
        };
        check(|_| {}, true);
        check(|a| a.study_id = None, true);
        check(|a| (a.study_id, a.suspended) = (None, true), false);
        check(|a| a.suspended = true, true);
        check(|a| a.rule = Rule::UnexpectedPeer, false);
        check(|a| (a.rule, a.study_id) = (Rule::UnexpectedPeer, None), true);
        check(|a| (a.rule, a.study_id) = (Rule::LifetimeBudget, None), true);
        check(|a| (a.rule, a.study_id) = (Rule::NoAnswer, None), false);
        check(|a| a.rule = Rule::ForkedLog, false);
        check(|a| (a.rule, a.study_id) = (Rule::ForkedLog, None), true);
        check(|a| (a.rule, a.study_id) = (Rule::StudyBudget, None), false);
        check(|a| a.study_id = Some("Hanako Yamada".into()), false);
        check(|a| a.node = String::new(), false);
        check(|a| a.observed = 29, false);
        check(|a| (a.observed, a.threshold) = (0, 0), false);
        check(|a| a.window_s = 0, false);
        check(|a| a.window_s = 366 * 86_400, true);
        check(|a| a.window_s = 366 * 86_400 + 1, false);
    }

    #[test]
    fn a_rules_name_is_the_one_that_is_signed() {
        for rule in Rule::ALL {
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
            assert_eq!(rule.as_str().parse(), Ok(*rule));
        }
        assert_eq!("Refusals".parse::<Rule>(), Err(UnknownRule));
    }
}
