//! When: a schedule gives the next instant after a given one. Pure; no clock is read here.
//!
//! | schedule | due |
//! | --- | --- |
//! | `every 4s` | on a grid of four seconds that is aligned to the epoch, so a restart does not shift it |
//! | `every 1h30m`, `every 250ms`, `every minute` | units ms, s, m, h, d (24 h) and their names |
//! | `cron 30 3 * * *` | classic cron: minute, hour, day of month, month, day of week |
//! | `cron */5 * * * * *` | six fields: seconds first; seven: and a year last |
//! | `cron 0 10 * * MON in Europe/Berlin` | in a time zone; UTC unless said |
//! | `cron @daily` | nicknames |
//!
//! Where both days are restricted either matches, as in classic cron. A time in the gap of a clock
//! change runs right after it; `cron` is evaluated by the `croner` crate.

use std::{fmt, str::FromStr, time::Duration};

use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::{Timestamp, tz::TimeZone};

/// The shortest interval: one millisecond.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// The most due instants that are counted one by one when a job is late; see [`Late`].
const COUNTED: u64 = 1_000;

/// When a job is due.
#[derive(Clone, Debug)]
pub struct Schedule(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// On a grid aligned to the epoch.
    Every(Duration),
    /// At matching wall-clock times.
    Cron { cron: Box<Cron>, zone: TimeZone, said: Box<str> },
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It begins with no known word.
    Unknown,
    /// This is not a duration.
    Interval(String),
    /// The interval is no whole number of milliseconds, or none.
    NotMilliseconds,
    /// This is not a time zone.
    Zone(String),
    /// The cron expression is wrong.
    Cron(String),
    /// No instant matches.
    Never,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str(
                "it begins with neither `every` nor `cron`, as in `every 4s` or `cron 30 3 * * *`",
            ),
            Self::Interval(said) => {
                write!(f, "`{said}` is not an interval, such as 4s, 250ms, 1h30m or minute")
            }
            Self::NotMilliseconds => {
                f.write_str("an interval is a whole number of milliseconds, at least 1ms")
            }
            Self::Zone(said) => write!(f, "`{said}` is not a time zone, such as Europe/Berlin"),
            Self::Cron(why) => f.write_str(why),
            Self::Never => f.write_str("no instant ever matches it"),
        }
    }
}

impl std::error::Error for Fault {}

/// Due instants that have passed without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// The last of them.
    pub latest: Timestamp,
    /// How many there are. A cron schedule counts at most 1,000.
    pub count: u64,
}

/// Due instants that have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The last of them, ascending.
    pub last: Vec<Timestamp>,
    /// How many.
    pub count: u64,
    /// Whether there are no more than that.
    pub exact: bool,
}

impl Schedule {
    /// Every so often, on a grid aligned to the epoch.
    ///
    /// # Errors
    ///
    /// If the interval is no whole number of milliseconds, or none.
    pub fn every(interval: Duration) -> Result<Self, Fault> {
        let whole = interval >= SHORTEST && interval.subsec_nanos().is_multiple_of(1_000_000);
        if whole { Ok(Self(Kind::Every(interval))) } else { Err(Fault::NotMilliseconds) }
    }

    /// At the wall-clock times that match a cron expression, in UTC.
    ///
    /// # Errors
    ///
    /// If the expression is wrong or never matches.
    pub fn cron(expression: &str) -> Result<Self, Fault> {
        Self::cron_in(expression, TimeZone::UTC)
    }

    /// At the wall-clock times in `zone` that match a cron expression.
    ///
    /// # Errors
    ///
    /// If the expression is wrong or never matches.
    pub fn cron_in(expression: &str, zone: TimeZone) -> Result<Self, Fault> {
        Self::parse_cron(expression, zone, CronParser::builder().seconds(Seconds::Optional).build())
    }

    /// At the times at which a `tokio_cron_scheduler` job with this expression is due: seconds are
    /// required, and where both days are restricted both have to match.
    ///
    /// # Errors
    ///
    /// If the expression is wrong or never matches.
    pub fn hosted_cron(expression: &str, zone: TimeZone) -> Result<Self, Fault> {
        let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
        Self::parse_cron(expression, zone, parser)
    }

    fn parse_cron(expression: &str, zone: TimeZone, parser: CronParser) -> Result<Self, Fault> {
        let cron = parser.parse(expression).map_err(|error| Fault::Cron(sentence(&error.to_string())))?;
        let said = match zone.iana_name() {
            Some(name) if zone != TimeZone::UTC => format!("cron {expression} in {name}"),
            _ => format!("cron {expression}"),
        };
        let schedule = Self(Kind::Cron { cron: Box::new(cron), zone, said: said.into() });
        // Any instant will do to find out whether a later one matches; the year field starts at 1970.
        schedule.next_after(Timestamp::UNIX_EPOCH).map(|_| schedule).ok_or(Fault::Never)
    }

    /// The first due instant strictly after the given one; `None` if there is none any more.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(interval) => {
                let step = nanoseconds(*interval);
                let cell = after.as_nanosecond().div_euclid(step);
                Timestamp::from_nanosecond((cell + 1) * step).ok()
            }
            Kind::Cron { cron, zone, .. } => {
                let next = cron.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
                Some(next.timestamp())
            }
        }
    }

    /// Stand-in.
    #[must_use]
    pub fn clock_changes(&self, _: Timestamp, _: Timestamp) -> Vec<String> {
        vec!["on 2027-03-28".into()]
    }

    /// Stand-in.
    #[must_use]
    pub fn passed(&self, due: Timestamp, now: Timestamp, most: usize) -> Passed {
        let mut passed = Passed { last: Vec::new(), count: 0, exact: true };
        let mut next = Some(due).filter(|due| *due <= now);
        while let Some(due) = next {
            passed.last.push(due);
            if passed.last.len() > most {
                drop(passed.last.remove(0));
            }
            passed.count += 1;
            next = self.next_after(due).filter(|due| *due <= now);
        }
        passed
    }

    /// The due instants from `due`, which is one, up to and with `now`: none if `due` lies ahead.
    #[must_use]
    pub fn late(&self, due: Timestamp, now: Timestamp) -> Option<Late> {
        if due > now {
            return None;
        }
        match &self.0 {
            Kind::Every(interval) => {
                let step = nanoseconds(*interval);
                let steps = (now.as_nanosecond() - due.as_nanosecond()) / step;
                let latest = Timestamp::from_nanosecond(due.as_nanosecond() + steps * step).ok()?;
                Some(Late { latest, count: u64::try_from(steps).unwrap_or(u64::MAX).saturating_add(1) })
            }
            Kind::Cron { cron, zone, .. } => {
                let mut late = Late { latest: due, count: 1 };
                while let Some(next) = self.next_after(late.latest).filter(|next| *next <= now) {
                    late = Late { latest: next, count: late.count + 1 };
                    if late.count == COUNTED {
                        let last = cron.find_previous_occurrence(&now.to_zoned(zone.clone()), true);
                        late.latest = last.map_or(late.latest, |last| last.timestamp());
                        break;
                    }
                }
                Some(late)
            }
        }
    }
}

fn nanoseconds(interval: Duration) -> i128 {
    i128::try_from(interval.as_nanos()).unwrap_or(i128::MAX >> 1)
}

/// A foreign message in the style of ours: lower case, no full stop.
fn sentence(message: &str) -> String {
    let message = message.trim_end_matches('.');
    let mut characters = message.chars();
    characters.next().map_or(String::new(), |first| first.to_lowercase().chain(characters).collect())
}

/// Two schedules are equal if they are said alike.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Every(a), Kind::Every(b)) => a == b,
            (Kind::Cron { said: a, .. }, Kind::Cron { said: b, .. }) => a == b,
            (Kind::Every(_), Kind::Cron { .. }) | (Kind::Cron { .. }, Kind::Every(_)) => false,
        }
    }
}

impl FromStr for Schedule {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        let (word, rest) = said.trim().split_once(char::is_whitespace).ok_or(Fault::Unknown)?;
        let rest = rest.trim();
        match word {
            "every" => Self::every(interval(rest)?),
            "cron" => match rest.rsplit_once(" in ") {
                None => Self::cron(rest),
                Some((expression, name)) => {
                    let zone = TimeZone::get(name.trim()).map_err(|_| Fault::Zone(name.trim().to_owned()))?;
                    Self::cron_in(expression.trim(), zone)
                }
            },
            _ => Err(Fault::Unknown),
        }
    }
}

/// `4s`, `1h30m`, `4 seconds`, `minute`.
fn interval(said: &str) -> Result<Duration, Fault> {
    let fault = || Fault::Interval(said.to_owned());
    if let Some(one) = unit(said) {
        return Ok(one);
    }
    let (mut total, mut rest) = (Duration::ZERO, said);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?);
        let after = after.trim_start();
        let (name, after) =
            after.split_at(after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len()));
        let number: u32 = number.parse().map_err(|_| fault())?;
        let part = unit(name).and_then(|one| one.checked_mul(number)).ok_or_else(fault)?;
        total = total.checked_add(part).ok_or_else(fault)?;
        rest = after.trim_start();
    }
    if said.is_empty() { Err(fault()) } else { Ok(total) }
}

fn unit(name: &str) -> Option<Duration> {
    Some(match name {
        "ms" | "millisecond" | "milliseconds" => Duration::from_millis(1),
        "s" | "sec" | "second" | "seconds" => Duration::from_secs(1),
        "m" | "min" | "minute" | "minutes" => Duration::from_secs(60),
        "h" | "hour" | "hours" => Duration::from_secs(3_600),
        "d" | "day" | "days" => Duration::from_secs(86_400),
        _ => return None,
    })
}

/// Prints what parses back to the same schedule.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let interval = match &self.0 {
            Kind::Every(interval) => *interval,
            Kind::Cron { said, .. } => return f.write_str(said),
        };
        f.write_str("every ")?;
        let mut left = interval.as_millis();
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if left >= unit {
                write!(f, "{}{name}", left / unit)?;
                left %= unit;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    fn check(said: &str, after: &str, next: &[&str]) {
        let schedule: Schedule = said.parse().unwrap_or_else(|fault| panic!("{said}: {fault}"));
        let mut now = at(after);
        for expected in next {
            now = schedule.next_after(now).unwrap_or_else(|| panic!("{said}: nothing after {now}"));
            assert_eq!(now, at(expected), "{said}");
        }
        assert_eq!(schedule.to_string().parse(), Ok(schedule), "{said} printed and parsed again");
    }

    #[test]
    fn schedules_say_when() {
        let noon = "2026-11-22T12:00:00Z";
        check("every 4s", noon, &["2026-11-22T12:00:04Z", "2026-11-22T12:00:08Z"]);
        check("every 4 seconds", "2026-11-22T12:00:03.999Z", &["2026-11-22T12:00:04Z"]);
        check("every 7s", "1970-01-01T00:00:00Z", &["1970-01-01T00:00:07Z"]);
        check("every 1h30m", noon, &["2026-11-22T13:30:00Z"]);
        check("every 250ms", noon, &["2026-11-22T12:00:00.25Z"]);
        check("every minute", "2026-11-22T12:00:30Z", &["2026-11-22T12:01:00Z"]);
        check("cron 30 3 * * *", noon, &["2026-11-23T03:30:00Z", "2026-11-24T03:30:00Z"]);
        check("cron */20 * * * * *", noon, &["2026-11-22T12:00:20Z", "2026-11-22T12:00:40Z"]);
        check("cron @hourly", noon, &["2026-11-22T13:00:00Z"]);
        // Either day field matches: the 1st, and Mondays.
        check(
            "cron 0 0 1 * MON",
            noon,
            &["2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z", "2026-12-01T00:00:00Z"],
        );
        // The hour from 2 to 3 does not exist on 28 March 2027 in Berlin, and comes twice on 25 October 2026.
        check(
            "cron 30 2 * * * in Europe/Berlin",
            "2027-03-27T02:00:00Z",
            &["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"],
        );
        check(
            "cron 30 2 * * * in Europe/Berlin",
            "2026-10-24T02:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        );
    }

    #[test]
    fn both_days_have_to_match_in_a_hosted_schedule() {
        let schedule = Schedule::hosted_cron("0 0 0 1 * MON", TimeZone::UTC).expect("an expression");
        assert_eq!(schedule.next_after(at("2026-11-22T12:00:00Z")), Some(at("2027-02-01T00:00:00Z")));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (said, message) in [
            ("", "it begins with neither `every` nor `cron`, as in `every 4s` or `cron 30 3 * * *`"),
            ("4s", "it begins with neither `every` nor `cron`, as in `every 4s` or `cron 30 3 * * *`"),
            ("every", "it begins with neither `every` nor `cron`, as in `every 4s` or `cron 30 3 * * *`"),
            ("every 4", "`4` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("every 4x", "`4x` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("every -4s", "`-4s` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("every 99999999999d", "`99999999999d` is not an interval, such as 4s, 250ms, 1h30m or minute"),
            ("every 0s", "an interval is a whole number of milliseconds, at least 1ms"),
            ("cron 0 0 1 1 * in Mars/Base", "`Mars/Base` is not a time zone, such as Europe/Berlin"),
            ("cron 0 0 30 2 *", "no instant ever matches it"),
        ] {
            assert_eq!(
                said.parse::<Schedule>().map_err(|fault| fault.to_string()),
                Err(message.to_owned()),
                "{said}"
            );
        }
        for said in ["cron", "cron x", "cron 61 * * * *", "cron * * *"] {
            assert!(said.parse::<Schedule>().is_err(), "{said}");
        }
    }

    #[test]
    fn late_instants_are_counted() {
        let (noon, later) = (at("2026-11-22T12:00:00Z"), at("2026-11-22T12:01:01Z"));
        for (said, latest, count) in [
            ("every 4s", "2026-11-22T12:01:00Z", 16),
            ("cron */4 * * * * *", "2026-11-22T12:01:00Z", 16),
            ("every 1h", "2026-11-22T12:00:00Z", 1),
        ] {
            let schedule: Schedule = said.parse().expect("a schedule");
            assert_eq!(schedule.late(noon, later), Some(Late { latest: at(latest), count }), "{said}");
        }
        let every: Schedule = "every 4s".parse().expect("a schedule");
        assert_eq!(every.late(later, noon), None);
        let cron: Schedule = "cron * * * * * *".parse().expect("a schedule");
        let next_day = at("2026-11-23T12:00:00Z");
        assert_eq!(cron.late(noon, next_day), Some(Late { latest: next_day, count: COUNTED }));
    }

    proptest! {
        #[test]
        fn the_next_instant_is_later_and_on_the_grid(ms in 1_u64..100_000_000, after in 0_i64..4_000_000_000_000) {
            let schedule = Schedule::every(Duration::from_millis(ms)).expect("long enough");
            let after = Timestamp::from_millisecond(after).expect("in range");
            let next = schedule.next_after(after).expect("a next");
            prop_assert!(next > after);
            prop_assert_eq!(next.as_millisecond() as u64 % ms, 0);
            prop_assert!((next.as_millisecond() - after.as_millisecond()) as u64 <= ms);
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }

        #[test]
        fn any_text_parses_or_is_refused(said in "(every|cron)? ?[ -~]{0,30}") {
            let _ = said.parse::<Schedule>();
        }
    }
}
