//! A shadow's copy of a request: an exchange of its own whose answer is read and dropped. It begins once the original was
//! decided, on a task that nothing waits for, and nothing of it comes back to the original.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderValue;
use http_body::Body;
use pointsman_routing::Facts;
use pointsman_routing::facts::Lane;
use pointsman_routing::mirror::is_mirrored;
use pointsman_wire::openai::request::Request;
use pointsman_wire::openai::rules;
use tokio::task::spawn_local;

use super::{Arrival, Exchange};
use crate::app::App;
use crate::clock;
use crate::http::fallback::Fallbacks;
use crate::http::guard::Guard;
use crate::http::prepare::Prepared;
use crate::http::respond::SERVED_BY;

/// Counts a copy while it is under way.
struct Copy(Arc<App>);

impl Copy {
    /// `None` if as many are under way as may be.
    fn begin(app: &Arc<App>, copies_max: u64) -> Option<Self> {
        let room = |count| (count < copies_max).then_some(count + 1);
        app.mirrors.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Self(Arc::clone(app)))
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.mirrors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Begins a copy of the request if its model is mirrored, it is one of the share, and this is its first attempt.
pub(super) fn consider(original: &Exchange, request: &Request, body: &Bytes) {
    let Some(spec) = &original.model.mirror else { return };
    let first = original.flow.attempts().len() == 1;
    if !first || original.arrival.mirror_of.is_some() || !is_mirrored(spec, original.arrival.id.0 as u64) {
        return;
    }
    let app = &original.worker.app;
    if let Err(why) = start(original, &spec.to, request, body) {
        app.metrics.mirrored(&original.model.name, why);
    }
}

fn start(original: &Exchange, to: &str, request: &Request, body: &Bytes) -> Result<(), &'static str> {
    let (worker, snapshot, arrival) = (&original.worker, &original.snapshot, &original.arrival);
    if worker.app.is_draining() {
        return Err("stopping");
    }
    let model = snapshot.models.get(to).ok_or("not_allowed")?;
    rules::validate(request, &model.rules).map_err(|_| "not_allowed")?;
    let copy = Copy::begin(&worker.app, snapshot.config.limits.mirrors_max).ok_or("over_limit")?;
    let at = clock::now();
    let facts = Facts {
        model: model.id,
        // Versions and the client's patience are about the original. Tags hold for the copy too: they may say where a
        // prompt may go at all.
        version: None,
        deadline: None,
        lane: Lane::Batch,
        ..original.flow.facts().clone()
    };
    let arrival = Box::new(Arrival {
        id: worker.next_id(),
        at,
        at_unix_ms: clock::unix_ms(),
        dialect: arrival.dialect,
        asked: arrival.asked.clone(),
        client: Arc::clone(&arrival.client),
        keyed: false,
        mirror_of: Some(arrival.id),
        line: None,
        passed: arrival.passed.clone(),
        trace: arrival.trace.clone(),
    });
    let prepared = Prepared {
        request: Box::new(request.clone()),
        model: Arc::clone(model),
        facts,
        fallbacks: Fallbacks::default(),
        // Nobody gets its answer.
        schema: None,
    };
    let exchange =
        Exchange::new(Rc::clone(worker), Arc::clone(snapshot), arrival, prepared, body.clone(), at);
    let (worker, model) = (Rc::clone(worker), Arc::clone(&original.model));
    spawn_local(async move {
        let app = &worker.app;
        let result = match Guard::new(pin!(worker.attend(carry(exchange)))).await {
            Some(result) => result,
            None => {
                app.metrics.panics.inc();
                "failed"
            }
        };
        app.metrics.mirrored(&model.name, result);
        drop(copy);
    });
    Ok(())
}

/// Reads the answer to its end, and drops it.
async fn carry(exchange: Box<Exchange>) -> &'static str {
    let (head, mut body) = exchange.run().await.into_parts();
    if !head.status.is_success() {
        let refused = head.headers.get(SERVED_BY) == Some(&HeaderValue::from_static("router"));
        return if refused { "refused" } else { "failed" };
    }
    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
    if body.is_complete() { "completed" } else { "failed" }
}
