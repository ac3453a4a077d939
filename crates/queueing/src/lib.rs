//! x
pub mod arrivals;
pub mod bulk;
pub mod ingress;
pub mod kingman;
pub mod risk;
pub mod units;
