//! Routing within the layers around a whole deployment, which may change what is routed.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;

use super::{
    body::RequestBody,
    mounted::{Mounted, Standing},
    proxies::joined,
    refusal::Refusal,
    route::{Found, Routes},
    worker::Shared,
};
use crate::mount::{Answered, Answering, App, Arrival, Later, X_FORWARDED_PREFIX, host};

/// Which mount answered, for the access log: among the extensions of a response.
#[derive(Clone, Copy)]
pub(crate) struct RoutedTo(pub(crate) usize);

struct Routing {
    mounts: Rc<[Mounted]>,
    routes: Arc<Routes>,
    shared: Arc<Shared>,
}

/// All mounts as one app.
pub(crate) fn routing(mounts: Rc<[Mounted]>, routes: Arc<Routes>, shared: Arc<Shared>) -> Rc<dyn App> {
    Rc::new(Routing { mounts, routes, shared })
}

impl App for Routing {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let Some(Found { mount, strip }) = self.routes.find(host(&request), request.uri().path()) else {
            return Answering::Now(Err(Refusal::NoMount.into()));
        };
        self.shared.route(mount, request.method().as_str(), request.uri().path());
        let standing = self.mounts[mount].standing.borrow();
        let Standing { app, telling } = &*standing;
        let mut arrival =
            Arrival::new(&request, arrival.connection, telling, strip, |host| host.parse().ok());
        // Nobody but a trusted proxy can have said this by now.
        let said = request.headers().get(X_FORWARDED_PREFIX).and_then(|said| said.to_str().ok());
        let joined = said.and_then(|said| joined(said, arrival.forwarded));
        arrival.forwarded = joined.as_ref().or(arrival.forwarded);
        match app.answer(request, arrival, cx) {
            Answering::Now(answered) => Answering::Now(routed(answered, mount)),
            Answering::Later(later) => Answering::Later(Box::pin(Routed { later, mount })),
        }
    }
}

fn routed(answered: Answered, mount: usize) -> Answered {
    answered.map(|mut response| {
        let _ = response.extensions_mut().insert(RoutedTo(mount));
        response
    })
}

struct Routed {
    later: Later,
    mount: usize,
}

impl Future for Routed {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let answered = ready!(self.later.as_mut().poll(cx));
        Poll::Ready(routed(answered, self.mount))
    }
}
