//! The person's command line, `sekisho`: data users, committee members and the access body.
//!
//! Promises: private keys never leave this machine; what is asked or granted is signed here, over bytes that this
//! program made; every failure has a stable code, an exit code, and a sentence on what to do.
//!
//! Deliberately absent: settings, sessions and state of its own; files and the coordinator hold everything.

pub(crate) mod answer;
pub(crate) mod application;
mod budget;
mod catalogue;
mod committee;
pub(crate) mod door;
mod due;
mod duration;
pub(crate) mod explain;
pub(crate) mod failure;
mod file;
pub(crate) mod format;
mod governance;
pub(crate) mod grant;
mod keys;
mod log;
pub(crate) mod number;
mod orders;
pub(crate) mod output;
pub(crate) mod permit;
mod permit_file;
pub(crate) mod place;
pub(crate) mod print;
pub(crate) mod query;
pub(crate) mod register;
mod release;
mod review;
mod roster;
mod rotation;
mod schema;
mod status;
mod study;
pub(crate) mod terms;
mod verify;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use chrono::{DateTime, SubsecRound, Utc};
use clap::{Parser, Subcommand};

use self::{
    door::Door,
    failure::{Exit, Failure},
    print::Output,
};
use crate::report::{MemberReport, NetworkReport};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused; a stable code is printed as error[code]
  2  usage, or a file or key is not as it should be
  3  the coordinator cannot be reached
  4  some hospitals did not answer; the result was printed and is incomplete

Example:
  sekisho query --permit permit-1 --sql 'SELECT sex, count(*) FROM stay GROUP BY sex' --key ada.pem";

/// Ask hospitals for statistics, and govern who may.
#[derive(Debug, Parser)]
#[command(name = "sekisho", version, after_help = EXIT_CODES)]
struct Cli {
    /// The coordinator's door; https:// beyond this machine.
    #[arg(long, global = true, value_name = "URL", default_value = "http://127.0.0.1:8815")]
    coordinator: String,
    /// For https://, the PEM of the authority that signed the coordinator's certificate.
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a question under a permit, or what it would cost.
    #[command(
        after_help = "Example:\n  sekisho query --permit permit-1 --sql 'SELECT sex, avg(days) FROM stay GROUP BY sex' --key ada.pem --dry-run"
    )]
    Query(Box<query::Command>),
    /// Say what a question is taken to mean, how it is bounded, and how exact its answer would be; nothing is sent.
    #[command(
        after_help = "Example:\n  sekisho explain --schema stays.json --rho 50000 --rows-per-patient 4 --groups-per-patient 1 --sql 'SELECT sex, avg(days) FROM stay GROUP BY sex'"
    )]
    Explain(Box<explain::Command>),
    /// Applications: draft, check, hand in, show.
    #[command(subcommand, after_help = "Example:\n  sekisho application new --guided --out application.toml")]
    Application(application::Command),
    /// What a member of the committee says of applications.
    #[command(subcommand, after_help = "Example:\n  sekisho review list --key member.pem")]
    Review(review::Command),
    /// What the hospitals hold: search, show, compare, export.
    #[command(subcommand, after_help = "Example:\n  sekisho catalogue search 糖尿病 ICD-10")]
    Catalogue(catalogue::Command),
    /// Whether a study can be done, before applying.
    #[command(
        subcommand,
        after_help = "Example:\n  sekisho study check --schema omop.dsse.json --sql 'SELECT count(*) FROM person'"
    )]
    Study(study::Command),
    /// Permits: draft, sign, hand in, revoke.
    #[command(subcommand, after_help = "Example:\n  sekisho permit template > permit.toml")]
    Permit(permit::Command),
    /// Schemas: sign, hand in, show.
    #[command(subcommand, after_help = "Example:\n  sekisho schema show stays.dsse.json")]
    Schema(schema::Command),
    /// The roster: who is a member.
    #[command(subcommand, after_help = "Example:\n  sekisho roster show")]
    Roster(roster::Command),
    /// The status: what is void or suspended.
    #[command(subcommand, after_help = "Example:\n  sekisho status refresh --key governance.pem")]
    Status(status::Command),
    /// What a study has left at each hospital.
    #[command(after_help = "Example:\n  sekisho budget asthma")]
    Budget(budget::Command),
    /// The committee: who decides on uses.
    #[command(subcommand, after_help = "Example:\n  sekisho committee show")]
    Committee(committee::Command),
    /// The governance key: who signs roster, status and schemas.
    #[command(subcommand, after_help = "Example:\n  sekisho governance show")]
    Governance(rotation::Command),
    /// Regulators' orders: what is suspended by law.
    #[command(subcommand, after_help = "Example:\n  sekisho orders show")]
    Orders(orders::Command),
    /// Results that wait for reviewers: list, show, release, refuse.
    #[command(subcommand, after_help = "Example:\n  sekisho output list --key sato.pem")]
    Output(output::Command),
    /// Released results: list them, export one with all that proves it.
    #[command(subcommand, after_help = "Example:\n  sekisho release export 5f0c83d2 --key ada.pem --out asthma.zip")]
    Release(release::Command),
    /// Check an exported result offline: who asked, who granted it, who answered, and that the table is what they released.
    #[command(after_help = "Example:\n  sekisho verify asthma.zip --trust trust.toml")]
    Verify(verify::Command),
    /// The public register of uses.
    #[command(subcommand, after_help = "Example:\n  sekisho register export --lang ja --output json")]
    Register(register::Command),
    /// The coordinator's log, as far as you may open it.
    #[command(subcommand, after_help = "Example:\n  sekisho log show --key regulator.pem")]
    Log(log::Command),
    /// Keys that sign documents and queries.
    #[command(subcommand, after_help = "Example:\n  sekisho keys new --out ada.pem")]
    Keys(keys::Command),
    /// The state of the network.
    #[command(subcommand, after_help = "Example:\n  sekisho network show")]
    Network(Network),
}

#[derive(Debug, Subcommand)]
enum Network {
    /// Print which members are connected, and which roster and status they hold.
    #[command(after_help = "Example:\n  sekisho network show --output json")]
    Show {
        /// For people or for programs.
        #[arg(long, value_enum, default_value = "table")]
        output: Output,
    },
}

/// What every command may use.
pub(crate) struct Context {
    coordinator: String,
    ca: Option<PathBuf>,
    now: DateTime<Utc>,
}

impl Context {
    async fn door(&self) -> Result<Door, Failure> {
        Door::connect(&self.coordinator, self.ca.as_deref()).await
    }
}

/// Runs the command line `args`, the program's name first, and says how it ended.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            // Standard output or error may be gone; then there is nobody to tell.
            let _ = usage.print();
            return if usage.use_stderr() { Exit::Input.into() } else { Exit::Done.into() };
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the edge: the hour of this command")]
    let now = Utc::now().trunc_subsecs(0);
    let context = Context { coordinator: cli.coordinator, ca: cli.ca, now };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&Failure::input(format!("the runtime did not start: {e}"), "free some memory")),
    };
    runtime.block_on(run(&cli.command, &context)).map_or_else(|failure| failed(&failure), ExitCode::from)
}

fn failed(failure: &Failure) -> ExitCode {
    failure.to_string().lines().for_each(print::note);
    failure.exit().into()
}

async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Query(command) => query::run(command, context).await,
        Command::Explain(command) => explain::run(command, context).await,
        Command::Application(command) => application::run(command, context).await,
        Command::Review(command) => review::run(command, context).await,
        Command::Catalogue(command) => catalogue::run(command, context).await,
        Command::Study(command) => study::run(command, context).await,
        Command::Permit(command) => permit::run(command, context).await,
        Command::Schema(command) => schema::run(command, context).await,
        Command::Roster(command) => roster::run(command, context).await,
        Command::Status(command) => status::run(command, context).await,
        Command::Budget(command) => budget::run(command, context).await,
        Command::Committee(command) => committee::run(command, context).await,
        Command::Governance(command) => rotation::run(command, context).await,
        Command::Orders(command) => orders::run(command, context).await,
        Command::Output(command) => output::run(command, context).await,
        Command::Release(command) => release::run(command, context).await,
        Command::Verify(command) => verify::run(command, context).await,
        Command::Register(command) => register::run(command, context).await,
        Command::Log(command) => log::run(command, context).await,
        Command::Keys(command) => keys::run(command),
        Command::Network(Network::Show { output }) => {
            let report = context.door().await?.network().await?;
            print::out(&match output {
                Output::Table => network(&report),
                Output::Json => print::json(&report)?,
            })?;
            Ok(Exit::Done)
        }
    }
}

fn network(report: &NetworkReport) -> String {
    let number = |seq: u64| if seq == 0 { "none".into() } else { seq.to_string() };
    let facts = [
        ("roster", number(report.roster_seq)),
        ("status", number(report.status_seq)),
        ("status expires", report.status_expires.map(|t| t.to_rfc3339()).unwrap_or_default()),
    ];
    let row = |m: &MemberReport| {
        let connected = if m.connected { "yes" } else { "no" };
        [m.name.clone(), connected.into(), number(m.roster_seq), number(m.status_seq)]
    };
    let members = print::table(["hospital", "connected", "roster", "status"], report.members.iter().map(row));
    format!("{}\n{members}", print::pairs(&facts))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:\n  sekisho "), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
