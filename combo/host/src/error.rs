//! An error: the world refused. Opaque; it says what was attempted, on what, and keeps the cause.

use std::{fmt, io, path::PathBuf};

use combo_core::BoxError;

/// One thing that could not be opened, built or started.
#[derive(Debug)]
pub struct Error(Box<Kind>);

#[derive(Debug)]
pub(crate) enum Kind {
    Listen {
        endpoint: String,
        cause: io::Error,
    },
    /// A unix socket, by whoever the process is.
    Socket {
        endpoint: String,
        uid: u32,
        cause: io::Error,
    },
    #[cfg(feature = "tls")]
    Read {
        endpoint: String,
        what: &'static str,
        path: PathBuf,
        cause: BoxError,
    },
    #[cfg(feature = "tls")]
    Pair {
        endpoint: String,
        key: PathBuf,
        cert: PathBuf,
        cause: BoxError,
    },
    #[cfg(feature = "tls")]
    Certificates {
        endpoint: String,
        path: PathBuf,
        cause: BoxError,
    },
    #[cfg(feature = "tls")]
    Tls {
        endpoint: String,
        cause: BoxError,
    },
    Mount {
        pattern: String,
        cause: BoxError,
    },
    #[cfg_attr(
        not(any(test, feature = "tokio-cron-scheduler")),
        expect(dead_code, reason = "only a hosted job can fail so")
    )]
    Job {
        job: String,
        cause: BoxError,
    },
    Folder {
        job: String,
        path: PathBuf,
        cause: io::Error,
    },
    Root {
        path: PathBuf,
        cause: io::Error,
    },
    State {
        path: PathBuf,
        cause: io::Error,
    },
    Watch {
        path: PathBuf,
        cause: io::Error,
    },
    Kept {
        path: PathBuf,
        pid: String,
    },
    User {
        user: String,
        cause: BoxError,
    },
    Thread {
        what: &'static str,
        cause: io::Error,
    },
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Kind::Listen { endpoint, cause } => {
                write!(f, "cannot listen on `{endpoint}`")?;
                match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str(" (ports under 1024 need root or CAP_NET_BIND_SERVICE)")
                    }
                    io::ErrorKind::AddrInUse => f.write_str(" (something else listens there)"),
                    _ => Ok(()),
                }
            }
            Kind::Socket { endpoint, uid, cause } => {
                write!(f, "cannot listen on `{endpoint}`")?;
                match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        write!(f, " (its folder has to be one that user {uid} may write)")
                    }
                    io::ErrorKind::AddrInUse => f.write_str(" (something else listens there)"),
                    _ => Ok(()),
                }
            }
            #[cfg(feature = "tls")]
            Kind::Read { endpoint, what, path, .. } => {
                write!(f, "cannot read the {what} `{}` of `{endpoint}`", path.display())
            }
            #[cfg(feature = "tls")]
            Kind::Pair { endpoint, key, cert, .. } => write!(
                f,
                "cannot use key `{}` with certificate `{}` for `{endpoint}`",
                key.display(),
                cert.display()
            ),
            #[cfg(feature = "tls")]
            Kind::Certificates { endpoint, path, .. } => {
                write!(f, "cannot use the certificates in `{}` for `{endpoint}`", path.display())
            }
            #[cfg(feature = "tls")]
            Kind::Tls { endpoint, .. } => write!(f, "cannot speak TLS at `{endpoint}`"),
            Kind::Mount { pattern, .. } => write!(f, "cannot build what is mounted at `{pattern}`"),
            Kind::Job { job, .. } => write!(f, "cannot take over job `{job}`"),
            Kind::Folder { job, path, .. } => {
                write!(f, "cannot open folder `{}`, which job `{job}` may write", path.display())
            }
            Kind::Root { path, .. } => write!(f, "cannot use root `{}`", path.display()),
            Kind::Watch { path, .. } => write!(f, "cannot watch `{}` for changes", path.display()),
            Kind::State { path, .. } => write!(f, "cannot keep the ledger in `{}`", path.display()),
            Kind::Kept { path, pid } => write!(
                f,
                "another process ({pid}) keeps the ledger in `{}`: two would run every job twice; give this one another root or state folder",
                path.display()
            ),
            Kind::User { user, .. } => write!(f, "cannot become user `{user}`"),
            Kind::Thread { what, .. } => write!(f, "cannot start the {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(match &*self.0 {
            Kind::Listen { cause, .. }
            | Kind::Socket { cause, .. }
            | Kind::Folder { cause, .. }
            | Kind::Root { cause, .. }
            | Kind::State { cause, .. }
            | Kind::Watch { cause, .. }
            | Kind::Thread { cause, .. } => cause,
            Kind::Kept { .. } => return None,
            Kind::Mount { cause, .. } | Kind::Job { cause, .. } | Kind::User { cause, .. } => cause.as_ref(),
            #[cfg(feature = "tls")]
            Kind::Read { cause, .. }
            | Kind::Pair { cause, .. }
            | Kind::Certificates { cause, .. }
            | Kind::Tls { cause, .. } => cause.as_ref(),
        })
    }
}

/// Everything that the world refused at the start. Never empty.
#[derive(Debug)]
pub struct Errors(pub(crate) Vec<Error>);

impl Errors {
    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A line per error, each with its chain of causes.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { "\n" }, chain(error))?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// An error and its causes, joined by colons.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// No more of what somebody else has said than so many bytes.
pub(crate) fn shortened(mut said: String, longest: usize) -> String {
    if said.len() > longest {
        said.truncate(said.floor_char_boundary(longest));
        said.push('…');
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant once: the sentence that its reader gets.
    #[test]
    fn every_error_is_a_sentence() {
        let io = || io::Error::from(io::ErrorKind::NotFound);
        let endpoint = || "tcp:443".to_owned();
        let cases = [
            (
                Kind::Listen { endpoint: endpoint(), cause: io::ErrorKind::PermissionDenied.into() },
                "cannot listen on `tcp:443` (ports under 1024 need root or CAP_NET_BIND_SERVICE): permission denied",
            ),
            (
                Kind::Listen { endpoint: endpoint(), cause: io::ErrorKind::AddrInUse.into() },
                "cannot listen on `tcp:443` (something else listens there): address in use",
            ),
            (
                Kind::Socket {
                    endpoint: "unix:a".into(),
                    uid: 33,
                    cause: io::ErrorKind::PermissionDenied.into(),
                },
                "cannot listen on `unix:a` (its folder has to be one that user 33 may write): permission denied",
            ),
            (
                Kind::Socket { endpoint: "unix:a".into(), uid: 33, cause: io::ErrorKind::AddrInUse.into() },
                "cannot listen on `unix:a` (something else listens there): address in use",
            ),
            #[cfg(feature = "tls")]
            (
                Kind::Read { endpoint: endpoint(), what: "key", path: "k".into(), cause: io().into() },
                "cannot read the key `k` of `tcp:443`: entity not found",
            ),
            #[cfg(feature = "tls")]
            (
                Kind::Pair { endpoint: endpoint(), key: "k".into(), cert: "c".into(), cause: "no".into() },
                "cannot use key `k` with certificate `c` for `tcp:443`: no",
            ),
            #[cfg(feature = "tls")]
            (
                Kind::Certificates { endpoint: endpoint(), path: "d".into(), cause: io().into() },
                "cannot use the certificates in `d` for `tcp:443`: entity not found",
            ),
            #[cfg(feature = "tls")]
            (Kind::Tls { endpoint: endpoint(), cause: "no".into() }, "cannot speak TLS at `tcp:443`: no"),
            (
                Kind::Mount { pattern: "/a".into(), cause: "no".into() },
                "cannot build what is mounted at `/a`: no",
            ),
            (Kind::Job { job: "a".into(), cause: "no".into() }, "cannot take over job `a`: no"),
            (
                Kind::Folder { job: "a".into(), path: "b".into(), cause: io() },
                "cannot open folder `b`, which job `a` may write: entity not found",
            ),
            (Kind::Root { path: "b".into(), cause: io() }, "cannot use root `b`: entity not found"),
            (
                Kind::Watch { path: "a/b".into(), cause: io() },
                "cannot watch `a/b` for changes: entity not found",
            ),
            (
                Kind::State { path: ".state".into(), cause: io() },
                "cannot keep the ledger in `.state`: entity not found",
            ),
            (
                Kind::Kept { path: ".state".into(), pid: "7".into() },
                "another process (7) keeps the ledger in `.state`: two would run every job twice; give this one another root or state folder",
            ),
            (
                Kind::User { user: "www".into(), cause: "there is no such user".into() },
                "cannot become user `www`: there is no such user",
            ),
            (Kind::Thread { what: "watch", cause: io() }, "cannot start the watch: entity not found"),
        ];
        for (kind, sentence) in cases {
            assert_eq!(chain(&Error::from(kind)), sentence);
        }
    }
}
