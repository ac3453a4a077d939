//! The configuration of a validator process, `seawall validator --config FILE`.
//!
//! ```toml
//! genesis = "genesis.json"          # paths are relative to this file
//! keys = "keys.toml"
//! data = "data"
//! listen = "127.0.0.1:7000"
//! block_interval_ms = 100           # optional
//! metrics = "127.0.0.1:9000"        # optional: GET /metrics; see `serve`
//! submit = "127.0.0.1:8000"         # optional: where actions arrive; see `front`
//!
//! [timeline]                        # optional: without it, chain time is wall time
//! wall_origin_ms = 1780000000000
//! chain_origin_ms = 1760130000000
//! speed = 10
//!
//! [replay]                          # optional: without it, the validator has no price sources
//! name = "crash-2025-10-10"
//! feeds = [0, 3, 5]                 # places in the whole recording
//!
//! [log]                             # optional; SEAWALL_LOG overrules the filter
//! filter = "info"
//! format = "text"                   # or "json"
//! file = "validator.log"            # optional: standard error without it
//!
//! [peers]                           # every member of the committee: public key and address
//! 4a..c1 = "127.0.0.1:7000"
//! 9f..03 = "127.0.0.1:7001"
//! ```

use crate::files::{FileError, read_text, write_whole};
use seawall_chain::{block::PublicKey, committee::decode_public, timeline::Timeline};
use seawall_types::Key;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Spanned;

/// Usual name of the file.
pub const CONFIG_FILE: &str = "validator.toml";

/// What a validator process is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatorConfig {
    /// The genesis file.
    pub genesis: PathBuf,
    /// The file of secrets.
    pub keys: PathBuf,
    /// The data directory.
    pub data: PathBuf,
    /// Where it listens for peers.
    pub listen: SocketAddr,
    /// Wall time between two blocks on one another, at least.
    pub block_interval: Duration,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Where actions arrive from programs of this machine.
    pub submit: Option<SocketAddr>,
    /// Chain time.
    pub timeline: Timeline,
    /// Where prices come from.
    pub replay: Option<ReplayConfig>,
    /// What is logged.
    pub log: LogConfig,
    /// Every member of the committee, by ascending key.
    pub peers: Vec<(PublicKey, SocketAddr)>,
}

/// A replay as a price source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayConfig {
    /// Name in the catalog.
    pub name: String,
    /// Places, in the whole recording, of the feeds that this validator listens to.
    pub feeds: Vec<usize>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter as `tracing` knows it.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
    /// Where they go; standard error if nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text, file: None }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigIn {
    genesis: PathBuf,
    keys: PathBuf,
    data: PathBuf,
    listen: SocketAddr,
    block_interval_ms: Option<Spanned<u64>>,
    metrics: Option<SocketAddr>,
    submit: Option<Spanned<SocketAddr>>,
    timeline: Option<Spanned<TimelineToml>>,
    replay: Option<Spanned<ReplayConfig>>,
    #[serde(default)]
    log: LogConfig,
    peers: BTreeMap<Spanned<String>, SocketAddr>,
}

#[derive(Serialize)]
struct ConfigOut<'a> {
    genesis: &'a Path,
    keys: &'a Path,
    data: &'a Path,
    listen: SocketAddr,
    block_interval_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    metrics: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeline: Option<TimelineToml>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<&'a ReplayConfig>,
    log: LogConfig,
    peers: BTreeMap<String, SocketAddr>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TimelineToml {
    wall_origin_ms: u64,
    chain_origin_ms: u64,
    speed: u32,
}

const DEFAULT_INTERVAL_MS: u64 = 100;
/// Longest `block_interval_ms` of a configuration.
pub const MAX_INTERVAL_MS: u64 = 60_000;

impl ValidatorConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or anything in it is wrong: file, line, column and reason.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = read_text(path)?;
        let raw: ConfigIn = toml::from_str(&text).map_err(|error| FileError::toml(path, &text, &error))?;
        let fault = |offset: usize, reason: String| FileError::at_offset(path, &text, offset, reason);
        let base = path.parent().unwrap_or(Path::new(""));
        let interval_ms = match &raw.block_interval_ms {
            None => DEFAULT_INTERVAL_MS,
            Some(value) if *value.get_ref() <= MAX_INTERVAL_MS => *value.get_ref(),
            Some(value) => {
                let reason = format!("block_interval_ms: at most {MAX_INTERVAL_MS}");
                return Err(fault(value.span().start, reason));
            }
        };
        let timeline = match &raw.timeline {
            None => Timeline::LIVE,
            Some(value) if value.get_ref().speed == 0 => {
                return Err(fault(value.span().start, "timeline.speed: must be positive".into()));
            }
            Some(value) => {
                let TimelineToml { wall_origin_ms, chain_origin_ms, speed } = *value.get_ref();
                Timeline { wall_origin_ms, chain_origin_ms, speed }
            }
        };
        let submit = match &raw.submit {
            Some(value) if !value.get_ref().ip().is_loopback() => {
                let reason = "submit: nobody is asked who they are there; use a loopback address".to_owned();
                return Err(fault(value.span().start, reason));
            }
            submit => submit.as_ref().map(|value| *value.get_ref()),
        };
        let mut peers = Vec::with_capacity(raw.peers.len());
        for (name, address) in &raw.peers {
            let key: Key = name.get_ref().parse().map_err(|error: seawall_types::ParseHexError| {
                fault(name.span().start, format!("peers: not a public key: {error}"))
            })?;
            let public = decode_public(&key.0)
                .map_err(|error| fault(name.span().start, format!("peers: not a public key: {error}")))?;
            peers.push((public, *address));
        }
        peers.sort_by(|a, b| a.0.cmp(&b.0));
        if let Some(pair) = peers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let key = seawall_chain::crypto::key_of(&pair[0].0);
            return Err(FileError::new(path, format_args!("peers: {key} is listed twice")));
        }
        let mut log = raw.log;
        log.file = log.file.map(|file| base.join(file));
        Ok(Self {
            genesis: base.join(raw.genesis),
            keys: base.join(raw.keys),
            data: base.join(raw.data),
            listen: raw.listen,
            block_interval: Duration::from_millis(interval_ms),
            metrics: raw.metrics,
            submit,
            timeline,
            replay: raw.replay.map(Spanned::into_inner),
            log,
            peers,
        })
    }

    /// Writes the file. Paths within its directory are written relative to it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), FileError> {
        let base = path.parent().unwrap_or(Path::new(""));
        fn relative<'a>(base: &Path, path: &'a Path) -> &'a Path {
            path.strip_prefix(base).unwrap_or(path)
        }
        let out = ConfigOut {
            genesis: relative(base, &self.genesis),
            keys: relative(base, &self.keys),
            data: relative(base, &self.data),
            listen: self.listen,
            block_interval_ms: u64::try_from(self.block_interval.as_millis()).unwrap_or(u64::MAX),
            metrics: self.metrics,
            submit: self.submit,
            timeline: (self.timeline != Timeline::LIVE).then_some(TimelineToml {
                wall_origin_ms: self.timeline.wall_origin_ms,
                chain_origin_ms: self.timeline.chain_origin_ms,
                speed: self.timeline.speed,
            }),
            replay: self.replay.as_ref(),
            log: LogConfig {
                file: self.log.file.as_deref().map(|file| relative(base, file).into()),
                ..self.log.clone()
            },
            peers: self
                .peers
                .iter()
                .map(|(key, address)| (seawall_chain::crypto::key_of(key).to_string(), *address))
                .collect(),
        };
        let text = toml::to_string(&out).map_err(|error| FileError::new(path, error))?;
        write_whole(path, false, text.as_bytes())
    }
}
