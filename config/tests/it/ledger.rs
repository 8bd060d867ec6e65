//! The commands about jobs, and the ledger that they read, with the real binary: while it runs, after a kill,
//! when its journal is damaged, and when it has been stopped for a while.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use combo::Timestamp;
use rustix::process::Signal;

use crate::{
    child::{BINARY, Child, Said, command, run},
    site::{ANY_PORT, eventually, folder},
};

/// The real binary in a folder, to its end.
fn ask(folder: &Path, words: &[&str]) -> Said {
    let mut asked = command(BINARY);
    let _ = asked.current_dir(folder).args(words);
    run(asked)
}

fn root(child: &Child) -> &Path {
    // Every path in it will do to find it.
    Box::leak(child.path("").into_boxed_path())
}

/// What `ledger --json` says, a value a line.
fn ledger(folder: &Path, words: &[&str]) -> Vec<serde_json::Value> {
    let said = ask(folder, &[&["ledger", "--json"], words].concat());
    assert_eq!((said.code, &*said.err), (Some(0), ""), "{said:?}");
    said.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Entries of a job, once there are so many.
fn entries(folder: &Path, job: &str, count: usize) -> Vec<serde_json::Value> {
    eventually("so many entries", || {
        let entries = ledger(folder, &[job]);
        (entries.len() >= count).then_some(entries)
    })
}

/// Each is due four seconds after the one before it; several that were missed count as so many.
fn check_on_grid(entries: &[serde_json::Value]) {
    let instant = |entry: &serde_json::Value, key: &str| -> i64 {
        let said = entry[key].as_str().expect("an instant");
        said.parse::<Timestamp>().expect("an instant").as_second()
    };
    // What is skipped because a tick takes its time is written down before that one is.
    let mut by_due: Vec<_> = entries.iter().collect();
    by_due.sort_by_key(|entry| instant(entry, "due"));
    for pair in by_due.windows(2) {
        assert_eq!(instant(pair[1], "due"), instant(pair[0], "last") + 4, "{pair:?}");
    }
    for entry in entries {
        let ticks = entry["ticks"].as_i64().expect("a number");
        assert_eq!(instant(entry, "last") - instant(entry, "due"), (ticks - 1) * 4, "{entry}");
    }
}

#[test]
fn what_became_of_ticks_is_read_while_it_runs() {
    let child = Child::start();
    let clock = entries(root(&child), "clock", 2);
    let line = serde_json::to_string(&clock[0]).unwrap();
    let said = ask(root(&child), &["ledger", "clock", "--json"]);
    let keys: Vec<&str> = said.out.lines().next().unwrap().split('"').skip(1).step_by(2).collect();
    let order = ["job", "due", "start", "end", "lateness_us", "attempt", "outcome", "why", "changes"];
    let found: Vec<_> = keys.into_iter().filter(|key| order.contains(key)).collect();
    assert_eq!(found[..order.len()], order, "{line}");
    assert_eq!(
        (&clock[0]["job"], &clock[0]["outcome"], &clock[0]["attempt"]),
        (&"clock".into(), &"ran".into(), &1.into())
    );
    assert_eq!(clock[0]["changes"][0], "write `static/time.txt` (21 bytes)");
    assert!(clock[0]["lateness_us"].as_u64().is_some_and(|late| late < 1_000_000), "{line}");
    check_on_grid(&clock);
    check_on_grid(&entries(root(&child), "pulse", 2));
    // In words.
    let said = ask(root(&child), &["ledger", "clock", "--since", "1h"]);
    assert!(
        said.out.contains("  clock  ran, ") && said.out.contains("    write `static/time.txt`"),
        "{said:?}"
    );
    assert_eq!(ask(root(&child), &["ledger", "--since", "2100-01-01T00:00:00Z"]).out, "");
    let said = ask(root(&child), &["jobs"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for line in ["clock: every 4 seconds", "  so far 2 ran", "pulse: "] {
        assert!(said.out.contains(line), "no `{line}` in {said:?}");
    }
    // Two processes would both run every job.
    let second = ask(root(&child), &["--listen", ANY_PORT]);
    assert_eq!((second.code, &*second.out), (Some(1), ""));
    assert!(second.err.contains("another process") && second.err.contains("`.state`"), "{second:?}");
}

#[test]
fn what_is_asked_wrongly_is_answered_with_what_could_be_meant() {
    let folder = folder();
    for words in
        [&["explain", "clok"][..], &["job", "clok"], &["job", "clok", "--dry-run"], &["ledger", "clok"]]
    {
        let said = ask(folder.path(), words);
        assert_eq!((said.code, &*said.out), (Some(2), ""), "{words:?}");
        assert_eq!(said.err, "error: there is no job `clok`; there are `clock`, `pulse`\n");
    }
    let said = ask(folder.path(), &["ledger", "--since", "yesterday"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("neither an instant"), "{said:?}");
    assert_eq!(ask(folder.path(), &["job", "clock", "--at", "noon"]).code, Some(2));
    let said = ask(folder.path(), &["job", "pulse", "--dry-run"]);
    assert_eq!((said.code, &*said.out), (Some(1), ""));
    assert!(said.err.contains("does its own writing"), "{said:?}");
}

#[test]
fn a_job_is_explained_and_run_by_hand() {
    let folder = folder();
    let said = ask(folder.path(), &["explain", "clock", "--next", "2"]);
    assert_eq!((said.code, &*said.err), (Some(0), ""));
    for line in [
        "clock: every 4 seconds\n",
        "  said      `every 4s`\n",
        "  overlap   a tick that",
        "  missed    what was due",
    ] {
        assert!(said.out.contains(line), "no `{line}` in {said:?}");
    }
    let at = "2027-03-28T01:00:00Z";
    let dry = ask(folder.path(), &["job", "clock", "--dry-run", "--at", at]);
    assert_eq!((dry.code, &*dry.err), (Some(0), ""));
    assert_eq!(dry.out, format!("write `static/time.txt` (21 bytes)\n    {at}\n"));
    let time = folder.path().join("static/time.txt");
    assert!(!time.exists() && !folder.path().join(".state").exists());
    let ran = ask(folder.path(), &["job", "clock", "--at", at, "--log", "off"]);
    assert_eq!((ran.code, &*ran.out), (Some(0), "job `clock` ran\n"), "{ran:?}");
    assert_eq!(fs::read_to_string(&time).unwrap(), format!("{at}\n"));
    let written = ledger(folder.path(), &[]);
    assert_eq!(written.len(), 1);
    assert_eq!((&written[0]["due"], &written[0]["asked"]), (&at.into(), &true.into()));
    // It fails, says so, and that is written down as well.
    fs::remove_file(&time).unwrap();
    fs::create_dir(&time).unwrap();
    let failed = ask(folder.path(), &["job", "clock", "--log", "off"]);
    assert_eq!((failed.code, &*failed.out), (Some(1), ""));
    assert!(failed.err.contains("job `clock` failed: cannot write `static/time.txt`"), "{failed:?}");
    assert_eq!(ledger(folder.path(), &["clock"])[1]["outcome"], "failed");
}

#[test]
fn a_job_that_is_run_by_hand_beside_the_server_is_in_the_same_ledger() {
    let child = Child::start();
    let _ = entries(root(&child), "clock", 1);
    let ran = ask(root(&child), &["job", "clock", "--log", "off"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let asked = ledger(root(&child), &["clock"]).into_iter().filter(|entry| entry["asked"] == true).count();
    assert_eq!(asked, 1);
    // And the server's own go on as if nothing had been.
    let own = entries(root(&child), "clock", 4).into_iter().filter(|entry| entry["asked"] == false);
    check_on_grid(&own.collect::<Vec<_>>());
}

#[test]
fn what_was_missed_while_it_was_away_is_found_again() {
    let folder = folder();
    let mut child = Child::within(&["env"], "true", &["--listen", ANY_PORT], folder);
    let before = entries(root(&child), "clock", 1);
    child.signal(Signal::KILL);
    let _ = child.exit();
    // Two instants at least go by.
    let last = before.last().unwrap()["due"].as_str().unwrap().parse::<Timestamp>().unwrap();
    eventually("some time has passed", || {
        (Timestamp::now().duration_since(last).as_secs() >= 13).then_some(())
    });
    let root = root(&child).to_owned();
    let again = command(BINARY).current_dir(&root).args(["--listen", ANY_PORT]).spawn().unwrap();
    let clock = eventually("it has caught up", || {
        let clock = ledger(&root, &["clock"]);
        clock.iter().any(|entry| entry["missed"].as_u64() > Some(0)).then_some(clock)
    });
    check_on_grid(&clock);
    let missed = clock.iter().find(|entry| entry["outcome"] == "missed").expect("one that was missed");
    assert!(missed["why"].as_str().unwrap().ends_with("no process ran"), "{missed}");
    let mut again = again;
    let _ = (again.kill(), again.wait());
}

#[test]
fn what_was_due_while_it_was_stopped_is_accounted_for() {
    let child = Child::start();
    let _ = entries(root(&child), "clock", 1);
    child.signal(Signal::STOP);
    std::thread::sleep(combo::secs(10));
    child.signal(Signal::CONT);
    let clock = eventually("it has caught up", || {
        let clock = ledger(root(&child), &["clock"]);
        clock.iter().any(|entry| entry["outcome"] == "missed").then_some(clock)
    });
    check_on_grid(&entries(root(&child), "clock", clock.len() + 2));
    check_on_grid(&ledger(root(&child), &["pulse"]));
}

/// A copy of it.
fn folder_again(root: &Path) -> tempfile::TempDir {
    let again = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(root.join(".")).arg(again.path()).status();
    assert!(copied.unwrap().success());
    again
}

#[test]
fn a_damaged_journal_is_put_aside_and_named() {
    let folder = folder();
    let child = Child::within(&["env"], "true", &["--listen", ANY_PORT], folder);
    let before = entries(root(&child), "clock", 2).len();
    let root = root(&child).to_owned();
    let again = folder_again(&root);
    let kept = again.path().to_owned();
    drop(child);
    let state = kept.join(".state");
    let journal = fs::read_dir(&state)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|it| it == "log"));
    let journal = journal.expect("a journal");
    // Something else has written into the middle of it.
    let text = fs::read(&journal).unwrap();
    let middle = text.iter().position(|byte| *byte == b'\n').unwrap() + 10;
    let mut damaged = text;
    damaged[middle] ^= 0x55;
    fs::write(&journal, damaged).unwrap();
    OpenOptions::new().append(true).open(&journal).unwrap().write_all(b"half a li").unwrap();
    let mut words = command(BINARY);
    let _ = words
        .current_dir(&kept)
        .args(["--listen", ANY_PORT, "--log", "text"])
        .stderr(std::process::Stdio::piped());
    let mut process = words.spawn().unwrap();
    let clock = eventually("it goes on", || {
        let clock = ledger(&kept, &["clock"]);
        (clock.len() > before).then_some(clock)
    });
    assert!(clock.iter().any(|entry| entry["outcome"] == "ran"), "{clock:?}");
    let aside = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(aside.into_iter().any(|name| name.to_string_lossy().contains("damaged")), "it is kept");
    process.kill().unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("damaged"), "{said}");
}
