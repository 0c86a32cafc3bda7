//! Benchmarks, judges, scores and statistics over a language model that others provide.
//!
//! A [`Generator`] answers prompts and weighs continuations; this crate asks, judges and counts, and needs no tensor
//! library for it. A [`Suite`] draws the items of its [`Benchmark`]s once and asks every model the same; an
//! [`Evaluation`] keeps each score with its confidence interval and every item behind it, so that [`compare`] can pair
//! models item by item. A [`Judge`] says whether an answer refuses and [`validity`] whether it is one at all;
//! [`rouge_l`] and [`overlap`] compare it with a reference. A [`Protocol`] is a preset of all that. A [`Journal`] keeps
//! answers over the death of their process; with the feature `endpoint`, an `Endpoint` is any server that speaks OpenAI's
//! protocol, as a generator or as a judge.

mod benchmark;
mod comparison;
#[cfg(feature = "endpoint")]
mod endpoint;
mod error;
mod evaluation;
mod generator;
mod item_split;
mod journal;
mod judge;
mod porter;
mod protocol;
mod rouge;
mod squad;
mod stats;
mod suite;
mod suite_config;
mod validity;

pub use benchmark::{BENCHMARKS, Benchmark, BenchmarkScore, ItemRecord, Metric, MmluScoring, SubjectScore};
pub use comparison::{
    CompareConfig, Comparison, CountComparison, CountPair, CountedSystem, Evaluated, Measure, NonInferiority, Outcome,
    Pair, SystemValue, compare, compare_counts,
};
#[cfg(feature = "endpoint")]
pub use endpoint::{
    CheckedEndpointConfig, ENDPOINT_JUDGE_PROMPT, Endpoint, EndpointConfig, EndpointError, EndpointJudge,
    EndpointScoring,
};
pub use error::Error;
pub use evaluation::Evaluation;
pub use generator::{
    ContinuationScore, Finish, GenerateRequest, Generated, Generator, GeneratorError, Sampling, ScoreRequest,
};
pub use item_split::{ItemSplit, UnknownSplit};
pub use journal::{Journal, JournalError};
pub use judge::{
    Agreement, Confusion, Judge, JudgeChoice, JudgeError, Judgements, KeywordJudge, RulesJudge, UnknownJudge, Verdict,
    is_refusal, judge_labelled,
};
pub use porter::stem;
pub use protocol::{PromptFormat, Protocol, UnknownProtocol};
pub use rouge::{rouge_l, rouge_tokens};
pub use squad::{TokenOverlap, overlap, squad_tokens};
pub use stats::{
    Bca, Count, Draws, Homogeneity, Interval, PairedCounts, PairedDifference, Part, ProportionDifference,
    detectable_mean_difference, detectable_paired_difference, detectable_proportion_difference, holm, homogeneity,
    mcnemar, mcnemar_mid_p, mean, mean_interval, newcombe_paired, paired_bootstrap, paired_ratio_bootstrap,
    two_proportions, wilson_interval,
};
pub use suite::Suite;
pub use suite_config::{AnswerLengths, CheckedSuiteConfig, ItemCounts, PerSet, SuiteConfig};
pub use validity::{Validity, validity};
