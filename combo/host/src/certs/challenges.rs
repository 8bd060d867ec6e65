//! challenge -> what proves it. Shared by the orders that begin one and the endpoints that answer it.
//!
//! Takes what an authority will look for: the certificate of a tls-alpn-01 challenge (RFC 8737) by host name,
//! the text of an http-01 challenge (RFC 8555, section 8.3) by token. Gives it to whoever answers, until the
//! [`Pending`] of it is dropped. While nothing is pending, that is one atomic load.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::sign::CertifiedKey;

/// What ALPN calls the protocol of tls-alpn-01 (RFC 8737, section 6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// What is pending now. Clones are the same value and cheap.
#[derive(Clone, Default)]
pub(crate) struct Challenges(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// How many of tls-alpn-01 are pending.
    alpn: AtomicUsize,
    proofs: Mutex<Proofs>,
}

/// Of two for one name the later one is shown.
#[derive(Default)]
struct Proofs {
    begun: u64,
    alpn: HashMap<String, Vec<(u64, Arc<CertifiedKey>)>>,
    http: HashMap<String, Vec<(u64, String)>>,
}

impl Challenges {
    /// Whether a tls-alpn-01 challenge is pending.
    pub(crate) fn is_pending(&self) -> bool {
        self.0.alpn.load(Ordering::Acquire) > 0
    }

    /// The certificate to show whoever asks for this name by `acme-tls/1`.
    pub(crate) fn tls_alpn(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        if !self.is_pending() {
            return None;
        }
        let proofs = self.proofs();
        proofs.alpn.get(&*normal(name)).and_then(|pending| pending.last()).map(|(_, key)| key.clone())
    }

    /// The key authorization that is the answer to a request for a token.
    pub(crate) fn http(&self, token: &str) -> Option<String> {
        let proofs = self.proofs();
        proofs.http.get(token).and_then(|pending| pending.last()).map(|(_, said)| said.clone())
    }

    /// Shows this certificate for a name until what is returned is dropped.
    pub(crate) fn begin_tls_alpn(&self, name: &str, key: Arc<CertifiedKey>) -> Pending {
        let name = normal(name);
        let id = {
            let mut proofs = self.proofs();
            let id = proofs.begin();
            proofs.alpn.entry(name.clone()).or_default().push((id, key));
            id
        };
        // After it is there, so that whoever sees that there is one finds it.
        let _ = self.0.alpn.fetch_add(1, Ordering::AcqRel);
        Pending { of: self.clone(), id, what: What::TlsAlpn(name) }
    }

    /// Answers with this text for a token until what is returned is dropped.
    pub(crate) fn begin_http(&self, token: &str, authorization: String) -> Pending {
        let mut proofs = self.proofs();
        let id = proofs.begin();
        proofs.http.entry(token.to_owned()).or_default().push((id, authorization));
        Pending { of: self.clone(), id, what: What::Http(token.to_owned()) }
    }

    fn proofs(&self) -> std::sync::MutexGuard<'_, Proofs> {
        self.0.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proofs {
    fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.begun
    }
}

/// Names of hosts are compared without case or a final dot.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("pending", &self.is_pending()).finish_non_exhaustive()
    }
}

/// A challenge that is answered until this is dropped.
#[derive(Debug)]
#[must_use = "it is taken back when this is dropped"]
pub(crate) struct Pending {
    of: Challenges,
    id: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    TlsAlpn(String),
    Http(String),
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut proofs = self.of.proofs();
        match &self.what {
            What::TlsAlpn(name) => {
                let _ = self.of.0.alpn.fetch_sub(1, Ordering::AcqRel);
                take_back(&mut proofs.alpn, name, self.id);
            }
            What::Http(token) => take_back(&mut proofs.http, token, self.id),
        }
    }
}

fn take_back<T>(pending: &mut HashMap<String, Vec<(u64, T)>>, of: &str, id: u64) {
    if let Some(all) = pending.get_mut(of) {
        all.retain(|(known, _)| *known != id);
        if all.is_empty() {
            drop(pending.remove(of));
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    };

    use super::*;

    fn key(name: &str) -> Arc<CertifiedKey> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let chain = vec![made.cert.der().clone()];
        let provider = aws_lc_rs::default_provider();
        Arc::new(CertifiedKey::from_der(chain, key, &provider).expect("a pair"))
    }

    #[test]
    fn a_challenge_is_answered_until_it_is_dropped() {
        let challenges = Challenges::default();
        let shared = challenges.clone();
        assert!(!shared.is_pending() && shared.tls_alpn("a.example.com").is_none());
        let pending = challenges.begin_tls_alpn("A.example.com.", key("a"));
        assert!(shared.is_pending() && shared.tls_alpn("a.Example.com").is_some());
        assert!(shared.tls_alpn("b.example.com").is_none());
        let other = challenges.begin_tls_alpn("b.example.com", key("b"));
        drop(pending);
        assert!(shared.is_pending() && shared.tls_alpn("a.example.com").is_none());
        drop(other);
        assert!(!shared.is_pending());
    }

    #[test]
    fn of_two_for_one_name_the_later_is_shown_and_each_ends_by_itself() {
        let challenges = Challenges::default();
        let [first, second] = ["a", "b"].map(key);
        let one = challenges.begin_tls_alpn("a", first.clone());
        let two = challenges.begin_tls_alpn("a", second.clone());
        let shown = |challenges: &Challenges| challenges.tls_alpn("a").expect("one").cert.clone();
        assert_eq!(shown(&challenges), second.cert);
        drop(two);
        assert_eq!(shown(&challenges), first.cert);
        drop(one);
        assert!(!challenges.is_pending());
    }

    #[test]
    fn a_token_has_its_text_and_does_not_change_alpn() {
        let challenges = Challenges::default();
        let pending = challenges.begin_http("token", "token.thumb".into());
        assert_eq!(challenges.http("token").as_deref(), Some("token.thumb"));
        assert!(!challenges.is_pending() && challenges.http("Token").is_none());
        drop(pending);
        assert!(challenges.http("token").is_none());
    }
}
