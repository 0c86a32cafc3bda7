//! Sequences that begin alike: which prefixes are worth computing once, and in what order to go through them.
//!
//! Sorted sequences that share a beginning lie side by side, and what a run of them shares is the least that two neighbours
//! in it share. Cutting every run where neighbours part, again and again, gives the tree of the shared prefixes.

use std::cmp::Reverse;
use std::ops::Range;

/// A shared prefix of fewer tokens is not worth its own attention.
const SHORTEST: usize = 16;

/// A sequence of tokens under one adapter; only sequences under the same one share keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sequence<'a> {
    pub adapter: usize,
    pub tokens: &'a [u32],
    /// Each follows the tokens and does not see the others.
    pub branches: Vec<&'a [u32]>,
}

/// What to do next; nodes are numbered from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// These tokens of sequence `of` follow those of `parent`, and others follow them.
    Open {
        node: usize,
        parent: Option<usize>,
        of: usize,
        tokens: Range<usize>,
    },
    /// The tokens of sequence `of` from `from` on, at least one, follow those of `parent`.
    Leaf {
        of: usize,
        parent: Option<usize>,
        from: usize,
    },
    /// Nothing more follows the tokens of `node`.
    Close { node: usize },
}

/// Every sequence as one leaf; adapter after adapter, and of one adapter the longest first where prefixes leave the choice.
pub(crate) fn steps(sequences: &[Sequence]) -> Vec<Step> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| (sequences[i].adapter, sequences[i].tokens));
    let shared = order
        .windows(2)
        .map(|pair| shared(&sequences[pair[0]], &sequences[pair[1]]))
        .collect();
    let mut tree = Tree {
        sequences,
        order,
        shared,
        nodes: 0,
        steps: Vec::new(),
    };
    tree.grow(0..sequences.len(), 0, None);
    tree.steps
}

/// Tokens that both begin with, at least one of either left out: it predicts what comes next.
fn shared(a: &Sequence, b: &Sequence) -> usize {
    if a.adapter != b.adapter {
        return 0;
    }
    let longest = a.tokens.len().min(b.tokens.len()).saturating_sub(1);
    let pairs = a.tokens.iter().zip(b.tokens);
    pairs.take(longest).take_while(|(x, y)| x == y).count()
}

struct Tree<'a> {
    sequences: &'a [Sequence<'a>],
    /// Sequences sorted by adapter and tokens.
    order: Vec<usize>,
    /// What the sequences at places i and i + 1 of the order share.
    shared: Vec<usize>,
    nodes: usize,
    steps: Vec<Step>,
}

impl Tree<'_> {
    /// The sequences at `places`, which all begin with the `from` tokens of `parent`.
    fn grow(&mut self, places: Range<usize>, from: usize, parent: Option<usize>) {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for place in places {
            match runs.last_mut() {
                Some(run) if self.shared[place - 1] >= from + SHORTEST => run.end += 1,
                _ => runs.push(place..place + 1),
            }
        }
        runs.sort_by_key(|run| {
            let longest = run.clone().map(|p| self.sequences[self.order[p]].tokens.len()).max();
            (self.sequences[self.order[run.start]].adapter, Reverse(longest))
        });
        for run in runs {
            let of = self.order[run.start];
            let Some(to) = self.shared[run.start..run.end - 1].iter().copied().min() else {
                self.steps.push(Step::Leaf { of, parent, from });
                continue;
            };
            let node = self.nodes;
            self.nodes += 1;
            self.steps.push(Step::Open {
                node,
                parent,
                of,
                tokens: from..to,
            });
            self.grow(run, to, Some(node));
            self.steps.push(Step::Close { node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Follows the steps and puts every sequence together again; returns the tokens computed.
    fn replay(sequences: &[Sequence], steps: &[Step]) -> usize {
        let mut open: BTreeMap<usize, (usize, Vec<u32>)> = BTreeMap::new();
        let mut seen = vec![0; sequences.len()];
        let mut computed = 0;
        for step in steps {
            let before = |parent: &Option<usize>, adapter: usize| {
                parent.map_or_else(Vec::new, |node| {
                    let (of, tokens) = &open[&node];
                    assert_eq!(*of, adapter, "a prefix of another adapter");
                    tokens.clone()
                })
            };
            match step {
                Step::Open {
                    node,
                    parent,
                    of,
                    tokens,
                } => {
                    let mut whole = before(parent, sequences[*of].adapter);
                    assert_eq!(whole.len(), tokens.start);
                    assert!(tokens.len() >= SHORTEST);
                    whole.extend(&sequences[*of].tokens[tokens.clone()]);
                    computed += tokens.len();
                    assert!(open.insert(*node, (sequences[*of].adapter, whole)).is_none());
                }
                Step::Leaf { of, parent, from } => {
                    let mut whole = before(parent, sequences[*of].adapter);
                    assert_eq!(whole.len(), *from);
                    let rest = &sequences[*of].tokens[*from..];
                    assert!(!rest.is_empty());
                    computed += rest.len();
                    whole.extend(rest);
                    assert_eq!(whole, sequences[*of].tokens);
                    seen[*of] += 1;
                }
                Step::Close { node } => _ = open.remove(node).unwrap(),
            }
        }
        assert!(open.is_empty() && seen.iter().all(|n| *n == 1), "{steps:?}");
        computed
    }

    fn sequence(adapter: usize, tokens: &[u32]) -> Sequence<'_> {
        Sequence {
            adapter,
            tokens,
            branches: Vec::new(),
        }
    }

    #[test]
    fn nested_prefixes_are_computed_once() {
        let text = |parts: &[(u32, usize)]| -> Vec<u32> {
            parts
                .iter()
                .flat_map(|&(token, n)| std::iter::repeat_n(token, n))
                .collect()
        };
        // A system prompt of 20, two documents of 30 and 40, two questions each; and one prompt that shares nothing.
        let texts = [
            text(&[(1, 20), (2, 30), (4, 5)]),
            text(&[(1, 20), (3, 40), (4, 6)]),
            text(&[(9, 50)]),
            text(&[(1, 20), (2, 30), (5, 7)]),
            text(&[(1, 20), (3, 40), (5, 8)]),
        ];
        let sequences: Vec<Sequence> = texts.iter().map(|t| sequence(0, t)).collect();
        let steps = steps(&sequences);
        assert_eq!(replay(&sequences, &steps), 20 + 30 + 40 + 5 + 6 + 7 + 8 + 50);
        let nodes = steps.iter().filter(|s| matches!(s, Step::Open { .. })).count();
        assert_eq!(nodes, 3);
        // The run that holds the longest sequence comes first, and in it the longer document.
        assert!(matches!(&steps[1], Step::Open { tokens, .. } if *tokens == (20..60)));
        assert!(matches!(steps.last(), Some(Step::Leaf { of: 2, .. })));
    }

    #[test]
    fn equal_sequences_keep_a_token_of_their_own() {
        let tokens: Vec<u32> = (0..40).collect();
        let sequences = [sequence(0, &tokens), sequence(0, &tokens), sequence(0, &tokens[..30])];
        assert_eq!(replay(&sequences, &steps(&sequences)), 29 + 1 + 11 + 11);
    }

    #[test]
    fn adapters_share_nothing_and_come_one_after_the_other() {
        let tokens: Vec<u32> = (0..40).collect();
        let sequences = [sequence(1, &tokens), sequence(0, &tokens), sequence(1, &tokens[..20])];
        let steps = steps(&sequences);
        assert_eq!(replay(&sequences, &steps), 40 + 19 + 21 + 1);
        assert_eq!(
            steps[0],
            Step::Leaf {
                of: 1,
                parent: None,
                from: 0
            }
        );
    }

    #[test]
    fn short_prefixes_and_no_sequences_need_no_node() {
        let tokens: Vec<u32> = (0..SHORTEST as u32).collect();
        let sequences = [sequence(0, &tokens), sequence(0, &tokens)];
        assert_eq!(replay(&sequences, &steps(&sequences)), 2 * SHORTEST);
        assert_eq!(steps(&[]), []);
    }
}
