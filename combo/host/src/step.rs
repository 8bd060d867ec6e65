//! Everything that can happen to a running combo, and what is done about it. Pure: events and the
//! time go in, effects come out; `run` performs them. Requests do not pass through here.

use std::{sync::Arc, time::Duration};

use combo_core::{
    Command, JobStatus, MountState, MountStatus, Pattern, Reply, Schedule, Status, Tick, Timestamp,
};
use tokio::sync::oneshot;

use crate::{
    jobs::{Due, Ended, Entry, Ledger, Outcome, Timetable, ledger::KEPT},
    mount::Target,
};

/// How often a drain says whom it waits for.
const WORD: Duration = Duration::from_secs(1);

/// Of so many mounts all are named to whoever asks for one that there is not; of more, the closest.
const ALL: usize = 8;
const CLOSEST: usize = 3;

/// How long what was cut may take to go.
const GRACE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// The alarm rang, or the wall clock was set.
    Woke,
    /// A tick ended.
    TaskEnded { job: usize, ended: Ended },
    /// Somebody said a command.
    Asked { command: Command, caller: Caller },
    /// Somebody wants another target behind a mount.
    SwapAsked { mount: String, target: Box<Target>, caller: Caller },
    /// It is there on every worker, or on none.
    Swapped { mount: usize, swapped: Result<(), String>, caller: Caller },
    /// No worker has a connection left.
    WorkersEmpty,
}

/// Something to do.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Run a task.
    Start { job: usize, tick: Tick },
    /// Put a line into the log.
    Report { entry: Entry },
    /// Answer a command.
    Reply { caller: Caller, reply: Reply },
    /// Have a mount answer in another way, on every worker; then answer the command.
    Turn { mount: usize, state: MountState, page: String, caller: Caller },
    /// Put another target behind a mount, on every worker or on none; then say so.
    Swap { mount: usize, target: Box<Target>, caller: Caller },
    /// Accept nothing more; let the workers finish.
    Drain,
    /// Say whom the drain waits for.
    SayWhom { tasks: Vec<Whom> },
    /// Name what is left and end it.
    Cut { tasks: Vec<Whom> },
    /// Everything has ended, or will not.
    Stop,
}

/// A job whose task is running, and for how long it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whom {
    pub(crate) job: usize,
    pub(crate) age: Duration,
}

/// Who waits for a reply, if anybody.
#[derive(Debug, Default)]
pub(crate) struct Caller(pub(crate) Option<oneshot::Sender<Reply>>);

impl Caller {
    /// Who does not wait any more does not want to know.
    pub(crate) fn hear(self, reply: Reply) {
        let _ = self.0.map(|caller| caller.send(reply));
    }

    /// Waits until nobody waits for the reply any more.
    pub(crate) async fn gone(&mut self) {
        match &mut self.0 {
            Some(caller) => caller.closed().await,
            None => std::future::pending().await,
        }
    }
}

/// Both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// What schedules are about.
    pub(crate) wall: Timestamp,
    /// Since the start; what budgets are about.
    pub(crate) mono: Duration,
}

/// When to wake up if nothing happens: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) wall: Option<Timestamp>,
    pub(crate) mono: Option<Duration>,
}

/// What a running combo remembers.
#[derive(Debug)]
pub(crate) struct State {
    names: Vec<Arc<str>>,
    mounts: Vec<Post>,
    timetable: Timetable,
    /// Per job, the tick that is running, and since when.
    running: Vec<Option<(Tick, Duration)>>,
    /// Per job, how many ticks there were.
    counts: Vec<u64>,
    ledger: Ledger,
    budget: Duration,
    phase: Phase,
}

/// A mount, with its pattern in normal form and what is behind it.
#[derive(Debug)]
struct Post {
    pattern: String,
    target: String,
    state: MountState,
    /// What is being built to be put there.
    next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    Draining { until: Duration, word: Duration, empty: bool },
    Cutting { until: Duration },
    Stopped,
}

impl State {
    pub(crate) fn new(jobs: Vec<(Arc<str>, Schedule)>, budget: Duration, now: Timestamp) -> Self {
        let (names, schedules): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
        let count = names.len();
        Self {
            names,
            mounts: Vec::new(),
            timetable: Timetable::new(schedules, now),
            running: vec![None; count],
            counts: vec![0; count],
            ledger: Ledger::new(count, KEPT),
            budget,
            phase: Phase::Serving,
        }
    }

    /// With these mounts: their patterns and what is behind them.
    pub(crate) fn with_mounts(mut self, mounts: Vec<(String, String)>) -> Self {
        let post = |(pattern, target)| Post { pattern, target, state: MountState::Serving, next: None };
        self.mounts = mounts.into_iter().map(post).collect();
        self
    }

    pub(crate) fn alarm(&self) -> Alarm {
        match self.phase {
            Phase::Serving => Alarm { wall: self.timetable.next(), mono: None },
            Phase::Draining { until, word, .. } => Alarm { wall: None, mono: Some(until.min(word)) },
            Phase::Cutting { until } => Alarm { wall: None, mono: Some(until) },
            Phase::Stopped => Alarm { wall: None, mono: None },
        }
    }

    /// Whose task is running.
    fn running(&self, now: Now) -> Vec<Whom> {
        let whom = |(job, running): (usize, &Option<(Tick, Duration)>)| {
            let age = now.mono.saturating_sub(running.as_ref()?.1);
            Some(Whom { job, age })
        };
        self.running.iter().enumerate().filter_map(whom).collect()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn status(&self) -> Status {
        let mut status = Status::default();
        status.draining = self.phase != Phase::Serving;
        status.mounts = self.mounts.iter().map(Post::status).collect();
        status.jobs = (0..self.names.len()).map(|job| self.job_status(job)).collect();
        status
    }

    fn job_status(&self, job: usize) -> JobStatus {
        let mut status = JobStatus::new(&*self.names[job]);
        status.next = self.timetable.next_of(job);
        status.running = self.running[job].is_some();
        self.ledger.counts(job).fill(&mut status);
        status
    }
}

/// What is done about an event.
pub(crate) fn step(event: Event, state: &mut State, now: Now) -> Vec<Effect> {
    match event {
        Event::Woke => woke(state, now),
        Event::TaskEnded { job, ended } => task_ended(job, ended, state),
        Event::Asked { command, caller } => asked(command, caller, state, now),
        Event::SwapAsked { mount, target, caller } => vec![swap_asked(&mount, target, caller, state)],
        Event::Swapped { mount, swapped, caller } => vec![swapped_or_not(mount, swapped, caller, state)],
        Event::WorkersEmpty => workers_empty(state),
    }
}

fn woke(state: &mut State, now: Now) -> Vec<Effect> {
    match &mut state.phase {
        Phase::Serving => {
            let due = state.timetable.take(now.wall);
            due.into_iter().map(|due| tick(due, state, now)).collect()
        }
        Phase::Draining { until, .. } if now.mono >= *until => cut(state, now),
        Phase::Draining { word, .. } if now.mono >= *word => {
            *word = now.mono + WORD;
            vec![Effect::SayWhom { tasks: state.running(now) }]
        }
        Phase::Cutting { until } if now.mono >= *until => {
            state.phase = Phase::Stopped;
            vec![Effect::Stop]
        }
        Phase::Draining { .. } | Phase::Cutting { .. } | Phase::Stopped => Vec::new(),
    }
}

/// A tick is started, or skipped where the one before it is still running.
fn tick(due: Due, state: &mut State, now: Now) -> Effect {
    let Due { job, due, missed } = due;
    state.counts[job] += 1;
    let mut tick = Tick::at(due);
    (tick.now, tick.count, tick.missed) = (now.wall, state.counts[job], missed);
    if state.running[job].is_none() {
        state.running[job] = Some((tick.clone(), now.mono));
        return Effect::Start { job, tick };
    }
    let why = "the one before is still running".to_owned();
    record(state, job, &tick, now.wall, Outcome::Skipped { why }, Vec::new())
}

fn record(
    state: &mut State,
    job: usize,
    tick: &Tick,
    end: Timestamp,
    outcome: Outcome,
    changes: Vec<String>,
) -> Effect {
    let mut entry = Entry::new(state.names[job].clone(), tick, end, outcome);
    entry.changes = changes;
    state.ledger.record(job, entry.clone());
    Effect::Report { entry }
}

fn task_ended(job: usize, ended: Ended, state: &mut State) -> Vec<Effect> {
    // One that was cut has its outcome already.
    let Some((tick, _)) = state.running[job].take() else { return Vec::new() };
    let mut effects = vec![record(state, job, &tick, ended.end, ended.outcome, ended.changes)];
    effects.extend(stop_if_drained(state));
    effects
}

fn workers_empty(state: &mut State) -> Vec<Effect> {
    if let Phase::Draining { empty, .. } = &mut state.phase {
        *empty = true;
    }
    let over = matches!(state.phase, Phase::Cutting { .. });
    if over {
        state.phase = Phase::Stopped;
        return vec![Effect::Stop];
    }
    stop_if_drained(state).into_iter().collect()
}

fn stop_if_drained(state: &mut State) -> Option<Effect> {
    let drained = matches!(state.phase, Phase::Draining { empty: true, .. })
        && state.running.iter().all(Option::is_none);
    drained.then(|| {
        state.phase = Phase::Stopped;
        Effect::Stop
    })
}

fn cut(state: &mut State, now: Now) -> Vec<Effect> {
    let empty = matches!(state.phase, Phase::Draining { empty: true, .. });
    state.phase = if empty { Phase::Stopped } else { Phase::Cutting { until: now.mono + GRACE } };
    let tasks = state.running(now);
    let mut effects = vec![Effect::Cut { tasks: tasks.clone() }];
    for Whom { job, .. } in tasks {
        if let Some((tick, _)) = state.running[job].take() {
            effects.push(record(state, job, &tick, now.wall, Outcome::Cancelled, Vec::new()));
        }
    }
    if empty {
        effects.push(Effect::Stop);
    }
    effects
}

impl Post {
    fn status(&self) -> MountStatus {
        let mut status = MountStatus::new(&*self.pattern, &*self.target);
        status.state = self.state;
        status
    }
}

/// The mount that is meant; why not, if none is to be changed.
fn meant(said: &str, state: &State) -> Result<usize, Reply> {
    match state.phase {
        Phase::Serving => {}
        Phase::Draining { .. } | Phase::Cutting { .. } => return Err(refused("it is draining".into())),
        Phase::Stopped => return Err(Reply::Stopped),
    }
    let pattern = said.parse::<Pattern>().map_or_else(|_| said.to_owned(), |pattern| pattern.to_string());
    let found = state.mounts.iter().position(|post| post.pattern == pattern);
    found.ok_or_else(|| {
        let patterns: Vec<&str> = state.mounts.iter().map(|post| &*post.pattern).collect();
        refused(format!("there is no mount `{said}`; {}", alternatives(&pattern, &patterns)))
    })
}

/// What could have been meant instead: everything, if that is not too much to read.
fn alternatives(said: &str, patterns: &[&str]) -> String {
    let mut near: Vec<&str> = patterns.to_vec();
    let (few, verb) = if near.len() <= ALL { (ALL, "there") } else { (CLOSEST, "the closest") };
    if few == CLOSEST {
        near.sort_by_key(|pattern| distance(said, pattern));
        near.truncate(CLOSEST);
    }
    let near: Vec<String> = near.into_iter().map(|pattern| format!("`{pattern}`")).collect();
    match &*near {
        [] => "there are none".into(),
        [one] => format!("{verb} is {one}"),
        _ => format!("{verb} are {}", near.join(", ")),
    }
}

/// How many characters have to be put in, taken out or changed to get from one text to another.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

fn refused(why: String) -> Reply {
    Reply::Refused { why }
}

/// A mount is to answer in another way.
fn turn(said: &str, to: MountState, page: String, caller: Caller, state: &mut State) -> Effect {
    let mount = match meant(said, state) {
        Ok(mount) => mount,
        Err(reply) => return Effect::Reply { caller, reply },
    };
    let post = &mut state.mounts[mount];
    let already = match (post.state, to) {
        (MountState::Serving, MountState::Serving) => "serving",
        (MountState::Paused, MountState::Paused) => "paused",
        _ => {
            post.state = to;
            return Effect::Turn { mount, state: to, page, caller };
        }
    };
    let reply = refused(format!("mount `{}` is already {already}", post.pattern));
    Effect::Reply { caller, reply }
}

fn swap_asked(said: &str, target: Box<Target>, caller: Caller, state: &mut State) -> Effect {
    let mount = match meant(said, state) {
        Ok(mount) => mount,
        Err(reply) => return Effect::Reply { caller, reply },
    };
    let post = &mut state.mounts[mount];
    let faults = target.faults();
    let why = if !faults.is_empty() {
        faults.join("; ")
    } else if let Some(next) = &post.next {
        format!("it is being swapped for {next}")
    } else {
        post.next = Some(target.label.clone());
        return Effect::Swap { mount, target, caller };
    };
    Effect::Reply { caller, reply: refused(format!("mount `{}`: {why}", post.pattern)) }
}

fn swapped_or_not(mount: usize, swapped: Result<(), String>, caller: Caller, state: &mut State) -> Effect {
    let post = &mut state.mounts[mount];
    let next = post.next.take();
    let reply = match swapped {
        Ok(()) => {
            post.target = next.unwrap_or_default();
            Reply::Done
        }
        Err(why) => refused(why),
    };
    Effect::Reply { caller, reply }
}

fn asked(command: Command, caller: Caller, state: &mut State, now: Now) -> Vec<Effect> {
    let command = match command {
        Command::Maintain { mount, page } => {
            return vec![turn(&mount, MountState::Maintenance, page, caller, state)];
        }
        Command::Pause { mount } => {
            return vec![turn(&mount, MountState::Paused, String::new(), caller, state)];
        }
        Command::Resume { mount } => {
            return vec![turn(&mount, MountState::Serving, String::new(), caller, state)];
        }
        command => command,
    };
    let refuse = refused;
    let (reply, effects) = match (command, state.phase) {
        (Command::Status, _) => (Reply::Status(state.status()), Vec::new()),
        (_, Phase::Stopped) => (Reply::Stopped, Vec::new()),
        (Command::Stop, Phase::Serving) => {
            let until = now.mono + state.budget;
            state.phase = Phase::Draining { until, word: now.mono + WORD, empty: false };
            (Reply::Begun, vec![Effect::Drain])
        }
        (Command::Stop, _) => (refuse("it is already draining".into()), Vec::new()),
        (Command::Cut, Phase::Cutting { .. }) => (refuse("it is already being cut".into()), Vec::new()),
        (Command::Cut, Phase::Serving) => {
            let mut effects = vec![Effect::Drain];
            effects.extend(cut(state, now));
            (Reply::Begun, effects)
        }
        (Command::Cut, Phase::Draining { .. }) => (Reply::Begun, cut(state, now)),
        (Command::RunJob { .. }, phase) if phase != Phase::Serving => {
            (refuse("it is draining".into()), Vec::new())
        }
        (Command::RunJob { name }, _) => match state.names.iter().position(|known| **known == *name) {
            None => (refuse(format!("there is no job `{name}`")), Vec::new()),
            Some(job) if state.running[job].is_some() => {
                (refuse(format!("job `{name}` is running")), Vec::new())
            }
            Some(job) => (Reply::Begun, vec![tick(Due { job, due: now.wall, missed: 0 }, state, now)]),
        },
        (command, _) => (refuse(format!("{command:?} is not known here")), Vec::new()),
    };
    let mut all = vec![Effect::Reply { caller, reply }];
    all.extend(effects);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Now {
        let wall = Timestamp::from_second(1_000_000 + seconds).expect("an instant");
        Now { wall, mono: Duration::from_secs(u64::try_from(seconds).expect("after the start")) }
    }

    fn state() -> State {
        let every = |said: &str| said.parse().expect("a schedule");
        State::new(
            vec![("a".into(), every("every 4s")), ("b".into(), every("every 10s"))],
            Duration::from_secs(30),
            at(0).wall,
        )
        .with_mounts(vec![("/a".into(), "an app".into()), ("b.org/c".into(), "files".into())])
    }

    fn whom(tasks: &[Whom]) -> String {
        let tasks: Vec<_> = tasks.iter().map(|task| format!("{} {:?}", task.job, task.age)).collect();
        format!("{tasks:?}")
    }

    fn said(effects: &[Effect]) -> Vec<String> {
        effects
            .iter()
            .map(|effect| match effect {
                Effect::Start { job, tick } => format!("start {job} #{} missed {}", tick.count, tick.missed),
                Effect::Report { entry } => format!("report {} {:?}", entry.job, entry.outcome),
                Effect::Reply { reply, .. } => format!("reply {reply:?}"),
                Effect::Turn { mount, state, page, .. } => format!("turn {mount} {state:?} {page}"),
                Effect::Swap { mount, target, .. } => format!("swap {mount} for {}", target.label),
                Effect::Cut { tasks } => format!("cut {}", whom(tasks)),
                Effect::Drain => "drain".into(),
                Effect::SayWhom { tasks } => format!("say whom {}", whom(tasks)),
                Effect::Stop => "stop".into(),
            })
            .collect()
    }

    fn ask(command: Command) -> Event {
        Event::Asked { command, caller: Caller::default() }
    }

    fn ended(job: usize) -> Event {
        Event::TaskEnded { job, ended: Ended { outcome: Outcome::Ran, changes: Vec::new(), end: at(0).wall } }
    }

    /// A story: what happens when, and what is done about it.
    fn check(story: Vec<(i64, Event, &[&str])>) {
        let mut state = state();
        for (seconds, event, expected) in story {
            let event_said = format!("{event:?}");
            assert_eq!(
                said(&step(event, &mut state, at(seconds))),
                expected,
                "{event_said} after {seconds} s"
            );
        }
    }

    #[test]
    fn a_tick_that_would_overlap_is_skipped() {
        check(vec![
            (3, Event::Woke, &[]),
            (4, Event::Woke, &["start 0 #1 missed 0"]),
            (8, Event::Woke, &["report a Skipped { why: \"the one before is still running\" }"]),
            (9, ended(0), &["report a Ran"]),
            (10, Event::Woke, &["start 1 #1 missed 0"]),
            (12, Event::Woke, &["start 0 #3 missed 0"]),
        ]);
    }

    #[test]
    fn late_ticks_are_merged() {
        check(vec![(17, Event::Woke, &["start 1 #1 missed 0", "start 0 #1 missed 3"])]);
    }

    #[test]
    fn a_drain_ends_when_workers_and_tasks_have_ended() {
        check(vec![
            (4, Event::Woke, &["start 0 #1 missed 0"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (5, ask(Command::Stop), &["reply Refused { why: \"it is already draining\" }"]),
            (6, Event::Woke, &["say whom [\"0 2s\"]"]),
            (6, Event::WorkersEmpty, &[]),
            (7, ended(0), &["report a Ran", "stop"]),
            (8, ask(Command::Stop), &["reply Stopped"]),
        ]);
    }

    #[test]
    fn no_task_is_started_while_draining() {
        check(vec![
            (1, ask(Command::Stop), &["reply Begun", "drain"]),
            (20, Event::Woke, &["say whom []"]),
            (20, ask(Command::RunJob { name: "a".into() }), &["reply Refused { why: \"it is draining\" }"]),
            (21, Event::WorkersEmpty, &["stop"]),
        ]);
    }

    #[test]
    fn at_the_end_of_the_budget_everything_is_cut() {
        check(vec![
            (4, Event::Woke, &["start 0 #1 missed 0"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (35, Event::Woke, &["cut [\"0 31s\"]", "report a Cancelled"]),
            (35, ended(0), &[]),
            (35, Event::Woke, &[]),
            (36, Event::Woke, &["stop"]),
        ]);
        check(vec![
            (4, Event::Woke, &["start 0 #1 missed 0"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (6, Event::WorkersEmpty, &[]),
            (7, ask(Command::Cut), &["reply Begun", "cut [\"0 3s\"]", "report a Cancelled", "stop"]),
        ]);
    }

    #[test]
    fn a_cut_out_of_service_drains_and_cuts() {
        check(vec![
            (1, ask(Command::Cut), &["reply Begun", "drain", "cut []"]),
            (1, ask(Command::Cut), &["reply Refused { why: \"it is already being cut\" }"]),
            (1, Event::WorkersEmpty, &["stop"]),
        ]);
    }

    #[test]
    fn a_job_can_be_run_by_name() {
        check(vec![
            (
                1,
                ask(Command::RunJob { name: "c".into() }),
                &["reply Refused { why: \"there is no job `c`\" }"],
            ),
            (1, ask(Command::RunJob { name: "a".into() }), &["reply Begun", "start 0 #1 missed 0"]),
            (
                2,
                ask(Command::RunJob { name: "a".into() }),
                &["reply Refused { why: \"job `a` is running\" }"],
            ),
            (4, Event::Woke, &["report a Skipped { why: \"the one before is still running\" }"]),
        ]);
    }

    fn maintain(mount: &str) -> Event {
        ask(Command::Maintain { mount: mount.into(), page: "later".into() })
    }

    fn pause(mount: &str) -> Event {
        ask(Command::Pause { mount: mount.into() })
    }

    fn resume(mount: &str) -> Event {
        ask(Command::Resume { mount: mount.into() })
    }

    fn swap(mount: &str, to: &str) -> Event {
        let (mount, target) = (mount.into(), Box::new(crate::mount::redirect(to)));
        Event::SwapAsked { mount, target, caller: Caller::default() }
    }

    fn swapped(mount: usize, swapped: Result<(), &str>) -> Event {
        let swapped = swapped.map_err(ToOwned::to_owned);
        Event::Swapped { mount, swapped, caller: Caller::default() }
    }

    #[test]
    fn a_mount_is_turned_and_turned_back() {
        check(vec![
            (1, pause("/a"), &["turn 0 Paused "]),
            (1, pause("/a/"), &["reply Refused { why: \"mount `/a` is already paused\" }"]),
            (1, maintain("/a"), &["turn 0 Maintenance later"]),
            (1, maintain("/a"), &["turn 0 Maintenance later"]),
            (1, pause("B.org/c"), &["turn 1 Paused "]),
            (1, resume("/a"), &["turn 0 Serving "]),
            (1, resume("/a"), &["reply Refused { why: \"mount `/a` is already serving\" }"]),
        ]);
    }

    #[test]
    fn a_mount_that_there_is_not_is_answered_with_those_that_there_are() {
        let none = "reply Refused { why: \"there is no mount `/b`; there are `/a`, `b.org/c`\" }";
        check(vec![
            (1, maintain("/b"), &[none]),
            (1, pause("/b"), &[none]),
            (1, resume("/b"), &[none]),
            (1, swap("/b", "/x"), &[none]),
        ]);
        assert_eq!(alternatives("/b", &[]), "there are none");
        assert_eq!(alternatives("/b", &["/a"]), "there is `/a`");
        let many = ["/", "/blog", "/shop", "/shops", "/admin", "/api", "/api/v1", "/old", "/new"];
        assert_eq!(alternatives("/shpo", &many), "the closest are `/shop`, `/shops`, `/api`");
    }

    #[test]
    fn texts_are_as_far_apart_as_it_takes_changes() {
        for (from, to, changes) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("ab", "ba", 2),
            ("é", "e", 1),
        ] {
            assert_eq!(distance(from, to), changes, "{from} {to}");
        }
    }

    #[test]
    fn a_target_is_swapped_once_at_a_time() {
        check(vec![
            (1, swap("/a", "/x"), &["swap 0 for redirect to `/x`"]),
            (
                1,
                swap("/a", "/y"),
                &["reply Refused { why: \"mount `/a`: it is being swapped for redirect to `/x`\" }"],
            ),
            (1, swap("b.org/c", "/y"), &["swap 1 for redirect to `/y`"]),
            (2, swapped(0, Ok(())), &["reply Done"]),
            (2, swapped(1, Err("it broke")), &["reply Refused { why: \"it broke\" }"]),
            (2, swap("/a", "/y"), &["swap 0 for redirect to `/y`"]),
            (2, swap("b.org/c", "/y"), &["swap 1 for redirect to `/y`"]),
        ]);
        check(vec![(
            1,
            swap("/a", "x"),
            &[
                "reply Refused { why: \"mount `/a`: cannot redirect to `x`: it must be a path or an http(s) URL, without query or fragment\" }",
            ],
        )]);
    }

    #[test]
    fn no_mount_is_changed_while_draining() {
        let draining = "reply Refused { why: \"it is draining\" }";
        check(vec![
            (1, swap("/a", "/x"), &["swap 0 for redirect to `/x`"]),
            (1, ask(Command::Stop), &["reply Begun", "drain"]),
            (1, pause("/a"), &[draining]),
            (1, maintain("/a"), &[draining]),
            (1, resume("/a"), &[draining]),
            (1, swap("/a", "/x"), &[draining]),
            (1, swapped(0, Ok(())), &["reply Done"]),
            (2, Event::WorkersEmpty, &["stop"]),
            (2, pause("/a"), &["reply Stopped"]),
            (2, swap("/a", "/x"), &["reply Stopped"]),
        ]);
    }

    #[test]
    fn the_status_says_how_each_mount_stands() {
        let mut state = state();
        for event in [pause("/a"), swap("/a", "/x"), swap("b.org/c", "/x"), swapped(0, Ok(()))] {
            let _ = step(event, &mut state, at(1));
        }
        let mounts = state.status().mounts;
        let said: Vec<_> = mounts.iter().map(|m| (&*m.pattern, &*m.target, m.state)).collect();
        let expected =
            [("/a", "redirect to `/x`", MountState::Paused), ("b.org/c", "files", MountState::Serving)];
        assert_eq!(said, expected);
    }

    #[test]
    fn the_alarm_is_set_for_what_comes_first() {
        let mut state = state();
        assert_eq!(state.alarm(), Alarm { wall: Some(at(4).wall), mono: None });
        let _ = step(ask(Command::Stop), &mut state, at(1));
        assert_eq!(state.alarm(), Alarm { wall: None, mono: Some(Duration::from_secs(2)) });
    }

    #[test]
    fn the_status_counts_every_tick() {
        let mut state = state();
        for (seconds, event) in [(9, Event::Woke), (10, ended(0)), (12, Event::Woke), (16, Event::Woke)] {
            let _ = step(event, &mut state, at(seconds));
        }
        let status = state.status();
        let job = &status.jobs[0];
        assert_eq!(
            (job.running, job.ran, job.skipped, job.missed, job.next),
            (true, 1, 1, 1, Some(at(20).wall))
        );
    }
}
