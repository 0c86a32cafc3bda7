//! A folder to run `sst` in, with a tiny random model and small made-up data.

use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

pub struct Bench {
    dir: TempDir,
}

impl Bench {
    /// With so many items to train on in each set.
    pub fn new(train: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        sst_model::write_tiny_model(&dir.path().join("model"), 0).unwrap();
        let split = sst_data::SplitSizes { train, eval: 8 };
        let sizes = sst_data::Sizes {
            repliqa: split,
            alpaca: split,
            jailbreak: split,
            mmlu_dev: 5,
            mmlu_test: 4,
            xstest: 4,
        };
        sst_data::synthesise(&dir.path().join("data"), 0, &sizes).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `sst` inside the folder.
    pub fn sst(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sst"));
        command
            .current_dir(self.dir.path())
            .args(arguments.split_whitespace())
            .args(["--device", "cpu", "--threads", "1"]);
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
}
