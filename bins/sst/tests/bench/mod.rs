//! A folder to run `sst` in, with a tiny random model and small made-up data, and what to read of what it leaves.
#![allow(dead_code)] // every test is a program of its own, and none needs all of this

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// With so many items to train on in each set.
    pub fn new(train: usize) -> Self {
        let bench = Self::empty();
        sst_model::write_tiny_model(&bench.path("model"), 0).unwrap();
        let split = sst_data::SplitSizes { train, eval: 8 };
        let sizes = sst_data::Sizes {
            repliqa: split,
            alpaca: split,
            jailbreak: split,
            mmlu_dev: 5,
            mmlu_test: 4,
            xstest: 4,
        };
        sst_data::synthesise(&bench.path("data"), 0, &sizes).unwrap();
        bench
    }

    /// Without a model and without data.
    pub fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `sst` inside the folder, where it finds no hub.
    pub fn sst(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sst"));
        command
            .current_dir(self.dir.path())
            .args(arguments.split_whitespace())
            .args(["--device", "cpu", "--threads", "1"])
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("HF_HUB_CACHE");
        command
    }

    pub fn succeed(&self, arguments: &str) -> String {
        let output = self.sst(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "sst {arguments}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// What a command that must fail with `code` prints from its one line of error on: after bad usage, how it is used.
    pub fn error(&self, arguments: &str, code: i32) -> String {
        let output = self.sst(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "sst {arguments}: {text}");
        let lines = text.lines().skip_while(|line| !line.starts_with("error"));
        let error: Vec<&str> = lines.collect();
        let errors = error.iter().filter(|line| line.starts_with("error")).count();
        assert_eq!(errors, 1, "sst {arguments}: {text}");
        error.join("\n")
    }

    /// Runs a command that must fail with `code` and one line on standard error that holds every one of `parts`.
    pub fn fail(&self, arguments: &str, code: i32, parts: &[&str]) {
        let line = self.error(arguments, code);
        for part in parts {
            assert!(line.contains(part), "sst {arguments}: no `{part}` in {line}");
        }
    }
}

pub type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every file below a folder by its path in it, but hidden ones and Slurm's logs; no journal may be left there.
pub fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            let journal = name.trim_start_matches('.').starts_with("journal");
            assert!(!journal, "{}", entry.display());
            if name.starts_with('.') || name == "slurm" {
                continue;
            }
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let relative = entry.strip_prefix(folder).unwrap().to_path_buf();
                found.insert(relative, read(&entry));
            }
        }
    }
    found
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
