//! An ordered map from small keys to numbers, laid out for searching.
//!
//! Keys lie in chunks of some hundred that follow each other in memory, and the first key of each chunk lies beside
//! those of the others, so a search halves twice and touches few lines. A tree of nodes would ask more than twice as
//! much of every look at a book.

use core::ops::RangeInclusive;

/// A chunk that would hold more is split into halves.
const CHUNK: usize = 256;

#[derive(Clone, Debug)]
struct Chunk<K> {
    keys: Vec<K>,
    numbers: Vec<u32>,
}

/// Numbers by ascending key.
#[derive(Clone, Debug)]
pub(crate) struct Index<K> {
    /// The first key of each chunk: the chunk's own may be gone, but none before it is in the chunk.
    firsts: Vec<K>,
    /// None of them is empty.
    chunks: Vec<Chunk<K>>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { firsts: Vec::new(), chunks: Vec::new() }
    }
}

impl<K: Ord + Copy> Index<K> {
    /// The chunk in which a key is or would be.
    fn chunk_of(&self, key: K) -> usize {
        self.firsts.partition_point(|first| *first <= key).saturating_sub(1)
    }

    pub fn get(&self, key: K) -> Option<u32> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let place = chunk.keys.partition_point(|other| *other < key);
        (chunk.keys.get(place) == Some(&key)).then(|| chunk.numbers[place])
    }

    /// The number of a key, which gets this one if it has none.
    pub fn get_or_insert_with(&mut self, key: K, number: impl FnOnce() -> u32) -> u32 {
        let at = self.chunk_of(key);
        let Some(chunk) = self.chunks.get_mut(at) else {
            let number = number();
            self.firsts.push(key);
            self.chunks.push(Chunk { keys: vec![key], numbers: vec![number] });
            return number;
        };
        let place = chunk.keys.partition_point(|other| *other < key);
        if chunk.keys.get(place) == Some(&key) {
            return chunk.numbers[place];
        }
        let number = number();
        chunk.keys.insert(place, key);
        chunk.numbers.insert(place, number);
        if key < self.firsts[at] {
            self.firsts[at] = key;
        }
        if chunk.keys.len() > CHUNK {
            let (keys, numbers) = (chunk.keys.split_off(CHUNK / 2), chunk.numbers.split_off(CHUNK / 2));
            self.firsts.insert(at + 1, keys[0]);
            self.chunks.insert(at + 1, Chunk { keys, numbers });
        }
        number
    }

    pub fn remove(&mut self, key: K) {
        let at = self.chunk_of(key);
        if let Some(chunk) = self.chunks.get_mut(at)
            && let place = chunk.keys.partition_point(|other| *other < key)
            && chunk.keys.get(place) == Some(&key)
        {
            chunk.keys.remove(place);
            chunk.numbers.remove(place);
            if chunk.keys.is_empty() {
                self.firsts.remove(at);
                self.chunks.remove(at);
            }
        }
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (K, u32)> {
        self.chunks.iter().flat_map(|chunk| chunk.keys.iter().copied().zip(chunk.numbers.iter().copied()))
    }

    /// Keys in a range. The ends of the range are searched, not what is between them.
    pub fn range(&self, range: RangeInclusive<K>) -> impl DoubleEndedIterator<Item = (K, u32)> {
        let (low, high) = (*range.start(), *range.end());
        let (first, last) = (self.chunk_of(low), self.chunk_of(high));
        let chunks = self.chunks.get(first..=last).unwrap_or_default();
        let inside = move |chunk: &'_ Chunk<K>| {
            let from = chunk.keys.partition_point(|key| *key < low);
            let to = chunk.keys.partition_point(|key| *key <= high);
            from..to.max(from)
        };
        chunks.iter().flat_map(move |chunk| {
            let inside = inside(chunk);
            chunk.keys[inside.clone()].iter().copied().zip(chunk.numbers[inside].iter().copied())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few keys and many steps, so that chunks split, run empty and begin later than they did.
        #[test]
        fn it_holds_what_a_tree_holds(
            steps in proptest::collection::vec((0u16..900, 0u8..5), 0..3_000),
            ascending: bool,
            range in (0u16..1_000, 0u16..1_000),
        ) {
            let (mut index, mut tree) = (Index::default(), BTreeMap::new());
            for (number, (key, action)) in (0..).zip(steps) {
                let key = if ascending { number as u16 } else { key };
                // Grows at first, shrinks later.
                if u32::from(action) * 1_000 > number {
                    let expected = *tree.entry(key).or_insert(number);
                    prop_assert_eq!(index.get_or_insert_with(key, || number), expected);
                } else {
                    tree.remove(&key);
                    index.remove(key);
                }
                prop_assert_eq!(index.get(key), tree.get(&key).copied());
            }
            prop_assert!(index.iter().eq(tree.iter().map(|(key, number)| (*key, *number))));
            prop_assert!(index.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.keys.len())));
            let (low, high) = range;
            let inside: Vec<_> = tree.iter().filter(|(key, _)| low <= **key && **key <= high).collect();
            let found: Vec<_> = index.range(low..=high).collect();
            prop_assert!(found.iter().map(|(key, number)| (key, number)).eq(inside.iter().copied()));
            let back: Vec<_> = index.range(low..=high).rev().collect();
            prop_assert!(back.into_iter().rev().eq(found));
        }
    }
}
