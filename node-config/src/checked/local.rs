//! The table `local`: the endpoint for the hospital's own systems. An address that other machines could reach is refused.

use std::{net::SocketAddr, path::PathBuf};

use super::{ConfigError, check, path, wrong};
use crate::file::LocalFile;

/// Where the hospital's own systems reach the node: on this machine only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// An address of loopback.
    pub address: SocketAddr,
    /// The file of the hashed tokens.
    pub token_file: PathBuf,
}

impl TryFrom<LocalFile> for Local {
    type Error = ConfigError;

    fn try_from(file: LocalFile) -> Result<Self, ConfigError> {
        let rule = "write an address of this machine alone, with its port: \"127.0.0.1:8816\" or \"[::1]:8816\"";
        let address: SocketAddr = file.address.parse().map_err(|_| wrong("local.address", rule))?;
        check(address.ip().is_loopback() && address.port() > 0, "local.address", rule)?;
        Ok(Self { address, token_file: path(&file.token_file, "local.token_file")? })
    }
}
