//! What work costs where time is simulated. A simulated clock stands still while code runs, so whoever works asks here
//! what a real machine would have spent, and sleeps. Where time is real, work takes what it takes and costs nothing here.

use commonware_runtime::Clock;
use seawall_types::Lane;
use std::{sync::Arc, time::Duration};

/// Work that takes a processor long enough to matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Signatures of arriving actions were checked in one batch.
    Ingress {
        /// Lane of the actions.
        lane: Lane,
        /// How many signatures.
        signatures: u32,
    },
    /// A block was executed by its leader, who had checked the signatures of its actions when they arrived.
    Build {
        /// Weight of its actions: each order of a bulk action counts.
        actions: u32,
    },
    /// A block's signatures were checked and its actions executed.
    Verify {
        /// Weight of its actions.
        actions: u32,
        /// Signatures, those of observations included. None of a final block, which a quorum has checked.
        signatures: u32,
    },
}

/// What each piece of work costs one core.
#[derive(Clone)]
pub struct Costs(Option<Arc<dyn Fn(Work) -> Duration + Send + Sync>>);

impl Costs {
    /// Where time is real.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Where it is simulated.
    pub fn charged(cost: impl Fn(Work) -> Duration + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(cost)))
    }

    /// Lets the time pass that `work` takes. Whoever calls does nothing else meanwhile.
    pub async fn spend(&self, clock: &impl Clock, work: Work) {
        let Some(cost) = &self.0 else { return };
        let cost = cost(work);
        if !cost.is_zero() {
            clock.sleep(cost).await;
        }
    }
}
