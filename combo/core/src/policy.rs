//! What a job wants done when things do not go as planned. Values only.
//!
//! | what | default |
//! | --- | --- |
//! | it is due while it runs: [`Overlap`] | skipped; for a trigger that is an event, once more afterwards |
//! | its time went by: [`Missed`] | all merged into one late run |
//! | it takes too long | no limit; 5 s from being told to being cut |
//! | it fails: [`Retry`] | the next tick is the next attempt |
//! | it keeps failing: [`AfterFailures`] | nothing |
//! | many jobs are due at one instant | no jitter |
//! | the combo stops: [`OnDrain`] | it is waited for |

use std::{fmt, time::Duration};

use crate::{hash::stable_hash, trigger::Trigger};

/// How long a task may take to end after it was told to.
pub const GRACE: Duration = Duration::from_secs(5);

/// How late a tick may be before it counts as missed under [`Missed::Skip`].
pub const PUNCTUAL: Duration = Duration::from_secs(1);

/// The most missed ticks that are run one after the other.
pub const MOST_MISSED: u32 = 1_000;

/// What becomes of a tick that is due while the one before it still runs. One that waits for its next
/// attempt runs, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// One waits until the other has ended: the latest. Those before it are skipped.
    Queue,
    /// So many run at once; then it is skipped.
    Allow(u32),
}

/// What becomes of ticks whose time went by without a run. There is one rule, whatever the reason: the
/// process was not running, the machine was asleep, the clock was put forward, the job was paused, or
/// there were more jobs than may run at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// They are merged into one run, for the latest of them.
    #[default]
    Merge,
    /// Nothing runs that is more than a second late.
    Skip,
    /// All run, one after the other, but only the last so many (at most 1,000).
    All(u32),
}

/// How often, and when, a tick that has failed or timed out is tried again. All attempts are one tick. A
/// tick that was refused or cancelled is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// How many attempts there may be after the first.
    pub times: u32,
    /// How long after the end of the first attempt the second begins. Each wait is twice as long as the
    /// one before it.
    pub first: Duration,
    /// No wait is longer.
    pub longest: Duration,
}

impl Retry {
    /// So many attempts after the first: after 1 s, 2 s, 4 s and so on, at most 5 min.
    #[must_use]
    pub const fn times(times: u32) -> Self {
        Self { times, first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }

    /// With other waits: the first, and the longest.
    #[must_use]
    pub const fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// How long after the end of this attempt, which is 1 or more, the next begins; `None` if there is none.
    #[must_use]
    pub fn wait(&self, attempt: u32) -> Option<Duration> {
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        (attempt <= self.times).then(|| self.first.saturating_mul(doubled).min(self.longest))
    }
}

/// What is done when so many ticks in a row have failed or timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AfterFailures {
    /// The job is paused until somebody resumes it or the process is started again; and an alert.
    Pause,
    /// An alert: an error in the log, and the deployment's own `on_alert`. It goes on.
    Alert,
}

/// What becomes of a task that runs when the combo stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDrain {
    /// It is waited for, up to the end of the drain's budget.
    #[default]
    Finish,
    /// It is told to end at once.
    Cancel,
}

/// All of a job's policies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policies {
    /// Nothing said: [`Overlap::Skip`], or [`Overlap::Queue`] where the trigger is an event.
    pub overlap: Option<Overlap>,
    /// Ticks whose time went by.
    pub missed: Missed,
    /// How long one attempt may take until its task is told to end.
    pub limit: Option<Duration>,
    /// How long it may take from there until it is cut.
    pub grace: Duration,
    /// Further attempts.
    pub retry: Option<Retry>,
    /// Every tick is started so much later than due, by a part of this that is always the same for one job
    /// on one host.
    pub jitter: Duration,
    /// So many failures in a row, and what then.
    pub failures: Option<(u32, AfterFailures)>,
    /// When the combo stops.
    pub on_drain: OnDrain,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            overlap: None,
            missed: Missed::default(),
            limit: None,
            grace: GRACE,
            retry: None,
            jitter: Duration::ZERO,
            failures: None,
            on_drain: OnDrain::default(),
        }
    }
}

impl Policies {
    /// What cannot be meant, a sentence each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let zero = |it: Option<Duration>| it.is_some_and(|it| it.is_zero());
        let faults = [
            (self.overlap == Some(Overlap::Allow(0)), "it allows 0 at once, so it would never run"),
            (self.missed == Missed::All(0), "it runs the last 0 missed ticks; say `Missed::Skip`"),
            (
                matches!(self.missed, Missed::All(n) if n > MOST_MISSED),
                "it runs more than the last 1000 missed ticks",
            ),
            (zero(self.limit), "its time limit is nothing"),
            (self.retry.is_some_and(|retry| retry.times == 0), "it is tried again 0 times"),
            (
                self.retry.is_some_and(|retry| retry.longest < retry.first),
                "the longest wait between attempts is shorter than the first",
            ),
            (self.failures.is_some_and(|(n, _)| n == 0), "it is to have failed 0 times"),
        ];
        faults.into_iter().filter(|(is, _)| *is).map(|(_, said)| said.to_owned()).collect()
    }

    /// What becomes of a tick that overlaps, if that is not said: for an event it waits, else it is skipped.
    #[must_use]
    pub fn overlap(&self, trigger: &Trigger) -> Overlap {
        let usual = if matches!(trigger, Trigger::Event(_)) { Overlap::Queue } else { Overlap::Skip };
        self.overlap.unwrap_or(usual)
    }

    /// How long after each due instant a job of this name is started on this host, in whole milliseconds.
    #[must_use]
    pub fn offset(&self, job: &str, host: &str) -> Duration {
        let most = u64::try_from(self.jitter.as_millis()).unwrap_or(u64::MAX);
        let hash = stable_hash(host.bytes().chain([0]).chain(job.bytes()));
        // Its low bits alone are poor.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        Duration::from_millis(mixed.checked_rem(most).unwrap_or_default())
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skipped if it is due while it runs"),
            Self::Queue => f.write_str("once more afterwards if it is due while it runs"),
            Self::Allow(most) => write!(f, "up to {most} at once"),
        }
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Merge => f.write_str("missed ticks are merged into one late run"),
            Self::Skip => f.write_str("missed ticks are skipped"),
            Self::All(most) => write!(f, "the last {most} missed ticks are run"),
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, first, longest } = self;
        write!(f, "tried again up to {times} times, after {first:?} and then twice as long each time")?;
        if self.wait(*times).is_some_and(|wait| wait >= *longest) {
            write!(f, ", at most {longest:?}")?;
        }
        Ok(())
    }
}

impl fmt::Display for AfterFailures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "paused",
            Self::Alert => "an alert",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::times(5).backoff(secs(1), secs(5));
        let waits: Vec<_> = (1..=6).map(|attempt| retry.wait(attempt)).collect();
        assert_eq!(waits, [Some(secs(1)), Some(secs(2)), Some(secs(4)), Some(secs(5)), Some(secs(5)), None]);
        assert_eq!(Retry::times(u32::MAX).wait(1_000), Some(secs(300)));
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let policies = Policies {
            overlap: Some(Overlap::Allow(0)),
            missed: Missed::All(0),
            limit: Some(Duration::ZERO),
            retry: Some(Retry::times(0).backoff(secs(2), secs(1))),
            failures: Some((0, AfterFailures::Pause)),
            ..Policies::default()
        };
        assert_eq!(
            policies.faults(),
            [
                "it allows 0 at once, so it would never run",
                "it runs the last 0 missed ticks; say `Missed::Skip`",
                "its time limit is nothing",
                "it is tried again 0 times",
                "the longest wait between attempts is shorter than the first",
                "it is to have failed 0 times",
            ]
        );
        let policies = Policies { missed: Missed::All(1_001), ..Policies::default() };
        assert_eq!(policies.faults(), ["it runs more than the last 1000 missed ticks"]);
        assert!(Policies::default().faults().is_empty());
    }

    #[test]
    fn jitter_is_spread_and_always_the_same() {
        let policies = Policies { jitter: secs(60), ..Policies::default() };
        assert_eq!(policies.offset("clock", "a"), policies.offset("clock", "a"));
        let offsets: HashSet<_> = (0..100).map(|n| policies.offset(&format!("job-{n}"), "a")).collect();
        assert!(offsets.len() > 95 && offsets.iter().all(|offset| *offset < secs(60)), "{offsets:?}");
        let early = offsets.iter().filter(|offset| **offset < secs(30)).count();
        assert!((30..70).contains(&early), "{early}");
        let hosts: HashSet<_> = (0..100).map(|n| policies.offset("clock", &format!("host-{n}"))).collect();
        assert!(hosts.len() > 95, "{hosts:?}");
        assert_eq!(Policies::default().offset("clock", "a"), Duration::ZERO);
    }

    #[test]
    fn policies_are_said_in_words() {
        for (said, expected) in [
            (Overlap::Skip.to_string(), "skipped if it is due while it runs"),
            (Overlap::Queue.to_string(), "once more afterwards if it is due while it runs"),
            (Overlap::Allow(3).to_string(), "up to 3 at once"),
            (Missed::Merge.to_string(), "missed ticks are merged into one late run"),
            (Missed::Skip.to_string(), "missed ticks are skipped"),
            (Missed::All(5).to_string(), "the last 5 missed ticks are run"),
            (
                Retry::times(2).to_string(),
                "tried again up to 2 times, after 1s and then twice as long each time",
            ),
            (
                Retry::times(4).backoff(secs(1), secs(5)).to_string(),
                "tried again up to 4 times, after 1s and then twice as long each time, at most 5s",
            ),
        ] {
            assert_eq!(said, expected);
        }
    }
}
