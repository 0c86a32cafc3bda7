//! AdamW (Loshchilov & Hutter 2019), equation by equation: decoupled weight decay, bias-corrected moments.
//!
//! tch's own optimizers cannot save their moments, and without them a resumed run is another run.

use tch::{Kind, Tensor};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// First and second moments of every parameter, and the number of steps taken.
pub(crate) struct AdamW {
    pub(crate) moments: Vec<(Tensor, Tensor)>,
    pub(crate) step: usize,
    weight_decay: f64,
}

impl AdamW {
    pub(crate) fn new(parameters: &[Tensor], weight_decay: f64) -> Self {
        let moments = parameters.iter().map(|p| (p.zeros_like(), p.zeros_like())).collect();
        Self {
            moments,
            step: 0,
            weight_decay,
        }
    }

    /// One step on `parameters` along their gradients, each multiplied by `gradient_scale` first.
    pub(crate) fn step(&mut self, parameters: &mut [Tensor], gradients: &[Tensor], rate: f64, gradient_scale: f64) {
        let _guard = tch::no_grad_guard();
        self.step += 1;
        let correct1 = 1.0 - BETA1.powi(self.step as i32);
        let correct2 = 1.0 - BETA2.powi(self.step as i32);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(&mut self.moments) {
            let gradient = gradient * gradient_scale;
            *first = &*first * BETA1 + &gradient * (1.0 - BETA1);
            *second = &*second * BETA2 + gradient.square() * (1.0 - BETA2);
            let denominator = (&*second / correct2).sqrt() + EPSILON;
            let update = (&*first / correct1) / denominator + &*parameter * self.weight_decay;
            let _ = parameter.g_sub_(&(update * rate));
        }
    }

    /// Global L2 norm of all gradients, in f64.
    pub(crate) fn gradient_norm(gradients: &[Tensor]) -> f64 {
        let squares: Vec<Tensor> = gradients.iter().map(|g| g.square().sum(Kind::Double)).collect();
        Tensor::stack(&squares, 0).sum(Kind::Double).sqrt().double_value(&[])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two steps on f(x) = x^2 / 2 from x = 1, by hand from the paper's equations.
    #[test]
    fn follows_the_paper() {
        let (rate, decay) = (0.1, 0.01);
        let mut parameters = vec![Tensor::from_slice(&[1.0f64])];
        let mut optimizer = AdamW::new(&parameters, decay);
        let (mut x, mut m, mut v) = (1.0f64, 0.0, 0.0);
        for t in 1..=2 {
            let gradient = parameters[0].copy();
            optimizer.step(&mut parameters, &[gradient], rate, 1.0);
            m = 0.9 * m + 0.1 * x;
            v = 0.999 * v + 0.001 * x * x;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            x -= rate * (m_hat / (v_hat.sqrt() + 1e-8) + decay * x);
            assert!((parameters[0].double_value(&[0]) - x).abs() < 1e-14);
        }
    }
}
