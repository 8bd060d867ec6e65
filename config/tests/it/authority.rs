//! A small authority of our own, for what Pebble does not have: it suggests when to renew (RFC 9773), and says when
//! to come again. It proves no names and checks no signatures.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use combo::{Deployment, Timestamp, mount, secs};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SerialNumber,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::site::{Site, eventually, pair, runtime};

/// What the authority has seen, and what it says.
#[derive(Default)]
struct Books {
    base: String,
    /// Orders as they were placed.
    orders: Vec<Value>,
    /// By order.
    certificates: HashMap<usize, String>,
    /// When to renew the certificate of an order, in days from now.
    windows: HashMap<usize, (i64, i64)>,
    /// Which certificates were asked for.
    asked: Vec<String>,
    /// How an order is answered instead: status, header and problem.
    limited: Option<(u16, Option<&'static str>, Value)>,
}

type Shared = Arc<Mutex<Books>>;

/// A listener whose connections are encrypted.
struct Encrypted(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((socket, peer)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(socket).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// The authority, a folder of certificates, and the runtime that it lives on.
struct Authority {
    books: Shared,
    folder: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
    directory: String,
}

/// Every answer brings a nonce.
fn answer(status: u16, headers: &[(&str, &str)], body: &Value) -> Response {
    let mut response = (StatusCode::from_u16(status).unwrap(), Json(body.clone())).into_response();
    for (name, value) in [&[("replay-nonce", "once")], headers].concat() {
        let (name, value) = (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        let _ = response.headers_mut().insert(name, value);
    }
    response
}

/// What was signed, whoever has signed it.
fn payload(body: &[u8]) -> Value {
    let signed: Value = serde_json::from_slice(body).unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(signed["payload"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap_or(Value::Null)
}

fn state(books: &Books, order: usize) -> Value {
    let base = &books.base;
    let mut said = json!({
        "status": "ready",
        "identifiers": books.orders[order]["identifiers"],
        "authorizations": [format!("{base}/authorization")],
        "finalize": format!("{base}/finalize/{order}"),
    });
    if let Some(replaces) = books.orders[order].get("replaces") {
        said["replaces"] = replaces.clone();
    }
    if books.certificates.contains_key(&order) {
        said["status"] = "valid".into();
        said["certificate"] = format!("{base}/certificate/{order}").into();
    }
    said
}

async fn place(State(books): State<Shared>, body: Bytes) -> Response {
    let mut books = books.lock().unwrap();
    books.orders.push(payload(&body));
    if let Some((status, header, problem)) = &books.limited {
        let header: Vec<_> = header.iter().map(|after| ("retry-after", *after)).collect();
        return answer(*status, &header, problem);
    }
    let order = books.orders.len() - 1;
    let url = format!("{}/order/{order}", books.base);
    answer(201, &[("location", &url)], &state(&books, order))
}

async fn look(State(books): State<Shared>, Path(order): Path<usize>) -> Response {
    answer(200, &[], &state(&books.lock().unwrap(), order))
}

/// Signs whatever it is asked to, for ninety days, with the number of the order.
async fn finalize(State(books): State<Shared>, Path(order): Path<usize>, body: Bytes) -> Response {
    let request = BASE64_URL_SAFE_NO_PAD.decode(payload(&body)["csr"].as_str().unwrap()).unwrap();
    let mut request = CertificateSigningRequestParams::from_der(&request.into()).unwrap();
    let mut root = CertificateParams::new(vec![]).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = Issuer::new(root, KeyPair::generate().unwrap());
    let params = &mut request.params;
    params.serial_number = Some(SerialNumber::from(order as u64 + 1));
    params.use_authority_key_identifier_extension = true;
    let now = std::time::SystemTime::now();
    (params.not_before, params.not_after) = (now.into(), (now + secs(90 * 24 * 3_600)).into());
    let signed = request.signed_by(&root).unwrap().pem();
    let mut books = books.lock().unwrap();
    drop(books.certificates.insert(order, signed));
    answer(200, &[], &state(&books, order))
}

async fn certificate(State(books): State<Shared>, Path(order): Path<usize>) -> Response {
    let pem = books.lock().unwrap().certificates[&order].clone();
    ([("replay-nonce", "once")], pem).into_response()
}

async fn suggest(State(books): State<Shared>, Path(certificate): Path<String>) -> Response {
    let mut books = books.lock().unwrap();
    books.asked.push(certificate.clone());
    let number = BASE64_URL_SAFE_NO_PAD.decode(certificate.split_once('.').unwrap().1).unwrap();
    let order = usize::from(*number.last().unwrap()) - 1;
    let Some((start, end)) = books.windows.get(&order) else {
        return answer(404, &[], &json!({ "detail": "nothing is known of it" }));
    };
    let day = |days: i64| {
        Timestamp::from_second(Timestamp::now().as_second() + days * 24 * 3_600).unwrap().to_string()
    };
    let window = json!({ "start": day(*start), "end": day(*end) });
    answer(200, &[("retry-after", "21600")], &json!({ "suggestedWindow": window }))
}

impl Authority {
    fn start(books: Books) -> Self {
        let runtime = runtime();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("certs")).unwrap();
        let (key, cert) = pair();
        fs::write(folder.path().join("root.pem"), cert).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let base = format!("https://{}", listener.local_addr().unwrap());
        let directory = json!({
            "newNonce": format!("{base}/nonce"),
            "newAccount": format!("{base}/account"),
            "newOrder": format!("{base}/order"),
            "renewalInfo": format!("{base}/renewal-info"),
        });
        let books = Arc::new(Mutex::new(Books { base: base.clone(), ..books }));
        let account = format!("{base}/account/1");
        let nonce = async || {
            (
                StatusCode::OK,
                HeaderMap::from_iter([(
                    HeaderName::from_static("replay-nonce"),
                    HeaderValue::from_static("once"),
                )]),
            )
        };
        let proved = async || {
            answer(
                200,
                &[],
                &json!({
                    "status": "valid",
                    "identifier": { "type": "dns", "value": "a.example.com" },
                    "challenges": [],
                }),
            )
        };
        let router = Router::new()
            .route("/directory", get(async move || Json(directory.clone())))
            .route("/nonce", get(nonce))
            .route(
                "/account",
                post(async move || answer(201, &[("location", &*account)], &json!({ "status": "valid" }))),
            )
            .route("/order", post(place))
            .route("/order/{order}", post(look))
            .route("/authorization", post(proved))
            .route("/finalize/{order}", post(finalize))
            .route("/certificate/{order}", post(certificate))
            .route("/renewal-info/{certificate}", get(suggest))
            .with_state(books.clone());
        let encrypted = Encrypted(listener, TlsAcceptor::from(Arc::new(config)));
        drop(runtime.spawn(async move { axum::serve(encrypted, router).await }));
        let directory = format!("{base}/directory");
        Self { books, folder, runtime: Some(runtime), directory }
    }

    fn site(&self) -> Site {
        let (certs, root) = (self.folder.path().join("certs"), self.folder.path().join("root.pem"));
        let (certs, root) = (certs.display(), root.display());
        let directory = self.directory.replace(':', "\\:");
        let endpoint = format!("acme:{certs}:directory={directory}:root={root}:tcp:0:interface=127.0.0.1");
        Site::start(Deployment::new("acme").workers(1).listen(endpoint).mount("/", mount::files("static")))
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("certs/a.example.com.pem")
    }

    fn touch(&self) {
        fs::write(self.file(), "").unwrap();
    }

    fn remembered(&self) -> Option<Value> {
        let text = fs::read(self.folder.path().join("certs/.acme/orders.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()?["files"].get("a.example.com.pem").cloned()
    }

    fn orders(&self) -> Vec<Value> {
        self.books.lock().unwrap().orders.clone()
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn instant(remembered: &Value, of: &str) -> Timestamp {
    remembered[of].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_certificate_is_renewed_when_its_authority_suggests() {
    // The first is to be renewed at once, the second in some weeks.
    let windows = [(0, (-2, -1)), (1, (40, 42))].into();
    let authority = Authority::start(Books { windows, ..Books::default() });
    authority.touch();
    let _site = authority.site();
    let orders = eventually("it is renewed", || Some(authority.orders()).filter(|orders| orders.len() == 2));
    assert!(orders[0].get("replaces").is_none());
    let asked = authority.books.lock().unwrap().asked.clone();
    assert_eq!(orders[1]["replaces"].as_str(), asked.first().map(String::as_str));
    let remembered = eventually("it is known when it is renewed next", || {
        let known = authority.remembered()?;
        (known["certificates"][1].is_string() && known["suggested"]["window"].is_object()).then_some(known)
    });
    let in_days = instant(&remembered, "next").duration_since(Timestamp::now()).as_secs() / (24 * 3_600);
    assert!((39..=42).contains(&in_days), "{remembered}");
    assert_eq!(
        remembered["certificates"][0].as_str(),
        authority.books.lock().unwrap().asked.last().map(String::as_str)
    );
    assert_eq!(authority.orders().len(), 2);
}

#[test]
fn a_rate_limit_is_respected_whoever_touches_the_file() {
    let problem = json!({
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many certificates for this name",
    });
    for (after, least) in [(Some("7200"), 7_200), (None, 3_600)] {
        let limited = Some((429, after, problem.clone()));
        let authority = Authority::start(Books { limited, ..Books::default() });
        authority.touch();
        let site = authority.site();
        let remembered =
            eventually("it has failed", || authority.remembered().filter(|known| known["failures"] == 1));
        let wait = instant(&remembered, "again").duration_since(instant(&remembered, "failed")).as_secs();
        assert!(wait >= least && wait < least + 60, "{remembered}");
        let why = "the order was not taken: too many certificates for this name (`rateLimited`)";
        assert_eq!(remembered["why"], why);
        authority.touch();
        let job = format!("certificates {}", authority.file().parent().unwrap().display());
        eventually("it has looked again", || {
            let jobs = site.status().jobs;
            let known = jobs.iter().find(|known| known.name == job)?;
            (known.counts.ran >= 1).then_some(())
        });
        assert_eq!(authority.orders().len(), 1);
    }
}

#[test]
fn an_authority_that_is_gone_is_said_once_for_all_files() {
    let mut gone = Authority::start(Books::default());
    gone.directory = "https://127.0.0.1:1/directory".into();
    gone.touch();
    fs::write(gone.folder.path().join("certs/b.example.com.pem"), "").unwrap();
    let site = gone.site();
    let job = format!("certificates {}", gone.file().parent().unwrap().display());
    let last = eventually("it fails", || {
        let jobs = site.status().jobs;
        jobs.into_iter().find(|known| known.name == job)?.last
    });
    let combo::Outcome::Failed { why } = &last.outcome else { panic!("{last:?}") };
    let said = "nothing can be ordered at `https://127.0.0.1:1/directory` for `a.example.com.pem`, `b.example.com.pem`: ";
    assert!(
        why.starts_with(said) && why.contains("refused") && why.contains("; it is tried again at "),
        "{why}"
    );
}
