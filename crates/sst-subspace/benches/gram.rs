//! The products of per-sample gradients: one module of rank 16 in a model of width 4096, 256 samples.

use criterion::{Criterion, criterion_group, criterion_main};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sst_adapter::{Dtype, ModulePath, ParamLayout};
use sst_subspace::{Error, Estimator, FisherMeta, GRADIENTS_FILE, GradientStore, SampleFisher};
use std::collections::BTreeMap;

const SAMPLES: usize = 256;

fn products(c: &mut Criterion) {
    let (dir, q) = (
        tempfile::tempdir().expect("a temporary folder"),
        ModulePath::new("layers.0.q_proj"),
    );
    let meta = FisherMeta {
        samples: SAMPLES as u64,
        ..FisherMeta::new(Estimator::Samples, "synthetic", 0)
    };
    let seal = || SampleFisher::seal(dir.path(), &meta, BTreeMap::new());
    let prepare = || -> Result<SampleFisher, Error> {
        let layout = ParamLayout::new([(format!("{q}.lora_A"), 16, 4096), (format!("{q}.lora_B"), 4096, 16)])?;
        let mut store = GradientStore::create(&dir.path().join(GRADIENTS_FILE), &layout, SAMPLES, Dtype::Bf16)?;
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        for row in 0..SAMPLES {
            let values: Vec<f32> = (0..layout.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
            store.write_rows(&q, &[row], &values)?;
        }
        store.finish()?;
        seal()?;
        SampleFisher::load(dir.path())
    };
    let fisher = prepare().expect("valid by construction");
    let mut group = c.benchmark_group("256 gradients of 131072 entries");
    group.sample_size(10);
    group.bench_function("Gram matrix", |bench| bench.iter(|| seal().expect("as before")));
    group.bench_function("cross-Gram matrix", |bench| {
        bench.iter(|| fisher.cross_gram(&fisher, &q).expect("the same layout"))
    });
    let coefficients = fisher
        .gram(&q)
        .expect("a module of it")
        .slice_move(ndarray::s![.., ..20]);
    group.bench_function("20 combinations", |bench| {
        bench.iter(|| fisher.combine(&q, coefficients.view()).expect("as many rows"))
    });
    group.finish();
}

criterion_group!(benches, products);
criterion_main!(benches);
