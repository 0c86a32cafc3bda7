//! The factors of both Fishers, layer by layer: (A_s, A_u) and (G_s, G_u).
//!
//! Of several utility Fishers the factors are averaged, A_u = mean A and G_u = mean G. The mean of the Fishers themselves,
//! mean (G (x) A), is no Kronecker product; both agree where the factors do.

use crate::gevp::{FactorEigen, FactorPair, relative_eps, solve_side};
use crate::{Error, KroneckerFisher};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use sst_adapter::ModulePath;
use sst_artefact::ParseError;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Which factors weigh a change of the weight; the other side counts as the identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sides {
    /// A alone: G_s = G_u = I.
    #[default]
    Input,
    /// A and G.
    Both,
}

impl fmt::Display for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sides::Input => "input",
            Sides::Both => "both",
        })
    }
}

impl FromStr for Sides {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "input" => Ok(Sides::Input),
            "both" => Ok(Sides::Both),
            _ => Err(ParseError::new(format!(
                "unknown sides `{name}`: expected input or both"
            ))),
        }
    }
}

/// One factor of both Fishers, `[d, d]` each.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// A_s or G_s.
    pub safety: Array2<f64>,
    /// A_u or G_u.
    pub utility: Array2<f64>,
}

impl Factors {
    /// Both matrices, borrowed.
    pub fn pair(&self) -> FactorPair<'_> {
        FactorPair {
            safety: self.safety.view(),
            utility: self.utility.view(),
        }
    }

    /// eps: `ridge` times the mean eigenvalue of the utility factor.
    ///
    /// # Errors
    /// [`Error::InFactor`] around [`Error::Setting`] for the ridge and [`Error::Trace`] for a utility factor of trace 0.
    pub fn eps(&self, module: &ModulePath, side: &'static str, ridge: f64) -> Result<f64, Error> {
        relative_eps(self.utility.view(), ridge).map_err(Error::in_factor(module.as_str(), side))
    }

    /// Solves the pair with eps = `ridge` times the mean eigenvalue of the utility factor.
    ///
    /// # Errors
    /// As [`kronecker`](crate::gevp::kronecker); `module` and `side` name the factor.
    pub fn solve(&self, module: &ModulePath, side: &'static str, ridge: f64) -> Result<FactorEigen, Error> {
        solve_side(module.as_str(), side, self.pair(), ridge)
    }
}

/// A safety and one or more utility Fishers, checked to be of the same layers.
#[derive(Debug, Clone)]
pub struct KroneckerPair<'a> {
    safety: &'a KroneckerFisher,
    utility: Vec<&'a KroneckerFisher>,
    modules: Vec<&'a ModulePath>,
}

impl<'a> KroneckerPair<'a> {
    /// Pairs the Fishers.
    ///
    /// # Errors
    /// [`Error::NoFisher`] without a utility Fisher; [`Error::FisherMeta`] for utility Fishers that were not estimated
    /// alike; [`Error::Content`] for a module that one Fisher lacks, [`Error::InModule`] for one whose shapes differ.
    pub fn new(safety: &'a KroneckerFisher, utility: Vec<&'a KroneckerFisher>) -> Result<Self, Error> {
        let (first, rest) = utility.split_first().ok_or(Error::NoFisher)?;
        for other in rest {
            first.meta.check_alike(&other.meta, &["seed", "stack", "parameters"])?;
        }
        for fisher in &utility {
            for module in safety.modules().chain(fisher.modules()) {
                let (left, right) = (safety.shape(module)?, fisher.shape(module)?);
                if left != right {
                    let op = "layers of the safety and the utility Fisher";
                    return Err(Error::in_module(module.as_str())(Error::Shapes { op, left, right }));
                }
            }
        }
        Ok(Self {
            modules: safety.modules().collect(),
            safety,
            utility,
        })
    }

    /// The pair of these layers alone.
    ///
    /// # Errors
    /// [`Error::Content`] for a module that the Fishers lack.
    pub fn only(mut self, modules: &BTreeSet<ModulePath>) -> Result<Self, Error> {
        for module in modules {
            self.safety.input(module)?;
        }
        self.modules.retain(|module| modules.contains(*module));
        Ok(self)
    }

    /// The layers in model order.
    pub fn modules(&self) -> impl Iterator<Item = &'a ModulePath> {
        self.modules.iter().copied()
    }

    /// Shape of a layer's weight, `[d_out, d_in]`.
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module.
    pub fn shape(&self, module: &ModulePath) -> Result<[usize; 2], Error> {
        self.safety.shape(module)
    }

    /// Under which layer each Fisher stores A of this one: layers with the same answer have the same pair (A_s, A_u).
    ///
    /// # Errors
    /// [`Error::Content`] for an unknown module.
    pub fn input_owners(&self, module: &ModulePath) -> Result<Vec<&'a ModulePath>, Error> {
        let fishers = std::iter::once(&self.safety).chain(&self.utility);
        fishers.map(|fisher| fisher.input(module)).collect()
    }

    /// (A_s, A_u) of a layer.
    ///
    /// # Errors
    /// As [`KroneckerFisher::factors`].
    pub fn input(&self, module: &ModulePath) -> Result<Factors, Error> {
        self.factors(|fisher| fisher.input_factor(module))
    }

    /// (G_s, G_u) of a layer.
    ///
    /// # Errors
    /// As [`KroneckerFisher::factors`].
    pub fn output(&self, module: &ModulePath) -> Result<Factors, Error> {
        self.factors(|fisher| fisher.output_factor(module))
    }

    fn factors(&self, read: impl Fn(&KroneckerFisher) -> Result<Array2<f64>, Error> + Sync) -> Result<Factors, Error> {
        let (first, rest) = self.utility.split_first().ok_or(Error::NoFisher)?;
        let mean = || -> Result<Array2<f64>, Error> {
            let mut mean = read(first)?;
            for fisher in rest {
                mean += &read(fisher)?;
            }
            if !rest.is_empty() {
                mean /= self.utility.len() as f64;
            }
            Ok(mean)
        };
        let (utility, safety) = rayon::join(mean, || read(self.safety));
        Ok(Factors {
            utility: utility?,
            safety: safety?,
        })
    }
}
