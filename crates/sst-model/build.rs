//! Lets tests, doctests and binaries find libtorch with no variable set, and links it before any BLAS.
//!
//! libtorch exports the BLAS symbols of its own MKL; whichever library comes first among a binary's needed
//! libraries serves them to both. OpenBLAS first slows libtorch's matrix products several times over.

fn main() {
    // Cargo runs it again anyway when it, or the dependency that tells the folder, has changed. A path would be taken from each
    // of the crates that share this script, and one that is not there makes all of them stale at every build.
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
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
