//! What endpoints mean, what is wrong with those that mean nothing, and that all of them survive printing.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{parse::CLIENT_CA, *};

fn tcp(number: u16, interface: Option<&str>) -> Endpoint {
    let interface = interface.map(|address| address.parse().expect("an address"));
    Endpoint::Tcp(Port { interface, ..Port::new(number) })
}

fn unix(path: &str, mode: u32) -> Endpoint {
    Endpoint::Unix { path: UnixName::Path(path.into()), mode }
}

fn folder(path: &str, within: Endpoint) -> Tls {
    Tls {
        certificates: Certificates::Folder(path.into()),
        issuer: None,
        unknown: Unknown::Default,
        clients: None,
        within,
    }
}

fn issuer(authority: Authority) -> Issuer {
    Issuer {
        authority,
        email: None,
        eab: None,
        challenge: Challenge::default(),
        hook: None,
        on_demand: Vec::new(),
    }
}

fn check(said: &str, means: Result<Endpoint, Fault>) {
    assert_eq!(said.parse(), means, "{said}");
    if let Ok(endpoint) = means {
        assert_eq!(endpoint.to_string().parse(), Ok(endpoint), "{said} printed and parsed again");
    }
}

#[test]
fn endpoints_mean_what_they_say() {
    check("tcp:8080", Ok(tcp(8080, None)));
    check("8080", Ok(tcp(8080, None)));
    check("8080:interface=127.0.0.1", Ok(tcp(8080, Some("127.0.0.1"))));
    check("tcp:0", Ok(tcp(0, None)));
    check("tcp:8080:interface=127.0.0.1", Ok(tcp(8080, Some("127.0.0.1"))));
    check("tcp:8080:interface=[::1]", Ok(tcp(8080, Some("::1"))));
    check(r"tcp:8080:interface=\:\:1", Ok(tcp(8080, Some("::1"))));
    check("tcp:interface=[::]:8080", Ok(tcp(8080, Some("::"))));
    check("tcp6:8080", Ok(tcp(8080, Some("::"))));
    check("tcp6:8080:interface=[::1]", Ok(tcp(8080, Some("::1"))));
    check("unix:/run/a.sock", Ok(unix("/run/a.sock", 0o660)));
    check("unix:/run/a.sock:mode=600", Ok(unix("/run/a.sock", 0o600)));
    check(r"unix:a\:b\=c", Ok(unix("a:b=c", 0o660)));
    check("unix:./@a", Ok(unix("./@a", 0o660)));
    let name = UnixName::Abstract("a:b".into());
    check(r"unix:@a\:b", Ok(Endpoint::Unix { path: name, mode: 0o660 }));
    check(
        "ssl:8443:key=k=1.pem:cert=c.pem",
        Ok(Endpoint::Ssl {
            port: Port::new(8443),
            key: "k=1.pem".into(),
            cert: "c.pem".into(),
            clients: None,
        }),
    );
    for (said, optional) in [("", false), (":client=required", false), (":client=optional", true)] {
        check(
            &format!("ssl:8443:key=k:cert=c:client_ca=ca.pem{said}"),
            Ok(Endpoint::Ssl {
                port: Port::new(8443),
                key: "k".into(),
                cert: "c".into(),
                clients: Some(Clients { authority: "ca.pem".into(), optional }),
            }),
        );
    }
    check("ssl:1:key=k:cert=c:client_ca=a:client=maybe", Err(Fault::Client("maybe".into())));
    check("ssl:1:key=k:cert=c:client=optional", Err(Fault::Missing(CLIENT_CA)));
}

#[test]
fn ports_have_options() {
    let check = |options: &str, port: Port| check(&format!("tcp:80:{options}"), Ok(Endpoint::Tcp(port)));
    let usual = Port::new(80);
    check("backlog=16", Port { backlog: 16, ..usual });
    check("nodelay=no", Port { nodelay: false, ..usual });
    check("nodelay=yes:keepalive=60:backlog=4096", usual);
    check("keepalive=no", Port { keepalive: None, ..usual });
    check("keepalive=7200", Port { keepalive: Some(Duration::from_secs(7_200)), ..usual });
    for said in ["90000", "90s", "1m30s", "90000ms"] {
        let user_timeout = Some(Duration::from_secs(90));
        check(&format!("user_timeout={said}"), Port { user_timeout, ..usual });
    }
    check("v6only=yes", Port { v6only: Some(true), ..usual });
    let interface = Some("::".parse().expect("an address"));
    check("interface=[::]:v6only=no", Port { interface, v6only: Some(false), ..usual });
}

#[test]
fn sockets_that_were_there_before_go_by_name_place_or_number() {
    let check = |said, socket| check(said, Ok(Endpoint::Inherited(socket)));
    check("systemd:name=web", Inherited::Name("web".into()));
    check("systemd:name=a=b", Inherited::Name("a=b".into()));
    check("systemd:index=0", Inherited::Index(0));
    check("fd:3", Inherited::Fd(3));
}

#[test]
fn a_wrapper_has_an_endpoint_within() {
    let haproxy = |within| Endpoint::Haproxy(Box::new(within));
    check("haproxy:tcp:8080", Ok(haproxy(tcp(8080, None))));
    check("haproxy:8080:interface=[::1]", Ok(haproxy(tcp(8080, Some("::1")))));
    check(r"haproxy:unix:a\:b:mode=600", Ok(haproxy(unix("a:b", 0o600))));
    check("haproxy:systemd:index=1", Ok(haproxy(Endpoint::Inherited(Inherited::Index(1)))));

    let redirect = |port, code, within| Ok(Endpoint::Redirect(Box::new(Redirect { port, code, within })));
    check("redirect:tcp:80", redirect(None, 308, tcp(80, None)));
    check("redirect:80", redirect(None, 308, tcp(80, None)));
    check("redirect:port=8443:code=301:tcp:80", redirect(Some(8443), 301, tcp(80, None)));
    check("redirect:port=443:haproxy:unix:a:mode=600", redirect(Some(443), 308, haproxy(unix("a", 0o600))));

    let tls = |tls| Ok(Endpoint::Tls(Box::new(tls)));
    check("tls:certs:443", tls(folder("certs", tcp(443, None))));
    check(r"tls:/a\:b:unix:x:mode=777", tls(folder("/a:b", unix("x", 0o777))));
    check("tls:dev:tcp:8443", tls(Tls { certificates: Certificates::Dev, ..folder("", tcp(8443, None)) }));
    check("tls:./dev:tcp:8443", tls(folder("./dev", tcp(8443, None))));
    check("tls:a:haproxy:systemd:name=x", {
        tls(folder("a", haproxy(Endpoint::Inherited(Inherited::Name("x".into())))))
    });
    let clients = Some(Clients { authority: "ca".into(), optional: true });
    check(
        "tls:unknown=refuse:a:client_ca=ca:client=optional:tcp:443:interface=1.2.3.4",
        tls(Tls { unknown: Unknown::Refuse, clients, ..folder("a", tcp(443, Some("1.2.3.4"))) }),
    );
}

#[test]
fn who_gives_out_certificates_is_said_around_an_endpoint() {
    let check = |said, issuer| {
        check(said, Ok(Endpoint::Tls(Box::new(Tls { issuer: Some(issuer), ..folder("c", tcp(443, None)) }))));
    };
    let le = || issuer(Authority::LetsEncrypt);
    check("le:c:tcp:443", le());
    check("lets:c:tcp:443", issuer(Authority::LetsEncryptStaging));
    let directory = "https://localhost:14000/dir?a=b".to_owned();
    check(
        r"acme:c:directory=https\://localhost\:14000/dir?a=b:443",
        issuer(Authority::Other { directory: directory.clone(), root: None }),
    );
    check(
        r"acme:c:root=r.pem:directory=https\://localhost\:14000/dir?a=b:tcp:443",
        issuer(Authority::Other { directory, root: Some("r.pem".into()) }),
    );
    check("le:c:email=a@example.com:443", Issuer { email: Some("a@example.com".into()), ..le() });
    check("le:c:eab=a,b,c2VjcmV0:443", Issuer { eab: Some(("a,b".into(), "c2VjcmV0".into())), ..le() });
    check("le:c:challenge=http-01:443", Issuer { challenge: Challenge::Http01, ..le() });
    check("le:c:challenge=tls-alpn-01:443", le());
    let (challenge, hook) = (Challenge::Dns01, Some("bin/dns".into()));
    check("le:c:challenge=dns-01:hook=bin/dns:443", Issuer { challenge, hook, ..le() });
    let on_demand = vec!["a.example.com".into(), "*.example.org".into()];
    check("le:c:allow=A.example.com,*.example.org.:443", Issuer { on_demand, ..le() });
}

#[test]
fn a_folder_called_dev_is_not_what_is_made_for_developers() {
    let folder = |said: &str| match said.parse() {
        Ok(Endpoint::Tls(tls)) => tls.certificates,
        other => panic!("{other:?}"),
    };
    assert_eq!(folder("tls:dev:443"), Certificates::Dev);
    assert_eq!(folder("le:dev:443"), Certificates::Folder("dev".into()));
    let typed = Endpoint::Tls(Box::new(self::folder("dev", tcp(443, None))));
    assert_eq!(typed.to_string(), "tls:./dev:tcp:443");
    // Nor is one called like a kind of endpoint what somebody has forgotten.
    let typed = Endpoint::Tls(Box::new(self::folder("haproxy", tcp(443, None))));
    assert_eq!(typed.to_string(), "tls:./haproxy:tcp:443");
    check("le:tcp:443", Err(Fault::NoFolder("tcp".into())));
    check("tls:haproxy:tcp:443", Err(Fault::NoFolder("haproxy".into())));
}

#[test]
fn what_is_wrong_is_named() {
    let value = |keyword, said: &str, must| Err(Fault::Value { keyword, said: said.into(), must });
    check("", Err(Fault::Empty));
    check("interface=1.2.3.4", Err(Fault::Missing("kind, such as `tcp:`")));
    check("tcp", Err(Fault::Missing("port")));
    check("tcp:", Err(Fault::Port(String::new())));
    check("tcp:65536", Err(Fault::Port("65536".into())));
    check("tcp:+80", Err(Fault::Port("+80".into())));
    check("tcp:http", Err(Fault::Port("http".into())));
    check("99999", Err(Fault::Port("99999".into())));
    check("udp:53", Err(Fault::UnknownKind("udp".into())));
    check(":8080", Err(Fault::UnknownKind(String::new())));
    check("127.0.0.1:80", Err(Fault::UnknownKind("127.0.0.1".into())));
    check("tcp:80:90", Err(Fault::Excess("90".into())));
    check("tcp:80:mode=660", Err(Fault::UnknownKeyword("mode".into())));
    check("tcp:80:interface=localhost", Err(Fault::Interface("localhost".into())));
    check("tcp:80:interface=[::1", Err(Fault::Brackets));
    check("tcp:80:interface=[x]", Err(Fault::Brackets));
    check("tcp:80:interface=1.2.3.4:interface=1.2.3.4", Err(Fault::Twice("interface".into())));
    check("tcp6:80:interface=1.2.3.4", Err(Fault::NotV6("1.2.3.4".into())));
    check("tcp:80:interface=1.2.3.4:v6only=no", Err(Fault::NotV6("1.2.3.4".into())));
    check("tcp:80:v6only=1", value("v6only", "1", "yes or no"));
    for said in ["0", "-1", "+1", "x", "99999999999"] {
        check(
            &format!("tcp:80:backlog={said}"),
            value("backlog", said, "a number of connections, at least 1"),
        );
        check(
            &format!("tcp:80:keepalive={said}"),
            value("keepalive", said, "a number of seconds, 1 to 32767, or no"),
        );
        check(
            &format!("tcp:80:user_timeout={said}"),
            value("user_timeout", said, "a number of milliseconds or a duration such as 30s, at least 1ms"),
        );
    }
    check(r"tcp:80\", Err(Fault::UnfinishedEscape));
    check("unix", Err(Fault::Missing("path")));
    check("unix:", Err(Fault::Missing("path")));
    check("unix:a:mode=999", Err(Fault::Mode("999".into())));
    check("unix:a:mode=7777", Err(Fault::Mode("7777".into())));
    check("unix:@", Err(Fault::AbstractName(String::new())));
    let long = "a".repeat(108);
    check(&format!("unix:@{long}"), Err(Fault::AbstractName(long)));
    check("unix:@a:mode=600", Err(Fault::AbstractMode));
    for said in ["systemd", "systemd:web", "systemd:name="] {
        check(said, Err(Fault::Missing("`name=` and no `index=`")));
    }
    check("systemd:name=a:index=0", Err(Fault::Excess("index=0".into())));
    check("systemd:index=one", value("index", "one", "a place (0 is the first)"));
    check("fd", Err(Fault::Missing("descriptor")));
    for said in ["0", "2", "-3", "+3", "x", ""] {
        check(&format!("fd:{said}"), Err(Fault::Fd(said.into())));
    }
    check("ssl:443:cert=a", Err(Fault::Missing("`key=` (the file with the private key)")));
    check("ssl:443:key=a", Err(Fault::Missing("`cert=` (the file with the certificate chain)")));
}

#[test]
fn what_is_wrong_with_a_wrapper_is_named() {
    let value = |keyword, said: &str, must| Err(Fault::Value { keyword, said: said.into(), must });
    for wrapper in ["haproxy", "redirect", "tls:a", "le:a", "le:a:unknown=refuse"] {
        check(wrapper, Err(Fault::Missing("endpoint behind it")));
        check(&format!("{wrapper}:"), Err(Fault::Empty));
        check(&format!("{wrapper}:udp:1"), Err(Fault::UnknownKind("udp".into())));
    }
    for folder in ["tls", "tls:", "le:", "acme::tcp:443"] {
        check(folder, Err(Fault::Missing("folder")));
    }
    check("haproxy:haproxy:tcp:1", Err(Fault::Nested("haproxy")));
    check("redirect:redirect:tcp:1", Err(Fault::Nested("redirect")));
    check("tls:a:haproxy:haproxy:1", Err(Fault::Nested("haproxy")));
    check("tls:a:tls:b:tcp:1", Err(Fault::TlsTwice));
    check("le:a:ssl:1:key=k:cert=c", Err(Fault::TlsTwice));
    check("le:a:haproxy:ssl:1:key=k:cert=c", Err(Fault::TlsTwice));
    check("redirect:tls:a:tcp:1", Err(Fault::RedirectTls));
    check("redirect:ssl:1:key=k:cert=c", Err(Fault::RedirectTls));
    check("redirect:haproxy:ssl:1:key=k:cert=c", Err(Fault::RedirectTls));
    check("tls:a:redirect:tcp:1", Err(Fault::RedirectTls));
    check("haproxy:redirect:tcp:1", Err(Fault::Order("redirect", "haproxy")));
    check("haproxy:le:a:tcp:1", Err(Fault::Order("le", "haproxy")));
    check("redirect:code=302:tcp:80", value("code", "302", "301 or 308"));
    check("redirect:port=0:tcp:80", value("port", "0", "a port, 1 to 65535"));
    check("haproxy:mode=660:tcp:80", Err(Fault::UnknownKeyword("mode".into())));
    check("tls:a:email=a@b.c:tcp:443", Err(Fault::UnknownKeyword("email".into())));
    check("le:a:directory=x:tcp:443", Err(Fault::UnknownKeyword("directory".into())));
    check("tls:a:unknown=maybe:tcp:443", value("unknown", "maybe", "refuse or default"));
    check("tls:a:client=optional:tcp:443", Err(Fault::Missing(CLIENT_CA)));
    let directory = "`directory=` (the URL of the authority's directory)";
    check("acme:a:tcp:443", Err(Fault::Missing(directory)));
    for said in ["https://ca.example/dir", "http\\://ca.example/dir", "https\\://", "https\\:///a", "x"] {
        let seen = said.split(':').next().expect("a part").trim_end_matches('\\');
        let seen = if said.contains('\\') { said.replace('\\', "") } else { seen.to_owned() };
        check(&format!("acme:a:directory={said}:tcp:443"), Err(Fault::Directory(seen)));
    }
    check("le:a:email=me:tcp:443", value("email", "me", "an address, such as admin@example.com"));
    for said in ["", "a", ",a", "a,", "a,b/c", "a,=="] {
        check(&format!("le:a:eab={said}:tcp:443"), Err(Fault::Eab));
    }
    check("le:a:challenge=dns:443", value("challenge", "dns", "tls-alpn-01, http-01 or dns-01"));
    check("le:a:challenge=dns-01:443", Err(Fault::Missing("`hook=` (the program that changes the DNS)")));
    check("le:a:hook=x:443", Err(Fault::Hook("tls-alpn-01")));
    check("le:a:challenge=http-01:hook=x:443", Err(Fault::Hook("http-01")));
    for said in ["", "localhost", "*", "a.b,,c.d", "1.2.3.4", "a.example.com/x", "*.com"] {
        let wrong = if said == "a.b,,c.d" { "" } else { said };
        check(&format!("le:a:allow={said}:443"), Err(Fault::Host(wrong.into())));
    }
}

/// Every variant once: the part of a sentence that its reader gets.
#[test]
fn every_fault_is_part_of_a_sentence() {
    let x = || "x".to_owned();
    for (fault, sentence) in [
        (Fault::Empty, "it is empty"),
        (Fault::UnfinishedEscape, "it ends in a backslash"),
        (Fault::Brackets, "brackets hold an IPv6 address, as in `[::1]`"),
        (
            Fault::UnknownKind(x()),
            "`x` is none of tcp, tcp6, unix, systemd, fd, ssl, tls, le, lets, acme, haproxy, redirect",
        ),
        (Fault::Missing("port"), "it has no port"),
        (Fault::UnknownKeyword(x()), "`x=` is not known here"),
        (Fault::Twice(x()), "`x=` stands twice"),
        (Fault::Excess(x()), "`x` is one argument too many"),
        (
            Fault::Port(x()),
            "`x` is not a port (0 to 65535; an address goes behind it, as `interface=127.0.0.1`)",
        ),
        (Fault::Interface(x()), "`x` is not an IPv4 or IPv6 address"),
        (Fault::NotV6(x()), "`x` is not an IPv6 address"),
        (Fault::Mode(x()), "`x` is not an octal mode, such as 660"),
        (Fault::AbstractMode, "an abstract name is no file and has no `mode=`"),
        (Fault::AbstractName(x()), "`@x` is not an abstract name, of 1 to 107 bytes"),
        (Fault::Client(x()), "`x` is neither required nor optional"),
        (Fault::Nested("haproxy"), "`haproxy:` stands twice"),
        (Fault::TlsTwice, "TLS is within TLS"),
        (Fault::RedirectTls, "`redirect:` answers in clear text, and so there is no TLS around it or within"),
        (
            Fault::Order("le", "haproxy"),
            "`haproxy:` is nearer to the wire and goes behind `le:`, as in `le:DIR:haproxy:tcp:443`",
        ),
        (
            Fault::Order("redirect", "haproxy"),
            "`haproxy:` is nearer to the wire and goes behind `redirect:`, as in `redirect:haproxy:tcp:80`",
        ),
        (
            Fault::Value { keyword: "code", said: "302".into(), must: "301 or 308" },
            "`code=302` is not 301 or 308",
        ),
        (
            Fault::Directory("https".into()),
            r"a `:` in a value is written `\:`, as in `directory=https\://ca.example/dir`",
        ),
        (Fault::Directory(x()), "`x` is not a URL that begins with https://"),
        (Fault::Eab, "`eab=` is a name and a key in base64url, as in `eab=KID,KEY`"),
        (Fault::Hook("http-01"), "`hook=` is for `challenge=dns-01`, and the challenge is http-01"),
        (Fault::Host(x()), "`x` is not a host name, such as example.com or *.example.com"),
        (Fault::Fd(x()), "`x` is not a descriptor that one is started with (3, 4 and so on)"),
    ] {
        assert_eq!(fault.to_string(), sentence);
    }
}

#[test]
fn places_meet_where_both_would_listen() {
    let meet = |a: &str, b: &str, meets: bool| {
        let [one, other] = [a, b].map(|said| said.parse::<Endpoint>().expect("an endpoint"));
        assert_eq!((one.meets(&other), other.meets(&one)), (meets, meets), "{a} {b}");
    };
    meet("tcp:80", "tcp:80", true);
    meet("tcp:80", "tcp:81", false);
    meet("tcp:0", "tcp:0", false);
    meet("tcp:80", "ssl:80:key=k:cert=c", true);
    meet("tcp:80", "redirect:haproxy:80", true);
    meet("tcp:80", "tcp:80:interface=127.0.0.1", true);
    meet("tcp:80", "tcp:80:interface=[::1]", true);
    meet("tcp6:80", "tcp:80:interface=[::1]", true);
    meet("tcp6:80", "tcp:80:interface=127.0.0.1", false);
    meet("tcp6:80", "tcp:80:interface=0.0.0.0", false);
    meet("tcp6:80:v6only=no", "tcp:80:interface=0.0.0.0", true);
    meet("tcp:80:v6only=yes", "tcp:80:interface=0.0.0.0", false);
    meet("tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.2", false);
    meet("tcp:80:interface=0.0.0.0", "tcp:80:interface=127.0.0.2", true);
    meet("tcp:80:interface=[::ffff:127.0.0.1]", "tcp:80:interface=127.0.0.1", true);
    meet("unix:a", "tls:d:unix:./a:mode=600", true);
    meet("unix:a", "unix:b", false);
    meet("unix:@a", "unix:@a", true);
    meet("unix:@a", "unix:./@a", false);
    meet("fd:3", "systemd:index=0", true);
    meet("fd:4", "systemd:index=0", false);
    meet("systemd:name=a", "haproxy:systemd:name=a", true);
    meet("systemd:name=a", "fd:3", false);
    meet("tcp:80", "unix:a", false);
}

#[test]
fn a_key_is_not_shown() {
    for (said, shown) in [
        ("tcp:80", "tcp:80"),
        ("le:c:eab=me,c2Vj:tcp:443", "le:c:eab=…:tcp:443"),
        (r"le:c:eab=m\:e,c2Vj:tcp:443", "le:c:eab=…:tcp:443"),
        (r"le:c:eab=m\\:tcp:443", "le:c:eab=…:tcp:443"),
        ("le:c:eab=me,c2Vj", "le:c:eab=…"),
        ("eab=a:eab=b:x", "eab=…:eab=…:x"),
        (r"le:c:e\ab=me,c2Vj:tcp:443", r"le:c:e\ab=…:tcp:443"),
        (r"le:c:\e\a\b\=me,c2Vj:tcp:443", r"le:c:\e\a\b\=…:tcp:443"),
        ("le:c,eab=[a:c2Vj]:x", "le:c,eab=…:x"),
        ("le:c:eab=[a:c2Vj", "le:c:eab=…"),
        (r"ab:e\:ab=c", r"ab:e\:ab=c"),
    ] {
        assert_eq!(discreet(said), shown);
    }
    let endpoint: Endpoint = "le:c:eab=me,c2Vj:tcp:443".parse().expect("an endpoint");
    assert!(!format!("{endpoint:?}").contains("c2Vj"));
}

fn a_port() -> impl Strategy<Value = Port> {
    let interface = select(vec![None, Some("::"), Some("::1"), Some("0.0.0.0"), Some("::ffff:1.2.3.4")]);
    let seconds = option::of((1..=32_767u64).prop_map(Duration::from_secs));
    let millis = option::of((1..=i32::MAX as u64).prop_map(Duration::from_millis));
    let flags = (option::of(any::<bool>()), any::<bool>());
    (any::<u16>(), interface, 1..=i32::MAX as u32, seconds, millis, flags).prop_map(
        |(number, interface, backlog, keepalive, user_timeout, (v6only, nodelay))| {
            let interface: Option<IpAddr> = interface.map(|said| said.parse().expect("an address"));
            let v6only = v6only.filter(|_| interface.is_none_or(|address| address.is_ipv6()));
            Port { number, interface, v6only, backlog, nodelay, keepalive, user_timeout }
        },
    )
}

fn a_path() -> impl Strategy<Value = PathBuf> {
    "[ -~äß]{0,20}[a-z]".prop_map(|path| match &*path {
        path if path.starts_with('@') || path == "dev" => format!("./{path}").into(),
        _ => path.into(),
    })
}

fn clients() -> impl Strategy<Value = Option<Clients>> {
    option::of((a_path(), any::<bool>()).prop_map(|(authority, optional)| Clients { authority, optional }))
}

fn a_leaf() -> impl Strategy<Value = Endpoint> {
    prop_oneof![
        a_port().prop_map(Endpoint::Tcp),
        (a_path(), 0..=0o777u32).prop_map(|(path, mode)| Endpoint::Unix { path: UnixName::Path(path), mode }),
        "[ -~]{1,107}".prop_map(|name| Endpoint::Unix { path: UnixName::Abstract(name), mode: 0o660 }),
        "[ -~]{1,20}".prop_map(|name| Endpoint::Inherited(Inherited::Name(name))),
        any::<usize>().prop_map(|index| Endpoint::Inherited(Inherited::Index(index))),
        (3..=i32::MAX).prop_map(|fd| Endpoint::Inherited(Inherited::Fd(fd))),
    ]
}

fn an_issuer() -> impl Strategy<Value = Issuer> {
    let directory = "https://[!-~]{0,20}[a-z]".prop_filter("a host", |url| !url.starts_with("https:///"));
    let authority = prop_oneof![
        Just(Authority::LetsEncrypt),
        Just(Authority::LetsEncryptStaging),
        (directory, option::of(a_path())).prop_map(|(directory, root)| Authority::Other { directory, root }),
    ];
    let account = option::of(("[!-~]{1,9}", "[A-Za-z0-9_-]{1,9}={0,2}"));
    let names = vec("([*][.])?[a-z0-9]{1,9}[.]com[.][a-z]{2}", 0..3);
    let challenge = (select(Challenge::ALL.to_vec()), a_path())
        .prop_map(|(challenge, hook)| (challenge, (challenge == Challenge::Dns01).then_some(hook)));
    (authority, option::of("[a-z:=]{1,5}@[a-z.]{1,9}"), account, challenge, names).prop_map(
        |(authority, email, eab, (challenge, hook), on_demand)| Issuer {
            authority,
            email,
            eab,
            challenge,
            hook,
            on_demand,
        },
    )
}

fn an_endpoint() -> impl Strategy<Value = Endpoint> {
    let ssl = (a_port(), a_path(), a_path(), clients())
        .prop_map(|(port, key, cert, clients)| Endpoint::Ssl { port, key, cert, clients });
    let near = || {
        (a_leaf(), any::<bool>()).prop_map(|(leaf, proxied)| match proxied {
            true => Endpoint::Haproxy(Box::new(leaf)),
            false => leaf,
        })
    };
    let unknown = select(vec![Unknown::Default, Unknown::Refuse]);
    let tls = (a_path(), option::of(an_issuer()), unknown, clients(), near()).prop_map(
        |(folder, issuer, unknown, clients, within)| {
            let certificates = match (&issuer, folder.to_string_lossy().ends_with('z')) {
                (None, true) => Certificates::Dev,
                _ => Certificates::Folder(folder),
            };
            Endpoint::Tls(Box::new(Tls { certificates, issuer, unknown, clients, within }))
        },
    );
    let redirect = (option::of(1..=u16::MAX), select(vec![301, 308]), near())
        .prop_map(|(port, code, within)| Endpoint::Redirect(Box::new(Redirect { port, code, within })));
    let ssl = (ssl, any::<bool>()).prop_map(|(ssl, proxied)| match proxied {
        true => Endpoint::Haproxy(Box::new(ssl)),
        false => ssl,
    });
    prop_oneof![ssl, near(), tls, redirect]
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(said in ".{0,60}") {
        if let Ok(endpoint) = said.parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }

    #[test]
    fn any_words_parse_or_are_refused(
        words in vec(select(parse::KINDS.into_iter().chain([
            "80", "dev", "a", "name=x", "index=0", "key=k", "cert=c", "client_ca=c", "client=optional", "mode=600",
            "unknown=refuse", "port=1", "code=301", "challenge=dns-01", "hook=h", "allow=a.b", "eab=a,b", "@x", "",
            r"directory=https\://a", "email=a@b", "interface=[::]", "v6only=no", "keepalive=no", "user_timeout=1h",
        ]).collect::<Vec<_>>()), 1..7)
    ) {
        if let Ok(endpoint) = words.join(":").parse::<Endpoint>() {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }

    #[test]
    fn any_endpoint_survives_printing(endpoint in an_endpoint()) {
        let said = endpoint.to_string();
        prop_assert_eq!(said.parse::<Endpoint>(), Ok(endpoint), "{}", said);
    }

    #[test]
    fn no_key_is_shown(issuer in an_issuer()) {
        let key = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";
        let eab = issuer.eab.map(|(account, _)| (account, key.to_owned()));
        let endpoint = Endpoint::Tls(Box::new(Tls {
            issuer: Some(Issuer { eab, ..issuer }),
            ..folder("c", tcp(443, None))
        }));
        prop_assert!(!discreet(&endpoint.to_string()).contains(key));
        let debug = format!("{endpoint:?}");
        prop_assert!(!debug.contains(key));
    }
}
