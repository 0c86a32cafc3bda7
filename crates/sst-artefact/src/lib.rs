//! What every file on disk shares, whoever writes it.
//!
//! - [`write_atomic`]: a reader never sees a half-written file.
//! - [`sha256_file`], [`sha256_folder`], [`StreamHash`]: the identity of an input.
//! - [`Manifest`]: the record beside an artefact of how it came to be.
//! - `Hub` (feature `hub`): files of the Hugging Face Hub, through its shared cache; what it takes from one repository is of
//!   one commit.

mod atomic;
mod error;
mod hash;
#[cfg(feature = "hub")]
mod hub;
mod manifest;
#[cfg(feature = "stand-in-hub")]
mod stand_in_hub;

pub use atomic::{create_dir, remove_unfinished, write_atomic, write_json};
pub use error::Error;
pub use hash::{StreamHash, sha256_bytes, sha256_file, sha256_folder};
#[cfg(feature = "hub")]
pub use hub::{Hub, HubError, HubRepository, RepositoryKind};
pub use manifest::{Input, MANIFEST_FILE, Manifest, read_json};
#[cfg(feature = "stand-in-hub")]
pub use stand_in_hub::StandInHub;
