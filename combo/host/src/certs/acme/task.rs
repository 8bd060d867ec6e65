//! tick -> certificates that are missing or near their end. What is due is ordered, a few at once; one that fails
//! does not stop the others. What was issued is for `apply` to write; notes are kept in `DIR/.acme`.
//!
//! What was issued is kept there as well until it is in its file, so that it is not ordered again if the process is
//! killed in between. An order that was not finished by then is: its key was never written down.
#![expect(clippy::disallowed_methods, reason = "the folder is on disk, and orders take time by the clock")]

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use combo_core::{
    Cancel, Change, Outcome, Tick, Timestamp,
    endpoint::{Authority, Challenge, Issuer},
};
use futures_util::{StreamExt, stream};
use instant_acme::Account;
use tokio::sync::Mutex;

use super::{
    account::account,
    asked::PEM,
    certificate::Certificate,
    client::Client,
    directory,
    failure::Failure,
    hook::Hook,
    look::{Found, look},
    notes::{Notes, Unkept},
    order::{Issued, Wish, order},
    renewal::{
        ASK_AGAIN, Content, Memory, ORDERS_PER_HOUR, Record, Suggested, Verdict, WANTED_PER_HOUR, Window,
        after, allowance, ask_again, fail, succeed, verdict,
    },
    wake::Next,
    wanted::Wanted,
};
use crate::{
    certs::challenges::Challenges,
    jobs::{
        ErasedTask,
        output::Output,
        run::{self, Wants},
    },
};

/// How many are ordered at once. They are one tick, because a file is written when its tick is over.
const AT_ONCE: usize = 4;

/// How many windows of renewal are asked for in one tick.
const WINDOWS: usize = 200;

/// How soon after an order it is looked whether the file has what was issued.
const SEEN: Duration = Duration::from_secs(2);

/// How soon it is tried again after nothing could be done at all.
const HINDERED: Duration = Duration::from_secs(5 * 60);

/// How long that may take in all; what is not known by then is asked for the next time.
const ASKING: Duration = Duration::from_secs(60);

/// How many failures are told in full.
const TOLD: usize = 16;

/// How long a name that was wanted waits if there is a file for it.
const THERE: Duration = Duration::from_secs(3_600);

/// How long it is remembered that a name that was wanted has failed.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How many names that were wanted are remembered.
const MOST_REMEMBERED: usize = 10_000;

/// A folder whose certificates are ordered, and all that this needs.
#[derive(Debug)]
pub(crate) struct Renewals {
    /// As it was said.
    pub(super) said: PathBuf,
    /// Where that is.
    pub(super) folder: PathBuf,
    pub(super) root: PathBuf,
    pub(super) job: String,
    pub(super) issuer: Issuer,
    pub(super) challenges: Challenges,
    pub(super) wanted: Wanted,
    pub(super) next: Next,
    /// What a hook is told beside this process's environment.
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    pub(super) notes: Mutex<Option<Arc<Notes>>>,
}

impl ErasedTask for Renewals {
    fn run<'a>(&'a self, tick: Tick, _: &'a Output) -> run::Wanted<'a> {
        Box::pin(self.renew(tick))
    }
}

/// What comes of one tick.
#[derive(Default)]
struct Round {
    memory: Memory,
    changes: Vec<Change>,
    /// What went wrong, a sentence each.
    said: Vec<String>,
    /// What there is now of files for which one was issued.
    issued: BTreeMap<String, Certificate>,
    /// Names that were wanted and are not to be for a while.
    waiting: BTreeMap<String, Timestamp>,
    /// Until when nothing is begun.
    hindered: Option<Timestamp>,
    /// What there is to do before any of them is due, and when.
    put_off: Option<Timestamp>,
}

impl Renewals {
    async fn renew(&self, tick: Tick) -> Result<Wants, Outcome> {
        let ended = self.go_round(tick).await;
        if matches!(ended, Err(Outcome::Failed { .. })) {
            let _ = self.next.send_replace(Some(after(Timestamp::now(), HINDERED)));
        }
        ended
    }

    async fn go_round(&self, tick: Tick) -> Result<Wants, Outcome> {
        let notes = self.notes().await?;
        let refused = |what: &str, error: std::io::Error| {
            let folder = self.said.display();
            Outcome::Failed { why: format!("{what} of `{folder}`: {error}") }
        };
        let memory = notes.memory().map_err(|error| refused("cannot read the notes", error))?;
        let (folder, known) = (self.folder.clone(), memory.clone());
        let looked = tokio::task::spawn_blocking(move || look(&folder, &known)).await;
        let looked = looked.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let mut found = looked.map_err(|error| refused("cannot look for certificates", error))?;
        let wanted = self.wanted.take();
        let mut round = Round { memory, ..Round::default() };
        for name in wanted {
            let file = format!("{name}{PEM}");
            // It has come in the meantime, or is nothing that handshakes could take: that is not asked every time.
            if self.folder.join(&file).symlink_metadata().is_ok() {
                let _ = round.waiting.insert(name, after(tick.now, THERE));
                continue;
            }
            found.push(Found {
                file,
                content: Content::Nothing,
                leaf: None,
                touched: Timestamp::MIN,
                names: Ok(vec![name]),
                wanted: true,
            });
        }
        self.take_up(&notes, &found, &mut round);
        for found in found.iter().filter(|found| found.wanted) {
            round.record(&found.file).wanted = true;
        }
        self.ask_windows(&notes, &found, &mut round, &tick.cancel).await;
        let due = self.due(&found, &mut round, tick.now);
        self.order_all(&notes, &found, due, &mut round, &tick).await;
        self.look_ahead(&found, &mut round, Timestamp::now());
        // What was issued is for its file all the same.
        if let Err(error) = notes.remember(&round.memory) {
            let said = format!("cannot keep the notes of `{}`: {error}", self.said.display());
            if !round.said.contains(&said) {
                round.said.push(said);
            }
        }
        let Round { changes, said, .. } = round;
        let outcome = if said.is_empty() { Outcome::Ran } else { Outcome::Failed { why: told(&said) } };
        Ok(Wants { changes, outcome })
    }

    /// The notes, which this process keeps from the first tick on.
    async fn notes(&self) -> Result<Arc<Notes>, Outcome> {
        let mut kept = self.notes.lock().await;
        if let Some(notes) = &*kept {
            return Ok(notes.clone());
        }
        let said = self.said.display();
        match Notes::open(&self.folder) {
            Ok(notes) => Ok(kept.insert(Arc::new(notes)).clone()),
            Err(Unkept::By(pid)) => {
                // A server hears of what is to be done as the other process does, and would hear itself ask.
                let asked = match self.is_by_hand().then(|| Notes::ask(&self.folder)) {
                    None => String::new(),
                    Some(Ok(())) => " and was asked to look now".to_owned(),
                    Some(Err(error)) => format!(" and could not be asked: {error}"),
                };
                Err(Outcome::Skipped { why: format!("process {pid} looks after `{said}`{asked}") })
            }
            Err(Unkept::Io(error)) => {
                Err(Outcome::Failed { why: format!("cannot keep notes in `{said}`: {error}") })
            }
        }
    }

    /// Whether nothing but people makes this due.
    fn is_by_hand(&self) -> bool {
        self.next.is_closed()
    }

    /// Takes what was issued before and is not in its file, and forgets what is.
    fn take_up(&self, notes: &Notes, found: &[Found], round: &mut Round) {
        for found in found {
            let Ok(Some(pem)) = notes.obtained(&found.file) else { continue };
            let Ok(leaf) = Certificate::read(pem.as_bytes()) else { continue };
            let there = matches!(&found.content, Content::Certificate { id, .. } if *id == leaf.id);
            let ours = match &found.content {
                Content::Nothing => true,
                Content::Certificate { id, .. } => round.record(&found.file).certificates.contains(id),
            };
            let alive = leaf.life.until > Timestamp::now();
            if there || !ours || !alive {
                if let Err(error) = notes.forget_obtained(&found.file) {
                    tracing::warn!("`{}` was issued and cannot be forgotten: {error}", found.file);
                }
                continue;
            }
            // It was issued for what was asked for then.
            let asked = found.names.as_ref().is_ok_and(|names| *names == round.record(&found.file).names);
            if asked {
                round.changes.push(self.write(&found.file, pem));
                drop(round.issued.insert(found.file.clone(), leaf));
            }
        }
    }

    fn write(&self, file: &str, pem: String) -> Change {
        Change::WriteFile { path: self.said.join(file), contents: pem.into(), mode: Some(0o600) }
    }

    /// Asks when certificates are to be renewed (RFC 9773), where it is time to.
    async fn ask_windows(&self, notes: &Notes, found: &[Found], round: &mut Round, cancel: &Cancel) {
        let now = Timestamp::now();
        let asking = self.asking(found, &round.memory, now);
        if asking.is_empty() || cancel.is_cancelled() {
            return;
        }
        // Whatever hinders this will be said by an order.
        let Ok(account) = self.account(notes).await else { return };
        let account = &account;
        let asked = asking.into_iter().map(|(file, leaf)| async move {
            let answer = match leaf.identifier() {
                Some(identifier) => account.renewal_info(&identifier).await,
                None => Err(instant_acme::Error::Unsupported("it is not known by its authority")),
            };
            (file, leaf.id, answer)
        });
        // A stream of the closure itself could not be sent to another thread.
        let asked: Vec<_> = asked.collect();
        let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
        let mut late = std::pin::pin!(tokio::time::sleep(ASKING));
        loop {
            let (file, certificate, answer) = tokio::select! {
                answer = answers.next() => match answer {
                    Some(answer) => answer,
                    None => return,
                },
                () = cancel.cancelled() => return,
                () = &mut late => return,
            };
            let record = round.record(&file);
            let before = record.suggested.take().filter(|known| known.certificate == certificate);
            record.suggested = Some(match answer {
                Ok((info, again)) => {
                    let instant = |at: i64| Timestamp::from_second(at).unwrap_or(Timestamp::MAX);
                    let [start, end] = [info.suggested_window.start, info.suggested_window.end];
                    let (start, end) = (instant(start.unix_timestamp()), instant(end.unix_timestamp()));
                    if let Some(page) = &info.explanation_url {
                        tracing::info!(file, start = %start, end = %end, page, "when to renew is explained");
                    }
                    let window = Some(Window { start, end });
                    Suggested { certificate, window, again: after(now, ask_again(again)) }
                }
                Err(error) => {
                    tracing::debug!(file, "no window of renewal: {error}");
                    let window = before.and_then(|known| known.window);
                    Suggested { certificate, window, again: after(now, ASK_AGAIN) }
                }
            });
        }
    }

    /// Which certificates a window is asked for, by which file: those first that have waited longest.
    fn asking(&self, found: &[Found], memory: &Memory, now: Timestamp) -> Vec<(String, Certificate)> {
        let directory = directory(&self.issuer.authority);
        let mut asking: Vec<_> = found
            .iter()
            .filter_map(|found| {
                let leaf = found.leaf.as_ref().filter(|leaf| leaf.life.until > now)?;
                let record = memory.files.get(&found.file)?;
                let ours = record.certificates.contains(&leaf.id) && record.directory == directory;
                let known = record.suggested.as_ref().filter(|known| known.certificate == leaf.id);
                let again = known.map_or(Timestamp::MIN, |known| known.again);
                (ours && again <= now).then(|| (again, found.file.clone(), leaf.clone()))
            })
            .collect();
        asking.sort_by_key(|(again, ..)| *again);
        asking.into_iter().take(WINDOWS).map(|(_, file, leaf)| (file, leaf)).collect()
    }

    /// Which of what was found is to be ordered now: no two for the same name at once, and so many in an hour.
    fn due(&self, found: &[Found], round: &mut Round, now: Timestamp) -> Vec<usize> {
        let mut due: Vec<usize> = Vec::new();
        for (index, found) in found.iter().enumerate() {
            if round.issued.contains_key(&found.file) {
                continue;
            }
            let record = round.memory.files.get(&found.file);
            let names = match &found.names {
                Ok(names) => names,
                Err(why) => {
                    let ours = match &found.content {
                        Content::Nothing => true,
                        Content::Certificate { id, .. } => {
                            record.is_some_and(|record| record.certificates.contains(id))
                        }
                    };
                    if ours {
                        round.said.push(format!("`{}` is not ordered: {why}", found.file));
                    }
                    continue;
                }
            };
            let here = directory(&self.issuer.authority);
            if verdict(&found.content, found.touched, names, here, record, now) != Verdict::Now {
                continue;
            }
            let wildcard = names.iter().find(|name| name.starts_with("*."));
            match wildcard.filter(|_| self.issuer.challenge != Challenge::Dns01) {
                Some(name) => round.said.push(format!(
                    "`{}` is not ordered: `{name}` is proved by dns-01 alone; say `challenge=dns-01:hook=…`",
                    found.file
                )),
                None => due.push(index),
            }
        }
        // Sites that would lose a certificate come before those that have none yet.
        due.sort_by_key(|index| found[*index].leaf.as_ref().map_or(Timestamp::MAX, |leaf| leaf.life.until));
        let mut names = HashSet::new();
        due.retain(|index| {
            let asked = found[*index].names.as_ref().map(Vec::as_slice).unwrap_or_default();
            let free = !asked.iter().any(|name| names.contains(name));
            if free {
                names.extend(asked);
            } else {
                round.put_off(now);
            }
            free
        });
        let Round { memory, put_off, .. } = &mut *round;
        let (mut left, slot) = allowance(&mut memory.begun, ORDERS_PER_HOUR, now);
        let (mut left_wanted, _) = allowance(&mut memory.begun_wanted, WANTED_PER_HOUR, now);
        let mut more = false;
        let mut chosen = 0;
        due.retain(|index| {
            let wanted = found[*index].wanted;
            if chosen == AT_ONCE {
                more = true;
                return false;
            }
            if left == 0 || (wanted && left_wanted == 0) {
                if !wanted {
                    *put_off = Some(put_off.map_or(slot, |at| at.min(slot)));
                }
                return false;
            }
            left -= 1;
            left_wanted -= usize::from(wanted);
            chosen += 1;
            true
        });
        if more {
            round.put_off(now);
        }
        due
    }

    async fn order_all(
        &self,
        notes: &Notes,
        found: &[Found],
        mut due: Vec<usize>,
        round: &mut Round,
        tick: &Tick,
    ) {
        let cancel = &tick.cancel;
        if due.is_empty() || cancel.is_cancelled() {
            return;
        }
        // Whoever cannot write down what he has begun would begin it again and again.
        let before = (round.memory.begun.clone(), round.memory.begun_wanted.clone());
        round.begin(found, &due, tick.now);
        if let Err(error) = notes.remember(&round.memory) {
            (round.memory.begun, round.memory.begun_wanted) = before;
            round.said.push(format!("cannot keep the notes of `{}`: {error}", self.said.display()));
            let until = after(Timestamp::now(), HINDERED);
            round.hindered = Some(until);
            return round.put_off(until);
        }
        // A second time if the authority has forgotten us.
        for again in [false, true] {
            if due.is_empty() || cancel.is_cancelled() {
                return;
            }
            let account = match self.account(notes).await {
                Ok(account) => account,
                Err(failure) => return self.fail_all(found, &due, &failure, round),
            };
            let memory = round.memory.clone();
            let begin = |index| self.order_one(&account, &found[index], index, &memory, cancel);
            let ordering: Vec<_> = std::mem::take(&mut due).into_iter().map(begin).collect();
            let mut ordering = stream::iter(ordering).buffer_unordered(AT_ONCE);
            let mut strangers = Vec::new();
            // Each ends by itself when it is told to.
            while let Some((index, ended)) = ordering.next().await {
                match ended {
                    Err(failure) if failure.stranger && !again => strangers.push(index),
                    ended => self.ended(notes, &found[index], ended, round, cancel),
                }
            }
            if !strangers.is_empty() {
                let url = directory(&self.issuer.authority);
                tracing::warn!("`{url}` does not know our account any more, so it is asked for another");
                if let Err(error) = notes.forget_account(url) {
                    tracing::error!("the account at `{url}` cannot be moved aside: {error}");
                }
            }
            drop(ordering);
            due = strangers;
        }
    }

    async fn order_one(
        &self,
        account: &Account,
        found: &Found,
        index: usize,
        memory: &Memory,
        cancel: &Cancel,
    ) -> (usize, Result<Issued, Failure>) {
        let names = found.names.as_ref().map(Vec::as_slice).unwrap_or_default();
        let hook = self.issuer.hook.clone().map(|program| Hook {
            program,
            root: self.root.clone(),
            job: self.job.clone(),
            environment: self.environment.clone(),
        });
        let here = directory(&self.issuer.authority);
        let same = memory.files.get(&found.file).is_some_and(|record| record.directory == here);
        // Only an authority that suggests when to renew knows what it is that is replaced.
        let suggests = memory.files.get(&found.file).and_then(|record| record.suggested.as_ref());
        let suggests = suggests.is_some_and(|suggested| suggested.window.is_some());
        let leaf = found.leaf.as_ref().filter(|_| same && suggests);
        let wish = Wish {
            names,
            challenge: self.issuer.challenge,
            challenges: &self.challenges,
            hook: hook.as_ref(),
            replaces: leaf.and_then(Certificate::identifier),
        };
        (index, order(account, &wish, cancel).await)
    }

    async fn account(&self, notes: &Notes) -> Result<Account, Failure> {
        let roots = match &self.issuer.authority {
            Authority::Other { root: Some(root), .. } => {
                let read = std::fs::read(self.root.join(root));
                let unread = |error| Failure::ours(format!("cannot read `{}`: {error}", root.display()));
                Some((root, read.map_err(unread)?))
            }
            _ => None,
        };
        let client = Client::new(roots.as_ref().map(|(_, pem)| &**pem)).map_err(|error| {
            let whose = roots.as_ref().map_or(Path::new("root"), |(path, _)| path);
            Failure::ours(format!("cannot believe `{}`: {error}", whose.display()))
        })?;
        account(notes, &self.issuer, &client).await
    }

    /// Takes note of how an order has ended.
    fn ended(
        &self,
        notes: &Notes,
        found: &Found,
        ended: Result<Issued, Failure>,
        round: &mut Round,
        cancel: &Cancel,
    ) {
        match ended {
            Ok(issued) => self.issued(notes, found, issued, round),
            // It need not wait because of that.
            Err(_) if cancel.is_cancelled() => return,
            Err(failure) => self.failed(found, &failure, round),
        }
        self.remember(notes, &round.memory);
    }

    fn issued(&self, notes: &Notes, found: &Found, issued: Issued, round: &mut Round) {
        let Issued { pem, leaf } = issued;
        if let Err(error) = notes.keep_obtained(&found.file, &pem) {
            tracing::error!("`{}` was issued and is not kept until it is written: {error}", found.file);
        }
        let names = found.names.clone().unwrap_or_default();
        tracing::info!(file = found.file, names = names.join(" "), until = %leaf.life.until, "a certificate was issued");
        let record = round.record(&found.file);
        if let Some(there) = &found.leaf {
            record.certificates = vec![there.id.clone()];
        }
        succeed(record, leaf.id.clone());
        record.directory = directory(&self.issuer.authority).to_owned();
        record.names = names;
        round.changes.push(self.write(&found.file, pem));
        drop(round.issued.insert(found.file.clone(), leaf));
        // To see that it was written.
        round.put_off(after(Timestamp::now(), SEEN));
    }

    fn failed(&self, found: &Found, failure: &Failure, round: &mut Round) {
        let again = self.put_down(found, failure, round);
        round.said.push(format!(
            "`{}` has no new certificate: {}; it is tried again at {again}",
            found.file, failure.why
        ));
    }

    /// Nothing could be ordered.
    fn fail_all(&self, found: &[Found], due: &[usize], failure: &Failure, round: &mut Round) {
        let again = due.iter().map(|index| self.put_down(&found[*index], failure, round)).min();
        let files: Vec<_> = due.iter().take(TOLD).map(|index| format!("`{}`", found[*index].file)).collect();
        let more = due.len().saturating_sub(TOLD);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let (files, url) = (files.join(", "), directory(&self.issuer.authority));
        let again = again.map(|again| format!("; it is tried again at {again}")).unwrap_or_default();
        round
            .said
            .push(format!("nothing can be ordered at `{url}` for {files}{more}: {}{again}", failure.why));
    }

    /// Remembers a failure; gives when it is tried again, in whole seconds.
    fn put_down(&self, found: &Found, failure: &Failure, round: &mut Round) -> Timestamp {
        let now = Timestamp::now();
        let life = found.leaf.as_ref().map(|leaf| leaf.life);
        let record = round.record(&found.file);
        fail(record, failure.why.clone(), failure.held(now), life, &found.file, now);
        let again = record.again.unwrap_or(now);
        Timestamp::from_second(again.as_second()).unwrap_or(again)
    }

    fn remember(&self, notes: &Notes, memory: &Memory) {
        if let Err(error) = notes.remember(memory) {
            tracing::error!("cannot keep the notes of `{}`: {error}", self.said.display());
        }
    }

    /// When there is something to do next, of each file and of all.
    fn look_ahead(&self, found: &[Found], round: &mut Round, now: Timestamp) {
        let here = directory(&self.issuer.authority);
        let mut next = round.put_off;
        let mut waiting = std::mem::take(&mut round.waiting);
        let mut later = Vec::new();
        let mut foreign = HashSet::new();
        for found in found {
            let Ok(names) = &found.names else { continue };
            let record = round.memory.files.get(&found.file);
            let content = round.issued.get(&found.file).map_or_else(
                || found.content.clone(),
                |leaf| Content::Certificate { id: leaf.id.clone(), life: leaf.life },
            );
            let wanted = found.wanted && content == Content::Nothing;
            match verdict(&content, found.touched, names, here, record, now) {
                Verdict::Later(at) if wanted => {
                    let _ = waiting.insert(names[0].clone(), at);
                }
                Verdict::Later(at) => {
                    next = Some(next.map_or(at, |next| next.min(at)));
                    round.record(&found.file).next = Some(at);
                }
                Verdict::Foreign => {
                    let _ = foreign.insert(found.file.clone());
                }
                Verdict::Now if wanted => match round.hindered {
                    Some(until) => drop(waiting.insert(names[0].clone(), until)),
                    None => later.push(names[0].clone()),
                },
                // It was not begun, or is asked for in a way that cannot be.
                Verdict::Now => {}
            }
        }
        let there: HashSet<_> = found.iter().map(|found| &*found.file).collect();
        round.memory.files.retain(|file, record| {
            let lately = record.failed.is_some_and(|failed| after(failed, REMEMBERED) > now);
            let remembered = there.contains(&**file) || (record.wanted && lately);
            remembered && !foreign.contains(file)
        });
        while round.memory.files.len() > MOST_REMEMBERED + there.len() {
            let Some(file) = round.memory.files.keys().find(|file| !there.contains(&***file)).cloned() else {
                break;
            };
            drop(round.memory.files.remove(&file));
        }
        let closed = allowance(&mut round.memory.begun_wanted, WANTED_PER_HOUR, now).0 == 0
            || allowance(&mut round.memory.begun, ORDERS_PER_HOUR, now).0 == 0;
        self.wanted.settle(waiting, closed, now);
        // They are wanted still.
        for name in later {
            let _ = self.wanted.want(&name);
        }
        let _ = self.next.send_replace(next);
    }
}

impl Round {
    fn record(&mut self, file: &str) -> &mut Record {
        self.memory.files.entry(file.to_owned()).or_default()
    }

    fn begin(&mut self, found: &[Found], due: &[usize], now: Timestamp) {
        for index in due {
            self.memory.begun.push(now);
            if found[*index].wanted {
                self.memory.begun_wanted.push(now);
            }
        }
    }

    fn put_off(&mut self, until: Timestamp) {
        self.put_off = Some(self.put_off.map_or(until, |at| at.min(until)));
    }
}

/// What went wrong, as one text.
fn told(said: &[String]) -> String {
    let mut text = said.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
    if said.len() > TOLD {
        let _ = write!(text, "; and {} more", said.len() - TOLD);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;
    use crate::certs::acme::{Ordered, renewals, wake::Waking};

    /// A folder whose authority is not there, and what wakes it.
    fn folder() -> (tempfile::TempDir, Renewals, Waking) {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join("certs")).expect("a folder");
        let issuer = Issuer {
            authority: Authority::Other { directory: "https://127.0.0.1:1/directory".into(), root: None },
            email: None,
            eab: None,
            challenge: Challenge::TlsAlpn01,
            hook: None,
            on_demand: vec!["*.example.org".into()],
        };
        let ordered = Ordered::new("certs".into(), issuer);
        let waking = ordered.waking(root.path());
        let renewals = renewals(root.path(), ordered, Challenges::default(), Vec::new());
        (root, renewals, waking)
    }

    fn tick() -> Tick {
        Tick::at(Timestamp::now())
    }

    #[tokio::test]
    async fn only_who_is_not_told_himself_asks_the_other_process() {
        let (_root, renewals, waking) = folder();
        let other = Notes::open(&renewals.folder).expect("notes");
        let written = || fs::metadata(&renewals.folder).and_then(|found| found.modified()).expect("a folder");
        let old = SystemTime::UNIX_EPOCH;
        fs::File::open(&renewals.folder).and_then(|folder| folder.set_modified(old)).expect("set");
        let why = async || match renewals.renew(tick()).await {
            Err(Outcome::Skipped { why }) => why,
            other => panic!("{other:?}"),
        };
        let said = format!("process {} looks after `certs`", std::process::id());
        assert_eq!((why().await, written()), (said.clone(), old));
        drop(waking);
        assert_eq!(why().await, said + " and was asked to look now");
        assert_ne!(written(), old);
        drop(other);
    }

    #[tokio::test]
    async fn nothing_is_ordered_while_nothing_can_be_written_down() {
        let (_root, renewals, mut waking) = folder();
        let notes = renewals.notes().await.expect("notes");
        fs::write(renewals.folder.join("a.example.com.pem"), "").expect("written");
        let own = renewals.folder.join(".acme");
        fs::rename(&own, renewals.folder.join("away")).expect("moved");
        let before = Timestamp::now();
        assert!(renewals.wanted.want("a.example.org"));
        let wants = renewals.renew(tick()).await.expect("it has looked");
        assert!(!renewals.wanted.want("a.example.org"));
        let Outcome::Failed { why } = wants.outcome else { panic!("{:?}", wants.outcome) };
        assert!(why.starts_with("cannot keep the notes of `certs`: "), "{why}");
        assert!(!why.contains("nothing can be ordered"), "{why}");
        assert_eq!(notes.memory().expect("it is known").begun, []);
        let next = waking.next.borrow_and_update().expect("it is tried again");
        assert!(next >= after(before, HINDERED), "{next}");
        // There is nobody to order from, which is known because it was tried.
        fs::rename(renewals.folder.join("away"), &own).expect("moved back");
        let wants = renewals.renew(tick()).await.expect("it has looked");
        let Outcome::Failed { why } = wants.outcome else { panic!("{:?}", wants.outcome) };
        assert!(why.starts_with("nothing can be ordered at "), "{why}");
        assert_eq!(notes.memory().expect("it is known").begun.len(), 1);
    }

    /// An empty file.
    fn empty(name: &str) -> Found {
        Found {
            file: format!("{name}{PEM}"),
            content: Content::Nothing,
            leaf: None,
            touched: Timestamp::MIN,
            names: Ok(vec![name.to_owned()]),
            wanted: false,
        }
    }

    #[tokio::test]
    async fn what_was_issued_when_it_was_told_to_end_is_kept() {
        let (_root, renewals, _waking) = folder();
        let notes = renewals.notes().await.expect("notes");
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).expect("a certificate");
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        let leaf = Certificate::read(pem.as_bytes()).expect("a certificate");
        let (mut round, cancel) = (Round::default(), Cancel::new());
        cancel.cancel();
        let issued = Ok(Issued { pem: pem.clone(), leaf: leaf.clone() });
        renewals.ended(&notes, &empty("a.example.com"), issued, &mut round, &cancel);
        let ended = Err(Failure::ours("it was told to end"));
        renewals.ended(&notes, &empty("b.example.com"), ended, &mut round, &cancel);
        assert_eq!(notes.obtained("a.example.com.pem").expect("read"), Some(pem));
        let files = notes.memory().expect("read").files;
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a.example.com.pem"]);
        assert_eq!(files["a.example.com.pem"].certificates, [leaf.id]);
        assert!(round.said.is_empty(), "{:?}", round.said);
    }

    #[test]
    fn a_few_are_a_tick_and_the_others_are_the_next() {
        let (_root, renewals, _waking) = folder();
        let now = Timestamp::now();
        let found: Vec<_> = (0..=AT_ONCE).map(|at| empty(&format!("a{at}.example.com"))).collect();
        let mut round = Round::default();
        assert_eq!(renewals.due(&found, &mut round, now), (0..AT_ONCE).collect::<Vec<_>>());
        assert_eq!(round.put_off, Some(now));
        let mut round = Round::default();
        assert_eq!(renewals.due(&found[..AT_ONCE], &mut round, now).len(), AT_ONCE);
        assert_eq!(round.put_off, None);
    }

    #[tokio::test]
    async fn a_name_whose_file_is_of_no_use_is_not_wanted_at_every_handshake() {
        let (_root, renewals, _waking) = folder();
        fs::write(renewals.folder.join("a.example.org.pem"), "what is this").expect("written");
        assert!(renewals.wanted.want("a.example.org"));
        let wants = renewals.renew(tick()).await.expect("it has looked");
        assert_eq!((wants.outcome, wants.changes.len()), (Outcome::Ran, 0));
        assert!(!renewals.wanted.want("a.example.org"));
        assert!(renewals.wanted.want("b.example.org"));
    }

    #[test]
    fn what_was_wanted_and_not_begun_is_wanted_still() {
        let (_root, renewals, _waking) = folder();
        let found = Found { wanted: true, ..empty("a.example.org") };
        assert!(renewals.wanted.want("a.example.org"));
        assert_eq!(renewals.wanted.take().len(), 1);
        renewals.look_ahead(&[found], &mut Round::default(), Timestamp::now());
        assert_eq!(renewals.wanted.take().len(), 1);
    }

    #[test]
    fn a_window_is_asked_for_where_that_was_longest_ago() {
        let (_root, renewals, _waking) = folder();
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).expect("a certificate");
        let leaf = Certificate::read(made.cert.pem().as_bytes()).expect("a certificate");
        let at = |second| Timestamp::from_second(second).expect("in range");
        let (mut found, mut memory) = (Vec::new(), Memory::default());
        let all = i64::try_from(WINDOWS).expect("a few") + 50;
        for number in 0..all {
            let certificate = Found { leaf: Some(leaf.clone()), ..empty(&format!("{number:04}")) };
            let again = at(all - number);
            let suggested = Suggested { certificate: leaf.id.clone(), window: None, again };
            let record = Record {
                directory: directory(&renewals.issuer.authority).to_owned(),
                certificates: vec![leaf.id.clone()],
                suggested: Some(suggested),
                ..Record::default()
            };
            drop(memory.files.insert(certificate.file.clone(), record));
            found.push(certificate);
        }
        let asking = renewals.asking(&found, &memory, at(all + 1));
        let files: Vec<_> = asking.into_iter().map(|(file, _)| file).collect();
        let last: Vec<_> = (50..all).rev().map(|number| format!("{number:04}{PEM}")).collect();
        assert_eq!(files, last);
    }
}
