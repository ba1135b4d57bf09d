//! The table `watch`: where metrics and health are served, and from what on a rule speaks.

use std::{net::SocketAddr, time::Duration};

use super::{ConfigError, check, within, wrong};
use crate::file::{BudgetRuleFile, WatchFile};

/// The longest window, in seconds: 31 days.
const MAX_WINDOW_S: u64 = 31 * 86_400;
/// The most events that a rule counts.
const MAX_COUNT: u64 = 1000;

/// How the node is watched, and how it watches those who ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// An address of loopback for metrics and health, if they are served.
    pub address: Option<SocketAddr>,
    /// Somebody else than the coordinator; there is no study to suspend.
    pub unexpected_peer: CountRule,
    /// Refused messages.
    pub refusals: CountRule,
    /// Charged queries without an answer.
    pub no_answer: CountRule,
    /// Budgets that burn fast.
    pub budget: BudgetRule,
}

/// So many events in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountRule {
    /// From how many on, 1 to 1000.
    pub count: u32,
    /// Within which time.
    pub window: Duration,
    /// Whether the study is suspended for it.
    pub suspend: bool,
}

/// Such a share of a budget in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetRule {
    /// Of what is set aside for a study, in percent, 1 to 100.
    pub study_percent: u32,
    /// Of the lifetime cap, in percent, 1 to 100.
    pub lifetime_percent: u32,
    /// Within which time.
    pub window: Duration,
    /// Whether the study is suspended for it; for the lifetime budget none is.
    pub suspend: bool,
}

fn window(seconds: u64, key: &str) -> Result<Duration, ConfigError> {
    within(seconds, 1, MAX_WINDOW_S, key).map(Duration::from_secs)
}

fn small(value: u64, most: u64, key: &str) -> Result<u32, ConfigError> {
    within(value, 1, most, key).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn counted(name: &str, count: u64, window_s: u64, suspend: bool) -> Result<CountRule, ConfigError> {
    Ok(CountRule {
        count: small(count, MAX_COUNT, &format!("watch.{name}.count"))?,
        window: window(window_s, &format!("watch.{name}.window_s"))?,
        suspend,
    })
}

impl TryFrom<WatchFile> for Watch {
    type Error = ConfigError;

    fn try_from(file: WatchFile) -> Result<Self, ConfigError> {
        let rule = "write an address of this machine alone, with its port: \"127.0.0.1:9816\" or \"[::1]:9816\"";
        let address: Option<SocketAddr> =
            file.address.map(|address| address.parse()).transpose().map_err(|_| wrong("watch.address", rule))?;
        check(address.is_none_or(|a| a.ip().is_loopback() && a.port() > 0), "watch.address", rule)?;
        let peer = file.unexpected_peer;
        let BudgetRuleFile { study_percent, lifetime_percent, window_s, suspend } = file.budget;
        Ok(Self {
            address,
            unexpected_peer: counted("unexpected_peer", peer.count, peer.window_s, false)?,
            refusals: counted("refusals", file.refusals.count, file.refusals.window_s, file.refusals.suspend)?,
            no_answer: counted("no_answer", file.no_answer.count, file.no_answer.window_s, file.no_answer.suspend)?,
            budget: BudgetRule {
                study_percent: small(study_percent, 100, "watch.budget.study_percent")?,
                lifetime_percent: small(lifetime_percent, 100, "watch.budget.lifetime_percent")?,
                window: window(window_s, "watch.budget.window_s")?,
                suspend,
            },
        })
    }
}
