//! OpenMP threads that wait by spinning take the processor from whoever else runs: beside one busy process libtorch slows
//! tenfold. The runtime reads its policy once, before `main`, so the only way to choose it is to start again.

/// Starts this program again with `OMP_WAIT_POLICY=PASSIVE`, unless the user has chosen a policy.
#[cfg(unix)]
pub fn passive() {
    use std::os::unix::process::CommandExt;
    const POLICY: &str = "OMP_WAIT_POLICY";
    if std::env::var_os(POLICY).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let error = std::process::Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(POLICY, "PASSIVE")
            .exec();
        tracing::debug!(%error, "threads wait actively");
    }
}

/// Elsewhere the runtime's own policy stays.
#[cfg(not(unix))]
pub fn passive() {}
