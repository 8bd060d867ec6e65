//! The deployment as it is deployed, on a clock that the test moves: routes, files, jobs, plan.

use combo::{Deployment, testing::Rig};

/// The real deployment; its folders are beside this package.
fn deployment() -> Deployment {
    frankenstein::deployment().root(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn rig() -> Rig {
    Rig::new(deployment().plan().expect("a deployment without problems"))
}

#[test]
fn the_plan_is_as_written_down() {
    let plan = deployment().plan().expect("a deployment without problems").to_string();
    assert_eq!(plan, include_str!("plan.txt"), "\nthe plan is now\n{plan}");
}

#[tokio::test]
async fn every_framework_answers_under_its_prefix() {
    let mut rig = rig();
    for framework in ["axum", "actix", "warp"] {
        let greeting = rig.get(&format!("/{framework}")).await;
        assert_eq!(
            (greeting.status().as_u16(), greeting.text()),
            (200, &*format!("Hello from {framework}!\n"))
        );
        let named = rig.get(&format!("/{framework}/hello/w%C3%B6rld")).await;
        assert_eq!((named.status().as_u16(), named.text()), (200, "Hello, wörld!\n"));
    }
}

#[tokio::test]
async fn what_a_job_writes_is_served() {
    let mut rig = rig();
    rig.advance(combo::secs(4)).await;
    let time = rig.get("/time.txt").await;
    assert_eq!((time.status().as_u16(), time.text()), (200, "2026-01-01T00:00:04Z\n"));
    rig.advance(combo::secs(4)).await;
    assert_eq!(rig.get("/time.txt").await.text(), "2026-01-01T00:00:08Z\n");
    let written: Vec<_> = rig.disk().into_keys().collect();
    assert_eq!(written, [std::path::PathBuf::from("static/time.txt")]);
}

#[tokio::test]
async fn every_tick_ends_in_exactly_one_outcome() {
    let mut rig = rig();
    rig.advance(combo::secs(600)).await;
    let outcomes = rig.outcomes().await;
    for (job, expected) in
        [("clock", "ran"), ("pulse", "was skipped: neither hosted code nor a command is run in a rig")]
    {
        let of_job: Vec<_> = outcomes.iter().filter(|entry| &*entry.job == job).collect();
        assert_eq!(of_job.len(), 150, "{job} every four seconds for ten minutes");
        assert!(
            of_job.iter().all(|entry| entry.outcome.to_string() == expected),
            "{job}: {:?}",
            of_job[0].outcome
        );
    }
}

#[tokio::test]
async fn a_stream_of_a_second_takes_no_time() {
    let mut rig = rig();
    for framework in ["axum", "actix", "warp"] {
        let events = rig.get(&format!("/{framework}/stream")).await;
        assert_eq!(events.text().matches("data: ").count(), 10, "{framework}");
    }
}

#[tokio::test]
async fn the_front_page_is_served() {
    let page = rig().get("/").await;
    assert_eq!(page.status(), 200);
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
}

#[tokio::test]
async fn a_mount_can_be_swapped_in_a_rig() {
    let mut rig = rig();
    assert_eq!(rig.swap("/axum", combo::mount::redirect("/warp")).await, combo::Reply::Done);
    assert_eq!(rig.get("/axum/hello/x").await.headers()["location"], "/warp/hello/x");
    let page = "at noon".to_owned();
    let maintain = combo::Command::Maintain { mount: "/warp".to_owned(), page };
    assert_eq!(rig.command(maintain).await, combo::Reply::Done);
    assert_eq!((rig.get("/warp").await.status().as_u16(), rig.get("/warp").await.text()), (503, "at noon"));
    let missing = rig.swap("/axum", combo::mount::files("nowhere")).await;
    assert!(matches!(missing, combo::Reply::Refused { .. }), "{missing:?}");
    assert_eq!(rig.get("/axum").await.headers()["location"], "/warp");
}
