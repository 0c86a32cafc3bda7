//! Identities of SST, what it reports, and the errors of inputs that do not fit together.

// Every function here is part of a test.
#![allow(clippy::unwrap_used)]

mod identities;
mod report;
mod settings;
mod trial;
