//! Rescues while trades come at many times what a network can carry: four validator processes, real sockets.
//!
//! A generator in a process of its own sends signed actions to all validators by a schedule that waits for nobody (an
//! open loop): single immediate orders on connections of trades, and a steady trickle of transfers on connections of
//! rescues. All of a point is signed before it begins. First trades come at `probe_per_s`, and what final blocks then
//! carry is the capacity, measured with the generator on the same machine. Then come points at multiples of it.
//!
//! A rescue's latency runs from the moment at which the schedule wanted it sent to the answer that it is final. A sender that
//! is late is thus in the latency, and nothing has to be filled in for rescues that were not sent meanwhile: there are none. A
//! rescue that has no answer [`PATIENCE`] after the end counts as unanswered, and with that time. A point in which fewer
//! than 95 % of the trades, or of the rescues, were sent in time says nothing about its load, and is void.
//!
//! Everything shares the processors of one machine, so figures are those of a small machine under all of it.

use crate::chain::{PRICE, START, genesis, signed};
use anyhow::{Context as _, bail, ensure};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use commonware_codec::Encode as _;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use rand::SeedableRng as _;
use rand_chacha::ChaCha20Rng;
use seawall_chain::{mempool::action_digest, timeline::Timeline};
use seawall_node::{
    config_file::ValidatorConfig,
    front::{ANSWER_BYTES, Answer, DONE, FINAL_REFUSED, REFUSED, SHED, hello, send},
    genesis_file,
    keys::Keys,
    log, serve,
};
use seawall_types::{
    AccountId, Action, Atoms, Cloid, Digest, Kind, Lane, Lots, MarketId, PriceTicks, Side, Terms,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::HashMap,
    fmt,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Validators.
const VALIDATORS: u64 = 4;
/// Accounts that trade.
const TRADERS: u64 = 3_072;
/// Accounts that send rescues.
const RESCUERS: u64 = 1_024;
/// Last height of every action: beyond any run.
const EXPIRY: u64 = 90_000;
/// Ticks beyond the price that an order reaches, so that orders meet.
const REACH: u64 = 5;
/// Multiples of the capacity.
const MULTIPLES: [f64; 5] = [0.5, 1.0, 2.0, 5.0, 10.0];
/// Of its schedule, what a point has to send.
const LEAST_SENT: f64 = 0.95;
/// How long to wait for answers after the last rescue.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait for the first blocks.
const STARTING: Duration = Duration::from_secs(60);
/// Most seconds that pools get to empty between two points.
const DRAIN_S: u32 = 15;
/// A sender looks at its schedule this often.
const TICK: Duration = Duration::from_millis(4);
/// Largest latency that is told from a larger one.
const MAX_LATENCY_US: u64 = 600_000_000;
/// Most actions of a point: they are held in memory.
const MAX_ACTIONS: u64 = 4_000_000;
/// Rescues at ten times the capacity may take at most so many times as long as at half of it.
const TARGET: f64 = 2.0;

/// What is run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Trades a second while capacity is measured: more than it.
    pub probe_per_s: f64,
    /// Rescues a second in every point.
    pub rescue_per_s: f64,
    /// Seconds of each point.
    pub seconds: f64,
}

/// A point, as the generator is told. Actions are numbered through all points.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Load {
    trade_per_s: f64,
    rescue_per_s: f64,
    seconds: f64,
    first_trade: u64,
    first_rescue: u64,
}

impl Load {
    fn trades(&self) -> u64 {
        (self.trade_per_s * self.seconds) as u64
    }

    fn rescues(&self) -> u64 {
        (self.rescue_per_s * self.seconds) as u64
    }
}

/// What the generator saw.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Seen {
    trades_sent: u64,
    trades_shed: u64,
    rescues_sent: u64,
    rescues_refused: u64,
    rescues_shed: u64,
    rescues_unanswered: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

/// A measured point.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Of the capacity.
    pub multiple: f64,
    /// Trades a second by the schedule.
    pub trade_per_s: f64,
    /// Of the schedule of trades, what was sent in time.
    pub sent_share: f64,
    /// Whether less than 95 % of either lane was: then nothing else here means anything.
    pub void: bool,
    /// Trades a second that final blocks carried.
    pub carried_per_s: f64,
    /// Of the trades that were sent, those answered at once that there is no room.
    pub shed_share: f64,
    /// Rescues that were sent.
    pub rescues: u64,
    /// Rescues without an answer from the chain, shed ones included.
    pub unanswered: u64,
    /// Rescues that the chain answered with a refusal.
    pub refused: u64,
    /// From the time by the schedule to finality.
    pub rescue_p50_ms: f64,
    /// The same.
    pub rescue_p99_ms: f64,
    /// The same.
    pub rescue_p999_ms: f64,
    /// The same.
    pub rescue_max_ms: f64,
    /// Largest resident memory of any validator during the point.
    pub peak_mib: u64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was run.
    pub spec: Spec,
    /// Trades a second that final blocks carried while more came.
    pub capacity_per_s: f64,
    /// The points.
    pub points: Vec<Point>,
    /// p99 of rescues in the last point by that in the first; nothing if one of them is void.
    pub ratio: Option<f64>,
    /// Whether it is at most 2, with every rescue of both points answered.
    pub met: bool,
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Validator {
    process: Process,
    metrics: SocketAddr,
    submit: SocketAddr,
}

impl Validator {
    /// The value of a counter.
    fn counter(&self, name: &str) -> anyhow::Result<f64> {
        let text = serve::fetch(self.metrics).context("a validator does not answer")?;
        serve::value(&text, name).with_context(|| format!("no metric {name}"))
    }

    fn trades(&self) -> anyhow::Result<f64> {
        self.counter("lanes_carried_total{lane=\"trade\"}")
    }

    /// Makes the peak what is resident now.
    fn forget_peak(&self) {
        // Where the system does not allow it, peaks are those since the start.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.process.0.id()), "5");
    }

    fn peak_mib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.process.0.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: u64 = line.split_whitespace().next().context("a number follows")?.parse()?;
        Ok(kib / 1_024)
    }
}

/// Addresses that nobody has now.
fn addresses(count: u64) -> anyhow::Result<Vec<SocketAddr>> {
    let held =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<Vec<_>, _>>()?;
    Ok(held.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

fn validators(program: &Path, root: &Path) -> anyhow::Result<Vec<Validator>> {
    let (mut genesis, dealt) = genesis(VALIDATORS, TRADERS + RESCUERS, ChaCha20Rng::seed_from_u64(3))?;
    // Nobody observes prices here: those of genesis stay fresh for longer than a run.
    for market in &mut genesis.oracle.markets {
        market.stale_after_ms = 3_600_000;
        market.outage_after_ms = 3_600_000;
        market.quarantine_after_ms = 7_200_000;
    }
    let commitment = genesis_file::commitment(&genesis)?;
    genesis_file::write(root, &genesis, &commitment)?;
    let all = addresses(3 * VALIDATORS)?;
    let (listen, rest) = all.split_at(VALIDATORS as usize);
    let (metrics, submit) = rest.split_at(VALIDATORS as usize);
    let peers: Vec<_> = dealt
        .members
        .iter()
        .zip(listen)
        .map(|((identity, _), address)| (identity.public(), *address))
        .collect();
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let mut started = Vec::new();
    for (index, (identity, share)) in dealt.members.into_iter().enumerate() {
        Keys { identity, share }.write(&root.join(format!("keys-{index}.toml")))?;
        let config = ValidatorConfig {
            genesis: PathBuf::from(genesis_file::GENESIS_FILE),
            keys: PathBuf::from(format!("keys-{index}.toml")),
            data: PathBuf::from(format!("data-{index}")),
            listen: listen[index],
            block_interval: Duration::from_millis(100),
            metrics: Some(metrics[index]),
            submit: Some(submit[index]),
            timeline: Timeline { wall_origin_ms: now, chain_origin_ms: START.get(), speed: 1 },
            replay: None,
            log: log::quiet(),
            peers: peers.clone(),
        };
        let path = root.join(format!("validator-{index}.toml"));
        config.write(&path)?;
        let child = Command::new(program)
            .args(["validator", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        started.push(Validator { process: Process(child), metrics: metrics[index], submit: submit[index] });
    }
    let since = Instant::now();
    for validator in &mut started {
        while validator.counter("final_blocks_total").unwrap_or(0.0) < 3.0 {
            if let Some(status) = validator.process.0.try_wait()? {
                bail!("a validator ended ({status}) before its first block; run it by hand to see why");
            }
            ensure!(since.elapsed() < STARTING, "no blocks within {STARTING:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(started)
}

/// The generator, seen from the benchmark.
struct Generator {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    next_trade: u64,
    next_rescue: u64,
}

impl Generator {
    fn start(prefix: &[&str], validators: &[Validator]) -> anyhow::Result<Self> {
        let submit: Vec<SocketAddr> = validators.iter().map(|validator| validator.submit).collect();
        let mut child = Command::new(std::env::current_exe()?)
            .args(prefix)
            .args(["overload-generator", &serde_json::to_string(&submit)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the generator")?;
        let input = child.stdin.take().context("the generator's input is piped")?;
        let output = BufReader::new(child.stdout.take().context("the generator's output is piped")?);
        Ok(Self { _process: Process(child), input, output, next_trade: 0, next_rescue: 0 })
    }

    fn read<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line).context("the generator ended by itself")
    }

    /// Runs a load; `begun` is called when everything is signed.
    fn run(&mut self, mut load: Load, begun: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Seen> {
        ensure!(
            load.trades().saturating_add(load.rescues()) <= MAX_ACTIONS,
            "more than {MAX_ACTIONS} actions in a point; take fewer --seconds"
        );
        (load.first_trade, load.first_rescue) = (self.next_trade, self.next_rescue);
        self.next_trade += load.trades();
        self.next_rescue += load.rescues();
        writeln!(self.input, "{}", serde_json::to_string(&load)?)?;
        let signed: u64 = self.read()?;
        ensure!(signed == load.trades() + load.rescues(), "the generator signed {signed} actions");
        begun()?;
        writeln!(self.input, "go")?;
        self.read()
    }
}

/// Runs it. `program` is the one whose `validator` command is measured, and `prefix` leads to these benchmarks.
///
/// # Errors
/// If files cannot be written, or a validator or the generator does not do what it should.
pub fn run(spec: &Spec, program: &Path, prefix: &[&str], progress: &ProgressBar) -> anyhow::Result<Report> {
    ensure!(spec.seconds >= 2.0 && spec.seconds.is_finite(), "--seconds must be at least 2");
    ensure!(spec.probe_per_s >= 1.0 && spec.rescue_per_s >= 1.0, "rates must be at least 1 a second");
    let directory = tempfile::tempdir()?;
    progress.set_message("starting four validators");
    let validators = validators(program, directory.path())?;
    let mut generator = Generator::start(prefix, &validators)?;
    let load = |trade_per_s: f64| Load {
        trade_per_s,
        rescue_per_s: spec.rescue_per_s,
        seconds: spec.seconds,
        first_trade: 0,
        first_rescue: 0,
    };
    progress.set_message("signing, and measuring capacity");
    let probe = measure(&mut generator, &validators, load(spec.probe_per_s), 0.0)?;
    ensure!(!probe.void, "the generator was late while capacity was measured; take a smaller --probe-rate");
    ensure!(
        probe.carried_per_s < 0.9 * spec.probe_per_s && probe.shed_share > 0.0,
        "validators carried all of {} trades a second; take a larger --probe-rate",
        spec.probe_per_s
    );
    let capacity_per_s = probe.carried_per_s;
    let mut points = Vec::new();
    for multiple in MULTIPLES {
        progress.set_message("waiting for the pools to empty");
        drain(&validators)?;
        progress.set_message(format!("{multiple} x {capacity_per_s:.0} trades a second"));
        points.push(measure(&mut generator, &validators, load(multiple * capacity_per_s), multiple)?);
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let ratio = (!first.void && !last.void && first.rescue_p99_ms > 0.0)
        .then(|| last.rescue_p99_ms / first.rescue_p99_ms);
    let met = ratio.is_some_and(|ratio| ratio <= TARGET) && first.unanswered + last.unanswered == 0;
    Ok(Report { spec: *spec, capacity_per_s, points, ratio, met })
}

/// Waits until blocks carry next to no trades.
fn drain(validators: &[Validator]) -> anyhow::Result<()> {
    let mut last = validators[0].trades()?;
    for _ in 0..DRAIN_S {
        thread::sleep(Duration::from_secs(1));
        let now = validators[0].trades()?;
        if now - last < 1.0 {
            return Ok(());
        }
        last = now;
    }
    Ok(())
}

fn measure(
    generator: &mut Generator,
    validators: &[Validator],
    load: Load,
    multiple: f64,
) -> anyhow::Result<Point> {
    let first = &validators[0];
    // What is carried is counted from the end of the first third, when pools are full if they will be, to the end.
    let counter = first.metrics;
    let carried = thread::scope(|scope| -> anyhow::Result<(Seen, f64)> {
        let mut counted = None;
        let seen = generator.run(load, || {
            validators.iter().for_each(Validator::forget_peak);
            counted = Some(scope.spawn(move || -> anyhow::Result<f64> {
                let read = || -> anyhow::Result<(f64, Instant)> {
                    let text = serve::fetch(counter)?;
                    let value = serve::value(&text, "lanes_carried_total{lane=\"trade\"}");
                    Ok((value.context("no metric of carried trades")?, Instant::now()))
                };
                thread::sleep(Duration::from_secs_f64(load.seconds / 3.0));
                let (before, from) = read()?;
                thread::sleep(Duration::from_secs_f64(load.seconds * 2.0 / 3.0));
                let (after, to) = read()?;
                Ok((after - before) / to.duration_since(from).as_secs_f64())
            }));
            Ok(())
        })?;
        let counted = counted.context("the load began")?;
        let carried = counted.join().map_err(|_| anyhow::anyhow!("the thread that counts panicked"))??;
        Ok((seen, carried))
    });
    let (seen, carried_per_s) = carried?;
    let share = |sent: u64, of: u64| if of == 0 { 1.0 } else { sent as f64 / of as f64 };
    let (sent_share, rescue_share) =
        (share(seen.trades_sent, load.trades()), share(seen.rescues_sent, load.rescues()));
    let mut peak_mib = 0;
    for validator in validators {
        peak_mib = peak_mib.max(validator.peak_mib()?);
    }
    Ok(Point {
        multiple,
        trade_per_s: load.trade_per_s,
        sent_share,
        void: sent_share < LEAST_SENT || rescue_share < LEAST_SENT,
        carried_per_s,
        shed_share: share(seen.trades_shed, seen.trades_sent.max(1)),
        rescues: seen.rescues_sent,
        unanswered: seen.rescues_unanswered + seen.rescues_shed,
        refused: seen.rescues_refused,
        rescue_p50_ms: seen.p50_ms,
        rescue_p99_ms: seen.p99_ms,
        rescue_p999_ms: seen.p999_ms,
        rescue_max_ms: seen.max_ms,
        peak_mib,
    })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header([
            "load",
            "trades/s",
            "sent",
            "carried/s",
            "shed",
            "rescue p50",
            "p99",
            "p99.9",
            "max",
            "unanswered",
            "peak",
        ]);
        for point in &self.points {
            let ms = |value: f64| if point.void { "void".to_owned() } else { format!("{value:.0} ms") };
            table.add_row([
                format!("{} x", point.multiple),
                format!("{:.0}", point.trade_per_s),
                format!("{:.1} %", point.sent_share * 100.0),
                format!("{:.0}", point.carried_per_s),
                format!("{:.1} %", point.shed_share * 100.0),
                ms(point.rescue_p50_ms),
                ms(point.rescue_p99_ms),
                ms(point.rescue_p999_ms),
                ms(point.rescue_max_ms),
                format!("{} of {}", point.unanswered, point.rescues),
                format!("{} MiB", point.peak_mib),
            ]);
        }
        writeln!(f, "{table}")?;
        let verdict = match self.ratio {
            Some(ratio) if self.met => format!("{ratio:.2}, at most {TARGET}: met"),
            Some(ratio) => format!("{ratio:.2}, with the target at most {TARGET} and all answered: missed"),
            None => "void, because a point was".to_owned(),
        };
        write!(
            f,
            "capacity {:.0} trades a second; {} rescues a second beside them; p99 at 10 x by p99 at 0.5 x: {verdict}",
            self.capacity_per_s, self.spec.rescue_per_s
        )
    }
}

/// The generator: loads as lines of JSON on standard input, each followed by `go` when everything is signed.
///
/// # Errors
/// If a validator cannot be reached, or closes a connection.
pub fn generate(submit: &str) -> anyhow::Result<()> {
    let submit: Vec<SocketAddr> = serde_json::from_str(submit).context("addresses of validators")?;
    ensure!(!submit.is_empty(), "no addresses of validators");
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = lines.next() {
        let load: Load = serde_json::from_str(&line?)?;
        let corpus = Corpus::sign(&load);
        println!("{}", corpus.trades.len() + corpus.rescues.len());
        let go = lines.next().context("nobody says go")??;
        ensure!(go == "go", "\"{go}\" instead of go");
        let seen = corpus.send(&load, &submit)?;
        println!("{}", serde_json::to_string(&seen)?);
    }
    Ok(())
}

/// Everything that a load sends, signed and encoded.
struct Corpus {
    trades: Vec<Vec<u8>>,
    rescues: Vec<(Digest, Vec<u8>)>,
}

fn trade(number: u64) -> Vec<u8> {
    let (side, limit) = match number % 2 {
        0 => (Side::Buy, PRICE.get() + REACH),
        _ => (Side::Sell, PRICE.get() - REACH),
    };
    let terms = Terms {
        market: MarketId((number / 2 % 10) as u16),
        side,
        limit: PriceTicks(limit),
        lots: Lots(1 + (number % 50) as i64),
        kind: Kind::Ioc,
        reduce_only: false,
        good_til: None,
        cloid: Some(Cloid(number + 1)),
    };
    let account = AccountId(1 + number % TRADERS);
    signed(account, 1 + number / TRADERS, EXPIRY, Action::Place(terms)).encode().to_vec()
}

fn rescue(number: u64) -> (Digest, Vec<u8>) {
    let place = number % RESCUERS;
    let account = |place: u64| AccountId(1 + TRADERS + place);
    let action = Action::Transfer { to: account((place + 1) % RESCUERS), amount: Atoms(1) };
    let signed = signed(account(place), 1 + number / RESCUERS, EXPIRY, action);
    (action_digest(&signed), signed.encode().to_vec())
}

impl Corpus {
    fn sign(load: &Load) -> Self {
        let threads = thread::available_parallelism().map_or(1, |found| found.get() as u64);
        let count = load.trades();
        let trades = thread::scope(|scope| {
            let parts: Vec<_> = (0..threads)
                .map(|part| {
                    let range = count * part / threads..count * (part + 1) / threads;
                    let first = load.first_trade;
                    scope.spawn(move || range.map(|number| trade(first + number)).collect::<Vec<_>>())
                })
                .collect();
            parts.into_iter().flat_map(|part| part.join().expect("signing does not panic")).collect()
        });
        let rescues = (0..load.rescues()).map(|number| rescue(load.first_rescue + number)).collect();
        Self { trades, rescues }
    }

    #[allow(clippy::too_many_lines)]
    fn send(&self, load: &Load, submit: &[SocketAddr]) -> anyhow::Result<Seen> {
        let open = |lane: Lane| -> anyhow::Result<Vec<TcpStream>> {
            let open = |address: &SocketAddr| -> anyhow::Result<TcpStream> {
                let mut stream = TcpStream::connect(address).context("a validator takes no actions")?;
                stream.set_nodelay(true)?;
                stream.write_all(&[hello(lane)])?;
                Ok(stream)
            };
            submit.iter().map(open).collect()
        };
        let (trade_streams, rescue_streams) = (open(Lane::Trade)?, open(Lane::Rescue)?);
        let start = Instant::now() + Duration::from_millis(50);
        let end = start + Duration::from_secs_f64(load.seconds);
        let due = move |number: usize, per_s: f64| start + Duration::from_secs_f64(number as f64 / per_s);
        let waiting: Mutex<HashMap<Digest, Instant>> = Mutex::new(
            (0..).zip(&self.rescues).map(|(number, (id, _))| (*id, due(number, load.rescue_per_s))).collect(),
        );
        let latencies = Mutex::new(Histogram::<u64>::new_with_bounds(1, MAX_LATENCY_US, 3)?);
        let [trades_sent, trades_shed, rescues_sent, rescues_refused, rescues_shed] =
            [const { AtomicU64::new(0) }; 5];
        let locked = "a thread panicked while it held the latencies";
        let count = |counter: &AtomicU64| {
            counter.fetch_add(1, Ordering::Relaxed);
        };
        let record = |latency: Duration| {
            let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            latencies.lock().expect(locked).saturating_record(latency_us.max(1));
        };
        let hear_trade = |answer: Answer| {
            if matches!(answer.state, SHED | REFUSED) {
                count(&trades_shed);
            }
        };
        let hear_rescue = |answer: Answer| match (answer.told, answer.state) {
            (_, DONE | FINAL_REFUSED) => {
                if let Some(due) = waiting.lock().expect(locked).remove(&answer.id) {
                    record(Instant::now().saturating_duration_since(due));
                    if answer.state == FINAL_REFUSED {
                        count(&rescues_refused);
                    }
                }
            }
            (_, SHED | REFUSED) => count(&rescues_shed),
            _ => {}
        };
        thread::scope(|scope| -> anyhow::Result<()> {
            for stream in &trade_streams {
                let hear = &hear_trade;
                scope.spawn(move || read(stream, hear));
            }
            for stream in &rescue_streams {
                let hear = &hear_rescue;
                scope.spawn(move || read(stream, hear));
            }
            let lanes = trade_streams.len();
            let mut senders = Vec::new();
            for (lane, stream) in trade_streams.iter().enumerate() {
                let (trades, sent) = (&self.trades, &trades_sent);
                senders.push(scope.spawn(move || -> std::io::Result<()> {
                    let mut writer = BufWriter::with_capacity(1 << 16, stream);
                    let own = trades.iter().enumerate().skip(lane).step_by(lanes);
                    let mut unflushed = 0;
                    for (number, frame) in own {
                        let due = due(number, load.trade_per_s);
                        let mut now = Instant::now();
                        if due > now {
                            writer.flush()?;
                            sent.fetch_add(std::mem::take(&mut unflushed), Ordering::Relaxed);
                            // What becomes due within a tick is sent together at its end.
                            while due > now {
                                thread::sleep(TICK.max(due - now));
                                now = Instant::now();
                            }
                        }
                        if now > end + TICK {
                            break;
                        }
                        send(&mut writer, frame)?;
                        unflushed += 1;
                    }
                    writer.flush()?;
                    if Instant::now() <= end + 10 * TICK {
                        sent.fetch_add(unflushed, Ordering::Relaxed);
                    }
                    Ok(())
                }));
            }
            let (rescues, sent) = (&self.rescues, &rescues_sent);
            let streams = &rescue_streams;
            senders.push(scope.spawn(move || -> std::io::Result<()> {
                for (number, (_, frame)) in rescues.iter().enumerate() {
                    let now = Instant::now();
                    let due = due(number, load.rescue_per_s);
                    thread::sleep(due.saturating_duration_since(now));
                    let mut whole = Vec::with_capacity(4 + frame.len());
                    send(&mut whole, frame)?;
                    (&streams[number % streams.len()]).write_all(&whole)?;
                    if Instant::now() <= end + 10 * TICK {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(())
            }));
            let mut failed = None;
            for sender in senders {
                if let Err(error) = sender.join().expect("sending does not panic") {
                    failed = Some(error);
                }
            }
            let until = Instant::now() + PATIENCE;
            while failed.is_none() && Instant::now() < until && !waiting.lock().expect(locked).is_empty() {
                thread::sleep(Duration::from_millis(20));
            }
            for stream in trade_streams.iter().chain(&rescue_streams) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            failed.map_or(Ok(()), |error| Err(error).context("a validator closed a connection"))
        })?;
        let now = Instant::now();
        let left = waiting.into_inner().expect(locked);
        for due in left.values() {
            record(now.saturating_duration_since(*due));
        }
        let shed = rescues_shed.into_inner();
        let latencies = latencies.into_inner().expect(locked);
        let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Seen {
            trades_sent: trades_sent.into_inner(),
            trades_shed: trades_shed.into_inner(),
            rescues_sent: rescues_sent.into_inner(),
            rescues_refused: rescues_refused.into_inner(),
            rescues_shed: shed,
            rescues_unanswered: (left.len() as u64).saturating_sub(shed),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: latencies.max() as f64 / 1e3,
        })
    }
}

/// Reads answers until the connection ends.
fn read(stream: &TcpStream, hear: &impl Fn(Answer)) {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut bytes = [0; ANSWER_BYTES];
    while reader.read_exact(&mut bytes).is_ok() {
        hear(Answer::decode(&bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_action_of_a_run_is_sent_twice() {
        let load = |first: u64| Load {
            trade_per_s: 2_000.0,
            rescue_per_s: 1_500.0,
            seconds: 2.0,
            first_trade: first * 4_000,
            first_rescue: first * 3_000,
        };
        let mut seen = std::collections::BTreeSet::new();
        for first in 0..2 {
            let corpus = Corpus::sign(&load(first));
            assert_eq!((corpus.trades.len(), corpus.rescues.len()), (4_000, 3_000));
            for frame in corpus.trades.into_iter().chain(corpus.rescues.into_iter().map(|(_, frame)| frame)) {
                assert!(seen.insert(frame));
            }
        }
        assert_eq!(seen.len(), 14_000);
    }
}
