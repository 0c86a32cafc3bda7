//! How a long step tells its caller where it is, without knowing about terminals.

use crate::Overall;

/// Receives the progress of one step after another.
pub trait Reporter {
    /// A step begins; `total` counts its units, 0 if unknown.
    fn start(&mut self, label: &str, total: usize);
    /// `done` units are done; `note` says how it goes (loss, speed).
    fn advance(&mut self, done: usize, total: usize, note: &str);
    /// The step is over; `summary` stays on the screen.
    fn finish(&mut self, summary: &str);
    /// Where a whole sweep is; nothing is shown where this is not implemented.
    fn overall(&mut self, _: &Overall) {}
}

/// Reports to nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn start(&mut self, _: &str, _: usize) {}
    fn advance(&mut self, _: usize, _: usize, _: &str) {}
    fn finish(&mut self, _: &str) {}
}
