//! Where things are: the root, the target folder, and the crates with what each depends on, as Cargo tells them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::Command;

/// Where set-up puts the demo model, in the root.
pub const DEMO_MODEL: &str = ".models/smollm2-135m-instruct";

/// The Cargo workspace that this program belongs to.
pub struct Workspace {
    /// The folder with the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Where Cargo builds (`CARGO_TARGET_DIR` and Cargo's own configuration count).
    pub target: PathBuf,
    /// Its crates, by name.
    pub members: Vec<Member>,
}

/// One crate of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    /// Names of all direct dependencies, those of tests and build scripts included; sorted, each once.
    pub dependencies: Vec<String>,
}

impl Workspace {
    /// Asks Cargo about the workspace this program was built from.
    pub fn find() -> Result<Self> {
        // Cargo sets the variable for `cargo run`, so a moved checkout is found where it is now.
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let text = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .folder(&own)
            .output()?;
        Self::from_metadata(&text)
    }

    fn from_metadata(text: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(text).context("`cargo metadata` did not print JSON")?;
        let path = |key: &str| text_of(&metadata, key).map(PathBuf::from);
        let mut members = list_of(&metadata, "packages")?
            .iter()
            .map(|package| {
                let mut dependencies = list_of(package, "dependencies")?
                    .iter()
                    .map(|dependency| text_of(dependency, "name"))
                    .collect::<Result<Vec<_>>>()?;
                dependencies.sort();
                dependencies.dedup();
                Ok(Member {
                    name: text_of(package, "name")?,
                    dependencies,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        members.sort_by(|a, b| a.name.cmp(&b.name));
        if members.is_empty() {
            bail!("`cargo metadata` lists no crate");
        }
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
            members,
        })
    }

    /// `cargo` in the root of the workspace.
    pub fn cargo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        Command::new("cargo").args(args).folder(&self.root)
    }

    /// `path` as a command in the root would name it: relative where it lies inside.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The model folder that the user names from where they stand, or else the demo model's.
    pub fn model(&self, named: Option<&Path>) -> Result<PathBuf> {
        named.map_or_else(|| Ok(self.root.join(DEMO_MODEL)), absolute)
    }

    /// The crates under `docs/examples`: downstream users, each a workspace of its own.
    ///
    /// # Errors
    /// When the folder is missing or holds no crate, so that they cannot vanish unnoticed.
    pub fn examples(&self) -> Result<Vec<PathBuf>> {
        let folder = self.root.join("docs/examples");
        let entries = std::fs::read_dir(&folder).with_context(|| format!("{} cannot be read", folder.display()))?;
        let mut manifests = Vec::new();
        for entry in entries {
            let manifest = entry
                .with_context(|| format!("{} cannot be read", folder.display()))?
                .path()
                .join("Cargo.toml");
            if manifest.is_file() {
                manifests.push(manifest);
            }
        }
        if manifests.is_empty() {
            bail!("{} holds no crate", folder.display());
        }
        manifests.sort();
        Ok(manifests)
    }
}

/// `path`, given from where the user stands, as it is named from anywhere.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))
}

fn text_of(value: &Value, key: &str) -> Result<String> {
    let text = value.get(key).and_then(Value::as_str);
    text.map(str::to_owned)
        .with_context(|| format!("`cargo metadata` gives no text for `{key}`"))
}

fn list_of<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    value
        .get(key)
        .and_then(Value::as_array)
        .with_context(|| format!("`cargo metadata` gives no list for `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_becomes_members_in_order() {
        let text = r#"{
            "packages": [
                {"name": "b", "dependencies": [
                    {"name": "serde", "kind": null}, {"name": "a", "kind": "dev"}, {"name": "serde", "kind": "build"}
                ]},
                {"name": "a", "dependencies": []}
            ],
            "workspace_root": "/somewhere", "target_directory": "/elsewhere/target"
        }"#;
        let workspace = Workspace::from_metadata(text).unwrap();
        let member = |name: &str, dependencies: &[&str]| Member {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|&d| d.to_owned()).collect(),
        };
        assert_eq!(workspace.members, [member("a", &[]), member("b", &["a", "serde"])]);
        assert_eq!(workspace.target, Path::new("/elsewhere/target"));
        assert_eq!(workspace.relative(Path::new("/somewhere/runs/x")), Path::new("runs/x"));
        assert_eq!(workspace.relative(Path::new("/other/x")), Path::new("/other/x"));
    }

    #[test]
    fn metadata_without_what_we_need_is_an_error() {
        for text in [
            "not json",
            "{}",
            r#"{"packages": [], "workspace_root": "/", "target_directory": "/"}"#,
        ] {
            assert!(Workspace::from_metadata(text).is_err(), "{text}");
        }
    }

    #[test]
    fn this_workspace_is_found() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.root.join("bins/xtask/Cargo.toml").is_file());
        assert!(workspace.members.iter().any(|member| member.name == "xtask"));
    }
}
