//! The sums of a whole run, added up tensor by tensor.

use super::differ;
use crate::{Error, FisherShard};
use std::collections::BTreeMap;

/// The tensors that all shards share; a shard without any adds nothing.
pub(super) struct Sums<'a> {
    shards: Vec<&'a FisherShard>,
    shapes: BTreeMap<String, [usize; 2]>,
}

impl<'a> Sums<'a> {
    pub(super) fn new(shards: &'a [FisherShard]) -> Result<Self, Error> {
        let mut sums = Self {
            shards: shards.iter().filter(|shard| !shard.names().is_empty()).collect(),
            shapes: BTreeMap::new(),
        };
        for &shard in &sums.shards {
            let names = shard.names();
            let shapes = names.into_iter().map(|name| Ok((name.clone(), shard.shape(&name)?)));
            let shapes: BTreeMap<String, [usize; 2]> = shapes.collect::<Result<_, Error>>()?;
            if sums.shapes.is_empty() {
                sums.shapes = shapes;
                continue;
            }
            let names = sums.shapes.keys().chain(shapes.keys());
            if let Some(name) = names
                .into_iter()
                .find(|name| sums.shapes.get(*name) != shapes.get(*name))
            {
                let text = |shape: Option<&[usize; 2]>| shape.map_or("none".to_owned(), |s| format!("{s:?}"));
                let (there, here) = (text(sums.shapes.get(name)), text(shapes.get(name)));
                return Err(differ(
                    sums.shards[0],
                    shard,
                    format!("the shape of {name}"),
                    there,
                    here,
                ));
            }
        }
        Ok(sums)
    }

    /// The shard whose tensors and layers stand for all.
    pub(super) fn first(&self) -> Option<&'a FisherShard> {
        self.shards.first().copied()
    }

    pub(super) fn shards(&self) -> &[&'a FisherShard] {
        &self.shards
    }

    /// An error about a tensor of the sums, with the folder of the first shard that has any.
    pub(super) fn error(&self, tensor: &str, reason: impl Into<String>) -> Error {
        let error = Error::content(tensor, reason);
        match self.first() {
            Some(shard) => Error::in_file(&shard.folder)(error),
            None => error,
        }
    }

    pub(super) fn shapes(&self) -> &BTreeMap<String, [usize; 2]> {
        &self.shapes
    }

    pub(super) fn shape(&self, name: &str) -> Result<[usize; 2], Error> {
        let shape = self.shapes.get(name).copied();
        shape.ok_or_else(|| Error::content(name, "is missing from the sums of every shard"))
    }

    /// One tensor over all shards, added in the shards' order; finite.
    pub(super) fn get(&self, name: &str) -> Result<Vec<f64>, Error> {
        self.shape(name)?;
        let mut total: Vec<f64> = Vec::new();
        for shard in &self.shards {
            let entries = shard.entries(name)?;
            if total.is_empty() {
                total.extend(entries);
            } else {
                total.iter_mut().zip(entries).for_each(|(sum, x)| *sum += x);
            }
            if let Some(at) = total.iter().position(|x| !x.is_finite()) {
                let reason = format!("is or sums to {} at flat index {at}", total[at]);
                return Err(Error::in_file(&shard.folder)(Error::content(name, reason)));
            }
        }
        Ok(total)
    }
}
