//! `log`: what is in the coordinator's log, whether it is whole, who witnessed it, and proofs for strangers. It is read beside the
//! running coordinator.
//!
//! Deliberately absent: any statement on the screen, but where it is asked for by its place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use miette::{IntoDiagnostic, WrapErr, miette};
use sekisho_protocol::{
    dsse::Envelope,
    log::{
        entry::Kind,
        statements::{Anchors, Statements, Verified},
        store::{Shown, Which},
    },
    receipt::Receipt,
    roster::Role,
};
use serde_json::json;

use crate::{
    config::Config,
    documents::{Current, Documents},
    listing::{self, Listing},
    person::print,
    store::Store,
    tiles::Tiles,
    witnesses::{self, Confirmed},
};

/// After so many entries a line tells how far the check is.
const STEP: u64 = 10_000;

#[derive(Args)]
pub(super) struct At {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Prints entries (place, kind, and SHA-256 of the statement, never the statement) and the newest checkpoint with its
    /// witnesses.
    #[command(
        after_help = "Example:\n  sekisho-coordinator log show --kind write_off --output json --config /etc/sekisho/coordinator.toml"
    )]
    Show {
        #[command(flatten)]
        at: At,
        /// The first entry; the log counts from 0.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// How many at most, up to 1000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Only statements of this kind.
        #[arg(long)]
        kind: Option<Kind>,
        /// How to print.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Makes every hash of the log again from its first entry and compares: statements, tree, tile files, checkpoint, cosignatures.
    /// Exit code 1 when anything was changed.
    #[command(after_help = "Example:\n  sekisho-coordinator log check --all --config /etc/sekisho/coordinator.toml")]
    Check {
        #[command(flatten)]
        at: At,
        /// Verifies the signatures of every statement too, and matches receipts to queries and permits.
        #[arg(long)]
        all: bool,
        /// How to print.
        #[arg(long, value_enum, default_value = "table")]
        output: print::Output,
    },
    /// Writes the proof that an entry is in the log, as docs/verify.py and others read it (c2sp.org/tlog-proof).
    #[command(
        after_help = "Example:\n  sekisho-coordinator log proof 139 --out entry-139.tlog-proof --statement statement.json \\\n    \
                      --config /etc/sekisho/coordinator.toml"
    )]
    Proof {
        /// The entry's number, or the SHA-256 of its statement or the first 12 digits of it.
        entry: Which,
        /// The file of the proof; `-` is standard output.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// A file for the statement itself. It may be confidential.
        #[arg(long, value_name = "FILE")]
        statement: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Prints the newest checkpoint with its cosignatures, as it was signed (c2sp.org/tlog-checkpoint).
    #[command(
        after_help = "Example:\n  sekisho-coordinator log checkpoint --of hospital-1 --config /etc/sekisho/coordinator.toml"
    )]
    Checkpoint {
        /// Of whose log, by roster name; without it the coordinator's.
        #[arg(long, value_name = "MEMBER")]
        of: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Prints a trust policy (c2sp.org/tlog-policy) for those who verify: the key of a log, and the hospitals as its witnesses.
    #[command(
        after_help = "Example:\n  sekisho-coordinator log policy --quorum 2 --config /etc/sekisho/coordinator.toml > policy.txt"
    )]
    Policy {
        /// How many hospitals must have cosigned; without it two, or the only one.
        #[arg(long)]
        quorum: Option<usize>,
        /// Whose log, by roster name; without it the coordinator's.
        #[arg(long, value_name = "MEMBER")]
        of: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Prints the keys of all logs and witnesses of the roster, as policies and notes name them.
    #[command(
        after_help = "Example:\n  sekisho-coordinator log keys --output json --config /etc/sekisho/coordinator.toml"
    )]
    Keys {
        #[command(flatten)]
        at: At,
        /// How to print.
        #[arg(long, value_enum, default_value = "table")]
        output: Listing,
    },
    /// Prints the receipts that a hospital signed, one envelope a line: for a hospital that lost its newest database
    /// (`sekisho-node log write-off`).
    #[command(
        after_help = "Example:\n  sekisho-coordinator log receipts hospital-1 --config /etc/sekisho/coordinator.toml > receipts.jsonl"
    )]
    Receipts {
        /// The hospital, by roster name.
        hospital: String,
        #[command(flatten)]
        at: At,
    },
}

impl Command {
    /// Runs `log`.
    pub(super) fn run(self) -> miette::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
        runtime.block_on(async {
            match self {
                Self::Show { at, from, limit, kind, output } => {
                    let log = Log::open(&at).await?;
                    log.show(from, limit, kind, output).await
                }
                Self::Check { at, all, output } => Log::open(&at).await?.check(all, output).await,
                Self::Proof { entry, out, statement, at } => {
                    Log::open(&at).await?.proof(&entry, &out, statement.as_deref()).await
                }
                Self::Checkpoint { of, at } => Log::open(&at).await?.checkpoint(of.as_deref()).await,
                Self::Policy { quorum, of, at } => {
                    let log = Log::open(&at).await?;
                    let text = witnesses::policy_of(&log.documents, of.as_deref(), quorum);
                    said(text.map_err(|why| miette!("{why}"))?.trim_end())
                }
                Self::Keys { at, output } => Log::open(&at).await?.keys(output),
                Self::Receipts { hospital, at } => Log::open(&at).await?.receipts(&hospital).await,
            }
        })
    }
}

/// Prints to standard output.
fn said(text: &str) -> miette::Result<()> {
    print::out(text).map_err(|failure| miette!("{failure}"))
}

/// The log of one coordinator, and the documents beside it.
struct Log {
    config: Config,
    store: Store,
    documents: Documents,
}

impl Log {
    async fn open(at: &At) -> miette::Result<Self> {
        let config = Config::load(&at.config).into_diagnostic()?;
        let path = config.state_dir.join("coordinator.db");
        let store = Store::open_to_read(&path).await.into_diagnostic().wrap_err(path.display().to_string())?;
        let documents = Documents::open(store.clone(), config.trust.clone()).await.into_diagnostic()?;
        Ok(Self { config, store, documents })
    }

    /// The newest checkpoint and who cosigned it.
    async fn confirmed(&self) -> miette::Result<Option<Confirmed>> {
        let Some(checkpoint) = self.store.own_checkpoint().await.into_diagnostic()? else { return Ok(None) };
        witnesses::confirmed(&self.documents, checkpoint).map(Some).map_err(|why| miette!("{why}"))
    }

    async fn checkpoint(&self, of: Option<&str>) -> miette::Result<()> {
        let newest = match of {
            None => self.store.own_checkpoint().await,
            Some(member) => self.store.newest_checkpoint(member).await,
        };
        let newest = newest.into_diagnostic()?.ok_or_else(|| miette!("no checkpoint of this log was seen yet"))?;
        let confirmed = witnesses::confirmed(&self.documents, newest).map_err(|why| miette!("{why}"))?;
        eprintln!("{}", confirmed.in_words());
        said(confirmed.checkpoint.to_string().trim_end())
    }

    async fn show(&self, from: u64, limit: u32, kind: Option<Kind>, output: Listing) -> miette::Result<()> {
        let leaves = match kind {
            None => self.store.log_entries(from, limit).await,
            Some(kind) => self.store.log_entries_of(kind, from, limit).await,
        };
        let entries: Vec<Shown> = leaves.into_diagnostic()?.iter().map(Shown::from).collect();
        let header = ["entry", "kind", "SHA-256 of the statement"];
        match output {
            Listing::Csv => said(&listing::csv(header, entries.iter().map(Shown::cells))),
            Listing::Json => {
                let confirmed = self.confirmed().await?;
                let checkpoint = confirmed.as_ref().map(
                    |confirmed| json!({ "note": confirmed.checkpoint.to_string(), "witnesses": confirmed.witnesses }),
                );
                let listed = json!({ "checkpoint": checkpoint, "entries": entries });
                said(&serde_json::to_string_pretty(&listed).into_diagnostic()?)
            }
            Listing::Table => {
                let confirmed = self.confirmed().await?;
                let line = confirmed.map_or_else(|| "no checkpoint was cosigned yet".into(), |c| c.in_words());
                said(&format!("{}\n{line}", print::table(header, entries.iter().map(Shown::cells))))
            }
        }
    }

    async fn check(&self, all: bool, output: print::Output) -> miette::Result<()> {
        let mut statements = if all { Some(Statements::new(self.anchors().await?)) } else { None };
        let threads = std::thread::available_parallelism().into_diagnostic()?;
        let seen = |entries: u64| {
            if entries.is_multiple_of(STEP) && entries > 0 {
                eprintln!("{entries} entries checked");
            }
        };
        let audited = self.store.audit_log_with(statements.as_mut(), threads, seen);
        let audited = audited.await.into_diagnostic().wrap_err("the log is not whole")?;
        let confirmed = self.confirmed().await.wrap_err("the checkpoint is not good")?;
        if let Some(confirmed) = &confirmed {
            let signed = confirmed.checkpoint.claimed().head();
            let head = self.store.log_head_at(signed.size()).await.into_diagnostic().wrap_err("the log was cut")?;
            if head != *signed {
                return Err(miette!(
                    "the first {} entries do not have the root that the coordinator signed and hospitals cosigned: the log was \
                     changed",
                    signed.size()
                ));
            }
        }
        let files = Tiles::new(self.store.clone(), self.config.state_dir.join("log")).check().await;
        let files = files.into_diagnostic().wrap_err("the log's files are not those of the log")?;
        let (size, root, erased) = (audited.head.size(), audited.head.root(), audited.erased);
        let found = statements.as_ref().map(Statements::found);
        match output {
            print::Output::Json => {
                let checkpoint = confirmed.as_ref().map(|confirmed| {
                    json!({ "entries": confirmed.checkpoint.claimed().head().size(), "witnesses": confirmed.witnesses })
                });
                let report = json!({
                    "entries": size, "root": root, "erased": erased, "statements": found, "checkpoint": checkpoint,
                    "files": files,
                });
                said(&serde_json::to_string_pretty(&report).into_diagnostic()?)
            }
            print::Output::Table => {
                let mut lines =
                    vec![format!("whole: {size} entries with root {root}, of which {erased} statements were erased")];
                lines.extend(found.map(Verified::in_words));
                lines.push(confirmed.map_or_else(|| "no checkpoint was cosigned yet".into(), |c| c.in_words()));
                lines.push(files.map_or_else(
                    || "nothing was published yet".into(),
                    |size| format!("files: checkpoint and tiles of {size} entries are those of the log"),
                ));
                said(&lines.join("\n"))
            }
        }
    }

    async fn anchors(&self) -> miette::Result<Anchors> {
        let trust = &self.config.trust;
        let pins = self.store.governance_pins().await.into_diagnostic()?;
        let governance = std::iter::once(trust.governance).chain(pins.into_iter().map(|pin| pin.key)).collect();
        let (committee, regulators) = (trust.committee.clone(), trust.regulators.clone());
        Ok(Anchors { governance, committee, regulators, own: ("coordinator".into(), Vec::new()) })
    }

    async fn proof(&self, entry: &Which, out: &Path, statement: Option<&Path>) -> miette::Result<()> {
        let none =
            || miette!("no checkpoint was cosigned yet: the coordinator must run, and its hospitals be connected");
        let confirmed = self.confirmed().await?.ok_or_else(none)?;
        let words = confirmed.in_words();
        let proved = self.store.prove(entry, confirmed.checkpoint).await.into_diagnostic()?;
        let text = proved.proof.to_string();
        if out == Path::new("-") {
            said(text.trim_end())?;
        } else {
            fs::write(out, text).into_diagnostic().wrap_err_with(|| out.display().to_string())?;
        }
        if let Some(path) = statement {
            fs::write(path, &proved.statement).into_diagnostic().wrap_err_with(|| path.display().to_string())?;
        }
        eprintln!("a {}, under this: {words}", proved.kind);
        Ok(())
    }

    fn keys(&self, output: Listing) -> miette::Result<()> {
        let current = self.documents.current();
        let rows = keys(&self.documents, &current)?;
        let header = ["member", "role", "log", "witness"];
        match output {
            Listing::Table => said(&print::table(header, rows)),
            Listing::Csv => said(&listing::csv(header, rows)),
            Listing::Json => {
                let of = |[name, role, log, witness]: [String; 4]| json!({ "member": name, "role": role, "log": log, "witness": witness });
                said(&serde_json::to_string_pretty(&rows.into_iter().map(of).collect::<Vec<_>>()).into_diagnostic()?)
            }
        }
    }

    async fn receipts(&self, hospital: &str) -> miette::Result<()> {
        let (mut from, mut lines) = (0, 0_u64);
        loop {
            let page = self.store.log_entries_of(Kind::Receipt, from, 1000).await.into_diagnostic()?;
            let Some(last) = page.last() else { break };
            from = last.index + 1;
            for opened in page.iter().filter_map(|leaf| leaf.opened.as_ref()) {
                let read = Envelope::from_json::<Receipt>(&opened.statement).and_then(|e| e.peek::<Receipt>());
                if read.is_ok_and(|(receipt, _)| receipt.node == hospital) {
                    said(&String::from_utf8_lossy(&opened.statement))?;
                    lines += 1;
                }
            }
        }
        eprintln!("{lines} receipts of {hospital}");
        Ok(())
    }
}

/// The keys of the members of the roster: name, role, key of the log, key of the witness.
fn keys(documents: &Documents, current: &Current) -> miette::Result<Vec<[String; 4]>> {
    let roster = current.pinned_roster().ok_or_else(|| miette!("there is no roster yet"))?;
    let of = |member: &sekisho_protocol::roster::Member| {
        let (log, witness) = witnesses::keys(documents, member).map_err(|why| miette!("{why}"))?;
        let role = match member.role {
            Role::Coordinator => "coordinator",
            Role::Node => "node",
        };
        Ok([member.name.clone(), role.into(), log.to_string(), witness.to_string()])
    };
    roster.members.iter().map(of).collect()
}
