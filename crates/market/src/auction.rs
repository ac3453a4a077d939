//! The price of an auction, and who gets what at it. The rules are in the documentation of the crate.

use crate::{
    Band, Kind, OrderId, Reference,
    book::{At, Book, PriceLevel},
};
use core::cmp::Reverse;
use seawall_types::{Lots, PriceTicks, Side};

/// What an auction comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clearing {
    pub price: PriceTicks,
    /// Lots bought, which is lots sold.
    pub volume: Lots,
}

/// Price and volume of an auction over the orders that are listed; `None` if nothing crosses.
///
/// Setting the best bids against the best asks until they stop crossing gives the most volume that any price
/// allows. Call the last pair that crossed `bid` and `ask`. Every tick from `ask` to `bid` has that volume and
/// no other has. What is left over begins at `next_bid < next_ask`. Ticks strictly between those two leave
/// nothing over. If there is none between `ask` and `bid`, then the imbalance on the bids' side is least from
/// `next_bid` down, of which `next_bid` alone fills the better bids whole; and likewise for the asks. Where both
/// leave as much, the two ticks are neighbours, so one is nearer the mark and the last rule never has to decide.
pub(crate) fn clear(book: &Book, reference: &Reference) -> Option<Clearing> {
    let lots_at = |(price, level): (PriceTicks, &PriceLevel)| (price, level.lots);
    let mut bids = book.levels(Side::Buy, Some(reference.band)).rev().map(lots_at);
    let mut asks = book.levels(Side::Sell, Some(reference.band)).map(lots_at);
    let (mut next_bid, mut next_ask) = (bids.next(), asks.next());
    let mut volume = Lots::ZERO;
    let mut last = None;
    while let (Some((bid, wanted)), Some((ask, offered))) = (next_bid, next_ask)
        && bid >= ask
    {
        let lots = wanted.min(offered);
        volume += lots;
        last = Some((bid, ask));
        next_bid = if wanted > lots { Some((bid, wanted - lots)) } else { bids.next() };
        next_ask = if offered > lots { Some((ask, offered - lots)) } else { asks.next() };
    }
    let (bid, ask) = last?;

    let low = next_bid.map_or(ask, |(next, _)| ask.max(PriceTicks(next.0 + 1)));
    let high = next_ask.map_or(bid, |(next, _)| bid.min(PriceTicks(next.0 - 1)));
    let price = if low <= high {
        reference.mark.clamp(low, high)
    } else {
        let left_bid = next_bid.filter(|(next, _)| *next >= ask);
        let left_ask = next_ask.filter(|(next, _)| *next <= bid);
        let (price, _) = [left_bid, left_ask]
            .into_iter()
            .flatten()
            .min_by_key(|(price, left)| (*left, price.0.abs_diff(reference.mark.0), *price))?;
        price
    };
    Some(Clearing { price, volume })
}

/// Who of one side gets how much of the volume, in order of priority.
///
/// Levels from the best in the band; inside a level, groups of equal priority. What a group cannot have whole
/// is shared inside it, and nobody behind it gets any.
pub(crate) fn allocate(
    book: &Book,
    side: Side,
    band: Band,
    clearing: Clearing,
    salt: &[u8; 32],
) -> Vec<(At, Lots)> {
    let mut rest = clearing.volume;
    let mut fills = Vec::new();
    let mut levels = book.levels(side, Some(band));
    let mut best = || match side {
        Side::Buy => levels.next_back(),
        Side::Sell => levels.next(),
    };
    let lots = |at: At| (at, book.order(at).terms.lots);
    while rest > Lots::ZERO
        && let Some((_, level)) = best()
    {
        if level.lots <= rest {
            fills.extend(level.queue().map(lots));
            rest -= level.lots;
            continue;
        }
        let priority = |at: At| (book.order(at).terms.kind == Kind::Liquidation, book.order(at).id.height);
        let mut queue = level.queue().peekable();
        while rest > Lots::ZERO
            && let Some(first) = queue.next()
        {
            let class = priority(first);
            let mut group = vec![lots(first)];
            while let Some(next) = queue.next_if(|next| priority(*next) == class) {
                group.push(lots(next));
            }
            let wanted = group.iter().map(|(_, lots)| *lots).sum();
            if wanted <= rest {
                rest -= wanted;
                fills.extend(group);
            } else {
                fills.extend(share(&group, |at| book.order(at).id, wanted, rest, salt));
                rest = Lots::ZERO;
            }
        }
    }
    fills
}

/// Shares `lots` among a group that wants more, pro rata by largest remainder; equal remainders by lot.
/// Orders that get none are left out.
fn share<T: Copy>(
    group: &[(T, Lots)],
    id: impl Fn(T) -> OrderId,
    wanted: Lots,
    lots: Lots,
    salt: &[u8; 32],
) -> Vec<(T, Lots)> {
    let wanted = i128::from(wanted.0);
    let mut shares: Vec<_> = group
        .iter()
        .map(|(order, own)| {
            let product = i128::from(own.0) * i128::from(lots.0);
            (Reverse((product % wanted) as i64), *order, Lots((product / wanted) as i64))
        })
        .collect();
    // Fewer lots than orders are left, since each order lost less than one.
    let left = lots - shares.iter().map(|share| share.2).sum();
    let left = usize::try_from(left.0).unwrap_or(0);
    if left > 0 {
        let drawn = |order: T| (lottery(salt, id(order)), id(order));
        shares.select_nth_unstable_by(left - 1, |one, other| {
            one.0.cmp(&other.0).then_with(|| drawn(one.1).cmp(&drawn(other.1)))
        });
    }
    for share in shares.iter_mut().take(left) {
        share.2 += Lots(1);
    }
    shares.into_iter().map(|(_, order, part)| (order, part)).filter(|(_, part)| part.0 > 0).collect()
}

/// An order's lot: SipHash-2-4 of its id under the salt. The first half of the salt is the key, the second
/// half begins the message. The lower lot wins; of equal lots, the lower id.
pub(crate) fn lottery(salt: &[u8; 32], id: OrderId) -> u64 {
    let word = |at: usize| (at..at + 8).rev().fold(0u64, |word, i| word << 8 | u64::from(salt[i]));
    let message = [word(16), word(24), id.height.0, id.index.into(), 32 << 56];
    let (low, high) = (word(0), word(8));
    let mut v = [
        low ^ 0x736f_6d65_7073_6575,
        high ^ 0x646f_7261_6e64_6f6d,
        low ^ 0x6c79_6765_6e65_7261,
        high ^ 0x7465_6462_7974_6573,
    ];
    for word in message {
        v[3] ^= word;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| sip_round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seawall_types::Height;

    proptest! {
        #[test]
        fn lots_are_drawn_by_siphash(salt: [u8; 32], height: u64, index: u32) {
            #[allow(deprecated)]
            let expected = {
                use core::hash::{Hasher, SipHasher};
                let word = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| salt[at + i]));
                let mut hasher = SipHasher::new_with_keys(word(0), word(8));
                hasher.write(&salt[16..]);
                hasher.write(&height.to_le_bytes());
                hasher.write(&u64::from(index).to_le_bytes());
                hasher.finish()
            };
            prop_assert_eq!(lottery(&salt, OrderId { height: Height(height), index }), expected);
        }

        #[test]
        fn shares_add_up_and_are_within_one_lot_of_exact(
            lots in proptest::collection::vec(1i64..1 << 40, 1..20),
            portion in 0u32..1000,
            salt: [u8; 32],
        ) {
            let group: Vec<_> =
                (0..).zip(&lots).map(|(index, lots)| (OrderId { index, ..OrderId::default() }, Lots(*lots))).collect();
            let wanted: i64 = lots.iter().sum();
            let amount = (i128::from(wanted) * i128::from(portion) / 1000) as i64;
            let shares = share(&group, |id| id, Lots(wanted), Lots(amount), &salt);
            prop_assert_eq!(shares.iter().map(|(_, part)| part.0).sum::<i64>(), amount);
            for (id, part) in shares {
                let own = lots[id.index as usize];
                let exact = i128::from(own) * i128::from(amount);
                prop_assert!((i128::from(part.0) * i128::from(wanted) - exact).abs() < i128::from(wanted));
                prop_assert!(part.0 <= own);
            }
        }
    }
}
