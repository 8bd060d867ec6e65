//! A request -> response, by an axum router.
//!
//! Handlers find `OriginalUri`, `ConnectInfo<SocketAddr>` and
//! [`Context`](combo_core::Context) (as an `Extension`) where axum's users expect them.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use axum::{
    Router,
    extract::{ConnectInfo, OriginalUri},
};
use http::Request;
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
        arrival.tell_prefix(&mut request);
        let context = arrival.context();
        let extensions = request.extensions_mut();
        if let Some(peer) = arrival.connection.peer.address() {
            let _ = extensions.insert(ConnectInfo::<SocketAddr>(peer));
        }
        let _ = extensions.insert(context);
        let _ = extensions.insert(OriginalUri(arrival.original));
        let answering = self.0.borrow_mut().call(request);
        Box::pin(async move {
            match answering.await {
                Ok(response) => Ok(response.map(ResponseBody::new)),
                Err(never) => match never {},
            }
        })
    }
}
