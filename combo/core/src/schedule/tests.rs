//! Tables of schedules, and properties held against a walk through every minute of two years.

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
    let berlin = "2027-03-27T02:00:00Z";
    check("daily at 03:30", noon, &["2026-11-23T03:30:00Z", "2026-11-24T03:30:00Z"]);
    check("daily at 18:00:30 and 6:00", noon, &["2026-11-22T18:00:30Z", "2026-11-23T06:00:00Z"]);
    check("daily at 02:30 in Europe/Berlin", berlin, &["2027-03-28T01:00:00Z", "2027-03-29T00:30:00Z"]);
    // Several times in one gap are one instant.
    check(
        "daily at 02:15, 02:45 in Europe/Berlin",
        berlin,
        &["2027-03-28T01:00:00Z", "2027-03-29T00:15:00Z"],
    );
    check("cron 15,45 2 * * * in Europe/Berlin", berlin, &["2027-03-28T01:00:00Z", "2027-03-29T00:15:00Z"]);
    // The clock goes from 2:00 to 2:30 there.
    check(
        "daily at 02:10, 02:40 in Australia/Lord_Howe",
        "2026-10-03T00:00:00Z",
        &["2026-10-03T15:30:00Z", "2026-10-03T15:40:00Z", "2026-10-04T15:10:00Z"],
    );
    // Midnight did not exist there, and 30 December 2011 did not exist here.
    check("daily at 00:00 in America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04T03:00:00Z"]);
    check(
        "daily at 12:00 in Pacific/Apia",
        "2011-12-28T22:30:00Z",
        &["2011-12-29T22:00:00Z", "2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"],
    );
    check("weekdays at 09:00", noon, &["2026-11-23T09:00:00Z", "2026-11-24T09:00:00Z"]);
    check("weekends at 09:00", noon, &["2026-11-28T09:00:00Z", "2026-11-29T09:00:00Z"]);
    check(
        "thursdays and mondays at 10:00",
        noon,
        &["2026-11-23T10:00:00Z", "2026-11-26T10:00:00Z", "2026-11-30T10:00:00Z"],
    );
    check(
        "monthly on the 31st at 04:00",
        noon,
        &["2026-12-31T04:00:00Z", "2027-01-31T04:00:00Z", "2027-03-31T04:00:00Z"],
    );
    check(
        "monthly on the last day and 1st at 04:00",
        noon,
        &["2026-11-30T04:00:00Z", "2026-12-01T04:00:00Z", "2026-12-31T04:00:00Z"],
    );
    check(
        "monthly on the first monday, the last friday at 04:00",
        noon,
        &["2026-11-27T04:00:00Z", "2026-12-07T04:00:00Z", "2026-12-25T04:00:00Z"],
    );
    check(
        "monthly on the 15th, the third friday at 04:00",
        noon,
        &["2026-12-15T04:00:00Z", "2026-12-18T04:00:00Z"],
    );
    check("once 2026-12-01T00:00:00Z", noon, &["2026-12-01T00:00:00Z"]);
    check("once 2026-12-01 09:00 in Europe/Berlin", noon, &["2026-12-01T08:00:00Z"]);
    // In the gap, and twice there.
    check("once 2027-03-28 02:30 in Europe/Berlin", noon, &["2027-03-28T01:00:00Z"]);
    check("once 2027-10-31 02:30 in Europe/Berlin", noon, &["2027-10-31T00:30:00Z"]);
    check("daily at 03:30 in +05:30", noon, &["2026-11-22T22:00:00Z"]);
    check("daily\tat  03:30", noon, &["2026-11-23T03:30:00Z"]);
    check("monthly on the 1st, and 15th at 04:00", noon, &["2026-12-01T04:00:00Z", "2026-12-15T04:00:00Z"]);
    check("cron 0 0 L * *", noon, &["2026-11-30T00:00:00Z", "2026-12-31T00:00:00Z"]);
    check(
        "cron 0 0 15W * *",
        noon,
        &[
            "2026-12-15T00:00:00Z",
            "2027-01-15T00:00:00Z",
            "2027-02-15T00:00:00Z",
            "2027-03-15T00:00:00Z",
            "2027-04-15T00:00:00Z",
            "2027-05-14T00:00:00Z",
        ],
    );
    check("cron 0 0 * * MON#2", noon, &["2026-12-14T00:00:00Z"]);
    check("cron 0 0 0 1 1 * 2030", noon, &["2030-01-01T00:00:00Z"]);
    check("cron 0 0 29 2 * in Europe/Berlin", noon, &["2028-02-28T23:00:00Z", "2032-02-28T23:00:00Z"]);
    // As good as an interval: both passes, and nothing in the gap.
    check(
        "cron 0,30 * * * * in Europe/Berlin",
        "2026-10-24T23:30:00Z",
        &[
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T01:30:00Z",
            "2026-10-25T02:00:00Z",
        ],
    );
    check(
        "cron 15 * * * * in Australia/Lord_Howe",
        "2026-10-03T14:20:00Z",
        &["2026-10-03T14:45:00Z", "2026-10-03T16:15:00Z", "2026-10-03T17:15:00Z"],
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
fn only_what_means_the_same_is_equal() {
    let east = TimeZone::fixed(jiff::tz::Offset::constant(2));
    let fixed = Schedule::daily("03:30", east).expect("a schedule");
    assert_ne!(fixed, said("daily at 03:30"));
    assert_eq!(fixed.to_string(), "daily at 03:30 in +02");
    assert_eq!(fixed, said("daily at 03:30 in +02:00"));
    let both = "0 0 0 1 * MON";
    assert_ne!(Schedule::hosted_cron(both, TimeZone::UTC), Schedule::cron(both));
}

/// Six hours of a night are more instants than are looked at when a schedule is built.
#[test]
fn an_exception_may_be_long() {
    for (except, after, next) in [
        ("cron * * 0-5 * * *", "2026-11-22T23:59:59Z", "2026-11-23T06:00:00Z"),
        ("cron * * * * * SAT,SUN", "2026-11-20T23:59:59Z", "2026-11-23T00:00:00Z"),
        ("cron * * * 1-10 * *", "2026-11-30T23:59:59Z", "2026-12-11T00:00:00Z"),
    ] {
        let schedule = said("every 1s").except(said(except)).expect("it is due");
        assert_eq!(schedule.next_after(at(after)), Some(at(next)), "{except}");
    }
    let new_year = at("2027-01-01T00:00:00Z");
    let until = said("every 4s").until(new_year).expect("it is due");
    let later = said("every 4s").except(until).expect("it is due");
    assert_eq!(later.next_after(new_year), Some(at("2027-01-01T00:00:04Z")));
    let closed = said("every 4s")
        .from(at("2026-12-01T00:00:00Z"))
        .and_then(|from| from.until(at("2026-12-08T00:00:00Z")));
    let open = said("every 4s").except(closed.expect("it is due")).expect("it is due");
    assert_eq!(open.next_after(at("2026-11-30T23:59:56Z")), Some(at("2026-12-08T00:00:04Z")));
}

#[test]
fn schedules_are_small() {
    assert!(size_of::<Schedule>() <= 32, "{}", size_of::<Schedule>());
}

#[test]
fn schedules_are_described() {
    for (said, described) in [
        ("every 4s", "every 4 seconds"),
        ("every 1h30m", "every 1 hour 30 minutes"),
        ("every 60s", "every minute"),
        ("daily at 03:30", "every day at 03:30 UTC"),
        ("daily at 06:00, 18:00 in Europe/Berlin", "every day at 06:00 and 18:00, Europe/Berlin time"),
        ("weekdays at 09:00", "on weekdays at 09:00 UTC"),
        ("mondays, thursdays at 10:00", "every Monday and Thursday at 10:00 UTC"),
        ("monthly on the 1st, 22nd at 04:00", "on the 1st and the 22nd of every month at 04:00 UTC"),
        ("monthly on the last friday at 04:00", "on the last friday of every month at 04:00 UTC"),
        ("once 2026-12-01T00:00:00Z", "once, at 2026-12-01T00:00:00Z"),
        ("cron 30 3 * * *", "at 03:30 UTC"),
        ("cron */5 * * * *", "every 5 minutes UTC"),
        ("cron 0 * * * *", "every hour on the hour UTC"),
        ("cron 0 10 * * MON in Europe/Berlin", "at 10:00, on Monday, Europe/Berlin time"),
    ] {
        let schedule: Schedule = said.parse().unwrap_or_else(|fault| panic!("{said}: {fault}"));
        assert_eq!(schedule.describe(), described, "{said}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let unknown = "it begins with no known word, as do `every 4s`, `daily at 03:30`, `mondays at 10:00`, \
                   `monthly on the 1st at 04:00`, `once 2026-12-01T00:00:00Z`, `cron 30 3 * * *`, `after 4s`, \
                   `at start`, `at stop`, `when FILE changes` and `after job NAME`";
    for (said, message) in [
        ("", unknown),
        ("4s", unknown),
        ("every", "it begins with no known word; did you mean `every …`?"),
        ("dialy at 3", "it begins with no known word; did you mean `daily …`?"),
        ("30 3 * * *", "it begins with no known word; did you mean `cron 30 3 * * *`?"),
        ("@daily", "it begins with no known word; did you mean `cron @daily`?"),
        ("every 4", "`4` is not an interval, such as 4s, 250ms, 1h30m or minute"),
        ("every 4x", "`4x` is not an interval, such as 4s, 250ms, 1h30m or minute"),
        ("every -4s", "`-4s` is not an interval, such as 4s, 250ms, 1h30m or minute"),
        ("every 99999999999d", "`99999999999d` is not an interval, such as 4s, 250ms, 1h30m or minute"),
        ("every 0s", "an interval is a whole number of milliseconds, at least 1ms"),
        ("daily", "it says no time of day; say `daily at 03:30`"),
        ("daily at 25:00", "`25:00` is not a time of day, such as 03:30 or 18:00:15"),
        ("daily at 3", "`3` is not a time of day, such as 03:30 or 18:00:15"),
        ("daily at 03:30 pm", "`03:30 pm` is not a time of day, such as 03:30 or 18:00:15"),
        (
            "mondays, someday at 10:00",
            "`someday` is not a day, such as mondays, or with `monthly on` the 1st, the last day, the first monday",
        ),
        (
            "monthly on the 32nd at 10:00",
            "`the 32nd` is not a day, such as mondays, or with `monthly on` the 1st, the last day, the first monday",
        ),
        (
            "monthly at 10:00",
            "it says no day; say `monthly on the 1st at 04:00`, or `the last day`, or `the first monday`",
        ),
        (
            "once tomorrow",
            "`tomorrow` is not an instant, such as 2026-12-01T00:00:00Z, or 2026-12-01 09:00 with a zone",
        ),
        (
            "once 2026-12-01",
            "`2026-12-01` is not an instant, such as 2026-12-01T00:00:00Z, or 2026-12-01 09:00 with a zone",
        ),
        (
            "daily at 03:30 in Europe/Berln",
            "`Europe/Berln` is not a time zone, such as Europe/Berlin; did you mean `Europe/Berlin`?",
        ),
        ("cron 61,5 * * * *", "`61` is no minute (0 to 59), in the field `61,5`"),
        ("cron 0 0 30 2 *", "no instant ever matches it"),
        ("cron 0 0 31 4,6,9,11 *", "no instant ever matches it"),
        ("every 4000000d", "no instant ever matches it"),
        (
            "every day at 03:30",
            "`day at 03:30` is not an interval; for a time of day say `daily at 03:30` or `mondays at 10:00`",
        ),
        (
            "daily at 03:30 in berlin",
            "`berlin` is not a time zone, such as Europe/Berlin; did you mean `Europe/Berlin`?",
        ),
    ] {
        assert_eq!(
            said.parse::<Schedule>().map_err(|fault| fault.to_string()),
            Err(message.to_owned()),
            "{said}"
        );
    }
    for said in ["cron", "cron x", "cron 61 * * * *", "cron * * *", "cron 0 0 1 1 * in Mars/Base"] {
        assert!(said.parse::<Schedule>().is_err(), "{said}");
    }
}

fn said(said: &str) -> Schedule {
    said.parse().unwrap_or_else(|fault| panic!("{said}: {fault}"))
}

fn check_typed(schedule: Result<Schedule, Fault>, printed: &str, described: &str, next: &[&str]) {
    let schedule = schedule.unwrap_or_else(|fault| panic!("{printed}: {fault}"));
    assert_eq!((schedule.to_string(), schedule.describe()), (printed.to_owned(), described.to_owned()));
    let first = schedule.next_after(at("2026-11-22T12:00:00Z"));
    let found: Vec<_> =
        std::iter::successors(first, |last| schedule.next_after(*last)).take(next.len() + 1).collect();
    let expected: Vec<_> = next.iter().map(|next| at(next)).collect();
    assert_eq!(found[..next.len().min(found.len())], expected, "{printed}");
}

#[test]
fn typed_schedules_are_combined() {
    let (four, six) = (|| said("every 4h"), || said("every 6h"));
    check_typed(
        Ok(four().or(six())),
        "(every 4h) or (every 6h)",
        "every 4 hours, and every 6 hours",
        &["2026-11-22T16:00:00Z", "2026-11-22T18:00:00Z", "2026-11-22T20:00:00Z", "2026-11-23T00:00:00Z"],
    );
    check_typed(
        four().and(six()),
        "(every 4h) and (every 6h)",
        "every 4 hours, when that is also every 6 hours",
        &["2026-11-23T00:00:00Z", "2026-11-23T12:00:00Z"],
    );
    check_typed(
        four().except(six()),
        "(every 4h) except (every 6h)",
        "every 4 hours, except every 6 hours",
        &["2026-11-22T16:00:00Z", "2026-11-22T20:00:00Z", "2026-11-23T04:00:00Z"],
    );
    check_typed(
        four().from(at("2026-11-23T04:00:00Z")).and_then(|later| later.until(at("2026-11-23T08:00:00Z"))),
        "((every 4h) from 2026-11-23T04:00:00Z) until 2026-11-23T08:00:00Z",
        "every 4 hours, from 2026-11-23T04:00:00Z, until 2026-11-23T08:00:00Z",
        &["2026-11-23T04:00:00Z", "2026-11-23T08:00:00Z"],
    );
    let twice = said("daily at 03:30").at_most(2, at("2026-11-22T12:00:00Z")).expect("a schedule");
    let first = twice.next_after(at("2000-01-01T00:00:00Z"));
    let all: Vec<_> = std::iter::successors(first, |last| twice.next_after(*last)).collect();
    assert_eq!(all, [at("2026-11-23T03:30:00Z"), at("2026-11-24T03:30:00Z")]);
    for never in [
        said("daily at 03:30").and(said("daily at 03:31")),
        four().except(said("every 2h")),
        four().until(at("1969-01-01T00:00:00Z")),
        four().from(at("2026-11-23T04:00:00Z")).and_then(|later| later.until(at("2026-11-23T03:00:00Z"))),
        four().at_most(0, at("2026-11-22T12:00:00Z")),
        said("once 2026-12-01T00:00:00Z").and(said("every 7s")),
        said("daily at 02:30 in Europe/Berlin").except(said("daily at 02:30 in Europe/Berlin")),
        said("cron 1-59/2 * * * * *").and(said("cron */2 * * * * * in Europe/Berlin")),
        Schedule::every(Duration::from_secs(86_400 * 4_000_000)),
    ] {
        assert_eq!(never, Err(Fault::Never));
    }
    assert_eq!(four().at_most(MOST_TIMES + 1, at("2026-11-22T12:00:00Z")), Err(Fault::TooMany));
    let typed = Schedule::on_days("mondays", "10:00", TimeZone::get("Europe/Berlin").expect("a zone"));
    assert_eq!(typed, Ok(said("mondays at 10:00 in Europe/Berlin")));
    assert_eq!(Schedule::daily("03:30", TimeZone::UTC), Ok(said("daily at 03:30")));
}

#[test]
fn clock_changes_are_told() {
    for (schedule, sentences) in [
        (
            "daily at 02:30 in Europe/Berlin",
            &[
                "on 2027-03-28 02:30 does not exist in Europe/Berlin: due right after the gap, at 03:00",
                "on 2027-10-31 02:30 comes twice in Europe/Berlin: due the first time only, at 2027-10-31T00:30:00Z",
            ][..],
        ),
        (
            "cron */20 * * * * in Europe/Berlin",
            &[
                "on 2027-03-28 02:00 does not exist in Europe/Berlin: left out",
                "on 2027-10-31 02:00 comes twice in Europe/Berlin: due both times",
            ],
        ),
        ("daily at 04:00 in Europe/Berlin", &[]),
        ("daily at 02:30", &[]),
        ("every 4s", &[]),
    ] {
        let changes = said(schedule).clock_changes(at("2027-01-01T00:00:00Z"), at("2027-12-31T00:00:00Z"));
        assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), sentences, "{schedule}");
    }
}

#[test]
fn instants_that_have_passed_are_counted() {
    let (noon, later) = (at("2026-11-22T12:00:00Z"), at("2026-11-22T12:01:01Z"));
    for (schedule, most, last, count) in [
        ("every 4s", 1, &["2026-11-22T12:01:00Z"][..], 16),
        ("every 4s", 2, &["2026-11-22T12:00:56Z", "2026-11-22T12:01:00Z"], 16),
        ("cron */4 * * * * *", 2, &["2026-11-22T12:00:56Z", "2026-11-22T12:01:00Z"], 16),
        ("every 4s", 0, &[], 16),
        ("cron */4 * * * * *", 0, &[], 16),
        ("every 1h", 5, &["2026-11-22T12:00:00Z"], 1),
        ("cron 0 * * * *", 5, &["2026-11-22T12:00:00Z"], 1),
    ] {
        let last = last.iter().map(|last| at(last)).collect();
        assert_eq!(
            said(schedule).passed(noon, later, most),
            Passed { last, count, exact: true },
            "{schedule}"
        );
    }
    assert_eq!(said("every 4s").passed(later, noon, 1).count, 0);
    let next_week = at("2026-11-29T12:00:00.5Z");
    let passed = said("cron * * * * * *").passed(noon, next_week, 2);
    let last = vec![at("2026-11-29T11:59:59Z"), at("2026-11-29T12:00:00Z")];
    assert_eq!(passed, Passed { last, count: COUNTED, exact: false });
    // What ended long ago is found again.
    let year = said("cron * * * * * * 2027");
    let passed = year.passed(at("2027-01-01T00:00:00Z"), at("2057-01-01T00:00:00Z"), 2);
    let last = vec![at("2027-12-31T23:59:58Z"), at("2027-12-31T23:59:59Z")];
    assert_eq!(passed, Passed { last, count: COUNTED, exact: false });
}

type Matches = fn(DateTime) -> bool;

const MINUTE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
const DAY: jiff::SignedDuration = jiff::SignedDuration::from_secs(86_400);

/// When what is like an interval is due, by an independent walk: from instant to instant, looking at the clock.
fn walk_through_instants(
    zone: &TimeZone,
    (first, end): (Timestamp, Timestamp),
    matches: Matches,
) -> Vec<Timestamp> {
    let instants = std::iter::successors(Some(first + MINUTE), |last| Some(*last + MINUTE));
    instants
        .take_while(|instant| *instant < end)
        .filter(|instant| matches(zone.to_datetime(*instant)))
        .collect()
}

/// When the rest is due, by another: from time to time on the wall, whether it is there or not.
fn walk_on_the_wall(
    zone: &TimeZone,
    (first, end): (Timestamp, Timestamp),
    schedules: &[(&str, bool, Matches)],
) -> Vec<Vec<Timestamp>> {
    let mut found = vec![Vec::new(); schedules.len()];
    let mut time = zone.to_datetime(first) - DAY;
    let last = zone.to_datetime(end) + DAY;
    while time < last {
        for ((_, _, matches), found) in schedules.iter().zip(&mut found) {
            if matches(time) {
                found.push(instant_of(time, zone));
            }
        }
        time += MINUTE;
    }
    for found in &mut found {
        found.retain(|instant| *instant > first && *instant < end);
        found.sort_unstable();
        found.dedup();
    }
    found
}

/// The first instant at which the clock shows it, or else at which it is past it.
fn instant_of(time: DateTime, zone: &TimeZone) -> Timestamp {
    let about = time.to_zoned(TimeZone::UTC).expect("in range").timestamp();
    let quarter = |count: i64| about + jiff::SignedDuration::from_secs(count * 900);
    let shows = (-60..=60).map(quarter).find(|instant| zone.to_datetime(*instant) == time);
    shows.unwrap_or_else(|| {
        let mut past = quarter(-60);
        while zone.to_datetime(past) < time {
            past += MINUTE;
        }
        past
    })
}

#[test]
fn two_years_in_six_zones_agree_with_a_walk_through_every_minute() {
    use jiff::civil::Weekday;
    let schedules: [(&str, bool, Matches); 8] = [
        ("daily at 02:30", false, |time| (time.hour(), time.minute()) == (2, 30)),
        ("daily at 00:00, 02:10", false, |time| matches!((time.hour(), time.minute()), (0, 0) | (2, 10))),
        ("weekdays at 01:59", false, |time| {
            (time.hour(), time.minute()) == (1, 59)
                && !matches!(time.weekday(), Weekday::Saturday | Weekday::Sunday)
        }),
        ("sundays at 03:00", false, |time| {
            (time.hour(), time.minute()) == (3, 0) && time.weekday() == Weekday::Sunday
        }),
        ("monthly on the last day at 02:30", false, |time| {
            (time.hour(), time.minute()) == (2, 30) && time.date().last_of_month() == time.date()
        }),
        ("monthly on the last sunday at 02:15", false, |time| {
            let date = time.date();
            (time.hour(), time.minute()) == (2, 15)
                && date.weekday() == Weekday::Sunday
                && date.day() + 7 > date.last_of_month().day()
        }),
        ("cron 7 * * * *", true, |time| time.minute() == 7),
        ("cron 5 2-3 1-7 * SUN", false, |time| {
            time.minute() == 5
                && matches!(time.hour(), 2 | 3)
                && (time.day() <= 7 || time.weekday() == Weekday::Sunday)
        }),
    ];
    for name in [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Asia/Kolkata",
        "Africa/Casablanca",
    ] {
        let zone = TimeZone::get(name).expect("a zone");
        let years = (at("2026-01-01T00:00:00Z"), at("2028-01-01T00:00:00Z"));
        let on_the_wall = walk_on_the_wall(&zone, years, &schedules);
        for ((when, hourly, matches), on_the_wall) in schedules.into_iter().zip(on_the_wall) {
            let schedule = said(&format!("{when} in {name}"));
            let expected = if hourly { walk_through_instants(&zone, years, matches) } else { on_the_wall };
            let found: Vec<_> =
                std::iter::successors(schedule.next_after(years.0), |last| schedule.next_after(*last))
                    .take_while(|next| *next < years.1)
                    .collect();
            assert_eq!(found, expected, "{when} in {name}");
        }
    }
}

const ANY: [&str; 10] = [
    "every 7s",
    "daily at 02:30 in Europe/Berlin",
    "daily at 00:00, 02:10 in Australia/Lord_Howe",
    "mondays at 10:00 in America/New_York",
    "monthly on the last day at 23:59 in Africa/Casablanca",
    "cron */5 * * * * in Europe/Berlin",
    "cron 15,45 1-3 * * * in Europe/Berlin",
    "cron 0 0 29 2 *",
    "cron */7 * * * * *",
    "once 2027-01-01T00:00:00Z",
];

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

    #[test]
    fn the_next_instant_is_later_and_the_first(which in 0..ANY.len(), after in 1_767_225_600_i64..1_830_297_600, more in 0_i64..400_000) {
        let schedule = said(ANY[which]);
        let (after, later) = (Timestamp::from_second(after).expect("in range"), Timestamp::from_second(after + more).expect("in range"));
        let (next, next_later) = (schedule.next_after(after), schedule.next_after(later));
        prop_assert!(next.is_none_or(|next| next > after));
        match (next, next_later) {
            (Some(next), Some(next_later)) => prop_assert!(next <= next_later),
            (None, next_later) => prop_assert!(next_later.is_none()),
            (Some(_), None) => {}
        }
        if let Some(next) = next.filter(|next| *next > later) {
            prop_assert_eq!(Some(next), next_later, "nothing lies between");
        }
        prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
    }

    #[test]
    fn what_has_passed_is_what_one_steps_over(which in 0..ANY.len(), after in 1_767_225_600_i64..1_830_297_600, more in 0_i64..400_000, most in 0_usize..5) {
        let schedule = said(ANY[which]);
        let now = Timestamp::from_second(after + more).expect("in range");
        let Some(due) = schedule.next_after(Timestamp::from_second(after).expect("in range")) else { return Ok(()) };
        let steps: Vec<_> = std::iter::successors(Some(due), |last| schedule.next_after(*last)).take_while(|next| *next <= now).collect();
        let last = steps[steps.len().saturating_sub(most)..].to_vec();
        prop_assert_eq!(schedule.passed(due, now, most), Passed { last, count: steps.len() as u64, exact: true });
    }

    #[test]
    fn any_words_parse_or_are_refused(said in "(daily|weekdays|mondays|monthly on the|once|cron) ?[a-z0-9:*,# /-]{0,20}( at [0-9:, ]{0,9})?( in [A-Za-z/]{0,12})?") {
        if let Ok(schedule) = said.parse::<Schedule>() {
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }
    }
}
