//! Hosts whole web apps written with different frameworks under prefixes of one process, with static
//! files, scheduled tasks and TLS, all configured in Rust.
//!
//! *Apps, schedules and static files are what you bring; config says where they go; combo runs them.*
//!
//! ```no_run
//! use combo::{Deployment, Job, mount, secs};
//! # use combo::{BoxError, Change, Tick};
//! # async fn write_time(tick: Tick) -> Result<Vec<Change>, BoxError> {
//! #     Ok(vec![Change::write("static/time.txt", tick.due.to_string())])
//! # }
//!
//! fn deployment() -> Deployment {
//!     Deployment::new("example")
//!         .listen("tcp:8080")
//!         .mount("/old", mount::redirect("/new"))
//!         .job(Job::new("clock", "every 4s", write_time).may_write("static"))
//!         .drain(secs(30))
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     combo::main(deployment)
//! }
//! ```
//!
//! # The two paths
//!
//! A **request** comes in at a listener, is handed to the worker with the fewest connections, goes
//! through TLS and HTTP, is made trustworthy by the guard, is routed by host and path, and is answered
//! by a mount, all on one thread. A **tick** comes out of the timetable, is run by a task on the host
//! runtime, and ends as one outcome in the ledger after its changes have been applied.
//!
//! # Goals and non-goals
//!
//! - Apps run unchanged: a mounted app sees what its framework's own server would show it.
//! - What is wrong is said before anything is opened, and all of it.
//! - Nothing that one app, task or client does stops the others.
//! - No configuration files, no plugins loaded at run time, no proxying to other processes.
//!
//! It runs on Linux.
//!
//! # Features
//!
//! All but `testing` are on by default.
//!
//! | feature | adds |
//! | --- | --- |
//! | `acme` | `le:`, `lets:` and `acme:` endpoints: certificates ordered and renewed (RFC 8555); needs `tls` |
//! | `actix` | [`mount::actix`] |
//! | `axum` | [`mount::axum`] |
//! | `files` | [`mount::files`](mount::files()), [`mount::embedded`](mount::embedded()) |
//! | `tls` | `tls:` and `ssl:` endpoints, by rustls with aws-lc-rs |
//! | `tokio-cron-scheduler` | [`Job::hosted`] |
//! | `testing` | `testing::Rig`: a whole deployment on a clock that only the test moves |
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

#[cfg(panic = "abort")]
compile_error!("combo contains panics, which needs unwinding: build with `panic = \"unwind\"`");

mod account;
#[cfg(feature = "tls")]
mod certs;
mod cli;
mod deployment;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod jobs;
#[cfg(any(feature = "files", feature = "tls"))]
mod local;
mod looks;
pub mod mount;
mod notify;
mod plan;
mod run;
mod serve;
mod step;
mod swap;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;
mod ways;

pub use cli::main;
pub use combo_core::*;
#[cfg(feature = "tokio-cron-scheduler")]
pub use deployment::Hosted;
pub use deployment::{DRAIN, Deployment, Job, RUNNING_JOBS, When, cron, every, millis, secs};
pub use error::{Error, Errors};
pub use jobs::{Keep, Program, keep_children, read_ledger};
pub use plan::Plan;
pub use run::{Handle, start};
pub use serve::{
    body::{RequestBody, ResponseBody},
    hsts::Hsts,
    inherited::take_sockets,
    limits::Limits,
    listen::Address,
};
