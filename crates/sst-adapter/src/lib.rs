//! LoRA adapters as plain arrays, read from and written to PEFT folders.
