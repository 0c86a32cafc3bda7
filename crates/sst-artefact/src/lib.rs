//! What every file on disk shares, whoever writes it.
//!
//! - [`write_atomic`]: a reader never sees a half-written file; [`retire`]: nor old and new files for one artefact.
//! - [`sha256_file`], [`sha256_folder`], [`StreamHash`]: the identity of an input.
//! - [`Manifest`]: the record beside an artefact of how it came to be.
//! - [`ParseError`]: what is wrong with a name or a short form, such as a flag's value.
//! - `Hub` (feature `hub`): files of the Hugging Face Hub, through its shared cache; what it takes from one repository is of
//!   one commit.

mod atomic;
mod error;
mod hash;
#[cfg(feature = "hub")]
mod hub;
mod manifest;
mod parse_error;
mod retire;
#[cfg(feature = "stand-in-hub")]
mod stand_in_hub;

pub use atomic::{create_dir, remove_unfinished, write_atomic, write_json};
pub use error::Error;
pub use hash::{StreamHash, sha256_bytes, sha256_file, sha256_folder};
#[cfg(feature = "hub")]
pub use hub::{Hub, HubError, HubRepository, RepositoryKind};
pub use manifest::{Input, MANIFEST_FILE, Manifest, read_json};
pub use parse_error::ParseError;
pub use retire::retire;
#[cfg(feature = "stand-in-hub")]
pub use stand_in_hub::StandInHub;
