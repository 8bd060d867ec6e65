//! folders of certificates -> what the command `certs` prints: each with its hosts, its end, where it is from and what
//! becomes of it. Needs no process that serves; asks nobody but the disk.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use combo_core::{
    Endpoint, Timestamp,
    endpoint::{Certificates, discreet},
};
use jiff::tz::TimeZone;
use serde::Serialize;

use super::plain;
use crate::{
    certs::{
        dev,
        found::{self, Broken, Source},
        leaf::Leaf,
        names::Name,
    },
    error::chain,
    plan::Plan,
};

const DAY: i64 = 24 * 60 * 60;

/// How many days before its end somebody should see to a certificate, unless it lives for a few weeks only.
const NEAR: i64 = 14;

/// A file with a certificate, or one that asks for one.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is named after; nothing if that is no host.
    host: Option<String>,
    /// The hosts in it.
    names: Vec<String>,
    from: Option<Timestamp>,
    expires: Option<Timestamp>,
    /// Whole days until then.
    days: Option<i64>,
    issuer: Option<String>,
    /// As it is under the root.
    file: PathBuf,
    renewal: Renewal,
    /// What somebody should see to.
    problem: Option<String>,
}

/// Who sees to it that there is another in time.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Renewal {
    /// Whoever puts files there.
    ByHand,
    /// The combo itself, at this instant.
    Next(Timestamp),
    /// The combo itself, as soon as it runs.
    Soon,
    /// The combo itself, whenever it is started near its end.
    Made,
}

/// All certificates of a plan's endpoints.
pub(super) fn rows(plan: &Plan, root: &Path, near: Option<i64>, now: Timestamp) -> Vec<Row> {
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for endpoint in &plan.endpoints {
        match (endpoint.tls(), endpoint.bare()) {
            (Some(tls), _) if seen.contains(&&tls.certificates) => {}
            (Some(tls), _) => {
                seen.push(&tls.certificates);
                let (folder, orders) = match &tls.certificates {
                    Certificates::Folder(said) => (Ok(said.clone()), tls.issuer.is_some()),
                    Certificates::Dev => (dev::folder().map(|folder| dev::served(&folder)), false),
                };
                match folder {
                    Ok(said) => {
                        let how = How { orders, made: tls.certificates == Certificates::Dev, near, now };
                        rows.extend(of_folder(&said, root, how));
                    }
                    Err(error) => rows.push(unseen(PathBuf::from("dev"), Some(error.to_string()))),
                }
            }
            (None, Endpoint::Ssl { key, cert, .. }) => {
                let said = discreet(&endpoint.to_string()).into_owned();
                let source = Source { name: None, cert: root.join(cert), key: Some(root.join(key)) };
                let found = found::measure(&source).and_then(|stamp| stamp.ok_or(Broken::NoCertificate));
                let mut row = row(&source, found.map(drop), cert.clone(), Renewal::ByHand);
                row.host = Some(said);
                rows.push(judged(row, near, now));
            }
            _ => {}
        }
    }
    rows
}

/// What holds for all of a folder.
#[derive(Clone, Copy)]
struct How {
    orders: bool,
    made: bool,
    near: Option<i64>,
    now: Timestamp,
}

fn of_folder(said: &Path, root: &Path, how: How) -> Vec<Row> {
    let How { orders, made, near, now } = how;
    let folder = root.join(said);
    let listing = match found::list(&folder) {
        Ok(listing) => listing,
        Err(error) => return vec![unseen(said.to_owned(), Some(error.to_string()))],
    };
    let ordered = Ordered::of(&folder, orders);
    let shown = |path: &Path| said.join(found::within(&folder, path));
    let mut rows = Vec::new();
    for (source, found) in listing.sources {
        let renewal = match ordered.next(&source.cert) {
            _ if made => Renewal::Made,
            Some(next) => Renewal::Next(next),
            None => Renewal::ByHand,
        };
        let mut row = row(&source, found.map(drop), shown(&source.cert), renewal);
        row.problem = row.problem.or_else(|| ordered.why(&source.cert));
        rows.push(judged(row, near, now));
    }
    for path in listing.empty {
        let host = path.file_stem().and_then(|stem| Name::of_file(stem.to_str()?));
        let problem = match orders {
            true => ordered.why(&path),
            false => Some("it is empty, and nobody orders one here".to_owned()),
        };
        let renewal = ordered.next(&path).map_or(Renewal::Soon, Renewal::Next);
        let renewal = if orders { renewal } else { Renewal::ByHand };
        rows.push(Row {
            host: host.map(|host| host.to_string()),
            renewal,
            problem,
            ..unseen(shown(&path), None)
        });
    }
    let hidden = listing.unseen.iter().map(|(path, why)| unseen(shown(path), Some(chain(why))));
    rows.extend(hidden);
    rows.sort_by(|a, b| a.file.cmp(&b.file));
    if rows.is_empty() {
        rows.push(unseen(said.to_owned(), Some("there is no certificate in it".to_owned())));
    }
    rows
}

fn unseen(file: PathBuf, why: Option<String>) -> Row {
    Row {
        host: None,
        names: Vec::new(),
        from: None,
        expires: None,
        days: None,
        issuer: None,
        file,
        renewal: Renewal::ByHand,
        problem: why,
    }
}

fn row(source: &Source, found: Result<(), Broken>, file: PathBuf, renewal: Renewal) -> Row {
    let material = found.and_then(|()| found::read(source));
    let host = source.name.as_ref().map(ToString::to_string);
    let (leaf, problem) = match material {
        Ok(material) => {
            let leaf = material.leaf.clone();
            let problem = found::certified(material.chain, material.key).err();
            (Some(leaf), problem)
        }
        Err(broken) => (None, Some(broken)),
    };
    let foreign = |(leaf, name): (&Leaf, &Name)| {
        let is_for = *name == Name::Default || leaf.names.iter().any(|known| known.covers(name));
        (!is_for).then(|| format!("it is not for `{name}`"))
    };
    let problem = problem.map(|broken| chain(&broken));
    let problem = problem.or_else(|| leaf.as_ref().zip(source.name.as_ref()).and_then(foreign));
    let row = Row { host, renewal, problem, ..unseen(file, None) };
    match leaf {
        None => row,
        Some(Leaf { names, from, until, issuer, .. }) => Row {
            names: names.iter().map(ToString::to_string).collect(),
            from: Timestamp::from_second(from).ok(),
            expires: Timestamp::from_second(until).ok(),
            issuer: Some(issuer),
            ..row
        },
    }
}

/// Whether it is near its end: fewer days than these are left, or else than [`NEAR`] and than a quarter of its life.
fn judged(mut row: Row, near: Option<i64>, now: Timestamp) -> Row {
    let (Some(from), Some(expires)) = (row.from, row.expires) else { return row };
    let left = expires.as_second() - now.as_second();
    let quarter = (expires.as_second() - from.as_second()) / 4;
    row.days = Some(left.div_euclid(DAY));
    let problem = if left <= 0 {
        Some("it has expired".to_owned())
    } else if left < near.map_or(quarter.min(NEAR * DAY), |days| days.saturating_mul(DAY)) {
        Some("it is near its end".to_owned())
    } else if from > now {
        Some(format!("it does not hold before {from}"))
    } else {
        None
    };
    row.problem = row.problem.or(problem);
    row
}

/// What is known of the orders of a folder.
struct Ordered(#[cfg(feature = "acme")] std::collections::BTreeMap<String, crate::certs::acme::Standing>);

#[cfg(feature = "acme")]
impl Ordered {
    fn of(folder: &Path, orders: bool) -> Self {
        Self(if orders { crate::certs::acme::standing(folder) } else { std::collections::BTreeMap::new() })
    }

    fn standing(&self, cert: &Path) -> Option<&crate::certs::acme::Standing> {
        self.0.get(cert.file_name()?.to_str()?)
    }

    fn next(&self, cert: &Path) -> Option<Timestamp> {
        self.standing(cert)?.next
    }

    fn why(&self, cert: &Path) -> Option<String> {
        self.standing(cert).filter(|standing| standing.failures > 0)?.why.clone()
    }
}

#[cfg(not(feature = "acme"))]
impl Ordered {
    fn of(_: &Path, _: bool) -> Self {
        Self()
    }

    fn next(&self, _: &Path) -> Option<Timestamp> {
        None
    }

    fn why(&self, _: &Path) -> Option<String> {
        None
    }
}

/// Whether there is something that somebody should see to.
pub(super) fn are_troubled(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.problem.is_some())
}

/// As a table, and below it what is wrong.
pub(super) fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "there are no certificates\n".to_owned();
    }
    let head = ["host", "names", "expires", "days", "issuer", "file", "next renewal"].map(str::to_owned);
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for row in rows {
        if let Some(problem) = &row.problem {
            let _ = writeln!(text, "\n`{}`: {}", plain(&row.file.display().to_string()), plain(problem));
        }
    }
    text
}

fn cells(row: &Row) -> [String; 7] {
    const NONE: &str = "-";
    const MOST: usize = 3;
    let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date().to_string();
    let names = match &*row.names {
        [] => NONE.to_owned(),
        names if names.len() > MOST => format!("{}, {} more", names[..MOST].join(", "), names.len() - MOST),
        names => names.join(", "),
    };
    let renewal = match &row.renewal {
        Renewal::ByHand => "by hand".to_owned(),
        Renewal::Next(at) => day(*at),
        Renewal::Soon => "as soon as it runs".to_owned(),
        Renewal::Made => "by itself".to_owned(),
    };
    let cells = [
        or_none(row.host.clone()),
        names,
        or_none(row.expires.map(day)),
        or_none(row.days.map(|days| days.to_string())),
        or_none(row.issuer.clone()),
        row.file.display().to_string(),
        renewal,
    ];
    cells.map(|cell| plain(&cell).into_owned())
}

/// A JSON object a line.
pub(super) fn lines(rows: &[Row]) -> String {
    let lines = rows.iter().filter_map(|row| serde_json::to_string(row).ok());
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Deployment;

    fn now() -> Timestamp {
        "2026-11-28T12:00:00Z".parse().expect("an instant")
    }

    fn made(names: &[&str], until: (i32, u8, u8)) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Example CA");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.self_signed(&key).expect("a certificate").pem();
        format!("{}{cert}", key.serialize_pem())
    }

    #[test]
    fn the_table_has_every_file_and_below_it_what_is_wrong() {
        let root = tempfile::tempdir().expect("a folder");
        let write =
            |name: &str, text: &str| fs::write(root.path().join("certs").join(name), text).expect("a file");
        fs::create_dir(root.path().join("certs")).expect("a folder");
        write("a.org.pem", &made(&["a.org", "www.a.org"], (2027, 2, 1)));
        write("b.org.pem", &made(&["b.org", "c.org", "d.org", "e.org"], (2026, 12, 10)));
        write("c.org.pem", &made(&["c.org"], (2026, 11, 1)));
        write("d.org.pem", "");
        write("e.org.pem", "broken");
        write("_.f.org.pem", &made(&["*.f.org"], (2027, 2, 1)));
        write("g.org.pem", &made(&["a.org"], (2027, 2, 1)));
        let deployment = Deployment::new("test").listen("tls:certs:tcp:1").listen("tls:certs:tcp:2");
        let plan = deployment.plan().expect("a plan");
        let rows = rows(&plan, root.path(), None, now());
        assert_eq!(
            table(&rows),
            "\
host     names                        expires     days  issuer      file               next renewal
*.f.org  *.f.org                      2027-02-01  64    Example CA  certs/_.f.org.pem  by hand
a.org    a.org, www.a.org             2027-02-01  64    Example CA  certs/a.org.pem    by hand
b.org    b.org, c.org, d.org, 1 more  2026-12-10  11    Example CA  certs/b.org.pem    by hand
c.org    c.org                        2026-11-01  -28   Example CA  certs/c.org.pem    by hand
d.org    -                            -           -     -           certs/d.org.pem    by hand
e.org    -                            -           -     -           certs/e.org.pem    by hand
g.org    a.org                        2027-02-01  64    Example CA  certs/g.org.pem    by hand

`certs/b.org.pem`: it is near its end

`certs/c.org.pem`: it has expired

`certs/d.org.pem`: it is empty, and nobody orders one here

`certs/e.org.pem`: there is no certificate in it

`certs/g.org.pem`: it is not for `g.org`
"
        );
        assert!(are_troubled(&rows) && !are_troubled(&rows[..2]));
        let first: serde_json::Value =
            serde_json::from_str(lines(&rows).lines().nth(1).expect("a line")).expect("JSON");
        assert_eq!(
            (&first["host"], &first["days"], &first["renewal"], &first["problem"]),
            (&"a.org".into(), &64.into(), &"by_hand".into(), &serde_json::Value::Null)
        );
        assert_eq!(first["expires"], "2027-02-01T00:00:00Z");
    }

    #[test]
    fn what_others_have_said_moves_no_cursor() {
        let said = "too many\r\n\u{1b}[31mEVIL";
        let row = Row { issuer: Some(said.into()), ..unseen(said.into(), Some(said.into())) };
        let shown = table(&[row]);
        assert_eq!(shown.lines().count(), 4, "{shown}");
        assert!(!shown.replace('\n', "").contains(char::is_control), "{shown}");
    }

    #[test]
    fn what_holds_for_days_is_near_its_end_in_its_last_quarter() {
        let at = |day: i64| Timestamp::from_second(now().as_second() + day * DAY).ok();
        for (from, until, near, expected) in [
            (-50, 40, None, false),
            (-80, 13, None, true),
            (-80, 15, None, false),
            (-3, 3, None, false),
            (-5, 1, None, true),
            (-80, 15, Some(16), true),
            (-80, 13, Some(5), false),
            (-11, 9, Some(100), true),
            (-80, 0, Some(0), true),
            (1, 90, None, true),
        ] {
            let row = Row { from: at(from), expires: at(until), problem: None, ..unseen("a".into(), None) };
            assert_eq!(judged(row, near, now()).problem.is_some(), expected, "{from} {until} {near:?}");
        }
    }
}
