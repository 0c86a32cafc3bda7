//! What a merge gives: an adapter, and numbers that say what happened to U and S.

use crate::{AlignmentReport, Error, MergeInputs, SstReport};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sst_adapter::{Adapter, LowRank, ModulePath};
use sst_subspace::{Projection, RandomControl, Selection};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Sum;

/// A merged adapter and its diagnostics.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Merged {
    /// The merge M, with the first utility adapter's configuration; in delta with ranks, alphas and target modules of its own.
    pub adapter: Adapter,
    /// What was measured on the way.
    pub diagnostics: Diagnostics,
}

/// What norms and cosines are taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Space {
    /// The entries of A and B.
    #[default]
    Phi,
    /// The changes of the weights, delta W = s B A.
    Delta,
}

/// The rank of a merge, and what was lost by cutting it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputRank {
    /// Largest rank of any module.
    pub rank_max: usize,
    /// Relative Frobenius error over all modules; 0 where nothing was cut off.
    pub relative_error: f64,
}

/// Norms in f64, and what the projection kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnostics {
    /// What the norms and the cosine are taken over.
    #[serde(default)]
    pub space: Space,
    /// Number of entries of phi of the merge.
    pub parameters: usize,
    /// ||U||, the plain mean of the utility adapters: no weights of [`MergeInputs::weights`] count, here and below.
    pub norm_utility: f64,
    /// ||S||.
    pub norm_safety: f64,
    /// ||S'||: the safety part that was added, before the weight that is a setting of the strategy; none for a strategy that adds no such part.
    pub norm_safety_used: Option<f64>,
    /// ||M||.
    pub norm_merged: f64,
    /// ||M - U|| / ||U||; none for U = 0.
    pub relative_change: Option<f64>,
    /// Cosine of the angle between U and S; none when one is 0.
    pub cosine: Option<f64>,
    /// The merge's rank; none in phi, where it is that of the inputs.
    #[serde(default)]
    pub output: Option<OutputRank>,
    /// ||P S||^2 / ||S||^2; none for a strategy that does not project.
    pub retained_energy: Option<f64>,
    /// What a random subspace of the same k keeps of S.
    pub random_control: Option<RandomControl>,
    /// Number of directions.
    pub k: Option<usize>,
    /// Which rows of the basis projected a tensor.
    pub projection: Option<Projection>,
    /// Largest and smallest of the k eigenvalues; none for a random basis.
    pub eigenvalues: Option<[f64; 2]>,
    /// How the subspace was chosen, with the whole spectrum.
    pub selection: Option<Selection>,
    /// How well U keeps to the alignment subspace; none for a strategy that does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alignment: Option<AlignmentReport>,
    /// What SST reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sst: Option<SstReport>,
}

impl Merged {
    /// Pairs an adapter with its diagnostics.
    pub fn new(adapter: Adapter, diagnostics: Diagnostics) -> Self {
        Self { adapter, diagnostics }
    }

    /// Builds the adapter of `merged` from the first utility adapter's configuration, and measures it.
    ///
    /// All slices are phi: `utility` U, `safety` S, `used` S', `merged` M.
    ///
    /// # Errors
    /// [`Error::NoUtility`]; a length that differs; an overflow to infinity, naming the tensor.
    pub fn from_phi(
        inputs: &MergeInputs<'_>,
        utility: &[f32],
        safety: &[f32],
        used: &[f32],
        merged: &[f32],
    ) -> Result<Self, Error> {
        let template = inputs.utilities.first().ok_or(Error::NoUtility)?;
        let adapter = template.with_flat(merged)?;
        let expected = merged.len();
        for got in [utility.len(), safety.len(), used.len()] {
            if got != expected {
                return Err(sst_adapter::Error::Length {
                    op: "merge diagnostics",
                    expected,
                    got,
                }
                .into());
            }
        }
        let sums = Sums::over(utility, safety, used, merged);
        let norms = Norms {
            utility: sums.uu.sqrt(),
            safety: sums.ss.sqrt(),
            merged: sums.mm.sqrt(),
            change: sums.change.sqrt(),
            dot: sums.us,
        };
        let diagnostics = Diagnostics {
            norm_safety_used: Some(sums.used.sqrt()),
            ..Diagnostics::of_norms(Space::Phi, expected, &norms)
        };
        Ok(Self { adapter, diagnostics })
    }

    /// Builds the adapter of the changes `merged` on the first utility adapter's base model, and measures it in delta.
    ///
    /// With a `rank` every module is cut to it, by the best approximation. A module that `merged` lacks is a zero change.
    ///
    /// # Errors
    /// [`Error::NoUtility`]; [`Error::Adapter`] for no module at all, or naming the module that has two shapes among the
    /// inputs and `merged`, factors that do not fit each other, or entries that are not finite.
    pub fn from_low_rank(
        inputs: &MergeInputs<'_>,
        mut merged: BTreeMap<ModulePath, LowRank>,
        rank: Option<usize>,
    ) -> Result<Self, Error> {
        let template = inputs.utilities.first().ok_or(Error::NoUtility)?;
        let known = inputs.adapters().flat_map(|adapter| adapter.modules.keys().cloned());
        let paths: BTreeSet<ModulePath> = known.chain(merged.keys().cloned()).collect();
        let modules: Vec<(ModulePath, Option<LowRank>)> = paths
            .into_iter()
            .map(|path| {
                let change = merged.remove(&path);
                (path, change)
            })
            .collect();
        let parts = modules
            .into_par_iter()
            .map(|(path, change)| Part::new(inputs, path, change, rank))
            .collect::<Vec<_>>();

        let (mut squares, mut before, mut lost) = (Products::default(), 0.0, 0.0);
        let mut changes = BTreeMap::new();
        for part in parts {
            let part = part?;
            squares.add(&part.products);
            before += part.energy;
            lost += part.lost;
            if let Some(change) = part.change {
                changes.insert(part.path, change);
            }
        }
        let output = OutputRank {
            rank_max: changes.values().map(LowRank::rank).max().unwrap_or(0),
            relative_error: if before > 0.0 { (lost / before).sqrt() } else { 0.0 },
        };
        let adapter = Adapter::from_low_rank(template, changes)?;
        let diagnostics = Diagnostics {
            output: Some(output),
            ..Diagnostics::of_norms(Space::Delta, adapter.layout().len(), &squares.norms())
        };
        Ok(Self { adapter, diagnostics })
    }

    /// As [`Merged::from_low_rank`], of changes that are cut already; the relative error reported is that of their cuts.
    pub(crate) fn from_cut(inputs: &MergeInputs<'_>, cuts: BTreeMap<ModulePath, Cut>) -> Result<Self, Error> {
        let (mut before, mut lost) = (0.0, 0.0);
        for Cut { square, error, .. } in cuts.values() {
            before += square;
            lost += error.powi(2) * square;
        }
        let changes = cuts.into_iter().map(|(path, cut)| (path, cut.change)).collect();
        let mut merged = Self::from_low_rank(inputs, changes, None)?;
        if let Some(output) = &mut merged.diagnostics.output {
            output.relative_error = if before > 0.0 { (lost / before).sqrt() } else { 0.0 };
        }
        Ok(merged)
    }
}

/// A module's change, cut to a rank before it was rounded.
#[derive(Debug)]
pub(crate) struct Cut {
    /// What is left.
    pub change: LowRank,
    /// ||M||_F^2 of the module before the cut.
    pub square: f64,
    /// Relative Frobenius error of the cut.
    pub error: f64,
}

/// Entries of phi that are summed at a time.
const SUM_PIECE: usize = 1 << 16;

/// Norms of U, S and M, ||M - U|| and <U, S>.
struct Norms {
    utility: f64,
    safety: f64,
    merged: f64,
    change: f64,
    dot: f64,
}

impl Diagnostics {
    fn of_norms(space: Space, parameters: usize, norms: &Norms) -> Self {
        let ratio = |x: f64, y: f64| (y > 0.0).then(|| x / y);
        Self {
            space,
            parameters,
            norm_utility: norms.utility,
            norm_safety: norms.safety,
            norm_safety_used: None,
            norm_merged: norms.merged,
            relative_change: ratio(norms.change, norms.utility),
            cosine: ratio(norms.dot, norms.utility * norms.safety),
            output: None,
            retained_energy: None,
            random_control: None,
            k: None,
            projection: None,
            eigenvalues: None,
            selection: None,
            alignment: None,
            sst: None,
        }
    }
}

/// Inner products of U, S and M.
#[derive(Default)]
struct Products {
    uu: f64,
    ss: f64,
    mm: f64,
    us: f64,
    um: f64,
}

impl Products {
    fn add(&mut self, other: &Products) {
        self.uu += other.uu;
        self.ss += other.ss;
        self.mm += other.mm;
        self.us += other.us;
        self.um += other.um;
    }

    fn norms(&self) -> Norms {
        let root = |square: f64| square.max(0.0).sqrt();
        Norms {
            utility: root(self.uu),
            safety: root(self.ss),
            merged: root(self.mm),
            change: root(self.mm - 2.0 * self.um + self.uu),
            dot: self.us,
        }
    }
}

/// One module of a merge in delta.
struct Part {
    path: ModulePath,
    /// M there, cut to the rank; none where M has no such module.
    change: Option<LowRank>,
    products: Products,
    /// ||M||^2 before it was cut.
    energy: f64,
    /// What cutting it lost, squared.
    lost: f64,
}

impl Part {
    fn new(
        inputs: &MergeInputs<'_>,
        path: ModulePath,
        change: Option<LowRank>,
        rank: Option<usize>,
    ) -> Result<Self, Error> {
        let count = inputs.utilities.len();
        let mut given = inputs.module(&path);
        let safety = given.pop().flatten();
        let mut utilities: Vec<LowRank> = given.into_iter().flatten().collect();
        let shape = utilities
            .iter()
            .chain(&safety)
            .chain(&change)
            .next()
            .map(LowRank::shape);
        let Some(shape) = shape else {
            unreachable!("every path is some adapter's or the merge's");
        };
        for part in utilities.iter().chain(&safety).chain(&change) {
            part.check_shape(shape, "merge", &path)?;
        }
        let zero = LowRank::zero(shape);
        let u = if count == 1 {
            utilities.pop().unwrap_or_else(|| zero.clone())
        } else {
            let share = 1.0 / count as f64;
            let terms = utilities.iter().map(|utility| (share, utility));
            LowRank::stack(&[(share, &zero)].into_iter().chain(terms).collect::<Vec<_>>())?
        };
        let s = safety.as_ref().unwrap_or(&zero);
        let mut cut_off = None;
        let change = match (change, rank) {
            (Some(m), Some(rank)) => {
                let (small, error) = m.compress(rank).map_err(sst_adapter::Error::in_module(&path))?;
                let energy = m.norm().powi(2);
                cut_off = Some((energy, error.powi(2) * energy));
                Some(small)
            }
            (change, _) => change,
        };
        let m = change.as_ref().unwrap_or(&zero);
        let inner = LowRank::inner_products(&[&u, s, m]);
        let products = Products {
            uu: inner[[0, 0]],
            ss: inner[[1, 1]],
            mm: inner[[2, 2]],
            us: inner[[0, 1]],
            um: inner[[0, 2]],
        };
        let (energy, lost) = cut_off.unwrap_or((products.mm.max(0.0), 0.0));
        Ok(Self {
            path,
            change,
            products,
            energy,
            lost,
        })
    }
}

/// Inner products over phi, summed in f64.
#[derive(Clone, Copy, Default)]
struct Sums {
    uu: f64,
    ss: f64,
    mm: f64,
    us: f64,
    /// ||S'||^2.
    used: f64,
    /// ||M - U||^2.
    change: f64,
}

impl Sums {
    /// One pass over all four, in pieces that are added in their order.
    fn over(u: &[f32], s: &[f32], used: &[f32], m: &[f32]) -> Self {
        let pieces: Vec<Sums> = (u.par_chunks(SUM_PIECE), s.par_chunks(SUM_PIECE))
            .into_par_iter()
            .zip((used.par_chunks(SUM_PIECE), m.par_chunks(SUM_PIECE)))
            .map(|((u, s), (used, m))| {
                let entries = u.iter().zip(s).zip(used.iter().zip(m));
                entries.map(|((u, s), (used, m))| Sums::of(*u, *s, *used, *m)).sum()
            })
            .collect();
        pieces.into_iter().sum()
    }

    /// The products at one entry.
    fn of(u: f32, s: f32, used: f32, m: f32) -> Self {
        let [u, s, used, m] = [u, s, used, m].map(f64::from);
        Self {
            uu: u * u,
            ss: s * s,
            mm: m * m,
            us: u * s,
            used: used * used,
            change: (m - u).powi(2),
        }
    }
}

impl Sum for Sums {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sums, next| Self {
            uu: sums.uu + next.uu,
            ss: sums.ss + next.ss,
            mm: sums.mm + next.mm,
            us: sums.us + next.us,
            used: sums.used + next.used,
            change: sums.change + next.change,
        })
    }
}
