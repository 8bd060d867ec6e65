//! Jobs that are commands, block, or wait for a file, in a program with a `main` of its own: `commands FOLDER`, and
//! then a job's name on a line of its input runs it.

use std::path::Path;

use combo::{BoxError, Command, Deployment, Job, Program, Tick, millis};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A child in its group, one in a session of its own, and one that nobody waits for.
const LEAVES: &str =
    "echo begun; sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &); ";

fn deployment(root: &Path) -> Deployment {
    let sh = |script: &str| Program::new("sh").args(["-c", script]).env("COMBO_TEST_MARK", root);
    let blocks = |tick: Tick| {
        if tick.count == 1 { Err::<_, BoxError>("not yet".into()) } else { Ok(Vec::new()) }
    };
    Deployment::new("commands")
        .root(root)
        .state(".state")
        .job(Job::command(
            "good",
            "every 1h",
            sh("pwd; echo \"$COMBO_JOB $COMBO_ATTEMPT\" >&2").folder("sub"),
        ))
        .job(Job::command("bad", "every 1h", sh("echo no; exit 3")))
        .job(Job::command("absent", "every 1h", Program::new("there-is-no-such-program")))
        .job(Job::command("leaves", "every 1h", sh(&format!("{LEAVES} exit 0"))))
        .job(
            Job::command(
                "endless",
                "every 1h",
                sh(&format!("trap '' TERM; {LEAVES} while :; do sleep 1; done")),
            )
            .time_limit(millis(300))
            .grace(millis(300)),
        )
        .job(Job::command("last", "every 1h", sh(&format!("{LEAVES} wait"))))
        .job(Job::blocking("blocks", "every 1h", blocks))
        .job(Job::command("changed", "when sub/list.csv changes", sh("cat sub/list.csv")))
}

fn main() -> Result<(), BoxError> {
    // First of all, so that nothing of a command outlives this process.
    combo::keep_children();
    run(Path::new(&std::env::args_os().nth(1).ok_or("usage: commands FOLDER")?))
}

fn run(root: &Path) -> Result<(), BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    host.block_on(async {
        let handle = combo::start(deployment(root).plan()?).await?;
        println!("started");
        let mut words = BufReader::new(tokio::io::stdin()).lines();
        while let Some(name) = words.next_line().await? {
            println!("{:?}", handle.send(Command::RunJob { name, due: None }).await);
        }
        Ok(())
    })
}
