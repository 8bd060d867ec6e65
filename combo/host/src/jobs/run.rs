//! tick -> changes.
//!
//! Takes a job's work and one tick; runs the task on the runtime it is called on, or its blocking pool,
//! has its changes applied on that pool, and says how it ended. Errors and panics of the task, in its
//! call, in its future and in dropping that, end here. Never schedules and never records.
//!
//! A task that was told to end has nothing applied any more. One that is cut is dropped where it waits; a
//! change that is being applied is finished and those after it are not begun. What cannot be dropped,
//! because it blocks its thread or is foreign code, is waited for.
#![expect(clippy::disallowed_methods, reason = "blocking tasks and changes are for the blocking pool")]

use std::{
    any::Any,
    error::Error,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use combo_core::{BoxError, Cancel, Change, Outcome, Task, Tick, Timestamp};
use tokio::task::spawn_blocking;
use tracing::{Instrument, Span, info_span};

use super::{
    apply::{Folders, Unapplied, apply},
    output::Output,
};
use crate::error::shortened;

/// How many changes of a tick are described; of the others the number is said.
const DESCRIBED: usize = 16;

/// How many bytes of an explanation are kept.
const LONGEST: usize = 4_096;

/// How many causes of an error are said; one may be its own cause.
const CAUSES: usize = 16;

/// What a job does when it is due.
pub(crate) struct Work {
    /// The job's name.
    pub name: Arc<str>,
    /// Its code.
    pub task: Arc<dyn ErasedTask>,
    /// Where its changes may be made.
    pub folders: Folders,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// Nothing if it was told to end, or cut, before it was done.
    pub outcome: Option<Outcome>,
    /// The changes that were made, described.
    pub changes: Vec<String>,
    /// The last lines of its output.
    pub output: Vec<String>,
    /// When the task was called.
    pub start: Timestamp,
    /// When it had ended and its changes were made.
    pub end: Timestamp,
}

impl Ended {
    /// It was not begun, because another process has it.
    pub(crate) fn held(now: Timestamp) -> Self {
        let outcome = Some(Outcome::Skipped { why: "another process is running it".into() });
        Self { outcome, changes: Vec::new(), output: Vec::new(), start: now, end: now }
    }
}

/// What a task wants, and how its tick ends when that has been done.
pub(crate) struct Wants {
    pub(crate) changes: Vec<Change>,
    pub(crate) outcome: Outcome,
}

/// What is to be written may be a key, so it is not shown.
impl fmt::Debug for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let changes: Vec<_> = self.changes.iter().map(ToString::to_string).collect();
        f.debug_struct("Wants").field("changes", &changes).field("outcome", &self.outcome).finish()
    }
}

impl From<Vec<Change>> for Wants {
    fn from(changes: Vec<Change>) -> Self {
        Self { changes, outcome: Outcome::Ran }
    }
}

/// The future of an [`ErasedTask`].
pub(crate) type Wanted<'a> = Pin<Box<dyn Future<Output = Result<Wants, Outcome>> + Send + 'a>>;

/// A task whose type is forgotten.
pub(crate) trait ErasedTask: Send + Sync {
    /// The changes that it wants, or how it ended instead. What it prints is for the output.
    fn run<'a>(&'a self, tick: Tick, output: &'a Output) -> Wanted<'a>;

    /// The paths that it says it will change.
    fn writes(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether it ends when its future is dropped.
    fn can_be_cut(&self) -> bool {
        true
    }
}

/// Forgets the type of a task.
pub(crate) fn erase(task: impl Task) -> Arc<dyn ErasedTask> {
    struct Erased<T>(T);

    impl<T: Task> ErasedTask for Erased<T> {
        fn run<'a>(&'a self, tick: Tick, _: &'a Output) -> Wanted<'a> {
            Box::pin(async move {
                // The error is printed and dropped in here: that is the task's code as well.
                let wanted = self.0.run(tick).await.map(Wants::from);
                wanted.map_err(|error| Outcome::Failed { why: chain(&*error) })
            })
        }

        fn writes(&self) -> Vec<PathBuf> {
            self.0.writes()
        }
    }

    Arc::new(Erased(task))
}

/// Forgets the type of a function that blocks; it is called on the blocking pool.
pub(crate) fn erase_blocking<F>(task: F) -> Arc<dyn ErasedTask>
where
    F: Fn(Tick) -> Result<Vec<Change>, BoxError> + Send + Sync + 'static,
{
    struct Blocking<F>(Arc<F>);

    impl<F: Fn(Tick) -> Result<Vec<Change>, BoxError> + Send + Sync + 'static> ErasedTask for Blocking<F> {
        fn run<'a>(&'a self, tick: Tick, _: &'a Output) -> Wanted<'a> {
            let (task, span) = (self.0.clone(), Span::current());
            let called = spawn_blocking(move || {
                let _in = span.enter();
                task(tick).map(Wants::from).map_err(|error| Outcome::Failed { why: chain(&*error) })
            });
            Box::pin(async {
                let ended = called.await;
                ended.unwrap_or_else(|error| Err(error.try_into_panic().map_or_else(|_| stopped(), panicked)))
            })
        }

        fn can_be_cut(&self) -> bool {
            false
        }
    }

    Arc::new(Blocking(Arc::new(task)))
}

/// The runtime has ended before it was begun.
pub(crate) fn stopped() -> Outcome {
    Outcome::Cancelled { why: "the combo stopped".into() }
}

/// Runs one attempt to its end, or until it is cut. `clock` says when that was; `say` is called on
/// whatever thread the last of it was done, once, unless the runtime stops before that.
pub(crate) async fn run(
    work: Arc<Work>,
    mut tick: Tick,
    cut: Cancel,
    clock: impl Fn() -> Timestamp + Send + 'static,
    say: impl FnOnce(Ended) + Send + 'static,
) {
    let start = clock();
    tick.now = start;
    let (told, output) = (tick.cancel.clone(), Output::new());
    let span = info_span!("tick", job = %work.name, due = %tick.due, attempt = tick.attempt);
    let wanted = async {
        let wanted = Contained(Some(span.in_scope(|| work.task.run(tick, &output)))).instrument(span.clone());
        if !work.task.can_be_cut() {
            return Some(wanted.await);
        }
        tokio::select! {
            biased;
            wanted = wanted => Some(wanted),
            () = cut.cancelled() => None,
        }
    };
    let wanted = wanted.await.filter(|_| !told.is_cancelled());
    let lines = output.lines();
    let end = move |(outcome, changes)| {
        say(Ended { outcome, changes, output: lines, start, end: clock() });
    };
    match wanted {
        None => end((None, Vec::new())),
        Some(Err(outcome)) => end((Some(outcome), Vec::new())),
        Some(Ok(wants)) if wants.changes.is_empty() => end((Some(wants.outcome), Vec::new())),
        Some(Ok(wants)) => drop(spawn_blocking(move || end(apply_all(&work.folders, wants, &cut)))),
    }
}

/// The changes that a task wants, and none of them made.
///
/// # Errors
///
/// How it ended instead.
pub(crate) async fn rehearse(work: &Work, tick: Tick) -> Result<Vec<Change>, Outcome> {
    let output = Output::new();
    Contained(Some(work.task.run(tick, &output))).await.map(|wants| wants.changes)
}

/// Applies changes in order, up to the first that cannot be made.
fn apply_all(folders: &Folders, wants: Wants, cut: &Cancel) -> (Option<Outcome>, Vec<String>) {
    let applying = || {
        let (mut outcome, mut described, mut more) = (Some(wants.outcome), Vec::new(), 0_usize);
        for change in wants.changes {
            if cut.is_cancelled() {
                outcome = None;
                break;
            }
            match apply(folders, &change) {
                Ok(()) if described.len() < DESCRIBED => described.push(change.to_string()),
                Ok(()) => more += 1,
                Err(unapplied) => {
                    outcome = Some(match unapplied {
                        Unapplied::Refused(why) => Outcome::Refused { why: shortened(why, LONGEST) },
                        Unapplied::Failed(why) => Outcome::Failed { why: shortened(why, LONGEST) },
                    });
                    break;
                }
            }
        }
        if more > 0 {
            described.push(format!("and {more} more"));
        }
        (outcome, described)
    };
    // The contents of a change may be the task's own type.
    let applied = catch_unwind(AssertUnwindSafe(applying));
    applied.unwrap_or_else(|payload| (Some(panicked(payload)), Vec::new()))
}

/// A future whose panics are its outcome.
struct Contained<'a>(Option<Wanted<'a>>);

impl Future for Contained<'_> {
    type Output = Result<Wants, Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(wanted) = &mut self.0 else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| wanted.as_mut().poll(context)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(ended)) => ended,
            Err(payload) => Err(panicked(payload)),
        };
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
        Poll::Ready(dropped.map_or_else(|payload| Err(panicked(payload)), |()| ended))
    }
}

impl Drop for Contained<'_> {
    fn drop(&mut self) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(self.0.take()))) {
            let _ = panicked(payload);
        }
    }
}

/// What a panic said. The payload is the task's own value, so dropping it may panic again.
pub(crate) fn panicked(payload: Box<dyn Any + Send>) -> Outcome {
    let said = payload.downcast_ref::<&str>().map(|said| (*said).to_owned());
    let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        #[expect(clippy::mem_forget, reason = "there is no end to what dropping it might do")]
        std::mem::forget(again);
    }
    Outcome::Panicked {
        why: said.map_or_else(|| "it did not say why".to_owned(), |said| shortened(said, LONGEST)),
    }
}

/// An error and its causes, joined by colons.
fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES {
        let Some(error) = cause else { break };
        said.push_str(": ");
        said.push_str(&error.to_string());
        cause = error.source();
    }
    shortened(said, LONGEST)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Wake, Waker},
    };

    use bytes::Bytes;
    use tokio::sync::{Notify, oneshot};
    use tracing::{Dispatch, dispatcher, info};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    /// With one folder, `static`.
    fn work(task: impl Task) -> (tempfile::TempDir, Arc<Work>) {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("static")).expect("a directory in it");
        let folders = Folders::open(root.path(), &["static".into()], None).expect("a folder");
        (root, Arc::new(Work { name: "clock".into(), task: erase(task), folders }))
    }

    /// How it ended.
    async fn run(
        work: Arc<Work>,
        tick: Tick,
        cut: Cancel,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> Ended {
        let (say, said) = oneshot::channel();
        super::run(work, tick, cut, clock, move |ended| drop(say.send(ended))).await;
        said.await.expect("it is said")
    }

    async fn ended(task: impl Task) -> (Outcome, Vec<String>) {
        let (_root, work) = work(task);
        let ended = run(work, Tick::at(at(4)), Cancel::new(), || at(5)).await;
        assert_eq!((ended.start, ended.end), (at(5), at(5)));
        (ended.outcome.expect("nobody told it to end"), ended.changes)
    }

    async fn check(task: impl Task, outcome: Outcome) {
        assert_eq!(ended(task).await, (outcome, Vec::new()));
    }

    fn failed(why: &str) -> Outcome {
        Outcome::Failed { why: why.into() }
    }

    fn panicked(why: &str) -> Outcome {
        Outcome::Panicked { why: why.into() }
    }

    fn refused(why: &str) -> Outcome {
        Outcome::Refused { why: why.into() }
    }

    type Changes = Result<Vec<Change>, BoxError>;

    /// Panics when it is dropped.
    #[derive(Debug)]
    struct Mine;

    impl Drop for Mine {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }

    impl fmt::Display for Mine {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("mine")
        }
    }

    impl Error for Mine {}

    #[test]
    fn what_is_to_be_written_is_not_shown() {
        let wants = Wants::from(vec![Change::write("a.pem", "a key")]);
        assert_eq!(format!("{wants:?}"), r#"Wants { changes: ["write `a.pem` (5 bytes)"], outcome: Ran }"#);
    }

    #[tokio::test]
    async fn a_task_that_wants_nothing_has_run() {
        check(async |_: Tick| Ok(Vec::new()), Outcome::Ran).await;
    }

    #[tokio::test]
    async fn changes_are_applied_in_order_and_described() {
        let (root, work) = work(async |tick: Tick| {
            Ok(vec![
                Change::write("static/a", "one"),
                Change::append("static/a", format!(" at {}", tick.due)),
                Change::write("static/b", ""),
                Change::remove("static/b"),
            ])
        });
        let ended = run(work, Tick::at(at(4)), Cancel::new(), || at(5)).await;
        assert_eq!(ended.outcome, Some(Outcome::Ran));
        assert_eq!(
            ended.changes,
            [
                "write `static/a` (3 bytes)",
                "append to `static/a` (24 bytes)",
                "write `static/b` (0 bytes)",
                "remove `static/b`",
            ]
        );
        let written = std::fs::read_to_string(root.path().join("static/a")).expect("a file");
        assert_eq!(written, "one at 1970-01-01T00:00:04Z");
        assert!(!root.path().join("static/b").exists());
    }

    #[tokio::test]
    async fn of_many_changes_a_few_are_described() {
        let task = async |_: Tick| Ok((0..20).map(|n| Change::remove(format!("static/{n}"))).collect());
        let (outcome, changes) = ended(task).await;
        assert_eq!((outcome, changes.len()), (Outcome::Ran, DESCRIBED + 1));
        assert_eq!(changes.last().map(String::as_str), Some("and 4 more"));
    }

    #[tokio::test]
    async fn the_first_change_that_cannot_be_made_ends_the_tick() {
        for (path, outcome) in [
            ("static", failed("cannot write `static`: is a directory")),
            ("elsewhere", refused("`elsewhere` lies outside what it may write (`static`)")),
        ] {
            let (root, work) = work(move |_: Tick| async move {
                Ok(vec![
                    Change::write("static/a", "1"),
                    Change::write(path, "2"),
                    Change::write("static/b", "3"),
                ])
            });
            let ended = run(work, Tick::at(at(4)), Cancel::new(), || at(5)).await;
            assert_eq!(ended.outcome, Some(outcome));
            assert_eq!(ended.changes, ["write `static/a` (1 bytes)"]);
            assert!(root.path().join("static/a").exists());
            assert!(!root.path().join("static/b").exists());
        }
    }

    #[tokio::test]
    async fn an_error_is_told_with_its_causes() {
        #[derive(Debug)]
        struct Outer(io::Error);

        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cannot ask the weather")
            }
        }

        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }

        let task = async |_: Tick| -> Changes {
            Err(Outer(io::Error::other(BoxError::from("the line is dead"))).into())
        };
        check(task, failed("cannot ask the weather: the line is dead")).await;
        check(async |_: Tick| -> Changes { Err("plain".into()) }, failed("plain")).await;
    }

    #[tokio::test]
    async fn an_error_that_never_ends_is_cut() {
        #[derive(Debug)]
        struct Loop;

        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&"ä".repeat(1_000))
            }
        }

        impl Error for Loop {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Self)
            }
        }

        let (outcome, _) = ended(async |_: Tick| -> Changes { Err(Loop.into()) }).await;
        let Outcome::Failed { why } = outcome else { panic!("{outcome}") };
        assert!(why.len() <= LONGEST + '…'.len_utf8() && why.ends_with("ä…"), "{why}");
    }

    #[tokio::test]
    async fn a_panic_is_an_outcome_wherever_it_is() {
        fn in_the_call(_: Tick) -> std::future::Ready<Changes> {
            panic!("in the call")
        }
        check(in_the_call, panicked("in the call")).await;
        check(async |_: Tick| panic!("in the {}", "future"), panicked("in the future")).await;
        let later = async |_: Tick| {
            tokio::task::yield_now().await;
            panic!("later")
        };
        check(later, panicked("later")).await;
        let in_the_drop = |_: Tick| {
            let mine = Mine;
            async move {
                let _mine = &mine;
                Ok(vec![Change::write("static/a", "1")])
            }
        };
        check(in_the_drop, panicked("in the drop")).await;
        check(async |_: Tick| std::panic::panic_any(4), panicked("it did not say why")).await;
        check(async |_: Tick| std::panic::panic_any(Mine), panicked("it did not say why")).await;
    }

    #[tokio::test]
    async fn a_panic_in_an_error_is_an_outcome() {
        #[derive(Debug)]
        struct Said;

        impl fmt::Display for Said {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("in the display")
            }
        }

        impl Error for Said {}

        check(async |_: Tick| -> Changes { Err(Said.into()) }, panicked("in the display")).await;
        check(async |_: Tick| -> Changes { Err(Mine.into()) }, panicked("in the drop")).await;
    }

    #[tokio::test]
    async fn a_panic_in_the_contents_of_a_change_is_an_outcome() {
        struct Contents(Mine);

        impl AsRef<[u8]> for Contents {
            fn as_ref(&self) -> &[u8] {
                let Self(Mine) = self;
                b"whole"
            }
        }

        let task = async |_: Tick| Ok(vec![Change::write("static/a", Bytes::from_owner(Contents(Mine)))]);
        check(task, panicked("in the drop")).await;
    }

    #[tokio::test]
    async fn what_a_task_writes_is_known_beforehand_if_it_says_so() {
        struct Says;

        impl Task for Says {
            async fn run(&self, _: Tick) -> Changes {
                Ok(Vec::new())
            }

            fn writes(&self) -> Vec<PathBuf> {
                vec!["static/a".into()]
            }
        }

        assert_eq!(erase(Says).writes(), [PathBuf::from("static/a")]);
        assert!(erase(async |_: Tick| Ok(Vec::new())).writes().is_empty());
    }

    /// Counts itself, and panics, when it is dropped.
    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            let _ = self.0.fetch_add(1, Ordering::Relaxed);
            panic!("in the drop");
        }
    }

    #[tokio::test]
    async fn a_task_that_never_ends_is_dropped_when_it_is_cut() {
        let (started, dropped) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (begun, counted) = (Arc::clone(&started), Arc::clone(&dropped));
        let (_root, work) = work(move |_: Tick| {
            let (begun, counted) = (Arc::clone(&begun), Counted(Arc::clone(&counted)));
            async move {
                let _counted = &counted;
                begun.notify_one();
                std::future::pending().await
            }
        });
        let cut = Cancel::new();
        let running = tokio::spawn(run(work, Tick::at(at(4)), cut.clone(), || at(5)));
        started.notified().await;
        cut.cancel();
        assert_eq!(running.await.expect("its panic was not seen").outcome, None);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn what_was_told_to_end_has_nothing_applied() {
        let (root, work) = work(async |tick: Tick| {
            tick.cancel.cancelled().await;
            Ok(vec![Change::write("static/a", "1")])
        });
        let tick = Tick::at(at(4));
        tick.cancel.cancel();
        let ended = run(work, tick, Cancel::new(), || at(5)).await;
        assert_eq!((ended.outcome, ended.changes.len()), (None, 0));
        assert!(!root.path().join("static/a").exists());
    }

    #[tokio::test]
    async fn a_function_that_blocks_is_a_task() {
        let blocks = |tick: Tick| match tick.count {
            1 => Ok(vec![Change::write("static/a", "1")]),
            2 => Err("plain".into()),
            _ => panic!("in the call"),
        };
        let root = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(root.path().join("static")).expect("a directory in it");
        let folders = Folders::open(root.path(), &["static".into()], None).expect("a folder");
        let work = Arc::new(Work { name: "clock".into(), task: erase_blocking(blocks), folders });
        for (count, outcome) in [(1, Outcome::Ran), (2, failed("plain")), (3, panicked("in the call"))] {
            let mut tick = Tick::at(at(4));
            tick.count = count;
            let ended = run(work.clone(), tick, Cancel::new(), || at(5)).await;
            assert_eq!(ended.outcome, Some(outcome));
        }
        assert!(root.path().join("static/a").exists());
    }

    #[tokio::test]
    async fn what_blocks_is_not_left_behind_when_it_is_cut() {
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let blocks = move |_: Tick| {
            let _ = gone.lock().expect("one at a time").recv();
            Ok(Vec::new())
        };
        let (_root, mut work) = work(async |_: Tick| Ok(Vec::new()));
        Arc::get_mut(&mut work).expect("not shared yet").task = erase_blocking(blocks);
        let (tick, cut) = (Tick::at(at(4)), Cancel::new());
        tick.cancel.cancel();
        cut.cancel();
        let running = tokio::spawn(run(work, tick, cut, || at(5)));
        tokio::task::yield_now().await;
        assert!(!running.is_finished());
        drop(go);
        assert_eq!(running.await.expect("no panic").outcome, None);
    }

    /// What is logged, in one piece.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_a_task_logs_is_logged_in_the_span_of_its_tick() {
        let lines = Lines::default();
        let subscribers = [(); 2].map(|()| {
            let lines = lines.clone();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_target(false).without_time();
            Dispatch::new(subscriber.with_writer(move || lines.clone()).finish())
        });
        // While there are two, no test that logs on another thread settles for good that nobody listens.
        let [log, _other] = subscribers;
        let _here = dispatcher::set_default(&log);
        let (root, mut work) = work(async |_: Tick| {
            info!("before it waits");
            tokio::task::yield_now().await;
            info!("after it");
            Ok(Vec::new())
        });
        let mut tick = Tick::at(at(4));
        tick.attempt = 2;
        assert_eq!(run(work.clone(), tick, Cancel::new(), || at(5)).await.outcome, Some(Outcome::Ran));
        let here = std::thread::current().id();
        let of_blocking = log.clone();
        let blocks = move |_: Tick| {
            assert_ne!(std::thread::current().id(), here);
            // Of the thread, that is; the span is not a matter of this.
            dispatcher::with_default(&of_blocking, || info!("where it may block"));
            Ok(Vec::new())
        };
        let folders = Folders::open(root.path(), &["static".into()], None).expect("a folder");
        work = Arc::new(Work { name: "block".into(), task: erase_blocking(blocks), folders });
        let ended = run(work, Tick::at(at(8)), Cancel::new(), || at(9)).await;
        assert_eq!(ended.outcome, Some(Outcome::Ran));
        info!("outside");
        assert_eq!(
            String::from_utf8_lossy(&lines.0.lock().expect("no panic")),
            " INFO tick{job=clock due=1970-01-01T00:00:04Z attempt=2}: before it waits\n \
             INFO tick{job=clock due=1970-01-01T00:00:04Z attempt=2}: after it\n \
             INFO tick{job=block due=1970-01-01T00:00:08Z attempt=1}: where it may block\n \
             INFO outside\n"
        );
    }

    #[test]
    fn no_change_is_begun_after_a_tick_was_cut() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let (root, work) = work(async |_: Tick| Ok(vec![Change::write("static/a", "1")]));
        runtime.block_on(async {
            let (go, gone) = oneshot::channel();
            let busy = spawn_blocking(|| gone.blocking_recv());
            let cut = Cancel::new();
            let running = tokio::spawn(run(work, Tick::at(at(4)), cut.clone(), || at(5)));
            // By now its changes wait for the one blocking thread.
            tokio::task::yield_now().await;
            cut.cancel();
            go.send(()).expect("somebody waits");
            busy.await.expect("it ran").expect("it was told");
            let ended = running.await.expect("no panic");
            assert_eq!((ended.outcome, ended.changes.len()), (None, 0));
        });
        assert!(!root.path().join("static/a").exists());
    }

    #[test]
    fn a_wake_after_the_end_does_no_harm() {
        struct Nobody;

        impl Wake for Nobody {
            fn wake(self: Arc<Self>) {}
        }

        let waker = Waker::from(Arc::new(Nobody));
        let mut contained = Contained(Some(Box::pin(async { Ok(Vec::new().into()) })));
        let mut poll = || Pin::new(&mut contained).poll(&mut Context::from_waker(&waker)).is_ready();
        assert_eq!([poll(), poll()], [true, false]);
    }
}
