//! Times of a wall clock, in a zone: a cron expression and what clock changes do to it.
//!
//! What matches is found as if there were no clock changes, by the `croner` crate, and each time on the wall is
//! then turned into an instant by one rule. A time in the gap of a clock change is due right after it; several of
//! them are one instant. A time that comes twice is due the first time. An expression whose hour is `*` is as good
//! as an interval: it follows the wall clock through both passes and leaves out what is not there.

use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use jiff::{
    SignedDuration, Timestamp,
    civil::DateTime,
    tz::{AmbiguousOffset, Offset, TimeZone},
};

use super::{ClockChange, Fault, fields};

/// How many times on the wall are looked at for one instant: more than there are seconds in any clock change.
const LOOKED_AT: usize = 100_000;

/// What matches, and where the clock hangs.
#[derive(Debug)]
pub(super) struct Wall {
    cron: Cron,
    /// As good as an interval.
    pub(super) hourly: bool,
}

impl Wall {
    /// With `seconds` there are six fields at least, and both days have to match, as in `tokio_cron_scheduler`.
    pub(super) fn parse(expression: &str, seconds: bool) -> Result<Self, Fault> {
        let hourly = fields::look_at(expression, seconds).map_err(Fault::Cron)?;
        if fields::is_no_day(expression, seconds) {
            return Err(Fault::Never);
        }
        let parser = match seconds {
            true => CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build(),
            false => CronParser::builder().seconds(Seconds::Optional).build(),
        };
        let cron = parser.parse(expression).map_err(|error| Fault::Cron(sentence(&error.to_string())))?;
        Ok(Self { cron, hourly })
    }

    /// In plain English, without an end.
    pub(super) fn describe(&self) -> String {
        let said = sentence(&self.cron.describe());
        match said.strip_prefix("at every ") {
            Some(rest) => format!("every {rest}"),
            None => said.replacen("at minute 0 past every hour", "every hour on the hour", 1),
        }
    }

    /// The first instant after the given one.
    pub(super) fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if *zone == TimeZone::UTC {
            let found = self.cron.find_next_occurrence(&after.to_zoned(TimeZone::UTC), false).ok()?;
            return Some(found.timestamp());
        }
        if self.hourly { self.next_in_passing(after, zone) } else { self.next_on_the_wall(after, zone) }
    }

    fn next_on_the_wall(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut time = zone.to_datetime(after);
        for _ in 0..LOOKED_AT {
            time = self.matching(time, false)?;
            let instant = instant_of(time, zone)?;
            if instant > after {
                return Some(instant);
            }
        }
        None
    }

    /// Follows the wall clock, one pass after the other.
    fn next_in_passing(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (after, false);
        for _ in 0..LOOKED_AT {
            let offset = zone.to_offset(from);
            let time = self.matching(offset.to_datetime(from), inclusive)?;
            let instant = offset.to_timestamp(time).ok()?;
            let change = zone.following(from).next().map(|change| change.timestamp());
            match change.filter(|change| *change <= instant) {
                None => return Some(instant),
                Some(change) => (from, inclusive) = (change, true),
            }
        }
        None
    }

    /// The first time on the wall that matches, as if it never changed.
    fn matching(&self, after: DateTime, inclusive: bool) -> Option<DateTime> {
        let after = after.to_zoned(TimeZone::UTC).ok()?;
        Some(self.cron.find_next_occurrence(&after, inclusive).ok()?.datetime())
    }

    /// What a clock change does to it, if anything.
    pub(super) fn changed(&self, change: Timestamp, zone: &TimeZone) -> Option<ClockChange> {
        let before = zone.to_offset(change.checked_sub(SignedDuration::from_nanos(1)).ok()?);
        let after = zone.to_offset(change);
        let (left, reached) = (before.to_datetime(change), after.to_datetime(change));
        let (first, end) = (left.min(reached), left.max(reached));
        let time = self.matching(first, true).filter(|time| *time < end)?;
        let zone = zone.iana_name().unwrap_or("its zone").to_owned();
        Some(match (left < reached, self.hourly) {
            (true, false) => ClockChange::Gap { time, zone, instead: reached },
            (true, true) => ClockChange::LeftOut { time, zone },
            (false, false) => ClockChange::Once { time, zone, first: before.to_timestamp(time).ok()? },
            (false, true) => ClockChange::Both { time, zone },
        })
    }
}

/// When a time on the wall is.
pub(super) fn instant_of(time: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(time).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
        AmbiguousOffset::Gap { after, .. } => change_after(time, after, zone),
    }
}

/// The clock change that a time which is not there is in.
fn change_after(time: DateTime, after: Offset, zone: &TimeZone) -> Option<Timestamp> {
    let before = after.to_timestamp(time).ok()?.checked_sub(SignedDuration::from_nanos(1)).ok()?;
    zone.following(before).next().map(|change| change.timestamp())
}

/// A foreign message in the style of ours: lower case, no full stop.
pub(super) fn sentence(message: &str) -> String {
    let message = message.trim_end_matches('.');
    let mut characters = message.chars();
    characters.next().map_or(String::new(), |first| first.to_lowercase().chain(characters).collect())
}
