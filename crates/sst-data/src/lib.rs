//! Data sets as text: what is asked, what is answered, and which items are drawn.
//!
//! A data set on disk ([`RepliQaItem`], [`AlpacaItem`], [`JailbreakItem`], [`MmluItem`], [`XsTestItem`]) keeps its
//! publisher's column names. Training, Fisher statistics and generation read all of them as [`Example`]s: one
//! [`Prompt`] and its reference response. [`DataFolder`] finds the files, [`sample`] draws nested samples of them, and
//! [`synthesise`] writes a folder of the same layout in which everything is invented.

mod alpaca;
mod error;
mod folder;
mod harmful;
mod jailbreak;
mod labelled;
mod mmlu;
mod prompt;
mod repliqa;
mod sample;
mod synthetic;
mod table;
mod xstest;

pub use alpaca::AlpacaItem;
pub use error::Error;
pub use folder::{DATASETS, DataFolder, Dataset, Split};
pub use harmful::HarmfulItem;
pub use jailbreak::JailbreakItem;
pub use labelled::{LabelledAnswer, RefusalLabel};
pub use mmlu::{Mmlu, MmluItem, Subject};
pub use prompt::{Example, Message, Prompt, Role};
pub use repliqa::RepliQaItem;
pub use sample::sample;
pub use synthetic::{Sizes, SplitSizes, synthesise};
pub use xstest::XsTestItem;
