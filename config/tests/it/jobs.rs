//! Jobs over the real thing: files that change on the grid and whole, and tasks that go wrong alone.

use std::{
    collections::HashSet,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use bytes::Bytes;
use combo::{BoxError, Change, Job, JobStatus, Tick, millis, secs};
use jiff::Timestamp;

use crate::{
    child::Child,
    lines::log,
    site::{ANY_PORT, FRAMEWORKS, Site, eventually, folder, three},
    wire::get,
};

/// What a path says, once it says something else than before.
fn next(child: &Child, path: &str, before: &str) -> String {
    eventually(&format!("another {path}"), || {
        let answer = child.wire().ask(get(path));
        (answer.status == 200 && answer.text() != before).then(|| answer.text().to_owned())
    })
}

#[test]
fn the_clock_and_the_pulse_are_rewritten_on_the_grid() {
    let child = Child::start();
    let first = next(&child, "/time.txt", "");
    let second = next(&child, "/time.txt", &first);
    let third = next(&child, "/time.txt", &second);
    let times = [first, second, third].map(|text| {
        assert_eq!(text.lines().count(), 1);
        text.trim_end().parse::<Timestamp>().expect("an instant").as_millisecond()
    });
    assert!(times.iter().all(|time| time % 4_000 == 0), "{times:?}");
    assert!(times.is_sorted() && times[0] < times[1] && times[1] < times[2], "{times:?}");
    let beats = |text: &str| {
        let pulse: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert!(pulse["at"].as_str().is_some_and(|at| at.parse::<Timestamp>().is_ok()), "{text}");
        pulse["beats"].as_u64().expect("a number")
    };
    let first = next(&child, "/pulse.json", "");
    let second = next(&child, "/pulse.json", &first);
    assert!(beats(&second) > beats(&first), "{first}{second}");
    let mut names: Vec<_> =
        fs::read_dir(child.path("static")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !name.to_string_lossy().starts_with('.'));
    names.sort();
    assert_eq!(names, ["index.html", "pulse.json", "time.txt"]);
}

const LARGE: usize = 1 << 20;

#[test]
fn a_reader_never_sees_half_a_file() {
    let write = |tick: Tick| async move {
        let byte = u8::try_from(tick.count % 251).expect("it is small");
        Ok::<_, BoxError>(vec![Change::write("static/large", Bytes::from(vec![byte; LARGE]))])
    };
    let site = Site::start(three().job(Job::new("large", "every 50ms", write).may_write("static")));
    let (path, enough) = (site.path("static/large"), 10);
    eventually("the first of it", || path.exists().then_some(()));
    let seen = |bytes: &[u8], seen: &mut HashSet<u8>| {
        assert_eq!(bytes.len(), LARGE);
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two at once");
        let _ = seen.insert(bytes[0]);
        (seen.len() >= enough).then_some(())
    };
    thread::scope(|scope| {
        let _ = scope.spawn(|| {
            let mut by_disk = HashSet::new();
            eventually("many of it on the disk", || {
                seen(&fs::read(&path).expect("it is there"), &mut by_disk)
            });
        });
        let _ = scope.spawn(|| {
            let (mut by_http, mut wire) = (HashSet::new(), site.wire());
            eventually("many of it by HTTP", || {
                let answer = wire.ask(get("/large"));
                assert_eq!((answer.status, answer.whole), (200, true));
                seen(&answer.body, &mut by_http)
            });
        });
        let _ = scope.spawn(|| {
            let (mut by_http2, http2) = (HashSet::new(), site.http2());
            eventually("many of it by HTTP/2", || {
                let answer = http2.get("/large");
                assert_eq!((answer.status, answer.whole), (200, true));
                seen(&answer.body, &mut by_http2)
            });
        });
    });
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o644);
}

fn of<'a>(jobs: &'a [JobStatus], name: &str) -> &'a JobStatus {
    jobs.iter().find(|job| job.name == name).expect("such a job")
}

#[test]
fn tasks_that_go_wrong_hold_up_nobody() {
    let ticks = Arc::new(AtomicU64::new(0));
    let (counted, released) = (ticks.clone(), Arc::new(AtomicBool::new(false)));
    let release = released.clone();
    let good = move |_: Tick| {
        let _ = counted.fetch_add(1, Relaxed);
        async { Ok::<_, BoxError>(Vec::new()) }
    };
    async fn panics(_: Tick) -> Result<Vec<Change>, BoxError> {
        panic!("no more")
    }
    fn panics_at_once(_: Tick) -> std::future::Ready<Result<Vec<Change>, BoxError>> {
        panic!("not even a future")
    }
    async fn fails(_: Tick) -> Result<Vec<Change>, BoxError> {
        Err("it rains".into())
    }
    async fn never_ends(_: Tick) -> Result<Vec<Change>, BoxError> {
        std::future::pending().await
    }
    let blocks = move |_: Tick| {
        let released = released.clone();
        async move {
            // For a minute, as far as anybody waits for it.
            let began = Instant::now();
            while !released.load(Relaxed) && began.elapsed() < secs(60) {
                thread::sleep(millis(10));
            }
            Ok::<_, BoxError>(Vec::new())
        }
    };
    async fn strays(_: Tick) -> Result<Vec<Change>, BoxError> {
        Ok(vec![Change::write("elsewhere.txt", "x")])
    }
    async fn forgets(_: Tick) -> Result<Vec<Change>, BoxError> {
        // Nobody waits for it, and it never ends.
        drop(tokio::spawn(std::future::pending::<()>()));
        Ok(Vec::new())
    }
    let every = "every 50ms";
    let site = Site::start(
        three()
            .drain(secs(2))
            .job(Job::new("good", every, good))
            .job(Job::new("panics", every, panics))
            .job(Job::new("panics at once", every, panics_at_once))
            .job(Job::new("fails", every, fails))
            .job(Job::new("never ends", every, never_ends))
            .job(Job::new("blocks", every, blocks))
            .job(Job::new("forgets", every, forgets))
            .job(Job::new("strays", every, strays).may_write("static")),
    );
    let wrong = ["panics", "panics at once", "fails", "strays"];
    let stuck = ["never ends", "blocks"];
    eventually("everything has gone wrong", || {
        let jobs = site.status().jobs;
        let all = wrong.iter().all(|name| of(&jobs, name).counts.failed >= 5)
            && stuck.iter().all(|name| {
                of(&jobs, name).running > 0
                    && of(&jobs, name).counts.skipped + of(&jobs, name).counts.missed >= 5
            });
        all.then_some(())
    });
    // And still every tick comes, and every request is answered.
    let before = ticks.load(Relaxed);
    for framework in FRAMEWORKS {
        for _ in 0..10 {
            assert_eq!(site.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
        }
        assert_eq!(
            site.wire().ask(get(&format!("/{framework}/stream"))).text().matches("data: ").count(),
            10
        );
    }
    eventually("the good one goes on", || (ticks.load(Relaxed) >= before + 20).then_some(()));
    let jobs = site.status().jobs;
    assert_eq!(
        (of(&jobs, "good").counts.failed, of(&jobs, "never ends").counts.ran, of(&jobs, "blocks").counts.ran),
        (0, 0, 0)
    );
    assert!(of(&jobs, "forgets").counts.ran > 0 && of(&jobs, "forgets").counts.failed == 0);
    assert!(!site.path("elsewhere.txt").exists());
    for (name, why) in [
        ("panics", "panicked: no more"),
        ("panics at once", "panicked: not even a future"),
        ("fails", "failed: it rains"),
        ("strays", "was refused: "),
    ] {
        let _ = log().wait(&["ERROR jobs", &format!("job={name}"), why]);
    }
    // It stops within its budget and a little, and says whom it did not wait for.
    let began = Instant::now();
    site.stop();
    site.stopped();
    assert!(began.elapsed() < secs(30), "it took {:?}", began.elapsed());
    for name in stuck {
        let _ = log().wait(&["waiting for a task", &format!("job={name}")]);
        let _ = log().wait(&["cutting a task", &format!("job={name}")]);
    }
    release.store(true, Relaxed);
}

/// A hosted job cannot be cut: its tick gets an outcome all the same, those that are due while its code goes on
/// are skipped, and the first that is due after its end runs.
#[test]
fn a_hosted_job_that_takes_too_long_has_timed_out_and_its_next_ticks_wait_for_its_end() {
    const EVERY_SECOND: &str = "* * * * * *";
    let released = Arc::new(AtomicBool::new(false));
    let (by_blocking, by_waiting) = (released.clone(), released.clone());
    let blocks = tokio_cron_scheduler::Job::new(EVERY_SECOND, move |_, _| {
        let began = Instant::now();
        while !by_blocking.load(Relaxed) && began.elapsed() < secs(60) {
            thread::sleep(millis(5));
        }
    });
    let waits = tokio_cron_scheduler::Job::new_async(EVERY_SECOND, move |_, _| {
        let released = by_waiting.clone();
        Box::pin(async move {
            while !released.load(Relaxed) {
                tokio::time::sleep(millis(5)).await;
            }
        })
    });
    let named = ["blocks", "waits"];
    let jobs = named.into_iter().zip([blocks, waits]);
    let site = Site::start(jobs.fold(three().state(".state"), |deployment, (name, job)| {
        deployment.job(Job::hosted(name, job).time_limit(millis(50)).grace(millis(50)))
    }));
    eventually("both have timed out and their next ticks were skipped", || {
        let jobs = site.status().jobs;
        named.iter().all(|name| of(&jobs, name).counts.skipped >= 3).then_some(())
    });
    for name in named {
        let job = of(&site.status().jobs, name).clone();
        assert_eq!((job.counts.timed_out, job.counts.ran, job.failures), (1, 0, 1), "{name}");
    }
    for framework in FRAMEWORKS {
        assert_eq!(site.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
    }
    released.store(true, Relaxed);
    eventually("both run again", || {
        let jobs = site.status().jobs;
        named
            .iter()
            .all(|name| of(&jobs, name).counts.ran >= 2 && of(&jobs, name).failures == 0)
            .then_some(())
    });
    let folder = site.path(".state");
    for name in named {
        let entries = combo::read_ledger(&folder).unwrap().into_iter().filter(|entry| &*entry.job == name);
        let mut said: Vec<String> = entries.map(|entry| entry.outcome.to_string()).collect();
        // One may be due while it is being ended.
        said.retain(|said| said != "was skipped: the one before is still running");
        said.dedup();
        assert_eq!(
            said,
            [
                "timed out: it took longer than 50ms; it does not end, and holds a thread",
                "was skipped: the one before could not be ended and holds a thread",
                "ran",
            ],
            "{name}"
        );
    }
}

#[test]
fn a_job_that_blocks_does_not_keep_the_process() {
    let folder = folder();
    // The real binary has none that blocks; its hosted one writes to a pipe that nobody reads.
    let mut child = Child::under("mkfifo static/.pulse.json.$$.tmp", &["--listen", ANY_PORT], folder);
    let _ = child.log.wait_for(2, &["\"job\":\"clock\"", "\"ran\""]);
    let _ = child.log.wait(&["\"job\":\"pulse\"", "skipped"]);
    assert_eq!(child.wire().ask(get("/axum/hello/x")).status, 200);
    child.signal(rustix::process::Signal::TERM);
    let _ = child.log.wait(&["waiting for a task", "\"pulse\""]);
    child.signal(rustix::process::Signal::TERM);
    let _ = child.log.wait(&["cutting a task", "\"pulse\""]);
    assert_eq!(child.exit().code(), Some(0));
}

/// On a disk without room the old files stay whole, and are served, and writing goes on by itself as
/// soon as there is room.
#[test]
fn on_a_full_disk_the_old_files_stay() {
    let folder = folder();
    let old = "old and whole\n";
    // A disk of four pages, of which a filler takes what is left.
    let full = format!(
        "mount -t tmpfs -o size=16k none static && echo welcome > static/index.html && \
         printf '{}' > static/time.txt && printf '{}' > static/pulse.json && \
         {{ cat /dev/zero > static/filler 2>/dev/null || true; }}",
        old.escape_default(),
        old.escape_default(),
    );
    let may_mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let (child, why) = if may_mount.is_ok_and(|output| output.status.success()) {
        (Child::within(&["unshare", "-rm"], &full, &["--listen", ANY_PORT], folder), "os error 28")
    } else {
        // Where nobody may mount, a limit on the length of files stands in for it.
        for name in ["time.txt", "pulse.json"] {
            fs::write(folder.path().join("static").join(name), old).unwrap();
        }
        (Child::under("trap '' XFSZ; ulimit -f 0", &["--listen", ANY_PORT], folder), "os error 27")
    };
    let failed =
        child.log.wait_for(2, &["ERROR", "\"job\":\"clock\"", "failed: cannot write `static/time.txt`"]);
    let _ = child.log.wait_for(2, &["cannot write `static/pulse.json`", why]);
    for path in ["/time.txt", "/pulse.json"] {
        assert_eq!(child.wire().ask(get(path)).text(), old, "{failed:?}");
    }
    for framework in FRAMEWORKS {
        assert_eq!(child.wire().ask(get(&format!("/{framework}/hello/x"))).status, 200);
    }
    if why == "os error 28" {
        fs::remove_file(child.inside("static/filler")).unwrap();
        let time = next(&child, "/time.txt", old);
        assert!(time.trim_end().parse::<Timestamp>().is_ok(), "{time}");
        let _ = next(&child, "/pulse.json", old);
    }
}

/// A ledger that cannot be written holds up no job, and is written again when there is room.
#[test]
fn jobs_go_on_without_room_for_the_ledger() {
    let may_mount = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let may_mount = may_mount.is_ok_and(|output| output.status.success());
    let folder = folder();
    if !may_mount {
        // A limit on the length of files stands in for a full disk; there is never room again.
        let child = Child::under("trap '' XFSZ; ulimit -f 4", &["--listen", ANY_PORT], folder);
        let _ = child.log.wait(&["ERROR", "cannot write the ledger into", "jobs go on"]);
        let first = next(&child, "/time.txt", "");
        let _ = next(&child, "/time.txt", &first);
        return;
    }
    // Room for what it begins with, and hardly more.
    let full = "mkdir .state && mount -t tmpfs -o size=16k none .state";
    let child = Child::within(&["unshare", "-rm"], full, &["--listen", ANY_PORT], folder);
    let filler = child.inside(".state/filler");
    let _ = std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(&filler).unwrap());
    let _ = child.log.wait(&["ERROR", "cannot write the ledger into", "jobs go on"]);
    let first = next(&child, "/time.txt", "");
    let _ = next(&child, "/time.txt", &first);
    fs::remove_file(filler).unwrap();
    let _ = child.log.wait(&["the ledger is written into", "again", "\"lost\":0"]);
    let entries = combo::read_ledger(&child.inside(".state")).unwrap();
    let clock: Vec<_> =
        entries.iter().filter(|entry| &*entry.job == "clock").map(|entry| entry.due).collect();
    let four_apart = |pair: &[Timestamp]| pair[1].as_second() - pair[0].as_second() == 4;
    assert!(clock.len() >= 2 && clock.windows(2).all(four_apart), "{clock:?}");
}

/// What a task writes is there for the next request.
#[test]
fn what_a_job_wrote_is_served_at_once() {
    let write = |tick: Tick| async move {
        Ok::<_, BoxError>(vec![
            Change::write("static/now.txt", tick.count.to_string()),
            Change::append("static/all.txt", "."),
            Change::remove("static/gone.txt"),
        ])
    };
    let site = Site::start(three().job(Job::new("now", "every 24h", write).may_write("static")));
    fs::write(site.path("static/gone.txt"), "x").unwrap();
    for n in 1..=5 {
        let before = of(&site.status().jobs, "now").counts.ran;
        assert_eq!(site.say(combo::Command::RunJob { name: "now".into(), due: None }), combo::Reply::Begun);
        eventually("it has run", || (of(&site.status().jobs, "now").counts.ran > before).then_some(()));
        assert_eq!(site.wire().ask(get("/now.txt")).text(), n.to_string());
        assert_eq!(site.wire().ask(get("/all.txt")).text().len(), n);
        assert_eq!(site.wire().ask(get("/gone.txt")).status, 404);
    }
}
