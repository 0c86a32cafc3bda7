//! A Python with pip, which is how libtorch and the demo model are fetched.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::command::Command;
use crate::workspace::Workspace;

/// A Python that has pip: the user's own, or one in a private environment.
pub struct Pip {
    python: PathBuf,
    private: bool,
}

impl Pip {
    /// Looks for pip, and makes a private environment where `python3` has none.
    ///
    /// # Errors
    /// One line on what to install when there is no Python, or neither pip nor `ensurepip`.
    pub fn find(workspace: &Workspace) -> Result<Self> {
        if Command::new("python3").args(["--version"]).answer().is_none() {
            bail!("python3 was not found: install Python 3 with pip (Debian, Ubuntu: apt-get install python3-pip)");
        }
        if has_pip("python3") {
            return Ok(Self {
                python: "python3".into(),
                private: false,
            });
        }
        let environment = workspace.target.join("pip-environment");
        let python = environment.join("bin/python3");
        if !has_pip(&python) {
            let made = Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .args([&environment])
                .answer();
            if made.is_none() || !has_pip(&python) {
                bail!(
                    "python3 has no pip and cannot make an environment with it: install pip (Debian, Ubuntu: apt-get install python3-pip)"
                );
            }
            eprintln!(
                "python3 has no pip: using one of its own in {}",
                workspace.relative(&environment).display()
            );
        }
        Ok(Self { python, private: true })
    }

    /// `pip install` with `args`, in the root.
    pub fn install(&self, workspace: &Workspace) -> Command {
        Command::new(&self.python)
            .args(["-m", "pip", "install", "--no-compile", "--disable-pip-version-check"])
            .env("PIP_ROOT_USER_ACTION", "ignore")
            .folder(&workspace.root)
    }

    /// The folder of a `python3` that has pip, where the user's own has not.
    pub fn private_folder(&self) -> Option<&Path> {
        self.private.then(|| self.python.parent()).flatten()
    }
}

fn has_pip(python: impl Into<OsString>) -> bool {
    Command::new(python).args(["-m", "pip", "--version"]).answer().is_some()
}
