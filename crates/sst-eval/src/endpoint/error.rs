//! Errors of talking to a server: one line each, with the URL, what came back, and what to do.

/// A server could not be asked, or did not answer as its protocol says.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A setting is out of range.
    #[error("endpoint: `{key}` {problem}")]
    Setting {
        /// The key at fault.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The environment variable that should hold the key does not.
    #[error("endpoint: the environment variable {variable} that `api_key_variable` names is {problem}; export it")]
    Key {
        /// Its name.
        variable: String,
        /// `not set` or `not text`.
        problem: &'static str,
    },
    /// No connection, or none that lasted.
    #[error("{url}: {problem} (tried {attempts} times); is the server running, and is this its address?")]
    Connection {
        /// Where.
        url: String,
        /// What the network said.
        problem: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The server refused the request, or kept failing.
    #[error("{url}: HTTP {status}: {message}{advice}")]
    Status {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
        /// What to do, with its own separator; empty where the server's words say all.
        advice: &'static str,
    },
    /// The reply is not what the protocol says.
    #[error("{url}: {problem}")]
    Reply {
        /// Where.
        url: String,
        /// What is missing or strange, and what to do.
        problem: String,
    },
    /// The model asked for is not served, or none was chosen.
    #[error("{url} {problem}")]
    Model {
        /// Where.
        url: String,
        /// What is served.
        problem: String,
    },
    /// The server cannot weigh continuations in the way asked for.
    #[error("{url}: {problem}")]
    Scoring {
        /// Where.
        url: String,
        /// What it lacks, and what to do.
        problem: String,
    },
}
