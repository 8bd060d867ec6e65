//! How much memory is in use, and how much may be.
#![expect(clippy::disallowed_methods, reason = "the kernel says so in files")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// What is looked at, and how much of it is too much. Made once.
#[derive(Debug)]
pub(crate) struct Gauge {
    most: u64,
    counted: Counted,
}

/// Whose memory counts: that of whom the limit is for.
#[derive(Debug, PartialEq, Eq)]
enum Counted {
    /// What is resident, files that are mapped not counted (proc(5), `statm`).
    Process,
    /// All that is charged to a control group, with every process of it, files that are cached and what sockets hold;
    /// but for those files, which the kernel takes back first.
    Group(Group),
}

impl Gauge {
    /// With a limit that was said it is for the process. Else nine tenths of what the machine has, for the process, or
    /// of what its control group may have if that is less, for the group.
    pub(crate) fn new(said: Option<u64>) -> Self {
        if let Some(most) = said {
            return Self { most, counted: Counted::Process };
        }
        let machine = rustix::system::sysinfo();
        #[allow(clippy::useless_conversion, reason = "it is as large as a pointer")]
        let machine = u64::from(machine.totalram).saturating_mul(machine.mem_unit.into());
        Self::of(machine, &fs::read_to_string("/proc/self/cgroup").unwrap_or_default(), Path::new(GROUPS))
    }

    fn of(machine: u64, said: &str, groups: &Path) -> Self {
        match Group::tightest(said, groups) {
            Some((limit, group)) if limit < machine => {
                let most = nine_tenths(limit);
                // Where only the limit can be read, the process is all that is known. Asked so that both files are.
                let tells = group.used(0).is_some();
                Self { most, counted: if tells { Counted::Group(group) } else { Counted::Process } }
            }
            _ => Self { most: nine_tenths(machine), counted: Counted::Process },
        }
    }

    /// In bytes.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// In bytes; nothing where there is no telling.
    pub(crate) fn used(&self) -> Option<u64> {
        match &self.counted {
            Counted::Process => {
                of_statm(&fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size() as u64)
            }
            Counted::Group(group) => group.used(self.most),
        }
    }
}

fn nine_tenths(bytes: u64) -> u64 {
    bytes / 10 * 9
}

fn of_statm(said: &str, page: u64) -> Option<u64> {
    let mut pages = said.split(' ').map(|word| word.trim().parse::<u64>().ok());
    let (_, resident, shared) = (pages.next()??, pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared).saturating_mul(page))
}

/// The files of a control group, with all groups below it.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    usage: PathBuf,
    stat: PathBuf,
    cached: [&'static str; 2],
}

/// What a version of control groups calls its files: the limit, what is in use, and the fields of `memory.stat`
/// that have the cached files (cgroup-v2; cgroup-v1/memory).
type Names = (&'static str, &'static str, [&'static str; 2]);

const V1: Names =
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ["total_active_file", "total_inactive_file"]);
const V2: Names = ("memory.max", "memory.current", ["active_file", "inactive_file"]);

impl Group {
    /// That of the process, or the one above it, that may have the least, and how much. Of several the outermost, in
    /// which there is most.
    fn tightest(said: &str, groups: &Path) -> Option<(u64, Self)> {
        let mut tightest: Option<(u64, Self)> = None;
        for line in said.lines() {
            let mut words = line.splitn(3, ':').skip(1);
            let (controllers, group) = (words.next()?, words.next()?.trim_start_matches('/'));
            let (top, (limit, usage, cached)) = match controllers {
                "" => (groups.to_owned(), V2),
                _ if controllers.split(',').any(|one| one == "memory") => (groups.join("memory"), V1),
                _ => continue,
            };
            // Within a container a group may be the top, whatever it is called outside.
            for folder in Path::new(group).ancestors().map(|group| top.join(group)) {
                if let Some(most) = number(&folder.join(limit))
                    && tightest.as_ref().is_none_or(|(least, _)| most <= *least)
                {
                    let (usage, stat) = (folder.join(usage), folder.join("memory.stat"));
                    tightest = Some((most, Self { usage, stat, cached }));
                }
            }
        }
        tightest
    }

    /// Exact from where it matters, beneath that at most as much: the kernel adds up `memory.stat` when it is read.
    fn used(&self, most: u64) -> Option<u64> {
        let charged = number(&self.usage)?;
        if charged <= nine_tenths(most) {
            return Some(charged);
        }
        let stat = fs::read_to_string(&self.stat).ok()?;
        let cached = self.cached.iter().map(|name| field(&stat, name)).sum::<Option<u64>>()?;
        Some(charged.saturating_sub(cached))
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of groups.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn of(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().expect("a folder"));
            files.iter().for_each(|(path, said)| tree.write(path, said));
            tree
        }

        fn write(&self, path: &str, said: &str) {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, said).expect("a file");
        }

        fn gauge(&self, machine: u64, said: &str) -> Gauge {
            Gauge::of(machine, said, self.0.path())
        }
    }

    #[test]
    fn the_kernel_says_how_much_there_is() {
        assert_eq!(of_statm("1000 300 100 1 0 200 0\n", 4_096), Some(200 * 4_096));
        assert_eq!(of_statm("1000 300", 4_096), None);
        for gauge in [Gauge::new(None), Gauge::new(Some(u64::MAX))] {
            let (used, most) = (gauge.used().expect("a number"), gauge.most());
            assert!(0 < used && used < most, "{used} of {most}");
        }
    }

    #[test]
    fn what_was_said_is_for_the_process() {
        let gauge = Gauge::new(Some(7));
        assert_eq!((gauge.most(), gauge.counted), (7, Counted::Process));
    }

    #[test]
    fn the_least_of_all_groups_holds() {
        let mut files = vec![
            ("memory.max", "900\n"),
            ("a/memory.max", "500\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/c/memory.max", "500\n"),
            ("memory/d/memory.limit_in_bytes", "300\n"),
        ];
        let usages = ["memory.current", "a/memory.current", "a/b/c/memory.current"];
        files.extend(usages.map(|path| (path, "1\n")));
        files.push(("memory/d/memory.usage_in_bytes", "1\n"));
        let stats = ["memory.stat", "a/memory.stat", "a/b/c/memory.stat"];
        files.extend(stats.map(|path| (path, "active_file 0\ninactive_file 0\n")));
        files.push(("memory/d/memory.stat", "total_active_file 0\ntotal_inactive_file 0\n"));
        let tree = Tree::of(&files);
        let check = |said: &str, most: u64, usage: Option<&str>| {
            let Gauge { most: found, counted } = tree.gauge(1_000, said);
            let files = match counted {
                Counted::Process => None,
                Counted::Group(group) => Some(group.usage),
            };
            assert_eq!((found, files), (most, usage.map(|path| tree.0.path().join(path))), "{said}");
        };
        check("0::/a/b\n", 450, Some("a/memory.current"));
        // Both may have as much, and in the outer one is more.
        check("0::/a/b/c\n", 450, Some("a/memory.current"));
        check("0::/elsewhere\n", 810, Some("memory.current"));
        check("12:cpu,memory:/d\n11:pids:/a\n0::/\n", 270, Some("memory/d/memory.usage_in_bytes"));
        check("11:pids:/a\n", 900, None);
        check("", 900, None);
    }

    #[test]
    fn a_group_that_may_have_more_than_there_is_does_not_count() {
        let limit = [("memory.max", "1000\n")];
        let counts = [("memory.current", "5\n"), ("memory.stat", "active_file 0\ninactive_file 1\n")];
        let tree = Tree::of(&[&limit[..], &counts].concat());
        assert_eq!(tree.gauge(1_000, "0::/\n").counted, Counted::Process);
        assert_ne!(tree.gauge(1_001, "0::/\n").counted, Counted::Process);
        // A limit without a count is for what can be counted.
        for counts in [&counts[..0], &counts[..1], &counts[1..]] {
            let tree = Tree::of(&[&[("memory.max", "500\n")], counts].concat());
            let gauge = tree.gauge(1_000, "0::/\n");
            assert_eq!((gauge.most(), gauge.counted), (450, Counted::Process), "{counts:?}");
        }
    }

    #[test]
    fn what_a_group_uses_is_what_is_charged_without_files_that_are_given_back() {
        let v2 = Tree::of(&[
            ("a/memory.max", "1000\n"),
            ("a/memory.stat", "anon 90\ninactive_file_x 1\nactive_file 30\ninactive_file 370\n"),
        ]);
        let v1 = Tree::of(&[
            ("memory/a/memory.limit_in_bytes", "1000\n"),
            ("memory/a/memory.stat", "inactive_file 7\ntotal_active_file 30\ntotal_inactive_file 370\n"),
        ]);
        for (tree, said, usage) in
            [(v2, "0::/a\n", "a/memory.current"), (v1, "4:memory:/a\n", "memory/a/memory.usage_in_bytes")]
        {
            let charge = |bytes: u64| tree.write(usage, &format!("{bytes}\n"));
            charge(1);
            let gauge = tree.gauge(u64::MAX, said);
            assert_eq!(gauge.most(), 900);
            // What is beneath is not looked at more closely.
            for (charged, used) in [(0, 0), (810, 810), (811, 411), (900, 500), (1_000, 600)] {
                charge(charged);
                assert_eq!(gauge.used(), Some(used), "{usage}: {charged}");
            }
            tree.write(usage, "gone\n");
            assert_eq!(gauge.used(), None);
        }
    }
}
