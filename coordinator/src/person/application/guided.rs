//! An application, question by question, in Japanese and English.
//!
//! Which fields are asked for, and how, is the data of [`Requirements`]; what a draft has already is not asked again. An empty
//! answer leaves a field out, and the end of the input leaves out all that follow, so that what was answered is never lost.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::Path,
};

use chrono::{DateTime, NaiveDate, Utc};
use sekisho_protocol::{digest::Digest, keys::PublicKey, permit::Basis};
use serde_json::{Map, Value};

use super::draft;
use crate::{
    person::{failure::Failure, file, permit_file},
    requirements::{Field, FieldKind, Requirements},
};

/// Where questions go and answers come from.
pub struct Talk<R, W> {
    answers: R,
    questions: W,
    /// A wrong answer is asked for again; otherwise it ends the talk, since the next line answers the next question.
    patient: bool,
    ended: bool,
}

/// Asks on this terminal, or reads what was piped in.
///
/// # Errors
/// When an answer that was piped in is wrong.
pub fn on_terminal(draft: Value, requirements: &Requirements) -> Result<Value, Failure> {
    let (stdin, stderr) = (std::io::stdin(), std::io::stderr());
    let patient = stdin.is_terminal();
    Talk { answers: stdin.lock(), questions: stderr.lock(), patient, ended: false }.fill(draft, requirements)
}

impl<R: BufRead, W: Write> Talk<R, W> {
    /// A talk with answers from `answers`, one a line.
    #[cfg(test)]
    pub fn piped(answers: R, questions: W) -> Self {
        Self { answers, questions, patient: false, ended: false }
    }

    /// Fills in what `draft` lacks.
    ///
    /// # Errors
    /// When an answer that was piped in is wrong.
    pub fn fill(mut self, mut draft: Value, requirements: &Requirements) -> Result<Value, Failure> {
        if !draft.is_object() {
            draft = Value::Object(Map::new());
        }
        for (name, question) in [
            ("id", "申請の識別名 / An id for the application (lower-case letters, digits, hyphens)"),
            (
                "basis",
                "法的根拠 / Legal basis: EHDS-68, EHDS-69, EHDS-72, JP-NGMIA-anonymised, JP-NGMIA-pseudonymised, JP-ethics",
            ),
        ] {
            if draft.get(name).is_none()
                && let Some(answer) = self.ask(question, |text| word(name, text))?
            {
                draft[name] = answer;
            }
        }
        let basis = draft.get("basis").cloned().and_then(|basis| serde_json::from_value::<Basis>(basis).ok());
        let Some(basis) = basis else { return Ok(draft) };
        let mut asked = Vec::new();
        for field in requirements.fields() {
            let Some(article) = asked_for(field, requirements, basis) else { continue };
            match field.path.split_once("[].") {
                Some((list, _)) if asked.contains(&list) || draft.get(list).is_some() => {}
                Some((list, _)) => {
                    asked.push(list);
                    let entries = self.entries(list, requirements, basis)?;
                    if !entries.is_empty() {
                        draft[list] = entries.into();
                    }
                }
                None if requirements.applies(field, &draft) => self.single(&mut draft, field, article)?,
                None => {}
            }
        }
        Ok(draft)
    }

    fn single(&mut self, draft: &mut Value, field: &Field, article: &str) -> Result<(), Failure> {
        let pointer = format!("/{}", field.path.replace('.', "/"));
        if draft.pointer(&pointer).is_some() {
            return Ok(());
        }
        if let Some(answer) = self.field(field, article, "")? {
            put(draft, &field.path, answer);
        }
        Ok(())
    }

    /// The entries of a list, until one has nothing in its first field.
    fn entries(&mut self, list: &str, requirements: &Requirements, basis: Basis) -> Result<Vec<Value>, Failure> {
        let prefix = format!("{list}[].");
        let fields = || {
            requirements.fields().iter().filter_map(|field| {
                let name = field.path.strip_prefix(&prefix)?;
                Some((name, field, asked_for(field, requirements, basis)?))
            })
        };
        let mut entries = Vec::new();
        loop {
            let number = format!(" ({list} {}, 空行で終了 / empty ends the list)", entries.len() + 1);
            let mut entry = Value::Object(Map::new());
            for (place, (name, field, article)) in fields().enumerate() {
                let answer = self.field(field, article, if place == 0 { &number } else { "" })?;
                match answer {
                    Some(answer) => put(&mut entry, name, answer),
                    None if place == 0 => return Ok(entries),
                    None => {}
                }
            }
            entries.push(entry);
        }
    }

    fn field(&mut self, field: &Field, article: &str, more: &str) -> Result<Option<Value>, Failure> {
        if let Some(only) = &field.only {
            return value(field, only).map(Some);
        }
        let question = format!("{} / {} [{article}]{more}", field.ja, field.en);
        self.ask(&question, |text| value(field, text))
    }

    /// One question; none when the answer is empty or there is none.
    fn ask(&mut self, question: &str, read: impl Fn(&str) -> Result<Value, Failure>) -> Result<Option<Value>, Failure> {
        let io =
            |e: std::io::Error| Failure::input(format!("the terminal: {e}"), "try again, or write the TOML by hand");
        while !self.ended {
            write!(self.questions, "{question}\n> ").and_then(|()| self.questions.flush()).map_err(io)?;
            let mut line = String::new();
            self.ended = self.answers.read_line(&mut line).map_err(io)? == 0;
            let text = line.trim();
            if text.is_empty() {
                return Ok(None);
            }
            match read(text) {
                Ok(answer) => return Ok(Some(answer)),
                Err(failure) if !self.patient => return Err(failure),
                Err(failure) => writeln!(self.questions, "{failure}").map_err(io)?,
            }
        }
        Ok(None)
    }
}

/// By whom the field is asked for; none when nobody does under this basis.
fn asked_for<'a>(field: &'a Field, requirements: &'a Requirements, basis: Basis) -> Option<&'a str> {
    requirements.article(field, basis).or_else(|| field.is_optional().then_some("任意 / optional"))
}

fn word(name: &str, text: &str) -> Result<Value, Failure> {
    let fits = match name {
        "basis" => serde_json::from_value::<Basis>(text.into()).is_ok(),
        _ => sekisho_protocol::roster::is_name(text),
    };
    if fits {
        Ok(text.into())
    } else {
        Err(Failure::input(format!("{text} is no {name}"), "write it as the question says"))
    }
}

/// An answer as the draft holds it.
fn value(field: &Field, text: &str) -> Result<Value, Failure> {
    let wrong =
        |form: &str| Failure::input(format!("{}: {text} is not {form}", field.path), "answer as the question says");
    Ok(match field.kind {
        FieldKind::Text | FieldKind::Word => text.into(),
        FieldKind::Words => {
            let words: Vec<Value> =
                text.split([',', '、']).map(str::trim).filter(|w| !w.is_empty()).map(Value::from).collect();
            if field.path == "purposes" {
                permit_file::refuse_prohibited(&serde_json::json!({ "purposes": words }))?;
            }
            words.into()
        }
        FieldKind::Yes => match text.to_lowercase().as_str() {
            "y" | "yes" | "true" | "はい" => true.into(),
            "n" | "no" | "false" | "いいえ" => false.into(),
            _ => return Err(wrong("yes or no")),
        },
        FieldKind::Number => text.parse::<u64>().map_err(|_| wrong("a whole number"))?.into(),
        FieldKind::Instant => match draft::instant(text) {
            Some(first) => first.into(),
            None => {
                text.parse::<DateTime<Utc>>().map(|_| text.into()).map_err(|_| wrong("a day such as 2027-01-31"))?
            }
        },
        FieldKind::Day => {
            text.parse::<NaiveDate>().map(|_| text.into()).map_err(|_| wrong("a day such as 2027-01-31"))?
        }
        FieldKind::Key => {
            let path = Path::new(text);
            let key = if path.is_file() { file::read_text(path)? } else { text.into() };
            let key: PublicKey = key.trim().parse().map_err(|e: sekisho_protocol::keys::KeyError| {
                Failure::input(format!("{}: {text}: {e}", field.path), "give the key, or the path of its .pub file")
            })?;
            key.to_string().into()
        }
        FieldKind::Schema if text.parse::<Digest>().is_ok() => text.into(),
        FieldKind::Schema => {
            let mut draft = serde_json::json!({ "schema": text });
            permit_file::fill_schema(&mut draft, Path::new(""))?;
            draft["schema"].take()
        }
        FieldKind::Sql => match text.strip_prefix('@') {
            Some(path) => file::read_text(Path::new(path))?.trim().into(),
            None => text.into(),
        },
    })
}

fn put(draft: &mut Value, path: &str, value: Value) {
    match path.split_once('.') {
        None => draft[path] = value,
        Some((table, rest)) => {
            if !draft[table].is_object() {
                draft[table] = Value::Object(Map::new());
            }
            put(&mut draft[table], rest, value);
        }
    }
}
