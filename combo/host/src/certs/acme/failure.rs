//! what went wrong at an authority -> a sentence, and what it means for the next try. Pure.

use combo_core::Timestamp;
use instant_acme::{Error, Problem};

use super::{
    client::{Later, in_words},
    renewal::Held,
};
use crate::error::chain;

/// How often what was refused for its nonce is said again; the library has said it three times already.
pub(super) const TRIES: usize = 20;

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct Failure {
    /// One sentence.
    pub(super) why: String,
    later: Option<Later>,
    /// The authority does not know our account.
    pub(super) stranger: bool,
}

impl Failure {
    /// It did not come to ask the authority.
    pub(super) fn ours(why: impl Into<String>) -> Self {
        Self { why: why.into(), later: None, stranger: false }
    }

    /// What the authority said, or why it said nothing, about something that we did.
    pub(super) fn of(error: Error, doing: &str) -> Self {
        let mut failure = Self::ours(String::new());
        let why = match error {
            Error::Api(problem) => {
                failure.stranger = is(&problem, "accountDoesNotExist");
                in_words(&problem)
            }
            Error::Other(error) => {
                failure.later = error.downcast_ref::<Later>().cloned();
                chain(&*error)
            }
            error => chain(&error),
        };
        failure.why = format!("{doing}: {why}");
        failure
    }

    /// How long the authority wants us to wait.
    pub(super) fn held(&self, now: Timestamp) -> Held {
        self.later.as_ref().map(|later| later.held(now)).unwrap_or_default()
    }
}

/// Whether it is this problem of RFC 8555, section 6.7.
pub(super) fn is(problem: &Problem, kind: &str) -> bool {
    problem.r#type.as_deref().and_then(|full| full.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

/// Whether only the nonce was wrong, so that the same may be said again (RFC 8555, section 6.5).
pub(super) fn is_of_the_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if is(problem, "badNonce"))
}

/// Says it again as long as only its nonce was wrong.
macro_rules! nonced {
    ($ask:expr) => {{
        let mut left = $crate::certs::acme::failure::TRIES;
        loop {
            match $ask.await {
                Err(error) if left > 0 && $crate::certs::acme::failure::is_of_the_nonce(&error) => left -= 1,
                said => break said,
            }
        }
    }};
}

pub(super) use nonced;

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &str) -> Error {
        let json = format!(r#"{{"type": "urn:ietf:params:acme:error:{kind}", "detail": "No."}}"#);
        Error::Api(serde_json::from_str(&json).expect("a problem"))
    }

    #[test]
    fn a_failure_says_what_was_done_and_what_the_authority_said() {
        let failure = Failure::of(problem("rejectedIdentifier"), "it takes no order");
        assert_eq!(failure.why, "it takes no order: No (`rejectedIdentifier`)");
        assert!(!failure.stranger && failure.held(Timestamp::UNIX_EPOCH) == Held::default());
        assert!(Failure::of(problem("accountDoesNotExist"), "x").stranger);
        assert!(is_of_the_nonce(&problem("badNonce")) && !is_of_the_nonce(&problem("dns")));
    }

    #[tokio::test]
    async fn a_bad_nonce_is_no_answer() {
        let mut left = 5;
        let mut ask = || {
            left -= 1;
            let answer = if left > 0 { Err(problem("badNonce")) } else { Ok(left) };
            async { answer }
        };
        assert!(matches!(nonced!(ask()), Ok(0)));
        let said = nonced!(async { Err::<(), _>(problem("dns")) });
        assert!(said.is_err());
    }
}
