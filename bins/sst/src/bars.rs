//! Progress on standard error: a bar per step on a terminal, a line at its beginning and end elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use sst_experiment::Reporter;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// The bar of the current step.
#[derive(Default)]
pub struct Bars {
    current: Option<(ProgressBar, String, Instant)>,
}

impl Reporter for Bars {
    fn start(&mut self, label: &str, total: usize) {
        let bar = ProgressBar::new(total as u64);
        if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed} (left {eta}) {prefix}")
        {
            bar.set_style(style);
        }
        bar.set_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(500));
        if !std::io::stderr().is_terminal() {
            eprintln!("{label} ...");
        }
        self.current = Some((bar, label.to_owned(), Instant::now()));
    }

    fn advance(&mut self, done: usize, total: usize, note: &str) {
        if let Some((bar, ..)) = &self.current {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_prefix(note.to_owned());
        }
    }

    fn finish(&mut self, summary: &str) {
        if let Some((bar, label, since)) = self.current.take() {
            bar.finish_and_clear();
            eprintln!("{label}: {summary} ({:.0} s)", since.elapsed().as_secs_f64());
        }
    }
}
