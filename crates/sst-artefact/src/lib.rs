//! What every file on disk shares, whoever writes it.
//!
//! - [`write_atomic`]: a reader never sees a half-written file.
//! - [`sha256_file`], [`sha256_folder`], [`StreamHash`]: the identity of an input.
//! - [`Manifest`]: the record beside an artefact of how it came to be.

mod atomic;
mod error;
mod hash;
mod manifest;

pub use atomic::{create_dir, remove_unfinished, write_atomic, write_json};
pub use error::Error;
pub use hash::{StreamHash, sha256_bytes, sha256_file, sha256_folder};
pub use manifest::{Input, MANIFEST_FILE, Manifest, read_json};
