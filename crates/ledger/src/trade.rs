//! One position changed by one trade: the only code that changes lots, cost and funding entry.
//!
//! It works on a copy that the caller commits or drops, and returns what flows out of the account, so
//! that every atom has an address.

use seawall_types::{Atoms, FundingIndex, Lots, MarginMode, MarketId};

use crate::{
    kernel,
    state::{Account, Market, Position},
};

/// What a trade moved outside the account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Funding paid into the market's pool; negative if it was received.
    pub funding: i128,
    /// What rounding added to it, scaled, in `0..2^32`.
    pub dust: u64,
    /// Change of the market's long lots.
    pub longs: i64,
}

/// Pays or receives what the position owes for funding, out of its collateral.
fn settle_funding(account: &mut Account, market: MarketId, index: FundingIndex) -> Flow {
    let Some(position) = account.position_mut(market) else {
        return Flow::default();
    };
    let growth = index.0 - position.funding_entry.0;
    if growth == 0 {
        return Flow::default();
    }
    let lots = i128::from(position.lots.0);
    let owed = kernel::funding_owed(lots, growth);
    let dust = (owed * kernel::funding_scale::<i128>() - lots * growth) as u64;
    position.funding_entry = index;
    let compartment = position.compartment();
    *account.collateral_of_mut(compartment) -= Atoms(owed);
    Flow { funding: owed, dust, longs: 0 }
}

/// Adds `lots` (signed, not zero) for `quote` atoms (signed: positive is paid). A position that opens is
/// margined by `mode`. Profit of closed lots goes to the position's collateral, and an isolated position
/// that becomes flat returns its collateral to cross.
pub(crate) fn trade(
    account: &mut Account,
    market: MarketId,
    index: FundingIndex,
    lots: i64,
    quote: i128,
    mode: MarginMode,
) -> Flow {
    debug_assert!(lots != 0);
    let mut flow = settle_funding(account, market, index);
    let before = account.lots(market).0;
    let after = before + lots;
    flow.longs = after.max(0) - before.max(0);
    let Some(position) = account.position_mut(market) else {
        let at = account.positions.partition_point(|position| position.market < market);
        account.positions.reserve_exact(1);
        account.positions.insert(
            at,
            Position {
                market,
                lots: Lots(lots),
                cost: Atoms(quote),
                funding_entry: index,
                mode,
                isolated: Atoms::ZERO,
                breached: None,
            },
        );
        return flow;
    };
    if (before > 0) == (lots > 0) {
        position.lots = Lots(after);
        position.cost += Atoms(quote);
        return flow;
    }
    // The closing part takes its share of the position's cost and of the quote with it.
    let flips = (after > 0) != (before > 0) && after != 0;
    let closing = if flips { -before } else { lots };
    let closing_quote = kernel::released_cost(quote, i128::from(closing), i128::from(lots));
    let released = kernel::released_cost(position.cost.0, i128::from(-closing), i128::from(before));
    let realised = Atoms(-closing_quote - released);
    position.lots = Lots(after);
    position.cost = if flips { Atoms(quote - closing_quote) } else { position.cost - Atoms(released) };
    let compartment = position.compartment();
    *account.collateral_of_mut(compartment) += realised;
    if after == 0 {
        let at = account.positions.partition_point(|position| position.market < market);
        let closed = account.positions.remove(at);
        account.collateral += closed.isolated;
    }
    flow
}

/// Books a trade's flow in its market. Returns whole atoms of dust, which belong to the insurance fund.
#[must_use]
pub(crate) fn book(market: &mut Market, flow: Flow) -> i128 {
    const SCALE: u64 = 1 << 32;
    market.open_interest += Lots(flow.longs);
    let dust = market.funding_dust + flow.dust;
    market.funding_dust = dust % SCALE;
    let whole = i128::from(dust / SCALE);
    market.funding_pool += Atoms(flow.funding - whole);
    whole
}
