//! Keys and values of the tokens already seen, for generation.

use crate::config::ModelConfig;
use tch::{Device, Kind, Tensor};

/// Preallocated keys and values of every layer.
#[derive(Debug)]
pub(crate) struct KvCache {
    layers: Vec<(Tensor, Tensor)>, // each [batch, kv_heads, capacity, head_dim]
    len: i64,
}

impl KvCache {
    pub(crate) fn new(config: &ModelConfig, batch: i64, capacity: i64, kind: Kind, device: Device) -> Self {
        let size = [batch, config.kv_heads as i64, capacity, config.head_dim as i64];
        let zeros = || Tensor::zeros(size, (kind, device));
        Self {
            layers: (0..config.layers).map(|_| (zeros(), zeros())).collect(),
            len: 0,
        }
    }

    /// Tokens held so far.
    pub(crate) fn len(&self) -> i64 {
        self.len
    }

    /// Stores the new keys and values of layer `n` ([batch, seq, kv_heads, head_dim]) and returns all of them.
    pub(crate) fn extend(&mut self, n: usize, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        let seq = k.size()[1];
        let extended = |held: &Tensor, new: &Tensor| {
            held.narrow(2, self.len, seq).copy_(&new.transpose(1, 2));
            held.narrow(2, 0, self.len + seq).transpose(1, 2)
        };
        let (keys, values) = &self.layers[n];
        (extended(keys, k), extended(values, v))
    }

    /// Moves on by `seq` tokens, once all layers have stored theirs.
    pub(crate) fn advance(&mut self, seq: i64) {
        self.len += seq;
    }

    /// Keeps only the rows numbered in `rows` (int64), in that order.
    pub(crate) fn keep(&mut self, rows: &Tensor) {
        for (k, v) in &mut self.layers {
            *k = k.index_select(0, rows);
            *v = v.index_select(0, rows);
        }
    }
}
