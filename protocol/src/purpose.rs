//! Purposes, as people write them: those of EHDS Art. 53(1) are a closed list, and what Arts. 54 and 61 prohibit has names
//! too, so that it is refused by name and not as an unknown word.
//!
//! A document whose purposes may be prohibited holds [`DeclaredPurpose`]s: such an application can be written down, signed
//! and refused with its article. A permit holds [`Purpose`]s, which none of the prohibited ones is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    permit::Purpose,
    refusal::{Code, Refusal},
};

macro_rules! prohibited {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $article:literal, $words:literal;)*) => {
        /// A purpose that nobody may grant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Prohibited { $($(#[$doc])* $variant,)* }

        impl Prohibited {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in documents.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Where the law prohibits it.
            pub const fn article(self) -> &'static str {
                match self { $(Self::$variant => $article,)* }
            }

            /// What it is, in words.
            pub const fn words(self) -> &'static str {
                match self { $(Self::$variant => $words,)* }
            }
        }
    };
}

prohibited! {
    /// Decisions about people, to their disadvantage.
    DetrimentalDecisions = "detrimental_decisions", "EHDS Art. 54(a)", "decisions detrimental to a person or a group";
    /// Job offers and terms of employment.
    Employment = "employment", "EHDS Art. 54(b)", "decisions on employment";
    /// Insurance contracts and premiums.
    Insurance = "insurance", "EHDS Art. 54(b)", "terms or exclusion of insurance";
    /// Credit contracts and their conditions.
    Credit = "credit", "EHDS Art. 54(b)", "terms or exclusion of credit";
    /// Advertising and marketing.
    Advertising = "advertising", "EHDS Art. 54(c)", "advertising";
    /// Marketing.
    Marketing = "marketing", "EHDS Art. 54(c)", "marketing";
    /// Products and services that harm.
    HarmfulProducts = "harmful_products", "EHDS Art. 54(d)", "products or services that harm people or society";
    /// What ethics law forbids.
    AgainstEthicsLaw = "against_ethics_law", "EHDS Art. 54(e)", "activities against ethical provisions of national law";
    /// Finding out who somebody is.
    ReIdentification = "re_identification", "EHDS Art. 61(3)", "re-identification of people";
    /// Giving data to somebody whom the permit does not name.
    PassingOn = "passing_on", "EHDS Art. 61(2)", "passing data on to others than the permit names";
}

impl FromStr for Prohibited {
    type Err = PurposeError;

    fn from_str(text: &str) -> Result<Self, PurposeError> {
        let found = Self::ALL.iter().find(|p| p.as_str() == text);
        found.copied().ok_or_else(|| PurposeError::Unknown(shown(text)))
    }
}

/// Why a word is no purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurposeError {
    /// The law prohibits it.
    #[error("{} ({}) is a prohibited purpose: {}", .0.as_str(), .0.words(), .0.article())]
    Prohibited(Prohibited),
    /// It is on neither list.
    #[error("{0:?} is no purpose; the purposes are {list}", list = names())]
    Unknown(String),
}

impl From<PurposeError> for Refusal {
    fn from(error: PurposeError) -> Self {
        let code = match error {
            PurposeError::Prohibited(_) => Code::PurposeProhibited,
            PurposeError::Unknown(_) => Code::Malformed,
        };
        Self::new(code, error.to_string())
    }
}

fn names() -> String {
    Purpose::ALL.map(Purpose::as_str).join(", ")
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

impl Purpose {
    /// All of them, (a) to (f).
    pub const ALL: [Self; 6] = [
        Self::PublicHealth,
        Self::PolicyAndRegulation,
        Self::OfficialStatistics,
        Self::Education,
        Self::ScientificResearch,
        Self::ImprovingCare,
    ];

    /// The purpose for people, in English and Japanese.
    pub const fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::PublicHealth => ("Public or occupational health", "公衆衛生・産業保健"),
            Self::PolicyAndRegulation => ("Policy and regulation", "政策・規制"),
            Self::OfficialStatistics => ("Official statistics", "公的統計"),
            Self::Education => ("Education", "教育"),
            Self::ScientificResearch => ("Scientific research", "学術研究"),
            Self::ImprovingCare => ("Improving care", "医療の改善"),
        }
    }

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublicHealth => "public_health",
            Self::PolicyAndRegulation => "policy_and_regulation",
            Self::OfficialStatistics => "official_statistics",
            Self::Education => "education",
            Self::ScientificResearch => "scientific_research",
            Self::ImprovingCare => "improving_care",
        }
    }

    /// Whether only public bodies, and who works for them, may have it: (a) to (c) of EHDS Art. 53(1), by Art. 53(2).
    pub const fn needs_public_mandate(self) -> bool {
        match self {
            Self::PublicHealth | Self::PolicyAndRegulation | Self::OfficialStatistics => true,
            Self::Education | Self::ScientificResearch | Self::ImprovingCare => false,
        }
    }
}

impl FromStr for Purpose {
    type Err = PurposeError;

    fn from_str(text: &str) -> Result<Self, PurposeError> {
        match text.parse()? {
            DeclaredPurpose::Permissible(purpose) => Ok(purpose),
            DeclaredPurpose::Prohibited(prohibited) => Err(PurposeError::Prohibited(prohibited)),
        }
    }
}

impl TryFrom<String> for Purpose {
    type Error = PurposeError;

    fn try_from(text: String) -> Result<Self, PurposeError> {
        text.parse()
    }
}

impl From<Purpose> for String {
    fn from(purpose: Purpose) -> Self {
        purpose.as_str().into()
    }
}

/// A purpose that somebody writes into an application, whether or not it may be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeclaredPurpose {
    /// One of EHDS Art. 53(1).
    Permissible(Purpose),
    /// One that is prohibited.
    Prohibited(Prohibited),
}

impl DeclaredPurpose {
    /// The purpose, when it may be granted.
    ///
    /// # Errors
    /// `purpose_prohibited`, with its name and article.
    pub fn permissible(self) -> Result<Purpose, PurposeError> {
        match self {
            Self::Permissible(purpose) => Ok(purpose),
            Self::Prohibited(prohibited) => Err(PurposeError::Prohibited(prohibited)),
        }
    }

    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permissible(purpose) => purpose.as_str(),
            Self::Prohibited(prohibited) => prohibited.as_str(),
        }
    }
}

impl fmt::Display for DeclaredPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeclaredPurpose {
    type Err = PurposeError;

    fn from_str(text: &str) -> Result<Self, PurposeError> {
        match Purpose::ALL.into_iter().find(|p| p.as_str() == text) {
            Some(purpose) => Ok(Self::Permissible(purpose)),
            None => text.parse().map(Self::Prohibited),
        }
    }
}

impl TryFrom<String> for DeclaredPurpose {
    type Error = PurposeError;

    fn try_from(text: String) -> Result<Self, PurposeError> {
        text.parse()
    }
}

impl From<DeclaredPurpose> for String {
    fn from(purpose: DeclaredPurpose) -> Self {
        purpose.as_str().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prohibited_purposes_are_refused_by_name_and_unknown_ones_with_the_list() {
        for (text, code, says) in [
            ("insurance", Code::PurposeProhibited, "Art. 54(b)"),
            ("employment", Code::PurposeProhibited, "Art. 54(b)"),
            ("detrimental_decisions", Code::PurposeProhibited, "Art. 54(a)"),
            ("re_identification", Code::PurposeProhibited, "Art. 61(3)"),
            ("curiosity", Code::Malformed, "scientific_research"),
        ] {
            let refusal = Refusal::from(text.parse::<Purpose>().unwrap_err());
            assert_eq!(refusal.code, code, "{text}");
            assert!(refusal.detail.contains(says) && refusal.detail.contains(text), "{}", refusal.detail);
        }
    }

    #[test]
    fn no_document_can_hold_a_permitted_purpose_that_is_prohibited() {
        for prohibited in Prohibited::ALL {
            let json = format!("\"{}\"", prohibited.as_str());
            assert!(serde_json::from_str::<Purpose>(&json).is_err(), "{json}");
            let declared: DeclaredPurpose = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&declared).unwrap(), json);
        }
        for purpose in Purpose::ALL {
            let json = serde_json::to_string(&purpose).unwrap();
            assert_eq!(serde_json::from_str::<Purpose>(&json).unwrap(), purpose);
        }
    }
}
