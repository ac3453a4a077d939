//! Parameters of a chain and of its markets, and every condition that they must meet.
//!
//! Validation is where the bounds of [`kernel`] come from: the largest open interest of a
//! market at its highest price is at most [`MAX_OPEN_NOTIONAL`], so later arithmetic never has to ask.

use core::{fmt, str::FromStr};

use seawall_types::{AccountId, Atoms, ChainId, Lots, MarketId, Ppm, PriceTicks, limits};
use thiserror::Error;

use crate::kernel;

/// Largest open interest of a market at its highest price, in atoms.
pub const MAX_OPEN_NOTIONAL: i128 = 1 << 62;
/// Longest funding interval: about 12 days.
pub const MAX_FUNDING_INTERVAL_MS: u64 = 1 << 30;
/// Highest clamp on the funding rate of one interval: 10 %.
pub const MAX_FUNDING_CAP_PPM: u32 = 100_000;
/// Longest wait for liquidation that a chain may allow, in blocks.
pub const MAX_WAIT_BLOCKS: u32 = 10_000;
/// Longest life of an inbox without an outcome, in blocks.
pub const MAX_VOID_AFTER: u32 = 256;
/// Most records of outcomes that a zone may settle in a block.
pub const MAX_SETTLED_RECORDS: u32 = 1 << 20;
/// Most liquidation steps that a block may reserve.
pub const MAX_LIQUIDATION_STEPS: u32 = 1_000_000;

/// A market's name: 1 to 16 of `A-Z`, `0-9` and `-`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct Symbol([u8; Self::MAX_LEN]);

impl Symbol {
    /// Longest name, in bytes.
    pub const MAX_LEN: usize = 16;

    /// The name.
    pub fn as_str(&self) -> &str {
        let len = self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::MAX_LEN);
        core::str::from_utf8(&self.0[..len]).unwrap_or_default()
    }
}

impl FromStr for Symbol {
    type Err = ParamsError;

    fn from_str(text: &str) -> Result<Self, ParamsError> {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'-';
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(plain) {
            return Err(ParamsError::BadSymbol);
        }
        let mut bytes = [0; Self::MAX_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Symbol {
    type Error = ParamsError;

    fn try_from(text: String) -> Result<Self, ParamsError> {
        text.parse()
    }
}

impl From<Symbol> for String {
    fn from(symbol: Symbol) -> Self {
        symbol.as_str().to_owned()
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One tier of a margin schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct TierParams {
    /// Upper end of the tier, in atoms of notional. The last tier reaches beyond its own.
    pub up_to_notional: Atoms,
    /// Initial margin on the part of the notional in this tier.
    pub initial_ppm: Ppm,
    /// Maintenance margin on the part of the notional in this tier.
    pub maintenance_ppm: Ppm,
}

/// Funding of a market: a rate on the mark value that longs pay to shorts (or shorts to longs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct FundingParams {
    /// The time over which a rate is quoted, in milliseconds.
    pub interval_ms: u64,
    /// Largest rate per interval, in either direction.
    pub cap_ppm: Ppm,
    /// The part of the rate that does not depend on a premium, in ppm per interval; longs pay it.
    pub interest_ppm: i32,
}

/// Liquidation of a market's positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct LiquidationParams {
    /// Taken from the liquidated account for whoever takes its lots over.
    pub penalty_ppm: Ppm,
}

/// The account of the protocol that takes over what liquidation cannot sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct BackstopParams {
    /// Its collateral at genesis: the market's ring-fenced fund.
    pub initial_fund: Atoms,
    /// The largest position that it may hold in either direction: what outside venues could absorb.
    pub capacity_lots: Lots,
    /// The most lots that it takes over in a block.
    pub per_block_lots: Lots,
}

/// Orders in a market, and what its zone may do in a block. Markets of one zone agree on what is the zone's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct OrderParams {
    /// The zone whose auctions fill orders of this market.
    pub zone: u8,
    /// The smallest order that does not close a position.
    pub min_lots: Lots,
    /// Most orders that an account may have here, those on their way in or out included.
    pub max_per_account: u16,
    /// Of the zone: in how many blocks an inbox must have an outcome. Then it is void.
    pub void_after: u32,
    /// How many blocks liquidation waits for the zone before the ladder goes on without it. Zero: liquidation does
    /// not close in auctions.
    pub late_after: u32,
    /// Of the zone: how many blocks it may be behind before it takes fewer orders that add risk.
    pub shed_after: u32,
    /// Of the zone: most records (fills, cuts, ends, slides) that it settles in a block.
    pub max_records: u32,
    /// Most orders that enter the zone in a block because a mark has crossed their trigger. The others wait.
    #[cfg_attr(feature = "serde", serde(default = "default_activations"))]
    pub max_activations: u16,
}

/// A crash that crosses thousands of triggers at once takes some blocks to send them all.
const fn default_activations() -> u16 {
    256
}

impl Default for OrderParams {
    fn default() -> Self {
        Self {
            zone: 0,
            min_lots: Lots(1),
            max_per_account: 64,
            void_after: 32,
            late_after: 0,
            shed_after: 8,
            max_records: 1 << 14,
            max_activations: default_activations(),
        }
    }
}

/// A market.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct MarketParams {
    /// Name.
    pub symbol: Symbol,
    /// Atoms that one lot gains when its price rises by one tick.
    pub atoms_per_tick_lot: u32,
    /// Lowest price that is a price.
    pub min_price: PriceTicks,
    /// Highest price that is a price.
    pub max_price: PriceTicks,
    /// Margin schedule, by ascending notional.
    pub tiers: Vec<TierParams>,
    /// Fee of the side that takes a quote, on notional.
    pub taker_fee_ppm: Ppm,
    /// Fee of the side that made the quote, on notional.
    pub maker_fee_ppm: Ppm,
    /// Funding.
    pub funding: FundingParams,
    /// How far a trade's price may lie from the mark price.
    pub band_ppm: Ppm,
    /// How far a blind market's price may have moved from the last known one, for valuation.
    pub blind_range_ppm: Ppm,
    /// Most lots that may be open (longs and shorts each).
    pub open_interest_cap: Lots,
    /// Most lots that one account may hold in either direction.
    pub account_cap: Lots,
    /// Whether positions here must be isolated.
    pub isolated_only: bool,
    /// Liquidation.
    pub liquidation: LiquidationParams,
    /// Backstop.
    pub backstop: BackstopParams,
    /// Orders.
    #[cfg_attr(feature = "serde", serde(default))]
    pub orders: OrderParams,
}

/// How rescues are rationed: see the `rescues` module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields, default)
)]
pub struct RescueParams {
    /// Tokens of every account that carries risk, whatever it posted.
    pub base_tokens: u32,
    /// Tokens that all users share by what they posted.
    pub pool_tokens: u32,
    /// The most of them that one account gets.
    pub account_tokens: u32,
    /// Tokens of an account that carries no risk, beside its share.
    pub flat_tokens: u32,
    /// Tokens of the issuer, for deposits and new accounts.
    pub issuer_tokens: u32,
    /// In how many blocks an empty bucket fills. At least twice the blocks of reserve.
    pub refill_blocks: u32,
    /// In how many blocks of reserve all tokens of accounts at risk and of the issuer must fit.
    pub reserve_blocks: u32,
    /// The smallest amount that can be transferred.
    pub min_transfer: Atoms,
}

impl Default for RescueParams {
    /// For some 242,000 accounts at risk; [`for_accounts`](Self::for_accounts) fits more. With ten blocks a second all of them
    /// could act four times in 26 seconds, and their tokens are back after twice that. A chain that rations like this does
    /// not keep it in its state, so it is never to be changed.
    fn default() -> Self {
        Self {
            base_tokens: 4,
            pool_tokens: 16 * limits::MAX_OWED_PER_BLOCK as u32,
            account_tokens: 256,
            flat_tokens: 1,
            issuer_tokens: 16_384,
            refill_blocks: 512,
            reserve_blocks: 256,
            min_transfer: Atoms(1),
        }
    }
}

/// What genesis says about the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct ChainParams {
    /// Chain.
    pub chain: ChainId,
    /// The account that opens accounts and books deposits.
    pub issuer: AccountId,
    /// Insurance fund at genesis.
    pub insurance: Atoms,
    /// Liquidation steps (one leg of one compartment) that a block reserves.
    pub liquidation_steps: u32,
    /// Most blocks that a compartment in breach waits for its first step.
    pub max_wait_blocks: u32,
    /// How rescues are rationed.
    #[cfg_attr(feature = "serde", serde(default))]
    pub rescues: RescueParams,
    /// Markets, by ascending id.
    pub markets: Vec<MarketParams>,
}

/// Why parameters are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParamsError {
    /// Not 1 to 16 of `A-Z`, `0-9` and `-`.
    #[error("a symbol is 1 to 16 of A-Z, 0-9 and -")]
    BadSymbol,
    /// Two markets share a name.
    #[error("market {0}: another market has this symbol")]
    DuplicateSymbol(MarketId),
    /// No market, or more than the limit.
    #[error("between 1 and 256 markets")]
    MarketCount,
    /// Zero or above the limit.
    #[error("market {0}: atoms per tick and lot out of range")]
    AtomsPerTickLot(MarketId),
    /// Empty, starting at zero, or above the limit.
    #[error("market {0}: price range is empty or out of range")]
    PriceRange(MarketId),
    /// None, or more than the limit.
    #[error("market {0}: between 1 and 8 tiers")]
    TierCount(MarketId),
    /// Bounds must ascend, from above zero.
    #[error("market {0}: tier bounds must ascend within the largest notional")]
    TierOrder(MarketId),
    /// Rates must satisfy `0 < maintenance < initial <= 100 %` and never fall.
    #[error("market {0}: tier rates must satisfy 0 < maintenance < initial <= 100 % and never fall")]
    TierRates(MarketId),
    /// A fill at the band's edge could start below maintenance.
    #[error("market {0}: band and fees must stay below initial minus maintenance in each tier")]
    BandTooWide(MarketId),
    /// Rates above 100 %.
    #[error("market {0}: blind range must be below 100 %")]
    BlindRange(MarketId),
    /// Interval, cap or interest out of range.
    #[error("market {0}: funding interval, cap or interest out of range")]
    Funding(MarketId),
    /// Open interest or account cap out of range.
    #[error("market {0}: caps must satisfy 1 <= account <= open interest within the limit")]
    Caps(MarketId),
    /// Open interest x highest price is too large.
    #[error("market {0}: open interest at the highest price must not exceed 2^62 atoms")]
    NotionalTooLarge(MarketId),
    /// A close would not lower the requirement by more than it costs.
    #[error("market {0}: the penalty must stay below the maintenance rate of each tier")]
    Penalty(MarketId),
    /// Backstop fund or capacity out of range.
    #[error("market {0}: backstop fund or capacity out of range")]
    Backstop(MarketId),
    /// Smallest order, orders of an account, life of an inbox, records or activations of a block out of range.
    #[error(
        "market {0}: smallest order, orders of an account, life of an inbox, records or activations of a block out of range"
    )]
    Orders(MarketId),
    /// Two markets of a zone disagree on what is the zone's.
    #[error("market {0}: another market of its zone has other limits for the zone")]
    ZoneDisagrees(MarketId),
    /// Insurance fund negative or too large.
    #[error("insurance fund out of range")]
    Insurance,
    /// Zero or above the limit.
    #[error("liquidation steps per block out of range")]
    LiquidationSteps,
    /// Zero or above the limit.
    #[error("longest wait out of range")]
    MaxWait,
    /// No token for an account at risk, without risk or for the issuer, or more than an account can hold.
    #[error(
        "rescues: base, flat and issuer tokens must be at least 1, and none of them with the account's share above 65535"
    )]
    RescueTokens,
    /// The bucket fills too fast for the reserve to work off a backlog, or slower than can be counted.
    #[error("rescues: refill_blocks must be at least twice reserve_blocks, and at most 65535")]
    RescueRefill,
    /// The pool and the issuer leave nothing for accounts at risk.
    #[error("rescues: reserve_blocks must hold pool, issuer and base tokens, 4096 a block")]
    RescueReserve,
    /// Zero or too large.
    #[error("rescues: the smallest transfer must be positive and within the largest amount")]
    MinTransfer,
}

impl MarketParams {
    /// Checks every condition on a market, `id` naming it in errors.
    pub fn validate(&self, id: MarketId) -> Result<(), ParamsError> {
        let require =
            |met: bool, error: fn(MarketId) -> ParamsError| if met { Ok(()) } else { Err(error(id)) };
        require(
            (1..=limits::MAX_ATOMS_PER_TICK_LOT).contains(&self.atoms_per_tick_lot),
            ParamsError::AtomsPerTickLot,
        )?;
        require(
            0 < self.min_price.0
                && self.min_price < self.max_price
                && self.max_price.0 <= limits::MAX_PRICE_TICKS,
            ParamsError::PriceRange,
        )?;
        require((1..=limits::MAX_TIERS).contains(&self.tiers.len()), ParamsError::TierCount)?;
        let friction = u64::from(self.band_ppm.0) + u64::from(self.taker_fee_ppm.0.max(self.maker_fee_ppm.0));
        let mut below: Option<&TierParams> = None;
        for tier in &self.tiers {
            let floor = below.map_or(0, |below| below.up_to_notional.0);
            require(
                floor < tier.up_to_notional.0 && tier.up_to_notional.0 <= MAX_OPEN_NOTIONAL,
                ParamsError::TierOrder,
            )?;
            require(
                0 < tier.maintenance_ppm.0
                    && tier.maintenance_ppm < tier.initial_ppm
                    && tier.initial_ppm.0 <= limits::MAX_PPM
                    && below.is_none_or(|below| {
                        below.initial_ppm <= tier.initial_ppm && below.maintenance_ppm <= tier.maintenance_ppm
                    }),
                ParamsError::TierRates,
            )?;
            require(
                friction < u64::from(tier.initial_ppm.0 - tier.maintenance_ppm.0),
                ParamsError::BandTooWide,
            )?;
            require(self.liquidation.penalty_ppm < tier.maintenance_ppm, ParamsError::Penalty)?;
            below = Some(tier);
        }
        require(self.blind_range_ppm.0 < limits::MAX_PPM, ParamsError::BlindRange)?;
        require(
            (1..=MAX_FUNDING_INTERVAL_MS).contains(&self.funding.interval_ms)
                && self.funding.cap_ppm.0 <= MAX_FUNDING_CAP_PPM
                && self.funding.interest_ppm.unsigned_abs() <= self.funding.cap_ppm.0,
            ParamsError::Funding,
        )?;
        require(
            1 <= self.account_cap.0
                && self.account_cap <= self.open_interest_cap
                && self.open_interest_cap.0 <= limits::MAX_LOTS,
            ParamsError::Caps,
        )?;
        let unit = i128::from(self.max_price.0) * i128::from(self.atoms_per_tick_lot);
        require(
            unit * i128::from(self.open_interest_cap.0) <= MAX_OPEN_NOTIONAL,
            ParamsError::NotionalTooLarge,
        )?;
        require(
            (0..=limits::MAX_AMOUNT_ATOMS).contains(&self.backstop.initial_fund.0)
                && (0..=self.open_interest_cap.0).contains(&self.backstop.capacity_lots.0)
                && (0..=self.open_interest_cap.0).contains(&self.backstop.per_block_lots.0),
            ParamsError::Backstop,
        )?;
        require(
            (1..=self.account_cap.0).contains(&self.orders.min_lots.0)
                && (1..=limits::MAX_ORDERS_PER_ACCOUNT).contains(&usize::from(self.orders.max_per_account))
                && (1..=MAX_VOID_AFTER).contains(&self.orders.void_after)
                && self.orders.late_after <= self.orders.void_after
                && (1..=MAX_VOID_AFTER).contains(&self.orders.shed_after)
                && (limits::MIN_RECORDS_PER_PART as u32..=MAX_SETTLED_RECORDS)
                    .contains(&self.orders.max_records)
                && (1..=limits::MAX_ACTIVATIONS_PER_BLOCK)
                    .contains(&usize::from(self.orders.max_activations)),
            ParamsError::Orders,
        )
    }

    /// The value of one lot at a price, in atoms. Within `2^62` for prices of this market.
    #[inline]
    pub fn unit(&self, price: PriceTicks) -> i128 {
        i128::from(price.0) * i128::from(self.atoms_per_tick_lot)
    }

    /// The highest leverage that an account can choose: what the first tier allows. Rounded down.
    pub fn max_leverage(&self) -> u32 {
        self.tiers.first().map_or(1, |tier| (limits::MAX_PPM / tier.initial_ppm.0.max(1)).max(1))
    }

    /// The margin schedule with its deductions.
    pub fn schedule(&self) -> Vec<kernel::Tier<i128>> {
        kernel::schedule(self.tiers.iter().map(|tier| {
            (tier.up_to_notional.0, i128::from(tier.initial_ppm.0), i128::from(tier.maintenance_ppm.0))
        }))
        .collect()
    }
}

impl RescueParams {
    /// Checks every condition on them.
    pub fn validate(&self) -> Result<(), ParamsError> {
        let holds = |own: u32| {
            own >= 1
                && own.checked_add(self.account_tokens).is_some_and(|most| most <= limits::MAX_RESCUE_TOKENS)
        };
        if !holds(self.base_tokens)
            || !holds(self.flat_tokens)
            || !(1..=limits::MAX_RESCUE_TOKENS).contains(&self.issuer_tokens)
        {
            return Err(ParamsError::RescueTokens);
        }
        if self.reserve_blocks < 1
            || self.refill_blocks > limits::MAX_REFILL_BLOCKS
            || u64::from(self.refill_blocks) < 2 * u64::from(self.reserve_blocks)
        {
            return Err(ParamsError::RescueRefill);
        }
        if self.at_risk_max() < 1 {
            return Err(ParamsError::RescueReserve);
        }
        if !(1..=limits::MAX_AMOUNT_ATOMS).contains(&self.min_transfer.0) {
            return Err(ParamsError::MinTransfer);
        }
        Ok(())
    }
}

impl ChainParams {
    /// Checks every condition on the chain and its markets.
    pub fn validate(&self) -> Result<(), ParamsError> {
        if !(1..=limits::MAX_MARKETS).contains(&self.markets.len()) {
            return Err(ParamsError::MarketCount);
        }
        if !(0..=limits::MAX_AMOUNT_ATOMS).contains(&self.insurance.0) {
            return Err(ParamsError::Insurance);
        }
        if !(1..=MAX_LIQUIDATION_STEPS).contains(&self.liquidation_steps) {
            return Err(ParamsError::LiquidationSteps);
        }
        if !(1..=MAX_WAIT_BLOCKS).contains(&self.max_wait_blocks) {
            return Err(ParamsError::MaxWait);
        }
        self.rescues.validate()?;
        for (index, market) in self.markets.iter().enumerate() {
            let id = MarketId(index as u16);
            market.validate(id)?;
            if self.markets[..index].iter().any(|other| other.symbol == market.symbol) {
                return Err(ParamsError::DuplicateSymbol(id));
            }
            let of_zone = |orders: OrderParams| (orders.void_after, orders.shed_after, orders.max_records);
            if self.markets[..index].iter().any(|other| {
                other.orders.zone == market.orders.zone && of_zone(other.orders) != of_zone(market.orders)
            }) {
                return Err(ParamsError::ZoneDisagrees(id));
            }
        }
        Ok(())
    }
}
