//! The observer: signs what this validator sees, sends it to the next two leaders, and keeps what others say.
//!
//! An observation is signed for view `v` when its author first votes in view `v - 1` or enters `v`,
//! whichever comes first, so it travels beside the votes and costs no extra hop. While the view does
//! not move it is signed afresh with a higher `seq` every [`Config::retry`].

use crate::{
    block::PublicKey,
    committee::Committee,
    crypto::{self, Identity},
    machine::Machine,
    mempool::Mempool,
    timeline::Timeline,
    zones::Zones,
};
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Handle, IoBuf, Metrics, Spawner};
use commonware_utils::channel::{mpsc, oneshot};
use seawall_types::{
    Domain, Health, MarketId, Observation, PriceReport, Signature, TimeMs, ValidatorId,
    limits::MAX_RESCUES_PER_OBSERVATION,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};
use tracing::{debug, warn};

/// Views ahead of the current one for which observations are kept. Later ones are dropped: their
/// author sends again when the view comes.
pub const MAX_VIEWS_AHEAD: u64 = 16;
/// Wake-ups that can wait for the observer. One more is dropped: the first tells it all there is.
const MAX_WAKEUPS: usize = 4;

/// Where a validator's prices come from.
pub trait PriceSource: Send + Sync + 'static {
    /// What this validator's own sources say at chain time `now`, by ascending market.
    fn report(&self, now: TimeMs) -> Vec<(MarketId, PriceReport)>;
}

/// What the observer needs to know.
#[derive(Clone)]
pub struct Config {
    /// Who signs, and for whom.
    pub committee: Committee,
    /// Own place in the committee.
    pub me: ValidatorId,
    /// Own key.
    pub identity: Identity,
    /// Chain time.
    pub timeline: Timeline,
    /// Whose outcomes are attested.
    pub zones: Zones,
    /// Whose rescues are listed.
    pub mempool: Mempool,
    /// What the signers of these have tokens for.
    pub machine: Machine,
    /// How long a view may stand still before its observation is signed again.
    pub retry: Duration,
}

#[derive(Default)]
struct Inner {
    /// Highest view entered or voted towards.
    current: u64,
    heard: BTreeMap<u64, BTreeMap<ValidatorId, Observation>>,
    waiters: Vec<oneshot::Sender<()>>,
}

/// What has been heard, shared with the proposer.
#[derive(Clone)]
pub struct Observatory {
    inner: Arc<Mutex<Inner>>,
    wake: mpsc::Sender<()>,
}

impl Observatory {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("a thread panicked while it held the observatory")
    }

    /// Tells the observer that `view` is next: it signs and sends, once.
    pub fn enter(&self, view: u64) {
        let mut inner = self.lock();
        if view <= inner.current {
            return;
        }
        inner.current = view;
        inner.heard = inner.heard.split_off(&view);
        drop(inner);
        // A full queue already wakes the observer, and it reads the view from here.
        let _ = self.wake.try_send(());
    }

    /// The highest view entered or voted towards.
    pub fn current(&self) -> u64 {
        self.lock().current
    }

    /// Keeps an observation whose signature has been checked.
    fn insert(&self, observation: Observation) {
        let mut inner = self.lock();
        let view = observation.view;
        if view < inner.current || view > inner.current + MAX_VIEWS_AHEAD {
            return;
        }
        let slot = inner.heard.entry(view).or_default();
        match slot.get(&observation.author) {
            Some(known) if known.seq >= observation.seq => return,
            _ => slot.insert(observation.author, observation),
        };
        for waiter in inner.waiters.drain(..) {
            let _ = waiter.send(());
        }
    }

    /// Everything heard for `view`, by ascending author.
    pub fn heard(&self, view: u64) -> Vec<Observation> {
        self.lock().heard.get(&view).map(|slot| slot.values().cloned().collect()).unwrap_or_default()
    }

    /// Resolves when something further is heard.
    pub fn changed(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut inner = self.lock();
        inner.waiters.retain(|waiter| !waiter.is_closed());
        inner.waiters.push(sender);
        receiver
    }
}

/// The actor.
pub struct Observer<E> {
    context: E,
    config: Config,
    source: Arc<dyn PriceSource>,
    observatory: Observatory,
    wake: mpsc::Receiver<()>,
    seq: u64,
}

impl<E: Spawner + Clock + Metrics> Observer<E> {
    /// Creates the actor and the memory it fills.
    pub fn new(context: E, config: Config, source: Arc<dyn PriceSource>) -> (Self, Observatory) {
        let (sender, wake) = mpsc::channel(MAX_WAKEUPS);
        let observatory = Observatory { inner: Arc::default(), wake: sender };
        (Self { context, config, source, observatory: observatory.clone(), wake, seq: 0 }, observatory)
    }

    /// Spawns the actor on its channel.
    pub fn start(
        self,
        network: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) -> Handle<()> {
        let context = self.context.child("run");
        context.spawn(move |context| self.run(context, network))
    }

    async fn run(
        mut self,
        context: E,
        (mut sender, mut receiver): (
            impl Sender<PublicKey = PublicKey>,
            impl Receiver<PublicKey = PublicKey>,
        ),
    ) {
        // A deadline, and not a pause after the last message: whoever sends often could put it off for ever.
        let mut again = context.current() + self.config.retry;
        loop {
            select! {
                _ = context.sleep_until(again) => {
                    self.speak(&context, &mut sender);
                    again = context.current() + self.config.retry;
                },
                message = receiver.recv() => {
                    let Ok((from, bytes)) = message else {
                        debug!("observation channel closed");
                        return;
                    };
                    self.hear(&from, bytes.as_ref());
                },
                wake = self.wake.recv() => {
                    if wake.is_none() {
                        return;
                    }
                    self.speak(&context, &mut sender);
                    again = context.current() + self.config.retry;
                },
            }
        }
    }

    /// Signs the current view's observation and sends it to that view's leader and the one after it.
    fn speak(&mut self, context: &E, sender: &mut impl Sender<PublicKey = PublicKey>) {
        let view = self.observatory.lock().current;
        if view == 0 {
            return;
        }
        let wall = context.current();
        let micros = wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        // Wall time keeps `seq` growing across restarts without a file of its own.
        self.seq = u64::try_from(micros).unwrap_or(u64::MAX).max(self.seq + 1);
        let time = self.config.timeline.at(wall);
        let listed = self.config.machine.read(|world| {
            let ledger = &world.ledger;
            let next = ledger.globals().height.next();
            let tokens = |account| ledger.rescue_tokens_at(account, next);
            self.config.mempool.listed(MAX_RESCUES_PER_OBSERVATION, tokens)
        });
        let mut observation = Observation {
            chain: self.config.committee.chain(),
            epoch: 0,
            view,
            seq: self.seq,
            time,
            prices: self.source.report(time),
            // Nothing waits before there is a state.
            rescues: listed.unwrap_or_default(),
            outcomes: self.config.zones.attested(),
            health: Health::default(),
            author: self.config.me,
            signature: Signature::default(),
        };
        observation.signature =
            self.config.identity.sign(Domain::Observation, observation.chain, &observation.message());
        let (committee, me) = (&self.config.committee, self.config.me);
        // The leader after this one cannot use it in a block, but learns what it will have to carry.
        let leaders = BTreeSet::from([committee.leader(view), committee.leader(view + 1)]);
        let others = leaders.iter().filter(|leader| **leader != me);
        let peers: Vec<PublicKey> =
            others.filter_map(|leader| committee.public_key(*leader).cloned()).collect();
        if !peers.is_empty() {
            let _ = sender.send(Recipients::Some(peers), IoBuf::from(observation.encode()), true);
        }
        if leaders.contains(&me) {
            self.observatory.insert(observation);
        }
    }

    /// Keeps what a peer says, if it speaks for itself and signed it.
    fn hear(&self, from: &PublicKey, bytes: &[u8]) {
        let observation = match Observation::decode(Copying(bytes)) {
            Ok(observation) => observation,
            Err(error) => {
                warn!(%from, %error, "peer sent an observation that does not decode");
                return;
            }
        };
        let key = crypto::key_of(from);
        let committee = &self.config.committee;
        if observation.chain != committee.chain()
            || observation.epoch != 0
            || committee.key(observation.author) != Some(&key)
        {
            warn!(%from, author = %observation.author, "peer sent an observation that is not its own");
            return;
        }
        if !crypto::verify(
            &key,
            Domain::Observation,
            observation.chain,
            &observation.message(),
            &observation.signature,
        ) {
            warn!(%from, "peer sent an observation with a bad signature");
            return;
        }
        self.config.mempool.want(observation.author, &observation.rescues);
        self.observatory.insert(observation);
    }
}
