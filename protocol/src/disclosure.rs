//! The rules by which a table is fit to be shown: what each preset hides, and which of two sets of rules is the stricter.
//!
//! Under noise they judge released numbers, as a rule of publication; in exact (`aggregated`) releases they judge the exact
//! ones, at the hospital, before anything leaves. Data, not code: the numbers of each preset are in one table.

use serde::{Deserialize, Serialize};

use crate::permit::{Preset, ReleaseKind};

/// The largest threshold and base that a document may name.
const MAX: u32 = 1_000_000;

/// Rules of statistical disclosure control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// A cell of fewer patients is hidden.
    pub min_patients: u32,
    /// A cell without patients is shown all the same.
    pub zero_publishable: bool,
    /// Counts are rounded to the nearest multiple of it; 1 is none.
    pub rounding: u32,
    /// A sum is hidden when the `n` patients who contribute most make up more than `k_percent` of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dominance: Option<Dominance>,
    /// A sum is hidden when whoever contributes second most could tell the largest contribution to within so many percent:
    /// when all but the two largest contributions are less than that of the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_percent: Option<u32>,
}

/// The (n, k) rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dominance {
    /// How many of the largest contributions: 1 to [`Dominance::MOST`].
    pub n: u32,
    /// The share of the sum that they may have, in percent.
    pub k_percent: u32,
}

impl Dominance {
    /// The most contributions that are looked at together.
    pub const MOST: u32 = 8;
}

impl Preset {
    /// What the preset says.
    ///
    /// Sources: NDB guidelines (1-9 hidden, 0 may be shown); CMS cell size suppression policy (1-10); OpenSAFELY's output rules
    /// (7 and less, the rest to 5); DataSHIELD's `nfilter.tab` (under 3); ACRO's defaults (10; n 2, k 90 %; p 10 %; 5).
    pub fn rules(self) -> Rules {
        let counts = |min_patients, zero_publishable, rounding| Rules {
            min_patients,
            zero_publishable,
            rounding,
            dominance: None,
            p_percent: None,
        };
        match self {
            Self::JpNdb => counts(10, true, 1),
            Self::Cms => counts(11, true, 1),
            Self::Opensafely => counts(8, false, 5),
            Self::Datashield => counts(3, true, 1),
            Self::Acro => Rules {
                dominance: Some(Dominance { n: 2, k_percent: 90 }),
                p_percent: Some(10),
                ..counts(10, false, 5)
            },
            Self::None => counts(0, true, 1),
        }
    }
}

impl ReleaseKind {
    /// What it is for people, in English and Japanese.
    pub const fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Noised => ("Noised under differential privacy", "ノイズ付き（差分プライバシー）"),
            Self::Aggregated => (
                "Exact under disclosure rules, without differential privacy",
                "正確な集計（秘匿規則のみ、差分プライバシーなし）",
            ),
        }
    }
}

impl Rules {
    /// Whether a cell of so many patients is hidden. Noise can make a number negative: that is as no patients.
    pub fn hides(&self, patients: i128) -> bool {
        patients < i128::from(self.min_patients) && (patients > 0 || !self.zero_publishable)
    }

    /// Whether these hide all that `other` hides, in the same way.
    pub fn at_least(&self, other: &Self) -> bool {
        let dominance = match (self.dominance, other.dominance) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => own.n >= other.n && own.k_percent <= other.k_percent,
        };
        self.min_patients >= other.min_patients
            && (!self.zero_publishable || other.zero_publishable)
            && self.rounding.is_multiple_of(other.rounding.max(1))
            && dominance
            && self.p_percent.unwrap_or(0) >= other.p_percent.unwrap_or(0)
    }

    /// The rules that a hospital with a threshold of its own applies.
    #[must_use]
    pub fn with_at_least(self, min_patients: u32) -> Self {
        Self { min_patients: self.min_patients.max(min_patients), ..self }
    }

    /// The rules in English and Japanese.
    pub fn in_words(&self) -> (String, String) {
        let Self { min_patients, zero_publishable, rounding, dominance, p_percent } = *self;
        let most = min_patients.saturating_sub(1);
        let (mut en, mut ja) = match (min_patients, zero_publishable) {
            (0, _) => (vec!["no cell is hidden for its size".to_string()], vec!["人数による秘匿はない".to_string()]),
            (_, true) => {
                (vec![format!("cells of 1 to {most} patients are hidden")], vec![format!("1〜{most}人のセルを秘匿")])
            }
            (_, false) => (
                vec![format!("cells of {most} patients and fewer are hidden")],
                vec![format!("{most}人以下のセルを秘匿")],
            ),
        };
        if rounding > 1 {
            en.push(format!("counts are rounded to multiples of {rounding}"));
            ja.push(format!("件数を{rounding}の倍数に丸める"));
        }
        if let Some(Dominance { n, k_percent }) = dominance {
            en.push(format!("sums of which {n} patients make up more than {k_percent} % are hidden"));
            ja.push(format!("上位{n}人が合計の{k_percent}%を超えて占める合計値を秘匿"));
        }
        if let Some(p) = p_percent {
            en.push(format!("sums from which a patient's value could be told to within {p} % are hidden"));
            ja.push(format!("1人の値を{p}%以内で推定できる合計値を秘匿"));
        }
        en.push("so are cells that would give a hidden one away".into());
        ja.push("秘匿したセルを逆算できるセルも秘匿".into());
        (en.join("; "), ja.join("、"))
    }

    /// The rules that the numbers keep.
    ///
    /// # Errors
    /// A sentence that names the field and the rule.
    pub fn check(&self) -> Result<(), String> {
        let rule = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(rule.to_string()) };
        rule(self.min_patients <= MAX, "min_patients is at most 1000000")?;
        rule((1..=MAX).contains(&self.rounding), "rounding is 1 to 1000000")?;
        rule(
            self.dominance.is_none_or(|d| (1..=Dominance::MOST).contains(&d.n) && (1..=100).contains(&d.k_percent)),
            "dominance has n of 1 to 8 and k_percent of 1 to 100",
        )?;
        rule(self.p_percent.is_none_or(|p| (1..=100).contains(&p)), "p_percent is 1 to 100")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_hide_what_their_authors_say() {
        for (preset, hidden, shown) in [
            (Preset::JpNdb, vec![1, 9], vec![-3, 0, 10]),
            (Preset::Cms, vec![1, 10], vec![0, 11]),
            (Preset::Opensafely, vec![-3, 0, 7], vec![8]),
            (Preset::Datashield, vec![1, 2], vec![0, 3]),
            (Preset::Acro, vec![0, 9], vec![10]),
            (Preset::None, vec![], vec![-1, 0, 1]),
        ] {
            let rules = preset.rules();
            assert!(rules.check().is_ok(), "{preset:?}");
            assert!(hidden.into_iter().all(|n| rules.hides(n)), "{preset:?}");
            assert!(shown.into_iter().all(|n| !rules.hides(n)), "{preset:?}");
        }
    }

    #[test]
    fn the_stricter_of_two_hides_all_that_the_other_hides() {
        let acro = Preset::Acro.rules();
        for (own, other, expect) in [
            (acro, acro, true),
            (acro, Preset::Opensafely.rules(), true),
            (Preset::Opensafely.rules(), acro, false),
            (acro, Preset::Cms.rules(), false),
            (Preset::Cms.rules(), Preset::JpNdb.rules(), true),
            (Preset::JpNdb.rules(), Preset::Opensafely.rules(), false),
            (acro, Rules { p_percent: Some(20), ..acro }, false),
            (Rules { dominance: None, ..acro }, acro, false),
            (acro.with_at_least(20), acro, true),
            (acro, acro.with_at_least(20), false),
        ] {
            assert_eq!(own.at_least(&other), expect, "{own:?} {other:?}");
        }
    }

    #[test]
    fn rules_are_told_in_words() {
        for (rules, english, japanese) in [
            (Preset::JpNdb.rules(), "cells of 1 to 9 patients are hidden;", "1〜9人のセルを秘匿、"),
            (
                Preset::Opensafely.rules(),
                "cells of 7 patients and fewer are hidden; counts are rounded to multiples of 5;",
                "5の倍数",
            ),
            (Preset::Acro.rules(), "2 patients make up more than 90 %", "10%以内"),
            (Preset::None.rules().with_at_least(20), "cells of 1 to 19 patients", "1〜19人"),
        ] {
            let (en, ja) = rules.in_words();
            assert!(en.contains(english) && ja.contains(japanese), "{en} {ja}");
        }
    }
}
