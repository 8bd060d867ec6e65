//! How much memory the process has, and how much it may have.
#![expect(clippy::disallowed_methods, reason = "the kernel says so in files")]

use std::{fs, path::Path};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// What is resident, in bytes, files that are mapped not counted (proc(5), `statm`). Nothing where there is no
/// telling.
pub(crate) fn used() -> Option<u64> {
    of_statm(&fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size() as u64)
}

fn of_statm(said: &str, page: u64) -> Option<u64> {
    let mut pages = said.split(' ').map(|word| word.trim().parse::<u64>().ok());
    let (_, resident, shared) = (pages.next()??, pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared).saturating_mul(page))
}

/// Nine tenths of what the machine has, or of what the process's control group may have if that is less.
pub(crate) fn most() -> u64 {
    let machine = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "it is as large as a pointer")]
    let machine = u64::from(machine.totalram).saturating_mul(machine.mem_unit.into());
    let group =
        fs::read_to_string("/proc/self/cgroup").ok().and_then(|said| of_groups(&said, Path::new(GROUPS)));
    group.unwrap_or(u64::MAX).min(machine) / 10 * 9
}

/// The least that the group or one above it may have (cgroup-v2, `memory.max`; cgroups(7) for version 1).
fn of_groups(said: &str, groups: &Path) -> Option<u64> {
    let mut least = None;
    for line in said.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (controllers, group) = (words.next()?, words.next()?.trim_start_matches('/'));
        let (top, file) = match controllers {
            "" => (groups.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                (groups.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container a group may be the top, whatever it is called outside.
        let paths = Path::new(group).ancestors().map(|group| top.join(group).join(file));
        let limits = paths.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
        least = least.into_iter().chain(limits).min();
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_there_is() {
        assert_eq!(of_statm("1000 300 100 1 0 200 0\n", 4_096), Some(200 * 4_096));
        assert_eq!(of_statm("1000 300", 4_096), None);
        let (used, most) = (used().expect("a number"), most());
        assert!(0 < used && used < most, "{used} of {most}");
    }

    #[test]
    fn the_least_of_all_groups_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |path: &str, said: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, said).expect("a file");
        };
        write("memory.max", "900\n");
        write("a/memory.max", "500\n");
        write("a/b/memory.max", "max\n");
        write("memory/c/memory.limit_in_bytes", "300\n");
        let check =
            |said: &str, least: Option<u64>| assert_eq!(of_groups(said, folder.path()), least, "{said}");
        check("0::/a/b\n", Some(500));
        check("0::/elsewhere\n", Some(900));
        check("12:cpu,memory:/c\n11:pids:/a\n0::/\n", Some(300));
        check("11:pids:/a\n", None);
    }
}
