//! Fisher information of LoRA parameters on libtorch.
