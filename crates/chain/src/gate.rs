//! The gate before the notarize vote: the only place where a clock may hold a vote back.
//!
//! Validity is a pure function of a block, its context and the parent's state. Whether a block comes
//! *now* is not: a validator whose clock disagrees waits here, before it votes to notarize, and never
//! in certification, where a wait could deadlock a view.

use crate::{
    block::{Block, Context, PublicKey},
    committee::Scheme,
    observer::Observatory,
    proofs::ParentProofs,
    timeline::Timeline,
};
use commonware_actor::Feedback;
use commonware_consensus::{
    Automaton, CertifiableAutomaton, Handoff, Relay, Reporter, Viewable as _,
    marshal::{
        core::{DigestFallback, Mailbox},
        standard::Standard,
    },
    simplex::types::Activity,
    types::Round,
};
use commonware_cryptography::sha256;
use commonware_runtime::{Clock, Metrics, Spawner};
use commonware_utils::channel::oneshot;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tracing::warn;

/// Proposals of this validator whose finalisation is still awaited. Older ones are forgotten.
const MAX_TIMED_PROPOSALS: usize = 256;

/// A finality certificate was seen.
#[derive(Clone, Copy, Debug)]
pub struct Finalized {
    /// View that it finalises.
    pub view: u64,
    /// When, by the runtime's clock.
    pub at: SystemTime,
    /// Wall time since this validator began to build the proposal; nothing if it is another's.
    pub since_proposal: Option<Duration>,
}

/// Told of every finality certificate that this validator sees.
pub type FinalityProbe = Arc<dyn Fn(Finalized) + Send + Sync>;

/// Wraps the consensus automaton: waits for clocks, wakes the observer, keeps certificates for the next leader,
/// times own proposals.
pub struct Gate<E, D> {
    context: Arc<E>,
    inner: D,
    marshal: Mailbox<Scheme, Standard<Block>>,
    observatory: Observatory,
    proofs: ParentProofs,
    timeline: Timeline,
    tolerance_ms: u64,
    proposed: Arc<Mutex<BTreeMap<u64, SystemTime>>>,
    probe: FinalityProbe,
}

impl<E, D: Clone> Clone for Gate<E, D> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            inner: self.inner.clone(),
            marshal: self.marshal.clone(),
            observatory: self.observatory.clone(),
            proofs: self.proofs.clone(),
            timeline: self.timeline,
            tolerance_ms: self.tolerance_ms,
            proposed: self.proposed.clone(),
            probe: self.probe.clone(),
        }
    }
}

impl<E, D> Gate<E, D>
where
    E: Spawner + Clock + Metrics,
{
    /// Wraps `inner`. `tolerance_ms` is chain time.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        context: E,
        inner: D,
        marshal: Mailbox<Scheme, Standard<Block>>,
        observatory: Observatory,
        proofs: ParentProofs,
        timeline: Timeline,
        tolerance_ms: u64,
        probe: FinalityProbe,
    ) -> Self {
        Self {
            context: Arc::new(context),
            inner,
            marshal,
            observatory,
            proofs,
            timeline,
            tolerance_ms,
            proposed: Arc::default(),
            probe,
        }
    }
}

impl<E, D> Automaton for Gate<E, D>
where
    E: Spawner + Clock + Metrics + Send + Sync,
    D: Automaton<Context = Context, Digest = sha256::Digest>,
{
    type Context = Context;
    type Digest = sha256::Digest;

    #[allow(clippy::async_yields_async)]
    async fn propose(&mut self, context: Context) -> oneshot::Receiver<sha256::Digest> {
        let view = context.view().get();
        self.observatory.enter(view);
        if let Ok(mut proposed) = self.proposed.lock() {
            proposed.insert(view, self.context.current());
            while proposed.len() > MAX_TIMED_PROPOSALS {
                proposed.pop_first();
            }
        }
        let proposal = self.inner.propose(context).await;
        let (mut sender, receiver) = oneshot::channel();
        let observatory = self.observatory.clone();
        self.context.child("propose").spawn(move |_| async move {
            commonware_macros::select! {
                built = proposal => {
                    if let Ok(digest) = built {
                        // A leader votes for its own proposal at once. Were its observation for the next view
                        // to wait for the certificate, the next leader would wait a hop for it.
                        observatory.enter(view + 1);
                        let _ = sender.send(digest);
                    }
                },
                _ = sender.closed() => {},
            }
        });
        receiver
    }

    #[allow(clippy::async_yields_async)]
    async fn verify(&mut self, context: Context, payload: sha256::Digest) -> oneshot::Receiver<bool> {
        let (mut sender, receiver) = oneshot::channel();
        let view = context.view().get();
        let block = self.marshal.subscribe_by_digest(payload, DigestFallback::Wait);
        let verdict = self.inner.verify(context, payload).await;
        let observatory = self.observatory.clone();
        let (timeline, tolerance_ms) = (self.timeline, self.tolerance_ms);
        self.context.child("verify").spawn(move |context| async move {
            let wait = async {
                // The verdict is in before the block is awaited, so its absence cannot hang us.
                match verdict.await {
                    Ok(true) => {}
                    other => return other.unwrap_or(false),
                }
                let Ok(block) = block.await else { return false };
                // Not verified yet: any value is possible.
                let time = block.inner().header.time.get();
                let now = timeline.at(context.current()).get();
                if time > now.saturating_add(tolerance_ms) {
                    context.sleep(timeline.wall_duration(time - tolerance_ms - now)).await;
                } else if time.saturating_add(tolerance_ms) < now {
                    // Too old for a vote, but no proof of a fault: abstain until the view is over.
                    warn!(view, block_time_ms = time, clock_ms = now, "block time is behind; abstaining");
                    std::future::pending::<()>().await;
                }
                true
            };
            let verdict = commonware_macros::select! {
                verdict = wait => { verdict },
                _ = sender.closed() => { return },
            };
            if verdict {
                observatory.enter(view + 1);
            }
            let _ = sender.send(verdict);
        });
        receiver
    }
}

impl<E, D> CertifiableAutomaton for Gate<E, D>
where
    E: Spawner + Clock + Metrics + Send + Sync,
    D: CertifiableAutomaton<Context = Context, Digest = sha256::Digest>,
{
    async fn prepare(&mut self, context: Context) -> oneshot::Receiver<Handoff<sha256::Digest>> {
        self.inner.prepare(context).await
    }

    async fn certify(&mut self, round: Round, payload: sha256::Digest) -> oneshot::Receiver<bool> {
        self.inner.certify(round, payload).await
    }
}

impl<E, D> Relay for Gate<E, D>
where
    E: Send + Sync + 'static,
    D: Relay<Digest = sha256::Digest, PublicKey = PublicKey>,
{
    type Digest = sha256::Digest;
    type PublicKey = PublicKey;
    type Plan = D::Plan;

    fn broadcast(&mut self, payload: sha256::Digest, plan: Self::Plan) -> Feedback {
        self.inner.broadcast(payload, plan)
    }
}

impl<E, D> Reporter for Gate<E, D>
where
    E: Clock,
    D: Reporter<Activity = Activity<Scheme, sha256::Digest>>,
{
    type Activity = Activity<Scheme, sha256::Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match &activity {
            Activity::Notarization(certificate) | Activity::Certification(certificate) => {
                self.proofs.notarized(certificate);
                self.observatory.enter(certificate.view().get() + 1);
            }
            Activity::Nullification(certificate) => self.observatory.enter(certificate.view().get() + 1),
            Activity::Finalization(certificate) => {
                self.proofs.finalized(certificate);
                let view = certificate.view().get();
                self.observatory.enter(view + 1);
                let at = self.context.current();
                // Views that were skipped produced nothing to time.
                let begun = self.proposed.lock().ok().and_then(|mut proposed| {
                    let later = proposed.split_off(&(view + 1));
                    std::mem::replace(&mut *proposed, later).remove(&view)
                });
                let since_proposal = begun.and_then(|begun| at.duration_since(begun).ok());
                (self.probe)(Finalized { view, at, since_proposal });
            }
            _ => {}
        }
        self.inner.report(activity)
    }
}
