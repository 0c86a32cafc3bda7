//! The chosen directions of one module: w_i v_j^T with the duals that measure along them.

use crate::Error;
use crate::draw::{keyed, random_frame};
use crate::gevp::{FactorEigen, FactorPair, KroneckerEigen, Product};
use ndarray::{Array2, ArrayView2, Axis};
use sst_adapter::ModulePath;
use std::collections::BTreeSet;

/// One side's eigenvectors that some chosen direction uses, with their duals.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// w_i or v_j as columns, `[d, p]`.
    pub vectors: Array2<f64>,
    /// (G_u + eps_g I) w_i or (A_u + eps_a I) v_j as columns, `[d, p]`.
    pub duals: Array2<f64>,
}

/// One direction w_i v_j^T of a module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Direction {
    /// Column of w_i in the output frame; 0 when there is none.
    pub output: usize,
    /// Column of v_j in the input frame.
    pub input: usize,
    /// mu_i lambda_j.
    pub value: f64,
}

/// The chosen directions of one module.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerDirections {
    /// v_j of dimension d_in.
    pub input: Frame,
    /// w_i of dimension d_out; none for G = I.
    pub output: Option<Frame>,
    /// The pairs in use, by descending value.
    pub chosen: Vec<Direction>,
}

impl Frame {
    /// The columns in use of a solved factor; duals by one product with the ridged utility factor.
    fn new(factor: &FactorEigen, utility: ArrayView2<f64>, columns: &[usize]) -> Result<Self, Error> {
        let all = &factor.eigen.vectors;
        if utility.dim() != all.dim() {
            return Err(Error::Shapes {
                op: "duals of a Kronecker factor",
                left: utility.dim().into(),
                right: all.dim().into(),
            });
        }
        if let Some(&beyond) = columns.iter().find(|column| **column >= all.ncols()) {
            let (k, available) = (beyond + 1, all.ncols());
            return Err(Error::Directions { k, available });
        }
        let vectors = all.select(Axis(1), columns);
        let duals = utility.dot(&vectors) + factor.eps * &vectors;
        Ok(Self { vectors, duals })
    }

    fn select(&self, columns: &[usize]) -> Self {
        Self {
            vectors: self.vectors.select(Axis(1), columns),
            duals: self.duals.select(Axis(1), columns),
        }
    }

    /// A frame of the same shape that is its own dual: uniform and orthonormal.
    fn random_like(&self, seed: u64, name: &str) -> Result<Self, Error> {
        let (d, p) = self.vectors.dim();
        let vectors = random_frame(d, p, &mut keyed(seed, name))?;
        let duals = vectors.clone();
        Ok(Self { vectors, duals })
    }
}

impl KroneckerDirections {
    /// Picks the products of one module out of its solution; the factors are those that were solved.
    ///
    /// # Errors
    /// [`Error::Shapes`] for factors of another size or absent on one side only, [`Error::Directions`] for an index
    /// out of range.
    pub fn new(
        eigen: &KroneckerEigen,
        input: FactorPair<'_>,
        output: Option<FactorPair<'_>>,
        products: &[Product],
    ) -> Result<Self, Error> {
        let mut chosen: Vec<Direction> = products
            .iter()
            .map(|p| Direction {
                output: p.output,
                input: p.input,
                value: p.value,
            })
            .collect();
        chosen.sort_by(|x, y| y.value.total_cmp(&x.value));
        let inputs = renumber(&mut chosen, |direction| &mut direction.input);
        let outputs = renumber(&mut chosen, |direction| &mut direction.output);
        let output = match (&eigen.output, output) {
            (Some(factor), Some(pair)) => Some(Frame::new(factor, pair.utility, &outputs)?),
            (None, None) => None,
            (solved, _) => {
                return Err(Error::content(
                    "output factors",
                    if solved.is_some() {
                        "are missing"
                    } else {
                        "were not solved"
                    },
                ));
            }
        };
        Ok(Self {
            input: Frame::new(&eigen.input, input.utility, &inputs)?,
            output,
            chosen,
        })
    }

    /// The first `count` directions with only the vectors that they use.
    pub(crate) fn truncate(&self, count: usize) -> Self {
        let mut chosen = self.chosen[..count].to_vec();
        let inputs = renumber(&mut chosen, |direction| &mut direction.input);
        let outputs = renumber(&mut chosen, |direction| &mut direction.output);
        Self {
            input: self.input.select(&inputs),
            output: self.output.as_ref().map(|frame| frame.select(&outputs)),
            chosen,
        }
    }

    /// What a file or a caller may have got wrong.
    pub(super) fn check(&self) -> Result<(), Error> {
        let widths = [Some(&self.input), self.output.as_ref()].map(|frame| {
            let frame = frame?;
            (frame.vectors.dim() == frame.duals.dim()).then(|| frame.vectors.ncols())
        });
        let [Some(inputs), outputs] = widths else {
            return Err(Error::content("input", "vectors and duals differ in shape"));
        };
        if self.output.is_some() && outputs.is_none() {
            return Err(Error::content("output", "vectors and duals differ in shape"));
        }
        let inside = |d: &Direction| d.input < inputs && d.output < outputs.unwrap_or(1);
        if self.chosen.is_empty() || !self.chosen.iter().all(inside) {
            return Err(Error::content("directions", "are none, or beyond the vectors"));
        }
        let pairs: BTreeSet<[usize; 2]> = self.chosen.iter().map(|d| [d.output, d.input]).collect();
        if pairs.len() < self.chosen.len() {
            return Err(Error::content("directions", "name a pair of vectors twice"));
        }
        let used = |side: usize| pairs.iter().map(|pair| pair[side]).collect::<BTreeSet<usize>>().len();
        if used(1) < inputs || used(0) < outputs.unwrap_or(1) {
            return Err(Error::content("directions", "leave vectors that no direction uses"));
        }
        for (side, frame) in [("input", Some(&self.input)), ("output", self.output.as_ref())] {
            let mut entries = frame
                .into_iter()
                .flat_map(|frame| frame.vectors.iter().chain(&frame.duals));
            if !entries.all(|x| x.is_finite()) {
                return Err(Error::content(side, "vectors or duals are not finite"));
            }
        }
        let descends = self.chosen.windows(2).all(|pair| pair[0].value >= pair[1].value);
        if !descends || self.chosen.iter().any(|d| !(d.value.is_finite() && d.value >= 0.0)) {
            return Err(Error::content("values", "are not finite, descending and >= 0"));
        }
        Ok(())
    }

    /// P dW, `[d_out, d_in]`.
    pub(super) fn project(&self, delta: ArrayView2<f64>) -> Result<Array2<f64>, Error> {
        let d_in = self.input.vectors.nrows();
        let d_out = self
            .output
            .as_ref()
            .map_or(delta.nrows(), |frame| frame.vectors.nrows());
        if delta.dim() != (d_out, d_in) {
            return Err(Error::Shapes {
                op: "kronecker projection of dW",
                left: delta.dim().into(),
                right: [d_out, d_in],
            });
        }
        let right = delta.dot(&self.input.duals); // [d_out, q]
        let kept = match &self.output {
            None => right,
            Some(frame) => {
                let all = frame.duals.t().dot(&right); // [p, q]
                let mut core = Array2::zeros(all.dim());
                for Direction { output, input, .. } in &self.chosen {
                    core[[*output, *input]] = all[[*output, *input]];
                }
                frame.vectors.dot(&core)
            }
        };
        Ok(kept.dot(&self.input.vectors.t()))
    }

    /// The same pairs of columns of random frames, drawn from (seed, module, side).
    pub(super) fn random_like(&self, seed: u64, module: &ModulePath) -> Result<Self, Error> {
        let draw = |frame: &Frame, side| frame.random_like(seed, &format!("{module}.{side}"));
        Ok(Self {
            input: draw(&self.input, "input")?,
            output: self.output.as_ref().map(|frame| draw(frame, "output")).transpose()?,
            chosen: self.chosen.clone(),
        })
    }
}

/// Replaces the indices in use by their ranks, and returns them ascending.
fn renumber(chosen: &mut [Direction], index: impl Fn(&mut Direction) -> &mut usize) -> Vec<usize> {
    let mut used: Vec<usize> = chosen.iter_mut().map(|direction| *index(direction)).collect();
    used.sort_unstable();
    used.dedup();
    for direction in chosen {
        let slot = index(direction);
        *slot = used.partition_point(|x| *x < *slot);
    }
    used
}
