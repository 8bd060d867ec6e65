//! due -> started, kept waiting, skipped or missed; ended -> tried again or recorded.
//!
//! Takes what the timetables say, how runs have ended and what is said of jobs; gives [`Act`]s. Here all
//! policies are, and that every tick ends in exactly one outcome. Pure: both clocks are values.
//!
//! Instants are taken from a job's schedule only when it can be decided what becomes of them. A job that
//! is paused, or that waits for others to end, is simply looked at later, and then it shows how many have
//! passed: so there is one rule for what was missed, whatever the reason.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use combo_core::{
    AfterFailures, Cancel, Counts, Entry, JobStatus, Missed, OnDrain, Outcome, Overlap, Policies, Tick,
    Timestamp, Trigger, policy::PUNCTUAL, schedule::Passed, trigger::Event,
};

use super::{Ended, Timetable};
use crate::step::Now;

/// The greatest step back of the wall clock that is taken for a correction and not for a new time.
pub(crate) const NOISE: Duration = Duration::from_secs(60);

/// How long a task that was cut may take to go before it counts as one that cannot be ended.
const GONE: Duration = Duration::from_secs(1);

/// What there is to know of a job.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) name: Arc<str>,
    pub(crate) trigger: Trigger,
    pub(crate) policies: Arc<Policies>,
    /// Its part of its jitter.
    pub(crate) offset: Duration,
}

/// What is known of a job from earlier processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    /// Up to when its ticks have been accounted for.
    pub(crate) accounted: Option<Timestamp>,
    pub(crate) counts: Counts,
    pub(crate) failures: u32,
    pub(crate) last: Option<Arc<Entry>>,
}

/// Something to do about jobs.
#[derive(Debug)]
pub(crate) enum Act {
    /// Run a task once. Unless `exclusive`, other processes may run the same job.
    Start { job: usize, run: u64, tick: Tick, asked: bool, exclusive: bool },
    /// Tell a task to end.
    Tell { cancel: Cancel },
    /// Drop a task wherever it waits.
    Cut { run: u64 },
    /// Write down what became of a tick, or of several that were skipped or missed.
    Record { run: Option<u64>, entry: Arc<Entry> },
    /// Say that an attempt has failed and when the next is.
    Again { job: usize, outcome: Outcome, attempt: u32, wait: Duration },
    /// Say that a job keeps failing.
    Alert { entry: Arc<Entry>, failures: u32, paused: bool },
    /// Write down that from now on a job is due at other times.
    Known { job: usize, trigger: String },
}

/// All jobs and what they are doing.
#[derive(Debug)]
pub(crate) struct Roster {
    jobs: Vec<Standing>,
    /// Who is due when another has run.
    followers: HashMap<usize, Vec<usize>>,
    wall: Timetable<Timestamp>,
    mono: Timetable<Duration>,
    timers: BinaryHeap<Reverse<Alarm>>,
    /// Who waits until fewer run.
    queue: VecDeque<Ask>,
    /// How many more may run.
    free: usize,
    most: usize,
    next_run: u64,
    /// Runs that have no outcome yet.
    open: usize,
    phase: Phase,
    /// The latest wall clock seen since it was last set back.
    latest: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Draining,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Limit,
    Cut,
    GiveUp,
    Again,
}

/// When to look at a run, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Alarm {
    at: Duration,
    job: usize,
    run: u64,
    attempt: u32,
    timer: Timer,
}

impl Alarm {
    /// Whether the attempt that it was set for is not over.
    fn is_of(&self, run: &Run) -> bool {
        (run.id, run.tick.attempt) == (self.run, self.attempt)
    }
}

#[derive(Clone, Copy, Debug)]
enum Ask {
    Due(usize),
    Again(usize, u64),
}

/// One job and what it is doing.
#[derive(Debug)]
struct Standing {
    terms: Terms,
    /// Why it is paused.
    paused: Option<&'static str>,
    /// The first instant that has not been decided about.
    next: Option<Timestamp>,
    next_mono: Option<Duration>,
    /// Events that have not been decided about.
    events: Option<Box<Passed>>,
    /// Missed instants that are to be run one after the other.
    backlog: VecDeque<Timestamp>,
    /// One of those is running.
    catching_up: bool,
    /// Why instants that have passed were not decided about.
    held: Held,
    /// It is in the queue.
    queued: bool,
    runs: Vec<Run>,
    count: u64,
    counts: Counts,
    failures: u32,
    last: Option<Arc<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// By nothing that is known here.
    Not,
    Absent,
    Paused,
    Crowded,
    /// By the run before, after which it is to run once more.
    Overlapping,
}

/// One tick that was started.
#[derive(Clone, Debug)]
struct Run {
    id: u64,
    tick: Tick,
    asked: bool,
    start: Timestamp,
    lateness: Duration,
    since: Duration,
    at: At,
    /// Who told it to end.
    told: Option<Told>,
    /// How the last attempt ended.
    outcome: Option<Ended>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Running,
    /// For its next attempt.
    Waiting,
    /// It has its outcome, and blocks its thread all the same.
    Stuck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Limit,
    Command,
    Stop,
}

/// A job whose task is running, and for how long it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Whom {
    pub(crate) job: usize,
    pub(crate) age: Duration,
}

impl Roster {
    /// With so many at most running at once. What was missed since the past is found at the first wake.
    pub(crate) fn new(jobs: Vec<(Terms, Past)>, most: usize, now: Timestamp) -> Self {
        let count = jobs.len();
        let followers = followers(&jobs);
        let mut roster = Self {
            jobs: jobs.into_iter().map(|(terms, past)| Standing::new(terms, past, now)).collect(),
            followers,
            wall: Timetable::new(count),
            mono: Timetable::new(count),
            timers: BinaryHeap::new(),
            queue: VecDeque::new(),
            free: most,
            most,
            next_run: 1,
            open: 0,
            phase: Phase::Open,
            latest: now,
        };
        (0..count).for_each(|job| roster.arm(job));
        roster
    }

    /// The process has started: what is due `at start` is.
    pub(crate) fn started(&mut self, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        self.happened(&Event::Start, now, &mut acts);
        acts
    }

    /// When to wake, on each clock.
    pub(crate) fn alarm(&mut self) -> (Option<Timestamp>, Option<Duration>) {
        let timer = self.timers.peek().map(|Reverse(alarm)| alarm.at);
        match self.phase {
            Phase::Open => (self.wall.next(), self.mono.next().into_iter().chain(timer).min()),
            Phase::Draining => (None, timer),
        }
    }

    /// Time has passed, or the wall clock was set.
    pub(crate) fn woke(&mut self, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        self.look_at_clock(now.wall);
        while self.timers.peek().is_some_and(|Reverse(alarm)| alarm.at <= now.mono)
            && let Some(Reverse(alarm)) = self.timers.pop()
        {
            self.rang(alarm, now, &mut acts);
        }
        self.look(now, &mut acts);
        acts
    }

    /// A file that a job waits for has changed.
    pub(crate) fn file_changed(&mut self, job: usize, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        self.arrive(job, now, &mut acts);
        acts
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, job: usize, run: u64, ended: Ended, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        // What came due while it ran did so before it ended.
        self.look(now, &mut acts);
        let standing = &mut self.jobs[job];
        let Some(index) = standing.runs.iter().position(|known| known.id == run) else { return acts };
        self.free += 1;
        let late = standing.late(standing.runs[index].tick.due, ended.start);
        let known = &mut standing.runs[index];
        let attempt = known.tick.attempt;
        if attempt == 1 {
            known.start = ended.start;
            known.lateness = if known.asked { Duration::ZERO } else { late };
        }
        let Run { at, told, .. } = &standing.runs[index];
        if *at == At::Stuck {
            drop(standing.runs.remove(index));
        } else {
            let outcome = ended
                .outcome
                .clone()
                .unwrap_or_else(|| told_why(*told, &standing.terms.policies, Left::Gone));
            let again = matches!(told, None | Some(Told::Limit))
                && outcome.is_failure()
                && !matches!(outcome, Outcome::Refused { .. })
                && self.phase == Phase::Open;
            let wait = standing.terms.policies.retry.filter(|_| again).and_then(|retry| retry.wait(attempt));
            let run_of = &mut standing.runs[index];
            let ended = Ended { outcome: Some(outcome.clone()), ..ended };
            if let Some(wait) = wait {
                (run_of.at, run_of.told, run_of.outcome) = (At::Waiting, None, Some(ended));
                self.set(job, index, now.mono + wait, Timer::Again);
                acts.push(Act::Again { job, outcome, attempt, wait });
            } else {
                self.finish(job, index, ended, now, &mut acts);
            }
        }
        self.consider(job, now, &mut acts);
        self.serve_queue(now, &mut acts);
        acts
    }

    /// Nothing more is started but what is due at the stop; what waits for another attempt has ended.
    pub(crate) fn drain(&mut self, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        self.phase = Phase::Draining;
        self.queue.clear();
        for job in 0..self.jobs.len() {
            self.jobs[job].queued = false;
            self.end_waiting(job, now, &mut acts, |last| last);
            if self.jobs[job].terms.policies.on_drain == OnDrain::Cancel {
                self.tell(job, Told::Stop, now, &mut acts);
            }
        }
        self.happened(&Event::Stop, now, &mut acts);
        acts
    }

    /// Whatever runs is told and cut at once.
    pub(crate) fn cut(&mut self) -> Vec<Act> {
        let mut acts = Vec::new();
        for standing in &mut self.jobs {
            for run in standing.runs.iter_mut().filter(|run| run.at == At::Running) {
                let _ = run.told.get_or_insert(Told::Stop);
                acts.push(Act::Tell { cancel: run.tick.cancel.clone() });
                acts.push(Act::Cut { run: run.id });
            }
        }
        acts
    }

    /// Whatever has no outcome yet gets one: nobody will wait for it any more.
    pub(crate) fn give_up(&mut self, now: Now) -> Vec<Act> {
        let mut acts = Vec::new();
        for job in 0..self.jobs.len() {
            while let Some(index) = self.jobs[job].runs.iter().position(|run| run.at != At::Stuck) {
                self.give_up_on(job, index, now, &mut acts);
            }
        }
        acts
    }

    /// Whether nothing runs that has no outcome yet.
    pub(crate) fn is_idle(&self) -> bool {
        self.open == 0
    }

    /// Whose task is running.
    pub(crate) fn running(&self, now: Now) -> Vec<Whom> {
        let all = self.jobs.iter().enumerate();
        let runs = all.flat_map(|(job, standing)| standing.runs.iter().map(move |run| (job, run)));
        let open = runs.filter(|(_, run)| run.at == At::Running);
        open.map(|(job, run)| Whom { job, age: now.mono.saturating_sub(run.since) }).collect()
    }

    /// The job with this name.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.jobs.iter().position(|standing| &*standing.terms.name == name)
    }

    /// All names.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.jobs.iter().map(|standing| &*standing.terms.name)
    }

    /// How each stands.
    pub(crate) fn status(&self) -> Vec<JobStatus> {
        self.jobs.iter().map(Standing::status).collect()
    }

    /// Runs it once, now, due then.
    ///
    /// # Errors
    ///
    /// Why not, a sentence.
    pub(crate) fn run_now(&mut self, job: usize, due: Timestamp, now: Now) -> Result<Vec<Act>, String> {
        let standing = &self.jobs[job];
        let (name, running) = (&standing.terms.name, standing.runs.len());
        if running >= standing.at_once() {
            return Err(match running {
                1 => format!("job `{name}` is running"),
                _ => format!("job `{name}` is running {running} times, as often as it may at once"),
            });
        }
        if self.free == 0 {
            return Err(self.crowded());
        }
        let mut acts = Vec::new();
        self.start(job, due, 0, true, Duration::ZERO, now, &mut acts);
        Ok(acts)
    }

    /// Starts no more of its ticks.
    ///
    /// # Errors
    ///
    /// If it is paused.
    pub(crate) fn pause(&mut self, job: usize) -> Result<(), String> {
        let standing = &mut self.jobs[job];
        if standing.paused.is_some() {
            return Err(format!("job `{}` is already paused", standing.terms.name));
        }
        standing.paused = Some("by command");
        self.disarm(job);
        Ok(())
    }

    /// Goes on with it.
    ///
    /// # Errors
    ///
    /// If it is not paused.
    pub(crate) fn resume(&mut self, job: usize, now: Now) -> Result<Vec<Act>, String> {
        let standing = &mut self.jobs[job];
        if standing.paused.take().is_none() {
            return Err(format!("job `{}` is not paused", standing.terms.name));
        }
        (standing.failures, standing.held) = (0, Held::Paused);
        let mut acts = Vec::new();
        self.consider(job, now, &mut acts);
        Ok(acts)
    }

    /// Ends what runs of it.
    ///
    /// # Errors
    ///
    /// If nothing does.
    pub(crate) fn cancel(&mut self, job: usize, now: Now) -> Result<Vec<Act>, String> {
        if self.jobs[job].runs.iter().all(|run| run.at == At::Stuck) {
            return Err(format!("job `{}` is not running", self.jobs[job].terms.name));
        }
        let mut acts = Vec::new();
        self.tell(job, Told::Command, now, &mut acts);
        let by_command = || Outcome::Cancelled { why: "by command, before its next attempt".into() };
        self.end_waiting(job, now, &mut acts, |last| Ended { outcome: Some(by_command()), ..last });
        self.consider(job, now, &mut acts);
        Ok(acts)
    }

    /// Has it due at other times.
    ///
    /// # Errors
    ///
    /// If it is due when something happens, or is to be.
    pub(crate) fn reschedule(&mut self, job: usize, trigger: Trigger, now: Now) -> Result<Vec<Act>, String> {
        let standing = &mut self.jobs[job];
        if let Some(Trigger::Event(_)) =
            [&standing.terms.trigger, &trigger].into_iter().find(|it| matches!(it, Trigger::Event(_)))
        {
            return Err(format!(
                "job `{}` cannot be rescheduled: events are waited for from the start on",
                standing.terms.name
            ));
        }
        let mut acts = Vec::new();
        let why = || Outcome::Missed { why: "it was rescheduled".into() };
        while let Some(due) = standing.backlog.pop_front() {
            acts.push(standing.record(due, due, 1, now, why()));
        }
        if standing.is_ripe(now) {
            let (first, passed) = standing.take(now, 1);
            if let Some(&last) = passed.last.last() {
                acts.push(standing.record(first, last, passed.count, now, why()));
            }
        }
        acts.push(Act::Known { job, trigger: trigger.to_string() });
        standing.terms.trigger = trigger;
        standing.begin(now.wall, now.mono);
        self.arm(job);
        Ok(acts)
    }

    fn crowded(&self) -> String {
        format!("{} jobs are running, as many as may at once", self.most)
    }

    /// What the clock was set back over comes again. Small corrections change nothing: what has been due
    /// waits until the clock has caught up.
    fn look_at_clock(&mut self, now: Timestamp) {
        if now < self.latest && self.latest.duration_since(now).unsigned_abs() >= NOISE {
            for job in 0..self.jobs.len() {
                let standing = &mut self.jobs[job];
                if let Trigger::Schedule(schedule) = &standing.terms.trigger
                    && standing.next.is_none_or(|next| next > now)
                {
                    standing.next = schedule.next_after(now);
                    self.arm(job);
                }
            }
            self.latest = now;
        }
        self.latest = self.latest.max(now);
    }

    fn rang(&mut self, alarm: Alarm, now: Now, acts: &mut Vec<Act>) {
        let Alarm { job, run, timer, .. } = alarm;
        let Some(index) = self.jobs[job].runs.iter().position(|known| alarm.is_of(known)) else { return };
        let standing = &mut self.jobs[job];
        let (known, grace) = (&mut standing.runs[index], standing.terms.policies.grace);
        match (timer, known.at) {
            (Timer::Limit, At::Running) if known.told.is_none() => {
                known.told = Some(Told::Limit);
                acts.push(Act::Tell { cancel: known.tick.cancel.clone() });
                self.set(job, index, now.mono + grace, Timer::Cut);
            }
            (Timer::Cut, At::Running) if known.told.is_some() => {
                acts.push(Act::Cut { run });
                self.set(job, index, now.mono + GONE, Timer::GiveUp);
            }
            (Timer::GiveUp, At::Running) if known.told.is_some() => {
                self.give_up_on(job, index, now, acts);
            }
            (Timer::Again, At::Waiting) if self.free == 0 => self.queue.push_back(Ask::Again(job, run)),
            (Timer::Again, At::Waiting) => self.start_again(job, index, now, acts),
            _ => {}
        }
    }

    /// It has its outcome, but whether its thread ever ends, nobody knows.
    fn give_up_on(&mut self, job: usize, index: usize, now: Now, acts: &mut Vec<Act>) {
        let standing = &mut self.jobs[job];
        let told = standing.runs[index].told;
        let outcome = Some(told_why(told, &standing.terms.policies, Left::Behind));
        let stuck = Run { at: At::Stuck, outcome: None, ..standing.runs[index].clone() };
        let ended =
            Ended { outcome, changes: Vec::new(), output: Vec::new(), start: stuck.start, end: now.wall };
        self.finish(job, index, ended, now, acts);
        self.jobs[job].runs.push(stuck);
    }

    /// Decides about all that is due.
    fn look(&mut self, now: Now, acts: &mut Vec<Act>) {
        while self.phase == Phase::Open
            && let Some(job) = self.wall.take(now.wall).or_else(|| self.mono.take(now.mono))
        {
            self.consider(job, now, acts);
        }
    }

    fn happened(&mut self, event: &Event, now: Now, acts: &mut Vec<Act>) {
        for job in 0..self.jobs.len() {
            if matches!(&self.jobs[job].terms.trigger, Trigger::Event(mine) if mine == event) {
                self.arrive(job, now, acts);
            }
        }
    }

    fn arrive(&mut self, job: usize, now: Now, acts: &mut Vec<Act>) {
        let standing = &mut self.jobs[job];
        let most = standing.most_missed();
        let events = standing.events.get_or_insert_with(|| Box::new(none()));
        events.last.push(now.wall);
        events.count += 1;
        // The first is kept, since it is the one from which they are counted.
        if events.last.len() > most + 1 {
            let _ = events.last.remove(1);
        }
        self.consider(job, now, acts);
    }

    /// Decides about what is due of a job.
    fn consider(&mut self, job: usize, now: Now, acts: &mut Vec<Act>) {
        let crowded = self.free == 0;
        let at_stop = matches!(self.jobs[job].terms.trigger, Trigger::Event(Event::Stop));
        let standing = &mut self.jobs[job];
        if standing.paused.is_some() || (self.phase == Phase::Draining && !at_stop) {
            return;
        }
        let running = standing.runs.len();
        if standing.backlog.is_empty() && !standing.is_ripe(now) {
            standing.catching_up &= running > 0;
            standing.held = Held::Not;
            if !standing.catching_up {
                self.arm(job);
            }
            return;
        }
        if standing.catching_up || !standing.backlog.is_empty() {
            if running > 0 {
                return;
            }
        } else if running >= standing.at_once() {
            if standing.overlap() == Overlap::Queue {
                standing.held = Held::Overlapping;
                return;
            }
            let why = standing.why_skipped();
            let (first, passed) = standing.take(now, 1);
            standing.held = Held::Not;
            if let Some(&last) = passed.last.last() {
                acts.push(standing.record(first, last, passed.count, now, Outcome::Skipped { why }));
            }
            self.arm(job);
            return;
        }
        if crowded {
            standing.held = if standing.held == Held::Not { Held::Crowded } else { standing.held };
            if !mem::replace(&mut standing.queued, true) {
                self.queue.push_back(Ask::Due(job));
            }
            return;
        }
        if let Some(due) = standing.backlog.pop_front() {
            let lateness = standing.late(due, now.wall);
            return self.start(job, due, 0, false, lateness, now, acts);
        }
        standing.catching_up = false;
        self.decide(job, now, acts);
        if !self.jobs[job].catching_up {
            self.arm(job);
        }
    }

    /// Takes what has passed from a job's schedule and applies the rule. One more may run.
    fn decide(&mut self, job: usize, now: Now, acts: &mut Vec<Act>) {
        let most = self.most;
        let standing = &mut self.jobs[job];
        let (first, passed) = standing.take(now, standing.most_missed() + 1);
        let Some(&latest) = passed.last.last() else { return };
        let (held, count) = (mem::replace(&mut standing.held, Held::Not), passed.count);
        let before = passed.last.len().checked_sub(2).map_or(first, |index| passed.last[index]);
        let reason = match held {
            Held::Not | Held::Overlapping => "it was held up, or the clock was put forward".to_owned(),
            Held::Absent => "no process ran".to_owned(),
            Held::Paused => "it was paused".to_owned(),
            Held::Crowded => format!("{most} jobs ran, as many as may at once"),
        };
        let reason = if passed.exact { reason } else { format!("{reason}; there were at least as many") };
        let missed = |why: String| Outcome::Missed { why };
        let lateness = standing.late(latest, now.wall);
        if held == Held::Overlapping {
            if count > 1 {
                let why = "the one before was still running, and a later one waits".to_owned();
                acts.push(standing.record(first, before, count - 1, now, Outcome::Skipped { why }));
            }
            return self.start(job, latest, 0, false, lateness, now, acts);
        }
        match standing.terms.policies.missed {
            Missed::Merge => {
                if count > 1 {
                    let why = format!("merged into the one due at {latest}: {reason}");
                    acts.push(standing.record(first, before, count - 1, now, missed(why)));
                }
                self.start(job, latest, count - 1, false, lateness, now, acts);
            }
            Missed::All(some) if count > 1 => {
                let kept = passed.last.len().min(usize::try_from(some).unwrap_or(usize::MAX));
                let (gone, kept) = passed.last.split_at(passed.last.len() - kept);
                let dropped = count - kept.len() as u64;
                if dropped > 0 {
                    let last = gone.last().copied().unwrap_or(first);
                    let why = format!("it was not among the last {some}: {reason}");
                    acts.push(standing.record(first, last, dropped, now, missed(why)));
                }
                standing.backlog.extend(kept);
                standing.catching_up = true;
                if let Some(due) = standing.backlog.pop_front() {
                    let lateness = standing.late(due, now.wall);
                    self.start(job, due, 0, false, lateness, now, acts);
                }
            }
            Missed::Skip if lateness > PUNCTUAL => {
                let why = format!("it would have been {:?} late: {reason}", rounded(lateness));
                acts.push(standing.record(first, latest, count, now, missed(why)));
                standing.after_end(now.mono);
            }
            _ => {
                if count > 1 {
                    acts.push(standing.record(first, before, count - 1, now, missed(reason)));
                }
                self.start(job, latest, 0, false, lateness, now, acts);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "they are what a tick is")]
    fn start(
        &mut self,
        job: usize,
        due: Timestamp,
        missed: u64,
        asked: bool,
        lateness: Duration,
        now: Now,
        acts: &mut Vec<Act>,
    ) {
        let standing = &mut self.jobs[job];
        standing.count += 1;
        let mut tick = Tick::at(due);
        (tick.now, tick.count, tick.missed) = (now.wall, standing.count, missed);
        let run = self.next_run;
        self.next_run += 1;
        standing.runs.push(Run {
            id: run,
            tick,
            asked,
            start: now.wall,
            lateness,
            since: now.mono,
            at: At::Running,
            told: None,
            outcome: None,
        });
        self.open += 1;
        let index = standing.runs.len() - 1;
        self.go(job, index, now, acts);
    }

    fn start_again(&mut self, job: usize, index: usize, now: Now, acts: &mut Vec<Act>) {
        let run = &mut self.jobs[job].runs[index];
        run.tick.attempt += 1;
        run.tick.now = now.wall;
        run.tick.cancel = Cancel::new();
        (run.since, run.at, run.outcome) = (now.mono, At::Running, None);
        self.go(job, index, now, acts);
    }

    fn go(&mut self, job: usize, index: usize, now: Now, acts: &mut Vec<Act>) {
        self.free -= 1;
        let standing = &self.jobs[job];
        let Run { id: run, tick, asked, .. } = &standing.runs[index];
        let exclusive = !matches!(standing.overlap(), Overlap::Allow(_));
        acts.push(Act::Start { job, run: *run, tick: tick.clone(), asked: *asked, exclusive });
        if let Some(limit) = standing.terms.policies.limit {
            self.set(job, index, now.mono.saturating_add(limit), Timer::Limit);
        }
    }

    /// A tick has its outcome.
    fn finish(&mut self, job: usize, index: usize, ended: Ended, now: Now, acts: &mut Vec<Act>) {
        let standing = &mut self.jobs[job];
        let run = standing.runs.remove(index);
        if standing.runs.is_empty() {
            // Most jobs do not run most of the time.
            standing.runs = Vec::new();
        }
        self.open -= 1;
        let outcome = ended.outcome.unwrap_or(Outcome::Ran);
        let mut entry = Entry::new(standing.terms.name.clone(), run.tick.due, run.start, outcome);
        (entry.end, entry.lateness, entry.count) = (ended.end, run.lateness, run.tick.count);
        (entry.missed, entry.attempt, entry.asked) = (run.tick.missed, run.tick.attempt, run.asked);
        (entry.changes, entry.output) = (ended.changes, ended.output);
        let entry = Arc::new(entry);
        standing.counts.count(&entry);
        standing.last = Some(entry.clone());
        standing.after_end(now.mono);
        let ran = entry.outcome == Outcome::Ran;
        if entry.outcome.is_failure() {
            standing.failures += 1;
        } else if ran {
            standing.failures = 0;
        }
        acts.push(Act::Record { run: Some(run.id), entry: entry.clone() });
        let failures = standing.failures;
        if let Some((_, then)) = standing
            .terms
            .policies
            .failures
            .filter(|(most, _)| failures == *most && entry.outcome.is_failure())
        {
            let paused = then == AfterFailures::Pause && standing.paused.is_none();
            if paused {
                standing.paused = Some("it kept failing");
                self.disarm(job);
            }
            acts.push(Act::Alert { entry, failures, paused });
        }
        if ran && self.phase == Phase::Open {
            for follower in self.followers.get(&job).cloned().unwrap_or_default() {
                self.arrive(follower, now, acts);
            }
        }
    }

    /// What waits for its next attempt has ended.
    fn end_waiting(&mut self, job: usize, now: Now, acts: &mut Vec<Act>, how: impl Fn(Ended) -> Ended) {
        while let Some(index) = self.jobs[job].runs.iter().position(|run| run.at == At::Waiting) {
            let last = self.jobs[job].runs[index].outcome.take();
            let Some(last) = last else { return };
            self.finish(job, index, how(last), now, acts);
        }
    }

    /// Tells what runs of a job to end, if nobody has.
    fn tell(&mut self, job: usize, by: Told, now: Now, acts: &mut Vec<Act>) {
        let grace = self.jobs[job].terms.policies.grace;
        for index in 0..self.jobs[job].runs.len() {
            let run = &mut self.jobs[job].runs[index];
            if run.at == At::Running && run.told.is_none() {
                run.told = Some(by);
                acts.push(Act::Tell { cancel: run.tick.cancel.clone() });
                self.set(job, index, now.mono + grace, Timer::Cut);
            }
        }
    }

    /// There is room for as many as have ended.
    fn serve_queue(&mut self, now: Now, acts: &mut Vec<Act>) {
        while self.free > 0
            && let Some(ask) = self.queue.pop_front()
        {
            match ask {
                Ask::Due(job) => {
                    self.jobs[job].queued = false;
                    self.consider(job, now, acts);
                }
                Ask::Again(job, run) => {
                    let waiting = |known: &Run| known.id == run && known.at == At::Waiting;
                    if let Some(index) = self.jobs[job].runs.iter().position(waiting) {
                        self.start_again(job, index, now, acts);
                    }
                }
            }
        }
    }

    /// Looks at a run then, unless its attempt is over. Most are, long before, so alarms of those are thrown away
    /// when they are more than the rest.
    fn set(&mut self, job: usize, index: usize, at: Duration, timer: Timer) {
        let run = &self.jobs[job].runs[index];
        self.timers.push(Reverse(Alarm { at, job, run: run.id, attempt: run.tick.attempt, timer }));
        if self.timers.len() > 4 * self.open.max(16) {
            let jobs = &self.jobs;
            self.timers.retain(|Reverse(alarm)| jobs[alarm.job].runs.iter().any(|run| alarm.is_of(run)));
        }
    }

    /// Looks at a job when it is due next.
    fn arm(&mut self, job: usize) {
        let standing = &self.jobs[job];
        let offset = |next: Timestamp| next.checked_add(standing.terms.offset).unwrap_or(Timestamp::MAX);
        let on = standing.paused.is_none();
        self.wall.put(job, standing.next.map(offset).filter(|_| on));
        self.mono.put(job, standing.next_mono.map(|next| next + standing.terms.offset).filter(|_| on));
    }

    fn disarm(&mut self, job: usize) {
        self.wall.put(job, None);
        self.mono.put(job, None);
    }
}

/// Who is due when another has run.
fn followers(jobs: &[(Terms, Past)]) -> HashMap<usize, Vec<usize>> {
    let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
    for (job, (terms, _)) in jobs.iter().enumerate() {
        if let Trigger::Event(Event::After(name)) = &terms.trigger {
            by_name.entry(name).or_default().push(job);
        }
    }
    let mut followers = HashMap::new();
    for (leader, (terms, _)) in jobs.iter().enumerate() {
        followers.extend(by_name.remove(&*terms.name).map(|those| (leader, those)));
    }
    followers
}

/// Whether what was told to end did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Gone,
    Behind,
}

fn told_why(told: Option<Told>, policies: &Policies, left: Left) -> Outcome {
    let behind = match left {
        Left::Gone => "",
        Left::Behind => "; it does not end, and holds a thread",
    };
    match told {
        Some(Told::Limit) => {
            let limit = policies.limit.unwrap_or_default();
            Outcome::TimedOut { why: format!("it took longer than {limit:?}{behind}") }
        }
        Some(Told::Command) => Outcome::Cancelled { why: format!("by command{behind}") },
        Some(Told::Stop) | None => Outcome::Cancelled { why: format!("the combo stopped{behind}") },
    }
}

fn rounded(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn none() -> Passed {
    Passed { last: Vec::new(), count: 0, exact: true }
}

impl Standing {
    fn new(terms: Terms, past: Past, now: Timestamp) -> Self {
        let Past { accounted, counts, failures, last } = past;
        let mut standing = Self {
            terms,
            paused: None,
            next: None,
            next_mono: None,
            events: None,
            backlog: VecDeque::new(),
            catching_up: false,
            held: Held::Not,
            queued: false,
            runs: Vec::new(),
            count: 0,
            counts,
            failures,
            last,
        };
        // A clock that has been set back since makes no job wait for hours.
        let ahead = |then: &Timestamp| then.duration_since(now).as_secs() >= NOISE.as_secs().cast_signed();
        standing.begin(accounted.filter(|then| !ahead(then)).unwrap_or(now), Duration::ZERO);
        if standing.next.is_some_and(|next| next <= now) {
            standing.held = Held::Absent;
        }
        standing
    }

    /// It is due from there on.
    fn begin(&mut self, after: Timestamp, start: Duration) {
        (self.next, self.next_mono) = match &self.terms.trigger {
            Trigger::Schedule(schedule) => (schedule.next_after(after), None),
            // On one grid from the start of the process.
            Trigger::FromStart(interval) => {
                let cells = start.as_nanos() / interval.as_nanos().max(1) + 1;
                (None, Some(times(*interval, cells)))
            }
            Trigger::AfterEnd(interval) => (None, Some(start + *interval)),
            _ => (None, None),
        };
    }

    fn overlap(&self) -> Overlap {
        self.terms.policies.overlap(&self.terms.trigger)
    }

    fn at_once(&self) -> usize {
        match self.overlap() {
            Overlap::Allow(most) => usize::try_from(most).unwrap_or(usize::MAX),
            _ => 1,
        }
    }

    fn most_missed(&self) -> usize {
        match self.terms.policies.missed {
            Missed::All(most) => usize::try_from(most).unwrap_or(usize::MAX).min(1_000),
            _ => 1,
        }
    }

    fn is_ripe(&self, now: Now) -> bool {
        let offset = self.terms.offset;
        self.events.is_some()
            || self.next.is_some_and(|next| next.checked_add(offset).is_ok_and(|next| next <= now.wall))
            || self.next_mono.is_some_and(|next| next + offset <= now.mono)
    }

    /// Takes what has passed: the first, and of all the last so many.
    fn take(&mut self, now: Now, most: usize) -> (Timestamp, Passed) {
        if let Some(events) = self.events.take() {
            let Passed { mut last, count, exact } = *events;
            let first = last.first().copied().unwrap_or(now.wall);
            let _ = last.drain(..last.len().saturating_sub(most.max(1)));
            return (first, Passed { last, count, exact });
        }
        match (&self.terms.trigger, self.next, self.next_mono) {
            (Trigger::Schedule(schedule), Some(first), _) => {
                let until = now.wall.checked_sub(self.terms.offset).unwrap_or(first);
                let passed = schedule.passed(first, until.max(first), most);
                self.next = passed.last.last().and_then(|latest| schedule.next_after(*latest));
                (first, passed)
            }
            (Trigger::FromStart(interval), _, Some(first)) => {
                let since = now.mono.saturating_sub(first + self.terms.offset);
                let count = since.as_nanos() / interval.as_nanos().max(1) + 1;
                let due = |nth: u128| self.wall_of(first + times(*interval, nth), now);
                let kept = count.min(most as u128);
                let passed = Passed {
                    last: (count - kept..count).map(due).collect(),
                    count: u64::try_from(count).unwrap_or(u64::MAX),
                    exact: true,
                };
                let earliest = due(0);
                self.next_mono = Some(first + times(*interval, count));
                (earliest, passed)
            }
            (_, _, Some(first)) => {
                let due = self.wall_of(first, now);
                self.next_mono = None;
                (due, Passed { last: vec![due], count: 1, exact: true })
            }
            _ => (now.wall, none()),
        }
    }

    /// What the wall clock would have said then if it had not been set.
    fn wall_of(&self, then: Duration, now: Now) -> Timestamp {
        let ago = now.mono.saturating_sub(then);
        now.wall.checked_sub(ago).unwrap_or(now.wall)
    }

    fn late(&self, due: Timestamp, start: Timestamp) -> Duration {
        let late = Duration::try_from(start.duration_since(due)).unwrap_or_default();
        late.saturating_sub(self.terms.offset)
    }

    /// Its next is due so long after the end of one.
    fn after_end(&mut self, now: Duration) {
        if let Trigger::AfterEnd(interval) = self.terms.trigger {
            self.next_mono = Some(now + interval);
        }
    }

    fn why_skipped(&self) -> String {
        match &*self.runs {
            [run] if run.at == At::Waiting => {
                format!("the one before has failed and waits for attempt {}", run.tick.attempt + 1)
            }
            [run] if run.at == At::Stuck => "the one before could not be ended and holds a thread".into(),
            [_] => "the one before is still running".into(),
            runs => format!("{} are still running", runs.len()),
        }
    }

    fn record(&mut self, first: Timestamp, last: Timestamp, ticks: u64, now: Now, outcome: Outcome) -> Act {
        let mut entry = Entry::new(self.terms.name.clone(), first, now.wall, outcome);
        (entry.last, entry.ticks) = (last, ticks);
        self.counts.count(&entry);
        Act::Record { run: None, entry: Arc::new(entry) }
    }

    fn status(&self) -> JobStatus {
        let mut status = JobStatus::new(&*self.terms.name);
        status.trigger = self.terms.trigger.to_string();
        status.next = self.next;
        status.running = self.runs.len();
        status.paused = self.paused.map(ToOwned::to_owned);
        (status.failures, status.counts) = (self.failures, self.counts);
        status.last = self.last.as_deref().cloned();
        status
    }
}

fn times(interval: Duration, count: u128) -> Duration {
    let nanos = interval.as_nanos().saturating_mul(count);
    let (secs, nanos) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    Duration::new(u64::try_from(secs).unwrap_or(u64::MAX >> 1), u32::try_from(nanos).unwrap_or_default())
}

#[cfg(test)]
mod tests;
