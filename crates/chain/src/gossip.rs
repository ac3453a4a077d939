//! Carries submitted actions to every validator, each lane on its own channel.
//!
//! A rescue goes to everybody at once, ahead of other traffic. Whoever hears of it first from somebody else sends it on
//! to members at distances 1, 2, 4, … in the committee's order, so that a broken or slow link between two members hides
//! nothing: there are `log2 n` ways around it of at most `log2 n` hops. Only then is it listed in observations. While it
//! waits, it is sent to everybody again, because a full queue on the way drops what it cannot hold.

use crate::{
    block::PublicKey,
    committee::Committee,
    inclusion::RescueName,
    machine::Machine,
    mempool::{Mempool, SubmitError, check_signatures},
};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Handle, IoBuf, Metrics, Spawner};
use commonware_utils::channel::mpsc;
use seawall_ledger::Ledger;
use seawall_types::{
    AccountId, Action, ChainId, Lane, Refusal, SignedAction, ValidatorId, limits::MAX_RESCUES_PER_OBSERVATION,
};
use std::{collections::BTreeSet, time::Duration};
use tracing::{debug, warn};

/// The oldest rescues that wait which are sent again at a time: as many as are listed.
pub const MAX_SENT_AGAIN: usize = MAX_RESCUES_PER_OBSERVATION;

/// Local submissions that wait to be sent. One more is pooled here but not relayed.
pub const MAX_OUTGOING: usize = 16_384;

/// Where users and tools submit to this validator.
#[derive(Clone)]
pub struct Submitter {
    chain: ChainId,
    machine: Machine,
    mempool: Mempool,
    /// A queue a lane.
    rescues: mpsc::Sender<SignedAction>,
    trades: mpsc::Sender<SignedAction>,
}

impl Submitter {
    /// Checks an action against the newest state, pools it and relays it.
    pub fn submit(&self, action: SignedAction) -> Result<(), SubmitError> {
        self.pool(action.clone(), false)?;
        let queue = match action.action.lane() {
            Lane::Rescue => &self.rescues,
            Lane::Trade => &self.trades,
        };
        if queue.try_send(action).is_err() {
            debug!("relay queue is full; the action waits for this validator's own turn to lead");
        }
        Ok(())
    }

    fn pool(&self, action: SignedAction, relayed: bool) -> Result<(), SubmitError> {
        // What is sent again is not checked again.
        if self.mempool.holds(&action) {
            return Err(SubmitError::Duplicate);
        }
        let rescue = action.action.lane() == Lane::Rescue;
        let is_open = |ledger: &Ledger, action: &SignedAction| {
            let next = ledger.globals().height.next();
            ledger.check_envelope_at(next, action.account, action.nonce, action.expiry)
        };
        let maker = match &action.action {
            Action::Fill { quote, .. } => Some(quote.maker),
            _ => None,
        };
        // Cheap refusals first: the signature is by far the dearest check.
        let owners = self
            .machine
            .read(|world| {
                let ledger = &world.ledger;
                is_open(ledger, &action)?;
                // What a peer relays it may list, and then its answer is the chain's to give: see the mempool.
                if !(relayed && rescue) {
                    ledger.check(action.account, action.nonce, action.expiry, &action.action)?;
                }
                let own = |account: AccountId| ledger.owner(account).copied();
                Ok::<_, Refusal>(
                    [Some(action.account), maker].map(|id| id.and_then(|id| Some((id, own(id)?)))),
                )
            })
            .ok_or(SubmitError::Starting)??;
        let owner =
            |account: AccountId| owners.iter().flatten().find(|(id, _)| *id == account).map(|(_, key)| *key);
        // Outside the machine's lock: blocks are built and checked under it.
        let signers = check_signatures(self.chain, &action, owner)?;
        self.machine
            .read(|world| {
                // Another fork may be under it by now, where the account is another's.
                if world.ledger.owner(action.account) != Some(&signers.account) {
                    return Err(Refusal::UnknownAccount.into());
                }
                self.mempool.insert(action, signers, |held| is_open(&world.ledger, held).is_err())
            })
            .ok_or(SubmitError::Starting)?
    }
}

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

/// The actor.
pub struct Gossip<E> {
    context: E,
    relay: Relay,
    submitter: Submitter,
    rescues: mpsc::Receiver<SignedAction>,
    trades: mpsc::Receiver<SignedAction>,
}

impl<E: Spawner + Clock + Metrics> Gossip<E> {
    /// Creates the actor and the handle that feeds it.
    pub fn new(context: E, relay: Relay, machine: Machine, mempool: Mempool) -> (Self, Submitter) {
        let (to_rescues, rescues) = mpsc::channel(MAX_OUTGOING);
        let (to_trades, trades) = mpsc::channel(MAX_OUTGOING);
        let chain = relay.committee.chain();
        let submitter = Submitter { chain, machine, mempool, rescues: to_rescues, trades: to_trades };
        (Self { context, relay, submitter: submitter.clone(), rescues, trades }, submitter)
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
        // Rescues that waited when others were sent again: what waits a second time is sent.
        let mut waited: BTreeSet<RescueName> = BTreeSet::new();
        // What is first here is first served: rescues before trades.
        loop {
            select! {
                _ = context.sleep_until(again) => {
                    again = context.current() + self.relay.again;
                    let waiting = self.submitter.mempool.waiting_rescues(MAX_SENT_AGAIN);
                    let names = waiting.iter().map(|action| (action.account, action.nonce)).collect();
                    let before = std::mem::replace(&mut waited, names);
                    for action in waiting {
                        let name = (action.account, action.nonce);
                        // Behind votes: what waits this long has been sent before.
                        if before.contains(&name)
                            && !rescue_out.send(Recipients::All, IoBuf::from(action.encode()), false).is_empty()
                        {
                            self.submitter.mempool.relayed(&name);
                        }
                    }
                },
                action = self.rescues.recv() => {
                    let Some(action) = action else { return };
                    let sent = rescue_out.send(Recipients::All, IoBuf::from(action.encode()), true);
                    // Nobody has what reached nobody's queue: it is sent again before it is listed.
                    if alone || !sent.is_empty() {
                        self.submitter.mempool.relayed(&(action.account, action.nonce));
                    }
                },
                message = rescue_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    if let Some(action) = self.hear(&from, Lane::Rescue, bytes.into()) {
                        let to = next.iter().filter(|peer| **peer != from).cloned().collect();
                        let _ = rescue_out.send(Recipients::Some(to), IoBuf::from(action.encode()), false);
                        self.submitter.mempool.relayed(&(action.account, action.nonce));
                    }
                },
                action = self.trades.recv() => {
                    let Some(action) = action else { return };
                    let _ = trade_out.send(Recipients::All, IoBuf::from(action.encode()), false);
                },
                message = trade_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    self.hear(&from, Lane::Trade, bytes.into());
                },
            }
        }
    }

    /// Pools what a peer relays, and returns it if it is new.
    fn hear(&self, from: &PublicKey, lane: Lane, bytes: Bytes) -> Option<SignedAction> {
        match SignedAction::decode(bytes) {
            Ok(action) if action.action.lane() == lane => match self.submitter.pool(action.clone(), true) {
                Ok(()) => Some(action),
                Err(SubmitError::Duplicate) => None,
                Err(error) => {
                    debug!(%from, %error, "did not pool a relayed action");
                    None
                }
            },
            Ok(_) => {
                warn!(%from, ?lane, "peer sent an action on the channel of another lane");
                None
            }
            Err(error) => {
                warn!(%from, %error, "peer sent an action that does not decode");
                None
            }
        }
    }
}
