//! The bodies that go over the wire: what is sent, and what of a reply counts.

use super::EndpointConfig;
use crate::{Finish, Generated, Sampling};
use serde::Deserialize;
use serde_json::{Value, json};
use sst_data::Prompt;
use std::collections::BTreeMap;

/// A request for at most `max_tokens` tokens after `question`, a key and its value.
pub(super) fn body(config: &EndpointConfig, model: &str, question: (&str, Value), max_tokens: usize) -> Value {
    let mut body = Value::Object(config.body.clone());
    body["model"] = json!(model);
    body[question.0] = question.1;
    body["max_tokens"] = json!(max_tokens);
    body["temperature"] = json!(0);
    body
}

/// Sets how tokens are chosen.
pub(super) fn sampling(body: &mut Value, sampling: &Sampling, prompt: &Prompt) {
    if let Sampling::Sample {
        temperature,
        top_p,
        seed,
    } = sampling
    {
        body["temperature"] = json!(temperature);
        body["top_p"] = json!(top_p);
        body["seed"] = json!(request_seed(*seed, prompt));
    }
}

/// The seed of one request's draws. 31 bits: llama.cpp's seeds have 32, and the largest means "none".
fn request_seed(seed: u64, prompt: &Prompt) -> u32 {
    let hash = sst_artefact::sha256_bytes(json!([seed, prompt]).to_string().as_bytes());
    u32::from_str_radix(&hash[..8], 16).unwrap_or(0) >> 1
}

/// What a server answers, as far as it matters; other keys are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Reply {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    text: Option<String>,
    message: Option<Message>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Usage {
    pub prompt_tokens: Option<usize>,
    pub completion_tokens: Option<usize>,
}

/// Log-probabilities, in the form of completions or, as llama.cpp's server gives them everywhere, in that of chats.
#[derive(Debug, Deserialize)]
struct Logprobs {
    token_logprobs: Option<Vec<Option<f64>>>,
    top_logprobs: Option<Vec<Option<BTreeMap<String, f64>>>>,
    content: Option<Vec<Content>>,
}

#[derive(Debug, Deserialize)]
struct Content {
    #[serde(default)]
    top_logprobs: Vec<Candidate>,
}

#[derive(Debug, Deserialize)]
struct Candidate {
    token: String,
    logprob: f64,
}

impl Reply {
    fn choice(&self) -> Result<&Choice, String> {
        self.choices
            .first()
            .ok_or_else(|| "the reply has no choices".to_owned())
    }

    pub fn usage(&self) -> Usage {
        self.usage.unwrap_or_default()
    }

    /// The answer.
    pub fn generated(&self) -> Result<Generated, String> {
        let choice = self.choice()?;
        let finish = match choice.finish_reason.as_deref() {
            Some("stop" | "eos" | "eos_token" | "stop_sequence") => Finish::Stop,
            Some("length") => Finish::Length,
            other => {
                let reason = other.unwrap_or("null");
                return Err(format!(
                    "finish_reason is `{reason}`: this is no answer that the model ended or we cut"
                ));
            }
        };
        let text = match (&choice.message, &choice.text) {
            (Some(message), _) => message.content.clone(),
            (None, Some(text)) => Some(text.clone()),
            (None, None) => return Err("the reply has neither a message nor a text".to_owned()),
        };
        Ok(Generated {
            // A model that ends at once has nothing to say, which some servers spell `null`.
            text: text.unwrap_or_default(),
            tokens: self.usage().completion_tokens.unwrap_or(0),
            finish,
        })
    }

    /// The log-probability of every token, the prompt's too if they were echoed; `None` where there is nothing before it.
    pub fn token_logprobs(&self) -> Option<&[Option<f64>]> {
        self.choice().ok()?.logprobs.as_ref()?.token_logprobs.as_deref()
    }

    /// The likeliest tokens at the last place, with their log-probabilities.
    pub fn candidates(&self) -> BTreeMap<String, f64> {
        let Some(logprobs) = self.choice().ok().and_then(|choice| choice.logprobs.as_ref()) else {
            return BTreeMap::new();
        };
        if let Some(content) = logprobs.content.as_ref().and_then(|content| content.last()) {
            return content
                .top_logprobs
                .iter()
                .map(|c| (c.token.clone(), c.logprob))
                .collect();
        }
        let tops = logprobs.top_logprobs.as_deref().unwrap_or_default();
        tops.last().cloned().flatten().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(value: Value) -> Reply {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_answer_is_read_from_both_forms() {
        let chat = reply(json!({
            "object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Yes"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 2}
        }));
        let expected = Generated {
            text: "Yes".to_owned(),
            tokens: 2,
            finish: Finish::Stop,
        };
        assert_eq!(chat.generated(), Ok(expected));
        let text = reply(json!({"choices": [{"text": "Yes", "finish_reason": "length", "logprobs": null}]}));
        let expected = Generated {
            text: "Yes".to_owned(),
            tokens: 0,
            finish: Finish::Length,
        };
        assert_eq!(text.generated(), Ok(expected));
        let silent = reply(json!({"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}));
        assert_eq!(silent.generated().unwrap().text, "");
    }

    #[test]
    fn what_is_no_answer_is_refused_by_name() {
        let filtered = reply(json!({"choices": [{"text": "", "finish_reason": "content_filter"}]}));
        assert!(filtered.generated().unwrap_err().contains("content_filter"));
        assert!(reply(json!({"choices": []})).generated().is_err());
        assert!(
            reply(json!({"choices": [{"finish_reason": "stop"}]}))
                .generated()
                .is_err()
        );
    }

    #[test]
    fn candidates_are_read_from_both_forms() {
        let expected = BTreeMap::from([(" A".to_owned(), -0.5), (" B".to_owned(), -1.5)]);
        let plain = json!({"token_logprobs": [-0.5], "top_logprobs": [{" A": -0.5, " B": -1.5}]});
        let chat = json!({"content": [{"token": " A", "logprob": -0.5, "top_logprobs":
            [{"id": 1, "token": " A", "logprob": -0.5}, {"id": 2, "token": " B", "logprob": -1.5}]}]});
        for logprobs in [plain, chat] {
            let reply = reply(json!({"choices": [{"text": " A", "finish_reason": "length", "logprobs": logprobs}]}));
            assert_eq!(reply.candidates(), expected);
        }
    }

    #[test]
    fn seeds_differ_by_prompt_and_are_31_bits() {
        let seeds: Vec<u32> = (0..100)
            .map(|i| request_seed(3, &Prompt::user(format!("{i}"))))
            .collect();
        assert!(seeds.iter().all(|&s| s < 1 << 31));
        assert_ne!(seeds[0], seeds[1]);
        assert_ne!(seeds[0], request_seed(4, &Prompt::user("0")));
    }
}
