//! Final blocks and their certificates on disk, readable without a validator.

use crate::{
    block::Block,
    committee::Scheme,
    store::{self, StoreError},
};
use commonware_codec::varint::UInt;
use commonware_consensus::simplex::types::Finalization;
use commonware_cryptography::sha256;
use commonware_runtime::{Clock, Metrics, Storage, buffer::paged::CacheRef};
use commonware_storage::{
    archive::prunable,
    metadata::{self, Metadata},
    translator::TwoCap,
};
use commonware_utils::{NZU64, sequence::U64};
use seawall_types::Height;
use std::{num::NonZeroU64, sync::Arc};

/// What a quorum signs under a final block.
pub type Certificate = Finalization<Scheme, sha256::Digest>;
/// Final blocks by height and digest.
pub type Blocks<E> = prunable::Archive<TwoCap, E, sha256::Digest, Arc<Block>>;
/// Certificates by height of their block. A block below a certified one need not have its own.
pub type Certificates<E> = prunable::Archive<TwoCap, E, sha256::Digest, Certificate>;

/// Blocks or certificates in one archive section.
pub const ITEMS_PER_SECTION: NonZeroU64 = NZU64!(4_096);
const BLOCKS: &str = "blocks";
const CERTIFICATES: &str = "finalizations";
/// Where marshal keeps the height that the application has processed, and under which key.
const PROCESSED_PARTITION: &str = "application-metadata";
const PROCESSED_KEY: U64 = U64::new(0xFF);

fn config<C>(prefix: &str, name: &str, page_cache: CacheRef, codec_config: C) -> prunable::Config<TwoCap, C> {
    prunable::Config {
        translator: TwoCap,
        metadata_partition: format!("{prefix}-{name}-metadata"),
        key_partition: format!("{prefix}-{name}-key"),
        key_page_cache: page_cache,
        value_partition: format!("{prefix}-{name}-value"),
        compression: None,
        codec_config,
        items_per_section: ITEMS_PER_SECTION,
        key_write_buffer: store::IO_BUFFER,
        value_write_buffer: store::IO_BUFFER,
        replay_buffer: store::IO_BUFFER,
    }
}

/// Every partition that the archive of blocks writes.
pub fn block_partitions(prefix: &str) -> [String; 3] {
    partitions(prefix, BLOCKS)
}

/// Every partition that the archive of certificates writes, once there is one.
pub fn certificate_partitions(prefix: &str) -> [String; 3] {
    partitions(prefix, CERTIFICATES)
}

fn partitions(prefix: &str, name: &str) -> [String; 3] {
    ["metadata", "key", "value"].map(|kind| format!("{prefix}-{name}-{kind}"))
}

/// Opens the archive of blocks.
///
/// # Errors
/// If it cannot be read.
pub async fn blocks<E>(context: E, prefix: &str, page_cache: CacheRef) -> Result<Blocks<E>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    Blocks::init(context, config(prefix, BLOCKS, page_cache, ())).await.map_err(StoreError::database)
}

/// Opens the archive of certificates.
///
/// # Errors
/// If it cannot be read.
pub async fn certificates<E>(
    context: E,
    prefix: &str,
    page_cache: CacheRef,
) -> Result<Certificates<E>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    // A threshold certificate has one size: it needs no bounds to be decoded.
    Certificates::init(context, config(prefix, CERTIFICATES, page_cache, ()))
        .await
        .map_err(StoreError::database)
}

async fn processed_metadata<E>(context: E, prefix: &str) -> Result<Metadata<E, U64, UInt<u64>>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    let partition = format!("{prefix}-{PROCESSED_PARTITION}");
    Metadata::init(context, metadata::Config { partition, codec_config: () })
        .await
        .map_err(StoreError::database)
}

/// The height up to which marshal knows that blocks were applied durably, if it knows of any: the store is
/// never behind it.
///
/// # Errors
/// If it cannot be read.
pub async fn processed<E>(context: E, prefix: &str) -> Result<Option<Height>, StoreError>
where
    E: Storage + Clock + Metrics,
{
    let metadata = processed_metadata(context, prefix).await?;
    Ok(metadata.get(&PROCESSED_KEY).map(|height| Height(height.0)))
}

/// Tells marshal that the application has processed the archived blocks up to `height`, for a directory
/// that was not filled by a validator. The store must be at exactly that height.
///
/// The layout is marshal's own and not part of its interface. A version that looked elsewhere would find
/// nothing there and process the archived blocks again, from genesis.
///
/// # Errors
/// If it cannot be written.
pub async fn mark_processed<E>(context: E, prefix: &str, height: Height) -> Result<(), StoreError>
where
    E: Storage + Clock + Metrics,
{
    let metadata = processed_metadata(context, prefix).await?;
    metadata.put_sync(PROCESSED_KEY, UInt(height.get())).await.map(|_| ()).map_err(StoreError::database)
}
