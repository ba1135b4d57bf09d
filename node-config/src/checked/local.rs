//! The tables `local`, the endpoint for the hospital's own systems, and `console`, the pages for its operators. An address that other machines could reach is refused.

use std::{net::SocketAddr, path::PathBuf};

use super::{ConfigError, check, path, wrong};
use crate::file::{ConsoleFile, LocalFile};

/// Where the hospital's own systems reach the node: on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// An address of loopback.
    pub address: SocketAddr,
    /// The file of the hashed tokens.
    pub token_file: PathBuf,
}

/// Where a person looks after the node: in a browser on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Console {
    /// An address of loopback.
    pub address: SocketAddr,
    /// The file of the hashed tokens.
    pub token_file: PathBuf,
}

impl TryFrom<LocalFile> for Local {
    type Error = ConfigError;

    fn try_from(file: LocalFile) -> Result<Self, ConfigError> {
        let address = of_this_machine(&file.address, "local.address", 8816)?;
        Ok(Self { address, token_file: path(&file.token_file, "local.token_file")? })
    }
}

impl TryFrom<ConsoleFile> for Console {
    type Error = ConfigError;

    fn try_from(file: ConsoleFile) -> Result<Self, ConfigError> {
        let address = of_this_machine(&file.address, "console.address", 8819)?;
        Ok(Self { address, token_file: path(&file.token_file, "console.token_file")? })
    }
}

fn of_this_machine(text: &str, key: &str, usual: u16) -> Result<SocketAddr, ConfigError> {
    let rule =
        format!("write an address of this machine alone, with its port: \"127.0.0.1:{usual}\" or \"[::1]:{usual}\"");
    let address: SocketAddr = text.parse().map_err(|_| wrong(key, rule.as_str()))?;
    check(address.ip().is_loopback() && address.port() > 0, key, &rule)?;
    Ok(address)
}
