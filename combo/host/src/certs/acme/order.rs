//! an account, names -> key and certificate chain (RFC 8555, section 7.4).
//!
//! Each name is proved by the challenge that was said; what was begun for that is taken back at the end, however
//! that is. The key is made here, for this order alone (ECDSA, P-256), and the chain is checked against it.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use combo_core::{BoxError, Cancel, endpoint::Challenge};
use futures_util::{StreamExt, TryStreamExt, stream};
use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier, KeyAuthorization,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    client::verify_server_name,
    crypto::aws_lc_rs::{self, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};

use super::{
    certificate::Certificate,
    client::in_words,
    failure::{Failure, TRIES, is_of_the_nonce, nonced},
    hook::Hook,
};
use crate::certs::challenges::{Challenges, Pending};

/// How long all of it may take, and how much longer for each name.
const PATIENCE: Duration = Duration::from_secs(600);
const PATIENCE_OF_A_NAME: Duration = Duration::from_secs(60);

/// How many records are set, or taken back, at once.
const AT_ONCE: usize = 8;

/// How long the authority may take to look for what proves a name, and to sign.
const POLLING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(200))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// What is ordered, and how it is proved whose the names are.
pub(super) struct Wish<'a> {
    pub(super) names: &'a [String],
    pub(super) challenge: Challenge,
    pub(super) challenges: &'a Challenges,
    /// There if the challenge is dns-01.
    pub(super) hook: Option<&'a Hook>,
    /// The certificate that this is instead of (RFC 9773, section 5).
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

/// What came of it.
pub(super) struct Issued {
    /// Key, certificate and chain.
    pub(super) pem: String,
    pub(super) leaf: Certificate,
}

/// Without the key.
impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("leaf", &self.leaf.id).finish_non_exhaustive()
    }
}

/// What answers a challenge.
enum Proof {
    Kept { _pending: Pending },
    Record(Record),
}

/// One of the DNS that a hook is to set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    name: String,
    value: String,
}

/// Orders a certificate.
///
/// # Errors
///
/// Why there is none.
pub(super) async fn order(account: &Account, wish: &Wish<'_>, cancel: &Cancel) -> Result<Issued, Failure> {
    let mut proofs = Vec::new();
    let patience = patience(wish.names.len());
    let ended = tokio::select! {
        ended = tokio::time::timeout(patience, ordered(account, wish, &mut proofs)) => ended
            .unwrap_or_else(|_| Err(Failure::ours(format!("it did not end within {patience:?}")))),
        () = cancel.cancelled() => Err(Failure::ours("it was told to end")),
    };
    take_back(proofs, wish.hook).await;
    ended
}

fn patience(names: usize) -> Duration {
    PATIENCE + PATIENCE_OF_A_NAME * u32::try_from(names).unwrap_or(u32::MAX)
}

async fn ordered(account: &Account, wish: &Wish<'_>, proofs: &mut Vec<Proof>) -> Result<Issued, Failure> {
    let mut order = begin(account, wish).await?;
    prove(&mut order, wish, proofs).await?;
    let refused = |error| Failure::of(error, "the names were not proved");
    match nonced!(order.poll_ready(&POLLING)) {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(Failure::ours(explain(&mut order, "the names were not proved").await)),
        Err(error) => {
            let mut failure = refused(error);
            failure.why = explain(&mut order, &failure.why).await;
            return Err(failure);
        }
    }
    let (key, request) =
        request(wish.names).map_err(|error| Failure::ours(format!("no key was made: {error}")))?;
    let refused = |error| Failure::of(error, "the certificate was not signed");
    nonced!(order.finalize_csr(&request)).map_err(refused)?;
    let chain = nonced!(order.poll_certificate(&POLLING)).map_err(refused)?;
    let pem = key + &chain;
    let leaf = checked(&pem, wish.names)
        .map_err(|error| Failure::ours(format!("the certificate that was signed is of no use: {error}")))?;
    Ok(Issued { pem, leaf })
}

/// Places the order, instead of a certificate if it is, unless the authority does not take that.
async fn begin(account: &Account, wish: &Wish<'_>) -> Result<Order, Failure> {
    let names: Vec<_> = wish.names.iter().cloned().map(Identifier::Dns).collect();
    let refused = |error| Failure::of(error, "the order was not taken");
    if let Some(replaces) = &wish.replaces {
        match nonced!(account.new_order(&NewOrder::new(&names).replaces(replaces.clone()))) {
            Ok(order) => return Ok(order),
            Err(error) => {
                let failure = refused(error);
                if failure.stranger || failure.held(combo_core::Timestamp::UNIX_EPOCH).limited {
                    return Err(failure);
                }
                tracing::debug!("an order is not taken as one that replaces another: {}", failure.why);
            }
        }
    }
    nonced!(account.new_order(&NewOrder::new(&names))).map_err(refused)
}

/// Begins a challenge for each name that is not proved yet, and says so.
async fn prove(order: &mut Order, wish: &Wish<'_>, proofs: &mut Vec<Proof>) -> Result<(), Failure> {
    let kind = match wish.challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::Dns01 => ChallengeType::Dns01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    };
    let (mut begun, mut tries) = (HashSet::new(), TRIES);
    'again: loop {
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let mut authorization = match next {
                Ok(authorization) => authorization,
                Err(error) if tries > 0 && is_of_the_nonce(&error) => {
                    tries -= 1;
                    continue 'again;
                }
                Err(error) => return Err(Failure::of(error, "it does not say what proves the names")),
            };
            let (name, url) = (authorization.identifier().to_string(), authorization.url().to_owned());
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending if begun.contains(&url) => continue,
                AuthorizationStatus::Pending => {}
                _ => return Err(Failure::ours(format!("`{name}` cannot be proved any more in this order"))),
            }
            let Some(challenge) = authorization.challenge(kind.clone()) else {
                let wanted = wish.challenge.name();
                return Err(Failure::ours(format!("the authority takes no `{wanted}` for `{name}`")));
            };
            let proof = proof(&name, &challenge.token, &challenge.key_authorization(), wish);
            proofs.push(proof.map_err(Failure::ours)?);
            let _ = begun.insert(url);
        }
        break;
    }
    if let Some(hook) = wish.hook {
        // They are among the proofs already: one that was set by half is taken back as well.
        set(proofs, hook).await.map_err(Failure::ours)?;
    }
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization =
            next.map_err(|error| Failure::of(error, "it does not say what proves the names"))?;
        let name = authorization.identifier().to_string();
        if !begun.contains(authorization.url()) {
            continue;
        }
        if let Some(mut challenge) = authorization.challenge(kind.clone()) {
            nonced!(challenge.set_ready())
                .map_err(|error| Failure::of(error, &format!("`{name}` was not proved")))?;
        }
    }
    Ok(())
}

/// Has a challenge answered from now on, or says what a hook is to set for that.
fn proof(
    name: &str,
    token: &str,
    authorization: &KeyAuthorization,
    wish: &Wish<'_>,
) -> Result<Proof, String> {
    match wish.challenge {
        Challenge::Http01 => {
            let _pending = wish.challenges.begin_http(token, authorization.as_str().to_owned());
            Ok(Proof::Kept { _pending })
        }
        Challenge::Dns01 => {
            if wish.hook.is_none() {
                return Err("there is no hook that changes the DNS".to_owned());
            }
            let name = format!("_acme-challenge.{}", name.trim_start_matches("*."));
            Ok(Proof::Record(Record { name, value: authorization.dns_value() }))
        }
        Challenge::TlsAlpn01 => {
            let shown = shown(name, authorization.digest().as_ref());
            let shown =
                shown.map_err(|error| format!("no certificate was made that proves `{name}`: {error}"))?;
            Ok(Proof::Kept { _pending: wish.challenges.begin_tls_alpn(name, Arc::new(shown)) })
        }
    }
}

/// The records among these. Those of one name are together: a hook need not bear two at once.
fn records(proofs: &[Proof]) -> Vec<Vec<Record>> {
    let mut records: BTreeMap<&str, Vec<Record>> = BTreeMap::new();
    for proof in proofs {
        if let Proof::Record(record) = proof {
            records.entry(&record.name).or_default().push(record.clone());
        }
    }
    records.into_values().collect()
}

/// Has all records set, a few at once.
async fn set(proofs: &[Proof], hook: &Hook) -> Result<(), String> {
    let setting = records(proofs).into_iter().map(|records| async move {
        for Record { name, value } in &records {
            hook.set(name, value).await?;
        }
        Ok(())
    });
    // A stream of the closure itself could not be sent to another thread.
    let setting: Vec<_> = setting.collect();
    stream::iter(setting).buffer_unordered(AT_ONCE).try_collect().await
}

/// Takes back what was begun.
async fn take_back(proofs: Vec<Proof>, hook: Option<&Hook>) {
    let Some(hook) = hook else { return };
    let unsetting = records(&proofs).into_iter().map(|records| async move {
        for Record { name, value } in &records {
            if let Err(why) = hook.unset(name, value).await {
                tracing::warn!("{why}");
            }
        }
    });
    let unsetting: Vec<_> = unsetting.collect();
    stream::iter(unsetting).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// The certificate that proves a name by a handshake (RFC 8737, section 3).
fn shown(name: &str, digest: &[u8]) -> Result<CertifiedKey, BoxError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let certificate = params.self_signed(&key)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Whether they belong together cannot be asked: what is critical in it is known to nobody else.
    Ok(CertifiedKey::new(vec![certificate], any_supported_type(&key)?))
}

/// A new key, and the request to sign a certificate for it.
fn request(names: &[String]) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    Ok((key.serialize_pem(), params.serialize_request(&key)?.der().to_vec()))
}

/// What was signed, if the key is the certificate's and it is for all these names.
fn checked(pem: &str, names: &[String]) -> Result<Certificate, BoxError> {
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())?;
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let leaf = Certificate::read(pem.as_bytes())?;
    drop(CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?);
    let parsed = ParsedCertificate::try_from(&leaf.certificate)?;
    for name in names {
        // What stands for any label is held against one.
        let host = name.strip_prefix("*.").map_or_else(|| name.clone(), |below| format!("a.{below}"));
        verify_server_name(&parsed, &ServerName::try_from(host)?)
            .map_err(|_| format!("it is not for `{name}`"))?;
    }
    Ok(leaf)
}

/// Why names were not proved, each as the authority says it; or else what is known anyway.
async fn explain(order: &mut Order, otherwise: &str) -> String {
    let (mut why, mut names) = (Vec::new(), Vec::new());
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        drop(nonced!(authorization.refresh()).map(drop));
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        why.extend(errors.map(|problem| format!("`{name}` was not proved: {}", in_words(problem))));
        names.push(name);
    }
    match &*names {
        // The order may be known to have failed a moment before its only name is.
        [name] if why.is_empty() => otherwise.replacen("the names were", &format!("`{name}` was"), 1),
        _ if why.is_empty() => otherwise.to_owned(),
        _ => why.join("; "),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::hook::tests::hook, *};

    fn record(name: &str, value: &str) -> Proof {
        Proof::Record(Record { name: name.into(), value: value.into() })
    }

    #[tokio::test]
    async fn a_record_that_was_set_by_half_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let hook = hook(folder.path(), r#"echo "$@" >> said; [ "$1" = unset ]"#);
        let proofs = vec![record("_acme-challenge.a", "v")];
        let _ = set(&proofs, &hook).await.expect_err("it fails");
        take_back(proofs, Some(&hook)).await;
        let said = fs::read_to_string(folder.path().join("said")).expect("it ran");
        assert_eq!(said, "set _acme-challenge.a v\nunset _acme-challenge.a v\n");
    }

    #[tokio::test]
    async fn records_are_set_at_once_and_those_of_one_name_in_turn() {
        let folder = tempfile::tempdir().expect("a folder");
        // It ends when one of each name is there, and while no other of its name is being set.
        let script = r#"
mkdir "$2" || exit 1
touch "seen-$2"
for _ in $(seq 1000); do
    [ -e seen-a ] && [ -e seen-b ] && rmdir "$2" && exit 0
    sleep 0.02
done
exit 1"#;
        let hook = hook(folder.path(), script);
        set(&[record("a", "1"), record("a", "2"), record("b", "3")], &hook).await.expect("all are set");
    }

    #[test]
    fn more_names_may_take_longer() {
        // Each may need a hook that waits for three minutes.
        assert!(patience(100) > Duration::from_secs(100 * 180 / 8) + PATIENCE);
    }

    #[test]
    fn the_certificate_of_a_challenge_has_the_digest_and_the_name() {
        let digest = [7; 32];
        let shown = shown("a.example.com", &digest).expect("a certificate");
        // To others it is no certificate.
        assert!(ParsedCertificate::try_from(&shown.cert[0]).is_err());
        assert!(shown.cert[0].windows(32).any(|window| window == digest));
        assert!(shown.cert[0].windows(13).any(|window| window == b"a.example.com"));
    }

    #[test]
    fn what_was_signed_is_for_all_names_and_for_the_key() {
        let made = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            rcgen::generate_simple_self_signed(names).expect("a certificate")
        };
        let one = made(&["a.example.com", "*.example.org"]);
        let pem = one.signing_key.serialize_pem() + &one.cert.pem();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(checked(&pem, &names(&["a.example.com", "*.example.org"])).is_ok());
        let why = checked(&pem, &names(&["a.example.com", "b.example.com"])).expect_err("one is missing");
        assert_eq!(why.to_string(), "it is not for `b.example.com`");
        let other = made(&["a.example.com"]).signing_key.serialize_pem() + &one.cert.pem();
        assert!(checked(&other, &names(&["a.example.com"])).is_err());
    }

    #[test]
    fn what_was_issued_is_shown_without_its_key() {
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).expect("a certificate");
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        let leaf = Certificate::read(pem.as_bytes()).expect("a certificate");
        let shown = format!("{:?}", Issued { pem, leaf });
        assert!(shown.starts_with("Issued { leaf: ") && !shown.contains("-----BEGIN"), "{shown}");
    }

    #[test]
    fn a_key_is_made_for_each_request() {
        let names = ["*.example.com".to_owned(), "example.com".to_owned()];
        let [(one, csr), (other, _)] = [(); 2].map(|()| request(&names).expect("a request"));
        assert!(one != other && one.starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(csr.windows(13).any(|window| window == b"*.example.com"));
    }
}
