//! `sekisho orders`: what a regulator suspends.
//!
//! Orders are a complete list: each command takes the newest one, changes it, and signs the next. A list in a file can be
//! handed to a hospital directly (`sekisho-node orders put`), for a coordinator that withholds it. The newest list counts
//! only when the key that will sign the next one signed it.

use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use sekisho_protocol::{
    digest::Digest,
    dsse::{Envelope, Verified},
    key_file,
    keys::SecretKey,
    orders::{Entry, Orders, Target},
    roster::is_name,
};

use super::{
    Context, duration,
    failure::{Exit, Failure},
    file, governance,
    print::{self, Output, Spinner},
};

/// Who signs, and where the next list goes.
#[derive(Debug, Args)]
pub struct Signing {
    /// The regulator's name, as the hospitals pin it.
    #[arg(long, value_name = "NAME")]
    regulator: String,
    /// The regulator's key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The newest list, from a file instead of from the coordinator.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Where the next list goes; it must not exist.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// What an order is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct About {
    /// A study, by its id.
    #[arg(long, value_name = "ID")]
    study: Option<String>,
    /// An organisation, as permits name it in data_user, letter by letter.
    #[arg(long, value_name = "NAME")]
    data_user: Option<String>,
    /// A hospital, by roster name.
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    /// A coordinator, by peer id: no hospital answers what comes through it.
    #[arg(long, value_name = "PEER")]
    coordinator_peer: Option<String>,
}

impl About {
    fn target(&self) -> Result<Target, Failure> {
        let all = [
            self.study.clone().map(Target::Study),
            self.data_user.clone().map(Target::DataUser),
            self.holder.clone().map(Target::Holder),
            self.coordinator_peer.clone().map(Target::Coordinator),
        ];
        let none = || Failure::input("nothing is named", "add --study, --data-user, --holder or --coordinator-peer");
        all.into_iter().flatten().next().ok_or_else(none)
    }
}

/// What to do with orders.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign a regulator's first list, with nothing on it.
    #[command(
        after_help = "Example:\n  sekisho orders new --regulator ministry --key ministry.pem --out orders.dsse.json"
    )]
    New {
        #[command(flatten)]
        signing: Signing,
    },
    /// Suspend something: sign the next list, with one more entry.
    #[command(
        after_help = "Example:\n  sekisho orders add --study asthma --reason 'an inspection' --valid-for 30d --regulator ministry --key ministry.pem --out orders.dsse.json"
    )]
    Add {
        #[command(flatten)]
        about: About,
        /// Why, in public.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// When the entry lapses; at most 366 days ahead.
        #[arg(long, value_name = "TIME", default_value = "30d", value_parser = duration::parse)]
        valid_for: TimeDelta,
        #[command(flatten)]
        signing: Signing,
    },
    /// Lift a suspension: sign the next list, without that entry.
    #[command(
        after_help = "Example:\n  sekisho orders lift --study asthma --regulator ministry --key ministry.pem --out orders-2.dsse.json"
    )]
    Lift {
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        signing: Signing,
    },
    /// Hand a signed list in, and print what each hospital says to it.
    #[command(after_help = "Example:\n  sekisho orders submit orders.dsse.json")]
    Submit {
        /// The signed list.
        file: PathBuf,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
    /// Print the newest lists, from the coordinator or from a file (signatures are not checked).
    #[command(after_help = "Example:\n  sekisho orders show --output json")]
    Show {
        /// A file; the coordinator's lists without it.
        file: Option<PathBuf>,
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// One change of a list.
enum Change {
    None,
    Add(Entry),
    Lift(Target),
}

/// Does what `command` says.
///
/// # Errors
/// When a file, a name or a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::New { signing } => write(signing, Change::None, context).await?,
        Command::Add { about, reason, valid_for, signing } => {
            let entry = Entry { target: about.target()?, reason: reason.clone(), expires: context.now + *valid_for };
            write(signing, Change::Add(entry), context).await?;
        }
        Command::Lift { about, signing } => write(signing, Change::Lift(about.target()?), context).await?,
        Command::Submit { file, output } => {
            let envelope = file::read_envelope::<Orders>(file)?;
            let mut door = context.door().await?;
            let _spinner = Spinner::start("handing in the orders");
            let report = door.put(&envelope).await?;
            return print::put(&report, *output, true);
        }
        Command::Show { file, output } => {
            let envelopes = match file {
                Some(path) => vec![file::read_envelope::<Orders>(path)?],
                None => context.door().await?.trust().await?.orders,
            };
            for envelope in &envelopes {
                let peeked = envelope.peek::<Orders>().map_err(|e| Failure::answer("orders", e))?;
                governance::show(envelope, &peeked.0, peeked.1, *output, |orders| table(orders, context.now))?;
            }
            if envelopes.is_empty() {
                print::note("no regulator has signed orders");
            }
        }
    }
    Ok(Exit::Done)
}

/// Signs the list after the newest one, changed, into the file that `signing` names.
async fn write(signing: &Signing, change: Change, context: &Context) -> Result<(), Failure> {
    let key = key_file::read(&signing.key)?;
    let newest = match (&signing.from, &change) {
        (Some(path), _) => Some(own(&file::read_envelope::<Orders>(path)?, &key)?),
        // The first list can be made without a coordinator.
        (None, Change::None) => None,
        (None, Change::Add(_) | Change::Lift(_)) => {
            let lists = context.door().await?.trust().await?.orders;
            let of_us = |envelope: &&Envelope| {
                envelope.peek::<Orders>().is_ok_and(|(orders, _)| orders.regulator == signing.regulator)
            };
            lists.iter().find(of_us).map(|envelope| own(envelope, &key)).transpose()?
        }
    };
    let current = newest.as_ref().map(|newest| (newest.document(), newest.digest()));
    let next = next(current, &signing.regulator, change, context.now)?;
    let envelope = Envelope::sign(&next, &[&key])
        .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was written"))?;
    file::write_new(&signing.out, &envelope.to_json())?;
    print::out(&table(&next, context.now))?;
    print::note(&format!("hand it in with `sekisho orders submit {}`", signing.out.display()));
    Ok(())
}

/// The list in `envelope`, when this key signed it.
fn own(envelope: &Envelope, key: &SecretKey) -> Result<Verified<Orders>, Failure> {
    envelope
        .verify::<Orders>(&[key.public()], 1)
        .map_err(|e| Failure::input(format!("the newest orders are not by this key: {e}"), "find out who signed them"))
}

/// The list after `current`, changed; entries that have lapsed are left out.
fn next(
    current: Option<(&Orders, Digest)>,
    regulator: &str,
    change: Change,
    issued: DateTime<Utc>,
) -> Result<Orders, Failure> {
    if !is_name(regulator) || current.is_some_and(|(orders, _)| orders.regulator != regulator) {
        return Err(Failure::input(format!("{regulator} is not the regulator of these orders"), "check --regulator"));
    }
    let (seq, prev) = governance::following(current, |orders| orders.seq);
    let mut entries = current.map(|(orders, _)| orders.entries.clone()).unwrap_or_default();
    entries.retain(|entry| issued < entry.expires);
    match change {
        Change::None => {}
        Change::Add(entry) => {
            // Ordered again, it holds for the new time.
            entries.retain(|known| known.target != entry.target);
            entries.push(entry);
        }
        Change::Lift(target) => {
            let before = entries.len();
            entries.retain(|entry| entry.target != target);
            if entries.len() == before {
                return Err(Failure::input(format!("{target} is not suspended"), "see `sekisho orders show`"));
            }
        }
    }
    Ok(Orders { regulator: regulator.into(), seq, prev, issued, entries })
}

fn table(orders: &Orders, now: DateTime<Utc>) -> String {
    let facts = [
        ("regulator", orders.regulator.clone()),
        ("orders", orders.seq.to_string()),
        ("issued", orders.issued.to_rfc3339()),
    ];
    if orders.entries.is_empty() {
        return format!("{}\nnothing is suspended", print::pairs(&facts));
    }
    let row = |entry: &Entry| {
        let lapsed = if now < entry.expires { "" } else { " (lapsed)" };
        [entry.target.to_string(), format!("{}{lapsed}", entry.expires.to_rfc3339()), entry.reason.clone()]
    };
    let entries = print::table(["suspended", "until", "reason"], orders.entries.iter().map(row));
    format!("{}\n{entries}", print::pairs(&facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::hours(hour)
    }

    #[test]
    fn each_list_is_complete_and_follows_the_one_before() {
        let study = |name: &str, hours| Entry {
            target: Target::Study(name.into()),
            reason: "an inspection".into(),
            expires: at(hours),
        };
        let first = next(None, "ministry", Change::Add(study("asthma", 24)), at(0)).unwrap();
        let digest = Digest::of(b"first");
        let after = |change, hour| next(Some((&first, digest)), "ministry", change, at(hour));
        let second = after(Change::Add(study("cancer", 48)), 1).unwrap();
        assert_eq!((second.seq, second.prev, second.entries.len()), (2, Some(digest), 2));
        let again = after(Change::Add(study("asthma", 72)), 1).unwrap();
        assert_eq!(again.entries, [study("asthma", 72)]);
        assert!(after(Change::Lift(Target::Study("asthma".into())), 1).unwrap().entries.is_empty());
        assert!(after(Change::Lift(Target::Holder("asthma".into())), 1).is_err(), "another kind of target");
        assert!(after(Change::None, 24).unwrap().entries.is_empty(), "what has lapsed is not signed again");
        assert!(next(Some((&first, digest)), "another", Change::None, at(1)).is_err());
    }
}
