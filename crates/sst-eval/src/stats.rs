//! What a difference is worth: intervals, tests, corrections, and what a sample of this size could show at all.

mod bca;
mod bootstrap;
mod detectable;
mod holm;
mod interval;
mod mcnemar;
mod paired_rates;
mod proportions;

pub use bca::{Bca, Draws};
pub use bootstrap::{PairedDifference, Part, paired_bootstrap, paired_ratio_bootstrap};
pub use detectable::{detectable_mean_difference, detectable_paired_difference, detectable_proportion_difference};
pub use holm::holm;
pub use interval::{Interval, mean, mean_interval, wilson_interval};
pub(crate) use interval::{high, low};
pub use mcnemar::{mcnemar, mcnemar_mid_p};
pub use paired_rates::{PairedCounts, newcombe_paired};
pub use proportions::{Count, Homogeneity, ProportionDifference, homogeneity, two_proportions};

use statrs::distribution::{ContinuousCDF, Normal};

/// The standard normal quantile of `probability`.
fn quantile(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(probability)
}

/// The standard normal distribution function.
fn normal_cdf(z: f64) -> f64 {
    Normal::standard().cdf(z)
}

/// z of a two-sided interval: 1.96 for a confidence of 0.95.
fn two_sided_z(confidence: f64) -> f64 {
    quantile(0.5 * (1.0 + confidence))
}
