//! The sweep: what happens to compartments in breach, in every block.
//!
//! A compartment is in breach when its equity at fresh prices, blind legs counted in its favour, is below
//! maintenance. Only fresh legs are ever touched.
//!
//! **Order.** Who has waited longest allowed goes first, then the largest shortfall. A block takes as many
//! steps (one leg of one compartment) as it reserves, or the backlog divided by the longest wait if that
//! is more; who is overdue goes in any case. So nobody waits longer than the limit and the load of a crash
//! is spread evenly.
//!
//! **With equity left** the ladder closes legs by falling maintenance margin, of each the fewest lots
//! that restore initial margin:
//! 1. orders that add risk were cancelled before (their reservation stays until nothing can fill them: see the
//!    `orders` module), wherever available margin is below zero;
//! 2. where zones close positions (`late_after`), closes enter the auctions of this block, limited by the leg's
//!    bankruptcy price, and the rest of the ladder waits for their outcome: until it is settled, the zone is
//!    late, or the compartment has waited as long as any may. Filled lots pay the penalty instead of a fee;
//! 3. the [`CloseVenue`] sells what it can at or above the leg's bankruptcy price;
//! 4. the market's backstop takes over at the mark price less the penalty, within its capacity, its block
//!    limit and its own initial margin; netting with an opposite position needs neither;
//! 5. what is left is deleveraged on the same terms.
//!
//! The penalty never exceeds the equity. It goes to whoever takes over (to the fund after a sale).
//!
//! **Without equity** all fresh legs close. The deficit is split over them by maintenance margin, and each
//! part is locked first: the market's fund pays what its account can spare, then the insurance fund. A leg
//! whose part is paid closes at the mark price, to the backstop as above; any other is deleveraged at its
//! bankruptcy price.
//!
//! **Deleveraging** is settled once a sweep and market. Longs and shorts to be deleveraged net against
//! each other; the rest closes against the opposite side, pro rata by largest remainder (ties to the
//! lower account): first the lots that an account's cross positions elsewhere do not hedge, then hedged
//! ones, accounts without equity last. Gains and charges follow the lots. No compartment is charged more
//! than its equity; what that leaves is charged to the others that were deleveraged, then to the funds.
//!
//! **The last rung.** What nobody can pay is booked as an uncovered deficit, which the insurance fund's
//! income repays first, and the market is quarantined. The block always ends, and every atom is booked.

use core::cmp::Reverse;
use std::collections::BinaryHeap;

use seawall_types::{
    AccountId, Atoms, Height, Kind, Lots, MarginMode, MarketId, OrderId, PriceTicks, Side, Terms, limits,
};

use crate::{
    health::{self, Sums, Valuation},
    index::Breach,
    kernel::{self, Distress, Int},
    ledger::{Ledger, SweepMode, compartments},
    state::{AccountKind, Compartment, QuarantineReason},
    trade,
    triggers::TriggerEnd,
};

/// Where a liquidation can sell before the backstop takes over: the auction, one day.
pub trait CloseVenue {
    /// Fills for an order, at its limit or better, together not more than its lots. What does not hold is
    /// ignored, as is a fill that its maker's margin does not cover.
    fn close(&mut self, order: &CloseOrder) -> Vec<VenueFill>;
}

/// No venue: nothing is filled.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoVenue;

impl CloseVenue for NoVenue {
    fn close(&mut self, _: &CloseOrder) -> Vec<VenueFill> {
        Vec::new()
    }
}

/// What liquidation wants to trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseOrder {
    /// Account in breach.
    pub account: AccountId,
    /// Market.
    pub market: MarketId,
    /// Signed: negative sells.
    pub lots: Lots,
    /// The leg's bankruptcy price: lowest for a sale, highest for a purchase.
    pub limit: PriceTicks,
}

/// Somebody trades with a liquidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueFill {
    /// Who.
    pub maker: AccountId,
    /// Size, positive.
    pub lots: Lots,
    /// Price.
    pub price: PriceTicks,
}

/// What a block did to the state by itself: liquidation, and orders that nobody asked for in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A leg was closed, wholly or in part.
    Liquidated(Liquidated),
    /// A close of a leg went into the next auction, or was on its way when the breach was found: where there are auctions,
    /// the first step of the ladder.
    Closing {
        /// Market.
        market: MarketId,
        /// Whose.
        account: AccountId,
        /// Compartment.
        compartment: Compartment,
        /// How many lots.
        lots: Lots,
        /// Since when the compartment is in breach at fresh prices.
        breached: Height,
    },
    /// A position was reduced to close a liquidated one.
    Deleveraged {
        /// Market.
        market: MarketId,
        /// Whose.
        account: AccountId,
        /// Change of the position, signed.
        lots: Lots,
        /// Mark price.
        mark: PriceTicks,
        /// What it got above the mark price; negative if it was charged.
        gain: Atoms,
    },
    /// A deficit was paid.
    DeficitPaid {
        /// Market.
        market: MarketId,
        /// Whose.
        account: AccountId,
        /// From the market's ring-fenced fund.
        fund: Atoms,
        /// From the insurance fund.
        insurance: Atoms,
    },
    /// A forced trade left a compartment empty with a deficit, which was taken off it.
    DeficitTaken {
        /// Market.
        market: MarketId,
        /// Whose.
        account: AccountId,
        /// How much.
        amount: Atoms,
    },
    /// A deficit that nobody could pay was booked.
    Uncovered {
        /// Market.
        market: MarketId,
        /// How much.
        amount: Atoms,
    },
    /// A market went out of service.
    Quarantined {
        /// Market.
        market: MarketId,
        /// Why.
        reason: QuarantineReason,
    },
    /// Compartments in breach were left for the next block.
    BudgetHit {
        /// How many.
        waiting: u32,
    },
    /// An order whose trigger was crossed entered its zone.
    Activated {
        /// The id that it had while it waited.
        trigger: OrderId,
        /// Its id from now on.
        order: OrderId,
        /// Whose.
        account: AccountId,
        /// Market.
        market: MarketId,
        /// Lots that it entered with: of a closing order, those that were there to be closed.
        lots: Lots,
    },
    /// An order ended while it waited for its trigger, or for its turn.
    TriggerEnded {
        /// Its id.
        trigger: OrderId,
        /// Whose.
        account: AccountId,
        /// Market.
        market: MarketId,
        /// Why.
        reason: TriggerEnd,
    },
    /// The scheduled cancel of an account came due.
    ScheduledCancel {
        /// Whose.
        account: AccountId,
        /// How many orders it cancelled.
        orders: u32,
    },
}

/// A leg closed by liquidation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Liquidated {
    /// Market.
    pub market: MarketId,
    /// Account.
    pub account: AccountId,
    /// Compartment.
    pub compartment: Compartment,
    /// Position before.
    pub position: Lots,
    /// Lots sold at the venue. All sizes here are positive.
    pub venue: Lots,
    /// Lots that the backstop took over.
    pub backstop: Lots,
    /// Lots left to deleveraging.
    pub deleveraged: Lots,
    /// Mark price.
    pub mark: PriceTicks,
    /// Paid to whoever took over.
    pub penalty: Atoms,
    /// Deficit of this leg.
    pub deficit: Atoms,
    /// When the compartment was first found in breach.
    pub breached: Height,
    /// When this happened; the difference is the delay in blocks.
    pub height: Height,
}

/// Counters of a sweep. Only `examined` and `in_breach` may differ between validators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Accounts examined.
    pub examined: u64,
    /// Compartments in breach with a fresh leg.
    pub in_breach: u64,
    /// Compartments that the ladder worked on.
    pub liquidations: u64,
    /// Legs that were closed in part.
    pub partial: u64,
    /// Ladder steps taken.
    pub steps: u64,
    /// Legs that the backstop took lots of.
    pub backstop_takeovers: u64,
    /// Positions reduced by deleveraging.
    pub deleveraged: u64,
    /// Deficits found.
    pub bad_debt: Atoms,
    /// Paid by ring-fenced funds.
    pub fund_draw: Atoms,
    /// Paid by the insurance fund.
    pub insurance_draw: Atoms,
    /// Charged to deleveraged positions.
    pub socialised: Atoms,
    /// Left to nobody.
    pub uncovered: Atoms,
    /// One if compartments were left waiting.
    pub budget_hits: u64,
    /// Compartments left waiting.
    pub waiting: u64,
    /// Their shortfall against maintenance.
    pub unliquidated_breach: Atoms,
    /// Longest delay from first breach to first step, in blocks.
    pub longest_delay_blocks: u64,
    /// Legs closed without a fresh price, counted from the mark itself. Always zero.
    pub stale_price_liquidations: u64,
}

/// What a sweep collects in a market before it deleverages.
#[derive(Clone, Copy, Debug, Default)]
struct Pool {
    /// Lots to place, signed.
    lots: i64,
    /// What they cost.
    quote: i128,
    /// Lots that the backstop took in this block.
    taken: i64,
    used: bool,
}

struct Sweep<'a> {
    venue: &'a mut dyn CloseVenue,
    report: SweepReport,
    pools: Vec<Pool>,
}

/// Auto-deleveraging in a market spreads over this many of the largest positions of a class, pro rata...
const ADL_COUNTERPARTIES: usize = 1_024;
/// ...or over as many more as it takes for them to hold this many times the lots to place.
const ADL_COVER: i64 = 2;

impl Ledger {
    /// Liquidates what is in breach, within the block's budget.
    ///
    /// # Panics
    /// If no block is in progress.
    pub fn sweep(&mut self, venue: &mut dyn CloseVenue) -> SweepReport {
        self.drop_risk();
        let (breaches, examined) = self.find_breaches(self.mode == SweepMode::FullScan);
        let height = self.globals.height;
        let mut sweep = Sweep {
            venue,
            report: SweepReport {
                examined: examined.len() as u64,
                in_breach: breaches.len() as u64,
                ..SweepReport::default()
            },
            pools: vec![Pool::default(); self.markets.len()],
        };
        self.forget_recovered(&examined, &breaches);
        let longest = u64::from(self.globals.max_wait_blocks);
        let mut queue: Vec<_> = breaches
            .iter()
            .map(|breach| {
                let since = self.slots[breach.account as usize].account.breached(breach.compartment);
                let overdue = since.is_some_and(|since| height.0 - since.0 >= longest);
                let shortfall = breach.sums.maintenance - breach.sums.equity * 1_000_000;
                let rank = (!overdue, if overdue { since } else { None }, -shortfall);
                (rank, breach.account, breach.compartment)
            })
            .collect();
        queue.sort_unstable();
        let spread = (queue.len() as u64).div_ceil(longest);
        let budget = u64::from(self.globals.liquidation_steps).max(spread);
        for ((in_time, ..), account, compartment) in queue {
            if in_time && sweep.report.steps >= budget {
                self.leave_waiting(account, compartment, &mut sweep.report);
            } else {
                self.liquidate(account, compartment, &mut sweep);
            }
        }
        for at in 0..self.markets.len() {
            if sweep.pools[at].used {
                self.deleverage(MarketId(at as u16), sweep.pools[at], &mut sweep.report);
            }
        }
        self.drop_uncovered();
        if sweep.report.waiting > 0 {
            sweep.report.budget_hits = 1;
            self.push_event(Event::BudgetHit { waiting: sweep.report.waiting as u32 });
        }
        sweep.report
    }

    /// Whoever was waiting and is no longer in breach waits no more.
    fn forget_recovered(&mut self, examined: &[u32], breaches: &[Breach]) {
        for &id in examined {
            let account = &self.slots[id as usize].account;
            if account.breached.is_none() && account.positions.iter().all(|leg| leg.breached.is_none()) {
                continue;
            }
            let recovered: Vec<_> = compartments(account)
                .filter(|&compartment| account.breached(compartment).is_some())
                .filter(|&compartment| {
                    let key = |breach: &Breach| (breach.account, breach.compartment);
                    breaches.binary_search_by_key(&(id, compartment), key).is_err()
                })
                .collect();
            for compartment in recovered {
                self.account_mut(id).set_breached(compartment, None);
            }
        }
    }

    fn leave_waiting(&mut self, id: u32, compartment: Compartment, report: &mut SweepReport) {
        let sums = self.favourable(id, compartment);
        if !sums.in_breach() {
            return;
        }
        report.waiting += 1;
        report.unliquidated_breach += Atoms(sums.maintenance_atoms() - sums.equity);
        let height = self.globals.height;
        if self.slots[id as usize].account.breached(compartment).is_none() {
            self.account_mut(id).set_breached(compartment, Some(height));
        }
    }

    fn favourable(&self, id: u32, compartment: Compartment) -> Sums {
        health::sums(&self.slots[id as usize].account, compartment, &self.sheets, Valuation::Favourable)
    }

    /// Fresh legs of a compartment with their maintenance margin, largest first.
    fn fresh_legs(&self, id: u32, compartment: Compartment) -> Vec<(i128, MarketId)> {
        let account = &self.slots[id as usize].account;
        let mut legs: Vec<_> = account
            .positions
            .iter()
            .filter(|leg| leg.compartment() == compartment)
            .map(|leg| (leg, &self.sheets[usize::from(leg.market.0)]))
            .filter(|(_, sheet)| sheet.fresh)
            .map(|(leg, sheet)| (sheet.margin(leg.lots.0, Valuation::Favourable).maintenance, leg.market))
            .collect();
        legs.sort_unstable_by_key(|&(maintenance, market)| (-maintenance, market));
        legs
    }

    fn liquidate(&mut self, id: u32, compartment: Compartment, sweep: &mut Sweep<'_>) {
        let height = self.globals.height;
        let since = self.slots[id as usize].account.breached(compartment).unwrap_or(height);
        let sums = self.favourable(id, compartment);
        let legs = self.fresh_legs(id, compartment);
        // Deleveraging or a takeover earlier in this sweep may have changed the account.
        if !sums.in_breach() || legs.is_empty() {
            self.clear_breached(id, compartment);
            return;
        }
        sweep.report.liquidations += 1;
        sweep.report.longest_delay_blocks = sweep.report.longest_delay_blocks.max(height.0 - since.0);
        if sums.equity <= 0 {
            self.close_all(id, compartment, -sums.equity, &legs, since, sweep);
        } else {
            if self.close_in_auctions(id, compartment, &legs, since, sweep) {
                self.account_mut(id).set_breached(compartment, Some(since));
                return;
            }
            for (_, market) in legs {
                if self.favourable(id, compartment).covers_initial() {
                    break;
                }
                // An uncovered deficit on the way may have put the market out of service.
                if !self.sheets[usize::from(market.0)].fresh {
                    continue;
                }
                self.close_part(id, compartment, market, since, sweep);
            }
        }
        self.clear_breached(id, compartment);
    }

    /// A compartment that the ladder has worked on waits for nothing; if it is still in breach, only blind
    /// legs are left or a later breach begins.
    fn clear_breached(&mut self, id: u32, compartment: Compartment) {
        if self.slots[id as usize].account.breached(compartment).is_some() {
            self.account_mut(id).set_breached(compartment, None);
        }
    }

    /// Closes the fewest lots of a leg that restore initial margin.
    fn close_part(
        &mut self,
        id: u32,
        compartment: Compartment,
        market: MarketId,
        since: Height,
        sweep: &mut Sweep<'_>,
    ) {
        let at = usize::from(market.0);
        let before = self.slots[id as usize].account.lots(market).0;
        let mut event = self.event(id, compartment, market, since);
        let own = matches!(self.slots[id as usize].account.kind, AccountKind::Backstop(_));
        let rate = if own { 0 } else { i128::from(self.markets[at].params.liquidation.penalty_ppm.0) };
        let wanted = self.lots_wanted(id, compartment, market, rate);
        self.sell_at_venue(id, compartment, market, wanted, rate, &mut event, sweep);
        let left = self.slots[id as usize].account.lots(market).0;
        let sums = self.favourable(id, compartment);
        if left != 0 && !sums.covers_initial() {
            let size =
                if event.venue.0 == 0 { wanted } else { self.lots_wanted(id, compartment, market, rate) };
            let unit = i128::from(self.sheets[at].unit);
            let penalty = kernel::penalty(unit * i128::from(size), rate, sums.equity);
            event.penalty += Atoms(penalty);
            self.hand_over(id, market, size, penalty, true, &mut event, sweep);
        }
        sweep.report.partial += u64::from(self.slots[id as usize].account.lots(market).0 != 0);
        sweep.report.steps += 1;
        debug_assert!(self.slots[id as usize].account.lots(market).0.abs() < before.abs());
        self.push_event(Event::Liquidated(event));
    }

    fn lots_wanted(&self, id: u32, compartment: Compartment, market: MarketId, rate: i128) -> i64 {
        let sheet = &self.sheets[usize::from(market.0)];
        let sums = self.favourable(id, compartment);
        let size = i128::from(self.slots[id as usize].account.lots(market).0.unsigned_abs());
        let of = Distress { equity: sums.equity, initial: sums.initial };
        kernel::lots_to_close(of, i128::from(sheet.unit), size, rate, &sheet.tiers) as i64
    }

    fn event(&self, id: u32, compartment: Compartment, market: MarketId, since: Height) -> Liquidated {
        Liquidated {
            market,
            account: AccountId(u64::from(id)),
            compartment,
            position: self.slots[id as usize].account.lots(market),
            venue: Lots::ZERO,
            backstop: Lots::ZERO,
            deleveraged: Lots::ZERO,
            mark: self.mark_price(market),
            penalty: Atoms::ZERO,
            deficit: Atoms::ZERO,
            breached: since,
            height: self.globals.height,
        }
    }

    fn mark_price(&self, market: MarketId) -> PriceTicks {
        self.markets[usize::from(market.0)].mark.map_or(PriceTicks(0), |mark| mark.last_known().0)
    }

    /// The price at which a leg's share of its compartment's equity ends: nobody closes it at a worse one. Rounded
    /// against the account, and inside the market's range.
    fn bankruptcy_limit(&self, id: u32, compartment: Compartment, market: MarketId) -> PriceTicks {
        let at = usize::from(market.0);
        let position = self.slots[id as usize].account.lots(market).0;
        let sums = self.favourable(id, compartment);
        let (sheet, params) = (&self.sheets[at], &self.markets[at].params);
        let unit = i128::from(sheet.unit);
        let margin = sheet.margin(position, Valuation::Favourable).maintenance;
        // Exact for ordinary sizes; cut so that the product fits for the largest, against the account.
        let cut = (128 - sums.maintenance.leading_zeros()).saturating_sub(60);
        let share =
            (sums.equity.max(0) * (margin >> cut)).floor_div((sums.maintenance >> cut) + i128::from(cut > 0));
        let bankrupt = kernel::bankruptcy_unit(unit, i128::from(position), share);
        let tick = i128::from(params.atoms_per_tick_lot);
        let (low, high) = (i128::from(params.min_price.0), i128::from(params.max_price.0));
        let limit = if position > 0 { bankrupt.ceil_div(tick) } else { bankrupt.floor_div(tick) };
        PriceTicks(limit.clamp(low, high) as u64)
    }

    /// Lets the auctions of this block close what restores initial margin, closes on their way included. `false`
    /// if the ladder goes on without them, and then nothing has changed: a market of the legs does not close in
    /// auctions, or its zone is late; a close of the compartment came back unfilled in this block; the
    /// compartment has waited as long as any may; the inbox is full; or it is the backstop's own.
    ///
    /// Legs close by falling maintenance margin, as on the ladder. What is on its way counts as closed at the mark
    /// price, less the penalty.
    fn close_in_auctions(
        &mut self,
        id: u32,
        compartment: Compartment,
        legs: &[(i128, MarketId)],
        since: Height,
        sweep: &mut Sweep<'_>,
    ) -> bool {
        let waited = self.globals.height.0 - since.0;
        let own = matches!(self.slots[id as usize].account.kind, AccountKind::Backstop(_));
        if own
            || waited >= u64::from(self.globals.max_wait_blocks)
            || legs.iter().any(|(_, market)| self.is_late(*market) || self.is_unfilled(id, *market))
        {
            return false;
        }
        let sums = self.favourable(id, compartment);
        let mut of = Distress { equity: sums.equity, initial: sums.initial };
        let (mut closes, mut coming) = (Vec::new(), Vec::new());
        for &(_, market) in legs {
            if of.equity * 1_000_000 >= of.initial {
                break;
            }
            let at = usize::from(market.0);
            let held = self.slots[id as usize].account.lots(market).0;
            let (sheet, params) = (&self.sheets[at], &self.markets[at].params);
            let (unit, rate) = (i128::from(sheet.unit), i128::from(params.liquidation.penalty_ppm.0));
            let close = |of: Distress<i128>, from: i128, closed: i128| Distress {
                equity: of.equity - kernel::penalty(unit * closed, rate, of.equity),
                initial: of.initial - kernel::margin(unit * from, &sheet.tiers).initial
                    + kernel::margin(unit * (from - closed), &sheet.tiers).initial,
            };
            let size = i128::from(held.unsigned_abs());
            let on_way = i128::from(self.closes_on_way(id, market)).min(size);
            of = close(of, size, on_way);
            if on_way > 0 {
                coming.push((market, Lots(on_way as i64)));
            }
            let left = size - on_way;
            if left > 0 && of.equity * 1_000_000 < of.initial {
                let wanted = kernel::lots_to_close(of, unit, left, rate, &sheet.tiers);
                of = close(of, left, wanted);
                closes.push((market, held, wanted as i64));
            }
        }
        if !self.place_closes(id, compartment, &closes, since) {
            return false;
        }
        sweep.report.steps += closes.len() as u64;
        if closes.is_empty() && waited == 0 {
            let account = AccountId(u64::from(id));
            for (market, lots) in coming {
                self.push_event(Event::Closing { market, account, compartment, lots, breached: since });
            }
        }
        true
    }

    /// Puts closes into the inboxes of this height, if they take them all.
    fn place_closes(
        &mut self,
        id: u32,
        compartment: Compartment,
        closes: &[(MarketId, i64, i64)],
        since: Height,
    ) -> bool {
        let orders: Vec<Terms> = closes
            .iter()
            .map(|&(market, held, lots)| Terms {
                market,
                side: if held > 0 { Side::Sell } else { Side::Buy },
                limit: self.bankruptcy_limit(id, compartment, market),
                lots: Lots(lots),
                kind: Kind::Liquidation,
                reduce_only: true,
                good_til: None,
                cloid: None,
            })
            .collect();
        if !self.has_room(orders.len(), limits::MAX_ENTRIES_PER_INBOX) {
            return false;
        }
        for terms in orders {
            let (market, lots) = (terms.market, terms.lots);
            let account = AccountId(u64::from(id));
            self.place(account, terms);
            self.push_event(Event::Closing { market, account, compartment, lots, breached: since });
        }
        self.force(id);
        true
    }

    /// Offers lots to the venue and settles the fills that hold.
    #[allow(clippy::too_many_arguments)]
    fn sell_at_venue(
        &mut self,
        id: u32,
        compartment: Compartment,
        market: MarketId,
        lots: i64,
        rate: i128,
        event: &mut Liquidated,
        sweep: &mut Sweep<'_>,
    ) {
        let at = usize::from(market.0);
        let direction = -self.slots[id as usize].account.lots(market).0.signum();
        let limit = self.bankruptcy_limit(id, compartment, market);
        let params = &self.markets[at].params;
        let maker_fee = i128::from(params.maker_fee_ppm.0);
        let order =
            CloseOrder { account: AccountId(u64::from(id)), market, lots: Lots(direction * lots), limit };
        let mut left = lots;
        for fill in sweep.venue.close(&order) {
            let params = &self.markets[at].params;
            let better = if direction < 0 { fill.price >= limit } else { fill.price <= limit };
            let in_range = (params.min_price..=params.max_price).contains(&fill.price);
            let known = self.account(fill.maker).is_some_and(|maker| {
                !matches!(maker.kind, AccountKind::Backstop(_)) && fill.maker != order.account
            });
            if !better || !in_range || !known || fill.lots.0 <= 0 || fill.lots.0 > left {
                continue;
            }
            let unit = params.unit(fill.price);
            let notional = kernel::value(unit, i128::from(fill.lots.0));
            let fee = kernel::fee(notional, maker_fee);
            let maker = fill.maker.0 as usize;
            let signed = direction * fill.lots.0;
            let Ok((next, flow)) =
                self.plan_side(maker as u32, &self.slots[maker].account, market, -signed, unit, fee)
            else {
                continue;
            };
            self.commit(maker as u32, market, next);
            self.book(market, flow);
            self.credit_insurance(fee);
            self.count_freshness(market, &mut sweep.report);
            let penalty = kernel::penalty(notional, rate, self.favourable(id, compartment).equity);
            let quote = notional * i128::from(direction) + penalty;
            self.ladder_trade(id, market, signed, quote, &mut sweep.report);
            let backstop = self.markets[at].backstop.0 as u32;
            self.account_mut(backstop).collateral += Atoms(penalty);
            event.venue += fill.lots;
            event.penalty += Atoms(penalty);
            left -= fill.lots.0;
        }
    }

    /// Closes every fresh leg of a compartment whose equity is gone.
    fn close_all(
        &mut self,
        id: u32,
        compartment: Compartment,
        deficit: i128,
        legs: &[(i128, MarketId)],
        since: Height,
        sweep: &mut Sweep<'_>,
    ) {
        sweep.report.bad_debt += Atoms(deficit);
        // Cut to 2^62 so that the products in the split fit.
        let weights: Vec<i128> = legs.iter().map(|(maintenance, _)| (maintenance >> 20) + 1).collect();
        let parts = kernel::apportion(deficit, &weights);
        for (&(_, market), part) in legs.iter().zip(parts) {
            // An uncovered deficit on the way may have put the market out of service.
            if !self.sheets[usize::from(market.0)].fresh {
                continue;
            }
            let mut event = self.event(id, compartment, market, since);
            event.deficit = Atoms(part);
            let left = self.pay_deficit(id, market, part, &mut sweep.report);
            *self.account_mut(id).collateral_of_mut(compartment) += Atoms(part - left);
            let size = event.position.0.abs();
            self.hand_over(id, market, size, -left, left == 0, &mut event, sweep);
            sweep.report.steps += 1;
            self.push_event(Event::Liquidated(event));
        }
    }

    /// Takes a deficit from the market's fund, then from insurance. Returns what is left of it. The caller
    /// books the payment where the deficit is.
    fn pay_deficit(&mut self, id: u32, market: MarketId, deficit: i128, report: &mut SweepReport) -> i128 {
        let backstop = self.markets[usize::from(market.0)].backstop.0 as u32;
        let fund = if backstop == id {
            0
        } else {
            health::spare(&self.slots[backstop as usize].account, Compartment::Cross, &self.sheets)
        };
        let paid = kernel::waterfall(deficit, fund, self.globals.insurance.0);
        if paid.fund + paid.insurance > 0 {
            if paid.fund > 0 {
                self.account_mut(backstop).collateral -= Atoms(paid.fund);
            }
            self.globals.insurance -= Atoms(paid.insurance);
            report.fund_draw += Atoms(paid.fund);
            report.insurance_draw += Atoms(paid.insurance);
            self.push_event(Event::DeficitPaid {
                market,
                account: AccountId(u64::from(id)),
                fund: Atoms(paid.fund),
                insurance: Atoms(paid.insurance),
            });
        }
        paid.left
    }

    /// Closes `size` lots of a leg at the mark price less `penalty` (a negative one is a deficit that its
    /// takers will be charged): to the backstop if it may take them, else to deleveraging.
    #[allow(clippy::too_many_arguments)]
    fn hand_over(
        &mut self,
        id: u32,
        market: MarketId,
        size: i64,
        penalty: i128,
        backstop_may: bool,
        event: &mut Liquidated,
        sweep: &mut Sweep<'_>,
    ) {
        let at = usize::from(market.0);
        let side = self.slots[id as usize].account.lots(market).0.signum();
        let unit = i128::from(self.sheets[at].unit);
        self.count_freshness(market, &mut sweep.report);
        let backstop = self.markets[at].backstop.0 as u32;
        let room = if backstop_may && backstop != id {
            self.backstop_room(market, side, size, sweep.pools[at].taken)
        } else {
            Room::default()
        };
        let taken = room.netting + room.opening;
        let given = kernel::value(unit, i128::from(-side * size)) + penalty;
        self.ladder_trade(id, market, -side * size, given, &mut sweep.report);
        // The part of the penalty that goes with the taken lots, rounded down; the rest goes with the rest.
        let share =
            if taken == size { penalty } else { (penalty * i128::from(taken)).floor_div(i128::from(size)) };
        if taken > 0 {
            let quote = kernel::value(unit, i128::from(side * taken)) - share;
            self.ladder_trade(backstop, market, side * taken, quote, &mut sweep.report);
            sweep.pools[at].taken += room.opening;
            sweep.report.backstop_takeovers += 1;
            event.backstop += Lots(taken);
        }
        let rest = size - taken;
        if rest > 0 {
            let pool = &mut sweep.pools[at];
            pool.used = true;
            pool.lots += side * rest;
            pool.quote += kernel::value(unit, i128::from(side * rest)) - (penalty - share);
            event.deleveraged += Lots(rest);
        }
    }

    fn count_freshness(&self, market: MarketId, report: &mut SweepReport) {
        let fresh = self.markets[usize::from(market.0)].mark.is_some_and(|mark| mark.is_fresh());
        report.stale_price_liquidations += u64::from(!fresh);
    }

    /// A trade that the ladder imposes. A compartment that it leaves empty with a deficit has it paid, or
    /// booked as uncovered, so that an isolated deficit never reaches cross and none is forgotten.
    fn ladder_trade(&mut self, id: u32, market: MarketId, lots: i64, quote: i128, report: &mut SweepReport) {
        self.imposed_trade(id, market, lots, quote, 0, MarginMode::Cross, report);
        self.force(id);
    }

    /// A trade that nothing can refuse, of the ladder or of an auction, with its fee, which the caller books. A
    /// position that opens is margined by `opens`. What is reserved for the account's orders follows.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn imposed_trade(
        &mut self,
        id: u32,
        market: MarketId,
        lots: i64,
        quote: i128,
        fee: i128,
        opens: MarginMode,
        report: &mut SweepReport,
    ) {
        self.imposed_trade_unreserved(id, market, lots, quote, fee, opens, report);
        self.reserve(id);
    }

    /// The same, but what is reserved for the account's orders is left to the caller.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn imposed_trade_unreserved(
        &mut self,
        id: u32,
        market: MarketId,
        lots: i64,
        quote: i128,
        fee: i128,
        opens: MarginMode,
        report: &mut SweepReport,
    ) {
        let index = self.sheets[usize::from(market.0)].index;
        let account = self.account_mut(id);
        let mode = account.position(market).map_or(opens, |position| position.mode);
        let compartment = match mode {
            MarginMode::Cross => Compartment::Cross,
            MarginMode::Isolated => Compartment::Isolated(market),
        };
        let cross = account.collateral;
        let flow = trade::trade(account, market, index, lots, quote, mode);
        // An isolated position that became flat pays from what it just returned to cross.
        *account.collateral_of_mut(compartment) -= Atoms(fee);
        let gone = account.position(market).is_none();
        let deficit = match mode {
            MarginMode::Isolated if gone => cross - account.collateral,
            MarginMode::Cross if account.positions.iter().all(|leg| leg.mode != MarginMode::Cross) => {
                -account.collateral
            }
            _ => Atoms::ZERO,
        };
        self.book(market, flow);
        if deficit > Atoms::ZERO {
            self.account_mut(id).collateral += deficit;
            report.bad_debt += deficit;
            let account = AccountId(u64::from(id));
            self.push_event(Event::DeficitTaken { market, account, amount: deficit });
            let left = self.pay_deficit(id, market, deficit.0, report);
            self.leave_uncovered(market, left, report);
        }
        self.drop_orphans(id, market);
    }

    /// How many lots the backstop can take of a position on `side`.
    fn backstop_room(&self, market: MarketId, side: i64, size: i64, taken: i64) -> Room {
        let at = usize::from(market.0);
        let params = &self.markets[at].params.backstop;
        let account = &self.slots[self.markets[at].backstop.0 as usize].account;
        let held = side * account.lots(market).0;
        let netting = (-held).clamp(0, size);
        let open = held + netting;
        let most =
            (params.capacity_lots.0 - open).min(params.per_block_lots.0 - taken).clamp(0, size - netting);
        if most == 0 {
            return Room { netting, opening: 0 };
        }
        let sheet = &self.sheets[at];
        let equity = health::sums(account, Compartment::Cross, &self.sheets, Valuation::Adverse).equity;
        // The most lots whose initial margin the fund carries: the requirement grows with the lots.
        let (mut yes, mut no) = (0, most + 1);
        while no - yes > 1 {
            let middle = yes + (no - yes) / 2;
            if sheet.margin(open + middle, Valuation::Plain).initial <= equity * 1_000_000 {
                yes = middle;
            } else {
                no = middle;
            }
        }
        Room { netting, opening: yes }
    }

    /// Places what a sweep left in a market's pool with the opposite side.
    fn deleverage(&mut self, market: MarketId, pool: Pool, report: &mut SweepReport) {
        let at = usize::from(market.0);
        let unit = i128::from(self.sheets[at].unit);
        let gain = kernel::value(unit, i128::from(pool.lots)) - pool.quote;
        let plan = if pool.lots == 0 { Vec::new() } else { self.counterparties(market, pool.lots) };
        let placed: i64 = plan.iter().map(|part| part.lots).sum();
        assert!(placed == pool.lots.abs(), "market {market}: the opposite side is as large as this one");
        let weights: Vec<i128> = plan.iter().map(|part| i128::from(part.lots)).collect();
        let mut gains = vec![0; plan.len()];
        let mut left = -gain;
        if plan.is_empty() || gain >= 0 {
            for (mine, part) in gains.iter_mut().zip(kernel::apportion(gain.max(0), &weights)) {
                *mine = part;
                left += part;
            }
        } else {
            // A charge: by lots first, then by the equity that is still there.
            for (place, part) in kernel::apportion(-gain, &weights).into_iter().enumerate() {
                let charge = part.min(plan[place].equity);
                gains[place] = -charge;
                left -= charge;
            }
            let spare: Vec<i128> =
                plan.iter().zip(&gains).map(|(part, gain)| (part.equity + gain).min(1 << 62)).collect();
            let more = left.min(spare.iter().sum());
            if more > 0 {
                for (mine, charge) in gains.iter_mut().zip(kernel::apportion(more, &spare)) {
                    *mine -= charge;
                }
                left -= more;
            }
        }
        let side = pool.lots.signum();
        let mark = self.mark_price(market);
        for (part, gain) in plan.iter().zip(gains) {
            let lots = side * part.lots;
            self.count_freshness(market, report);
            let quote = kernel::value(unit, i128::from(lots)) - gain;
            self.ladder_trade(part.account, market, lots, quote, report);
            report.deleveraged += 1;
            report.socialised += Atoms((-gain).max(0));
            self.push_event(Event::Deleveraged {
                market,
                account: AccountId(u64::from(part.account)),
                lots: Lots(lots),
                mark,
                gain: Atoms(gain),
            });
        }
        match left {
            // Longs and shorts netted out and left a gain.
            ..0 => self.credit_insurance(-left),
            0 => {}
            _ => {
                let paid_by = self.markets[at].backstop.0 as u32;
                let left = self.pay_pool(paid_by, market, left, report);
                self.leave_uncovered(market, left, report);
            }
        }
    }

    /// Pays what deleveraging could not charge, from the funds.
    fn pay_pool(&mut self, backstop: u32, market: MarketId, deficit: i128, report: &mut SweepReport) -> i128 {
        // The funds paid what they could before, but penalties and fees may have come in since.
        let spare = health::spare(&self.slots[backstop as usize].account, Compartment::Cross, &self.sheets);
        let paid = kernel::waterfall(deficit, spare, self.globals.insurance.0);
        if paid.fund > 0 {
            self.account_mut(backstop).collateral -= Atoms(paid.fund);
        }
        self.globals.insurance -= Atoms(paid.insurance);
        report.fund_draw += Atoms(paid.fund);
        report.insurance_draw += Atoms(paid.insurance);
        if paid.fund + paid.insurance > 0 {
            self.push_event(Event::DeficitPaid {
                market,
                account: AccountId(u64::from(backstop)),
                fund: Atoms(paid.fund),
                insurance: Atoms(paid.insurance),
            });
        }
        paid.left
    }

    fn leave_uncovered(&mut self, market: MarketId, amount: i128, report: &mut SweepReport) {
        if amount == 0 {
            return;
        }
        self.globals.uncovered += Atoms(amount);
        report.uncovered += Atoms(amount);
        self.push_event(Event::Uncovered { market, amount: Atoms(amount) });
        if self.markets[usize::from(market.0)].quarantined.is_none() {
            let reason = QuarantineReason::UncoveredDeficit;
            let height = self.globals.height;
            self.market_mut(market).quarantined = Some((height, reason));
            self.refresh_sheet(market);
            self.push_event(Event::Quarantined { market, reason });
        }
    }

    /// Who closes `lots` (signed) of a market: accounts on the other side with the lots that they close.
    fn counterparties(&self, market: MarketId, lots: i64) -> Vec<Counterparty> {
        if self.mode == SweepMode::Indexed
            && let Some(plan) = self.largest_unhedged(market, lots)
        {
            return plan;
        }
        let index = &self.index[usize::from(market.0)];
        let mut ids: Vec<u32> = if self.mode == SweepMode::FullScan {
            (0..self.slots.len() as u32).collect()
        } else {
            // Entries may be older than this sweep's trades, so both sides and what changed since.
            index
                .longs
                .iter()
                .chain(&index.shorts)
                .map(|&(_, id)| id)
                .chain(self.dirty.iter().copied())
                .collect()
        };
        ids.sort_unstable();
        ids.dedup();
        let mut candidates: Vec<_> =
            ids.into_iter().filter_map(|id| self.counterparty(id, market, lots)).collect();
        let mut left = lots.abs();
        for class in 0..3 {
            let mut ranked: Vec<usize> =
                (0..candidates.len()).filter(|&at| candidates[at].1[class] > 0).collect();
            let most: i64 = ranked.iter().map(|&at| candidates[at].1[class]).sum();
            let now = left.min(most);
            if now == 0 {
                continue;
            }
            // The largest first, so that a small pool does not touch every account of the other side. The
            // sort is stable over ascending ids: ties have one order.
            ranked.sort_by_key(|&at| Reverse(candidates[at].1[class]));
            let mut covered = 0;
            let enough = ranked
                .iter()
                .position(|&at| {
                    covered += candidates[at].1[class];
                    covered >= now.saturating_mul(ADL_COVER)
                })
                .map_or(ranked.len(), |at| at + 1);
            ranked.truncate(enough.max(ADL_COUNTERPARTIES));
            ranked.sort_unstable();
            let weights: Vec<i128> = ranked.iter().map(|&at| i128::from(candidates[at].1[class])).collect();
            for (&at, part) in ranked.iter().zip(kernel::apportion(i128::from(now), &weights)) {
                candidates[at].0.lots += part as i64;
            }
            left -= now;
        }
        candidates.into_iter().map(|(candidate, _)| candidate).filter(|part| part.lots > 0).collect()
    }

    /// The plan, if lots that are not hedged are enough of it: found from the largest position down, without
    /// looking at all of them. `None` if they are not; then somebody has to look at everybody.
    fn largest_unhedged(&self, market: MarketId, lots: i64) -> Option<Vec<Counterparty>> {
        let index = &self.index[usize::from(market.0)];
        let sizes = if lots > 0 { &index.short_sizes } else { &index.long_sizes };
        let cover = lots.abs().saturating_mul(ADL_COVER);
        // Nobody has more lots that are not hedged than lots. So who has more of them than the next position
        // has lots comes before everybody who has not been looked at.
        let mut waiting = BinaryHeap::new();
        let look_at = |id: u32, waiting: &mut BinaryHeap<_>| {
            if let Some((part, [open, ..])) =
                self.counterparty(id, market, lots).filter(|(_, open)| open[0] > 0)
            {
                waiting.push((open, Reverse(id), part.equity));
            }
        };
        for &id in &self.dirty {
            look_at(id, &mut waiting);
        }
        let (mut ranked, mut covered) = (Vec::new(), 0);
        let mut rest = sizes.iter().rev();
        loop {
            let next = rest.next();
            let size = next.map_or(0, |&(size, _)| size);
            while waiting.peek().is_some_and(|&(open, ..)| open > size) {
                let Some((open, Reverse(account), equity)) = waiting.pop() else { break };
                ranked.push((Counterparty { account, lots: 0, equity }, open));
                covered += open;
                if ranked.len() >= ADL_COUNTERPARTIES && covered >= cover {
                    ranked.sort_unstable_by_key(|(part, _)| part.account);
                    let weights: Vec<i128> = ranked.iter().map(|&(_, open)| i128::from(open)).collect();
                    let parts = kernel::apportion(i128::from(lots.abs()), &weights);
                    let plan = ranked.into_iter().zip(parts);
                    return Some(
                        plan.map(|((part, _), lots)| Counterparty { lots: lots as i64, ..part })
                            .filter(|part| part.lots > 0)
                            .collect(),
                    );
                }
            }
            let &(_, id) = next?;
            // Whoever is dirty has been looked at, and the index has old sizes of theirs.
            if !self.slots[id as usize].dirty {
                look_at(id, &mut waiting);
            }
        }
    }

    /// An account on the other side of `lots`, with its lots by class: not hedged, hedged, without equity.
    fn counterparty(&self, id: u32, market: MarketId, lots: i64) -> Option<(Counterparty, [i64; 3])> {
        let account = &self.slots[id as usize].account;
        let position = account.position(market).filter(|leg| (leg.lots.0 > 0) != (lots > 0))?;
        let equity = health::sums(account, position.compartment(), &self.sheets, Valuation::Plain).equity;
        let size = position.lots.0.abs();
        let open = if equity < 0 {
            [0, 0, size]
        } else {
            let hedged = self.hedged_lots(id, market);
            [size - hedged, hedged, 0]
        };
        Some((Counterparty { account: id, lots: 0, equity: equity.max(0) }, open))
    }

    /// How many lots of a cross position are hedged by the account's other cross positions: the part of
    /// its notional that their net notional offsets. Rounded up. An isolated position hedges nothing.
    fn hedged_lots(&self, id: u32, market: MarketId) -> i64 {
        let account = &self.slots[id as usize].account;
        let notional = |leg: &crate::state::Position| {
            kernel::value(i128::from(self.sheets[usize::from(leg.market.0)].unit), i128::from(leg.lots.0))
        };
        let (mut mine, mut size, mut others) = (0, 0, 0);
        for leg in account.positions.iter().filter(|leg| leg.mode == MarginMode::Cross) {
            if leg.market == market {
                (mine, size) = (notional(leg), leg.lots.0.abs());
            } else {
                others += notional(leg);
            }
        }
        if mine == 0 || (mine > 0) == (others > 0) {
            return 0;
        }
        let offset = others.abs().min(mine.abs());
        (i128::from(size) * offset).ceil_div(mine.abs()) as i64
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Room {
    netting: i64,
    opening: i64,
}

#[derive(Clone, Copy, Debug)]
struct Counterparty {
    account: u32,
    lots: i64,
    equity: i128,
}
