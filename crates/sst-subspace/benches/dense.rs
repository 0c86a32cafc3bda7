//! The dense backends side by side, to see from which size on which is the faster.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ndarray::Array2;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_subspace::gevp::{DenseSolver, FaerSolver, dense_with};

/// G^T G / 2n of 2n random rows.
fn fisher(n: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let g = Array2::from_shape_simple_fn((2 * n, n), || rng.random_range(-1.0..1.0));
    g.t().dot(&g) / (2 * n) as f64
}

fn dense(c: &mut Criterion) {
    let solvers: Vec<&dyn DenseSolver> = vec![
        &FaerSolver,
        #[cfg(feature = "lapack")]
        &sst_subspace::gevp::LapackSolver,
    ];
    let mut group = c.benchmark_group("dense GEVP");
    group.sample_size(10);
    for n in [4, 16, 32, 64, 128, 256, 576] {
        let (a, b) = (fisher(n, 1), fisher(n, 2));
        for solver in &solvers {
            group.bench_function(BenchmarkId::new(solver.name(), n), |bench| {
                bench.iter(|| dense_with(*solver, a.view(), b.view(), 1e-3).expect("well-conditioned"))
            });
        }
    }
    group.finish();
}

criterion_group!(benches, dense);
criterion_main!(benches);
