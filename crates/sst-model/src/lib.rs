//! Language models of the Llama family on libtorch, with LoRA adapters beside them.
//!
//! [`LanguageModel`] loads a Hugging Face model folder, generates and scores (it implements
//! [`sst_eval::Generator`]), and [`Trainer`] fine-tunes an adapter on it. [`LanguageModel::backward`] shows what per-sample
//! gradients and Kronecker factors are made of. [`fetch`] brings models here.

mod backward;
mod batch;
mod cache;
mod chat_template;
mod config;
mod counter;
mod decoder;
mod device;
mod encoder;
mod error;
mod fetch;
mod generate;
mod gguf;
mod host;
#[cfg(feature = "hub")]
mod hub;
mod likelihood;
mod lora;
mod mask;
mod model;
mod pack;
mod packaged;
mod prefix;
mod process;
mod queue;
mod rope;
mod runs;
mod score;
mod tiny;
mod tokenizer;
mod train;
mod weights;

pub use backward::{BackwardReport, Objective, TokenWeight};
pub use batch::{BatchLimits, Side};
pub use chat_template::{ChatTemplate, Date, TemplateError};
pub use config::{ModelConfig, RopeScaling};
pub use counter::uniform;
pub use decoder::{FactorGradients, LinearGradient, LoraGradient, Reading};
pub use device::{DeviceChoice, Precision, set_threads};
pub use encoder::{ClassifierJudge, SequenceClassifier};
pub use error::Error;
pub use fetch::{FetchError, check_model_folder, fetch};
pub use gguf::{GgufError, GgufFile, GgufTensor, GgufType, GgufValue};
pub use host::floats;
#[cfg(feature = "hub")]
pub use hub::fetch_hub;
pub use likelihood::{Encoded, TokenLosses};
pub use lora::Lora;
pub use model::LanguageModel;
pub use packaged::{PACKAGED_NAME, convert_packaged, fetch_packaged};
pub use process::restart_tuned;
pub use tiny::write_tiny_model;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use train::{CheckedTrainConfig, Progress, TrainConfig, TrainReport, Trainer};
