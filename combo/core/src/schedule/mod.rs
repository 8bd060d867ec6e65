//! When: a schedule gives the next instant after a given one, by the wall clock. Pure; no clock is read here.
//!
//! | schedule | due |
//! | --- | --- |
//! | `every 4s` | on a grid of four seconds that is aligned to the epoch, so a restart does not shift it |
//! | `every 1h30m`, `every 250ms`, `every minute` | units ms, s, m, h, d (24 h) and their names |
//! | `daily at 03:30 in Europe/Berlin` | in a time zone; UTC unless said |
//! | `daily at 03:30 in +05:30` | at a fixed offset from UTC |
//! | `daily at 06:00, 18:00:30` | several times; seconds, too |
//! | `weekdays at 09:00`, `weekends at 09:00` | Monday to Friday, Saturday and Sunday |
//! | `mondays, thursdays at 10:00` | on these days of the week |
//! | `monthly on the 1st, 15th at 04:00` | on these days of the month; one that a month does not have is left out |
//! | `monthly on the last day at 04:00` | also `the first monday`, `the last friday` |
//! | `once 2026-12-01T00:00:00Z` | then and never again; also `once 2026-12-01 09:00 in Europe/Berlin` |
//! | `cron 30 3 * * *` | classic cron: minute, hour, day of month, month, day of week |
//! | `cron */5 * * * * *` | six fields: seconds first; seven: and a year last |
//! | `cron 0 10 * * MON in Europe/Berlin` | names, ranges, steps, lists, `L`, `W`, `#`; in a time zone |
//! | `cron @daily` | nicknames |
//!
//! Where cron restricts both days either matches, as in classic cron. Typed schedules can be combined:
//! [`or`](Schedule::or), [`and`](Schedule::and), [`except`](Schedule::except), [`from`](Schedule::from),
//! [`until`](Schedule::until), [`at_most`](Schedule::at_most).
//!
//! **When clocks change**: a time in the gap of a clock change is due right after it; several of them are one
//! instant. A time that comes twice is due the first time. What is due every so often does not care; a cron
//! expression whose hour is `*` is of that kind: it follows the clock through both passes, and what is not there is
//! left out.

mod calendar;
mod fields;
mod wall;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::{Timestamp, civil::DateTime, fmt::temporal::DateTimeParser, tz::TimeZone};

use self::{calendar::Calendar, wall::Wall};
use crate::near::nearest;

/// The shortest interval: one millisecond.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// The most due instants that are counted one by one when a job is late; see [`Passed`].
const COUNTED: u64 = 100_000;

/// The most instants that are looked at when a combined schedule is built, to find out whether it is ever due.
const PROBED: usize = 4_000;

/// In how many places, some 400 days, 7 hours and 13 minutes apart, from 1970 on.
const PLACES: usize = 40;

/// The most instants that are looked at for the next one: more than three weeks of seconds.
const APART: usize = 2_000_000;

/// The most instants of [`Schedule::at_most`].
pub const MOST_TIMES: u64 = 10_000;

/// When a job is due. Small, and cheap to clone.
#[derive(Clone, Debug)]
pub struct Schedule(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// On a grid aligned to the epoch.
    Every(Duration),
    Once(Timestamp),
    /// At times of a wall clock.
    Wall(Arc<Walls>),
    Or(Arc<(Schedule, Schedule)>),
    And(Arc<(Schedule, Schedule)>),
    Except(Arc<(Schedule, Schedule)>),
    /// Not before the first, not after the second.
    Within(Arc<(Schedule, Timestamp, Timestamp)>),
}

#[derive(Debug)]
struct Walls {
    walls: Vec<Wall>,
    zone: TimeZone,
    /// Whether both days have to match.
    hosted: bool,
    /// In normal form.
    said: Box<str>,
    described: Box<str>,
}

/// What is wrong with a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It begins with no known word.
    Unknown {
        /// As it was said.
        said: String,
    },
    /// This is not a duration.
    Interval(String),
    /// The interval is no whole number of milliseconds, or none.
    NotMilliseconds,
    /// This is not a time zone.
    Zone(String),
    /// This is not a time of day.
    Time(String),
    /// There is no time of day after these days.
    NoTime(String),
    /// This is not a day, or none was said.
    Day(String),
    /// This is not an instant.
    Instant(String),
    /// The cron expression is wrong.
    Cron(String),
    /// It does not say which file, or which job.
    Event(String),
    /// More instants are to be counted than anybody would.
    TooMany,
    /// No instant matches.
    Never,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { said } => unknown(said, f),
            Self::Interval(said) if said.contains(" at ") => write!(
                f,
                "`{said}` is not an interval; for a time of day say `daily at 03:30` or `mondays at 10:00`"
            ),
            Self::Interval(said) => {
                write!(f, "`{said}` is not an interval, such as 4s, 250ms, 1h30m or minute")
            }
            Self::NotMilliseconds => {
                f.write_str("an interval is a whole number of milliseconds, at least 1ms")
            }
            Self::Zone(said) => {
                write!(f, "`{said}` is not a time zone, such as Europe/Berlin")?;
                let known =
                    jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
                let city = |name: &&String| {
                    name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(said))
                };
                let near = known.iter().find(city).map(String::as_str);
                match near.or_else(|| nearest(said, known.iter().map(String::as_str))) {
                    Some(near) => write!(f, "; did you mean `{near}`?"),
                    None => Ok(()),
                }
            }
            Self::Time(said) => write!(f, "`{said}` is not a time of day, such as 03:30 or 18:00:15"),
            Self::NoTime(said) => write!(f, "it says no time of day; say `{said} at 03:30`"),
            Self::Day(said) if said == "monthly" => f.write_str(
                "it says no day; say `monthly on the 1st at 04:00`, or `the last day`, or `the first monday`",
            ),
            Self::Day(said) => write!(
                f,
                "`{said}` is not a day, such as mondays, or with `monthly on` the 1st, the last day, the first monday"
            ),
            Self::Instant(said) => write!(
                f,
                "`{said}` is not an instant, such as 2026-12-01T00:00:00Z, or 2026-12-01 09:00 with a zone"
            ),
            Self::Cron(why) => f.write_str(why),
            Self::Event(said) => {
                write!(f, "`{said}` does not say what; say `when FILE changes` or `after job NAME`")
            }
            Self::TooMany => write!(f, "at most {MOST_TIMES} instants can be counted"),
            Self::Never => f.write_str("no instant ever matches it"),
        }
    }
}

fn unknown(said: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let word = said.split_whitespace().next().unwrap_or_default();
    let known = ["every", "cron", "once", "after", "when", "at"].into_iter().chain(calendar::BEGINNINGS);
    if [5, 6, 7].contains(&said.split_whitespace().count()) && fields::look_at(said, false).is_ok() {
        return write!(f, "it begins with no known word; did you mean `cron {said}`?");
    }
    if said.starts_with('@') {
        return write!(f, "it begins with no known word; did you mean `cron {said}`?");
    }
    match nearest(word, known) {
        Some(near) => write!(f, "it begins with no known word; did you mean `{near} …`?"),
        None => f.write_str(
            "it begins with no known word, as do `every 4s`, `daily at 03:30`, `mondays at 10:00`, \
             `monthly on the 1st at 04:00`, `once 2026-12-01T00:00:00Z`, `cron 30 3 * * *`, `after 4s`, `at start`, \
             `at stop`, `when FILE changes` and `after job NAME`",
        ),
    }
}

impl std::error::Error for Fault {}

/// Due instants that have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The last of them, ascending: as many as were asked for.
    pub last: Vec<Timestamp>,
    /// How many there are.
    pub count: u64,
    /// Whether there are no more: what cannot be computed is counted, up to 100,000.
    pub exact: bool,
}

/// What a clock change does to a schedule: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockChange {
    /// A time is not there, and due right after the gap.
    Gap {
        /// The time.
        time: DateTime,
        /// Where.
        zone: String,
        /// What the clock says then.
        instead: DateTime,
    },
    /// A time is not there, and left out: it is of something like an interval.
    LeftOut {
        /// The time.
        time: DateTime,
        /// Where.
        zone: String,
    },
    /// A time comes twice and is due once.
    Once {
        /// The time.
        time: DateTime,
        /// Where.
        zone: String,
        /// When that is.
        first: Timestamp,
    },
    /// A time comes twice and is due both times: it is of something like an interval.
    Both {
        /// The time.
        time: DateTime,
        /// Where.
        zone: String,
    },
}

impl fmt::Display for ClockChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Gap { time, zone, .. }
        | Self::LeftOut { time, zone }
        | Self::Once { time, zone, .. }
        | Self::Both { time, zone }) = self;
        let (day, at) = (time.date(), said_time(*time));
        match self {
            Self::Gap { instead, .. } => write!(
                f,
                "on {day} {at} does not exist in {zone}: due right after the gap, at {}",
                said_time(*instead)
            ),
            Self::LeftOut { .. } => write!(f, "on {day} {at} does not exist in {zone}: left out"),
            Self::Once { first, .. } => {
                write!(f, "on {day} {at} comes twice in {zone}: due the first time only, at {first}")
            }
            Self::Both { .. } => write!(f, "on {day} {at} comes twice in {zone}: due both times"),
        }
    }
}

fn said_time(time: DateTime) -> String {
    let form = if time.second() == 0 { "%H:%M" } else { "%H:%M:%S" };
    time.strftime(form).to_string()
}

impl Schedule {
    /// Every so often, on a grid aligned to the epoch.
    ///
    /// # Errors
    ///
    /// If the interval is no whole number of milliseconds, or none, or longer than time is counted.
    pub fn every(interval: Duration) -> Result<Self, Fault> {
        let every = Self(Kind::Every(checked(interval)?));
        every.next_after(Timestamp::UNIX_EPOCH).map(|_| every).ok_or(Fault::Never)
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
        Self::of_cron(expression, zone, false)
    }

    /// At the times at which a `tokio_cron_scheduler` job with this expression is due: seconds are
    /// required, and where both days are restricted both have to match.
    ///
    /// # Errors
    ///
    /// If the expression is wrong or never matches.
    pub fn hosted_cron(expression: &str, zone: TimeZone) -> Result<Self, Fault> {
        Self::of_cron(expression, zone, true)
    }

    fn of_cron(expression: &str, zone: TimeZone, hosted: bool) -> Result<Self, Fault> {
        let wall = Wall::parse(expression, hosted)?;
        let words = expression.split_whitespace().collect::<Vec<_>>().join(" ");
        let described = wall.describe();
        Self::on_wall(vec![wall], zone, hosted, format!("cron {words}"), described)
    }

    /// Every day at this time, or these: `"03:30"`, `"06:00, 18:00"`.
    ///
    /// # Errors
    ///
    /// If it is no time of day.
    pub fn daily(times: &str, zone: TimeZone) -> Result<Self, Fault> {
        Self::on_days("daily", times, zone)
    }

    /// On these days, in the words of the string form (`"weekdays"`, `"mondays, thursdays"`,
    /// `"monthly on the 1st"`), at this time, or these.
    ///
    /// # Errors
    ///
    /// If these are no days, or these no times of day, or there is no such day.
    pub fn on_days(days: &str, times: &str, zone: TimeZone) -> Result<Self, Fault> {
        Self::of_calendar(&format!("{days} at {times}"), zone)
    }

    fn of_calendar(said: &str, zone: TimeZone) -> Result<Self, Fault> {
        let calendar = Calendar::parse(said)?;
        let (walls, described) = (calendar.walls()?, calendar.describe());
        Self::on_wall(walls, zone, false, calendar.to_string(), described)
    }

    /// Then, and never again. Whether that has passed is no fault.
    #[must_use]
    pub fn once(at: Timestamp) -> Self {
        Self(Kind::Once(at))
    }

    fn on_wall(
        walls: Vec<Wall>,
        zone: TimeZone,
        hosted: bool,
        said: String,
        described: String,
    ) -> Result<Self, Fault> {
        let name = match zone.to_fixed_offset() {
            Ok(offset) if zone.iana_name().is_none() => Some(offset.to_string()),
            _ => zone.iana_name().map(str::to_owned),
        };
        let (said, described) = match name {
            _ if zone == TimeZone::UTC => (said, format!("{described} UTC")),
            Some(name) => (format!("{said} in {name}"), format!("{described}, {name} time")),
            None => (said, described),
        };
        let walls = Walls { walls, zone, hosted, said: said.into(), described: described.into() };
        let schedule = Self(Kind::Wall(Arc::new(walls)));
        // The year field starts with that instant.
        schedule.at_or_after(Timestamp::UNIX_EPOCH).map(|_| schedule).ok_or(Fault::Never)
    }

    /// When this is due or the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(Kind::Or(Arc::new((self, other))))
    }

    /// When both are due at one instant.
    ///
    /// # Errors
    ///
    /// If that is never, as far as some thousands of their instants tell, in many places of the calendar.
    pub fn and(self, other: Self) -> Result<Self, Fault> {
        Self(Kind::And(Arc::new((self, other)))).ever()
    }

    /// When this is due and the other is not.
    ///
    /// # Errors
    ///
    /// If that is never, as far as some thousands of their instants tell, in many places of the calendar.
    pub fn except(self, other: Self) -> Result<Self, Fault> {
        Self(Kind::Except(Arc::new((self, other)))).ever()
    }

    /// Not before this instant.
    ///
    /// # Errors
    ///
    /// If it is never due from there on.
    pub fn from(self, first: Timestamp) -> Result<Self, Fault> {
        self.within(first, Timestamp::MAX)
    }

    /// Not after this instant.
    ///
    /// # Errors
    ///
    /// If it is never due up to there.
    pub fn until(self, last: Timestamp) -> Result<Self, Fault> {
        self.within(Timestamp::MIN, last)
    }

    /// Only the first so many instants after another.
    ///
    /// # Errors
    ///
    /// If that are none, or more than [`MOST_TIMES`].
    pub fn at_most(self, times: u64, since: Timestamp) -> Result<Self, Fault> {
        if times > MOST_TIMES {
            return Err(Fault::TooMany);
        }
        let mut last = None;
        for _ in 0..times {
            match self.next_after(last.unwrap_or(since)) {
                None => break,
                next => last = next,
            }
        }
        let first = self.next_after(since).ok_or(Fault::Never)?;
        self.within(first, last.ok_or(Fault::Never)?)
    }

    fn within(self, first: Timestamp, last: Timestamp) -> Result<Self, Fault> {
        Self(Kind::Within(Arc::new((self, first, last)))).ever()
    }

    /// Looks at length where something begins or ends, and shortly in many places, so that what rests for long or
    /// begins late is found to be due.
    fn ever(self) -> Result<Self, Fault> {
        let mut starts = vec![Timestamp::UNIX_EPOCH];
        self.bounds(&mut starts);
        starts.retain(|start| *start >= Timestamp::UNIX_EPOCH);
        starts.truncate(PLACES);
        let at_length = PROBED / 2 / starts.len();
        let far = jiff::SignedDuration::from_mins((400 * 24 + 7) * 60 + 13);
        let places = std::iter::successors(Some(Timestamp::UNIX_EPOCH + far), |place| Some(*place + far));
        let mut probes = starts.into_iter().map(|start| (start, at_length));
        let mut shortly = places.take(PLACES).map(|place| (place, PROBED / 2 / PLACES));
        let due = |(from, mut looks): (Timestamp, usize)| self.search_from(from, &mut looks).is_some();
        if probes.any(due) || shortly.any(due) { Ok(self) } else { Err(Fault::Never) }
    }

    /// The instants at which something in it begins or ends.
    fn bounds(&self, found: &mut Vec<Timestamp>) {
        match &self.0 {
            Kind::Every(_) | Kind::Wall(_) => {}
            Kind::Once(at) => found.push(*at),
            Kind::Or(both) | Kind::And(both) | Kind::Except(both) => {
                both.0.bounds(found);
                both.1.bounds(found);
            }
            Kind::Within(within) => {
                let (_, first, last) = &**within;
                found.extend(
                    [*first, *last].into_iter().filter(|at| ![Timestamp::MIN, Timestamp::MAX].contains(at)),
                );
                within.0.bounds(found);
            }
        }
    }

    /// The first due instant strictly after the given one; `None` if there is none any more.
    #[must_use]
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.search(after, &mut { APART })
    }

    /// The same, with an end: `looks` is how many instants of combined schedules are still looked at, and 0 afterwards
    /// if it was given up.
    fn search(&self, after: Timestamp, looks: &mut usize) -> Option<Timestamp> {
        match &self.0 {
            Kind::Every(interval) => {
                let step = nanoseconds(*interval);
                let cell = after.as_nanosecond().div_euclid(step);
                Timestamp::from_nanosecond((cell + 1) * step).ok()
            }
            Kind::Once(at) => Some(*at).filter(|at| *at > after),
            Kind::Wall(walls) => {
                walls.walls.iter().filter_map(|wall| wall.next_after(after, &walls.zone)).min()
            }
            Kind::Or(both) => {
                both.0.search(after, looks).into_iter().chain(both.1.search(after, looks)).min()
            }
            Kind::And(both) => {
                let (mut one, mut other) = (both.0.search(after, looks)?, both.1.search(after, looks)?);
                while one != other {
                    *looks = looks.checked_sub(1)?;
                    if one < other {
                        one = both.0.search_from(other, looks)?;
                    } else {
                        other = both.1.search_from(one, looks)?;
                    }
                }
                Some(one)
            }
            Kind::Except(both) => {
                let mut next = both.0.search(after, looks)?;
                let mut other = both.1.search_from(next, looks);
                loop {
                    if other.is_some_and(|other| other < next) {
                        other = both.1.search_from(next, looks);
                    }
                    // What was given up could have been there.
                    *looks = looks.checked_sub(1)?;
                    if other != Some(next) {
                        return Some(next);
                    }
                    next = both.0.search(next, looks)?;
                }
            }
            Kind::Within(bounds) => {
                let (schedule, first, last) = &**bounds;
                let next = if after < *first {
                    schedule.search_from(*first, looks)
                } else {
                    schedule.search(after, looks)
                };
                next.filter(|next| next <= last)
            }
        }
    }

    fn search_from(&self, instant: Timestamp, looks: &mut usize) -> Option<Timestamp> {
        self.search(just_before(instant), looks)
    }

    fn at_or_after(&self, instant: Timestamp) -> Option<Timestamp> {
        self.next_after(just_before(instant))
    }

    /// The due instants from `due`, which is one, up to and with `now`: how many there are, and of the last of them
    /// so many. None if `due` lies ahead.
    #[must_use]
    pub fn passed(&self, due: Timestamp, now: Timestamp, most: usize) -> Passed {
        if due > now {
            return Passed { last: Vec::new(), count: 0, exact: true };
        }
        if let Kind::Every(interval) = &self.0 {
            let step = nanoseconds(*interval);
            let (first, steps) = (due.as_nanosecond(), (now.as_nanosecond() - due.as_nanosecond()) / step);
            let kept = (steps + 1).min(i128::try_from(most).unwrap_or(i128::MAX));
            let instants = (steps + 1 - kept..=steps).map(|at| Timestamp::from_nanosecond(first + at * step));
            let count = u64::try_from(steps).unwrap_or(u64::MAX).saturating_add(1);
            return Passed { last: instants.filter_map(Result::ok).collect(), count, exact: true };
        }
        let mut last = std::collections::VecDeque::from([due]);
        let (mut count, mut exact) = (1, true);
        while let Some(next) = self.next_after(last[last.len() - 1]).filter(|next| *next <= now) {
            if count == COUNTED {
                exact = false;
                last = self.last_before(now, most.max(1)).into();
                break;
            }
            last.push_back(next);
            count += 1;
            if last.len() > most.max(1) {
                let _ = last.pop_front();
            }
        }
        last.truncate(if most == 0 { 0 } else { last.len() });
        Passed { last: last.into(), count, exact }
    }

    /// The last so many instants up to and with `now`, where there are more than can be counted: each is looked for
    /// ever further back, and then in ever smaller halves.
    fn last_before(&self, now: Timestamp, most: usize) -> Vec<Timestamp> {
        let mut found = std::collections::VecDeque::new();
        let mut end = now;
        while found.len() < most
            && let Some(last) = self.last_up_to(end)
        {
            found.push_front(last);
            end = just_before(last);
        }
        found.into()
    }

    fn last_up_to(&self, end: Timestamp) -> Option<Timestamp> {
        let due = |from: Timestamp, end: Timestamp| self.next_after(from).filter(|next| *next <= end);
        let mut back = jiff::SignedDuration::from_secs(1);
        let mut last = loop {
            let from = end.checked_sub(back).unwrap_or(Timestamp::MIN);
            match due(from, end) {
                Some(next) => break next,
                None if from == Timestamp::MIN => return None,
                None => back = back.saturating_mul(2),
            }
        };
        let mut end = end;
        while let Some(next) = due(last, end) {
            last = next;
            let middle = last + (end.duration_since(last)) / 2;
            match due(middle, end) {
                Some(next) => last = next,
                None => end = middle,
            }
        }
        Some(last)
    }

    /// What clock changes do to it between two instants.
    #[must_use]
    pub fn clock_changes(&self, from: Timestamp, until: Timestamp) -> Vec<ClockChange> {
        match &self.0 {
            Kind::Every(_) | Kind::Once(_) => Vec::new(),
            Kind::Wall(walls) => {
                let changes = walls.zone.following(from).map(|change| change.timestamp());
                let changes = changes.take_while(|change| *change <= until);
                let of =
                    |change| walls.walls.iter().filter_map(move |wall| wall.changed(change, &walls.zone));
                changes.flat_map(of).collect()
            }
            Kind::Or(both) | Kind::And(both) => {
                let mut changes = both.0.clock_changes(from, until);
                changes.extend(both.1.clock_changes(from, until));
                changes
            }
            Kind::Except(both) => both.0.clock_changes(from, until),
            Kind::Within(bounds) => bounds.0.clock_changes(from.max(bounds.1), until.min(bounds.2)),
        }
    }

    /// The zone of its wall clock, if it is about one.
    #[must_use]
    pub fn zone(&self) -> Option<&TimeZone> {
        match &self.0 {
            Kind::Every(_) | Kind::Once(_) => None,
            Kind::Wall(walls) => Some(&walls.zone),
            Kind::Or(both) | Kind::And(both) | Kind::Except(both) => both.0.zone().or(both.1.zone()),
            Kind::Within(bounds) => bounds.0.zone(),
        }
    }

    /// In plain English: `every 4 seconds`, `every day at 03:30, Europe/Berlin time`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.0 {
            Kind::Every(interval) => format!("every {}", in_words(*interval)),
            Kind::Once(at) => format!("once, at {at}"),
            Kind::Wall(walls) => walls.described.to_string(),
            Kind::Or(both) => format!("{}, and {}", both.0.describe(), both.1.describe()),
            Kind::And(both) => format!("{}, when that is also {}", both.0.describe(), both.1.describe()),
            Kind::Except(both) => format!("{}, except {}", both.0.describe(), both.1.describe()),
            Kind::Within(bounds) => {
                let (schedule, first, last) = &**bounds;
                let mut said = schedule.describe();
                if *first > Timestamp::MIN {
                    said = format!("{said}, from {first}");
                }
                if *last < Timestamp::MAX { format!("{said}, until {last}") } else { said }
            }
        }
    }
}

fn just_before(instant: Timestamp) -> Timestamp {
    instant.checked_sub(jiff::SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN)
}

/// `1 hour 30 minutes`; a single unit goes without its number.
pub(crate) fn in_words(interval: Duration) -> String {
    let mut parts = Vec::new();
    let mut left = interval.as_millis();
    for (unit, name) in
        [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"), (1, "millisecond")]
    {
        if left >= unit {
            let count = left / unit;
            parts.push((count, if count == 1 { name.to_owned() } else { format!("{name}s") }));
            left %= unit;
        }
    }
    match &*parts {
        [(1, name)] => name.clone(),
        parts => parts.iter().map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(" "),
    }
}

/// `1h30m`.
pub(crate) fn in_short(interval: Duration) -> String {
    let mut said = String::new();
    let mut left = interval.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
        if left >= unit {
            said += &format!("{}{name}", left / unit);
            left %= unit;
        }
    }
    said
}

pub(crate) fn checked(interval: Duration) -> Result<Duration, Fault> {
    let whole = interval >= SHORTEST && interval.subsec_nanos().is_multiple_of(1_000_000);
    if whole { Ok(interval) } else { Err(Fault::NotMilliseconds) }
}

fn nanoseconds(interval: Duration) -> i128 {
    i128::try_from(interval.as_nanos()).unwrap_or(i128::MAX >> 1)
}

/// Two schedules are equal if they are said alike, and meant alike: in one zone, by the same days.
impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Kind::Every(a), Kind::Every(b)) => a == b,
            (Kind::Once(a), Kind::Once(b)) => a == b,
            (Kind::Wall(a), Kind::Wall(b)) => (&a.said, a.hosted, &a.zone) == (&b.said, b.hosted, &b.zone),
            (Kind::Or(a), Kind::Or(b))
            | (Kind::And(a), Kind::And(b))
            | (Kind::Except(a), Kind::Except(b)) => a == b,
            (Kind::Within(a), Kind::Within(b)) => a == b,
            _ => false,
        }
    }
}

impl FromStr for Schedule {
    type Err = Fault;

    fn from_str(said: &str) -> Result<Self, Fault> {
        let said = said.trim();
        let (word, rest) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
        let rest = rest.trim();
        let first = word.trim_end_matches(',');
        if calendar::BEGINNINGS.contains(&first) {
            let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
            let (days, zone) = zoned(&words)?;
            return Self::of_calendar(days, zone);
        }
        match word {
            "every" if !rest.is_empty() => Self::every(interval(rest)?),
            "cron" if !rest.is_empty() => {
                let (expression, zone) = zoned(rest)?;
                Self::cron_in(expression, zone)
            }
            "once" if !rest.is_empty() => once(rest),
            _ => Err(Fault::Unknown { said: said.to_owned() }),
        }
    }
}

/// What stands before `in ZONE`, and the zone; UTC if none is said.
fn zoned(said: &str) -> Result<(&str, TimeZone), Fault> {
    let Some((said, name)) = said.rsplit_once(" in ") else { return Ok((said, TimeZone::UTC)) };
    let name = name.trim();
    let zone = match name.starts_with(['+', '-']) {
        true => DateTimeParser::new().parse_time_zone(name),
        false => TimeZone::get(name),
    };
    let zone = zone.map_err(|_| Fault::Zone(name.to_owned()))?;
    // One name for it, however it was written.
    Ok((said.trim(), if zone.iana_name() == Some("UTC") { TimeZone::UTC } else { zone }))
}

fn once(said: &str) -> Result<Schedule, Fault> {
    if let Ok(at) = said.parse() {
        return Ok(Schedule::once(at));
    }
    let (time, zone) = zoned(said)?;
    let fault = || Fault::Instant(said.to_owned());
    let time: DateTime = time.parse().map_err(|_| fault())?;
    // A day alone is too easily meant otherwise.
    if !said.contains(':') {
        return Err(fault());
    }
    wall::instant_of(time, &zone).map(Schedule::once).ok_or_else(fault)
}

/// `4s`, `1h30m`, `4 seconds`, `minute`.
pub(crate) fn interval(said: &str) -> Result<Duration, Fault> {
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

/// Prints what parses back to the same schedule, unless it is one that can only be typed.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Every(interval) => write!(f, "every {}", in_short(*interval)),
            Kind::Once(at) => write!(f, "once {at}"),
            Kind::Wall(walls) => f.write_str(&walls.said),
            Kind::Or(both) => write!(f, "({}) or ({})", both.0, both.1),
            Kind::And(both) => write!(f, "({}) and ({})", both.0, both.1),
            Kind::Except(both) => write!(f, "({}) except ({})", both.0, both.1),
            Kind::Within(bounds) => {
                let (schedule, first, last) = &**bounds;
                write!(f, "({schedule})")?;
                if *first > Timestamp::MIN {
                    write!(f, " from {first}")?;
                }
                if *last < Timestamp::MAX { write!(f, " until {last}") } else { Ok(()) }
            }
        }
    }
}

#[cfg(test)]
mod tests;
