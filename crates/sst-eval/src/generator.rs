//! What a benchmark asks of a language model, and nothing more.

use serde::{Deserialize, Serialize};
use sst_data::Prompt;

/// A prompt to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateRequest {
    /// Which adapter answers; `None` is the base model.
    pub adapter: Option<String>,
    /// What is asked.
    pub prompt: Prompt,
    /// The answer ends after this many tokens at the latest.
    pub max_new_tokens: usize,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// The model ended it.
    Stop,
    /// It reached `max_new_tokens`.
    Length,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The answer's text, without special tokens.
    pub text: String,
    /// Tokens generated, the end token included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// A prompt and its possible continuations, to be weighed by their likelihood.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRequest {
    /// Which adapter weighs; `None` is the base model.
    pub adapter: Option<String>,
    /// What precedes each continuation.
    pub prompt: Prompt,
    /// The continuations, spaces included: `" A"`.
    pub continuations: Vec<String>,
}

/// The likelihood of one continuation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ContinuationScore {
    /// Sum over the continuation's tokens of the natural logarithm of their probability.
    pub log_likelihood: f64,
    /// Number of tokens in the continuation.
    pub tokens: usize,
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Sampling {
    /// The most probable token.
    #[default]
    Greedy,
    /// A draw from the smallest set of tokens that holds `top_p` of the probability.
    Sample {
        /// Divides the logits; above 0.
        temperature: f64,
        /// Probability kept, in (0, 1].
        top_p: f64,
        /// Key of the draws, together with the request's prompt: neither its place nor its batch changes an answer.
        seed: u64,
    },
}

/// A generator's own error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct GeneratorError(pub Box<dyn std::error::Error + Send + Sync>);

/// A language model with adapters, as a benchmark sees it.
///
/// Answers come in the order of the requests. `progress` gets the number of requests finished so far.
pub trait Generator {
    /// Answers each request.
    ///
    /// # Errors
    /// Whatever keeps the model from answering: an unknown adapter, a prompt too long, no memory.
    fn generate(
        &mut self,
        requests: &[GenerateRequest],
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, GeneratorError>;

    /// Weighs the continuations of each request, in their order.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    fn score(
        &mut self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError>;
}
