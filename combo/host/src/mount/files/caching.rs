//! Takes the path of a file, gives its `Cache-Control`: what the deployment says, or else what its name
//! says. Pure.
//!
//! A name that changes with its content (`app.3f9a0c1b.js`) may be kept for a year; everything else is asked
//! for again each time. A name wrongly taken for such a one would be a year of stale files, so what could be
//! a word, a number or a date is none.

use globset::{ErrorKind, GlobBuilder, GlobMatcher};
use http::HeaderValue;

/// For what is never changed under its name.
const FOR_EVER: HeaderValue = HeaderValue::from_static("max-age=31536000, immutable");

/// For what may change: kept, but asked for each time.
const ASK: HeaderValue = HeaderValue::from_static("no-cache");

/// What a deployment says about some of its files.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pattern: GlobMatcher,
    value: HeaderValue,
}

impl Rule {
    /// For the files whose path below the mount matches: `*` is any part of a name, `**` any folders.
    ///
    /// # Errors
    ///
    /// A pattern that is none, or a value that no header can have.
    pub(super) fn new(pattern: &str, value: &str) -> Result<Self, String> {
        let path = pattern.strip_prefix('/').unwrap_or(pattern);
        if path.is_empty() {
            return Err(format!("the pattern `{pattern}` matches no file"));
        }
        let glob = GlobBuilder::new(path).literal_separator(true).backslash_escape(true).build();
        let glob = glob
            .map_err(|error| format!("the pattern `{pattern}` cannot be read: {}", reason(error.kind())))?;
        let header = HeaderValue::from_str(value.trim())
            .ok()
            .filter(|header| !header.is_empty() && header.to_str().is_ok())
            .ok_or_else(|| format!("`{value}` for `{pattern}` cannot be a `Cache-Control`"))?;
        Ok(Self { pattern: glob.compile_matcher(), value: header })
    }
}

/// The words of `globset` are sentences about its own syntax tree.
fn reason(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnclosedClass => "`[` is not closed".into(),
        ErrorKind::InvalidRange(from, to) => format!("`{from}-{to}` runs backwards"),
        ErrorKind::UnopenedAlternates => "`}` closes nothing".into(),
        ErrorKind::UnclosedAlternates => "`{` is not closed".into(),
        ErrorKind::DanglingEscape => "nothing follows the last `\\`".into(),
        other => other.to_string(),
    }
}

/// What a deployment says; the first that matches counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    /// Behind those there are.
    pub(super) fn push(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    /// The `Cache-Control` of the file at a path below the mount, decoded and without a slash in front.
    pub(super) fn value(&self, path: &str) -> HeaderValue {
        match self.0.iter().find(|rule| rule.pattern.is_match(path)) {
            Some(rule) => rule.value.clone(),
            None if is_fingerprinted(path) => FOR_EVER,
            None => ASK,
        }
    }
}

/// Whether a file has a hash of its content in its name, as bundlers put it there: `stem.HASH.ext` or
/// `stem-HASH.ext`, also with `.min`, `.chunk` or `.map`. No page ever has, for its name is what is linked to.
pub(super) fn is_fingerprinted(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    let Some((mut rest, mut extension)) = name.rsplit_once('.') else { return false };
    if extension == "map" {
        let Some((before, mapped)) = rest.rsplit_once('.').filter(|(_, mapped)| is_code(mapped)) else {
            return false;
        };
        (rest, extension) = (before, mapped);
    }
    if !is_extension(extension) {
        return false;
    }
    if is_code(extension)
        && let Some(before) = rest.strip_suffix(".min").or_else(|| rest.strip_suffix(".chunk"))
    {
        rest = before;
    }
    if let Some((stem, hash)) = rest.rsplit_once('.')
        && hash.len() >= 6
        && is_hash(hash)
    {
        return !stem.is_empty();
    }
    match rest.rsplit_once('-') {
        Some((stem, hash)) => hash.len() >= 8 && is_hash(hash) && !stem.is_empty() && !ends_like_a_uuid(stem),
        None => false,
    }
}

fn is_code(extension: &str) -> bool {
    matches!(extension, "css" | "js" | "mjs")
}

/// Begins with a letter and is none of a page.
fn is_extension(extension: &str) -> bool {
    extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && !["htm", "html", "shtml", "xht", "xhtml"].iter().any(|page| extension.eq_ignore_ascii_case(page))
}

/// Lower-case hexadecimal in which digits and letters are mixed: `facade`, `feb2024` and `20241124a` are not,
/// and `face2face` has too few digits. One in ten hashes of eight is not either, and is asked for again.
fn is_hash(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_hex = bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let turns = bytes.windows(2).filter(|two| two[0].is_ascii_digit() != two[1].is_ascii_digit()).count();
    is_hex && digits >= 2 && turns >= 2
}

/// The last group of a UUID says which thing it is, not what is in it.
fn ends_like_a_uuid(stem: &str) -> bool {
    stem.rsplit_once('-')
        .is_some_and(|(_, group)| group.len() == 4 && group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_bundlers_are_seen() {
        for name in [
            "app.3f9a0c1b.js",
            "app.1a2b3c.css",
            "app.3f9a0c1b.min.js",
            "app.3f9a0c1b.js.map",
            "app.3f9a0c1b.css.map",
            "app.3f9a0c1b.min.js.map",
            "app.3f9a0c1b.chunk.css",
            "2.3f9a0c1b.chunk.js",
            "runtime-main.3f9a0c1b.js",
            "index-3f9a0c1b.js",
            "index-3f9a0c1b.mjs",
            "index-3f9a0c1b.js.map",
            "app-3f9a0c1b.min.css",
            "logo.3f9a0c1bd2e4.svg",
            "font.3f9a0c1b.woff2",
            "film-3f9a0c1b.mp4",
            "jquery-3.7.1-3f9a0c1b.min.js",
            "jquery-3.7.1.3f9a0c1b.min.js",
            "d41d8cd98f00b204e9800998ecf8427e.d41d8cd98f00b204e9800998ecf8427e.js",
            "app-d41d8cd98f00b204e9800998ecf8427e.js",
            "static/js/app.3f9a0c1b.js",
            "a b.3f9a0c1b.js",
            "größe.3f9a0c1b.png",
        ] {
            assert!(is_fingerprinted(name), "{name}");
        }
    }

    #[test]
    fn words_numbers_and_dates_are_no_hashes() {
        for name in [
            "",
            "app",
            "app.js",
            "app.min.js",
            "app.js.map",
            "jquery-3.7.1.min.js",
            "v1.2.3",
            "lib-1.2.3.tar.gz",
            "libx.so.3f9a0c",
            // Words, numbers and dates.
            "app.facade.js",
            "app.decade.js",
            "app.deadbeef.js",
            "app-deadbeef.js",
            "photo.1234567.jpg",
            "photo-12345678.jpg",
            "report-20241124.pdf",
            "report-20241124a.pdf",
            "report-2024112b.pdf",
            "report.feb2024.pdf",
            "report.dec2024.pdf",
            "report.2024dec.pdf",
            "report-2024-11-24.pdf",
            "photo-face2face.jpg",
            "cafe.ace2024.png",
            "notes.abc123.txt",
            // Too short.
            "app.3f9a0.js",
            "app-3f9a0c1.js",
            "app-3f9a0c.js",
            // Not lower-case hexadecimal.
            "app.3F9A0C1B.js",
            "app.3f9a0c1g.js",
            "index-BkRz2f1a.js",
            "app_3f9a0c1b.js",
            // Nothing but the hash, or nothing behind it.
            "3f9a0c1b.js",
            ".3f9a0c1b.js",
            "-3f9a0c1b.js",
            "app.3f9a0c1b",
            "app.3f9a0c1b.",
            "app.3f9a0c1b.1",
            "app.3f9a0c1b.7z",
            // It is a folder's.
            "app.3f9a0c1b.js/app.js",
            "app-3f9a0c1b/app.js",
            // It stands elsewhere.
            "3f9a0c1b.app.js",
            "app.3f9a0c1b.es5.js",
            "app.3f9a0c1b.min.png",
            "app.3f9a0c1b.js.txt",
            "app.3f9a0c1b.map",
            "app.3f9a0c1b.png.map",
            "app.min.3f9a0c1b.js.gz.map",
            // Pages.
            "about.3f9a0c1b.html",
            "about-3f9a0c1b.HTML",
            "about.3f9a0c1b.htm",
            "about.3f9a0c1b.xhtml",
            // Things with a number of their own.
            "avatar-550e8400-e29b-41d4-a716-4466554400a0.png",
            "550e8400-e29b-41d4-a716-44a655b40000.png",
        ] {
            assert!(!is_fingerprinted(name), "{name}");
        }
    }

    #[test]
    fn patterns_match_paths() {
        #[track_caller]
        fn check(pattern: &str, path: &str, expected: bool) {
            let mut rules = Rules::default();
            rules.push(Rule::new(pattern, "max-age=60").unwrap());
            assert_eq!(rules.value(path) == "max-age=60", expected, "{pattern} {path}");
        }
        check("a.txt", "a.txt", true);
        check("/a.txt", "a.txt", true);
        check("a.txt", "b/a.txt", false);
        check("a.txt", "A.txt", false);
        check("a.txt", "a-txt", false);
        check("assets/*", "assets/a.js", true);
        check("/assets/*", "assets/a.js", true);
        check("assets/*", "assets/a/b.js", false);
        check("assets/*", "other/assets/a.js", false);
        check("assets/**", "assets/a/b.js", true);
        check("assets/**/*.js", "assets/b.js", true);
        check("assets/**/*.js", "assets/a/b/c.js", true);
        check("*", "a.txt", true);
        check("*", "a/b.txt", false);
        check("**", "a/b.txt", true);
        check("*.html", "index.html", true);
        check("*.html", "a/index.html", false);
        check("**/*.html", "index.html", true);
        check("**/*.html", "a/b/index.html", true);
        check("**/index.*", "a/index.html", true);
        check("*.{css,js}", "a.js", true);
        check("*.{css,js}", "a.jss", false);
        check("[ab].txt", "b.txt", true);
        check("[!ab].txt", "b.txt", false);
        check("a?c", "a/c", false);
        check("a?c", "abc", true);
        check("a[/]c", "a/c", false);
        check("\\*.txt", "*.txt", true);
        check("\\*.txt", "a.txt", false);
        check("größe/*", "größe/ä.txt", true);
        check("a b/*", "a b/c", true);
    }

    #[test]
    fn the_first_rule_counts_and_else_the_name() {
        let mut rules = Rules::default();
        let check =
            |rules: &Rules, path: &str, expected: &str| assert_eq!(rules.value(path), expected, "{path}");
        check(&rules, "index.html", "no-cache");
        check(&rules, "assets/app.3f9a0c1b.js", "max-age=31536000, immutable");
        rules.push(Rule::new("assets/*.js", " max-age=60 ").unwrap());
        rules.push(Rule::new("assets/*", "no-store").unwrap());
        check(&rules, "assets/app.3f9a0c1b.js", "max-age=60");
        check(&rules, "assets/app.css", "no-store");
        check(&rules, "other/app.3f9a0c1b.js", "max-age=31536000, immutable");
        check(&rules, "index.html", "no-cache");
    }

    #[test]
    fn what_is_no_rule_is_said() {
        #[track_caller]
        fn check(pattern: &str, value: &str, expected: &str) {
            assert_eq!(Rule::new(pattern, value).unwrap_err(), expected);
        }
        check("", "no-cache", "the pattern `` matches no file");
        check("/", "no-cache", "the pattern `/` matches no file");
        check("a[b", "no-cache", "the pattern `a[b` cannot be read: `[` is not closed");
        check("a{b", "no-cache", "the pattern `a{b` cannot be read: `{` is not closed");
        check("a}b", "no-cache", "the pattern `a}b` cannot be read: `}` closes nothing");
        check("[z-a]", "no-cache", "the pattern `[z-a]` cannot be read: `z-a` runs backwards");
        check("a\\", "no-cache", "the pattern `a\\` cannot be read: nothing follows the last `\\`");
        check("*.js", "", "`` for `*.js` cannot be a `Cache-Control`");
        check("*.js", " ", "` ` for `*.js` cannot be a `Cache-Control`");
        check("*.js", "a\nb", "`a\nb` for `*.js` cannot be a `Cache-Control`");
        check("*.js", "für immer", "`für immer` for `*.js` cannot be a `Cache-Control`");
    }
}
