//! Where it all goes: the deployment, in one screen.

use combo::{Deployment, Job, mount, secs};

/// Three apps of three frameworks, a folder and two jobs, in one process on one port.
pub fn deployment() -> Deployment {
    Deployment::new("frankenstein")
        .listen("tcp:8080")
        .mount("/axum", mount::axum(hello_axum::app()))
        .mount("/actix", mount::actix(hello_actix::app))
        .mount("/warp", mount::tower(warp::service(hello_warp::routes())))
        .mount("/", mount::files("static"))
        .job(Job::new("clock", "every 4s", schedules::write_time("static/time.txt")).may_write("static"))
        .job(Job::hosted("pulse", schedules::pulse("static/pulse.json")))
        .state(".state")
        .drain(secs(30))
}
