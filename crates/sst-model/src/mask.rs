//! Which keys a token may attend to, and at which position it stands.
//!
//! Rows of a batch differ in length. Padding on the right needs no mask, for a causal token never looks there; padding
//! on the left does, and shifts positions.

use tch::{Device, Kind, Tensor};

/// Attention bias and positions of one forward pass.
#[derive(Debug)]
pub(crate) struct Mask {
    positions: Tensor,    // [batch, seq], int64
    bias: Option<Tensor>, // [batch, 1, seq, keys] of the model's kind; 0 or its lowest number
    causal: bool,
}

impl Mask {
    /// `seq` new tokens after `past` cached ones; row i of the batch begins with `left_pads[i]` padding tokens.
    pub(crate) fn new(
        left_pads: &[i64],
        past: i64,
        seq: i64,
        window: Option<usize>,
        (kind, device): (Kind, Device),
    ) -> Self {
        let long = (Kind::Int64, device);
        let pads = Tensor::from_slice(left_pads).to_device(device).unsqueeze(1); // [batch, 1]
        let index = Tensor::arange_start(past, past + seq, long); // [seq]
        let positions = (index.unsqueeze(0) - &pads).clamp_min(0);
        let keys = past + seq;
        let window = window.map(|w| w as i64).filter(|w| *w < keys);
        let padded = left_pads.iter().any(|p| *p > 0);
        if !padded && window.is_none() {
            // One new token sees every key; several from the start see a plain triangle.
            let causal = seq > 1;
            let bias = (causal && past > 0).then(|| bias(&pads, &index, keys, None, kind));
            return Self {
                positions,
                causal: causal && bias.is_none(),
                bias,
            };
        }
        Self {
            positions,
            bias: Some(bias(&pads, &index, keys, window, kind)),
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

/// 0 where query index[i] may see key j (pads <= j <= index[i], and within the window), else the lowest number:
/// a row of padding that sees nothing then averages, where minus infinity would give NaN.
fn bias(pads: &Tensor, index: &Tensor, keys: i64, window: Option<i64>, kind: Kind) -> Tensor {
    let key = Tensor::arange(keys, (Kind::Int64, index.device())); // [keys]
    let query = index.unsqueeze(1); // [seq, 1]
    let mut seen = key.unsqueeze(0).le_tensor(&query); // [seq, keys]
    if let Some(window) = window {
        seen = seen.logical_and(&key.unsqueeze(0).gt_tensor(&(query - window)));
    }
    let real = key.unsqueeze(0).ge_tensor(pads); // [batch, keys]
    let seen = seen.unsqueeze(0).logical_and(&real.unsqueeze(1)); // [batch, seq, keys]
    let lowest = match kind {
        Kind::Half => -65504.0,
        _ => f64::from(f32::MIN) / 2.0,
    };
    Tensor::zeros(seen.size(), (kind, index.device()))
        .masked_fill(&seen.logical_not(), lowest)
        .unsqueeze(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn seen(mask: &Mask) -> Vec<bool> {
        let bias = mask.bias().unwrap();
        Vec::<f32>::try_from(bias.flatten(0, -1))
            .unwrap()
            .iter()
            .map(|b| *b == 0.0)
            .collect()
    }

    #[test]
    fn left_padding_shifts_positions_and_hides_keys() {
        let mask = Mask::new(&[0, 1], 0, 2, None, CPU);
        assert_eq!(
            Vec::<i64>::try_from(mask.positions().flatten(0, -1)).unwrap(),
            [0, 1, 0, 0]
        );
        assert_eq!(seen(&mask), [true, false, true, true, false, false, false, true]);
    }

    #[test]
    fn no_padding_needs_no_bias() {
        assert!(Mask::new(&[0, 0], 0, 5, None, CPU).bias().is_none());
        let step = Mask::new(&[0, 0], 5, 1, None, CPU);
        assert!(step.bias().is_none() && !step.is_causal());
    }

    #[test]
    fn a_window_hides_what_lies_far_back() {
        let mask = Mask::new(&[0], 2, 1, Some(2), CPU);
        assert_eq!(seen(&mask), [false, true, true]);
    }
}
