//! The chain: how validators agree on what the ledger does.
//!
//! Wires the pure crates ([`seawall_ledger`], [`seawall_oracle`], [`seawall_market`]) to commonware's consensus, networking and
//! authenticated storage, generic over the runtime. This is the only crate below the simulator and the
//! binary that names commonware's engines.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`block`] | the block and its digest |
//! | [`app`] | the rules of validity; building and processing |
//! | [`machine`] | the state in memory; execution, undo and redo between forks |
//! | [`records`], [`slots`], [`store`] | the stored form of state, and the authenticated store |
//! | [`zones`] | zones beside settlement: their tasks, what they attest, how they are rebuilt |
//! | [`proofs`] | that a quorum voted for the parent, and the salt of its auctions |
//! | [`observer`] | observations: signed, sent, heard |
//! | [`ingress`], [`mempool`], [`gossip`] | actions on their way into a block |
//! | [`submissions`] | what became of an action, for whoever sent it |
//! | [`gate`] | clocks, before the vote and nowhere else |
//! | [`committee`], [`crypto`], [`timeline`] | who, how signed, what time |
//! | [`work`] | what work costs where time is simulated |
//! | [`sync`] | why there is no state sync yet |
//! | [`genesis`] | what a chain starts from |
//! | [`engine`] | a whole validator |
//! | [`archives`] | final blocks and certificates on disk |
//! | [`evidence`] | what leaders signed and should not have |
//! | [`audit`] | a chain executed again from its genesis |

pub mod app;
pub mod archives;
pub mod audit;
pub mod block;
pub mod committee;
pub mod crypto;
pub mod engine;
pub mod evidence;
pub mod gate;
pub mod genesis;
pub mod gossip;
pub mod inclusion;
pub mod ingress;
pub mod machine;
pub mod mempool;
pub mod observer;
pub mod proofs;
pub mod records;
pub mod slots;
pub mod store;
pub mod submissions;
pub mod sync;
pub mod timeline;
pub mod work;
pub mod zones;
