//! Sequences that wait for their pass: as many as fit at a time, what they share just before them.

use crate::pack::{Fate, Segment};
use crate::prefix::{Sequence, Step, steps};
use std::collections::VecDeque;

/// Sequences in the order of their steps.
pub(crate) struct Queue<'a> {
    sequences: &'a [Sequence<'a>],
    steps: VecDeque<Step>,
    /// What becomes of the sequences themselves.
    fate: Fate,
}

/// What the next pass computes.
pub(crate) struct Due<'a> {
    pub segments: Vec<Segment<'a>>,
    pub leaves: Vec<Leaf>,
    /// Prefixes that nothing follows after the pass.
    pub closed: Vec<usize>,
}

/// A sequence that a pass completes.
pub(crate) struct Leaf {
    /// Its number.
    pub of: usize,
    /// Where its trunk's last token lies among the tokens of all segments.
    pub end: usize,
}

impl<'a> Queue<'a> {
    pub(crate) fn new(sequences: &'a [Sequence<'a>], fate: Fate) -> Self {
        Self {
            sequences,
            steps: steps(sequences).into(),
            fate,
        }
    }

    /// Takes at most `rows` sequences of at most `tokens` tokens together, prefixes included; where there is room for a
    /// sequence at all, one step even if it is longer.
    pub(crate) fn take(&mut self, rows: usize, tokens: usize) -> Due<'a> {
        let mut due = Due {
            segments: Vec::new(),
            leaves: Vec::new(),
            closed: Vec::new(),
        };
        let mut taken = 0;
        while let Some(step) = self.steps.front() {
            let segment = match step {
                Step::Close { node } => {
                    due.closed.push(*node);
                    self.steps.pop_front();
                    continue;
                }
                Step::Open {
                    node,
                    parent,
                    of,
                    tokens,
                } => Segment {
                    adapter: self.sequences[*of].adapter,
                    parent: *parent,
                    before: tokens.start,
                    trunk: &self.sequences[*of].tokens[tokens.clone()],
                    branches: &[],
                    fate: Fate::Prefix(*node),
                },
                Step::Leaf { of, parent, from } => Segment {
                    adapter: self.sequences[*of].adapter,
                    parent: *parent,
                    before: *from,
                    trunk: &self.sequences[*of].tokens[*from..],
                    branches: &self.sequences[*of].branches,
                    fate: self.fate,
                },
            };
            let fits = due.segments.is_empty() || taken + segment.len() <= tokens;
            if due.leaves.len() == rows || !fits {
                break;
            }
            if let Step::Leaf { of, .. } = *step {
                let end = taken + segment.trunk.len() - 1;
                due.leaves.push(Leaf { of, end });
            }
            taken += segment.len();
            due.segments.push(segment);
            self.steps.pop_front();
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(due: &Due) -> Vec<usize> {
        due.segments.iter().map(Segment::len).collect()
    }

    #[test]
    fn what_fits_is_taken_and_prefixes_outlive_their_last_sequence() {
        let shared: Vec<u32> = vec![7; 20];
        let texts: Vec<Vec<u32>> = (0..3)
            .map(|i| shared.iter().copied().chain([100 + i; 4]).collect())
            .collect();
        let branch = [1, 2, 3];
        let sequences: Vec<Sequence> = texts
            .iter()
            .map(|tokens| Sequence {
                adapter: 0,
                tokens,
                branches: vec![&branch],
            })
            .collect();
        let mut queue = Queue::new(&sequences, Fate::Dropped);
        let due = queue.take(2, 30);
        assert_eq!((lengths(&due), due.closed.len()), (vec![20, 7], 0));
        assert_eq!((due.leaves[0].of, due.leaves[0].end), (0, 23));
        assert!(queue.take(0, 30).segments.is_empty());
        let due = queue.take(2, 5);
        assert_eq!(lengths(&due), [7], "one step even if it is longer");
        assert!(due.segments[0].parent == Some(0) && due.segments[0].before == 20);
        let due = queue.take(2, 100);
        assert_eq!((lengths(&due), due.closed), (vec![7], vec![0]));
        assert!(queue.take(2, 100).segments.is_empty());
    }
}
