//! How long browsers are to use https alone -> the header that says so (RFC 6797).

use std::{fmt, time::Duration};

use http::HeaderValue;

/// For so long browsers are to ask for this host over https alone, whatever a link says (RFC 6797): what
/// [`Deployment::hsts`](crate::Deployment::hsts) takes.
///
/// ```
/// use combo::{Deployment, Hsts, secs};
///
/// let year = secs(365 * 24 * 3_600);
/// let deployment = Deployment::new("example").hsts(Hsts::new(year).subdomains());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "it is nothing until a deployment has it"]
pub struct Hsts {
    max_age: Duration,
    subdomains: bool,
    preload: bool,
}

/// What those who keep the list of browsers ask for.
const PRELOADED: Duration = Duration::from_secs(365 * 24 * 3_600);

impl Hsts {
    /// From each answer on for so long, in whole seconds; nothing takes back what was said before.
    pub const fn new(max_age: Duration) -> Self {
        Self { max_age, subdomains: false, preload: false }
    }

    /// Also all hosts below it (`includeSubDomains`).
    pub const fn subdomains(mut self) -> Self {
        self.subdomains = true;
        self
    }

    /// Asks for a place in the list that browsers are shipped with (`preload`), which is hard to leave again. It has to
    /// be for a year or longer, and for [`subdomains`](Self::subdomains).
    pub const fn preload(mut self) -> Self {
        self.preload = true;
        self
    }

    /// What it has to be and is not.
    pub(crate) fn fault(self) -> Option<&'static str> {
        (self.preload && (!self.subdomains || self.max_age < PRELOADED))
            .then_some("for subdomains and a year or longer, to be preloaded")
    }

    pub(crate) fn header(self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }
}

impl From<Duration> for Hsts {
    fn from(max_age: Duration) -> Self {
        Self::new(max_age)
    }
}

/// As it stands in the header.
impl fmt::Display for Hsts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "max-age={}", self.max_age.as_secs())?;
        f.write_str(if self.subdomains { "; includeSubDomains" } else { "" })?;
        f.write_str(if self.preload { "; preload" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_what_was_said() {
        let day = Hsts::new(Duration::from_secs(86_400));
        for (hsts, header) in [
            (day, "max-age=86400"),
            (day.subdomains(), "max-age=86400; includeSubDomains"),
            (Hsts::new(PRELOADED).subdomains().preload(), "max-age=31536000; includeSubDomains; preload"),
            (Hsts::from(Duration::ZERO), "max-age=0"),
            (Hsts::from(Duration::MAX), "max-age=18446744073709551615"),
        ] {
            assert_eq!(hsts.header().expect("a header"), header);
            assert_eq!(hsts.fault(), None);
        }
        for wrong in [day.preload(), day.subdomains().preload(), Hsts::new(PRELOADED).preload()] {
            assert!(wrong.fault().is_some());
        }
    }
}
