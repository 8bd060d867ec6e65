//! TLS as clients and a scanner from outside see it.

use std::path::Path;

use rcgen::{CertificateParams, CrlDistributionPoint, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use serde_json::Value;

use crate::{
    certs::{authority, put, signed},
    child::{BINARY, Child, Said, command, run},
    site::{ANY_PORT, Site, three},
};

/// A shell that has openssl say nothing until its tickets have come.
fn openssl(address: &str, words: &str, folder: &Path) -> Said {
    let mut shell = command("sh");
    let script = format!(
        "(printf 'GET /axum/json HTTP/1.1\\r\\nhost: a.org\\r\\nconnection: close\\r\\n\\r\\n'; sleep 1) | \
         openssl s_client -connect {address} -servername a.org -CAfile ca.pem -verify_return_error -alpn http/1.1 \
         -ign_eof {words}"
    );
    let _ = shell.current_dir(folder).args(["-c", &script]);
    run(shell)
}

#[test]
fn openssl_resumes_either_version_at_any_worker_and_names_what_is_refused() {
    let (folder, issuer) = (tempfile::tempdir().unwrap(), authority("shop"));
    let (key, cert) = signed(&issuer, &["a.org"]);
    put(&folder.path().join("certs/a.org.pem"), &format!("{key}{cert}"));
    put(&folder.path().join("ca.pem"), &issuer.pem());
    let site =
        Site::start(three().listen(format!("tls:{}:{ANY_PORT}", folder.path().join("certs").display())));
    let address = site.tls_address().to_string();
    let ask = |words: &str| openssl(&address, words, folder.path());
    for version in ["tls1_2", "tls1_3"] {
        let first = ask(&format!("-{version} -sess_out {version}"));
        assert!(first.out.contains("\nNew, TLS") && first.out.contains("Hello, JSON!"), "{first:?}");
        assert!(first.out.contains("Verify return code: 0 (ok)"), "{first:?}");
        for _ in 0..4 {
            let again = ask(&format!("-{version} -sess_in {version}"));
            assert!(again.out.contains("\nReused, TLS"), "{again:?}");
            assert!(again.out.contains("Hello, JSON!") && !again.out.contains("Early data was accepted"));
        }
    }
    for version in ["-tls1 -cipher ALL:@SECLEVEL=0", "-tls1_1 -cipher ALL:@SECLEVEL=0"] {
        assert!(ask(version).out.contains("Cipher is (NONE)"));
    }
    let refused = ask("-servername b.org");
    assert!(refused.err.contains("unrecognized name"), "{refused:?}");
}

/// Everything that `testssl.sh` looks at, but simulated clients and HTTP headers.
#[test]
fn a_scanner_finds_nothing_worse_than_low() {
    let (folder, issuer) = (tempfile::tempdir().unwrap(), authority("shop"));
    // For whoever names no host as well, as the scanner does now and then. As an authority signs them: with where its list of those that are revoked is.
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let revoked = CrlDistributionPoint { uris: vec!["http://crl.example.com/1.crl".to_owned()] };
    params.crl_distribution_points = vec![revoked];
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap().pem();
    put(&folder.path().join("certs/DEFAULT.pem"), &format!("{}{cert}", key.serialize_pem()));
    let ca = folder.path().join("ca.pem");
    put(&ca, &issuer.pem());
    let site =
        Site::start(three().listen(format!("tls:{}:{ANY_PORT}", folder.path().join("certs").display())));
    let port = site.tls_address().port();
    // In parts, since each has to end in time. What is behind `-p` is what the others go by.
    for words in [&["-p", "-f", "-P", "-s"][..], &["-p", "-S"], &["-p", "-U"]] {
        let mut worse = scan(port, words, &ca);
        // Where the machine is busy it gives up waiting now and then, which is a finding to it.
        for _ in 0..2 {
            let gave_up = |finding: &Value| {
                finding["finding"].as_str().is_some_and(|finding| finding.ends_with("connect problem"))
            };
            if worse.iter().any(gave_up) {
                worse = scan(port, words, &ca);
            }
        }
        assert!(worse.is_empty(), "{worse:#?}");
    }
}

/// What it finds that is worse than low, but for what is this test's own.
fn scan(port: u16, words: &[&str], authority: &Path) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let found = folder.path().join("found");
    let mut scanner = command("testssl");
    let _ = scanner
        .args(["--quiet", "--color", "0", "--warnings", "off", "--nodns", "min", "--ip", "127.0.0.1"])
        .args(words)
        .arg("--add-ca")
        .arg(authority)
        .arg("--jsonfile")
        .arg(&found)
        .arg(format!("https://localhost:{port}"));
    let said = run(scanner);
    let mut found: Vec<Value> = serde_json::from_slice(&std::fs::read(found).expect("findings")).unwrap();
    assert!(found.len() > 3, "{found:#?}\n{said:?}");
    // It misses engines for ciphers of GOST, and says how long the certificate of this test holds.
    let own = ["engine_problem", "cert_notAfter", "cert_validityPeriod", "cert_extlifeSpan"];
    found.retain(|finding| {
        let (severity, id) = (finding["severity"].as_str(), finding["id"].as_str().unwrap());
        !matches!(severity, Some("OK" | "INFO" | "LOW")) && !own.contains(&id)
    });
    found
}

/// A developer's machine, from nothing to a page that curl trusts.
#[test]
fn curl_trusts_the_authority_of_this_machine() {
    let state = tempfile::tempdir().unwrap();
    let child = Child::with(&["--listen", &format!("tls:dev:{ANY_PORT}")], |command| {
        let _ = command.env("XDG_STATE_HOME", state.path());
    });
    let port = child.address().port();
    let authority = state.path().join("combo/dev/authority.pem");
    let how = child.log.wait(&["to trust it, once"]);
    assert!(how.contains(&*authority.to_string_lossy()), "{how}");
    let curl = |host: &str| {
        let mut curl = command("curl");
        let _ = curl
            .args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--cacert"])
            .arg(&authority)
            .args([
                "--connect-to",
                &format!("::127.0.0.1:{port}"),
                &format!("https://{host}:{port}/warp/json"),
            ]);
        run(curl)
    };
    for host in ["localhost", "127.0.0.1", "[::1]", "shop.localhost", "a.shop.localhost"] {
        let said = curl(host);
        assert!(said.out.contains("Hello, JSON!"), "{host}: {said:?}");
    }
    assert_eq!(curl("example.com").code, Some(60));
    let mut certs = command(BINARY);
    let _ = certs.args(["--listen", "tls:dev:tcp:1", "certs", "--check"]).env("XDG_STATE_HOME", state.path());
    let said = run(certs);
    assert!(
        said.code == Some(0) && said.out.contains("localhost") && said.out.contains("by itself"),
        "{said:?}"
    );
}
