//! Causal attention as matrix products over blocks of queries, on the CPU.
//!
//! A block of queries meets the keys up to its own end alone, so that little of what the mask hides is computed, and the
//! scores of one block are all that is ever there. The heads that share keys and values are rows of one product. With scores
//! P = softmax(q k^T / sqrt(head_dim)) and the gradient d at the result,
//!
//! dv = P^T d, dP = d v^T, dS = P (dP - rowsum(dP P)), dq = dS k / sqrt(head_dim), dk = dS^T q / sqrt(head_dim);
//!
//! P is computed again in the backward pass, as in FlashAttention (Dao et al. 2022).

use tch::{Kind, Tensor};

/// Queries of a block: of 48, 64, 96 and 128 the fastest at 100 to 1024 tokens.
const BLOCK: i64 = 64;

/// Queries, keys, values and the result; a query's row is (position, head of its group).
pub(in super::super) struct Blocked {
    heads: Heads,
    q: Tensor,   // [batch * kv_heads, seq * group, head_dim], divided by sqrt(head_dim)
    k: Tensor,   // [batch * kv_heads, seq, head_dim]
    v: Tensor,   // [batch * kv_heads, seq, head_dim]
    out: Tensor, // as q
}

impl Blocked {
    /// Without padding on the left; of as many keys as queries.
    pub fn new(q: &Tensor, k: &Tensor, v: &Tensor) -> Self {
        let heads = Heads::of(q, k);
        let q = heads.fold(q) * heads.scale();
        let (k, v) = (heads.fold(k), heads.fold(v));
        let blocks = heads.blocks().map(|block| {
            let p = probabilities(&q, &k, &heads, block);
            p.bmm(&v.narrow(1, 0, block.to))
        });
        let out = joined(blocks.collect());
        Self { heads, q, k, v, out }
    }

    pub fn out(&self) -> Tensor {
        self.heads.unfold(&self.out)
    }

    pub fn backward(self, gradient: &Tensor) -> [Tensor; 3] {
        let heads = &self.heads;
        let gradient = heads.fold(gradient);
        let (dk, dv) = (self.k.zeros_like(), self.v.zeros_like());
        let blocks = heads.blocks().map(|block| {
            let of_block = |t: &Tensor| t.narrow(1, block.from * heads.group, block.len() * heads.group);
            let seen = |t: &Tensor| t.narrow(1, 0, block.to);
            let d = of_block(&gradient);
            let p = probabilities(&self.q, &self.k, heads, block);
            let _ = seen(&dv).g_add_(&p.transpose(1, 2).bmm(&d));
            let dp = d.bmm(&seen(&self.v).transpose(1, 2));
            let ds = Tensor::internal_softmax_backward_data_out(&dp, &dp, &p, -1, Kind::Float);
            let _ = seen(&dk).g_add_(&ds.transpose(1, 2).bmm(&of_block(&self.q)));
            ds.bmm(&seen(&self.k))
        });
        let mut dq = joined(blocks.collect());
        let dq = dq.g_mul_scalar_(heads.scale());
        [heads.unfold(&dq), heads.unfold(&dk), heads.unfold(&dv)]
    }
}

/// Positions [from, to).
#[derive(Clone, Copy)]
struct Block {
    from: i64,
    to: i64,
}

impl Block {
    fn len(self) -> i64 {
        self.to - self.from
    }
}

struct Heads {
    batch: i64,
    seq: i64,
    kv: i64,
    /// Query heads that share a head of keys and values.
    group: i64,
    dim: i64,
}

impl Heads {
    fn of(q: &Tensor, k: &Tensor) -> Self {
        let (size, kv) = (q.size(), k.size()[2]);
        Self {
            batch: size[0],
            seq: size[1],
            kv,
            group: size[2] / kv,
            dim: size[3],
        }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    /// About equal blocks of at most [`BLOCK`] positions.
    fn blocks(&self) -> impl Iterator<Item = Block> {
        let (seq, count) = (self.seq, (self.seq + BLOCK - 1) / BLOCK);
        (0..count).map(move |i| Block {
            from: seq * i / count,
            to: seq * (i + 1) / count,
        })
    }

    /// [batch, seq, heads, head_dim] -> [batch * kv_heads, seq * (heads / kv_heads), head_dim].
    fn fold(&self, t: &Tensor) -> Tensor {
        t.reshape([self.batch, self.seq, self.kv, -1, self.dim])
            .transpose(1, 2)
            .reshape([self.batch * self.kv, -1, self.dim])
    }

    /// Back again.
    fn unfold(&self, t: &Tensor) -> Tensor {
        t.reshape([self.batch, self.kv, self.seq, -1, self.dim])
            .transpose(1, 2)
            .reshape([self.batch, self.seq, -1, self.dim])
    }
}

/// P of a block, [batch * kv_heads, block * group, block.to].
fn probabilities(q: &Tensor, k: &Tensor, heads: &Heads, block: Block) -> Tensor {
    let q = q.narrow(1, block.from * heads.group, block.len() * heads.group);
    let scores = q.bmm(&k.narrow(1, 0, block.to).transpose(1, 2));
    let hidden = Tensor::full([block.len(), block.len()], f64::NEG_INFINITY, (q.kind(), q.device()))
        .triu(1)
        .repeat_interleave_self_int(heads.group, 0, None);
    let _ = scores.narrow(2, block.from, block.len()).g_add_(&hidden);
    scores.internal_softmax_out(&scores, -1, false)
}

fn joined(mut blocks: Vec<Tensor>) -> Tensor {
    if blocks.len() == 1 {
        blocks.remove(0)
    } else {
        Tensor::cat(&blocks, 1)
    }
}
