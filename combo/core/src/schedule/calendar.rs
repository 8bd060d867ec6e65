//! Days and times of day in words: `daily at 03:30`, `mondays, thursdays at 10:00`, `monthly on the 1st at 04:00`.
//!
//! Takes what stands before `in ZONE`; gives cron expressions that mean the same, in normal form and in English.

use std::fmt;

use super::{Fault, wall::Wall};

/// Days, and the times on each of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Calendar {
    days: Days,
    times: Vec<Time>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Days {
    Every,
    Weekdays,
    Weekends,
    /// From Sunday, which is 0.
    Named(Vec<u8>),
    Monthly(Vec<OfMonth>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OfMonth {
    Day(u8),
    LastDay,
    /// The how-manieth of a day of the week, from 1.
    Nth(u8, u8),
    Last(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Time {
    hour: u8,
    minute: u8,
    second: u8,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const NTH: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// The words with which a calendar may begin.
pub(super) const BEGINNINGS: [&str; 11] = [
    "daily",
    "weekdays",
    "weekends",
    "sundays",
    "mondays",
    "tuesdays",
    "wednesdays",
    "thursdays",
    "fridays",
    "saturdays",
    "monthly",
];

impl Calendar {
    pub(super) fn parse(said: &str) -> Result<Self, Fault> {
        let (days, times) = said.split_once(" at ").ok_or_else(|| Fault::NoTime(said.trim().to_owned()))?;
        let times: Result<Vec<_>, _> = listed(times).map(Time::parse).collect();
        let (mut times, days) = (times?, Days::parse(days.trim())?);
        times.sort_unstable();
        times.dedup();
        Ok(Self { days, times })
    }

    /// What means the same.
    pub(super) fn walls(&self) -> Result<Vec<Wall>, Fault> {
        let mut walls = Vec::new();
        for Time { hour, minute, second } in &self.times {
            for (day, weekday) in self.days.fields() {
                walls.push(Wall::parse(&format!("{second} {minute} {hour} {day} * {weekday}"), false)?);
            }
        }
        Ok(walls)
    }

    pub(super) fn describe(&self) -> String {
        format!("{} at {}", self.days.describe(), and(&self.times))
    }
}

impl Days {
    fn parse(said: &str) -> Result<Self, Fault> {
        if let Some(rest) = said.strip_prefix("monthly") {
            let rest = rest.trim();
            let days = rest.strip_prefix("on ").ok_or_else(|| Fault::Day("monthly".to_owned()))?;
            let days: Result<Vec<_>, _> = listed(days).map(OfMonth::parse).collect();
            let mut days = days?;
            days.sort_unstable();
            days.dedup();
            return Ok(Self::Monthly(days));
        }
        Ok(match said {
            "daily" => Self::Every,
            "weekdays" => Self::Weekdays,
            "weekends" => Self::Weekends,
            _ => {
                let days: Result<Vec<_>, _> = listed(said)
                    .map(|day| {
                        weekday(day.strip_suffix('s').unwrap_or("")).ok_or_else(|| Fault::Day(day.to_owned()))
                    })
                    .collect();
                let mut days = days?;
                days.sort_unstable();
                days.dedup();
                Self::Named(days)
            }
        })
    }

    /// The fields of cron for the day of a month and of a week, as often as it takes.
    fn fields(&self) -> Vec<(String, String)> {
        let any = || "*".to_owned();
        let list = |parts: Vec<String>| parts.join(",");
        match self {
            Self::Every => vec![(any(), any())],
            Self::Weekdays => vec![(any(), "MON-FRI".to_owned())],
            Self::Weekends => vec![(any(), "SAT,SUN".to_owned())],
            Self::Named(days) => vec![(any(), list(days.iter().map(ToString::to_string).collect()))],
            Self::Monthly(days) => {
                let of = |days: &mut dyn Iterator<Item = String>| list(days.collect());
                let by_number = of(&mut days.iter().filter_map(|day| match day {
                    OfMonth::Day(day) => Some(day.to_string()),
                    OfMonth::LastDay => Some("L".to_owned()),
                    OfMonth::Nth(..) | OfMonth::Last(_) => None,
                }));
                let by_weekday = of(&mut days.iter().filter_map(|day| match day {
                    OfMonth::Nth(nth, day) => Some(format!("{day}#{nth}")),
                    OfMonth::Last(day) => Some(format!("{day}#L")),
                    OfMonth::Day(_) | OfMonth::LastDay => None,
                }));
                let both = [(by_number, any()), (any(), by_weekday)];
                both.into_iter().filter(|(day, weekday)| !day.is_empty() && !weekday.is_empty()).collect()
            }
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Every => "every day".to_owned(),
            Self::Weekdays => "on weekdays".to_owned(),
            Self::Weekends => "on weekends".to_owned(),
            Self::Named(days) => {
                let names: Vec<_> = days.iter().map(|day| capital(WEEKDAYS[usize::from(*day)])).collect();
                format!("every {}", and(&names))
            }
            Self::Monthly(days) => format!("on {} of every month", and(days)),
        }
    }
}

impl OfMonth {
    fn parse(said: &str) -> Result<Self, Fault> {
        let fault = || Fault::Day(said.to_owned());
        let said_day = said.strip_prefix("the ").unwrap_or(said).trim();
        if let Some((nth, day)) = said_day.split_once(' ') {
            let day = day.trim();
            return match (nth, weekday(day)) {
                ("last", None) if day == "day" => Ok(Self::LastDay),
                ("last", Some(day)) => Ok(Self::Last(day)),
                (nth, Some(day)) => {
                    let nth = NTH.iter().position(|name| *name == nth).ok_or_else(fault)?;
                    Ok(Self::Nth(u8::try_from(nth + 1).map_err(|_| fault())?, day))
                }
                _ => Err(fault()),
            };
        }
        let number =
            ["st", "nd", "rd", "th"].iter().find_map(|end| said_day.strip_suffix(end)).unwrap_or(said_day);
        let day = number.parse().ok().filter(|day| (1..=31).contains(day)).ok_or_else(fault)?;
        Ok(Self::Day(day))
    }
}

impl Time {
    fn parse(said: &str) -> Result<Self, Fault> {
        let fault = || Fault::Time(said.to_owned());
        let parts: Vec<&str> = said.split(':').collect();
        let part = |at: usize, most: u8| -> Result<u8, Fault> {
            let Some(part) = parts.get(at) else { return Ok(0) };
            let digits = part.len() == 2 || (at == 0 && part.len() == 1);
            let number =
                part.parse().ok().filter(|_| digits && part.bytes().all(|byte| byte.is_ascii_digit()));
            number.filter(|number| *number <= most).ok_or_else(fault)
        };
        if !(2..=3).contains(&parts.len()) {
            return Err(fault());
        }
        Ok(Self { hour: part(0, 23)?, minute: part(1, 59)?, second: part(2, 59)? })
    }
}

fn weekday(name: &str) -> Option<u8> {
    let at = WEEKDAYS.iter().position(|known| *known == name)?;
    u8::try_from(at).ok()
}

/// What stands between commas and `and`s.
fn listed(said: &str) -> impl Iterator<Item = &str> {
    let parts = said.split(',').map(|part| part.trim().strip_prefix("and ").unwrap_or(part));
    parts.flat_map(|part| part.split(" and ")).map(str::trim)
}

fn and<T: fmt::Display>(all: &[T]) -> String {
    let said: Vec<_> = all.iter().map(ToString::to_string).collect();
    match &*said {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        said => said.concat(),
    }
}

fn capital(name: &str) -> String {
    let mut characters = name.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// In normal form.
impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.days {
            Days::Every => f.write_str("daily")?,
            Days::Weekdays => f.write_str("weekdays")?,
            Days::Weekends => f.write_str("weekends")?,
            Days::Named(days) => {
                let names: Vec<_> =
                    days.iter().map(|day| format!("{}s", WEEKDAYS[usize::from(*day)])).collect();
                f.write_str(&names.join(", "))?;
            }
            Days::Monthly(days) => {
                let days: Vec<_> = days.iter().map(ToString::to_string).collect();
                write!(f, "monthly on {}", days.join(", "))?;
            }
        }
        let times: Vec<_> = self.times.iter().map(ToString::to_string).collect();
        write!(f, " at {}", times.join(", "))
    }
}

impl fmt::Display for OfMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => {
                let end = match (day % 10, day / 10) {
                    (1, 0 | 2 | 3) => "st",
                    (2, 0 | 2) => "nd",
                    (3, 0 | 2) => "rd",
                    _ => "th",
                };
                write!(f, "the {day}{end}")
            }
            Self::LastDay => f.write_str("the last day"),
            Self::Nth(nth, day) => {
                write!(f, "the {} {}", NTH[usize::from(nth - 1)], WEEKDAYS[usize::from(*day)])
            }
            Self::Last(day) => write!(f, "the last {}", WEEKDAYS[usize::from(*day)]),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)?;
        if self.second > 0 { write!(f, ":{:02}", self.second) } else { Ok(()) }
    }
}
