//! Carries submitted actions to every validator, each lane on its own channel.

use crate::{
    block::PublicKey,
    machine::Machine,
    mempool::{Mempool, SubmitError, check_signatures},
};
use bytes::Bytes;
use commonware_codec::{DecodeExt as _, Encode as _};
use commonware_macros::select;
use commonware_p2p::{Receiver, Recipients, Sender};
use commonware_runtime::{Clock, Handle, IoBuf, Metrics, Spawner};
use commonware_utils::channel::mpsc;
use seawall_types::{ChainId, Lane, SignedAction};
use tracing::{debug, warn};

/// Local submissions that wait to be sent. One more is pooled here but not relayed.
pub const MAX_OUTGOING: usize = 16_384;

/// Where users and tools submit to this validator.
#[derive(Clone)]
pub struct Submitter {
    chain: ChainId,
    machine: Machine,
    mempool: Mempool,
    outgoing: mpsc::Sender<SignedAction>,
}

impl Submitter {
    /// Checks an action against the newest state, pools it and relays it.
    pub fn submit(&self, action: SignedAction) -> Result<(), SubmitError> {
        self.pool(action.clone())?;
        if self.outgoing.try_send(action).is_err() {
            debug!("relay queue is full; the action waits for this validator's own turn to lead");
        }
        Ok(())
    }

    fn pool(&self, action: SignedAction) -> Result<(), SubmitError> {
        let signers = self
            .machine
            .read(|world| {
                // Cheap refusals first: the signature is by far the dearest check.
                world.ledger.check(action.account, action.nonce, action.expiry, &action.action)?;
                check_signatures(self.chain, &action, |account| world.ledger.owner(account).copied())
            })
            .ok_or(SubmitError::Starting)??;
        self.mempool.insert(action, signers)
    }
}

/// The actor.
pub struct Gossip<E> {
    context: E,
    submitter: Submitter,
    outgoing: mpsc::Receiver<SignedAction>,
}

impl<E: Spawner + Clock + Metrics> Gossip<E> {
    /// Creates the actor and the handle that feeds it.
    pub fn new(context: E, chain: ChainId, machine: Machine, mempool: Mempool) -> (Self, Submitter) {
        let (sender, outgoing) = mpsc::channel(MAX_OUTGOING);
        let submitter = Submitter { chain, machine, mempool, outgoing: sender };
        (Self { context, submitter: submitter.clone(), outgoing }, submitter)
    }

    /// Spawns the actor on its two channels.
    pub fn start(
        self,
        rescues: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
        trades: (impl Sender<PublicKey = PublicKey>, impl Receiver<PublicKey = PublicKey>),
    ) -> Handle<()> {
        let context = self.context.child("run");
        context.spawn(move |_| self.run(rescues, trades))
    }

    async fn run(
        mut self,
        (mut rescue_out, mut rescue_in): (
            impl Sender<PublicKey = PublicKey>,
            impl Receiver<PublicKey = PublicKey>,
        ),
        (mut trade_out, mut trade_in): (
            impl Sender<PublicKey = PublicKey>,
            impl Receiver<PublicKey = PublicKey>,
        ),
    ) {
        loop {
            select! {
                action = self.outgoing.recv() => {
                    let Some(action) = action else { return };
                    let bytes = IoBuf::from(action.encode());
                    match action.action.lane() {
                        Lane::Rescue => {
                            let _ = rescue_out.send(Recipients::All, bytes, true);
                        }
                        Lane::Trade => {
                            let _ = trade_out.send(Recipients::All, bytes, false);
                        }
                    }
                },
                message = rescue_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    self.hear(&from, Lane::Rescue, bytes.into());
                },
                message = trade_in.recv() => {
                    let Ok((from, bytes)) = message else { return };
                    self.hear(&from, Lane::Trade, bytes.into());
                },
            }
        }
    }

    fn hear(&self, from: &PublicKey, lane: Lane, bytes: Bytes) {
        match SignedAction::decode(bytes) {
            Ok(action) if action.action.lane() == lane => {
                if let Err(error) = self.submitter.pool(action) {
                    debug!(%from, %error, "did not pool a relayed action");
                }
            }
            Ok(_) => warn!(%from, ?lane, "peer sent an action on the channel of another lane"),
            Err(error) => warn!(%from, %error, "peer sent an action that does not decode"),
        }
    }
}
