//! What the test suites of other servers of files hold, as cases of our own over a real socket: each names its suite,
//! file and test. Where ours is another answer on purpose, the case says theirs beside it and why.

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    time::{Duration, SystemTime},
};

use combo::{
    Deployment,
    mount::{self, Files},
};
use flate2::{Compression, write::GzEncoder};

use crate::{
    site::{ANY_PORT, Site},
    wire::{Answer, get},
};

/// The test that it is from, the request line, headers, the status, headers of the answer, and its body.
///
/// In a request, `{etag}` and `{modified}` are what a `HEAD` says before. Of an answer, `-` is a header that is not
/// there, and what begins with `~` is a part of a header or body; `*` is any body.
type Case = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    u16,
    &'static [(&'static str, &'static str)],
    &'static str,
);

const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");

/// nginx-tests: `range.t`, `range_if_range.t`, `not_modified.t`, `index.t`, `http_try_files.t`, `gunzip_static.t`,
/// `charset_gzip_static.t`, `autoindex.t`, `autoindex_format.t`.
const NGINX: &[Case] = &[
    (
        "range: range request",
        "GET /t1.html",
        &[("Range", "bytes=0-8")],
        206,
        &[("content-length", "9"), ("content-range", "bytes 0-8/1000")],
        "X000XXXXX",
    ),
    (
        "range: final bytes",
        "GET /t1.html",
        &[("Range", "bytes=-10")],
        206,
        &[("content-length", "10"), ("content-range", "bytes 990-999/1000")],
        "X099XXXXXX",
    ),
    (
        "range: final bytes explicit",
        "GET /t1.html",
        &[("Range", "bytes=990-")],
        206,
        &[("content-range", "bytes 990-999/1000")],
        "X099XXXXXX",
    ),
    (
        "range: more than length",
        "GET /t1.html",
        &[("Range", "bytes=990-1990")],
        206,
        &[("content-length", "10"), ("content-range", "bytes 990-999/1000")],
        "X099XXXXXX",
    ),
    (
        "range: multipart",
        "GET /t1.html",
        &[("Range", "bytes=0-9, -10, 10-19")],
        206,
        &[("content-type", "~multipart/byteranges; boundary="), ("content-range", "-")],
        "~X000XXXXXXX001XXXXXX",
    ),
    (
        "range: multipart big",
        "GET /t1.html",
        &[("Range", "bytes=0-9, -10, 100000-, 10-19")],
        206,
        &[("content-type", "~multipart/byteranges; boundary=")],
        "~X099XXXXXX",
    ),
    (
        "range: not satisfiable - too big first byte pos",
        "GET /t1.html",
        &[("Range", "bytes=100000-")],
        416,
        &[("content-range", "bytes */1000")],
        "",
    ),
    // Theirs: 416. What cannot be read is ignored (RFC 9110, 14.2).
    (
        "range: not satisfiable - alpha in first byte pos",
        "GET /t1.html",
        &[("Range", "bytes=alpha")],
        200,
        &[("content-length", "1000")],
        "*",
    ),
    (
        "range: not satisfiable - alpha in last byte pos",
        "GET /t1.html",
        &[("Range", "bytes=10-alpha")],
        200,
        &[],
        "*",
    ),
    ("range: not satisfiable - no hyphen", "GET /t1.html", &[("Range", "bytes=10")], 200, &[], "*"),
    ("range: not satisfiable - no comma", "GET /t1.html", &[("Range", "bytes=10-11 12-")], 200, &[], "*"),
    (
        "range: satisfiable - last byte pos adjusted",
        "GET /t1.html",
        &[("Range", "bytes=0-10001")],
        206,
        &[("content-range", "bytes 0-999/1000")],
        "*",
    ),
    (
        "range: not satisfiable - malicious byte ranges",
        "GET /t1.html",
        &[("Range", "bytes=0-10001, 0-0")],
        200,
        &[("content-range", "-")],
        "*",
    ),
    (
        "range_if_range: if-range wrong",
        "GET /t1.html",
        &[("Range", "bytes=0-9"), ("If-Range", "wrong")],
        200,
        &[("last-modified", "~GMT")],
        "*",
    ),
    // nginx: 206. What may also be sent compressed has the same date in each coding, so it is a weak one (RFC 9110, 8.8.1).
    (
        "range_if_range: if-range",
        "GET /t1.html",
        &[("Range", "bytes=0-9"), ("If-Range", "{modified}")],
        200,
        &[],
        "*",
    ),
    (
        "not_modified: 0x7F000000",
        "GET /empty.txt",
        &[("If-Modified-Since", "Wed, 08 Jul 2037 22:53:52 GMT")],
        304,
        &[],
        "",
    ),
    (
        "not_modified: 0x7FFFFFFF",
        "GET /empty.txt",
        &[("If-Modified-Since", "Tue, 19 Jan 2038 03:14:07 GMT")],
        304,
        &[],
        "",
    ),
    (
        "not_modified: 0x7FFFFFFF + 1",
        "GET /empty.txt",
        &[("If-Modified-Since", "Tue, 19 Jan 2038 03:14:08 GMT")],
        304,
        &[],
        "",
    ),
    (
        "not_modified: 0x17FFFFFFF",
        "GET /empty.txt",
        &[("If-Modified-Since", "Fri, 25 Feb 2174 09:42:23 GMT")],
        304,
        &[],
        "",
    ),
    ("not_modified: if-none-match", "GET /empty.txt", &[("If-None-Match", "{etag}")], 304, &[], ""),
    ("not_modified: if-none-match fail", "GET /empty.txt", &[("If-None-Match", "\"foo\"")], 200, &[], ""),
    (
        "not_modified: if-none-match with complex list",
        "GET /empty.txt",
        &[("If-None-Match", "\"foo\", \"bar\", {etag} , \"baz\"")],
        304,
        &[],
        "",
    ),
    ("not_modified: if-none-match all", "GET /empty.txt", &[("If-None-Match", "*")], 304, &[], ""),
    ("not_modified: if-none-match weak", "GET /empty.txt", &[("If-None-Match", "W/{etag}")], 304, &[], ""),
    ("not_modified: if-match", "GET /empty.txt", &[("If-Match", "{etag}")], 200, &[], ""),
    ("not_modified: if-match fail", "GET /empty.txt", &[("If-Match", "\"foo\"")], 412, &[], ""),
    (
        "not_modified: if-match with complex list",
        "GET /empty.txt",
        &[("If-Match", "\"foo\", \"bar\", \t{etag} , \"baz\"")],
        200,
        &[],
        "",
    ),
    ("not_modified: if-match all", "GET /empty.txt", &[("If-Match", "*")], 200, &[], ""),
    ("not_modified: if-match weak fail", "GET /empty.txt", &[("If-Match", "W/{etag}")], 412, &[], ""),
    ("not_modified: if-match ignored with 404", "GET /nx", &[("If-Match", "\"foo\"")], 404, &[], "*"),
    ("index: default index", "GET /pets/", &[], 200, &[HTML], "tobi,loki,jane\n"),
    // Theirs: 403. A folder without a page is not there (RFC 9110, 15.5.4).
    ("index: no index", "GET /no-index/pets/", &[], 404, &[], "*"),
    ("index: many", "GET /many/", &[], 200, &[], "manybody"),
    ("index: not found", "GET /not_found/", &[], 404, &[], "*"),
    ("index: not a directory", "GET /t1.html/", &[], 404, &[], "*"),
    ("http_try_files: found", "GET /app/t1.html", &[("Accept", "text/html")], 200, &[], "*"),
    (
        "http_try_files: not found uri",
        "GET /app/uri/notfound",
        &[("Accept", "text/html")],
        200,
        &[],
        "<p>tobi</p>",
    ),
    (
        "http_try_files: short uri in try_files",
        "GET /app/short/long.js",
        &[("Accept", "text/html")],
        404,
        &[],
        "*",
    ),
    (
        "gunzip_static: gzip still works",
        "GET /made.txt",
        &[("Accept-Encoding", "gzip")],
        200,
        &[("content-encoding", "gzip"), ("vary", "accept-encoding")],
        "*",
    ),
    (
        "gunzip_static: head vary",
        "HEAD /made.txt",
        &[],
        200,
        &[("content-encoding", "-"), ("vary", "accept-encoding")],
        "",
    ),
    // Theirs: decompressed. There is no such file.
    ("gunzip_static: correct gunzipped response", "GET /only_gzipped.txt", &[], 404, &[], "*"),
    ("charset_gzip_static: plain", "GET /made.txt", &[], 200, &[TEXT, ("content-encoding", "-")], "*"),
    (
        "charset_gzip_static: gzip",
        "GET /made.txt",
        &[("Accept-Encoding", "gzip")],
        200,
        &[TEXT, ("content-encoding", "gzip")],
        "*",
    ),
    ("autoindex: file", "GET /list/listed/", &[], 200, &[HTML], "~href=\"./test-file\""),
    ("autoindex: symlink to file", "GET /list/listed/", &[], 200, &[], "~href=\"./test-file-link\""),
    ("autoindex: directory", "GET /list/listed/", &[], 200, &[], "~href=\"./test-dir/\""),
    ("autoindex: symlink to directory", "GET /list/listed/", &[], 200, &[], "~href=\"./test-dir-link/\""),
    ("autoindex: colon not scheme", "GET /list/listed/", &[], 200, &[], "~href=\"./test-colon%3Ablah\""),
    ("autoindex: escaped url", "GET /list/listed/", &[], 200, &[], "~href=\"./test-escape-url-%25\""),
    ("autoindex: escaped ? in url", "GET /list/listed/", &[], 200, &[], "~href=\"./test-escape-url2-%3F\""),
    ("autoindex: escaped html", "GET /list/listed/", &[], 200, &[], "~test-escape-html-&lt;&gt;&amp;<"),
    // Theirs: shortened. The whole name is shown, and wrapped.
    (
        "autoindex: long name",
        "GET /list/listed/",
        &[],
        200,
        &[],
        "~test-long-00000000000000000000000000000000000000000000000000<",
    ),
    ("autoindex: utf8", "GET /list/listed/", &[], 200, &[], "~test-utf8-ффф<"),
    ("autoindex: utf8 escaped", "GET /list/listed/", &[], 200, &[], "~test-utf8-&lt;&gt;&amp;-ф<"),
    (
        "autoindex: escaped title",
        "GET /list/listed/test-dir-escape-%3C%3E&/",
        &[],
        200,
        &[],
        "~test-dir-escape-&lt;&gt;&amp;",
    ),
    (
        "autoindex_format: json content type",
        "GET /list/listed/",
        &[("Accept", "application/json")],
        200,
        &[("content-type", "application/json")],
        "*",
    ),
    (
        "autoindex_format: json file",
        "GET /list/listed/",
        &[("Accept", "application/json")],
        200,
        &[],
        "~{\"name\":\"test-file\",\"type\":\"file\",\"mtime\":\"",
    ),
    (
        "autoindex_format: json file link size",
        "GET /list/listed/",
        &[("Accept", "application/json")],
        200,
        &[],
        "~GMT\",\"size\":42}",
    ),
    (
        "autoindex_format: json dir",
        "GET /list/listed/",
        &[("Accept", "application/json")],
        200,
        &[],
        "~{\"name\":\"test-dir\",\"type\":\"directory\",\"mtime\":\"",
    ),
    (
        "autoindex_format: json double",
        "GET /list/listed/",
        &[("Accept", "application/json")],
        200,
        &[],
        "~\"test-\\\"-double\"",
    ),
    // Theirs: a call of that function. There is no JSONP.
    (
        "autoindex_format: jsonp callback",
        "GET /list/listed/test-dir/?callback=foo",
        &[("Accept", "application/json")],
        200,
        &[("content-type", "application/json")],
        "[]\n",
    ),
];

/// npm `send`: `test/send.js`.
const SEND: &[Case] = &[
    ("should stream the file contents", "GET /name.txt", &[], 200, &[("content-length", "4"), TEXT], "tobi"),
    ("should stream a zero-length file", "GET /empty.txt", &[], 200, &[("content-length", "0")], ""),
    ("should decode the given path as a URI", "GET /some%20thing.txt", &[], 200, &[], "hey"),
    ("should serve files with dots in name", "GET /do..ts.txt", &[], 200, &[], "..."),
    // Theirs: 400. A name that cannot be is not there.
    ("should treat a malformed URI as a bad request", "GET /some%99thing.txt", &[], 404, &[], "*"),
    ("should 400 on NULL bytes", "GET /some%00thing.txt", &[], 404, &[], "*"),
    ("should support HEAD", "HEAD /name.txt", &[], 200, &[("content-length", "4")], ""),
    // Theirs: a weak one. Ours is by contents.
    ("should add an ETag header field", "GET /name.txt", &[], 200, &[("etag", "~\"")], "*"),
    ("should add a Date header field", "GET /name.txt", &[], 200, &[("date", "~GMT")], "*"),
    ("should add a Last-Modified header field", "GET /name.txt", &[], 200, &[("last-modified", "~GMT")], "*"),
    (
        "should add a Accept-Ranges header field",
        "GET /name.txt",
        &[],
        200,
        &[("accept-ranges", "bytes")],
        "*",
    ),
    (
        "should 404 if the file does not exist",
        "GET /meow",
        &[],
        404,
        &[("x-content-type-options", "nosniff")],
        "not found\n",
    ),
    ("should set Content-Type via mime map", "GET /tobi.html", &[], 200, &[HTML], "<p>tobi</p>"),
    (
        "should default Content-Type to octet-stream",
        "GET /no_ext",
        &[],
        200,
        &[("content-type", "application/octet-stream")],
        "foobar",
    ),
    // Theirs: 301, which browsers keep for ever (RFC 9110, 15.4.2).
    ("should redirect directories to trailing slash", "GET /pets", &[], 307, &[("location", "/pets/")], "*"),
    (
        "should not redirect to protocol-relative locations",
        "GET //pets",
        &[],
        307,
        &[("location", "/pets/")],
        "*",
    ),
    (
        "should respond with an HTML redirect",
        "GET /snow%20%E2%98%83",
        &[],
        307,
        &[("location", "/snow%20%E2%98%83/")],
        "*",
    ),
    (
        "should remove Content headers with 304",
        "GET /name.txt",
        &[("If-None-Match", "{etag}")],
        304,
        &[("content-length", "-"), ("content-type", "-")],
        "",
    ),
    ("If-Match: should respond with 200 when \"*\"", "GET /name.txt", &[("If-Match", "*")], 200, &[], "tobi"),
    (
        "If-Match: should respond with 412 when ETag unmatched",
        "GET /name.txt",
        &[("If-Match", " \"foo\",, \"bar\" ,")],
        412,
        &[],
        "",
    ),
    (
        "If-Match: should respond with 200 when ETag matched",
        "GET /name.txt",
        &[("If-Match", "\"foo\", \"bar\", {etag}")],
        200,
        &[],
        "tobi",
    ),
    (
        "If-Modified-Since: should respond with 304 when unmodified",
        "GET /name.txt",
        &[("If-Modified-Since", "{modified}")],
        304,
        &[],
        "",
    ),
    (
        "If-Modified-Since: should respond with 200 when modified",
        "GET /name.txt",
        &[("If-Modified-Since", "Tue, 01 Jan 2019 00:00:00 GMT")],
        200,
        &[],
        "tobi",
    ),
    (
        "If-None-Match: should respond with 200 when ETag unmatched",
        "GET /name.txt",
        &[("If-None-Match", "\"123\"")],
        200,
        &[],
        "tobi",
    ),
    (
        "If-Unmodified-Since: should respond with 200 when unmodified",
        "GET /name.txt",
        &[("If-Unmodified-Since", "{modified}")],
        200,
        &[],
        "tobi",
    ),
    (
        "If-Unmodified-Since: should respond with 412 when modified",
        "GET /name.txt",
        &[("If-Unmodified-Since", "Tue, 01 Jan 2019 00:00:00 GMT")],
        412,
        &[],
        "",
    ),
    (
        "If-Unmodified-Since: should respond with 200 when invalid date",
        "GET /name.txt",
        &[("If-Unmodified-Since", "foo")],
        200,
        &[],
        "tobi",
    ),
    ("should support byte ranges", "GET /nums.txt", &[("Range", "bytes=0-4")], 206, &[], "12345"),
    ("should ignore non-byte ranges", "GET /nums.txt", &[("Range", "items=0-4")], 200, &[], "123456789"),
    ("should be inclusive", "GET /nums.txt", &[("Range", "bytes=0-0")], 206, &[], "1"),
    (
        "should set Content-Range",
        "GET /nums.txt",
        &[("Range", "bytes=2-5")],
        206,
        &[("content-range", "bytes 2-5/9")],
        "3456",
    ),
    ("should support -n", "GET /nums.txt", &[("Range", "bytes=-3")], 206, &[], "789"),
    ("should support n-", "GET /nums.txt", &[("Range", "bytes=3-")], 206, &[], "456789"),
    (
        "should set Content-Length to the # of octets transferred",
        "GET /nums.txt",
        &[("Range", "bytes=2-3")],
        206,
        &[("content-length", "2")],
        "34",
    ),
    (
        "is taken to be equal to one less than the length",
        "GET /nums.txt",
        &[("Range", "bytes=2-50")],
        206,
        &[("content-range", "bytes 2-8/9"), ("content-length", "7")],
        "3456789",
    ),
    (
        "when the first-byte-pos is greater: should respond with 416",
        "GET /nums.txt",
        &[("Range", "bytes=9-50")],
        416,
        &[("content-range", "bytes */9")],
        "",
    ),
    ("when syntactically invalid", "GET /nums.txt", &[("Range", "asdf")], 200, &[], "123456789"),
    // Theirs: all of it, for it sends no several parts. What lies close together is one (RFC 9110, 14.2).
    (
        "when multiple ranges",
        "GET /nums.txt",
        &[("Range", "bytes=1-1,3-")],
        206,
        &[("content-range", "bytes 1-8/9")],
        "23456789",
    ),
    (
        "should respond with 206 is all ranges can be combined",
        "GET /nums.txt",
        &[("Range", "bytes=1-2,3-5")],
        206,
        &[("content-range", "bytes 1-5/9")],
        "23456",
    ),
    (
        "if-range: should respond with parts when etag unchanged",
        "GET /nums.txt",
        &[("If-Range", "{etag}"), ("Range", "bytes=0-0")],
        206,
        &[],
        "1",
    ),
    (
        "if-range: should respond with 200 when etag changed",
        "GET /nums.txt",
        &[("If-Range", "\"another\""), ("Range", "bytes=0-0")],
        200,
        &[],
        "123456789",
    ),
    (
        "if-range: should respond with parts when modified unchanged",
        "GET /nums.txt",
        &[("If-Range", "{modified}"), ("Range", "bytes=0-0")],
        206,
        &[],
        "1",
    ),
    (
        "if-range: should respond with 200 when modified changed",
        "GET /nums.txt",
        &[("If-Range", "Tue, 01 Jan 2019 00:00:00 GMT"), ("Range", "bytes=0-0")],
        200,
        &[],
        "123456789",
    ),
    (
        "if-range: should respond with 200 when invalid value",
        "GET /nums.txt",
        &[("If-Range", "foo"), ("Range", "bytes=0-0")],
        200,
        &[],
        "123456789",
    ),
    ("extensions: should be not be enabled by default", "GET /tobi", &[], 404, &[], "*"),
    ("extensions: should be configurable", "GET /ext/tobi", &[], 200, &[HTML], "<p>tobi</p>"),
    ("extensions: should 404 if nothing found", "GET /ext/bob", &[], 404, &[], "*"),
    // Theirs: 404. Its name without `.html` is what was asked for.
    (
        "extensions: should not search if file has extension",
        "GET /ext/thing.html",
        &[],
        200,
        &[],
        "<p>trap!</p>",
    ),
    ("dotfiles: should default to \"ignore\"", "GET /.hidden.txt", &[], 404, &[], "*"),
    ("dotfiles: should ignore file within dotfile directory", "GET /.mine/name.txt", &[], 404, &[], "*"),
    ("dotfiles: should 404 for dotfile directory", "GET /.mine", &[], 404, &[], "*"),
    ("dotfiles: should 404 for non-existent dotfile", "GET /.nothere", &[], 404, &[], "*"),
    // Theirs: `public, max-age=0`. The same, said by its name (RFC 9111, 5.2.2.4).
    ("maxAge: should default to 0", "GET /name.txt", &[], 200, &[("cache-control", "no-cache")], "tobi"),
    ("index: should default to index.html", "GET /pets/", &[], 200, &[], "tobi,loki,jane\n"),
    // Theirs: 403.
    ("index: should support disabling", "GET /no-index/pets/", &[], 404, &[], "*"),
    ("index: should support fallbacks", "GET /many/pets/", &[], 200, &[], "tobi,loki,jane\n"),
    ("index: should 404 if no index file found (file)", "GET /listed/", &[], 404, &[], "*"),
    ("index: should 404 if file path contains trailing slash", "GET /tobi.html/", &[], 404, &[], "*"),
    // Theirs: the file. No app and no folder sees `..`.
    ("root: should join root", "GET /pets/../name.txt", &[], 400, &[], "*"),
    // Theirs: 403.
    ("root: should restrict paths to within root", "GET /pets/../../send.js", &[], 400, &[], "*"),
];

/// npm `serve-static`: `test/test.js`.
const SERVE_STATIC: &[Case] = &[
    ("should support nesting", "GET /pets/names.txt", &[], 200, &[TEXT], "tobi,loki"),
    ("should not choke on auth-looking URL", "GET //todo@txt", &[], 404, &[], "*"),
    // Theirs: left to others, or 405 with `GET, HEAD`.
    (
        "should skip POST requests",
        "POST /name.txt",
        &[("Content-Length", "0")],
        405,
        &[("allow", "GET, HEAD, OPTIONS")],
        "*",
    ),
    (
        "should 405 when OPTIONS request",
        "OPTIONS /name.txt",
        &[],
        204,
        &[("allow", "GET, HEAD, OPTIONS")],
        "",
    ),
    // Theirs: 400. A `%` alone is a name.
    ("should 400 when URL malformed", "GET /%", &[], 404, &[], "*"),
    (
        "should redirect directories with query string",
        "GET /pets?name=john",
        &[],
        307,
        &[("location", "/pets/?name=john")],
        "*",
    ),
    // Theirs: 403.
    ("should catch urlencoded ../", "GET /pets/%2e%2e/%2e%2e/todo.txt", &[], 400, &[], "*"),
    (
        "should obey Rage request header",
        "GET /nums.txt",
        &[("Range", "bytes=0-3")],
        206,
        &[("accept-ranges", "bytes"), ("content-range", "bytes 0-3/9")],
        "1234",
    ),
];

/// tower-http: `services/fs/serve_dir/tests.rs`.
const TOWER: &[Case] = &[
    ("head_request", "HEAD /made.txt", &[], 200, &[TEXT, ("content-length", "1000")], ""),
    (
        "precompressed_head_request",
        "HEAD /made.txt",
        &[("Accept-Encoding", "gzip")],
        200,
        &[TEXT, ("content-encoding", "gzip")],
        "",
    ),
    (
        "precompressed_gzip",
        "GET /made.txt",
        &[("Accept-Encoding", "gzip")],
        200,
        &[("content-encoding", "gzip")],
        "*",
    ),
    (
        "unsupported_precompression_alogrithm_fallbacks_to_uncompressed",
        "GET /made.txt",
        &[("Accept-Encoding", "deflate")],
        200,
        &[("content-encoding", "-")],
        "*",
    ),
    // Theirs: 200 for clients of gzip. What is not there is there for nobody.
    (
        "only_precompressed_variant_existing",
        "GET /only_gzipped.txt",
        &[("Accept-Encoding", "gzip")],
        404,
        &[],
        "*",
    ),
    (
        "missing_precompressed_variant_fallbacks_to_uncompressed",
        "GET /name.txt",
        &[("Accept-Encoding", "gzip")],
        200,
        &[("content-encoding", "-"), ("content-length", "4")],
        "tobi",
    ),
    (
        "precompressed_without_extension",
        "GET /bare",
        &[("Accept-Encoding", "gzip")],
        200,
        &[("content-type", "application/octet-stream"), ("content-encoding", "gzip")],
        "*",
    ),
    (
        "missing_precompressed_without_extension_fallbacks_to_uncompressed",
        "GET /no_ext",
        &[("Accept-Encoding", "gzip")],
        200,
        &[("content-encoding", "-")],
        "foobar",
    ),
    ("not_found_when_not_a_directory", "GET /t1.html/some_file", &[], 404, &[], "*"),
    (
        "fallbacks_to_different_precompressed_variant_if_not_found",
        "GET /bare",
        &[("Accept-Encoding", "zstd,gzip,br")],
        200,
        &[("content-encoding", "gzip")],
        "*",
    ),
    ("redirect_to_trailing_slash_on_dir", "GET /pets", &[], 307, &[("location", "/pets/")], "*"),
    (
        "redirect_to_trailing_slash_with_redirect_path_prefix",
        "GET /list/pets?key=value",
        &[],
        307,
        &[("location", "/list/pets/?key=value")],
        "*",
    ),
    // Theirs: 404 as well, if there is no page. Ours does not look.
    (
        "empty_directory_without_index_no_information_leak",
        "GET /listed",
        &[],
        307,
        &[("location", "/listed/")],
        "*",
    ),
    ("access_cjk_percent_encoded_uri_path", "GET /%E4%BD%A0%E5%A5%BD.txt", &[], 200, &[TEXT], "hey"),
    // Theirs: 206 with `bytes 0-0/0`, which no part is (RFC 9110, 14.4).
    ("read_partial_empty", "GET /empty.txt", &[("Range", "bytes=0-")], 200, &[("content-range", "-")], ""),
    (
        "read_partial_accepts_out_of_bounds_range",
        "GET /t1.html",
        &[("Range", "bytes=0-9999998")],
        206,
        &[("content-range", "bytes 0-999/1000")],
        "*",
    ),
    // Theirs: 416. What cannot be read is ignored (RFC 9110, 14.2).
    ("read_partial_errs_on_garbage_header", "GET /t1.html", &[("Range", "bad_format")], 200, &[], "*"),
    ("read_partial_errs_on_bad_range", "GET /t1.html", &[("Range", "bytes=-1-15")], 200, &[], "*"),
    // Theirs: 416, for there are no several parts.
    (
        "multipart_range_valid_returns_multipart_error_body",
        "GET /t1.html",
        &[("Range", "bytes=0-0,2-2")],
        206,
        &[("content-range", "bytes 0-2/1000")],
        "X00",
    ),
    (
        "multipart_range_overlap_returns_multipart_error_body",
        "GET /t1.html",
        &[("Range", "bytes=0-2,1-3")],
        206,
        &[("content-range", "bytes 0-3/1000")],
        "X000",
    ),
    (
        "accept_encoding_identity",
        "GET /made.txt",
        &[("Accept-Encoding", "identity")],
        200,
        &[("content-encoding", "-")],
        "*",
    ),
    ("last_modified", "GET /t1.html", &[("If-Modified-Since", "{modified}")], 304, &[], ""),
    (
        "last_modified, before",
        "GET /t1.html",
        &[("If-Modified-Since", "Fri, 09 Aug 1996 14:21:40 GMT")],
        200,
        &[],
        "*",
    ),
];

/// All that the suites have in their folders.
fn fill(folder: &Path) {
    let thousand: String = (0..100).map(|at| format!("X{at:03}XXXXXX")).collect();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(thousand.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    let long = format!("listed/test-long-{}", "0".repeat(50));
    let files = [
        ("t1.html", text(&thousand)),
        ("made.txt", text(&thousand)),
        ("made.txt.gz", gzip.clone()),
        ("bare", text(&thousand)),
        ("bare.gz", gzip.clone()),
        ("only_gzipped.txt.gz", gzip),
        ("many.html", text("manybody")),
        ("name.txt", text("tobi")),
        ("empty.txt", text("")),
        ("some thing.txt", text("hey")),
        ("do..ts.txt", text("...")),
        ("tobi.html", text("<p>tobi</p>")),
        ("thing.html.html", text("<p>trap!</p>")),
        ("no_ext", text("foobar")),
        ("nums.txt", text("123456789")),
        (".hidden.txt", text("secret")),
        (".mine/name.txt", text("tobi")),
        ("你好.txt", text("hey")),
        ("pets/index.html", text("tobi,loki,jane\n")),
        ("pets/names.txt", text("tobi,loki")),
        ("snow ☃/index.html", text("snow")),
        ("listed/test-file", text(&"x".repeat(42))),
        ("listed/test-colon:blah", text("")),
        ("listed/test-escape-url-%", text("")),
        ("listed/test-escape-url2-?", text("")),
        ("listed/test-escape-html-<>&", text("")),
        ("listed/test-\"-double", text("")),
        ("listed/test-utf8-ффф", text("")),
        ("listed/test-utf8-<>&-ф", text("")),
        (&long, text("")),
    ];
    let minute_ago = SystemTime::now() - Duration::from_secs(60);
    for (name, contents) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        fs::File::open(&path).unwrap().set_modified(minute_ago).unwrap();
    }
    let listed = folder.join("listed");
    for name in ["test-dir", "test-dir-escape-<>&"] {
        fs::create_dir(listed.join(name)).unwrap();
    }
    symlink("test-file", listed.join("test-file-link")).unwrap();
    symlink("test-dir", listed.join("test-dir-link")).unwrap();
}

fn site() -> Site {
    let files = || Files::folder("static");
    let site = Site::start(
        Deployment::new("suites")
            .listen(ANY_PORT)
            .mount("/", mount::files("static"))
            .mount("/ext", mount::files(files().html_extension()))
            .mount("/app", mount::files(files().fallback("tobi.html")))
            .mount("/list", mount::files(files().listing()))
            .mount("/many", mount::files(files().index(["nonexisting.html", "many.html", "index.html"])))
            .mount("/no-index", mount::files(files().index([""; 0]))),
    );
    fill(&site.path("static"));
    site
}

/// What is wrong with an answer.
fn wrong(answer: &Answer, status: u16, headers: &[(&str, &str)], body: &str) -> bool {
    let is = |said: &str, expected: &str| match expected.strip_prefix('~') {
        Some(part) => said.contains(part),
        None => said == expected,
    };
    let header = |(name, expected): &(&str, &str)| match answer.header(name) {
        Some(said) => is(said, expected),
        None => *expected == "-",
    };
    let body_is = body == "*" || is(&String::from_utf8_lossy(&answer.body), body);
    answer.status != status || !headers.iter().all(header) || !body_is || !answer.whole
}

fn check(suite: &str, cases: &[Case]) {
    let site = site();
    let mut found = Vec::new();
    for (title, line, headers, status, expected, body) in cases {
        let (method, target) = line.split_once(' ').unwrap();
        let known = site.wire().ask(get(target));
        let mut request = format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
        for (name, value) in *headers {
            let value = value.replace("{etag}", known.header("etag").unwrap_or_default());
            let value = value.replace("{modified}", known.header("last-modified").unwrap_or_default());
            request += &format!("{name}: {value}\r\n");
        }
        let mut wire = site.wire();
        wire.send(request + "\r\n");
        let answer = if method == "HEAD" { headed(&wire.head()) } else { wire.answer() };
        if wrong(&answer, *status, expected, body) {
            found.push(format!("{suite}: {title}: {line} {headers:?}: {answer:?}\n"));
        }
    }
    assert!(found.is_empty(), "{} of {}:\n{}", found.len(), cases.len(), found.concat());
}

/// The answer to a `HEAD`, whose length is another's.
fn headed(head: &str) -> Answer {
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    let headers = lines.map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: Vec::new(), whole: true }
}

#[test]
fn what_nginx_holds() {
    check("nginx-tests", NGINX);
}

#[test]
fn what_send_holds() {
    check("send, test/send.js", SEND);
}

#[test]
fn what_serve_static_holds() {
    check("serve-static, test/test.js", SERVE_STATIC);
}

#[test]
fn what_serve_dir_holds() {
    check("tower-http, services/fs/serve_dir/tests.rs", TOWER);
}
