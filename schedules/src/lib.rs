//! What wakes up.
//!
//! Two ways to have a file rewritten every few seconds: [`write_time()`] is a task, which says what it
//! wants written and leaves the writing to whoever runs it; [`pulse()`] is an ordinary job of
//! `tokio_cron_scheduler`, which does its own writing and has never heard of combo.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod pulse;
mod write_time;

pub use pulse::pulse;
pub use write_time::write_time;
