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
//! against its digest and against the ledger. Its thread gives way to all others, so the system may stop it anywhere and for
//! long, and a lock that it held then would stop whoever wants it. So it takes none but that of its [`Desk`], which
//! everybody else only tries.
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
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
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

/// An outcome that a zone has computed.
struct Done {
    /// The era in which it was.
    era: u64,
    height: Height,
    parts: Vec<(u32, Computed)>,
    /// Books after it.
    books: BTreeMap<MarketId, Levels>,
}

/// What the task of a zone and the rest of the validator leave for each other, so that neither waits for the other.
#[derive(Default)]
struct Desk {
    /// Outcomes of which the validator does not know yet. Only the task waits for this lock. Where it holds it, others
    /// find nothing and come again.
    done: Mutex<Vec<Done>>,
    /// What the task computes counts for as long as this has not changed.
    era: AtomicU64,
    /// Parts that the validator knows and the chain has not settled.
    unsettled: AtomicUsize,
    /// Changed by operators, who may wait.
    fault: Mutex<ZoneFault>,
}

impl Desk {
    fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    fn fault(&self) -> MutexGuard<'_, ZoneFault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the zone may hold another auction, and with which fault. For the task.
    fn room(&self) -> Option<ZoneFault> {
        let left: usize = self.done().iter().map(|done| done.parts.len()).sum();
        let unsettled = self.unsettled.load(Ordering::Acquire) + left;
        (unsettled < MAX_UNSETTLED_PARTS).then(|| *self.fault())
    }

    /// Leaves an outcome for observations and leaders. For the task.
    fn publish(&self, zone: u8, engine: &Engine, outcome: Outcome, max_records: usize) {
        let (era, height) = (engine.era, outcome.height);
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
        let done = Done { era, height, parts, books: engine.books() };
        self.done().push(done);
    }
}

struct Seat {
    fixed: Fixed,
    /// Where its task listens, and its handle; nothing where it was killed.
    task: Option<(mpsc::Sender<Message>, Handle<()>)>,
    desk: Arc<Desk>,
    /// Whether it has to be told everything before it can go on.
    rebuild: bool,
    computed: BTreeMap<(Height, u32), Computed>,
    /// What the chain settled before this validator computed it.
    settled: BTreeMap<(Height, u32), Digest>,
    status: ZoneStatus,
}

impl Seat {
    fn new(fixed: Fixed) -> Self {
        Self {
            fixed,
            task: None,
            desk: Arc::default(),
            rebuild: true,
            computed: BTreeMap::new(),
            settled: BTreeMap::new(),
            status: ZoneStatus::default(),
        }
    }

    /// Forgets what was computed: it will be told everything with the next final block.
    fn restart(&mut self) {
        self.desk.era.fetch_add(1, Ordering::AcqRel);
        self.rebuild = true;
        self.computed.clear();
        self.settled.clear();
        self.count();
    }

    fn count(&self) {
        self.desk.unsettled.store(self.computed.len(), Ordering::Release);
    }

    /// Takes over what the task has left. What it is about to leave, or had in its hands when it panicked, is not there.
    fn collect(&mut self, zone: u8) {
        let done = match self.desk.done.try_lock() {
            Ok(mut done) if !done.is_empty() => std::mem::take(&mut *done),
            _ => return,
        };
        for own in done {
            self.take_computed(zone, own);
        }
        self.count();
    }

    /// Keeps an outcome for observations and leaders, if it is still wanted.
    fn take_computed(&mut self, zone: u8, done: Done) {
        let Done { era, height, parts, books } = done;
        if era != self.desk.era() {
            return;
        }
        let differs = parts.iter().find(|(part, own)| {
            self.settled.get(&(height, *part)).is_some_and(|settled| *settled != own.digest)
        });
        if let Some((part, own)) = differs {
            disagree(zone, height, *part, own.digest);
            self.status.disagreements += 1;
            self.restart();
            return;
        }
        self.status.computed = height;
        self.status.books = books;
        if height > self.status.ended {
            let open = parts.into_iter().filter(|(part, _)| !self.settled.contains_key(&(height, *part)));
            self.computed.extend(open.map(|(part, own)| ((height, part), own)));
        }
    }
}

type Spawn = dyn Fn(u8, Fixed, Arc<Desk>, mpsc::Receiver<Message>) -> Handle<()> + Send + Sync;

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
        let seats = fixed.into_iter().map(|(zone, fixed)| (zone, Seat::new(fixed))).collect();
        Self { inner: Arc::new(Mutex::new(Inner { seats, spawn: None })) }
    }

    /// No task of a zone ever does.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().expect("a thread panicked while it held the zones");
        for (zone, seat) in &mut inner.seats {
            seat.collect(*zone);
        }
        inner
    }

    /// Starts a task for each zone, on a thread of its own where the runtime has threads. `enter` runs on it first:
    /// there a process may lower its priority.
    pub fn start<E>(&self, context: E, enter: Arc<dyn Fn() + Send + Sync>)
    where
        E: Spawner + Clock + Metrics + Send + Sync,
    {
        let context = Arc::new(context);
        let spawn: Arc<Spawn> = Arc::new(move |zone, fixed, desk, mailbox| {
            let enter = enter.clone();
            context.child("zone").dedicated().spawn(move |context| async move {
                enter();
                run(context, zone, &fixed, &desk, mailbox).await;
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
        seat.task = Some((sender, spawn(zone, seat.fixed.clone(), seat.desk.clone(), mailbox)));
        true
    }

    /// Makes a zone of this validator slow or wrong, or well again.
    pub fn afflict(&self, zone: u8, fault: ZoneFault) {
        let desk = self.lock().seats.get(&zone).map(|seat| seat.desk.clone());
        // The zones are free again before this waits for the task of one.
        if let Some(desk) = desk {
            *desk.fault() = fault;
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
            let mut news = step.map(|step| news_of(step, inner.seats.keys().copied().collect()));
            for (zone, seat) in &mut inner.seats {
                match step {
                    Some(step) => seat.take_settled(*zone, block, step),
                    // A block that was executed before this start: whatever it said is in the state.
                    None => seat.restart(),
                }
                let Some((sender, _)) = &seat.task else { continue };
                if seat.rebuild {
                    rebuilds.push((*zone, seat.desk.era()));
                    continue;
                }
                let own = news.as_mut().and_then(|news| news.remove(zone)).unwrap_or_default();
                if sender.try_send(Message::Block(seat.desk.era(), Box::new(own))).is_err() {
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
            let Some((sender, _)) = seat.task.as_ref().filter(|_| seat.desk.era() == era) else { continue };
            // A full mailbox: it is tried again with the next block.
            if sender.try_send(Message::Rebuild(era, Box::new(snapshot))).is_ok() {
                seat.rebuild = false;
                seat.status.rebuilds += 1;
            }
        }
    }
}

/// The task of a zone.
async fn run<E: Clock>(
    context: E,
    zone: u8,
    fixed: &Fixed,
    desk: &Desk,
    mut mailbox: mpsc::Receiver<Message>,
) {
    let mut engine: Option<Engine> = None;
    while let Some(message) = mailbox.recv().await {
        match message {
            Message::Rebuild(era, snapshot) => {
                info!(zone, after = %snapshot.ended, orders = snapshot.orders.len(), "rebuilding the zone");
                engine = Engine::rebuild(zone, era, fixed, *snapshot);
            }
            Message::Block(era, news) => {
                // What was said in another era is of no use: everything follows.
                if let Some(engine) = engine.as_mut().filter(|engine| engine.era == era) {
                    engine.take(*news);
                }
            }
        }
        while let Some(fault) = desk.room()
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
            match (computed, &engine) {
                (Some(outcome), Some(own)) if own.era == desk.era() => {
                    desk.publish(zone, own, outcome, fixed.max_records);
                }
                // Nobody wants it any more, or there is none.
                _ => engine = None,
            }
            // Another zone, or whoever aborts this one, has its turn.
            commonware_runtime::reschedule().await;
        }
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
        self.count();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_stopped_at_its_desk_holds_up_nobody() {
        let params = Params { markets: BTreeMap::new(), max_orders_per_account: 1 };
        let fixed = Fixed { params, max_records: 64 };
        let seat = Seat::new(fixed.clone());
        let desk = seat.desk.clone();
        let inner = Inner { seats: BTreeMap::from([(7, seat)]), spawn: None };
        let zones = Zones { inner: Arc::new(Mutex::new(inner)) };
        let nothing =
            Snapshot { ended: Height(0), voided: Height(0), orders: Vec::new(), inboxes: Vec::new() };
        let engine = Engine::rebuild(7, desk.era(), &fixed, nothing).expect("it has no orders");
        let outcome = Outcome { height: Height(3), part: 0, last: true, markets: Vec::new() };
        desk.publish(7, &engine, outcome.clone(), fixed.max_records);

        let stopped = desk.done();
        assert_eq!(zones.attested(), []);
        assert_eq!(zones.status(7).expect("there is one").computed, Height(0));
        drop(stopped);
        let attested = zones.attested();
        assert_eq!(attested.len(), 1, "what it had left is there as soon as it goes on");
        assert_eq!((attested[0].zone, attested[0].height), (7, 3));
        assert_eq!(zones.status(7).expect("there is one").computed, Height(3));

        zones.kill(7);
        desk.publish(7, &engine, outcome, fixed.max_records);
        assert_eq!(zones.attested(), [], "what it computed before it was killed counts no more");
    }

    #[test]
    fn a_zone_has_no_room_beyond_what_others_have_not_taken_yet() {
        let params = Params { markets: BTreeMap::new(), max_orders_per_account: 1 };
        let fixed = Fixed { params, max_records: 64 };
        let desk = Desk::default();
        let nothing =
            Snapshot { ended: Height(0), voided: Height(0), orders: Vec::new(), inboxes: Vec::new() };
        let engine = Engine::rebuild(7, 0, &fixed, nothing).expect("it has no orders");
        for height in 1..=MAX_UNSETTLED_PARTS as u64 {
            assert_eq!(desk.room(), Some(ZoneFault::None));
            let outcome = Outcome { height: Height(height), part: 0, last: true, markets: Vec::new() };
            desk.publish(7, &engine, outcome, fixed.max_records);
        }
        assert_eq!(desk.room(), None);
    }
}
