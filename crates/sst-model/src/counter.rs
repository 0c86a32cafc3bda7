//! Counter-based randomness: entry i of a tensor depends on (seed, name, i) alone, so order and threads change nothing.

/// A number in [low, high) for entry `index` of the tensor `name`.
///
/// SplitMix64 (Steele, Lea & Flood 2014) of seed XOR FNV-1a(name), advanced `index` steps; the upper 24 bits make the
/// fraction, exactly representable in f32.
///
/// ```
/// use sst_model::uniform;
/// let x = uniform(7, "lora_A", 3, -0.5, 0.5);
/// assert!((-0.5..0.5).contains(&x));
/// assert_eq!(x, uniform(7, "lora_A", 3, -0.5, 0.5));
/// ```
pub fn uniform(seed: u64, name: &str, index: usize, low: f64, high: f64) -> f32 {
    let state = (seed ^ fnv1a(name)).wrapping_add((index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let fraction = (splitmix64(state) >> 40) as f64 / (1u64 << 24) as f64;
    (low + (high - low) * fraction) as f32
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn splitmix64(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_the_published_ones() {
        assert_eq!(fnv1a("a"), 0xAF63_DC4C_8601_EC8C); // FNV reference vectors
        // First output of SplitMix64 from state 0: the state advances by the golden gamma before mixing.
        assert_eq!(splitmix64(0x9E37_79B9_7F4A_7C15), 0xE220_A839_7B1D_CDAF);
    }

    #[test]
    fn names_seeds_and_indices_all_matter() {
        let at = |seed, name, i| uniform(seed, name, i, 0.0, 1.0);
        let base = at(1, "x", 0);
        assert!(base != at(2, "x", 0) && base != at(1, "y", 0) && base != at(1, "x", 1));
        let mean = (0..10_000).map(|i| f64::from(at(1, "x", i))).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12f64).sqrt() / 100.0, "{mean}"); // five standard errors
    }
}
