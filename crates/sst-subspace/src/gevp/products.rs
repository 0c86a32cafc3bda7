//! The k largest of the products mu_i lambda_j over many modules, found without listing the products.
//!
//! Each module's products form a table that descends along rows and columns. A heap holds the frontier: whoever is
//! taken brings in its right neighbour and, from the first column, the row below. At most k + (number of modules)
//! entries wait in it.

use crate::Error;
use ndarray::ArrayView1;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// The eigenvalues of one module's two sides, each descending and not negative.
#[derive(Debug, Clone, Copy)]
pub struct ProductSpectrum<'a> {
    /// mu_i; a single 1 for G = I.
    pub output: ArrayView1<'a, f64>,
    /// lambda_j.
    pub input: ArrayView1<'a, f64>,
}

impl<'a> ProductSpectrum<'a> {
    /// Eigenvalues that are no products: a single mu of 1.
    pub fn of_input(input: ArrayView1<'a, f64>) -> Self {
        const ONE: &[f64] = &[1.0];
        let output = ArrayView1::from(ONE);
        Self { output, input }
    }
}

/// One product mu_i lambda_j.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Product {
    /// Index of the module in the list given.
    pub module: usize,
    /// i.
    pub output: usize,
    /// j.
    pub input: usize,
    /// mu_i lambda_j.
    pub value: f64,
}

impl Product {
    fn key(&self) -> Reverse<[usize; 3]> {
        Reverse([self.module, self.output, self.input])
    }
}

impl Ord for Product {
    /// By value; of equal values the earlier (module, i, j) is the greater.
    fn cmp(&self, other: &Self) -> Ordering {
        self.value
            .total_cmp(&other.value)
            .then_with(|| self.key().cmp(&other.key()))
    }
}

impl PartialOrd for Product {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Product {}

/// The k largest products, descending, ties in the order of (module, i, j).
///
/// ```
/// use ndarray::aview1;
/// use sst_subspace::gevp::{ProductSpectrum, top_products};
/// let spectrum = ProductSpectrum { output: aview1(&[3.0, 1.0]), input: aview1(&[5.0, 2.0]) };
/// let values: Vec<f64> = top_products(&[spectrum], 3)?.iter().map(|p| p.value).collect();
/// assert_eq!(values, [15.0, 6.0, 5.0]);
/// # Ok::<(), sst_subspace::Error>(())
/// ```
///
/// # Errors
/// [`Error::Directions`] when k is 0 or more than there are products, [`Error::Content`] for a spectrum that is not
/// finite, descending and >= 0, or a product beyond f64.
pub fn top_products(spectra: &[ProductSpectrum<'_>], k: usize) -> Result<Vec<Product>, Error> {
    for (module, spectrum) in spectra.iter().enumerate() {
        check(module, "output", spectrum.output)?;
        check(module, "input", spectrum.input)?;
    }
    let available = spectra.iter().map(|s| s.output.len().saturating_mul(s.input.len()));
    let available = available.fold(0, usize::saturating_add);
    if k == 0 || k > available {
        return Err(Error::Directions { k, available });
    }
    let product = |module: usize, output: usize, input: usize| {
        let spectrum = spectra.get(module)?;
        let value = spectrum.output.get(output)? * spectrum.input.get(input)?;
        Some(Product {
            module,
            output,
            input,
            value,
        })
    };
    let mut frontier: BinaryHeap<Product> = (0..spectra.len()).filter_map(|m| product(m, 0, 0)).collect();
    let mut top = Vec::with_capacity(k);
    while let Some(best) = frontier.pop() {
        if !best.value.is_finite() {
            let reason = format!("mu_{} lambda_{} is beyond f64", best.output, best.input);
            return Err(Error::content(format!("spectrum of module {}", best.module), reason));
        }
        top.push(best);
        if top.len() == k {
            break;
        }
        frontier.extend(product(best.module, best.output, best.input + 1));
        if best.input == 0 {
            frontier.extend(product(best.module, best.output + 1, 0));
        }
    }
    Ok(top)
}

fn check(module: usize, side: &str, values: ArrayView1<f64>) -> Result<(), Error> {
    let good = values.iter().all(|x| x.is_finite() && *x >= 0.0);
    if good && values.iter().zip(values.iter().skip(1)).all(|(x, y)| x >= y) {
        return Ok(());
    }
    Err(Error::content(
        format!("{side} spectrum of module {module}"),
        "is not finite, descending and >= 0",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, aview1};
    use rand::RngExt;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    /// Few distinct values, zeros among them, so that ties are many.
    fn spectra(seed: u64) -> Vec<[Array1<f64>; 2]> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: usize| {
            let mut values: Vec<f64> = (0..n).map(|_| f64::from(rng.random_range(0u8..5)) / 4.0).collect();
            values.sort_by(|x, y| y.total_cmp(x));
            Array1::from(values)
        };
        [(3, 5), (1, 7), (6, 2), (4, 4)]
            .map(|(p, q)| [draw(p), draw(q)])
            .to_vec()
    }

    #[test]
    fn agrees_with_the_sorted_list_of_all_products() {
        for seed in 0..30 {
            let owned = spectra(seed);
            let views: Vec<ProductSpectrum> = owned
                .iter()
                .map(|[output, input]| ProductSpectrum {
                    output: output.view(),
                    input: input.view(),
                })
                .collect();
            let mut all = Vec::new();
            for (m, [output, input]) in owned.iter().enumerate() {
                for (i, mu) in output.iter().enumerate() {
                    all.extend(input.iter().enumerate().map(|(j, lambda)| (m, i, j, mu * lambda)));
                }
            }
            all.sort_by(|x, y| y.3.total_cmp(&x.3)); // stable: ties keep the order (module, i, j)
            assert_eq!(all.len(), 50);
            for k in [1, 2, 13, 49, 50] {
                let top = top_products(&views, k).unwrap();
                let got: Vec<_> = top.iter().map(|p| (p.module, p.output, p.input, p.value)).collect();
                assert_eq!(got, all[..k], "seed {seed} k {k}");
            }
            assert!(matches!(
                top_products(&views, 51),
                Err(Error::Directions { k: 51, available: 50 })
            ));
        }
    }

    #[test]
    fn bad_spectra_are_named() {
        let good = aview1(&[2.0, 1.0]);
        for bad in [[1.0, 2.0], [1.0, -1e-9], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
            let pair = ProductSpectrum {
                output: good,
                input: aview1(&bad),
            };
            let message = top_products(&[pair], 1).unwrap_err().to_string();
            assert!(message.contains("input spectrum of module 0"), "{message}");
        }
        let huge = aview1(&[1e200]);
        let pair = ProductSpectrum {
            output: huge,
            input: huge,
        };
        assert!(top_products(&[pair], 1).unwrap_err().to_string().contains("beyond f64"));
        assert!(matches!(
            top_products(&[], 1),
            Err(Error::Directions { available: 0, .. })
        ));
    }
}
