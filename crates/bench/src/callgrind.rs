//! Counts instructions: runs a program under valgrind's callgrind and reads what each region took.
//!
//! A region is a call of [`measured_region`]. Callgrind collects inside of it only, and writes one file when
//! it returns, so that one process with one expensive setup yields many counts. Nothing but the name of this
//! function is known to both sides: the program needs no headers, no client requests and no unsafe code.

use std::{
    env,
    ffi::OsString,
    fs,
    hint::black_box,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::workload::Workload;

/// What callgrind looks for among the names of functions, to start and stop collecting and to write a file.
/// Two patterns, because it remembers one purpose for each.
const COLLECT: &str = "*measured_region*";
const DUMP: &str = "*callgrind::measured_region*";

/// Runs `work` and counts its instructions, if somebody does.
///
/// One symbol that is never inlined, and nothing else whose name holds its name: that would end the region.
#[inline(never)]
pub fn measured_region(work: &mut dyn FnMut()) {
    black_box(&work);
    work();
    // Not the last thing, so that the call above is no jump and the region ends where this function does.
    black_box(&work);
}

/// Why there is no count.
#[derive(Debug, Error)]
pub enum Error {
    /// Valgrind cannot be started.
    #[error("instructions are counted by valgrind, which is not installed: apt-get install valgrind")]
    NoValgrind,
    /// Files or processes.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
    /// The program under valgrind failed; the last of what it said.
    #[error("{program} under valgrind ended with {status}: {said}")]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: String,
        /// The end of its standard error.
        said: String,
    },
    /// The program announced another number of regions than callgrind saw.
    #[error(
        "the program announced {announced} regions and callgrind saw {seen}; was its symbol table stripped?"
    )]
    Regions {
        /// Lines that the program wrote.
        announced: usize,
        /// Files that callgrind wrote.
        seen: usize,
    },
    /// A line or file that is not what it should be.
    #[error("{what} is not understood: {text:?}")]
    Unreadable {
        /// What it should be.
        what: &'static str,
        /// The text.
        text: String,
    },
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |error| Error::Io(what, error)
}

/// A region: what the program said of it, and its instructions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region<F> {
    /// What the program said.
    pub facts: F,
    /// Instructions executed.
    pub instructions: u64,
}

/// How to run a workload under valgrind: a program, and the arguments before the workload's own.
#[derive(Clone, Debug)]
pub struct Runner {
    program: PathBuf,
    arguments: Vec<OsString>,
    keep: Option<PathBuf>,
}

impl Runner {
    /// This program again, with these arguments (those of its hidden command) and the workload after them.
    ///
    /// # Errors
    /// If the path of this program is not known.
    pub fn this_program<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> Result<Self, Error> {
        let program = env::current_exe().map_err(io_error("path of this program"))?;
        Ok(Self { program, arguments: arguments.into_iter().map(Into::into).collect(), keep: None })
    }

    /// Keeps callgrind's files in this directory, for `callgrind_annotate`.
    #[must_use]
    pub fn keeping(mut self, directory: Option<PathBuf>) -> Self {
        self.keep = directory;
        self
    }

    /// Runs a workload and counts each of its regions, in order.
    ///
    /// # Errors
    /// If valgrind is absent, or the program does not do what it should.
    pub fn count<F: DeserializeOwned>(
        &self,
        workload: &Workload,
        progress: &ProgressBar,
    ) -> Result<Vec<Region<F>>, Error> {
        let scratch = tempfile::tempdir().map_err(io_error("temporary directory"))?;
        let directory = match &self.keep {
            None => scratch.path().to_owned(),
            Some(kept) => kept.join(workload.name()),
        };
        fs::create_dir_all(&directory).map_err(io_error(directory.display().to_string()))?;
        let name = |path: &Path| path.display().to_string();
        let said = directory.join("stderr");
        let stderr = fs::File::create(&said).map_err(io_error(name(&said)))?;
        let mut child = Command::new("valgrind")
            .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
            .arg(format!("--toggle-collect={COLLECT}"))
            .arg(format!("--dump-after={DUMP}"))
            .arg(format!("--callgrind-out-file={}", directory.join("region").display()))
            .arg(&self.program)
            .args(&self.arguments)
            .arg(workload.to_argument())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::NoValgrind,
                _ => Error::Io("valgrind".into(), error),
            })?;
        let mut facts = Vec::new();
        for line in BufReader::new(child.stdout.take().into_iter().next().expect("it is piped")).lines() {
            let line = line.map_err(io_error("output of the workload"))?;
            let fact: F = serde_json::from_str(&line)
                .map_err(|_| Error::Unreadable { what: "what the workload says of a region", text: line })?;
            facts.push(fact);
            progress.set_message(format!("{}: {} regions", workload.name(), facts.len()));
        }
        let status = child.wait().map_err(io_error("valgrind"))?;
        if !status.success() {
            let text = fs::read_to_string(&said).unwrap_or_default();
            let from = text.char_indices().rev().nth(600).map_or(0, |(at, _)| at);
            return Err(Error::Failed {
                program: self.program.clone(),
                status: status.to_string(),
                said: text[from..].trim().to_owned(),
            });
        }
        let counts = counts(&directory)?;
        if counts.len() != facts.len() {
            return Err(Error::Regions { announced: facts.len(), seen: counts.len() });
        }
        Ok(facts
            .into_iter()
            .zip(counts)
            .map(|(facts, instructions)| Region { facts, instructions })
            .collect())
    }
}

/// The counts of all regions, in order: callgrind numbers its files from 1, and writes one more at the end.
fn counts(directory: &Path) -> Result<Vec<u64>, Error> {
    let mut counts = Vec::new();
    loop {
        let path = directory.join(format!("region.{}", counts.len() + 1));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(counts),
            Err(error) => return Err(Error::Io(path.display().to_string(), error)),
        };
        counts.push(instructions(&text)?);
    }
}

/// The count in one of callgrind's files.
fn instructions(text: &str) -> Result<u64, Error> {
    text.lines()
        .find_map(|line| line.strip_prefix("summary:").or_else(|| line.strip_prefix("totals:")))
        .and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| Error::Unreadable {
            what: "callgrind's file",
            text: text.lines().take(20).collect::<Vec<_>>().join("\n"),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_a_file_is_its_summary() {
        let text =
            "# callgrind format\nversion: 1\nevents: Ir\nsummary: 1234\n\nfn=(1) x\n0 1234\n\ntotals: 1234\n";
        assert_eq!(instructions(text).unwrap(), 1234);
        assert!(instructions("events: Ir\n").is_err());
    }

    #[test]
    fn regions_are_read_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        for part in 1..=11 {
            let file = directory.path().join(format!("region.{part}"));
            fs::write(file, format!("events: Ir\ntotals: {}\n", part * 10)).unwrap();
        }
        let expected: Vec<u64> = (1..=11).map(|part| part * 10).collect();
        assert_eq!(counts(directory.path()).unwrap(), expected);
    }
}
