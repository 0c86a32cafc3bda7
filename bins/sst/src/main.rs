//! Merge LoRA adapters so that safety and skill both survive, and prove it.
fn main() {}
