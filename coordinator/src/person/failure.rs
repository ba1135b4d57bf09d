//! How a command ends: its exit code, and what is said when it fails.
//!
//! Every failure says what failed, why, and what to do. The codes of refusals are those of
//! [`sekisho_protocol::refusal::Code`]; two more are the command line's own: `bad_input` (exit code 2) and
//! `unreachable` (3).
//!
//! Deliberately absent: retries, and any rendering of control characters that somebody else chose.

use std::{fmt, path::Path, process::ExitCode};

use sekisho_protocol::{
    dsse::DsseError,
    key_file::KeyFileError,
    refusal::{Code, Refusal},
};

use super::{place::Place, print::plain};

/// How a command ended; the number is its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Done = 0,
    /// Somebody refused.
    Refused = 1,
    /// The command line, a file or a key is not as it should be.
    Input = 2,
    /// The coordinator cannot be reached.
    Unreachable = 3,
    /// Some hospitals did not answer; what the others said was printed.
    Incomplete = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    exit: Exit,
    code: &'static str,
    detail: String,
    /// Lines of the SQL with a caret under the place that is meant.
    place: Option<String>,
    advice: String,
}

impl Failure {
    /// The command line, a file or a key is not as it should be.
    pub fn input(detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit: Exit::Input, code: "bad_input", detail: detail.into(), place: None, advice: advice.into() }
    }

    /// What was asked for is refused, by a check of this program.
    pub fn refused(code: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, code, detail: detail.into(), place: None, advice: advice.into() }
    }

    /// The disk said no about `path`.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::input(format!("{}: {error}", path.display()), "check the path and its permissions")
    }

    /// The coordinator cannot be reached.
    pub fn unreachable(url: &str, why: &str) -> Self {
        Self {
            exit: Exit::Unreachable,
            code: "unreachable",
            detail: format!("no answer from the coordinator at {url}: {why}"),
            place: None,
            advice: "check --coordinator, --ca and the network, then try again; the same run is charged once".into(),
        }
    }

    /// A file does not hold the document that it should.
    pub fn document(path: &Path, error: DsseError) -> Self {
        let refusal = Refusal::from(error);
        Self {
            exit: Exit::Input,
            code: refusal.code.as_str(),
            detail: format!("{}: {}", path.display(), refusal.detail),
            place: None,
            advice: "check that the file is what the command asks for".into(),
        }
    }

    /// The coordinator sent something that this program does not understand.
    pub fn answer(what: &str, why: impl fmt::Display) -> Self {
        Refusal::new(Code::Malformed, format!("the coordinator's {what}: {why}")).into()
    }

    /// The same, with the place in `sql` that its words name.
    #[must_use]
    pub fn placed(self, sql: &str) -> Self {
        let place = Place::named_in(&self.detail).and_then(|place| place.shown_in(sql));
        Self { place, ..self }
    }

    /// The same, with other advice.
    #[must_use]
    pub fn with_advice(self, advice: &str) -> Self {
        Self { advice: advice.into(), ..self }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What failed.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Lines of the SQL with a caret under the place that is meant.
    pub fn place(&self) -> Option<&str> {
        self.place.as_deref()
    }

    /// What to do.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error[{}]: {}", self.code, plain(&self.detail))?;
        if let Some(place) = &self.place {
            writeln!(f, "{place}")?;
        }
        write!(f, "  do: {}", plain(&self.advice))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self {
            exit: Exit::Refused,
            code: refusal.code.as_str(),
            advice: refusal.code.advice().into(),
            detail: refusal.detail,
            place: None,
        }
    }
}

impl From<KeyFileError> for Failure {
    fn from(error: KeyFileError) -> Self {
        Self::input(error.to_string(), "name a key file made by `sekisho keys new`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_failed_and_what_to_do() {
        let failure = Failure::from(Refusal::new(Code::BudgetStudy, "10 micro-rho are left"));
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(
            failure.to_string(),
            "error[budget_study]: 10 micro-rho are left\n  do: the study's budget is spent; ask the committee for more"
        );
    }

    #[test]
    fn a_refusal_shows_its_place_in_the_sql() {
        let refusal = Refusal::new(Code::SqlUnsupported, "median is not admitted (line 2, column 3)");
        let failure = Failure::from(refusal).placed("SELECT sex,\n  median(days)\n\u{1b}[2J");
        let expect = "error[sql_unsupported]: median is not admitted (line 2, column 3)\n   ╭─ line 2, column 3\n \
                      2 │   median(days)\n   ·   ^\n  do: write it as the message says";
        assert_eq!(failure.to_string(), expect);
    }

    #[test]
    fn a_refusal_cannot_move_the_cursor() {
        let failure = Failure::from(Refusal::new(Code::Policy, "\u{1b}[2J\rok"));
        assert!(failure.to_string().chars().all(|c| c == '\n' || !c.is_control()));
    }
}
