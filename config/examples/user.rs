//! A deployment that is started as root and becomes a user, with an app that tries to be root again. Its
//! command line is combo's own.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::ExitCode, sync::mpsc, thread};

use axum::{Json, Router, routing::get};
use combo::{BoxError, Change, Deployment, Job, Program, Tick, mount};
use nix::unistd::{Gid, Uid, setegid, seteuid, setgid, setgroups, setresuid, setuid};

/// What it can do that only root can.
fn root_again() -> Vec<&'static str> {
    let (user, group) = (Uid::from_raw(0), Gid::from_raw(0));
    let mut can = Vec::new();
    let mut tries = |what, done| {
        if done {
            can.push(what);
        }
    };
    tries("setuid", setuid(user).is_ok());
    tries("seteuid", seteuid(user).is_ok());
    tries("setresuid", setresuid(user, user, user).is_ok());
    tries("setgid", setgid(group).is_ok());
    tries("setegid", setegid(group).is_ok());
    tries("setgroups", setgroups(&[group]).is_ok());
    tries("a port under 1024", std::net::TcpListener::bind("127.0.0.1:1").is_ok());
    tries("the shadow", fs::read("/etc/shadow").is_ok());
    tries("its own key", fs::read("key.pem").is_ok());
    tries("others' files", fs::set_permissions("/etc", fs::Permissions::from_mode(0o755)).is_ok());
    can
}

/// What a program that is root's, and executes as root, is here: the ids of that process.
async fn by_program() -> String {
    let spawned = tokio::task::spawn_blocking(|| {
        let said = std::process::Command::new("./id-of-root").args(["-u"]).output();
        said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned())
    });
    spawned.await.expect("no panic").unwrap_or_else(|error| error.to_string())
}

/// Threads that are there before anybody is root no more: one waits to be asked, by a request.
fn app() -> Router {
    let (ask, asked) = mpsc::channel::<tokio::sync::oneshot::Sender<Vec<&'static str>>>();
    drop(thread::spawn(move || asked.into_iter().for_each(|answer| drop(answer.send(root_again())))));
    let by_thread = move || async move {
        let (answer, answered) = tokio::sync::oneshot::channel();
        ask.send(answer).expect("the thread waits");
        Json(answered.await.expect("it answers"))
    };
    Router::new()
        .route("/here", get(|| async { Json(root_again()) }))
        .route("/thread", get(by_thread))
        .route("/program", get(by_program))
}

fn deployment() -> Deployment {
    async fn write(tick: Tick) -> Result<Vec<Change>, BoxError> {
        Ok(vec![Change::write("out/task", tick.due.to_string())])
    }
    // What the deployment is built by is still root.
    let was = format!("{}\n", Uid::effective());
    let told = "id -u; id -g; id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' '; echo; printf '%s\\n' \
                \"${HOME-none}\" \"${USER-none}\" \"${LOGNAME-none}\" \"${SHELL-none}\"; \
                grep NoNewPrivs /proc/self/status";
    let built = || async {
        fs::write("out/built", "")?;
        Ok::<_, BoxError>(mount::axum(Router::new().route("/", get(|| async { "built" }))))
    };
    Deployment::new("user")
        .listen("tcp:0:interface=127.0.0.1")
        .mount("/", mount::files(Path::new("static")))
        .mount("/back", mount::axum(app()))
        .mount("/own", mount::axum(app()).own_threads(2))
        .mount("/built", mount::build(built))
        .mount("/was", mount::axum(Router::new().route("/", get(|| async { was }))))
        .job(Job::new("task", "at start", write).may_write("out"))
        .job(Job::command("command", "at start", Program::new("sh").args(["-c", told]).stdin("x")))
        .job(Job::command("writes", "at start", Program::new("sh").args(["-c", "id -u > out/command"])))
        .state("var/state")
}

fn main() -> ExitCode {
    combo::main(deployment)
}
