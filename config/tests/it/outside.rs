//! Programs from outside: what is said of them is shown with them. `./check` installs them.

use std::path::Path;

use combo::{Deployment, mount};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::{
    child::{Child, Said, command, run},
    proxies::mirrors,
    site::{self, ANY_PORT, ANY_TLS_PORT, FRAMEWORKS, Site, refused, three},
};

/// A real curl.
fn curl(words: &[&str]) -> Said {
    let mut curl = command("curl");
    let _ = curl.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]).args(words);
    run(curl)
}

#[test]
fn curl_gets_every_version_of_http_over_every_kind_of_endpoint() {
    let child =
        Child::with(&["--listen", ANY_PORT, "--listen", ANY_TLS_PORT, "--listen", "unix:app.sock"], |_| ());
    let (cert, socket) = (child.path("cert.pem"), child.path("app.sock"));
    let (cert, socket) = (cert.to_str().unwrap(), socket.to_str().unwrap());
    let _ = child.log.wait_for(3, &["frankenstein serves"]);
    let addresses = child.addresses();
    let [http, https, _] = &addresses[..] else { panic!("{addresses:?}") };
    for framework in FRAMEWORKS {
        let target = format!("/{framework}/where?a=b");
        let (http, https) = (format!("{http}{target}"), format!("{https}{target}"));
        let by_name = https.replace("127.0.0.1", "localhost");
        let unix = format!("http://unix{target}");
        for (words, version, scheme) in [
            (&["--http1.1", &*http][..], "1.1", "http"),
            (&["--http2-prior-knowledge", &http], "2", "http"),
            // It asks for an upgrade, which is not granted, and goes on.
            (&["--http2", &http], "1.1", "http"),
            (&["--http1.1", "--cacert", cert, &https], "1.1", "https"),
            (&["--http2", "--cacert", cert, &https], "2", "https"),
            (&["--cacert", cert, "--ipv4", &by_name], "2", "https"),
            (&["--tlsv1.2", "--tls-max", "1.2", "--cacert", cert, &https], "2", "https"),
            (&["--tlsv1.3", "--cacert", cert, &https], "2", "https"),
            (&["--unix-socket", socket, &unix], "1.1", "http"),
            (&["--unix-socket", socket, "--http2-prior-knowledge", &unix], "2", "http"),
        ] {
            let said = curl(&[words, &["--write-out", "\n%{http_version} %{http_code}"]].concat());
            assert_eq!(said.code, Some(0), "{words:?}: {said:?}");
            let (body, line) = said.out.rsplit_once('\n').unwrap();
            assert_eq!(line, format!("{version} 200"), "{words:?}");
            let seen: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(
                (&seen["framework"], &seen["scheme"]),
                (&framework.into(), &scheme.into()),
                "{words:?}"
            );
            assert_eq!((&seen["path"], &seen["query"]), (&"/where".into(), &"a=b".into()), "{words:?}");
        }
        // Bodies both ways.
        let echo = http.replace("/where", "/echo");
        let body = "x".repeat(100_000);
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            assert_eq!(curl(&[version, "--data", &body, &echo]).out, body, "{framework} {version}");
        }
    }
    let page = curl(&["--unix-socket", socket, "--include", "http://unix/"]);
    assert!(page.out.starts_with("HTTP/1.1 200 OK\r\n") && page.out.ends_with("welcome\n"), "{page:?}");
}

#[test]
fn curl_speaks_tls_over_a_unix_socket() {
    let folder = site::folder();
    let pair = ["key.pem", "cert.pem"].map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap());
    std::fs::create_dir(folder.path().join("certs")).unwrap();
    std::fs::write(folder.path().join("certs/localhost.pem"), pair.concat()).unwrap();
    let site = Site::start_in(folder, three().listen("tls:certs:unix:tls.sock"));
    let (socket, cert) = (site.path("tls.sock"), site.path("cert.pem"));
    let (socket, cert) = (socket.to_str().unwrap(), cert.to_str().unwrap());
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for framework in FRAMEWORKS {
            let url = format!("https://localhost/{framework}/where");
            let words = [
                version,
                "--unix-socket",
                socket,
                "--cacert",
                cert,
                "--write-out",
                "\n%{http_version}",
                &url,
            ];
            let said = curl(&words);
            let (body, line) = said.out.rsplit_once('\n').unwrap_or_else(|| panic!("{said:?}"));
            let seen: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((line, &seen["scheme"]), (spoken, &"https".into()), "{said:?}");
        }
    }
}

#[test]
fn curl_is_led_to_https() {
    let redirect = format!("redirect:{ANY_PORT}");
    let child = Child::with(&["--listen", &redirect, "--listen", ANY_TLS_PORT], |_| ());
    let cert = child.path("cert.pem");
    let _ = child.log.wait_for(2, &["frankenstein serves"]);
    let [http, https] = &child.addresses()[..] else { panic!("two addresses") };
    for framework in FRAMEWORKS {
        for version in ["--http1.1", "--http2"] {
            let target = format!("/{framework}/where?a=b");
            let words = [
                version,
                "--location",
                "--cacert",
                cert.to_str().unwrap(),
                "--write-out",
                "\n%{num_redirects} %{url_effective}",
                &format!("{http}{target}"),
            ];
            let said = curl(&words);
            let (body, line) = said.out.rsplit_once('\n').unwrap_or_else(|| panic!("{said:?}"));
            assert_eq!(line, format!("1 {https}{target}"), "{said:?}");
            let seen: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&seen["framework"], &seen["scheme"]), (&framework.into(), &"https".into()));
        }
        // A body is sent again.
        let words = [
            "--location",
            "--cacert",
            cert.to_str().unwrap(),
            "--data",
            "all",
            &format!("{http}/{framework}/echo"),
        ];
        assert_eq!(curl(&words).out, "all", "{framework}");
    }
}

/// An authority, and key and certificate of a client that it knows: files of a folder.
fn authority(folder: &Path, name: &str) -> [String; 3] {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let own = KeyPair::generate().unwrap();
    let root = params.self_signed(&own).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = client.signed_by(&key, &Issuer::new(params, own)).unwrap();
    [("ca", root.pem()), ("key", key.serialize_pem()), ("cert", client.pem())].map(|(what, pem)| {
        let path = folder.join(format!("{name}-{what}.pem"));
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[test]
fn a_client_shows_the_certificate_that_its_endpoint_asks_for_and_apps_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let [ca, key, cert] = authority(folder.path(), "ours");
    let [other, stranger_key, stranger_cert] = authority(folder.path(), "theirs");
    let ours: &[&str] = &["--key", &key, "--cert", &cert];
    let theirs: &[&str] = &["--key", &stranger_key, "--cert", &stranger_cert];
    for (said, none) in [("", None), (":client=optional", Some(0))] {
        let endpoint = format!("{ANY_TLS_PORT}:client_ca={ca}{said}");
        let site = Site::start(mirrors("shown").listen(endpoint));
        let server = site.path("cert.pem");
        for framework in FRAMEWORKS {
            for version in ["--http1.1", "--http2"] {
                for (shown, expected) in [(ours, Some(1)), (&[], none), (theirs, None)] {
                    let url = format!("https://{}/{framework}/a", site.tls_address());
                    let words = [&[version, "--cacert", server.to_str().unwrap(), &url], shown].concat();
                    let heard = curl(&words);
                    let seen = serde_json::from_str::<serde_json::Value>(&heard.out).ok();
                    let seen = seen.and_then(|seen| seen["certificates"].as_u64());
                    assert_eq!(seen, expected, "{framework} {said} {words:?}: {heard:?}");
                    assert_eq!(heard.code == Some(0), expected.is_some(), "{heard:?}");
                }
            }
        }
    }
    // Whose certificates are asked for is read before anything is served.
    std::fs::write(&other, "").unwrap();
    let errors = refused(
        Deployment::new("none")
            .listen(format!("{ANY_TLS_PORT}:client_ca={other}"))
            .mount("/", mount::redirect("/x")),
        site::folder().path(),
    );
    let said = errors.to_string();
    assert!(said.contains("authority of clients") && said.contains(&other), "{said}");
}

#[test]
fn openssl_shakes_hands_with_tls_1_2_and_1_3_and_with_nothing_older() {
    let site = Site::start(three().listen(ANY_TLS_PORT));
    let (address, cert) = (site.tls_address().to_string(), site.path("cert.pem"));
    let cert = cert.to_str().unwrap();
    let shake = |words: &[&str]| {
        let mut openssl = command("openssl");
        let _ = openssl.args(["s_client", "-connect", &address, "-CAfile", cert, "-brief"]).args(words);
        run(openssl)
    };
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for alpn in ["h2", "http/1.1", "h2,http/1.1", "http/1.1,h2"] {
            let said = shake(&[version, "-alpn", alpn]);
            let all = said.out + &said.err;
            assert_eq!(said.code, Some(0), "{version} {alpn}: {all}");
            assert!(all.contains(&format!("Protocol version: {protocol}")), "{all}");
            assert!(all.contains("Verification: OK"), "{all}");
        }
    }
    for version in ["-tls1", "-tls1_1"] {
        let said = shake(&[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert_ne!(said.code, Some(0), "{version}: {said:?}");
    }
    // Which one is chosen shows without -brief.
    for (offered, chosen) in [("h2", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2")] {
        let mut openssl = command("openssl");
        let _ = openssl.args(["s_client", "-connect", &address, "-CAfile", cert, "-alpn", offered]);
        let said = run(openssl);
        assert!(said.out.contains(&format!("ALPN protocol: {chosen}")), "{offered}: {said:?}");
    }
    let none = shake(&["-alpn", "gopher"]);
    assert_ne!(none.code, Some(0), "{none:?}");
    site.connections(0);
}

/// A clock that is put forward and back by three hours, as the process sees it.
#[test]
fn ticks_go_on_when_the_clock_is_set_by_hours() {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten();
    let library =
        libraries.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    let library = library.expect("`faketime` is installed");
    let clock = tempfile::NamedTempFile::new().unwrap();
    let set = |offset: &str| std::fs::write(clock.path(), format!("{offset}\n")).unwrap();
    set("+0");
    let child = Child::with(&["--listen", ANY_PORT], |command| {
        let _ = command
            .env("LD_PRELOAD", &library)
            .env("FAKETIME_TIMESTAMP_FILE", clock.path())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let ticks = || {
        let entries = combo::read_ledger(&child.path(".state")).unwrap().into_iter();
        entries.filter(|entry| &*entry.job == "clock").collect::<Vec<_>>()
    };
    let due = |of: &combo::Entry| of.due.as_second();
    let first = site::eventually("a first tick", || ticks().first().map(due));
    set("+3h");
    let late = site::eventually("what was jumped over is merged", || {
        let ticks = ticks();
        let missed = ticks.iter().position(|tick| tick.outcome.word() == "missed" && tick.ticks > 2_600)?;
        ticks.get(missed + 1).filter(|tick| tick.outcome.word() == "ran").map(due)
    });
    assert!((late - first - 10_800).abs() < 100, "{first}, then {late}");
    set("-3h");
    let after = site::eventually("ticks go on at the new time", || {
        let ticks = ticks();
        let back = ticks.iter().filter(|tick| due(tick) < first - 10_000).collect::<Vec<_>>();
        (back.len() >= 2).then(|| back.into_iter().map(due).collect::<Vec<_>>())
    });
    assert_eq!(after[1] - after[0], 4, "{after:?}");
}
