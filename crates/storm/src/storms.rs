//! The storms that ship with the program.

use crate::{
    run::StormError,
    scenario::{Scenario, ScenarioError},
};
use std::{fs, path::Path};

macro_rules! storms {
    ($($name:literal),* $(,)?) => {
        /// Name and file of each, in the order in which they are listed.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../storms/", $name, ".toml")))),*];
    };
}

storms!(
    "congestion-curve",
    "nft-flood",
    "censoring-leader",
    "censoring-leader-7",
    "censoring-region",
    "hunted-leader",
    "dead-region",
    "black-thursday",
    "everyone-tops-up",
    "stale-restart",
);

/// A storm that ships with the program.
///
/// # Errors
/// If its file does not hold, which a test excludes.
pub fn shipped(name: &str) -> Option<Result<Scenario, ScenarioError>> {
    let (name, text) = SHIPPED.iter().find(|(own, _)| *own == name)?;
    Some(Scenario::parse(&format!("storms/{name}.toml"), text))
}

/// A storm by its name, or by the path of its file.
///
/// # Errors
/// If there is neither, or the file does not hold.
pub fn find(name: &str) -> Result<Scenario, StormError> {
    if let Some(found) = shipped(name) {
        return Ok(found?);
    }
    let path = Path::new(name);
    if !path.exists() {
        let known: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
        return Err(StormError::NoStorm { name: name.to_owned(), known: known.join(", ") });
    }
    let text = fs::read_to_string(path).map_err(|error| StormError::File { path: path.to_owned(), error })?;
    Ok(Scenario::parse(name, &text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_storm_reads_and_tells_what_it_is_about() {
        for (name, _) in SHIPPED {
            let storm = shipped(name).unwrap().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(storm.name, *name);
            assert!(storm.header().len() > 100, "{name}: the header says what really happened");
            assert!(!storm.plan.hypothesis.is_empty());
        }
    }
}
