//! Set-up, tests, checks and benchmarks of the workspace.
fn main() {}
