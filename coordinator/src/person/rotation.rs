//! `sekisho governance`: the access body's key, and how it gives way to another one.
//!
//! A rotation is signed by both keys. Roster and status are signed anew at once, so that a hospital that comes later finds
//! them under the key that counts then. Against a thief of the key a rotation is no defence: see docs/keys.md.

use std::path::PathBuf;

use clap::Subcommand;
use sekisho_protocol::{dsse::Envelope, governance::Governance, key_file};

use super::{
    Context, duration,
    failure::{Exit, Failure},
    governance::chain,
    print::{self, Output, Spinner},
    roster, status,
};

/// What to do with the governance key.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the governance keys, from the one that the coordinator pins to the one that counts.
    #[command(after_help = "Example:\n  sekisho governance show")]
    Show,
    /// Let a new key govern: sign the rotation with both keys, hand it in, and sign roster and status anew.
    #[command(
        after_help = "Example:\n  sekisho governance rotate --key governance.pem --new-key governance-2026.pem --reason 'a year has passed'"
    )]
    Rotate {
        /// The key that counts now.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The key that shall count: see `sekisho keys new`.
        #[arg(long, value_name = "FILE")]
        new_key: PathBuf,
        /// Why, in public.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// How long the new status holds.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration::parse)]
        valid_for: chrono::TimeDelta,
        /// How long the new roster holds.
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = duration::parse)]
        roster_expires_in: chrono::TimeDelta,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When a key is wrong, or the coordinator refuses or cannot be reached.
pub async fn run(command: &Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Show => {
            let chain = chain(&mut context.door().await?).await?;
            let row = |(n, key): (usize, &sekisho_protocol::keys::PublicKey)| {
                let what = if n == 0 { "pinned".to_string() } else { format!("rotation {n}") };
                [what, key.fingerprint().to_string(), key.to_string()]
            };
            let rows = chain.keys().iter().enumerate().map(row);
            print::out(&print::table(["governance", "fingerprint", "key"], rows))?;
            Ok(Exit::Done)
        }
        Command::Rotate { key, new_key, reason, valid_for, roster_expires_in } => {
            let (old, new) = (key_file::read(key)?, key_file::read(new_key)?);
            let mut door = context.door().await?;
            let chain = chain(&mut door).await?;
            if chain.key() != old.public() {
                return Err(Failure::input(
                    "--key is not the governance key that counts",
                    "see `sekisho governance show`",
                ));
            }
            let (seq, prev) = (chain.seq() + 1, chain.digest());
            let document = Governance { seq, prev, new_key: new.public(), issued: context.now, reason: reason.clone() };
            let envelope = Envelope::sign(&document, &[&old, &new])
                .map_err(|e| Failure::input(e.to_string(), "mend what the message names; nothing was sent"))?;
            let report = {
                let _spinner = Spinner::start("handing in the rotation");
                door.put(&envelope).await?
            };
            print::put(&report, Output::Table, false)?;
            print::note(&format!("new governance key {}", new.public().fingerprint()));
            let again =
                "the rotation stands; run `sekisho roster refresh` and `sekisho status refresh` with the new key";
            let said = |failure: Failure| failure.with_advice(again);
            let signing = roster::Signing { key: new_key.clone(), expires_in: *roster_expires_in };
            roster::refresh(&signing, context).await.map_err(said)?;
            let signing = status::Signing { key: new_key.clone(), valid_for: *valid_for };
            status::change(status::Change::Refresh, &signing, context).await.map_err(said)
        }
    }
}
