//! What is overdue -> ended. Connections stamp their progress; one sweep per worker and second
//! looks at the stamps, so that no request ever arms a timer.
//!
//! Stamps are whole seconds of the worker's coarse clock, and counts of what has moved. They are written by
//! the connection's own thread and read by the sweep; loads and stores are relaxed and never lock. How fast
//! a peer is that is waited for, [`pace`](super::pace) says; over HTTP/2, of each request by itself:
//! [`exchange`](super::exchange).

use std::{
    any::Any,
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

use super::{
    evictions::Eviction,
    exchange::{Exchanges, Moved},
    guard::Lengths,
    limits::Limits,
    pace::Pace,
    websocket::Websocket,
    worker::said,
};

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
    /// All that there were so far.
    requests: AtomicU32,
    waits_for_body: AtomicBool,
    /// Bodies of requests that somebody still has, whether or not the request was answered.
    bodies: AtomicU32,
    waits_for_write: AtomicBool,
    /// What came, what was written, and what of that the kernel had not got rid of when it was last asked: in
    /// bytes, whose number wraps around.
    read: AtomicU32,
    written: AtomicU32,
    queued: AtomicU32,
    /// Over HTTP/2, what of bodies was handed over to be written.
    handed: AtomicU32,
    /// The sweep wants to know that.
    asks: AtomicBool,
    /// As of the last sweep: what had come, was taken and handed over.
    seen: [AtomicU32; 3],
    /// What was waited for last, and in which request.
    awaited: (AtomicU8, AtomicU32),
    reading: Pace,
    writing: Pace,
    /// It speaks HTTP/2: its requests that wait.
    exchanges: OnceLock<Box<Exchanges>>,
    /// Since when the peer has taken nothing of what it was sent, if there is something.
    stuck: AtomicU32,
    /// A head of HTTP/2 has begun in it.
    torn: AtomicBool,
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
            requests: AtomicU32::new(0),
            waits_for_body: AtomicBool::new(false),
            bodies: AtomicU32::new(0),
            waits_for_write: AtomicBool::new(false),
            read: AtomicU32::new(0),
            written: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            handed: AtomicU32::new(0),
            asks: AtomicBool::new(false),
            seen: Default::default(),
            awaited: Default::default(),
            reading: Pace::default(),
            writing: Pace::default(),
            exchanges: OnceLock::new(),
            stuck: AtomicU32::new(0),
            torn: AtomicBool::new(false),
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
        let _ = self.exchanges.set(Box::default());
    }

    /// Its requests that wait, if it speaks HTTP/2.
    pub(crate) fn exchanges(&self) -> Option<&Exchanges> {
        self.exchanges.get().map(|exchanges| &**exchanges)
    }

    /// Whether it is in the middle of a head of HTTP/2. Once it has begun to speak of requests it is idle.
    pub(crate) fn tears(&self, begun: bool, torn: bool) {
        self.torn.store(torn, Relaxed);
        if begun && matches!(self.phase(), Phase::First | Phase::Head) {
            self.enter(Phase::Idle);
        }
    }

    /// So many bytes of answers were handed over to be sent over HTTP/2.
    pub(crate) fn hands_over(&self, bytes: usize) {
        moved(&self.handed, bytes);
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
        self.exchanges.get().is_some()
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

    /// So many bytes came, over HTTP/2 those of bodies alone. Says whether they may be of a request head of HTTP/1.
    pub(crate) fn read(&self, bytes: usize) -> bool {
        moved(&self.read, bytes);
        let phase = self.phase.load(Relaxed);
        // An answer may have ended before its request has.
        if phase == Phase::Busy as u8 || self.is_multiplexed() || self.bodies.load(Relaxed) > 0 {
            return false;
        }
        if phase == Phase::First as u8 || phase == Phase::Idle as u8 {
            self.enter(Phase::Head);
        }
        phase < Phase::Tunnel as u8
    }

    /// Hands are shaken, if there were some to shake.
    pub(crate) fn opens(&self) {
        self.enter(Phase::First);
        self.read.store(0, Relaxed);
        self.seen[0].store(0, Relaxed);
    }

    /// So many bytes came that nobody understands yet. Over HTTP/2 only bodies count.
    #[cfg(feature = "tls")]
    pub(crate) fn reads_sealed(&self, bytes: usize) {
        if !self.is_multiplexed() {
            moved(&self.read, bytes);
        }
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

    /// Says how many there were, with this one.
    pub(crate) fn request_began(&self) -> u32 {
        self.in_flight.store(self.in_flight.load(Relaxed) + 1, Relaxed);
        let requests = self.requests.load(Relaxed).saturating_add(1);
        self.requests.store(requests, Relaxed);
        if !self.is_upgraded() {
            self.phase.store(Phase::Busy as u8, Relaxed);
        }
        requests
    }

    pub(crate) fn request_ended(&self) {
        let left = self.in_flight.load(Relaxed) - 1;
        self.in_flight.store(left, Relaxed);
        self.body(false);
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

    /// Whether it may be long until something is read from it or written to it.
    fn may_be_quiet(&self) -> bool {
        self.phase() == Phase::Busy || self.is_upgraded()
    }

    /// Has such a connection look whether its peer was reset, and what that has taken: nothing else would tell.
    pub(crate) fn probe(&self) {
        if self.may_be_quiet() {
            self.probed.store(true, Relaxed);
            self.poke();
        }
    }

    /// Whether to look, once.
    pub(crate) fn take_probe(&self) -> bool {
        take(&self.probed)
    }

    fn poke(&self) {
        if self.is_upgraded() {
            // Whoever is woken says again whom to wake.
            self.waker.wake();
            self.writer.wake();
        } else if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            // A verdict still has to find it.
            self.waker.register(&waker);
        }
    }

    pub(crate) fn body(&self, waits: bool) {
        self.waits_for_body.store(waits, Relaxed);
    }

    pub(crate) fn write(&self, waits: bool) {
        let waited = self.is_writing();
        if waited != waits {
            self.waits_for_write.store(waits, Relaxed);
        }
        if waited && !waits && !self.is_upgraded() {
            self.writer.wake();
        }
    }

    /// So many bytes were written.
    pub(crate) fn wrote(&self, bytes: usize) {
        moved(&self.written, bytes);
    }

    /// Tells what was written so far from what will be.
    pub(crate) fn so_far(&self) -> u32 {
        self.written.load(Relaxed)
    }

    /// Whether somebody asks how much of it the peer has not taken, once.
    pub(crate) fn take_question(&self) -> bool {
        take(&self.asks)
    }

    /// So much of it.
    pub(crate) fn queues(&self, bytes: u32) {
        self.queued.store(bytes, Relaxed);
    }

    /// Whether something was said that the peer has not taken.
    pub(crate) fn is_writing(&self) -> bool {
        self.waits_for_write.load(Relaxed)
    }

    /// Whether there is something, as far as that is known, that the kernel still has.
    pub(crate) fn owes(&self) -> bool {
        self.is_writing() || self.queued.load(Relaxed) > 0
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
        self.is_multiplexed() && recent
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

    /// So many seconds do not count: it could not be heard in them.
    pub(crate) fn excuse(&self, seconds: u32) {
        for since in [&self.since, &self.stuck] {
            let known = since.load(Relaxed);
            if known > 0 {
                since.store((known + seconds).min(self.clock.now()), Relaxed);
            }
        }
    }

    /// What has moved in the seconds since this was asked last.
    fn moved(&self, seconds: u32) -> Moved {
        let since = |seen: &AtomicU32, now: u32| now.wrapping_sub(seen.swap(now, Relaxed));
        let taken = self.written.load(Relaxed).wrapping_sub(self.queued.load(Relaxed));
        let [read_before, taken_before, handed_before] = &self.seen;
        let read = since(read_before, self.read.load(Relaxed));
        // What is asked of the kernel now and then may be more than it was.
        let taken = u32::try_from(since(taken_before, taken).cast_signed()).unwrap_or(0);
        let handed = since(handed_before, self.handed.load(Relaxed));
        // Where the connection is what is slow, it counts for all requests that wait behind it.
        let answered = if self.is_writing() { taken } else { handed };
        Moved { seconds, read, taken, answered }
    }

    /// What its peer is waited for to send.
    fn awaits(&self) -> Awaited {
        match self.phase() {
            Phase::Head => Awaited::Head,
            // Something came that nobody understands yet.
            Phase::First if self.read.load(Relaxed) > 0 && !self.is_multiplexed() => Awaited::Head,
            _ if self.torn.load(Relaxed) => Awaited::Head,
            Phase::Busy if self.waits_for_body.load(Relaxed) && !self.is_multiplexed() => Awaited::Body,
            _ => Awaited::Nothing,
        }
    }

    /// What the peer is too slow with.
    fn too_slow(&self, limits: &Limits, moved: Moved) -> Option<Eviction> {
        let Moved { seconds, read, taken, .. } = moved;
        let awaited = self.awaits();
        if awaited != Awaited::Nothing {
            let (what, request) = &self.awaited;
            let requests = self.requests.load(Relaxed);
            let before = (what.swap(awaited as u8, Relaxed), request.swap(requests, Relaxed));
            if before != (awaited as u8, requests) {
                self.reading.restart();
            }
        }
        self.reading.goes_on(awaited != Awaited::Nothing, seconds, read, limits.rate, Duration::ZERO);
        // Who does not answer has given up writing.
        let unanswered = self.asks.load(Relaxed);
        self.writing.goes_on(self.is_writing() && !unanswered, seconds, taken, limits.rate, limits.write);
        if self.is_writing() {
            self.asks.store(true, Relaxed);
            self.poke();
        }
        if self.writing.is_over(limits.write, limits.rate) || self.is_stuck(limits, moved) {
            return Some(Eviction::Write);
        }
        match awaited {
            Awaited::Head if self.reading.is_over(limits.head, limits.rate) => Some(Eviction::Head),
            Awaited::Body if self.reading.is_over(limits.body, limits.rate) => Some(Eviction::Body),
            _ => None,
        }
    }

    /// Whether the peer takes nothing of what it was sent, little as that may be.
    fn is_stuck(&self, limits: &Limits, moved: Moved) -> bool {
        // What is known must have been asked after it was written: whoever is at something else is not asked.
        let asked = !self.probed.load(Relaxed);
        if !self.may_be_quiet() || !asked || moved.taken > 0 || self.queued.load(Relaxed) == 0 {
            self.stuck.store(0, Relaxed);
            return false;
        }
        let (now, since) = (self.clock.now(), self.stuck.load(Relaxed));
        if since == 0 {
            self.stuck.store(now, Relaxed);
        }
        since > 0 && u64::from(now - since) > 2 * limits.write.as_secs()
    }

    /// What has lasted too long, however fast the peer is.
    fn too_long(&self, limits: &Limits) -> Option<Eviction> {
        let (limit, overdue) = match self.phase() {
            Phase::Handshake => (limits.handshake, Eviction::Handshake),
            Phase::First if self.awaits() == Awaited::Head => return None,
            Phase::First => (limits.head, Eviction::First),
            Phase::Idle if self.tunnels.load(Relaxed) > 0 || self.is_writing() => return None,
            Phase::Idle => (limits.idle, Eviction::Idle),
            Phase::Closing => (CLOSING, Eviction::Closing),
            Phase::Head | Phase::Busy | Phase::Tunnel | Phase::Websocket | Phase::Parted => return None,
        };
        (u64::from(self.idle()) > limit.as_secs()).then_some(overdue)
    }

    /// What would hold up a drain that has gone on for so long is ended.
    fn drain(&self, since: Duration) -> Option<Eviction> {
        match self.phase() {
            Phase::First if self.idle() > 1 => self.judge(Verdict::Cut),
            Phase::Websocket if since >= GRACE => self.judge(Verdict::Part),
            Phase::Parted if u64::from(self.idle()) > ANSWER.as_secs() && self.verdict() != Verdict::Cut => {
                self.judge(Verdict::Cut);
                return Some(Eviction::Answer);
            }
            _ => {}
        }
        None
    }

    /// Ends what is overdue after so many seconds more, and what holds up a drain that has gone on for a while;
    /// says what it was.
    pub(crate) fn sweep(
        &self,
        limits: &Limits,
        seconds: u32,
        draining: Option<Duration>,
        mut ended: impl FnMut(Eviction),
    ) {
        if let Some(overdue) = draining.and_then(|since| self.drain(since)) {
            return ended(overdue);
        }
        let moved = self.moved(seconds);
        // What is left of an upload after its answer keeps its connection as long as it comes.
        let uploads = self.bodies.load(Relaxed) > 0 && moved.read >= limits.rate.saturating_mul(seconds);
        if self.phase() == Phase::Idle && (uploads || self.is_writing()) {
            self.enter(Phase::Idle);
        }
        if let Some(exchanges) = self.exchanges() {
            exchanges.sweep(limits, moved, &mut ended);
        }
        let Some(overdue) = self.too_slow(limits, moved).or_else(|| self.too_long(limits)) else { return };
        if self.verdict() == Verdict::Cut {
            return;
        }
        // A peer that was told to go and stays although nothing is in flight is not asked again.
        let polite = overdue == Eviction::Idle && self.verdict() == Verdict::Serve;
        self.judge(if polite { Verdict::Finish } else { Verdict::Cut });
        ended(overdue);
    }
}

/// Wakes both who reads an upgraded connection and who writes to it.
impl Wake for Progress {
    fn wake(self: Arc<Self>) {
        self.waker.wake();
        self.writer.wake();
    }
}

/// What a peer is waited for to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Awaited {
    Nothing = 0,
    Head,
    Body,
}

/// So many bytes more.
fn moved(count: &AtomicU32, bytes: usize) {
    // Of what is counted only differences matter, over a second.
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    count.store(count.load(Relaxed).wrapping_add(bytes), Relaxed);
}

/// Whether something is wanted, which it is not any more then.
fn take(wanted: &AtomicBool) -> bool {
    let was = wanted.load(Relaxed);
    if was {
        wanted.store(false, Relaxed);
    }
    was
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a connection is ended for, after how many seconds of a day.
    fn ends(prepare: impl Fn(&Progress), each_second: impl Fn(&Progress)) -> Option<(Eviction, u64)> {
        ends_where(true, prepare, each_second)
    }

    /// The same where somebody `answers` what the sweep wants to know.
    fn ends_where(
        answers: bool,
        prepare: impl Fn(&Progress),
        each_second: impl Fn(&Progress),
    ) -> Option<(Eviction, u64)> {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        prepare(&progress);
        let mut ended = None;
        for second in 1..=86_400 {
            clock.set(Duration::from_secs(second));
            each_second(&progress);
            progress.sweep(&Limits::default(), 1, None, |why| ended = Some((why, second)));
            if answers {
                let _ = (progress.take_question(), progress.take_probe());
            }
            if ended.is_some() {
                break;
            }
        }
        ended
    }

    fn check(name: &str, prepare: impl Fn(&Progress), overdue: Eviction, after: u64) {
        assert_eq!(ends(prepare, |_| ()), Some((overdue, after + 1)), "{name}");
    }

    fn request(progress: &Progress) {
        assert!(progress.read(100));
        assert_eq!(progress.request_began(), 1);
    }

    #[test]
    fn every_wait_has_its_deadline() {
        check("handshake", |p| p.enter(Phase::Handshake), Eviction::Handshake, 10);
        check("silence", |_| (), Eviction::First, 10);
        check("head", |p| assert!(p.read(1)), Eviction::Head, 10);
        #[cfg(feature = "tls")]
        {
            let sealed = |p: &Progress| (p.enter(Phase::Handshake), p.reads_sealed(300), p.opens()).2;
            check("silence under TLS", sealed, Eviction::First, 10);
            check("half a record", |p| (sealed(p), p.reads_sealed(300)).1, Eviction::Head, 10);
            assert_eq!(ends(sealed, |p| p.reads_sealed(1_024)), None, "a record takes its time");
        }
        check("idle", |p| (request(p), p.request_ended()).1, Eviction::Idle, 75);
        check("body", |p| (request(p), p.body(true), p.body(true)).1, Eviction::Body, 60);
        check("write", |p| (request(p), p.write(true)).1, Eviction::Write, 60);
        check("h2 silence", Progress::multiplexes, Eviction::First, 10);
        check("h2 idle", |p| (p.multiplexes(), p.tears(true, false)).1, Eviction::Idle, 75);
        let torn = |p: &Progress| (p.multiplexes(), p.tears(true, true)).1;
        check("h2 head", torn, Eviction::Head, 10);
        check("h2 head, busy", |p| (torn(p), p.enter(Phase::Busy)).1, Eviction::Head, 10);
        check("closing", |p| (p.enter(Phase::Busy), p.close()).0, Eviction::Closing, 2);
        check("websocket write", |p| (p.enter(Phase::Websocket), p.write(true)).1, Eviction::Write, 60);
    }

    #[test]
    fn who_drips_is_ended_and_who_keeps_the_rate_is_not() {
        let head = |bytes: usize| ends(|p| assert!(p.read(1)), move |p| assert!(p.read(bytes)));
        assert_eq!(head(1), Some((Eviction::Head, 11)));
        assert_eq!(head(1_024), None);
        let body = |bytes: usize| {
            ends(
                |p| (request(p), p.body(true)).1,
                move |p| {
                    p.body(false);
                    assert!(!p.read(bytes));
                    p.body(true);
                },
            )
        };
        assert_eq!(body(1), Some((Eviction::Body, 61)));
        assert_eq!(body(120), Some((Eviction::Body, 120)));
        assert_eq!(body(240), None);
        // What is written all at once, the kernel sends bit by bit.
        let answer = |bytes: u32| {
            ends(
                |p| (request(p), p.wrote(4 << 20), p.queues(4 << 20), p.write(true)).3,
                move |p| {
                    let queued = p.queued.load(Relaxed);
                    p.queues(if queued > bytes { queued - bytes } else { 4 << 20 });
                    if queued <= bytes {
                        p.wrote(4 << 20);
                    }
                },
            )
        };
        assert_eq!(answer(0), Some((Eviction::Write, 61)));
        assert_eq!(answer(10), Some((Eviction::Write, 63)));
        assert_eq!(answer(1_024), None);
    }

    #[test]
    fn who_has_not_taken_an_answer_is_asked_for_once_a_sweep() {
        let progress = Progress::new(Coarse::new(), Phase::Busy);
        let asked = || {
            progress.sweep(&Limits::default(), 1, None, |_| ());
            (progress.take_question(), progress.take_question())
        };
        assert_eq!(asked(), (false, false));
        progress.write(true);
        assert_eq!(asked(), (true, false));
        progress.write(false);
        assert_eq!(asked(), (false, false));
    }

    #[test]
    fn who_takes_nothing_of_the_little_that_is_sent_is_ended() {
        let sent = |phase| move |p: &Progress| (p.enter(phase), p.wrote(10), p.queues(10)).2;
        for phase in [Phase::Busy, Phase::Tunnel, Phase::Websocket] {
            assert_eq!(ends(sent(phase), |_| ()), Some((Eviction::Write, 122)), "{phase:?}");
            // Little by little, or there is always something on its way.
            assert_eq!(ends(sent(phase), |p| (p.wrote(10), p.queues(10)).1), None, "{phase:?}");
            assert_eq!(ends(sent(phase), |p| p.queues(0)), None, "{phase:?}");
        }
    }

    #[test]
    fn what_is_quiet_by_nature_is_left_alone() {
        for phase in [Phase::Busy, Phase::Tunnel, Phase::Websocket, Phase::Parted] {
            assert_eq!(ends(|p| p.enter(phase), |_| ()), None, "{phase:?}");
        }
    }

    #[test]
    fn who_could_not_be_heard_is_excused() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        let ends = |seconds| {
            clock.set(Duration::from_secs(seconds));
            let mut ended = None;
            progress.sweep(&Limits::default(), 1, None, |why| ended = Some(why));
            ended
        };
        assert_eq!((1..=5).find_map(ends), None);
        clock.set(Duration::from_secs(1_004));
        progress.excuse(999);
        assert_eq!((1_005..=1_009).find_map(ends), None);
        assert_eq!(ends(1_010), Some(Eviction::First));
    }

    #[test]
    fn who_makes_a_worker_late_gains_nothing_by_it() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        let ended = (1..).find(|sweep| {
            // Each comes a second too late.
            clock.set(Duration::from_secs(2 * sweep));
            progress.excuse(1);
            swept(&progress, None).is_some()
        });
        assert_eq!(ended, Some(11));
    }

    #[test]
    fn an_answer_is_not_over_while_it_is_taken() {
        let small = |p: &Progress| (p.wrote(10_000), p.queues(1_000_000)).1;
        assert_eq!(ends(|p| (request(p), p.write(true), p.request_ended()).2, small), None);
        let taken = ends(
            |p| (request(p), p.write(true), p.request_ended()).2,
            |p| {
                small(p);
                p.write(p.clock.now() < 200);
            },
        );
        assert_eq!(taken, Some((Eviction::Idle, 274)));
    }

    #[test]
    fn an_upload_may_go_on_after_its_answer_as_long_as_it_comes() {
        let answered = |p: &Progress| (request(p), p.body_began(), p.request_ended()).2;
        assert_eq!(ends(answered, |p| assert!(!p.read(240))), None);
        assert_eq!(ends(answered, |p| assert!(!p.read(1))), Some((Eviction::Idle, 76)));
    }

    #[test]
    fn who_gave_up_writing_is_not_waited_for() {
        let writes = |p: &Progress| (p.enter(Phase::Websocket), p.write(true)).1;
        assert_eq!(ends(writes, |_| ()), Some((Eviction::Write, 61)));
        assert_eq!(ends_where(false, writes, |_| ()), None);
    }

    #[test]
    fn a_tunnel_may_be_quiet_and_is_no_reason_to_stay_for_ever() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        progress.multiplexes();
        for _ in 0..2 {
            let _ = progress.request_began();
            progress.tunnel_began();
            progress.request_ended();
        }
        let overdue = |seconds| {
            clock.set(Duration::from_secs(seconds));
            progress.too_long(&Limits::default())
        };
        assert_eq!(overdue(100_000), None);
        progress.tunnel_ended();
        assert_eq!(overdue(200_000), None, "there is another");
        progress.tunnel_ended();
        assert_eq!(overdue(200_075), None, "it is idle since then");
        assert_eq!(overdue(200_076), Some(Eviction::Idle));
    }

    fn swept(progress: &Progress, draining: Option<Duration>) -> Option<Eviction> {
        let mut ended = None;
        progress.sweep(&Limits::default(), 1, draining, |why| ended = Some(why));
        ended
    }

    #[test]
    fn idle_connections_are_asked_once_and_then_cut() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::Idle);
        clock.set(Duration::from_secs(100));
        assert_eq!(swept(&progress, None), Some(Eviction::Idle));
        assert_eq!(progress.verdict(), Verdict::Finish);
        assert_eq!(swept(&progress, None), Some(Eviction::Idle));
        assert_eq!(progress.verdict(), Verdict::Cut);
        assert_eq!(swept(&progress, None), None);
    }

    #[test]
    fn silent_connections_do_not_hold_up_a_drain() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::First);
        clock.set(Duration::from_secs(2));
        assert_eq!(swept(&progress, Some(Duration::from_secs(2))), None);
        assert_eq!(progress.verdict(), Verdict::Cut);
    }

    #[test]
    fn a_websocket_is_closed_after_a_grace_and_cut_if_that_is_not_answered() {
        let clock = Coarse::new();
        let progress = Progress::new(clock.clone(), Phase::Busy);
        progress.upgrades(true, 7);
        let sweep = |seconds| {
            clock.set(Duration::from_secs(seconds));
            let overdue = swept(&progress, Some(Duration::from_secs(seconds)));
            (overdue, progress.verdict())
        };
        assert_eq!(sweep(0), (None, Verdict::Serve));
        assert_eq!(sweep(1), (None, Verdict::Part));
        assert_eq!(sweep(100), (None, Verdict::Part), "it is in the middle of a message");
        progress.parts();
        assert_eq!(sweep(101), (None, Verdict::Part));
        assert_eq!(sweep(102), (Some(Eviction::Answer), Verdict::Cut));
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
        assert_eq!(swept(&progress, Some(Duration::from_secs(1_000))), None);
        assert_eq!((progress.verdict(), progress.phase()), (Verdict::Serve, Phase::Tunnel));
    }
}
