//! Which library serves BLAS inside a binary that links both libtorch and OpenBLAS.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed
#![cfg(target_os = "linux")]

use ndarray::array;
use sst_model::{DeviceChoice, LanguageModel, Precision, Side, write_tiny_model};

/// libtorch must come first among the needed libraries: OpenBLAS in front slows its matrix products several times.
#[test]
fn libtorch_serves_its_own_matrix_products() {
    // Both libraries must really be in the process: one call each.
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 0).unwrap();
    let model = LanguageModel::load(dir.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
    assert_eq!(model.logits(&[&[1, 2]], Side::Right, &[]).unwrap().size()[..2], [1, 2]);
    let eigen = sst_subspace::gevp::dense(
        array![[2.0, 1.0], [1.0, 2.0]].view(),
        array![[1.0, 0.0], [0.0, 1.0]].view(),
        0.0,
    );
    assert!((eigen.unwrap().values[0] - 3.0).abs() < 1e-12);
    let served_by = library_of(c"sgemm_");
    assert!(served_by.contains("libtorch"), "sgemm_ is served by {served_by}");
    if cfg!(feature = "lapack") {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(
            maps.contains("openblas") || maps.contains("libblas"),
            "the lapack feature must link a BLAS"
        );
    }
}

/// Path of the library that a symbol resolves to at run time.
fn library_of(symbol: &std::ffi::CStr) -> String {
    // SAFETY: dlsym takes a valid C string, dladdr fills a zeroed Dl_info; both pointers outlive the calls.
    #[allow(unsafe_code)]
    unsafe {
        let address = libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr());
        assert!(!address.is_null(), "{symbol:?} is not in this process");
        let mut info: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(address, &mut info), 0);
        std::ffi::CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned()
    }
}
