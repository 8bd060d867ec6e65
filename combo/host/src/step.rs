//! Everything that can happen to a running combo, and what is done about it. Pure: events and the
//! time go in, effects come out; `run` performs them. Requests do not pass through here.

use std::time::Duration;

use combo_core::{
    Command, MountState, MountStatus, Pattern, Reply, Status, Timestamp, Trigger, near::distance,
};
use tokio::sync::oneshot;

use crate::{
    jobs::{Act, Ended, Ledger, Past, Roster, Terms, Whom, ledger::KEPT},
    mount::Target,
};

/// How often a drain says whom it waits for.
const WORD: Duration = Duration::from_secs(1);

/// Of so many mounts or jobs all are named to whoever asks for one that there is not; of more, the closest.
const ALL: usize = 8;
const CLOSEST: usize = 3;

/// How long what was cut may take to go.
const GRACE: Duration = Duration::from_secs(1);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Everything serves.
    Started,
    /// The alarm rang, or the wall clock was set.
    Woke,
    /// An attempt at a tick ended.
    TaskEnded { job: usize, run: u64, ended: Ended },
    /// A file that a job waits for has changed.
    FileChanged { job: usize },
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
    /// Do something about a job.
    Job(Act),
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
    mounts: Vec<Post>,
    roster: Roster,
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
    Cutting { until: Duration, empty: bool },
    Stopped,
}

impl State {
    /// With so many jobs at most running at once, and so long for a drain.
    pub(crate) fn new(jobs: Vec<(Terms, Past)>, most: usize, budget: Duration, now: Timestamp) -> Self {
        Self {
            mounts: Vec::new(),
            roster: Roster::new(jobs, most, now),
            ledger: Ledger::new(KEPT),
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

    /// With a longer memory of how ticks ended.
    #[cfg(feature = "testing")]
    pub(crate) fn with_ledger_of(mut self, entries: usize) -> Self {
        self.ledger = Ledger::new(entries);
        self
    }

    pub(crate) fn alarm(&mut self) -> Alarm {
        let (wall, timer) = self.roster.alarm();
        let budget = match self.phase {
            Phase::Serving => None,
            Phase::Draining { until, word, .. } => Some(until.min(word)),
            Phase::Cutting { until, .. } => Some(until),
            Phase::Stopped => return Alarm { wall: None, mono: None },
        };
        Alarm { wall, mono: budget.into_iter().chain(timer).min() }
    }

    /// The work of jobs, with what is recorded of it also recorded here.
    fn recorded(&mut self, acts: Vec<Act>) -> Vec<Effect> {
        for act in &acts {
            if let Act::Record { entry, .. } = act {
                self.ledger.record(entry.clone());
            }
        }
        acts.into_iter().map(Effect::Job).collect()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn entries(&self, job: Option<&str>, most: usize) -> Reply {
        match job {
            Some(name) if self.roster.named(name).is_none() => refused(format!("there is no job `{name}`")),
            job => Reply::Ledger(self.ledger.last(job, most)),
        }
    }

    fn status(&self) -> Status {
        let mut status = Status::default();
        status.draining = self.phase != Phase::Serving;
        status.mounts = self.mounts.iter().map(Post::status).collect();
        status.jobs = self.roster.status();
        status
    }
}

/// What is done about an event.
pub(crate) fn step(event: Event, state: &mut State, now: Now) -> Vec<Effect> {
    match event {
        Event::Started => {
            let acts = state.roster.started(now);
            state.recorded(acts)
        }
        Event::Woke => woke(state, now),
        Event::TaskEnded { job, run, ended } => {
            let acts = state.roster.ended(job, run, ended, now);
            let mut effects = state.recorded(acts);
            effects.extend(stop_if_over(state));
            effects
        }
        Event::FileChanged { job } => {
            let acts = state.roster.file_changed(job, now);
            state.recorded(acts)
        }
        Event::Asked { command, caller } => asked(command, caller, state, now),
        Event::SwapAsked { mount, target, caller } => vec![swap_asked(&mount, target, caller, state)],
        Event::Swapped { mount, swapped, caller } => vec![swapped_or_not(mount, swapped, caller, state)],
        Event::WorkersEmpty => workers_empty(state),
    }
}

fn woke(state: &mut State, now: Now) -> Vec<Effect> {
    let acts = if state.phase == Phase::Stopped { Vec::new() } else { state.roster.woke(now) };
    let mut effects = state.recorded(acts);
    match &mut state.phase {
        Phase::Draining { until, .. } if now.mono >= *until => effects.extend(cut(state, now)),
        Phase::Draining { word, .. } if now.mono >= *word => {
            *word = now.mono + WORD;
            effects.push(Effect::SayWhom { tasks: state.roster.running(now) });
            effects.extend(stop_if_over(state));
        }
        Phase::Cutting { until, .. } if now.mono >= *until => {
            let acts = state.roster.give_up(now);
            effects.extend(state.recorded(acts));
            state.phase = Phase::Stopped;
            effects.push(Effect::Stop);
        }
        Phase::Draining { .. } | Phase::Cutting { .. } => effects.extend(stop_if_over(state)),
        Phase::Serving | Phase::Stopped => {}
    }
    effects
}

fn workers_empty(state: &mut State) -> Vec<Effect> {
    if let Phase::Draining { empty, .. } | Phase::Cutting { empty, .. } = &mut state.phase {
        *empty = true;
    }
    stop_if_over(state).into_iter().collect()
}

/// It is over when no worker has a connection left and every tick has its outcome.
fn stop_if_over(state: &mut State) -> Option<Effect> {
    let empty =
        matches!(state.phase, Phase::Draining { empty: true, .. } | Phase::Cutting { empty: true, .. });
    (empty && state.roster.is_idle()).then(|| {
        state.phase = Phase::Stopped;
        Effect::Stop
    })
}

fn drain(state: &mut State, now: Now) -> Vec<Effect> {
    let until = now.mono + state.budget;
    state.phase = Phase::Draining { until, word: now.mono + WORD, empty: false };
    let acts = state.roster.drain(now);
    let mut effects = vec![Effect::Drain];
    effects.extend(state.recorded(acts));
    effects
}

fn cut(state: &mut State, now: Now) -> Vec<Effect> {
    let empty = matches!(state.phase, Phase::Draining { empty: true, .. });
    state.phase = Phase::Cutting { until: now.mono + GRACE, empty };
    let mut effects = vec![Effect::Cut { tasks: state.roster.running(now) }];
    let acts = state.roster.cut();
    effects.extend(state.recorded(acts));
    effects.extend(stop_if_over(state));
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
pub(crate) fn alternatives(said: &str, patterns: &[&str]) -> String {
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
        (Command::Ledger { job, most }, _) => (state.entries(job.as_deref(), most), Vec::new()),
        (_, Phase::Stopped) => (Reply::Stopped, Vec::new()),
        (Command::Stop, Phase::Serving) => (Reply::Begun, drain(state, now)),
        (Command::Stop, _) => (refuse("it is already draining".into()), Vec::new()),
        (Command::Cut, Phase::Cutting { .. }) => (refuse("it is already being cut".into()), Vec::new()),
        (Command::Cut, Phase::Serving) => {
            let mut effects = drain(state, now);
            effects.extend(cut(state, now));
            (Reply::Begun, effects)
        }
        (Command::Cut, Phase::Draining { .. }) => (Reply::Begun, cut(state, now)),
        (command, _) => match of_job(command, state, now) {
            Ok((reply, acts)) => (reply, state.recorded(acts)),
            Err(why) => (refuse(why), Vec::new()),
        },
    };
    let mut all = vec![Effect::Reply { caller, reply }];
    all.extend(effects);
    all
}

/// What is said to a job.
fn of_job(command: Command, state: &mut State, now: Now) -> Result<(Reply, Vec<Act>), String> {
    let draining = state.phase != Phase::Serving;
    let known = |name: &str, state: &State| {
        let names = || state.roster.names().collect::<Vec<_>>();
        let found = state.roster.named(name);
        found.ok_or_else(|| format!("there is no job `{name}`; {}", alternatives(name, &names())))
    };
    match command {
        // It may be what holds up the drain.
        Command::CancelJob { name } => {
            let job = known(&name, state)?;
            Ok((Reply::Begun, state.roster.cancel(job, now)?))
        }
        _ if draining => Err("it is draining".into()),
        Command::RunJob { name, due } => {
            let job = known(&name, state)?;
            Ok((Reply::Begun, state.roster.run_now(job, due.unwrap_or(now.wall), now)?))
        }
        Command::PauseJob { name } => {
            let job = known(&name, state)?;
            state.roster.pause(job)?;
            Ok((Reply::Done, Vec::new()))
        }
        Command::ResumeJob { name } => {
            let job = known(&name, state)?;
            Ok((Reply::Done, state.roster.resume(job, now)?))
        }
        Command::Reschedule { name, trigger: said } => {
            let job = known(&name, state)?;
            let trigger: Trigger =
                said.parse().map_err(|fault| format!("cannot understand schedule `{said}`: {fault}"))?;
            Ok((Reply::Done, state.roster.reschedule(job, trigger, now)?))
        }
        command => Err(format!("{command:?} is not known here")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use combo_core::{Outcome, Policies};

    use super::*;

    fn at(seconds: i64) -> Now {
        let wall = Timestamp::from_second(1_000_000 + seconds).expect("an instant");
        Now { wall, mono: Duration::from_secs(u64::try_from(seconds).expect("after the start")) }
    }

    fn job(name: &str, said: &str) -> (Terms, Past) {
        let trigger = said.parse().expect("a trigger");
        let policies = Arc::new(Policies::default());
        (Terms { name: name.into(), trigger, policies, offset: Duration::ZERO }, Past::default())
    }

    fn state() -> State {
        let jobs = vec![job("a", "every 4s"), job("b", "every 10s")];
        State::new(jobs, 100, Duration::from_secs(30), at(0).wall)
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
                Effect::Job(Act::Start { job, run, .. }) => format!("start {job} #{run}"),
                Effect::Job(Act::Record { entry, .. }) => entry.to_string(),
                Effect::Job(Act::Tell { .. }) => "tell".into(),
                Effect::Job(act) => format!("{act:?}"),
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

    fn ended(job: usize, run: u64) -> Event {
        let (start, end) = (at(0).wall, at(0).wall);
        let ended =
            Ended { outcome: Some(Outcome::Ran), changes: Vec::new(), output: Vec::new(), start, end };
        Event::TaskEnded { job, run, ended }
    }

    fn gone(job: usize, run: u64) -> Event {
        let Event::TaskEnded { mut ended, .. } = ended(job, run) else { unreachable!() };
        ended.outcome = None;
        Event::TaskEnded { job, run, ended }
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

    const STOPPED: &str = "job `a` was cancelled: the combo stopped";

    #[test]
    fn a_drain_ends_when_workers_and_tasks_have_ended() {
        check(vec![
            (4, Event::Woke, &["start 0 #1"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (5, ask(Command::Stop), &["reply Refused { why: \"it is already draining\" }"]),
            (6, Event::Woke, &["say whom [\"0 2s\"]"]),
            (6, Event::WorkersEmpty, &[]),
            (7, ended(0, 1), &["job `a` ran", "stop"]),
            (8, ask(Command::Stop), &["reply Stopped"]),
        ]);
    }

    #[test]
    fn no_task_is_started_while_draining() {
        check(vec![
            (1, ask(Command::Stop), &["reply Begun", "drain"]),
            (20, Event::Woke, &["say whom []"]),
            (20, ask(run_job("a")), &["reply Refused { why: \"it is draining\" }"]),
            (21, Event::WorkersEmpty, &["stop"]),
        ]);
    }

    #[test]
    fn at_the_end_of_the_budget_everything_is_cut() {
        check(vec![
            (4, Event::Woke, &["start 0 #1"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (35, Event::Woke, &["cut [\"0 31s\"]", "tell", "Cut { run: 1 }"]),
            (35, gone(0, 1), &[STOPPED]),
            (35, Event::Woke, &[]),
            (36, Event::Woke, &["stop"]),
        ]);
        check(vec![
            (4, Event::Woke, &["start 0 #1"]),
            (5, ask(Command::Stop), &["reply Begun", "drain"]),
            (6, Event::WorkersEmpty, &[]),
            (7, ask(Command::Cut), &["reply Begun", "cut [\"0 3s\"]", "tell", "Cut { run: 1 }"]),
            (7, gone(0, 1), &[STOPPED, "stop"]),
        ]);
        // It does not go.
        check(vec![
            (4, Event::Woke, &["start 0 #1"]),
            (5, ask(Command::Cut), &["reply Begun", "drain", "cut [\"0 1s\"]", "tell", "Cut { run: 1 }"]),
            (5, Event::WorkersEmpty, &[]),
            (6, Event::Woke, &[&*format!("{STOPPED}; it does not end, and holds a thread"), "stop"]),
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

    fn run_job(name: &str) -> Command {
        Command::RunJob { name: name.into(), due: None }
    }

    #[test]
    fn a_job_does_what_it_is_told_by_name() {
        let name = || "a".to_owned();
        let none = "reply Refused { why: \"there is no job `c`; there are `a`, `b`\" }";
        let wrong = "reply Refused { why: \"cannot understand schedule `every x`: `x` is not an interval, such as 4s, 250ms, 1h30m or minute\" }";
        check(vec![
            (1, ask(run_job("c")), &[none]),
            (1, ask(Command::PauseJob { name: "c".into() }), &[none]),
            (1, ask(run_job("a")), &["reply Begun", "start 0 #1"]),
            (2, ask(run_job("a")), &["reply Refused { why: \"job `a` is running\" }"]),
            (2, ask(Command::CancelJob { name: name() }), &["reply Begun", "tell"]),
            (2, gone(0, 1), &["job `a` was cancelled: by command"]),
            (
                3,
                ask(Command::CancelJob { name: name() }),
                &["reply Refused { why: \"job `a` is not running\" }"],
            ),
            (3, ask(Command::PauseJob { name: name() }), &["reply Done"]),
            (5, Event::Woke, &[]),
            (6, ask(Command::ResumeJob { name: name() }), &["reply Done", "start 0 #2"]),
            (6, ended(0, 2), &["job `a` ran"]),
            (7, ask(Command::Reschedule { name: name(), trigger: "every x".into() }), &[wrong]),
            (
                7,
                ask(Command::Reschedule { name: name(), trigger: "every 1m".into() }),
                &["reply Done", "Known { job: 0, trigger: \"every 1m\" }"],
            ),
            (9, Event::Woke, &[]),
        ]);
    }

    #[test]
    fn the_ledger_says_how_ticks_have_ended() {
        let mut state = state();
        for (seconds, event) in [(4, Event::Woke), (4, ended(0, 1)), (10, Event::Woke), (10, ended(1, 3))] {
            let _ = step(event, &mut state, at(seconds));
        }
        let names = |job, most| match state.entries(job, most) {
            Reply::Ledger(entries) => entries.iter().map(|entry| entry.job.to_string()).collect::<Vec<_>>(),
            reply => panic!("{reply:?}"),
        };
        assert_eq!(
            (names(None, 9), names(None, 1), names(Some("a"), 9)),
            (vec!["b".into(), "a".into()], vec!["b".into()], vec!["a".into()])
        );
        assert_eq!(state.entries(Some("c"), 9), refused("there is no job `c`".into()));
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
}
