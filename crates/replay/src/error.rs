//! Everything that can go wrong between a recording and a [`Replay`](crate::Replay).

use std::path::PathBuf;
use thiserror::Error;

/// Why a replay cannot be loaded.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// No embedded replay has this name.
    #[error("no replay is called {name:?}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Every name, separated by commas.
        known: String,
    },
    /// A file or directory cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A row breaks the layout.
    #[error("{file}:{line}: {reason}")]
    Malformed {
        /// Name of the file.
        file: String,
        /// Line in it, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// A time of day is not `HH:MM`.
    #[error("{text:?} is not a time of day (HH:MM, up to 24:00)")]
    Clock {
        /// What was given.
        text: String,
    },
    /// The window asked for is empty or lies outside the recording.
    #[error("the window {from} to {to} is empty or outside the recording, which spans {start} to {end}")]
    Window {
        /// Start asked for, in ms since the Unix epoch.
        from: u64,
        /// End asked for.
        to: u64,
        /// Start of the recording.
        start: u64,
        /// End of the recording.
        end: u64,
    },
    /// The recording as a whole cannot become a replay.
    #[error("{0}")]
    Unusable(String),
}
