//! Certificates from a real ACME authority, Pebble, which rejects three nonces of ten; names come from its own
//! server of the DNS. Both are Debian's; `./check` installs them.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child as Process, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread,
};

use combo::{Command as Order, Deployment, Outcome, Reply, mount};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    child::{Child, Said, command, run},
    lines::Lines,
    site::{Site, eventually, folder, pair},
};

/// A program that says what it does, until this is dropped.
struct Running {
    process: Process,
    log: Arc<Lines>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let program = command.get_program().to_owned();
        let _ = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| {
            panic!("`{}` is needed here, and `./check` installs it: {error}", program.display())
        });
        let log = Arc::new(Lines::default());
        for from in [
            Box::new(process.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(process.stderr.take().unwrap()),
        ] {
            let lines = log.clone();
            drop(thread::spawn(move || {
                BufReader::new(from).lines().map_while(Result::ok).for_each(|line| lines.push(&line));
            }));
        }
        Self { process, log }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ports of the loopback interface that nobody has now, below those that the kernel gives to whoever says none: in
/// the moment until somebody listens there, they are taken by no other test.
fn free<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % 128).unwrap() * 128;
    [(); N].map(|()| {
        loop {
            let port = 12_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                break port;
            }
        }
    })
}

/// What an authority does otherwise than usual.
#[derive(Default)]
struct Ways {
    /// How many seconds certificates live.
    life: Option<u64>,
    /// Accounts are bound to this one: its name and key.
    bound: Option<(&'static str, &'static str)>,
    /// How many seconds it sleeps at most before it looks.
    sleep: u32,
}

/// An authority, the DNS, and a folder of certificates.
struct Authority {
    pebble: Running,
    _dns: Running,
    folder: TempDir,
    directory: u16,
    management: u16,
    names: u16,
    /// Where it looks for a site.
    https: u16,
    http: u16,
}

impl Authority {
    fn start(ways: &Ways) -> Self {
        let [directory, management, names, dns, https, http] = free();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (key, cert) = pair();
        fs::write(path("key.pem"), key).unwrap();
        fs::write(path("cert.pem"), cert).unwrap();
        fs::create_dir(path("certs")).unwrap();
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{directory}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": http,
            "tlsPort": https,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": ways.bound.is_some(),
        });
        if let Some(life) = ways.life {
            config["certificateValidityPeriod"] = life.into();
        }
        if let Some((id, key)) = ways.bound {
            config["externalAccountMACKeys"] = json!({ id: key });
        }
        fs::write(path("pebble.json"), json!({ "pebble": config }).to_string()).unwrap();
        let mut dns_command = command("pebble-challtestsrv");
        let _ = dns_command.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        let _ = dns_command.args(["-defaultIPv4", "127.0.0.1", "-dns01", &format!("127.0.0.1:{dns}")]);
        let _ = dns_command.args(["-management", &format!("127.0.0.1:{names}")]);
        let dns_running = Running::start(dns_command);
        let mut pebble = command("pebble");
        let _ = pebble.arg("-config").arg(path("pebble.json"));
        let _ = pebble.args(["-strict", "-dnsserver", &format!("127.0.0.1:{dns}")]);
        let _ = pebble.env("PEBBLE_WFE_NONCEREJECT", "30").env("PEBBLE_AUTHZREUSE", "0");
        let _ = match ways.sleep {
            0 => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
            sleep => pebble.env("PEBBLE_VA_SLEEPTIME", sleep.to_string()),
        };
        let pebble = Running::start(pebble);
        let _ = pebble.log.wait(&["ACME directory available"]);
        Self { pebble, _dns: dns_running, folder, directory, management, names, https, http }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn certs(&self) -> PathBuf {
        self.path("certs")
    }

    /// An endpoint with these options.
    fn endpoint(&self, options: &str) -> String {
        let Self { directory, https, .. } = self;
        let (certs, root) = (self.certs(), self.path("cert.pem"));
        let (certs, root) = (certs.display(), root.display());
        format!(
            "acme:{certs}:directory=https\\://127.0.0.1\\:{directory}/dir:root={root}:{options}tcp:{https}:interface=127.0.0.1"
        )
    }

    fn site(&self, options: &str) -> Site {
        self.site_with(options, |deployment| deployment)
    }

    fn site_with(&self, options: &str, more: impl FnOnce(Deployment) -> Deployment) -> Site {
        let deployment = Deployment::new("acme").workers(1).listen(self.endpoint(options));
        Site::start(more(deployment.mount("/", mount::files("static"))))
    }

    /// Asks for certificates.
    fn touch(&self, files: &[&str]) {
        for file in files {
            fs::write(self.certs().join(file), "").unwrap();
        }
    }

    /// What is in a file, once there is something.
    fn issued(&self, file: &str) -> String {
        eventually(&format!("`{file}` is issued"), || {
            fs::read_to_string(self.certs().join(file)).ok().filter(|pem| !pem.is_empty())
        })
    }

    /// What is remembered of a file.
    fn remembered(&self, file: &str) -> Option<Value> {
        let text = fs::read(self.certs().join(".acme/orders.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()?["files"].get(file).cloned()
    }

    /// The account that is kept.
    fn account(&self) -> Option<(PathBuf, Value)> {
        let kept = fs::read_dir(self.certs().join(".acme")).ok()?.flatten().map(|entry| entry.path());
        let path = kept.into_iter().find(|path| {
            path.extension().is_some_and(|end| end == "json")
                && path.file_name().unwrap().to_string_lossy().starts_with("account-127.0.0.1-")
        })?;
        let account = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some((path, account))
    }

    /// A page of the site by a name, whose certificate is the authority's; or what curl says instead.
    fn visit(&self, name: &str) -> Said {
        let root = self.path("root.pem");
        if !root.exists() {
            let url = format!("https://127.0.0.1:{}/roots/0", self.management);
            let said = curl(&["--cacert", self.path("cert.pem").to_str().unwrap(), &url]);
            assert_eq!(said.code, Some(0), "{said:?}");
            fs::write(&root, said.out).unwrap();
        }
        let port = self.https;
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        curl(&["--cacert", root.to_str().unwrap(), "--resolve", &resolve, &url])
    }

    fn is_served(&self, name: &str) {
        // It holds within a second.
        eventually(&format!("`{name}` is served"), || (self.visit(name).out == "welcome\n").then_some(()));
    }

    /// Says something to the DNS.
    fn say_to_dns(&self, what: &str, said: &Value) {
        let url = format!("http://127.0.0.1:{}/{what}", self.names);
        let said = curl(&["--fail", "--data", &said.to_string(), &url]);
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    fn job(&self) -> String {
        format!("certificates {}", self.certs().display())
    }

    /// How its ticks have ended, the latest first.
    fn outcomes(&self, site: &Site) -> Vec<Outcome> {
        match site.say(Order::Ledger { job: Some(self.job()), most: 100 }) {
            Reply::Ledger(entries) => entries.into_iter().map(|entry| entry.outcome).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a tick that has failed with all these words.
    fn failure(&self, site: &Site, words: &[&str]) -> String {
        let mut seen = 0;
        eventually(&format!("it fails with {words:?}"), || {
            let outcomes = self.outcomes(site);
            if outcomes.len() > seen {
                seen = outcomes.len();
                eprintln!("{outcomes:#?}");
            }
            outcomes.into_iter().find_map(|outcome| match outcome {
                Outcome::Failed { why } if words.iter().all(|word| why.contains(word)) => Some(why),
                _ => None,
            })
        })
    }
}

fn curl(words: &[&str]) -> Said {
    let mut curl = command("curl");
    let _ = curl.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*"]).args(words);
    run(curl)
}

/// Names and serial number of the first certificate of a file.
fn openssl(pem: &Path, what: &[&str]) -> String {
    let mut openssl = command("openssl");
    let _ = openssl.args(["x509", "-noout", "-in"]).arg(pem).args(what);
    run(openssl).out
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_empty_file_is_all_that_it_takes() {
    let authority = Authority::start(&Ways::default());
    // One is there at the start, the others come later.
    authority.touch(&["a.example.com.pem"]);
    fs::write(authority.certs().join("mine.example.com.pem"), "by hand").unwrap();
    let site = authority.site("email=me@example.com:");
    assert_ne!(authority.visit("b.example.com").code, Some(0));
    let _ = authority.issued("a.example.com.pem");
    authority.touch(&["b.example.com.pem", "c.example.com.pem"]);
    for name in ["a.example.com", "b.example.com", "c.example.com"] {
        let file = format!("{name}.pem");
        let pem = authority.issued(&file);
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"), "{name}");
        // The certificate and what it is signed by.
        assert_eq!(pem.matches("-----BEGIN CERTIFICATE-----").count(), 2, "{name}");
        assert_eq!(mode(&authority.certs().join(&file)), 0o600, "{name}");
        authority.is_served(name);
        assert_eq!(authority.visit(name).out, "welcome\n", "{name}");
    }
    assert_eq!(fs::read_to_string(authority.certs().join("mine.example.com.pem")).unwrap(), "by hand");
    let (account, kept) = authority.account().expect("an account");
    assert_eq!((mode(&account), &kept["email"]), (0o600, &json!("me@example.com")));
    assert_eq!(authority.pebble.log.with(&["There are now ", " accounts in memory"]).len(), 1);
    // It is an ordinary job, that may be run by hand.
    eventually("it sees that all is there", || {
        (authority.outcomes(&site).first() == Some(&Outcome::Ran)
            && !authority.certs().join(".acme/obtained/c.example.com.pem").exists())
        .then_some(())
    });
    eventually("it is run", || {
        (site.say(Order::RunJob { name: authority.job(), due: None }) == Reply::Begun).then_some(())
    });
    let known = site.status().jobs.into_iter().find(|job| job.name == authority.job()).expect("a job");
    assert_eq!(known.trigger, "every 1h from start");
    let remembered = authority.remembered("a.example.com.pem").expect("it is remembered");
    assert_eq!((&remembered["failures"], &remembered["names"]), (&json!(0), &json!(["a.example.com"])));
}

#[test]
fn names_are_proved_over_http_where_that_leads_to_https() {
    let authority = Authority::start(&Ways::default());
    authority.touch(&["a.example.com.pem", "b.example.com.pem"]);
    let redirect = format!("redirect:tcp:{}:interface=127.0.0.1", authority.http);
    let site = authority.site_with("challenge=http-01:", |deployment| deployment.listen(redirect));
    for name in ["a.example.com", "b.example.com"] {
        let _ = authority.issued(&format!("{name}.pem"));
        authority.is_served(name);
    }
    assert!(!authority.pebble.log.with(&["/.well-known/acme-challenge/"]).is_empty());
    // What nobody asks for any more is no answer.
    let url = format!("http://127.0.0.1:{}/.well-known/acme-challenge/a", authority.http);
    let said = curl(&["--output", "/dev/null", "--write-out", "%{http_code}", &url]);
    assert_ne!(said.out, "200");
    drop(site);
}

#[test]
fn one_certificate_has_several_names() {
    let authority = Authority::start(&Ways::default());
    let site = authority.site("");
    let list = authority.certs().join("site.names");
    fs::write(&list, "# The site.\na.example.com b.example.com\n").unwrap();
    authority.touch(&["site.pem"]);
    let first = authority.issued("site.pem");
    let path = authority.certs().join("site.pem");
    let names = openssl(&path, &["-ext", "subjectAltName"]);
    assert!(names.contains("DNS:a.example.com, DNS:b.example.com"), "{names}");
    authority.is_served("b.example.com");
    // One more, and there is another certificate.
    fs::write(&list, "a.example.com\nb.example.com\nc.example.com\n").unwrap();
    eventually("there is another", || (authority.issued("site.pem") != first).then_some(()));
    authority.is_served("c.example.com");
    drop(site);
}

#[test]
fn a_hook_changes_the_dns_for_a_wildcard() {
    let authority = Authority::start(&Ways::default());
    let hook = authority.path("hook");
    let script = r#"#!/bin/sh
[ "$1" = unset ] && what=clear-txt || what=set-txt
[ "$1" = unset ] && value= || value=", \"value\": \"$3\""
echo "$1 $2" >> "$(dirname "$0")/hooked"
exec curl --silent --fail --data "{\"host\": \"$2.\"$value}" http://127.0.0.1:NAMES/$what
"#;
    fs::write(&hook, script.replace("NAMES", &authority.names.to_string())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let site = authority.site(&format!("challenge=dns-01:hook={}:", hook.display()));
    authority.touch(&["_.example.com.pem"]);
    let _ = authority.issued("_.example.com.pem");
    let names = openssl(&authority.certs().join("_.example.com.pem"), &["-ext", "subjectAltName"]);
    assert!(names.contains("DNS:*.example.com"), "{names}");
    authority.is_served("any.example.com");
    let hooked = fs::read_to_string(authority.path("hooked")).unwrap();
    assert_eq!(hooked, "set _acme-challenge.example.com\nunset _acme-challenge.example.com\n");
    drop(site);
}

#[test]
fn a_certificate_near_its_end_is_renewed() {
    let authority = Authority::start(&Ways { life: Some(15), ..Ways::default() });
    let site = authority.site("");
    authority.touch(&["a.example.com.pem"]);
    let first = authority.issued("a.example.com.pem");
    authority.is_served("a.example.com");
    let second = eventually("it is renewed", || {
        Some(authority.issued("a.example.com.pem")).filter(|pem| *pem != first)
    });
    assert!(second.lines().nth(1) != first.lines().nth(1), "with a new key");
    authority.is_served("a.example.com");
    assert!(authority.outcomes(&site).iter().all(|outcome| *outcome == Outcome::Ran));
}

const BOUND: (&str, &str) = ("kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");

#[test]
fn an_account_is_bound_to_another_if_the_key_is_right() {
    let authority = Authority::start(&Ways { bound: Some(BOUND), ..Ways::default() });
    let (id, key) = BOUND;
    authority.touch(&["a.example.com.pem"]);
    {
        let wrong = key.replace('z', "y");
        let site = authority.site(&format!("eab={id},{wrong}:"));
        let why = authority.failure(&site, &["it gives us no account", "a.example.com.pem"]);
        assert!(!why.contains(&wrong), "{why}");
        assert!(authority.account().is_none());
    }
    // Touched, so that it is not waited for.
    authority.touch(&["a.example.com.pem"]);
    let site = authority.site(&format!("eab={id},{key}:"));
    let _ = authority.issued("a.example.com.pem");
    authority.is_served("a.example.com");
    drop(site);
}

#[test]
fn an_account_is_kept_and_a_broken_one_is_moved_aside() {
    let authority = Authority::start(&Ways::default());
    authority.touch(&["a.example.com.pem"]);
    let first = {
        let _site = authority.site("");
        let _ = authority.issued("a.example.com.pem");
        authority.account().expect("an account")
    };
    {
        let _site = authority.site("");
        authority.touch(&["b.example.com.pem"]);
        let _ = authority.issued("b.example.com.pem");
        assert_eq!(authority.account().as_ref(), Some(&first));
    }
    let (path, kept) = first;
    fs::write(&path, "{").unwrap();
    let _site = authority.site("");
    authority.touch(&["c.example.com.pem"]);
    let _ = authority.issued("c.example.com.pem");
    let (again, other) = authority.account().expect("an account");
    assert!(again == path && other["credentials"]["id"] != kept["credentials"]["id"]);
    assert_eq!(fs::read_to_string(path.with_extension("broken")).unwrap(), "{");
}

#[test]
fn an_order_survives_kill_9() {
    let authority = Authority::start(&Ways { sleep: 4, ..Ways::default() });
    authority.touch(&["a.example.com.pem"]);
    let endpoint = authority.endpoint("");
    let start = || Child::with(&["--listen", &endpoint, "--log", "json"], |_| ());
    let killed = start();
    let _ = authority.pebble.log.wait(&["Pulled a task from the Tasks queue"]);
    let looked_after = {
        // Meanwhile another process does not order the same.
        let mut other = command(crate::child::BINARY);
        let elsewhere = folder();
        let _ = other.args(["job", &authority.job(), "--listen", &endpoint]).current_dir(elsewhere.path());
        run(other)
    };
    let process = format!("process {} looks after `{}`", killed.id(), authority.certs().display());
    assert!(looked_after.err.contains(&process), "{looked_after:?}");
    assert_eq!(fs::read_to_string(authority.certs().join("a.example.com.pem")).unwrap(), "");
    killed.signal(rustix::process::Signal::KILL);
    drop(killed);
    let account = authority.account().expect("it was kept before the order");
    assert_eq!(fs::read_to_string(authority.certs().join("a.example.com.pem")).unwrap(), "");
    let _child = start();
    let _ = authority.issued("a.example.com.pem");
    assert_eq!(authority.account(), Some(account));
    authority.is_served("a.example.com");
}

#[test]
fn a_second_server_on_the_folder_leaves_it_in_peace() {
    let authority = Authority::start(&Ways::default());
    authority.touch(&["a.example.com.pem"]);
    let site = authority.site("");
    let _ = authority.issued("a.example.com.pem");
    let second = authority.endpoint("").replace(&format!("tcp:{}", authority.https), "tcp:0");
    let second = Deployment::new("second").workers(1).listen(second);
    let second = Site::start(second.mount("/", mount::files("static")));
    let skipped = format!("process {} looks after `{}`", std::process::id(), authority.certs().display());
    eventually("it sees that another looks after it", || {
        (authority.outcomes(&second).first() == Some(&Outcome::Skipped { why: skipped.clone() }))
            .then_some(())
    });
    // Both look because of a file, and neither because of the other.
    authority.touch(&["b.example.com.pem"]);
    let _ = authority.issued("b.example.com.pem");
    eventually("it sees that all is there", || {
        (!authority.certs().join(".acme/obtained/b.example.com.pem").exists()).then_some(())
    });
    let outcomes = authority.outcomes(&second);
    assert!(outcomes.len() <= 3, "{outcomes:?}");
    drop(site);
}

#[test]
fn what_was_issued_and_not_written_is_not_ordered_again() {
    let authority = Authority::start(&Ways::default());
    let (file, kept) = ("a.example.com.pem", authority.certs().join(".acme/obtained/a.example.com.pem"));
    authority.touch(&[file]);
    let issued = {
        let _site = authority.site("");
        authority.issued(file)
    };
    // As if it had been killed in between.
    fs::write(&kept, &issued).unwrap();
    authority.touch(&[file]);
    let orders = |authority: &Authority| authority.pebble.log.with(&["POST /order-plz"]).len();
    let before = orders(&authority);
    let _site = authority.site("");
    assert_eq!(authority.issued(file), issued);
    authority.is_served("a.example.com");
    assert!(before > 0 && orders(&authority) == before);
}

#[test]
fn one_that_fails_stops_no_other_and_waits() {
    let authority = Authority::start(&Ways::default());
    // Nobody listens there.
    authority.say_to_dns("add-a", &json!({ "host": "bad.example.com.", "addresses": ["127.0.0.9"] }));
    authority.touch(&["bad.example.com.pem", "a.example.com.pem", "_.example.com.pem", "DEFAULT.pem"]);
    let site = authority.site("");
    let why = authority.failure(&site, &["`bad.example.com` was not proved: ", "it is tried again at "]);
    for said in [
        "`_.example.com.pem` is not ordered: `*.example.com` is proved by dns-01 alone; say `challenge=dns-01:hook=…`",
        "`DEFAULT.pem` is not ordered: `DEFAULT.pem` is no name of a host; say the names in `DEFAULT.names`",
    ] {
        assert!(why.contains(said), "{why}");
    }
    let _ = authority.issued("a.example.com.pem");
    authority.is_served("a.example.com");
    let remembered = authority.remembered("bad.example.com.pem").expect("it is remembered");
    assert_eq!(remembered["failures"], 1);
    let instant = |of: &str| remembered[of].as_str().unwrap().parse::<combo::Timestamp>().unwrap();
    assert!(instant("again").duration_since(instant("failed")) >= combo::secs(300).try_into().unwrap());
    // It waits, whatever else happens, until somebody says that it is right now.
    authority.touch(&["b.example.com.pem"]);
    let _ = authority.issued("b.example.com.pem");
    assert_eq!(authority.remembered("bad.example.com.pem").unwrap()["failures"], 1);
    authority.say_to_dns("clear-a", &json!({ "host": "bad.example.com." }));
    authority.touch(&["bad.example.com.pem"]);
    let _ = authority.issued("bad.example.com.pem");
    eventually("it is forgiven", || {
        (authority.remembered("bad.example.com.pem")?["failures"] == 0).then_some(())
    });
}

#[test]
fn a_name_that_is_asked_for_is_ordered_if_it_is_allowed() {
    let authority = Authority::start(&Ways::default());
    let site = authority.site("allow=a.example.com,*.example.org:");
    for name in ["a.example.com", "x.example.org"] {
        // The first handshake is not kept waiting.
        assert_ne!(authority.visit(name).code, Some(0));
        let _ = authority.issued(&format!("{name}.pem"));
        authority.is_served(name);
    }
    assert_ne!(authority.visit("b.example.com").code, Some(0));
    assert!(!authority.certs().join("b.example.com.pem").exists());
    drop(site);
}

#[test]
fn an_authority_that_forgets_accounts_gives_us_another() {
    let mut authority = Authority::start(&Ways::default());
    let site = authority.site("");
    authority.touch(&["a.example.com.pem"]);
    let _ = authority.issued("a.example.com.pem");
    let (_, before) = authority.account().expect("an account");
    // Another one at the same address, with nothing in its memory.
    let mut pebble = command("pebble");
    let _ = pebble.arg("-config").arg(authority.path("pebble.json")).env("PEBBLE_VA_ALWAYS_VALID", "1");
    let _ = pebble.env("PEBBLE_WFE_NONCEREJECT", "30");
    let _ = authority.pebble.process.kill();
    let _ = authority.pebble.process.wait();
    authority.pebble = Running::start(pebble);
    let _ = authority.pebble.log.wait(&["ACME directory available"]);
    authority.touch(&["b.example.com.pem"]);
    let _ = authority.issued("b.example.com.pem");
    let (_, after) = authority.account().expect("an account");
    assert!(before["credentials"]["key_pkcs8"] != after["credentials"]["key_pkcs8"]);
    drop(site);
}
