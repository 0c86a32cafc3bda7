//! Any server that speaks OpenAI's HTTP protocol, as a [`Generator`]: vLLM, llama.cpp's server, llama-cpp-python, TGI.
//!
//! Chats go to `/chat/completions`, where the server renders its own template; raw text goes to `/completions`. Greedy is
//! temperature 0. With sampling, each request carries a seed of its own, drawn from the configured one and its prompt, so
//! that neither the order of the answers nor their number changes them. An adapter is the name of a served model, as
//! vLLM names its LoRA adapters.
//!
//! Servers of one model often answer to any model name. A name is therefore looked up in the server's own list
//! (`/models`) before the first request: no adapter is measured that the server does not have.

mod backoff;
mod client;
mod config;
mod error;
mod judge;
mod pool;
mod score;
mod wire;

pub use config::{CheckedEndpointConfig, EndpointConfig, EndpointScoring};
pub use error::EndpointError;
pub use judge::{ENDPOINT_JUDGE_PROMPT, EndpointJudge};

use crate::{ContinuationScore, GenerateRequest, Generated, Generator, GeneratorError, Sampling, ScoreRequest};
use client::Client;
use sst_data::Prompt;
use std::collections::BTreeSet;

/// A connected server.
///
/// ```no_run
/// use sst_eval::{Endpoint, EndpointConfig, GenerateRequest, Generator, Sampling};
/// let config = EndpointConfig { url: "http://localhost:8000/v1".to_owned(), ..EndpointConfig::default() };
/// let mut endpoint = Endpoint::connect(&config.check()?)?;
/// let request = GenerateRequest { adapter: None, prompt: sst_data::Prompt::user("Hello"), max_new_tokens: 20 };
/// let answers = endpoint.generate(&[request], &Sampling::Greedy, &mut |_| {}).unwrap();
/// println!("{}", answers[0].text);
/// # Ok::<(), sst_eval::EndpointError>(())
/// ```
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    client: Client,
    model: String,
    /// What `/models` lists; `None` where the server has no such list.
    served: Option<BTreeSet<String>>,
    /// Whether its echoed log-probabilities were found to be those that it generates with.
    trusted_echo: bool,
}

impl Endpoint {
    /// Asks the server for its models, and settles on the one that answers requests without adapter: the configured
    /// one, or the only one.
    ///
    /// # Errors
    /// [`EndpointError::Connection`] at once when nobody answers, [`EndpointError::Model`] when the configured model is not
    /// there or there are several to choose from, [`EndpointError::Key`] when the key's variable is not set.
    pub fn connect(config: &CheckedEndpointConfig) -> Result<Self, EndpointError> {
        let config = config.get().clone();
        let client = Client::new(&config)?;
        let served = client.models()?;
        let fault = |problem: String| EndpointError::Model {
            url: config.url.clone(),
            problem,
        };
        let model = match (&config.model, &served) {
            (Some(model), _) => model.clone(),
            (None, Some(served)) if served.len() == 1 => served.iter().cloned().collect(),
            (None, Some(served)) => {
                let names: Vec<&str> = served.iter().map(String::as_str).collect();
                return Err(fault(format!("serves {}: name one of them", names.join(", "))));
            }
            (None, None) => return Err(fault("has no list of models: name the model".to_owned())),
        };
        let endpoint = Self {
            client,
            model,
            served,
            trusted_echo: false,
            config,
        };
        endpoint.served_name(None)?;
        Ok(endpoint)
    }

    /// The model that answers requests without adapter.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// All that decides its answers, for a manifest or a journal: where, which model, how it weighs, what goes into every
    /// request. Nothing of the key.
    pub fn identity(&self) -> serde_json::Value {
        let EndpointConfig { url, scoring, body, .. } = &self.config;
        serde_json::json!({ "url": url, "model": self.model, "scoring": scoring, "body": body })
    }

    /// The served model behind an adapter's name.
    fn served_name<'a>(&'a self, adapter: Option<&'a str>) -> Result<&'a str, EndpointError> {
        let name = adapter.unwrap_or(&self.model);
        match &self.served {
            Some(served) if !served.contains(name) => {
                let names: Vec<&str> = served.iter().map(String::as_str).collect();
                Err(EndpointError::Model {
                    url: self.config.url.clone(),
                    problem: format!("does not serve `{name}`; it serves {}", names.join(", ")),
                })
            }
            _ => Ok(name),
        }
    }

    fn answer(&self, request: &GenerateRequest, sampling: &Sampling) -> Result<Generated, EndpointError> {
        let model = self.served_name(request.adapter.as_deref())?;
        let (path, question) = match &request.prompt {
            Prompt::Chat(messages) => ("chat/completions", ("messages", serde_json::json!(messages))),
            Prompt::Text(text) => ("completions", ("prompt", serde_json::json!(text))),
        };
        let mut body = wire::body(&self.config, model, question, request.max_new_tokens);
        wire::sampling(&mut body, sampling, &request.prompt);
        let reply = self.client.post(path, &body)?;
        reply.generated().map_err(|problem| self.client.no_reply(path, problem))
    }
}

impl Generator for Endpoint {
    fn generate(
        &mut self,
        requests: &[GenerateRequest],
        sampling: &Sampling,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Generated>, GeneratorError> {
        let this = &*self;
        let answer = |request: &GenerateRequest| this.answer(request, sampling);
        pool::in_order(requests, this.config.concurrency, answer, progress).map_err(|e| GeneratorError(Box::new(e)))
    }

    fn score(
        &mut self,
        requests: &[ScoreRequest],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<Vec<ContinuationScore>>, GeneratorError> {
        self.weigh(requests, progress).map_err(|e| GeneratorError(Box::new(e)))
    }
}

#[cfg(test)]
mod made_up;
#[cfg(test)]
mod tests;
