//! Jobs that write and wait all the time, to be killed at any moment: `killed FOLDER`. It stops at the end of its input.

use std::{fs, path::Path};

use combo::{BoxError, Change, Command, Deployment, Job, Keep, Missed, Overlap, Tick, millis};
use tokio::io::AsyncReadExt;

type Changes = Result<Vec<Change>, BoxError>;

fn deployment(root: &Path) -> Deployment {
    let log = root.join("out/log");
    let append = move |tick: Tick| {
        // As long as it is now, whoever made it so long.
        let length = fs::metadata(&log).map_or(0, |log| log.len());
        async move { Ok::<_, BoxError>(vec![Change::append_at("out/log", length, format!("{}\n", tick.due))]) }
    };
    async fn pair(tick: Tick) -> Changes {
        let both = tick.due.to_string();
        Ok(vec![Change::set([Change::write("out/a", both.clone()), Change::write("out/b", both)])])
    }
    async fn whole(tick: Tick) -> Changes {
        Ok(vec![Change::write("out/whole", format!("{}\n", tick.due).repeat(1_000))])
    }
    async fn slow(_: Tick) -> Changes {
        tokio::time::sleep(millis(30)).await;
        Ok(Vec::new())
    }
    async fn nothing(_: Tick) -> Changes {
        Ok(Vec::new())
    }
    Deployment::new("killed")
        .root(root)
        .state(".state")
        .keep(Keep::default().entries(1_000_000))
        .job(Job::new("append", "every 10ms", append).may_write("out"))
        .job(Job::new("pair", "every 20ms", pair).may_write("out").overlap(Overlap::Queue))
        .job(Job::new("whole", "every 15ms", whole).may_write("out").missed(Missed::Skip))
        .job(Job::new("slow", "every 50ms", slow).overlap(Overlap::Allow(2)))
        .job(Job::new("all", "every 25ms", nothing).missed(Missed::All(3)))
}

fn main() -> Result<(), BoxError> {
    run(Path::new(&std::env::args_os().nth(1).ok_or("usage: killed FOLDER")?))
}

fn run(root: &Path) -> Result<(), BoxError> {
    let host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stopped = host.block_on(async {
        let handle = combo::start(deployment(root).plan()?).await?;
        println!("started");
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        let _ = handle.send(Command::Stop).await;
        handle.stopped().await;
        Ok(())
    });
    host.shutdown_background();
    stopped
}
