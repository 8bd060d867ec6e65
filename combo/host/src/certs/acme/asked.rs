//! file name, list of names -> what a certificate is ordered for. Pure.
//!
//! `a.example.com.pem` is for `a.example.com` and `_.example.com.pem` for `*.example.com`. A file `NAME.names`
//! beside `NAME.pem` says them instead, one a line; empty lines and what follows a `#` are not names.

/// How a file with a key, a certificate and its chain ends.
pub(super) const PEM: &str = ".pem";

/// How a list of names beside it ends.
pub(super) const NAMES: &str = ".names";

/// No authority takes more.
const MOST: usize = 100;

/// What a certificate is ordered for: sorted, each once. The list, if there is one, says it.
///
/// # Errors
///
/// Why nothing can be ordered, a sentence.
pub(super) fn asked(stem: &str, list: Option<&str>) -> Result<Vec<String>, String> {
    let mut names = match list {
        Some(list) => {
            let lines = list.lines().map(|line| line.split('#').next().unwrap_or_default());
            lines.flat_map(str::split_whitespace).map(host).collect::<Result<Vec<_>, _>>()?
        }
        None if stem.eq_ignore_ascii_case("DEFAULT") => {
            return Err(format!("`{stem}{PEM}` is no name of a host; say the names in `{stem}{NAMES}`"));
        }
        None => vec![host(&stem.strip_prefix("_.").map_or(stem.to_owned(), |rest| format!("*.{rest}")))?],
    };
    names.sort();
    names.dedup();
    match names.len() {
        0 => Err(format!("`{stem}{NAMES}` has no name in it")),
        count if count > MOST => {
            Err(format!("`{stem}{NAMES}` has {count} names; a certificate has {MOST} at most"))
        }
        _ => Ok(names),
    }
}

/// A name as authorities take it: lower case, without a final dot, perhaps `*.` before it (RFC 8555, section 7.1.3).
pub(super) fn host(said: &str) -> Result<String, String> {
    let name = said.strip_suffix('.').unwrap_or(said).to_ascii_lowercase();
    let below = name.strip_prefix("*.").unwrap_or(&name);
    let good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.is_ascii() {
        return Err(format!("`{said}` is no name of a host; write it as `xn--…`"));
    }
    let number = below.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if name.len() > 253 || number || !below.split('.').all(good) {
        return Err(format!("`{said}` is no name of a host"));
    }
    Ok(name)
}

/// Whether a name is one of these: as it is, or one label below `*.example.com`.
pub(super) fn is_allowed(name: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|pattern| match pattern.strip_prefix("*.") {
        Some(below) => {
            name.split_once('.').is_some_and(|(label, rest)| label != "*" && rest.eq_ignore_ascii_case(below))
        }
        None => name.eq_ignore_ascii_case(pattern),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_the_name_and_a_list_says_others() {
        let long = format!("{}.example.com", "a".repeat(64));
        let cases: [(&str, Option<&str>, Result<&[&str], &str>); 16] = [
            ("a.example.com", None, Ok(&["a.example.com"])),
            ("A.Example.com", None, Ok(&["a.example.com"])),
            ("_.example.com", None, Ok(&["*.example.com"])),
            ("localhost", None, Ok(&["localhost"])),
            (
                "a",
                Some("b.example.com\n\n a.example.com # here\n# not\nb.example.com."),
                Ok(&["a.example.com", "b.example.com"]),
            ),
            ("a", Some("*.example.com example.com"), Ok(&["*.example.com", "example.com"])),
            ("DEFAULT", Some("a.example.com"), Ok(&["a.example.com"])),
            ("DEFAULT", None, Err("`DEFAULT.pem` is no name of a host; say the names in `DEFAULT.names`")),
            ("a", Some("# nothing\n"), Err("`a.names` has no name in it")),
            ("a..example.com", None, Err("`a..example.com` is no name of a host")),
            ("-a.example.com", None, Err("`-a.example.com` is no name of a host")),
            ("a_b.example.com", None, Err("`a_b.example.com` is no name of a host")),
            ("192.0.2.1", None, Err("`192.0.2.1` is no name of a host")),
            ("a", Some("a.*.example.com"), Err("`a.*.example.com` is no name of a host")),
            ("bücher.example", None, Err("`bücher.example` is no name of a host; write it as `xn--…`")),
            (&long, None, Err("no name of a host")),
        ];
        for (stem, list, expected) in cases {
            match (asked(stem, list), expected) {
                (Ok(names), Ok(expected)) => assert_eq!(names, expected, "{stem}"),
                (Err(why), Err(expected)) => assert!(why.contains(expected), "{stem}: {why}"),
                (got, _) => panic!("{stem}: {got:?}"),
            }
        }
        let many: String = (0..101).map(|at| format!("a{at}.example.com\n")).collect();
        assert_eq!(
            asked("a", Some(&many)),
            Err("`a.names` has 101 names; a certificate has 100 at most".into())
        );
    }

    #[test]
    fn an_allowed_name_is_said_or_one_label_below() {
        let allowed = ["a.example.com".to_owned(), "*.Example.org".to_owned()];
        for (name, expected) in [
            ("a.example.com", true),
            ("A.example.COM", true),
            ("b.example.com", false),
            ("b.a.example.com", false),
            ("x.example.org", true),
            ("example.org", false),
            ("y.x.example.org", false),
            ("*.example.org", false),
        ] {
            assert_eq!(is_allowed(name, &allowed), expected, "{name}");
        }
    }
}
