//! Which keys a token may attend to, and at which position it stands.
//!
//! Rows of a batch differ in length. Padding on the right needs no mask, for a causal token never looks there; padding
//! on the left does, and shifts positions. Sequences under way have slots of one capacity, filled to different lengths.

use tch::{Device, Kind, Tensor};

/// Attention bias and positions of some rows of tokens.
#[derive(Debug)]
pub(crate) struct Mask {
    positions: Tensor,    // [batch, seq], int64
    bias: Option<Tensor>, // [batch, 1, seq, keys] of the model's kind; 0 or its lowest number
    causal: bool,
}

impl Mask {
    /// Rows of `seq` tokens; row i of the batch begins with `left_pads[i]` padding tokens.
    pub(crate) fn padded(left_pads: &[i64], seq: i64, window: Option<usize>, (kind, device): (Kind, Device)) -> Self {
        let pads = Tensor::from_slice(left_pads).to_device(device).unsqueeze(1); // [batch, 1]
        let index = Tensor::arange(seq, (Kind::Int64, device)).unsqueeze(0); // [1, seq]
        let positions = (&index - &pads).clamp_min(0);
        let window = reaching(window, seq);
        if window.is_none() && left_pads.iter().all(|p| *p == 0) {
            return Self {
                positions,
                bias: None,
                causal: seq > 1,
            };
        }
        let (query, key) = (index.unsqueeze(2), index.unsqueeze(1));
        let real = key.ge_tensor(&pads.unsqueeze(2)); // [batch, 1, seq]
        let seen = key.le_tensor(&query).logical_and(&real); // [batch, seq, seq]
        Self {
            positions,
            bias: Some(bias(&within(seen, &query, &key, window), kind)),
            causal: false,
        }
    }

    /// The last token of every sequence, given their lengths with it; keys of [sequences, longest].
    pub(crate) fn last(lengths: &[i64], window: Option<usize>, (kind, device): (Kind, Device)) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let positions = Tensor::from_slice(lengths).to_device(device).unsqueeze(1) - 1; // [sequences, 1]
        let window = reaching(window, longest);
        let ragged = lengths.iter().any(|n| *n < longest);
        let bias = (ragged || window.is_some()).then(|| {
            let query = positions.unsqueeze(2);
            let key = Tensor::arange(longest, (Kind::Int64, device)).reshape([1, 1, -1]);
            bias(&within(key.le_tensor(&query), &query, &key, window), kind)
        });
        Self {
            positions,
            bias,
            causal: false,
        }
    }

    /// `trunk` tokens after a prefix of `prefix`, then one run after the other of `branches` tokens, each of which follows
    /// the trunk and does not see the other branches.
    pub(crate) fn branching(
        prefix: i64,
        trunk: i64,
        branches: &[i64],
        window: Option<usize>,
        (kind, device): (Kind, Device),
    ) -> Self {
        let long = (Kind::Int64, device);
        let runs = || std::iter::once((0, &trunk)).chain(branches.iter().map(|n| (trunk, n)));
        let positions: Vec<Tensor> = runs()
            .map(|(from, n)| Tensor::arange_start(prefix + from, prefix + from + n, long))
            .collect();
        let positions = Tensor::cat(&positions, 0).unsqueeze(0); // [1, seq]
        let seq = positions.size()[1];
        let window = reaching(window, prefix + trunk + branches.iter().copied().max().unwrap_or(0));
        if seq == trunk && window.is_none() && (prefix == 0 || seq == 1) {
            return Self {
                positions,
                bias: None,
                causal: seq > 1,
            };
        }
        // In the order of the keys; the prefix belongs to the trunk, which is run 0.
        let numbers: Vec<i64> = (0..)
            .zip(runs())
            .flat_map(|(number, (_, n))| std::iter::repeat_n(number, *n as usize))
            .collect();
        let run = Tensor::from_slice(&numbers).to_device(device);
        let before = Tensor::arange(prefix, long);
        let place = Tensor::arange_start(prefix, prefix + seq, long).unsqueeze(1); // [seq, 1]
        let keys = Tensor::arange(prefix + seq, long).unsqueeze(0); // [1, keys]
        let key_run = Tensor::cat(&[before.zeros_like(), run.shallow_clone()], 0).unsqueeze(0);
        let key = Tensor::cat(&[before, positions.squeeze_dim(0)], 0).unsqueeze(0);
        let related = key_run.eq(0).logical_or(&key_run.eq_tensor(&run.unsqueeze(1)));
        let seen = keys.le_tensor(&place).logical_and(&related); // [seq, keys]
        let seen = within(seen, &positions.squeeze_dim(0).unsqueeze(1), &key, window);
        Self {
            positions,
            bias: Some(bias(&seen.unsqueeze(0), kind)),
            causal: false,
        }
    }

    pub(crate) fn positions(&self) -> &Tensor {
        &self.positions
    }

    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    pub(crate) fn is_causal(&self) -> bool {
        self.causal
    }
}

/// The window, where it is narrower than `tokens`.
fn reaching(window: Option<usize>, tokens: i64) -> Option<i64> {
    window.map(|w| w as i64).filter(|w| *w < tokens)
}

/// What is `seen`, less what lies further back than the window.
fn within(seen: Tensor, query: &Tensor, key: &Tensor, window: Option<i64>) -> Tensor {
    match window {
        Some(window) => seen.logical_and(&key.gt_tensor(&(query - window))),
        None => seen,
    }
}

/// 0 where `seen` [batch, seq, keys], else the lowest number: a row of padding that sees nothing then averages, where
/// minus infinity would give NaN.
fn bias(seen: &Tensor, kind: Kind) -> Tensor {
    let lowest = match kind {
        Kind::Half => -65504.0,
        _ => f64::from(f32::MIN) / 2.0,
    };
    Tensor::zeros(seen.size(), (kind, seen.device()))
        .masked_fill(&seen.logical_not(), lowest)
        .unsqueeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Row after row, which keys are seen: `x.` for the first alone.
    fn seen(mask: &Mask) -> Vec<String> {
        let bias = mask.bias().unwrap();
        let keys = *bias.size().last().unwrap() as usize;
        let letters: Vec<char> = crate::floats(bias)
            .iter()
            .map(|b| if *b == 0.0 { 'x' } else { '.' })
            .collect();
        letters.chunks(keys).map(|row| row.iter().collect()).collect()
    }

    fn positions(mask: &Mask) -> Vec<i64> {
        Vec::<i64>::try_from(mask.positions().flatten(0, -1)).unwrap()
    }

    #[test]
    fn left_padding_shifts_positions_and_hides_keys() {
        let mask = Mask::padded(&[0, 1], 2, None, CPU);
        assert_eq!(positions(&mask), [0, 1, 0, 0]);
        assert_eq!(seen(&mask), ["x.", "xx", "..", ".x"]);
    }

    #[test]
    fn no_padding_needs_no_bias() {
        let mask = Mask::padded(&[0, 0], 5, Some(5), CPU);
        assert!(mask.bias().is_none() && mask.is_causal());
        let alone = Mask::last(&[6, 6], None, CPU);
        assert!(alone.bias().is_none() && !alone.is_causal());
        let whole = Mask::branching(0, 3, &[], None, CPU);
        assert!(whole.bias().is_none() && whole.is_causal());
        let one = Mask::branching(4, 1, &[], None, CPU);
        assert!(one.bias().is_none() && !one.is_causal());
    }

    #[test]
    fn a_window_hides_what_lies_far_back() {
        assert_eq!(seen(&Mask::padded(&[0], 3, Some(2), CPU)), ["x..", "xx.", ".xx"]);
        assert_eq!(seen(&Mask::last(&[4, 2], Some(3), CPU)), [".xxx", "xx.."]);
        assert_eq!(seen(&Mask::branching(2, 2, &[], Some(3), CPU)), ["xxx.", ".xxx"]);
        // Distance is counted in positions: both branches are one step from the trunk's last token.
        assert_eq!(
            seen(&Mask::branching(0, 2, &[1, 1], Some(2), CPU)),
            ["x...", "xx..", ".xx.", ".x.x"]
        );
    }

    #[test]
    fn the_last_tokens_see_their_own_sequence() {
        let mask = Mask::last(&[1, 3], None, CPU);
        assert_eq!(positions(&mask), [0, 2]);
        assert_eq!(seen(&mask), ["x..", "xxx"]);
    }

    #[test]
    fn branches_see_prefix_and_trunk_and_themselves() {
        let mask = Mask::branching(1, 2, &[2, 0, 1], None, CPU);
        assert_eq!(positions(&mask), [1, 2, 3, 4, 3]);
        assert_eq!(seen(&mask), ["xx....", "xxx...", "xxxx..", "xxxxx.", "xxx..x"]);
    }
}
