//! Certificates that are missing or near their end -> ordered from an authority (ACME, RFC 8555).
//!
//! | file | takes | gives |
//! | --- | --- | --- |
//! | [`wake`] | an empty file, an instant | the job is due |
//! | [`look`], [`asked`] | a folder | what is to be ordered, and for which names |
//! | [`renewal`] | a certificate, what is remembered, now | now, later, or never |
//! | [`order`], [`account`], [`hook`] | names | key and chain |
//! | [`task`] | a tick | the changes that write them |

mod account;
mod asked;
mod certificate;
mod client;
mod failure;
mod hook;
mod look;
mod notes;
mod order;
mod renewal;
mod task;
pub(crate) mod wake;
pub(crate) mod wanted;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use combo_core::{
    Timestamp,
    endpoint::{Authority, Issuer},
};
use instant_acme::LetsEncrypt;
use tokio::sync::{Mutex, watch};

use self::{
    task::Renewals,
    wake::{Next, Waking},
    wanted::Wanted,
};
use super::challenges::Challenges;

/// The job that orders the certificates of a folder, as the plan has it.
#[derive(Debug)]
pub(crate) struct Ordered {
    /// As it was said.
    pub(crate) folder: PathBuf,
    pub(crate) issuer: Issuer,
    /// Names that handshakes ask for and that may be ordered because of it.
    pub(crate) wanted: Wanted,
    next: Next,
}

impl Ordered {
    pub(crate) fn new(folder: PathBuf, issuer: Issuer) -> Self {
        let wanted = Wanted::new(issuer.on_demand.clone());
        Self { folder, issuer, wanted, next: watch::Sender::new(None) }
    }

    /// The name of the job.
    pub(crate) fn job(folder: &Path) -> String {
        format!("certificates {}", folder.display())
    }

    /// What makes the job due beside its trigger.
    pub(crate) fn waking(&self, root: &Path) -> Waking {
        Waking { folder: root.join(&self.folder), wanted: self.wanted.clone(), next: self.next.subscribe() }
    }
}

/// `certificates at https://…/directory, proved by tls-alpn-01`
impl fmt::Display for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (directory, challenge) = (directory(&self.issuer.authority), self.issuer.challenge.name());
        write!(f, "certificates at `{directory}`, proved by {challenge}")
    }
}

/// The task of a folder under a root.
pub(crate) fn renewals(
    root: &Path,
    ordered: Ordered,
    challenges: Challenges,
    environment: Vec<(OsString, Option<OsString>)>,
) -> Renewals {
    let Ordered { folder: said, issuer, wanted, next } = ordered;
    Renewals {
        folder: root.join(&said),
        root: root.to_owned(),
        job: Ordered::job(&said),
        said,
        issuer,
        challenges,
        wanted,
        next,
        environment,
        notes: Mutex::new(None),
    }
}

/// How the order of a certificate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The URL of the directory of its authority; empty if none has been asked yet.
    pub(crate) directory: String,
    /// When it is renewed, or ordered again.
    pub(crate) next: Option<Timestamp>,
    /// How often in a row it could not be, and why the last time.
    pub(crate) failures: u32,
    pub(crate) why: Option<String>,
}

/// How the orders of a folder stand, by the name of the file. Reads one file; nothing if there is none.
pub(crate) fn standing(folder: &Path) -> std::collections::BTreeMap<String, Standing> {
    let files = notes::glance(folder).files.into_iter();
    files
        .map(|(file, record)| {
            let renewal::Record { directory, next, failures, why, .. } = record;
            (file, Standing { directory, next, failures, why })
        })
        .collect()
}

/// The URL of an authority's directory (RFC 8555, section 7.1.1).
fn directory(authority: &Authority) -> &str {
    match authority {
        Authority::LetsEncrypt => LetsEncrypt::Production.url(),
        Authority::LetsEncryptStaging => LetsEncrypt::Staging.url(),
        Authority::Other { directory, .. } => directory,
    }
}
