//! Merge a utility and a safety LoRA adapter: V1, V2 and the trait they share.
