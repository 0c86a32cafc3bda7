//! Our side of a benchmark: a target of Cargo's that is built once and then run by itself, since run through Cargo it
//! would be measured with Cargo beside it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::workspace::Workspace;

/// Builds the benchmark `name` of the crates that `selection` names (`--workspace`, `--package x`) and says where it is.
pub fn build(workspace: &Workspace, selection: &[&str], name: &str) -> Result<PathBuf> {
    let cargo = || workspace.cargo(["bench", "--bench", name, "--no-run"]).args(selection);
    cargo().run()?;
    let messages = cargo().args(["--message-format", "json"]).output()?;
    executable(&messages, name).with_context(|| format!("Cargo built no benchmark named {name}"))
}

/// The program of the benchmark `name` in Cargo's messages, one JSON object a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name && message["target"]["kind"] == json!(["bench"]))
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_program_is_found_among_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"name":"fisher","kind":["lib"]},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"merge","kind":["bench"]},"executable":"/t/merge"}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"fisher","kind":["bench"]},"executable":"/t/fisher-1"}"#,
            "a line that is no JSON",
            r#"{"reason":"build-finished","success":true}"#,
        ];
        assert_eq!(executable(&messages.join("\n"), "fisher"), Some("/t/fisher-1".into()));
        assert_eq!(executable(&messages[..2].join("\n"), "fisher"), None);
    }
}
