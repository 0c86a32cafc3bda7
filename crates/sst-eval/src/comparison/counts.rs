//! Systems of which only the counts are known, as a published table gives them.

use super::outcome::Outcome;
use crate::Error;
use crate::stats::{
    Count, Homogeneity, Interval, detectable_proportion_difference, holm, homogeneity, two_proportions, wilson_interval,
};
use serde::{Deserialize, Serialize};

/// Rates compared by their counts alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountComparison {
    /// The systems, in the order given.
    pub systems: Vec<CountedSystem>,
    /// Every system against the first.
    pub pairs: Vec<CountPair>,
    /// Whether all rates can be one and the same; the same test as the pair's where there are two.
    pub series: Homogeneity,
}

/// The rate of one system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountedSystem {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub count: Count,
    /// Its rate.
    pub value: f64,
    /// Wilson's 95 % interval.
    pub interval: Interval,
}

/// Two rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CountPair {
    /// The system compared with.
    pub first: String,
    /// The system compared.
    pub second: String,
    /// Second minus first.
    pub difference: f64,
    /// Newcombe's 95 % interval.
    pub interval: Interval,
    /// Two-sided p-value of equal rates, by the pooled z test.
    pub p_value: f64,
    /// The same after Holm's correction over the pairs.
    pub p_holm: f64,
    /// The smallest true difference that samples of the smaller size show in four cases of five, at 5 %; absent where they
    /// show none at all.
    pub detectable: Option<f64>,
    /// What the corrected p-value says at 5 %; of bare counts nobody knows which side is better.
    pub verdict: Outcome,
}

/// Compares every system with the first, and all of them with one common rate.
///
/// ```
/// use sst_eval::{Count, Outcome, compare_counts};
/// let count = |successes| Count { successes, n: 500 };
/// let found = compare_counts(&[("V1".to_owned(), count(388)), ("V2".to_owned(), count(391))]).unwrap();
/// assert_eq!(found.pairs[0].verdict, Outcome::NotDistinguishable);
/// ```
///
/// # Errors
/// [`Error::Compare`] for fewer than two systems, two of one name, a count without trials, and more successes than trials.
pub fn compare_counts(systems: &[(String, Count)]) -> Result<CountComparison, Error> {
    let fault = |problem: String| Error::Compare { key: "counts", problem };
    for (name, count) in systems {
        if count.n == 0 || count.successes > count.n {
            let Count { successes, n } = count;
            return Err(fault(format!(
                "of {name} are {successes}/{n}, expected successes/trials"
            )));
        }
    }
    let names: Vec<&String> = systems.iter().map(|(name, _)| name).collect();
    if let Some(twice) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
        let name = names[twice];
        return Err(fault(format!("have two of the name {name}; name each by itself")));
    }
    let counts: Vec<Count> = systems.iter().map(|(_, count)| *count).collect();
    let Some(series) = homogeneity(&counts) else {
        return Err(fault("are of fewer than two systems; give two or more".to_owned()));
    };
    let (first_name, first) = &systems[0];
    let mut pairs: Vec<CountPair> = systems[1..]
        .iter()
        .filter_map(|(name, count)| {
            let found = two_proportions(*count, *first)?;
            Some(CountPair {
                first: first_name.clone(),
                second: name.clone(),
                difference: found.difference,
                interval: found.interval,
                p_value: found.p_value,
                p_holm: found.p_value,
                detectable: Some(detectable_proportion_difference(first.rate(), first.n.min(count.n)))
                    .filter(|d| d.is_finite()),
                verdict: Outcome::NotDistinguishable,
            })
        })
        .collect();
    let p_values: Vec<f64> = pairs.iter().map(|pair| pair.p_value).collect();
    for (pair, p) in pairs.iter_mut().zip(holm(&p_values)) {
        pair.p_holm = p;
        pair.verdict = Outcome::of(pair.difference, p, None);
    }
    let system = |(name, count): &(String, Count)| CountedSystem {
        name: name.clone(),
        count: *count,
        value: count.rate(),
        interval: wilson_interval(count.successes, count.n),
    };
    Ok(CountComparison {
        systems: systems.iter().map(system).collect(),
        pairs,
        series,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(successes: &[usize], n: usize) -> Result<CountComparison, Error> {
        let named = successes.iter().enumerate();
        let systems: Vec<(String, Count)> = named
            .map(|(i, &successes)| (format!("s{i}"), Count { successes, n }))
            .collect();
        compare_counts(&systems)
    }

    #[test]
    fn a_series_within_noise_has_no_pair_apart() {
        // The study's safety rates for k = 20, 10, 30, 50, 70, 100, 150, 200, of 500 requests each.
        let found = counted(&[391, 374, 391, 383, 383, 387, 387, 368], 500).unwrap();
        assert!(found.pairs.iter().all(|p| p.verdict == Outcome::NotDistinguishable));
        assert!(found.series.p_value > 0.5 && found.series.degrees_of_freedom == 7);
        assert!(
            found
                .pairs
                .iter()
                .all(|p| p.detectable.is_some_and(|d| d > 0.07 && d < 0.08))
        );
    }

    #[test]
    fn a_large_difference_is_seen() {
        let found = counted(&[388, 267], 500).unwrap();
        assert_eq!(found.pairs[0].verdict, Outcome::Lower);
        assert!(found.pairs[0].interval.high < 0.0);
        assert!(
            (found.series.p_value - found.pairs[0].p_value).abs() < 1e-12,
            "chi-square is the square of z"
        );
    }

    #[test]
    fn impossible_counts_are_named() {
        for (counts, part) in [
            (counted(&[3], 5), "fewer than two"),
            (counted(&[3, 6], 5), "of s1 are 6/5"),
            (counted(&[0, 0], 0), "of s0 are 0/0"),
        ] {
            let message = counts.unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        let count = Count { successes: 3, n: 5 };
        let twins = compare_counts(&["V1", "V2", "V1"].map(|name| (name.to_owned(), count)));
        let message = twins.unwrap_err().to_string();
        assert!(message.contains("two of the name V1"), "{message}");
    }
}
