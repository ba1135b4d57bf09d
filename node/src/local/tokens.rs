//! The tokens of the hospital's systems: lines `NAME:SHA-256`.

use sekisho_protocol::{
    digest::Digest,
    token_file::{Line, hash_of},
};

/// One system's token, hashed.
pub struct System {
    name: String,
    hash: Digest,
}

impl System {
    /// The line of the system `name` for the token with this hash.
    pub fn new(name: &str, hash: Digest) -> Self {
        Self { name: name.into(), hash }
    }
}

impl Line for System {
    const FORM: &'static str = "NAME:SHA-256";
    const MAKE: &'static str = "sekisho-node local token NAME --config node.toml";

    fn name(&self) -> &str {
        &self.name
    }

    fn hash(&self) -> &Digest {
        &self.hash
    }

    fn write(&self) -> String {
        format!("{}:{}", self.name, self.hash)
    }

    fn read(line: &str) -> Option<Self> {
        let (name, hash) = line.split_once(':')?;
        Some(Self { name: name.into(), hash: hash_of(hash)? })
    }
}
