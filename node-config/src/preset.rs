//! The rules of the patient register by name: data in `presets/register.toml`, read when a configuration is checked.
//!
//! A preset says which rule of the permit's vocabulary holds, for how many days at least, and by which law. A
//! hospital may lengthen the days; nothing here lets it shorten them.

use std::collections::BTreeMap;

use sekisho_protocol::permit::OptOutRule;
use serde::Deserialize;

/// The data of the presets.
const PRESETS: &str = include_str!("../presets/register.toml");

/// One rule of the patient register.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// What the software does under it.
    pub rule: OptOutRule,
    /// The least number of days between notice and first use; 0 where no notice is asked for.
    pub days: u32,
    /// The law that it follows, in English.
    pub law: String,
    /// The same in Japanese.
    pub law_ja: String,
}

/// Every preset by name.
///
/// # Errors
/// When the data compiled into the software is not as it must be; a test excludes it.
pub fn register_presets() -> Result<BTreeMap<String, Preset>, String> {
    toml::from_str(PRESETS).map_err(|e| format!("presets/register.toml of the software: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_those_of_the_two_laws_with_their_days() {
        let presets = register_presets().unwrap();
        let said: Vec<_> = presets.iter().map(|(name, p)| (name.as_str(), p.rule, p.days)).collect();
        assert_eq!(said, [("eu-ehds", OptOutRule::EuEhds, 0), ("jp-ngmia", OptOutRule::JpNgmia, 30)]);
        for (name, preset) in presets {
            assert!(preset.law.contains("20") && preset.law_ja.contains('条') | preset.law_ja.contains("第"), "{name}");
        }
    }
}
