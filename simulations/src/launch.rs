//! Starting the parties of a network as processes of their own.
//!
//! A party is this same executable with a first argument that says which one it is: no nested cargo, no searching of
//! `target/`. A daemon's stdout is read for what it announces, its stderr goes to a log file; it is killed when its
//! handle is dropped.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use miette::{IntoDiagnostic, Result, WrapErr, miette};

/// How long a daemon may take until it has announced itself.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Which program a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// `sekisho-node`.
    Node,
    /// `sekisho-coordinator`.
    Coordinator,
    /// `sekisho`.
    Person,
}

impl Party {
    /// The hidden first argument.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Coordinator => "coordinator",
            Self::Person => "sekisho",
        }
    }
}

/// Knows the executable that can be every party.
#[derive(Clone, Debug)]
pub struct Launcher {
    executable: PathBuf,
}

impl Launcher {
    /// Parties are `executable` with [`Party::as_str`] before their own arguments.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        Self { executable: executable.into() }
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, party: Party, args: &[S]) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg(party.as_str()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever its exit code.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output<S: AsRef<std::ffi::OsStr>>(&self, party: Party, args: &[S]) -> Result<Output> {
        self.command(party, args).output().into_diagnostic().wrap_err_with(|| format!("starting {}", party.as_str()))
    }

    /// Runs a command that must succeed, and returns its stdout.
    ///
    /// # Errors
    /// When it fails: with its stderr.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, party: Party, args: &[S]) -> Result<String> {
        let output = self.output(party, args)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(miette!("{} {} failed: {said}", party.as_str(), words(args)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a daemon and waits until it has printed a line that begins with `announces`.
    ///
    /// # Errors
    /// When it cannot be started, or ends or says nothing in time: with the end of its log.
    pub fn daemon<S: AsRef<std::ffi::OsStr>>(
        &self,
        party: Party,
        args: &[S],
        hidden: &[(&str, &Path)],
        announces: &str,
        log: &Path,
    ) -> Result<Daemon> {
        let stderr = File::options().create(true).append(true).open(log).into_diagnostic()?;
        let mut command = self.command(party, args);
        for (name, value) in hidden {
            command.env(name, value);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().into_diagnostic()?;
        let stdout = child.stdout.take().ok_or_else(|| miette!("a daemon without stdout"))?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let daemon = Daemon { child };
        loop {
            match lines.recv_timeout(READY_WITHIN) {
                Ok(line) if line.starts_with(announces) => return Ok(daemon),
                Ok(_) => {}
                Err(_) => {
                    let said = std::fs::read_to_string(log).unwrap_or_default();
                    let tail: Vec<&str> = said.lines().rev().take(15).collect();
                    let tail: Vec<&str> = tail.into_iter().rev().collect();
                    return Err(miette!("{} did not start:\n{}", party.as_str(), tail.join("\n")));
                }
            }
        }
    }
}

fn words<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// A running daemon; it is killed when this is dropped.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once, as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Leaves it running when this handle goes.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
