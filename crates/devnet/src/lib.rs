//! A whole network on one machine, put through a recorded crash.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`scenario`] | from a replay to a genesis: market parameters, the book, the committee |
//! | [`network`] | validators, account owners, faults, figures |
//! | [`follower`] | executes every final block again and believes nobody |

pub mod follower;
pub mod network;
pub mod scenario;
