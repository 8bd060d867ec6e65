//! Files of which the folder that they are in knows nothing: mounted one by one, as containers have them.

use std::fs;

use crate::{
    child::{Child, command},
    site::{ANY_PORT, folder},
    wire::get,
};

#[test]
fn a_file_that_is_mounted_from_elsewhere_is_served_new_at_once() {
    let folder = folder();
    let source = folder.path().join("static/elsewhere/source.txt");
    for name in ["static/elsewhere", "static/deep"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(&source, "0").unwrap();
    let may_mount = command("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let child = if may_mount.is_ok_and(|output| output.status.success()) {
        let mount =
            "touch static/deep/file.txt && mount --bind static/elsewhere/source.txt static/deep/file.txt";
        Child::within(&["unshare", "-rm"], mount, &["--listen", ANY_PORT], folder)
    } else {
        // Where nobody may mount, a link stands in for it.
        let link = "ln -s ../elsewhere/source.txt static/deep/file.txt";
        Child::within(&["env"], link, &["--listen", ANY_PORT], folder)
    };
    let mut wire = child.wire();
    let mut ask = || wire.ask(get("/deep/file.txt")).text().to_owned();
    for version in 1..200 {
        // It becomes old enough to be kept, now and then.
        let hot = if version % 50 == 0 { 2_000 } else { 3 };
        for _ in 0..hot {
            assert_eq!(ask(), (version - 1).to_string());
        }
        fs::write(&source, version.to_string()).unwrap();
    }
}
