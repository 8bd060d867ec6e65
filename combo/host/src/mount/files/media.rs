//! Takes the name of a file, gives its media type, and whether such files become smaller. Pure.

use http::HeaderValue;

/// The media type of what is called `path`, by its extension. Text is UTF-8; what is unknown is octets.
pub(super) fn of(path: &str) -> HeaderValue {
    let Some(media) = mime_guess::from_path(path).first_raw() else {
        // RFC 8878; the table is older.
        let media = if path.ends_with(".zst") { "application/zstd" } else { "application/octet-stream" };
        return HeaderValue::from_static(media);
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

/// Whether files of a type, as [`of`] gives it, become much smaller when they are compressed. No others should
/// be: it costs time and gains nothing.
pub(super) fn is_compressible(media: &str) -> bool {
    let media = essence(media);
    match media.split_once('/') {
        // Whose events would wait until a block is full.
        Some(("text", kind)) => kind != "event-stream",
        Some(("font", kind)) => matches!(kind, "collection" | "otf" | "sfnt" | "ttf"),
        Some(("image", "bmp" | "vnd.microsoft.icon" | "x-icon" | "x-ms-bmp")) => true,
        Some(("application", kind)) => SMALLER.contains(&kind) || has_text_suffix(kind),
        Some((_, kind)) => has_text_suffix(kind),
        None => false,
    }
}

/// Whether files of a type are compressed by themselves, so that nobody puts a compressed copy beside them.
/// Of what is neither this nor [compressible](is_compressible) nothing is known.
pub(super) fn is_compressed(media: &str) -> bool {
    let media = essence(media);
    match media.split_once('/') {
        Some(("image" | "video" | "audio", _)) => !is_compressible(media) && media != "audio/wav",
        Some(("font", kind)) => matches!(kind, "woff" | "woff2"),
        Some(("application", kind)) => {
            COMPRESSED.contains(&kind)
                || kind.ends_with("+zip")
                || kind.starts_with(OFFICE)
                || kind.starts_with(OPEN_OFFICE)
        }
        _ => false,
    }
}

/// Types of `application` that are text, or as good as text.
const SMALLER: [&str; 22] = [
    "ecmascript",
    "font-sfnt",
    "graphql",
    "javascript",
    "json",
    "json5",
    "n-quads",
    "n-triples",
    "postscript",
    "rtf",
    "sql",
    "toml",
    "vnd.ms-fontobject",
    "wasm",
    "x-font-opentype",
    "x-font-truetype",
    "x-font-ttf",
    "x-javascript",
    "x-ndjson",
    "x-sql",
    "xml",
    "yaml",
];

/// Types of `application` that are archives, or are packed like them.
const COMPRESSED: [&str; 19] = [
    "brotli",
    "font-woff",
    "font-woff2",
    "gzip",
    "java-archive",
    "ogg",
    "pdf",
    "vnd.android.package-archive",
    "vnd.rar",
    "x-7z-compressed",
    "x-brotli",
    "x-bzip",
    "x-bzip2",
    "x-compress",
    "x-gzip",
    "x-rar-compressed",
    "x-xz",
    "zip",
    "zstd",
];

/// How the names of office documents begin, which are archives.
const OFFICE: &str = "vnd.openxmlformats-officedocument.";
const OPEN_OFFICE: &str = "vnd.oasis.opendocument.";

/// JSON and XML, whatever they are about.
fn has_text_suffix(kind: &str) -> bool {
    ["+json", "+xml"].iter().any(|suffix| kind.ends_with(suffix))
}

/// Without its parameters.
fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim_end()
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

    #[test]
    fn text_becomes_smaller() {
        enum Kind {
            Compressible,
            Compressed,
            Unknown,
        }
        #[track_caller]
        fn check(path: &str, expected: &Kind) {
            let media = of(path);
            let media = media.to_str().unwrap();
            let kinds = (is_compressible(media), is_compressed(media));
            let expected = (matches!(expected, Kind::Compressible), matches!(expected, Kind::Compressed));
            assert_eq!(kinds, expected, "{path}: {media}");
        }
        for extension in [
            "html",
            "css",
            "js",
            "mjs",
            "js.map",
            "json",
            "webmanifest",
            "xml",
            "svg",
            "txt",
            "csv",
            "md",
            "wasm",
            "ttf",
            "otf",
            "eot",
            "ico",
            "bmp",
            "rss",
            "atom",
            "xhtml",
            "yaml",
            "ics",
            "vtt",
            "rtf",
        ] {
            check(&format!("a.{extension}"), &Kind::Compressible);
        }
        for extension in [
            "png", "jpg", "jpeg", "gif", "webp", "avif", "mp4", "webm", "mp3", "ogg", "m4a", "flac", "woff",
            "woff2", "zip", "gz", "7z", "pdf", "jar", "epub", "apk", "rar", "bz2", "xz", "zst", "docx",
            "odt",
        ] {
            check(&format!("a.{extension}"), &Kind::Compressed);
        }
        for extension in ["tar", "bin", "exe", "wav", "br", "unheard-of"] {
            check(&format!("a.{extension}"), &Kind::Unknown);
        }
    }

    #[test]
    fn types_are_known_by_their_names() {
        #[track_caller]
        fn check(media: &str, is_smaller: bool, is_small: bool) {
            assert_eq!((is_compressible(media), is_compressed(media)), (is_smaller, is_small), "{media}");
        }
        check("text/plain; charset=utf-8", true, false);
        check("text/event-stream", false, false);
        check("text/event-stream; charset=utf-8", false, false);
        check("application/json;charset=utf-8", true, false);
        check("application/problem+json", true, false);
        check("application/atom+xml", true, false);
        check("model/gltf+json", true, false);
        check("image/svg+xml", true, false);
        check("image/png", false, true);
        check("application/octet-stream", false, false);
        check("multipart/byteranges; boundary=a", false, false);
        check("application/jsonx", false, false);
        check("text", false, false);
        check("", false, false);
    }
}
