//! Where a server is and how to ask it: raw values, then checked ones.

use super::EndpointError;
use serde::{Deserialize, Serialize};

/// Keys of a request that come from the evaluation itself.
const OURS: [&str; 12] = [
    "model",
    "messages",
    "prompt",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "n",
    "echo",
    "logprobs",
    "stream",
    "best_of",
];

/// A server and how to ask it. Every key but `url` has a default.
///
/// | key | meaning | default |
/// | --- | --- | --- |
/// | `url` | where, up to and including `/v1` | |
/// | `model` | who answers requests without adapter | the only model served |
/// | `api_key_variable` | environment variable that holds the key | no key is sent |
/// | `concurrency` | requests under way at a time | 8 |
/// | `retries` | repetitions after 429, 5xx and broken connections | 6 |
/// | `timeout` | seconds until a request counts as broken | 600 |
/// | `scoring` | how continuations are weighed: `echo` or `next-token` | echo |
/// | `top_logprobs` | with `next-token`: log-probabilities asked for; letters may lie far down a small model's list | 100 |
/// | `seed` | key of the jitter between repetitions | 0 |
/// | `body` | more keys for every request: `stop`, `repetition_penalty`, `chat_template_kwargs` | none |
///
/// vLLM applies the sampling defaults of a model's `generation_config.json`, a repetition penalty included, even at
/// temperature 0; `body` overrides them.
///
/// ```
/// use sst_eval::EndpointConfig;
/// let config: EndpointConfig = serde_json::from_str(r#"{"url": "http://localhost:8000/v1", "concurrency": 32}"#).unwrap();
/// assert_eq!(config.retries, 6);
/// assert!(config.check().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Where, up to and including `/v1`.
    pub url: String,
    /// Who answers requests without adapter.
    pub model: Option<String>,
    /// Environment variable that holds the key; the key itself is written nowhere.
    pub api_key_variable: Option<String>,
    /// Requests under way at a time.
    pub concurrency: usize,
    /// Repetitions of a request that failed for a passing reason.
    pub retries: u32,
    /// Seconds until a request counts as broken.
    pub timeout: f64,
    /// How continuations are weighed.
    pub scoring: EndpointScoring,
    /// Log-probabilities of the next token to ask for.
    pub top_logprobs: usize,
    /// Key of the jitter between repetitions.
    pub seed: u64,
    /// More keys for every request.
    pub body: serde_json::Map<String, serde_json::Value>,
}

/// How a server is made to weigh continuations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointScoring {
    /// It repeats prompt and continuation with the log-probability of every token: vLLM, llama-cpp-python.
    #[default]
    Echo,
    /// It lists the likeliest next tokens, and every continuation must be among them: llama.cpp's server, for letters.
    NextToken,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            model: None,
            api_key_variable: None,
            concurrency: 8,
            retries: 6,
            timeout: 600.0,
            scoring: EndpointScoring::Echo,
            top_logprobs: 100,
            seed: 0,
            body: serde_json::Map::new(),
        }
    }
}

/// A configuration whose values are all in range, without a slash at the end of its URL.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedEndpointConfig(EndpointConfig);

impl EndpointConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`EndpointError::Setting`] naming the first key at fault.
    pub fn check(&self) -> Result<CheckedEndpointConfig, EndpointError> {
        let fault = |key, problem: String| Err(EndpointError::Setting { key, problem });
        let url = self.url.trim_end_matches('/');
        let Some((_, place)) = url.split_once("://").filter(|(s, _)| ["http", "https"].contains(s)) else {
            return fault("url", format!("is `{url}`, expected http://HOST:PORT/v1"));
        };
        if place.contains('@') {
            return fault(
                "url",
                "holds a user name: name a variable with `api_key_variable` instead".to_owned(),
            );
        }
        for (key, value) in [("concurrency", self.concurrency), ("top_logprobs", self.top_logprobs)] {
            if value == 0 {
                return fault(key, "is 0, expected at least 1".to_owned());
            }
        }
        if !(self.timeout > 0.0 && self.timeout <= 1e6) {
            return fault("timeout", format!("is {}, expected seconds above 0", self.timeout));
        }
        if let Some(key) = self.body.keys().find(|key| OURS.contains(&key.as_str())) {
            return fault("body", format!("sets `{key}`, which the evaluation sets itself"));
        }
        Ok(CheckedEndpointConfig(Self {
            url: url.to_owned(),
            ..self.clone()
        }))
    }
}

impl CheckedEndpointConfig {
    /// The values.
    pub fn get(&self) -> &EndpointConfig {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_key() {
        let base = || EndpointConfig {
            url: "http://localhost:8000/v1/".to_owned(),
            ..EndpointConfig::default()
        };
        assert_eq!(base().check().unwrap().get().url, "http://localhost:8000/v1");
        let with = |change: fn(&mut EndpointConfig)| {
            let mut config = base();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        for (message, expected) in [
            (
                with(|c| c.url = "localhost:8000".to_owned()),
                "`url` is `localhost:8000`",
            ),
            (
                with(|c| c.url = "http://me:secret@host/v1".to_owned()),
                "api_key_variable",
            ),
            (with(|c| c.concurrency = 0), "`concurrency` is 0"),
            (with(|c| c.timeout = f64::NAN), "`timeout` is NaN"),
            (
                with(|c| drop(c.body.insert("seed".to_owned(), 1.into()))),
                "sets `seed`",
            ),
        ] {
            assert!(message.contains(expected), "{message} lacks {expected}");
        }
        assert!(!with(|c| c.url = "http://me:secret@host/v1".to_owned()).contains("secret"));
    }
}
