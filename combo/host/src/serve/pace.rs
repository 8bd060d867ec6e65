//! How much a peer moves while it is waited for -> for how long it has been too slow. Pure.
//!
//! A bucket that leaks: each second of waiting adds what a peer has to move in one, each byte that it moves
//! takes one out. So who is silent is too slow by a second each second, who drips is so by nearly as much,
//! and who keeps the rate never is, whatever it moves at a time.

use std::{
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    time::Duration,
};

/// What one peer owes, in bytes; less than nothing is what it has saved. Only the sweep asks.
#[derive(Debug, Default)]
pub(crate) struct Pace(AtomicI64);

impl Pace {
    /// So many seconds went by, in which so many bytes moved and the peer was waited for, or was not: then it
    /// pays back with time, too. What it moves beyond what it owes saves it so much time at most.
    pub(crate) fn goes_on(&self, waits: bool, seconds: u32, moved: u32, rate: u32, saves: Duration) {
        let (owed, due) = (self.0.load(Relaxed), i64::from(seconds) * i64::from(rate));
        let owed = (owed - i64::from(moved)).max(-bytes(saves, rate));
        let owed = if waits { owed.saturating_add(due) } else { owed.min((owed - due).max(0)) };
        self.0.store(owed, Relaxed);
    }

    /// Whether it has been too slow for longer than this. The first second may have been a part of one, so as
    /// long as this is not too long.
    pub(crate) fn is_over(&self, limit: Duration, rate: u32) -> bool {
        self.0.load(Relaxed) > bytes(limit, rate)
    }

    /// It is waited for on account of something else now.
    pub(crate) fn restart(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What has to move in this time.
fn bytes(time: Duration, rate: u32) -> i64 {
    // Of years it is the same whether they are a hundred or more.
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(u32::MAX.into()).saturating_mul(rate.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds a peer that moves so many bytes in each is too slow, of an hour.
    fn over(moves: impl Fn(u32) -> u32) -> Option<u32> {
        over_where(Duration::ZERO, moves)
    }

    fn over_where(saves: Duration, moves: impl Fn(u32) -> u32) -> Option<u32> {
        let pace = Pace::default();
        (1..=3_600).find(|second| {
            pace.goes_on(true, 1, moves(*second), 240, saves);
            pace.is_over(Duration::from_secs(60), 240)
        })
    }

    #[test]
    fn who_keeps_the_rate_is_never_too_slow_and_who_drips_is_almost_as_late_as_who_is_silent() {
        assert_eq!(over(|_| 0), Some(61));
        assert_eq!(over(|_| 1), Some(61));
        assert_eq!(over(|_| 120), Some(120));
        assert_eq!(over(|_| 239), None, "that takes four hours");
        assert_eq!(over(|_| 240), None);
        assert_eq!(over(|second| if second % 50 == 0 { 50 * 240 } else { 0 }), None, "in pieces");
        assert_eq!(over(|second| if second % 50 == 0 { 1_000 } else { 0 }), Some(65));
        assert_eq!(over(|second| if second == 1 { u32::MAX } else { 0 }), Some(61), "nothing is saved up");
    }

    #[test]
    fn who_is_not_waited_for_pays_back() {
        let pace = Pace::default();
        pace.goes_on(true, 61, 0, 240, Duration::ZERO);
        assert!(pace.is_over(Duration::from_secs(60), 240));
        pace.goes_on(false, 30, 0, 240, Duration::ZERO);
        pace.goes_on(true, 29, 0, 240, Duration::ZERO);
        assert!(!pace.is_over(Duration::from_secs(60), 240));
        pace.goes_on(true, 1, 0, 240, Duration::ZERO);
        assert!(pace.is_over(Duration::from_secs(60), 240));
        pace.restart();
        assert!(!pace.is_over(Duration::ZERO, 1));
    }

    /// As a client that reads a kilobyte a second, whose system takes a hundred of them at once.
    #[test]
    fn who_takes_much_at_once_has_some_time_for_it() {
        let minute = Duration::from_secs(60);
        assert_eq!(over(|second| if second % 100 == 1 { 100 << 10 } else { 0 }), Some(61));
        assert_eq!(over_where(minute, |second| if second % 100 == 1 { 100 << 10 } else { 0 }), None);
        assert_eq!(over_where(minute, |second| if second == 1 { u32::MAX } else { 0 }), Some(121));
        assert_eq!(over_where(minute, |_| 0), Some(61));
    }
}
