//! Where the story is played: a command is printed, run, and held against how it must end.

use std::{
    process::Output,
    time::{Duration, Instant},
};

use miette::{IntoDiagnostic, Result, miette};
use serde_json::Value;

use crate::network::Network;

/// How long the network may take until what was done in one place is known in another.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// The most lines of what a command says that are printed.
const MAX_LINES: usize = 40;

/// How a step must end.
#[derive(Clone, Copy)]
pub(super) enum Ends {
    /// Done.
    Well,
    /// Done, and not by all hospitals.
    Incomplete,
    /// Refused, with this stable code.
    Refused(&'static str),
}

/// The network, and what is printed of it.
pub(super) struct Stage {
    /// The processes.
    pub(super) network: Network,
    began: Instant,
}

impl Stage {
    /// A stage over a network that runs.
    pub(super) fn new(network: Network) -> Self {
        Self { network, began: Instant::now() }
    }

    /// The next part of the story, in English and Japanese.
    pub(super) fn title(&self, english: &str, japanese: &str) {
        eprintln!("[{:5.1} s] {english}", self.began.elapsed().as_secs_f64());
        println!("\n━━ {english} / {japanese}");
    }

    /// A word between two steps.
    pub(super) fn note(&self, text: &str) {
        println!("\n# {text}");
    }

    /// A file of the network's folder.
    pub(super) fn file(&self, name: &str) -> String {
        self.network.dir().join(name).display().to_string()
    }

    /// Runs `sekisho` as `who`, and returns what it said.
    pub(super) fn person(&self, who: &str, args: &[&str], ends: Ends) -> Result<String> {
        self.step(&format!("{who}$ sekisho"), args, &self.network.ask(args)?, ends)
    }

    /// Runs `sekisho-node` at the hospital `name`, and returns what it said.
    pub(super) fn node(&self, name: &str, args: &[&str], ends: Ends) -> Result<String> {
        self.step(&format!("{name}$ sekisho-node"), args, &self.network.node_output(name, args)?, ends)
    }

    /// Runs `sekisho-coordinator` beside the coordinator, and returns what it said.
    pub(super) fn operator(&self, args: &[&str], ends: Ends) -> Result<String> {
        self.step("operator$ sekisho-coordinator", args, &self.network.coordinator_output(args)?, ends)
    }

    fn step(&self, prompt: &str, args: &[&str], output: &Output, ends: Ends) -> Result<String> {
        println!("\n{prompt} {}", self.typed(args));
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let shown = said.replace(&format!("{}/", self.network.dir().display()), "");
        let lines: Vec<&str> = shown.trim_end().lines().collect();
        lines.iter().take(MAX_LINES).for_each(|line| println!("{line}"));
        if lines.len() > MAX_LINES {
            println!("… {} more lines", lines.len() - MAX_LINES);
        }
        let (code, right) = match ends {
            Ends::Well => (output.status.code(), output.status.success()),
            Ends::Incomplete => (output.status.code(), output.status.code() == Some(4)),
            Ends::Refused(code) => (output.status.code(), output.status.code() == Some(1) && said.contains(code)),
        };
        if right {
            return Ok(said);
        }
        let must = match ends {
            Ends::Well => "well",
            Ends::Incomplete => "with some hospitals that did not answer",
            Ends::Refused(code) => code,
        };
        Err(miette!("{prompt} {}: it ended with {code:?}, and must end {must}\n{said}", self.typed(args)))
    }

    /// The words as a person would type them.
    fn typed(&self, args: &[&str]) -> String {
        let dir = format!("{}/", self.network.dir().display());
        let word = |arg: &&str| {
            let arg = arg.replace(&dir, "");
            if arg.contains([' ', '\'', '(', '*']) { format!("\"{arg}\"") } else { arg }
        };
        args.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Fails unless `part` was said.
    pub(super) fn says(&self, said: &str, part: &str) -> Result<()> {
        if said.contains(part) { Ok(()) } else { Err(miette!("{part:?} is not in:\n{said}")) }
    }

    /// Asks `sekisho` silently until it says `part`.
    pub(super) fn until(&self, args: &[&str], part: &str) -> Result<()> {
        self.wait(args, |said| said.contains(part))
    }

    /// Asks for a report in JSON until `holder` has the code `code` in it.
    pub(super) fn until_code(&self, args: &[&str], holder: &str, code: &str) -> Result<()> {
        self.wait(args, |said| {
            let report: Value = serde_json::from_str(said).unwrap_or_default();
            let holders = report["holders"].as_array().cloned().unwrap_or_default();
            holders.iter().any(|h| h["name"] == holder && h["code"] == code)
        })
    }

    /// Waits until these hospitals are connected, whatever documents they hold.
    pub(super) fn until_connected(&self, hospitals: &[&str]) -> Result<()> {
        self.wait(&["network", "show", "--output", "json"], |said| {
            let report: Value = serde_json::from_str(said).unwrap_or_default();
            let members = report["members"].as_array().cloned().unwrap_or_default();
            hospitals.iter().all(|name| members.iter().any(|m| m["name"] == *name && m["connected"] == true))
        })
    }

    fn wait(&self, args: &[&str], enough: impl Fn(&str) -> bool) -> Result<()> {
        let until = Instant::now() + KNOWN_WITHIN;
        loop {
            let output = self.network.ask(args)?;
            let said = String::from_utf8_lossy(&output.stdout);
            if enough(&said) {
                return Ok(());
            }
            if Instant::now() > until {
                let words = String::from_utf8_lossy(&output.stderr);
                return Err(miette!("sekisho {}: not within a minute:\n{said}{words}", self.typed(args)));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

/// The sum of a column over the combined table of an answer in JSON.
pub(super) fn sum(json: &str, column: &str) -> Result<f64> {
    let answer: Value = serde_json::from_str(json).into_diagnostic()?;
    let rows = answer["rows"].as_array().ok_or_else(|| miette!("an answer without rows"))?;
    Ok(rows.iter().filter_map(|row| row[column].as_f64()).sum())
}
