//! A disk that does not answer: a file system of FUSE whose every call waits at a gate that the test opens.
//! It is served by one worker of a process of its own, as a process cannot end while it waits for itself.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, Request,
};
use http::Method;
use nix::unistd::Uid;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    child::{Child, command},
    http2::{Http2, read},
    site::{ANY_PORT, FRAMEWORKS, PATIENCE, eventually, folder, runtime},
    user::example,
    wire::{Answer, Wire, get},
};

/// Requests for each kind of call that waits.
const MANY: u64 = 12;

/// Requests that wait for the disk itself; more of one mount wait for those.
const AT_ONCE: u64 = 16;

/// Entries in each folder of the disk.
const ENTRIES: u64 = 200;

/// Bytes in each file: more than are read at once.
const LENGTH: usize = 300_000;

/// Nothing that the disk says is remembered by the kernel.
const FORGOTTEN: Duration = Duration::ZERO;

/// Which call waits below a folder of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Read,
    Open,
    Getattr,
    Lookup,
    /// Its entries are folders, in which looking for a page waits.
    Index,
    /// Its entries are folders without a page, whose entries are waited for.
    Readdir,
}

impl Call {
    const ALL: [Self; 6] = [Self::Read, Self::Open, Self::Getattr, Self::Lookup, Self::Index, Self::Readdir];

    fn folder(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Open => "open",
            Self::Getattr => "getattr",
            Self::Lookup => "lookup",
            Self::Index => "index",
            Self::Readdir => "readdir",
        }
    }

    fn has_folders(self) -> bool {
        matches!(self, Self::Index | Self::Readdir)
    }

    fn target(self, entry: u64) -> String {
        let slash = if self.has_folders() { "/" } else { "" };
        format!("/stalled/{}/{entry}{slash}", self.folder())
    }
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Root,
    Folder(Call),
    Entry(Call, u64),
    Page(u64),
}

impl Node {
    fn number(self) -> INodeNo {
        INodeNo(match self {
            Self::Root => 1,
            Self::Folder(call) => 2 + call as u64,
            Self::Entry(call, entry) => 1_000 * (1 + call as u64) + entry,
            Self::Page(entry) => 100_000 + entry,
        })
    }

    fn of(number: INodeNo) -> Self {
        match number.0 {
            1 => Self::Root,
            folder @ 2..1_000 => Self::Folder(Call::ALL[usize::try_from(folder - 2).unwrap()]),
            entry @ 1_000..100_000 => {
                Self::Entry(Call::ALL[usize::try_from(entry / 1_000 - 1).unwrap()], entry % 1_000)
            }
            page => Self::Page(page - 100_000),
        }
    }

    fn under(self, name: &OsStr) -> Option<Self> {
        let name = name.to_str()?;
        match self {
            Self::Root => Call::ALL.into_iter().find(|call| call.folder() == name).map(Self::Folder),
            Self::Folder(call) => {
                name.parse().ok().filter(|entry| *entry < ENTRIES).map(|entry| Self::Entry(call, entry))
            }
            Self::Entry(Call::Index, entry) if name == "index.html" => Some(Self::Page(entry)),
            Self::Entry(..) | Self::Page(_) => None,
        }
    }

    fn is_folder(self) -> bool {
        match self {
            Self::Root | Self::Folder(_) => true,
            Self::Entry(call, _) => call.has_folders(),
            Self::Page(_) => false,
        }
    }

    fn attributes(self) -> FileAttr {
        let folder = self.is_folder();
        let size = if folder { 0 } else { LENGTH as u64 };
        let made = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        FileAttr {
            ino: self.number(),
            size,
            blocks: size.div_ceil(512),
            atime: made,
            mtime: made,
            ctime: made,
            crtime: made,
            kind: if folder { FileType::Directory } else { FileType::RegularFile },
            perm: if folder { 0o755 } else { 0o644 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4_096,
            flags: 0,
        }
    }
}

/// What is in a file.
fn contents(node: Node) -> Vec<u8> {
    let mut contents = format!("{node:?}\n").repeat(LENGTH / 5).into_bytes();
    contents.truncate(LENGTH);
    contents
}

type Reply = Box<dyn FnOnce() + Send>;

/// What waits, and what is open.
#[derive(Default)]
struct Gate {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    closed: bool,
    waiting: Vec<(Call, Node, Reply)>,
    handles: u64,
}

impl Gate {
    fn locked(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replies as soon as the gate is open.
    fn pass(&self, call: Call, node: Node, reply: impl FnOnce() + Send + 'static) {
        let mut held = self.locked();
        if held.closed {
            held.waiting.push((call, node, Box::new(reply)));
            self.changed.notify_all();
        } else {
            drop(held);
            reply();
        }
    }

    fn close(&self) {
        self.locked().closed = true;
    }

    fn open(&self) {
        let mut held = self.locked();
        held.closed = false;
        let waiting = std::mem::take(&mut held.waiting);
        drop(held);
        waiting.into_iter().for_each(|(_, _, reply)| reply());
    }

    /// For how many entries a call of this kind waits.
    fn waiting(&self, call: Call) -> u64 {
        self.locked().waiting_for(call)
    }

    /// Waits until it is so.
    fn until(&self, what: &str, so: impl Fn(&Held) -> bool) {
        let until = Instant::now() + PATIENCE;
        let mut held = self.locked();
        while !so(&held) {
            let left = until.saturating_duration_since(Instant::now());
            let waiting: Vec<_> = held.waiting.iter().map(|(call, node, _)| (call, node)).collect();
            let handles = held.handles;
            assert!(!left.is_zero(), "it did not come to this: {what}; {handles} open, waiting: {waiting:?}");
            held = self.changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn opened(&self) {
        self.locked().handles += 1;
    }

    fn closed(&self) {
        self.locked().handles -= 1;
        self.changed.notify_all();
    }
}

impl Held {
    fn waiting_for(&self, call: Call) -> u64 {
        let mut nodes: Vec<_> = self.waiting.iter().filter(|(known, ..)| *known == call).collect();
        nodes.sort_by_key(|(_, node, _)| node.number().0);
        nodes.dedup_by_key(|(_, node, _)| *node);
        nodes.len() as u64
    }
}

/// The file system.
struct Stalling(Arc<Gate>);

impl Filesystem for Stalling {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Else one look into a folder waits for the other.
        let refused = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        refused.map_err(|_| io::Error::other("this kernel looks into a folder once at a time"))
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let Some(node) = Node::of(parent).under(name) else { return reply.error(Errno::ENOENT) };
        let found = move || reply.entry(&FORGOTTEN, &node.attributes(), Generation(0));
        match node {
            Node::Entry(Call::Lookup, _) => self.0.pass(Call::Lookup, node, found),
            Node::Page(_) => self.0.pass(Call::Index, node, found),
            _ => found(),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let node = Node::of(number);
        let told = move || reply.attr(&FORGOTTEN, &node.attributes());
        match node {
            Node::Entry(Call::Getattr, _) => self.0.pass(Call::Getattr, node, told),
            _ => told(),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let (node, gate) = (Node::of(number), self.0.clone());
        let opened = move || {
            gate.opened();
            // Every read is one of its own, and none is made ahead.
            reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        };
        match node {
            Node::Entry(Call::Open, _) => self.0.pass(Call::Open, node, opened),
            _ => opened(),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let node = Node::of(number);
        let read = move || {
            let (contents, offset) = (contents(node), usize::try_from(offset).unwrap());
            let from = &contents[offset.min(contents.len())..];
            reply.data(&from[..from.len().min(usize::try_from(size).unwrap())]);
        };
        match node {
            Node::Entry(Call::Read, _) => self.0.pass(Call::Read, node, read),
            _ => read(),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.closed();
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.0.opened();
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let node = Node::of(number);
        let listed = move || {
            let names =
                [(".", FileType::Directory), ("..", FileType::Directory), ("a", FileType::RegularFile)];
            let after = usize::try_from(offset).unwrap();
            for (at, (name, kind)) in (1..).zip(names).skip(after) {
                if reply.add(number, at, kind, name) {
                    break;
                }
            }
            reply.ok();
        };
        match node {
            Node::Entry(Call::Readdir, _) => self.0.pass(Call::Readdir, node, listed),
            _ => listed(),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.closed();
        reply.ok();
    }
}

/// The disk, mounted.
struct Disk {
    gate: Arc<Gate>,
    /// Unmounts it.
    _session: BackgroundSession,
    folder: TempDir,
}

impl Disk {
    fn mount() -> Self {
        assert!(Uid::effective().is_root(), "only root can mount the disk that these tests need");
        assert!(Path::new("/dev/fuse").exists(), "the disk of these tests needs /dev/fuse: `modprobe fuse`");
        let (gate, folder) = (Arc::new(Gate::default()), tempfile::tempdir().unwrap());
        let session = fuser::spawn_mount(Stalling(gate.clone()), &folder, &Config::default());
        let session = session.expect("a file system of FUSE can be mounted: root in a container may not");
        Self { gate, _session: session, folder }
    }
}

/// One worker that serves it. Fields are dropped in order: nothing can be unmounted that is in use.
struct Served {
    child: Child,
    disk: Disk,
}

impl Served {
    /// From there on every call waits.
    fn stalled() -> Self {
        let disk = Disk::mount();
        let mut command = command(example("stalled").to_str().unwrap());
        let _ = command.args(["--listen", ANY_PORT, "--workers", "1"]).env("STALLED", disk.folder.path());
        let served = Self { child: Child::of(command, folder(), |_| ()), disk };
        assert_eq!(served.child.wire().ask(get(&Call::Read.target(ENTRIES - 1))).status, 200);
        served.disk.gate.close();
        served
    }

    fn gate(&self) -> &Gate {
        &self.disk.gate
    }

    /// Asks for entries, each by a connection of its own, and waits until the disk has been asked as well.
    fn ask(&self, call: Call, entries: std::ops::Range<u64>) -> Vec<(Call, u64, Wire)> {
        let wires: Vec<_> = entries
            .map(|entry| {
                let mut wire = self.child.wire();
                wire.send(get(&call.target(entry)));
                (call, entry, wire)
            })
            .collect();
        let (count, what) = (wires.len() as u64, format!("they all wait for {call:?}"));
        self.gate().until(&what, |held| held.waiting_for(call) == count);
        wires.iter().for_each(|(_, _, wire)| wire.until_read());
        wires
    }

    /// The same worker answers whoever asks for something else.
    fn is_not_held_up(&self) {
        let mut wire = self.child.wire();
        for framework in FRAMEWORKS {
            assert_eq!(wire.ask(get(&format!("/{framework}/hello/x"))).text(), "Hello, x!\n");
        }
    }

    /// And whoever asks for a file of another folder, or for its list, which takes a thread of the same pool.
    fn reads_other_folders(&self) {
        let list = self.child.wire().ask(get("/others/"));
        assert_eq!((list.status, list.text().contains("./index.html")), (200, true), "{list:?}");
        assert_eq!(self.child.wire().ask(get("/index.html")).text(), "welcome\n");
        assert_eq!(self.child.wire().ask(get("/none")).status, 404);
    }

    /// Nothing of the disk is open, and so many sockets.
    fn nothing_is_left(&self, sockets: usize) {
        self.gate().until("all is closed", |held| held.handles == 0);
        eventually("no descriptor is left", || {
            let (open, inside) = self.descriptors();
            // The folder itself.
            (open <= sockets && inside <= 1).then_some(())
        });
    }

    /// How many sockets the process has, and how many files and folders of the disk.
    fn descriptors(&self) -> (usize, usize) {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().flatten();
        let to: Vec<_> = all.filter_map(|one| std::fs::read_link(one.path()).ok()).collect();
        let sockets = to.iter().filter(|to| to.to_string_lossy().starts_with("socket:"));
        (sockets.count(), to.iter().filter(|to| to.starts_with(self.disk.folder.path())).count())
    }
}

impl Drop for Served {
    /// A process cannot be killed while it waits for the disk.
    fn drop(&mut self) {
        self.disk.gate.open();
    }
}

fn check(call: Call, entry: u64, answer: &Answer) {
    let expected = match call {
        Call::Readdir => {
            // Its one name leads nowhere, so it is not listed.
            assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
            assert!(answer.text().contains("Nothing is in this folder."), "{answer:?}");
            return;
        }
        Call::Index => contents(Node::Page(entry)),
        _ => contents(Node::Entry(call, entry)),
    };
    assert_eq!((answer.status, answer.whole), (200, true), "{call:?} {entry}: {answer:?}");
    assert!(answer.body == expected, "{call:?} {entry}: other bytes: {answer:?}");
}

#[test]
fn a_stalled_disk_holds_up_nobody_who_does_not_ask_for_it() {
    let served = Served::stalled();
    assert_eq!(served.child.threads("combo-worker"), 1);
    for call in Call::ALL {
        let stalled = served.ask(call, 0..MANY);
        served.is_not_held_up();
        served.reads_other_folders();
        assert_eq!(served.gate().waiting(call), MANY, "{call:?}: none was answered meanwhile");
        served.gate().open();
        for (call, entry, mut wire) in stalled {
            check(call, entry, &wire.answer());
        }
        served.gate().close();
    }
    // All kinds at once, over one connection; of what has not been read, for that is in memory.
    let runtime = runtime();
    let http2 = Http2::tcp(&runtime, served.child.address());
    let begun = Call::ALL.map(|call| {
        let response = http2.begin(http2.request(Method::GET, &call.target(MANY), &[], ""));
        (call, runtime.spawn(async { read(response.await.unwrap()).await }))
    });
    let all = |held: &Held| Call::ALL.iter().all(|call| held.waiting_for(*call) == 1);
    served.gate().until("a call of each kind waits", all);
    assert_eq!(http2.get("/axum/hello/x").text(), "Hello, x!\n");
    assert_eq!(http2.get("/index.html").text(), "welcome\n");
    served.gate().open();
    for (call, answer) in begun {
        check(call, MANY, &http2.wait(answer).unwrap());
    }
    drop(http2);
    served.nothing_is_left(served.descriptors().0);
    runtime.shutdown_background();
}

/// More than any pool of a worker has threads.
#[test]
fn apps_go_on_however_many_wait_for_a_stalled_disk() {
    let served = Served::stalled();
    let runtime = runtime();
    let clients: Vec<_> = (0..3).map(|_| Http2::tcp(&runtime, served.child.address())).collect();
    let asked = (0..ENTRIES - 50).zip(clients.iter().cycle());
    let begun: Vec<_> = asked
        .map(|(entry, http2)| {
            let response = http2.begin(http2.request(Method::GET, &Call::Read.target(entry), &[], ""));
            // All are read at once, as they share their connection's window.
            (entry, http2, runtime.spawn(async { read(response.await.unwrap()).await }))
        })
        .collect();
    served.gate().until("as many wait as can", |held| held.waiting_for(Call::Read) >= MANY);
    served.is_not_held_up();
    for http2 in &clients {
        assert_eq!(http2.get("/warp/hello/x").text(), "Hello, x!\n");
    }
    served.gate().open();
    for (entry, http2, answer) in begun {
        check(Call::Read, entry, &http2.wait(answer).unwrap());
    }
    drop(clients);
    runtime.shutdown_background();
}

/// Many more than a worker has threads for all mounts together, for what is looked up and for what is read.
#[test]
fn a_stalled_disk_takes_no_thread_that_another_mount_needs() {
    let served = Served::stalled();
    let wires = |call: Call, entries: std::ops::Range<u64>| {
        let asked = entries.map(|entry| {
            let mut wire = served.child.wire();
            wire.send(get(&call.target(entry)));
            (call, entry, wire)
        });
        asked.collect::<Vec<_>>()
    };
    let mut stalled: Vec<_> = wires(Call::Read, 0..AT_ONCE / 2);
    served.gate().until("they are read", |held| held.waiting_for(Call::Read) == AT_ONCE / 2);
    stalled.extend(wires(Call::Lookup, 0..50));
    stalled.extend(wires(Call::Read, 50..100));
    stalled.iter().for_each(|(_, _, wire)| wire.until_read());
    let full = |held: &Held| held.waiting_for(Call::Lookup) == AT_ONCE / 2;
    served.gate().until("the others are looked up", full);
    served.is_not_held_up();
    served.reads_other_folders();
    let waiting = [Call::Read, Call::Lookup].map(|call| served.gate().waiting(call));
    assert_eq!(waiting, [AT_ONCE / 2; 2], "no more have a thread");
    // Of those that wait for one, some go away.
    let gone = stalled.split_off(stalled.len() - 25);
    gone.into_iter().for_each(|(_, _, wire)| wire.abort());
    served.gate().open();
    for (call, entry, mut wire) in stalled {
        check(call, entry, &wire.answer());
    }
    served.reads_other_folders();
}

#[test]
fn who_goes_away_from_a_stalled_disk_leaves_nothing_behind() {
    let served = Served::stalled();
    let (sockets, _) = served.descriptors();
    let runtime = runtime();
    let http2 = Http2::tcp(&runtime, served.child.address());
    for call in Call::ALL {
        for (at, (_, _, wire)) in served.ask(call, 0..MANY).into_iter().enumerate() {
            // Rudely, and politely.
            if at % 2 == 0 {
                wire.abort();
            }
        }
        let asked = (MANY..2 * MANY).map(|entry| http2.request(Method::GET, &call.target(entry), &[], ""));
        let begun: Vec<_> = asked.map(|request| runtime.spawn(http2.begin(request))).collect();
        // Who has gone still has a thread, so some of these wait for one.
        served.gate().until("they wait as well", |held| held.waiting_for(call) == AT_ONCE);
        begun.iter().for_each(tokio::task::JoinHandle::abort);
        assert_eq!(http2.get("/axum/hello/x").text(), "Hello, x!\n");
        served.gate().open();
        // The connection of HTTP/2 stays.
        served.nothing_is_left(sockets + 1);
        assert_eq!(http2.get("/index.html").text(), "welcome\n");
        served.gate().close();
    }
    drop(http2);
    runtime.shutdown_background();
    served.nothing_is_left(sockets);
}

/// It says that it has stopped while the disk still does not answer; that its process is still there is the
/// kernel's doing, which ends no thread that waits for a disk.
#[test]
fn a_stalled_disk_does_not_hold_up_the_stop() {
    let mut served = Served::stalled();
    let stalled: Vec<_> = Call::ALL.into_iter().flat_map(|call| served.ask(call, 0..2)).collect();
    served.child.signal(Signal::TERM);
    let _ = served.child.log.wait(&["has stopped"]);
    for call in Call::ALL {
        assert_eq!(served.gate().waiting(call), 2, "{call:?}");
    }
    served.gate().open();
    assert_eq!(served.child.exit().code(), Some(0));
    for (call, _, mut wire) in stalled {
        assert!(!wire.try_answer().is_some_and(|answer| answer.whole), "{call:?}: it was not cut");
    }
}
