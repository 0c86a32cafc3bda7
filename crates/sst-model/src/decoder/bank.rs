//! Several adapters side by side, for passes in which every token has its own.
//!
//! The adapters of a linear are stacked: A of all of them is one matrix, B another. Every token meets all adapters,
//! h = A x, and what is not of its own is set to 0 before B: two products for all adapters together, where one by one each
//! would need its own two over a few tokens. That pays where tokens are few, as when every sequence adds one.

use super::projection::Projection;
use crate::lora::Lora;
use sst_adapter::ModulePath;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The factors of some adapters, stacked.
#[derive(Debug)]
pub(crate) struct Bank {
    /// By the first linear of each projection.
    stacks: BTreeMap<ModulePath, Stack>,
}

#[derive(Debug)]
struct Stack {
    a: Tensor,     // [ranks of all parts and adapters, d_in]
    owner: Tensor, // [1, ranks], the place of each row's adapter, int64
    parts: Vec<Part>,
}

/// The columns of one linear.
#[derive(Debug)]
struct Part {
    from: i64,
    d_out: i64,
    first: i64,
    b: Tensor, // [d_out, ranks of this part], scaled
}

impl Bank {
    pub(super) fn new<'a>(projections: impl Iterator<Item = &'a Projection>, adapters: &[&Lora], kind: Kind) -> Self {
        let stack = |projection: &Projection| {
            let (mut a, mut owner, mut parts) = (Vec::new(), Vec::new(), Vec::<Part>::new());
            for part in projection.parts() {
                let mut b = Vec::new();
                let first = owner.len() as i64;
                for (place, factors) in adapters
                    .iter()
                    .enumerate()
                    .filter_map(|(i, l)| Some((i, l.get(&part.path)?)))
                {
                    owner.extend(std::iter::repeat_n(place as i64, factors.a.size()[0] as usize));
                    a.push(factors.a.shallow_clone());
                    b.push(&factors.b * factors.scale);
                }
                if !b.is_empty() {
                    parts.push(Part {
                        from: part.from,
                        d_out: part.d_out,
                        first,
                        b: Tensor::cat(&b, 1).to_kind(kind),
                    });
                }
            }
            let path = projection.parts().first()?.path.clone();
            let a = (!a.is_empty()).then(|| Tensor::cat(&a, 0).to_kind(kind))?;
            let owner = Tensor::from_slice(&owner).to_device(a.device()).unsqueeze(0);
            Some((path, Stack { a, owner, parts }))
        };
        Self {
            stacks: projections.filter_map(stack).collect(),
        }
    }

    /// Adds to y [tokens, sum of d_out] what the adapters make of x [tokens, d_in]; `places` int64 [tokens, 1] says which
    /// adapter each token has, none where it is negative.
    pub(super) fn add(&self, projection: &Projection, x: &Tensor, places: &Tensor, y: &Tensor) {
        let first = projection.parts().first().map(|part| &part.path);
        let Some(stack) = first.and_then(|path| self.stacks.get(path)) else {
            return;
        };
        let h = x.matmul(&stack.a.tr()) * stack.owner.eq_tensor(places); // [tokens, ranks]
        for part in &stack.parts {
            let h = h.narrow(1, part.first, part.b.size()[1]);
            let _ = y.narrow(1, part.from, part.d_out).addmm_(&h, &part.b.tr());
        }
    }
}
