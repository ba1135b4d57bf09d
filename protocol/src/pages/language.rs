//! Which of the two languages a page is written in: what the address says, else what was chosen before, else what the browser
//! prefers, else English.

use axum::http::{HeaderMap, header};
use cookie::Cookie;

/// The cookie that keeps a choice.
pub(super) const COOKIE: &str = "lang";

/// A language of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English.
    En,
    /// Japanese.
    Ja,
}

impl Language {
    /// The language's code, as in `lang` attributes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ja => "ja",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::En => Self::Ja,
            Self::Ja => Self::En,
        }
    }

    /// The text of a pair that is in this language.
    pub const fn say<'a>(self, english: &'a str, japanese: &'a str) -> &'a str {
        match self {
            Self::En => english,
            Self::Ja => japanese,
        }
    }

    /// The language of this code.
    pub(super) fn of(code: &str) -> Option<Self> {
        [Self::En, Self::Ja].into_iter().find(|language| language.code() == code)
    }

    /// The language that the address chooses, if it does.
    pub(super) fn asked(query: Option<&str>) -> Option<Self> {
        query?.split('&').find_map(|pair| pair.strip_prefix("lang=")).and_then(Self::of)
    }

    /// The language for a request with this query and these headers.
    pub fn choose(query: Option<&str>, headers: &HeaderMap) -> Self {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let kept = cookies.flat_map(Cookie::split_parse).flatten();
        let kept =
            || kept.into_iter().find(|cookie| cookie.name() == COOKIE).and_then(|cookie| Self::of(cookie.value()));
        let accepted = || headers.get(header::ACCEPT_LANGUAGE).and_then(|value| Self::preferred(value.to_str().ok()?));
        Self::asked(query).or_else(kept).or_else(accepted).unwrap_or(Self::En)
    }

    /// The one of ours that a list such as `fr, ja;q=0.9, en;q=0.8` puts first.
    fn preferred(list: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for entry in list.split(',').take(32) {
            let mut parts = entry.split(';');
            let tag = parts.next().unwrap_or_default().trim();
            let code = tag.split('-').next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts.find_map(|part| part.trim().strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            if let Some(language) = Self::of(&code)
                && weight > 0.0
                && best.is_none_or(|(most, _)| weight > most)
            {
                best = Some((weight, language));
            }
        }
        best.map(|(_, language)| language)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_address_chooses_then_the_cookie_then_the_browser_then_english() {
        for (query, cookie, accepts, expect) in [
            (None, None, None, Language::En),
            (None, None, Some("ja"), Language::Ja),
            (None, None, Some("ja-JP,ja;q=0.9,en;q=0.8"), Language::Ja),
            (None, None, Some("en;q=0.8, JA;q=0.9"), Language::Ja),
            (None, None, Some("fr, en;q=0.2, ja;q=0.1"), Language::En),
            (None, None, Some("fr, ja;q=0"), Language::En),
            (None, None, Some("nonsense;;q=x,,"), Language::En),
            (None, Some("lang=ja"), Some("en"), Language::Ja),
            (None, Some("a=b; lang=en"), Some("ja"), Language::En),
            (None, Some("lang=fr"), Some("ja"), Language::Ja),
            (Some("lang=en"), Some("lang=ja"), Some("ja"), Language::En),
            (Some("text=x&lang=ja"), None, None, Language::Ja),
            (Some("lang=%22%3E"), None, None, Language::En),
            (Some("slang=ja"), None, None, Language::En),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::COOKIE, cookie), (header::ACCEPT_LANGUAGE, accepts)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(Language::choose(query, &headers), expect, "{query:?} {cookie:?} {accepts:?}");
        }
    }
}
