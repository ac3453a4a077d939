//! The words of Seawall: identifiers, quantities with their units, actions, observations and blocks.
//!
//! This crate is the ground floor. It holds data and the limits of that data, no behaviour: what an
//! action *does* is the ledger's business, who may *say* it is the chain's. Everything here is plain
//! integers, so two validators on different machines cannot read one value differently.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`units`] | newtypes for every quantity: ticks, lots, atoms, rates, times |
//! | [`ids`] | newtypes for every name: chain, account, market, validator, keys, digests |
//! | [`action`] | what a user signs, and the lane each kind travels in |
//! | [`order`] | names, terms and kinds of orders |
//! | [`inbox`], [`outcome`] | what settlement gives a zone and gets from it, and when either is not well made |
//! | [`mark`] | a price that cannot be read without its state |
//! | [`observation`] | what a validator says of the outside world in every view |
//! | [`block`] | header and body |
//! | [`refusal`] | every reason for which an action is refused |
//! | [`domain`] | signing domains |
//! | [`limits`] | every bound on data that comes from outside |
//! | `codec` (feature) | the canonical encoding of all of it |
//! | `testing` (feature) | strategies that draw any of it, for property tests |
//!
//! Invariant: every value that decodes is within [`limits`], so no later arithmetic has to ask.

pub mod action;
pub mod block;
#[cfg(feature = "codec")]
pub mod codec;
pub mod domain;
pub mod ids;
pub mod inbox;
pub mod limits;
pub mod mark;
pub mod observation;
pub mod order;
pub mod outcome;
pub mod refusal;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod units;

pub use action::{Action, Lane, MarginMode, Quote, RescueOrder, Side, SignedAction};
pub use block::{Body, Header, OpsTarget, ParentProof, ZoneOutcome};
pub use domain::Domain;
pub use ids::{
    AccountId, ChainId, Digest, GroupSignature, Key, MarketId, Nonce, ParseHexError, Recipient, Signature,
    ValidatorId,
};
pub use inbox::{Band, Entry, Inbox, InboxError, Name, Reference, Request};
pub use mark::{Mark, PriceState};
pub use observation::{Health, Observation, OutcomeRef, PriceReport, RescueRef};
pub use order::{Cloid, Crossing, Kind, OnCross, Order, OrderId, Terms, Trigger};
pub use outcome::{Cut, CutReason, End, EndReason, Fault, Fill, MarketOutcome, Outcome, Slide};
pub use refusal::Refusal;
pub use units::{Atoms, FundingIndex, Height, Lots, Ppm, PriceTicks, TimeMs};
