//! A validator that a parent process drives: final blocks go out and actions come in as lines of hex.
//!
//! | line on standard output | meaning |
//! | --- | --- |
//! | `ready` | it runs |
//! | `final HEX` | an encoded block is final |
//! | `finality_us N` | a proposal of its own became final so long after its building began |
//! | `state ID STATE` | what became of a submission: see below |
//!
//! | line on standard input | meaning |
//! | --- | --- |
//! | `HEX` | an encoded signed action; there is no answer |
//! | `submit HEX` | the same; it is answered at once with its id and state |
//! | `status ID` | what became of a submission: it is answered |
//! | `zone N kill`, `zone N start`, `zone N slow TIMES` | does that to a zone of this validator, for trials |
//!
//! A `STATE` is `received`, `pooled`, `included HEIGHT`, `final HEIGHT`, `final HEIGHT REASON` (a block carries it and refuses
//! it), `refused REASON`, `shed`, `expired` or `unknown`: see [`submissions`](seawall_chain::submissions). A reason is a
//! sentence. The validator stops when it is interrupted, or with `--stdio` when standard input ends.

use crate::{
    config_file::ValidatorConfig,
    feeds::{ReplaySource, source_params},
    files::{from_hex, to_hex},
    genesis_file,
    keys::Keys,
    process::{self, Options, Running},
};
use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_utils::channel::oneshot;
use seawall_chain::{
    app::{BuildPolicy, Monitor, NoMonitor},
    block::Block,
    machine::Step,
    mempool::action_digest,
    observer::PriceSource,
    submissions::State,
    zones::{ZoneFault, Zones},
};
use seawall_types::{Digest, MarketId, PriceReport, SignedAction, TimeMs};
use std::{
    io::{BufRead as _, Write as _},
    sync::{Arc, Mutex},
    thread,
};

/// Prints final blocks.
struct Printer;

impl Monitor for Printer {
    fn finalized(&self, block: &Block, _: Digest, _: &Step) {
        say(&format!("final {}", to_hex(&block.encode())));
    }
}

/// A validator without sources: it sees no price and says so.
struct NoSource;

impl PriceSource for NoSource {
    fn report(&self, _: TimeMs) -> Vec<(MarketId, PriceReport)> {
        Vec::new()
    }
}

fn say(line: &str) {
    // A parent that is gone is noticed on standard input.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Runs the validator of a configuration until it is interrupted.
///
/// # Errors
/// If a file of the configuration is wrong, or the validator cannot start or ends by itself.
pub fn run(config: &ValidatorConfig, policy: BuildPolicy, stdio: bool) -> Result<()> {
    let (keys, warnings) = Keys::read(&config.keys)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let (genesis, commitment) = genesis_file::read(&config.genesis)?;
    let source: Arc<dyn PriceSource> = match &config.replay {
        None => Arc::new(NoSource),
        Some(replay) => {
            let loaded = seawall_replay::load(&replay.name, None, None)?;
            if loaded.markets.len() != genesis.oracle.markets.len() {
                bail!(
                    "replay {} has {} markets, the genesis file {}; they are of different chains",
                    replay.name,
                    loaded.markets.len(),
                    genesis.oracle.markets.len()
                );
            }
            if let Some(place) = replay.feeds.iter().find(|place| **place >= loaded.feeds.len()) {
                bail!("replay {} has no feed {place}, only 0 to {}", replay.name, loaded.feeds.len() - 1);
            }
            if replay.feeds.is_empty() {
                bail!("replay {}: `feeds` names none, so the validator would see no price", replay.name);
            }
            let params = source_params(&loaded, &genesis.oracle.markets);
            let source = ReplaySource::new(Arc::new(loaded), replay.feeds.clone(), &params)
                .map_err(|error| anyhow!("replay {}: {error}", replay.name))?;
            Arc::new(source)
        }
    };
    let (stop, stopped) = oneshot::channel();
    let stop = Arc::new(Mutex::new(Some(stop)));
    let halt = move || {
        if let Some(stop) = stop.lock().ok().and_then(|mut stop| stop.take()) {
            let _ = stop.send(());
        }
    };
    let interrupt = halt.clone();
    ctrlc::set_handler(interrupt).context("cannot listen for interrupts")?;
    let monitor: Arc<dyn Monitor> = if stdio { Arc::new(Printer) } else { Arc::new(NoMonitor) };
    let options = Options {
        genesis: Arc::new(genesis),
        commitment,
        identity: keys.identity,
        share: keys.share,
        listen: config.listen,
        peers: config.peers.clone(),
        directory: config.data.clone(),
        source,
        timeline: config.timeline,
        policy,
        monitor,
        metrics: config.metrics,
        submit: config.submit,
        probe: Arc::new(move |finalized| {
            if stdio && let Some(elapsed) = finalized.since_proposal {
                say(&format!("finality_us {}", elapsed.as_micros()));
            }
        }),
    };
    let ready: Box<dyn FnOnce(Running) + Send> = if stdio {
        Box::new(move |running| {
            say("ready");
            thread::spawn(move || {
                listen(&running);
                halt();
            });
        })
    } else {
        Box::new(|_| eprintln!("the validator runs; interrupt it to stop"))
    };
    process::run(options, stopped, ready)
}

/// What is done to a zone on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneTrial {
    /// Its task is killed.
    Kill,
    /// It is started again.
    Start,
    /// Its auctions take so many times as long.
    Slow(u32),
}

impl ZoneTrial {
    /// Does it.
    pub fn inflict(self, zones: &Zones, zone: u8) {
        match self {
            Self::Kill => drop(zones.kill(zone)),
            Self::Start => drop(zones.revive(zone)),
            Self::Slow(times) => zones.afflict(zone, ZoneFault::Slowed(times)),
        }
    }

    /// The line that says so to a validator.
    pub fn line(self, zone: u8) -> String {
        match self {
            Self::Kill => format!("zone {zone} kill"),
            Self::Start => format!("zone {zone} start"),
            Self::Slow(times) => format!("zone {zone} slow {times}"),
        }
    }

    /// What a line says; nothing if it is no such line.
    pub fn parse(line: &str) -> Option<(u8, Self)> {
        let words: Vec<&str> = line.split(' ').collect();
        let (zone, trial) = match words[..] {
            ["zone", zone, "kill"] => (zone, Self::Kill),
            ["zone", zone, "start"] => (zone, Self::Start),
            ["zone", zone, "slow", times] => (zone, Self::Slow(times.parse().ok()?)),
            _ => return None,
        };
        Some((zone.parse().ok()?, trial))
    }
}

fn listen(running: &Running) {
    let submitter = &running.submitter;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        if let Some((zone, trial)) = ZoneTrial::parse(line.trim()) {
            trial.inflict(&running.zones, zone);
            continue;
        }
        match Request::parse(line.trim()) {
            Some(Request::Tell(action)) => {
                if let Err(error) = submitter.submit(*action) {
                    tracing::debug!(%error, "an action was not taken");
                }
            }
            Some(Request::Ask(action)) => {
                let id = action_digest(&action);
                let state = submitter.submit(*action).map_or(State::Shed, |id| submitter.state(&id));
                say(&answer(&id, state));
            }
            Some(Request::Status(id)) => say(&answer(&id, submitter.state(&id))),
            None => tracing::warn!("a line on standard input is no action, no question and no trial"),
        }
    }
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    /// Takes an action in.
    Tell(Box<SignedAction>),
    /// The same, with an answer.
    Ask(Box<SignedAction>),
    /// What became of a submission.
    Status(Digest),
}

impl Request {
    fn parse(line: &str) -> Option<Self> {
        let action = |hex: &str| {
            let bytes = from_hex(hex).ok()?;
            SignedAction::decode(Bytes::from(bytes)).ok().map(Box::new)
        };
        match line.split_once(' ') {
            None => action(line).map(Self::Tell),
            Some(("submit", hex)) => action(hex).map(Self::Ask),
            Some(("status", hex)) => {
                let bytes: [u8; Digest::LEN] = from_hex(hex).ok()?.try_into().ok()?;
                Some(Self::Status(Digest(bytes)))
            }
            Some(_) => None,
        }
    }
}

fn answer(id: &Digest, state: State) -> String {
    let (id, name) = (to_hex(&id.0), state.name());
    match state {
        State::Included { height } | State::Final { height, refusal: None } => {
            format!("state {id} {name} {height}")
        }
        State::Final { height, refusal: Some(refusal) } => format!("state {id} {name} {height} {refusal}"),
        State::Refused(refusal) => format!("state {id} {name} {refusal}"),
        State::Rationed { blocks } => format!("state {id} {name} {blocks}"),
        _ => format!("state {id} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_types::{AccountId, Action, ChainId, Height, Nonce, Refusal, Signature};

    #[test]
    fn a_trial_reads_back_from_its_line_and_nothing_else_does() {
        for trial in [ZoneTrial::Kill, ZoneTrial::Start, ZoneTrial::Slow(100)] {
            assert_eq!(ZoneTrial::parse(&trial.line(7)), Some((7, trial)));
        }
        for line in
            ["", "zone", "zone 1", "zone 256 kill", "zone 1 slow", "zone 1 slow -1", "zone 1 stop", "00ff"]
        {
            assert_eq!(ZoneTrial::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_question_reads_back_from_its_line_and_nothing_else_does() {
        let action = SignedAction {
            chain: ChainId(1),
            account: AccountId(2),
            nonce: Nonce(3),
            expiry: Height(4),
            action: Action::ScheduleCancel { at: None },
            signature: Signature::default(),
        };
        let (hex, id) = (to_hex(&action.encode()), action_digest(&action));
        let parse = |line: &str| Request::parse(line);
        assert_eq!(parse(&hex), Some(Request::Tell(Box::new(action.clone()))));
        assert_eq!(parse(&format!("submit {hex}")), Some(Request::Ask(Box::new(action))));
        assert_eq!(parse(&format!("status {}", to_hex(&id.0))), Some(Request::Status(id)));
        for line in ["", "submit", "submit 00ff", "status", "status 00", "status zz", &format!("tell {hex}")]
        {
            assert_eq!(parse(line), None, "{line}");
        }
        let height = Height(9);
        for (state, want) in [
            (State::Pooled, "pooled"),
            (State::Included { height }, "included 9"),
            (State::Final { height, refusal: None }, "final 9"),
            (State::Final { height, refusal: Some(Refusal::Expired) }, "final 9 expired"),
            (State::Refused(Refusal::WrongChain), "refused signed for another chain"),
            (State::Rationed { blocks: 12 }, "rationed 12"),
            (State::Unknown, "unknown"),
        ] {
            assert_eq!(answer(&id, state), format!("state {} {want}", to_hex(&id.0)));
        }
    }
}
