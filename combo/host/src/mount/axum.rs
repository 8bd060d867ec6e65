//! A request -> response, by an axum router.
//!
//! Handlers find `OriginalUri`, `ConnectInfo<SocketAddr>` and
//! [`Context`](combo_core::Context) (as an `Extension`) where axum's users expect them.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, OriginalUri},
};
use http::{Request, Response};
use http_body::Body as _;
use tower_service::Service;

use super::{Answering, App, Arrival, Builder, Recipe, Source, Target};
use crate::serve::body::{RequestBody, ResponseBody};

/// An axum 0.8 router, as it would be given to `axum::serve`.
pub fn axum(router: Router) -> Target {
    Target::new("an axum app", Source::App(Box::new(Clones(router))))
}

struct Clones(Router);

impl Recipe for Clones {
    fn builder(&mut self) -> Builder {
        let router = self.0.clone();
        Box::new(move || Box::pin(async move { Ok(Rc::new(Axum(RefCell::new(router))) as Rc<dyn App>) }))
    }
}

/// A router is always ready, and calling it only makes a future, so one instance serves all.
struct Axum(RefCell<Router>);

impl App for Axum {
    fn answer(&self, mut request: Request<RequestBody>, arrival: Arrival) -> Answering {
        arrival.strip(&mut request);
        let Arrival { context, .. } = arrival;
        let extensions = request.extensions_mut();
        if let Some(peer) = context.connection().peer.address() {
            let _ = extensions.insert(ConnectInfo::<SocketAddr>(peer));
        }
        let _ = extensions.insert(OriginalUri(context.original().clone()));
        let _ = extensions.insert(context);
        // An empty body costs nothing in axum's own form.
        let request = request.map(|body| if body.is_end_stream() { Body::empty() } else { Body::new(body) });
        let answering = self.0.borrow_mut().call(request);
        Box::pin(async move {
            let Ok(response) = answering.await;
            let (head, body) = response.into_parts();
            Ok(Response::from_parts(head, ResponseBody::begun(body).await))
        })
    }
}
