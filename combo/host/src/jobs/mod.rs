//! The tick path: when a job is due, what its task wants, doing it, and the record of it.
//!
//! | stage | takes | gives |
//! | --- | --- | --- |
//! | [`timetable`] | now | ticks (late ones merged, missed ones counted) |
//! | [`run`](mod@run) | tick | changes |
//! | [`apply`] | change | applied |
//! | [`ledger`] | outcome | one line per tick |
//!
//! `hosted` is a task whose code and schedule are a `tokio_cron_scheduler::Job`'s. `timetable` and
//! `ledger` are pure; `run` waits for the task; only `apply` touches the disk.

pub(crate) mod apply;
#[cfg(feature = "tokio-cron-scheduler")]
pub(crate) mod hosted;
pub(crate) mod ledger;
pub(crate) mod run;
pub(crate) mod timetable;

pub(crate) use apply::Opening;
pub(crate) use ledger::Ledger;
pub use ledger::{Entry, Outcome};
pub(crate) use run::{Ended, ErasedTask, Work, erase, run};
pub(crate) use timetable::{Due, Timetable};
