//! Every reason for which an action is refused. A refused action changes nothing but, if a block
//! carries it, the signer's nonce.

use thiserror::Error;

/// Why an action is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Refusal {
    /// Signed for another chain.
    #[error("signed for another chain")]
    WrongChain,
    /// The account that signs does not exist.
    #[error("the signing account does not exist")]
    UnknownAccount,
    /// The signature does not verify under the account's key.
    #[error("the signature does not verify under the account's key")]
    BadSignature,
    /// The expiry height has passed.
    #[error("expired")]
    Expired,
    /// The expiry height lies too far ahead.
    #[error("the expiry height lies too far ahead")]
    ExpiryTooFar,
    /// The nonce is in use by an unexpired action.
    #[error("the nonce was used by an action that has not expired")]
    NonceUsed,
    /// Too many unexpired nonces.
    #[error("too many unexpired nonces; wait until some expire")]
    NonceWindowFull,
    /// The account has signed as many rescues as it has tokens for.
    #[error("no token for a rescue: wait for one, or post more margin")]
    NoRescueTokens,
    /// The account carries no risk, and blocks have no reserve left to rescue one more that does.
    #[error("as many accounts carry risk as blocks hold a reserve of rescues for")]
    RescueReserve,
    /// Only the issuer may do this.
    #[error("only the issuer may do this")]
    NotIssuer,
    /// This account is run by the protocol and cannot sign or receive.
    #[error("the account belongs to the protocol")]
    ProtocolAccount,
    /// An amount or size is zero or negative.
    #[error("the amount must be positive")]
    NotPositive,
    /// An amount, size or price is beyond its limit.
    #[error("beyond the largest allowed value")]
    TooLarge,
    /// A transfer of less than the chain's minimum.
    #[error("below the smallest amount that can be transferred")]
    BelowTransferMinimum,
    /// The beneficiary does not exist.
    #[error("the beneficiary does not exist")]
    UnknownBeneficiary,
    /// Sender and receiver, or maker and taker, are one account.
    #[error("both sides are the same account")]
    SelfDealing,
    /// No such market.
    #[error("no such market")]
    UnknownMarket,
    /// The market is quarantined.
    #[error("the market is quarantined")]
    MarketQuarantined,
    /// The market's price is not fresh, and the action would add risk.
    #[error("the market's price is not fresh, so no risk can be added")]
    PriceNotFresh,
    /// Another market in which the account holds a position is blind, and the action takes value out.
    #[error("a position of the account is in a market without a fresh price")]
    BlindPosition,
    /// The price lies outside the market's band around the mark.
    #[error("the price lies outside the band around the mark price")]
    OutsideBand,
    /// The quote's signature does not verify under the maker's key.
    #[error("the quote's signature does not verify under the maker's key")]
    BadQuoteSignature,
    /// The quote names another chain, taker or a smaller size.
    #[error("the quote does not cover this fill")]
    QuoteMismatch,
    /// The quote has expired, or its expiry lies too far ahead.
    #[error("the quote has expired or expires too far ahead")]
    QuoteExpired,
    /// The quote's nonce was used.
    #[error("the quote's nonce was used")]
    QuoteUsed,
    /// More than is withdrawable or available.
    #[error("more than the account can spare")]
    InsufficientCollateral,
    /// The signer's margin does not cover the position after the fill.
    #[error("the signer's margin does not cover the position")]
    InsufficientMargin,
    /// The counterparty's margin does not cover the position after the fill.
    #[error("the counterparty's margin does not cover the position")]
    CounterpartyMargin,
    /// The market's open-interest cap would be exceeded.
    #[error("the market's open-interest cap is reached")]
    OpenInterestCap,
    /// The account's cap in this market would be exceeded.
    #[error("the account's position cap in this market is reached")]
    PositionCap,
    /// The account holds positions in too many markets.
    #[error("positions in too many markets")]
    TooManyPositions,
    /// The account has no isolated position in this market.
    #[error("no isolated position in this market")]
    NoIsolatedPosition,
    /// The margin mode cannot change while a position is open.
    #[error("the margin mode can change only while flat")]
    PositionOpen,
    /// This market allows isolated margin only.
    #[error("this market allows isolated margin only")]
    IsolatedOnly,
    /// An action carries no order, or more than one may.
    #[error("between 1 and 64 orders under one signature")]
    OrderCount,
    /// Liquidation closes are settlement's own.
    #[error("liquidation closes are not placed by accounts")]
    OrderKind,
    /// A close that is not reduce-only.
    #[error("a close must be reduce-only")]
    NotReduceOnly,
    /// The order is smaller than the market's minimum.
    #[error("the order is smaller than the market's minimum")]
    BelowMinimum,
    /// The order's good-til height has passed.
    #[error("the order's good-til height has passed")]
    OrderExpired,
    /// The account has too many open orders in this market.
    #[error("too many open orders in this market")]
    TooManyOrders,
    /// An open order of the account in this market has this client id.
    #[error("an open order in this market has this client id")]
    DuplicateCloid,
    /// The account has no such open order, or it is on its way out.
    #[error("no such open order")]
    UnknownOrder,
    /// Ending this order cannot lower the account's risk: it only closes, or waits for a trigger.
    #[error("the order only closes or waits for a trigger: cancel it in the trade lane")]
    NotAdding,
    /// The position has fewer lots than its reduce-only orders, its other orders and this action would close.
    #[error("the lots are not there to be closed, or reserved by reduce-only orders")]
    ClosingLots,
    /// The margin mode cannot change while orders are open.
    #[error("the margin mode can change only while no order is open in the market")]
    OrdersOpen,
    /// The inbox of the market's zone is full in this block.
    #[error("the zone takes no more in this block")]
    InboxFull,
    /// The market's zone is behind, and takes fewer orders that add risk until it has caught up.
    #[error("the market's zone is behind, and takes fewer orders that add risk; cancels and closes go on")]
    ZoneLate,
    /// Only a limit or an IOC order can wait for a trigger.
    #[error("only a limit or an IOC order can wait for a trigger")]
    TriggerKind,
    /// The mark is at the trigger's price or beyond.
    #[error("the mark has crossed the trigger's price already")]
    TriggerCrossed,
    /// As many orders as can wait for a trigger in this market do.
    #[error("too many orders wait for a trigger in this market")]
    TooManyTriggers,
    /// An order that waits for its trigger is no zone's to modify.
    #[error("an order that waits for its trigger is not modified: cancel it and place another")]
    TriggerWaits,
    /// A cancel of all orders is scheduled too soon to be renewed.
    #[error("the scheduled time must be at least 5 seconds ahead of block time")]
    ScheduledTooSoon,
    /// Zero, or more than the market's maximum.
    #[error("leverage must be between 1 and the market's maximum")]
    LeverageRange,
    /// No further account can be opened.
    #[error("the chain holds as many accounts as it can")]
    TooManyAccounts,
}
