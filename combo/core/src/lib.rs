//! The words of combo: what a deployment is made of, as plain values.
//!
//! Endpoints, patterns, schedules, tasks, changes, commands and problems are here, with the
//! parsers for what people type. Nothing in this crate opens a socket, reads a clock, touches a
//! disk or needs a runtime, so a crate of tasks can depend on it and on nothing else.
//!
//! ```
//! use combo_core::{BoxError, Change, Tick};
//!
//! /// A task: from a tick to the wanted changes.
//! async fn hour(tick: Tick) -> Result<Vec<Change>, BoxError> {
//!     Ok(vec![Change::write("static/hour.txt", format!("{}\n", tick.due))])
//! }
//! ```
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

pub mod change;
pub mod command;
pub mod context;
mod draining;
pub mod endpoint;
mod flag;
mod hash;
pub mod near;
pub mod outcome;
pub mod pattern;
pub mod policy;
pub mod problem;
pub mod schedule;
pub mod task;
pub mod trigger;
pub mod user;

pub use change::Change;
pub use command::{Command, Evicted, JobStatus, MountState, MountStatus, Reply, Status};
pub use context::{Connection, Context, Peer, Site};
pub use draining::Draining;
pub use endpoint::Endpoint;
pub use hash::stable_hash;
pub use jiff::Timestamp;
pub use outcome::{Alert, Counts, Entry, Outcome};
pub use pattern::Pattern;
pub use policy::{AfterFailures, Missed, OnDrain, Overlap, Policies, Retry};
pub use problem::{Problem, Problems};
pub use schedule::Schedule;
pub use task::{BoxError, Cancel, Task, Tick};
pub use trigger::Trigger;
pub use user::User;
