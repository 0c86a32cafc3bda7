//! LoRA fine-tuning: completion-only loss, AdamW, warm-up and cosine decay, checkpoints that resume to the same bytes.

mod adamw;
mod checkpoint;
mod config;
mod trainer;

pub use config::{CheckedTrainConfig, TrainConfig};
pub use trainer::{Progress, TrainReport, Trainer};
