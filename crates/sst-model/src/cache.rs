//! Keys and values of tokens already seen: of shared prefixes, and of the sequences that are being answered.
//!
//! Every sequence under way has a slot. Slots are filled from the first token on, so that a sequence that ends may be
//! replaced by one of any other length; those in use are always the first ones.

use crate::config::ModelConfig;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// Slots grow by so many tokens at once.
const BLOCK: i64 = 256;

#[derive(Debug)]
pub(crate) struct KvCache {
    slots: Vec<Layer>, // each [slots, kv_heads, capacity, head_dim]
    lengths: Vec<i64>,
    rows: i64,
    capacity: i64,
    kv_heads: i64,
    head_dim: i64,
    prefixes: BTreeMap<usize, Vec<Layer>>, // each [1, tokens, kv_heads, head_dim]
    on: (Kind, Device),
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub k: Tensor,
    pub v: Tensor,
}

/// Where the next tokens of the first sequences go.
#[derive(Debug)]
pub(crate) struct Advance {
    count: i64,
    longest: i64,
    rows: Tensor, // int64 [count * kv_heads], of keys and values as [slots * kv_heads * capacity, head_dim]
}

impl KvCache {
    /// With room for `rows` sequences; memory is taken as they grow.
    pub(crate) fn new(config: &ModelConfig, rows: usize, on: (Kind, Device)) -> Self {
        let mut cache = Self {
            slots: Vec::new(),
            lengths: Vec::new(),
            rows: rows as i64,
            capacity: 0,
            kv_heads: config.kv_heads as i64,
            head_dim: config.head_dim as i64,
            prefixes: BTreeMap::new(),
            on,
        };
        cache.slots = (0..config.layers).map(|_| cache.empty()).collect();
        cache
    }

    /// Masked entries are multiplied by 0, so they must at least be numbers.
    fn empty(&self) -> Layer {
        let zeros = || Tensor::zeros([self.rows, self.kv_heads, self.capacity, self.head_dim], self.on);
        Layer { k: zeros(), v: zeros() }
    }

    /// Tokens of every sequence under way, slot by slot.
    pub(crate) fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Makes room for one more token of the first `count` sequences. No slot may be taken from here until all layers have
    /// stored theirs.
    pub(crate) fn advance(&mut self, count: usize) -> Advance {
        self.lengths[..count].iter_mut().for_each(|n| *n += 1);
        let longest = self.lengths[..count].iter().copied().max().unwrap_or(0);
        self.reserve(longest);
        let (heads, capacity) = (self.kv_heads, self.capacity);
        let rows: Vec<i64> = (0i64..)
            .zip(&self.lengths[..count])
            .flat_map(|(slot, n)| (0..heads).map(move |head| (slot * heads + head) * capacity + n - 1))
            .collect();
        Advance {
            count: count as i64,
            longest,
            rows: Tensor::from_slice(&rows).to_device(self.on.1),
        }
    }

    /// Stores the keys and values of the new tokens, [count, 1, kv_heads, head_dim], and returns those of all tokens of
    /// their sequences, [count, longest, kv_heads, head_dim].
    pub(crate) fn append(&self, layer: usize, to: &Advance, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        let extended = |held: &Tensor, new: &Tensor| {
            let new = new.reshape([-1, self.head_dim]);
            let _ = held.view([-1, self.head_dim]).index_copy_(0, &to.rows, &new);
            held.narrow(0, 0, to.count).narrow(2, 0, to.longest).transpose(1, 2)
        };
        let held = &self.slots[layer];
        (extended(&held.k, k), extended(&held.v, v))
    }

    /// Takes a slot for a sequence of `length` tokens; [`KvCache::fill`] must follow for every layer.
    pub(crate) fn take(&mut self, length: i64) -> usize {
        self.reserve(length);
        self.lengths.push(length);
        self.lengths.len() - 1
    }

    /// Stores all keys and values of the sequence in `slot`, each [1, tokens, kv_heads, head_dim].
    pub(crate) fn fill(&self, layer: usize, slot: usize, k: &Tensor, v: &Tensor) {
        let held = &self.slots[layer];
        for (held, new) in [(&held.k, k), (&held.v, v)] {
            let mut held = held.get(slot as i64).narrow(1, 0, new.size()[1]);
            held.copy_(&new.squeeze_dim(0).transpose(0, 1));
        }
    }

    /// Gives `slot` back; the sequence in the last slot moves there.
    pub(crate) fn release(&mut self, slot: usize) {
        let last = self.lengths.len() - 1;
        let length = self.lengths[last];
        if slot < last {
            for layer in &self.slots {
                for held in [&layer.k, &layer.v] {
                    let row = |slot: usize| held.get(slot as i64).narrow(1, 0, length);
                    row(slot).copy_(&row(last));
                }
            }
        }
        self.lengths.swap_remove(slot);
    }

    fn reserve(&mut self, tokens: i64) {
        if tokens <= self.capacity {
            return;
        }
        let before = self.capacity;
        self.capacity = (tokens + BLOCK - 1) / BLOCK * BLOCK;
        for n in 0..self.slots.len() {
            let larger = self.empty();
            let old = &self.slots[n];
            for (old, new) in [(&old.k, &larger.k), (&old.v, &larger.v)] {
                new.narrow(2, 0, before).copy_(old);
            }
            self.slots[n] = larger;
        }
    }

    /// The keys and values of `node` and all that it follows.
    pub(crate) fn prefix(&self, layer: usize, node: usize) -> Option<&Layer> {
        self.prefixes.get(&node)?.get(layer)
    }

    /// Keeps the keys and values of `node` in the next layer, each [1, tokens, kv_heads, head_dim].
    pub(crate) fn keep(&mut self, node: usize, k: &Tensor, v: &Tensor) {
        // A copy of its own, not a view that keeps those of the whole pass alive.
        let copy = |t: &Tensor| t.copy();
        self.prefixes
            .entry(node)
            .or_default()
            .push(Layer { k: copy(k), v: copy(v) });
    }

    /// Forgets a prefix.
    pub(crate) fn forget(&mut self, node: usize) {
        self.prefixes.remove(&node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn config() -> ModelConfig {
        let dir = tempfile::tempdir().unwrap();
        crate::write_tiny_model(dir.path(), 0).unwrap();
        ModelConfig::read(dir.path()).unwrap()
    }

    /// Keys of a sequence whose token t has the key `mark + t` everywhere; values are their negatives.
    fn keys(config: &ModelConfig, mark: i64, tokens: i64) -> (Tensor, Tensor) {
        let marks = Tensor::arange_start(mark, mark + tokens, ON).reshape([1, -1, 1, 1]);
        let k = marks.expand([1, -1, config.kv_heads as i64, config.head_dim as i64], false);
        (k.shallow_clone(), -k)
    }

    /// The first `n` marks of a row of what [`KvCache::append`] returns, which must not differ between heads.
    fn marks(held: &Tensor, row: i64, n: i64) -> Vec<f32> {
        let row = held.get(row).narrow(0, 0, n).flatten(1, 2);
        assert!(bool::try_from(row.eq_tensor(&row.narrow(1, 0, 1)).all()).unwrap());
        crate::floats(&row.narrow(1, 0, 1))
    }

    #[test]
    fn sequences_grow_leave_and_are_replaced() {
        let _guard = tch::no_grad_guard();
        let config = config();
        let mut cache = KvCache::new(&config, 3, ON);
        let fill = |cache: &mut KvCache, mark, tokens| {
            let slot = cache.take(tokens);
            let (k, v) = keys(&config, mark, tokens);
            (0..config.layers).for_each(|layer| cache.fill(layer, slot, &k, &v));
        };
        fill(&mut cache, 100, 2);
        fill(&mut cache, 200, 255);
        fill(&mut cache, 300, 4);
        let append = |cache: &mut KvCache, next: &[i64]| {
            let at = cache.advance(next.len());
            let (k, v): (Vec<Tensor>, Vec<Tensor>) = next.iter().map(|&mark| keys(&config, mark, 1)).unzip();
            let (k, v) = (Tensor::cat(&k, 0), Tensor::cat(&v, 0));
            let all = (0..config.layers).map(|layer| cache.append(layer, &at, &k, &v));
            all.reduce(|_, last| last).unwrap()
        };
        let _ = append(&mut cache, &[102, 455, 304]);
        // Past the end of a block.
        let (k, v) = append(&mut cache, &[103, 456, 305]);
        assert_eq!(cache.lengths(), [4, 257, 6]);
        assert_eq!(k.size(), [3, 257, config.kv_heads as i64, config.head_dim as i64]);
        assert_eq!(marks(&k, 0, 4), [100.0, 101.0, 102.0, 103.0]);
        assert_eq!(marks(&k, 1, 257), (200..457).map(|m| m as f32).collect::<Vec<_>>());
        assert_eq!(marks(&v, 2, 6), [-300.0, -301.0, -302.0, -303.0, -304.0, -305.0]);

        cache.release(0);
        assert_eq!(cache.lengths(), [6, 257]);
        fill(&mut cache, 500, 1);
        let (k, _) = append(&mut cache, &[306, 457, 501]);
        assert_eq!(marks(&k, 0, 7), [300.0, 301.0, 302.0, 303.0, 304.0, 305.0, 306.0]);
        assert_eq!(marks(&k, 1, 258)[256..], [456.0, 457.0]);
        assert_eq!(marks(&k, 2, 2), [500.0, 501.0]);
    }

    #[test]
    fn prefixes_are_kept_layer_by_layer_until_forgotten() {
        let config = config();
        let mut cache = KvCache::new(&config, 1, ON);
        for mark in [1, 2] {
            let (k, v) = keys(&config, mark, 3);
            cache.keep(7, &k, &v);
        }
        assert_eq!(cache.prefix(1, 7).unwrap().k.double_value(&[0, 2, 0, 0]), 4.0);
        assert!(cache.prefix(2, 7).is_none() && cache.prefix(0, 6).is_none());
        cache.forget(7);
        assert!(cache.prefix(0, 7).is_none());
    }
}
