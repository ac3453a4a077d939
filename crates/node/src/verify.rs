//! A chain executed again from its genesis: every certificate, every signature, every root. Then the
//! directory's own state is held against the chain.

use crate::offline::{ToolError, guarded, on_chain, runner};
use commonware_parallel::Sequential;
use commonware_runtime::Supervisor as _;
use commonware_utils::sys_rng;
use seawall_chain::{
    archives::Certificate,
    audit::{AuditError, Audited, Auditor},
    block::Block,
    engine::DEFAULT_PREFIX,
    genesis::Genesis,
    store::StateCommitment,
};
use seawall_types::{Digest, Height};
use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

/// Blocks that are read ahead of their execution.
const READ_AHEAD: usize = 64;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last block that is done.
    pub height: Height,
    /// The last block there is.
    pub last: Height,
}

/// A chain that is what its certificates say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Height of the last final block.
    pub height: Height,
    /// Its digest.
    pub digest: Digest,
    /// Its state root.
    pub state_root: Digest,
    /// Certificates that were checked; each covers its block and those below.
    pub certificates: u64,
    /// Actions that were executed.
    pub actions: u64,
    /// The block that the directory's own state belongs to. A validator executes what lies above when it
    /// starts.
    pub state_height: Height,
}

impl Verified {
    pub(crate) const fn new(audited: &Audited, state_height: Height) -> Self {
        let Audited { height, digest, state_root, certificates, actions } = *audited;
        Self { height, digest, state_root, certificates, actions, state_height }
    }
}

/// Why a chain does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A block is not what it says.
    #[error("block {height} does not verify: {field}: {detail}")]
    Divergence {
        /// The first such block.
        height: Height,
        /// What of it.
        field: &'static str,
        /// How.
        detail: String,
    },
}

impl From<AuditError> for VerifyError {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Divergence { height, field, detail } => Self::Divergence { height, field, detail },
            AuditError::Start(error) => ToolError::Failed(error.to_string()).into(),
            AuditError::Store(error) => {
                ToolError::Failed(format!("the temporary store failed: {error}")).into()
            }
        }
    }
}

/// Executes the chain in a data directory again, in a temporary store, and compares everything. Reading and
/// executing share the work of two threads.
///
/// # Errors
/// If the directory cannot be used or read, or a block diverges: the first one.
pub fn verify(
    directory: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    progress: impl FnMut(Progress) + Send,
) -> Result<Verified, VerifyError> {
    let temporary =
        tempfile::tempdir().map_err(|error| ToolError::Failed(format!("no temporary directory: {error}")))?;
    let (sender, receiver) = mpsc::sync_channel(READ_AHEAD);
    let (executed, read) = thread::scope(|scope| {
        let executing = scope.spawn(|| execute(temporary.path(), genesis, commitment, receiver, progress));
        let read = on_chain(directory, genesis, commitment, async move |chain| {
            let last = chain.complete()?;
            // The state first: what is wrong with it need not wait for the last block.
            let state = chain.state().await?;
            for height in 1..=last.get() {
                let (block, certificate) = chain.block(Height(height)).await?;
                if sender.send((last, block, certificate)).is_err() {
                    break;
                }
            }
            Ok::<_, ToolError>(state.height)
        });
        (executing.join(), read)
    });
    let executed = executed.map_err(|_| ToolError::Failed("the progress display panicked".into()))?;
    match (executed, read) {
        // A block that was read and is wrong comes before one that could not be read.
        (Err(error @ VerifyError::Divergence { .. }), Ok(_)) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (executed, Ok(state_height)) => Ok(Verified::new(&executed?, state_height)),
    }
}

type Read = (Height, Arc<Block>, Option<Certificate>);

fn execute(
    temporary: &Path,
    genesis: &Genesis,
    commitment: &StateCommitment,
    blocks: mpsc::Receiver<Read>,
    mut progress: impl FnMut(Progress) + Send,
) -> Result<Audited, VerifyError> {
    use commonware_runtime::Runner as _;
    guarded(
        || {
            runner(temporary).start(|context| async move {
                let mut rng = sys_rng();
                let mut auditor =
                    Auditor::new(context.child("audit"), DEFAULT_PREFIX, genesis, commitment, Sequential)
                        .await?;
                while let Ok((last, block, certificate)) = blocks.recv() {
                    auditor.step(&mut rng, &block, certificate).await?;
                    progress(Progress { height: block.header.height, last });
                }
                Ok(auditor.finish(&mut rng).await?)
            })
        },
        |message| ToolError::Failed(format!("executing the chain failed: {message}")).into(),
    )
}
