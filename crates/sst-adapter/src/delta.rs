//! Adapters as changes of the weights: delta W per module, whatever the ranks, alphas and target modules.
//!
//! A module that an adapter lacks is a zero change there. An adapter made from changes has alpha = r, so that s = 1, and
//! names every module whose rank differs from the most common one in `rank_pattern` and `alpha_pattern`.

use crate::config::common_rank;
use crate::{Adapter, Error, LoraConfig, LowRank, ModulePath, TargetModules};
use ndarray::Array2;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Keys that narrow `target_modules` down, and mean nothing beside full paths.
const NARROWING: [&str; 3] = ["layers_to_transform", "layers_pattern", "exclude_modules"];

impl Adapter {
    /// Every module's change, in model order.
    pub fn low_rank(&self) -> BTreeMap<ModulePath, LowRank> {
        let modules = self.modules.iter();
        modules
            .map(|(path, module)| (path.clone(), LowRank::of(module)))
            .collect()
    }

    /// The adapter of these changes, with the base model and other settings of `template`'s configuration.
    ///
    /// `target_modules` stay `template`'s where the modules are its own, and become full paths otherwise. A change of rank
    /// 0 is stored as a zero of rank 1.
    ///
    /// # Errors
    /// [`Error::Empty`] when there is no module; [`Error::Shape`] or [`Error::NotFinite`], naming the module.
    pub fn from_low_rank(template: &Adapter, modules: BTreeMap<ModulePath, LowRank>) -> Result<Self, Error> {
        let mut config = template.config.clone();
        if !modules.keys().eq(template.modules.keys()) {
            let paths: BTreeSet<String> = modules.keys().map(|path| path.to_string()).collect();
            config.target_modules = TargetModules::Names(paths);
            config.other.retain(|key, _| !NARROWING.contains(&key.as_str()));
        }
        set_ranks(&mut config, &modules);
        let pairs = modules.into_iter().map(|(path, LowRank { a, b })| match a.nrows() {
            0 => (path, Array2::zeros((1, a.ncols())), Array2::zeros((b.nrows(), 1))),
            _ => (path, a, b),
        });
        Adapter::from_pairs(config, pairs)
    }

    /// The weighted sum of the changes, exactly: each module's rank is the sum of the ranks.
    ///
    /// The configuration is the first adapter's, as [`Adapter::from_low_rank`] says.
    ///
    /// # Errors
    /// [`Error::Empty`] when there is no part, [`Error::ShapesDiffer`] for a module with two shapes.
    pub fn sum(parts: &[(f64, &Adapter)]) -> Result<Self, Error> {
        let Some((_, first)) = parts.first() else {
            return Err(Error::Empty);
        };
        for (i, (_, other)) in parts.iter().enumerate().skip(1) {
            first.ensure_same_shapes(other, ("part 1", &format!("part {}", i + 1)))?;
        }
        let mut changes: BTreeMap<ModulePath, Vec<(f64, LowRank)>> = BTreeMap::new();
        for (weight, adapter) in parts {
            for (path, low_rank) in adapter.low_rank() {
                changes.entry(path).or_default().push((*weight, low_rank));
            }
        }
        let sums = changes.into_iter().map(|(path, parts)| {
            let parts: Vec<(f64, &LowRank)> = parts.iter().map(|(weight, part)| (*weight, part)).collect();
            Ok((path, LowRank::stack(&parts)?))
        });
        Adapter::from_low_rank(first, sums.collect::<Result<_, Error>>()?)
    }

    /// The best adapter of at most `rank` in every module, and the relative Frobenius error of the whole change.
    ///
    /// # Errors
    /// [`Error::InModule`] around those of [`LowRank::svd`].
    pub fn compress(&self, rank: usize) -> Result<(Self, f64), Error> {
        let modules: Vec<(ModulePath, LowRank)> = self.low_rank().into_iter().collect();
        let parts: Vec<Result<_, Error>> = modules
            .into_par_iter()
            .map(|(path, change)| {
                let (small, error) = change.compress(rank).map_err(Error::in_module(&path))?;
                let norm = change.norm();
                Ok((path, small, norm.powi(2), (error * norm).powi(2)))
            })
            .collect();
        let (mut total, mut missed, mut modules) = (0.0, 0.0, BTreeMap::new());
        for part in parts {
            let (path, small, energy, lost) = part?;
            total += energy;
            missed += lost;
            modules.insert(path, small);
        }
        let error = if total > 0.0 { (missed / total).sqrt() } else { 0.0 };
        Ok((Adapter::from_low_rank(self, modules)?, error))
    }

    /// Checks that modules which both adapters have are of the same `[d_out, d_in]`; `names` say which adapter is which.
    ///
    /// # Errors
    /// [`Error::ShapesDiffer`] for the first difference.
    pub fn ensure_same_shapes(&self, other: &Adapter, names: (&str, &str)) -> Result<(), Error> {
        for (path, left) in &self.modules {
            let Some(right) = other.modules.get(path) else {
                continue;
            };
            let shapes = [left, right].map(|module| [module.b.nrows(), module.a.ncols()]);
            if shapes[0] != shapes[1] {
                return Err(Error::ShapesDiffer {
                    tensor: path.to_string(),
                    left: names.0.to_owned(),
                    left_shape: shapes[0],
                    right: names.1.to_owned(),
                    right_shape: shapes[1],
                });
            }
        }
        Ok(())
    }
}

/// Makes s = 1 everywhere: the most common rank becomes `r`, the others go into the patterns.
fn set_ranks(config: &mut LoraConfig, modules: &BTreeMap<ModulePath, LowRank>) {
    let stored = |change: &LowRank| change.rank().max(1);
    config.r = common_rank(modules.values().map(stored));
    config.lora_alpha = config.r as f64;
    config.use_rslora = false;
    let odd = || {
        let others = modules.iter().filter(|(_, change)| stored(change) != config.r);
        others.map(|(path, change)| (path.to_string(), stored(change)))
    };
    config.rank_pattern = odd().collect();
    config.alpha_pattern = odd().map(|(path, rank)| (path, rank as f64)).collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dtype, LoraConfig};
    use serde_json::json;

    fn wave(rows: usize, cols: usize, start: f32) -> Array2<f32> {
        Array2::from_shape_fn((rows, cols), |(i, j)| ((start + (i * cols + j) as f32) * 0.7).sin())
    }

    const Q0: &str = "model.layers.0.self_attn.q_proj";
    const Q1: &str = "model.layers.1.self_attn.q_proj";
    const UP: &str = "model.layers.1.mlp.up_proj";

    /// Rank 2 of alpha 3, but rank 1 of alpha 5 in layer 1.
    fn mixed() -> Adapter {
        let mut config = LoraConfig::new(2, 3.0, ["q_proj"]);
        config.rank_pattern.insert("layers.1.self_attn.q_proj".into(), 1);
        config.alpha_pattern.insert("layers.1.self_attn.q_proj".into(), 5.0);
        config.base_model_name_or_path = Some("some/base".into());
        config.other.insert("layers_to_transform".into(), json!([0, 1]));
        config.other.insert("lora_dropout".into(), json!(0.05));
        let pairs = [
            (Q0.into(), wave(2, 5, 0.0), wave(7, 2, 9.0)),
            (Q1.into(), wave(1, 5, 20.0), wave(7, 1, 29.0)),
        ];
        Adapter::from_pairs(config, pairs).unwrap()
    }

    /// Rank 3, rank-stabilised, other modules.
    fn stabilised() -> Adapter {
        let mut config = LoraConfig::new(3, 2.0, ["q_proj", "up_proj"]);
        config.use_rslora = true;
        let pairs = [
            (Q1.into(), wave(3, 5, 40.0), wave(7, 3, 49.0)),
            (UP.into(), wave(3, 5, 60.0), wave(6, 3, 69.0)),
        ];
        Adapter::from_pairs(config, pairs).unwrap()
    }

    fn delta(adapter: &Adapter, path: &str, [d_out, d_in]: [usize; 2]) -> Array2<f64> {
        let module = adapter.modules.get(&ModulePath::new(path));
        module.map_or(Array2::zeros((d_out, d_in)), |module| module.delta().mapv(f64::from))
    }

    #[test]
    fn a_sum_is_the_sum_of_the_changes_whatever_ranks_alphas_and_targets() {
        let (x, y) = (mixed(), stabilised());
        let sum = Adapter::sum(&[(1.5, &x), (-0.5, &y)]).unwrap();
        for (path, rank, shape) in [(Q0, 2, [7, 5]), (Q1, 4, [7, 5]), (UP, 3, [6, 5])] {
            let module = &sum.modules[&ModulePath::new(path)];
            assert_eq!((module.rank(), module.scale()), (rank, 1.0), "{path}");
            let want = 1.5 * delta(&x, path, shape) - 0.5 * delta(&y, path, shape);
            for (got, want) in module.delta().iter().zip(&want) {
                // Entries of magnitude 1, at most four products.
                assert!(
                    (f64::from(*got) - want).abs() <= 16.0 * f64::from(f32::EPSILON),
                    "{path}: {got} {want}"
                );
            }
        }
        assert!(!sum.config.use_rslora);
        assert_eq!(sum.config.base_model_name_or_path.as_deref(), Some("some/base"));
        assert_eq!(sum.config.other["lora_dropout"], json!(0.05));
        // Full paths leave nothing to narrow down.
        assert!(!sum.config.other.contains_key("layers_to_transform"));
        assert_eq!(
            sum.config.target_modules,
            TargetModules::Names([Q0, Q1, UP].map(String::from).into())
        );
    }

    #[test]
    fn changes_survive_a_folder() {
        for adapter in [
            mixed(),
            stabilised(),
            Adapter::sum(&[(1.0, &mixed()), (1.0, &stabilised())]).unwrap(),
        ] {
            let made = Adapter::from_low_rank(&adapter, adapter.low_rank()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            made.save(dir.path(), Dtype::F32).unwrap();
            let loaded = Adapter::load(dir.path()).unwrap();
            assert_eq!(loaded.modules, made.modules);
            assert_eq!(loaded.config.target_modules, adapter.config.target_modules);
            assert_eq!(loaded.low_rank(), adapter.low_rank());
        }
    }

    #[test]
    fn the_most_common_rank_needs_no_pattern() {
        let made = Adapter::from_low_rank(&mixed(), mixed().low_rank()).unwrap();
        assert_eq!((made.config.r, made.config.lora_alpha), (2, 2.0)); // one each: the larger
        assert_eq!(
            made.config.rank_pattern.iter().collect::<Vec<_>>(),
            [(&Q1.to_owned(), &1)]
        );
        assert_eq!(
            made.config.alpha_pattern.iter().collect::<Vec<_>>(),
            [(&Q1.to_owned(), &1.0)]
        );
        let plain = Adapter::from_low_rank(&stabilised(), stabilised().low_rank()).unwrap();
        assert!(plain.config.rank_pattern.is_empty() && plain.config.alpha_pattern.is_empty());
    }

    #[test]
    fn one_part_of_weight_one_is_itself() {
        for adapter in [mixed(), stabilised()] {
            let sum = Adapter::sum(&[(1.0, &adapter)]).unwrap();
            assert_eq!(sum.low_rank(), adapter.low_rank());
        }
    }

    #[test]
    fn compression_says_what_it_lost_of_the_whole() {
        let sum = Adapter::sum(&[(1.0, &mixed()), (2.0, &stabilised())]).unwrap();
        for rank in [0, 1, 2, 3, 4] {
            let (small, error) = sum.compress(rank).unwrap();
            let (mut missed, mut total) = (0.0, 0.0);
            for (path, module) in &sum.modules {
                let want = module.delta();
                missed += (&want - &small.modules[path].delta())
                    .iter()
                    .map(|x| f64::from(*x).powi(2))
                    .sum::<f64>();
                total += want.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
                assert!(small.modules[path].rank() <= rank.max(1));
            }
            assert!((error - (missed / total).sqrt()).abs() <= 1e-6, "{rank}: {error}");
            assert_eq!(error == 0.0, rank == 4, "{rank}: {error}");
        }
    }

    #[test]
    fn no_change_is_stored_as_a_zero_of_rank_one() {
        let modules = BTreeMap::from([(ModulePath::new(Q0), LowRank::zero([7, 5]))]);
        let made = Adapter::from_low_rank(&mixed(), modules).unwrap();
        assert_eq!(made.modules[&ModulePath::new(Q0)].delta(), Array2::<f32>::zeros((7, 5)));
        let zeros = mixed().zeros_like();
        let (small, error) = zeros.compress(1).unwrap();
        assert_eq!(error, 0.0);
        assert!(small.to_flat().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert!(matches!(Adapter::sum(&[]), Err(Error::Empty)));
        let mut other = stabilised();
        other.modules.get_mut(&ModulePath::new(Q1)).unwrap().b = wave(8, 3, 0.0);
        let message = Adapter::sum(&[(1.0, &mixed()), (1.0, &other)]).unwrap_err().to_string();
        assert_eq!(message, format!("tensor {Q1} is [7, 5] in part 1 but [8, 5] in part 2"));
        let message = Adapter::sum(&[(f64::INFINITY, &mixed())]).unwrap_err().to_string();
        assert!(message.contains("q_proj.lora_B holds"), "{message}");
        let mut broken = mixed();
        broken.modules.get_mut(&ModulePath::new(Q1)).unwrap().b = wave(7, 2, 0.0);
        let message = broken.compress(1).unwrap_err().to_string();
        let expected = format!("module {Q1}: low-rank change: tensor b of delta W has shape [7, 2], expected [7, 1]");
        assert_eq!(message, expected);
    }
}
