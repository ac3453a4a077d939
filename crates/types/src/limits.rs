//! Every bound on data that comes from outside, in one place.
//!
//! The decoder enforces each of them, so that arithmetic further up never has to ask. A limit may be
//! raised by an upgrade, never lowered: old blocks must stay readable.

/// Highest price. Beyond it a market must be redefined with a coarser tick.
pub const MAX_PRICE_TICKS: u64 = (1 << 40) - 1;
/// Largest position or trade, in either direction.
pub const MAX_LOTS: i64 = (1 << 40) - 1;
/// Most atoms that one lot gains when its price rises by one tick.
pub const MAX_ATOMS_PER_TICK_LOT: u32 = 1 << 24;
/// Largest amount that one action can move, and largest supply: 10^18 atoms.
pub const MAX_AMOUNT_ATOMS: i128 = 1_000_000_000_000_000_000;
/// Rates are at most 100 %.
pub const MAX_PPM: u32 = 1_000_000;
/// Scale of [`FundingIndex`](crate::FundingIndex): 2^32 per atom.
pub const FUNDING_SCALE: i128 = 1 << 32;

/// Most markets on a chain.
pub const MAX_MARKETS: usize = 256;
/// Most validators in a committee.
pub const MAX_VALIDATORS: usize = 200;
/// Most accounts on a chain.
pub const MAX_ACCOUNTS: u64 = 1 << 32;
/// Most markets in which one account can hold positions at a time.
pub const MAX_POSITIONS_PER_ACCOUNT: usize = 16;
/// Most tiers in a market's margin schedule.
pub const MAX_TIERS: usize = 8;

/// How far ahead of the current height an action may expire. It bounds how long a nonce is kept.
pub const MAX_EXPIRY_BLOCKS: u64 = 100_000;
/// Most runs of unexpired nonces that an account can have at a time: nonces that follow each other and expire
/// together are one run. An action whose nonce would begin another is refused.
pub const MAX_NONCE_RUNS: usize = 1_024;

/// Most actions in a block.
pub const MAX_ACTIONS_PER_BLOCK: usize = 16_384;
/// Largest encoded block, in bytes.
pub const MAX_BLOCK_BYTES: usize = 16 << 20;
/// Most parts of outcomes that a block settles, of all zones.
pub const MAX_OUTCOMES_PER_BLOCK: usize = 1_024;
/// Most records (fills, cuts, ends, slides) in the outcomes of a block.
pub const MAX_RECORDS_PER_BLOCK: usize = 1 << 16;
/// Most rescues listed in an observation.
pub const MAX_RESCUES_PER_OBSERVATION: usize = 256;
/// Most rescues that a block has to carry because its observations list them: the reserve of the lane. Of more, those
/// whose signers are nearest to a breach.
pub const MAX_OWED_PER_BLOCK: usize = 4_096;
/// Of more rescues than a block has to carry, how many of the issuer's come before all others: deposits rescue whoever
/// they are for. The rest of the issuer's come last.
pub const MAX_ISSUER_FIRST: usize = 512;
/// Most tokens for rescues that one account can have at a time.
pub const MAX_RESCUE_TOKENS: u32 = 65_535;
/// Longest time that an empty bucket of tokens may take to fill, in blocks.
pub const MAX_REFILL_BLOCKS: u32 = 65_535;
/// Most zone outcomes listed in an observation.
pub const MAX_OUTCOMES_PER_OBSERVATION: usize = 64;
/// Most entries in an inbox. A block carries fewer actions; the rest is room for liquidation closes and for
/// what settlement itself takes back.
pub const MAX_ENTRIES_PER_INBOX: usize = 1 << 16;
/// Most resting orders of a market.
pub const MAX_ORDERS_PER_MARKET: usize = 1 << 17;
/// Most orders of one account in one market.
pub const MAX_ORDERS_PER_ACCOUNT: usize = 256;
/// Most orders that one outcome can name in one market: what rested, and what came in.
pub const MAX_ORDERS_PER_OUTCOME: usize = MAX_ORDERS_PER_MARKET + MAX_ENTRIES_PER_INBOX;
/// Fewest records that a part of an outcome can be limited to: two fills and their two ends.
pub const MIN_RECORDS_PER_PART: usize = 4;
/// Most orders placed under one signature.
pub const MAX_ORDERS_PER_ACTION: usize = 64;
/// The first index of orders that wait for a trigger. Those below it are entries of an inbox.
pub const FIRST_TRIGGER: u32 = 1 << 31;
/// Most orders of a market that wait for a trigger: they may all be crossed in one block.
pub const MAX_TRIGGERS_PER_MARKET: usize = 1 << 16;
/// Most orders of a market that a block can activate.
pub const MAX_ACTIVATIONS_PER_BLOCK: usize = 1 << 12;
/// Most orders whose good-til height passes while they wait for a trigger that one block ends.
pub const MAX_EXPIRIES_PER_BLOCK: usize = 1 << 12;
/// How far ahead of block time all orders of an account can be scheduled to be cancelled, at least: an owner that
/// renews the schedule must have the time to do so.
pub const MIN_SCHEDULE_MS: u64 = 5_000;
/// Most accounts whose scheduled cancel one block carries out.
pub const MAX_SCHEDULED_PER_BLOCK: usize = 256;
/// Most zones on a chain.
pub const MAX_ZONES: usize = 256;

/// Most price sources that one validator can claim for a market.
pub const MAX_SOURCES: u8 = 64;
