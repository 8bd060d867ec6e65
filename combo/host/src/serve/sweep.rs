//! What is overdue -> ended. Connections stamp their progress; one sweep per worker and second
//! looks at the stamps, so that no request ever arms a timer.
//!
//! Stamps are whole seconds of the worker's coarse clock. They are written by the connection's own
//! thread and read by the sweep; loads and stores are relaxed and never lock.

use std::{
    any::Any,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Wake, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::Extensions;

use super::{guard::Lengths, limits::Limits, websocket::Websocket, worker::said};

/// Seconds since a worker started, as of its last sweep. Starts at 1, so that 0 means never.
#[derive(Clone, Debug)]
pub(crate) struct Coarse(Arc<AtomicU32>);

impl Coarse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU32::new(1)))
    }

    pub(crate) fn now(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, elapsed: Duration) {
        self.0.store(u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX - 1) + 1, Relaxed);
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// TLS.
    Handshake,
    /// Accepted; nothing was sent yet.
    First,
    /// A request head has begun.
    Head,
    /// A request is in flight.
    Busy,
    /// Between requests.
    Idle,
    /// All has been said; the peer may have more to say.
    Closing,
    /// Something else than HTTP now, whatever it is.
    Tunnel,
    /// A websocket.
    Websocket,
    /// A websocket in which we have said that it closes.
    Parted,
}

/// So many seconds without a request are long, among many connections.
const A_WHILE: u32 = 2;

/// How long a peer may take to end a connection that we have ended.
pub(crate) const CLOSING: Duration = Duration::from_secs(2);

/// How long an app has to close its websockets by itself once the drain has begun.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How long a peer may take to answer a close while everything waits for it.
const ANSWER: Duration = Duration::from_secs(1);

impl Phase {
    fn of(number: u8) -> Self {
        const ALL: [Phase; 8] = [
            Phase::Handshake,
            Phase::First,
            Phase::Head,
            Phase::Busy,
            Phase::Idle,
            Phase::Closing,
            Phase::Tunnel,
            Phase::Websocket,
        ];
        ALL.into_iter().find(|phase| *phase as u8 == number).unwrap_or(Self::Parted)
    }
}

/// What is known of the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was not looked at.
    Nothing,
    /// It came in one piece and is kept.
    Whole,
    /// It came in several, or with more after it, and was scanned.
    Scanned(Lengths),
}

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// It goes on.
    Serve,
    /// It ends after what is in flight.
    Finish,
    /// It is a websocket and ends after the message that it is in.
    Part,
    /// It ends now.
    Cut,
}

/// Why a connection was ended by the sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    Handshake,
    First,
    Head,
    Idle,
    Body,
    Write,
    Closing,
    Answer,
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Handshake => "did not finish its TLS handshake",
            Self::First => "sent nothing",
            Self::Head => "did not finish a request head",
            Self::Idle => "was idle",
            Self::Body => "stopped in the middle of a body",
            Self::Write => "did not read the answer",
            Self::Closing => "did not end it",
            Self::Answer => "did not answer the close of a websocket",
        })
    }
}

/// What an upgraded connection needs for as long as it lives: among the extensions of the answer that
/// upgrades it.
#[derive(Clone, Debug)]
pub(crate) struct Keeps(Option<Arc<dyn Any + Send + Sync>>);

impl Keeps {
    pub(crate) fn new(kept: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Some(kept))
    }

    /// Says of an answer that upgrades its connection what it needs, besides what was said of it before.
    pub(crate) fn add(extensions: &mut Extensions, kept: Arc<dyn Any + Send + Sync>) {
        let kept = match extensions.remove::<Self>() {
            Some(before) => Self::new(Arc::new((before, Self::new(kept)))),
            None => Self::new(kept),
        };
        let _ = extensions.insert(kept);
    }
}

impl Drop for Keeps {
    /// An app may end with the last of it, and whoever cuts a connection goes on whatever that does.
    fn drop(&mut self) {
        let kept = self.0.take();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(kept))) {
            tracing::error!("an app failed while it ended: {}", said(&*panic));
        }
    }
}

/// The stamps of one connection.
#[derive(Debug)]
pub(crate) struct Progress {
    clock: Coarse,
    phase: AtomicU8,
    since: AtomicU32,
    in_flight: AtomicU32,
    waits_for_body: AtomicU32,
    /// Bodies of requests that somebody still has, whether or not the request was answered.
    bodies: AtomicU32,
    waits_for_write: AtomicU32,
    multiplexed: AtomicBool,
    head: AtomicU8,
    verdict: AtomicU8,
    waker: AtomicWaker,
    /// Of an upgraded connection whose halves belong to two tasks.
    writer: AtomicWaker,
    /// Tunnels in it that no request stands for: extended CONNECT.
    tunnels: AtomicU32,
    kept: Mutex<Option<Keeps>>,
    /// Somebody wants to know whether the peer is still there.
    probed: AtomicBool,
    /// By what key it is named now that it is upgraded, plus one.
    named: AtomicUsize,
    /// What it is, for as long as its app has it.
    websocket: OnceLock<Weak<Websocket>>,
}

impl Progress {
    pub(crate) fn new(clock: Coarse, phase: Phase) -> Self {
        Self {
            since: AtomicU32::new(clock.now()),
            clock,
            phase: AtomicU8::new(phase as u8),
            in_flight: AtomicU32::new(0),
            waits_for_body: AtomicU32::new(0),
            bodies: AtomicU32::new(0),
            waits_for_write: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
            head: AtomicU8::new(0),
            verdict: AtomicU8::new(Verdict::Serve as u8),
            waker: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            tunnels: AtomicU32::new(0),
            kept: Mutex::default(),
            probed: AtomicBool::new(false),
            named: AtomicUsize::new(0),
            websocket: OnceLock::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        Phase::of(self.phase.load(Relaxed))
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.since.store(self.clock.now(), Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// The connection speaks HTTP/2: what it reads are frames, of any stream.
    pub(crate) fn multiplexes(&self) {
        self.multiplexed.store(true, Relaxed);
        self.enter(Phase::Idle);
    }

    /// What it holds for as long as it is open.
    pub(crate) fn keeps(&self, more: Keeps) {
        let before = self.kept().replace(more);
        drop(before);
    }

    /// It is open no more, or is not to be.
    pub(crate) fn lets_go(&self) {
        let kept = self.kept().take();
        drop(kept);
    }

    pub(crate) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    /// A stream of the connection is something else than HTTP from now on.
    pub(crate) fn tunnel_began(&self) {
        let _ = self.tunnels.fetch_add(1, Relaxed);
    }

    /// It is over. From here on the connection is idle if nothing else is in it.
    pub(crate) fn tunnel_ended(&self) {
        if self.tunnels.fetch_sub(1, Relaxed) == 1 && self.phase() == Phase::Idle {
            self.enter(Phase::Idle);
        }
    }

    /// The connection is, and has a name.
    pub(crate) fn upgrades(&self, websocket: bool, key: usize) {
        self.named.store(key + 1, Relaxed);
        self.enter(if websocket { Phase::Websocket } else { Phase::Tunnel });
    }

    pub(crate) fn named(&self) -> Option<usize> {
        self.named.load(Relaxed).checked_sub(1)
    }

    /// Whether it is something else than HTTP.
    pub(crate) fn is_upgraded(&self) -> bool {
        self.phase.load(Relaxed) >= Phase::Tunnel as u8
    }

    /// A close was said in it, by the app or by us.
    pub(crate) fn parts(&self) {
        if self.phase() == Phase::Websocket {
            self.enter(Phase::Parted);
        }
    }

    /// The sweep can close it from now on.
    pub(crate) fn shares(&self, websocket: &Arc<Websocket>) {
        let _ = self.websocket.set(Arc::downgrade(websocket));
    }

    /// Whether it is a websocket that is to end.
    pub(crate) fn is_parting(&self) -> bool {
        self.verdict() >= Verdict::Part && self.websocket.get().is_some()
    }

    /// Goes on with its end, whatever its app is doing.
    pub(crate) fn part(self: &Arc<Self>) {
        if self.is_parting()
            && let Some(websocket) = self.websocket.get().and_then(Weak::upgrade)
        {
            websocket.go_on(self);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Keeps>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came. Says whether they may be of a request head.
    pub(crate) fn read(&self) -> bool {
        let phase = self.phase.load(Relaxed);
        if self.multiplexed.load(Relaxed) || phase == Phase::Busy as u8 {
            return false;
        }
        if phase == Phase::First as u8 || phase == Phase::Idle as u8 {
            self.enter(Phase::Head);
        }
        phase < Phase::Tunnel as u8
    }

    /// What is known of the head that is being read.
    pub(crate) fn head(&self, seen: Seen) {
        let number = match seen {
            Seen::Nothing => 0,
            Seen::Whole => 1,
            Seen::Scanned(lengths) => 2 + u8::from(lengths.content_length),
        };
        self.head.store(number, Relaxed);
    }

    /// What is known of the head of the request that begins now. Said once: what is pipelined after
    /// it was read with it, and is not looked at.
    pub(crate) fn take_head(&self) -> Seen {
        let number = self.head.load(Relaxed);
        self.head.store(0, Relaxed);
        match number {
            0 => Seen::Nothing,
            1 => Seen::Whole,
            scanned => Seen::Scanned(Lengths { content_length: scanned == 3 }),
        }
    }

    pub(crate) fn request_began(&self) {
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
        if !self.is_upgraded() {
            self.phase.store(Phase::Busy as u8, Relaxed);
        }
    }

    pub(crate) fn request_ended(&self) {
        let left = self.in_flight.load(Relaxed) - 1;
        self.in_flight.store(left, Relaxed);
        self.waits_for_body.store(0, Relaxed);
        if left == 0 && !self.is_upgraded() && self.phase() != Phase::Closing {
            self.enter(Phase::Idle);
        }
    }

    pub(crate) fn body_began(&self) {
        let _ = self.bodies.fetch_add(1, Relaxed);
    }

    /// It may have been given to another thread.
    pub(crate) fn body_ended(&self) {
        self.body(false);
        let _ = self.bodies.fetch_sub(1, Relaxed);
    }

    /// Nothing was begun that is not over, for a while or only just now: all that is needed from here
    /// on is the next request.
    pub(crate) fn rests(&self, just_now: bool) -> bool {
        self.phase() == Phase::Idle
            && (just_now || self.idle() >= A_WHILE)
            && !self.is_writing()
            && self.bodies.load(Relaxed) == 0
            && self.verdict() == Verdict::Serve
    }

    /// For how many seconds it has been where it is.
    fn idle(&self) -> u32 {
        self.clock.now().saturating_sub(self.since.load(Relaxed))
    }

    /// Wakes a connection that has been idle for a while, so that it can rest. A sweep may be late, so
    /// two of them do that.
    pub(crate) fn lull(&self) {
        if self.phase() == Phase::Idle && (A_WHILE..A_WHILE + 2).contains(&self.idle()) {
            self.poke();
        }
    }

    /// Has a connection whose request waits look whether its peer was reset: nothing is read from it
    /// meanwhile, so nothing else would tell.
    pub(crate) fn probe(&self) {
        if self.phase() == Phase::Busy {
            self.probed.store(true, Relaxed);
            self.poke();
        }
    }

    /// Whether to look, once.
    pub(crate) fn take_probe(&self) -> bool {
        let probed = self.probed.load(Relaxed);
        if probed {
            self.probed.store(false, Relaxed);
        }
        probed
    }

    fn poke(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            // A verdict still has to find it.
            self.waker.register(&waker);
        }
    }

    pub(crate) fn body(&self, waits: bool) {
        let _ = stamp(&self.waits_for_body, waits, &self.clock);
    }

    pub(crate) fn write(&self, waits: bool) {
        let waited = stamp(&self.waits_for_write, waits, &self.clock);
        if waited && !waits && !self.is_upgraded() {
            self.writer.wake();
        }
    }

    /// Whether something was said that the peer has not taken.
    pub(crate) fn is_writing(&self) -> bool {
        self.waits_for_write.load(Relaxed) > 0
    }

    /// Waits until it has. Before an upgrade nobody else writes.
    pub(crate) async fn written(&self) {
        poll_fn(|cx| {
            self.wake_writer(cx.waker());
            if self.is_writing() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.verdict.load(Relaxed) {
            0 => Verdict::Serve,
            1 => Verdict::Finish,
            2 => Verdict::Part,
            _ => Verdict::Cut,
        }
    }

    /// Whether it is to finish, and may be told: before its first request it would end unanswered.
    pub(crate) fn finishes(&self) -> bool {
        self.verdict() != Verdict::Serve
            && !matches!(self.phase(), Phase::Handshake | Phase::First | Phase::Head)
    }

    /// All has been said. Says whether the peer was at something until a moment ago, so that there
    /// may be more of it on its way.
    pub(crate) fn close(&self) -> bool {
        let since = self.since.load(Relaxed);
        let recent = u64::from(self.clock.now() - since) <= CLOSING.as_secs();
        self.enter(Phase::Closing);
        self.multiplexed.load(Relaxed) && recent
    }

    /// A verdict is only ever made stricter. An app may end by it, so no lock is to be held.
    pub(crate) fn judge(&self, verdict: Verdict) {
        if verdict > self.verdict() {
            self.verdict.store(verdict as u8, Relaxed);
            self.waker.wake();
            self.writer.wake();
        }
        if verdict == Verdict::Cut {
            self.lets_go();
        }
    }

    /// Who is to be woken by a verdict.
    pub(crate) fn wake(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Who else is, if another task does the writing.
    pub(crate) fn wake_writer(&self, waker: &Waker) {
        self.writer.register(waker);
    }

    /// What another task waited to write can be written.
    pub(crate) fn let_write(&self) {
        self.writer.wake();
    }

    /// Whatever it is at, it has only begun now.
    pub(crate) fn excuse(&self) {
        let now = self.clock.now();
        self.since.store(now, Relaxed);
        for since in [&self.waits_for_body, &self.waits_for_write] {
            if since.load(Relaxed) > 0 {
                since.store(now, Relaxed);
            }
        }
    }

    /// What this connection has overrun, if anything.
    pub(crate) fn overdue(&self, limits: &Limits) -> Option<Overdue> {
        let now = self.clock.now();
        let over = |since: u32, limit: Duration| since > 0 && u64::from(now - since) > limit.as_secs();
        if over(self.waits_for_write.load(Relaxed), limits.write) {
            return Some(Overdue::Write);
        }
        let body = self.waits_for_body.load(Relaxed);
        let (limit, overdue) = match self.phase() {
            Phase::Handshake => (limits.handshake, Overdue::Handshake),
            Phase::First => (limits.head, Overdue::First),
            Phase::Head => (limits.head, Overdue::Head),
            Phase::Idle if self.tunnels.load(Relaxed) > 0 => return None,
            Phase::Idle => (limits.idle, Overdue::Idle),
            Phase::Closing => (CLOSING, Overdue::Closing),
            Phase::Busy if !self.multiplexed.load(Relaxed) && over(body, limits.body) => {
                return Some(Overdue::Body);
            }
            Phase::Busy | Phase::Tunnel | Phase::Websocket | Phase::Parted => return None,
        };
        over(self.since.load(Relaxed), limit).then_some(overdue)
    }

    /// What would hold up a drain that has gone on for so long is ended.
    fn drain(&self, since: Duration) -> Option<Overdue> {
        match self.phase() {
            Phase::First if self.idle() > 1 => self.judge(Verdict::Cut),
            Phase::Websocket if since >= GRACE => self.judge(Verdict::Part),
            Phase::Parted if u64::from(self.idle()) > ANSWER.as_secs() && self.verdict() != Verdict::Cut => {
                self.judge(Verdict::Cut);
                return Some(Overdue::Answer);
            }
            _ => {}
        }
        None
    }

    /// Ends what is overdue, and what holds up a drain that has gone on for a while; says what it was.
    pub(crate) fn sweep(&self, limits: &Limits, draining: Option<Duration>) -> Option<Overdue> {
        if let Some(overdue) = draining.and_then(|since| self.drain(since)) {
            return Some(overdue);
        }
        let overdue = self.overdue(limits)?;
        if self.verdict() == Verdict::Cut {
            return None;
        }
        // A peer that was told to go and stays although nothing is in flight is not asked again.
        let polite = overdue == Overdue::Idle && self.verdict() == Verdict::Serve;
        self.judge(if polite { Verdict::Finish } else { Verdict::Cut });
        Some(overdue)
    }
}

/// Wakes both who reads an upgraded connection and who writes to it.
impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.waker.wake();
        self.writer.wake();
    }
}

/// Says whether it waited before.
fn stamp(stamp: &AtomicU32, waits: bool, clock: &Coarse) -> bool {
    let stamped = stamp.load(Relaxed) > 0;
    if waits != stamped {
        stamp.store(if waits { clock.now() } else { 0 }, Relaxed);
    }
    stamped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, prepare: impl Fn(&Progress), overdue: Overdue, after: u64) {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        prepare(&progress);
        let limits = Limits::default();
        clock.set(Duration::from_secs(after));
        assert_eq!(progress.overdue(&limits), None, "{name} after {after} s");
        clock.set(Duration::from_secs(after + 1));
        assert_eq!(progress.overdue(&limits), Some(overdue), "{name} after {} s", after + 1);
    }

    #[test]
    fn every_wait_has_its_deadline() {
        check("handshake", |p| p.enter(Phase::Handshake), Overdue::Handshake, 10);
        check("silence", |_| (), Overdue::First, 10);
        check("head", |p| assert!(p.read()), Overdue::Head, 10);
        check("dripping head", |p| assert!(p.read() && p.read()), Overdue::Head, 10);
        let request = |p: &Progress| {
            assert!(p.read());
            p.request_began();
        };
        check("idle", |p| (request(p), p.request_ended()).1, Overdue::Idle, 75);
        check("body", |p| (request(p), p.body(true), p.body(true)).1, Overdue::Body, 60);
        check("write", |p| (request(p), p.write(true)).1, Overdue::Write, 60);
        check("h2 idle", Progress::multiplexes, Overdue::Idle, 75);
        check("closing", |p| (p.enter(Phase::Busy), p.close()).0, Overdue::Closing, 2);
        check("websocket write", |p| (p.enter(Phase::Websocket), p.write(true)).1, Overdue::Write, 60);
    }

    #[test]
    fn what_is_quiet_by_nature_is_left_alone() {
        let clock = Coarse::new();
        for phase in [Phase::Busy, Phase::Tunnel, Phase::Websocket, Phase::Parted] {
            let progress = Progress::new(clock.clone(), phase);
            clock.set(Duration::from_secs(100_000));
            assert_eq!(progress.overdue(&Limits::default()), None, "{phase:?}");
        }
    }

    #[test]
    fn who_could_not_be_heard_is_excused() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        assert!(progress.read());
        progress.write(true);
        clock.set(Duration::from_secs(1_000));
        progress.excuse();
        assert_eq!(progress.overdue(&Limits::default()), None);
        clock.set(Duration::from_secs(1_011));
        assert_eq!(progress.overdue(&Limits::default()), Some(Overdue::Head));
    }

    #[test]
    fn a_tunnel_may_be_quiet_and_is_no_reason_to_stay_for_ever() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        progress.multiplexes();
        for _ in 0..2 {
            progress.request_began();
            progress.tunnel_began();
            progress.request_ended();
        }
        let overdue = |seconds| {
            clock.set(Duration::from_secs(seconds));
            progress.overdue(&Limits::default())
        };
        assert_eq!(overdue(100_000), None);
        progress.tunnel_ended();
        assert_eq!(overdue(200_000), None, "there is another");
        progress.tunnel_ended();
        assert_eq!(overdue(200_075), None, "it is idle since then");
        assert_eq!(overdue(200_076), Some(Overdue::Idle));
    }

    #[test]
    fn idle_connections_are_asked_once_and_then_cut() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::Idle);
        clock.set(Duration::from_secs(100));
        assert_eq!(progress.sweep(&Limits::default(), None), Some(Overdue::Idle));
        assert_eq!(progress.verdict(), Verdict::Finish);
        assert_eq!(progress.sweep(&Limits::default(), None), Some(Overdue::Idle));
        assert_eq!(progress.verdict(), Verdict::Cut);
        assert_eq!(progress.sweep(&Limits::default(), None), None);
    }

    #[test]
    fn silent_connections_do_not_hold_up_a_drain() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        clock.set(Duration::from_secs(2));
        assert_eq!(progress.sweep(&Limits::default(), Some(Duration::from_secs(2))), None);
        assert_eq!(progress.verdict(), Verdict::Cut);
    }

    #[test]
    fn a_websocket_is_closed_after_a_grace_and_cut_if_that_is_not_answered() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::Busy);
        progress.upgrades(true, 7);
        let sweep = |seconds| {
            clock.set(Duration::from_secs(seconds));
            let overdue = progress.sweep(&Limits::default(), Some(Duration::from_millis(seconds * 1_000)));
            (overdue, progress.verdict())
        };
        assert_eq!(sweep(0), (None, Verdict::Serve));
        assert_eq!(sweep(1), (None, Verdict::Part));
        assert_eq!(sweep(100), (None, Verdict::Part), "it is in the middle of a message");
        progress.parts();
        assert_eq!(sweep(101), (None, Verdict::Part));
        assert_eq!(sweep(102), (Some(Overdue::Answer), Verdict::Cut));
        assert_eq!(sweep(103), (None, Verdict::Cut));
        assert_eq!(progress.named(), Some(7));
    }

    #[test]
    fn what_is_no_websocket_is_left_alone_until_the_end_of_a_drain() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::Busy);
        progress.upgrades(false, 0);
        progress.parts();
        clock.set(Duration::from_secs(1_000));
        assert_eq!(progress.sweep(&Limits::default(), Some(Duration::from_secs(1_000))), None);
        assert_eq!((progress.verdict(), progress.phase()), (Verdict::Serve, Phase::Tunnel));
    }
}
