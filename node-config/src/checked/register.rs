//! The table `register`: a preset by name, whose days may be lengthened.

use sekisho_protocol::permit::OptOut;

use super::{ConfigError, within, wrong};
use crate::{file::RegisterFile, preset::register_presets};

pub(super) fn opt_out(file: &RegisterFile) -> Result<OptOut, ConfigError> {
    let presets = register_presets().map_err(|reason| wrong("register.rule", reason))?;
    let Some(preset) = presets.get(&file.rule) else {
        let names: Vec<_> = presets.keys().map(|name| format!("{name:?}")).collect();
        return Err(wrong("register.rule", format!("write one of {}", names.join(", "))));
    };
    let least = u64::from(preset.days);
    let days = within(file.days.unwrap_or(least), least, 3650, "register.days")?;
    Ok(OptOut { rule: preset.rule, days: u32::try_from(days).unwrap_or(u32::MAX) })
}
