//! What each lane waits and loses, predicted: formulas of queueing theory, network calculus and diffusion.
//!
//! [`Model::predict`](model::Model::predict) takes a mix of load and the parameters of a chain, and says for
//! each lane how long its actions take, how many are dropped, what holds in the worst case, and what the delay
//! may cost. The other modules are the formulas, each of which can be used alone.
//!
//! | module | what is in it | kind |
//! | --- | --- | --- |
//! | [`arrivals`] | how many actions arrive in a slot: Poisson, in batches, in slots of random length | assumptions |
//! | [`bulk`] | the queue that blocks serve: mean by roots, law by Wiener and Hopf, tail by its pole | exact |
//! | [`wait`] | from blocks missed to the law of the time waited | exact for slots of one length |
//! | [`lanes`] | rescues and trades in one block | exact or bounded, by [`Sharing`](lanes::Sharing) |
//! | [`pool`] | what bounded pools drop, at any load | exact, or counted in grains |
//! | [`ingress`] | classes before the signature check, also when the last is saturated | exact |
//! | [`kingman`] | any queue with one server | bounds on mean and tail |
//! | [`curves`] | token buckets and service curves; blocks until a rescue is answered | worst cases |
//! | [`risk`] | what a price does meanwhile: bankruptcy, loss, deadlines | exact, with jumps upper bounds |
//! | [`model`] | all of it for a chain and a mix | as its parts; every figure says |
//! | [`units`] | ms, bps, rates, probabilities; how a parameter is refused | |
//!
//! # What it rests on
//!
//! - **Times** are slots in the formulas and ms ([`Ms`](units::Ms)) in the model; counts are actions. A block
//!   leaves at the end of every slot. Who arrives in a slot waits for the rest of it at least.
//! - **Arrivals** of different slots and lanes are independent. Load that reacts (retries, liquidations that
//!   feed each other) is not in here; it has to be put into the mix.
//! - **No failure for want of stability.** More load than service is an answer: `None`, or
//!   [`Delay::Saturated`](model::Delay::Saturated) and [`Delay::Unbounded`](model::Delay::Unbounded). An error
//!   ([`Invalid`](units::Invalid)) is a parameter that means nothing. No number makes anything panic, and every
//!   loop has a limit with a name.
//!
//! # What holds it
//!
//! `tests/simulate.rs` simulates each thing as naively as it can be written, and takes its tolerances from the
//! simulation's own confidence interval; `tests/laws.rs` holds what must be true for all parameters
//! (conservation, order, bounds above what they bound); beside each formula are the cases that have a closed
//! form.
//!
//! Floats are allowed here because nothing that decides a block may depend on this crate.

#![forbid(unsafe_code)]

pub mod arrivals;
pub mod bulk;
pub mod curves;
pub mod ingress;
pub mod kingman;
pub mod lanes;
pub mod model;
pub mod pool;
pub mod risk;
pub mod units;
pub mod wait;

pub use num_complex::Complex64;
