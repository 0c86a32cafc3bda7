//! Counter-based randomness: draw i of a tensor depends on (seed, key, i) alone, so order and threads change nothing.
//!
//! The seed and the key are hashed to a start z_0, and draw i is SplitMix64's output (Steele, Lea & Flood 2014, "Fast
//! splittable pseudorandom number generators") at z_0 + (i + 1) 0x9E3779B97F4A7C15.

/// The golden gamma: how far the state moves per draw.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The draws of one tensor.
///
/// ```
/// use sst_merge::Counter;
/// let draws = Counter::new(7, "0 layers.3.q_proj");
/// assert!((0.0..1.0).contains(&draws.uniform(5)));
/// assert_eq!(draws.uniform(5), Counter::new(7, "0 layers.3.q_proj").uniform(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counter(u64);

impl Counter {
    /// The draws of `key`, which names what is drawn for: adapter, tensor, purpose.
    pub fn new(seed: u64, key: &str) -> Self {
        // The seed goes through the mix first, so that neighbouring seeds start far apart.
        Self(mix(mix(seed.wrapping_add(GAMMA)) ^ fnv1a(key)))
    }

    /// Draw `index`, uniform in [0, 1) with 53 random bits.
    pub fn uniform(self, index: u64) -> f64 {
        let state = self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(GAMMA));
        (mix(state) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

fn mix(mut z: u64) -> u64 {
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
        let first = |seed: u64| mix(seed.wrapping_add(GAMMA));
        assert_eq!(first(0), 0xE220_A839_7B1D_CDAF); // SplitMix64 from state 0
        assert_eq!(first(GAMMA), 0x6E78_9E6A_A1B9_65F4); // and its second output
    }

    #[test]
    fn draws_are_uniform_and_keys_independent() {
        const N: u64 = 20_000;
        let draws = |seed, key| {
            let counter = Counter::new(seed, key);
            (0..N).map(|i| counter.uniform(i)).collect::<Vec<f64>>()
        };
        let base = draws(1, "x");
        assert!(base.iter().all(|x| (0.0..1.0).contains(x)));
        let mean = base.iter().sum::<f64>() / N as f64;
        let error = (1.0 / 12.0f64 / N as f64).sqrt();
        assert!((mean - 0.5).abs() < 5.0 * error, "{mean}");
        for decile in 0..10 {
            let low = decile as f64 / 10.0;
            let share = base.iter().filter(|x| (low..low + 0.1).contains(*x)).count() as f64 / N as f64;
            assert!(
                (share - 0.1).abs() < 5.0 * (0.09 / N as f64).sqrt(),
                "{decile}: {share}"
            );
        }
        for other in [draws(2, "x"), draws(1, "y"), draws(1, "x ")] {
            let products = base.iter().zip(&other).map(|(x, y)| (x - 0.5) * (y - 0.5));
            let correlation = products.sum::<f64>() * 12.0 / N as f64;
            assert!(correlation.abs() < 5.0 / (N as f64).sqrt(), "{correlation}");
        }
    }
}
