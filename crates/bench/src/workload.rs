//! The programs that run under valgrind. Each prints one line of JSON for each of its regions.

use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::{auction, fills, margin, sweep};

/// What to run. Passed as one argument, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Margin checks of accounts with this many positions, in regions of these numbers of checks.
    Margin {
        /// Positions of each account.
        legs: u16,
        /// Checks of each region.
        checks: Vec<u64>,
    },
    /// Blocks in which a known number of accounts breaches and a known number is touched.
    Moves {
        /// Accounts.
        accounts: u64,
        /// Numbers of accounts that breach...
        breaching: Vec<u64>,
        /// ...each with these numbers of accounts that are touched besides.
        touched: Vec<u64>,
    },
    /// A recorded crash from its opening book, block by block.
    Crash(sweep::Storm),
    /// The same book, and a gap in every market at once.
    Gap(sweep::Storm),
    /// Auctions of a zone.
    Auction(auction::Case),
    /// Blocks that settle auctions.
    Fills(fills::Case),
}

impl Workload {
    /// A name for progress and files.
    pub fn name(&self) -> String {
        match self {
            Self::Margin { legs, .. } => format!("margin-{legs}"),
            Self::Moves { accounts, .. } => format!("moves-{accounts}"),
            Self::Crash(storm) => format!("crash-{}", storm.accounts),
            Self::Gap(storm) => format!("gap-{}", storm.accounts),
            Self::Fills(case) => format!("fills-{}", case.accounts),
            Self::Auction(case) => {
                format!("auction-{:?}-{}-{}", case.shape, case.incoming, case.resting).to_lowercase()
            }
        }
    }

    /// As an argument for [`work`].
    pub fn to_argument(&self) -> String {
        serde_json::to_string(self).expect("a workload is plain data")
    }
}

/// Runs the workload that an argument describes and prints what it says of its regions.
///
/// # Errors
/// An argument that describes none.
pub fn work(argument: &str) -> io::Result<()> {
    let workload: Workload = serde_json::from_str(argument)?;
    match workload {
        Workload::Margin { legs, checks } => margin::work(legs, &checks, &mut |facts| say(&facts)),
        Workload::Moves { accounts, breaching, touched } => {
            sweep::work_moves(accounts, &breaching, &touched, &mut |facts| say(&facts));
        }
        Workload::Crash(storm) => sweep::work_crash(&storm, &mut |facts| say(&facts)),
        Workload::Gap(storm) => sweep::work_gap(&storm, &mut |facts| say(&facts)),
        Workload::Auction(case) => auction::work(&case, &mut |facts| say(&facts)),
        Workload::Fills(case) => fills::work(&case, &mut |facts| say(&facts)),
    }
    Ok(())
}

/// One line for a region.
fn say(facts: &impl Serialize) {
    let line = serde_json::to_string(facts).expect("facts are plain data");
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the one who counts reads");
}
