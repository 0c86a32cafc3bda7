//! Linears that read the same input, as one matrix product: q, k and v; gate and up; o and down alone.
//!
//! With adapters, y = W x + sum s B (A x). Given d, the gradient at y, an adapter's g = s B^T d is the gradient at A x, and
//! dx = W^T d + sum A^T g.

use crate::Error;
use crate::lora::{Lora, LoraFactors};
use crate::runs::{Adapters, Run, RunOf};
use crate::weights::Weights;
use sst_adapter::ModulePath;
use tch::Tensor;

#[derive(Debug)]
pub(super) struct Projection {
    weight: Tensor,       // [sum of d_out, d_in]
    bias: Option<Tensor>, // [sum of d_out]
    parts: Vec<Part>,
}

/// One linear's rows of the weight.
#[derive(Debug)]
pub(super) struct Part {
    pub path: ModulePath,
    pub from: i64,
    pub d_out: i64,
}

/// What a projection computed.
pub(super) struct Projected {
    pub y: Tensor,      // [tokens, sum of d_out]
    pub h: Vec<Tensor>, // A x, [tokens, r] each, in the order of `Projection::adapted`
}

impl Projection {
    /// Loads the linears `paths` with their output widths; `bias` says whether they have one.
    pub fn load(weights: &Weights, paths: &[(String, usize)], d_in: usize, bias: bool) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let (mut matrices, mut biases) = (Vec::new(), Vec::new());
        let mut from = 0;
        for (path, d_out) in paths {
            matrices.push(weights.take(&format!("{path}.weight"), &[*d_out, d_in])?);
            if bias {
                biases.push(weights.take(&format!("{path}.bias"), &[*d_out])?);
            }
            let path = ModulePath::new(path.clone());
            let d_out = *d_out as i64;
            parts.push(Part { path, from, d_out });
            from += d_out;
        }
        Ok(Self {
            weight: joined(matrices),
            bias: bias.then(|| joined(biases)),
            parts,
        })
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    pub fn d_in(&self) -> i64 {
        self.weight.size()[1]
    }

    /// Every (part, place of the adapter in the stack, its factors), in a fixed order.
    pub fn adapted<'a>(&'a self, stack: &'a [&Lora]) -> impl Iterator<Item = (&'a Part, usize, &'a LoraFactors)> {
        self.parts.iter().flat_map(move |part| {
            let of_part = stack.iter().enumerate();
            of_part.filter_map(move |(at, lora)| Some((part, at, lora.get(&part.path)?)))
        })
    }

    /// x [tokens, d_in]; `h` is kept for a stack alone.
    pub fn apply(&self, x: &Tensor, adapters: &Adapters) -> Projected {
        let y = x.linear(&self.weight, self.bias.as_ref());
        let h = match adapters {
            Adapters::Stack(stack) => self.add(x, stack, &y),
            Adapters::Runs(runs) => {
                for Run { from, len, of } in runs {
                    let [x, y] = [x, &y].map(|t| t.narrow(0, *from, *len));
                    match of {
                        RunOf::One(lora) => _ = self.add(&x, &[lora], &y),
                        RunOf::Each(bank, places) => bank.add(self, &x, places, &y),
                    }
                }
                Vec::new()
            }
        };
        Projected { y, h }
    }

    /// Adds s B (A x) of every adapted part to y, and returns A x.
    fn add(&self, x: &Tensor, stack: &[&Lora], y: &Tensor) -> Vec<Tensor> {
        let kind = x.kind();
        let h = self.adapted(stack).map(|(part, _, factors)| {
            let h = x.matmul(&factors.a.to_kind(kind).tr());
            let _ = y
                .narrow(1, part.from, part.d_out)
                .addmm_(&(&h * factors.scale), &factors.b.to_kind(kind).tr());
            h
        });
        h.collect()
    }

    /// g = s B^T d of every adapted part, [tokens, r] each, from d [tokens, sum of d_out].
    pub fn lora_gradients(&self, d: &Tensor, stack: &[&Lora]) -> Vec<Tensor> {
        let kind = d.kind();
        self.adapted(stack)
            .map(|(part, _, factors)| {
                let d = d.narrow(1, part.from, part.d_out);
                d.matmul(&factors.b.to_kind(kind)) * factors.scale
            })
            .collect()
    }

    /// The gradient at x [tokens, d_in].
    pub fn input_gradient(&self, d: &Tensor, lora_gradients: &[Tensor], stack: &[&Lora]) -> Tensor {
        let kind = d.kind();
        let mut dx = d.matmul(&self.weight);
        for ((_, _, factors), g) in self.adapted(stack).zip(lora_gradients) {
            let _ = dx.addmm_(g, &factors.a.to_kind(kind));
        }
        dx
    }
}

/// One tensor of several, rows after rows; a single one is not copied.
fn joined(mut tensors: Vec<Tensor>) -> Tensor {
    if tensors.len() == 1 {
        tensors.remove(0)
    } else {
        Tensor::cat(&tensors, 0)
    }
}
