//! What the measuring programs share: how they begin and end, a client, floods, medians and other quantiles, how
//! late changes were against a grid of instants, and CPU time. The programs are in `examples`, and the
//! script `run` calls them.

use std::{error::Error, fmt, process::ExitCode, time::Duration};

use rustix::time::{ClockId, clock_gettime};

pub mod client;
pub mod flood;

/// Runs a program with the words that it was given and prints what it found; the usage if it gives none.
pub fn program<T: fmt::Display>(
    usage: &str,
    run: impl FnOnce(&[&str]) -> Option<Result<T, Box<dyn Error + Send + Sync>>>,
) -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Some(Ok(found)) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        None => {
            eprintln!("usage: {usage}");
            ExitCode::from(2)
        }
    }
}

/// The CPU time that this process has used so far, in both modes and in all threads.
#[must_use]
pub fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or_default())
}

/// The middle of the values, or the mean of the two in the middle; zero if there are none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    if count == 0 {
        return 0.0;
    }
    f64::midpoint(values[(count - 1) / 2], values[count / 2])
}

/// The smallest of the values that this share of them does not exceed; zero if there are none.
#[must_use]
pub fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// How changes kept to a grid of instants.
#[derive(Debug, PartialEq)]
pub struct Lateness {
    /// Instants without a change.
    pub missed: usize,
    /// Changes beyond one per instant, or at none of the instants.
    pub surplus: usize,
    /// Milliseconds after the instant, or before it if negative: one per change that has an instant.
    pub late: Vec<f64>,
}

/// Compares times of changes, since the same zero as the grid's, with `count` instants of a grid from
/// `first` on. A change belongs to the nearest instant.
#[must_use]
pub fn lateness(changes: &[Duration], first: Duration, interval: Duration, count: usize) -> Lateness {
    let mut found = vec![0_usize; count];
    let mut late = Vec::new();
    for change in changes {
        let after = (change.as_secs_f64() - first.as_secs_f64()) / interval.as_secs_f64();
        let nearest = after.round();
        if nearest < 0.0 || nearest >= count as f64 {
            continue;
        }
        found[nearest as usize] += 1;
        late.push((after - nearest) * interval.as_secs_f64() * 1e3);
    }
    Lateness {
        missed: found.iter().filter(|changes| **changes == 0).count(),
        surplus: changes.len() - found.iter().filter(|changes| **changes > 0).count(),
        late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in
            [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let hundred: Vec<_> = (1..=100).rev().map(f64::from).collect();
        for (share, expected) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(quantile(hundred.clone(), share), expected);
        }
        assert_eq!(quantile(vec![], 0.99), 0.0);
    }

    fn check(changes: &[u64], missed: usize, surplus: usize, expected: &[i64]) {
        let millis = Duration::from_millis;
        let changes: Vec<_> = changes.iter().copied().map(millis).collect();
        let found = lateness(&changes, millis(4_000), millis(4_000), 3);
        let late: Vec<_> = found.late.iter().map(|late| late.round() as i64).collect();
        assert_eq!((found.missed, found.surplus, late.as_slice()), (missed, surplus, expected));
    }

    #[test]
    fn a_change_belongs_to_the_nearest_instant() {
        check(&[4_001, 8_000, 12_050], 0, 0, &[1, 0, 50]);
        check(&[3_998, 8_000, 12_000], 0, 0, &[-2, 0, 0]);
        check(&[4_000, 12_000], 1, 0, &[0, 0]);
        check(&[4_000, 4_100, 8_000, 12_000], 0, 1, &[0, 100, 0, 0]);
        check(&[4_000, 8_000, 12_000, 20_000], 0, 1, &[0, 0, 0]);
        check(&[], 3, 0, &[]);
    }
}
