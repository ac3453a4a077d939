//! A whole validator, generic over the runtime and the network: the same code runs on tokio with TCP and
//! on the deterministic runtime in the lab.
//!
//! ```text
//!            simplex ── Gate (clocks) ── Deferred ── Stateful ── App ── Machine
//!               │                           │            │
//!             votes                      marshal       QMDB      Zones (tasks beside)
//!                                   (blocks, certificates)
//! ```

use crate::{
    app::{App, BuildPolicy, Monitor, Parts},
    archives,
    block::{Block, PublicKey},
    committee::{Committee, Scheme, elector},
    crypto::Identity,
    evidence::Evidence,
    gate::{FinalityProbe, Gate},
    genesis::Genesis,
    gossip::{Gossip, MAX_OUTGOING, Relay},
    ingress::{Checker, QueueLimits, Submitter},
    machine::Machine,
    mempool::{Mempool, PoolLimits},
    observer::{Config as ObserverConfig, Observer, PriceSource},
    proofs::ParentProofs,
    store::{self, StateCommitment, StoreError},
    submissions::Submissions,
    sync::NoPeers,
    timeline::Timeline,
    work::Costs,
    zones::Zones,
};
use commonware_broadcast::buffered;
use commonware_consensus::{
    marshal::{
        self,
        core::{Actor as MarshalActor, Mailbox as MarshalMailbox},
        resolver::p2p as marshal_resolver,
        standard::{Deferred, Standard},
    },
    simplex::{
        self, Engine as SimplexEngine,
        config::{Floor, ForwardPolicy, SkipPolicy},
    },
    types::{Epoch, FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    Digested, Digestible as _, bls12381::primitives::group::Share, certificate::ConstantProvider, sha256,
};
use commonware_glue::stateful::{
    Config as StatefulConfig, Mailbox as StatefulMailbox, PruneConfig, Stateful, SyncPlan,
    db::SyncEngineConfig,
};
use commonware_p2p::{Blocker, Provider, Receiver, Sender, max_message_size};
use commonware_parallel::Strategy;
use commonware_runtime::{Clock, Error as RuntimeError, Handle, Metrics, Quota, Spawner, Storage};
use commonware_storage::{
    archive::{Archive, Identifier},
    metadata::{self, Metadata},
};
use commonware_utils::{NZDuration, NZU32, NZU64, NZUsize, channel::mpsc, sequence::U64};
use rand_core::CryptoRng;
use seawall_types::{Digest, ValidatorId, limits::MAX_BLOCK_BYTES};
use std::{
    num::{NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

/// Files of a validator start with this, unless it is told otherwise.
pub const DEFAULT_PREFIX: &str = "seawall";
/// Messages that an actor's mailbox holds; at the limit senders wait or shed, as each actor documents.
const MAILBOX: NonZeroUsize = NZUsize!(1_024);
/// Blocks that marshal repairs at a time while it catches up.
const MAX_REPAIR: NonZeroUsize = NZUsize!(64);
/// Final blocks handed to the application before the first is durable.
const MAX_PENDING_ACKS: NonZeroUsize = NZUsize!(16);
/// Views behind the tip that consensus remembers.
const VIEW_RETENTION: ViewDelta = ViewDelta::new(256);
/// Blocks of each peer that are buffered.
const BUFFERED_BLOCKS: usize = 16;
/// Operations in one state-sync request.
const SYNC_BATCH: NonZeroU64 = NZU64!(256);
/// One epoch: committees do not change yet.
const EPOCH_LENGTH: NonZeroU64 = NZU64!(u64::MAX);
const MARKER_KEY: u64 = 0;

/// The channels of a validator, in the order in which they are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Channel {
    /// Consensus votes.
    Votes = 0,
    /// Consensus certificates.
    Certificates = 1,
    /// Requests for certificates.
    Resolver = 2,
    /// Requests for blocks.
    Backfill = 3,
    /// Blocks.
    Blocks = 4,
    /// Observations.
    Observations = 5,
    /// Rescues.
    Rescues = 6,
    /// Trades.
    Trades = 7,
}

impl Channel {
    /// Every channel, in order.
    pub const ALL: [Self; 8] = [
        Self::Votes,
        Self::Certificates,
        Self::Resolver,
        Self::Backfill,
        Self::Blocks,
        Self::Observations,
        Self::Rescues,
        Self::Trades,
    ];

    /// Messages a second that a peer may send. Mailboxes are sized by it, so it follows real rates.
    pub fn quota(self) -> Quota {
        Quota::per_second(match self {
            Self::Votes | Self::Certificates | Self::Observations => NZU32!(256),
            Self::Resolver | Self::Backfill => NZU32!(128),
            Self::Blocks => NZU32!(64),
            Self::Rescues | Self::Trades => NZU32!(2_048),
        })
    }
}

/// Largest message on any channel of a committee of `validators`, in bytes.
pub fn max_message_bytes(validators: u32) -> u32 {
    max_message_size(&[
        simplex::max_payload_size::<Scheme, sha256::Digest>(validators),
        marshal::max_payload_size::<Standard<Block>, Scheme>(validators, &()),
        MAX_BLOCK_BYTES,
    ])
}

/// Timeouts of consensus. Local, fixed for the life of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a leader must have proposed.
    pub leader: Duration,
    /// Until a proposal must be certified.
    pub certification: Duration,
    /// Between two nullify votes.
    pub retry: Duration,
    /// How long a silent leader is skipped.
    pub skip: Duration,
    /// Until a request to a peer is given up.
    pub fetch: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            leader: Duration::from_millis(3_000),
            certification: Duration::from_millis(6_000),
            retry: Duration::from_millis(500),
            skip: Duration::from_secs(8),
            fetch: Duration::from_secs(1),
        }
    }
}

/// What a validator is told at start.
pub struct Config<S> {
    /// What the chain starts from.
    pub genesis: Arc<Genesis>,
    /// What its state hashes to.
    pub commitment: StateCommitment,
    /// Own key.
    pub identity: Identity,
    /// Own share of the group key.
    pub share: Share,
    /// Own prices.
    pub source: Arc<dyn PriceSource>,
    /// Chain time.
    pub timeline: Timeline,
    /// How far, in wall time, a block's time may be from the own clock.
    pub clock_tolerance: Duration,
    /// How blocks are built.
    pub policy: BuildPolicy,
    /// Consensus timeouts.
    pub timeouts: Timeouts,
    /// Told of final blocks.
    pub monitor: Arc<dyn Monitor>,
    /// Told of finality certificates.
    pub probe: FinalityProbe,
    /// How much waits for its checks at most.
    pub queues: QueueLimits,
    /// How much waits for a block at most.
    pub pools: PoolLimits,
    /// What a simulation charges for work; nothing in production.
    pub costs: Costs,
    /// Runs on the thread of each zone before the zone does: there a process can give way to consensus.
    pub enter_zone: Arc<dyn Fn() + Send + Sync>,
    /// Blocks of history to keep; everything if `None`, so that the chain can be exported and verified.
    pub retained_blocks: Option<usize>,
    /// Pages of 4 KiB to keep of the own files.
    pub cache_pages: NonZeroUsize,
    /// How hashing and signature checks use threads. Never changes a result.
    pub strategy: S,
    /// What the names of this validator's files start with: [`DEFAULT_PREFIX`], unless several validators
    /// share one storage, as they do in a simulation.
    pub prefix: String,
}

/// Why a validator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The own key is not in the committee.
    #[error("this validator's key is not in the committee of the genesis file")]
    NotMember,
    /// The share is of another group, or another member's.
    #[error(
        "the key file's share is not this validator's: it is another member's, or of another group than the genesis \
         file's; use the key file that was made for this validator"
    )]
    WrongShare,
    /// The genesis does not build.
    #[error("genesis: {0}")]
    Genesis(#[from] crate::genesis::GenesisError),
    /// The genesis state hashes to something else than the file says.
    #[error("the genesis state hashes to {found:?}, the genesis file says {expected:?}")]
    Commitment {
        /// As in the file.
        expected: Box<StateCommitment>,
        /// As computed.
        found: Box<StateCommitment>,
    },
    /// The directory belongs to another chain.
    #[error(
        "the data directory belongs to another chain (genesis block {found}, not {expected}); use another directory"
    )]
    OtherChain {
        /// Own genesis block.
        expected: Digest,
        /// The directory's.
        found: Digest,
    },
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a running validator offers to the process around it.
#[derive(Clone)]
pub struct Validator<E, S>
where
    E: Storage + Clock + Metrics + Spawner + CryptoRng + Send + Sync + 'static,
    S: Strategy,
{
    /// The committee.
    pub committee: Committee,
    /// Own place in it.
    pub me: ValidatorId,
    /// The block at height 0.
    pub genesis: Block,
    /// The state in memory.
    pub machine: Machine,
    /// Where actions are submitted.
    pub submitter: Submitter,
    /// Waiting actions.
    pub mempool: Mempool,
    /// Zones beside settlement.
    pub zones: Zones,
    /// What can be held against leaders.
    pub evidence: Evidence,
    /// Blocks and certificates.
    pub marshal: MarshalMailbox<Scheme, Standard<Block>>,
    /// The authenticated state.
    pub stateful: StatefulMailbox<E, App<S>>,
}

/// A sender and a receiver of one channel.
pub type Pair<NS, NR> = (NS, NR);

type Marker<E> = Metadata<E, U64, Vec<u8>>;

async fn open_marker<E>(context: &E, prefix: &str) -> Result<Marker<E>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    let config = metadata::Config {
        partition: marker_partition(prefix),
        codec_config: ((0..=Digest::LEN).into(), ()),
    };
    Metadata::init(context.child("genesis_marker"), config).await.map_err(StoreError::database)
}

fn read_marker<E>(marker: &Marker<E>) -> Option<Digest>
where
    E: Storage + Clock + Metrics,
{
    marker.get(&U64::new(MARKER_KEY)).map(|found| {
        let mut digest = Digest::default();
        if found.len() == Digest::LEN {
            digest.0.copy_from_slice(found);
        }
        digest
    })
}

/// Where a directory says which chain it belongs to.
pub fn marker_partition(prefix: &str) -> String {
    format!("{prefix}-genesis")
}

/// Digest of the genesis block of the chain that a directory belongs to; `None` before it was prepared.
///
/// # Errors
/// If it cannot be read.
pub async fn chain_of<E>(context: &E, prefix: &str) -> Result<Option<Digest>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    Ok(read_marker(&open_marker(context, prefix).await?))
}

/// Seeds the store of an empty directory with the genesis state, once. A crash in the middle leaves no
/// marker, and the next start begins anew. Returns whether the directory was empty.
pub async fn prepare<E, S>(
    context: &E,
    prefix: &str,
    genesis: &Genesis,
    expected: &StateCommitment,
    strategy: S,
) -> Result<bool, StartError>
where
    E: Storage + Clock + Metrics + Spawner,
    S: Strategy,
{
    let own = Digest(genesis.block(expected).digest().0);
    let marker = open_marker(context, prefix).await?;
    match read_marker(&marker) {
        Some(found) if found == own => return Ok(false),
        Some(found) => return Err(StartError::OtherChain { expected: own, found }),
        None => {}
    }
    // Blocks come after the marker: without it they are a damaged directory, not an empty one.
    let [_, blocks, _] = archives::block_partitions(prefix);
    if context.scan(&blocks).await.is_ok() {
        return Err(StoreError::Inconsistent("it holds blocks, but its genesis marker is lost".into()).into());
    }
    let page_cache = store::page_cache();
    let config = store::config(prefix, strategy, page_cache);
    for partition in store::partitions(&config) {
        match context.remove(&partition, None).await {
            Ok(()) | Err(RuntimeError::PartitionMissing(_)) => {}
            Err(error) => return Err(StoreError::database(error).into()),
        }
    }
    let world = genesis.world()?;
    let found = store::seed(context.child("genesis_state"), config, world.records()).await?;
    if found != *expected {
        return Err(StartError::Commitment { expected: Box::new(*expected), found: Box::new(found) });
    }
    marker.put_sync(U64::new(MARKER_KEY), own.0.to_vec()).await.map_err(StoreError::database)?;
    Ok(true)
}

/// Starts a validator on its channels, in the order of [`Channel::ALL`]. The returned handle ends when
/// consensus does.
///
/// # Panics
/// If a file of the data directory cannot be read: running on with a damaged store could contradict what
/// was signed before.
#[allow(clippy::too_many_lines)]
pub async fn start<E, S, P, B, NS, NR>(
    context: E,
    config: Config<S>,
    peers: P,
    blocker: B,
    channels: Vec<Pair<NS, NR>>,
) -> Result<(Handle<()>, Validator<E, S>), StartError>
where
    E: Storage + Clock + Metrics + Spawner + CryptoRng + Send + Sync + 'static,
    S: Strategy,
    P: Provider<PublicKey = PublicKey> + Clone,
    B: Blocker<PublicKey = PublicKey> + Clone,
    NS: Sender<PublicKey = PublicKey>,
    NR: Receiver<PublicKey = PublicKey>,
{
    assert_eq!(channels.len(), Channel::ALL.len(), "one pair a channel");
    let mut channels = channels.into_iter();
    let mut next = || channels.next().expect("counted above");
    let (votes, certificates, resolver_net, backfill, blocks, observations, rescues, trades) =
        (next(), next(), next(), next(), next(), next(), next(), next());

    let genesis = config.genesis;
    let prefix = config.prefix;
    let chain = genesis.chain();
    let committee = genesis.committee();
    let public = config.identity.public();
    let me = committee.position(&public).ok_or(StartError::NotMember)?;
    // A share of the same group, but another member's, would make two validators vote as one.
    if config.share.index.get() != u32::from(me.get()) {
        return Err(StartError::WrongShare);
    }
    let scheme = committee.signer(config.share).ok_or(StartError::WrongShare)?;
    prepare(&context, &prefix, &genesis, &config.commitment, config.strategy.clone()).await?;
    let genesis_block = genesis.block(&config.commitment);
    let page_cache = store::page_cache_of(config.cache_pages);

    let fetch = commonware_utils::NonZeroDuration::new(config.timeouts.fetch)
        .unwrap_or(NZDuration!(Duration::from_secs(1)));
    let resolver = marshal_resolver::init(
        context.child("marshal_resolver"),
        marshal_resolver::Config {
            public_key: public.clone(),
            peer_provider: peers.clone(),
            blocker: blocker.clone(),
            mailbox_size: MAILBOX,
            fetch_timeout: fetch,
            fetch_retry_delay: Duration::from_millis(100),
            priority_requests: false,
            priority_responses: false,
        },
        backfill,
    );
    let (broadcast, buffer) = buffered::Engine::new(
        context.child("broadcast"),
        buffered::Config {
            public_key: public.clone(),
            mailbox_size: MAILBOX,
            deque_size: BUFFERED_BLOCKS,
            priority: true,
            codec_config: (),
            peer_provider: peers,
            strategy: config.strategy.clone(),
        },
    );
    broadcast.start(blocks);

    let finalizations =
        archives::certificates(context.child("finalizations"), &prefix, page_cache.clone()).await?;
    let finalized_blocks = archives::blocks(context.child("blocks"), &prefix, page_cache.clone()).await?;

    // Votes are in consensus's journal. A directory without one was imported: its validator starts from
    // the last certificate, and not from views that are over.
    let journal = format!("{prefix}-simplex");
    let imported = matches!(context.scan(&journal).await, Err(RuntimeError::PartitionMissing(_)));
    let anchor = match Archive::last_index(&finalizations) {
        Some(last) if imported => Archive::get(&finalizations, Identifier::Index(last))
            .await
            .map_err(StoreError::database)?
            .map(Floor::Finalized),
        _ => None,
    };

    let plan = SyncPlan::init(context.child("plan"), &prefix).await;
    let genesis_digest = genesis_block.digest();
    let start = plan.marshal_start(Digested::precomputed(genesis_block.clone(), genesis_digest));
    let (marshal_actor, marshal, floor) = MarshalActor::<_, Standard<Block>, _, _, _, _, _>::init(
        context.child("marshal"),
        finalizations,
        finalized_blocks,
        marshal::Config {
            provider: ConstantProvider::new(scheme.clone()),
            epocher: FixedEpocher::new(EPOCH_LENGTH),
            start,
            partition_prefix: prefix.clone(),
            mailbox_size: MAILBOX,
            view_retention: VIEW_RETENTION,
            prunable_items_per_section: archives::ITEMS_PER_SECTION,
            page_cache: page_cache.clone(),
            replay_buffer: store::IO_BUFFER,
            key_write_buffer: store::IO_BUFFER,
            value_write_buffer: store::IO_BUFFER,
            block_codec_config: (),
            max_repair: MAX_REPAIR,
            max_pending_acks: MAX_PENDING_ACKS,
            strategy: config.strategy.clone(),
        },
    )
    .await;

    let machine = Machine::empty();
    let submissions = Submissions::default();
    let mempool = Mempool::new(config.pools, submissions.clone());
    let proofs = ParentProofs::default();
    let evidence = Evidence::new(committee.clone());
    let zones = Zones::new(&genesis.ledger.markets);
    zones.start(context.child("zones"), config.enter_zone);
    let (observer, observatory) = Observer::new(
        context.child("observer"),
        ObserverConfig {
            committee: committee.clone(),
            me,
            identity: config.identity.clone(),
            timeline: config.timeline,
            zones: zones.clone(),
            mempool: mempool.clone(),
            machine: machine.clone(),
            retry: config.timeouts.retry,
        },
        config.source,
    );
    // Nobody votes before the first view, so nothing else would wake the observer for it.
    observatory.enter(1);
    observer.start(observations);
    let relay = Relay { committee: committee.clone(), me, again: config.timeouts.retry };
    let (to_rescues, passed_rescues) = mpsc::channel(MAX_OUTGOING);
    let (to_trades, passed_trades) = mpsc::channel(MAX_OUTGOING);
    let (checker, submitter) = Checker::new(
        context.child("ingress"),
        chain,
        machine.clone(),
        mempool.clone(),
        submissions.clone(),
        config.queues,
        [to_rescues, to_trades],
        config.costs.clone(),
        config.strategy.clone(),
    );
    let gossip = Gossip::new(
        context.child("gossip"),
        relay,
        submitter.ingress.clone(),
        machine.clone(),
        mempool.clone(),
        observatory.clone(),
        [passed_rescues, passed_trades],
    );
    checker.start();
    gossip.start(rescues, trades);

    let app = App::new(Parts {
        chain,
        committee: committee.clone(),
        identity: config.identity,
        genesis: genesis_block.clone(),
        oracle: genesis.oracle.clone(),
        machine: machine.clone(),
        mempool: mempool.clone(),
        observatory: observatory.clone(),
        proofs: proofs.clone(),
        zones: zones.clone(),
        evidence: evidence.clone(),
        policy: config.policy,
        monitor: config.monitor,
        submissions,
        costs: config.costs,
        strategy: config.strategy.clone(),
    });
    let (stateful, stateful_mailbox) = Stateful::new(
        context.child("stateful"),
        StatefulConfig {
            application: app,
            db_config: store::config(&prefix, config.strategy.clone(), page_cache.clone()),
            provider: (),
            marshal: (marshal.clone(), floor),
            mailbox_size: MAILBOX,
            plan,
            resolvers: NoPeers,
            sync_config: SyncEngineConfig {
                fetch_batch_size: SYNC_BATCH,
                apply_batch_size: NZU64!(4_096),
                max_outstanding_requests: NZUsize!(16),
            },
            prune_config: config.retained_blocks.map(|blocks| PruneConfig {
                maintenance_interval: NZUsize!(64),
                retained_marshal_blocks: blocks,
                retained_qmdb_blocks: 0,
            }),
            strategy: config.strategy.clone(),
        },
    );
    let deferred = Deferred::new(
        context.child("deferred"),
        stateful_mailbox.clone(),
        marshal.clone(),
        FixedEpocher::new(EPOCH_LENGTH),
    );
    marshal_actor.start(stateful_mailbox.clone(), buffer, resolver);
    stateful.start();

    let gate = Gate::new(
        context.child("gate"),
        deferred,
        marshal.clone(),
        observatory,
        proofs,
        config.timeline,
        config.timeline.chain_ms(config.clock_tolerance),
        config.probe,
    );
    let engine = SimplexEngine::new(
        context.child("simplex"),
        simplex::Config {
            scheme,
            elector: elector(),
            blocker,
            automaton: gate.clone(),
            relay: gate.clone(),
            reporter: gate,
            strategy: config.strategy,
            partition: journal,
            mailbox_size: MAILBOX,
            epoch: Epoch::zero(),
            floor: anchor.unwrap_or(Floor::Genesis(genesis_digest)),
            replay_buffer: store::IO_BUFFER,
            write_buffer: store::IO_BUFFER,
            page_cache,
            leader_timeout: config.timeouts.leader,
            certification_timeout: config.timeouts.certification,
            timeout_retry: config.timeouts.retry,
            view_retention: VIEW_RETENTION,
            skip: SkipPolicy::Enabled {
                timeout: config.timeouts.skip,
                budget: simplex::SkipBudget::Participants,
            },
            fetch_timeout: fetch,
            fetch_retry_delay: Duration::from_millis(250),
            forward: ForwardPolicy::Disabled,
            track_historical_votes: false,
        },
    );
    let handle = engine.start(votes, certificates, resolver_net);
    let validator = Validator {
        committee,
        me,
        genesis: genesis_block,
        machine,
        submitter,
        mempool,
        zones,
        evidence,
        marshal,
        stateful: stateful_mailbox,
    };
    Ok((handle, validator))
}
