//! What every page's frame needs: language, title, who is signed in, the menu, the address in the other language.

use askama::Template;
use axum::response::{Html, IntoResponse, Response};
use chrono::{DateTime, Datelike, NaiveDate, Utc};

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

    /// What the role of somebody is called.
    pub fn role<'a>(&self, who: &'a Who) -> &'a str {
        match who.role.as_str() {
            "regulator" => self.say("Regulator", "監督機関"),
            "committee" => self.say("Committee member", "委員"),
            "user" => self.say("Data user", "データ利用者"),
            "viewer" => self.say("Viewer", "閲覧者"),
            "operator" => self.say("Operator", "運用担当者"),
            other => other,
        }
    }

    /// Whether the page is in Japanese, for what is more than a text.
    pub fn is_japanese(&self) -> bool {
        self.language == Language::Ja
    }

    /// A day as people of the language write it: `2026-11-21`, `2026年11月21日`.
    pub fn day(&self, day: impl Moment) -> String {
        let day = day.date();
        match self.language {
            Language::En => day.format("%Y-%m-%d").to_string(),
            Language::Ja => format!("{}年{}月{}日", day.year(), day.month(), day.day()),
        }
    }

    /// A moment as people of the language write it, in UTC.
    pub fn moment(&self, at: impl Moment) -> String {
        let day = self.day(at.date());
        match (self.language, at.time()) {
            (_, None) => day,
            (Language::En, Some(time)) => format!("{day} {time} UTC"),
            (Language::Ja, Some(time)) => format!("{day} {time}（UTC）"),
        }
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

/// A day or an hour, however many references a template puts before it.
pub trait Moment {
    /// The day, in UTC.
    fn date(&self) -> NaiveDate;
    /// Hours and minutes, in UTC; none of a day.
    fn time(&self) -> Option<String>;
}

impl Moment for NaiveDate {
    fn date(&self) -> NaiveDate {
        *self
    }

    fn time(&self) -> Option<String> {
        None
    }
}

impl Moment for DateTime<Utc> {
    fn date(&self) -> NaiveDate {
        self.date_naive()
    }

    fn time(&self) -> Option<String> {
        Some(self.format("%H:%M").to_string())
    }
}

impl<M: Moment> Moment for &M {
    fn date(&self) -> NaiveDate {
        (*self).date()
    }

    fn time(&self) -> Option<String> {
        (*self).time()
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

/// A number with its thousands apart: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}
