//! Tokens for rescues: how many each account may have carried, and how near to a breach it stands when more are owed than
//! a block has room for.
//!
//! # The bucket
//!
//! Every rescue that a block carries takes a token of whoever signed it, done or refused; nobody else's. An account's
//! bucket holds at most its *burst*, and fills from empty in [`RescueParams::refill_blocks`] blocks:
//!
//! | account | burst |
//! | --- | --- |
//! | carries risk: positions, or any open order | `base_tokens` + share |
//! | carries none | `flat_tokens` + share |
//! | the issuer | `issuer_tokens` |
//! | a backstop | none: nobody signs for it |
//!
//! The share is `posted x pool_tokens / total posted`, rounded down, at most `account_tokens`. *Posted* is collateral: the
//! cross collateral, if it is positive, and that of isolated positions; the total is that of all users. So shares sum to
//! at most the pool, whoever deposits what, and a deposit takes from the shares of others what it is part of the whole.
//! Nothing can be lost to rounding elsewhere: a bucket counts in parts, `refill_blocks` to a token, and gains as many in
//! a block as its burst.
//!
//! # When
//!
//! What an account may spend in a block follows from the state of its parent, whatever the block does before: see
//! [`Ledger::rescue_tokens_at`]. A deposit brings tokens to the blocks after it. At the end of a block a bucket is
//! brought up to date only if it was spent from, or if what was posted grew or risk was opened, so that a larger burst
//! fills it from then on and not in retrospect. It fills by the burst of the block in which it is looked at; between,
//! nothing of the account's own can have made that larger.
//!
//! # The bound
//!
//! Accounts that carry risk hold at most `accounts at risk x base_tokens + pool_tokens` together, the pool shared with
//! those that carry none. Opening risk is refused ([`Refusal::RescueReserve`]) where that and the issuer's would not fit
//! `reserve_blocks` blocks of [`MAX_OWED_PER_BLOCK`](limits::MAX_OWED_PER_BLOCK) rescues. Filling takes at least twice
//! as many blocks ([`RescueParams::validate`]), so it leaves half of each block to the backlog.
//! Accounts without risk have buckets beyond the bound, and stand last.

use seawall_types::{AccountId, Height, Refusal, limits};

use crate::{
    health::{self, Valuation},
    ledger::{Ledger, compartments},
    params::RescueParams,
    state::{Account, AccountKind},
};

/// A bucket that is not full, as it was after a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// What was in it: `refill_blocks` parts are a token.
    pub parts: u32,
    /// After the block of this height.
    pub at: Height,
}

/// How urgent the rescues of an account are. The least comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It has positions. What its worst compartment is worth, in millionths of the maintenance margin, rounded down:
    /// below 1,000,000 it is in breach.
    Worth(u64),
    /// It has orders that may fill, and no position.
    Orders,
    /// It carries no risk.
    Flat,
}

/// What rescues can come to in the worst case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RescueBudget {
    /// Accounts that carry risk.
    pub at_risk: u64,
    /// Accounts that may.
    pub at_risk_max: u64,
    /// Most tokens that those and the issuer can hold together.
    pub tokens: u64,
    /// Blocks whose reserve these take. Rounded up.
    pub blocks: u64,
    /// Most of these that come back in a block. Rounded up.
    pub refill_per_block: u64,
}

impl core::fmt::Display for RescueBudget {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { at_risk, tokens, blocks, refill_per_block, .. } = self;
        write!(
            f,
            "{at_risk} accounts at risk and the issuer can sign {tokens} rescues at once, {blocks} blocks of reserve; \
             {refill_per_block} tokens come back in a block of {}",
            limits::MAX_OWED_PER_BLOCK
        )
    }
}

/// What an account has posted: never negative.
pub(crate) fn posted(account: &Account) -> i128 {
    if account.kind != AccountKind::User {
        return 0;
    }
    let isolated: i128 = account.positions.iter().map(|position| position.isolated.0.max(0)).sum();
    account.collateral.0.max(0) + isolated
}

impl Bucket {
    /// Whether it could be one of a chain at a height.
    pub(crate) fn is_sound(&self, rescues: &RescueParams, height: Height) -> bool {
        self.at <= height
            && u64::from(self.parts)
                <= u64::from(limits::MAX_RESCUE_TOKENS) * u64::from(rescues.refill_blocks)
    }
}

impl RescueParams {
    /// How many accounts may carry risk.
    pub fn at_risk_max(&self) -> u64 {
        let reserve = u64::from(self.reserve_blocks) * limits::MAX_OWED_PER_BLOCK as u64;
        let shared = u64::from(self.pool_tokens) + u64::from(self.issuer_tokens);
        reserve.saturating_sub(shared) / u64::from(self.base_tokens.max(1))
    }

    /// What rescues can come to where so many accounts carry risk.
    pub fn budget(&self, at_risk: u64) -> RescueBudget {
        let shared = u64::from(self.pool_tokens) + u64::from(self.issuer_tokens);
        let tokens = at_risk.saturating_mul(u64::from(self.base_tokens)).saturating_add(shared);
        RescueBudget {
            at_risk,
            at_risk_max: self.at_risk_max(),
            tokens,
            blocks: tokens.div_ceil(limits::MAX_OWED_PER_BLOCK as u64),
            refill_per_block: tokens.div_ceil(u64::from(self.refill_blocks.max(1))),
        }
    }

    /// The same with as many blocks of reserve as it takes for so many accounts at risk, doubled until they fit, and a
    /// refill that is as much slower. Beyond some 30 million accounts the result is refused at genesis.
    #[must_use]
    pub fn for_accounts(mut self, at_risk: u64) -> Self {
        while self.at_risk_max() < at_risk && self.refill_blocks <= limits::MAX_REFILL_BLOCKS / 2 {
            self.reserve_blocks *= 2;
            self.refill_blocks *= 2;
        }
        self
    }

    /// Parts in a bucket at a height.
    fn parts(&self, bucket: Option<Bucket>, burst: u32, height: Height) -> u32 {
        let full = burst * self.refill_blocks;
        let Some(Bucket { parts, at }) = bucket else { return full };
        // After that many blocks any bucket is full.
        let blocks = height.0.saturating_sub(at.0).min(u64::from(self.refill_blocks)) as u32;
        parts.saturating_add(burst * blocks).min(full)
    }
}

impl Ledger {
    /// The most tokens that an account can have, by the state after the last block. Zero if there is no such account.
    pub fn rescue_burst(&self, id: AccountId) -> u32 {
        let Some(at) = usize::try_from(id.0).ok().filter(|at| *at < self.slots.len()) else { return 0 };
        self.before_block(at as u32).map_or(0, |account| self.burst(account, self.slots[at].at_risk))
    }

    /// How many rescues of an account a block at `height` can carry, by the state of its parent: of the last block, or
    /// of the one before the block in progress. The signer's own rescues take them, and nothing else does.
    pub fn rescue_tokens_at(&self, id: AccountId, height: Height) -> u32 {
        self.parts_at(id, height) / self.globals.rescues.refill_blocks
    }

    /// How many blocks after `height` an account has this many tokens, if those that it has are not lost to a full bucket.
    /// `None` if it never has any.
    pub fn blocks_until_tokens(&self, id: AccountId, height: Height, tokens: u32) -> Option<u64> {
        let burst = u64::from(self.rescue_burst(id));
        let wanted = u64::from(tokens) * u64::from(self.globals.rescues.refill_blocks);
        let lacks = wanted.saturating_sub(u64::from(self.parts_at(id, height)));
        (burst > 0).then(|| lacks.div_ceil(burst))
    }

    /// How urgent rescues of an account are now. [`Urgency::Flat`] if there is no such account.
    pub fn urgency(&self, id: AccountId) -> Urgency {
        let Some(account) = self.account(id) else { return Urgency::Flat };
        let worth = compartments(account).filter_map(|compartment| {
            let sums = health::sums(account, compartment, &self.sheets, Valuation::Favourable);
            // Equity is below 2^68 atoms, so the product fits.
            let millionths = 1_000_000_000_000 * sums.equity.max(0);
            (sums.maintenance > 0).then(|| u64::try_from(millionths / sums.maintenance).unwrap_or(u64::MAX))
        });
        match worth.min() {
            Some(worth) => Urgency::Worth(worth),
            None if account.positions.is_empty() && !self.book.has_orders(id.0 as u32) => Urgency::Flat,
            None if account.positions.is_empty() => Urgency::Orders,
            // In markets that never had a price: nothing can breach.
            None => Urgency::Worth(u64::MAX),
        }
    }

    /// What rescues can come to in the worst case, in the state after the last block.
    pub fn rescue_budget(&self) -> RescueBudget {
        self.globals.rescues.budget(self.at_risk)
    }

    /// Whether an account carries risk now.
    pub(crate) fn carries_risk(&self, id: u32) -> bool {
        let account = &self.slots[id as usize].account;
        account.kind == AccountKind::User && (!account.positions.is_empty() || self.book.has_orders(id))
    }

    /// Whether these accounts may carry risk after this. Those that do, or opened it in this block, may.
    pub(crate) fn require_reserve<const N: usize>(&self, ids: [u32; N]) -> Result<(), Refusal> {
        let opens = |id: &&u32| {
            let slot = &self.slots[**id as usize];
            !slot.at_risk && slot.account.kind == AccountKind::User && !self.opened_in_block(**id)
        };
        let wanted = ids.iter().filter(opens).count() as u64;
        if wanted > 0 && self.at_risk + self.opened_so_far() + wanted > self.globals.rescues.at_risk_max() {
            Err(Refusal::RescueReserve)
        } else {
            Ok(())
        }
    }

    /// Whether an account has a token left in the block in progress; between blocks, in the next.
    pub(crate) fn require_token(&self, id: u32) -> Result<(), Refusal> {
        let height = if self.in_block() { self.globals.height } else { self.globals.height.next() };
        if self.rescue_tokens_at(AccountId(u64::from(id)), height) > self.rescued_so_far(id) {
            Ok(())
        } else {
            Err(Refusal::NoRescueTokens)
        }
    }

    fn parts_at(&self, id: AccountId, height: Height) -> u32 {
        let Some(at) = usize::try_from(id.0).ok().filter(|at| *at < self.slots.len()) else { return 0 };
        let Some(account) = self.before_block(at as u32) else { return 0 };
        let burst = self.burst(account, self.slots[at].at_risk);
        self.globals.rescues.parts(account.tokens, burst, height)
    }

    /// The burst of an account as it was before the block: running totals are those of that state until the block ends.
    fn burst(&self, account: &Account, at_risk: bool) -> u32 {
        let rescues = &self.globals.rescues;
        let own = match account.kind {
            AccountKind::Backstop(_) => return 0,
            AccountKind::Issuer => return rescues.issuer_tokens,
            AccountKind::User if at_risk => rescues.base_tokens,
            AccountKind::User => rescues.flat_tokens,
        };
        let (posted, total) = (posted(account), self.total_posted());
        if posted == 0 {
            return own;
        }
        // Both factors are below 2^96 together. Rounded down: what is left over is nobody's.
        let share = posted * i128::from(rescues.pool_tokens) / total;
        own + share.min(i128::from(rescues.account_tokens)) as u32
    }

    /// The bucket of an account that the block changed, from how it was before and what the block spent of it.
    pub(crate) fn settled_bucket(&self, id: u32, before: Option<&Account>, spent: u32) -> Option<Bucket> {
        let height = self.globals.height;
        let rescues = &self.globals.rescues;
        let slot = &self.slots[id as usize];
        let Some(before) = before else {
            return Some(Bucket { parts: rescues.flat_tokens * rescues.refill_blocks, at: height });
        };
        let grew = posted(&slot.account) > posted(before) || (!slot.at_risk && self.carries_risk(id));
        if spent == 0 && !grew {
            return before.tokens;
        }
        let parts = rescues.parts(before.tokens, self.burst(before, slot.at_risk), height);
        let parts = parts.checked_sub(spent * rescues.refill_blocks).expect("a block spends what there is");
        Some(Bucket { parts, at: height })
    }
}
