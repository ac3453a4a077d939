//! Names of things.

use core::{fmt, str::FromStr};
use thiserror::Error;

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

/// Why a text is not the hexadecimal form of a key, signature, digest or recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseHexError {
    /// The text is too short or too long.
    #[error("expected {expected} hexadecimal digits, found {found} bytes of text")]
    Length {
        /// How many digits the type has.
        expected: usize,
        /// How many bytes the text has.
        found: usize,
    },
    /// Something else than `0-9`, `a-f` or `A-F`.
    #[error("not a hexadecimal digit at byte {at}")]
    Digit {
        /// Where, from 0.
        at: usize,
    },
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseHexError> {
    if text.len() != 2 * N {
        return Err(ParseHexError::Length { expected: 2 * N, found: text.len() });
    }
    let digit = |at: usize| match text.as_bytes()[at] {
        digit @ b'0'..=b'9' => Ok(digit - b'0'),
        digit @ b'a'..=b'f' => Ok(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(ParseHexError::Digit { at }),
    };
    let mut bytes = [0; N];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * i)? << 4 | digit(2 * i + 1)?;
    }
    Ok(bytes)
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

        /// Reads what `Display` writes: two digits a byte, no prefix, either case.
        impl FromStr for $name {
            type Err = ParseHexError;

            fn from_str(text: &str) -> Result<Self, ParseHexError> {
                parse_hex(text).map(Self)
            }
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
    /// A signature of the committee's group key: a point of BLS12-381's G1, compressed.
    GroupSignature, 48
}
bytes_id! {
    /// A SHA-256 digest.
    Digest, 32
}
bytes_id! {
    /// Where a withdrawal goes outside this chain. Opaque here: the exit's bridge gives it meaning.
    Recipient, 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_displayed_parses() {
        let key = Key(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.to_string().to_uppercase().parse(), Ok(key));
        let signature = Signature([0xaf; 64]);
        assert_eq!(signature.to_string().parse(), Ok(signature));
    }

    #[test]
    fn what_is_no_hex_is_refused_by_name() {
        let parse = |text: &str| text.parse::<Digest>().unwrap_err();
        assert_eq!(parse(""), ParseHexError::Length { expected: 64, found: 0 });
        assert_eq!(parse(&"0".repeat(63)), ParseHexError::Length { expected: 64, found: 63 });
        assert_eq!(parse(&"00".repeat(33)), ParseHexError::Length { expected: 64, found: 66 });
        assert_eq!(parse(&format!("0x{}", "0".repeat(62))), ParseHexError::Digit { at: 1 });
        assert_eq!(parse(&format!("+{}", "0".repeat(63))), ParseHexError::Digit { at: 0 });
        assert_eq!(parse(&"\u{e9}".repeat(32)), ParseHexError::Digit { at: 0 });
    }
}
