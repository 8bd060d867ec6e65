//! A plan: what a deployment means. Checked, resolved, printable; still nothing opened.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "acme")]
use crate::certs::acme::Ordered;
use crate::{
    deployment::{Deployment, Job, Kind, OnAlert},
    jobs::{ErasedTask, Keep, Program},
    mount::{Target, layer::Wrap},
    serve::{hsts::Hsts, limits::Limits, proxies::Proxies},
};
use combo_core::{
    Draining, Endpoint, Overlap, Pattern, Policies, Problem, Problems, Timestamp, Trigger, User,
    endpoint::{Certificates, Challenge, Port, Redirect, discreet},
    pattern::Host,
    trigger::Event,
};
#[cfg(feature = "acme")]
use combo_core::{
    OnDrain,
    endpoint::{Issuer, Tls},
};

/// More threads than this have never served anybody.
const MOST_WORKERS: usize = 1_024;

/// No clock has to be able to count further.
const LONGEST_DRAIN: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A deployment that was found to be right.
pub struct Plan {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<Endpoint>,
    /// In the order in which they were said.
    pub(crate) mounts: Vec<PlannedMount>,
    pub(crate) layers: Vec<Box<dyn Wrap>>,
    pub(crate) proxies: Proxies,
    /// As they were said.
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) jobs: Vec<PlannedJob>,
    pub(crate) running_jobs: usize,
    pub(crate) on_alert: Option<OnAlert>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) keep: Keep,
    pub(crate) root: Option<PathBuf>,
    pub(crate) user: Option<User>,
    pub(crate) workers: Option<usize>,
    pub(crate) drain: Duration,
    pub(crate) told: Vec<Draining>,
    pub(crate) limits: Limits,
    pub(crate) hsts: Option<Hsts>,
    pub(crate) access_log: bool,
}

pub(crate) struct PlannedMount {
    pub(crate) pattern: Pattern,
    pub(crate) target: Target,
}

pub(crate) struct PlannedJob {
    pub(crate) name: String,
    pub(crate) trigger: Trigger,
    pub(crate) policies: Policies,
    pub(crate) may_write: Vec<PathBuf>,
    pub(crate) work: PlannedWork,
}

pub(crate) enum PlannedWork {
    Task(Arc<dyn ErasedTask>),
    Command(Program),
    /// Certificates that are missing or near their end.
    #[cfg(feature = "acme")]
    Certificates(Box<Ordered>),
    #[cfg(feature = "tokio-cron-scheduler")]
    Hosted(tokio_cron_scheduler::Job),
}

impl PlannedWork {
    /// Why its changes are not known before it runs, if they are not.
    pub(crate) fn writes_itself(&self) -> Option<&'static str> {
        match self {
            Self::Task(_) => None,
            Self::Command(_) => Some("a command does its own writing"),
            #[cfg(feature = "acme")]
            Self::Certificates(_) => Some("what it writes is what it orders"),
            #[cfg(feature = "tokio-cron-scheduler")]
            Self::Hosted(_) => Some("a tokio-cron-scheduler job does its own writing"),
        }
    }
}

impl Deployment {
    /// Finds out what was meant. Nothing is opened.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with what was said, in one go.
    pub fn plan(self) -> Result<Plan, Problems> {
        let mut problems = Vec::new();
        let endpoints = endpoints(&self.listen, self.redirect_to_https, &mut problems);
        let mounts = mounts(self.mounts, &mut problems);
        if self.listen.is_empty() && !mounts.is_empty() {
            problems.push(Problem::NoEndpoint);
        }
        let proxies = proxies(&self.trusted_proxies, self.proxy_headers, &mut problems);
        for (said, endpoint) in endpoints.iter().filter(|(_, endpoint)| endpoint.is_proxied()) {
            if let Some(trust) = proxies.missing(endpoint) {
                problems.push(Problem::NoProxy { said: said.clone(), trust });
            }
        }
        let jobs = jobs(self.jobs, &mut problems);
        #[cfg(feature = "acme")]
        let jobs = {
            let mut jobs = jobs;
            ordered(&endpoints, &mut jobs, &mut problems);
            jobs
        };
        let user = self.user.and_then(|said| match said.parse() {
            Ok(user) => Some(user),
            Err(fault) => {
                problems.push(Problem::User { said, fault });
                None
            }
        });
        if let Some(workers) = self.workers.filter(|workers| !(1..=MOST_WORKERS).contains(workers)) {
            problems.push(Problem::Setting { name: "workers", said: workers.to_string(), must: "1 to 1024" });
        }
        if self.running_jobs == 0 {
            problems.push(Problem::Setting { name: "running_jobs", said: "0".into(), must: "at least 1" });
        }
        if let Some((hsts, must)) = self.hsts.and_then(|hsts| Some((hsts, hsts.fault()?))) {
            problems.push(Problem::Setting { name: "hsts", said: hsts.to_string(), must });
        }
        let faults = self.limits.faults().into_iter();
        problems.extend(faults.map(|(name, said, must)| Problem::Setting { name, said, must }));
        let plan = Plan {
            name: self.name,
            endpoints: endpoints.into_iter().map(|(_, endpoint)| endpoint).collect(),
            mounts,
            layers: self.layers,
            proxies,
            trusted_proxies: self.trusted_proxies,
            jobs,
            running_jobs: self.running_jobs,
            on_alert: self.on_alert,
            state: self.state,
            keep: self.keep,
            root: self.root,
            user,
            workers: self.workers,
            drain: self.drain.min(LONGEST_DRAIN),
            told: self.told,
            limits: self.limits,
            hsts: self.hsts,
            access_log: self.access_log,
        };
        Problems::none_or(problems, plan)
    }
}

/// What was said of each, as it may be shown, and what it means.
fn endpoints(listen: &[String], redirect: bool, problems: &mut Vec<Problem>) -> Vec<(String, Endpoint)> {
    let mut endpoints: Vec<(String, Endpoint)> = Vec::new();
    for said in listen {
        let shown = discreet(said).into_owned();
        let endpoint: Endpoint = match said.parse() {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                problems.push(Problem::Endpoint { said: shown, fault });
                continue;
            }
        };
        let endpoint = if redirect { led_to_https(endpoint) } else { endpoint };
        match endpoints.iter().find(|(_, known)| known.meets(&endpoint)) {
            Some((_, first)) if *first == endpoint => problems.push(Problem::EndpointTwice { said: shown }),
            Some((first, _)) => {
                problems.push(Problem::PlaceTwice { first: first.clone(), second: shown });
            }
            None => endpoints.push((shown, endpoint)),
        }
    }
    // Of what the process is started with it is known then.
    let is_https =
        |endpoint: &Endpoint| endpoint.is_encrypted() && !matches!(endpoint.bare(), Endpoint::Unix { .. });
    let https = endpoints.iter().any(|(_, endpoint)| is_https(endpoint));
    let answers = endpoints.iter().any(|(_, endpoint)| endpoint.redirect().is_some());
    for (said, endpoint) in &endpoints {
        if endpoint.redirect().is_some_and(|redirect| redirect.port.is_none()) && !https {
            problems.push(Problem::NoHttps { said: said.clone() });
        }
        let issuer = endpoint.tls().and_then(|tls| tls.issuer.as_ref());
        if issuer.is_some_and(|issuer| issuer.challenge == Challenge::Http01) && !answers {
            problems.push(Problem::NoHttp01 { said: said.clone() });
        }
    }
    endpoints
}

/// The same endpoint, or a redirect in the place of one in clear text; unix sockets are for those who are here.
fn led_to_https(endpoint: Endpoint) -> Endpoint {
    let as_it_is = endpoint.is_encrypted()
        || endpoint.redirect().is_some()
        || matches!(endpoint.bare(), Endpoint::Unix { .. });
    if as_it_is { endpoint } else { Endpoint::Redirect(Box::new(Redirect::of(endpoint))) }
}

/// An endpoint as it may be printed and logged.
fn shown(endpoint: &Endpoint) -> String {
    discreet(&endpoint.to_string()).into_owned()
}

fn proxies(trusted: &[String], headers: Option<Vec<String>>, problems: &mut Vec<Problem>) -> Proxies {
    let mut proxies = Proxies::default();
    for said in trusted {
        if !proxies.add(said) {
            let must = "an address, a network such as 10.0.0.0/8, or unix";
            problems.push(Problem::Setting { name: "trusted_proxies", said: said.clone(), must });
        }
    }
    if headers.is_some() {
        proxies.hear_nothing();
    }
    for said in headers.into_iter().flatten() {
        if let Err(must) = proxies.hear(&said) {
            problems.push(Problem::Setting { name: "proxy_headers", said, must });
        }
    }
    proxies
}

fn mounts(said: Vec<(String, Target)>, problems: &mut Vec<Problem>) -> Vec<PlannedMount> {
    let mut mounts: Vec<PlannedMount> = Vec::with_capacity(said.len());
    let mut taken = std::collections::HashMap::with_capacity(said.len());
    for (said, target) in said {
        let faults = target.faults().into_iter();
        problems.extend(faults.map(|why| Problem::Target { pattern: said.clone(), why }));
        let pattern: Pattern = match said.parse() {
            Ok(pattern) => pattern,
            Err(fault) => {
                problems.push(Problem::Pattern { said, fault });
                continue;
            }
        };
        if let Some(first) = taken.insert(pattern.clone(), target.label.clone()) {
            let (pattern, second) = (pattern.to_string(), target.label.clone());
            problems.push(Problem::MountTwice { pattern, first, second });
        }
        mounts.push(PlannedMount { pattern, target });
    }
    mounts
}

fn jobs(said: Vec<Job>, problems: &mut Vec<Problem>) -> Vec<PlannedJob> {
    let mut jobs: Vec<PlannedJob> = Vec::with_capacity(said.len());
    let mut names = std::collections::HashSet::with_capacity(said.len());
    for Job { name, kind, may_write, policies } in said {
        if name.is_empty() {
            problems.push(Problem::JobUnnamed);
        } else if !names.insert(name.clone()) {
            problems.push(Problem::JobTwice { name: name.clone() });
        }
        let faults = policies.faults().into_iter();
        problems.extend(faults.map(|why| Problem::Job { job: name.clone(), why }));
        let planned = match kind {
            Kind::Task { when, task } => {
                let outside = task.writes().into_iter().filter(|path| !lies_in(path, &may_write));
                problems.extend(outside.map(|path| Problem::WritesOutside {
                    job: name.clone(),
                    path,
                    may: may_write.clone(),
                }));
                when.trigger
                    .map_err(|fault| Problem::Schedule { job: name.clone(), said: when.said, fault })
                    .map(|trigger| (trigger, PlannedWork::Task(task)))
            }
            Kind::Command { when, program } => when
                .trigger
                .map_err(|fault| Problem::Schedule { job: name.clone(), said: when.said, fault })
                .map(|trigger| (trigger, PlannedWork::Command(program))),
            #[cfg(feature = "tokio-cron-scheduler")]
            Kind::Hosted(job) => job
                .and_then(|job| Ok((crate::jobs::hosted::plan(&job)?.into(), PlannedWork::Hosted(job))))
                .map_err(|why| Problem::Hosted { job: name.clone(), why }),
        };
        match planned {
            Ok((trigger, work)) => jobs.push(PlannedJob { name, trigger, policies, may_write, work }),
            Err(problem) => problems.push(problem),
        }
    }
    followers(&jobs, problems);
    jobs
}

/// How often the certificates of a folder are looked at, if nothing else makes it do so.
#[cfg(feature = "acme")]
const LOOKED_AT: Duration = Duration::from_secs(3_600);

/// A job for each folder whose certificates are ordered.
#[cfg(feature = "acme")]
fn ordered(endpoints: &[(String, Endpoint)], jobs: &mut Vec<PlannedJob>, problems: &mut Vec<Problem>) {
    let mut known: Vec<(&String, &PathBuf, &Issuer)> = Vec::new();
    for (said, endpoint) in endpoints {
        let Some(Tls { certificates: Certificates::Folder(folder), issuer: Some(issuer), .. }) =
            endpoint.tls()
        else {
            continue;
        };
        match known.iter().find(|(_, other, _)| plain(other) == plain(folder)) {
            Some((_, _, same)) if *same == issuer => continue,
            Some((first, _, _)) => {
                let (first, second) = ((*first).clone(), said.clone());
                problems.push(Problem::OrderedTwice { folder: folder.clone(), first, second });
                continue;
            }
            None => known.push((said, folder, issuer)),
        }
        let name = Ordered::job(folder);
        if jobs.iter().any(|job| job.name == name) {
            problems.push(Problem::JobTwice { name: name.clone() });
        }
        // A file that is emptied while others are ordered is not to wait for the next hour.
        let mut policies = Policies::default();
        (policies.overlap, policies.on_drain) = (Some(Overlap::Queue), OnDrain::Cancel);
        let ordered = Ordered::new(folder.clone(), issuer.clone());
        jobs.push(PlannedJob {
            name,
            trigger: Trigger::FromStart(LOOKED_AT),
            policies,
            may_write: vec![folder.clone()],
            work: PlannedWork::Certificates(Box::new(ordered)),
        });
    }
}

/// Whoever is due when another has run needs one, and not himself at last.
fn followers(jobs: &[PlannedJob], problems: &mut Vec<Problem>) {
    let leaders: std::collections::HashMap<&str, &str> = jobs
        .iter()
        .filter_map(|job| match &job.trigger {
            Trigger::Event(Event::After(leader)) => Some((&*job.name, &**leader)),
            _ => None,
        })
        .collect();
    let names: std::collections::HashSet<&str> = jobs.iter().map(|job| &*job.name).collect();
    for job in jobs {
        let Some(leader) = leaders.get(&*job.name) else { continue };
        let mut way = vec![&*job.name, leader];
        // Circles that this job only leads to are the problem of those in them.
        while let Some(next) =
            way.last().and_then(|last| leaders.get(last)).filter(|_| way.len() <= leaders.len())
        {
            if way.last() == Some(&&*job.name) {
                break;
            }
            way.push(next);
        }
        let why = if !names.contains(leader) {
            format!("there is no job `{leader}` to run after")
        } else if way.last() == Some(&&*job.name) {
            let way: Vec<_> = way[1..].iter().map(|name| format!("`{name}`")).collect();
            format!("it runs after itself: {}", way.join(" after "))
        } else {
            continue;
        };
        problems.push(Problem::Job { job: job.name.clone(), why });
    }
}

/// By their text alone; links are looked at when the folders are opened.
fn lies_in(path: &Path, folders: &[PathBuf]) -> bool {
    let path = plain(path);
    !path.components().any(|part| part == Component::ParentDir)
        && folders.iter().any(|folder| path.starts_with(plain(folder)))
}

/// The same path whether or not it was said with a `.` in it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| *part != Component::CurDir).collect()
}

impl Plan {
    /// The plan as a table, with each job's next three instants after `now`.
    pub fn table(&self, now: Timestamp) -> impl fmt::Display + '_ {
        Table { plan: self, now }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The plan as a table, without instants: the same text at any time.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(self, None, f)
    }
}

struct Table<'a> {
    plan: &'a Plan,
    now: Timestamp,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_table(self.plan, Some(self.now), f)
    }
}

/// The order in which patterns are tried: the most specific host first, then the longest prefix.
fn matching_order(a: &Pattern, b: &Pattern) -> std::cmp::Ordering {
    let rank = |pattern: &Pattern| match &pattern.host {
        Host::Exact(name) => (0, 0, name.clone()),
        Host::Below(name) => (1, usize::MAX - name.len(), name.clone()),
        Host::Any => (2, 0, String::new()),
    };
    let depth = b.segments.len().cmp(&a.segments.len());
    rank(a).cmp(&rank(b)).then(depth).then_with(|| a.segments.cmp(&b.segments))
}

fn write_table(plan: &Plan, now: Option<Timestamp>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}", plan.name)?;
    writeln!(f, "\nlistens on")?;
    if plan.endpoints.is_empty() {
        writeln!(f, "  nothing")?;
    }
    for endpoint in &plan.endpoints {
        let everywhere = endpoint.port().is_some_and(Port::is_everywhere);
        writeln!(f, "  {}{}", shown(endpoint), if everywhere { ", every interface" } else { "" })?;
        if endpoint.tls().is_some_and(|tls| tls.certificates == Certificates::Dev) {
            writeln!(
                f,
                "    to be trusted: `combo/dev/authority.pem` in `$XDG_STATE_HOME` or `~/.local/state`"
            )?;
        }
    }
    if let Some(hsts) = &plan.hsts {
        writeln!(f, "  over https, tells browsers to use nothing else: {hsts}")?;
    }
    if let Some(user) = &plan.user {
        writeln!(f, "\nthen becomes user `{user}`")?;
    }
    if !plan.trusted_proxies.is_empty() {
        writeln!(f, "\ntrusted proxies")?;
        let headers: Vec<_> = plan.proxies.headers().iter().map(|header| header.name()).collect();
        let headers = if headers.is_empty() { "no header".to_owned() } else { headers.join(", ") };
        writeln!(f, "  {}, believed in {headers}", plan.trusted_proxies.join(", "))?;
    }
    let mut mounts: Vec<&PlannedMount> = plan.mounts.iter().collect();
    mounts.sort_by(|a, b| matching_order(&a.pattern, &b.pattern));
    let width = mounts.iter().map(|mount| mount.pattern.to_string().len()).max().unwrap_or_default();
    writeln!(f, "\nmounts, in matching order")?;
    if mounts.is_empty() {
        writeln!(f, "  none")?;
    }
    for mount in mounts {
        let options: String =
            mount.target.options().into_iter().map(|option| format!(", {option}")).collect();
        writeln!(f, "  {:width$}  {}{options}", mount.pattern.to_string(), mount.target.label)?;
    }
    match plan.layers.len() {
        0 => {}
        1 => writeln!(f, "  around all of them, a layer")?,
        several => writeln!(f, "  around all of them, {several} layers")?,
    }
    writeln!(f, "\njobs")?;
    if plan.jobs.is_empty() {
        writeln!(f, "  none")?;
    }
    let width = plan.jobs.iter().map(|job| job.name.len()).max().unwrap_or_default();
    for job in &plan.jobs {
        let line = |f: &mut fmt::Formatter<'_>, said: &str| writeln!(f, "  {:width$}    {said}", "");
        writeln!(f, "  {:width$}  {}", job.name, job.trigger)?;
        match &job.work {
            PlannedWork::Task(_) if job.may_write.is_empty() => line(f, "writes nothing")?,
            PlannedWork::Task(_) => {
                let folders: Vec<_> =
                    job.may_write.iter().map(|path| format!("`{}`", path.display())).collect();
                line(f, &format!("may write {}", folders.join(", ")))?;
            }
            PlannedWork::Command(program) => line(f, &format!("runs `{program}`"))?,
            #[cfg(feature = "acme")]
            PlannedWork::Certificates(ordered) => {
                line(f, "also when a file in it is emptied, and when a certificate is due")?;
                line(f, &format!("orders {ordered}"))?;
            }
            #[cfg(feature = "tokio-cron-scheduler")]
            PlannedWork::Hosted(_) => line(f, "a tokio-cron-scheduler job: does its own writing")?,
        }
        for said in policies(&job.policies) {
            line(f, &said)?;
        }
        if let (Some(now), Trigger::Schedule(schedule)) = (now, &job.trigger) {
            let next = std::iter::successors(schedule.next_after(now), |due| schedule.next_after(*due));
            let next: Vec<_> = next.take(3).map(|due| due.to_string()).collect();
            let next = if next.is_empty() { "never".into() } else { next.join(", ") };
            line(f, &format!("next {next}"))?;
        }
    }
    if let Some(state) = &plan.state {
        writeln!(f, "\nkeeps its ledger in `{}`", state.display())?;
    }
    writeln!(f, "\ndrains within {:?}", plan.drain)
}

/// What was said of them beside the defaults.
pub(crate) fn policies(policies: &Policies) -> Vec<String> {
    let Policies { overlap, missed, limit, grace, retry, jitter, failures, on_drain, .. } = policies;
    let usual = Policies::default();
    let mut said: Vec<String> = Vec::new();
    said.extend(overlap.as_ref().map(Overlap::to_string));
    said.extend((*missed != usual.missed).then(|| missed.to_string()));
    said.extend(limit.map(|limit| format!("may take {limit:?}, and {grace:?} to end")));
    said.extend(retry.map(|retry| retry.to_string()));
    said.extend((!jitter.is_zero()).then(|| format!("up to {jitter:?} later than due")));
    said.extend(failures.map(|(count, then)| format!("{then} after {count} failures in a row")));
    said.extend((*on_drain != usual.on_drain).then(|| "is not waited for at the stop".to_owned()));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        deployment::{every, secs},
        mount,
    };
    use combo_core::{BoxError, Change, Task, Tick};

    struct Writes(&'static str);

    impl Task for Writes {
        async fn run(&self, _: Tick) -> Result<Vec<Change>, BoxError> {
            Ok(Vec::new())
        }

        fn writes(&self) -> Vec<PathBuf> {
            vec![self.0.into()]
        }
    }

    fn check(deployment: Deployment, sentences: &[&str]) {
        let said: Vec<String> = match deployment.plan() {
            Ok(plan) => panic!("no problem found in\n{plan}"),
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(said, sentences);
    }

    fn small() -> Deployment {
        Deployment::new("test").listen("tcp:8080")
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let deployment = Deployment::new("test")
            .listen("udp:53")
            .listen("tcp:8080")
            .listen(8080)
            .mount("/a", mount::redirect("/b"))
            .mount("/a/", mount::redirect("/c"))
            .mount("b", mount::redirect("c"))
            .job(Job::new("clock", "every 4", Writes("static/a")).may_write("./static"))
            .job(Job::new("clock", every(secs(4)), Writes("static/../a")).may_write("static"))
            .job(Job::new("", "every 4s", Writes("a")))
            .trusted_proxies(["10.0.0.0/8", "localhost"])
            .proxy_headers(["x-forwarded-for", "x-real-ip", "forwarded"])
            .user("www:0")
            .workers(0);
        check(
            deployment,
            &[
                "cannot understand endpoint `udp:53`: `udp` is none of tcp, tcp6, unix, systemd, fd, ssl, tls, le, lets, acme, haproxy, redirect",
                "endpoint `8080` is listened on twice",
                "mount `/a` is taken twice: by redirect to `/b` and by redirect to `/c`",
                "mount `b`: cannot redirect to `c`: it must be a path or an http(s) URL, without query or fragment",
                "cannot understand mount `b`: it has no `/`; a pattern is a path prefix, with a host before it if wanted",
                "trusted_proxies cannot be `localhost`: it must be an address, a network such as 10.0.0.0/8, or unix",
                "proxy_headers cannot be `x-real-ip`: it must be x-forwarded-for, -proto, -host or -prefix, or forwarded",
                "proxy_headers cannot be `forwarded`: it must be either forwarded or x-forwarded-for, -proto and -host",
                "cannot understand schedule `every 4` of job `clock`: `4` is not an interval, such as 4s, 250ms, 1h30m or minute",
                "job `clock` is said twice",
                "job `clock` writes `static/../a`, outside what it may write (`static`)",
                "a job has no name",
                "job `` writes `a` and was given no folder; say `.may_write(\"…\")`",
                "cannot become user `www:0`: to become root is to give up nothing",
                "workers cannot be `0`: it must be 1 to 1024",
            ],
        );
    }

    #[test]
    fn limits_that_let_nobody_be_served_are_problems() {
        let limits =
            Limits { streams: 0, send_buffer: usize::MAX, idle: Duration::ZERO, ..Limits::default() };
        check(
            Deployment::new("test").limits(limits),
            &[
                "limits.streams cannot be `0`: it must be at least 1",
                "limits.send_buffer cannot be `18446744073709551615`: it must be 1 to 4294967295 bytes",
                "limits.idle cannot be `0ns`: it must be longer than nothing",
            ],
        );
        let plan = Deployment::new("test").drain(Duration::MAX).plan().expect("a plan");
        assert_eq!(plan.drain, LONGEST_DRAIN);
    }

    #[test]
    fn mounts_need_an_endpoint() {
        check(
            Deployment::new("test").mount("/", mount::redirect("/a")),
            &["there are mounts but no endpoint to listen on; say `.listen(\"tcp:8080\")`"],
        );
    }

    #[test]
    fn behind_a_proxy_there_is_one_that_is_trusted() {
        let behind = || Deployment::new("test").listen("haproxy:80").listen("haproxy:unix:a.sock");
        let tcp = "endpoint `haproxy:80` is for proxies and trusts none; say `.trusted_proxies([\"10.0.0.0/8\"])` or `--trusted-proxy 10.0.0.0/8`";
        let unix = "endpoint `haproxy:unix:a.sock` is for proxies and trusts none; say `.trusted_proxies([\"unix\"])` or `--trusted-proxy unix`";
        check(behind(), &[tcp, unix]);
        check(behind().trusted_proxies(["unix"]), &[tcp]);
        check(behind().trusted_proxies(["192.0.2.1"]), &[unix]);
        assert!(behind().trusted_proxies(["192.0.2.1", "unix"]).plan().is_ok());
    }

    #[test]
    fn whatever_is_within_the_proxy_comes_first() {
        check(
            Deployment::new("test").listen("tls:c:haproxy:tcp:443").listen("redirect:haproxy:systemd:name=a"),
            &[
                "endpoint `tls:c:haproxy:tcp:443` is for proxies and trusts none; say `.trusted_proxies([\"10.0.0.0/8\"])` or `--trusted-proxy 10.0.0.0/8`",
                "endpoint `redirect:haproxy:systemd:name=a` is for proxies and trusts none; say `.trusted_proxies([\"10.0.0.0/8\"])` or `--trusted-proxy 10.0.0.0/8`",
            ],
        );
    }

    #[test]
    #[cfg(feature = "acme")]
    fn a_folder_whose_certificates_are_ordered_has_a_job() {
        let ordering = |endpoints: &[&str]| {
            let deployment = endpoints.iter().copied().fold(Deployment::new("test"), Deployment::listen);
            deployment.mount("/", mount::redirect("/b"))
        };
        let plan = ordering(&["le:certs:443", "le:./certs:444", "tls:others:445"]).plan().expect("a plan");
        let table = plan.to_string();
        for line in [
            "  certificates certs  every 1h from start",
            "also when a file in it is emptied, and when a certificate is due",
            "orders certificates at `https://acme-v02.api.letsencrypt.org/directory`, proved by tls-alpn-01",
            "is not waited for at the stop",
        ] {
            assert!(table.contains(line), "no `{line}` in\n{table}");
        }
        assert_eq!(plan.jobs.len(), 1);
        assert_eq!(plan.jobs[0].may_write, [PathBuf::from("certs")]);
        check(
            ordering(&["le:certs:443", "lets:certs:444"]),
            &[
                "endpoint `lets:certs:444` orders the certificates of `certs` in another way than `le:certs:443`",
            ],
        );
        let nothing = |_: Tick| async { Ok::<_, BoxError>(Vec::<Change>::new()) };
        check(
            ordering(&["le:certs:443"]).job(Job::new("certificates certs", "every 4s", nothing)),
            &["job `certificates certs` is said twice"],
        );
    }

    #[test]
    fn one_place_is_listened_on_once() {
        let deployment = ["80", "redirect:tcp:80", "unix:a", "tls:c:unix:./a", "fd:3", "systemd:index=0"];
        let deployment = deployment.into_iter().fold(Deployment::new("test"), Deployment::listen);
        check(
            deployment,
            &[
                "endpoint `redirect:tcp:80` listens where `80` does",
                "endpoint `tls:c:unix:./a` listens where `unix:a` does",
                "endpoint `systemd:index=0` listens where `fd:3` does",
            ],
        );
    }

    #[test]
    fn who_leads_to_https_knows_where_it_is() {
        let redirect = || Deployment::new("test").listen("redirect:80");
        let nowhere = "endpoint `redirect:80` leads to https, and no port of an endpoint has TLS; say which port it is in `port=`";
        check(redirect(), &[nowhere]);
        check(redirect().listen("tcp:81").listen("tls:c:unix:a"), &[nowhere]);
        for https in ["tls:c:443", "ssl:443:key=k:cert=c", "le:c:systemd:name=https"] {
            assert!(redirect().listen(https).plan().is_ok(), "{https}");
        }
        assert!(Deployment::new("test").listen("redirect:port=443:80").plan().is_ok());
    }

    #[test]
    fn what_is_in_clear_text_can_all_be_led_to_https() {
        let small = || Deployment::new("test").redirect_to_https();
        let with = |said: &[&str]| said.iter().fold(small(), Deployment::listen);
        let plan =
            with(&["80", "haproxy:tcp6:81", "systemd:name=web", "unix:a", "redirect:port=1:82", "tls:c:443"]);
        let plan = plan.trusted_proxies(["10.0.0.0/8"]).hsts(Duration::from_secs(60)).plan().expect("a plan");
        let table = plan.to_string();
        assert!(
            table.contains(
                "\n\nlistens on
  redirect:tcp:80, every interface
  redirect:haproxy:tcp:81:interface=[::]
  redirect:systemd:name=web
  unix:a
  redirect:port=1:tcp:82, every interface
  tls:c:tcp:443, every interface
  over https, tells browsers to use nothing else: max-age=60\n\n"
            ),
            "{table}"
        );
        check(
            with(&["80"]).hsts(Hsts::new(Duration::from_secs(60)).preload()),
            &[
                "endpoint `80` leads to https, and no port of an endpoint has TLS; say which port it is in `port=`",
                "hsts cannot be `max-age=60; preload`: it must be for subdomains and a year or longer, to be preloaded",
            ],
        );
    }

    #[test]
    fn who_orders_over_http_is_answered() {
        let ordering = || Deployment::new("test").listen("le:c:challenge=http-01:eab=me,c2VjcmV0:443");
        check(
            ordering(),
            &[
                "endpoint `le:c:challenge=http-01:eab=…:443` orders by `http-01`, and nothing answers that; say `.listen(\"redirect:tcp:80\")`",
            ],
        );
        let plan = ordering().listen("redirect:80").plan().expect("a plan");
        assert!(!plan.to_string().contains("c2VjcmV0"), "{plan}");
    }

    #[test]
    fn jobs_alone_are_a_deployment() {
        let plan =
            Deployment::new("test").job(Job::new("a", "every 4s", Writes("b/c")).may_write("b")).plan();
        assert!(plan.is_ok());
    }

    #[test]
    fn an_interval_that_cannot_be_is_a_problem() {
        let with = |interval| small().job(Job::new("a", every(interval), Writes("b/c")).may_write("b"));
        let why = "an interval is a whole number of milliseconds, at least 1ms";
        for (interval, said) in [(Duration::ZERO, "0ns"), (Duration::from_micros(1_500), "1.5ms")] {
            check(
                with(interval),
                &[&*format!("cannot understand schedule `every {said}` of job `a`: {why}")],
            );
        }
    }

    #[test]
    fn policies_that_cannot_be_meant_are_problems() {
        let job = |name, when| Job::new(name, when, Writes("b/c")).may_write("b");
        check(
            small()
                .running_jobs(0)
                .job(job("a", "after job b"))
                .job(job("b", "after job c"))
                .job(job("c", "after job b"))
                .job(job("d", "after job d"))
                .job(job("e", "after job x"))
                .job(job("f", "every 4s").overlap(Overlap::Allow(0)).time_limit(Duration::ZERO)),
            &[
                "job `f`: it allows 0 at once, so it would never run",
                "job `f`: its time limit is nothing",
                "job `b`: it runs after itself: `c` after `b`",
                "job `c`: it runs after itself: `b` after `c`",
                "job `d`: it runs after itself: `d`",
                "job `e`: there is no job `x` to run after",
                "running_jobs cannot be `0`: it must be at least 1",
            ],
        );
    }

    #[test]
    fn the_table_says_who_is_believed_and_where() {
        let trusting = || small().trusted_proxies(["10.0.0.0/8"]).trusted_proxies(["unix"]);
        for (deployment, line) in [
            (trusting(), "10.0.0.0/8, unix, believed in x-forwarded-for, x-forwarded-proto"),
            (trusting().proxy_headers(["Forwarded"]), "10.0.0.0/8, unix, believed in forwarded"),
            (trusting().proxy_headers([""; 0]), "10.0.0.0/8, unix, believed in no header"),
        ] {
            let table = deployment.plan().expect("a plan").to_string();
            assert!(table.contains(&format!("\n\ntrusted proxies\n  {line}\n\n")), "{table}");
        }
        assert!(!small().plan().expect("a plan").to_string().contains("prox"));
    }

    #[test]
    fn the_table_says_who_it_becomes() {
        let table = small().user("www:web").plan().expect("a plan").to_string();
        assert!(table.contains("  tcp:8080, every interface\n\nthen becomes user `www:web`\n\n"), "{table}");
        assert!(!small().plan().expect("a plan").to_string().contains("user"));
    }

    #[test]
    fn the_table_has_mounts_in_matching_order_and_three_instants() {
        let plan = small()
            .mount("/", mount::redirect("/x"))
            .mount("/a", mount::redirect("/x").unstripped())
            .mount("*.b.org/", mount::redirect("/x"))
            .mount("/a/b", mount::redirect("/x"))
            .mount("b.org/", mount::redirect("/x"))
            .job(Job::new("clock", "every 4s", Writes("static/a")).may_write("static"))
            .plan()
            .expect("a plan");
        let now = "2026-11-22T12:00:01Z".parse().expect("an instant");
        assert_eq!(
            plan.table(now).to_string(),
            "\
test

listens on
  tcp:8080, every interface

mounts, in matching order
  b.org/    redirect to `/x`
  *.b.org/  redirect to `/x`
  /a/b      redirect to `/x`
  /a        redirect to `/x`, sees the whole path
  /         redirect to `/x`

jobs
  clock  every 4s
           may write `static`
           next 2026-11-22T12:00:04Z, 2026-11-22T12:00:08Z, 2026-11-22T12:00:12Z

drains within 30s
"
        );
    }
}
