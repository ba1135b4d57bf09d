//! A tariff: what a run, a cell and rho cost by size class, in integers.
//!
//! Prices are whole minor units (yen; cents) for a run, for 1000 cells, and for a rho of 1 (10^6 micro-rho). The sum of a
//! line is computed exactly in millionths of a minor unit and rounded once, as the tariff says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{SizeClass, Used};

/// The largest price, in minor units.
const MAX_PRICE: u64 = 1_000_000_000_000;
/// The class whose prices hold for classes without their own.
const DEFAULT: &str = "default";

/// Why a tariff gives no amount.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TariffError {
    /// The file is no tariff.
    #[error("the tariff: {0}")]
    Form(String),
    /// A class has no price.
    #[error("the tariff has no [class.{}] and no [class.{DEFAULT}]: add one of them", .0.as_str())]
    NoPrice(SizeClass),
    /// An amount is larger than can be invoiced.
    #[error("an amount is above 2^64 minor units: check the tariff's prices")]
    TooLarge,
}

/// A currency, and the decimals of its minor unit: 0 for JPY, 2 for EUR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Currency {
    /// ISO 4217.
    pub code: String,
    /// How many decimals.
    pub decimals: u32,
}

impl Currency {
    /// An amount as people write it.
    pub fn written(&self, minor: u64) -> String {
        let unit = 10_u64.pow(self.decimals);
        if self.decimals == 0 {
            return minor.to_string();
        }
        format!("{}.{:0width$}", minor / unit, minor % unit, width = self.decimals as usize)
    }
}

/// How a line's fraction of a minor unit is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rounding {
    Down,
    HalfUp,
    Up,
}

/// The prices of one class.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Prices {
    #[serde(default)]
    per_run: u64,
    #[serde(default)]
    per_1000_cells: u64,
    #[serde(default)]
    per_rho: u64,
}

/// The file form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TariffFile {
    currency: String,
    decimals: u32,
    rounding: Rounding,
    class: BTreeMap<String, Prices>,
}

/// A tariff, checked.
#[derive(Clone, Debug)]
pub struct Tariff {
    currency: Currency,
    rounding: Rounding,
    prices: BTreeMap<SizeClass, Prices>,
    default: Option<Prices>,
}

impl Tariff {
    /// Reads a tariff in TOML.
    ///
    /// # Errors
    /// A sentence that names the key and the rule.
    pub fn from_toml(text: &str) -> Result<Self, TariffError> {
        let file: TariffFile = toml::from_str(text).map_err(|error| TariffError::Form(error.to_string()))?;
        let rule = |holds: bool, rule: String| if holds { Ok(()) } else { Err(TariffError::Form(rule)) };
        let code = file.currency.len() == 3 && file.currency.bytes().all(|b| b.is_ascii_uppercase());
        rule(code, "currency is a code of ISO 4217, such as JPY".into())?;
        rule(file.decimals <= 4, "decimals is 0 to 4".into())?;
        let (mut prices, mut default) = (BTreeMap::new(), None);
        for (name, price) in file.class {
            let Prices { per_run, per_1000_cells, per_rho } = price;
            let most = per_run.max(per_1000_cells).max(per_rho);
            rule(most <= MAX_PRICE, format!("class.{name}: a price is at most {MAX_PRICE} minor units"))?;
            if name == DEFAULT {
                default = Some(price);
                continue;
            }
            let class = SizeClass::ALL.into_iter().find(|class| class.as_str() == name);
            let known = || {
                let names = SizeClass::ALL.map(SizeClass::as_str).join(", ");
                TariffError::Form(format!("class.{name}: the classes are {DEFAULT}, {names}"))
            };
            prices.insert(class.ok_or_else(known)?, price);
        }
        let currency = Currency { code: file.currency, decimals: file.decimals };
        Ok(Self { currency, rounding: file.rounding, prices, default })
    }

    /// In what it is paid.
    pub fn currency(&self) -> &Currency {
        &self.currency
    }

    /// What a use costs, in minor units.
    ///
    /// # Errors
    /// When the class has no price, or the amount is too large.
    pub fn amount(&self, used: Used, class: SizeClass) -> Result<u64, TariffError> {
        let price = self.prices.get(&class).copied().or(self.default).ok_or(TariffError::NoPrice(class))?;
        // Counts are below 2^64 and prices below 2^40, so that all of it stays below 2^127.
        let part = |count: u64, price: u64, millionths: u128| u128::from(count) * u128::from(price) * millionths;
        let millionths = part(used.runs, price.per_run, 1_000_000)
            + part(used.cells, price.per_1000_cells, 1_000)
            + part(used.micro_rho, price.per_rho, 1);
        let up = match self.rounding {
            Rounding::Down => 0,
            Rounding::HalfUp => 500_000,
            Rounding::Up => 999_999,
        };
        u64::try_from((millionths + up) / 1_000_000).map_err(|_| TariffError::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tariff(rounding: &str) -> Tariff {
        let text = format!(
            "currency = \"JPY\"\ndecimals = 0\nrounding = \"{rounding}\"\n\
             [class.default]\nper_run = 1000\nper_1000_cells = 250\nper_rho = 50000\n\
             [class.large]\nper_run = 3000\n"
        );
        Tariff::from_toml(&text).unwrap()
    }

    #[test]
    fn an_amount_is_exact_until_it_is_rounded_once() {
        let used = |runs, cells, micro_rho| Used { runs, cells, micro_rho };
        for (rounding, used, class, expect) in [
            ("down", used(2, 0, 0), SizeClass::Small, 2000),
            ("down", used(2, 0, 0), SizeClass::Large, 6000),
            ("down", used(0, 3, 4_999), SizeClass::Small, 250),
            ("half_up", used(0, 3, 4_999), SizeClass::Small, 251),
            ("up", used(0, 3, 0), SizeClass::Unknown, 1),
            ("half_up", used(0, 2, 0), SizeClass::Unknown, 1),
            ("half_up", used(0, 1, 0), SizeClass::Unknown, 0),
            ("up", used(0, 0, 0), SizeClass::Unknown, 0),
        ] {
            assert_eq!(tariff(rounding).amount(used, class), Ok(expect), "{rounding} {used:?}");
        }
        let most = Used { runs: u64::MAX, cells: u64::MAX, micro_rho: u64::MAX };
        assert_eq!(tariff("down").amount(most, SizeClass::Small), Err(TariffError::TooLarge));
    }

    #[test]
    fn what_is_no_tariff_is_refused_by_name() {
        let good = "currency = \"EUR\"\ndecimals = 2\nrounding = \"up\"\n[class.small]\nper_run = 1\n";
        for (from, to, names) in [
            ("EUR", "euro", "currency"),
            ("decimals = 2", "decimals = 9", "decimals"),
            ("\"up\"", "\"bankers\"", "rounding"),
            ("class.small", "class.tiny", "class.tiny"),
            ("per_run = 1", "per_row = 1", "per_row"),
            ("per_run = 1", "per_run = 0.5", "per_run"),
            ("per_run = 1", "per_run = -1", "per_run"),
            ("per_run = 1", "per_run = 1000000000001", "at most"),
        ] {
            assert!(good.contains(from));
            let error = Tariff::from_toml(&good.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(names), "{error}");
        }
        let tariff = Tariff::from_toml(good).unwrap();
        assert_eq!(tariff.amount(Used::default(), SizeClass::Large), Err(TariffError::NoPrice(SizeClass::Large)));
        assert_eq!(tariff.currency().written(1205), "12.05");
    }
}
