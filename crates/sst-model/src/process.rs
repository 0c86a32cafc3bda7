//! Settings of libtorch's libraries that are read once, before `main`: the only way to choose them is to start again.
//!
//! | variable | value | why |
//! | --- | --- | --- |
//! | `OMP_WAIT_POLICY` | `PASSIVE` | threads that wait by spinning take the processor from whoever else runs: beside one busy process libtorch slows tenfold |
//! | `GOMP_SPINCOUNT` | `10000` | ... but waking a thread costs more than most passes over a small tensor: for some microseconds they do spin |
//! | `MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_` | 4 GiB, 8 GiB | glibc gives every large tensor back to the system and takes the next one page by page: elementwise passes over fresh tensors take up to three times as long |
//! | `GLIBC_TUNABLES` | `glibc.malloc.hugetlb=1` | ... and memory that is new comes in pages of 2 MB where the system grants them on request: a diagonal Fisher pass took 12 % less time and a sixth less memory |

/// Starts this program again with these settings, those that the user has chosen excepted. Returns in the new program, or
/// where nothing is to be set.
#[cfg(unix)]
pub fn restart_tuned() {
    use std::os::unix::process::CommandExt;
    const SETTINGS: [(&str, &str); 5] = [
        ("OMP_WAIT_POLICY", "PASSIVE"),
        ("GOMP_SPINCOUNT", "10000"),
        ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
        ("MALLOC_TRIM_THRESHOLD_", "8589934592"),
        ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    ];
    let missing = || SETTINGS.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    if missing().next().is_none() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let error = std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .envs(missing().copied())
            .exec();
        tracing::debug!(%error, "libtorch runs with its own settings");
    }
}

/// Elsewhere the libraries' own settings stay.
#[cfg(not(unix))]
pub fn restart_tuned() {}
