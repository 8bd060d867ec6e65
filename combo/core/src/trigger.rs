//! What makes a job due: a schedule, an interval on the clock of the process, or something that happens.
//!
//! | trigger | due |
//! | --- | --- |
//! | any [`schedule`](crate::schedule) | by the wall clock |
//! | `every 4s from start` | every so often from the start of the process, whatever becomes of the wall clock |
//! | `after 4s` | so long after the start, and then so long after the end of each run |
//! | `at start`, `at stop` | when the process starts to serve; when it stops, within the drain's budget |
//! | `when static/list.csv changes` | when that file has been written, replaced, made or removed |
//! | `after job NAME` | when that job has run, and did not fail |

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::schedule::{Fault, Schedule, checked, in_short, in_words, interval};

/// What makes a job due.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Trigger {
    /// The wall clock.
    Schedule(Schedule),
    /// Every so often from the start of the process.
    FromStart(Duration),
    /// So long after the start of the process, then after the end of each run.
    AfterEnd(Duration),
    /// Something happens.
    Event(Event),
}

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The process starts to serve.
    Start,
    /// The process stops.
    Stop,
    /// This file changes.
    Changed(PathBuf),
    /// This job has run.
    After(String),
}

impl Trigger {
    /// `every 4s from start`.
    ///
    /// # Errors
    ///
    /// If the interval is no whole number of milliseconds, or none.
    pub fn from_start(interval: Duration) -> Result<Self, Fault> {
        checked(interval).map(Self::FromStart)
    }

    /// `after 4s`.
    ///
    /// # Errors
    ///
    /// If the interval is no whole number of milliseconds, or none.
    pub fn after_end(interval: Duration) -> Result<Self, Fault> {
        checked(interval).map(Self::AfterEnd)
    }

    /// In plain English.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Schedule(schedule) => schedule.describe(),
            Self::FromStart(interval) => {
                format!("every {}, counted from the start of the process", in_words(*interval))
            }
            Self::AfterEnd(interval) => format!("{} after the end of the run before", in_full(*interval)),
            Self::Event(Event::Start) => "when the process starts".to_owned(),
            Self::Event(Event::Stop) => "when the process stops".to_owned(),
            Self::Event(Event::Changed(path)) => format!("when `{}` changes", path.display()),
            Self::Event(Event::After(job)) => format!("when job `{job}` has run"),
        }
    }
}

/// With the number, even if that is 1.
fn in_full(interval: Duration) -> String {
    let said = in_words(interval);
    if said.starts_with(|first: char| first.is_ascii_digit()) { said } else { format!("1 {said}") }
}

impl From<Schedule> for Trigger {
    fn from(schedule: Schedule) -> Self {
        Self::Schedule(schedule)
    }
}

impl From<Event> for Trigger {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl FromStr for Trigger {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        let said = said.trim();
        let (word, rest) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
        let rest = rest.trim();
        let event = |event| Ok(Self::Event(event));
        match (word, rest) {
            ("at", "start") => event(Event::Start),
            ("at", "stop") => event(Event::Stop),
            ("when", rest) => {
                let path = rest.strip_suffix("changes").filter(|path| path.ends_with(char::is_whitespace));
                let path = path.map(str::trim).filter(|path| !path.is_empty());
                event(Event::Changed(path.ok_or_else(|| Fault::Event(said.to_owned()))?.into()))
            }
            ("after", rest) if rest == "job" || rest.starts_with("job ") => {
                let name = rest["job".len()..].trim();
                if name.is_empty() {
                    return Err(Fault::Event(said.to_owned()));
                }
                event(Event::After(name.to_owned()))
            }
            ("after", rest) if !rest.is_empty() => Self::after_end(interval(rest)?),
            ("every", rest) => match rest.strip_suffix("from start") {
                Some(every) => Self::from_start(interval(every.trim())?),
                None => said.parse().map(Self::Schedule),
            },
            _ => said.parse().map(Self::Schedule),
        }
    }
}

/// Prints what parses back to the same trigger, unless its schedule can only be typed.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schedule(schedule) => schedule.fmt(f),
            Self::FromStart(interval) => write!(f, "every {} from start", in_short(*interval)),
            Self::AfterEnd(interval) => write!(f, "after {}", in_short(*interval)),
            Self::Event(Event::Start) => f.write_str("at start"),
            Self::Event(Event::Stop) => f.write_str("at stop"),
            Self::Event(Event::Changed(path)) => write!(f, "when {} changes", path.display()),
            Self::Event(Event::After(job)) => write!(f, "after job {job}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn triggers_are_said_and_described() {
        let secs = Duration::from_secs;
        for (said, trigger, described) in [
            ("every 4s", Schedule::every(secs(4)).expect("an interval").into(), "every 4 seconds"),
            (
                "every 90s from start",
                Trigger::FromStart(secs(90)),
                "every 1 minute 30 seconds, counted from the start of the process",
            ),
            ("after 4s", Trigger::AfterEnd(secs(4)), "4 seconds after the end of the run before"),
            ("after minute", Trigger::AfterEnd(secs(60)), "1 minute after the end of the run before"),
            ("at start", Event::Start.into(), "when the process starts"),
            ("at  stop", Event::Stop.into(), "when the process stops"),
            (
                "when my list.csv changes",
                Event::Changed("my list.csv".into()).into(),
                "when `my list.csv` changes",
            ),
            ("after job my job", Event::After("my job".into()).into(), "when job `my job` has run"),
        ] {
            let parsed: Trigger = said.parse().unwrap_or_else(|fault| panic!("{said}: {fault}"));
            assert_eq!((&parsed, &*parsed.describe()), (&trigger, described), "{said}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{said} printed and parsed again");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (said, message) in [
            ("when changes", "`when changes` does not say what; say `when FILE changes` or `after job NAME`"),
            (
                "when a exists",
                "`when a exists` does not say what; say `when FILE changes` or `after job NAME`",
            ),
            ("after job", "`after job` does not say what; say `when FILE changes` or `after job NAME`"),
            ("after x", "`x` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("after 0s", "an interval is a whole number of milliseconds, at least 1ms"),
            ("every 4x from start", "`4x` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("aftre 4s", "it begins with no known word; did you mean `after …`?"),
        ] {
            assert_eq!(said.parse::<Trigger>().map_err(|fault| fault.to_string()), Err(message.to_owned()));
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(said in "(every|after|at|when|after job)? ?[ -~]{0,20}( from start| changes)?") {
            if let Ok(trigger) = said.parse::<Trigger>() {
                prop_assert_eq!(trigger.to_string().parse(), Ok(trigger));
            }
        }
    }
}
