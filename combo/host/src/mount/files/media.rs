//! Takes the name of a file, gives its media type. Pure.

use http::HeaderValue;

/// The media type of what is called `path`, by its extension. Text is UTF-8; what is unknown is octets.
pub(super) fn of(path: &str) -> HeaderValue {
    let Some(media) = mime_guess::from_path(path).first_raw() else {
        return HeaderValue::from_static("application/octet-stream");
    };
    match media {
        "text/html" => HeaderValue::from_static("text/html; charset=utf-8"),
        // The one name that is current (RFC 9239).
        "text/javascript" | "application/javascript" | "application/x-javascript" => {
            HeaderValue::from_static("text/javascript; charset=utf-8")
        }
        _ if path.ends_with(".map") => HeaderValue::from_static("application/json"),
        _ if media.starts_with("text/") => HeaderValue::try_from(format!("{media}; charset=utf-8"))
            .expect("a media type with a parameter is visible ASCII"),
        _ => HeaderValue::from_static(media),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_have_types() {
        #[track_caller]
        fn check(path: &str, expected: &str) {
            assert_eq!(of(path), expected, "{path}");
        }
        check("index.html", "text/html; charset=utf-8");
        check("a/B.HTM", "text/html; charset=utf-8");
        check("a.txt", "text/plain; charset=utf-8");
        check("a.css", "text/css; charset=utf-8");
        check("a.csv", "text/csv; charset=utf-8");
        check("a.md", "text/markdown; charset=utf-8");
        check("a.xml", "text/xml; charset=utf-8");
        check("a.js", "text/javascript; charset=utf-8");
        check("a.mjs", "text/javascript; charset=utf-8");
        // UTF-8 by definition, and without the parameter (RFC 8259).
        check("a.json", "application/json");
        check("a.js.map", "application/json");
        check("a.webmanifest", "application/manifest+json");
        check("a.wasm", "application/wasm");
        check("a.svg", "image/svg+xml");
        check("a.png", "image/png");
        check("a.avif", "image/avif");
        check("a.woff2", "font/woff2");
        check("a.pdf", "application/pdf");
        check("a.mp4", "video/mp4");
        check("a.tar.gz", "application/gzip");
        check("a", "application/octet-stream");
        check("a.", "application/octet-stream");
        check("a.unheard-of", "application/octet-stream");
        check("html", "application/octet-stream");
        check(".well-known/acme-challenge/token", "application/octet-stream");
    }
}
