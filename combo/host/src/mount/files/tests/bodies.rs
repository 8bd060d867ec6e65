//! What is read of a file while it is sent.

use super::*;

/// Enough for many chunks.
fn large(fill: u8) -> Vec<u8> {
    vec![fill; 10 * PIECE + 17]
}

/// The response to a GET with its first chunk read.
async fn begin(files: &Served, uri: &str) -> (Vec<u8>, FilesBody) {
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
