//! What work costs on a real machine: the numbers that a simulation charges, since its clock stands still while
//! code runs.
//!
//! They are measured by `seawall bench calibrate`, committed in `storms/calibration.toml`, and read back from there, so
//! that a simulated figure is the same on every machine.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// The committed calibration.
pub const COMMITTED: &str = include_str!("../../../storms/calibration.toml");

/// Costs in microseconds on one core.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Signing with Ed25519.
    pub sign_us: f64,
    /// Checking one Ed25519 signature in a batch of a thousand.
    pub verify_us: f64,
    /// Signing one vote.
    pub vote_sign_us: f64,
    /// Checking a quorum of votes of ten validators and making their certificate.
    pub certificate_make_us: f64,
    /// Checking a certificate.
    pub certificate_verify_us: f64,
    /// Executing one action and its share of the state root.
    pub action_us: f64,
    /// Making 4 KiB durable: the journal, before a vote leaves.
    pub sync_us: f64,
}

impl Calibration {
    /// The committed one.
    ///
    /// # Errors
    /// If the file does not parse.
    pub fn committed() -> anyhow::Result<Self> {
        Ok(toml::from_str(COMMITTED)?)
    }

    /// Every cost by its name.
    pub fn by_name(&self) -> BTreeMap<String, f64> {
        [
            ("sign_us", self.sign_us),
            ("verify_us", self.verify_us),
            ("vote_sign_us", self.vote_sign_us),
            ("certificate_make_us", self.certificate_make_us),
            ("certificate_verify_us", self.certificate_verify_us),
            ("action_us", self.action_us),
            ("sync_us", self.sync_us),
        ]
        .map(|(name, us)| (name.to_owned(), us))
        .into()
    }

    /// What a validator spends between the arrival of a message of the agreement and its answer to it, beyond
    /// executing a block: a quorum of votes is checked and made a certificate, or one that was made elsewhere is
    /// checked; a vote is signed, and the journal is synced before it leaves.
    pub fn vote(&self) -> Duration {
        micros(self.certificate_make_us.max(self.certificate_verify_us) + self.vote_sign_us + self.sync_us)
    }

    /// Checking and executing a block of `actions` and `observations`.
    pub fn verify(&self, actions: u32, observations: u32) -> Duration {
        let signatures = f64::from(actions) + f64::from(observations) + 1.0;
        micros(self.verify_us * signatures + self.action_us * f64::from(actions))
    }

    /// Executing and signing a block of `actions`: a leader checked their signatures when they arrived.
    pub fn build(&self, actions: u32) -> Duration {
        micros(self.action_us * f64::from(actions) + self.sign_us)
    }
}

fn micros(value: f64) -> Duration {
    Duration::from_secs_f64(value.max(0.0) / 1e6)
}
