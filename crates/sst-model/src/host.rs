//! Values of a tensor, brought to the host.

use ndarray::Array2;
use tch::{Device, Kind, Tensor};

/// All entries in row-major order as f32, whatever the tensor's device and kind.
pub fn floats(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
    let mut values = vec![0f32; flat.numel()];
    let count = values.len();
    flat.copy_data(&mut values, count);
    values
}

/// All entries in row-major order as token numbers.
pub(crate) fn tokens(tensor: &Tensor) -> Vec<u32> {
    let flat = tensor.to_device(Device::Cpu).to_kind(Kind::Int64).contiguous();
    let mut values = vec![0i64; flat.numel()];
    let count = values.len();
    flat.copy_data(&mut values, count);
    values.into_iter().map(|t| t as u32).collect()
}

/// A matrix as an f32 array.
pub(crate) fn matrix(tensor: &Tensor) -> Array2<f32> {
    let size = tensor.size();
    let (rows, cols) = (size[0] as usize, size[1] as usize);
    let values = floats(tensor);
    Array2::from_shape_fn((rows, cols), |(i, j)| values[i * cols + j])
}

/// An f32 array on `device`.
pub(crate) fn upload(array: &Array2<f32>, device: Device) -> Tensor {
    let values: Vec<f32> = array.iter().copied().collect();
    let (rows, cols) = array.dim();
    Tensor::from_slice(&values)
        .reshape([rows as i64, cols as i64])
        .to_device(device)
}
