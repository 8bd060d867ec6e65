//! The deployment with one more folder, which the environment names: on a disk of a test that does not answer
//! while the test does not want it to. Another mount is its `static` once more, for lists, which take the same
//! threads. It gives what is in flight two seconds to end.

use std::process::ExitCode;

use combo::{
    Deployment,
    mount::{self, Files},
    secs,
};

fn deployment() -> Deployment {
    let folder = std::env::var("STALLED").expect("the test says which folder");
    frankenstein::deployment()
        .mount("/stalled", mount::files(Files::folder(folder).listing()))
        .mount("/others", mount::files(Files::folder("static").index([""; 0]).memory(0).listing()))
        .drain(secs(2))
}

fn main() -> ExitCode {
    combo::main(deployment)
}
