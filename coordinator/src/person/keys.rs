//! `sekisho keys`: Ed25519 keys that sign documents and queries.
//!
//! A private key is made here and stays in its file, of mode 0600. Fingerprints are what people compare.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use rand::{SeedableRng, rngs::StdRng};
use sekisho_protocol::{
    key_file,
    keys::{PublicKey, SecretKey},
};

use super::{
    failure::{Exit, Failure},
    file, print,
};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new key: FILE (private, mode 0600) and FILE.pub (public, base64).
    #[command(after_help = "Example:\n  sekisho keys new --out ada.pem")]
    New {
        /// Where the private key goes; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the public key and the fingerprint of a private key.
    #[command(after_help = "Example:\n  sekisho keys show ada.pem")]
    Show {
        /// The private key.
        file: PathBuf,
    },
}

/// Does what `command` says.
///
/// # Errors
/// When a file cannot be read or written.
pub fn run(command: &Command) -> Result<Exit, Failure> {
    let public = match command {
        Command::New { out } => new(out)?,
        Command::Show { file } => key_file::read(file)?.public(),
    };
    let facts = [("public key", public.to_string()), ("fingerprint", public.fingerprint().to_string())];
    print::out(&print::pairs(&facts))?;
    Ok(Exit::Done)
}

fn new(out: &Path) -> Result<PublicKey, Failure> {
    let mut rng = StdRng::try_from_os_rng()
        .map_err(|e| Failure::input(format!("the system gave no randomness: {e}"), "try again"))?;
    let key = SecretKey::generate(&mut rng);
    let mut public = out.as_os_str().to_os_string();
    public.push(".pub");
    let public = Path::new(&public);
    if public.exists() {
        return Err(Failure::input(format!("{} exists", public.display()), "move it away or name another file"));
    }
    key_file::write(out, &key).map_err(|e| Failure::input(e.to_string(), "name a new file in a folder of yours"))?;
    file::write_new(public, format!("{}\n", key.public()).as_bytes())?;
    Ok(key.public())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_private_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.pem");
        let public = new(&path).unwrap();
        assert_eq!(key_file::read(&path).unwrap().public(), public);
        assert_eq!(file::read_text(&folder.path().join("ada.pem.pub")).unwrap(), format!("{public}\n"));
        assert_eq!(new(&path).unwrap_err().exit(), Exit::Input);
        assert_eq!(key_file::read(&path).unwrap().public(), public);
    }

    #[test]
    fn a_public_key_in_the_way_stops_the_private_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ada.pem");
        std::fs::write(folder.path().join("ada.pem.pub"), "old").unwrap();
        assert!(new(&path).is_err());
        assert!(!path.exists());
    }
}
