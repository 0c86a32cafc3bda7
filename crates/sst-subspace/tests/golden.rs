//! Angles and solvers against SciPy: see `fixtures/subspace`.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

use ndarray::Array2;
use serde::Deserialize;
use sst_subspace::gevp::{FactorPair, SampleGrams, kronecker, samples, top_products};
use sst_subspace::principal_angles;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    angles: Vec<Angles>,
    kronecker: Vec<Kronecker>,
    samples: Vec<Samples>,
}

#[derive(Deserialize)]
struct Angles {
    name: String,
    x: Matrix,
    y: Matrix,
    angles: Vec<f64>,
}

#[derive(Deserialize)]
struct Kronecker {
    ridge: f64,
    a_s: Matrix,
    a_u: Matrix,
    g_s: Matrix,
    g_u: Matrix,
    eigenvalues: Vec<f64>,
}

#[derive(Deserialize)]
struct Samples {
    eps: f64,
    g_s: Matrix,
    g_u: Matrix,
    eigenvalues: Vec<f64>,
}

#[derive(Deserialize)]
struct Matrix {
    shape: (usize, usize),
    values: Vec<f64>,
}

impl Matrix {
    fn array(&self) -> Array2<f64> {
        Array2::from_shape_vec(self.shape, self.values.clone()).unwrap()
    }
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/subspace/golden.json");
    sst_artefact::read_json(Path::new(path), "golden file").unwrap()
}

fn assert_close(got: &[f64], want: &[f64], tolerance: f64, name: &str) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (got, want) in got.iter().zip(want) {
        assert!((got - want).abs() <= tolerance, "{name}: {got:e} {want:e}");
    }
}

#[test]
fn angles_match() {
    let cases = golden().angles;
    assert_eq!(cases.len(), 8);
    for case in cases {
        let (x, y) = (case.x.array(), case.y.array());
        let angles = principal_angles(x.view(), y.view()).unwrap();
        // The mixed columns have condition numbers up to about 50.
        assert_close(&angles, &case.angles, 1e-14, &case.name);
        assert_close(
            &principal_angles(y.view(), x.view()).unwrap(),
            &case.angles,
            1e-14,
            &case.name,
        );
    }
}

#[test]
fn kronecker_eigenvalues_match_those_of_the_product() {
    let cases = golden().kronecker;
    assert_eq!(cases.len(), 2);
    for case in cases {
        let [a_s, a_u, g_s, g_u] = [case.a_s, case.a_u, case.g_s, case.g_u].map(|m| m.array());
        let pair = |safety, utility| FactorPair { safety, utility };
        let input = pair(a_s.view(), a_u.view());
        let eigen = kronecker("m", input, Some(pair(g_s.view(), g_u.view())), case.ridge).unwrap();
        let products = top_products(&[eigen.spectrum()], case.eigenvalues.len()).unwrap();
        let values: Vec<f64> = products.iter().map(|p| p.value).collect();
        assert_close(&values, &case.eigenvalues, 1e-13 * case.eigenvalues[0], "kronecker");
    }
}

#[test]
fn sample_eigenvalues_match_those_of_the_fishers() {
    let cases = golden().samples;
    assert_eq!(cases.len(), 2);
    for case in cases {
        let (g_s, g_u) = (case.g_s.array(), case.g_u.array());
        let grams = SampleGrams {
            module: "m".into(),
            safety: g_s.dot(&g_s.t()),
            cross: g_s.dot(&g_u.t()),
            utility: g_u.dot(&g_u.t()),
            parameters: g_s.ncols(),
        };
        let eigen = samples(&grams, case.eps).unwrap();
        let values = eigen.values.to_vec();
        assert_close(&values, &case.eigenvalues, 1e-12 * case.eigenvalues[0], "samples");
    }
}
