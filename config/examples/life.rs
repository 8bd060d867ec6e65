//! The whole of it, with every kind of change, and a command that is this program again: what is traced to see
//! which system calls are made.

use std::process::ExitCode;

use combo::{BoxError, Change, Deployment, Job, Program, Tick, millis};

async fn changes(_: Tick) -> Result<Vec<Change>, BoxError> {
    Ok(vec![
        Change::make_directory("static/a/b"),
        Change::write("static/a/b/c", "one\n"),
        Change::append("static/a/b/c", "two\n"),
        Change::rename("static/a/b/c", "static/a/b/d"),
        Change::set([Change::write("static/a/e", "three\n"), Change::remove("static/a/b/d")]),
        Change::remove("static/a/e"),
    ])
}

fn deployment() -> Deployment {
    let version = || Program::new("/proc/self/exe").arg("--version").stdin("x");
    // It is told to end long before.
    let endless = Program::new("sleep").arg("1000");
    frankenstein::deployment()
        .job(Job::new("changes", "at start", changes).may_write("static"))
        .job(Job::command("version", "at start", version()))
        .job(Job::command("changed", "when static/list.csv changes", version()))
        .job(Job::command("endless", "at start", endless).time_limit(millis(1_500)).grace(millis(100)))
}

fn main() -> ExitCode {
    combo::main(deployment)
}
