//! One command of another program: shown as a user could type it, run, and judged by its exit status.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// How many of the last lines of a quiet command are shown when it fails.
const TAIL: usize = 15;

/// A command that is about to run.
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<Variable>,
    folder: Option<PathBuf>,
}

struct Variable {
    name: String,
    value: OsString,
    /// As a shell would set it.
    shown: String,
}

impl Command {
    /// `program` without arguments, in the folder where the user stands.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            folder: None,
        }
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: Into<OsString>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable for this command alone.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        let value = value.into();
        self.env.push(Variable {
            name: name.to_owned(),
            shown: format!("{name}={}", quoted(&value)),
            value,
        });
        self
    }

    /// Runs it in `folder`.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Puts `folder` before all others on its `PATH`.
    ///
    /// # Errors
    /// When the folder's name cannot stand there.
    pub fn path_first(mut self, folder: &Path) -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
        self.env.push(Variable {
            name: "PATH".to_owned(),
            value: std::env::join_paths(folders)
                .with_context(|| format!("{} cannot stand in PATH", folder.display()))?,
            shown: format!("PATH={}:\"$PATH\"", quoted(folder.as_os_str())),
        });
        Ok(self)
    }

    /// The line to type in a shell for the same effect.
    pub fn line(&self) -> String {
        let env = self.env.iter().map(|variable| variable.shown.clone());
        let words = std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quoted(word));
        env.chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Prints the line, then runs it with its output passed through.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the message holds the line.
    pub fn run(&self) -> Result<()> {
        eprintln!("$ {}", self.line());
        let status = self.process().status().with_context(|| self.not_started())?;
        self.judge(status)
    }

    /// Runs it unseen, with `what` and the time so far on a terminal, and one line at each end elsewhere.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the last lines of its output are printed first.
    pub fn run_quietly(&self, what: &str) -> Result<()> {
        self.output_quietly(what).map(drop)
    }

    /// As [`Command::run_quietly`], and what it prints on standard output.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the last lines of its output are printed first.
    pub fn output_quietly(&self, what: &str) -> Result<String> {
        let started = Instant::now();
        let spinner = spinner(what);
        let output = self.output();
        spinner.finish_and_clear();
        let output = output?;
        eprintln!("{what}: done in {}", wall_time(started.elapsed()));
        Ok(output)
    }

    /// What it prints on standard output, or `None` when it cannot be started or does not succeed.
    pub fn answer(&self) -> Option<String> {
        let output = self.process().stdin(Stdio::null()).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What it prints on standard output.
    ///
    /// # Errors
    /// When it cannot be started or does not succeed; the last lines of its output are printed first.
    pub fn output(&self) -> Result<String> {
        let output = self
            .process()
            .stdin(Stdio::null())
            .output()
            .with_context(|| self.not_started())?;
        if !output.status.success() {
            eprintln!("{}", tail(&output));
        }
        self.judge(output.status)?;
        String::from_utf8(output.stdout).with_context(|| format!("`{}` did not print UTF-8", self.line()))
    }

    fn process(&self) -> std::process::Command {
        let program = Path::new(&self.program);
        let names_a_file = program.components().count() > 1;
        let mut process = match &self.folder {
            // Whose folder a relative program belongs to differs between systems: say it.
            Some(folder) if names_a_file => std::process::Command::new(folder.join(program)),
            _ => std::process::Command::new(program),
        };
        if let Some(folder) = &self.folder {
            process.current_dir(folder);
        }
        let variables = self.env.iter().map(|variable| (&variable.name, &variable.value));
        process.args(&self.args).envs(variables);
        process
    }

    fn not_started(&self) -> String {
        format!("`{}` could not be started", self.program.display())
    }

    fn judge(&self, status: ExitStatus) -> Result<()> {
        if !status.success() {
            bail!("`{}` failed ({status})", self.line());
        }
        Ok(())
    }
}

/// A duration for people: `7.3 s`, `4 min 12 s`.
pub fn wall_time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    format!("{} min {} s", whole / 60, whole % 60)
}

/// Something that moves on a terminal; elsewhere, and in continuous integration, one plain line.
fn spinner(what: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() || std::env::var_os("CI").is_some() {
        eprintln!("{what} ...");
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {msg} [{elapsed_precise}]")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn tail(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_what_a_shell_would_run() {
        let command = Command::new("printf")
            .args(["%s|", "plain", "two words", "it's", "", "$HOME"])
            .env("FLAG", "a b");
        let by_shell = Command::new("sh").args(["-c", &command.line()]).output().unwrap();
        assert_eq!(by_shell, "plain|two words|it's||$HOME|");
        assert_eq!(by_shell, command.output().unwrap());
        assert!(command.line().starts_with("FLAG='a b' printf '%s|' plain 'two words'"));
    }

    #[test]
    fn a_failure_names_the_line_and_the_status() {
        let error = Command::new("sh").args(["-c", "exit 3"]).run().unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains('3'), "{error}");
        let error = Command::new("no-such-program-of-ours").run().unwrap_err().to_string();
        assert!(error.contains("no-such-program-of-ours"), "{error}");
        assert_eq!(Command::new("false").answer(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_relative_program_lies_in_the_commands_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/bin/sh", folder.path().join("sub/shell")).unwrap();
        let command = Command::new("sub/shell").args(["-c", "pwd"]).folder(folder.path());
        let answer = command.output().unwrap();
        assert_eq!(Path::new(answer.trim()), folder.path().canonicalize().unwrap());
        assert_eq!(command.line(), "sub/shell -c pwd");
    }

    #[test]
    fn a_variable_reaches_the_command_alone() {
        let command = Command::new("sh")
            .args(["-c", "printf %s \"$XTASK_PROBE\""])
            .env("XTASK_PROBE", "here");
        assert_eq!(command.output().unwrap(), "here");
        assert!(std::env::var_os("XTASK_PROBE").is_none());
    }

    #[test]
    fn a_folder_comes_first_on_the_path() {
        let command = Command::new("sh")
            .args(["-c", "printf %s \"$PATH\""])
            .path_first(Path::new("/first one"))
            .unwrap();
        let own = std::env::var("PATH").unwrap();
        assert_eq!(command.output().unwrap(), format!("/first one:{own}"));
        let by_shell = Command::new("sh").args(["-c", &command.line()]);
        assert_eq!(by_shell.output().unwrap(), command.output().unwrap());
        assert!(Command::new("sh").path_first(Path::new("/a:b")).is_err());
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let output = Command::new("seq").args(["1", "40"]).process().output().unwrap();
        let tail = tail(&output);
        assert_eq!(tail.lines().count(), TAIL);
        assert!(tail.ends_with("39\n40"));
    }

    #[test]
    fn wall_times_read_well() {
        assert_eq!(wall_time(Duration::from_millis(7340)), "7.3 s");
        assert_eq!(wall_time(Duration::from_secs_f64(59.97)), "1 min 0 s");
        assert_eq!(wall_time(Duration::from_secs(252)), "4 min 12 s");
    }
}
