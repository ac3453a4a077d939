//! What a user signs.

use crate::{
    AccountId, Atoms, ChainId, Height, Key, Lots, MarketId, Name, Nonce, PriceTicks, Recipient, Signature,
    Terms, TimeMs, Trigger,
};

/// An action with the envelope that makes its signature valid once, here, and until a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAction {
    /// The chain that it is meant for.
    pub chain: ChainId,
    /// The account that signs and is charged.
    pub account: AccountId,
    /// Used at most once by this account while unexpired.
    pub nonce: Nonce,
    /// The last height at which a block may carry it.
    pub expiry: Height,
    /// What it does.
    pub action: Action,
    /// Signature of the account's owner, in [`Domain::Action`](crate::Domain::Action).
    pub signature: Signature,
}

/// Where a rescue stands among those of its block, by the one order that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RescueOrder {
    rank: u8,
    account: AccountId,
    nonce: Nonce,
}

impl SignedAction {
    /// Its place, if it is a rescue. Leaders cannot choose it: a leader that executed a transfer before the deposit it
    /// needs would have both answered, one of them with a refusal.
    pub const fn rescue_order(&self) -> Option<RescueOrder> {
        match self.action.lane() {
            Lane::Rescue => Some(RescueOrder {
                rank: self.action.rescue_rank(),
                account: self.account,
                nonce: self.nonce,
            }),
            Lane::Trade => None,
        }
    }
}

/// Everything that an account can ask of settlement. Amounts and sizes are positive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The issuer opens an account for `owner` and credits it. Refused to anybody else.
    Open {
        /// Who will own the account.
        owner: Key,
        /// Its first deposit; may be zero.
        amount: Atoms,
    },
    /// The issuer credits an account for value that arrived from outside.
    Deposit {
        /// Who is credited.
        to: AccountId,
        /// How much.
        amount: Atoms,
    },
    /// Moves free collateral to another account.
    Transfer {
        /// Who is credited.
        to: AccountId,
        /// How much.
        amount: Atoms,
    },
    /// Moves free cross collateral into an isolated position: a rescue of that position.
    TopUpIsolated {
        /// Market of the position.
        market: MarketId,
        /// How much.
        amount: Atoms,
    },
    /// Moves spare collateral of an isolated position back to cross.
    ReleaseIsolated {
        /// Market of the position.
        market: MarketId,
        /// How much.
        amount: Atoms,
    },
    /// Chooses cross or isolated margin for a market in which the account is flat.
    SetMarginMode {
        /// Market concerned.
        market: MarketId,
        /// The mode of positions opened from now on.
        mode: MarginMode,
    },
    /// Takes value off the chain: it becomes an exit that anyone can prove against a block.
    Withdraw {
        /// How much.
        amount: Atoms,
        /// Where it goes.
        recipient: Recipient,
    },
    /// A bilateral trade: the signer takes a quote that the counterparty signed.
    Fill {
        /// What the counterparty offers.
        quote: Quote,
        /// Counterparty's signature over the quote, in [`Domain::Quote`](crate::Domain::Quote).
        quote_signature: Signature,
        /// How much of it the signer takes: positive, at most the quote's size.
        lots: Lots,
    },
    /// An order for the market's next auction.
    Place(Terms),
    /// Orders under one signature, at most [`MAX_ORDERS_PER_ACTION`](crate::limits::MAX_ORDERS_PER_ACTION). Each
    /// is accepted or refused by itself, in this order.
    PlaceMany(Vec<Terms>),
    /// A reduce-only order: the rescue among placements. Refused if its terms are not reduce-only.
    Close(Terms),
    /// Ends one order, as soon as no auction can fill it any more.
    Cancel {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: Name,
    },
    /// Ends one order that can add risk: the rescue among single cancels. Refused if the order only closes or waits for
    /// a trigger.
    CancelRisk {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: Name,
    },
    /// Ends orders under one signature, at most [`MAX_ORDERS_PER_ACTION`](crate::limits::MAX_ORDERS_PER_ACTION).
    /// Each is ended or refused by itself, in this order.
    CancelMany(Vec<(MarketId, Name)>),
    /// Ends all orders of the account.
    CancelAll {
        /// In this market only.
        market: Option<MarketId>,
        /// Leave reduce-only orders where they are.
        keep_reduce_only: bool,
    },
    /// Changes limit and open lots of one order.
    Modify {
        /// Its market.
        market: MarketId,
        /// Which one.
        order: Name,
        /// Its new limit.
        limit: PriceTicks,
        /// How many lots it shall have open.
        lots: Lots,
    },
    /// An order that enters its zone when a fresh mark has crossed a price.
    PlaceTrigger {
        /// What it waits for.
        trigger: Trigger,
        /// What it asks for then.
        terms: Terms,
    },
    /// A dead man's switch: ends all orders of the account when block time has come, once, unless it is set anew
    /// before.
    ScheduleCancel {
        /// When; `None` takes the switch off.
        at: Option<TimeMs>,
    },
    /// Chooses how much initial margin the account's positions and orders in a market need: at least one part in
    /// so many of their notional.
    SetLeverage {
        /// Market concerned.
        market: MarketId,
        /// One to the market's maximum, which is also what holds if nothing is chosen.
        leverage: u32,
    },
}

/// A firm offer to trade with one named account, usable once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Chain that it is meant for.
    pub chain: ChainId,
    /// Account that offers (the maker).
    pub maker: AccountId,
    /// Account that may take it.
    pub taker: AccountId,
    /// Market.
    pub market: MarketId,
    /// Side of the maker.
    pub side: Side,
    /// Price of every lot.
    pub price: PriceTicks,
    /// Largest size, positive.
    pub lots: Lots,
    /// Nonce of the maker: a quote is taken at most once.
    pub nonce: Nonce,
    /// Last height at which it can be taken.
    pub expiry: Height,
}

/// Buy or sell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Adds lots.
    Buy,
    /// Removes lots.
    Sell,
}

impl Side {
    /// The other side.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Buy => Self::Sell,
            Self::Sell => Self::Buy,
        }
    }
}

/// How a position is margined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MarginMode {
    /// Backed by all of the account's cross collateral.
    #[default]
    Cross,
    /// Backed by its own collateral alone: its deficit never touches the rest of the account.
    Isolated,
}

/// Which part of a block an action competes for. A pure function of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Can only lower the risk of somebody's positions: executed before the sweep.
    Rescue,
    /// Can add risk or take collateral away: executed after the sweep.
    Trade,
}

impl Action {
    /// Whether it is about orders, which a zone has to answer.
    pub const fn asks_zone(&self) -> bool {
        matches!(
            self,
            Self::Place(_)
                | Self::PlaceMany(_)
                | Self::Close(_)
                | Self::Cancel { .. }
                | Self::CancelRisk { .. }
                | Self::CancelMany(_)
                | Self::CancelAll { .. }
                | Self::Modify { .. }
                | Self::PlaceTrigger { .. }
                | Self::ScheduleCancel { .. }
        )
    }

    /// The lane of this kind of action.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Open { .. }
            | Self::Deposit { .. }
            | Self::Transfer { .. }
            | Self::TopUpIsolated { .. }
            | Self::Close(_)
            | Self::CancelRisk { .. }
            | Self::CancelAll { .. }
            | Self::ScheduleCancel { .. } => Lane::Rescue,
            Self::ReleaseIsolated { .. }
            | Self::SetMarginMode { .. }
            | Self::Withdraw { .. }
            | Self::Fill { .. }
            | Self::Place(_)
            | Self::PlaceMany(_)
            | Self::Cancel { .. }
            | Self::CancelMany(_)
            | Self::Modify { .. }
            | Self::PlaceTrigger { .. }
            | Self::SetLeverage { .. } => Lane::Trade,
        }
    }

    /// Where a rescue stands among the rescues of a block: what others may need comes first. Zero for trades.
    const fn rescue_rank(&self) -> u8 {
        match self {
            Self::Open { .. } => 1,
            Self::Deposit { .. } => 2,
            Self::Transfer { .. } => 3,
            Self::TopUpIsolated { .. } => 4,
            Self::CancelAll { .. } => 5,
            Self::CancelRisk { .. } => 6,
            Self::Close(_) => 7,
            Self::ScheduleCancel { .. } => 8,
            _ => 0,
        }
    }

    /// What it counts against the most actions of a block: one, or as many orders as it names.
    pub fn weight(&self) -> usize {
        match self {
            Self::PlaceMany(orders) => orders.len().max(1),
            Self::CancelMany(orders) => orders.len().max(1),
            _ => 1,
        }
    }

    /// The name used in logs, reports and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Deposit { .. } => "deposit",
            Self::Transfer { .. } => "transfer",
            Self::TopUpIsolated { .. } => "top_up_isolated",
            Self::ReleaseIsolated { .. } => "release_isolated",
            Self::SetMarginMode { .. } => "set_margin_mode",
            Self::Withdraw { .. } => "withdraw",
            Self::Fill { .. } => "fill",
            Self::Place(_) => "place",
            Self::PlaceMany(_) => "place_many",
            Self::Close(_) => "close",
            Self::Cancel { .. } => "cancel",
            Self::CancelRisk { .. } => "cancel_risk",
            Self::CancelMany(_) => "cancel_many",
            Self::CancelAll { .. } => "cancel_all",
            Self::Modify { .. } => "modify",
            Self::PlaceTrigger { .. } => "place_trigger",
            Self::ScheduleCancel { .. } => "schedule_cancel",
            Self::SetLeverage { .. } => "set_leverage",
        }
    }
}
