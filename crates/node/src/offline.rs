//! What the tools on a data directory share: they take the directory for themselves, open its archives and
//! its store, and turn whatever goes wrong down there into a sentence.
//!
//! Opening a directory repairs the end of its files as a validator's start would: what a crash left half
//! written is dropped. Nothing else is changed. To look at a damaged directory without touching it, work
//! on a copy.

use crate::{
    datadir::{DirectoryError, DirectoryLock},
    files::FileError,
};
use commonware_cryptography::Digestible as _;
use commonware_parallel::Sequential;
use commonware_runtime::{Runner as _, Supervisor as _, tokio};
use commonware_storage::archive::{Archive as _, Identifier};
use seawall_chain::{
    archives::{self, Blocks, Certificate, Certificates},
    block::{Block, from_consensus},
    engine::{self, DEFAULT_PREFIX},
    genesis::Genesis,
    machine::World,
    store::{self, Db, StateCommitment, StoreError},
};
use seawall_types::{Digest, Height};
use std::{
    any::Any,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Why a tool refuses.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// There is no chain in it.
    #[error("{0} holds no chain: no validator has started in it yet")]
    NoChain(PathBuf),
    /// It belongs to another chain.
    #[error(
        "{directory} belongs to another chain: its genesis block is {found}, the genesis file's is {expected}"
    )]
    OtherChain {
        /// The directory.
        directory: PathBuf,
        /// Digest of block 0 by the genesis file.
        expected: Digest,
        /// By the directory.
        found: Digest,
    },
    /// What it holds cannot be right.
    #[error("{directory} is damaged: {what}; restore it from a copy, or remove it and catch up from peers")]
    Damaged {
        /// The directory.
        directory: PathBuf,
        /// What was found.
        what: String,
    },
    /// Old blocks were dropped, as the validator was told to.
    #[error("{directory} holds blocks from {first} on only; this needs all of them, from another validator")]
    Pruned {
        /// The directory.
        directory: PathBuf,
        /// First block that is left.
        first: Height,
    },
    /// A file in the way or unreadable.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The genesis does not build, or a temporary store fails.
    #[error("{0}")]
    Failed(String),
}

const THREAD: &str = "seawall-offline";
/// Threads inside [`guarded`] right now.
static GUARDED: AtomicUsize = AtomicUsize::new(0);

/// While a tool runs, a panic on its threads is told by its error, not by the panic handler.
fn quieten_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let current = thread::current();
            let ours = current.name().is_some_and(|name| name == THREAD || name.starts_with("tokio-r"));
            if !ours || GUARDED.load(Ordering::Relaxed) == 0 {
                before(info);
            }
        }));
    });
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "no reason given".to_owned())
}

/// Runs `work` on a thread of its own. The storage layer panics on what it cannot repair: a panic becomes
/// what `on_panic` makes of its message.
pub(crate) fn guarded<T: Send, X: Send>(
    work: impl FnOnce() -> Result<T, X> + Send,
    on_panic: impl FnOnce(String) -> X,
) -> Result<T, X> {
    quieten_panics();
    GUARDED.fetch_add(1, Ordering::Relaxed);
    let done = thread::scope(|scope| {
        let spawned = thread::Builder::new().name(THREAD.into()).spawn_scoped(scope, work);
        spawned.map_err(|error| error.to_string()).map(thread::ScopedJoinHandle::join)
    });
    GUARDED.fetch_sub(1, Ordering::Relaxed);
    match done {
        Ok(Ok(result)) => result,
        Ok(Err(payload)) => Err(on_panic(panic_message(&*payload))),
        Err(error) => Err(on_panic(error)),
    }
}

/// A runtime over the files of `directory`.
pub(crate) fn runner(directory: &Path) -> tokio::Runner {
    tokio::Runner::new(tokio::Config::new().with_storage_directory(directory).with_worker_threads(1))
}

pub(crate) fn damaged(directory: &Path, what: impl Display) -> ToolError {
    ToolError::Damaged { directory: directory.into(), what: what.to_string() }
}

/// A store's fault without the advice that a damaged directory comes with anyway.
fn fault(part: &str, error: StoreError) -> String {
    match error {
        StoreError::Database(text) => format!("{part}: {text}"),
        StoreError::Missing(record) => format!("{part}: record {record} is missing"),
        StoreError::Malformed(record, text) => format!("{part}: record {record} does not decode: {text}"),
        StoreError::Inconsistent(text) => format!("{part}: {text}"),
    }
}

/// Takes a data directory, checks whose it is and does `work` with what is in it.
pub(crate) fn on_chain<T, X>(
    directory: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    work: impl AsyncFnOnce(&Chain<'_>) -> Result<T, X> + Send,
) -> Result<T, X>
where
    T: Send,
    X: From<ToolError> + Send,
{
    let _lock = DirectoryLock::acquire(directory).map_err(ToolError::from)?;
    guarded(
        || {
            runner(directory).start(|context| async move {
                let chain = Chain::open(&context, directory, genesis, commitment).await?;
                work(&chain).await
            })
        },
        |message| damaged(directory, format_args!("the storage layer gave up: {message}")).into(),
    )
}

/// The final blocks of a data directory.
pub(crate) struct Chain<'a> {
    context: &'a tokio::Context,
    directory: &'a Path,
    genesis: &'a Genesis,
    commitment: &'a StateCommitment,
    blocks: Blocks<tokio::Context>,
    certificates: Certificates<tokio::Context>,
    processed: Height,
    /// The last block that a certificate covers.
    pub last: Height,
    /// Digest of block 0.
    pub origin: Digest,
}

/// The state of a data directory.
pub(crate) struct State {
    /// After which block.
    pub height: Height,
    /// What it hashes to.
    pub commitment: StateCommitment,
    /// All of it.
    pub world: World,
}

impl<'a> Chain<'a> {
    async fn open(
        context: &'a tokio::Context,
        directory: &'a Path,
        genesis: &'a Genesis,
        commitment: &'a StateCommitment,
    ) -> Result<Self, ToolError> {
        let missing = |partition: &str| !directory.join(partition).is_dir();
        let [_, first_blocks, _] = archives::block_partitions(DEFAULT_PREFIX);
        let unmarked = || {
            if missing(&first_blocks) {
                ToolError::NoChain(directory.into())
            } else {
                damaged(directory, "it holds blocks, but its genesis marker is lost")
            }
        };
        if missing(&engine::marker_partition(DEFAULT_PREFIX)) {
            return Err(unmarked());
        }
        let expected = from_consensus(genesis.block(commitment).digest());
        let found = engine::chain_of(context, DEFAULT_PREFIX)
            .await
            .map_err(|error| damaged(directory, fault("the genesis marker", error)))?
            .ok_or_else(unmarked)?;
        if found != expected {
            return Err(ToolError::OtherChain { directory: directory.into(), expected, found });
        }
        let processed = archives::processed(context.child("processed"), DEFAULT_PREFIX)
            .await
            .map_err(|error| damaged(directory, fault("the processed height", error)))?
            .unwrap_or(Height(0));
        let page_cache = store::page_cache();
        let mut needed = store::partitions(&store::config(DEFAULT_PREFIX, Sequential, page_cache.clone()));
        needed.extend(archives::block_partitions(DEFAULT_PREFIX));
        if processed > Height(0) {
            needed.extend(archives::certificate_partitions(DEFAULT_PREFIX));
        }
        if let Some(partition) = needed.into_iter().find(|partition| missing(partition)) {
            return Err(damaged(directory, format_args!("{partition} is missing")));
        }
        let blocks = archives::blocks(context.child("blocks"), DEFAULT_PREFIX, page_cache.clone())
            .await
            .map_err(|error| damaged(directory, fault("the archive of blocks", error)))?;
        let certificates = archives::certificates(context.child("certificates"), DEFAULT_PREFIX, page_cache)
            .await
            .map_err(|error| damaged(directory, fault("the archive of certificates", error)))?;
        // A power cut can save a block and lose its certificate: then it is not known to be final.
        let last = Height(certificates.last_index().unwrap_or(0));
        if last < processed {
            let what = format!("blocks up to {processed} were processed, but certificates end at {last}");
            return Err(damaged(directory, what));
        }
        let chain = Self {
            context,
            directory,
            genesis,
            commitment,
            blocks,
            certificates,
            processed,
            last,
            origin: expected,
        };
        if chain.blocks.first_index() == Some(0) {
            let origin = chain.stored(Height(0)).await?.map(|block| from_consensus(block.digest()));
            if origin != Some(expected) {
                return Err(damaged(directory, "block 0 is not the genesis block"));
            }
        }
        Ok(chain)
    }

    /// The last block, refusing a directory that does not hold all of them.
    pub(crate) fn complete(&self) -> Result<Height, ToolError> {
        match self.blocks.first_index() {
            Some(first) if first > 1 => {
                Err(ToolError::Pruned { directory: self.directory.into(), first: Height(first) })
            }
            _ => Ok(self.last),
        }
    }

    async fn stored(&self, height: Height) -> Result<Option<Arc<Block>>, ToolError> {
        let block = self.blocks.get(Identifier::Index(height.get())).await.map_err(|error| {
            damaged(self.directory, format_args!("block {height} cannot be read from its archive: {error}"))
        })?;
        match block {
            Some(block) if block.header.height != height => Err(damaged(
                self.directory,
                format_args!("block {} stands in the place of block {height}", block.header.height),
            )),
            block => Ok(block),
        }
    }

    /// A final block with its certificate, if it has its own.
    pub(crate) async fn block(&self, height: Height) -> Result<(Arc<Block>, Option<Certificate>), ToolError> {
        let block = self.stored(height).await?.ok_or_else(|| {
            damaged(self.directory, format_args!("block {height} of {} is missing", self.last))
        })?;
        let certificate = self.certificates.get(Identifier::Index(height.get())).await.map_err(|error| {
            damaged(self.directory, format_args!("the certificate of block {height} cannot be read: {error}"))
        })?;
        Ok((block, certificate))
    }

    /// A refusal of this directory.
    pub(crate) fn damaged(&self, what: impl Display) -> ToolError {
        damaged(self.directory, what)
    }

    /// Whether a certificate is a quorum's, and under this block.
    pub(crate) fn certifies(&self, certificate: &Certificate, block: &Block) -> bool {
        let scheme = self.genesis.committee().verifier();
        certificate.proposal.payload == block.digest()
            && certificate.verify(&mut commonware_utils::sys_rng(), &scheme, &Sequential)
    }

    /// The state as it is in the store, held against the block that it belongs to.
    pub(crate) async fn state(&self) -> Result<State, ToolError> {
        let refuse = |error: StoreError| damaged(self.directory, fault("the state store", error));
        let config = store::config(DEFAULT_PREFIX, Sequential, store::page_cache());
        let db = Db::<tokio::Context, Sequential>::init(self.context.child("state"), config, None)
            .await
            .map_err(StoreError::database)
            .map_err(refuse)?;
        let commitment = store::commitment(&db);
        let world = World::load(&db, self.genesis.oracle.clone(), self.genesis.members.len())
            .await
            .map_err(refuse)?;
        let height = world.ledger.globals().height;
        if height < self.processed || height > self.last {
            let (processed, last) = (self.processed, self.last);
            return Err(damaged(
                self.directory,
                format_args!(
                    "the state store stands at block {height}; it was at {processed} and blocks end at {last}"
                ),
            ));
        }
        let stated = if height == Height(0) {
            *self.commitment
        } else {
            let header = &self.block(height).await?.0.header;
            StateCommitment { root: header.state_root, ops: header.ops }
        };
        if stated != commitment {
            return Err(damaged(
                self.directory,
                format_args!(
                    "the state store hashes to {}, block {height} says {}",
                    commitment.root, stated.root
                ),
            ));
        }
        Ok(State { height, commitment, world })
    }
}
