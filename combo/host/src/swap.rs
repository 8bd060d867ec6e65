//! A target -> an instance of it at a mount on every worker, or on none. The watch never gets here: this
//! runs what apps are built with, on the host runtime.

use std::{panic::AssertUnwindSafe, path::PathBuf, sync::Arc};

use combo_core::{Draining, Pattern};
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::{
    error::{Error, Kind, chain},
    mount::{Builder, Target},
    plan::PlannedMount,
    run::recipe,
    serve::{
        gate::Gate,
        mounted::{Replacement, Tally, Telling},
        worker::{Desk, Message, said},
    },
    step::Caller,
};

/// Where targets are built: the folder that relative paths are under, and the mounts that there are.
pub(crate) struct Ground {
    pub(crate) root: PathBuf,
    /// What jobs write goes here, in a rig.
    pub(crate) layer: Option<PathBuf>,
    pub(crate) patterns: Vec<Pattern>,
    pub(crate) tallies: Vec<Tally>,
    /// Fires when the drain begins.
    pub(crate) draining: Draining,
    /// Who comes in, and for whom no place was.
    pub(crate) gate: Arc<Gate>,
}

/// Puts a target behind a mount, unless it cannot be built or its caller goes away before it is.
pub(crate) async fn swap(
    ground: &Ground,
    mount: usize,
    target: Target,
    desks: &[Desk],
    caller: &mut Caller,
) -> Result<(), String> {
    let built = tokio::select! {
        built = build(ground, mount, target, desks) => built.map_err(|error| chain(&error))?,
        () = caller.gone() => return Err("nobody waits for it any more".into()),
    };
    // From here on it happens on every worker.
    let placing: Vec<_> =
        built.into_iter().filter_map(|(go, done)| go.send(()).ok().map(|()| done)).collect();
    for done in placing {
        // A worker that is gone serves neither.
        let _ = done.await;
    }
    Ok(())
}

/// The end of a worker's work: told to put its instance in place, and heard when it has, or when it has
/// dropped it.
type Built = (oneshot::Sender<()>, oneshot::Receiver<()>);

async fn build(ground: &Ground, mount: usize, target: Target, desks: &[Desk]) -> Result<Vec<Built>, Error> {
    let pattern = ground.patterns[mount].clone();
    let named = pattern.to_string();
    let prepared = AssertUnwindSafe(prepare(ground, mount, PlannedMount { pattern, target }, desks.len()));
    let (builders, telling) = match prepared.catch_unwind().await {
        Ok(prepared) => prepared?,
        Err(panic) => return Err(Kind::Mount { pattern: named, cause: said(&*panic).into() }.into()),
    };
    let mut building = Vec::with_capacity(desks.len());
    for (desk, builder) in desks.iter().zip(builders) {
        let ((ready, readied), (go, going), (done, placed)) =
            (oneshot::channel(), oneshot::channel(), oneshot::channel());
        let replacement = Replacement { builder, telling: telling.clone(), ready, go: going, done };
        desk.tell(Message::Replace(mount, replacement));
        building.push((readied, (go, placed)));
    }
    let (mut built, mut unbuilt) = (Vec::with_capacity(building.len()), None);
    for (readied, end) in building {
        match readied.await.unwrap_or_else(|_| Err("a worker has ended".into())) {
            Ok(()) => built.push(end),
            Err(cause) => unbuilt = unbuilt.or(Some(cause)),
        }
    }
    let Some(cause) = unbuilt else { return Ok(built) };
    // Nothing is left of it when the next swap may begin.
    let (taken_back, ends): (Vec<_>, Vec<_>) = built.into_iter().unzip();
    drop(taken_back);
    for end in ends {
        let _ = end.await;
    }
    Err(Kind::Mount { pattern: named, cause }.into())
}

async fn prepare(
    ground: &Ground,
    mount: usize,
    planned: PlannedMount,
    workers: usize,
) -> Result<(Vec<Builder>, Telling), Error> {
    let (mut recipe, telling) =
        recipe(planned, &ground.root, ground.layer.as_deref(), &ground.tallies[mount], &ground.draining)
            .await?;
    Ok(((0..workers).map(|_| recipe.builder()).collect(), telling))
}
