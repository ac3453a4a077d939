//! Signing domains.
//!
//! A signature is made over `namespace || length || message`; the namespace is fixed-width, so no two
//! domains or chains can be confused whatever the message is.

use crate::ChainId;

/// What a signature means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Domain {
    /// A user's action.
    Action = 1,
    /// A maker's quote.
    Quote = 2,
    /// A validator's observation.
    Observation = 3,
    /// A leader's block.
    Block = 4,
    /// A consensus vote or certificate.
    Consensus = 5,
    /// A handshake between peers.
    Peer = 6,
}

impl Domain {
    /// Every domain.
    pub const ALL: [Self; 6] =
        [Self::Action, Self::Quote, Self::Observation, Self::Block, Self::Consensus, Self::Peer];

    /// The namespace of this domain on `chain`: `"seawall"`, version, domain, chain id (big-endian).
    pub fn namespace(self, chain: ChainId) -> [u8; 17] {
        let mut bytes = *b"seawall\x01\0........";
        bytes[8] = self as u8;
        bytes[9..].copy_from_slice(&chain.0.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn namespaces_differ_by_domain_and_by_chain() {
        let all: BTreeSet<_> = Domain::ALL
            .iter()
            .flat_map(|domain| [0, 1, u64::MAX].map(|chain| domain.namespace(ChainId(chain))))
            .collect();
        assert_eq!(all.len(), Domain::ALL.len() * 3);
    }
}
