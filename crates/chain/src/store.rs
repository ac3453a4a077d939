//! The authenticated store: which keys exist, how a directory is seeded and how it is read back.
//!
//! Canonical state lives in QMDB as `key -> encoded record`. A key is eight bytes, a tag and a 56-bit
//! index, so that everything a validator needs at start can be enumerated without scanning: what is dense by its
//! numbers; zones, inboxes and entries by the parameters of markets and the heights that may wait for an outcome;
//! open orders by their [slots](crate::slots).
//!
//! | tag | record | index |
//! | --- | --- | --- |
//! | 1 | ledger globals | 0 |
//! | 2 | market | market id |
//! | 3 | account | account id |
//! | 4 | exit | number of the exit |
//! | 5 | market oracle | market id |
//! | 6 | reporter row | validator id |
//! | 7 | chain record: exits root, place of the oracle, number of order slots | 0 |
//! | 8 | zone | zone |
//! | 9 | inbox of a zone | zone << 48, height |
//! | 10 | entries of an inbox, 64 places of it | zone << 48, height << 10, page |
//! | 11 | open order | slot |

use crate::records::MAX_RECORD_BYTES;
use commonware_cryptography::Sha256;
use commonware_parallel::Strategy;
use commonware_runtime::{
    BLOB_PAGE_SIZE, Spawner,
    buffer::paged::{CacheRef, page_size},
};
use commonware_storage::{
    Context as StorageContext,
    journal::contiguous::variable::Config as LogConfig,
    merkle::{full::Config as MerkleConfig, mmb},
    qmdb::{
        any::unordered::variable::Operation,
        current::{VariableConfig, unordered::variable::Db as CurrentDb},
        floor::Proportional,
    },
    translator::EightCap,
};
use commonware_utils::{NZU64, NZUsize, sequence::U64};
use seawall_types::{Digest, block::OpsTarget};
use std::{
    future::Future,
    num::{NonZeroU64, NonZeroUsize},
};

/// Merkle family of the operations log.
pub type Family = mmb::Family;
/// Key of a record.
pub type StateKey = U64;
/// Encoded record.
pub type StateValue = Vec<u8>;
/// Bitmap chunk, in bytes.
const CHUNK: usize = 32;
/// The authenticated database.
pub type Db<E, S> = CurrentDb<Family, E, StateKey, StateValue, Sha256, EightCap, CHUNK, S>;
/// One logged operation.
pub type Op = Operation<Family, StateKey, StateValue>;
/// Configuration of [`Db`].
pub type DbConfig<S> = VariableConfig<EightCap, <Op as commonware_codec::Read>::Cfg, S>;

/// Records fetched by one batched read while loading.
pub const LOAD_CHUNK: usize = 8_192;
/// Pages of 4 KiB that a validator keeps of its files, allocated at once: enough for the state of a million
/// accounts, because every update of a record reads where it was.
pub const VALIDATOR_CACHE_PAGES: NonZeroUsize = NZUsize!(65_536);
/// Pages of whoever reads a store once: tools, and a store's seeding.
const READER_CACHE_PAGES: NonZeroUsize = NZUsize!(2_048);
/// Buffer of each open file.
pub const IO_BUFFER: NonZeroUsize = NZUsize!(1 << 20);
const ITEMS_PER_BLOB: NonZeroU64 = NZU64!(1 << 20);

/// Kind of a record, the top byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tag {
    /// Ledger globals.
    Globals = 1,
    /// A market.
    Market = 2,
    /// An account.
    Account = 3,
    /// An exit.
    Exit = 4,
    /// Oracle state of a market.
    MarketOracle = 5,
    /// Latest reports of a validator.
    Reporter = 6,
    /// The chain's own record.
    Chain = 7,
    /// Where a zone is.
    Zone = 8,
    /// A zone's inbox at a height.
    Inbox = 9,
    /// Entries of an inbox.
    Entry = 10,
    /// An open order.
    Order = 11,
}

/// Key of record `index` of kind `tag`.
///
/// # Panics
/// If `index` needs more than 56 bits: every index is bounded far below.
pub fn key(tag: Tag, index: u64) -> StateKey {
    assert!(index < 1 << 56, "record index {index} is out of range");
    U64::new(((tag as u64) << 56) | index)
}

/// The page cache of whoever reads a store once.
pub fn page_cache() -> CacheRef {
    page_cache_of(READER_CACHE_PAGES)
}

/// A page cache of so many pages, which the stores of a validator share.
pub fn page_cache_of(pages: NonZeroUsize) -> CacheRef {
    CacheRef::new(page_size(BLOB_PAGE_SIZE), pages)
}

/// Every partition that a store writes.
pub fn partitions<S: Strategy>(config: &DbConfig<S>) -> Vec<String> {
    let merkle = &config.merkle_config.journal_partition;
    let log = &config.journal_config.partition;
    vec![
        format!("{merkle}-blobs"),
        format!("{merkle}-metadata"),
        config.merkle_config.metadata_partition.clone(),
        format!("{log}_data"),
        format!("{log}_offsets-blobs"),
        format!("{log}_offsets-metadata"),
        config.grafted_metadata_partition.clone(),
    ]
}

/// Configuration of the store whose files start with `prefix`.
pub fn config<S: Strategy>(prefix: &str, strategy: S, page_cache: CacheRef) -> DbConfig<S> {
    VariableConfig {
        merkle_config: MerkleConfig {
            journal_partition: format!("{prefix}-state-merkle-journal"),
            metadata_partition: format!("{prefix}-state-merkle-metadata"),
            items_per_blob: ITEMS_PER_BLOB,
            write_buffer: IO_BUFFER,
            replay_buffer: IO_BUFFER,
            strategy,
            page_cache: page_cache.clone(),
        },
        journal_config: LogConfig {
            partition: format!("{prefix}-state-log"),
            items_per_section: ITEMS_PER_BLOB,
            compression: None,
            codec_config: ((), ((0..=MAX_RECORD_BYTES).into(), ())),
            page_cache,
            write_buffer: IO_BUFFER,
            replay_buffer: IO_BUFFER,
        },
        grafted_metadata_partition: format!("{prefix}-state-grafted-metadata"),
        translator: EightCap,
        init_cache: Some(NZUsize!(1 << 16)),
        init_buffer: NZUsize!(1 << 21),
        init_concurrency: (),
    }
}

/// What a header says of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateCommitment {
    /// Canonical root.
    pub root: Digest,
    /// Operations log behind it.
    pub ops: OpsTarget,
}

/// What a header says of the state in `db`.
pub fn commitment<E, S>(db: &Db<E, S>) -> StateCommitment
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    StateCommitment {
        root: Digest(db.root().0),
        ops: OpsTarget { root: Digest(db.ops_root().0), start: *db.sync_boundary(), end: *db.bounds().end },
    }
}

/// Writes `records` into an empty store as one batch and returns what the genesis header commits to.
/// The root depends on the batch, so genesis is always exactly one.
pub async fn seed<E, S>(
    context: E,
    config: DbConfig<S>,
    records: impl Iterator<Item = (StateKey, StateValue)>,
) -> Result<StateCommitment, StoreError>
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    let db = Db::<E, S>::init(context, config, None).await.map_err(StoreError::database)?;
    let mut batch = db.new_batch();
    for (key, value) in records {
        batch = batch.write(key, Some(value));
    }
    let merkleized = batch.merkleize(&db, None, &mut Proportional).await.map_err(StoreError::database)?;
    let db = db.apply_batch(merkleized).await.map_err(StoreError::database)?;
    let commitment = commitment(&db);
    db.sync().await.map_err(StoreError::database)?;
    Ok(commitment)
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses.
    #[error(
        "the state store cannot be read: {0}; restore the directory or remove it and catch up from peers"
    )]
    Database(String),
    /// A record that must be there is not.
    #[error("the state store lacks record {0}; restore the directory or remove it and catch up from peers")]
    Missing(String),
    /// A record does not decode.
    #[error(
        "record {0} of the state store does not decode: {1}; restore the directory or remove it and catch up from peers"
    )]
    Malformed(String, String),
    /// Records decode but contradict each other.
    #[error(
        "the state store contradicts itself: {0}; restore the directory or remove it and catch up from peers"
    )]
    Inconsistent(String),
}

impl StoreError {
    /// Wraps a database error.
    pub fn database(error: impl std::fmt::Display) -> Self {
        Self::Database(error.to_string())
    }
}

/// Anything that records can be read from: a database, or a batch over one.
pub trait StateReader: Sync {
    /// Reads records in the order of `keys`.
    fn read_many(
        &self,
        keys: &[StateKey],
    ) -> impl Future<Output = Result<Vec<Option<StateValue>>, StoreError>> + Send;
}

impl<E, S> StateReader for Db<E, S>
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    async fn read_many(&self, keys: &[StateKey]) -> Result<Vec<Option<StateValue>>, StoreError> {
        let keys: Vec<&StateKey> = keys.iter().collect();
        self.get_many(&keys).await.map_err(StoreError::database)
    }
}
