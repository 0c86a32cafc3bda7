//! `diag`: sum g^2 / N. `diag-variance`: max(sum g^2 / N - (sum g / N)^2, 0), with the mean gradient beside it.

use super::sums::Sums;
use crate::fisher::diagonal::{MEAN_FILE, check_entry, specs, write_manifest};
use crate::fisher::{FISHER_FILE, GRADIENTS_FILE, GRAM_FILE, check_setting};
use crate::tensor_writer::write_tensors;
use crate::{Error, Estimator, FisherMeta, FisherShard};
use sst_adapter::ParamLayout;
use sst_artefact::{Input, retire};
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn reduce(
    shards: &[FisherShard],
    meta: &FisherMeta,
    inputs: BTreeMap<String, Input>,
    out: &Path,
) -> Result<(), Error> {
    check_setting("ridge", meta.ridge)?;
    let variance = meta.estimator == Estimator::DiagVariance;
    let sums = Sums::new(shards)?;
    let layout = layout(&sums, variance)?;
    let (slots, specs, n) = (layout.slots(), specs(&layout), meta.samples as f64);
    let first = |i: usize| sums.get(&first_name(&slots[i].name));
    retire(out, &[MEAN_FILE, GRADIENTS_FILE, GRAM_FILE])?;
    let mut below = 0;
    write_tensors(&out.join(FISHER_FILE), BTreeMap::new(), &specs, |i, sink| {
        let mut values = sums.get(&second_name(&slots[i].name))?;
        values.iter_mut().for_each(|x| *x /= n);
        if variance {
            for (second, first) in values.iter_mut().zip(first(i)?) {
                let mean = first / n;
                *second = (*second - mean * mean).max(0.0);
            }
        }
        for (index, value) in values.iter().map(|x| *x as f32).enumerate() {
            check_entry(&slots[i].name, index, value)?;
            below += usize::from(f64::from(value) < meta.ridge);
        }
        sink.f32s(values.iter().map(|x| *x as f32))
    })?;
    if variance {
        write_tensors(&out.join(MEAN_FILE), BTreeMap::new(), &specs, |i, sink| {
            sink.f32s(first(i)?.iter().map(|x| (x / n) as f32))
        })?;
    }
    let share_below_ridge = below as f64 / layout.len().max(1) as f64;
    write_manifest(out, meta, inputs, layout.len(), share_below_ridge)
}

fn first_name(tensor: &str) -> String {
    format!("first/{tensor}")
}

fn second_name(tensor: &str) -> String {
    format!("second/{tensor}")
}

/// The tensors of phi: those with a sum of squares.
fn layout(sums: &Sums, variance: bool) -> Result<ParamLayout, Error> {
    let tensors = sums.shapes().iter();
    let squares =
        tensors.filter_map(|(name, shape)| Some((name.strip_prefix("second/")?.to_owned(), shape[0], shape[1])));
    let layout = ParamLayout::new(squares)?;
    let expected = layout.slots().len() * (1 + usize::from(variance));
    if variance {
        for slot in layout.slots() {
            let (name, expected) = (first_name(&slot.name), [slot.rows, slot.cols]);
            let found = sums.shape(&name)?;
            if found != expected {
                return Err(sums.error(&name, format!("is of shape {found:?}, expected {expected:?}")));
            }
        }
    }
    if layout.is_empty() || sums.shapes().len() != expected {
        let known = |name: &&String| name.starts_with("second/") || (variance && name.starts_with("first/"));
        let name = sums
            .shapes()
            .keys()
            .find(|name| !known(name))
            .map_or("second/", String::as_str);
        return Err(sums.error(name, "the sums are not those of a diagonal estimate"));
    }
    Ok(layout)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{A, BATCHES, SAMPLES, diagonal, gradients, layout, write};
    use super::super::reduce;
    use crate::{DiagonalFisher, Estimator, Shard, shard};
    use ndarray::Array1;
    use serde_json::Value;
    use std::collections::BTreeMap;

    #[test]
    fn a_diagonal_does_not_depend_on_the_number_of_shards() {
        let n = SAMPLES as f64;
        let g = gradients();
        let mean: Vec<f64> = g.columns().into_iter().map(|c| c.sum() / n).collect();
        // The definitions, sample by sample.
        let second = |c: ndarray::ArrayView1<f64>, m: f64| c.iter().map(|x| (x - m).powi(2)).sum::<f64>() / n;
        for (estimator, centre) in [(Estimator::Diag, 0.0), (Estimator::DiagVariance, 1.0)] {
            let mut first = None;
            for of in 1..=BATCHES + 2 {
                let dir = tempfile::tempdir().unwrap();
                let mut shards = diagonal(&dir, estimator, of);
                shards.rotate_left(of / 2);
                let out = dir.path().join("out");
                let meta = reduce(&shards, &out).unwrap();
                assert_eq!((meta.samples, meta.tokens), (SAMPLES as u64, 10 * SAMPLES as u64));
                let fisher = DiagonalFisher::load(&out).unwrap();
                assert_eq!((&fisher.meta, &fisher.layout), (&meta, &layout()));
                let columns = g.columns().into_iter().zip(&mean);
                for (got, (column, m)) in fisher.values.iter().zip(columns) {
                    let want = second(column, centre * m);
                    assert!(
                        (f64::from(*got) - want).abs() <= f64::from(f32::EPSILON) * want,
                        "{estimator} {of}: {got} {want}"
                    );
                }
                let stored = DiagonalFisher::load_mean(&out).unwrap();
                let expected = mean.iter().map(|m| *m as f32).collect();
                assert_eq!(stored, (estimator == Estimator::DiagVariance).then_some(expected));
                assert_eq!(*first.get_or_insert(fisher.clone()), fisher, "{estimator} {of}");
            }
        }
    }

    #[test]
    fn sums_become_the_values_that_torch_makes_of_them() {
        let golden: Value = serde_json::from_str(include_str!("../../../../fixtures/fisher/golden.json")).unwrap();
        let numbers = |value: &Value| -> Vec<f64> { serde_json::from_value(value.clone()).unwrap() };
        let (first, second) = (numbers(&golden["first"]), numbers(&golden["second"]));
        let samples = golden["samples"].as_u64().unwrap();
        for estimator in [Estimator::Diag, Estimator::DiagVariance] {
            let dir = tempfile::tempdir().unwrap();
            let (shard, out) = (dir.path().join("shard"), dir.path().join("out"));
            let mut meta = shard::tests::meta(estimator, Shard::WHOLE);
            (meta.fisher.samples, meta.total_samples) = (samples, samples as usize);
            let row = |values: &[f64]| Array1::from(values.to_vec()).insert_axis(ndarray::Axis(0));
            let mut sums = BTreeMap::from([(format!("second/{A}"), row(&second))]);
            if estimator == Estimator::DiagVariance {
                sums.insert(format!("first/{A}"), row(&first));
            }
            write(&shard, &meta, sums);
            reduce(&[shard], &out).unwrap();
            let values = DiagonalFisher::load(&out).unwrap().values;
            let golden = &golden[estimator.name()];
            let expected: Vec<u32> = numbers(&golden["values"])
                .iter()
                .map(|x| (*x as f32).to_bits())
                .collect();
            assert_eq!(values.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
            for (i, exact) in numbers(&golden["exact"]).iter().enumerate() {
                // The two moments cancel: their rounding is of the size of the mean square.
                let bound =
                    f64::from(f32::EPSILON) * exact + samples as f64 * f64::EPSILON * second[i] / samples as f64;
                assert!(
                    (f64::from(values[i]) - exact).abs() <= bound,
                    "{estimator} {i}: {} {exact}",
                    values[i]
                );
            }
        }
        let mean = numbers(&golden["mean"]);
        assert!(
            mean.iter()
                .zip(&first)
                .all(|(m, f)| *m as f32 == (f / samples as f64) as f32)
        );
    }
}
