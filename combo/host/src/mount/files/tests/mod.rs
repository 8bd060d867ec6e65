//! `mount::files` as its clients see it, on real folders, with both resolvers.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG,
    LAST_MODIFIED,
};
use http_body::Body;
use http_body_util::BodyExt;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkfifoat, mknodat};
use rustix::io::Errno;
use tempfile::TempDir;

use super::accept::Coding;
use super::opened::PIECE;
use super::root::Resolver;
use super::*;

// Where a path leads.
mod places;
// Methods and heads.
mod messages;
// Preconditions, one range, dates.
mod conditions;
// What was compressed beforehand.
mod siblings;
// What is compressed on the fly.
mod compressed;
// What is kept in memory, while files change.
mod kept;
// Which file stands for what is asked for, or for what is not there.
mod names;
// What is said of files, and what is said of that.
mod options;
// Folders as pages and as JSON.
mod listed;
// Files in the binary, beside and below those on disk.
mod binary;
// Several ranges.
mod several;
// What goes wrong while it is served.
mod misconduct;
// What is read while it is sent.
mod bodies;

/// Longer than anything takes; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(30);

const RESOLVERS: [Resolver; 3] =
    [Resolver::Kernel { cached: true }, Resolver::Kernel { cached: false }, Resolver::Walk];

const TEN: &str = "0123456789";

/// A folder to be served and one beside it that must stay secret.
struct Site {
    site: TempDir,
    outside: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { site: tempfile::tempdir().unwrap(), outside: tempfile::tempdir().unwrap() };
        fs::write(site.outside.path().join("secret.txt"), "SECRET").unwrap();
        fs::create_dir(site.outside.path().join("folder")).unwrap();
        fs::write(site.outside.path().join("folder/index.html"), "SECRET").unwrap();
        site
    }

    /// With a file in it.
    fn file(self, path: &str, contents: &str) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.site.path().join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.outside.path().join(path)
    }

    /// With a file in it that was last changed so many seconds ago.
    fn aged(self, path: &str, contents: impl AsRef<[u8]>, seconds: u64) -> Self {
        let site = self.file(path, "");
        fs::write(site.path(path), contents).unwrap();
        site.age(path, seconds);
        site
    }

    fn age(&self, path: &str, seconds: u64) {
        // All ages are of one moment, for the same age is the same time.
        static NOW: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);
        let file = fs::File::options().write(true).open(self.path(path)).unwrap();
        file.set_modified(*NOW - Duration::from_secs(seconds)).unwrap();
    }

    /// Another file at a path, at once.
    fn replace(&self, path: &str, contents: impl AsRef<[u8]>) {
        let next = self.path(".next");
        fs::write(&next, contents).unwrap();
        fs::rename(next, self.path(path)).unwrap();
    }

    fn link(self, target: impl AsRef<Path>, path: &str) -> Self {
        symlink(target, self.path(path)).unwrap();
        self
    }

    fn files(&self) -> Served {
        self.said(|files| files)
    }

    /// With this said of them.
    fn said(&self, said: impl Fn(Files) -> Files) -> Served {
        Served::open(said(Files::folder("site")), |_| vec![self.site.path().to_path_buf()]).unwrap()
    }

    /// None of them in memory.
    fn never_kept(&self) -> Served {
        self.said(|files| files.memory(0))
    }

    /// All ways to resolve.
    fn both(&self) -> [(Resolver, Served); 3] {
        RESOLVERS.map(|resolver| {
            let root =
                Root::open([Layer::Folder(self.site.path().to_path_buf())]).unwrap().resolved_by(resolver);
            (resolver, Served::of(root, Files::folder("site")).unwrap())
        })
    }
}

/// A response with its body read.
#[derive(Debug)]
struct Answered {
    status: u16,
    headers: HeaderMap,
    /// As text.
    body: String,
    bytes: Bytes,
}

impl Answered {
    /// The contents behind the coding that is said.
    fn decoded(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        let _ = match self.header(CONTENT_ENCODING) {
            "" => (&*self.bytes).read_to_end(&mut plain),
            "br" => brotli::Decompressor::new(&*self.bytes, 4096).read_to_end(&mut plain),
            "zstd" => zstd::Decoder::new(&*self.bytes).unwrap().read_to_end(&mut plain),
            "gzip" => flate2::read::GzDecoder::new(&*self.bytes).read_to_end(&mut plain),
            coding => panic!("`{coding}` is no coding"),
        }
        .unwrap();
        plain
    }

    fn header(&self, name: impl http::header::AsHeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(files: &Served, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answered {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answered = async {
        let response = files.clone().ask(request.body(()).unwrap().into_parts().0).await.unwrap();
        let (head, body) = response.into_parts();
        let said = body.size_hint().exact();
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(said, Some(body.len() as u64), "{method} {uri}");
        Answered {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            bytes: body,
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{method} {uri} hangs"))
}

async fn get(files: &Served, uri: &str) -> Answered {
    send(files, "GET", uri, &[]).await
}

/// Asked with this `Accept-Encoding`.
async fn get_in(files: &Served, uri: &str, codings: &str) -> Answered {
    send(files, "GET", uri, &[("accept-encoding", codings)]).await
}

/// Whether a file is in memory as it is now, in a coding.
fn is_kept(files: &Served, path: &str, coding: Option<Coding>) -> bool {
    match files.site.shelf.root.find(path, Speed::Any).unwrap() {
        Found::File(_, stamp) => files.site.shelf.memory.find(path, coding, &stamp).is_some(),
        found => panic!("{path} is {found:?}"),
    }
}

/// Asks for a file until it is kept, for what has just been written is not.
async fn keep(files: &Served, path: &str, coding: Option<Coding>) {
    let kept = async {
        while !is_kept(files, path, coding) {
            let _ = get_in(files, &format!("/{path}"), coding.map_or("", Coding::name)).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.unwrap_or_else(|_| panic!("{path} is never kept"));
}

/// Words, and not the same ones for another seed: what becomes much smaller.
fn text(len: usize, seed: u64) -> String {
    const WORDS: [&str; 8] = ["lorem ", "ipsum ", "dolor ", "sit ", "amet, ", "elit ", "sed.\n", "do "];
    let mut text = String::with_capacity(len + 8);
    let mut noise = Noise::new(seed);
    while text.len() < len {
        text.push_str(WORDS[noise.next_below(8)]);
    }
    text.truncate(len);
    text
}

/// What does not become smaller.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut noise = Noise::new(seed);
    (0..len).map(|_| noise.next_below(256) as u8).collect()
}

/// Numbers that are the same in every run.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next_below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % end
    }
}

/// Sets it when dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
