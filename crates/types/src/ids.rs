//! Names of things.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(pub $inner);

        impl $name {
            /// The raw integer.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Which chain a signature is meant for.
    ChainId(u64)
}
id! {
    /// An account. Dense: the n-th account opened on a chain is `n`, so that state is an array and
    /// not a tree of hashes. One key may own many accounts; each is a compartment of its own.
    AccountId(u64)
}
id! {
    /// A market, by its place in the genesis list.
    MarketId(u16)
}
id! {
    /// A validator, by its place in the ordered committee of the epoch.
    ValidatorId(u16)
}
id! {
    /// A number that an account uses at most once before its action's expiry height has passed.
    Nonce(u64)
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self([0; $len])
            }
        }
    };
}

bytes_id! {
    /// An Ed25519 public key.
    Key, 32
}
bytes_id! {
    /// An Ed25519 signature.
    Signature, 64
}
bytes_id! {
    /// A SHA-256 digest.
    Digest, 32
}
bytes_id! {
    /// Where a withdrawal goes outside this chain. Opaque here: the exit's bridge gives it meaning.
    Recipient, 32
}
