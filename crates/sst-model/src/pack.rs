//! One forward pass over whatever is due: the next token of every sequence under way, new sequences, shared prefixes.
//!
//! Linears do not ask which sequence a token belongs to, so all tokens lie in one row without padding and the weights are
//! read once. Attention alone takes them apart: the sequences under way together, every new segment by itself with the keys
//! and values of the prefix that it follows, which may have been computed in an earlier pass or in this one.

use crate::Error;
use crate::batch::Side;
use crate::cache::{Advance, KvCache};
use crate::decoder::attend;
use crate::mask::Mask;
use crate::model::LanguageModel;
use crate::runs::AdapterSet;
use tch::{Device, Tensor};

/// More tokens than this at once gain nothing on the CPU, and what they leave between two linears is out of its cache: of
/// 256 to 4096 the fastest.
const CPU_TOKENS: usize = 1024;

/// New tokens of one sequence.
pub(crate) struct Segment<'a> {
    /// Place among the adapters of [`Passes`].
    pub adapter: usize,
    /// The prefix that it follows.
    pub parent: Option<usize>,
    /// Tokens before it.
    pub before: usize,
    pub trunk: &'a [u32],
    /// Tokens after the trunk; one branch does not see the others.
    pub branches: &'a [&'a [u32]],
    pub fate: Fate,
}

/// What becomes of the keys and values of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing follows it.
    Dropped,
    /// It is the prefix of this number.
    Prefix(usize),
    /// It is answered: it takes the next slot.
    Slot,
}

impl Segment<'_> {
    /// Tokens of trunk and branches.
    pub(crate) fn len(&self) -> usize {
        self.trunk.len() + self.branches.iter().map(|b| b.len()).sum::<usize>()
    }
}

/// The passes of one call over requests under several adapters.
pub(crate) struct Passes<'m> {
    model: &'m LanguageModel,
    adapters: AdapterSet<'m>,
    cache: KvCache,
}

impl<'m> Passes<'m> {
    /// `adapters` by name, the base model where there is none; `slots` sequences at most are under way at once.
    ///
    /// # Errors
    /// [`Error::UnknownAdapter`].
    pub(crate) fn new(model: &'m LanguageModel, adapters: &[Option<&str>], slots: usize) -> Result<Self, Error> {
        let decoder = &model.decoder;
        Ok(Self {
            model,
            adapters: AdapterSet::new(model, adapters)?,
            cache: KvCache::new(decoder.config(), slots, (decoder.kind(), decoder.device())),
        })
    }

    /// Tokens that a pass may have at most.
    pub(crate) fn tokens(&self) -> usize {
        match self.model.device() {
            Device::Cpu => self.model.limits.tokens.min(CPU_TOKENS),
            _ => self.model.limits.tokens,
        }
    }

    /// Hidden states, before the final norm, of the tokens numbered `picked` in ascending order: [picked, d_model].
    ///
    /// First come the sequences under way, slot by slot, each with its next token and its adapter's place; then the segments.
    ///
    /// # Errors
    /// [`Error::Example`] for a token that the model does not have.
    pub(crate) fn forward(
        &mut self,
        live: &[(u32, usize)],
        segments: &[Segment],
        picked: &[i64],
    ) -> Result<Tensor, Error> {
        let model = self.model;
        let ids: Vec<u32> = live
            .iter()
            .map(|(token, _)| *token)
            .chain(
                segments
                    .iter()
                    .flat_map(|s| s.trunk.iter().chain(s.branches.iter().copied().flatten()).copied()),
            )
            .collect();
        let (ids, _) = model.pad(&[&ids], Side::Right)?;
        let of_tokens: Vec<usize> = live
            .iter()
            .map(|(_, adapter)| *adapter)
            .chain(segments.iter().flat_map(|s| std::iter::repeat_n(s.adapter, s.len())))
            .collect();
        let of_picked: Vec<usize> = picked.iter().map(|&i| of_tokens[i as usize]).collect();
        let live_picked = picked.iter().filter(|&&i| i < live.len() as i64).count();
        self.adapters.stack(model, &of_tokens[..live.len()]);
        let all = self.adapters.of(model, &of_tokens, live.len());
        let last = self.adapters.of(model, &of_picked, live_picked);
        let pack = Pack::new(model, &mut self.cache, live.len(), segments);
        Ok(model.decoder.packed(&ids, pack, [&all, &last], &model.long(picked)))
    }

    /// The sequence in `slot` is answered; the one in the last slot moves there.
    pub(crate) fn release(&mut self, slot: usize) {
        self.cache.release(slot);
    }

    /// Nothing more follows the prefix `node`.
    pub(crate) fn close(&mut self, node: usize) {
        self.cache.forget(node);
    }
}

/// What the tokens of one pass see.
pub(crate) struct Pack<'a> {
    cache: &'a mut KvCache,
    live: Option<Live>,
    segments: Vec<Placed>,
    positions: Tensor, // [1, tokens], int64
}

/// The sequences under way, which come first.
struct Live {
    count: i64,
    to: Advance,
    mask: Mask,
}

struct Placed {
    len: i64,
    parent: Option<usize>,
    keep: Option<usize>,
    slot: Option<usize>,
    mask: Mask,
}

impl<'a> Pack<'a> {
    fn new(model: &LanguageModel, cache: &'a mut KvCache, live: usize, segments: &[Segment]) -> Self {
        let window = model.decoder.config().sliding_window;
        let on = (model.decoder.kind(), model.decoder.device());
        let segments: Vec<Placed> = segments
            .iter()
            .map(|segment| {
                let prefix = segment.before as i64;
                let trunk = segment.trunk.len() as i64;
                let branches: Vec<i64> = segment.branches.iter().map(|b| b.len() as i64).collect();
                Placed {
                    len: segment.len() as i64,
                    parent: segment.parent,
                    keep: match segment.fate {
                        Fate::Prefix(node) => Some(node),
                        _ => None,
                    },
                    slot: (segment.fate == Fate::Slot).then(|| cache.take(prefix + trunk)),
                    mask: Mask::branching(prefix, trunk, &branches, window, on),
                }
            })
            .collect();
        let live = (live > 0).then(|| Live {
            count: live as i64,
            to: cache.advance(live),
            mask: Mask::last(&cache.lengths()[..live], window, on),
        });
        let positions: Vec<Tensor> = live
            .iter()
            .map(|live| live.mask.positions().tr())
            .chain(segments.iter().map(|s| s.mask.positions().shallow_clone()))
            .collect();
        Self {
            cache,
            live,
            segments,
            positions: Tensor::cat(&positions, 1),
        }
    }

    /// Positions of all tokens, int64 [1, tokens].
    pub(crate) fn positions(&self) -> &Tensor {
        &self.positions
    }

    /// Attention in layer number `layer`, [1, tokens, heads, head_dim], from q of that shape and k, v
    /// [1, tokens, kv_heads, head_dim], which are stored.
    pub(crate) fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let mut mixed = Vec::with_capacity(1 + self.segments.len());
        let mut from = 0;
        if let Some(Live { count, to, mask }) = &self.live {
            let [q, k, v] = [q, k, v].map(|t| t.narrow(1, 0, *count).transpose(0, 1));
            let (k, v) = self.cache.append(layer, to, &k, &v);
            mixed.push(attend(&q, &k, &v, mask).transpose(0, 1));
            from = *count;
        }
        for segment in &self.segments {
            let [q, mut k, mut v] = [q, k, v].map(|t| t.narrow(1, from, segment.len));
            if let Some(prefix) = segment.parent.and_then(|node| self.cache.prefix(layer, node)) {
                k = Tensor::cat(&[&prefix.k, &k], 1);
                v = Tensor::cat(&[&prefix.v, &v], 1);
            }
            if let Some(node) = segment.keep {
                self.cache.keep(node, &k, &v);
            }
            if let Some(slot) = segment.slot {
                self.cache.fill(layer, slot, &k, &v);
            }
            mixed.push(attend(&q, &k, &v, &segment.mask));
            from += segment.len;
        }
        Tensor::cat(&mixed, 1)
    }
}
