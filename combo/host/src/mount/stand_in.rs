//! What answers instead of a mount's own app: a page for maintenance, a gate to wait at.

use std::{rc::Rc, sync::Arc, task::Context};

use bytes::Bytes;
use http::{HeaderValue, Request, header::CONTENT_TYPE};
use tokio::sync::{Semaphore, watch};

use super::{Answering, App, Arrival, Passage};
use crate::serve::{
    body::{RequestBody, ResponseBody},
    mounted::{Standing, Telling},
    proxies::joined,
    refusal::Refusal,
};

/// Answers with a page; with a sentence if it is empty.
pub(crate) fn maintained(page: Bytes) -> Rc<dyn App> {
    Rc::new(Maintained(page))
}

/// Has requests wait until the gate is opened, as many as there is room for.
pub(crate) fn paused(room: Arc<Semaphore>) -> (Rc<dyn App>, Gate) {
    let (gate, opened) = watch::channel(None);
    (Rc::new(Paused { opened, room }), Gate(gate))
}

struct Maintained(Bytes);

impl App for Maintained {
    fn answer(&self, _: Request<RequestBody>, _: Arrival<'_>, _: &mut Context<'_>) -> Answering {
        let mut response = Refusal::Maintained.response();
        if !self.0.is_empty() {
            let html = self.0.trim_ascii_start().starts_with(b"<");
            let kind = if html { "text/html; charset=utf-8" } else { "text/plain; charset=utf-8" };
            let _ = response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            *response.body_mut() = ResponseBody::whole(self.0.clone());
        }
        Answering::Now(Ok(response))
    }
}

/// Where requests wait for whatever will answer them. If it is dropped, nothing will.
pub(crate) struct Gate(watch::Sender<Option<Standing>>);

impl Gate {
    pub(crate) fn open(self, standing: Standing) {
        let _ = self.0.send_replace(Some(standing));
    }
}

struct Paused {
    opened: watch::Receiver<Option<Standing>>,
    room: Arc<Semaphore>,
}

impl App for Paused {
    fn answer(&self, request: Request<RequestBody>, arrival: Arrival<'_>, cx: &mut Context<'_>) -> Answering {
        let Ok(place) = self.room.clone().try_acquire_owned() else {
            return Answering::Now(Err(Refusal::Busy.into()));
        };
        let (passage, mut opened) = (arrival.kept(), self.opened.clone());
        let waiting = async move {
            let standing = opened.wait_for(Option::is_some).await.ok().and_then(|opened| opened.clone());
            drop(place);
            let Some(Standing { app, telling }) = standing else { return Err(Refusal::Stopping.into()) };
            passage.onward(&telling).ask(&*app, request).await
        };
        Answering::boxed(Box::pin(waiting), cx)
    }
}

impl Passage {
    /// The rest of a way that was begun when nobody knew what is at its end. What is forwarded so far is
    /// what a trusted proxy said.
    fn onward(mut self, telling: &Telling) -> Self {
        let Telling { site, strips, forwarded, context } = telling;
        let before = self.forwarded.take();
        let before = before.as_ref().and_then(|before| before.to_str().ok());
        self.forwarded =
            before.and_then(|before| joined(before, forwarded.as_ref())).or_else(|| forwarded.clone());
        self.strip = if *strips { self.strip } else { 0 };
        (self.site, self.context) = (site.clone(), context.clone());
        self
    }
}
