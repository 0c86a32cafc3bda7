//! A Python with pip, which is how libtorch and the demo model are fetched.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

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
        let folder = workspace.target.join("pip-environment");
        let python = folder.join("bin/python3");
        if has_pip(&python) {
            return Ok(Self { python, private: true });
        }
        let pip = Self::environment(&folder).context("python3 has no pip of its own")?;
        eprintln!(
            "python3 has no pip: using one of its own in {}",
            workspace.relative(&folder).display()
        );
        Ok(pip)
    }

    /// A new environment with pip in `folder`, in place of whatever is there.
    ///
    /// # Errors
    /// One line on what to install where Python cannot make one.
    pub fn environment(folder: &Path) -> Result<Self> {
        let made = Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .args([folder])
            .answer();
        let python = folder.join("bin/python3");
        if made.is_none() || !has_pip(&python) {
            bail!(
                "python3 cannot make an environment with pip in {}: install pip and venv (Debian, Ubuntu: apt-get install python3-pip python3-venv)",
                folder.display()
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
