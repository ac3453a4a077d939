//! The place of peer state sync, which is not offered yet: a validator catches up from blocks.
//!
//! The framework wants a source of state to sync from; this one never answers and is never asked, because
//! no validator starts with a sync floor.

use crate::store::{Db, Family, Op};
use commonware_cryptography::sha256;
use commonware_glue::stateful::db::{AttachableResolver, Shared};
use commonware_parallel::Strategy;
use commonware_runtime::Spawner;
use commonware_storage::{
    Context as StorageContext,
    qmdb::sync::{Request, Source, source},
};
use std::convert::Infallible;

/// A source without peers.
#[derive(Clone, Copy, Debug)]
pub struct NoPeers;

impl Source for NoPeers {
    type Family = Family;
    type Digest = sha256::Digest;
    type Op = Op;
    type Error = Infallible;

    async fn serve(&self, _: Request<Family>) -> source::Result<Self> {
        std::future::pending().await
    }
}

impl<E, S> AttachableResolver<Db<E, S>> for NoPeers
where
    E: StorageContext + Spawner,
    S: Strategy,
{
    async fn attach_database(&self, _: Shared<Db<E, S>>) {}
}
