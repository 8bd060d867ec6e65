//! What is read of a file while it is sent.

use std::os::unix::fs::MetadataExt;
use std::pin::Pin;

use super::*;

/// Enough for many chunks.
fn large(fill: u8) -> Vec<u8> {
    vec![fill; 10 * PIECE + 17]
}

/// The response to a GET with its first chunk read.
async fn begin(files: &Served, uri: &str) -> (Vec<u8>, Sending) {
    let response = files.clone().ask(Request::get(uri).body(()).unwrap().into_parts().0).await.unwrap();
    let mut body = response.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.len() == PIECE && !body.is_end_stream());
    (first.to_vec(), body)
}

#[tokio::test]
async fn chunks_are_chunks() {
    let site = Site::new().file("a.bin", "");
    let contents: Vec<u8> = (0..large(0).len()).map(|at| (at % 251) as u8).collect();
    fs::write(site.path("a.bin"), &contents).unwrap();
    let files = site.never_kept();
    let (mut read, mut body) = begin(&files, "/a.bin").await;
    while let Some(frame) = body.frame().await {
        let chunk = frame.unwrap().into_data().unwrap();
        assert!(chunk.len() <= PIECE);
        read.extend_from_slice(&chunk);
    }
    assert!(read == contents);
    assert!(body.is_end_stream());

    let (from, to) = (PIECE - 3, 3 * PIECE + 5);
    let request =
        Request::get("/a.bin").header("range", format!("bytes={from}-{}", to - 1)).body(()).unwrap();
    let response = files.clone().ask(request.into_parts().0).await.unwrap();
    assert!(response.into_body().collect().await.unwrap().to_bytes() == contents[from..to]);
}

#[tokio::test]
async fn a_replaced_file_is_old_or_new() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let files = site.never_kept();
    let (mut read, body) = begin(&files, "/a.bin").await;
    fs::write(site.path("b.bin"), large(b'n')).unwrap();
    fs::rename(site.path("b.bin"), site.path("a.bin")).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
    assert!(get(&files, "/a.bin").await.body.into_bytes() == large(b'n'));
}

#[tokio::test]
async fn a_removed_file_is_read_to_its_end() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let files = site.never_kept();
    let (mut read, body) = begin(&files, "/a.bin").await;
    fs::remove_file(site.path("a.bin")).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
    assert_eq!(get(&files, "/a.bin").await.status, 404);
}

#[tokio::test]
async fn a_grown_file_is_as_long_as_was_said() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let (mut read, body) = begin(&site.never_kept(), "/a.bin").await;
    let file = fs::File::options().write(true).open(site.path("a.bin")).unwrap();
    file.write_all_at(&large(b'n'), large(b'o').len() as u64).unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == large(b'o'));
}

#[tokio::test]
async fn a_truncated_file_ends_with_an_error() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let (_, mut body) = begin(&site.never_kept(), "/a.bin").await;
    fs::File::options().write(true).open(site.path("a.bin")).unwrap().set_len(PIECE as u64 + 5).unwrap();
    let error = loop {
        match body.frame().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert!(body.frame().await.is_none());
}

/// Takes a file out of the kernel's memory, if it keeps files on a disk.
fn forget(path: &Path) {
    let file = fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[tokio::test]
async fn what_the_kernel_has_not_in_memory_is_read_on_the_pool() {
    let contents = noise(40 * PIECE + 17, 1);
    let site = Site::new().aged("a.bin", &contents, 9);
    let files = site.never_kept();
    for _ in 0..4 {
        forget(&site.path("a.bin"));
        let answered = get(&files, "/a.bin").await;
        assert!(answered.bytes == contents);
        forget(&site.path("a.bin"));
        let range = format!("bytes=5-9,{}-{}", 3 * PIECE - 1, 9 * PIECE);
        let part = send(&files, "GET", "/a.bin", &[("range", &range)]).await;
        assert_eq!(part.status, 206);
        let (first, last) = (&contents[5..10], &contents[3 * PIECE - 1..=9 * PIECE]);
        assert!(part.bytes.windows(5).any(|window| window == first));
        assert!(part.bytes.windows(last.len()).any(|window| window == last));
    }
    // And what is to be kept is read as well.
    let files = site.files();
    forget(&site.path("a.bin"));
    assert!(get(&files, "/a.bin").await.bytes == contents);
}

#[tokio::test]
async fn who_takes_it_slowly_has_all_of_it() {
    let site = Site::new();
    let contents = noise(10 * PIECE + 17, 1);
    fs::write(site.path("a.bin"), &contents).unwrap();
    let files = site.never_kept();
    let (mut read, mut body) = begin(&files, "/a.bin").await;
    // Many at a time, each a piece behind the other.
    let mut others = Vec::new();
    for _ in 0..50 {
        others.push(begin(&files, "/a.bin").await);
        for (read, body) in &mut others {
            if let Some(piece) = body.frame().await {
                read.extend_from_slice(&piece.unwrap().into_data().unwrap());
            }
        }
    }
    forget(&site.path("a.bin"));
    while let Some(piece) = body.frame().await {
        let piece = piece.unwrap().into_data().unwrap();
        assert_eq!(body.size_hint().exact(), Some((contents.len() - read.len() - piece.len()) as u64));
        read.extend_from_slice(&piece);
        assert_eq!(body.is_end_stream(), read.len() == contents.len());
    }
    assert!(read == contents);
    for (mut read, body) in others {
        read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
        assert!(read == contents);
    }
}

#[tokio::test]
async fn who_goes_away_leaves_nothing_open() {
    let site = Site::new();
    fs::write(site.path("a.bin"), large(b'o')).unwrap();
    let files = site.never_kept();
    let inode = fs::metadata(site.path("a.bin")).unwrap().ino();
    let open = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::metadata(fd.ok()?.path()).ok());
        fds.filter(|file| file.ino() == inode && file.is_file()).count()
    };
    let mut bodies = Vec::new();
    for _ in 0..10 {
        bodies.push(begin(&files, "/a.bin").await.1);
    }
    // One for all of them.
    assert_eq!(open(), 1);
    // Also while a piece is being read.
    forget(&site.path("a.bin"));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for body in &mut bodies {
        let _ = Pin::new(body).poll_frame(&mut cx);
    }
    drop(bodies);
    let closed = async {
        while open() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("closed");
    let head = send(&files, "HEAD", "/a.bin", &[]).await;
    assert_eq!((head.status, open()), (200, 0));
}
