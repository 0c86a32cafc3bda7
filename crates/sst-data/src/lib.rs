//! Data sets as text: what is asked, what is answered, and which items are drawn.
//!
//! A data set on disk ([`RepliQaItem`], [`AlpacaItem`], [`JailbreakItem`], [`HarmfulItem`], [`MmluItem`], [`XsTestItem`])
//! keeps its publisher's column names. Training, Fisher statistics and generation read all of them as [`Example`]s: one
//! [`Prompt`] and its reference response. [`DataFolder`] finds the files, [`sample`] draws nested samples of them, and
//! [`synthesise`] writes a folder of the same layout in which everything is invented. [`import`] and `fetch` (feature
//! `hub`) bring in [`Published`] sets; [`leakage`] finds what is trained on and evaluated on alike.

mod alpaca;
mod data_check;
mod error;
#[cfg(feature = "hub")]
mod fetch;
mod folder;
mod harmful;
mod import;
mod jailbreak;
mod labelled;
mod leakage;
mod mmlu;
mod prompt;
mod published;
mod repliqa;
mod sample;
mod split;
mod synthetic;
mod table;
mod write;
mod xstest;

pub use alpaca::AlpacaItem;
pub use data_check::SetLeakage;
pub use error::Error;
#[cfg(feature = "hub")]
pub use fetch::fetch;
pub use folder::{DATASETS, DataFolder, Dataset, Split};
pub use harmful::HarmfulItem;
pub use import::{ImportConfig, Imported, import};
pub use jailbreak::JailbreakItem;
pub use labelled::{LabelledAnswer, RefusalLabel};
pub use leakage::{Leak, LeakKind, Leakage, leakage, normal_form};
pub use mmlu::{Mmlu, MmluItem, Subject};
pub use prompt::{Example, Message, Prompt, Role};
pub use published::{PUBLISHED, Published};
pub use repliqa::RepliQaItem;
pub use sample::sample;
pub use split::split_by_group;
pub use synthetic::{Sizes, SplitSizes, synthesise};
pub use table::Place;
pub use xstest::XsTestItem;
