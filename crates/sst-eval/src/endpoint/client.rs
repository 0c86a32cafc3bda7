//! One HTTP request and its reply, repeated while the failure is a passing one.

use super::backoff::{Backoff, retry_after};
use super::wire::Reply;
use super::{EndpointConfig, EndpointError};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, RequestBuilder};

/// A reply longer than this is none of ours.
const LONGEST_REPLY: u64 = 64 << 20;
/// How much of a server's own words an error repeats.
const LONGEST_MESSAGE: usize = 300;

pub(super) struct Client {
    agent: Agent,
    url: String,
    key: Option<String>,
    retries: u32,
    pub(super) backoff: Backoff,
}

/// What one try came to.
enum Outcome {
    Reply(String),
    Failed(EndpointError),
    /// Worth another try, after this long if the server says so.
    Again(EndpointError, Option<Duration>),
}

impl Client {
    pub fn new(config: &EndpointConfig) -> Result<Self, EndpointError> {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs_f64(config.timeout)))
            .max_idle_connections(config.concurrency)
            .max_idle_connections_per_host(config.concurrency)
            .user_agent(concat!("sst/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: config.url.clone(),
            key: config.api_key_variable.as_deref().map(key).transpose()?,
            retries: config.retries,
            backoff: Backoff::new(config.seed),
        })
    }

    /// The reply to a body under `path`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Reply, EndpointError> {
        let url = self.at(path);
        let bytes = body.to_string();
        // The first 60 bits of the hash: enough to tell requests apart.
        let request = u64::from_str_radix(&sst_artefact::sha256_bytes(bytes.as_bytes())[..15], 16).unwrap_or(0);
        let call = || {
            let call = self.agent.post(&url).header("Content-Type", "application/json");
            self.authorised(call).send(&bytes)
        };
        let text = self.persist(&url, request, true, call)?;
        serde_json::from_str(&text)
            .map_err(|e| self.no_reply(path, format!("the reply is not the protocol's JSON ({e})")))
    }

    /// The names that `/models` lists, or `None` where there is no such list. A server that is still loading is awaited;
    /// one that is not there is told at once.
    pub fn models(&self) -> Result<Option<BTreeSet<String>>, EndpointError> {
        #[derive(serde::Deserialize)]
        struct Models {
            data: Vec<Model>,
        }
        #[derive(serde::Deserialize)]
        struct Model {
            id: String,
        }
        let url = self.at("models");
        match self.persist(&url, 0, false, || self.authorised(self.agent.get(&url)).call()) {
            Ok(text) => {
                let models: Option<Models> = serde_json::from_str(&text).ok();
                Ok(models.map(|m| m.data.into_iter().map(|model| model.id).collect()))
            }
            Err(EndpointError::Status {
                status: 404 | 405 | 501,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of the first reply that is none of a passing failure; broken connections count as passing if `reconnect`.
    fn persist(
        &self,
        url: &str,
        request: u64,
        reconnect: bool,
        call: impl Fn() -> Result<Response<Body>, ureq::Error>,
    ) -> Result<String, EndpointError> {
        let mut repetition = 0;
        loop {
            let (failure, asked) = match self.outcome(url, call(), repetition + 1) {
                Outcome::Reply(text) => return Ok(text),
                Outcome::Failed(error) => return Err(error),
                Outcome::Again(error, asked) => (error, asked),
            };
            let broken = matches!(failure, EndpointError::Connection { .. });
            if repetition == self.retries || (broken && !reconnect) {
                return Err(failure);
            }
            std::thread::sleep(self.backoff.wait(request, repetition, asked));
            repetition += 1;
        }
    }

    fn authorised<B>(&self, call: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => call.header("Authorization", format!("Bearer {key}")),
            None => call,
        }
    }

    /// The error of a reply under `path` in which something is missing.
    pub fn no_reply(&self, path: &str, problem: String) -> EndpointError {
        EndpointError::Reply {
            url: self.at(path),
            problem: self.without_key(&problem),
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.url)
    }

    fn outcome(&self, url: &str, response: Result<Response<Body>, ureq::Error>, attempts: u32) -> Outcome {
        let broken = |error: ureq::Error| {
            let passing = matches!(
                error,
                ureq::Error::Io(_)
                    | ureq::Error::Timeout(_)
                    | ureq::Error::ConnectionFailed
                    | ureq::Error::HostNotFound
            );
            let error = EndpointError::Connection {
                url: url.to_owned(),
                problem: self.without_key(&error.to_string()),
                attempts,
            };
            if passing {
                Outcome::Again(error, None)
            } else {
                Outcome::Failed(error)
            }
        };
        let response = match response {
            Ok(response) => response,
            Err(error) => return broken(error),
        };
        let (parts, body) = response.into_parts();
        let text = match body.into_with_config().limit(LONGEST_REPLY).read_to_string() {
            Ok(text) => text,
            Err(error) => return broken(error),
        };
        if parts.status.is_success() {
            return Outcome::Reply(text);
        }
        let error = EndpointError::Status {
            url: url.to_owned(),
            status: parts.status.as_u16(),
            message: self.without_key(&message(&text, parts.status)),
            advice: advice(parts.status),
        };
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = header("retry-after").and_then(|value| retry_after(value, header("date")));
        let passing = parts.status.is_server_error() && parts.status != StatusCode::NOT_IMPLEMENTED;
        if passing || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&parts.status) {
            Outcome::Again(error, asked)
        } else {
            Outcome::Failed(error)
        }
    }

    /// Some servers repeat the key in their complaint about it.
    fn without_key(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "[key]"),
            None => text.to_owned(),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

fn key(variable: &str) -> Result<String, EndpointError> {
    let fault = |problem| EndpointError::Key {
        variable: variable.to_owned(),
        problem,
    };
    match std::env::var(variable) {
        Ok(key) if !key.trim().is_empty() => Ok(key.trim().to_owned()),
        Ok(_) => Err(fault("empty")),
        Err(std::env::VarError::NotPresent) => Err(fault("not set")),
        Err(std::env::VarError::NotUnicode(_)) => Err(fault("not text")),
    }
}

/// The server's own words: each of the four servers puts them elsewhere.
fn message(body: &str, status: StatusCode) -> String {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let places = [
        &json["error"]["message"],
        &json["error"],
        &json["message"],
        &json["detail"],
    ];
    let words = match places.iter().find(|place| !place.is_null()) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None if body.trim().is_empty() => status.canonical_reason().unwrap_or("no message").to_owned(),
        None => body.to_owned(),
    };
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; name the environment variable of your key in `api_key_variable`",
        404 | 405 => "; give the URL up to and including /v1, and a model that the server has",
        429 => "; lower `concurrency` or raise `retries`",
        300..=399 => "; give the URL that it redirects to",
        500.. => "; the server's log says more",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_every_server_are_found() {
        let status = StatusCode::BAD_REQUEST;
        for (body, expected) in [
            (r#"{"error": {"message": "too\nlong", "code": 400}}"#, "too long"),
            (r#"{"error": "overloaded", "error_type": "overloaded"}"#, "overloaded"),
            (r#"{"object": "error", "message": "no such model"}"#, "no such model"),
            (
                r#"{"detail": [{"loc": ["body"], "msg": "field required"}]}"#,
                r#"[{"loc":["body"],"msg":"field required"}]"#,
            ),
            ("<html>gateway</html>", "<html>gateway</html>"),
            ("", "Bad Request"),
        ] {
            assert_eq!(message(body, status), expected);
        }
        assert!(message(&"ä".repeat(1000), status).chars().count() < 310);
    }
}
