//! Progress on standard error: a bar per step on a terminal, now and then a line elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use sst_experiment::Reporter;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines of one step where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows the current step.
#[derive(Default)]
pub struct Bars {
    current: Option<Step>,
}

struct Step {
    bar: ProgressBar,
    label: String,
    since: Instant,
    last_line: Instant,
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
        let now = Instant::now();
        self.current = Some(Step {
            bar,
            label: label.to_owned(),
            since: now,
            last_line: now,
        });
    }

    fn advance(&mut self, done: usize, total: usize, note: &str) {
        let Some(step) = &mut self.current else { return };
        step.bar.set_length(total as u64);
        step.bar.set_position(done as u64);
        step.bar.set_prefix(note.to_owned());
        if step.last_line.elapsed() > LINE_EVERY && !std::io::stderr().is_terminal() {
            step.last_line = Instant::now();
            eprintln!("{}: {done}/{total} {note}", step.label);
        }
    }

    fn finish(&mut self, summary: &str) {
        if let Some(step) = self.current.take() {
            step.bar.finish_and_clear();
            eprintln!(
                "{}: {summary} ({:.0} s)",
                step.label,
                step.since.elapsed().as_secs_f64()
            );
        }
    }
}
