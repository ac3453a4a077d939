//! Carries actions to other validators, each lane on its own channel.
//!
//! A rescue goes to everybody at once, ahead of other traffic. Whoever hears of it first from somebody else sends it on
//! to members at distances 1, 2, 4, … in the committee's order, so that a broken or slow link between two members hides
//! nothing: there are `log2 n` ways around it of at most `log2 n` hops. Only then is it listed in observations. While it
//! waits, it is sent to everybody again, because a full queue on the way drops what it cannot hold.
//!
//! Trades travel many at a time, to the next leaders and to nobody else: everybody else would check what it will see in a
//! block anyway. Whoever they were submitted to sends them again to those who lead then, until they are answered.
//!
//! What arrives is checked like what users send: see [`ingress`](crate::ingress).

use crate::{
    block::PublicKey,
    committee::Committee,
    inclusion::RescueName,
    ingress::{Ingress, Origin, Passed},
    machine::Machine,
    mempool::Mempool,
    observer::Observatory,
};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, DecodeRangeExt as _, Encode as _, EncodeSize as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Handle, IoBuf, Metrics, Spawner};
use commonware_utils::channel::mpsc;
use seawall_types::{Lane, SignedAction, ValidatorId, limits::MAX_RESCUES_PER_OBSERVATION};
use std::{collections::BTreeSet, time::Duration};
use tracing::{debug, warn};

/// The oldest rescues that wait which are sent again at a time: as many as are listed.
pub const MAX_SENT_AGAIN: usize = MAX_RESCUES_PER_OBSERVATION;
/// The oldest trades that wait which are sent again at a time.
pub const MAX_TRADES_SENT_AGAIN: usize = 4_096;
/// Actions of a lane that wait to be sent on. One more waits for the next time that what waits is sent again.
pub const MAX_OUTGOING: usize = 16_384;
/// Most trades in a message. Of more, several are sent.
pub const MAX_TRADES_PER_MESSAGE: usize = 1_024;
/// Bytes of trades after which a message is sent.
const FULL_MESSAGE_BYTES: usize = 256 << 10;
/// How long a trade waits for others to travel with.
const GATHER: Duration = Duration::from_millis(5);
/// Leaders to come that trades are sent to.
const NEXT_LEADERS: u64 = 2;

/// Whom this validator relays to.
#[derive(Clone)]
pub struct Relay {
    /// The committee.
    pub committee: Committee,
    /// Own place in it.
    pub me: ValidatorId,
    /// After how long what still waits is sent again.
    pub again: Duration,
}

impl Relay {
    /// Who hears from this member what it heard from another.
    fn next(&self) -> Vec<PublicKey> {
        let (len, me) = (self.committee.len(), usize::from(self.me.get()));
        let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
        let places: BTreeSet<usize> =
            distances.take_while(|distance| *distance < len).map(|distance| (me + distance) % len).collect();
        let key = |place: usize| self.committee.public_key(ValidatorId(place as u16)).cloned();
        places.into_iter().filter_map(key).collect()
    }
}

/// Trades that gather for one message.
#[derive(Default)]
struct Gathering {
    actions: Vec<SignedAction>,
    bytes: usize,
}

impl Gathering {
    fn add(&mut self, action: SignedAction) {
        self.bytes += action.encode_size();
        self.actions.push(action);
    }

    fn is_full(&self) -> bool {
        self.actions.len() >= MAX_TRADES_PER_MESSAGE || self.bytes >= FULL_MESSAGE_BYTES
    }

    fn take(&mut self) -> Vec<SignedAction> {
        self.bytes = 0;
        std::mem::take(&mut self.actions)
    }
}

/// The actor.
pub struct Gossip<E> {
    context: E,
    relay: Relay,
    ingress: Ingress,
    machine: Machine,
    mempool: Mempool,
    observatory: Observatory,
    rescues: mpsc::Receiver<Passed>,
    trades: mpsc::Receiver<Passed>,
}

impl<E: Spawner + Clock + Metrics> Gossip<E> {
    /// Creates the actor, which relays what the receivers of both lanes bring.
    pub(crate) fn new(
        context: E,
        relay: Relay,
        ingress: Ingress,
        machine: Machine,
        mempool: Mempool,
        observatory: Observatory,
        [rescues, trades]: [mpsc::Receiver<Passed>; 2],
    ) -> Self {
        Self { context, relay, ingress, machine, mempool, observatory, rescues, trades }
    }

    /// Spawns the actor on its two channels.
    pub fn start(
        self,
        rescues: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
        trades: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) -> Handle<()> {
        let context = self.context.child("run");
        context.spawn(move |context| self.run(context, rescues, trades))
    }

    async fn run(
        mut self,
        context: E,
        (mut rescue_out, mut rescue_in): (
            impl Sender<PublicKey = PublicKey>,
            impl Receiver<PublicKey = PublicKey>,
        ),
        (mut trade_out, mut trade_in): (
            impl Sender<PublicKey = PublicKey>,
            impl Receiver<PublicKey = PublicKey>,
        ),
    ) {
        let next = self.relay.next();
        let alone = self.relay.committee.len() == 1;
        let mut again = context.current() + self.relay.again;
        // What waited when others were sent again: what waits a second time is sent.
        let mut waited: BTreeSet<RescueName> = BTreeSet::new();
        let mut waited_trades: BTreeSet<RescueName> = BTreeSet::new();
        let mut gathering = Gathering::default();
        let mut gathered = None;
        // What is first here is first served: rescues before trades.
        loop {
            let flush = gathered.unwrap_or_else(|| again + GATHER);
            select! {
                _ = context.sleep_until(again) => {
                    again = context.current() + self.relay.again;
                    self.ingress.forgive();
                    for action in self.waiting_again(&mut waited) {
                        // Behind votes: what waits this long has been sent before.
                        if !rescue_out.send(Recipients::All, IoBuf::from(action.encode()), false).is_empty() {
                            self.mempool.relayed(&(action.account, action.nonce));
                        }
                    }
                    let trades = self.mempool.own_trades(MAX_TRADES_SENT_AGAIN);
                    let names = trades.iter().map(|action| (action.account, action.nonce)).collect();
                    let before = std::mem::replace(&mut waited_trades, names);
                    let late = trades.into_iter().filter(|own| before.contains(&(own.account, own.nonce)));
                    for action in late {
                        gathering.add(action);
                        if gathering.is_full() {
                            self.send_trades(&mut trade_out, gathering.take());
                        }
                    }
                    self.send_trades(&mut trade_out, gathering.take());
                    gathered = None;
                },
                passed = self.rescues.recv() => {
                    let Some(Passed { action, origin }) = passed else { return };
                    let name = (action.account, action.nonce);
                    let (to, first) = match origin {
                        Origin::Connection(_) => (Recipients::All, true),
                        Origin::Peer(peer) => {
                            let from = self.relay.committee.public_key(peer);
                            (Recipients::Some(next.iter().filter(|own| Some(*own) != from).cloned().collect()), false)
                        }
                    };
                    let sent = rescue_out.send(to, IoBuf::from(action.encode()), first);
                    // Nobody has what reached nobody's queue: it is sent again before it is listed. What a peer sent it has.
                    if alone || !first || !sent.is_empty() {
                        self.mempool.relayed(&name);
                    }
                },
                message = rescue_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    self.hear(&from, Lane::Rescue, [SignedAction::decode(Bytes::from(bytes))].into_iter().collect());
                },
                _ = context.sleep_until(flush) => {
                    self.send_trades(&mut trade_out, gathering.take());
                    gathered = None;
                },
                passed = self.trades.recv() => {
                    let Some(Passed { action, origin }) = passed else { return };
                    // Whoever sent it here sent it to the other leaders, too.
                    if matches!(origin, Origin::Connection(_)) {
                        gathering.add(action);
                        gathered = gathered.or_else(|| Some(context.current() + GATHER));
                        if gathering.is_full() {
                            self.send_trades(&mut trade_out, gathering.take());
                            gathered = None;
                        }
                    }
                },
                message = trade_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    let actions = Vec::<SignedAction>::decode_range(Bytes::from(bytes), ..=MAX_TRADES_PER_MESSAGE);
                    self.hear(&from, Lane::Trade, actions);
                },
            }
        }
    }

    /// The rescues that wait for the second time when this is asked.
    fn waiting_again(
        &self,
        waited: &mut BTreeSet<RescueName>,
    ) -> impl Iterator<Item = SignedAction> + use<E> {
        let waiting = self.machine.read(|world| {
            let next = world.ledger.globals().height.next();
            let tokens = |account| world.ledger.rescue_tokens_at(account, next);
            self.mempool.waiting_rescues(MAX_SENT_AGAIN, tokens)
        });
        let waiting = waiting.unwrap_or_default();
        let names = waiting.iter().map(|action| (action.account, action.nonce)).collect();
        let before = std::mem::replace(waited, names);
        waiting.into_iter().filter(move |action| before.contains(&(action.account, action.nonce)))
    }

    /// Sends trades to the next leaders.
    fn send_trades(&self, sender: &mut impl Sender<PublicKey = PublicKey>, trades: Vec<SignedAction>) {
        if trades.is_empty() {
            return;
        }
        let (committee, view) = (&self.relay.committee, self.observatory.current());
        let leaders: BTreeSet<ValidatorId> =
            (1..=NEXT_LEADERS).map(|ahead| committee.leader(view + ahead)).collect();
        let others = leaders.into_iter().filter(|leader| *leader != self.relay.me);
        let to: Vec<PublicKey> = others.filter_map(|leader| committee.public_key(leader).cloned()).collect();
        if !to.is_empty() {
            let _ = sender.send(Recipients::Some(to), IoBuf::from(trades.encode()), false);
        }
    }

    /// Lets what a peer relays wait for its checks.
    fn hear(
        &self,
        from: &PublicKey,
        lane: Lane,
        actions: Result<Vec<SignedAction>, commonware_codec::Error>,
    ) {
        let Some(peer) = self.relay.committee.position(from) else {
            debug!(%from, "somebody outside the committee relays actions");
            return;
        };
        let actions = match actions {
            Ok(actions) => actions,
            Err(error) => {
                warn!(%from, %error, "peer sent actions that do not decode");
                return;
            }
        };
        for action in actions {
            if action.action.lane() != lane {
                warn!(%from, ?lane, "peer sent an action on the channel of another lane");
                return;
            }
            // What has no room is sent again, if it matters.
            let _ = self.ingress.offer(action, Origin::Peer(peer));
        }
    }
}
