//! The command line that every binary made with [`main`] has, so that what was said in code can be
//! changed at the point of use. A later flag wins over an earlier one, and a flag over its variable.
#![expect(
    clippy::disallowed_methods,
    reason = "this is where the environment is read and the clock looked at"
)]

use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use combo_core::{Command as Order, Outcome, Reply, Tick, Timestamp, Trigger, trigger};
use jiff::{SignedDuration, tz::TimeZone};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    Deployment,
    jobs::{
        journal::{self, Written},
        keep_children,
        run::rehearse as wanted,
    },
    plan::Plan,
    run::{As, Ledgers, Opened, start_with},
    serve::inherited::take_sockets,
    step::alternatives,
};

#[cfg(feature = "tls")]
mod certs;
mod jobs;

/// Something went wrong.
const ERROR: u8 = 1;
/// What was said is wrong, in code or on the command line.
const PROBLEM: u8 = 2;

/// The fewest threads of the host runtime, so that a task that blocks holds up no other.
const HOST_THREADS: usize = 4;

/// Threads that the host runtime may use for blocking calls.
const HOST_BLOCKING: usize = 512;

/// What stands at the end of the help.
const ENDPOINTS: &str = "\
Endpoints:
  tcp:8080                           every interface, IPv4 and IPv6; a bare 8080 is the same
  tcp:8080:interface=127.0.0.1       one address; an IPv6 one in brackets
  tcp6:8080                          IPv6 alone
  unix:app.sock:mode=660             a unix socket; unix:@app: with an abstract name
  systemd:name=web, fd:3             a socket that it is started with; systemd:index=0
  ssl:8443:key=key.pem:cert=cert.pem TLS; interface= as above
  tls:DIR:tcp:443                    TLS by certificates in a folder; tls:dev: for developers
  le:DIR:tcp:443                     the same, ordered from Let's Encrypt; lets: its staging; acme: another
  haproxy:tcp:8080                   behind a proxy that speaks the PROXY protocol
  redirect:tcp:80                    leads to https";

#[derive(Parser)]
#[command(
    about = "Serves the deployment that was built into it",
    after_help = ENDPOINTS,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = false
)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    said: Said,
}

#[derive(Subcommand)]
enum What {
    /// Serve until told to stop (default)
    Run,
    /// Print endpoints, mounts in matching order and jobs with their next instants; exit 2 on problems
    Plan {
        /// Also try to open everything: sockets, keys, folders; exit 1 if something cannot be
        #[arg(long)]
        open: bool,
    },
    /// Print every job: when it is due, in words, how its last tick ended, its next instants
    Jobs,
    /// Run one job once, here and now, with its policies, and write it into the ledger; exit 1 unless it ran
    Job {
        /// Its name
        name: String,
        /// Only print the changes that it would make
        #[arg(long)]
        dry_run: bool,
        /// The due instant that it is told instead of now, as 2026-12-01T00:00:00Z
        #[arg(long, value_name = "INSTANT")]
        at: Option<Timestamp>,
    },
    /// Print a job's next instants, what clock changes do to them, and what each of its policies would do
    Explain {
        /// Its name
        job: String,
        /// How many instants
        #[arg(long, value_name = "N", default_value_t = 10)]
        next: usize,
    },
    /// Print every certificate: its hosts, when it expires, where it is, who renews it; needs no running process
    #[cfg(feature = "tls")]
    Certs {
        /// Exit 1 if one has expired, is near its end or is broken
        #[arg(long)]
        check: bool,
        /// With fewer days left a certificate is near its end; unless said 14, or a quarter of its life if that is less
        #[arg(long, value_name = "N")]
        days: Option<i64>,
        /// One JSON object per line: host, names, from, expires, days, issuer, file, renewal, problem
        #[arg(long)]
        json: bool,
    },
    /// Print what became of every tick, the oldest first; also while the deployment runs
    Ledger {
        /// Only of this job
        job: Option<String>,
        /// Only what was due, or ended, from there on: an instant, or how long ago, as 2h30m
        #[arg(long, value_name = "WHEN", value_parser = since)]
        since: Option<Since>,
        /// One JSON object per line: job, due, start, end, lateness_us, attempt, outcome, why, changes, …
        #[arg(long)]
        json: bool,
    },
}

/// From when on.
#[derive(Clone, Copy, Debug)]
enum Since {
    At(Timestamp),
    Ago(SignedDuration),
}

fn since(said: &str) -> Result<Since, String> {
    let ago = || said.parse().map(Since::Ago).ok();
    let at = said.parse().map(Since::At).ok();
    at.or_else(ago)
        .ok_or_else(|| "it is neither an instant, as 2026-12-01T00:00:00Z, nor how long ago, as 2h30m".into())
}

impl Since {
    fn instant(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago.abs()).unwrap_or(Timestamp::MIN),
        }
    }
}

/// What is said at the point of use.
#[derive(Args)]
struct Said {
    /// Listen here instead, as `tcp:8080` or `unix:app.sock`; repeatable
    #[arg(long, global = true, value_name = "ENDPOINT", env = "COMBO_LISTEN", value_delimiter = ' ', action = clap::ArgAction::Append)]
    listen: Vec<String>,
    /// The same; beside --listen it adds to it
    #[arg(long, global = true, value_name = "PORT")]
    port: Vec<String>,
    /// Believe this proxy instead, as `10.0.0.0/8` or `unix`; repeatable
    #[arg(long, global = true, value_name = "NETWORK")]
    trusted_proxy: Vec<String>,
    /// The folder that relative paths are under
    #[arg(long, global = true, value_name = "DIR", env = "COMBO_ROOT", overrides_with = "root")]
    root: Option<PathBuf>,
    /// Become this user once it listens, as `www`, `www:web` or `1000`
    #[arg(long, global = true, value_name = "USER", env = "COMBO_USER", overrides_with = "user")]
    user: Option<String>,
    /// How many threads serve requests
    #[arg(long, global = true, value_name = "N", env = "COMBO_WORKERS", overrides_with = "workers")]
    workers: Option<usize>,
    /// How to log to standard error: text on a terminal and JSON otherwise, unless said
    #[arg(long, global = true, value_enum, value_name = "FORM", env = "COMBO_LOG", overrides_with = "log")]
    log: Option<LogForm>,
    /// Do not log each request
    #[arg(long, global = true, overrides_with = "no_access_log")]
    no_access_log: bool,
    /// Log more: -v debug, -vv trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogForm {
    Text,
    Json,
    Off,
}

/// The whole program: reads the command line, and runs or prints the deployment.
///
/// The function is called inside the host runtime, and only for commands that need the deployment, so
/// what it calls may spawn. Exit codes: 0 fine, 1 error, 2 problems or wrong usage.
pub fn main(deployment: fn() -> Deployment) -> ExitCode {
    keep_children();
    take_sockets();
    match CommandLine::read(std::env::args_os()) {
        Ok(line) => obey(line, deployment),
        Err(error) => {
            // Help and version are errors to clap; it knows which stream they belong to.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(PROBLEM))
        }
    }
}

impl CommandLine {
    fn read(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Self, clap::Error> {
        let words: Vec<_> = words.into_iter().collect();
        let program = words.first().map(PathBuf::from);
        let name = program.as_deref().and_then(|path| path.file_stem()).and_then(|name| name.to_str());
        let name = name.unwrap_or("combo").to_owned();
        let command =
            Self::command().bin_name(name.clone()).display_name(name).version(env!("CARGO_PKG_VERSION"));
        // A variable that is set to nothing says nothing.
        let command = command.mut_args(|arg| {
            let empty = arg.get_env().and_then(std::env::var_os).is_some_and(|said| said.is_empty());
            if empty { arg.env(Resettable::Reset) } else { arg }
        });
        let matches = command.try_get_matches_from(words)?;
        let mut line = Self::from_arg_matches(&matches)?;
        // A flag beats the variable, and so does the flag that says the same.
        if matches.value_source("listen") == Some(ValueSource::EnvVariable) && !line.said.port.is_empty() {
            line.said.listen.clear();
        }
        Ok(line)
    }
}

fn obey(line: CommandLine, deployment: fn() -> Deployment) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(HOST_THREADS);
    let host = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(HOST_BLOCKING)
        .thread_name("combo-host")
        .enable_all()
        .build();
    let host = match host {
        Ok(host) => host,
        Err(error) => return complain(&format!("cannot start the host runtime: {error}"), ERROR),
    };
    let said = line.said;
    let code = host.block_on(async {
        let plan = match said.onto(deployment()).plan() {
            Ok(plan) => plan,
            Err(problems) => return complain(&problems.to_string(), PROBLEM),
        };
        match line.command.unwrap_or(What::Run) {
            What::Plan { open } => {
                let table = plan.table(Timestamp::now()).to_string();
                match print(&table) {
                    ExitCode::SUCCESS if open => try_to_open(plan).await,
                    code => code,
                }
            }
            What::Run => run(plan, said.log, said.verbose).await,
            #[cfg(feature = "tls")]
            What::Certs { check, days, json } => {
                let root = plan.root.clone().unwrap_or_default();
                let rows = certs::rows(&plan, &root, days, Timestamp::now());
                match print(&if json { certs::lines(&rows) } else { certs::table(&rows) }) {
                    ExitCode::SUCCESS if check && certs::are_troubled(&rows) => ExitCode::from(ERROR),
                    code => code,
                }
            }
            What::Jobs => match written(&plan) {
                Ok(written) if written.damaged > 0 => {
                    let table = print(&jobs::standing(&plan, &written, Timestamp::now()));
                    let lines = written.damaged;
                    let why =
                        format!("{lines} lines of the ledger cannot be read; the next start puts them aside");
                    if table == ExitCode::SUCCESS { complain(&why, ERROR) } else { table }
                }
                Ok(written) => print(&jobs::standing(&plan, &written, Timestamp::now())),
                Err(why) => complain(&why, ERROR),
            },
            What::Job { name, dry_run: true, at } => rehearse(plan, &name, at).await,
            What::Job { name, dry_run: false, at } => run_job(plan, &name, at, &said).await,
            What::Explain { job: name, next } => match named(&plan, &name) {
                Ok(job) => {
                    print(&jobs::explanation(&plan.jobs[job], next, Timestamp::now(), &TimeZone::system()))
                }
                Err(code) => code,
            },
            What::Ledger { job, since, json } => ledger(&plan, job.as_deref(), since, json),
        }
    });
    // A task that never returns must not keep the process.
    host.shutdown_background();
    code
}

impl Said {
    /// What is said here replaces what the deployment says.
    fn onto(&self, mut deployment: Deployment) -> Deployment {
        if !self.listen.is_empty() || !self.port.is_empty() {
            deployment.listen = self.listen.iter().chain(&self.port).cloned().collect();
        }
        if !self.trusted_proxy.is_empty() {
            deployment.trusted_proxies.clone_from(&self.trusted_proxy);
        }
        if let Some(root) = &self.root {
            deployment.root = Some(root.clone());
        }
        if let Some(user) = &self.user {
            deployment.user = Some(user.clone());
        }
        if let Some(workers) = self.workers {
            deployment.workers = Some(workers);
        }
        deployment.access_log &= !self.no_access_log && self.log != Some(LogForm::Off);
        deployment
    }
}

fn complain(lines: &str, code: u8) -> ExitCode {
    for line in lines.lines() {
        // Nobody is left to tell if standard error is gone.
        let _ = writeln!(std::io::stderr(), "error: {line}");
    }
    ExitCode::from(code)
}

/// What somebody else has said, for a terminal: without what would move its cursor or begin a line.
fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped =
        text.chars().map(|one| if one.is_control() { one.escape_default().to_string() } else { one.into() });
    escaped.collect::<String>().into()
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // `plan | head` is no error.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot print: {error}"), ERROR),
    }
}

/// The job with this name, or exit code 2 and what could have been meant.
fn named(plan: &Plan, name: &str) -> Result<usize, ExitCode> {
    plan.jobs.iter().position(|job| job.name == name).ok_or_else(|| {
        let names: Vec<&str> = plan.jobs.iter().map(|job| &*job.name).collect();
        complain(&format!("there is no job `{name}`; {}", alternatives(name, &names)), PROBLEM)
    })
}

async fn try_to_open(plan: Plan) -> ExitCode {
    match Opened::open(plan, None, Ledgers::Leave, None).await {
        Ok(_) => ExitCode::SUCCESS,
        Err(errors) => complain(&errors.to_string(), ERROR),
    }
}

async fn run(plan: Plan, form: Option<LogForm>, verbose: u8) -> ExitCode {
    let form =
        form.unwrap_or_else(|| if std::io::stderr().is_terminal() { LogForm::Text } else { LogForm::Json });
    let _flush = log(form, verbose);
    let plan = match enter_root(plan) {
        Ok(plan) => plan,
        Err(why) => return complain(&why, ERROR),
    };
    raise_descriptor_limit();
    let name = plan.name.clone();
    let handle = match start_with(plan, As::Server { signals: true }).await {
        Ok(handle) => handle,
        Err(errors) => return complain(&errors.to_string(), ERROR),
    };
    for address in handle.addresses() {
        tracing::info!(%address, "{name} serves");
    }
    handle.stopped().await;
    tracing::info!("{name} has stopped");
    ExitCode::SUCCESS
}

/// Foreign jobs resolve paths against the process's folder, so from here on that is the root.
fn enter_root(plan: Plan) -> Result<Plan, String> {
    if let Some(root) = &plan.root
        && let Err(error) = std::env::set_current_dir(root)
    {
        return Err(format!("cannot use root `{}`: {error}", root.display()));
    }
    Ok(Plan { root: None, ..plan })
}

/// Of a plan only this job, due when it is told.
fn only(plan: Plan, job: usize) -> Plan {
    let (mut job, mounts) = (plan.jobs.into_iter().nth(job), Vec::new());
    if let Some(job) = &mut job {
        // What it usually does depends on what makes it due.
        job.policies.overlap = Some(job.policies.overlap(&job.trigger));
        job.trigger = Trigger::Event(trigger::Event::After(String::new()));
    }
    let jobs = job.into_iter().collect();
    Plan { jobs, mounts, endpoints: Vec::new(), layers: Vec::new(), workers: Some(0), ..plan }
}

/// Where the ledger is, if there is one, and how it was said.
fn state(plan: &Plan) -> Option<(PathBuf, String)> {
    let state = plan.state.as_ref()?;
    Some((plan.root.as_deref().unwrap_or(Path::new(".")).join(state), state.display().to_string()))
}

/// How jobs stand by what is written in the ledger, by whichever process.
fn written(plan: &Plan) -> Result<Written, String> {
    let Some((folder, said)) = state(plan) else { return Ok(Written::default()) };
    journal::read(&folder).map_err(|error| format!("cannot read the ledger in `{said}`: {error}"))
}

fn ledger(plan: &Plan, job: Option<&str>, since: Option<Since>, json: bool) -> ExitCode {
    let Some((folder, said)) = state(plan) else {
        let why = "there is no ledger to read: the deployment says no `.state(\"…\")`";
        return complain(why, ERROR);
    };
    let entries = match journal::entries(&folder, job) {
        Ok(entries) => entries,
        Err(error) => return complain(&format!("cannot read the ledger in `{said}`: {error}"), ERROR),
    };
    // A job that is gone may still have ticks.
    if let Some(name) = job.filter(|_| entries.is_empty())
        && let Err(code) = named(plan, name)
    {
        return code;
    }
    let since = since.map(|since| since.instant(Timestamp::now()));
    let entries =
        entries.iter().filter(|entry| since.is_none_or(|since| entry.last >= since || entry.end >= since));
    let lines: String = match json {
        true => entries.map(|entry| journal::to_json(entry) + "\n").collect(),
        false => entries.map(jobs::ledger_line).collect(),
    };
    print(&lines)
}

/// Prints what a job would change.
async fn rehearse(plan: Plan, name: &str, at: Option<Timestamp>) -> ExitCode {
    let job = match named(&plan, name) {
        Ok(job) => job,
        Err(code) => return code,
    };
    if let Some(why) = plan.jobs[job].work.writes_itself() {
        return complain(&format!("job `{name}` cannot be run dry: {why}"), ERROR);
    }
    let plan = match enter_root(Plan { state: None, ..only(plan, job) }) {
        Ok(plan) => plan,
        Err(why) => return complain(&why, ERROR),
    };
    let opened = match Opened::open(plan, None, Ledgers::Leave, None).await {
        Ok(opened) => opened,
        Err(errors) => return complain(&errors.to_string(), ERROR),
    };
    let mut tick = Tick::at(at.unwrap_or_else(Timestamp::now));
    tick.now = Timestamp::now();
    match wanted(&opened.tasks.jobs[0], tick).await {
        Ok(changes) if changes.is_empty() => print("nothing would be changed\n"),
        Ok(changes) => {
            let shown: Vec<String> = changes.iter().map(|change| format!("{}\n", change.preview())).collect();
            print(&shown.concat())
        }
        Err(outcome) => complain(&format!("job `{name}` {outcome}"), ERROR),
    }
}

/// Runs a job once, beside a process that may be running.
async fn run_job(plan: Plan, name: &str, at: Option<Timestamp>, said: &Said) -> ExitCode {
    let job = match named(&plan, name) {
        Ok(job) => job,
        Err(code) => return code,
    };
    let _flush = log(said.log.unwrap_or(LogForm::Text), said.verbose);
    let plan = match enter_root(only(plan, job)) {
        Ok(plan) => plan,
        Err(why) => return complain(&why, ERROR),
    };
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let handle = match start_with(plan, As::Guest { heard }).await {
        Ok(handle) => handle,
        Err(errors) => return complain(&errors.to_string(), ERROR),
    };
    let order = Order::RunJob { name: name.to_owned(), due: at };
    let outcome = match handle.send(order).await {
        Reply::Begun => hears.recv().await.map(|entry| entry.outcome),
        Reply::Refused { why } => Some(Outcome::Skipped { why }),
        _ => None,
    };
    let _ = handle.send(Order::Stop).await;
    handle.stopped().await;
    match outcome {
        Some(Outcome::Ran) => print(&format!("job `{name}` ran\n")),
        Some(outcome) => complain(&format!("job `{name}` {outcome}"), ERROR),
        None => complain(&format!("job `{name}` was stopped before it began"), ERROR),
    }
}

/// A server needs a descriptor per connection; the soft limit is for programs that use `select`.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

/// Lines of the log that wait for their reader; room for each is held all the time.
const WAITING_LINES: usize = 32_768;

/// Logs to standard error from a thread of its own, so that a reader that stalls holds up nothing;
/// lines that it does not take are dropped. What is returned writes the last lines when dropped.
fn log(form: LogForm, verbose: u8) -> Option<WorkerGuard> {
    if form == LogForm::Off {
        return None;
    }
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).finish(std::io::stderr());
    let level = match verbose {
        // The scheduler that hosted jobs bring says how it is built, at every start; what clients do to the
        // libraries of HTTP/2 and TLS they say as often as they do it, and we once in a while.
        0 => "info,h2=error,rustls=error,tokio_cron_scheduler=warn",
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("RUST_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match form {
        LogForm::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        _ => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // A test may have set one before.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("without a word");
        let at = panic.location().map(ToString::to_string);
        tracing::error!(thread = thread.name(), at, "a panic: {text}");
    }));
    Some(guard)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &str, expected: impl Fn(Said) -> bool) {
        let words = std::iter::once("frankenstein").chain(words.split_whitespace()).map(Into::into);
        let line = CommandLine::read(words).unwrap_or_else(|error| panic!("{error}"));
        assert!(expected(line.said));
    }

    #[test]
    fn a_later_flag_wins() {
        check("--root a --root b", |said| said.root == Some("b".into()));
        check("--user a --user b:c", |said| said.user.as_deref() == Some("b:c"));
        check("run --workers 1 --workers 2", |said| said.workers == Some(2));
        check("--log off --log json run", |said| said.log == Some(LogForm::Json));
        check("--listen 80 --listen tcp:81", |said| said.listen == ["80", "tcp:81"]);
        check("plan -vv --port 9000", |said| said.verbose == 2 && said.port == ["9000"]);
    }

    #[test]
    fn what_is_said_here_replaces_what_the_deployment_says() {
        let deployment =
            || Deployment::new("test").listen("tcp:8080").workers(3).root("a").trusted_proxies(["192.0.2.1"]);
        let line =
            "x --port 9000 --listen unix:a --workers 1 --trusted-proxy 10.0.0.0/8 --trusted-proxy unix";
        let words = line.split(' ').map(Into::into);
        let said = CommandLine::read(words).expect("a command line").said;
        let deployment = said.onto(deployment());
        assert_eq!(deployment.listen, ["unix:a", "9000"]);
        assert_eq!((deployment.workers, deployment.root), (Some(1), Some("a".into())));
        assert_eq!(deployment.trusted_proxies, ["10.0.0.0/8", "unix"]);
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for words in [["x", "--workers", "many"], ["x", "--log", "xml"], ["x", "serve", "now"]] {
            let error = CommandLine::read(words.map(Into::into)).err().expect("an error");
            assert_eq!(error.exit_code(), i32::from(PROBLEM), "{words:?}");
        }
    }

    #[test]
    fn help_names_every_command_and_variable() {
        let help = CommandLine::command().render_long_help().to_string();
        for word in [
            "run",
            "plan",
            "jobs",
            "explain",
            "ledger",
            "COMBO_LISTEN",
            "COMBO_ROOT",
            "COMBO_WORKERS",
            "COMBO_LOG",
            "--port",
        ] {
            assert!(help.contains(word), "{word}");
        }
    }
}
