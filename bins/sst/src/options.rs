//! Options that every command takes.

use clap::{ArgAction, Args};
use sst_experiment::{LazyModel, ModelSource};
use sst_model::{BatchLimits, DeviceChoice, Precision};
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Options that every command takes.
#[derive(Args)]
pub struct Options {
    /// Where to compute: auto, cpu or cuda:N.
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "DEVICE",
        help_heading = "Global options"
    )]
    pub device: DeviceChoice,
    /// Precision of the base weights: f32, bf16 or f16.
    #[arg(
        long,
        global = true,
        default_value = "f32",
        value_name = "DTYPE",
        help_heading = "Global options"
    )]
    pub dtype: Precision,
    /// Threads that compute at once; all cores if not given.
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    pub threads: Option<NonZeroUsize>,
    /// Rows of one forward pass at most.
    #[arg(long, global = true, default_value_t = BatchLimits::default().rows, value_name = "N", help_heading = "Global options")]
    pub batch_rows: usize,
    /// Tokens of one forward pass at most, padding included.
    #[arg(long, global = true, default_value_t = BatchLimits::default().tokens, value_name = "N", help_heading = "Global options")]
    pub batch_tokens: usize,
    /// Print the result as JSON on standard output, and no progress.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// More log lines on standard error than warnings (-v info, -vv debug, -vvv trace); RUST_LOG overrides it.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

impl Options {
    /// Warnings alone by default: more lines would tear progress bars and tables.
    pub fn start_logging(&self) {
        let level = ["warn", "info", "debug", "trace"][usize::from(self.verbose.min(3))];
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }

    /// Holds libtorch, and rayon where it computes, to the threads asked for; once, before anything else.
    pub fn set_threads(&self) -> anyhow::Result<()> {
        if let Some(threads) = self.threads {
            sst_model::set_threads(threads.get())?;
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads.get())
                .build_global()?;
        }
        Ok(())
    }

    /// The options that decide what is computed, where they are not the defaults, as arguments.
    pub fn arguments(&self) -> Vec<String> {
        let defaults = BatchLimits::default();
        let given = [
            (self.device != DeviceChoice::default()).then(|| ("--device", self.device.to_string())),
            (self.dtype != Precision::default()).then(|| ("--dtype", self.dtype.to_string())),
            self.threads.map(|threads| ("--threads", threads.to_string())),
            (self.batch_rows != defaults.rows).then(|| ("--batch-rows", self.batch_rows.to_string())),
            (self.batch_tokens != defaults.tokens).then(|| ("--batch-tokens", self.batch_tokens.to_string())),
        ];
        let words = given.into_iter().flatten();
        words.flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The base model in `folder`, loaded when first needed.
    pub fn base(&self, folder: PathBuf) -> anyhow::Result<LazyModel> {
        let limits = BatchLimits {
            rows: self.batch_rows,
            tokens: self.batch_tokens,
        }
        .check()?;
        Ok(LazyModel::new(ModelSource {
            folder,
            device: self.device,
            precision: self.dtype,
            limits,
        }))
    }

    /// Progress bars on a terminal, plain lines otherwise, nothing beside JSON.
    pub fn reporter(&self) -> Box<dyn sst_experiment::Reporter> {
        if self.json {
            Box::new(sst_experiment::Silent)
        } else {
            Box::new(crate::bars::Bars::default())
        }
    }

    /// Prints `value` as JSON if asked to, else `text`.
    pub fn print(&self, value: &impl serde::Serialize, text: &str) -> anyhow::Result<()> {
        let json;
        let shown = if self.json {
            json = serde_json::to_string_pretty(value)?;
            &json
        } else {
            text
        };
        match writeln!(std::io::stdout(), "{shown}") {
            // Who reads no further, as `head` does, has what they want.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}
