//! `orders/1`: what a regulator has suspended, as a complete list; the newest list replaces the one before.
//!
//! A regulator can only suspend: nothing in here allows anything. Each entry lapses by itself, so that a regulator who
//! falls silent ends nothing for ever. Nodes and coordinators obey the regulators whose keys their configuration pins.

use std::{fmt, str::FromStr};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    dsse::Document,
    keys::PublicKey,
    permit::Permit,
    refusal::{Code, Refusal},
    roster::is_name,
};

/// The most entries of one list.
pub const MAX_ENTRIES: usize = 1000;
/// The most regulators that a configuration pins.
pub const MAX_REGULATORS: usize = 16;
/// How long an entry may hold before the regulator has to sign it again.
pub const MAX_DURATION: TimeDelta = TimeDelta::days(366);
/// The longest name or reason in bytes.
const MAX_TEXT: usize = 1000;

/// A regulator whose orders are obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regulator {
    /// Its name in orders: lower-case letters, digits and hyphens.
    pub name: String,
    /// Signs its orders.
    pub key: PublicKey,
}

impl FromStr for Regulator {
    type Err = String;

    /// Reads `NAME:KEY`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) = text.split_once(':').ok_or("a regulator is NAME:KEY")?;
        if !is_name(name) {
            return Err("a regulator's name is 1-64 lower-case letters, digits and hyphens".into());
        }
        Ok(Self { name: name.into(), key: key.parse().map_err(|e| format!("{e}"))? })
    }
}

/// What is suspended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "name", deny_unknown_fields)]
pub enum Target {
    /// A study, by its id.
    Study(String),
    /// An organisation, as the permits name it in `data_user`, letter by letter.
    DataUser(String),
    /// A hospital, by roster name.
    Holder(String),
    /// A coordinator, by its peer id: nothing is answered that comes through it.
    Coordinator(String),
}

impl Target {
    /// The name that is suspended.
    pub fn name(&self) -> &str {
        match self {
            Self::Study(name) | Self::DataUser(name) | Self::Holder(name) | Self::Coordinator(name) => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Study(_) => "study",
            Self::DataUser(_) => "data user",
            Self::Holder(_) => "hospital",
            Self::Coordinator(_) => "coordinator",
        };
        write!(f, "{kind} {}", self.name())
    }
}

/// One suspension.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What is suspended.
    pub target: Target,
    /// Why, in public.
    pub reason: String,
    /// From this second on it has lapsed.
    pub expires: DateTime<Utc>,
}

/// A regulator's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orders {
    /// The regulator, as configurations name it.
    pub regulator: String,
    /// Grows with each list; a lower one than the highest seen is refused.
    pub seq: u64,
    /// The digest of the list before; none for the first.
    pub prev: Option<Digest>,
    /// When it was signed.
    pub issued: DateTime<Utc>,
    /// Everything that is suspended by this regulator.
    pub entries: Vec<Entry>,
}

/// Who would be asked what: that which an order can concern.
#[derive(Clone, Copy, Debug)]
pub struct Concern<'a> {
    /// The permit.
    pub permit: &'a Permit,
    /// The hospital, by roster name; none for all.
    pub holder: Option<&'a str>,
    /// The coordinator's peer id.
    pub coordinator: &'a str,
}

impl Orders {
    /// The first entry that suspends `concern` at `now`.
    pub fn suspends(&self, concern: &Concern<'_>, now: DateTime<Utc>) -> Option<&Entry> {
        let hit = |target: &Target| match target {
            Target::Study(study) => *study == concern.permit.study_id,
            Target::DataUser(user) => *user == concern.permit.data_user,
            Target::Holder(holder) => concern.holder == Some(holder),
            Target::Coordinator(peer) => peer == concern.coordinator,
        };
        self.entries.iter().find(|entry| now < entry.expires && hit(&entry.target))
    }
}

/// That no order of `orders` suspends `concern` at `now`.
///
/// # Errors
/// `regulator_order`, with the regulator, the target and when it lapses.
pub fn obey<'a>(
    orders: impl IntoIterator<Item = &'a Orders>,
    concern: &Concern<'_>,
    now: DateTime<Utc>,
) -> Result<(), Refusal> {
    for list in orders {
        if let Some(Entry { target, reason, expires }) = list.suspends(concern, now) {
            let (by, until) = (&list.regulator, expires.to_rfc3339());
            let detail = format!("{by} suspended {target} until {until} (orders {}): {reason}", list.seq);
            return Err(Refusal::new(Code::RegulatorOrder, detail));
        }
    }
    Ok(())
}

impl Document for Orders {
    const PAYLOAD_TYPE: &'static str = "application/vnd.sekisho.orders.v1+json";
    const NAME: &'static str = "orders";
    const MAX_BYTES: usize = 3 << 20;

    fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(is_name(&self.regulator), "regulator is 1-64 lower-case letters, digits and hyphens")?;
        rule(self.entries.len() <= MAX_ENTRIES, "orders have at most 1000 entries")?;
        for entry in &self.entries {
            let text = |text: &str| !text.trim().is_empty() && text.len() <= MAX_TEXT;
            rule(text(entry.target.name()) && text(&entry.reason), "a target and a reason have 1 to 1000 bytes")?;
            rule(entry.expires - self.issued <= MAX_DURATION, "an entry holds at most 366 days: sign it again then")?;
        }
        let targets: std::collections::BTreeSet<_> = self.entries.iter().map(|entry| &entry.target).collect();
        rule(targets.len() == self.entries.len(), "one target is listed twice")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supersession::tests::permit;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).unwrap() + TimeDelta::hours(hour)
    }

    fn orders(entries: Vec<Entry>) -> Orders {
        Orders { regulator: "ministry".into(), seq: 1, prev: None, issued: at(0), entries }
    }

    fn entry(target: Target, hours: i64) -> Entry {
        Entry { target, reason: "an inspection".into(), expires: at(hours) }
    }

    #[test]
    fn an_order_suspends_its_target_until_its_last_second() {
        let permit = permit("p", 1, None);
        let here = Concern { permit: &permit, holder: Some("tokyo"), coordinator: "12D3" };
        let everywhere = Concern { holder: None, ..here };
        let second = TimeDelta::seconds(1);
        for (target, hits_here, hits_all) in [
            (Target::Study("study-1".into()), true, true),
            (Target::Study("study-2".into()), false, false),
            (Target::DataUser("university".into()), true, true),
            (Target::DataUser("University".into()), false, false),
            (Target::Holder("tokyo".into()), true, false),
            (Target::Holder("osaka".into()), false, false),
            (Target::Coordinator("12D3".into()), true, true),
            (Target::Coordinator("12D4".into()), false, false),
        ] {
            let list = orders(vec![entry(target.clone(), 24)]);
            for (concern, hit) in [(here, hits_here), (everywhere, hits_all)] {
                let code = |at| obey([&list], &concern, at).err().map(|refusal| refusal.code);
                assert_eq!(code(at(24) - second), hit.then_some(Code::RegulatorOrder), "{target}");
                assert_eq!(code(at(24)), None, "{target} has lapsed");
            }
        }
    }

    #[test]
    fn of_several_entries_each_lapses_by_itself_and_the_refusal_says_when() {
        let permit = permit("p", 1, None);
        let concern = Concern { permit: &permit, holder: Some("tokyo"), coordinator: "12D3" };
        let list = orders(vec![entry(Target::Study("study-1".into()), 1), entry(Target::Holder("tokyo".into()), 2)]);
        let said = |at| obey([&list], &concern, at).map_err(|refusal| refusal.detail);
        assert!(said(at(0)).unwrap_err().contains("ministry suspended study study-1 until 2025-06-15T16:06:40"));
        assert!(said(at(1)).unwrap_err().contains("hospital tokyo"));
        assert_eq!(said(at(2)), Ok(()));
    }

    #[test]
    fn what_a_regulator_cannot_sign() {
        let study = || Target::Study("s".into());
        for (fact, list) in [
            ("for ever", orders(vec![entry(study(), 24 * 367)])),
            ("the same twice", orders(vec![entry(study(), 1), entry(study(), 2)])),
            ("nothing", orders(vec![entry(Target::Study(" ".into()), 1)])),
            ("without a reason", orders(vec![Entry { reason: String::new(), ..entry(study(), 1) }])),
            ("too much", orders((0..1001).map(|n| entry(Target::Study(format!("s{n}")), 1)).collect())),
            ("as nobody", Orders { regulator: "The Ministry".into(), ..orders(Vec::new()) }),
        ] {
            assert!(list.check().is_err(), "{fact}");
        }
        assert!(orders(Vec::new()).check().is_ok(), "nothing is suspended");
    }
}
