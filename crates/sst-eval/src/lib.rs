//! Benchmarks, judges, scores and statistics over a Generator.
