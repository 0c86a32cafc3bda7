//! Whether two estimates of the same diagonal agree: a benchmark that compares different things measures nothing.

use std::path::Path;

use anyhow::{Context, Result, bail};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

/// Entries below this share of their tensor's largest are left out: rounding decides their relative error.
const SHARE_OF_LARGEST: f64 = 1e-3;

/// The largest relative difference that rounding explains with room to spare.
pub const TOLERANCE: f64 = 1e-3;

/// How far two files of tensors are apart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The largest of `|a - b| / max(a, b)`.
    pub largest_relative_difference: f64,
    /// The tensor it is in.
    pub tensor: String,
    /// How many entries were compared.
    pub entries: usize,
}

impl Agreement {
    /// # Errors
    /// When the files differ by more than [`TOLERANCE`].
    pub fn check(&self) -> Result<()> {
        let largest = self.largest_relative_difference;
        if !(largest.is_finite() && largest <= TOLERANCE) {
            bail!(
                "the two diagonals differ by {largest:.1e} in {}, more than {TOLERANCE:.0e}: the two sides do not compute the same thing",
                self.tensor
            );
        }
        Ok(())
    }
}

/// Compares two safetensors files of f32 with non-negative entries, tensor by tensor.
///
/// # Errors
/// Naming the file and the tensor that is missing, of another shape or type, negative or not finite.
pub fn compare(ours: &Path, theirs: &Path) -> Result<Agreement> {
    let (our_bytes, their_bytes) = (read(ours)?, read(theirs)?);
    let (a, b) = (parse(ours, &our_bytes)?, parse(theirs, &their_bytes)?);
    if let Some(name) = b.names().into_iter().find(|name| a.tensor(name).is_err()) {
        bail!("{} has no tensor {name}", ours.display());
    }
    let mut names = a.names();
    names.sort();
    let mut worst = Agreement {
        largest_relative_difference: 0.0,
        tensor: String::new(),
        entries: 0,
    };
    for name in names {
        let (shape_a, a) = entries(ours, &a, name)?;
        let (shape_b, b) = entries(theirs, &b, name)?;
        if shape_a != shape_b {
            bail!(
                "{name} is {shape_a:?} in {} and {shape_b:?} in {}",
                ours.display(),
                theirs.display()
            );
        }
        let largest = a.iter().chain(&b).copied().fold(0.0, f64::max);
        for (a, b) in a.iter().zip(&b) {
            let larger = a.max(*b);
            if larger == 0.0 || larger < SHARE_OF_LARGEST * largest {
                continue;
            }
            let difference = (a - b).abs() / larger;
            worst.entries += 1;
            if difference >= worst.largest_relative_difference {
                worst.largest_relative_difference = difference;
                name.clone_into(&mut worst.tensor);
            }
        }
    }
    if worst.entries == 0 {
        bail!("{} and {} hold nothing but zeros", ours.display(), theirs.display());
    }
    Ok(worst)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).with_context(|| format!("{} is no safetensors file", path.display()))
}

fn entries(path: &Path, file: &SafeTensors<'_>, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
    let tensor = file
        .tensor(name)
        .with_context(|| format!("{} has no tensor {name}", path.display()))?;
    if tensor.dtype() != Dtype::F32 {
        bail!("{name} in {} is {:?}, not F32", path.display(), tensor.dtype());
    }
    let (chunks, _) = tensor.data().as_chunks::<4>();
    let values: Vec<f64> = chunks.iter().map(|&bytes| f32::from_le_bytes(bytes).into()).collect();
    if let Some(bad) = values.iter().find(|v| !(v.is_finite() && **v >= 0.0)) {
        bail!("{name} in {} holds {bad}: no mean of squares", path.display());
    }
    Ok((tensor.shape().to_vec(), values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::TensorView;

    fn write(path: &Path, tensors: &[(&str, &[usize], &[f32])]) {
        let bytes: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect())
            .collect();
        let views = tensors
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap()));
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }

    fn compared(ours: &[(&str, &[usize], &[f32])], theirs: &[(&str, &[usize], &[f32])]) -> Result<Agreement> {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("ours"), dir.path().join("theirs"));
        write(&a, ours);
        write(&b, theirs);
        compare(&a, &b)
    }

    #[test]
    fn the_worst_entry_is_found_and_small_ones_do_not_count() {
        let ours: &[(&str, &[usize], &[f32])] = &[
            ("x.lora_A", &[2, 2], &[8.0, 4.0, 0.001, 0.0]),
            ("x.lora_B", &[1, 2], &[1e-9, 2e-9]),
        ];
        let theirs: &[(&str, &[usize], &[f32])] = &[
            ("x.lora_B", &[1, 2], &[1e-9, 1.5e-9]),
            ("x.lora_A", &[2, 2], &[8.0, 4.5, 0.007, 0.0]),
        ];
        let agreement = compared(ours, theirs).unwrap();
        assert_eq!((agreement.tensor.as_str(), agreement.entries), ("x.lora_B", 4));
        assert!(
            (agreement.largest_relative_difference - 0.25).abs() < 1e-6,
            "{agreement:?}"
        );
        let error = agreement.check().unwrap_err().to_string();
        assert!(error.contains("2.5e-1") && error.contains("x.lora_B"), "{error}");
        let same = compared(ours, ours).unwrap();
        assert_eq!(same.largest_relative_difference, 0.0);
        same.check().unwrap();
    }

    #[test]
    fn the_tolerance_is_one_in_a_thousand() {
        let check = |factor: f32| {
            compared(&[("a", &[1], &[1.0])], &[("a", &[1], &[factor])])
                .unwrap()
                .check()
        };
        check(1.0009).unwrap();
        check(0.9991).unwrap();
        assert!(check(1.0011).is_err() && check(0.9989).is_err());
        let nan = Agreement {
            largest_relative_difference: f64::NAN,
            tensor: "a".into(),
            entries: 1,
        };
        assert!(nan.check().is_err());
    }

    #[test]
    fn an_entry_that_only_one_side_has_is_a_difference() {
        let agreement = compared(&[("a", &[2], &[1.0, 1.0])], &[("a", &[2], &[1.0, 0.0])]).unwrap();
        assert_eq!(agreement.largest_relative_difference, 1.0);
    }

    #[test]
    fn files_that_cannot_be_compared_are_refused_by_name() {
        let one: (&str, &[usize], &[f32]) = ("a", &[2], &[1.0, 2.0]);
        let refused = |ours: &[_], theirs: &[_], word: &str| {
            let error = format!("{:#}", compared(ours, theirs).unwrap_err());
            assert!(error.contains(word), "{error}");
        };
        refused(&[one], &[one, ("b", &[1], &[1.0])], "no tensor b");
        refused(&[one, ("b", &[1], &[1.0])], &[one], "no tensor b");
        refused(&[one], &[("a", &[1, 2], &[1.0, 2.0])], "[1, 2]");
        refused(&[("a", &[2], &[1.0, f32::NAN])], &[one], "NaN");
        refused(&[one], &[("a", &[2], &[1.0, -2.0])], "-2");
        refused(&[("a", &[1], &[0.0])], &[("a", &[1], &[0.0])], "zeros");
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        std::fs::write(&text, "no tensors").unwrap();
        let error = compare(&text, &text).unwrap_err().to_string();
        assert!(error.contains("text"), "{error}");
    }
}
