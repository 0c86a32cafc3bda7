//! A sweep on a Slurm cluster: the plan as job arrays, watched.
//!
//! Every stage is one job array, with one index per part that is left, and depends on the arrays before it. What becomes of a
//! part is read from Slurm's queue while it remembers the job, and from the exit file that the part's script leaves; there is
//! no need for Slurm's accounting. A part that ended by itself with an error stops the sweep, a part that was ended from
//! outside (time limit, lost node, signal) is submitted again.

mod fate;
mod options;
mod record;
mod scheduler;
mod script;
mod watch;

pub use options::{SlurmConfig, SlurmOption};
pub use watch::sweep_on_slurm;
