//! The configuration of a node: what the file says ([`NodeConfigFile`]), and what was checked ([`NodeConfig`]).
//!
//! Promises: an unknown key is refused with its name; units are in the key names; paths are relative to the
//! file; every default is in [`reference()`]; no key turns a protection off. Secrets are not in the file, only
//! the paths of their files. Neither environment nor command line changes a setting.
//!
//! Deliberately absent: reading key files and opening the database (the node's), and the compiled-in ceilings
//! on rho and delta, which the node checks against the amounts given here.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod checked;
mod file;
mod preset;
mod reference;
mod template;

pub use checked::{
    Budget, BudgetRule, ConfigError, Console, Coordinator, CountRule, Exact, Limits, Local, Log, LogFormat, LogLevel,
    NodeConfig, Snapshots, Trust, Watch, Window, load,
};
pub use file::NodeConfigFile;
pub use preset::{Preset, register_presets};
pub use reference::{KEYS, Key, reference};
pub use template::{TemplateValues, template};
