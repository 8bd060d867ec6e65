//! A user, as said -> this process is that user, every thread of it, with no way back.
//!
//! The C library changes the ids of all threads at once; it and the system's list of users are asked for
//! that, since the kernel knows single threads only. That programs gain nothing by being executed
//! (`no_new_privs`) belongs to a thread as well, and those that are there already get it together with a
//! filter of system calls that lets everything pass. Then it is looked at thread by thread, and tried.
#![expect(clippy::disallowed_methods, reason = "threads are looked at in `/proc`")]

use std::{
    collections::BTreeSet,
    ffi::{CString, OsString},
    fs, io,
    os::unix::ffi::OsStrExt,
    thread,
    time::Duration,
};

use combo_core::{
    BoxError,
    user::{Id, User},
};
use nix::{
    errno::Errno,
    unistd::{self, Gid, Uid, getgrouplist, getresgid, getresuid, setgroups, setresgid, setresuid},
};
use seccompiler::{BpfProgram, apply_filter_all_threads, sock_filter};

/// Shells of those who may not log in, by the last part of their paths.
const NO_SHELLS: [&str; 3] = ["false", "nologin", "true"];

/// The one instruction of a filter that lets everything pass: `BPF_RET | BPF_K`, `SECCOMP_RET_ALLOW`.
const PASS: sock_filter = sock_filter { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };

/// How often threads are looked at before it is given up, and how long after each other.
const LOOKS: u32 = 1_000;
const LOOK: Duration = Duration::from_millis(1);

/// What the system has under a user.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    uid: Uid,
    gid: Gid,
    /// All of its groups.
    groups: BTreeSet<u32>,
    /// What commands are told of it.
    environment: Vec<(OsString, Option<OsString>)>,
}

impl Account {
    /// Asks the system.
    pub(crate) fn find(said: &User) -> Result<Self, BoxError> {
        let known = match &said.user {
            Id::Name(name) => unistd::User::from_name(name)?,
            Id::Number(uid) => unistd::User::from_uid(Uid::from_raw(*uid))?,
        };
        let gid = match (&said.group, &known) {
            (Some(Id::Number(gid)), _) => Gid::from_raw(*gid),
            (Some(Id::Name(name)), _) => {
                unistd::Group::from_name(name)?.ok_or_else(|| format!("there is no group `{name}`"))?.gid
            }
            (None, Some(known)) => known.gid,
            (None, None) => Gid::from_raw(0),
        };
        let uid = match (&said.user, &known) {
            (_, Some(known)) => known.uid,
            (Id::Name(name), None) => return Err(format!("there is no user `{name}`").into()),
            (Id::Number(uid), None) if said.group.is_none() => {
                let why = format!("no user has this number, so say a group beside it, as `{uid}:{uid}`");
                return Err(why.into());
            }
            (Id::Number(uid), None) => Uid::from_raw(*uid),
        };
        if uid.is_root() {
            return Err("that is root by another name".into());
        }
        if gid.as_raw() == 0 {
            return Err("its group is that of root; say another one after a colon".into());
        }
        let groups = match &known {
            Some(known) => {
                getgrouplist(&CString::new(&*known.name)?, gid)?.iter().map(|gid| gid.as_raw()).collect()
            }
            None => [gid.as_raw()].into(),
        };
        Ok(Self { uid, gid, groups, environment: environment(known.as_ref()) })
    }

    /// What commands are told of it: variables to set or remove, as systemd does for a service.
    pub(crate) fn environment(&self) -> &[(OsString, Option<OsString>)] {
        &self.environment
    }

    /// Whether this process is to be changed: it is root. If it is not, it has to be this user already.
    pub(crate) fn is_to_come(&self, said: &User) -> Result<bool, BoxError> {
        let (uids, gids) = (getresuid()?, getresgid()?);
        if uids.effective.is_root() {
            return Ok(true);
        }
        if [uids.real, uids.effective, uids.saved] != [self.uid; 3] {
            let uid = uids.effective;
            let known =
                unistd::User::from_uid(uid).ok().flatten().map(|known| format!(" (`{}`)", known.name));
            let known = known.unwrap_or_default();
            return Err(format!(
                "this process was started as user {uid}{known}; only root can become another"
            )
            .into());
        }
        if said.group.is_some() && [gids.real, gids.effective, gids.saved] != [self.gid; 3] {
            let gid = gids.effective;
            return Err(format!("this process is that user in group {gid}; only root can change that").into());
        }
        Ok(false)
    }

    /// Makes this process, which is root, this user. After an error it may be half of it.
    pub(crate) fn become_it(&self) -> Result<(), BoxError> {
        let refused = |what: &'static str| move |errno| format!("cannot {what}: {}", io::Error::from(errno));
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        // In this order: who is not root any more changes no group.
        setgroups(&groups).map_err(refused("have its groups"))?;
        setresgid(self.gid, self.gid, self.gid).map_err(refused("have its group"))?;
        setresuid(self.uid, self.uid, self.uid).map_err(refused("have its number"))?;
        let pass: BpfProgram = vec![PASS];
        apply_filter_all_threads(&pass)
            .map_err(|error| format!("cannot say `no_new_privs` of every thread: {error}"))?;
        self.no_way_back()
    }

    fn no_way_back(&self) -> Result<(), BoxError> {
        let root = Uid::from_raw(0);
        if setresuid(root, root, root).is_ok()
            || unistd::setuid(root).is_ok()
            || unistd::setgid(Gid::from_raw(0)).is_ok()
        {
            return Err("it could be root again".into());
        }
        // The C library leaves alone who is about to end and runs nobody's code any more.
        for _ in 0..LOOKS {
            if self.lagging()?.is_none() {
                return Ok(());
            }
            thread::sleep(LOOK);
        }
        self.lagging()?.map_or(Ok(()), |line| Err(line.into()))
    }

    /// A thread that is not this user, or more.
    fn lagging(&self) -> Result<Option<String>, BoxError> {
        let looking = |error: io::Error| format!("cannot look at its threads: {error}");
        for thread in fs::read_dir("/proc/self/task").map_err(looking)? {
            let thread = thread.map_err(looking)?;
            let status = match fs::read_to_string(thread.path().join("status")) {
                Ok(status) => status,
                // It has ended.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => continue,
                Err(error) => return Err(looking(error).into()),
            };
            if let Some(line) = self.differs(&status) {
                return Ok(Some(format!("thread {} still has `{line}`", thread.file_name().display())));
            }
        }
        Ok(None)
    }

    /// The line of a thread's status that says that it is not this user, or more.
    fn differs(&self, status: &str) -> Option<String> {
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        let is = |field: &str, found: &[u64]| match field {
            "Uid" => found == [u64::from(uid); 4],
            "Gid" => found == [u64::from(gid); 4],
            "Groups" => found.iter().copied().eq(self.groups.iter().copied().map(u64::from)),
            "NoNewPrivs" => found == [1],
            _ => found == [0],
        };
        ["Uid", "Gid", "Groups", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs"].into_iter().find_map(|field| {
            let line = status.lines().find(|line| line.split(':').next() == Some(field));
            let line = line.map_or_else(|| format!("no {field}"), |line| line.replace('\t', " "));
            let radix = if field.starts_with("Cap") { 16 } else { 10 };
            let words = line.split_once(':').unwrap_or_default().1.split_whitespace();
            let mut found: Vec<u64> =
                words.filter_map(|word| u64::from_str_radix(word, radix).ok()).collect();
            if field == "Groups" {
                found.sort_unstable();
            }
            (!is(field, &found)).then_some(line)
        })
    }
}

/// What is not known is removed: it is said of whoever started this.
fn environment(known: Option<&unistd::User>) -> Vec<(OsString, Option<OsString>)> {
    let name = known.map(|known| OsString::from(&known.name));
    let home =
        known.map(|known| &known.dir).filter(|home| home.as_os_str() != "/" && !home.as_os_str().is_empty());
    let shell = known.map(|known| &known.shell).filter(|shell| {
        let name = shell.file_name().unwrap_or_default().as_bytes();
        !name.is_empty() && !NO_SHELLS.iter().any(|no| no.as_bytes() == name)
    });
    vec![
        ("HOME".into(), home.map(|home| home.clone().into())),
        ("LOGNAME".into(), name.clone()),
        ("SHELL".into(), shell.map(|shell| shell.clone().into())),
        ("USER".into(), name),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Name:\tcombo-host
Uid:\t33\t33\t33\t33
Gid:\t34\t34\t34\t34
Groups:\t40 34 
NoNewPrivs:\t1
CapInh:\t0000000000000001
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
";

    fn account() -> Account {
        let (uid, gid, groups) = (Uid::from_raw(33), Gid::from_raw(34), [34, 40].into());
        Account { uid, gid, groups, environment: Vec::new() }
    }

    #[test]
    fn a_thread_that_is_more_than_the_user_is_found() {
        assert_eq!(account().differs(STATUS), None);
        for (from, to, line) in [
            ("33\t33\t33\t33", "33\t33\t0\t33", "Uid: 33 33 0 33"),
            ("34\t34\t34\t34", "34\t34\t34\t0", "Gid: 34 34 34 0"),
            ("40 34 ", "0 40 34 ", "Groups: 0 40 34 "),
            ("40 34 ", "", "Groups: "),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs: 0"),
            ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000000400", "CapPrm: 0000000000000400"),
            ("CapEff:\t0000000000000000", "CapEff:\t000001ffffffffff", "CapEff: 000001ffffffffff"),
            ("CapAmb:\t0000000000000000\n", "", "no CapAmb"),
        ] {
            let status = STATUS.replace(from, to);
            assert_eq!(account().differs(&status).as_deref(), Some(line));
        }
    }

    #[test]
    fn commands_are_told_of_the_user_as_systemd_does() {
        let user = |dir: &str, shell: &str| {
            let mut user = unistd::User::from_uid(Uid::from_raw(0)).expect("a list").expect("root");
            (user.name, user.dir, user.shell) = ("www".into(), dir.into(), shell.into());
            environment(Some(&user))
        };
        let check = |found: Vec<(OsString, Option<OsString>)>, expected: [Option<&str>; 4]| {
            let names = ["HOME", "LOGNAME", "SHELL", "USER"].map(OsString::from);
            let expected: Vec<_> =
                names.into_iter().zip(expected.map(|value| value.map(OsString::from))).collect();
            assert_eq!(found, expected);
        };
        check(user("/srv/www", "/bin/sh"), [Some("/srv/www"), Some("www"), Some("/bin/sh"), Some("www")]);
        check(user("/", "/usr/sbin/nologin"), [None, Some("www"), None, Some("www")]);
        check(environment(None), [None; 4]);
    }
}
