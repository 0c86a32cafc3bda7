//! Lets tests, doctests and binaries find libtorch with no variable set, and links it before any BLAS.
//!
//! libtorch exports the BLAS symbols of its own MKL; whichever library comes first among a binary's needed
//! libraries serves them to both. OpenBLAS first slows libtorch's matrix products several times over.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        println!("cargo::error=torch-sys did not say where libtorch is; run `cargo xtask setup` first");
        return;
    };
    println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
    println!("cargo::rustc-link-search=native={lib}");
    println!("cargo::rustc-link-lib=dylib=torch_cpu");
    let cuda = std::path::Path::new(&lib).join("libtorch_cuda.so");
    if cuda.exists() {
        // Nothing refers to libtorch_cuda by symbol: without this the linker drops it and no GPU is seen.
        println!(
            "cargo::rustc-link-arg=-Wl,--no-as-needed,{},--as-needed",
            cuda.display()
        );
    }
}
