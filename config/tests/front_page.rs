//! The first page that a visitor sees: every link on it leads to what it says.

use combo::{secs, testing::Rig};

#[tokio::test]
async fn every_link_on_the_front_page_leads_somewhere() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let plan = frankenstein::deployment().root(root).plan().expect("a deployment without problems");
    let mut rig = Rig::new(plan);
    rig.advance(secs(4)).await;
    let page = rig.get("/").await;
    let links: Vec<_> =
        page.text().split("href=\"/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(links.len() > 20, "{links:?}");
    // In a rig the foreign job that writes it does not run.
    for link in links.into_iter().filter(|link| *link != "pulse.json") {
        let expected = if link.ends_with("/panic") { 500 } else { 200 };
        assert_eq!(rig.get(&format!("/{link}")).await.status().as_u16(), expected, "/{link}");
    }
}
