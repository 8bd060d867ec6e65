//! What makes a job due. A stand-in.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::schedule::{Fault, Schedule};

/// What makes a job due.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trigger {
    /// Wall clock.
    Schedule(Schedule),
    /// Every so often from start.
    FromStart(Duration),
    /// So long after the end.
    AfterEnd(Duration),
    /// Something happens.
    Event(Event),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Start.
    Start,
    /// Stop.
    Stop,
    /// A file changes.
    Changed(PathBuf),
    /// A job has run.
    After(String),
}

impl From<Schedule> for Trigger {
    fn from(schedule: Schedule) -> Self {
        Self::Schedule(schedule)
    }
}

impl FromStr for Trigger {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        if let Some(rest) = said.strip_prefix("after job ") {
            return Ok(Self::Event(Event::After(rest.into())));
        }
        let secs = |said: &str| {
            let unit = match said.chars().last() {
                Some('m') => 60,
                Some('h') => 3600,
                _ => 1,
            };
            Duration::from_secs(unit * said.trim_end_matches(['s', 'm', 'h']).parse::<u64>().unwrap_or(1))
        };
        if let Some(rest) = said.strip_prefix("after ") {
            return Ok(Self::AfterEnd(secs(rest)));
        }
        match said {
            "at start" => return Ok(Self::Event(Event::Start)),
            "at stop" => return Ok(Self::Event(Event::Stop)),
            _ => {}
        }
        if let Some(rest) = said.strip_suffix(" changes").and_then(|said| said.strip_prefix("when ")) {
            return Ok(Self::Event(Event::Changed(rest.into())));
        }
        if let Some(rest) = said.strip_suffix(" from start").and_then(|said| said.strip_prefix("every ")) {
            return Ok(Self::FromStart(secs(rest)));
        }
        said.parse().map(Self::Schedule)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(schedule) => write!(f, "{schedule}"),
            Self::FromStart(interval) => write!(f, "every {interval:?} from start"),
            Self::AfterEnd(interval) => write!(f, "after {interval:?}"),
            Self::Event(event) => write!(f, "{event:?}"),
        }
    }
}

impl Trigger {
    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        self.to_string()
    }
}
