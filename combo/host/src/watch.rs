//! The one thread that never runs anybody's code: timetable, signals, accepting, drain, stall watch.
//! It waits for the next event, asks `step` what to do about it and has `run` do it.
#![expect(clippy::disallowed_methods, reason = "this is where the clocks are read")]

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use combo_core::{Command, Timestamp};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::{
    io::unix::AsyncFd,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::{
    notify::Supervisor,
    run::{Deeds, Flow},
    serve::listen::{Listener, readable},
    step::{Caller, Event, Now, State, step},
};

/// How long a worker may do nothing but one thing before it is named.
const STALLED: Duration = Duration::from_millis(250);

/// How often the workers are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Everything that the watch needs.
pub(crate) struct Watch {
    pub(crate) state: State,
    pub(crate) deeds: Deeds,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) inbox: mpsc::UnboundedReceiver<Event>,
    pub(crate) signals: bool,
    /// Told when signals are heard and connections accepted, or why not.
    pub(crate) ready: oneshot::Sender<io::Result<()>>,
}

/// Watches until everything has stopped.
pub(crate) fn watch(watch: Watch) {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async move {
            if let Err(error) = attend(watch).await {
                tracing::error!(%error, "the watch ended");
            }
        }),
        Err(error) => drop(watch.ready.send(Err(error))),
    }
}

/// What the watch wakes up for.
struct Ears {
    /// On the wall clock: rings at once when that is set.
    wall: AlarmClock,
    mono: AlarmClock,
    signals: Option<Signals>,
}

impl Ears {
    fn open(signals: bool) -> io::Result<Self> {
        Ok(Self {
            wall: AlarmClock::new(TimerfdClockId::Realtime, TimerfdTimerFlags::CANCEL_ON_SET)?,
            mono: AlarmClock::new(TimerfdClockId::Monotonic, TimerfdTimerFlags::empty())?,
            signals: if signals { Some(Signals::new()?) } else { None },
        })
    }
}

async fn attend(watch: Watch) -> io::Result<()> {
    let Watch { mut state, mut deeds, listeners, mut inbox, signals, ready } = watch;
    let Ears { mut wall, mut mono, mut signals } = match Ears::open(signals) {
        Ok(ears) => ears,
        Err(error) => {
            drop(ready.send(Err(error)));
            return Ok(());
        }
    };
    let (began, origin) = (Instant::now(), clock_gettime(ClockId::Monotonic));
    let now = || Now { wall: Timestamp::now(), mono: began.elapsed() };
    let mut barks = Barks::of(&deeds);
    let mut stalls = Stalls::new(deeds.desks.len());
    let mut clocks = Clocks(now());
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    deeds.accept(listeners);
    let gauge = deeds.gauge();
    // Whoever started this and is gone has dropped the handle, which says to stop.
    drop(ready.send(Ok(())));
    deeds.say_ready();
    let (Flow::On | Flow::Over) = deeds.perform(step(Event::Started, &mut state, now()));
    loop {
        let due = state.alarm();
        let at_wall =
            due.wall.map(|at| Timespec { tv_sec: at.as_second(), tv_nsec: at.subsec_nanosecond().into() });
        let at_mono = due.mono.map(|at| Timespec::try_from(at).map_or(FOR_EVER, |at| origin + at));
        let event = tokio::select! {
            event = inbox.recv() => match event {
                Some(event) => event,
                None => return Ok(()),
            },
            woke = wall.ring(at_wall) => { woke?; Event::Woke }
            woke = mono.ring(at_mono) => { woke?; Event::Woke }
            heard = Signals::next(&mut signals) => match heard {
                Heard::Command(command) => Event::Asked { command, caller: Caller::default() },
                Heard::HangUp => {
                    let now = clock_gettime(ClockId::Monotonic);
                    deeds.reload(Duration::try_from(now).unwrap_or_default());
                    continue;
                }
            },
            _ = look.tick() => {
                barks.look(&deeds, Instant::now());
                stalls.look(&deeds, Instant::now());
                deeds.weigh(&gauge);
                // Not every kernel tells of a clock that was set, and none of a clock that is only pretended.
                if clocks.went_apart(now()) || due.wall.is_some_and(|due| due + LOOK <= now().wall) {
                    Event::Woke
                } else {
                    continue;
                }
            }
        };
        if deeds.perform(step(event, &mut state, now())) == Flow::Over {
            return Ok(());
        }
    }
}

/// As late as a clock goes.
const FOR_EVER: Timespec = Timespec { tv_sec: i64::MAX, tv_nsec: 0 };

/// The kernel's timer on one of its clocks: rings to some ten microseconds.
struct AlarmClock {
    timer: AsyncFd<OwnedFd>,
    flags: TimerfdTimerFlags,
    set: Option<Timespec>,
}

impl AlarmClock {
    fn new(clock: TimerfdClockId, flags: TimerfdTimerFlags) -> io::Result<Self> {
        let timer = timerfd_create(clock, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: readable(timer)?, flags: flags | TimerfdTimerFlags::ABSTIME, set: None })
    }

    /// Waits for an instant, or for the clock to be set; for ever without an instant.
    async fn ring(&mut self, at: Option<Timespec>) -> io::Result<()> {
        let Some(at) = at else { return std::future::pending().await };
        if self.set != Some(at) {
            match self.set(at) {
                Err(error) if was_set(&error) => return Ok(()),
                set => set?,
            }
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let mut count = [0; 8];
            match ready.try_io(|timer| rustix::io::read(timer.get_ref(), &mut count).map_err(Into::into)) {
                // It says nothing yet.
                Err(_) => {}
                Ok(read) => {
                    // It is spent, or the clock was set: either way it has to be set again.
                    self.set = None;
                    ready.clear_ready();
                    return match read {
                        Err(error) if was_set(&error) => Ok(()),
                        Err(error) => Err(error),
                        Ok(_) => Ok(()),
                    };
                }
            }
        }
    }

    fn set(&mut self, at: Timespec) -> io::Result<()> {
        // Zero would disarm it; an instant that has passed rings at once.
        let it_value = Timespec { tv_sec: at.tv_sec.max(0), tv_nsec: at.tv_nsec.max(1) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = timerfd_settime(&self.timer, self.flags, &Itimerspec { it_interval, it_value })?;
        self.set = Some(at);
        Ok(())
    }
}

/// Whether the kernel says that the wall clock was set since it was last asked.
fn was_set(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::CANCELED.raw_os_error())
}

/// Both clocks when they were last looked at.
struct Clocks(Now);

impl Clocks {
    /// Whether one of them has gone on by a second more or less than the other.
    fn went_apart(&mut self, now: Now) -> bool {
        let before = std::mem::replace(&mut self.0, now);
        let by_mono = now.mono.saturating_sub(before.mono).as_secs_f64();
        let by_wall = now.wall.duration_since(before.wall).as_secs_f64();
        (by_wall - by_mono).abs() >= 1.0
    }
}

/// What the system may tell us. The first request to stop drains, the second cuts.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    stopping: bool,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            stopping: false,
        })
    }

    async fn next(signals: &mut Option<Self>) -> Heard {
        let Some(signals) = signals else { return std::future::pending().await };
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            _ = signals.hang_up.recv() => return Heard::HangUp,
        }
        let again = std::mem::replace(&mut signals.stopping, true);
        Heard::Command(if again { Command::Cut } else { Command::Stop })
    }
}

enum Heard {
    Command(Command),
    HangUp,
}

/// When the service manager is next told that the watch is alive: twice in the time that it waits for that.
struct Barks(Option<(Duration, Instant)>);

impl Barks {
    fn of(deeds: &Deeds) -> Self {
        let within = deeds.supervisor().and_then(Supervisor::watchdog);
        Self(within.map(|within| (within / 2, Instant::now())))
    }

    fn look(&mut self, deeds: &Deeds, now: Instant) {
        if let Some((every, due)) = &mut self.0
            && *due <= now
        {
            // The next look may be as late as one.
            *due = now + every.saturating_sub(LOOK);
            deeds.supervisor().into_iter().for_each(Supervisor::is_alive);
        }
    }
}

/// What the stall watch saw of each worker: its last pulse, since when, and whether it was named.
struct Stalls(Vec<(Option<u64>, Instant, bool)>);

impl Stalls {
    fn new(workers: usize) -> Self {
        Self(vec![(None, Instant::now(), false); workers])
    }

    fn look(&mut self, deeds: &Deeds, now: Instant) {
        for (index, (last, since, named)) in self.0.iter_mut().enumerate() {
            let pulse = deeds.desks[index].pulse();
            if pulse.is_none() || pulse != *last {
                if std::mem::take(named) {
                    let _ = deeds.desks[index].stall(false);
                    let millis = u64::try_from(now.duration_since(*since).as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(worker = format!("combo-worker-{index}"), millis, "moves again");
                }
                (*last, *since) = (pulse, now);
            } else if !*named && now.duration_since(*since) >= STALLED {
                *named = true;
                deeds.name_stalled(index, now.duration_since(*since));
            }
        }
    }
}
