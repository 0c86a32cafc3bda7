use std::time::Instant;
use sst_model::*;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let what = &args[1];
    let tokens: usize = args[2].parse().unwrap();
    let n: usize = args[3].parse().unwrap();
    set_threads(2).unwrap();
    let mut model = LanguageModel::load(".models/smollm2-135m-instruct".as_ref(), DeviceChoice::Cpu, Precision::F32).unwrap();
    model.set_limits(BatchLimits { rows: 64, tokens }).unwrap();
    let targets = ["q_proj", "k_proj", "v_proj", "o_proj"].map(String::from);
    let pairs = model.modules(&targets).into_iter().map(|p| {
        let (o, i) = model.linear_shape(&p).unwrap();
        (p.clone(), ndarray::Array2::from_shape_fn((16, i), |(a, b)| uniform(0, &format!("{p}a"), a * i + b, -0.04, 0.04)),
         ndarray::Array2::from_shape_fn((o, 16), |(a, b)| uniform(0, &format!("{p}b"), a * 16 + b, -0.01, 0.01)))
    }).collect::<Vec<_>>();
    let adapter = sst_adapter::Adapter::from_pairs(sst_adapter::LoraConfig::new(16, 32.0, targets), pairs).unwrap();
    model.add_adapter("a", &adapter).unwrap();
    let rows: Vec<Encoded> = (0..n).map(|i| {
        let len = 100 + (i * 7919) % 201;
        Encoded { id: format!("{i}"), ids: (0..len).map(|t| ((t * 31 + i * 17) % 40000) as u32).collect(), scored_from: len - 20 - (i * 31) % 60 }
    }).collect();
    let total: usize = rows.iter().map(|r| r.ids.len()).sum();
    let scored: usize = rows.iter().map(|r| r.scored()).sum();
    let body: f64 = 30.0 * (960. * 576. + 576. * 576. + 3. * 576. * 1536.);
    let flop = 4.0 * (total as f64 * body + scored as f64 * 49152. * 576.);
    let rate = {
        let a = Tensor::rand([2048, 2048], (Kind::Float, tch::Device::Cpu));
        let mut best = 0f64;
        for _ in 0..6 { let t = Instant::now(); for _ in 0..3 { let _ = a.matmul(&a); } best = best.max(3. * 2. * 2048f64.powi(3) / t.elapsed().as_secs_f64()); }
        best
    };
    let lengths: Vec<usize> = rows.iter().map(|r| r.ids.len()).collect();
    let objective = Objective { adapters: &["a"], labels: Labels::Given, weight: TokenWeight::RowMean };
    let mut sums: BTreeMap<String, Tensor> = BTreeMap::new();
    let status = || std::fs::read_to_string("/proc/self/status").unwrap().lines().find(|l| l.starts_with("VmHWM")).unwrap().to_string();
    for round in 0..3 {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = status();
    let t = Instant::now();
    let (mut f, mut b, mut s) = (0., 0., 0.);
    let plan = model.limits().plan(&lengths);
    let padded: usize = plan.iter().map(|b| b.len() * b.iter().map(|&i| lengths[i]).max().unwrap()).sum();
    for batch in &plan {
        let batch: Vec<&Encoded> = batch.iter().map(|&i| &rows[i]).collect();
        let wanted = |p: &sst_adapter::ModulePath| adapter.modules.contains_key(p);
        let r = model.backward(&batch, &objective, &wanted, &mut |reading| {
            let mut add = |name: String, t: Tensor| match sums.get_mut(&name) { Some(s) => { let _ = s.g_add_(&t); } None => { sums.insert(name, t); } };
            match what.as_str() {
                "plain" => for g in reading.summed(0) { add(format!("{}a", g.path), g.a); add(format!("{}b", g.path), g.b); },
                "diag" => for g in reading.per_sample(0) {
                    for (x, t) in [("a", g.a), ("b", g.b)] { add(format!("{}{x}", g.path), t.to_kind(Kind::Double).square().sum_dim_intlist([0i64].as_slice(), false, Kind::Double)); }
                },
                "kron" => {
                    let gram = |x: &Tensor| {
                        let x = x.flatten(0, 1);
                        let d = x.size()[1]; let p = if d >= 512 { 4 } else { 1 };
                        let out = Tensor::zeros([d, d], (Kind::Float, x.device()));
                        for j in 0..p { let w = d / p; let _ = x.narrow(1, j * w, w).tr().matmul_out(&out.narrow(0, j * w, w).narrow(1, 0, (j + 1) * w), &x.narrow(1, 0, (j + 1) * w)); }
                        out.to_kind(Kind::Double)
                    };
                    add(format!("A{}", reading.linears[0].path), gram(&reading.input));
                    for l in &reading.linears { add(format!("G{}", l.path), gram(&l.output)); }
                }
                _ => {}
            }
            Ok::<(), Error>(())
        }).unwrap();
        f += r.forward.as_secs_f64(); b += r.backward.as_secs_f64(); s += r.shown.as_secs_f64();
    }
    let e = t.elapsed().as_secs_f64();
    println!("{round} {what} budget {tokens}: {:.1} tok/s {:.3} s, share {:.3} (rate {:.0}), f {:.2} b {:.2} s {:.2}, padding {:.3}, batches {} before {before} after {} ", total as f64 / e, e, flop / e / rate, rate / 1e9, f / e, b / e, s / e, padded as f64 / total as f64, plan.len(), status());
    }
}
