//! Which adapters change which tokens of one pass.

use crate::Error;
use crate::decoder::Bank;
use crate::lora::Lora;
use crate::model::LanguageModel;
use tch::Tensor;

/// The adapters of the tokens of one pass.
pub(crate) enum Adapters<'a> {
    /// All tokens pass through all of them, in this order.
    Stack(&'a [&'a Lora]),
    /// Every run of tokens passes through its own; tokens outside every run through none.
    Runs(Vec<Run<'a>>),
}

/// Neighbouring tokens of a pass and their adapters.
pub(crate) struct Run<'a> {
    pub from: i64,
    pub len: i64,
    pub of: RunOf<'a>,
}

pub(crate) enum RunOf<'a> {
    /// All tokens have this one.
    One(&'a Lora),
    /// Each token has the one of the bank whose place is given, int64 [len, 1]; none where that is negative.
    Each(&'a Bank, Tensor),
}

/// The adapters of one call.
pub(crate) struct AdapterSet<'m> {
    /// As they are loaded, which stacks are made of, and in the model's kind, so that no pass converts them.
    loras: Vec<Option<(&'m Lora, Lora)>>,
    /// The places of those that are stacked, and their factors.
    bank: Option<(Vec<usize>, Bank)>,
}

impl<'m> AdapterSet<'m> {
    /// By name, the base model where there is none.
    pub(crate) fn new(model: &'m LanguageModel, names: &[Option<&str>]) -> Result<Self, Error> {
        let both = |lora: &'m Lora| (lora, lora.to_kind(model.decoder.kind()));
        let lora = |name: &Option<&str>| name.map(|name| model.adapter(name).map(both)).transpose();
        Ok(Self {
            loras: names.iter().map(lora).collect::<Result<_, _>>()?,
            bank: None,
        })
    }

    /// Stacks the adapters at `places`, where there are several. Adapters that have left stay until they are as many as
    /// those that are left: stacking takes about as long as a pass.
    pub(crate) fn stack(&mut self, model: &LanguageModel, places: &[usize]) {
        let mut places = places.to_vec();
        places.sort_unstable();
        places.dedup();
        if places.len() < 2 {
            return;
        }
        places.retain(|&place| self.loras[place].is_some());
        let current = self.bank.as_ref().is_some_and(|(stacked, _)| {
            stacked.len() <= 2 * places.len() && places.iter().all(|place| stacked.contains(place))
        });
        if !current {
            let lora = |&place: &usize| self.loras[place].as_ref().map(|(lora, _)| *lora);
            let loras: Vec<&Lora> = places.iter().filter_map(lora).collect();
            self.bank = Some((places, model.decoder.bank(&loras)));
        }
    }

    /// The adapters of tokens, given by their places; of the first `each` tokens every one may have another, and what they
    /// have is stacked.
    pub(crate) fn of(&self, model: &LanguageModel, places: &[usize], each: usize) -> Adapters<'_> {
        let mut runs = Vec::new();
        let (first, rest) = places.split_at(each);
        let mixed = first.windows(2).any(|pair| pair[0] != pair[1]);
        match self.bank.as_ref().filter(|_| mixed) {
            Some((stacked, bank)) => {
                let place = |place| stacked.iter().position(|s| s == place).map_or(-1, |p| p as i64);
                let places: Vec<i64> = first.iter().map(place).collect();
                runs.push(Run {
                    from: 0,
                    len: each as i64,
                    of: RunOf::Each(bank, model.long(&places).unsqueeze(1)),
                });
            }
            None => self.stretches(first, 0, &mut runs),
        }
        self.stretches(rest, each, &mut runs);
        Adapters::Runs(runs)
    }

    /// A run for every stretch of equal places.
    fn stretches<'a>(&'a self, places: &[usize], mut from: usize, runs: &mut Vec<Run<'a>>) {
        for stretch in places.chunk_by(|a, b| a == b) {
            if let Some((_, lora)) = &self.loras[stretch[0]] {
                runs.push(Run {
                    from: from as i64,
                    len: stretch.len() as i64,
                    of: RunOf::One(lora),
                });
            }
            from += stretch.len();
        }
    }
}
