//! Where each tensor lies in phi, the flat vector of all A and B entries.

use crate::{Error, ModulePath};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One tensor's place in phi.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSlot {
    /// Module path and side, such as `model.layers.0.self_attn.q_proj.lora_A`.
    pub name: String,
    /// Index of its first entry in phi.
    pub offset: usize,
    /// Rows: r for A, d_out for B.
    pub rows: usize,
    /// Columns: d_in for A, r for B.
    pub cols: usize,
}

impl ParamSlot {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// Whether the tensor has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its indices in phi.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }

    /// The module that the tensor belongs to: the name without its last part.
    pub fn module(&self) -> ModulePath {
        ModulePath::new(self.name.rsplit_once('.').map_or("", |(module, _)| module))
    }
}

/// The tensors of phi in model order: layer number; q, k, v, o, gate, up, down; A before B.
///
/// Slots are contiguous and row-major, so the list of names and shapes is the whole layout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<ParamSlot>", into = "Vec<ParamSlot>")]
pub struct ParamLayout {
    slots: Vec<ParamSlot>,
}

impl ParamLayout {
    /// Lays out tensors given as (name, rows, columns) in any order.
    ///
    /// ```
    /// use sst_adapter::ParamLayout;
    /// let layout = ParamLayout::new([
    ///     ("model.layers.0.self_attn.q_proj.lora_B".to_owned(), 4, 2),
    ///     ("model.layers.0.self_attn.q_proj.lora_A".to_owned(), 2, 3),
    /// ]).unwrap();
    /// assert_eq!(layout.len(), 14);
    /// assert_eq!(layout.slots()[1].offset, 6);
    /// ```
    ///
    /// # Errors
    /// [`Error::DuplicateTensor`] for a name given twice, [`Error::TooLarge`] for more entries than can be addressed.
    pub fn new(tensors: impl IntoIterator<Item = (String, usize, usize)>) -> Result<Self, Error> {
        let mut slots: Vec<ParamSlot> = tensors
            .into_iter()
            .map(|(name, rows, cols)| ParamSlot {
                name,
                offset: 0,
                rows,
                cols,
            })
            .collect();
        slots.sort_by_cached_key(|slot| (slot.module(), slot.name.clone()));
        if let Some(pair) = slots.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::DuplicateTensor {
                tensor: pair[0].name.clone(),
            });
        }
        let mut offset: usize = 0;
        for slot in &mut slots {
            slot.offset = offset;
            // A shape may come from a file.
            let end = slot.rows.checked_mul(slot.cols).and_then(|len| offset.checked_add(len));
            offset = end.ok_or_else(|| Error::TooLarge {
                tensor: slot.name.clone(),
                shape: [slot.rows, slot.cols],
            })?;
        }
        Ok(Self { slots })
    }

    /// The slots in order.
    pub fn slots(&self) -> &[ParamSlot] {
        &self.slots
    }

    /// Number of entries of phi.
    pub fn len(&self) -> usize {
        self.slots.last().map_or(0, |slot| slot.offset + slot.len())
    }

    /// Whether phi has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot that holds entry `index` of phi, if there is one.
    pub fn slot_of(&self, index: usize) -> Option<&ParamSlot> {
        let after = self.slots.partition_point(|slot| slot.offset <= index);
        self.slots[..after]
            .iter()
            .rev()
            .find(|slot| slot.range().contains(&index))
    }

    /// Checks that `other` lists the same tensors with the same shapes; `names` are the two owners.
    ///
    /// # Errors
    /// [`Error::ShapesDiffer`] or [`Error::TargetsDiffer`] for the first difference.
    pub fn ensure_same(&self, other: &ParamLayout, names: (&str, &str)) -> Result<(), Error> {
        let absent = |slot: &ParamSlot, (present, absent): (&str, &str)| Error::TargetsDiffer {
            module: slot.name.clone(),
            present: present.to_owned(),
            absent: absent.to_owned(),
        };
        let has = |layout: &ParamLayout, name: &str| layout.slots.iter().any(|s| s.name == name);
        for (left, right) in self.slots.iter().zip(&other.slots) {
            if left.name != right.name {
                return Err(if has(other, &left.name) {
                    absent(right, (names.1, names.0))
                } else {
                    absent(left, names)
                });
            }
            if (left.rows, left.cols) != (right.rows, right.cols) {
                return Err(Error::ShapesDiffer {
                    tensor: left.name.clone(),
                    left: names.0.to_owned(),
                    left_shape: [left.rows, left.cols],
                    right: names.1.to_owned(),
                    right_shape: [right.rows, right.cols],
                });
            }
        }
        let common = self.slots.len().min(other.slots.len());
        match (self.slots.get(common), other.slots.get(common)) {
            (Some(left), _) => Err(absent(left, names)),
            (_, Some(right)) => Err(absent(right, (names.1, names.0))),
            (None, None) => Ok(()),
        }
    }
}

impl TryFrom<Vec<ParamSlot>> for ParamLayout {
    type Error = Error;

    fn try_from(slots: Vec<ParamSlot>) -> Result<Self, Error> {
        let layout = Self::new(slots.iter().map(|s| (s.name.clone(), s.rows, s.cols)))?;
        match layout.slots.iter().zip(&slots).find(|(want, got)| want != got) {
            Some((_, slot)) => Err(Error::Layout {
                slot: slot.name.clone(),
            }),
            None => Ok(layout),
        }
    }
}

impl From<ParamLayout> for Vec<ParamSlot> {
    fn from(layout: ParamLayout) -> Self {
        layout.slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(tensors: &[(&str, usize, usize)]) -> ParamLayout {
        ParamLayout::new(tensors.iter().map(|(n, r, c)| ((*n).to_owned(), *r, *c))).unwrap()
    }

    #[test]
    fn finds_the_slot_of_an_entry() {
        let layout = layout(&[("layers.0.q_proj.lora_A", 2, 3), ("layers.0.q_proj.lora_B", 4, 2)]);
        let name = |i| layout.slot_of(i).map(|s| s.name.as_str());
        assert_eq!(name(0), Some("layers.0.q_proj.lora_A"));
        assert_eq!(name(5), Some("layers.0.q_proj.lora_A"));
        assert_eq!(name(6), Some("layers.0.q_proj.lora_B"));
        assert_eq!(name(13), Some("layers.0.q_proj.lora_B"));
        assert_eq!(name(14), None);
        assert_eq!(layout.slots()[1].module().as_str(), "layers.0.q_proj");
    }

    #[test]
    fn json_out_of_order_or_with_gaps_is_refused() {
        let layout = layout(&[("layers.0.q_proj.lora_A", 2, 3), ("layers.0.q_proj.lora_B", 4, 2)]);
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<ParamLayout>(&json).unwrap(), layout);
        let gap = json.replace("\"offset\":6", "\"offset\":7");
        let message = serde_json::from_str::<ParamLayout>(&gap).unwrap_err().to_string();
        assert!(message.contains("layers.0.q_proj.lora_B"), "{message}");
        for huge in [usize::MAX, usize::MAX / 2] {
            let huge = json.replace("\"cols\":2", &format!("\"cols\":{huge}"));
            let message = serde_json::from_str::<ParamLayout>(&huge).unwrap_err().to_string();
            assert!(
                message.contains("lora_B of shape [4, ") && message.contains("too large"),
                "{message}"
            );
        }
    }

    #[test]
    fn the_first_difference_is_named() {
        let a = layout(&[("layers.0.q_proj.lora_A", 2, 3), ("layers.1.q_proj.lora_A", 2, 3)]);
        let shorter = layout(&[("layers.0.q_proj.lora_A", 2, 3)]);
        let other = layout(&[("layers.0.q_proj.lora_A", 2, 3), ("layers.1.k_proj.lora_A", 2, 3)]);
        let wider = layout(&[("layers.0.q_proj.lora_A", 2, 4), ("layers.1.q_proj.lora_A", 2, 3)]);
        let message = |l: &ParamLayout, r: &ParamLayout| l.ensure_same(r, ("U", "S")).unwrap_err().to_string();
        assert_eq!(
            message(&a, &shorter),
            "module layers.1.q_proj.lora_A is in U but not in S"
        );
        assert_eq!(
            message(&shorter, &a),
            "module layers.1.q_proj.lora_A is in S but not in U"
        );
        assert_eq!(
            message(&a, &other),
            "module layers.1.q_proj.lora_A is in U but not in S"
        );
        assert_eq!(
            message(&a, &wider),
            "tensor layers.0.q_proj.lora_A is [2, 3] in U but [2, 4] in S"
        );
    }
}
