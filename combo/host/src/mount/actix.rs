//! A request -> response, by an actix-web app.
//!
//! Handlers find the peer's address and the scheme where actix's users expect them
//! (`peer_addr()`, `connection_info()`), and the original URI as `ReqData<actix_web::http::Uri>`.

use std::{
    cell::OnceCell,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use actix_http::{Request, Response, body::MessageBody};
use actix_service::IntoServiceFactory;
use actix_web::{
    Error,
    dev::{AppConfig, Service, ServiceFactory},
    http::header::{HeaderName, HeaderValue},
};
use combo_actix::ActixService;
use combo_core::BoxError;

use super::{Answering, App, Arrival, Builder, Recipe, Source, Target, X_FORWARDED_PREFIX};
use crate::serve::body::{RequestBody, ResponseBody};

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
            Box::pin(async move {
                let service = ActixService::new(factory).await?;
                Ok(Rc::new(Actix { service, prefix: OnceCell::new() }) as Rc<dyn App>)
            })
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

struct Actix {
    service: ActixService,
    /// What `X-Forwarded-Prefix` says, in actix's own version of `http`; the same for most requests.
    prefix: OnceCell<Option<(HeaderName, HeaderValue)>>,
}

impl App for Actix {
    fn answer(
        &self,
        mut request: http::Request<RequestBody>,
        mut arrival: Arrival<'_>,
        cx: &mut Context<'_>,
    ) -> Answering {
        let layered = arrival.original.is_some();
        if let Some(original) = arrival.original.take() {
            // actix takes the prefix off itself, from what a layer may have changed.
            *request.uri_mut() = rejoined(original, arrival.strip, request.uri());
        } else if let Some(absolute) = &arrival.absolute {
            // Over TLS it names scheme and host, which is how actix finds out.
            *request.uri_mut() = absolute.clone();
        }
        if arrival.context.is_some() {
            let original = request.uri().clone();
            arrival.leave_context(&mut request, &original);
        }
        let known = combo_actix::Arrival {
            peer: arrival.connection.peer.address(),
            strip: arrival.strip,
            header: if layered { None } else { self.prefix(arrival.forwarded) },
            ..combo_actix::Arrival::default()
        };
        Answering::of(Answer(self.service.call_with(request, known)), cx)
    }
}

impl Actix {
    fn prefix(&self, forwarded: Option<&http::HeaderValue>) -> Option<(HeaderName, HeaderValue)> {
        let forwarded = forwarded?;
        let translate = || {
            Some((
                HeaderName::from_bytes(X_FORWARDED_PREFIX.as_str().as_bytes()).ok()?,
                HeaderValue::from_bytes(forwarded.as_bytes()).ok()?,
            ))
        };
        let known = self.prefix.get_or_init(translate).clone();
        // A proxy may have put something before it.
        known.filter(|(_, value)| value.as_bytes() == forwarded.as_bytes()).or_else(translate)
    }
}

/// The prefix of one URI before the path and query of another.
fn rejoined(original: http::Uri, strip: usize, rest: &http::Uri) -> http::Uri {
    if strip == 0 && original.path_and_query() == rest.path_and_query() {
        return original;
    }
    let prefix = original.path().get(..strip).unwrap_or_default();
    let rest = rest.path_and_query().map_or("/", |rest| rest.as_str());
    let whole = format!("{prefix}{rest}").parse();
    let mut parts = original.into_parts();
    parts.path_and_query = whole.ok().or(parts.path_and_query);
    http::Uri::from_parts(parts).unwrap_or_default()
}

/// The answer of an app on its way.
struct Answer(combo_actix::Answer);

impl Future for Answer {
    type Output = Result<http::Response<ResponseBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (head, body) = ready!(Pin::new(&mut self.0).poll(cx)).into_parts();
        Poll::Ready(Ok(http::Response::from_parts(head, ResponseBody::begun(body, cx))))
    }
}
