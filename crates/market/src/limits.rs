//! Every bound of a zone, in one place. Prices and lots are bounded there, too. Parameters may set some of them
//! lower: [`MarketParams::max_orders`](crate::MarketParams) and
//! [`Params::max_orders_per_account`](crate::Params).

pub use seawall_types::limits::{
    MAX_ENTRIES_PER_INBOX, MAX_ORDERS_PER_ACCOUNT, MAX_ORDERS_PER_MARKET, MAX_ORDERS_PER_OUTCOME,
    MIN_RECORDS_PER_PART,
};
