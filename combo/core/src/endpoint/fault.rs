//! What is wrong with an endpoint string, each a part of a sentence: "cannot understand endpoint `…`: …".

use std::fmt;

use super::parse::KINDS;

/// What is wrong with an endpoint string.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// There is nothing.
    Empty,
    /// The string ends in a backslash.
    UnfinishedEscape,
    /// A `[` has no `]`, or something else than an IPv6 address in it.
    Brackets,
    /// The first word is no kind of endpoint.
    UnknownKind(String),
    /// A required argument is not there.
    Missing(&'static str),
    /// Where a folder is to be there is this kind of endpoint.
    NoFolder(String),
    /// A keyword is not known here.
    UnknownKeyword(String),
    /// A keyword stands twice.
    Twice(String),
    /// There is an argument too many.
    Excess(String),
    /// This is not a port.
    Port(String),
    /// This is not an address.
    Interface(String),
    /// This address is not IPv6.
    NotV6(String),
    /// This is not a mode.
    Mode(String),
    /// An abstract name has no mode.
    AbstractMode,
    /// An abstract name is too long.
    AbstractName(String),
    /// This says nothing of the certificates of clients.
    Client(String),
    /// This wrapper is around itself.
    Nested(&'static str),
    /// TLS is within TLS.
    TlsTwice,
    /// A redirect and TLS are in one endpoint.
    RedirectTls,
    /// The first of these goes before the second.
    Order(&'static str, &'static str),
    /// A keyword has a value that it cannot have.
    Value {
        /// The keyword.
        keyword: &'static str,
        /// Its value.
        said: String,
        /// What it has to be.
        must: &'static str,
    },
    /// This is no URL of an authority.
    Directory(String),
    /// This is no account; it is not shown, since it may be half a key.
    Eab,
    /// There is a program for the DNS, and another challenge.
    Hook(&'static str),
    /// This is no host that a certificate could be for.
    Host(String),
    /// This is no descriptor that one is started with.
    Fd(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it is empty"),
            Self::UnfinishedEscape => f.write_str("it ends in a backslash"),
            Self::Brackets => f.write_str("brackets hold an IPv6 address, as in `[::1]`"),
            Self::UnknownKind(kind) => write!(f, "`{kind}` is none of {}", KINDS.join(", ")),
            Self::Missing(what) => write!(f, "it has no {what}"),
            Self::UnknownKeyword(keyword) => write!(f, "`{keyword}=` is not known here"),
            Self::Twice(keyword) => write!(f, "`{keyword}=` stands twice"),
            Self::Excess(argument) => write!(f, "`{argument}` is one argument too many"),
            Self::Port(said) => write!(
                f,
                "`{said}` is not a port (0 to 65535; an address goes behind it, as `interface=127.0.0.1`)"
            ),
            Self::Interface(said) => write!(f, "`{said}` is not an IPv4 or IPv6 address"),
            Self::NotV6(said) => write!(f, "`{said}` is not an IPv6 address"),
            Self::Mode(said) => write!(f, "`{said}` is not an octal mode, such as 660"),
            Self::AbstractMode => f.write_str("an abstract name is no file and has no `mode=`"),
            Self::AbstractName(said) => write!(f, "`@{said}` is not an abstract name, of 1 to 107 bytes"),
            Self::Client(said) => write!(f, "`{said}` is neither required nor optional"),
            Self::Nested(wrapper) => write!(f, "`{wrapper}:` stands twice"),
            Self::TlsTwice => f.write_str("TLS is within TLS"),
            Self::NoFolder(kind) => {
                write!(f, "there is no folder before `{kind}:`; one of that name is `./{kind}`")
            }
            Self::RedirectTls => {
                f.write_str("`redirect:` answers in clear text, and so there is no TLS around it or within")
            }
            Self::Order(first, second) => write!(
                f,
                "`{second}:` is nearer to the wire and goes behind `{first}:`, as in `{}{second}:tcp:{}`",
                if *first == "redirect" { "redirect:".to_owned() } else { format!("{first}:DIR:") },
                if *first == "redirect" { 80 } else { 443 },
            ),
            Self::Value { keyword, said, must } => write!(f, "`{keyword}={said}` is not {must}"),
            Self::Directory(said) if matches!(&**said, "https" | "http") => {
                write!(f, "a `:` in a value is written `\\:`, as in `directory={said}\\://ca.example/dir`")
            }
            Self::Directory(said) => write!(f, "`{said}` is not a URL that begins with https://"),
            Self::Eab => f.write_str("`eab=` is a name and a key in base64url, as in `eab=KID,KEY`"),
            Self::Hook(challenge) => {
                write!(f, "`hook=` is for `challenge=dns-01`, and the challenge is {challenge}")
            }
            Self::Host(said) => {
                write!(f, "`{said}` is not a host name, such as example.com or *.example.com")
            }
            Self::Fd(said) => {
                write!(f, "`{said}` is not a descriptor that one is started with (3, 4 and so on)")
            }
        }
    }
}

impl std::error::Error for Fault {}
