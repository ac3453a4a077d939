//! The wire between simulated validators: what the network does to messages on the way, and what a Byzantine sender
//! does to its own.
//!
//! Time, bandwidth and order are those of commonware's simulated network. Faults act where a message arrives: lost,
//! late, twice, overtaken. So each one that fires is counted, and a link can be hurt and healed while messages are under
//! way. A message that meets several conditions meets them in the order of the scenario.

use crate::scenario::{FaultKind, Plan};
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::{Copying, DecodeExt as _};
use commonware_p2p::{CheckedSender, LimitedSender, Message, Recipients, simulated};
use commonware_runtime::{Clock as _, IoBufs, Spawner as _, Supervisor as _, deterministic};
use commonware_utils::channel::mpsc;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Normal};
use seawall_chain::{block::PublicKey, committee::Committee, crypto::sha256_digest, engine::Channel};
use seawall_types::{Digest, Observation, ValidatorId};
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use thiserror::Error;

/// Messages of one channel of one validator that are held back at most. More pass at once.
pub const MAX_HELD: usize = 65_536;

/// One half of a validator that runs twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    /// Talks to members at even places.
    First,
    /// Talks to members at odd places.
    Second,
}

impl Half {
    fn talks_to(self, place: usize) -> bool {
        place.is_multiple_of(2) == (self == Self::First)
    }
}

/// What happens to messages between some members for a time.
#[derive(Clone, Debug)]
struct Condition {
    /// Place among the scenario's faults; none for what the network always does.
    fault: Option<usize>,
    from_ms: u64,
    until_ms: u64,
    senders: BTreeSet<usize>,
    receivers: BTreeSet<usize>,
    both_ways: bool,
    effect: Effect,
}

#[derive(Clone, Copy, Debug)]
enum Effect {
    Lose(f64),
    Twice(f64),
    Overtaken(f64, Duration),
    Late(Normal<f64>),
    Hunt(f64, u64),
}

/// Told of every observation that a member sends: who, when, and what.
pub type Listener = Arc<dyn Fn(usize, SystemTime, &Observation) + Send + Sync>;

struct Shared {
    origin: SystemTime,
    seed: u64,
    committee: Committee,
    conditions: Vec<Condition>,
    fired: Vec<AtomicU64>,
    /// The last view that anybody saw final: whom an attacker hunts follows from it.
    view: AtomicU64,
    listener: Listener,
    /// By Byzantine member and channel, how many messages it did not send.
    muted: BTreeMap<(usize, u64), AtomicU64>,
    /// Blocks that the halves of members that run twice have sent.
    proposals: Mutex<BTreeMap<usize, [BTreeSet<Digest>; 2]>>,
}

/// Everything that the wire does in a run.
#[derive(Clone)]
pub struct Wire(Arc<Shared>);

impl Wire {
    /// The wire of a scenario whose time 0 is `origin`. `muted` are channels on which members send nothing.
    pub fn new(
        plan: &Plan,
        seed: u64,
        origin: SystemTime,
        committee: Committee,
        muted: impl IntoIterator<Item = (usize, Channel)>,
        listener: Listener,
    ) -> Self {
        let everybody: BTreeSet<usize> = (0..plan.validators()).collect();
        let always = |effect| Condition {
            fault: None,
            from_ms: 0,
            until_ms: u64::MAX,
            senders: everybody.clone(),
            receivers: everybody.clone(),
            both_ways: false,
            effect,
        };
        let network = &plan.network;
        let mut conditions = Vec::new();
        for (share, effect) in [
            (network.loss.0, Effect::Lose(network.loss.0)),
            (network.duplicate.0, Effect::Twice(network.duplicate.0)),
            (network.reorder.0, Effect::Overtaken(network.reorder.0, REORDERED_BY)),
        ] {
            if share > 0.0 {
                conditions.push(always(effect));
            }
        }
        for (index, fault) in plan.fault.iter().enumerate() {
            let share = fault.share.map_or(1.0, |share| share.0);
            let delay = Duration::from_millis(fault.delay_ms.unsigned_abs());
            let effect = match fault.kind {
                FaultKind::Partition => Effect::Lose(1.0),
                FaultKind::Loss => Effect::Lose(share),
                FaultKind::Duplicate => Effect::Twice(share),
                FaultKind::Reorder => Effect::Overtaken(share, delay),
                FaultKind::HuntLeader => Effect::Hunt(share, fault.leaders),
                FaultKind::Delay => {
                    let spread = fault.jitter_ms as f64;
                    Effect::Late(Normal::new(fault.delay_ms as f64, spread).expect("both have bounds"))
                }
                _ => continue,
            };
            let senders: BTreeSet<usize> = plan.who(&fault.who).into_iter().collect();
            let mut receivers: BTreeSet<usize> = plan.who(&fault.towards).into_iter().collect();
            if fault.kind == FaultKind::Partition && fault.towards == Default::default() {
                receivers.retain(|place| !senders.contains(place));
            }
            conditions.push(Condition {
                fault: Some(index),
                from_ms: fault.at_ms,
                until_ms: fault.until_ms.unwrap_or(u64::MAX),
                senders,
                receivers,
                both_ways: fault.kind == FaultKind::Partition,
                effect,
            });
        }
        let muted = muted.into_iter().map(|(place, channel)| ((place, channel as u64), AtomicU64::new(0)));
        Self(Arc::new(Shared {
            origin,
            seed,
            committee,
            conditions,
            fired: plan.fault.iter().map(|_| AtomicU64::new(0)).collect(),
            view: AtomicU64::new(0),
            listener,
            muted: muted.collect(),
            proposals: Mutex::default(),
        }))
    }

    /// How often each fault of the scenario did something here.
    pub fn fired(&self) -> Vec<u64> {
        self.0.fired.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// How many messages a member kept to itself on a channel.
    pub fn muted(&self, place: usize, channel: Channel) -> u64 {
        self.0.muted.get(&(place, channel as u64)).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many blocks one half of a member sent and the other did not.
    pub fn told_apart(&self, place: usize) -> u64 {
        let proposals = self.0.proposals.lock().expect("no thread panics with the proposals");
        proposals.get(&place).map_or(0, |[first, second]| first.symmetric_difference(second).count() as u64)
    }

    /// Notes that a view is final.
    pub fn finalized(&self, view: u64) {
        self.0.view.fetch_max(view, Ordering::Relaxed);
    }

    /// Milliseconds since the storm began.
    pub fn elapsed_ms(&self, at: SystemTime) -> u64 {
        let elapsed = at.duration_since(self.0.origin).unwrap_or_default();
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn place(&self, key: &PublicKey) -> Option<usize> {
        self.0.committee.position(key).map(|id| usize::from(id.get()))
    }

    fn fate(&self, from: usize, to: usize, now_ms: u64, rng: &mut ChaCha8Rng) -> Fate {
        let mut fate = Fate { copies: 1, late: Duration::ZERO, overtaken: false };
        for own in &self.0.conditions {
            let there = own.senders.contains(&from) && own.receivers.contains(&to);
            let back = own.both_ways && own.senders.contains(&to) && own.receivers.contains(&from);
            if now_ms < own.from_ms || now_ms >= own.until_ms || !(there || back) {
                continue;
            }
            let fired = match own.effect {
                Effect::Lose(share) if rng.random_bool(share) => {
                    fate.copies = 0;
                    true
                }
                Effect::Hunt(share, leaders) => {
                    let last = self.0.view.load(Ordering::Relaxed);
                    let hit = (last + 1..=last + leaders).any(|view| {
                        let leader = usize::from(self.0.committee.leader(view).get());
                        leader == from || leader == to
                    });
                    let lost = hit && rng.random_bool(share);
                    if lost {
                        fate.copies = 0;
                    }
                    lost
                }
                Effect::Twice(share) if rng.random_bool(share) => {
                    fate.copies = fate.copies.max(1) * 2;
                    true
                }
                Effect::Overtaken(share, by) if rng.random_bool(share) => {
                    fate.late += by;
                    fate.overtaken = true;
                    true
                }
                Effect::Late(law) => {
                    fate.late += Duration::from_secs_f64(law.sample(rng).max(0.0) / 1e3);
                    true
                }
                _ => false,
            };
            if let (true, Some(fault)) = (fired, own.fault) {
                self.0.fired[fault].fetch_add(1, Ordering::Relaxed);
            }
            if fate.copies == 0 {
                break;
            }
        }
        fate
    }

    /// Wraps one channel of a member. With two halves there are two ends, each of which hears everything.
    pub fn wrap(
        &self,
        context: deterministic::Context,
        member: ValidatorId,
        channel: Channel,
        (sender, receiver): Ends,
        halves: &[Option<Half>],
    ) -> Vec<(Outbox, Inbox)> {
        let place = usize::from(member.get());
        let capacity = commonware_p2p::Receiver::capacity(&receiver);
        let mut ends = Vec::new();
        let mut outlets = Vec::new();
        for half in halves {
            let (outlet, messages) = mpsc::unbounded_channel();
            outlets.push(outlet);
            let outbox = Outbox {
                inner: sender.clone(),
                wire: self.clone(),
                clock: Arc::new(context.child("clock")),
                place,
                channel,
                half: *half,
            };
            ends.push((outbox, Inbox { messages, capacity }));
        }
        let wire = self.clone();
        context.child("wire").spawn(move |context| async move {
            wire.carry(context, place, channel, receiver, outlets).await;
        });
        ends
    }

    async fn carry(
        self,
        context: deterministic::Context,
        to: usize,
        channel: Channel,
        mut receiver: simulated::Receiver<PublicKey>,
        outlets: Vec<mpsc::UnboundedSender<Message<PublicKey>>>,
    ) {
        let mut rng =
            ChaCha8Rng::seed_from_u64(self.0.seed ^ (to as u64) << 32 ^ (channel as u64) << 56 ^ 0x0057_1123);
        let mut held: BTreeMap<(SystemTime, u64), Message<PublicKey>> = BTreeMap::new();
        let mut last: BTreeMap<usize, SystemTime> = BTreeMap::new();
        let mut number = 0;
        let deliver = |message: &Message<PublicKey>| {
            for outlet in &outlets {
                // Whoever has stopped listening is down.
                let _ = outlet.send(message.clone());
            }
        };
        loop {
            let next = held.first_key_value().map(|((due, _), _)| *due);
            let due = async {
                match next {
                    Some(due) => context.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            commonware_macros::select! {
                message = commonware_p2p::Receiver::recv(&mut receiver) => {
                    let Ok(message) = message else { return };
                    let Some(from) = self.place(&message.0) else { continue };
                    let now = context.current();
                    let fate = self.fate(from, to, self.elapsed_ms(now), &mut rng);
                    if fate.copies == 0 {
                        continue;
                    }
                    let mut due = now + fate.late;
                    if !fate.overtaken {
                        due = due.max(last.get(&from).copied().unwrap_or(now));
                        last.insert(from, due);
                    }
                    for _ in 0..fate.copies {
                        if due > now && held.len() < MAX_HELD {
                            held.insert((due, number), message.clone());
                            number += 1;
                        } else {
                            deliver(&message);
                        }
                    }
                },
                _ = due => {
                    let now = context.current();
                    while let Some(first) = held.first_entry().filter(|first| first.key().0 <= now) {
                        deliver(&first.remove());
                    }
                },
            }
        }
    }
}

/// How far a message is put back that the network itself reorders.
const REORDERED_BY: Duration = Duration::from_millis(50);

struct Fate {
    copies: u32,
    late: Duration,
    overtaken: bool,
}

type Inner = simulated::Sender<PublicKey, deterministic::Context>;
/// The two ends of a channel as the simulated network gives them.
pub type Ends = (Inner, simulated::Receiver<PublicKey>);

/// Nothing comes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the simulated network is closed")]
pub struct Closed;

/// Where a validator hears from others.
#[derive(Debug)]
pub struct Inbox {
    messages: mpsc::UnboundedReceiver<Message<PublicKey>>,
    capacity: NonZeroUsize,
}

impl commonware_p2p::Receiver for Inbox {
    type Error = Closed;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, Closed> {
        self.messages.recv().await.ok_or(Closed)
    }

    fn capacity(&self) -> NonZeroUsize {
        self.capacity
    }
}

/// Where a validator speaks to others.
#[derive(Clone)]
pub struct Outbox {
    inner: Inner,
    wire: Wire,
    clock: Arc<deterministic::Context>,
    place: usize,
    channel: Channel,
    half: Option<Half>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbox({}, {:?})", self.place, self.channel)
    }
}

impl LimitedSender for Outbox {
    type PublicKey = PublicKey;
    type Checked<'a> = Checked<'a>;

    fn check(&mut self, recipients: Recipients<PublicKey>) -> Result<Checked<'_>, SystemTime> {
        let recipients = match self.half {
            None => recipients,
            Some(half) => {
                let named = match recipients {
                    Recipients::All => self.wire.0.committee.members().iter().cloned().collect(),
                    Recipients::Some(named) => named,
                    Recipients::One(one) => vec![one],
                };
                let own = |key: &PublicKey| self.wire.place(key).is_some_and(|place| half.talks_to(place));
                Recipients::Some(named.into_iter().filter(own).collect())
            }
        };
        let now = self.clock.current();
        let checked = self.inner.check(recipients)?;
        Ok(Checked {
            checked,
            wire: &self.wire,
            now,
            place: self.place,
            channel: self.channel,
            half: self.half,
        })
    }
}

/// A message that may leave.
pub struct Checked<'a> {
    checked: <Inner as LimitedSender>::Checked<'a>,
    wire: &'a Wire,
    now: SystemTime,
    place: usize,
    channel: Channel,
    half: Option<Half>,
}

impl CheckedSender for Checked<'_> {
    type PublicKey = PublicKey;

    fn recipients(&self) -> Vec<PublicKey> {
        self.checked.recipients()
    }

    fn send(self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let shared = &self.wire.0;
        if let Some(muted) = shared.muted.get(&(self.place, self.channel as u64)) {
            muted.fetch_add(1, Ordering::Relaxed);
            return Unreliable::new(Feedback::Ok);
        }
        let message = message.into().coalesce();
        match (self.channel, self.half) {
            (Channel::Observations, _) => {
                if let Ok(observation) = Observation::decode(Copying(message.as_ref())) {
                    (shared.listener)(self.place, self.now, &observation);
                }
            }
            (Channel::Blocks, Some(half)) => {
                let mut proposals = shared.proposals.lock().expect("no thread panics with the proposals");
                let own = proposals.entry(self.place).or_default();
                own[usize::from(half == Half::Second)].insert(sha256_digest(&[message.as_ref()]));
            }
            _ => {}
        }
        self.checked.send(message, priority)
    }
}
