//! How a Fisher was estimated, and in what two estimates differ.

use crate::Error;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sst_artefact::ParseError;
use std::fmt;
use std::str::FromStr;

/// The ridge that the study's estimator added to every entry.
pub const ESTIMATOR_RIDGE: f64 = 1e-6;

/// What is kept of the per-sample gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Estimator {
    /// Population variance of the gradient, entry by entry.
    DiagVariance,
    /// Mean square of the gradient, entry by entry.
    Diag,
    /// Two covariances per linear layer, of its inputs and of its output gradients.
    Kron,
    /// The gradients themselves.
    Samples,
}

impl Estimator {
    /// Its name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Estimator::DiagVariance => "diag-variance",
            Estimator::Diag => "diag",
            Estimator::Kron => "kron",
            Estimator::Samples => "samples",
        }
    }

    /// Samples that an estimate takes at least: a variance needs two.
    pub fn needed_samples(self) -> u64 {
        match self {
            Estimator::DiagVariance => 2,
            Estimator::Diag | Estimator::Kron | Estimator::Samples => 1,
        }
    }
}

impl fmt::Display for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Estimator {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "diag-variance" => Ok(Estimator::DiagVariance),
            "diag" => Ok(Estimator::Diag),
            "kron" => Ok(Estimator::Kron),
            "samples" => Ok(Estimator::Samples),
            _ => Err(ParseError::new(format!(
                "unknown estimator `{name}`: expected diag-variance, diag, kron or samples"
            ))),
        }
    }
}

/// Whose tokens the loss scores (Kunstner et al. 2019, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// The data's own: the empirical Fisher.
    #[default]
    Given,
    /// Drawn from the model's distribution: an unbiased estimate of the true Fisher.
    Sampled {
        /// Seed of the draw.
        seed: u64,
    },
}

/// How much each token counts in the covariances of a Kronecker-factored Fisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenWeighting {
    /// Every token once.
    All,
    /// The tokens of the completion once, the prompt's not.
    Completion,
    /// The completion's tokens and the last one of the prompt, which predicts the first of them.
    CompletionAndLastPrompt,
    /// Each token by the squared norm of its output gradient.
    GradientNorm,
}

impl fmt::Display for TokenWeighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenWeighting::All => "all",
            TokenWeighting::Completion => "completion",
            TokenWeighting::CompletionAndLastPrompt => "completion-and-last-prompt",
            TokenWeighting::GradientNorm => "gradient-norm",
        })
    }
}

impl FromStr for TokenWeighting {
    type Err = ParseError;

    /// # Errors
    /// A line that lists the known names.
    fn from_str(name: &str) -> Result<Self, ParseError> {
        match name {
            "all" => Ok(TokenWeighting::All),
            "completion" => Ok(TokenWeighting::Completion),
            "completion-and-last-prompt" => Ok(TokenWeighting::CompletionAndLastPrompt),
            "gradient-norm" => Ok(TokenWeighting::GradientNorm),
            _ => Err(ParseError::new(format!(
                "unknown token weighting `{name}`: expected all, completion, completion-and-last-prompt or gradient-norm"
            ))),
        }
    }
}

/// How a Fisher was estimated: the configuration of its manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FisherMeta {
    /// What is kept of the gradients.
    pub estimator: Estimator,
    /// Which tokens the loss scored.
    pub protocol: String,
    /// Number of samples.
    pub samples: u64,
    /// Number of scored tokens over all samples.
    pub tokens: u64,
    /// Seed of the sample's draw.
    pub seed: u64,
    /// Added to every entry by the solver; not contained in the values.
    pub ridge: f64,
    /// Whose tokens were scored.
    #[serde(default)]
    pub labels: Labels,
    /// Adapters on the base model while measuring, in order; none: the base model alone.
    #[serde(default)]
    pub stack: Vec<String>,
    /// The adapter of the stack whose A and B the gradients are of; none for `kron`, which is of whole layers.
    #[serde(default)]
    pub parameters: Option<String>,
    /// How much each token counts; `kron` only.
    #[serde(default)]
    pub weighting: Option<TokenWeighting>,
}

impl FisherMeta {
    /// No samples yet, the default ridge [`ESTIMATOR_RIDGE`], the data's own labels, no adapters.
    pub fn new(estimator: Estimator, protocol: impl Into<String>, seed: u64) -> Self {
        Self {
            estimator,
            protocol: protocol.into(),
            samples: 0,
            tokens: 0,
            seed,
            ridge: ESTIMATOR_RIDGE,
            labels: Labels::Given,
            stack: Vec::new(),
            parameters: None,
            weighting: None,
        }
    }

    /// The first field, the ignored ones apart, that two estimates do not share; samples and tokens never count.
    pub(crate) fn difference(&self, other: &FisherMeta, ignored: &[&str]) -> Result<Option<Difference>, Error> {
        let value = |meta: &FisherMeta| serde_json::to_value(meta).map_err(|e| Error::content("config", e.to_string()));
        let (mut left, mut right) = (value(self)?, value(other)?);
        for side in [&mut left, &mut right] {
            if let Value::Object(fields) = side {
                fields.retain(|name, _| {
                    !["samples", "tokens"].contains(&name.as_str()) && !ignored.contains(&name.as_str())
                });
            }
        }
        Ok(difference(&left, &right))
    }

    /// Checks that two estimates may be averaged: they differ in the ignored fields alone.
    pub(crate) fn check_alike(&self, other: &FisherMeta, ignored: &[&str]) -> Result<(), Error> {
        match self.difference(other, ignored)? {
            None => Ok(()),
            Some(Difference { what, left, right }) => Err(Error::FisherMeta { what, left, right }),
        }
    }

    pub(crate) fn check_estimator(&self, expected: &[Estimator]) -> Result<(), Error> {
        if expected.contains(&self.estimator) {
            return Ok(());
        }
        let names: Vec<&str> = expected.iter().map(|e| e.name()).collect();
        let reason = format!("is `{}`, expected `{}`", self.estimator, names.join("` or `"));
        Err(Error::content("estimator", reason))
    }
}

/// A value that two configurations do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Keys from the outside in, joined by dots.
    pub(crate) what: String,
    pub(crate) left: String,
    pub(crate) right: String,
}

/// The first difference of two JSON values, objects compared key by key; a missing key and null are the same.
pub(crate) fn difference(left: &Value, right: &Value) -> Option<Difference> {
    let (Value::Object(l), Value::Object(r)) = (left, right) else {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return (left != right).then(|| Difference {
            what: String::new(),
            left: text(left),
            right: text(right),
        });
    };
    let added = r.keys().filter(|key| !l.contains_key(*key));
    l.keys().chain(added).find_map(|key| {
        let inner = difference(l.get(key).unwrap_or(&Value::Null), r.get(key).unwrap_or(&Value::Null))?;
        let what = if inner.what.is_empty() {
            key.clone()
        } else {
            format!("{key}.{}", inner.what)
        };
        Some(Difference { what, ..inner })
    })
}

pub(crate) fn check_setting(name: &'static str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::Setting { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_read_as_they_are_printed_and_stored() {
        for estimator in [
            Estimator::DiagVariance,
            Estimator::Diag,
            Estimator::Kron,
            Estimator::Samples,
        ] {
            assert_eq!(estimator.to_string().parse(), Ok(estimator));
            assert_eq!(serde_json::to_value(estimator).unwrap(), estimator.name());
        }
        for weighting in [
            TokenWeighting::All,
            TokenWeighting::Completion,
            TokenWeighting::CompletionAndLastPrompt,
            TokenWeighting::GradientNorm,
        ] {
            assert_eq!(weighting.to_string().parse(), Ok(weighting));
            assert_eq!(serde_json::to_value(weighting).unwrap(), weighting.to_string());
        }
        let message = "full".parse::<Estimator>().unwrap_err().to_string();
        assert!(message.contains("kron"), "{message}");
        let message = "none".parse::<TokenWeighting>().unwrap_err().to_string();
        assert!(message.contains("gradient-norm"), "{message}");
    }

    #[test]
    fn manifests_without_the_newer_fields_still_load() {
        let old = json!({
            "estimator": "diag", "protocol": "response", "samples": 4, "tokens": 9, "seed": 7, "ridge": 1e-6
        });
        let meta: FisherMeta = serde_json::from_value(old.clone()).unwrap();
        let expected = FisherMeta {
            samples: 4,
            tokens: 9,
            ..FisherMeta::new(Estimator::Diag, "response", 7)
        };
        assert_eq!(meta, expected);
        let mut unknown = old;
        unknown["labells"] = json!("given");
        let message = serde_json::from_value::<FisherMeta>(unknown).unwrap_err().to_string();
        assert!(message.contains("labells"), "{message}");
        let sampled = FisherMeta {
            labels: Labels::Sampled { seed: 3 },
            ..expected
        };
        let json = serde_json::to_value(&sampled).unwrap();
        assert_eq!(json["labels"], json!({"sampled": {"seed": 3}}));
        assert_eq!(serde_json::from_value::<FisherMeta>(json).unwrap(), sampled);
    }

    #[test]
    fn every_field_but_the_counts_makes_a_difference() {
        let meta = FisherMeta::new(Estimator::Kron, "response", 0);
        let change = |field: &str, value: Value| {
            let mut json = serde_json::to_value(&meta).unwrap();
            json[field] = value;
            let other: FisherMeta = serde_json::from_value(json).unwrap();
            meta.difference(&other, &[]).unwrap().map(|d| (d.what, d.left, d.right))
        };
        let text = |l: &str, r: &str, what: &str| Some((what.to_owned(), l.to_owned(), r.to_owned()));
        assert_eq!(change("samples", json!(9)), None);
        assert_eq!(change("tokens", json!(9)), None);
        assert_eq!(change("seed", json!(9)), text("0", "9", "seed"));
        assert_eq!(
            change("protocol", json!("legacy-prompt")),
            text("response", "legacy-prompt", "protocol")
        );
        assert_eq!(change("estimator", json!("diag")), text("kron", "diag", "estimator"));
        assert_eq!(change("ridge", json!(0.5)), text("1e-6", "0.5", "ridge"));
        assert_eq!(change("stack", json!(["U"])), text("[]", "[\"U\"]", "stack"));
        assert_eq!(change("parameters", json!("U")), text("null", "U", "parameters"));
        assert_eq!(change("weighting", json!("all")), text("null", "all", "weighting"));
        assert_eq!(change("labels", json!({"sampled": {"seed": 1}})).unwrap().0, "labels");
    }

    #[test]
    fn nested_and_missing_keys_are_named() {
        let left = json!({"model": {"sha256": "aa", "dtype": "f32"}, "limits": null});
        let right = json!({"model": {"sha256": "bb", "dtype": "f32"}});
        let found = difference(&left, &right).unwrap();
        assert_eq!(
            (found.what.as_str(), found.left.as_str(), found.right.as_str()),
            ("model.sha256", "aa", "bb")
        );
        assert_eq!(difference(&left, &left), None);
        assert_eq!(difference(&json!({}), &json!({"batch": 8})).unwrap().what, "batch");
        assert_eq!(difference(&json!({"limits": null}), &json!({})), None);
    }
}
