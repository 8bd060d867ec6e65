//! Takes files, gives what they are compressed to, from earlier builds where their content is the same.
//!
//! A result is named after the hash of what it is of, and empty where compressing was not worth it. It
//! is whole or not there, however a build ends. What nobody asks for any more is removed.
#![expect(clippy::disallowed_methods, reason = "this is where compressed files are made and kept")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    encoding::{Encoding, may_shrink},
    error::Error,
    hash,
    render::Asset,
    walk::Entry,
};

/// How a result is called until it is whole.
const PART: &str = "part";

/// Where results are, and how many threads make them.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) threads: NonZero<usize>,
}

struct Job<'a> {
    file: &'a Path,
    hash: u128,
    len: usize,
    encoding: Encoding,
}

/// Reads each file once, for its hash.
pub(crate) fn plain(entries: Vec<Entry>, threads: NonZero<usize>) -> Result<Vec<Asset>, Error> {
    let hashes = each(&entries, threads, |entry| match entry.path.ends_with('/') {
        true => Ok((hash::of(b""), 0)),
        false => read(&entry.file).map(|contents| (hash::of(&contents), contents.len())),
    });
    let assets = entries.into_iter().zip(hashes).map(|(Entry { path, file }, hashed)| {
        let (hash, len) = hashed?;
        Ok(Asset { path, file, hash, len, compressed: BTreeMap::new() })
    });
    assets.collect()
}

impl Store<'_> {
    /// Says of each asset where its compressed forms are. Gives how many had to be made.
    pub(crate) fn compress(&self, assets: &mut [Asset]) -> Result<usize, Error> {
        fs::create_dir_all(self.folder).map_err(|cause| write_error(self.folder, cause))?;
        let mut wanted = BTreeMap::new();
        for asset in &*assets {
            if asset.len > 0 && may_shrink(&asset.path) {
                for encoding in Encoding::ALL {
                    let Asset { file, hash, len, .. } = asset;
                    let job = Job { file, hash: *hash, len: *len, encoding };
                    let _ = wanted.insert(self.path(*hash, encoding), job);
                }
            }
        }
        let mut missing: Vec<_> = wanted.iter().filter(|(path, _)| !path.exists()).collect();
        // The longest first, so that none is left for one thread at the end.
        missing.sort_by_key(|(_, job)| (job.encoding, std::cmp::Reverse(job.len)));
        let made = each(&missing, self.threads, |(path, job)| make(path, job));
        made.into_iter().collect::<Result<(), _>>()?;
        let made = missing.len();

        let kept: BTreeSet<PathBuf> = wanted.into_keys().collect();
        for asset in assets {
            for encoding in Encoding::ALL {
                let path = self.path(asset.hash, encoding);
                // What is asked for is made, and so there; an empty one says that it is not worth it.
                if may_shrink(&asset.path) && kept.contains(&path) && len(&path)? > 0 {
                    let _ = asset.compressed.insert(encoding, path);
                }
            }
        }
        self.remove_all_but(&kept).map_err(|cause| write_error(self.folder, cause))?;
        Ok(made)
    }

    fn path(&self, hash: u128, encoding: Encoding) -> PathBuf {
        self.folder.join(format!("{hash:032x}.{}", encoding.extension()))
    }

    fn remove_all_but(&self, kept: &BTreeSet<PathBuf>) -> io::Result<()> {
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn make(path: &Path, job: &Job<'_>) -> Result<(), Error> {
    let contents = read(job.file)?;
    if hash::of(&contents) != job.hash {
        return Err(Error::Changed(job.file.to_owned()));
    }
    let compressed = job.encoding.compress(&contents);
    let compressed = compressed.map_err(|cause| Error::Compress { path: job.file.to_owned(), cause })?;
    write(path, &compressed.unwrap_or_default())
}

/// Writes a whole file or none.
pub(crate) fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let part = path.with_added_extension(PART);
    fs::write(&part, contents)
        .and_then(|()| fs::rename(&part, path))
        .map_err(|cause| write_error(path, cause))
}

fn write_error(path: &Path, cause: io::Error) -> Error {
    Error::Write { path: path.to_owned(), cause }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })
}

fn len(path: &Path) -> Result<u64, Error> {
    let metadata = fs::metadata(path).map_err(|cause| Error::Read { path: path.to_owned(), cause })?;
    Ok(metadata.len())
}

/// What becomes of each item, in their order, by some threads that take one after the other.
fn each<T: Sync, R: Send>(items: &[T], threads: NonZero<usize>, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.get().min(items.len())).map(|_| scope.spawn(take)).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREADS: NonZero<usize> = NonZero::new(3).unwrap();

    fn asset(path: &str, file: &Path) -> Asset {
        let entry = Entry { path: path.to_owned(), file: file.to_owned() };
        plain(vec![entry], THREADS).unwrap().remove(0)
    }

    #[test]
    fn each_has_its_result_in_its_place() {
        for threads in [1, 2, 8] {
            let items: Vec<u64> = (0..100).collect();
            let squares = each(&items, NonZero::new(threads).unwrap(), |n| n * n);
            assert_eq!(squares, items.iter().map(|n| n * n).collect::<Vec<_>>());
        }
        assert_eq!(each(&[0; 0], THREADS, |n| *n), [0; 0]);
    }

    #[test]
    fn what_was_made_is_not_made_again() {
        let top = tempfile::tempdir().unwrap();
        let (folder, file) = (top.path().join("store"), top.path().join("file"));
        let store = Store { folder: &folder, threads: THREADS };
        let kept = || fs::read_dir(&folder).unwrap().count();
        fs::write(&file, "word ".repeat(100)).unwrap();

        // The same content under three names: one of them says that it will not get smaller.
        let mut assets = vec![asset("a.txt", &file), asset("b", &file), asset("c.png", &file)];
        assert_eq!(store.compress(&mut assets).unwrap(), 3);
        assert_eq!(kept(), 3);
        assert_eq!(assets[0].compressed.len(), 3);
        assert_eq!(assets[0].compressed, assets[1].compressed);
        assert!(assets[2].compressed.is_empty());
        assert_eq!(store.compress(&mut assets).unwrap(), 0);

        // What is not worth it is known as well.
        fs::write(&file, "x").unwrap();
        let mut assets = vec![asset("a.txt", &file), asset("empty/", top.path())];
        assert_eq!(store.compress(&mut assets).unwrap(), 3);
        assert!(assets.iter().all(|asset| asset.compressed.is_empty()));
        assert_eq!(kept(), 3);
        assert_eq!(store.compress(&mut assets).unwrap(), 0);

        // Somebody writes while we read.
        let mut assets = vec![asset("a.txt", &file)];
        fs::write(&file, "y").unwrap();
        assets[0].hash += 1;
        assert!(matches!(store.compress(&mut assets), Err(Error::Changed(_))));
    }
}
