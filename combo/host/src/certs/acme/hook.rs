//! a record of the DNS -> set, or taken back, by a program. Without a shell, within a time.
//!
//! It is called `PROGRAM set|unset NAME VALUE`, where `NAME` is `_acme-challenge.example.com`. It ends with exit
//! status 0 when the record is where the authority looks. A name may have several values at once.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use combo_core::{Outcome, Tick, Timestamp};

use crate::jobs::{Program, output::Output};

/// How long it may take: long enough to wait until other servers have the record.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long it may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(5);

/// How many of its last lines are part of an error.
const LINES: usize = 3;

/// A program that changes the DNS.
#[derive(Clone, Debug)]
pub(super) struct Hook {
    pub(super) program: PathBuf,
    pub(super) root: PathBuf,
    /// The job that runs it, which its output is logged with.
    pub(super) job: String,
    /// What it is told beside that of this process's environment.
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
}

impl Hook {
    pub(super) async fn set(&self, name: &str, value: &str) -> Result<(), String> {
        self.run("set", name, value).await
    }

    pub(super) async fn unset(&self, name: &str, value: &str) -> Result<(), String> {
        self.run("unset", name, value).await
    }

    async fn run(&self, verb: &str, name: &str, value: &str) -> Result<(), String> {
        let program = Program::new(&self.program).args([verb, name, value]).told_of(&self.environment);
        let output = Output::new();
        let tick = Tick::at(Timestamp::UNIX_EPOCH);
        let cancel = tick.cancel.clone();
        let running = program.run(&self.job, &self.root, tick, &output, GRACE);
        let ended = {
            let mut running = std::pin::pin!(running);
            match tokio::time::timeout(PATIENCE, &mut running).await {
                Ok(ended) => ended,
                Err(_) => {
                    cancel.cancel();
                    drop(running.await);
                    let said = shown(&self.program, verb, name);
                    Err(Outcome::Failed { why: format!("{said} did not end within {PATIENCE:?}") })
                }
            }
        };
        match ended {
            Ok(_) => Ok(()),
            Err(Outcome::Failed { why }) => Err(with_output(&why, verb, name, &output.lines())),
            Err(other) => Err(other.to_string()),
        }
    }
}

fn shown(program: &Path, verb: &str, name: &str) -> String {
    format!("`{} {verb} {name} …`", program.display())
}

/// Why it failed, and what it said last.
fn with_output(why: &str, verb: &str, name: &str, lines: &[String]) -> String {
    let last =
        lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| line.trim()).collect::<Vec<_>>();
    let said = if last.is_empty() {
        "it said nothing".to_owned()
    } else {
        format!("it said `{}`", last.join(" / "))
    };
    format!("the hook could not {verb} `{name}`: {why}: {said}")
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// One that is this script.
    pub(in super::super) fn hook(folder: &Path, script: &str) -> Hook {
        let program = folder.join("hook");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made a program");
        Hook { program, root: folder.to_owned(), job: "certificates certs".into(), environment: Vec::new() }
    }

    #[tokio::test]
    async fn a_hook_is_told_what_to_do_without_a_shell() {
        let folder = tempfile::tempdir().expect("a folder");
        let hook = hook(folder.path(), r#"printf '%s|' "$@" >> said"#);
        hook.set("_acme-challenge.a.example.com", "a b;c").await.expect("set");
        hook.unset("_acme-challenge.a.example.com", "a b;c").await.expect("unset");
        let said = fs::read_to_string(folder.path().join("said")).expect("it ran in the root");
        let name = "_acme-challenge.a.example.com";
        assert_eq!(said, format!("set|{name}|a b;c|unset|{name}|a b;c|"));
    }

    #[tokio::test]
    async fn what_a_hook_says_is_in_the_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let hook = hook(folder.path(), "exec >&2; echo one; echo two; echo three; echo four; exit 3");
        let why = hook.set("_acme-challenge.a", "v").await.expect_err("it failed");
        assert!(why.starts_with("the hook could not set `_acme-challenge.a`: "), "{why}");
        assert!(
            why.contains("exit status 3: it said `") && !why.contains("one") && why.contains("four"),
            "{why}"
        );
        let missing = Hook { program: "./missing".into(), ..hook };
        let why = missing.set("_acme-challenge.a", "v").await.expect_err("there is none");
        assert!(why.contains("there is no program"), "{why}");
    }
}
