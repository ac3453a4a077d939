//! A validator on tokio: own thread, own directory, authenticated TCP.

use crate::{
    datadir::DirectoryLock,
    front::{self, Front},
    meter::{self, Meter},
    serve,
};
use anyhow::{Context as _, Result, anyhow, bail};
use commonware_cryptography::{ChaCha20Poly1305, bls12381::primitives::group::Share};
use commonware_p2p::{Address, AddressableManager as _, authenticated::lookup};
use commonware_parallel::Sequential;
use commonware_runtime::{Clock as _, Handle, Runner as _, Spawner as _, Supervisor as _, tokio};
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZUsize, TryCollect as _, channel::oneshot, ordered::Map};
use seawall_chain::{
    app::{BuildPolicy, Monitor},
    block::{Block, PublicKey},
    crypto::{Identity, key_of},
    engine::{self, Channel, Timeouts},
    gate::FinalityProbe,
    genesis::Genesis,
    ingress::{QueueLimits, Submitter},
    machine::Step,
    mempool::PoolLimits,
    observer::PriceSource,
    store::{self, StateCommitment},
    timeline::Timeline,
    work::Costs,
    zones::Zones,
};
use seawall_types::{Digest, Domain};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

/// What a validator process is told.
pub struct Options {
    /// Genesis.
    pub genesis: Arc<Genesis>,
    /// What it hashes to.
    pub commitment: StateCommitment,
    /// Own key.
    pub identity: Identity,
    /// Own share.
    pub share: Share,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where every member listens, itself included.
    pub peers: Vec<(PublicKey, SocketAddr)>,
    /// Its files.
    pub directory: PathBuf,
    /// Its prices.
    pub source: Arc<dyn PriceSource>,
    /// Chain time.
    pub timeline: Timeline,
    /// Building.
    pub policy: BuildPolicy,
    /// Told of final blocks.
    pub monitor: Arc<dyn Monitor>,
    /// Told of the finality of own proposals.
    pub probe: FinalityProbe,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where programs of this machine submit actions, if anywhere.
    pub submit: Option<SocketAddr>,
}

/// Tells several of final blocks, in this order.
struct Monitors(Vec<Arc<dyn Monitor>>);

impl Monitor for Monitors {
    fn finalized(&self, block: &Block, digest: Digest, step: &Step) {
        for monitor in &self.0 {
            monitor.finalized(block, digest, step);
        }
    }
}

/// What a validator offers once it runs.
#[derive(Clone)]
pub struct Running {
    /// Where actions are submitted.
    pub submitter: Submitter,
    /// Zones beside settlement.
    pub zones: Zones,
}

/// Runs a validator on the calling thread until `stop` resolves or its consensus ends. `ready` is called
/// once it runs.
///
/// # Errors
/// If it cannot start, or its consensus ends by itself.
pub fn run(
    options: Options,
    stop: oneshot::Receiver<()>,
    ready: Box<dyn FnOnce(Running) + Send>,
) -> Result<()> {
    let _lock = DirectoryLock::create(&options.directory)?;
    let listed: BTreeSet<_> = options.peers.iter().map(|(key, _)| key).collect();
    let members: BTreeSet<_> = options.genesis.members.iter().collect();
    if let Some(key) = members.difference(&listed).next() {
        bail!("the peers lack {}, who is in the committee of the genesis file; add it", key_of(key));
    }
    if let Some(key) = listed.difference(&members).next() {
        bail!("peer {} is not in the committee of the genesis file; remove it", key_of(key));
    }
    // The network would end the process without a word of where.
    drop(
        TcpListener::bind(options.listen)
            .with_context(|| format!("cannot listen on {}; is another process there?", options.listen))?,
    );
    let metrics = options.metrics.map(serve::bind).transpose()?;
    let submit = options.submit.map(front::bind).transpose()?;
    let runtime =
        tokio::Config::new().with_storage_directory(options.directory.clone()).with_worker_threads(2);
    tokio::Runner::new(runtime).start(|context| async move {
        let chain = options.genesis.chain();
        let members = options.genesis.members.len();
        let size = engine::max_message_bytes(u32::try_from(members).context("too many validators")?);
        let handshake = Cups::<_, ChaCha20Poly1305>::new(
            Sake {
                signer: options.identity.private().clone(),
                synchrony_bound: Duration::from_secs(5),
                max_handshake_age: Duration::from_secs(10),
                version: sake::Version::V1,
            },
            cups::Version::V1,
        );
        let (mut network, mut oracle) = lookup::Network::new(
            context.child("network"),
            lookup::Config::local(
                handshake,
                &Domain::Peer.namespace(chain),
                options.listen,
                NZUsize!(seawall_types::limits::MAX_VALIDATORS)
                    .min(std::num::NonZeroUsize::new(members.max(2)).expect("at least two")),
                size,
                NZUsize!(1_024),
            ),
        );
        let peers: Map<PublicKey, Address> = options
            .peers
            .into_iter()
            .map(|(key, address)| (key, address.into()))
            .try_collect()
            .map_err(|_| anyhow!("two peers have the same key"))?;
        oracle.track(0, peers);
        let channels =
            Channel::ALL.iter().map(|channel| network.register(*channel as u64, channel.quota())).collect();
        // One served before the store is opened tells whoever asks that the process lives.
        if let Some(listener) = metrics {
            serve::start(&context, listener);
        }
        let meter = Meter::new(&context, options.policy.max_actions);
        let front = Front::default();
        let (probe, certified) = (options.probe, meter.clone());
        let config = engine::Config {
            prefix: engine::DEFAULT_PREFIX.to_owned(),
            genesis: options.genesis,
            commitment: options.commitment,
            identity: options.identity,
            share: options.share,
            source: options.source,
            timeline: options.timeline,
            clock_tolerance: Duration::from_secs(10),
            policy: options.policy,
            timeouts: Timeouts::default(),
            monitor: Arc::new(Monitors(vec![
                Arc::new(meter.clone()),
                Arc::new(front.clone()),
                options.monitor,
            ])),
            probe: Arc::new(move |finalized| {
                certified.certified(&finalized);
                probe(finalized);
            }),
            queues: QueueLimits::default(),
            pools: PoolLimits::default(),
            costs: Costs::none(),
            enter_zone: Arc::new(give_way),
            retained_blocks: None,
            cache_pages: store::VALIDATOR_CACHE_PAGES,
            strategy: Sequential,
        };
        // Peers are dialled while the store is opened: what is sent before they are there is lost, and the
        // first views would wait for their timeouts. What arrives meanwhile waits in the channels.
        network.start();
        let (handle, validator) =
            engine::start(context.child("validator"), config, oracle.clone(), oracle, channels).await?;
        validator.mempool.watch(Arc::new(meter.clone()));
        let measured = validator.submitter.clone();
        // On a thread of its own, behind everything else: a prediction is much arithmetic.
        let _watching: Handle<()> = context.child("model").dedicated().spawn(move |context| async move {
            give_way();
            loop {
                context.sleep(meter::WINDOW).await;
                let window = meter.measure(&measured);
                meter.compare(&window);
            }
        });
        if let Some(listener) = submit {
            front.start(listener, validator.submitter.clone()).context("no thread to take actions with")?;
        }
        ready(Running { submitter: validator.submitter, zones: validator.zones });
        commonware_macros::select! {
            _ = stop => { Ok(()) },
            ended = handle => { Err(anyhow!("consensus ended by itself: {ended:?}")) },
        }
    })
}

/// What a zone's thread gets where processors are short and the system knows no less: several zones of several validators on
/// one machine must not add up to a share that consensus would miss.
#[cfg(target_os = "linux")]
const ZONE_NICE: i32 = 19;

/// Makes the calling thread give way to all others, so that an auction never takes a processor from consensus.
///
/// On Linux it is put into `SCHED_IDLE`: any other thread that wakes up takes its processor at once, and a processor that
/// runs nothing else counts as free. A low `nice` value alone does neither: its thread ends its slice first, and the one
/// that woke up may be queued behind it. Where the policy is not allowed, that value is what it gets. On other systems it
/// gets the lowest priority that they give a thread.
///
/// Such a thread can be stopped anywhere and for long: nobody may wait for a lock that it takes. Where the system allows
/// none of this, the zone runs as it is.
#[cfg(target_os = "linux")]
fn give_way() {
    use thread_priority::{
        NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
        set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
    };
    // It also resets the nice value, which a process that was started with one may not: then the policy holds all the same.
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, Normal(Idle));
    if thread_schedule_policy() != Ok(Normal(Idle)) {
        tracing::warn!(?set, "a zone's thread is not allowed to be idle; it gets a low priority instead");
    }
    // Of the calling thread, in spite of its name. It counts where the policy does not hold.
    if let Err(error) = rustix::process::setpriority_process(None, ZONE_NICE) {
        tracing::warn!(%error, "cannot lower the priority of a thread");
    }
}

#[cfg(not(target_os = "linux"))]
fn give_way() {
    if let Err(error) = thread_priority::set_current_thread_priority(thread_priority::ThreadPriority::Min) {
        tracing::warn!(?error, "cannot lower the priority of a zone's thread");
    }
}

/// Time on the wall, in milliseconds since the Unix epoch.
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use thread_priority::{NormalThreadSchedulePolicy, ThreadSchedulePolicy, thread_schedule_policy};

    #[test]
    fn a_thread_that_gives_way_is_idle_and_the_others_are_not() {
        let policy = || thread_schedule_policy().expect("a thread has a policy");
        let before = policy();
        let given = std::thread::spawn(move || {
            give_way();
            policy()
        });
        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        assert_eq!(given.join().expect("it does not panic"), idle);
        assert_eq!(policy(), before);
        assert_ne!(before, idle);
    }
}
