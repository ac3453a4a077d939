//! What a process logs, and where: `[log]` of a validator's configuration. `SEAWALL_LOG`, if it is set, overrules the filter.

use crate::config_file::{LogConfig, LogFormat};
use anyhow::{Context as _, Result, anyhow};
use std::{fs::OpenOptions, sync::Mutex};
use tracing_subscriber::{EnvFilter, fmt::writer::BoxMakeWriter};

/// What tools log that have no configuration. The resolver reports every orderly stop of its validator as an error.
pub const QUIET: &str = "error,commonware_resolver::p2p::engine=off";
/// Names the filter.
const VARIABLE: &str = "SEAWALL_LOG";

/// A process that logs next to nothing.
pub fn quiet() -> LogConfig {
    LogConfig { filter: QUIET.into(), ..LogConfig::default() }
}

/// Begins to log. Once in a process.
///
/// # Errors
/// If the filter is none, the file cannot be opened, or this process logs already.
pub fn start(config: &LogConfig) -> Result<()> {
    let filter = match EnvFilter::try_from_env(VARIABLE) {
        Ok(filter) => filter,
        Err(_) => EnvFilter::try_new(&config.filter)
            .with_context(|| format!("log.filter: \"{}\" is no filter; try \"info\"", config.filter))?,
    };
    let writer = match &config.file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("log.file: cannot write {}", path.display()))?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let begun = match config.format {
        LogFormat::Text => lines.with_ansi(config.file.is_none()).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    begun.map_err(|error| anyhow!("cannot log: {error}"))
}
