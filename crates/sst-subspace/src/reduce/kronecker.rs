//! `kron`: sum w x x^T / sum w and sum v d d^T / sum v of every layer.

use super::{differ, sums::Sums};
use crate::fisher::kronecker::{input_name, output_name};
use crate::fisher::{difference, write_kronecker};
use crate::{Error, FisherMeta, FisherShard};
use sst_artefact::Input;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn reduce(
    shards: &[FisherShard],
    meta: &FisherMeta,
    inputs: BTreeMap<String, Input>,
    out: &Path,
) -> Result<(), Error> {
    let sums = Sums::new(shards)?;
    let first = sums
        .first()
        .ok_or_else(|| Error::content("A/", "no shard holds sums"))?;
    for other in sums.shards() {
        let map = |shard: &FisherShard| serde_json::to_value(&shard.meta.inputs).unwrap_or_default();
        if let Some(found) = difference(&map(first), &map(other)) {
            return Err(differ(
                first,
                other,
                format!("the input of {}", found.what),
                found.left,
                found.right,
            ));
        }
    }
    let shared = &first.meta.inputs;
    // From the artefact's tensor to the sum and the weight that it is the quotient of.
    let mut quotients = BTreeMap::new();
    for input in shared.values() {
        quotients.insert(input_name(input), (format!("A/{input}"), format!("A.weight/{input}")));
    }
    for module in shared.keys() {
        quotients.insert(
            output_name(module),
            (format!("G/{module}"), format!("G.weight/{module}")),
        );
    }
    let mut sizes = BTreeMap::new();
    for (name, (sum, weight)) in &quotients {
        let ([rows, cols], single) = (sums.shape(sum)?, sums.shape(weight)?);
        if rows != cols || single != [1, 1] {
            let reason = format!(
                "is of shape {:?} with weights {single:?}, expected a square matrix and [1, 1]",
                [rows, cols]
            );
            return Err(sums.error(sum, reason));
        }
        sizes.insert(name.clone(), rows);
    }
    if sums.shapes().len() != 2 * quotients.len() {
        let known = |name: &String| quotients.values().any(|(sum, weight)| name == sum || name == weight);
        let name = sums
            .shapes()
            .keys()
            .find(|name| !known(name))
            .map_or("inputs", String::as_str);
        return Err(sums.error(name, "belongs to no layer of `inputs`"));
    }
    let quotient = |name: &str| {
        let (sum, weight) = &quotients[name];
        let total = sums.get(weight)?[0];
        if total <= 0.0 {
            return Err(sums.error(weight, format!("adds up to {total} over all shards: no token counted")));
        }
        let mut entries = sums.get(sum)?;
        entries.iter_mut().for_each(|x| *x /= total);
        Ok(entries)
    };
    write_kronecker(out, meta, shared, &sizes, quotient, inputs)
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{BATCHES, K, O, Q, SAMPLES, covariance, kron};
    use super::super::reduce;
    use crate::KroneckerFisher;
    use sst_adapter::ModulePath;

    #[test]
    fn kronecker_factors_do_not_depend_on_the_number_of_shards() {
        let all: Vec<usize> = (0..SAMPLES).collect();
        let mean = |size, seed| {
            let (sum, weight) = covariance(size, seed, &all);
            sum / weight
        };
        let (a_q, a_o) = (mean(3, 10), mean(2, 11));
        for of in 1..=BATCHES + 2 {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("out");
            reduce(&kron(&dir, of), &out).unwrap();
            let fisher = KroneckerFisher::load(&out).unwrap();
            assert_eq!(fisher.modules().map(ModulePath::as_str).collect::<Vec<_>>(), [Q, K, O]);
            assert_eq!(fisher.input(&K.into()).unwrap().as_str(), Q);
            assert_eq!(fisher.shape(&K.into()).unwrap(), [2, 3]);
            let mut total = 0.0;
            for (module, a, g) in [(Q, &a_q, mean(4, 12)), (K, &a_q, mean(2, 13)), (O, &a_o, mean(3, 14))] {
                let factors = fisher.factors(&module.into()).unwrap();
                for (got, want) in factors.input.iter().chain(&factors.output).zip(a.iter().chain(&g)) {
                    assert_eq!(*got, f64::from(*want as f32), "{module} of {of}");
                }
                let trace = factors.input.diag().sum() * factors.output.diag().sum();
                assert!((fisher.trace(&module.into()).unwrap() - trace).abs() <= 1e-14 * trace);
                total += trace;
            }
            let facts = sst_artefact::Manifest::read(&out).unwrap().facts;
            assert!((facts["trace"].as_f64().unwrap() - total).abs() <= 1e-14 * total);
            assert_eq!(facts["parameters"], 4 * 3 + 2 * 3 + 3 * 2);
        }
    }
}
