//! Takes `Accept-Encoding` and `Accept`, gives which codings a client would rather have, and whether it
//! takes JSON or HTML (RFC 9110, 12.5). Pure.
//!
//! What cannot be read is not wanted, for what is sent in no coding and as HTML is understood by all.

use std::cmp::Reverse;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap};

/// A content coding that a file may be there in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Coding {
    Brotli,
    Zstd,
    Gzip,
}

impl Coding {
    /// From the best; so it stays among those that a client wants alike.
    const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// As in `Content-Encoding`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    fn is_called(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name()) || (self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip"))
    }
}

/// The codings that a client would rather have than none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Codings {
    /// In the order of preference, without gaps.
    wanted: [Option<Coding>; 3],
    /// How many of them are wanted as much as the first.
    best: usize,
}

impl Codings {
    /// None of them is wanted where nothing is said.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(ACCEPT_ENCODING) {
            return Self::default();
        }
        let (mut said, mut any, mut identity) = ([None; 3], None, None);
        for (name, mut parameters) in members(headers, &ACCEPT_ENCODING) {
            let weight = Some(match parameters.next() {
                None => Weight::FULL,
                // Nothing but a weight may follow.
                Some(parameter) if parameters.next().is_none() => weight(parameter).unwrap_or(Weight::NONE),
                Some(_) => Weight::NONE,
            });
            // Of what is said twice, as by `gzip, x-gzip`, the most counts.
            let place = if name == "*" {
                &mut any
            } else if name.eq_ignore_ascii_case("identity") {
                &mut identity
            } else if let Some(at) = Coding::ALL.iter().position(|coding| coding.is_called(name)) {
                &mut said[at]
            } else {
                continue;
            };
            *place = weight.max(*place);
        }
        let least = identity.unwrap_or(Weight::NONE).max(Weight::LEAST);
        let weights = said.map(|said| said.or(any).unwrap_or(Weight::NONE));
        let mut order = [0, 1, 2];
        order.sort_by_key(|at| Reverse(weights[*at]));
        Self {
            wanted: order.map(|at| (weights[at] >= least).then_some(Coding::ALL[at])),
            best: order.iter().filter(|at| weights[**at] == weights[order[0]]).count(),
        }
    }

    /// Whether none is.
    pub(super) fn is_empty(self) -> bool {
        self.wanted[0].is_none()
    }

    /// Whether each of them is wanted.
    pub(super) fn is_all(self) -> bool {
        self.wanted[2].is_some()
    }

    /// Whether no other one is wanted more.
    pub(super) fn is_best(self, coding: Coding) -> bool {
        self.wanted[..self.best].contains(&Some(coding))
    }

    /// From the most wanted.
    pub(super) fn iter(self) -> impl Iterator<Item = Coding> {
        self.wanted.into_iter().flatten()
    }
}

/// Whether a client would rather have JSON than HTML. Between two it wants alike, the one it names itself.
pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    if !headers.contains_key(ACCEPT) {
        return false;
    }
    let json = wish(headers, "application", "json");
    json.weight > Weight::NONE && json > wish(headers, "text", "html")
}

/// Whether a client takes HTML: it says so, or says nothing.
pub(super) fn takes_html(headers: &HeaderMap) -> bool {
    members(headers, &ACCEPT).next().is_none() || wish(headers, "text", "html").weight > Weight::NONE
}

/// How much something is wanted, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Weight(u16);

impl Weight {
    const NONE: Self = Self(0);
    const LEAST: Self = Self(1);
    const FULL: Self = Self(1000);
}

/// What is said of a media type. The most wanted is the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    weight: Weight,
    /// How exactly it is named: 0 by `*/*`, 2 by its name.
    precision: u8,
}

/// What the most exact of the media ranges that match says of a type, whose only parameter may be
/// `charset=utf-8` (RFC 9110, 12.5.1).
fn wish(headers: &HeaderMap, major: &str, minor: &str) -> Wish {
    let mut wish: Option<Wish> = None;
    for (range, parameters) in members(headers, &ACCEPT) {
        let Some((said_major, said_minor)) = range.split_once('/') else { continue };
        let mut precision = match (said_major, said_minor) {
            ("*", "*") => 0,
            (said, "*") if said.eq_ignore_ascii_case(major) => 1,
            (said, other) if said.eq_ignore_ascii_case(major) && other.eq_ignore_ascii_case(minor) => 2,
            _ => continue,
        };
        let (mut said, mut is_meant) = (Weight::FULL, true);
        for parameter in parameters {
            if is_weight(parameter) {
                said = weight(parameter).unwrap_or(Weight::NONE);
                // What follows once was an extension and means nothing any more.
                break;
            }
            precision = 3;
            is_meant &= is_utf8(parameter);
        }
        let this = Wish { weight: said, precision };
        // Of ranges that are as exact as each other, the greater.
        if is_meant && wish.is_none_or(|best| (precision, said) > (best.precision, best.weight)) {
            wish = Some(this);
        }
    }
    let wish = wish.unwrap_or_default();
    Wish { precision: wish.precision.min(2), ..wish }
}

fn is_utf8(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8")
    })
}

fn is_weight(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, _)| name.trim_end_matches(OWS).eq_ignore_ascii_case("q"))
}

/// `q=0.5` (RFC 9110, 12.4.2).
fn weight(parameter: &str) -> Option<Weight> {
    let (name, value) = parameter.split_once('=')?;
    if !name.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    if fraction.len() > 3 || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let thousandths =
        fraction.bytes().chain(*b"00").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    match whole {
        "0" => Some(Weight(thousandths)),
        "1" if thousandths == 0 => Some(Weight::FULL),
        _ => None,
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// The members of a list over all its lines, each with what follows its semicolons; none is empty.
fn members<'a>(
    headers: &'a HeaderMap,
    name: &http::HeaderName,
) -> impl Iterator<Item = (&'a str, impl Iterator<Item = &'a str>)> {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let members = lines.flat_map(|line| pieces(line, ',')).filter(|member| !member.is_empty());
    members.map(|member| {
        let mut pieces = pieces(member, ';');
        (pieces.next().unwrap_or_default(), pieces.filter(|piece| !piece.is_empty()))
    })
}

/// What stands between the separators that are not within quotes, trimmed.
fn pieces(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let separates = move |c: char| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match c {
            '"' if !was_escaped => is_quoted = !is_quoted,
            '\\' if is_quoted => is_escaped = !was_escaped,
            _ => {}
        }
        c == separator && !is_quoted
    };
    text.split(separates).map(|piece| piece.trim_matches(OWS))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: &HeaderName, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let _ = headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn codings_come_in_the_order_of_preference() {
        #[track_caller]
        fn check(lines: &[&str], expected: &str) {
            let codings = Codings::of(&headers(&ACCEPT_ENCODING, lines));
            assert_eq!(codings.iter().map(Coding::name).collect::<Vec<_>>().join(" "), expected, "{lines:?}");
        }
        check(&[], "");
        check(&[""], "");
        check(&["identity"], "");
        check(&["gzip"], "gzip");
        check(&["GZip"], "gzip");
        check(&["x-gzip"], "gzip");
        check(&["gzip, x-gzip;q=0.5"], "gzip");
        check(&["deflate, compress, sdch, dcb"], "");
        check(&["gzip, deflate"], "gzip");
        check(&["gzip, deflate, br, zstd"], "br zstd gzip");
        check(&["gzip,zstd"], "zstd gzip");
        check(&["br2, xbr, gzipp, gzi"], "");
        // By weight.
        check(&["gzip;q=1.0, br;q=0.5, zstd;q=0.8"], "gzip zstd br");
        check(&["br;q=0.9, gzip;q=0.9"], "br gzip");
        check(&["gzip;q=0.001"], "gzip");
        check(&["br;q=0.999, gzip;q=1"], "gzip br");
        check(&["gzip;Q=0.5,br;q=0.25"], "gzip br");
        check(&["gzip ; q=0.5,\tbr;\tq=0.6"], "br gzip");
        check(&["gzip;q=0.5, br;q=0."], "gzip");
        check(&["br;q=1., gzip;q=0.9"], "br gzip");
        // Not at all.
        check(&["gzip;q=0"], "");
        check(&["gzip;q=0.000, br"], "br");
        check(&["br;q=0, *"], "zstd gzip");
        // Everything.
        check(&["*"], "br zstd gzip");
        check(&["*;q=0"], "");
        check(&["gzip, *;q=0"], "gzip");
        check(&["gzip, *;q=0.5"], "gzip br zstd");
        check(&["*;q=0.5, zstd;q=0.4"], "br gzip zstd");
        // Rather as it is.
        check(&["identity, gzip;q=0.5"], "");
        check(&["gzip;q=0.5, identity;q=0.5"], "gzip");
        check(&["gzip;q=0.5, br;q=0.7, identity;q=0.6"], "br");
        check(&["gzip, identity;q=0"], "gzip");
        check(&["gzip;q=0, identity;q=0"], "");
        check(&["gzip;q=1.0, identity; q=0.5, *;q=0"], "gzip");
        check(&["identity;q=0, *;q=0"], "");
        check(&["identity;q=0, *"], "br zstd gzip");
        // Several lines, empty members, the same twice.
        check(&["gzip", "br"], "br gzip");
        check(&[", ,gzip,,", ",br"], "br gzip");
        check(&["gzip;q=0.1, br;q=0.5, gzip;q=0.9"], "gzip br");
        // What cannot be read.
        check(&["gzip;q=2"], "");
        check(&["gzip;q=1.001"], "");
        check(&["gzip;q=0.1234"], "");
        check(&["gzip;q=-1"], "");
        check(&["gzip;q=.5"], "");
        check(&["gzip;q="], "");
        check(&["gzip;q=0,5"], "");
        check(&["gzip;q=\"1\""], "");
        check(&["gzip;q = 1"], "");
        check(&["gzip;level=9"], "");
        check(&["gzip;q=1;level=9"], "");
        check(&["gzip;"], "gzip");
        check(&["gzip br"], "");
        check(&["\"gzip\""], "");
        check(&["gzip;q=x, br, *"], "br zstd");
        check(&["é, gzip"], "");
        check(&["é", "gzip"], "gzip");
    }

    #[test]
    fn long_lists_are_read_in_one_pass() {
        let long = format!("{}gzip", "x;q=0.5,,".repeat(7000));
        assert_eq!(Codings::of(&headers(&ACCEPT_ENCODING, &[&long])).iter().count(), 1);
        assert!(takes_html(&headers(&ACCEPT, &[&long.replace("gzip", "text/html")])));
    }

    #[test]
    fn json_is_for_those_who_would_rather_have_it() {
        /// Whether JSON is wanted and HTML is taken.
        #[track_caller]
        fn check(lines: &[&str], json: bool, html: bool) {
            let headers = headers(&ACCEPT, lines);
            assert_eq!((wants_json(&headers), takes_html(&headers)), (json, html), "{lines:?}");
        }
        check(&[], false, true);
        check(&[""], false, true);
        check(&[" , "], false, true);
        check(&["*/*"], false, true);
        check(&["text/html"], false, true);
        check(&["text/*"], false, true);
        check(&["TEXT/HTML"], false, true);
        check(&["application/json"], true, false);
        check(&["Application/JSON"], true, false);
        check(&["application/*"], true, false);
        check(&["image/*"], false, false);
        check(&["text/plain"], false, false);
        // A browser; its images, styles and scripts.
        check(&["text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"], false, true);
        check(&["image/avif,image/webp,image/svg+xml,*/*;q=0.8"], false, true);
        check(&["text/css,*/*;q=0.1"], false, true);
        // By weight.
        check(&["application/json, text/html;q=0.9"], true, true);
        check(&["application/json;q=0.9, text/html"], false, true);
        check(&["application/json;q=0.5, text/html;q=0.5"], false, true);
        check(&["application/json;q=0.1"], true, false);
        check(&["application/json, */*;q=0.1"], true, true);
        check(&["text/html;q=0.4, */*;q=0.5"], true, true);
        // Alike, but only one is named.
        check(&["application/json, text/plain, */*"], true, true);
        check(&["text/html, */*"], false, true);
        check(&["application/json, text/*"], true, true);
        check(&["application/*, text/html"], false, true);
        check(&["application/json, text/html"], false, true);
        check(&["application/json;charset=utf-8, text/html"], false, true);
        // The most exact counts, wherever it stands.
        check(&["*/*, text/html;q=0"], true, false);
        check(&["text/html;q=0, text/*, */*;q=0.5"], true, false);
        check(&["text/*;q=0.2, text/html;q=0.9, application/json;q=0.5"], false, true);
        check(&["text/*;q=0.9, text/html;q=0.2, application/json;q=0.5"], true, true);
        check(&["application/json;q=0, */*"], false, true);
        check(&["application/json;q=0, text/html;q=0"], false, false);
        check(&["text/html;q=0.1, text/html;q=0.9, application/json;q=0.5"], false, true);
        // With its parameter, or another type's.
        check(&["text/html;charset=utf-8"], false, true);
        check(&["text/html; Charset=\"UTF-8\";q=0.3, application/json;q=0.4"], true, true);
        check(&["application/json; charset=utf-8"], true, false);
        check(&["text/html;level=1"], false, false);
        check(&["text/html;level=1, text/html;q=0.7, application/json;q=0.8"], true, true);
        check(&["application/json;profile=\"a,b;q=0\""], false, false);
        check(&["application/json;q=0.5;ext=1, text/html;q=0.4;ext=\"x,y\""], true, true);
        check(&["application/problem+json, application/ld+json"], false, false);
        // Several lines.
        check(&["application/json", "text/html;q=0.5"], true, true);
        // What cannot be read is not wanted.
        check(&["text/html;q=x"], false, false);
        check(&["text/html;q=2, application/json;q=0.1"], true, false);
        check(&["text"], false, false);
        check(&["*"], false, false);
        check(&["*/html"], false, false);
        check(&["text/html/x"], false, false);
        check(&["text /html"], false, false);
        check(&["\"text/html\""], false, false);
        check(&["a;b=\"c, text/html"], false, false);
        check(&["a;b=\"\\\", text/html\", application/json"], true, false);
        check(&["é/é"], false, true);
    }
}
