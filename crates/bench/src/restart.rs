//! Memory of a validator with many accounts, and its way back after it was killed.
//!
//! A committee of one, so that nobody else is waited for: the validator is the very process that production
//! runs, with its own directory. It makes blocks for a while and is killed (SIGKILL). Then it starts again on what
//! is left: it reads and checks genesis, opens its stores, rebuilds the state in memory, checks it against
//! the root, and votes. With one validator the first block after the restart is final by its first vote, so the time
//! to that block is the time to the first vote and a little more.

use crate::chain::{START, genesis};
use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use commonware_codec::DecodeExt as _;
use indicatif::ProgressBar;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{block::Block, timeline::Timeline};
use seawall_node::{config_file::ValidatorConfig, files::from_hex, genesis_file, keys::Keys, log};
use serde::Serialize;
use std::{
    fmt,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Final blocks to wait for before the validator is killed, and after it is back.
const BLOCKS: u64 = 30;
/// Blocks with nothing in them that a validator must make within this time, or the benchmark gives up.
const PATIENCE: Duration = Duration::from_secs(300);

/// What came out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Report {
    /// Accounts with two positions each.
    pub accounts: u64,
    /// First start on an empty directory: seconds to the first final block, the store seeded on the way.
    pub first_start_s: f64,
    /// Resident memory while it makes blocks, MiB: first life.
    pub resident_mib: u64,
    /// Seconds from the restart to the first final block.
    pub restart_s: f64,
    /// Resident memory while it makes blocks, MiB: second life.
    pub resident_after_restart_mib: u64,
    /// Largest resident memory in either life, MiB.
    pub peak_mib: u64,
    /// Size of the data directory, MiB.
    pub directory_mib: u64,
}

/// A running validator, killed when dropped.
struct Running {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    since: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(program: &Path, config: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(program)
            .args(["validator", "--stdio", "--config"])
            .arg(config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().context("the child's output is piped")?;
        Ok(Self { child, lines: BufReader::new(output).lines(), since: Instant::now() })
    }

    /// Height of the next final block.
    fn block(&mut self) -> anyhow::Result<u64> {
        for line in self.lines.by_ref() {
            let line = line?;
            ensure!(self.since.elapsed() < PATIENCE, "the validator took longer than {PATIENCE:?}");
            if let Some(text) = line.strip_prefix("final ") {
                let bytes = from_hex(text).map_err(|error| anyhow::anyhow!("a final block: {error}"))?;
                return Ok(Block::decode(bytes::Bytes::from(bytes))?.header.height.get());
            }
        }
        bail!("the validator ended by itself; run it by hand to see why")
    }

    /// A line of `/proc/PID/status`, in MiB.
    fn memory_mib(&self, name: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .with_context(|| format!("{path}: no {name}"))?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number follows")?.parse()?;
        Ok(kib / 1_024)
    }
}

fn size_mib(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes >> 20)
}

/// Runs it. `program` is the one whose `validator` command is measured.
///
/// # Errors
/// If files cannot be written, or the validator does not do what it should.
pub fn run(accounts: u64, program: &Path, progress: &ProgressBar) -> anyhow::Result<Report> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    progress.set_message("drawing and hashing the genesis state");
    let (genesis, dealt) = genesis(1, accounts, ChaCha20Rng::seed_from_u64(3))?;
    let commitment = genesis_file::commitment(&genesis)?;
    genesis_file::write(root, &genesis, &commitment)?;
    drop(genesis);
    let (identity, share) = dealt.members.into_iter().next().context("a committee of one")?;
    let public = identity.public();
    Keys { identity, share }.write(&root.join("keys.toml"))?;
    let listen: SocketAddr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let config = ValidatorConfig {
        genesis: PathBuf::from(genesis_file::GENESIS_FILE),
        keys: PathBuf::from("keys.toml"),
        data: PathBuf::from("data"),
        listen,
        block_interval: Duration::from_millis(100),
        metrics: None,
        submit: None,
        timeline: Timeline { wall_origin_ms: u64::try_from(now)?, chain_origin_ms: START.get(), speed: 1 },
        replay: None,
        log: log::quiet(),
        peers: vec![(public, listen)],
    };
    let path = root.join("validator.toml");
    config.write(&path)?;

    progress.set_message("first start: seeding the store");
    let mut running = Running::start(program, &path)?;
    let mut last = running.block()?;
    let first_start_s = running.since.elapsed().as_secs_f64();
    progress.set_message("making blocks");
    while last < BLOCKS {
        last = running.block()?;
    }
    let resident_mib = running.memory_mib("VmRSS")?;
    let peak = running.memory_mib("VmHWM")?;
    drop(running);
    let directory_mib = size_mib(&root.join("data"))?;

    progress.set_message("restarting");
    let mut running = Running::start(program, &path)?;
    // Blocks that were final before are told again.
    let restart_s = loop {
        let height = running.block()?;
        if height > last {
            break running.since.elapsed().as_secs_f64();
        }
    };
    let end = last + BLOCKS;
    while last < end {
        last = running.block()?;
    }
    let report = Report {
        accounts,
        first_start_s,
        resident_mib,
        restart_s,
        resident_after_restart_mib: running.memory_mib("VmRSS")?,
        peak_mib: peak.max(running.memory_mib("VmHWM")?),
        directory_mib,
    };
    Ok(report)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([
            format!("one validator, {} accounts with two positions", self.accounts),
            String::new(),
        ]);
        for (name, value) in [
            ("first start to first block, store seeded", format!("{:.1} s", self.first_start_s)),
            ("resident while it makes blocks", format!("{} MiB", self.resident_mib)),
            ("killed; restart to first vote and block", format!("{:.1} s", self.restart_s)),
            ("resident after the restart", format!("{} MiB", self.resident_after_restart_mib)),
            ("largest resident memory in either life", format!("{} MiB", self.peak_mib)),
            ("data directory", format!("{} MiB", self.directory_mib)),
        ] {
            table.add_row([name.to_owned(), value]);
        }
        write!(f, "{table}")
    }
}
