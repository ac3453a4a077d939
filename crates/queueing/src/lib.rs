//! x
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
