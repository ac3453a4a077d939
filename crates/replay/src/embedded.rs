//! The replays that every binary carries.

use crate::{
    ClockTime, Replay, ReplayError,
    bars::{Recording, Source},
};
use std::sync::LazyLock;

/// The replay that is played unless another is asked for.
pub const DEFAULT_REPLAY: &str = "crash-2025-10-10";

/// What the catalog says of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayInfo {
    /// Name, for [`load`].
    pub name: &'static str,
    /// One line on what happened.
    pub title: &'static str,
    /// First instant, ms since the Unix epoch.
    pub start_ms: u64,
    /// The instant at which it is over.
    pub end_ms: u64,
    /// Symbols of its assets.
    pub assets: Vec<String>,
    /// Number of distinct venues.
    pub venues: usize,
    /// Origin, licence note, columns, units, rows and checksums.
    pub provenance: &'static str,
}

struct Files {
    name: &'static str,
    bars: &'static [u8],
    venues: &'static [u8],
    provenance: &'static str,
}

macro_rules! files {
    ($name:literal) => {
        Files {
            name: $name,
            bars: include_bytes!(concat!("../../../data/replays/", $name, "/bars.csv")),
            venues: include_bytes!(concat!("../../../data/replays/", $name, "/venues.csv")),
            provenance: include_str!(concat!("../../../data/replays/", $name, "/PROVENANCE.md")),
        }
    };
}

const EMBEDDED: [Files; 5] = [
    files!("crash-2025-10-10"),
    files!("eth-2020-03-12"),
    files!("btc-2020-03-13"),
    files!("btc-2021-05-19"),
    files!("btc-2022-11-08"),
];

impl Files {
    fn recording(&self) -> Result<Recording, ReplayError> {
        let source = |file: &str, bytes: &'static [u8]| Source {
            name: format!("{}/{file}", self.name),
            bytes: bytes.into(),
        };
        Recording::read(&[source("venues.csv", self.venues), source("bars.csv", self.bars)])
    }

    fn info(&self) -> Result<ReplayInfo, ReplayError> {
        let recording = self.recording()?;
        let (start_ms, end_ms) = recording.span();
        let mut assets: Vec<String> = recording.bars.keys().map(|(asset, _)| asset.clone()).collect();
        assets.dedup();
        let title = self.provenance.lines().next().unwrap_or_default().trim_start_matches("# ");
        Ok(ReplayInfo {
            name: self.name,
            title,
            start_ms,
            end_ms,
            assets,
            venues: recording.venues.len(),
            provenance: self.provenance,
        })
    }
}

/// Every embedded replay, the default first.
pub fn catalog() -> &'static [ReplayInfo] {
    static CATALOG: LazyLock<Vec<ReplayInfo>> = LazyLock::new(|| {
        // Embedded bytes cannot change after the tests have read every one of them.
        EMBEDDED.iter().map(|files| files.info().expect("an embedded replay loads")).collect()
    });
    &CATALOG
}

/// Loads an embedded replay, whole or from one time of day to another (UTC, end exclusive).
///
/// # Errors
/// An unknown name, or a window outside the recording.
pub fn load(name: &str, from: Option<ClockTime>, to: Option<ClockTime>) -> Result<Replay, ReplayError> {
    let files = EMBEDDED.iter().find(|files| files.name == name).ok_or_else(|| ReplayError::Unknown {
        name: name.to_owned(),
        known: EMBEDDED.map(|files| files.name).join(", "),
    })?;
    Replay::build(name, &files.recording()?, from, to)
}
