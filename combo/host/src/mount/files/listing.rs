//! Takes what is in a folder, gives a page about it, or the same as JSON. Pure.
//!
//! The page is whole in itself, runs nothing and loads nothing. A name is text in it, whatever it is made
//! of, and its link leads to what lies in this folder.

use std::cmp::Ordering;
use std::fmt::{self, Display, Formatter, Write as _};
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;

use super::dates;

/// Entries that are listed; of more it is only said how many they are.
pub(super) const MOST: usize = 10_000;

/// What needs no encoding anywhere in a URL (RFC 3986, 2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Not encoded.
    pub(super) name: String,
    pub(super) folder: bool,
    /// Bytes; of folders it is not shown.
    pub(super) len: u64,
    pub(super) modified: Option<SystemTime>,
}

/// What is shown of a folder: its folders first, then by name.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    more: usize,
}

impl Listing {
    /// Of everything that may be shown, and of how much more there is that was not looked at.
    pub(super) fn new(mut entries: Vec<Entry>, beyond: usize) -> Self {
        entries.sort_unstable_by(order);
        let more = beyond + entries.len().saturating_sub(MOST);
        entries.truncate(MOST);
        Self { entries, more }
    }

    /// The page for a folder at this path, which is encoded, ends in `/` and has the mount's prefix. From
    /// the mount's root no link leads up.
    pub(super) fn html(&self, path: &str, is_root: bool) -> String {
        let path = percent_decode_str(path).decode_utf8_lossy();
        let page = Page { listing: self, path: &path, is_root };
        let mut html = String::with_capacity(2048 + 256 * self.entries.len());
        write!(html, "{page}").expect("a string takes everything");
        html
    }

    /// An array of objects, as nginx has them in `autoindex_format json`.
    pub(super) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            name: &'a str,
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            mtime: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            size: Option<u64>,
        }
        let objects: Vec<_> = self
            .entries
            .iter()
            .map(|entry| Object {
                name: &entry.name,
                r#type: if entry.folder { "directory" } else { "file" },
                mtime: entry.modified.and_then(dates::written),
                size: (!entry.folder).then_some(entry.len),
            })
            .collect();
        serde_json::to_string(&objects).expect("text and numbers are JSON") + "\n"
    }
}

/// Names that differ by case alone are in the order of their bytes.
fn order(one: &Entry, other: &Entry) -> Ordering {
    fn folded(entry: &Entry) -> impl Iterator<Item = u8> {
        entry.name.bytes().map(|byte| byte.to_ascii_lowercase())
    }
    other
        .folder
        .cmp(&one.folder)
        .then_with(|| folded(one).cmp(folded(other)))
        .then_with(|| one.name.cmp(&other.name))
}

struct Page<'a> {
    listing: &'a Listing,
    path: &'a str,
    is_root: bool,
}

const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.25rem; overflow-wrap: anywhere }
table { width: 100%; border-collapse: collapse }
th, td { padding: .25rem 0 .25rem 1rem; text-align: end; white-space: nowrap; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { padding: .25rem 0; text-align: start; white-space: normal; overflow-wrap: anywhere }
td { font-variant-numeric: tabular-nums }
@media (max-width: 32rem) { th:last-child, td:last-child { display: none } }";

impl Display for Page<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let path = Escaped(self.path);
        f.write_str("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n")?;
        f.write_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n")?;
        write!(f, "<title>Index of {path}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n")?;
        writeln!(f, "<h1>Index of <bdi>{path}</bdi></h1>")?;
        if !self.is_root {
            f.write_str("<p><a href=\"../\">Parent folder</a></p>\n")?;
        }
        let Listing { entries, more } = self.listing;
        if entries.is_empty() {
            f.write_str("<p>Nothing is in this folder.</p>\n")?;
        } else {
            f.write_str("<table>\n<thead>\n<tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>")?;
            f.write_str("<th scope=\"col\">Modified (UTC)</th></tr>\n</thead>\n<tbody>\n")?;
            entries.iter().try_for_each(|entry| writeln!(f, "{}", Row(entry)))?;
            f.write_str("</tbody>\n</table>\n")?;
        }
        if *more > 0 {
            writeln!(f, "<p>There are {more} more, which are not shown.</p>")?;
        }
        f.write_str("</body>\n</html>\n")
    }
}

struct Row<'a>(&'a Entry);

impl Display for Row<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Entry { name, folder, len, modified } = self.0;
        let slash = if *folder { "/" } else { "" };
        // Without the `./` a name with a colon would be a URL of its own.
        let link = utf8_percent_encode(name, SEGMENT);
        write!(f, "<tr><td><a href=\"./{link}{slash}\"><bdi>{}</bdi>{slash}</a></td>", Escaped(name))?;
        if *folder {
            f.write_str("<td></td>")?;
        } else {
            let bytes = if *len == 1 { "byte" } else { "bytes" };
            write!(f, "<td><span title=\"{len} {bytes}\">{}</span></td>", size(*len))?;
        }
        match modified.and_then(date) {
            Some(date) => {
                let machine = date.strftime("%Y-%m-%dT%H:%M:%SZ");
                let human = date.strftime("%Y-%m-%d %H:%M");
                write!(f, "<td><time datetime=\"{machine}\">{human}</time></td></tr>")
            }
            None => f.write_str("<td></td></tr>"),
        }
    }
}

fn date(time: SystemTime) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(i64::try_from(dates::seconds(time)?).ok()?).ok()
}

/// To one digit behind the point, in the unit in which it is less than 1024.
fn size(len: u64) -> String {
    if len < 1024 {
        return format!("{len} B");
    }
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter().zip((10..).step_by(10));
    let mut sizes = units.map(|(unit, bits)| ((u128::from(len) * 10 + (1 << (bits - 1))) >> bits, unit));
    let (tenths, unit) = sizes.find(|(tenths, _)| *tenths < 10_240).expect("16 EiB are more than any length");
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// For text and attributes alike. Controls are no characters of HTML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                c if c.is_control() => f.write_char(char::REPLACEMENT_CHARACTER),
                c => f.write_char(c),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn file(name: &str, len: u64) -> Entry {
        let modified = UNIX_EPOCH.checked_add(Duration::from_millis(1_795_837_259_900));
        Entry { name: name.into(), folder: false, len, modified }
    }

    fn folder(name: &str) -> Entry {
        Entry { folder: true, len: 4096, ..file(name, 0) }
    }

    #[test]
    fn a_page_lists_a_folder() {
        let undated = Entry { modified: None, ..file("b.txt", 12_595) };
        let listing = Listing::new(vec![undated, file("a.txt", 1), folder("c")], 0);
        let expected = format!(
            "<!DOCTYPE html>\n\
             <html lang=\"en\">\n\
             <head>\n\
             <meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>Index of /pub/x y/</title>\n\
             <style>\n{STYLE}\n</style>\n\
             </head>\n\
             <body>\n\
             <h1>Index of <bdi>/pub/x y/</bdi></h1>\n\
             <p><a href=\"../\">Parent folder</a></p>\n\
             <table>\n\
             <thead>\n\
             <tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th><th scope=\"col\">Modified (UTC)</th></tr>\n\
             </thead>\n\
             <tbody>\n\
             <tr><td><a href=\"./c/\"><bdi>c</bdi>/</a></td><td></td>\
             <td><time datetime=\"2026-11-28T03:40:59Z\">2026-11-28 03:40</time></td></tr>\n\
             <tr><td><a href=\"./a.txt\"><bdi>a.txt</bdi></a></td><td><span title=\"1 byte\">1 B</span></td>\
             <td><time datetime=\"2026-11-28T03:40:59Z\">2026-11-28 03:40</time></td></tr>\n\
             <tr><td><a href=\"./b.txt\"><bdi>b.txt</bdi></a></td>\
             <td><span title=\"12595 bytes\">12.3 KiB</span></td><td></td></tr>\n\
             </tbody>\n\
             </table>\n\
             </body>\n\
             </html>\n"
        );
        assert_eq!(listing.html("/pub/x%20y/", false), expected);
    }

    #[test]
    fn an_empty_root_says_so() {
        let html = Listing::new(Vec::new(), 0).html("/", true);
        assert!(
            html.contains("<h1>Index of <bdi>/</bdi></h1>\n<p>Nothing is in this folder.</p>\n</body>"),
            "{html}"
        );
        assert_eq!(Listing::new(Vec::new(), 0).json(), "[]\n");
    }

    #[test]
    fn names_are_text_and_links_stay_here() {
        #[track_caller]
        fn check(name: &str, link: &str, text: &str) {
            let html = Listing::new(vec![file(name, 0)], 0).html("/", true);
            let expected = format!("<a href=\"./{link}\"><bdi>{text}</bdi></a>");
            assert!(html.contains(&expected), "{expected}: {html}");
        }
        check("a.txt", "a.txt", "a.txt");
        check("a b", "a%20b", "a b");
        check("javascript:alert(1)", "javascript%3Aalert%281%29", "javascript:alert(1)");
        check("a:b", "a%3Ab", "a:b");
        check("a?b#c%20", "a%3Fb%23c%2520", "a?b#c%20");
        check("<script>&", "%3Cscript%3E%26", "&lt;script&gt;&amp;");
        check("\"' onclick=x", "%22%27%20onclick%3Dx", "&quot;&#39; onclick=x");
        check("</bdi></a>", "%3C%2Fbdi%3E%3C%2Fa%3E", "&lt;/bdi&gt;&lt;/a&gt;");
        check("&amp;", "%26amp%3B", "&amp;amp;");
        check("grün€", "gr%C3%BCn%E2%82%AC", "grün€");
        check("a\nb\u{85}\u{7f}", "a%0Ab%C2%85%7F", "a\u{fffd}b\u{fffd}\u{fffd}");
        check("\u{202e}gpj.exe", "%E2%80%AEgpj.exe", "\u{202e}gpj.exe");
        check("~a-b_c.d", "~a-b_c.d", "~a-b_c.d");
        check("a\\b", "a%5Cb", "a\\b");
    }

    #[test]
    fn the_title_is_the_decoded_path() {
        #[track_caller]
        fn check(path: &str, expected: &str) {
            let html = Listing::new(Vec::new(), 0).html(path, false);
            assert!(html.contains(&format!("<title>Index of {expected}</title>")), "{path}: {html}");
            assert!(html.contains(&format!("<h1>Index of <bdi>{expected}</bdi></h1>")), "{path}: {html}");
        }
        check("/a%20b/", "/a b/");
        check("/%3Cscript%3E/", "/&lt;script&gt;/");
        check("/%3C/title%3E/", "/&lt;/title&gt;/");
        check("/<b>/", "/&lt;b&gt;/");
        check("/%E2%82%AC/%ff/", "/€/\u{fffd}/");
        check("/%00/", "/\u{fffd}/");
        check("/%2520/", "/%20/");
    }

    #[test]
    fn folders_are_first_and_case_is_last() {
        let entries = vec![
            file("b", 0),
            folder("z"),
            file("B", 0),
            file("a", 0),
            file("_", 0),
            folder("Y"),
            file("C", 0),
        ];
        let entries = Listing::new(entries, 0).entries;
        let names: Vec<_> = entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["Y", "z", "_", "a", "B", "b", "C"]);
    }

    #[test]
    fn of_too_many_it_is_said_how_many() {
        let many =
            |count: usize| Listing::new((0..count).map(|at| file(&format!("{at:06}"), 0)).collect(), 0);
        let listing = many(MOST);
        assert_eq!((listing.entries.len(), listing.more), (MOST, 0));
        assert!(!listing.html("/", true).contains("not shown"));
        let listing = many(MOST + 2);
        assert_eq!((listing.entries.len(), listing.more), (MOST, 2));
        let html = listing.html("/", true);
        assert!(html.contains("009999") && !html.contains("010000"));
        assert!(
            html.ends_with("</table>\n<p>There are 2 more, which are not shown.</p>\n</body>\n</html>\n")
        );
    }

    #[test]
    fn sizes_have_a_unit() {
        #[track_caller]
        fn check(len: u64, expected: &str) {
            assert_eq!(size(len), expected);
        }
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(12_595, "12.3 KiB");
        check(1_048_524, "1023.9 KiB");
        check(1_048_525, "1.0 MiB");
        check(1_048_576, "1.0 MiB");
        check(5 << 30, "5.0 GiB");
        check(3 << 39, "1.5 TiB");
        check(1 << 50, "1.0 PiB");
        check(u64::MAX, "16.0 EiB");
    }

    #[test]
    fn json_is_that_of_nginx() {
        let old = Entry { modified: UNIX_EPOCH.checked_sub(Duration::from_secs(1)), ..file("old \"1\"", 7) };
        assert_eq!(
            Listing::new(vec![file("a.txt", 12_595), folder("b"), old], 0).json(),
            concat!(
                r#"[{"name":"b","type":"directory","mtime":"Sat, 28 Nov 2026 03:40:59 GMT"},"#,
                r#"{"name":"a.txt","type":"file","mtime":"Sat, 28 Nov 2026 03:40:59 GMT","size":12595},"#,
                r#"{"name":"old \"1\"","type":"file","size":7}]"#,
                "\n"
            )
        );
    }
}
