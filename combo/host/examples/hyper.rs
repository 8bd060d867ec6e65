//! A bare service function, as hyper's users write them, and a service of hyper's own trait, mounted:
//! `cargo run -p combo --example hyper`, then `curl localhost:8080/function/x localhost:8080/service/y`.
//!
//! A function is a tower service as it is, by `tower::service_fn`; it only has to take any body, not
//! `hyper::body::Incoming`, which nobody but hyper can make. `hyper_util::service::TowerToHyperService`
//! leads the other way.

use std::{convert::Infallible, future::Future, pin::Pin, process::ExitCode};

use bytes::Bytes;
use combo::{Deployment, RequestBody, mount, mount::Target};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Body, service::Service};

/// Says the path again, and how long the body was.
async fn answer<B: Body<Error: Into<combo::BoxError>>>(
    request: Request<B>,
) -> Result<Response<Full<Bytes>>, combo::BoxError> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map_err(Into::into)?.to_bytes();
    Ok(Response::new(format!("{path}, {} bytes\n", body.len()).into()))
}

/// The function.
pub(crate) fn function() -> Target {
    mount::tower(tower::service_fn(answer::<RequestBody>))
}

/// A service of hyper's trait, which is asked through a shared reference.
#[derive(Clone)]
pub(crate) struct Greeter;

impl<B: Body> Service<Request<B>> for Greeter {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let text = format!("Hello, {}!\n", request.uri().path().trim_start_matches('/'));
        Box::pin(async { Ok(Response::new(text.into())) })
    }
}

/// The service.
pub(crate) fn service() -> Target {
    mount::tower(tower::service_fn(|request: Request<RequestBody>| Greeter.call(request)))
}

fn deployment() -> Deployment {
    Deployment::new("hyper").listen("tcp:8080").mount("/function", function()).mount("/service", service())
}

fn main() -> ExitCode {
    combo::main(deployment)
}
