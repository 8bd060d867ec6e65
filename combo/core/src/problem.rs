//! A problem: something wrong with what was said. Found before anything is opened, all at once.

use std::{fmt, path::PathBuf};

use crate::{endpoint, pattern, schedule, user};

/// One thing that is wrong with a deployment, in its author's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// An endpoint cannot be understood.
    Endpoint {
        /// As it was said.
        said: String,
        /// What is wrong with it.
        fault: endpoint::Fault,
    },
    /// Two endpoints are the same.
    EndpointTwice {
        /// As it was said the second time.
        said: String,
    },
    /// Two endpoints would listen at one place.
    PlaceTwice {
        /// What was said first.
        first: String,
        /// What was said after it.
        second: String,
    },
    /// Two endpoints order the certificates of one folder in different ways.
    OrderedTwice {
        /// The folder.
        folder: PathBuf,
        /// What was said first.
        first: String,
        /// What was said after it.
        second: String,
    },
    /// An endpoint leads to https, and nobody says where that is.
    NoHttps {
        /// The endpoint as it was said.
        said: String,
    },
    /// An authority looks for an answer in clear text, and there is nobody to give it.
    NoHttp01 {
        /// The endpoint as it was said.
        said: String,
    },
    /// An endpoint is behind a proxy, and none is trusted that could connect to it.
    NoProxy {
        /// The endpoint as it was said.
        said: String,
        /// Whom one could trust, for instance.
        trust: &'static str,
    },
    /// There are mounts and no endpoint.
    NoEndpoint,
    /// A pattern cannot be understood.
    Pattern {
        /// As it was said.
        said: String,
        /// What is wrong with it.
        fault: pattern::Fault,
    },
    /// Two mounts have one pattern.
    MountTwice {
        /// The pattern.
        pattern: String,
        /// What was mounted first.
        first: String,
        /// What was mounted after it.
        second: String,
    },
    /// A target cannot be what was said of it.
    Target {
        /// The pattern it is mounted at.
        pattern: String,
        /// One sentence.
        why: String,
    },
    /// A schedule cannot be understood.
    Schedule {
        /// The job.
        job: String,
        /// As it was said.
        said: String,
        /// What is wrong with it.
        fault: schedule::Fault,
    },
    /// A job cannot be what was said of it.
    Job {
        /// The job.
        job: String,
        /// One sentence.
        why: String,
    },
    /// Two jobs have one name.
    JobTwice {
        /// The name.
        name: String,
    },
    /// A job has no name.
    JobUnnamed,
    /// A hosted job could not be taken over.
    Hosted {
        /// The job.
        job: String,
        /// One sentence.
        why: String,
    },
    /// A task says that it writes where its job may not.
    WritesOutside {
        /// The job.
        job: String,
        /// What it writes.
        path: PathBuf,
        /// The folders it was given.
        may: Vec<PathBuf>,
    },
    /// The user that it is to become cannot be meant.
    User {
        /// As it was said.
        said: String,
        /// What is wrong with it.
        fault: user::Fault,
    },
    /// A setting is out of its range.
    Setting {
        /// Its name.
        name: &'static str,
        /// As it was said.
        said: String,
        /// What it has to be.
        must: &'static str,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint { said, fault } => write!(f, "cannot understand endpoint `{said}`: {fault}"),
            Self::EndpointTwice { said } => write!(f, "endpoint `{said}` is listened on twice"),
            Self::PlaceTwice { first, second } => {
                write!(f, "endpoint `{second}` listens where `{first}` does")
            }
            Self::OrderedTwice { folder, first, second } => write!(
                f,
                "endpoint `{second}` orders the certificates of `{}` in another way than `{first}`",
                folder.display()
            ),
            Self::NoHttps { said } => write!(
                f,
                "endpoint `{said}` leads to https, and no port of an endpoint has TLS; say which port it is in `port=`"
            ),
            Self::NoHttp01 { said } => write!(
                f,
                "endpoint `{said}` orders by `http-01`, and nothing answers that; say `.listen(\"redirect:tcp:80\")`"
            ),
            Self::NoProxy { said, trust } => write!(
                f,
                "endpoint `{said}` is for proxies and trusts none; say `.trusted_proxies([\"{trust}\"])` or `--trusted-proxy {trust}`"
            ),
            Self::NoEndpoint => {
                f.write_str("there are mounts but no endpoint to listen on; say `.listen(\"tcp:8080\")`")
            }
            Self::Pattern { said, fault } => write!(f, "cannot understand mount `{said}`: {fault}"),
            Self::MountTwice { pattern, first, second } => {
                write!(f, "mount `{pattern}` is taken twice: by {first} and by {second}")
            }
            Self::Target { pattern, why } => write!(f, "mount `{pattern}`: {why}"),
            Self::Schedule { job, said, fault } if said.is_empty() => {
                write!(f, "job `{job}` cannot have its schedule: {fault}")
            }
            Self::Schedule { job, said, fault } => {
                write!(f, "cannot understand schedule `{said}` of job `{job}`: {fault}")
            }
            Self::Job { job, why } => write!(f, "job `{job}`: {why}"),
            Self::JobTwice { name } => write!(f, "job `{name}` is said twice"),
            Self::JobUnnamed => f.write_str("a job has no name"),
            Self::Hosted { job, why } => write!(f, "cannot host job `{job}`: {why}"),
            Self::WritesOutside { job, path, may } if may.is_empty() => write!(
                f,
                "job `{job}` writes `{}` and was given no folder; say `.may_write(\"…\")`",
                path.display()
            ),
            Self::WritesOutside { job, path, may } => {
                write!(f, "job `{job}` writes `{}`, outside what it may write (", path.display())?;
                for (i, folder) in may.iter().enumerate() {
                    write!(f, "{}`{}`", if i == 0 { "" } else { ", " }, folder.display())?;
                }
                f.write_str(")")
            }
            Self::User { said, fault } => write!(f, "cannot become user `{said}`: {fault}"),
            Self::Setting { name, said, must } => write!(f, "{name} cannot be `{said}`: it must be {must}"),
        }
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with a deployment, in the order it was said. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Ok` with the value if nothing is wrong with it.
    ///
    /// # Errors
    ///
    /// All of the problems, if there are any.
    pub fn none_or<T>(problems: Vec<Problem>, value: T) -> Result<T, Self> {
        if problems.is_empty() { Ok(value) } else { Err(Self(problems)) }
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every variant once: the sentence that its reader gets.
    #[test]
    fn every_problem_is_a_sentence() {
        let (job, said, pattern) = (|| "clock".to_owned(), || "x".to_owned(), || "/blog".to_owned());
        let cases = [
            (
                Problem::Endpoint { said: said(), fault: endpoint::Fault::UnknownKind("x".into()) },
                "cannot understand endpoint `x`: `x` is none of tcp, tcp6, unix, systemd, fd, ssl, tls, le, lets, acme, haproxy, redirect",
            ),
            (Problem::EndpointTwice { said: "tcp:80".into() }, "endpoint `tcp:80` is listened on twice"),
            (
                Problem::PlaceTwice { first: "tcp:80".into(), second: "redirect:tcp:80".into() },
                "endpoint `redirect:tcp:80` listens where `tcp:80` does",
            ),
            (
                Problem::OrderedTwice {
                    folder: "c".into(),
                    first: "le:c:443".into(),
                    second: "lets:c:444".into(),
                },
                "endpoint `lets:c:444` orders the certificates of `c` in another way than `le:c:443`",
            ),
            (
                Problem::NoHttps { said: "redirect:tcp:80".into() },
                "endpoint `redirect:tcp:80` leads to https, and no port of an endpoint has TLS; say which port it is in `port=`",
            ),
            (
                Problem::NoHttp01 { said: "le:c:challenge=http-01:tcp:443".into() },
                "endpoint `le:c:challenge=http-01:tcp:443` orders by `http-01`, and nothing answers that; say `.listen(\"redirect:tcp:80\")`",
            ),
            (
                Problem::NoProxy { said: "haproxy:80".into(), trust: "10.0.0.0/8" },
                "endpoint `haproxy:80` is for proxies and trusts none; say `.trusted_proxies([\"10.0.0.0/8\"])` or `--trusted-proxy 10.0.0.0/8`",
            ),
            (
                Problem::NoEndpoint,
                "there are mounts but no endpoint to listen on; say `.listen(\"tcp:8080\")`",
            ),
            (
                Problem::Pattern { said: said(), fault: pattern::Fault::NoSlash },
                "cannot understand mount `x`: it has no `/`; a pattern is a path prefix, with a host before it if wanted",
            ),
            (
                Problem::MountTwice {
                    pattern: pattern(),
                    first: "files `a`".into(),
                    second: "files `b`".into(),
                },
                "mount `/blog` is taken twice: by files `a` and by files `b`",
            ),
            (Problem::Target { pattern: pattern(), why: "no".into() }, "mount `/blog`: no"),
            (
                Problem::Schedule { job: job(), said: said(), fault: schedule::Fault::NotMilliseconds },
                "cannot understand schedule `x` of job `clock`: an interval is a whole number of milliseconds, at least 1ms",
            ),
            (
                Problem::Schedule { job: job(), said: String::new(), fault: schedule::Fault::Never },
                "job `clock` cannot have its schedule: no instant ever matches it",
            ),
            (Problem::Job { job: job(), why: "no".into() }, "job `clock`: no"),
            (Problem::JobTwice { name: job() }, "job `clock` is said twice"),
            (Problem::JobUnnamed, "a job has no name"),
            (Problem::Hosted { job: job(), why: "no".into() }, "cannot host job `clock`: no"),
            (
                Problem::WritesOutside {
                    job: job(),
                    path: "data/a".into(),
                    may: vec!["static".into(), "b".into()],
                },
                "job `clock` writes `data/a`, outside what it may write (`static`, `b`)",
            ),
            (
                Problem::WritesOutside { job: job(), path: "data/a".into(), may: vec![] },
                "job `clock` writes `data/a` and was given no folder; say `.may_write(\"…\")`",
            ),
            (
                Problem::User { said: "root".into(), fault: user::Fault::Root },
                "cannot become user `root`: to become root is to give up nothing",
            ),
            (
                Problem::Setting { name: "workers", said: "0".into(), must: "at least 1" },
                "workers cannot be `0`: it must be at least 1",
            ),
        ];
        for (problem, sentence) in cases {
            assert_eq!(problem.to_string(), sentence);
        }
    }
}
