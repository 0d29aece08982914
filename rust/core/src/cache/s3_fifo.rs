//! The bounded map behind the verification cache and the token cache.
//!
//! Belongs here: keys that are digests or fingerprints, limits by entries and by bytes, and the choice of what to evict
//! when they are reached. Does not belong here: what a value is, when it expires, who may have it.
//!
//! Eviction is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP 2023):
//! new entries pass through a small queue with a tenth of the capacity, and only those that are requested again reach
//! the main queue. A flood of tokens that are seen once, which costs an attacker nothing, evicts nothing else.
//! Every operation is O(1) (amortised for eviction: each further look at an entry was paid for by a hit).
//!
//! Values are returned as clones (they are meant to be `Arc`s). No lock is held while code of the caller runs:
//! neither a predicate nor the `drop` of an evicted value.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use hashbrown::HashTable;

/// Shards reduce contention between threads; more than this helps no machine of the usual size.
const MAX_SHARDS: usize = 16;

/// No shard is smaller than this, because digests do not spread evenly over tiny shards.
const MIN_SHARD_ENTRIES: usize = 512;

/// No shard is smaller than this, because an entry has to fit into its shard.
const MIN_SHARD_BYTES: usize = 4 << 20;

/// The end of a list of slots.
const NONE: u32 = u32::MAX;

/// A hit counts up to here. More would let an entry that was popular once stay for long (section 4.1 of the paper).
const MAX_FREQUENCY: u8 = 3;

/// How much a map may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of entries; with 0 nothing is kept.
    pub entries: usize,
    /// Maximum number of bytes: the sum of the costs that the caller states, plus [`S3Fifo::ENTRY_OVERHEAD`] for each
    /// entry.
    pub bytes: usize,
}

/// Current contents and counts since the map was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries now.
    pub entries: usize,
    /// Bytes now, counted as in [`Limits::bytes`].
    pub bytes: usize,
    /// Values that were found.
    pub hits: u64,
    /// Values that were asked for and not found, or refused by the predicate of [`S3Fifo::get_if`].
    pub misses: u64,
    /// Entries that were evicted to make room.
    pub evictions: u64,
}

/// Possible keys: bytes that look random to anyone without the secret, or that no one can choose.
pub trait Key: Copy + Eq {
    /// Two words of it, which differ between any two keys except by chance.
    fn words(&self) -> [u64; 2];
}

impl<const N: usize> Key for [u8; N] {
    #[inline]
    fn words(&self) -> [u64; 2] {
        const { assert!(N >= 16, "a key has 128 bits at least") }
        let (words, _) = self.as_chunks::<8>();
        [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
    }
}

/// A map from digests to values that never exceeds its limits. Thread-safe.
pub struct S3Fifo<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    seed: [u64; 2],
}

impl<K: Key, V: Clone> S3Fifo<K, V> {
    /// What an entry costs besides its value: its slot, and its share of the index and of the ghost queue.
    pub const ENTRY_OVERHEAD: usize = size_of::<Slot<K, V>>() + 64;

    /// An empty map; nothing is allocated in advance.
    ///
    /// `seed` must be random for each process: keys are uniform, but anyone who can choose tokens can search for
    /// SHA-256 digests that collide in the index.
    #[must_use]
    pub fn new(limits: Limits, seed: [u64; 2]) -> Self {
        let fitting = (limits.entries / MIN_SHARD_ENTRIES).min(limits.bytes / MIN_SHARD_BYTES);
        let count = 1 << fitting.clamp(1, MAX_SHARDS).ilog2();
        // Slots are numbered by u32.
        let entries = (limits.entries / count).min(NONE as usize - 1);
        let limits = Limits { entries, bytes: limits.bytes / count };
        let shards = (0..count).map(|_| Mutex::new(Shard::new(limits))).collect();
        Self { shards, seed }
    }

    /// The value, as a clone. Does not allocate.
    #[inline]
    pub fn get(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        self.lock(hash).find(hash, key).map(|(value, _)| value)
    }

    /// The value, as a clone; None, without waiting, if another thread is using the same part of the map.
    ///
    /// For callers that can do without the value. No thread waits, not even in a child process that was forked while a
    /// thread of its parent held the lock: there it is never released.
    #[inline]
    pub fn get_unless_busy(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        try_locked(self.shard(hash))?.find(hash, key).map(|(value, _)| value)
    }

    /// The value, without counting as a hit or a miss, and without influence on eviction.
    pub fn peek(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        self.lock(hash).peek(hash, key)
    }

    /// The value if it is `fit`; an entry that is not is removed, and counts as a miss.
    ///
    /// If another thread replaces the entry in the meantime, the new entry stays.
    #[inline]
    pub fn get_if(&self, key: &K, fit: impl FnOnce(&V) -> bool) -> Option<V> {
        let hash = self.hash(key);
        let (value, version) = self.lock(hash).find(hash, key)?;
        if fit(&value) {
            return Some(value);
        }
        // Named, so that it is dropped after the lock is released.
        let _removed = self.lock(hash).refuse(hash, key, version);
        None
    }

    /// Put a value that uses `cost` bytes of memory, according to the caller. It replaces the key's value, and is found
    /// until it is evicted or removed.
    ///
    /// False if it was not kept, because it alone is larger than the limit; the key then has no value.
    pub fn insert(&self, key: &K, value: V, cost: usize) -> bool {
        let hash = self.hash(key);
        let charge = cost.saturating_add(Self::ENTRY_OVERHEAD);
        let mut gone = Vec::new();
        let kept = self.lock(hash).insert(hash, key, value, charge, &mut gone, |key| self.hash(key));
        drop(gone); // here, where the lock is released
        kept
    }

    /// Like [`Self::insert`], but if another thread is using the same part of the map, the value is not kept.
    pub fn insert_unless_busy(&self, key: &K, value: V, cost: usize) -> bool {
        let hash = self.hash(key);
        let charge = cost.saturating_add(Self::ENTRY_OVERHEAD);
        let mut gone = Vec::new();
        let Some(mut shard) = try_locked(self.shard(hash)) else { return false };
        let kept = shard.insert(hash, key, value, charge, &mut gone, |key| self.hash(key));
        drop(shard);
        drop(gone); // here, where the lock is released
        kept
    }

    /// Like [`Self::remove`], but does nothing if another thread is using the same part of the map.
    pub fn remove_unless_busy(&self, key: &K) {
        let hash = self.hash(key);
        let _taken = try_locked(self.shard(hash)).and_then(|mut shard| shard.take(hash, key));
    }

    /// Remove the key's entry and return its value.
    pub fn remove(&self, key: &K) -> Option<V> {
        let hash = self.hash(key);
        let taken = self.lock(hash).take(hash, key);
        taken.map(|taken| taken.value)
    }

    /// Remove everything. Counts are kept.
    pub fn clear(&self) {
        for shard in &self.shards {
            let _gone = locked(shard).clear();
        }
    }

    /// Look at one of `parts` parts of the entries, each time at the next one, and remove those that are `dead`. Returns
    /// how many were removed.
    ///
    /// `parts` calls look at every entry, and twice as many do even while the map grows. So a caller that calls at
    /// regular intervals bounds how long a dead entry stays that is never looked up again, and no call scans the whole
    /// map. A shard that stays busy (see [`Self::get_unless_busy`]) is left out.
    pub fn sweep(&self, parts: usize, dead: impl Fn(&V) -> bool) -> usize {
        self.shards.iter().map(|shard| self.sweep_shard(shard, parts, &dead)).sum()
    }

    fn sweep_shard(&self, shard: &Mutex<Shard<K, V>>, parts: usize, dead: &impl Fn(&V) -> bool) -> usize {
        let (mut seen, mut removed) = (0, 0);
        let mut wanted = usize::MAX;
        while seen < wanted {
            let Some(mut held) = try_locked(shard) else { break };
            wanted = wanted.min(held.slots.len().div_ceil(parts.max(1)));
            let some = wanted.saturating_sub(seen).min(SWEPT_AT_ONCE);
            let candidates = held.next_to_sweep(some);
            drop(held);
            seen += some;
            let unwanted: Vec<_> = candidates.into_iter().filter(|(_, value, _)| dead(value)).collect();
            if unwanted.is_empty() {
                continue;
            }
            let Some(mut held) = try_locked(shard) else { break };
            let taken =
                unwanted.iter().filter_map(|(key, _, version)| held.take_version(self.hash(key), key, *version));
            let gone: Vec<_> = taken.collect();
            drop(held);
            removed += gone.len();
        }
        removed
    }

    /// Current contents and counts. Each shard is exact; the sum is consistent only while no thread writes. A shard
    /// that stays busy (see [`Self::get_unless_busy`]) is left out.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for shard in &self.shards {
            let Some(shard) = try_locked(shard) else { continue };
            stats.entries += shard.entries();
            stats.bytes += shard.bytes();
            stats.hits += shard.hits;
            stats.misses += shard.misses;
            stats.evictions += shard.evictions;
        }
        stats
    }

    /// 128 bits of the key are plenty. The multiplication spreads the seed over all bits that the index uses.
    #[inline]
    fn hash(&self, key: &K) -> u64 {
        let [left, right] = key.words();
        let (left, right) = (u128::from(left ^ self.seed[0]), u128::from(right ^ self.seed[1]));
        let product = left * right;
        #[allow(clippy::cast_possible_truncation, reason = "the two halves of the product are folded")]
        let folded = (product >> 64) as u64 ^ product as u64;
        folded
    }

    #[inline]
    fn lock(&self, hash: u64) -> MutexGuard<'_, Shard<K, V>> {
        locked(self.shard(hash))
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Shard<K, V>> {
        // The index takes its place from the low bits and its tag from the high ones: the shard from those between.
        #[allow(clippy::cast_possible_truncation, reason = "only a few bits are wanted")]
        let place = (hash >> 40) as usize & (self.shards.len() - 1);
        &self.shards[place]
    }
}

impl<K: Key, V: Clone> fmt::Debug for S3Fifo<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Fifo").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// `V::clone` is the caller's only code that runs under the lock, and no update is half done when it runs: the data
/// behind a poisoned lock is consistent.
#[inline]
fn locked<K, V>(shard: &Mutex<Shard<K, V>>) -> MutexGuard<'_, Shard<K, V>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same without waiting for long: None while another thread holds it.
#[inline]
fn try_locked<K, V>(shard: &Mutex<Shard<K, V>>) -> Option<MutexGuard<'_, Shard<K, V>>> {
    (0..PATIENCE).find_map(|_| match shard.try_lock() {
        Ok(shard) => Some(shard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => {
            std::thread::yield_now();
            None
        }
    })
}

/// How many entries are looked at while a lock is held.
const SWEPT_AT_ONCE: usize = 64;

/// How often to try a busy shard. Its holder needs less than a microsecond, unless it was preempted.
const PATIENCE: usize = 100;

/// Which queue an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Small,
    Main,
}

/// One entry, or a free slot (no value), of a shard.
struct Slot<K, V> {
    key: K,
    value: Option<V>,
    /// What the entry counts for: cost and overhead.
    charge: usize,
    /// Differs for each insertion, so that a decision made outside of the lock does not hit a newer value.
    version: u64,
    newer: u32,
    older: u32,
    place: Place,
    frequency: u8,
}

/// A FIFO queue through the slots, linked in both directions so that any entry can leave in O(1).
#[derive(Debug)]
struct Queue {
    newest: u32,
    oldest: u32,
    entries: usize,
    bytes: usize,
}

impl Queue {
    const EMPTY: Self = Self { newest: NONE, oldest: NONE, entries: 0, bytes: 0 };
}

/// Hashes of keys that left the small queue recently: a key that returns goes to the main queue. Only a heuristic, so
/// a collision of two hashes, or a hash forgotten too early, does no harm.
#[derive(Default)]
struct Ghost {
    members: HashTable<u64>,
    order: VecDeque<u64>,
}

impl Ghost {
    fn remember(&mut self, hash: u64, room: usize) {
        if self.members.find(hash, |member| *member == hash).is_none() {
            self.members.insert_unique(hash, hash, |member| *member);
            self.order.push_back(hash);
        }
        while self.order.len() > room {
            if let Some(oldest) = self.order.pop_front() {
                self.forget(oldest);
            }
        }
    }

    /// Forget it; true when it was there.
    fn forget(&mut self, hash: u64) -> bool {
        match self.members.find_entry(hash, |member| *member == hash) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }
}

/// An entry that was taken out, with its hit count.
struct Taken<V> {
    value: V,
    place: Place,
    frequency: u8,
}

/// A part of the map with its own lock.
struct Shard<K, V> {
    limits: Limits,
    index: HashTable<u32>,
    slots: Vec<Slot<K, V>>,
    /// First of the free slots, which are linked by `older`.
    free: u32,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    versions: u64,
    /// The slot that is swept next.
    hand: usize,
    hits: u64,
    misses: u64,
    evictions: u64,
}

impl<K: Key, V> Shard<K, V> {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            index: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            small: Queue::EMPTY,
            main: Queue::EMPTY,
            ghost: Ghost::default(),
            versions: 0,
            hand: 0,
            hits: 0,
            misses: 0,
            evictions: 0,
        }
    }

    fn entries(&self) -> usize {
        self.small.entries + self.main.entries
    }

    fn bytes(&self) -> usize {
        self.small.bytes + self.main.bytes
    }

    fn slot(&mut self, index: u32) -> &mut Slot<K, V> {
        &mut self.slots[index as usize]
    }

    fn queue(&mut self, place: Place) -> &mut Queue {
        match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
        }
    }

    /// Append the slot to the queue that it names, as the newest.
    fn link(&mut self, index: u32) {
        let (place, charge) = (self.slot(index).place, self.slot(index).charge);
        let queue = self.queue(place);
        queue.entries += 1;
        queue.bytes += charge;
        let before = std::mem::replace(&mut queue.newest, index);
        if before == NONE {
            queue.oldest = index;
        } else {
            self.slot(before).newer = index;
        }
        let slot = self.slot(index);
        slot.newer = NONE;
        slot.older = before;
    }

    /// Take the slot out of its queue.
    fn unlink(&mut self, index: u32) {
        let slot = self.slot(index);
        let (newer, older, place, charge) = (slot.newer, slot.older, slot.place, slot.charge);
        if newer != NONE {
            self.slot(newer).older = older;
        }
        if older != NONE {
            self.slot(older).newer = newer;
        }
        let queue = self.queue(place);
        queue.entries -= 1;
        queue.bytes -= charge;
        if queue.newest == index {
            queue.newest = older;
        }
        if queue.oldest == index {
            queue.oldest = newer;
        }
    }

    /// Unlink the slot, which is out of the index already, and put it on the free list.
    fn release(&mut self, index: u32) -> Option<Taken<V>> {
        self.unlink(index);
        let free = std::mem::replace(&mut self.free, index);
        let slot = self.slot(index);
        slot.older = free;
        let (place, frequency) = (slot.place, slot.frequency);
        slot.value.take().map(|value| Taken { value, place, frequency })
    }

    fn take(&mut self, hash: u64, key: &K) -> Option<Taken<V>> {
        let slots = &self.slots;
        let entry = self.index.find_entry(hash, |index| slots[*index as usize].key == *key).ok()?;
        let (index, _) = entry.remove();
        self.release(index)
    }

    /// Take the entry out if it is still the one that was looked at.
    fn take_version(&mut self, hash: u64, key: &K, version: u64) -> Option<Taken<V>> {
        let slots = &self.slots;
        let index = *self.index.find(hash, |index| slots[*index as usize].key == *key)?;
        if self.slot(index).version == version { self.take(hash, key) } else { None }
    }

    /// A value that was found turned out to be unfit: correct the count, and take it out.
    fn refuse(&mut self, hash: u64, key: &K, version: u64) -> Option<Taken<V>> {
        self.hits -= 1;
        self.misses += 1;
        self.take_version(hash, key, version)
    }

    fn insert(
        &mut self,
        hash: u64,
        key: &K,
        value: V,
        charge: usize,
        gone: &mut Vec<V>,
        rehash: impl Fn(&K) -> u64,
    ) -> bool {
        // A replaced entry keeps its place: a renewed token is as popular as the previous one.
        let replaced = self.take(hash, key);
        let (place, frequency) = match &replaced {
            Some(taken) => (taken.place, taken.frequency),
            None if self.ghost.forget(hash) => (Place::Main, 0),
            None => (Place::Small, 0),
        };
        gone.extend(replaced.map(|taken| taken.value));
        if self.limits.entries == 0 || charge > self.limits.bytes {
            gone.push(value);
            return false;
        }
        // The new entry is not in a queue yet, so it cannot be chosen itself.
        while self.entries() >= self.limits.entries || self.bytes() > self.limits.bytes - charge {
            gone.extend(self.evict(&rehash));
        }
        self.versions += 1;
        let slot = Slot {
            key: *key,
            value: Some(value),
            charge,
            version: self.versions,
            newer: NONE,
            older: NONE,
            place,
            frequency,
        };
        let index = self.occupy(slot);
        let slots = &self.slots;
        self.index.insert_unique(hash, index, |index| rehash(&slots[*index as usize].key));
        self.link(index);
        true
    }

    /// Put the slot on a free place, or on a new one.
    fn occupy(&mut self, slot: Slot<K, V>) -> u32 {
        if self.free == NONE {
            #[allow(clippy::cast_possible_truncation, reason = "the limit of entries is below u32::MAX")]
            let index = self.slots.len() as u32;
            self.slots.push(slot);
            index
        } else {
            let index = self.free;
            self.free = self.slot(index).older;
            *self.slot(index) = slot;
            index
        }
    }

    /// Remove the entry whose turn it is. Algorithm 1 of the paper.
    fn evict(&mut self, rehash: &impl Fn(&K) -> u64) -> Option<V> {
        loop {
            let small_is_full =
                self.small.entries >= self.limits.entries / 10 || self.small.bytes >= self.limits.bytes / 10;
            if self.small.entries > 0 && (small_is_full || self.main.entries == 0) {
                let oldest = self.small.oldest;
                if self.slot(oldest).frequency > 1 {
                    self.unlink(oldest);
                    let slot = self.slot(oldest);
                    slot.place = Place::Main;
                    slot.frequency = 0;
                    self.link(oldest);
                } else {
                    let hash = rehash(&self.slot(oldest).key);
                    let room = self.entries();
                    self.ghost.remember(hash, room);
                    return self.evict_slot(hash, oldest);
                }
            } else {
                let oldest = self.main.oldest;
                if oldest == NONE {
                    return None; // unreachable: the caller evicts only while there are entries
                }
                if self.slot(oldest).frequency > 0 {
                    self.unlink(oldest);
                    self.slot(oldest).frequency -= 1;
                    self.link(oldest);
                } else {
                    let hash = rehash(&self.slot(oldest).key);
                    return self.evict_slot(hash, oldest);
                }
            }
        }
    }

    fn evict_slot(&mut self, hash: u64, index: u32) -> Option<V> {
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == index) {
            entry.remove();
        }
        self.evictions += 1;
        self.release(index).map(|taken| taken.value)
    }

    /// Empty the shard; its former content is returned so that it is dropped outside of the lock.
    fn clear(&mut self) -> Vec<Slot<K, V>> {
        self.index = HashTable::new();
        self.ghost = Ghost::default();
        self.free = NONE;
        self.small = Queue::EMPTY;
        self.main = Queue::EMPTY;
        self.hand = 0;
        std::mem::take(&mut self.slots)
    }
}

impl<K: Key, V: Clone> Shard<K, V> {
    #[inline]
    fn find(&mut self, hash: u64, key: &K) -> Option<(V, u64)> {
        let slots = &self.slots;
        let Some(index) = self.index.find(hash, |index| slots[*index as usize].key == *key) else {
            self.misses += 1;
            return None;
        };
        let slot = &mut self.slots[*index as usize];
        slot.frequency = (slot.frequency + 1).min(MAX_FREQUENCY);
        self.hits += 1;
        slot.value.clone().map(|value| (value, slot.version))
    }

    fn peek(&self, hash: u64, key: &K) -> Option<V> {
        let index = *self.index.find(hash, |index| self.slots[*index as usize].key == *key)?;
        self.slots[index as usize].value.clone()
    }

    /// The entries in the next `count` slots. The hand moves on by as many.
    fn next_to_sweep(&mut self, count: usize) -> Vec<(K, V, u64)> {
        let start = if self.hand < self.slots.len() { self.hand } else { 0 };
        self.hand = start + count;
        let (before, after) = self.slots.split_at(start);
        let next = after.iter().chain(before).take(count);
        let entries = next.filter_map(|slot| slot.value.clone().map(|value| (slot.key, value, slot.version))).collect();
        if self.hand >= self.slots.len() {
            self.hand -= self.slots.len();
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::sync::mpsc;
    use std::sync::{Arc, OnceLock};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::digest::{Digest, sha256};

    const SEED: [u64; 2] = [0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344];

    fn key(number: u64) -> Digest {
        sha256(&number.to_le_bytes())
    }

    fn overhead() -> usize {
        S3Fifo::<Digest, Arc<u64>>::ENTRY_OVERHEAD
    }

    fn map(entries: usize, bytes: usize) -> S3Fifo<Digest, Arc<u64>> {
        S3Fifo::new(Limits { entries, bytes }, SEED)
    }

    /// Everything that must hold between two operations.
    fn check<V: Clone>(map: &S3Fifo<Digest, V>, limits: Limits) -> Vec<(Digest, V)> {
        let mut content = Vec::new();
        let mut stats = Stats::default();
        for shard in &map.shards {
            let mut shard = locked(shard);
            let mut seen = HashSet::new();
            for place in [Place::Small, Place::Main] {
                let (mut entries, mut bytes) = (0, 0);
                let (mut at, mut before) = (shard.queue(place).oldest, NONE);
                while at != NONE {
                    assert!(seen.insert(at), "a slot is linked twice");
                    let slot = &shard.slots[at as usize];
                    assert_eq!(slot.place, place);
                    assert_eq!(slot.older, before);
                    let hash = map.hash(&slot.key);
                    assert_eq!(shard.index.find(hash, |index| *index == at), Some(&at));
                    content.push((slot.key, slot.value.clone().expect("a linked slot has a value")));
                    entries += 1;
                    bytes += slot.charge;
                    (before, at) = (at, slot.newer);
                }
                assert_eq!(shard.queue(place).newest, before);
                assert_eq!((shard.queue(place).entries, shard.queue(place).bytes), (entries, bytes));
            }
            assert_eq!(shard.index.len(), seen.len());
            let mut at = shard.free;
            while at != NONE {
                assert!(seen.insert(at), "a slot is free and used, or free twice");
                assert!(shard.slots[at as usize].value.is_none());
                at = shard.slots[at as usize].older;
            }
            assert_eq!(seen.len(), shard.slots.len(), "a slot is lost");
            assert!(shard.slots.len() <= shard.limits.entries);
            assert!(shard.ghost.members.len() <= shard.ghost.order.len());
            assert!(shard.ghost.order.len() <= shard.limits.entries);
            stats.entries += shard.entries();
            stats.bytes += shard.bytes();
        }
        assert!(stats.entries <= limits.entries && stats.bytes <= limits.bytes, "{stats:?} exceeds {limits:?}");
        assert_eq!((map.stats().entries, map.stats().bytes), (stats.entries, stats.bytes));
        content
    }

    #[derive(Clone, Debug)]
    enum Step {
        Peek(u64),
        Get(u64),
        GetIf(u64, bool),
        Insert(u64, usize),
        Remove(u64),
        Sweep(usize, bool),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        let number = 0..48_u64;
        prop_oneof![
            2 => number.clone().prop_map(Step::Peek),
            8 => number.clone().prop_map(Step::Get),
            2 => (number.clone(), any::<bool>()).prop_map(|(number, fit)| Step::GetIf(number, fit)),
            8 => (number.clone(), 0..400_usize).prop_map(|(number, cost)| Step::Insert(number, cost)),
            2 => number.prop_map(Step::Remove),
            1 => (0..5_usize, any::<bool>()).prop_map(|(parts, dead)| Step::Sweep(parts, dead)),
            1 => Just(Step::Clear),
        ]
    }

    proptest! {
        /// Against a model that forgets nothing: whatever is found is what was put last, what was just put is found,
        /// what was removed is not, and the bounds hold after every step.
        #[test]
        fn it_agrees_with_a_plain_map(
            entries in 0..40_usize,
            kilobytes in 0..8_usize,
            steps in proptest::collection::vec(step(), 1..400),
        ) {
            let limits = Limits { entries, bytes: kilobytes * 1000 };
            let map: S3Fifo<Digest, Arc<u64>> = S3Fifo::new(limits, SEED);
            let mut model: HashMap<u64, u64> = HashMap::new();
            let (mut written, mut hits, mut misses) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::Peek(number) => {
                        let value = map.peek(&key(number));
                        prop_assert!(value.is_none_or(|value| Some(&*value) == model.get(&number)));
                    }
                    Step::Get(number) => match map.get(&key(number)) {
                        Some(value) => { prop_assert_eq!(Some(&*value), model.get(&number)); hits += 1; }
                        None => misses += 1,
                    },
                    Step::GetIf(number, fit) => if let Some(value) = map.get_if(&key(number), |_| fit) {
                        prop_assert!(fit && model.get(&number) == Some(&value));
                        hits += 1;
                    } else {
                        misses += 1;
                        if !fit { model.remove(&number); }
                    },
                    Step::Insert(number, cost) => {
                        written += 1;
                        let kept = map.insert(&key(number), Arc::new(written), cost);
                        prop_assert_eq!(kept, limits.entries > 0 && cost + overhead() <= limits.bytes);
                        prop_assert_eq!(map.peek(&key(number)), kept.then(|| Arc::new(written)));
                        if kept { model.insert(number, written); } else { model.remove(&number); }
                    }
                    Step::Remove(number) => {
                        let removed = map.remove(&key(number));
                        prop_assert!(removed.is_none_or(|value| model.get(&number) == Some(&value)));
                        model.remove(&number);
                    }
                    Step::Sweep(parts, dead) => {
                        let before = map.stats().entries;
                        let removed = map.sweep(parts, |_| dead);
                        prop_assert_eq!(map.stats().entries, before - removed);
                        prop_assert!(parts > 1 || !dead || map.stats().entries == 0);
                    }
                    Step::Clear => { map.clear(); model.clear(); prop_assert_eq!(map.stats().bytes, 0); }
                }
                for (found, value) in check(&map, limits) {
                    let number = (0..48).find(|number| key(*number) == found).unwrap();
                    prop_assert_eq!(Some(&*value), model.get(&number));
                }
            }
            prop_assert_eq!((map.stats().hits, map.stats().misses), (hits, misses));
        }

        /// An entry that was requested more than once after insertion stays, however many entries are seen once.
        #[test]
        fn a_hot_set_survives_a_scan(hot in 1..60_u64, seed in any::<[u64; 2]>()) {
            let limits = Limits { entries: 100, bytes: 1 << 20 };
            let map: S3Fifo<Digest, Arc<u64>> = S3Fifo::new(limits, seed);
            for number in 0..hot {
                map.insert(&key(number), Arc::new(number), 10);
                map.get(&key(number));
                map.get(&key(number));
            }
            for number in 0..hot * 100 {
                map.insert(&key(1_000_000 + number), Arc::new(number), 10);
            }
            let survivors = (0..hot).filter(|number| map.get(&key(*number)).is_some()).count() as u64;
            prop_assert_eq!(survivors, hot);
            check(&map, limits);
        }
    }

    #[test]
    fn a_scan_by_size_does_not_push_out_the_hot_set_either() {
        let limits = Limits { entries: 100_000, bytes: 1 << 20 };
        let map = map(limits.entries, limits.bytes);
        for number in 0..50 {
            map.insert(&key(number), Arc::new(number), 1000);
            map.get(&key(number));
            map.get(&key(number));
        }
        for number in 0..5000 {
            map.insert(&key(1000 + number), Arc::new(number), 8000);
        }
        assert!((0..50).all(|number| map.get(&key(number)).is_some()));
        assert!(map.stats().evictions > 4000);
        check(&map, limits);
    }

    #[test]
    fn what_comes_back_soon_after_its_eviction_is_kept_from_then_on() {
        let limits = Limits { entries: 100, bytes: 1 << 20 };
        for (gone_for, kept) in [(100, true), (150, true), (250, false)] {
            let map = map(limits.entries, limits.bytes);
            map.insert(&key(0), Arc::new(0), 0);
            for number in 1..=gone_for {
                map.insert(&key(number), Arc::new(number), 0);
            }
            assert_eq!(map.peek(&key(0)), None);
            map.insert(&key(0), Arc::new(0), 0);
            for number in 1000..1150 {
                map.insert(&key(number), Arc::new(number), 0);
            }
            assert_eq!(map.peek(&key(0)).is_some(), kept, "gone for {gone_for} insertions");
            check(&map, limits);
        }
    }

    #[test]
    fn a_renewed_value_keeps_the_standing_of_the_one_before() {
        let map = map(100, 1 << 20);
        map.insert(&key(0), Arc::new(0), 0);
        map.get(&key(0));
        map.get(&key(0));
        map.insert(&key(0), Arc::new(1), 0);
        for number in 1..1000 {
            map.insert(&key(number), Arc::new(number), 0);
        }
        assert_eq!(map.peek(&key(0)), Some(Arc::new(1)));
    }

    #[test]
    fn in_the_main_queue_more_hits_make_a_longer_stay() {
        let map = map(100, 1 << 20);
        let put_popular = |number| {
            map.insert(&key(number), Arc::new(number), 0);
            map.get(&key(number));
            map.get(&key(number));
        };
        (0..100).for_each(put_popular);
        (100..120).for_each(put_popular); // by now the first of them are in the main queue
        for _ in 0..3 {
            map.get(&key(50));
        }
        map.get(&key(51));
        (1000..1200).for_each(put_popular); // twice through the main queue
        assert!(map.peek(&key(50)).is_some());
        assert!(map.peek(&key(51)).is_none());
    }

    #[test]
    fn a_replaced_value_is_charged_once() {
        let map = map(10, 1 << 20);
        for cost in [100, 5000, 0] {
            assert!(map.insert(&key(1), Arc::new(1), cost));
            assert_eq!((map.stats().entries, map.stats().bytes), (1, cost + overhead()));
        }
        assert_eq!(map.stats().evictions, 0);
    }

    #[test]
    fn what_cannot_fit_is_not_kept_and_leaves_no_older_value_behind() {
        let map = map(10, 1000);
        assert!(map.insert(&key(1), Arc::new(1), 1000 - overhead()));
        assert!(!map.insert(&key(1), Arc::new(2), 1001 - overhead()));
        assert!(!map.insert(&key(2), Arc::new(2), usize::MAX));
        assert_eq!(map.get(&key(1)), None);
        assert_eq!(map.stats().entries, 0);
    }

    #[test]
    fn large_maps_are_sharded_and_stay_within_their_limits() {
        let limits = Limits { entries: 20_000, bytes: 256 << 20 };
        let map = map(limits.entries, limits.bytes);
        assert_eq!(map.shards.len(), 16);
        for number in 0..50_000 {
            map.insert(&key(number), Arc::new(number), 100);
        }
        check(&map, limits);
        // Digests spread evenly enough that hardly any room is lost.
        assert!(map.stats().entries > 19_900, "{:?}", map.stats());
        for (entries, bytes, shards) in
            [(20_000, 4 << 20, 1), (511, 256 << 20, 1), (1024, 8 << 20, 2), (5000, 1 << 30, 8)]
        {
            assert_eq!(S3Fifo::<Digest, Arc<u64>>::new(Limits { entries, bytes }, SEED).shards.len(), shards);
        }
    }

    #[test]
    fn as_many_calls_as_there_are_parts_sweep_every_dead_entry() {
        let map = map(20_000, 256 << 20);
        for number in 0..1000 {
            map.insert(&key(number), Arc::new(number), 0);
        }
        let removed: Vec<usize> = (0..60).map(|_| map.sweep(60, |value| **value % 2 == 1)).collect();
        assert_eq!(removed.iter().sum::<usize>(), 500);
        // Each call does its part: 1000 entries in 16 shards, of which it looks at one or two in each.
        assert!(removed.iter().all(|removed| *removed <= 32), "{removed:?}");
        assert_eq!(map.stats().entries, 500);
        assert!((0..1000).all(|number| map.get(&key(number)).is_some() == (number % 2 == 0)));
        assert_eq!(S3Fifo::<Digest, Arc<u64>>::new(Limits { entries: 1, bytes: 1 }, SEED).sweep(1, |_| true), 0);
    }

    #[test]
    fn a_growing_map_is_swept_within_two_rounds() {
        let map = map(100_000, 256 << 20);
        for round in 0..=20 {
            for number in round * 1000..round * 1000 + 1000 {
                map.insert(&key(number), Arc::new(number), 0);
            }
            map.sweep(10, |value| **value < 1000);
        }
        assert!((0..1000).all(|number| map.peek(&key(number)).is_none()));
        assert_eq!(map.stats().entries, 20_000);
    }

    #[test]
    fn a_sweep_leaves_a_busy_shard_and_a_value_put_meanwhile() {
        let map = map(10, 1 << 20);
        map.insert(&key(1), Arc::new(1), 0);
        {
            let _held = locked(map.shard(map.hash(&key(1))));
            assert_eq!(map.sweep(1, |_| true), 0);
        }
        let replace = |value: &Arc<u64>| {
            map.insert(&key(1), Arc::new(**value + 1), 0);
            true
        };
        assert_eq!(map.sweep(1, replace), 0);
        assert_eq!(map.get(&key(1)), Some(Arc::new(2)));
        assert_eq!(map.sweep(1, |_| true), 1);
    }

    #[test]
    fn a_value_put_while_the_predicate_runs_stays() {
        let map = map(10, 1 << 20);
        map.insert(&key(1), Arc::new(1), 0);
        let refused = map.get_if(&key(1), |value| {
            assert_eq!(**value, 1);
            map.insert(&key(1), Arc::new(2), 0);
            false
        });
        assert_eq!(refused, None);
        assert_eq!(map.get(&key(1)), Some(Arc::new(2)));
    }

    /// A value whose drop asks the map that it was in.
    struct Curious(Arc<OnceLock<S3Fifo<Digest, Arc<Curious>>>>);

    impl Drop for Curious {
        fn drop(&mut self) {
            if let Some(map) = self.0.get() {
                let _ = map.stats();
            }
        }
    }

    #[test]
    fn no_lock_is_held_while_code_of_the_caller_runs() {
        let (done, waiting) = mpsc::channel();
        std::thread::spawn(move || {
            let map = Arc::new(OnceLock::new());
            map.get_or_init(|| S3Fifo::new(Limits { entries: 4, bytes: 1 << 20 }, SEED));
            let cache = map.get().unwrap();
            let curious = || Arc::new(Curious(Arc::clone(&map)));
            for number in 0..100 {
                cache.insert(&key(number), curious(), 0); // evicts
                cache.insert(&key(number), curious(), 0); // replaces
            }
            cache.insert(&key(0), curious(), usize::MAX); // refuses
            cache.insert(&key(0), curious(), 0);
            cache.get_if(&key(0), |_| cache.stats().entries > 100);
            cache.sweep(1, |_| cache.stats().entries > 0);
            cache.remove(&key(99));
            cache.insert(&key(0), curious(), 0);
            cache.clear();
            done.send(cache.stats().entries).unwrap();
        });
        assert_eq!(waiting.recv_timeout(Duration::from_secs(30)), Ok(0), "a lock was taken twice");
    }

    #[test]
    fn threads_never_see_a_value_of_another_key() {
        let limits = Limits { entries: 2000, bytes: 64 << 20 };
        let map = map(limits.entries, limits.bytes);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let map = &map;
                scope.spawn(move || {
                    for round in 0..20_000_u64 {
                        let number = (round * (thread + 7)) % 3000;
                        match round % 5 {
                            0 => drop(map.insert(&key(number), Arc::new(number), 10)),
                            1 if round % 100 == 1 => drop(map.remove(&key(number))),
                            2 => drop(map.get_if(&key(number), |value| **value == number && round % 50 != 2)),
                            3 if round % 50 == 3 => _ = map.sweep(100, |value| **value % 97 == 0),
                            _ => assert!(map.get(&key(number)).is_none_or(|value| *value == number)),
                        }
                    }
                });
            }
        });
        for (found, value) in check(&map, limits) {
            assert_eq!(found, key(*value));
        }
    }

    #[test]
    fn who_does_not_want_to_wait_does_not() {
        let map: S3Fifo<Digest, Arc<u32>> = S3Fifo::new(Limits { entries: 10, bytes: 10_000 }, [1, 2]);
        let key = [7; 32];
        assert!(map.insert_unless_busy(&key, Arc::new(1), 8));
        assert_eq!(map.get_unless_busy(&key), Some(Arc::new(1)));
        {
            let _held = locked(map.shard(map.hash(&key)));
            assert_eq!(map.get_unless_busy(&key), None);
            assert!(!map.insert_unless_busy(&key, Arc::new(2), 8));
            map.remove_unless_busy(&key);
            assert_eq!(map.stats().entries, 0, "a shard that stays busy is left out");
        }
        assert_eq!(map.get(&key), Some(Arc::new(1)));
        map.remove_unless_busy(&key);
        assert_eq!(map.get(&key), None);
    }

    #[test]
    fn the_seed_moves_entries_around() {
        let one = map(10, 1000);
        let other: S3Fifo<Digest, Arc<u64>> = S3Fifo::new(Limits { entries: 10, bytes: 1000 }, [1, 2]);
        assert!((0..100).all(|number| one.hash(&key(number)) != other.hash(&key(number))));
    }

    #[test]
    fn an_entry_is_charged_with_its_slot_and_what_refers_to_it() {
        // 32 bytes of key, 8 of value, and no more than twice as much again.
        assert!((72 + 64..160).contains(&overhead()), "{}", overhead());
    }

    #[test]
    fn one_bit_of_a_key_or_of_the_seed_changes_half_of_the_hash() {
        let of = |key: &Digest, seed: [u64; 2]| {
            S3Fifo::<Digest, Arc<u64>>::new(Limits { entries: 1, bytes: 1 }, seed).hash(key)
        };
        let (mut by_key, mut by_seed) = (0, 0);
        for number in 0..16 {
            let key = key(number);
            for bit in 0..128_usize {
                let (mut other, mut seed) = (key, SEED);
                other[bit / 8] ^= 1 << (bit % 8);
                seed[bit / 64] ^= 1 << (bit % 64);
                let (with_key, with_seed) = (of(&key, SEED) ^ of(&other, SEED), of(&key, SEED) ^ of(&key, seed));
                assert!(with_key != 0 && with_seed != 0, "bit {bit}");
                by_key += with_key.count_ones();
                by_seed += with_seed.count_ones();
            }
        }
        let expected = 16 * 128 * 30..16 * 128 * 34;
        assert!(expected.contains(&by_key) && expected.contains(&by_seed), "{by_key} {by_seed} {expected:?}");
    }

    #[test]
    fn the_ghost_remembers_each_of_the_last_ones_once() {
        let mut ghost = Ghost::default();
        for hash in [1, 1, 2, 1, 3] {
            ghost.remember(hash, 2);
        }
        assert_eq!((ghost.members.len(), ghost.order.len()), (2, 2));
        assert_eq!([1, 2, 2, 3].map(|hash| ghost.forget(hash)), [false, true, false, true]);
        // The places of those that were forgotten early are free again in their turn.
        for hash in 10..20 {
            ghost.remember(hash, 3);
        }
        assert_eq!([16, 17, 18, 19].map(|hash| ghost.forget(hash)), [false, true, true, true]);
    }

    #[test]
    fn what_fits_exactly_evicts_nothing() {
        let map = map(10, 2 * overhead() + 100);
        map.insert(&key(1), Arc::new(1), 60);
        map.insert(&key(2), Arc::new(2), 40);
        assert_eq!((map.stats().entries, map.stats().evictions), (2, 0));
        map.insert(&key(2), Arc::new(3), 41);
        assert_eq!((map.stats().entries, map.stats().evictions), (1, 1));
        assert_eq!(map.peek(&key(2)), Some(Arc::new(3)));
    }

    #[test]
    fn one_request_does_not_save_an_entry_from_a_flood() {
        let map = map(100, 1 << 20);
        map.insert(&key(0), Arc::new(0), 0);
        map.insert(&key(1), Arc::new(1), 0);
        map.get(&key(0));
        map.get(&key(1));
        map.get(&key(1));
        for number in 2..150 {
            map.insert(&key(number), Arc::new(number), 0);
        }
        assert_eq!((map.peek(&key(0)), map.peek(&key(1))), (None, Some(Arc::new(1))));
    }

    #[test]
    fn a_flood_of_large_entries_takes_a_tenth_of_the_bytes() {
        // The limit of entries is never reached.
        let map = map(10_000, 100 * (overhead() + 1000));
        let hot = 0..85;
        for number in hot.clone() {
            map.insert(&key(number), Arc::new(number), 1000);
            map.get(&key(number));
            map.get(&key(number));
        }
        for number in 1000..1500 {
            map.insert(&key(number), Arc::new(number), 1000);
        }
        assert!(hot.clone().all(|number| map.peek(&key(number)).is_some()));
        let shard = locked(&map.shards[0]);
        assert_eq!(shard.main.entries, 85);
        assert!((10..=15).contains(&shard.small.entries), "{}", shard.small.entries);
    }

    #[test]
    fn while_the_small_queue_is_below_its_tenth_the_main_queue_makes_room() {
        let map = map(100, 1 << 20);
        for number in 0..100 {
            map.insert(&key(number), Arc::new(number), 0);
            map.get(&key(number));
            map.get(&key(number));
        }
        map.insert(&key(100), Arc::new(100), 0);
        assert_eq!(map.peek(&key(0)), None, "the oldest of the main queue");
        let shard = locked(&map.shards[0]);
        assert_eq!((shard.small.entries, shard.main.entries), (10, 90));
    }

    #[test]
    fn a_sweep_goes_on_where_the_last_one_stopped() {
        let map = map(100, 1 << 20);
        for number in 0..10 {
            map.insert(&key(number), Arc::new(number), 0);
        }
        let seen = std::sync::Mutex::new(Vec::new());
        for _ in 0..5 {
            map.sweep(3, |value| {
                seen.lock().unwrap().push(**value);
                false
            });
        }
        assert_eq!(seen.into_inner().unwrap(), (0..20).map(|number| number % 10).collect::<Vec<_>>());
    }
}
