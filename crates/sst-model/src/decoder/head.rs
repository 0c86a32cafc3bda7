//! The final norm and the head: logits, and the loss with its gradient, -log p_t and p - onehot(t) of every row.
//!
//! A row of logits is as long as the vocabulary, so few rows are there at once, and every step takes the place of the one
//! before. On the CPU the head is cut into blocks of the vocabulary: of few rows and one wide matrix the product libraries
//! make less than two thirds of what they make of a batch of narrower ones.

use super::norm::RmsNorm;
use tch::{Device, Kind, Tensor};

/// Rows of the head's output computed at once.
const ROWS: i64 = 256;

/// So many rows are few.
const FEW: i64 = 64;

/// A block of the vocabulary has at least so many tokens ...
const BLOCK: i64 = 512;

/// ... and there are so many blocks at most.
const BLOCKS: i64 = 64;

/// What the rows of the head's output are compared with.
pub(crate) enum Targets {
    /// Token numbers, int64 [n].
    Given(Tensor),
    /// Numbers in [0, 1), f32 [n, 1], that pick a token of the row's own distribution.
    Drawn(Tensor),
}

#[derive(Debug)]
pub(super) struct Head {
    pub norm: RmsNorm,
    pub weight: Tensor, // [vocab, d_model]; the embedding where tied
}

impl Head {
    /// Logits of hidden states [n, d_model], before the final norm, as f32 [n, vocab].
    pub fn logits(&self, hidden: &Tensor) -> Tensor {
        let normed = self.norm.apply(hidden, &self.norm.scale(hidden));
        let blocks = self.blocks();
        // Of many rows the blocks are not faster by as much as it takes to put them together.
        if blocks == 1 || hidden.size()[0] > FEW {
            return normed.linear(&self.weight, None::<&Tensor>).to_kind(Kind::Float);
        }
        let logits = block_logits(&normed, &self.weight, blocks);
        logits.transpose(0, 1).flatten(1, 2)
    }

    fn blocks(&self) -> i64 {
        match self.weight.device() {
            Device::Cpu => blocks(self.weight.size()[0]),
            _ => 1,
        }
    }

    /// Losses of hidden states [n, d_model], before the final norm, and the gradient of their weighted sum: -log p of each
    /// row's target, f32 [n], and [n, d_model], with `weights` f32 [n].
    pub fn loss_gradient(&self, hidden: &Tensor, targets: &Targets, weights: &Tensor) -> (Tensor, Tensor) {
        let scale = self.norm.scale(hidden);
        let normed = self.norm.apply(hidden, &scale);
        let blocks = self.blocks();
        let (mut losses, mut gradients) = (Vec::new(), Vec::new());
        let n = hidden.size()[0];
        for from in (0..n).step_by(ROWS as usize) {
            let rows = ROWS.min(n - from);
            let targets = match targets {
                Targets::Given(targets) => Targets::Given(targets.narrow(0, from, rows)),
                Targets::Drawn(draws) => Targets::Drawn(draws.narrow(0, from, rows)),
            };
            let (loss, gradient) = loss_gradient(&normed.narrow(0, from, rows), &self.weight, &targets, blocks);
            losses.push(loss);
            let weight = weights.narrow(0, from, rows).unsqueeze(1);
            gradients.push((gradient * weight).to_kind(hidden.kind()));
        }
        let gradient = self.norm.backward(&Tensor::cat(&gradients, 0), hidden, &scale);
        (Tensor::cat(&losses, 0), gradient)
    }
}

/// Equal blocks that a vocabulary is cut into.
fn blocks(vocab: i64) -> i64 {
    (1..=BLOCKS.min(vocab / BLOCK))
        .rev()
        .find(|count| vocab % count == 0)
        .unwrap_or(1)
}

/// Logits of x [n, d_model], the head's input, f32 [blocks, n, vocab / blocks].
fn block_logits(x: &Tensor, head: &Tensor, blocks: i64) -> Tensor {
    let head = head.view([blocks, head.size()[0] / blocks, -1]);
    let x = x.unsqueeze(0).expand([blocks, -1, -1], false);
    x.bmm(&head.transpose(1, 2)).to_kind(Kind::Float)
}

/// -log p of every row's target, f32 [n], and its gradient at the rows x [n, d_model] of the head's input, f32.
fn loss_gradient(x: &Tensor, head: &Tensor, targets: &Targets, blocks: i64) -> (Tensor, Tensor) {
    let (n, vocab) = (x.size()[0], head.size()[0]);
    let width = vocab / blocks;
    let mut logits = block_logits(x, head, blocks); // [blocks, n, width]
    let target = match targets {
        Targets::Given(targets) => targets.shallow_clone(),
        Targets::Drawn(draws) => drawn(&logits.transpose(0, 1).reshape([n, vocab]), draws).squeeze_dim(1),
    };
    // Where each target's logit lies in the flattened blocks.
    let row = Tensor::arange(n, (Kind::Int64, target.device()));
    let block = target.divide_scalar_mode(width, "floor");
    let at = (block * n + row) * width + target.remainder(width);
    let at_target = logits.flatten(0, -1).index_select(0, &at);

    let largest = logits.amax([0i64, 2].as_slice(), true); // [1, n, 1]
    let exponentials = logits.g_sub_(&largest).exp_();
    let sums = exponentials.sum_dim_intlist([0i64, 2].as_slice(), false, Kind::Float); // [n]
    let losses = largest.flatten(0, -1) + sums.log() - at_target;
    let _ = exponentials.view(-1).scatter_add_(0, &at, &sums.neg());
    let head = head.view([blocks, width, -1]);
    let gradient = exponentials.to_kind(head.kind()).bmm(&head); // [blocks, n, d_model]
    let gradient = gradient.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    (losses, gradient / sums.unsqueeze(1))
}

/// The first token at which the cumulated probability exceeds the draw: int64 [n, 1], from logits f32 [n, vocab].
fn drawn(logits: &Tensor, draws: &Tensor) -> Tensor {
    let below = logits
        .softmax(-1, Kind::Double)
        .cumsum(-1, Kind::Double)
        .le_tensor(draws);
    let last = logits.size()[1] - 1;
    // Rounding may leave the whole sum below the draw.
    below
        .sum_dim_intlist([-1i64].as_slice(), true, Kind::Int64)
        .clamp_max(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vocabularies_are_cut_evenly() {
        assert_eq!([49152, 128_256, 32000, 31_991, 300].map(blocks), [64, 64, 50, 1, 1]);
    }

    #[test]
    fn blocks_change_neither_loss_nor_gradient() {
        const N: i64 = 5;
        const D: i64 = 8;
        const VOCAB: i64 = 24;
        let on = (Kind::Double, Device::Cpu);
        let wave = |rows: i64, pace: f64| (Tensor::arange(rows * D, on) * pace).sin().reshape([rows, D]);
        let (x, head) = (wave(N, 0.7).to_kind(Kind::Float), wave(VOCAB, 1.3).to_kind(Kind::Float));
        let given = Targets::Given(Tensor::from_slice(&[0i64, 5, 6, 23, 12]));
        let drawn = Targets::Drawn(Tensor::from_slice(&[0.0f32, 0.3, 0.5, 0.9, 0.999]).unsqueeze(1));
        for targets in [given, drawn] {
            let (losses, gradient) = loss_gradient(&x, &head, &targets, 1);
            for blocks in [2, 4, 24] {
                let (l, g) = loss_gradient(&x, &head, &targets, blocks);
                // Sums of `VOCAB` numbers of size 1, in another order.
                let bound = VOCAB as f64 * f64::from(f32::EPSILON);
                assert!((&l - &losses).abs().max().double_value(&[]) <= bound);
                assert!((&g - &gradient).abs().max().double_value(&[]) <= bound);
            }
        }
    }

    #[test]
    fn logits_of_few_rows_are_those_of_many() {
        let on = (Kind::Float, Device::Cpu);
        let wave = |rows: i64, pace: f64| (Tensor::arange(rows * 8, on) * pace).sin().reshape([rows, 8]);
        let (x, head) = (wave(3, 0.7), wave(2 * BLOCK, 1.3));
        let logits = block_logits(&x, &head, 2).transpose(0, 1).flatten(1, 2);
        let gap = (logits - x.matmul(&head.tr())).abs().max().double_value(&[]);
        // Sums of 8 products of numbers of size 1, in another order.
        assert!(gap <= 8.0 * f64::from(f32::EPSILON), "{gap}");
    }

    #[test]
    fn the_gradient_is_libtorchs_own() {
        let on = (Kind::Float, Device::Cpu);
        let x = (Tensor::arange(24, on) * 0.7)
            .sin()
            .reshape([3, 8])
            .set_requires_grad(true);
        let head = (Tensor::arange(96, on) * 1.3).sin().reshape([12, 8]);
        let target = Tensor::from_slice(&[0i64, 7, 11]);
        let expected = x.matmul(&head.tr()).cross_entropy_for_logits(&target) * 3.0;
        expected.backward();
        let (losses, gradient) = loss_gradient(&x.detach(), &head, &Targets::Given(target), 3);
        let bound = 12.0 * f64::from(f32::EPSILON);
        assert!((losses.sum(Kind::Float) - expected).abs().double_value(&[]) <= 3.0 * bound);
        assert!((gradient - x.grad()).abs().max().double_value(&[]) <= bound);
    }
}
