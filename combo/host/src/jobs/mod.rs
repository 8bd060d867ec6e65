//! The tick path: when a job is due, what its task wants, doing it, and the record of it.
//!
//! | stage | takes | gives |
//! | --- | --- | --- |
//! | [`timetable`] | now | jobs that are due |
//! | [`roster`] | due | ticks: started, kept waiting, skipped, missed |
//! | [`run`](mod@run) | tick | changes |
//! | [`apply`] | change | applied |
//! | [`ledger`] | outcome | one line per tick |
//!
//! `hosted` is a task whose code and schedule are a `tokio_cron_scheduler::Job`'s. `timetable`, `roster`
//! and `ledger` are pure; `run` waits for the task; only `apply` touches the disk for it.

pub(crate) mod apply;
pub(crate) mod changed;
pub(crate) mod child;
#[cfg(feature = "tokio-cron-scheduler")]
pub(crate) mod hosted;
pub(crate) mod journal;
pub(crate) mod keeper;
pub(crate) mod ledger;
pub(crate) mod output;
pub(crate) mod program;
pub(crate) mod roster;
pub(crate) mod run;
pub(crate) mod timetable;

pub(crate) use apply::Opening;
pub(crate) use journal::{Begin, Beginning, Begun, Journal};
pub use journal::{Keep, read_ledger};
pub use keeper::keep_children;
pub(crate) use ledger::Ledger;
pub use program::Program;
pub(crate) use roster::{Act, Past, Roster, Terms, Whom};
pub(crate) use run::{Ended, ErasedTask, Work, erase, erase_blocking, run};
pub(crate) use timetable::Timetable;
