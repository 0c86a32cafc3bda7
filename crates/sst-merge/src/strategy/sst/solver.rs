//! From statistics, or a basis solved before, to the filter of each module.

use super::both_sides::SoftBoth;
use super::directions::{DirectionFilter, Metric};
use super::filter::Filter;
use super::input_side::{Eigenproblem, InputPair, Kernel, SoftInput, ridged, sigma};
use super::{NAME, SPECTRUM_UP_TO, SstConfig, Weighting};
use crate::{Diagnostics, Error, MergeInputs};
use sst_adapter::ModulePath;
use sst_subspace::{Error as SubspaceError, KroneckerBasis, KroneckerDirections, KroneckerPair, Sides};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Makes the filters; modules that share an input are to be asked for one after the other.
#[derive(Debug)]
pub(super) struct Solver<'a> {
    config: &'a SstConfig,
    /// The statistics, of the adapters' modules alone.
    pair: Option<KroneckerPair<'a>>,
    /// The directions, where they are chosen beforehand.
    basis: Option<Cow<'a, KroneckerBasis>>,
    /// The last input side with whose it is, and its last kernel.
    shared: Option<(Vec<&'a ModulePath>, Rc<InputPair>)>,
    kernel: Option<Rc<Kernel>>,
}

impl<'a> Solver<'a> {
    /// Checks that there is one source, that it belongs to the adapters, and chooses the directions of `hard`.
    ///
    /// # Errors
    /// [`Error::NoStatistics`], [`Error::TwoSources`], [`Error::BasisSides`]; [`Error::Subspace`] for statistics that do
    /// not fit together or lack a module, or k beyond the number of directions.
    pub fn new(config: &'a SstConfig, inputs: &MergeInputs<'a>, modules: &BTreeSet<ModulePath>) -> Result<Self, Error> {
        let pair = match inputs.statistics {
            Some(statistics) => {
                let pair = KroneckerPair::new(statistics.safety, statistics.utility.clone())?;
                Some(pair.only(modules)?)
            }
            None => None,
        };
        let basis = match (inputs.kronecker_basis, &pair, config.weighting) {
            (None, None, _) => return Err(Error::NoStatistics { strategy: NAME }),
            (Some(_), Some(_), _) => return Err(Error::TwoSources { strategy: NAME }),
            (Some(basis), None, weighting) => {
                check_sides(basis, config.sides)?;
                Some(match weighting {
                    Weighting::Soft => Cow::Borrowed(basis),
                    Weighting::Hard { k } => Cow::Owned(basis.truncate(k)?),
                })
            }
            (None, Some(pair), Weighting::Hard { k }) => {
                Some(Cow::Owned(pair.basis(k, config.ridge, config.sides, &mut |_, _| ())?))
            }
            (None, Some(_), Weighting::Soft) => None,
        };
        Ok(Self {
            config,
            pair,
            basis,
            shared: None,
            kernel: None,
        })
    }

    /// The filter of a module of that shape; `gamma` is none for `hard`.
    ///
    /// # Errors
    /// [`Error::Singular`]; [`Error::Subspace`] for a factor that is wrong or of another shape.
    pub fn filter(
        &mut self,
        path: &ModulePath,
        shape: [usize; 2],
        gamma: Option<f64>,
    ) -> Result<Box<dyn Filter + '_>, Error> {
        if let Some(pair) = &self.pair {
            ensure_shape(path, "statistics and adapters", pair.shape(path)?, shape)?;
        }
        let input = self.input(path, shape)?;
        if let Some(basis) = &self.basis {
            let directions = basis.modules().get(path);
            if let Some(directions) = directions {
                ensure_shape(path, "basis and adapters", shape_of(directions, shape), shape)?;
            }
            let of_value = |value: f64| gamma.map_or(1.0, |gamma| sigma(gamma * value));
            let metric = self.metric(path, input)?;
            let filter = DirectionFilter::new(directions, of_value, shape, self.config.sides, metric);
            return Ok(Box::new(filter));
        }
        let (Some(pair), Some(input), Some(gamma)) = (&self.pair, input, gamma) else {
            return Err(Error::NoStatistics { strategy: NAME });
        };
        if let (Sides::Both, Some(eigen)) = (self.config.sides, input.eigen.clone()) {
            let output = pair.output(path)?;
            let filter = SoftBoth::new(path, (input, eigen), output, self.config.ridge, gamma)?;
            return Ok(Box::new(filter));
        }
        let kernel = match self.kernel.take() {
            Some(kernel) if kernel.gamma() == gamma => kernel,
            _ => Rc::new(Kernel::new(path, &input, gamma)?),
        };
        self.kernel = Some(Rc::clone(&kernel));
        Ok(Box::new(SoftInput::new(path.clone(), input, kernel)))
    }

    /// What was chosen, for the merge's diagnostics.
    pub fn describe(&self, diagnostics: &mut Diagnostics) {
        let Some(basis) = &self.basis else { return };
        diagnostics.k = Some(basis.k());
        let values = basis.eigenvalues();
        diagnostics.eigenvalues = values.first().zip(values.last()).map(|(first, last)| [*first, *last]);
        diagnostics.selection = Some(basis.selection().clone());
    }

    /// (A_s, B_a), read and solved once for the layers that share it.
    fn input(&mut self, path: &ModulePath, [_, d_in]: [usize; 2]) -> Result<Option<Rc<InputPair>>, Error> {
        let Some(pair) = &self.pair else {
            return Ok(None);
        };
        let owners = pair.input_owners(path)?;
        if let Some((same, input)) = &self.shared
            && *same == owners
        {
            return Ok(Some(Rc::clone(input)));
        }
        self.shared = None;
        self.kernel = None;
        let spectrum = match (self.config.weighting, self.config.sides) {
            (Weighting::Hard { .. }, _) => Eigenproblem::Skipped,
            (Weighting::Soft, Sides::Both) => Eigenproblem::Needed,
            (Weighting::Soft, Sides::Input) => match self.config.spectrum {
                Some(true) => Eigenproblem::Needed,
                None if d_in <= SPECTRUM_UP_TO => Eigenproblem::Optional,
                Some(false) | None => Eigenproblem::Skipped,
            },
        };
        let input = Rc::new(InputPair::new(path, pair.input(path)?, self.config.ridge, spectrum)?);
        self.shared = Some((owners, Rc::clone(&input)));
        Ok(Some(input))
    }

    fn metric(&self, path: &ModulePath, input: Option<Rc<InputPair>>) -> Result<Option<Metric>, Error> {
        let (Some(pair), Some(input)) = (&self.pair, input) else {
            return Ok(None);
        };
        let output = match self.config.sides {
            Sides::Input => None,
            Sides::Both => {
                let factors = pair.output(path)?;
                let eps = factors.eps(path, "output", self.config.ridge)?;
                Some([factors.safety, ridged(factors.utility, eps)])
            }
        };
        Ok(Some(Metric { input, output }))
    }
}

fn check_sides(basis: &KroneckerBasis, sides: Sides) -> Result<(), Error> {
    let both = |directions: &KroneckerDirections| directions.output.is_some();
    let other = match sides {
        Sides::Input => Sides::Both,
        Sides::Both => Sides::Input,
    };
    if basis
        .modules()
        .values()
        .any(|directions| both(directions) == (other == Sides::Both))
    {
        return Err(Error::BasisSides {
            strategy: NAME,
            sides,
            basis: other,
        });
    }
    Ok(())
}

/// `[d_out, d_in]` of a basis' directions; without output factors any d_out fits.
fn shape_of(directions: &KroneckerDirections, [d_out, _]: [usize; 2]) -> [usize; 2] {
    let output = directions.output.as_ref();
    [
        output.map_or(d_out, |frame| frame.vectors.nrows()),
        directions.input.vectors.nrows(),
    ]
}

fn ensure_shape(path: &ModulePath, op: &'static str, left: [usize; 2], right: [usize; 2]) -> Result<(), Error> {
    if left == right {
        return Ok(());
    }
    let source = SubspaceError::Shapes { op, left, right };
    Err(SubspaceError::InModule {
        module: path.to_string(),
        source: Box::new(source),
    }
    .into())
}
