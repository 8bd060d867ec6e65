//! The fields of a cron expression, looked at one by one before the expression is used: whatever is wrong is
//! said with the field in which it is.

/// What a field may have in it.
struct Field {
    /// What one of its values is called.
    what: &'static str,
    least: u32,
    most: u32,
    /// Names of values, the first for `least_named`.
    names: &'static [&'static str],
    /// Which of `L`, `W`, `#` it knows.
    marks: &'static [char],
}

const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

const fn field(what: &'static str, least: u32, most: u32) -> Field {
    Field { what, least, most, names: &[], marks: &[] }
}

const SECOND: Field = field("second", 0, 59);
const MINUTE: Field = field("minute", 0, 59);
const HOUR: Field = field("hour", 0, 23);
const DAY: Field = Field { marks: &['L', 'W'], ..field("day of a month", 1, 31) };
const MONTH: Field = Field { names: &MONTHS, ..field("month", 1, 12) };
const WEEKDAY: Field = Field { names: &DAYS, marks: &['L', '#'], ..field("day of a week", 0, 7) };
const YEAR: Field = field("year", 1970, 4999);

const NICKNAMES: [&str; 7] =
    ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// What is wrong with an expression, a sentence; and if nothing is, whether it runs through all hours, so that it
/// is as good as an interval.
pub(super) fn look_at(expression: &str, seconds: bool) -> Result<bool, String> {
    if let Some(nickname) = expression.strip_prefix('@') {
        return match NICKNAMES.iter().any(|known| known[1..].eq_ignore_ascii_case(nickname)) {
            true => Ok(nickname.eq_ignore_ascii_case("hourly")),
            false if nickname.eq_ignore_ascii_case("reboot") => {
                Err("`@reboot` is no time; say `at start`".into())
            }
            false => Err(format!("`@{nickname}` is none of {}", NICKNAMES.join(", "))),
        };
    }
    let said: Vec<&str> = expression.split_whitespace().collect();
    let mut fields = vec![&MINUTE, &HOUR, &DAY, &MONTH, &WEEKDAY];
    match said.len() {
        5 if !seconds => {}
        6 => fields.insert(0, &SECOND),
        7 => {
            fields.insert(0, &SECOND);
            fields.push(&YEAR);
        }
        count => {
            let fields = "minute, hour, day, month, weekday";
            let five = if seconds { "" } else { "five fields (" };
            let rest = if seconds {
                format!("six fields (second, {fields}), or seven: and a year")
            } else {
                format!("{five}{fields}), six: seconds first, or seven: and a year")
            };
            return Err(format!("`{expression}` has {count} fields; it needs {rest}"));
        }
    }
    for (said, field) in said.iter().zip(&fields) {
        field.look_at(said).map_err(|why| match said.contains(',') {
            true => format!("{why}, in the field `{said}`"),
            false => why,
        })?;
    }
    Ok(said[fields.len()
        - fields.iter().rev().position(|field| field.what == HOUR.what).map_or(0, |back| back + 1)]
        == "*")
}

/// Whether the days of a right expression are in none of its months, as 30 February is: the search for one would
/// take long. Elsewhere than in hosted schedules a day of the week may match instead.
pub(super) fn is_no_day(expression: &str, hosted: bool) -> bool {
    let said: Vec<&str> = expression.split_whitespace().collect();
    let Some([day, month, weekday]) = (match said.len() {
        5 => said.get(2..5),
        _ => said.get(3..6),
    }) else {
        return false;
    };
    if !hosted && !matches!(*weekday, "*" | "?") {
        return false;
    }
    let least = |part: &str| DAY.value(part.split(['-', '/']).next().unwrap_or_default()).unwrap_or(1);
    let first = day.split(',').map(least).min().unwrap_or(1);
    let long = |part: &str| {
        let (range, _) = part.split_once('/').unwrap_or((part, ""));
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (Ok(from), Ok(to)) = (MONTH.value(from), MONTH.value(to)) else { return 31 };
        (from..=to).map(longest).max().unwrap_or(31)
    };
    month.split(',').map(long).max().is_some_and(|days| days < first)
}

fn longest(month: u32) -> u32 {
    match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

impl Field {
    fn look_at(&self, said: &str) -> Result<(), String> {
        said.split(',').try_for_each(|part| self.look_at_part(part))
    }

    fn look_at_part(&self, part: &str) -> Result<(), String> {
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        if let Some(step) = step {
            let fits = step.parse::<u32>().is_ok_and(|step| (1..=self.most).contains(&step));
            if !fits {
                return Err(format!(
                    "`{step}` is no step (1 to {}) of {}s, in `{part}`",
                    self.most,
                    self.plural()
                ));
            }
            if range != "*" && !range.contains('-') {
                return Err(format!("`{part}` says no end; say `{range}-{}/{step}`", self.most));
            }
        }
        match range {
            "*" | "?" => Ok(()),
            _ if self.is_marked(range) => Ok(()),
            _ => match range.split_once('-') {
                None => self.value(range).map(drop),
                Some((from, to)) => {
                    let (first, last) = (self.value(from)?, self.value(to)?);
                    // Sunday is the last day as well.
                    if first > last && !(self.what == WEEKDAY.what && last == 0) {
                        return Err(format!("`{range}` ends before it begins"));
                    }
                    Ok(())
                }
            },
        }
    }

    /// `L`, `15W`, `LW`; `MON#2`, `FRI#L`, `5L`.
    fn is_marked(&self, said: &str) -> bool {
        let upper = said.to_ascii_uppercase();
        let day = self.marks.contains(&'W');
        let weekday = self.marks.contains(&'#');
        match upper.split_once('#') {
            Some((of, nth)) => {
                weekday && self.value(of).is_ok() && (nth == "L" || matches!(nth.parse(), Ok(1..=5)))
            }
            None if day => {
                matches!(&*upper, "L" | "LW")
                    || upper.strip_suffix('W').is_some_and(|of| self.value(of).is_ok())
            }
            None => weekday && upper.strip_suffix('L').is_some_and(|of| self.value(of).is_ok()),
        }
    }

    fn value(&self, said: &str) -> Result<u32, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(said));
        let named = named
            .map(|at| u32::try_from(at).unwrap_or_default() + if self.what == MONTH.what { 1 } else { 0 });
        let value =
            named.or_else(|| said.parse().ok().filter(|_| said.bytes().all(|byte| byte.is_ascii_digit())));
        value.filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let named = match self.names {
                [] => String::new(),
                names => format!(", or {} to {}", names[0], names[names.len() - 1]),
            };
            format!("`{said}` is no {} ({} to {}{named})", self.what, self.least, self.most)
        })
    }

    fn plural(&self) -> &'static str {
        self.what.split(' ').next().unwrap_or(self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_through_all_hours_is_an_interval() {
        for (said, seconds, hourly) in [
            ("*/5 * * * *", false, true),
            ("30 3 * * *", false, false),
            ("0 */2 * * *", false, false),
            ("0 * 3 * * *", false, false),
            ("0 30 * * * *", true, true),
            ("0 30 * * * * 2030", true, true),
            ("@hourly", false, true),
            ("@Daily", false, false),
            ("0 0 1,15 JAN-mar MON#2,fri#L", false, false),
            ("0 0 L,15W,LW * 5L", false, false),
            ("0 0 ? * SUN-SAT", false, false),
            ("0 0 * * FRI-SUN", false, false),
        ] {
            assert_eq!(look_at(said, seconds), Ok(hourly), "{said}");
        }
    }

    #[test]
    fn days_that_are_in_no_month_are_known() {
        for (said, never) in [
            ("0 0 30 2 *", true),
            ("0 0 30-31 feb ?", true),
            ("0 0 31 4,6,9-9,11 *", true),
            ("0 0 0 31-31/1 4 * 2030", true),
            ("0 0 31 4-6 *", false),
            ("0 0 29 2 *", false),
            ("0 0 30 2 MON", false),
            ("0 0 L 2 *", false),
            ("0 0 31,1 2 *", false),
            ("0 0 31 * *", false),
            ("@daily", false),
        ] {
            assert_eq!(is_no_day(said, false), never, "{said}");
        }
        assert!(is_no_day("0 0 0 30 2 MON", true));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        for (said, why) in [
            ("61,5 * * * *", "`61` is no minute (0 to 59), in the field `61,5`"),
            ("* 24 * * *", "`24` is no hour (0 to 23)"),
            ("* * 0 * *", "`0` is no day of a month (1 to 31)"),
            ("* * * 13 *", "`13` is no month (1 to 12, or JAN to DEC)"),
            ("* * * * 8", "`8` is no day of a week (0 to 7, or SUN to SAT)"),
            ("* * * * MOON", "`MOON` is no day of a week (0 to 7, or SUN to SAT)"),
            ("* * * * MON#6", "`MON#6` is no day of a week (0 to 7, or SUN to SAT)"),
            ("30-20 * * * *", "`30-20` ends before it begins"),
            ("*/0 * * * *", "`0` is no step (1 to 59) of minutes, in `*/0`"),
            ("5/10 * * * *", "`5/10` says no end; say `5-59/10`"),
            ("-5 * * * *", "`` is no minute (0 to 59)"),
            ("+5 * * * *", "`+5` is no minute (0 to 59)"),
            ("* * * * * * 1969", "`1969` is no year (1970 to 4999)"),
            ("@reboot", "`@reboot` is no time; say `at start`"),
            (
                "@never",
                "`@never` is none of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly",
            ),
            (
                "* * *",
                "`* * *` has 3 fields; it needs five fields (minute, hour, day, month, weekday), six: seconds first, or seven: and a year",
            ),
        ] {
            assert_eq!(look_at(said, false), Err(why.to_owned()), "{said}");
        }
    }
}
