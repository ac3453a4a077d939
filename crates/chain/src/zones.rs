//! Zones beside settlement: every validator runs each zone in a task of its own, off the critical path.
//!
//! ```text
//!   final block ──> Zones::finalized ──(bounded mailbox)──> task of a zone: the auction
//!                        │    ^                                  │
//!      own outcomes <────┘    └── settled, void ──────────────── parts and digests
//!        │        └──> observations: digests, listed until the chain has settled them
//!        └──> leader: content of what f + 1 observations attest
//! ```
//!
//! The task of a zone holds its open orders and nothing else that matters. It is fed from final blocks: the inbox of a
//! height, the salt that the next block brings, what was settled. Whatever goes wrong has one remedy: it is rebuilt from
//! the state of the next final block (open orders after the last height that ended, and the inboxes since). That serves a
//! start, a restart, a full mailbox, an inbox that the chain declared void, a zone far behind, and one that computed
//! something else than what `f + 1` validators attest.
//!
//! Nothing waits for a zone. A validator without one still builds, verifies and settles: what others attested is checked
//! against its digest and against the ledger.
//!
//! | queue | bound | beyond it |
//! | --- | --- | --- |
//! | final blocks that wait for a zone | [`MAILBOX`] | they are dropped, and the zone is rebuilt |
//! | outcomes that wait to be settled | [`MAX_UNSETTLED_PARTS`] a zone | the zone computes no further |
//! | digests in an observation | `MAX_OUTCOMES_PER_OBSERVATION`, in equal shares | the oldest heights of each zone are listed |

use crate::{
    block::{Block, outcome_digest},
    machine::{Step, World},
};
use commonware_runtime::{Clock, Handle, Metrics, Spawner};
use commonware_utils::channel::mpsc;
use seawall_ledger::{Ledger, Record, RecordKey};
use seawall_market::{Levels, MarketParams, Order, Params, Zone};
use seawall_types::{
    Digest, Height, Inbox, MarketId, Observation, Outcome, OutcomeRef, ZoneOutcome,
    limits::{MAX_ORDERS_PER_ACCOUNT, MAX_ORDERS_PER_MARKET, MAX_OUTCOMES_PER_OBSERVATION},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tracing::{debug, error, info, warn};

/// Final blocks that wait for a zone's task. One more, and the zone is rebuilt when it has time again.
pub const MAILBOX: usize = 64;
/// Parts of outcomes that a zone keeps until they are settled. It holds no auction beyond them.
pub const MAX_UNSETTLED_PARTS: usize = 1_024;
/// Heights that the chain may settle without this validator's zone before the zone is rebuilt instead of catching up.
const MAX_BEHIND: u64 = 8;
/// Price levels a side that are kept for display.
pub const DISPLAYED_LEVELS: usize = 10;

/// What is fixed about a zone.
#[derive(Clone, Debug)]
struct Fixed {
    params: Params,
    max_records: usize,
}

/// What a zone is rebuilt from.
#[derive(Clone, Debug)]
struct Snapshot {
    ended: Height,
    voided: Height,
    orders: Vec<Order>,
    /// Heights since then that wait for their outcome, with whether they have their salt.
    inboxes: Vec<(Inbox, bool)>,
}

/// What a final block says to a zone.
#[derive(Clone, Debug, Default)]
struct News {
    /// The inbox that it closed, without its salt.
    opened: Option<Inbox>,
    /// The salt that it brought for the height before.
    salted: Option<(Height, [u8; 32])>,
}

enum Message {
    Rebuild(u64, Box<Snapshot>),
    Block(u64, Box<News>),
}

/// A part of an outcome that this validator computed.
#[derive(Clone, Debug)]
struct Computed {
    digest: Digest,
    own: Arc<ZoneOutcome>,
}

/// What is done to a zone on purpose: to show, on devnets and in the lab, that nothing else minds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZoneFault {
    /// Nothing.
    #[default]
    None,
    /// Each auction takes so much longer, in simulated time.
    Delayed(Duration),
    /// Each auction is held so many times over, and burns the processor for it.
    Slowed(u32),
    /// Outcomes are not those that follow from the inboxes.
    Wrong,
}

/// How a zone of this validator is.
#[derive(Clone, Debug, Default)]
pub struct ZoneStatus {
    /// Whether its task runs.
    pub running: bool,
    /// The last height whose outcome it computed.
    pub computed: Height,
    /// The last height whose inbox the chain settled or voided.
    pub ended: Height,
    /// How often the chain settled something else than it computed.
    pub disagreements: u64,
    /// How often it was rebuilt from the state.
    pub rebuilds: u64,
    /// Books after the last auction, the best levels.
    pub books: BTreeMap<MarketId, Levels>,
}

struct Seat {
    fixed: Fixed,
    /// Where its task listens, and its handle; nothing where it was killed.
    task: Option<(mpsc::Sender<Message>, Handle<()>)>,
    /// What the task computes counts for as long as this has not changed.
    era: u64,
    /// Whether it has to be told everything before it can go on.
    rebuild: bool,
    computed: BTreeMap<(Height, u32), Computed>,
    /// What the chain settled before this validator computed it.
    settled: BTreeMap<(Height, u32), Digest>,
    fault: ZoneFault,
    status: ZoneStatus,
}

impl Seat {
    /// Forgets what was computed: it will be told everything with the next final block.
    fn restart(&mut self) {
        self.era += 1;
        self.rebuild = true;
        self.computed.clear();
        self.settled.clear();
    }
}

type Spawn = dyn Fn(u8, mpsc::Receiver<Message>) -> Handle<()> + Send + Sync;

#[derive(Default)]
struct Inner {
    seats: BTreeMap<u8, Seat>,
    spawn: Option<Arc<Spawn>>,
}

/// The zones of this validator: what the leader, the observer and the operator see of them.
#[derive(Clone, Default)]
pub struct Zones {
    inner: Arc<Mutex<Inner>>,
}

impl Zones {
    /// The zones that markets name. None runs yet.
    pub fn new(markets: &[seawall_ledger::MarketParams]) -> Self {
        let mut fixed: BTreeMap<u8, Fixed> = BTreeMap::new();
        for (id, market) in (0..).map(MarketId).zip(markets) {
            let orders = market.orders;
            let own = fixed.entry(orders.zone).or_insert_with(|| Fixed {
                params: Params { markets: BTreeMap::new(), max_orders_per_account: MAX_ORDERS_PER_ACCOUNT },
                max_records: orders.max_records as usize,
            });
            let params = MarketParams { min_lots: orders.min_lots, max_orders: MAX_ORDERS_PER_MARKET };
            own.params.markets.insert(id, params);
        }
        let seat = |(zone, fixed)| {
            let seat = Seat {
                fixed,
                task: None,
                era: 0,
                rebuild: true,
                computed: BTreeMap::new(),
                settled: BTreeMap::new(),
                fault: ZoneFault::None,
                status: ZoneStatus::default(),
            };
            (zone, seat)
        };
        let seats = fixed.into_iter().map(seat).collect();
        Self { inner: Arc::new(Mutex::new(Inner { seats, spawn: None })) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the zones")
    }

    /// Starts a task for each zone, on a thread of its own where the runtime has threads. `enter` runs on it first:
    /// there a process may lower its priority.
    pub fn start<E>(&self, context: E, enter: Arc<dyn Fn() + Send + Sync>)
    where
        E: Spawner + Clock + Metrics + Send + Sync,
    {
        // Not owned: it is kept where it points to.
        let zones = Arc::downgrade(&self.inner);
        let context = Arc::new(context);
        let spawn: Arc<Spawn> = Arc::new(move |zone, mailbox| {
            let (zones, enter) = (zones.clone(), enter.clone());
            context.child("zone").dedicated().spawn(move |context| async move {
                enter();
                if let Some(inner) = zones.upgrade() {
                    Self { inner }.run(context, zone, mailbox).await;
                }
            })
        });
        let names: Vec<u8> = {
            let mut inner = self.lock();
            inner.spawn = Some(spawn);
            inner.seats.keys().copied().collect()
        };
        for zone in names {
            self.revive(zone);
        }
    }

    /// The zones there are.
    pub fn names(&self) -> Vec<u8> {
        self.lock().seats.keys().copied().collect()
    }

    /// Kills the task of a zone, wherever it is. `false` if it does not run.
    pub fn kill(&self, zone: u8) -> bool {
        let mut inner = self.lock();
        let Some(seat) = inner.seats.get_mut(&zone) else { return false };
        seat.status.running = false;
        seat.restart();
        seat.task.take().is_some_and(|(_, handle)| {
            handle.abort();
            true
        })
    }

    /// Starts the task of a zone that was killed. `false` if it runs.
    pub fn revive(&self, zone: u8) -> bool {
        let mut inner = self.lock();
        let Some(spawn) = inner.spawn.clone() else { return false };
        let Some(seat) = inner.seats.get_mut(&zone).filter(|seat| seat.task.is_none()) else { return false };
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        seat.restart();
        seat.status.running = true;
        seat.task = Some((sender, spawn(zone, mailbox)));
        true
    }

    /// Makes a zone of this validator slow or wrong, or well again.
    pub fn afflict(&self, zone: u8, fault: ZoneFault) {
        if let Some(seat) = self.lock().seats.get_mut(&zone) {
            seat.fault = fault;
        }
    }

    /// How a zone is.
    pub fn status(&self, zone: u8) -> Option<ZoneStatus> {
        self.lock().seats.get(&zone).map(|seat| seat.status.clone())
    }

    /// What this validator attests: of each zone the oldest parts, as many as of any other, so that none that owes much
    /// keeps the others out.
    pub fn attested(&self) -> Vec<OutcomeRef> {
        let inner = self.lock();
        let share = (MAX_OUTCOMES_PER_OBSERVATION / inner.seats.len().max(1)).max(1);
        let mut listed: Vec<(Height, u32, u8, Digest)> = inner
            .seats
            .iter()
            .flat_map(|(zone, seat)| {
                let oldest = seat.computed.iter().take(share);
                oldest.map(|((height, part), own)| (*height, *part, *zone, own.digest))
            })
            .collect();
        listed.sort_unstable();
        listed.truncate(MAX_OUTCOMES_PER_OBSERVATION);
        listed
            .into_iter()
            .map(|(height, _, zone, digest)| OutcomeRef {
                zone: u16::from(zone),
                height: height.get(),
                digest,
            })
            .collect()
    }

    /// What a leader can settle of its own: the parts that enough of these observations attest, by ascending zone,
    /// height and part.
    pub fn settleable(&self, observations: &[Observation], enough: usize) -> Vec<ZoneOutcome> {
        let votes = votes(observations);
        let inner = self.lock();
        let parts = inner.seats.iter().flat_map(|(zone, seat)| {
            seat.computed.iter().map(|((height, _), own)| {
                let name = OutcomeRef { zone: u16::from(*zone), height: height.get(), digest: own.digest };
                (name, own)
            })
        });
        parts
            .filter(|(name, _)| votes.get(name).is_some_and(|votes| *votes >= enough))
            .map(|(_, own)| ZoneOutcome::clone(&own.own))
            .collect()
    }

    /// Tells the zones of a final block. `read` gives the state after it, for zones that have to be rebuilt. It is called
    /// outside every lock of this module.
    pub fn finalized(
        &self,
        block: &Block,
        step: Option<&Step>,
        read: impl Fn(&mut dyn FnMut(&World)) -> bool,
    ) {
        let mut rebuilds = Vec::new();
        {
            let mut inner = self.lock();
            let news = step.map(|step| news_of(step, inner.seats.keys().copied().collect()));
            for (zone, seat) in &mut inner.seats {
                match step {
                    Some(step) => seat.take_settled(*zone, block, step),
                    // A block that was executed before this start: whatever it said is in the state.
                    None => seat.restart(),
                }
                let Some((sender, _)) = &seat.task else { continue };
                if seat.rebuild {
                    rebuilds.push((*zone, seat.era));
                    continue;
                }
                let own = news.as_ref().and_then(|news| news.get(zone)).cloned().unwrap_or_default();
                if sender.try_send(Message::Block(seat.era, Box::new(own))).is_err() {
                    warn!(zone, "the zone is too far behind; it is rebuilt from the state when it has time");
                    seat.restart();
                }
            }
        }
        for (zone, era) in rebuilds {
            let mut snapshot = None;
            if !read(&mut |world| snapshot = Some(snapshot_of(&world.ledger, zone))) {
                continue;
            }
            let mut inner = self.lock();
            let (Some(snapshot), Some(seat)) = (snapshot, inner.seats.get_mut(&zone)) else { continue };
            let Some((sender, _)) = seat.task.as_ref().filter(|_| seat.era == era) else { continue };
            // A full mailbox: it is tried again with the next block.
            if sender.try_send(Message::Rebuild(era, Box::new(snapshot))).is_ok() {
                seat.rebuild = false;
                seat.status.rebuilds += 1;
            }
        }
    }

    /// The task of a zone.
    async fn run<E: Clock>(&self, context: E, zone: u8, mut mailbox: mpsc::Receiver<Message>) {
        let Some(fixed) = self.lock().seats.get(&zone).map(|seat| seat.fixed.clone()) else { return };
        let mut engine: Option<Engine> = None;
        while let Some(message) = mailbox.recv().await {
            match message {
                Message::Rebuild(era, snapshot) => {
                    info!(zone, after = %snapshot.ended, orders = snapshot.orders.len(), "rebuilding the zone");
                    engine = Engine::rebuild(zone, era, &fixed, *snapshot);
                }
                Message::Block(era, news) => {
                    // What was said in another era is of no use: everything follows.
                    if let Some(engine) = engine.as_mut().filter(|engine| engine.era == era) {
                        engine.take(*news);
                    }
                }
            }
            while let Some(fault) = self.room(zone)
                && let Some(inbox) = engine.as_mut().and_then(Engine::due)
            {
                let before = match (&engine, fault) {
                    (Some(engine), ZoneFault::Slowed(_)) => Some(engine.zone.clone()),
                    _ => None,
                };
                let computed = engine.as_mut().and_then(|engine| engine.compute(&inbox, fault));
                match fault {
                    ZoneFault::Delayed(delay) => context.sleep(delay).await,
                    ZoneFault::Slowed(times) => {
                        for _ in 1..times {
                            let again = before.clone().map(|mut zone| zone.apply(&inbox));
                            std::hint::black_box(again.is_some());
                        }
                    }
                    ZoneFault::None | ZoneFault::Wrong => {}
                }
                let kept = match (computed, &engine) {
                    (Some(outcome), Some(engine)) => self.publish(zone, engine, outcome, fixed.max_records),
                    _ => false,
                };
                if !kept {
                    engine = None;
                }
                // Another zone, or whoever aborts this one, has its turn.
                commonware_runtime::reschedule().await;
            }
        }
    }

    /// Whether the zone may hold another auction, and with which fault.
    fn room(&self, zone: u8) -> Option<ZoneFault> {
        let inner = self.lock();
        inner.seats.get(&zone).filter(|seat| seat.computed.len() < MAX_UNSETTLED_PARTS).map(|seat| seat.fault)
    }

    /// Keeps an outcome for observations and leaders. `false` if nobody wants it any more.
    fn publish(&self, zone: u8, engine: &Engine, outcome: Outcome, max_records: usize) -> bool {
        let height = outcome.height;
        // Hashed before the lock is taken.
        let parts: Vec<(u32, Computed)> = outcome
            .split(max_records)
            .into_iter()
            .map(|outcome| {
                let part = outcome.part;
                let own = ZoneOutcome { zone, voided: engine.voided, outcome };
                (part, Computed { digest: outcome_digest(&own), own: Arc::new(own) })
            })
            .collect();
        let books = engine.books();
        let mut inner = self.lock();
        let Some(seat) = inner.seats.get_mut(&zone).filter(|seat| seat.era == engine.era) else {
            return false;
        };
        let differs = parts.iter().find(|(part, own)| {
            seat.settled.get(&(height, *part)).is_some_and(|settled| *settled != own.digest)
        });
        if let Some((part, own)) = differs {
            disagree(zone, height, *part, own.digest);
            seat.status.disagreements += 1;
            seat.restart();
            return false;
        }
        seat.status.computed = height;
        seat.status.books = books;
        let settled = std::mem::take(&mut seat.settled);
        if height > seat.status.ended {
            let open = parts.into_iter().filter(|(part, _)| !settled.contains_key(&(height, *part)));
            seat.computed.extend(open.map(|(part, own)| ((height, part), own)));
        }
        seat.settled = settled;
        true
    }
}

fn disagree(zone: u8, height: Height, part: u32, own: Digest) {
    error!(
        zone, %height, part, own = %own,
        "the chain settled another outcome than this validator's zone computed: the zone is put away and rebuilt from the \
         state; if this comes again, suspect this machine or its build"
    );
}

impl Seat {
    /// Takes over what a final block settled and voided.
    fn take_settled(&mut self, zone: u8, block: &Block, step: &Step) {
        for own in block.body.outcomes.iter().filter(|own| own.zone == zone) {
            let place = (own.outcome.height, own.outcome.part);
            let digest = outcome_digest(own);
            match self.computed.remove(&place) {
                Some(computed) if computed.digest != digest => {
                    disagree(zone, place.0, place.1, computed.digest);
                    self.status.disagreements += 1;
                    self.restart();
                }
                Some(_) => {}
                // A zone that does not run, or will be rebuilt, has nothing to compare.
                None if self.task.is_none() || self.rebuild => {}
                None => {
                    self.settled.insert(place, digest);
                }
            }
        }
        for (key, _, after) in &step.delta.changes {
            if let (RecordKey::Zone(own), Some(Record::Zone(state))) = (key, after)
                && *own == zone
            {
                self.status.ended = state.ended;
            }
        }
        if step.voided.iter().any(|(own, _)| *own == zone) {
            warn!(zone, ended = %self.status.ended, "an inbox had no outcome in time and is void");
            self.restart();
        }
        let ended = self.status.ended;
        self.computed.retain(|(height, _), _| *height > ended);
        let computed = self.status.computed;
        self.settled.retain(|(height, _), _| *height > computed);
        let oldest = self.settled.keys().next().map_or(ended, |(height, _)| *height);
        if ended.get() > oldest.get() + MAX_BEHIND {
            debug!(zone, %ended, %computed, "the chain went on without this zone");
            self.restart();
        }
    }
}

/// How many observations attest each outcome.
pub fn votes(observations: &[Observation]) -> BTreeMap<OutcomeRef, usize> {
    let mut votes: BTreeMap<OutcomeRef, usize> = BTreeMap::new();
    for observation in observations {
        let listed: BTreeSet<OutcomeRef> = observation.outcomes.iter().copied().collect();
        for name in listed {
            *votes.entry(name).or_default() += 1;
        }
    }
    votes
}

/// What a block says to each zone.
fn news_of(step: &Step, zones: Vec<u8>) -> BTreeMap<u8, News> {
    let mut news: BTreeMap<u8, News> = zones.into_iter().map(|zone| (zone, News::default())).collect();
    for (key, before, after) in &step.delta.changes {
        match (key, before, after) {
            (RecordKey::Inbox(zone, height), None, Some(Record::Inbox(inbox))) => {
                let opened = Inbox {
                    height: *height,
                    salt: [0; 32],
                    references: inbox.references.clone(),
                    entries: BTreeMap::new(),
                };
                news.entry(*zone).or_default().opened = Some(opened);
            }
            (RecordKey::Inbox(zone, height), Some(Record::Inbox(before)), Some(Record::Inbox(after))) => {
                if let (None, Some(salt)) = (before.salt, after.salt) {
                    news.entry(*zone).or_default().salted = Some((*height, salt));
                }
            }
            _ => {}
        }
    }
    for (key, _, after) in &step.delta.changes {
        if let (RecordKey::Entry(id), Some(Record::Entry(own))) = (key, after)
            && let Some(opened) = news.get_mut(&own.zone).and_then(|news| news.opened.as_mut())
        {
            opened.entries.insert(id.index, own.entry);
        }
    }
    news
}

fn snapshot_of(ledger: &Ledger, zone: u8) -> Snapshot {
    let (ended, orders) = ledger.resting(zone);
    let inboxes = ledger
        .unsettled(zone)
        .filter_map(|height| Some((ledger.inbox(zone, height)?, ledger.is_salted(zone, height))))
        .collect();
    Snapshot { ended, voided: ledger.last_void(zone), orders, inboxes }
}

/// The outcomes that a zone owes, in parts, computed from the state alone: what somebody does who audits a chain. Heights
/// without the salt of their auctions are not among them.
pub fn owed(ledger: &Ledger, zone: u8) -> Vec<ZoneOutcome> {
    Solo::rebuild(ledger, zone).map(|mut zone| zone.outcomes()).unwrap_or_default()
}

/// A zone without a task, whose caller does what its task would.
pub struct Solo {
    name: u8,
    max_records: usize,
    engine: Engine,
}

impl Solo {
    /// The zone at the state of a ledger. `None` if there is no such zone.
    pub fn rebuild(ledger: &Ledger, zone: u8) -> Option<Self> {
        let markets: Vec<_> = ledger.markets().map(|(_, market)| market.params.clone()).collect();
        let fixed = Zones::new(&markets).lock().seats.get(&zone).map(|seat| seat.fixed.clone())?;
        let engine = Engine::rebuild(zone, 0, &fixed, snapshot_of(ledger, zone))?;
        Some(Self { name: zone, max_records: fixed.max_records, engine })
    }

    /// Takes what the next final block says to it. After a void it has to be rebuilt instead.
    pub fn finalized(&mut self, step: &Step) {
        if let Some(news) = news_of(step, vec![self.name]).remove(&self.name) {
            self.engine.take(news);
        }
    }

    /// Holds the auctions that are due.
    pub fn outcomes(&mut self) -> Vec<ZoneOutcome> {
        let mut outcomes = Vec::new();
        while let Some(inbox) = self.engine.due() {
            let Some(outcome) = self.engine.compute(&inbox, ZoneFault::None) else { break };
            let parts = outcome.split(self.max_records).into_iter();
            let own = |outcome| ZoneOutcome { zone: self.name, voided: self.engine.voided, outcome };
            outcomes.extend(parts.map(own));
        }
        outcomes
    }
}

/// The zone as its task holds it.
struct Engine {
    zone: Zone,
    /// The last height that was void when it was built. With the next one it is built again.
    voided: Height,
    era: u64,
    /// Inboxes that are not computed yet, with whether they have their salt.
    waiting: VecDeque<(Inbox, bool)>,
}

impl Engine {
    fn rebuild(name: u8, era: u64, fixed: &Fixed, snapshot: Snapshot) -> Option<Self> {
        let Snapshot { ended, voided, orders, inboxes } = snapshot;
        match Zone::from_orders(fixed.params.clone(), ended, orders) {
            Ok(zone) => Some(Self { zone, voided, era, waiting: inboxes.into() }),
            Err(error) => {
                error!(zone = name, %ended, %error, "the state holds orders that no zone can have: a bug; this zone stays down");
                None
            }
        }
    }

    fn take(&mut self, news: News) {
        if let Some((height, salt)) = news.salted
            && let Some((inbox, salted)) = self.waiting.iter_mut().find(|(inbox, _)| inbox.height == height)
        {
            inbox.salt = salt;
            *salted = true;
        }
        self.waiting.extend(news.opened.map(|inbox| (inbox, false)));
    }

    /// The next inbox whose auctions can be held.
    fn due(&mut self) -> Option<Inbox> {
        self.waiting.front().filter(|(_, salted)| *salted)?;
        self.waiting.pop_front().map(|(inbox, _)| inbox)
    }

    fn compute(&mut self, inbox: &Inbox, fault: ZoneFault) -> Option<Outcome> {
        match self.zone.apply(inbox) {
            Ok(mut outcome) => {
                if fault == ZoneFault::Wrong {
                    falsify(&mut outcome);
                }
                Some(outcome)
            }
            Err(error) => {
                error!(height = %inbox.height, %error, "settlement made an inbox that no zone takes: a bug; the zone stays down");
                None
            }
        }
    }

    fn books(&self) -> BTreeMap<MarketId, Levels> {
        let markets = self.zone.params().markets.keys();
        markets.filter_map(|market| Some((*market, self.zone.levels(*market, DISPLAYED_LEVELS)?))).collect()
    }
}

/// An outcome that is in its form and wrong: nothing happened.
fn falsify(outcome: &mut Outcome) {
    outcome.markets.clear();
}
