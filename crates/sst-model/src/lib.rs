//! Llama-family language models with LoRA on libtorch.
