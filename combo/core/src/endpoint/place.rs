//! Two endpoints -> whether they would listen at one place, as far as can be known without opening them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Component, Path, PathBuf},
};

use super::{Endpoint, Inherited, Port, UnixName};

/// The descriptor of the first socket that a process is started with (sd_listen_fds(3)).
const FIRST_FD: i32 = 3;

impl Endpoint {
    /// Whether both listen at one place: an address and port, a file, a name, a socket that was there before.
    /// Links are not looked at, nor names of sockets. Port 0 is no place yet.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.port(), other.port()) {
            return a.meets(b);
        }
        match (self.bare(), other.bare()) {
            (Self::Unix { path: UnixName::Path(a), .. }, Self::Unix { path: UnixName::Path(b), .. }) => {
                plain(a) == plain(b)
            }
            (Self::Unix { path: a, .. }, Self::Unix { path: b, .. }) => a == b,
            (Self::Inherited(a), Self::Inherited(b)) => a.meets(b),
            _ => false,
        }
    }
}

impl Inherited {
    fn meets(&self, other: &Self) -> bool {
        match (self.fd(), other.fd()) {
            (Some(a), Some(b)) => a == b,
            _ => self == other,
        }
    }

    /// Its descriptor, unless it goes by its name.
    #[must_use]
    pub fn fd(&self) -> Option<i32> {
        match self {
            Self::Name(_) => None,
            Self::Index(index) => i32::try_from(*index).ok()?.checked_add(FIRST_FD),
            Self::Fd(fd) => Some(*fd),
        }
    }
}

impl Port {
    fn meets(&self, other: &Self) -> bool {
        let ((a4, a6), (b4, b6)) = (self.addresses(), other.addresses());
        let every = |address: IpAddr| address.is_unspecified();
        let meet = |a: Option<IpAddr>, b: Option<IpAddr>| {
            a.zip(b).is_some_and(|(a, b)| a == b || every(a) || every(b))
        };
        self.number == other.number && self.number != 0 && (meet(a4, b4) || meet(a6, b6))
    }

    /// Whether IPv4 is left alone.
    #[must_use]
    pub fn is_v6only(&self) -> bool {
        self.v6only.unwrap_or(self.interface == Some(Ipv6Addr::UNSPECIFIED.into()))
    }

    /// Whether it is open to all, IPv4 and IPv6.
    #[must_use]
    pub fn is_everywhere(&self) -> bool {
        let any = self.interface.is_none_or(|address| address == IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        any && !self.is_v6only()
    }

    /// The addresses of IPv4 and of IPv6.
    fn addresses(&self) -> (Option<IpAddr>, Option<IpAddr>) {
        let every = Some(Ipv4Addr::UNSPECIFIED.into()).filter(|_| !self.is_v6only());
        match self.interface.map(|address| address.to_canonical()) {
            None | Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => (every, Some(Ipv6Addr::UNSPECIFIED.into())),
            Some(v4 @ IpAddr::V4(_)) => (Some(v4), None),
            Some(v6 @ IpAddr::V6(_)) => (None, Some(v6)),
        }
    }
}

fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}
