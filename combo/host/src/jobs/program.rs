//! A task that is a command: what to start, and how its end is told.
//!
//! Takes a [`Program`] and a tick; gives no changes, or how it ended instead. The program runs in a
//! process group of its own, under a keeper if there can be one; its output goes to an
//! [`Output`]. Dropping the future kills it.
#![expect(
    clippy::disallowed_methods,
    reason = "files are opened for the program and looked for on its behalf"
)]

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io::{self, Seek, Write},
    os::{fd::AsFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use combo_core::{Change, Outcome, Tick};
use rustix::{
    fs::{Access, MemfdFlags, access, memfd_create},
    process::Signal,
};
use tokio::{io::AsyncReadExt, net::unix::pipe};

use super::{
    child::{Alone, End},
    keeper::{Kept, Order, Streams, attends},
    output::{Lines, Output, Stream},
    run::{ErasedTask, Wanted},
};
use crate::serve::inherited::VARIABLES;

/// How much is read at once.
const READ: usize = 16 * 1024;

/// How much a pipe can hold, unless root has made one larger.
const PIPE: usize = 1024 * 1024;

/// A command that is run as a task: `pg_dump --file=dump.sql shop`.
///
/// No shell is involved: words are passed on as they are. Where one is wanted, it is the program:
///
/// ```
/// use combo::Program;
///
/// let dump = Program::new("pg_dump").args(["--file=dump.sql", "shop"]).env("PGUSER", "backup").folder("dumps");
/// let sweep = Program::new("sh").args(["-c", "rm -f dumps/*.old && echo swept"]);
/// assert_eq!(sweep.to_string(), "sh -c 'rm -f dumps/*.old && echo swept'");
/// ```
///
/// Exit status 0 is a success, and everything else a failure. It has this process's environment and what
/// was said with [`env`](Self::env), and beside that `COMBO_JOB`, the name of the job; `COMBO_DUE`, the
/// instant that the schedule named, as RFC 3339; `COMBO_ATTEMPT`, from 1; and `COMBO_MISSED`, how many
/// due instants were merged into this one. Where there is a [user](crate::Deployment::user), `HOME`, `USER`,
/// `LOGNAME` and `SHELL` are what the system has for it, or not there.
///
/// What it says, on standard output or standard error, is logged line by line, and the last lines are with
/// the outcome.
///
/// It runs in a process group of its own. If it is to end, that group is sent `SIGTERM`, and what has not
/// ended after the grace is killed. What a command leaves behind when it ends is ended: `SIGTERM` at
/// once, `SIGKILL` a second later. That holds for all of its descendants, also those that left the
/// group or have become daemons, and also when this process is itself killed; but see
/// [`keep_children`](crate::keep_children) for a program that does not use [`main`](crate::main).
#[derive(Clone)]
#[must_use = "a program does nothing until a job runs it"]
pub struct Program {
    program: OsString,
    arguments: Vec<OsString>,
    clear: bool,
    environment: Vec<(OsString, Option<OsString>)>,
    folder: PathBuf,
    input: Bytes,
}

impl Program {
    /// A program by its name, which is looked for in `PATH`; or by its path, which, if it is relative, is
    /// under the folder that the program runs in.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            clear: false,
            environment: Vec::new(),
            folder: PathBuf::new(),
            input: Bytes::new(),
        }
    }

    /// One more argument.
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    pub fn args<I>(mut self, arguments: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable in its environment. Values are never shown.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), Some(value.into())));
        self
    }

    /// Removes a variable from its environment.
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), None));
        self
    }

    /// Lets it have none of this process's environment, nor what was said of it before. The variables that
    /// tell of the job are set all the same.
    pub fn env_clear(mut self) -> Self {
        self.clear = true;
        self.environment.clear();
        self
    }

    /// The folder that it runs in. A relative path is under the deployment's root. Default: the root.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// What it reads on standard input. Default: nothing, from `/dev/null`.
    pub fn stdin(mut self, input: impl Into<Bytes>) -> Self {
        self.input = input.into();
        self
    }

    /// Tells it these variables, unless something else is said of them or it is to have none of ours.
    pub(crate) fn told_of(mut self, environment: &[(OsString, Option<OsString>)]) -> Self {
        if !self.clear {
            drop(self.environment.splice(0..0, environment.iter().cloned()));
        }
        self
    }

    /// Runs it once, for a tick of a job.
    ///
    /// When the tick is cancelled, its group is sent `SIGTERM`. Whoever drops the future kills it. If nobody
    /// does, that happens a little after the grace.
    ///
    /// # Errors
    ///
    /// [`Outcome::Failed`]: it could not be started, or did not end with exit status 0.
    pub(crate) async fn run(
        &self,
        job: &str,
        root: &Path,
        tick: Tick,
        output: &Output,
        grace: Duration,
    ) -> Result<Vec<Change>, Outcome> {
        self.run_as(attends(), job, root, tick, output, grace).await
    }

    async fn run_as(
        &self,
        kept: bool,
        job: &str,
        root: &Path,
        tick: Tick,
        output: &Output,
        grace: Duration,
    ) -> Result<Vec<Change>, Outcome> {
        let order = self.order(job, root, &tick);
        self.checked(&order).map_err(failed)?;
        let (streams, said, complaints) = self.streams().map_err(|error| {
            failed(format!("cannot open the streams of `{}`: {}", self.shown(), reason(&error)))
        })?;
        let mut said = Reader::new(said, Lines::new(job, Stream::Output, output));
        let mut complaints = Reader::new(complaints, Lines::new(job, Stream::Errors, output));
        let mut running = Running::start(kept, job, &order, streams)
            .await
            .map_err(|error| failed(self.refusal(&order.folder, &error)))?;

        let mut cancelled = pin!(tick.cancel.cancelled());
        let mut told = false;
        let ended = loop {
            tokio::select! {
                ended = running.ended(job) => break ended,
                () = &mut cancelled, if !told => {
                    told = true;
                    running.terminate(grace);
                }
                () = said.read(), if said.is_open() => {}
                () = complaints.read(), if complaints.is_open() => {}
            }
        };
        // It has said all that it ever will; whoever else still has its streams is not waited for.
        said.read_rest();
        complaints.read_rest();
        match ended.map_err(|error| failed(self.refusal(&order.folder, &error)))? {
            End::Exit(0) => Ok(Vec::new()),
            End::Exit(code) => Err(failed(format!("`{}` ended with exit status {code}", self.shown()))),
            End::Signal(number) => {
                let name = Signal::from_named_raw(number).and_then(name);
                let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
                Err(failed(format!("`{}` was ended by signal {number}{name}", self.shown())))
            }
        }
    }

    fn order(&self, job: &str, root: &Path, tick: &Tick) -> Order {
        let mut environment: Vec<(OsString, Option<OsString>)> = vec![
            ("COMBO_JOB".into(), Some(job.into())),
            ("COMBO_DUE".into(), Some(tick.due.to_string().into())),
            ("COMBO_ATTEMPT".into(), Some(tick.attempt.to_string().into())),
            ("COMBO_MISSED".into(), Some(tick.missed.to_string().into())),
        ];
        // What is said to this process alone: a program with these would speak in its name.
        environment.extend(VARIABLES.map(|name| (name.into(), None)));
        environment.extend(self.environment.iter().cloned());
        let folder = root.join(&self.folder);
        Order {
            program: self.program.clone(),
            arguments: self.arguments.clone(),
            clear: self.clear,
            environment,
            // The folder that this process is in has no name.
            folder: if folder.as_os_str().is_empty() { ".".into() } else { folder },
        }
    }

    /// What the system has no way to pass on.
    fn checked(&self, order: &Order) -> Result<(), String> {
        let nul = |word: &OsStr| word.as_bytes().contains(&0);
        let what = if nul(&order.program) || order.program.is_empty() {
            "its name"
        } else if order.arguments.iter().any(|argument| nul(argument)) {
            "an argument"
        } else if nul(order.folder.as_os_str()) {
            "the name of its folder"
        } else if let Some((name, _)) = order.environment.iter().find(|(name, value)| {
            nul(name)
                || value.as_deref().is_some_and(nul)
                || name.is_empty()
                || name.as_bytes().contains(&b'=')
        }) {
            let name = name.to_string_lossy();
            return Err(format!(
                "cannot start `{}`: it cannot have a variable `{}`",
                self.shown(),
                name.escape_default()
            ));
        } else {
            return Ok(());
        };
        Err(format!("cannot start `{}`: {what} is empty or has a zero byte in it", self.shown()))
    }

    /// The three that it gets, and our ends of the last two.
    fn streams(&self) -> io::Result<(Streams, pipe::Receiver, pipe::Receiver)> {
        // A file, so that nobody has to stand by and write.
        let input = if self.input.is_empty() {
            File::open("/dev/null")?
        } else {
            let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
            file.write_all(&self.input)?;
            file.rewind()?;
            file
        };
        let (said, output) = io::pipe()?;
        let (complaints, errors) = io::pipe()?;
        Ok((
            [input.into(), output.into(), errors.into()],
            pipe::Receiver::from_owned_fd(said.into())?,
            pipe::Receiver::from_owned_fd(complaints.into())?,
        ))
    }

    /// Why it could not be started. The system says the same of a program that is missing and of a folder.
    fn refusal(&self, folder: &Path, error: &io::Error) -> String {
        let (program, shown) = (Path::new(&self.program), folder.display());
        if error.kind() == io::ErrorKind::BrokenPipe {
            return format!("cannot say how `{}` ended: {error}", self.shown());
        }
        match folder.metadata() {
            Err(error) => {
                return format!("cannot run `{}` in folder `{shown}`: {}", self.shown(), reason(&error));
            }
            Ok(found) if !found.is_dir() => {
                return format!("cannot run `{}` in folder `{shown}`: it is not a folder", self.shown());
            }
            Ok(_) => {}
        }
        if let Err(errno) = access(folder, Access::EXEC_OK) {
            return format!("cannot run `{}` in folder `{shown}`: {}", self.shown(), reason(&errno.into()));
        }
        let path = program.components().count() > 1 || program.is_absolute();
        match error.kind() {
            io::ErrorKind::NotFound if path && folder.join(program).exists() => {
                format!(
                    "cannot start `{}`: what its first line names, or its loader, is not there",
                    self.shown()
                )
            }
            io::ErrorKind::NotFound if path => format!("there is no program `{}`", self.shown()),
            io::ErrorKind::NotFound => format!("there is no program `{}` in `PATH`", self.shown()),
            _ => format!("cannot start `{}`: {}", self.shown(), reason(error)),
        }
    }

    /// The name of the program.
    fn shown(&self) -> String {
        quoted(&self.program.to_string_lossy())
    }
}

/// The command line, as one would type it into a shell.
impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(&argument.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// Without the values of variables and what it reads: they may be secret.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("command", &format_args!("{self}"))
            .field("clear", &self.clear)
            .field("environment", &self.environment.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if word.chars().any(char::is_control) {
        // Of the ways to quote, the only one that stays on one line.
        let mut quoted = String::from("$'");
        for c in word.chars() {
            match c {
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                '\\' => quoted.push_str("\\\\"),
                '\'' => quoted.push_str("\\'"),
                c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => quoted.push(c),
            }
        }
        quoted.push('\'');
        quoted
    } else if word.is_empty() || !word.chars().all(plain) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        word.to_owned()
    }
}

fn failed(why: String) -> Outcome {
    Outcome::Failed { why }
}

fn reason(error: &io::Error) -> String {
    match error.kind().to_string() {
        kind if kind == "uncategorized error" || kind == "other error" => error.to_string(),
        kind => kind,
    }
}

fn name(signal: Signal) -> Option<&'static str> {
    Some(match signal {
        Signal::HUP => "SIGHUP",
        Signal::INT => "SIGINT",
        Signal::QUIT => "SIGQUIT",
        Signal::ILL => "SIGILL",
        Signal::TRAP => "SIGTRAP",
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::KILL => "SIGKILL",
        Signal::USR1 => "SIGUSR1",
        Signal::SEGV => "SIGSEGV",
        Signal::USR2 => "SIGUSR2",
        Signal::PIPE => "SIGPIPE",
        Signal::ALARM => "SIGALRM",
        Signal::TERM => "SIGTERM",
        Signal::XCPU => "SIGXCPU",
        Signal::XFSZ => "SIGXFSZ",
        Signal::SYS => "SIGSYS",
        _ => return None,
    })
}

/// A program that was started, one way or the other.
#[derive(Debug)]
enum Running {
    Kept(Kept),
    Alone(Alone),
}

impl Running {
    async fn start(kept: bool, job: &str, order: &Order, streams: Streams) -> io::Result<Self> {
        if kept {
            return Kept::start(job, order, streams).await.map(Self::Kept);
        }
        let [input, output, errors] = streams;
        let mut command = order.command();
        Alone::start(command.stdin(input).stdout(output).stderr(errors)).map(Self::Alone)
    }

    async fn ended(&mut self, job: &str) -> io::Result<End> {
        match self {
            Self::Kept(kept) => kept.ended(job).await,
            Self::Alone(alone) => alone.ended().await,
        }
    }

    fn terminate(&mut self, grace: Duration) {
        match self {
            Self::Kept(kept) => kept.terminate(grace),
            Self::Alone(alone) => alone.terminate(grace),
        }
    }
}

/// Our end of one of its outputs.
struct Reader<'a> {
    pipe: Option<pipe::Receiver>,
    lines: Lines<'a>,
    bytes: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(pipe: pipe::Receiver, lines: Lines<'a>) -> Self {
        Self { pipe: Some(pipe), lines, bytes: vec![0; READ] }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read(&mut self.bytes).await {
            Ok(read) if read > 0 => self.lines.take(&self.bytes[..read]),
            _ => self.pipe = None,
        }
    }

    /// What is there by now, without waiting for more.
    fn read_rest(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        for _ in 0..PIPE / READ {
            // Not by tokio: that may not have heard yet that there is something.
            match rustix::io::retry_on_intr(|| rustix::io::read(pipe.as_fd(), &mut *self.bytes)) {
                Ok(read @ 1..) => self.lines.take(&self.bytes[..read]),
                _ => return,
            }
        }
    }
}

/// A program as the task of a job.
pub(crate) struct Commanded {
    pub(crate) program: Program,
    pub(crate) job: Arc<str>,
    pub(crate) root: PathBuf,
    pub(crate) grace: Duration,
}

impl ErasedTask for Commanded {
    fn run<'a>(&'a self, tick: Tick, output: &'a Output) -> Wanted<'a> {
        Box::pin(async move {
            let ran = self.program.run(&self.job, &self.root, tick, output, self.grace).await;
            ran.map(Into::into)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, process::Command, time::Instant};

    use combo_core::Timestamp;
    use rustix::process::Pid;
    use tokio::{task::JoinSet, time::sleep};

    use super::*;
    use crate::jobs::keeper::tests::attend;

    const GRACE: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Program {
        Program::new("sh").args(["-c", script])
    }

    fn tick() -> Tick {
        let mut tick = Tick::at(Timestamp::from_second(4).expect("in range"));
        (tick.attempt, tick.missed) = (2, 3);
        tick
    }

    /// How it ended, and what it said.
    async fn ran(kept: bool, program: Program) -> (Result<(), String>, Vec<String>) {
        attend();
        let (root, output) = (tempfile::tempdir().expect("a directory"), Output::new());
        std::fs::create_dir(root.path().join("sub")).expect("a directory in it");
        std::fs::write(root.path().join("file"), "#!/no/such/thing\n").expect("a file in it");
        let ended = program.run_as(kept, "clock", root.path(), tick(), &output, GRACE).await;
        let root = root.path().to_str().expect("a name").to_owned();
        let ended = ended.map(|changes| assert_eq!(changes, [])).map_err(|outcome| {
            let Outcome::Failed { why } = outcome else { panic!("{outcome}") };
            why.replace(&root, "ROOT")
        });
        (ended, output.lines().into_iter().map(|line| line.replace(&root, "ROOT")).collect())
    }

    async fn check(program: Program, ended: Result<(), &str>, said: &[&str]) {
        for kept in [true, false] {
            let (found, lines) = ran(kept, program.clone()).await;
            assert_eq!(found.as_ref().map_err(String::as_str).copied(), ended, "{kept} {program}");
            assert_eq!(lines, said, "{kept} {program}");
        }
    }

    /// A name that nothing else on this machine has in its arguments or its environment.
    fn marker(name: &str) -> String {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        format!("combo-test-{}-{number}-{name}", std::process::id())
    }

    /// The processes, keepers included, of the job of that name: their command lines.
    fn alive(job: &str) -> Vec<String> {
        processes(job).into_iter().map(|(_, line)| line).collect()
    }

    fn processes(job: &str) -> Vec<(Pid, String)> {
        let read = |path: PathBuf| std::fs::read(path).unwrap_or_default();
        let holds = |bytes: &[u8]| bytes.windows(job.len()).any(|window| window == job.as_bytes());
        let number = |path: &Path| path.file_name()?.to_str()?.parse().ok().and_then(Pid::from_raw);
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        processes
            .filter_map(|process| Some((number(&process.path())?, process.path())))
            .map(|(pid, path)| (pid, read(path.join("cmdline")), read(path.join("environ"))))
            .filter(|(_, line, environment)| holds(line) || holds(environment))
            .map(|(pid, line, _)| (pid, String::from_utf8_lossy(&line).replace('\0', " ")))
            .collect()
    }

    /// Signals the processes of a job whose command lines begin so.
    fn signal(job: &str, line: &str, signal: Signal) {
        let meant: Vec<_> = processes(job).into_iter().filter(|(_, found)| found.starts_with(line)).collect();
        assert_eq!(meant.len(), 1, "{meant:?}");
        rustix::process::kill_process(meant[0].0, signal).expect("it is there");
    }

    fn zombies() -> usize {
        let ours = format!(" Z {} ", std::process::id());
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        stats.filter(|stat| stat.contains(&ours)).count()
    }

    /// Asks again and again: what is asked about are other processes.
    async fn until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
        let since = Instant::now();
        while !is() {
            assert!(since.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
            sleep(Duration::from_millis(5)).await;
        }
        since.elapsed()
    }

    async fn until_nothing_is_left(job: &str) -> Duration {
        let took = until("nothing is left", || alive(job).is_empty()).await;
        let _ = until("nothing is to be reaped", || zombies() == 0).await;
        took
    }

    /// Starts it, waits for its word `ready`, and drops it or cancels it; gives what became of it.
    async fn stopped(
        kept: bool,
        program: Program,
        cancel: bool,
        grace: Duration,
    ) -> (Option<Result<Vec<Change>, Outcome>>, Vec<String>, String) {
        attend();
        let (job, output, tick) = (marker("stopped"), Output::new(), tick());
        let ended = {
            let mut run = pin!(program.run_as(kept, &job, Path::new("/"), tick.clone(), &output, grace));
            tokio::select! {
                ended = &mut run => panic!("{ended:?} {:?}", output.lines()),
                _ = until("it is ready", || output.lines().contains(&"ready".to_owned())) => {}
            }
            if cancel {
                tick.cancel.cancel();
                Some(run.await)
            } else {
                None
            }
        };
        (ended, output.lines(), job)
    }

    fn why(ended: Option<Result<Vec<Change>, Outcome>>) -> String {
        match ended {
            Some(Err(Outcome::Failed { why })) => why,
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_exit_status_is_told() {
        check(Program::new("true"), Ok(()), &[]).await;
        check(Program::new("false"), Err("`false` ended with exit status 1"), &[]).await;
        check(sh("exit 255"), Err("`sh` ended with exit status 255"), &[]).await;
        check(sh("kill -SEGV $$"), Err("`sh` was ended by signal 11 (SIGSEGV)"), &[]).await;
        check(sh("kill -KILL $$"), Err("`sh` was ended by signal 9 (SIGKILL)"), &[]).await;
        check(sh("kill -40 $$"), Err("`sh` was ended by signal 40"), &[]).await;
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_told_apart() {
        for (program, why) in [
            (Program::new("no-such-thing"), "there is no program `no-such-thing` in `PATH`"),
            (Program::new("/no/such thing"), "there is no program `'/no/such thing'`"),
            (Program::new("./file"), "cannot start `./file`: permission denied"),
            (Program::new("/"), "cannot start `/`: permission denied"),
            (Program::new("true").folder("no"), "cannot run `true` in folder `ROOT/no`: entity not found"),
            (
                Program::new("true").folder("file"),
                "cannot run `true` in folder `ROOT/file`: it is not a folder",
            ),
            (Program::new(""), "cannot start `''`: its name is empty or has a zero byte in it"),
            (
                Program::new("true").arg("a\0"),
                "cannot start `true`: an argument is empty or has a zero byte in it",
            ),
            (Program::new("true").env("A=B", "c"), "cannot start `true`: it cannot have a variable `A=B`"),
        ] {
            check(program, Err(why), &[]).await;
        }
    }

    #[tokio::test]
    async fn a_script_without_its_interpreter_is_told() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a directory");
        let script = folder.path().join("script");
        std::fs::write(&script, "#!/no/such/thing\n").expect("a file");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("ours");
        let program = Program::new(&script);
        let why = format!("cannot start `{program}`: what its first line names, or its loader, is not there");
        check(program, Err(&why), &[]).await;
    }

    #[test]
    fn it_is_not_told_what_this_process_alone_is() {
        let program = Program::new("env").env("NOTIFY_SOCKET", "mine");
        let tick = Tick::at("1970-01-01T00:00:04Z".parse().expect("an instant"));
        let order = program.order("clock", Path::new("."), &tick);
        let last = |name| {
            let said = order.environment.iter().rev().find(|(known, _)| known == name);
            said.map(|(_, value)| value.clone())
        };
        for name in VARIABLES {
            let mine = (name == "NOTIFY_SOCKET").then(|| "mine".into());
            assert_eq!(last(name), Some(mine), "{name}");
        }
    }

    #[tokio::test]
    async fn it_knows_what_it_is_run_for() {
        let told = sh("echo $COMBO_JOB $COMBO_DUE $COMBO_ATTEMPT $COMBO_MISSED");
        let said = ["clock 1970-01-01T00:00:04Z 2 3"];
        check(told.clone(), Ok(()), &said).await;
        check(
            told.clone().env("COMBO_JOB", "mine").env("A", "b"),
            Ok(()),
            &["mine 1970-01-01T00:00:04Z 2 3"],
        )
        .await;
        check(
            Program::new("/bin/sh")
                .args(["-c", "env | grep -v COMBO | grep -v ^_= | grep -v PWD; echo $COMBO_JOB"])
                .env("A", "b")
                .env_clear()
                .env("C", "d e")
                .env("PATH", "/bin:/usr/bin"),
            Ok(()),
            &["C=d e", "PATH=/bin:/usr/bin", "clock"],
        )
        .await;
        check(sh("echo ${HOME-none} $A").env_remove("HOME").env("A", "b"), Ok(()), &["none b"]).await;
    }

    #[tokio::test]
    async fn it_runs_in_its_folder() {
        check(Program::new("pwd"), Ok(()), &["ROOT"]).await;
        check(Program::new("pwd").folder("sub"), Ok(()), &["ROOT/sub"]).await;
        check(Program::new("pwd").folder("/usr"), Ok(()), &["/usr"]).await;
    }

    #[tokio::test]
    async fn it_reads_what_it_is_given() {
        check(Program::new("cat"), Ok(()), &[]).await;
        check(Program::new("cat").stdin("one\ntwo"), Ok(()), &["one", "two"]).await;
        check(Program::new("wc").arg("-c").stdin(vec![b'x'; 10_000_000]), Ok(()), &["10000000"]).await;
        check(Program::new("true").stdin(vec![b'x'; 10_000_000]), Ok(()), &[]).await;
    }

    #[tokio::test]
    async fn nothing_that_was_said_is_lost() {
        for kept in [true, false] {
            let said = "i=0; while [ $i -lt 40 ]; do echo $i; echo e$i >&2; i=$((i+1)); done; printf end";
            let (ended, lines) = ran(kept, sh(said)).await;
            assert_eq!(ended, Ok(()));
            // Both streams are kept whole; between them the order is that in which they were read.
            let (complaints, said): (Vec<_>, Vec<_>) =
                lines.iter().partition(|line| line.starts_with("e") && *line != "end");
            assert!(lines.len() == 50 && said.last().is_some_and(|last| *last == "end"), "{lines:?}");
            assert!(complaints.last().is_some_and(|last| *last == "e39"), "{lines:?}");
            let slowly = "for i in 1 2 3; do echo o$i; sleep 0.1; echo e$i >&2; sleep 0.1; done";
            assert_eq!(ran(kept, sh(slowly)).await.1, ["o1", "e1", "o2", "e2", "o3", "e3"]);
            for _ in 0..50 {
                assert_eq!(ran(kept, sh("printf a; printf b >&2; kill -9 $$")).await.1.len(), 2);
            }
        }
    }

    #[tokio::test]
    async fn whatever_is_said_is_bounded() {
        for kept in [true, false] {
            let (ended, lines) =
                ran(kept, sh("head -c 1000000 /dev/zero | tr '\\0' x; echo; printf 'a\\377b\\n'")).await;
            assert_eq!((ended, lines.len()), (Ok(()), 2));
            assert_eq!((lines[0].len(), lines[1].as_str()), (1_000 + '…'.len_utf8(), "a\u{fffd}b"));
            let (ended, lines) = ran(kept, Program::new("seq").arg("1000000")).await;
            let expected: Vec<_> = (999_951..=1_000_000).map(|number| number.to_string()).collect();
            assert_eq!((ended, lines), (Ok(()), expected));
        }
    }

    #[tokio::test]
    async fn one_that_says_something_without_end_is_not_in_the_way() {
        for kept in [true, false] {
            let program = sh("echo ready >&2; exec cat /dev/zero");
            let (ended, _, job) = stopped(kept, program, true, GRACE).await;
            assert_eq!(why(ended), "`sh` was ended by signal 15 (SIGTERM)");
            let _ = until_nothing_is_left(&job).await;
        }
    }

    #[tokio::test]
    async fn one_that_is_told_to_end_may_end_well() {
        for kept in [true, false] {
            let program = sh("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done");
            let (ended, lines, job) = stopped(kept, program, true, GRACE).await;
            assert_eq!(why(ended), "`sh` ended with exit status 7");
            // The `sleep` that was going on was told as well, and the shell may say so.
            assert!(lines.contains(&"bye".to_owned()), "{lines:?}");
            let _ = until_nothing_is_left(&job).await;
        }
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_killed_after_the_grace() {
        for kept in [true, false] {
            let program = sh("trap '' TERM; echo ready; while :; do sleep 0.1; done");
            let since = Instant::now();
            let (ended, _, job) = stopped(kept, program, true, Duration::from_millis(300)).await;
            assert_eq!(why(ended), "`sh` was ended by signal 9 (SIGKILL)");
            assert!(since.elapsed() >= Duration::from_millis(300));
            let _ = until_nothing_is_left(&job).await;
        }
    }

    #[tokio::test]
    async fn what_is_dropped_is_killed_with_its_group() {
        for kept in [true, false] {
            let program =
                sh("trap '' TERM; sleep 1000 & (sleep 1001 & sleep 1002) & echo ready; wait; sleep 1003");
            let (_, _, job) = stopped(kept, program, false, GRACE).await;
            let took = until_nothing_is_left(&job).await;
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
    }

    #[tokio::test]
    async fn what_left_the_group_is_killed_as_well() {
        let daemon = "(setsid sh -c 'trap \"\" TERM HUP; sleep 1000 & setsid sleep 1001' >/dev/null 2>&1 </dev/null &)";
        for then in ["echo ready; sleep 1003", "sleep 0.2; echo ready; exec sleep 1004"] {
            let (_, _, job) = stopped(true, sh(&format!("{daemon}; {then}")), false, GRACE).await;
            let took = until_nothing_is_left(&job).await;
            assert!(took < Duration::from_secs(5), "{took:?}");
        }
    }

    #[tokio::test]
    async fn what_is_left_behind_is_ended() {
        attend();
        for (kept, script, least) in [
            // Told to end, it ends.
            (true, "sleep 1000 & setsid sleep 1001 & (setsid sleep 1002 &) & sleep 0.1", 0),
            (false, "sleep 1000 & sleep 1001 & exit 0", 0),
            // Or is killed after a second; also with the pipes open.
            (true, "trap '' TERM; sleep 1000 & setsid sleep 1001 & exit 0", 1_000),
            (false, "trap '' TERM; sleep 1000 & exit 0", 1_000),
        ] {
            let (job, output, since) = (marker("left"), Output::new(), Instant::now());
            let ended = sh(script).run_as(kept, &job, Path::new("/"), tick(), &output, GRACE).await;
            let took = since.elapsed();
            assert_eq!(ended, Ok(Vec::new()), "{script}");
            if kept {
                assert_eq!(alive(&job), [""; 0], "{script}");
            }
            let _ = until_nothing_is_left(&job).await;
            let range = Duration::from_millis(least)..Duration::from_millis(least + 3_000);
            assert!(range.contains(&took), "{script} {took:?}");
        }
    }

    #[tokio::test]
    async fn a_pipe_that_stays_open_is_not_waited_for() {
        attend();
        // Alone: it has left the group and is not found. So the test ends it.
        let (job, output, since) = (marker("open"), Output::new(), Instant::now());
        let program = sh("setsid sleep 20 & sleep 0.1; echo said");
        let ended = program.run_as(false, &job, Path::new("/"), tick(), &output, GRACE).await;
        assert_eq!((ended, output.lines()), (Ok(Vec::new()), vec!["said".to_owned()]));
        assert!(since.elapsed() < Duration::from_secs(10));
        assert_eq!(alive(&job).len(), 1);
        signal(&job, "sleep", Signal::KILL);
    }

    #[tokio::test]
    async fn what_is_left_behind_is_told_once() {
        for script in ["", "exec setsid "] {
            let count = "trap 'echo told >&2' TERM; echo ready; while :; do sleep 0.01; done";
            let (ended, lines) = ran(true, sh(&format!("({script}sh -c \"{count}\") & sleep 0.3"))).await;
            assert_eq!(ended, Ok(()));
            assert_eq!(lines.iter().filter(|line| *line == "told").count(), 1, "{lines:?}");
        }
    }

    #[tokio::test]
    async fn one_that_keeps_forking_away_is_killed() {
        let hop = "sleep 0.01; (setsid sh -c \"$hop\" &)";
        let program = Program::new("sh").args(["-c", "sh -c \"$hop\"; sleep 0.3"]).env("hop", hop);
        attend();
        let (job, output) = (marker("hop"), Output::new());
        let ended = program.run_as(true, &job, Path::new("/"), tick(), &output, GRACE).await;
        assert_eq!(ended, Ok(Vec::new()));
        assert_eq!(alive(&job), [""; 0]);
    }

    /// A clock that jumps when nothing is to be done does not cut anything short.
    #[tokio::test(start_paused = true)]
    async fn real_processes_need_no_clock_of_ours() {
        for kept in [true, false] {
            let (ended, lines) = ran(kept, sh("sleep 0.2; echo done; exit 3")).await;
            assert_eq!(ended, Err("`sh` ended with exit status 3".to_owned()));
            assert_eq!(lines, ["done"]);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_at_once() {
        attend();
        let (job, mut running) = (marker("hundred"), JoinSet::new());
        for number in 0..100 {
            let job = job.clone();
            let _ = running.spawn(async move {
                let output = Output::new();
                let program = sh(&format!("sleep 1001 & echo {number}; exit {number}"));
                let ended = program.run(&job, Path::new("/"), tick(), &output, GRACE).await;
                let expected = if number == 0 {
                    Ok(Vec::new())
                } else {
                    Err(failed(format!("`sh` ended with exit status {number}")))
                };
                assert_eq!((ended, output.lines()), (expected, vec![number.to_string()]));
            });
        }
        while let Some(ran) = running.join_next().await {
            ran.expect("no panic");
        }
        let _ = until_nothing_is_left(&job).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_may_be_dropped_at_any_moment() {
        attend();
        let job = marker("moment");
        for kept in [true, false] {
            for round in 0..150_u64 {
                let output = Output::new();
                // Without a keeper, what leaves the group is not found.
                let program = sh(if kept {
                    "setsid sleep 1000 & sleep 1001 & sleep 1002"
                } else {
                    "sleep 1001 & sleep 1002"
                });
                let program = program.stdin(vec![b'x'; if round % 2 == 0 { 0 } else { 1_000_000 }]);
                let run = program.run_as(kept, &job, Path::new("/"), tick(), &output, GRACE);
                // From before anything to a while after everything has been started, in uneven steps.
                let ended = tokio::time::timeout(Duration::from_micros(round * round * 2), run).await;
                assert!(ended.is_err(), "{ended:?}");
            }
        }
        let took = until_nothing_is_left(&job).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test]
    async fn if_its_keeper_is_killed_so_is_the_group() {
        attend();
        let (job, output) = (marker("keeper"), Output::new());
        let program = sh("trap '' TERM; echo ready; sleep 1000 & sleep 1001");
        let mut run = pin!(program.run_as(true, &job, Path::new("/"), tick(), &output, GRACE));
        tokio::select! {
            ended = &mut run => panic!("{ended:?}"),
            _ = until("it is ready", || output.lines().contains(&"ready".to_owned())) => {}
        }
        signal(&job, "combo-keeper", Signal::KILL);
        let why = "cannot say how `sh` ended: the process that kept it was killed";
        assert_eq!(run.await, Err(failed(why.to_owned())));
        let _ = until_nothing_is_left(&job).await;
    }

    #[tokio::test]
    async fn a_keeper_is_not_ended_by_what_ends_us() {
        attend();
        let (job, output) = (marker("term"), Output::new());
        let program = sh("echo ready; (setsid sleep 1000 &); sleep 1.5; echo done");
        let mut run = pin!(program.run_as(true, &job, Path::new("/"), tick(), &output, GRACE));
        tokio::select! {
            ended = &mut run => panic!("{ended:?}"),
            _ = until("it is ready", || output.lines().contains(&"ready".to_owned())) => {}
        }
        for number in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2] {
            signal(&job, "combo-keeper", number);
        }
        assert_eq!(
            (run.await, output.lines()),
            (Ok(Vec::new()), vec!["ready".to_owned(), "done".to_owned()])
        );
        assert_eq!(alive(&job), [""; 0]);
    }

    /// The masks of signals of a process, by the letters of `/proc/*/status`.
    fn signals(status: &str, letters: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix(letters)).expect("a mask");
        u64::from_str_radix(mask.trim_matches([':', '\t']), 16).expect("a number")
    }

    /// None is blocked, and none ignored that whoever started us does not ignore. Those that a keeper
    /// catches are not ignored either way.
    #[tokio::test]
    async fn no_signal_is_blocked_or_ignored() {
        // `SIGPIPE`, which Rust ignores for itself, and the two that glibc keeps for itself.
        const OTHERS: u64 = 1 << 12 | 1 << 31 | 1 << 32;
        let ours = std::fs::read_to_string("/proc/self/status").expect("ours");
        for kept in [true, false] {
            let (ended, lines) =
                ran(kept, Program::new("tail").args(["-n", "40", "/proc/self/status"])).await;
            let (status, ended) = (lines.join("\n"), ended.is_ok());
            assert!(ended && signals(&status, "SigBlk") == 0, "{status}");
            assert_eq!(signals(&status, "SigIgn") & !signals(&ours, "SigIgn") & !OTHERS, 0, "{status}");
            assert_eq!(signals(&status, "SigIgn") & 1 << 12, 0, "{status}");
        }
    }

    /// It gets its three streams and what whoever started us left open, and nothing that is ours or the
    /// keeper's.
    #[tokio::test]
    async fn descriptors_are_not_inherited() {
        const CLOSED: u32 = 0o2_000_000;
        let flags = |number: &str| {
            let found = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
            let flags = found.lines().find_map(|line| line.strip_prefix("flags:"))?;
            u32::from_str_radix(flags.trim(), 8).ok()
        };
        for kept in [true, false] {
            let (ended, lines) = ran(
                kept,
                sh("cd /proc/self/fd; for fd in *; do readlink $fd >/dev/null && echo $fd; done; true"),
            )
            .await;
            assert_eq!(ended, Ok(()));
            for number in lines.iter().filter(|number| !["0", "1", "2"].contains(&number.as_str())) {
                assert!(flags(number).is_some_and(|flags| flags & CLOSED == 0), "{number} of {lines:?}");
            }
        }
    }

    const PARENT: &str = "COMBO_TEST_PARENT";

    /// Not a test of its own: what is killed by the test below.
    #[tokio::test]
    async fn parent() {
        let Some(job) = std::env::var_os(PARENT) else { return };
        attend();
        // What is executed again is what is being executed, whatever is there under its name by now.
        let program = std::env::current_exe().expect("this program");
        if program.ends_with("copy") {
            std::fs::remove_file(program).expect("ours");
        }
        let job = job.to_str().expect("a name");
        let program = sh(
            "setsid sleep 1000 & (setsid sh -c 'trap \"\" TERM; sleep 1001 & sleep 1002' &) ; trap '' TERM HUP; echo ready; sleep 1003; sleep 1004",
        );
        let (output, job) = (Output::new(), format!("kept-{job}"));
        let _ = program.run(&job, Path::new("/"), tick(), &output, GRACE).await;
    }

    #[tokio::test]
    async fn if_we_are_killed_nothing_is_left() {
        let (_, module) = module_path!().split_once("::").expect("in a crate");
        let job = marker("killed");
        let folder = tempfile::tempdir().expect("a directory");
        let copy = folder.path().join("copy");
        let _ = std::fs::copy("/proc/self/exe", &copy).expect("a copy of this program");
        for program in [Path::new("/proc/self/exe"), &copy, Path::new("/proc/self/exe")] {
            let mut parent = Command::new(program)
                .args(["--exact", &format!("{module}::parent"), "--nocapture"])
                .env(PARENT, &job)
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("this binary");
            // The test, the keeper, two shells and four or more that sleep.
            let kept = format!("kept-{job}");
            let _ = until("all of it is there", || {
                alive(&kept).iter().filter(|line| line.starts_with("sleep")).count() >= 4
            })
            .await;
            parent.kill().expect("a child");
            let _ = parent.wait().expect("a child");
            let took = until("nothing is left", || alive(&job).is_empty()).await;
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }

    #[test]
    fn it_is_shown_as_one_would_type_it() {
        for (program, shown) in [
            (Program::new("pg_dump").args(["--file=a.sql", "shop"]), "pg_dump --file=a.sql shop"),
            (sh("echo 'a b' > \"$HOME\""), r#"sh -c 'echo '\''a b'\'' > "$HOME"'"#),
            (Program::new("a b").arg("").arg("ä*"), "'a b' '' 'ä*'"),
            (Program::new("printf").arg("a'\n\\\x1b"), r"printf $'a\'\n\\\u001b'"),
        ] {
            assert_eq!(program.to_string(), shown);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let program = Program::new("pg_dump").env("PGPASSWORD", "hunter2").stdin("hunter2").env_remove("A");
        let shown = format!("{program:?} {program}");
        assert!(!shown.contains("hunter2") && shown.contains("PGPASSWORD"), "{shown}");
    }

    /// What the shell makes of a shown command line is the command line.
    #[test]
    fn a_shown_command_line_means_itself() {
        let words: HashSet<&str> = [
            "a", "", " ", "'", "\"", "$x", "`a`", "\\", "*", "~", "#", "!", "ä", "\n'\\", "-n", "=a",
            "&|;<>()",
        ]
        .into();
        for word in words {
            let shown = Program::new("printf").arg("%s").arg(word).to_string();
            let said = Command::new("bash").args(["-c", &shown]).output().expect("bash");
            assert_eq!(String::from_utf8_lossy(&said.stdout), word, "{shown}");
        }
    }
}
