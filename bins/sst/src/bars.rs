//! Progress on standard error: a bar per step and a line for the whole on a terminal, now and then a line elsewhere.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sst_experiment::{Overall, Reporter};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines of one step where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows the current step, and below it where the whole is.
#[derive(Default)]
pub struct Bars {
    area: MultiProgress,
    current: Option<Step>,
    whole: Option<(ProgressBar, Overall)>,
}

struct Step {
    bar: ProgressBar,
    label: String,
    since: Instant,
    last_line: Instant,
}

impl Reporter for Bars {
    fn start(&mut self, label: &str, total: usize) {
        let bar = self.area.insert(0, ProgressBar::new(total as u64));
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
            let seconds = step.since.elapsed().as_secs_f64();
            self.area
                .suspend(|| eprintln!("{}: {summary} ({seconds:.0} s)", step.label));
        }
    }

    fn overall(&mut self, overall: &Overall) {
        let before = self.whole.take();
        if !std::io::stderr().is_terminal() && before.as_ref().is_none_or(|(_, before)| before.done != overall.done) {
            eprintln!("sweep: {overall}");
        }
        let bar = before.map_or_else(|| self.area.add(line()), |(bar, _)| bar);
        bar.set_message(format!("sweep: {overall}"));
        self.whole = Some((bar, overall.clone()));
    }
}

/// A bar that is text alone.
fn line() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    bar
}
