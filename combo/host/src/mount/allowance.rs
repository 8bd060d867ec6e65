//! What a mount takes: how long an answer may be waited for, how large a body may be, how many requests
//! may be in flight, how many one peer may make. What goes beyond is refused before the app is asked.

use std::{
    future::Future,
    net::IpAddr,
    num::NonZeroU32,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
};
use http::{Method, Request, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{LengthLimitError, Limited as Bounded};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use super::{Answered, Answering, App, Arrival, Later, Target, peers::Peers, upgrades};
use crate::serve::{
    body::{RequestBody, ResponseBody},
    gate::of_one,
    refusal::Refusal,
    sweep::Keeps,
};

/// What was said of a mount.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    timeout: Option<Duration>,
    body: Option<u64>,
    in_flight: Option<usize>,
    rate: Option<(u32, Duration)>,
}

impl Target {
    /// How long a client waits for the head of an answer; then it gets 504 and what the app was
    /// doing is dropped. Default: as long as the app takes. An answer that has begun may take its time. An
    /// app that blocks its thread is not heard of before it lets go: see [`own_threads`](Self::own_threads).
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.allowance.timeout = Some(limit);
        self
    }

    /// How many bytes a request's body may have. One that declares more is answered 413 before the
    /// app sees it; one that turns out to have more ends with an error, and the client gets 413 unless
    /// the app has answered already. What a [`layer`](Self::layer) has decompressed has the same limit. Default: what
    /// the app's framework allows.
    #[must_use]
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.allowance.body = Some(bytes);
        self
    }

    /// How many requests may be in flight, in all workers together, until the ends of their answers, or of
    /// the websockets and other upgraded connections that they have become; one more is answered 503 with
    /// `Retry-After`. Default: as many as there are.
    #[must_use]
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.allowance.in_flight = Some(requests);
        self
    }

    /// How many requests one peer may make in this time; one more is answered 429 with `Retry-After`.
    /// All of them may come at once, and then they come back one by one. A peer is an IPv4 address or
    /// the first 64 bits of an IPv6 address; over a unix socket there is none, and no limit.
    ///
    /// Some 100,000 peers are remembered, each until all of its requests have come back. When there are more,
    /// those who are new share what one peer may make, so that nobody gets around the limit by coming from
    /// ever more addresses.
    #[must_use]
    pub fn rate_limit(mut self, requests: u32, per: Duration) -> Self {
        self.allowance.rate = Some((requests, per));
        self
    }
}

impl Allowance {
    pub(super) fn faults(&self) -> Vec<String> {
        let timeout =
            self.timeout.filter(Duration::is_zero).map(|_| "its timeout cannot be nothing".to_owned());
        let in_flight =
            self.in_flight.filter(|most| *most == 0).map(|_| "no request at all may be in flight".to_owned());
        let rate = self
            .rate
            .filter(|(requests, per)| quota(*requests, *per).is_none())
            .map(|(requests, per)| format!("its rate limit cannot be {requests} requests in {per:?}"));
        [timeout, in_flight, rate].into_iter().flatten().collect()
    }

    /// What was said here, else there.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            timeout: self.timeout.or(other.timeout),
            body: self.body.or(other.body),
            in_flight: self.in_flight.or(other.in_flight),
            rate: self.rate.or(other.rate),
        }
    }

    /// As the plan says it.
    pub(crate) fn said(&self) -> Vec<String> {
        let timeout = self.timeout.map(|limit| format!("answers within {limit:?}"));
        let body = self.body.map(|bytes| format!("bodies up to {bytes} bytes"));
        let in_flight = self.in_flight.map(|requests| format!("{requests} in flight"));
        let rate = self.rate.map(|(requests, per)| format!("{requests} requests per peer in {per:?}"));
        [timeout, body, in_flight, rate].into_iter().flatten().collect()
    }

    /// What all workers share; nothing if everything is allowed.
    pub(super) fn held(&self) -> Option<Arc<Held>> {
        let Self { timeout, body, in_flight, rate } = *self;
        if timeout.is_none() && body.is_none() && in_flight.is_none() && rate.is_none() {
            return None;
        }
        let in_flight =
            in_flight.map(|requests| Arc::new(Semaphore::new(requests.min(Semaphore::MAX_PERMITS))));
        let rate = rate.and_then(|(requests, per)| Some(Rate::new(quota(requests, per)?)));
        Some(Arc::new(Held { timeout, body, in_flight, rate }))
    }

    /// The part of it that holds within layers as well.
    pub(super) fn held_within(&self) -> Option<Arc<Held>> {
        Self { body: self.body, ..Self::default() }.held()
    }
}

fn quota(requests: u32, per: Duration) -> Option<Quota> {
    let requests = NonZeroU32::new(requests)?;
    Some(Quota::with_period(per.checked_div(requests.get())?)?.allow_burst(requests))
}

pub(super) struct Held {
    timeout: Option<Duration>,
    body: Option<u64>,
    in_flight: Option<Arc<Semaphore>>,
    rate: Option<Rate>,
}

/// Who has made how many requests lately.
struct Rate {
    peers: RateLimiter<IpAddr, Peers, MonotonicClock>,
    asked: AtomicUsize,
}

/// After so many requests, peers that have not come for long are forgotten: a small part of them at a time.
const FORGET_AFTER: usize = 64;

impl Rate {
    fn new(quota: Quota) -> Self {
        Self { peers: RateLimiter::new(quota, Peers::new(), MonotonicClock), asked: AtomicUsize::new(0) }
    }

    fn check(&self, peer: IpAddr) -> Result<(), Refusal> {
        if self.asked.fetch_add(1, Relaxed) % FORGET_AFTER == FORGET_AFTER - 1 {
            self.peers.retain_recent();
        }
        self.peers.check_key(&of_one(peer)).map_err(|until| {
            let wait = until.wait_time_from(MonotonicClock.now());
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Refusal::TooMany(u32::try_from(seconds.max(1)).unwrap_or(u32::MAX))
        })
    }
}

/// An app that is asked only for what its mount takes.
struct Limited {
    app: Rc<dyn App>,
    held: Arc<Held>,
}

pub(super) fn limited(app: Rc<dyn App>, held: Arc<Held>) -> Rc<dyn App> {
    Rc::new(Limited { app, held })
}

impl Limited {
    fn admit(
        &self,
        request: Request<RequestBody>,
        arrival: &Arrival<'_>,
    ) -> Result<(Request<RequestBody>, Watch), Refusal> {
        let Held { timeout, body, in_flight, rate } = &*self.held;
        if let (Some(rate), Some(peer)) = (rate, arrival.connection.peer.address()) {
            rate.check(peer.ip())?;
        }
        let place = in_flight.clone().map(Semaphore::try_acquire_owned).transpose();
        let place = place.map_err(|_| Refusal::Busy)?;
        let connects = *request.method() == Method::CONNECT;
        let mut watch = Watch { sleep: None, place, over: None, connects };
        if let Some(limit) = timeout {
            watch.sleep = Some(Box::pin(tokio::time::sleep(*limit)));
        }
        let Some(limit) = *body else { return Ok((request, watch)) };
        let declared =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|declared: u64| declared > limit) {
            return Err(Refusal::TooLarge);
        }
        if request.body().is_end_stream() {
            return Ok((request, watch));
        }
        let over = Arc::new(AtomicBool::new(false));
        watch.over = Some(over.clone());
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let bounded =
            request.map(|body| RequestBody::new(Measured { body: Bounded::new(body, limit), over }));
        Ok((bounded, watch))
    }
}

impl App for Limited {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let (request, mut watch) = match self.admit(request, &arrival) {
            Ok(admitted) => admitted,
            Err(refusal) => return Answering::Now(Err(refusal.into())),
        };
        match self.app.answer(request, arrival, cx) {
            Answering::Now(answered) => Answering::Now(watch.end(answered)),
            Answering::Later(later) => Answering::boxed(Box::pin(Watched { later, watch }), cx),
        }
    }
}

/// What is watched while a request is in flight.
struct Watch {
    sleep: Option<Pin<Box<Sleep>>>,
    place: Option<OwnedSemaphorePermit>,
    over: Option<Arc<AtomicBool>>,
    connects: bool,
}

impl Watch {
    fn end(&mut self, answered: Answered) -> Answered {
        if self.over.as_ref().is_some_and(|over| over.load(Relaxed)) {
            return Err(Refusal::TooLarge.into());
        }
        let mut response = answered?;
        if upgrades(&response, self.connects) {
            if let Some(place) = self.place.take() {
                Keeps::add(response.extensions_mut(), Arc::new(place));
            }
            return Ok(response);
        }
        // It is in flight until its end.
        let place = self.place.take().filter(|_| response.body().streams());
        let Some(place) = place else { return Ok(response) };
        Ok(response.map(|body| ResponseBody::new(Placed { body, _place: place })))
    }
}

struct Watched {
    later: Later,
    watch: Watch,
}

impl Future for Watched {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let this = &mut *self;
        if let Poll::Ready(answered) = this.later.as_mut().poll(cx) {
            return Poll::Ready(this.watch.end(answered));
        }
        match &mut this.watch.sleep {
            Some(sleep) => sleep.as_mut().poll(cx).map(|()| Err(Refusal::TimedOut.into())),
            None => Poll::Pending,
        }
    }
}

/// A request's body that says when it was larger than allowed.
struct Measured {
    body: Bounded<RequestBody>,
    over: Arc<AtomicBool>,
}

impl Body for Measured {
    type Data = Bytes;
    type Error = combo_core::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &polled
            && error.is::<LengthLimitError>()
        {
            self.over.store(true, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body that keeps its request's place.
struct Placed {
    body: ResponseBody,
    _place: OwnedSemaphorePermit,
}

impl Body for Placed {
    type Data = Bytes;
    type Error = combo_core::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount;

    #[test]
    fn what_nobody_could_keep_is_named() {
        let target = || mount::redirect("/a");
        for (target, fault) in [
            (target().timeout(Duration::ZERO), "its timeout cannot be nothing"),
            (target().max_in_flight(0), "no request at all may be in flight"),
            (target().rate_limit(0, Duration::from_secs(1)), "its rate limit cannot be 0 requests in 1s"),
            (target().rate_limit(5, Duration::ZERO), "its rate limit cannot be 5 requests in 0ns"),
        ] {
            assert_eq!(target.faults(), [fault]);
        }
        let both = target().timeout(Duration::ZERO).max_in_flight(0).own_threads(0);
        assert_eq!(both.faults().len(), 3);
        let target = target().timeout(Duration::from_secs(1)).max_in_flight(1).body_limit(0);
        assert!(target.rate_limit(1, Duration::from_secs(60)).own_threads(1).faults().is_empty());
    }

    #[test]
    fn a_peer_is_an_address_or_a_network_of_64_bits() {
        for (peer, expected) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(of_one(peer.parse().expect("an address")).to_string(), expected);
        }
    }

    #[test]
    fn peers_do_not_share_what_they_may_ask() {
        let rate = Rate::new(quota(2, Duration::from_secs(3_600)).expect("a quota"));
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert_eq!((rate.check(one), rate.check(one)), (Ok(()), Ok(())));
        let Err(Refusal::TooMany(seconds)) = rate.check(one) else { panic!("a third") };
        assert!((1_700..=1_800).contains(&seconds), "{seconds}");
        assert_eq!(rate.check(other), Ok(()));
    }
}
