//! A request -> response, by an actix-web app.
//!
//! Handlers find the peer's address and the scheme where actix's users expect them
//! (`peer_addr()`, `connection_info()`), and the original URI as `ReqData<actix_web::http::Uri>`.

use std::{fmt, rc::Rc};

use actix_http::{Request, Response, body::MessageBody};
use actix_service::IntoServiceFactory;
use actix_web::{
    Error,
    dev::{AppConfig, Service, ServiceFactory},
};
use combo_actix::ActixService;

use super::{Answering, App, Arrival, Builder, Recipe, Source, Target};
use crate::serve::body::{RequestBody, begun};

/// What `actix_web::HttpServer::new` takes: a closure or a function that makes an `App`. It is
/// called once per worker, on the worker.
pub fn actix<F, I, S, B>(factory: F) -> Target
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let label = format!("an actix app (`{}`)", std::any::type_name::<F>());
    let builder = move || -> Builder {
        let factory = factory.clone();
        Box::new(move || {
            Box::pin(async move { Ok(Rc::new(Actix(ActixService::new(factory).await?)) as Rc<dyn App>) })
        })
    };
    Target::new(label, Source::App(Box::new(Calls(builder))))
}

struct Calls<F>(F);

impl<F: Fn() -> Builder + Send> Recipe for Calls<F> {
    fn builder(&mut self) -> Builder {
        (self.0)()
    }
}

struct Actix(ActixService);

impl App for Actix {
    fn answer(&self, mut request: http::Request<RequestBody>, mut arrival: Arrival<'_>) -> Answering {
        let Arrival { connection, strip, context, .. } = arrival;
        if let Some(absolute) = &arrival.absolute {
            // Over TLS it names scheme and host, which is how actix finds out.
            *request.uri_mut() = absolute.clone();
        }
        if context {
            // The prefix is taken off on actix's side of the fence.
            let whole = request.uri().clone();
            let _ = arrival.strip(&mut request);
            *request.uri_mut() = whole;
        }
        let peer = connection.peer.address();
        let known = combo_actix::Arrival { peer, strip, ..combo_actix::Arrival::default() };
        let answering = self.0.call_with(request, known);
        Box::pin(async move {
            let (head, body) = answering.await.into_parts();
            Ok(http::Response::from_parts(head, begun(body).await))
        })
    }
}
