//! What every page's frame needs: language, title, who is signed in, the menu, the address in the other language.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};

use super::{Fault, Language, Who, assets};

/// One entry of the menu.
#[derive(Clone, Debug)]
pub struct Link {
    /// Where it leads.
    pub href: &'static str,
    /// Its words in the page's language.
    pub text: &'static str,
    /// Whether this page is there, or below it.
    pub here: bool,
}

/// The frame of a page. A template's struct has it as its field `page`, and `{% extends "base.html" %}`.
#[derive(Clone, Debug)]
pub struct Page {
    /// The language.
    pub language: Language,
    /// The title, in the language.
    pub title: String,
    /// The site's name, in the language.
    pub site: &'static str,
    /// Who is signed in.
    pub who: Option<Who>,
    /// What every form of the page has to bring as `csrf`; empty for those who are not signed in.
    pub csrf: String,
    /// This page's path and query, without the choice of a language.
    pub path: String,
    /// The menu.
    pub menu: Vec<Link>,
}

impl Page {
    /// The text of a pair that is in the page's language.
    pub fn say<'a>(&self, english: &'a str, japanese: &'a str) -> &'a str {
        self.language.say(english, japanese)
    }

    /// Whether the page is in Japanese, for what is more than a text.
    pub fn is_japanese(&self) -> bool {
        self.language == Language::Ja
    }

    /// Where the file `name` of ours is.
    pub fn asset(&self, name: &str) -> &'static str {
        assets::address(name)
    }

    /// This page in the other language.
    pub fn switch(&self) -> String {
        let joint = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{joint}lang={}", self.path, self.language.other().code())
    }
}

/// The answer that shows a template.
///
/// # Errors
/// When it cannot be written.
pub fn show(template: &impl Template) -> Result<Response, Fault> {
    let text = template.render().map_err(Fault::unavailable)?;
    Ok(Html(text).into_response())
}
