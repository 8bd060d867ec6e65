//! A process that is killed at any moment, a hundred times: what its ledger says, and what is on the disk.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use combo::{
    BoxError, Change, Deployment, Entry, Job, Keep, Missed, Overlap, Reply, Tick, Timestamp, millis,
};

/// Where the process that is killed has its folder; it is this test program again.
const FOLDER: &str = "COMBO_TEST_KILLED_IN";

const KILLS: usize = 100;

/// Each job and its grid, in milliseconds.
const JOBS: [(&str, i64); 5] = [("append", 10), ("pair", 20), ("whole", 15), ("slow", 50), ("all", 25)];

type Changes = Result<Vec<Change>, BoxError>;

/// What it does all the time.
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

/// Not a test of its own: the process that is killed.
#[test]
fn the_process_that_is_killed() {
    let Some(root) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    host.block_on(async {
        let handle = combo::start(deployment(&root).plan().unwrap()).await.unwrap();
        println!("\nstarted");
        handle.stopped().await;
    });
}

fn begin(root: &Path) -> std::process::Child {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["killed::the_process_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let out = BufReader::new(process.stdout.take().unwrap());
    let mut lines = out.lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.ends_with("started"))), "it did not start");
    process
}

fn milliseconds(instant: Timestamp) -> i64 {
    instant.as_millisecond()
}

/// No instant of any grid is in two entries; and if nothing runs, each is in one. Gives those that ran.
fn check_ledger(entries: &[Entry], runs: bool) -> BTreeMap<String, HashSet<Timestamp>> {
    let mut ran = BTreeMap::new();
    for (job, grid) in JOBS {
        let mut of_job: Vec<&Entry> = entries.iter().filter(|entry| &*entry.job == job).collect();
        of_job.sort_by_key(|entry| entry.due);
        let mut reached = None;
        for entry in &of_job {
            let (first, last) = (milliseconds(entry.due), milliseconds(entry.last));
            let next = reached.map_or(first, |reached| reached + grid);
            assert!(first == next || (runs && first > next), "{job}: after {reached:?} {entry:?}");
            assert_eq!(last - first, (i64::try_from(entry.ticks).unwrap() - 1) * grid, "{entry:?}");
            reached = Some(last);
        }
        let those = of_job.iter().filter(|entry| entry.outcome.word() == "ran").map(|entry| entry.due);
        drop(ran.insert(job.to_owned(), those.collect()));
    }
    ran
}

fn check_files(root: &Path, ran: &BTreeMap<String, HashSet<Timestamp>>) {
    let log = fs::read_to_string(root.join("out/log")).unwrap();
    assert!(log.ends_with('\n'), "half a line");
    let lines: Vec<Timestamp> = log.lines().map(|line| line.parse().unwrap()).collect();
    let once: HashSet<_> = lines.iter().copied().collect();
    assert_eq!(once.len(), lines.len(), "a line twice");
    assert!(ran["append"].is_subset(&once), "a line is lost");
    assert_eq!(fs::read(root.join("out/a")).unwrap(), fs::read(root.join("out/b")).unwrap());
    let whole = fs::read_to_string(root.join("out/whole")).unwrap();
    assert!(whole.lines().count() == 1_000 && whole.lines().all(|line| Some(line) == whole.lines().next()));
}

#[test]
fn nothing_is_lost_or_counted_twice_when_it_is_killed_a_hundred_times() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("out")).unwrap();
    for kill in 0..KILLS {
        let mut process = begin(root);
        // At any moment: from before its first tick on.
        thread::sleep(Duration::from_micros((kill as u64 * 7_919) % 120_000));
        process.kill().unwrap();
        assert_eq!(process.wait().unwrap().signal(), Some(9));
        let entries = combo::read_ledger(&root.join(".state")).unwrap();
        drop(check_ledger(&entries, true));
    }
    let mut process = begin(root);
    thread::sleep(millis(300));
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let _ = process.wait().unwrap();
    // Once more in this process: what was interrupted is finished, what ran is recorded as cut.
    let host = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    host.block_on(async {
        let handle = combo::start(deployment(root).plan().unwrap()).await.unwrap();
        tokio::time::sleep(millis(200)).await;
        assert_eq!(handle.send(combo::Command::Stop).await, Reply::Begun);
        handle.stopped().await;
    });
    let entries = combo::read_ledger(&root.join(".state")).unwrap();
    let ran = check_ledger(&entries, false);
    check_files(root, &ran);
    let cut = entries.iter().filter(|entry| entry.outcome.to_string().contains("process ended")).count();
    let missed = entries.iter().filter(|entry| entry.outcome.word() == "missed").count();
    assert!(cut >= KILLS / 4 && missed >= KILLS / 4, "{cut} were cut and {missed} missed");
    let hidden = fs::read_dir(root.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = hidden.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(hidden.is_empty(), "{hidden:?}");
}
