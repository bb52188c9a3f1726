//! What an answer gives out that only its account can go on with: its ids are remembered as they pass.

use std::sync::Arc;

use bytes::Bytes;
use pointsman_routing::catalog::Name;
use pointsman_routing::decision::Choice;
use pointsman_routing::facts::Pin;
use pointsman_wire::dialect::RESPONSES;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::kept_hash;
use pointsman_wire::openai::responses::state::Watch;

use super::{Arrival, Exchange};
use crate::app::App;
use crate::clock;
use crate::http::pins;

/// The code of the error for what nobody can serve but an account that is not there.
const UNAVAILABLE: &str = "issuer_unavailable";

/// Looks for ids in an answer that is relayed as it is.
pub(super) struct Issues {
    app: Arc<App>,
    tenant_hash: u64,
    pin: Pin,
    watch: Watch,
}

impl Exchange {
    /// What watches the answer of an attempt, if it may give something out.
    pub(super) fn issues(&self, choice: &Choice, converts: bool) -> Option<Box<Issues>> {
        let Arrival { dialect, mirror_of, client, .. } = &*self.arrival;
        (*dialect == RESPONSES && !converts && mirror_of.is_none()).then(|| {
            Box::new(Issues {
                app: Arc::clone(&self.worker.app),
                tenant_hash: client.tenant_hash,
                pin: pins::account(choice.deployment, choice.credential),
                watch: Watch::default(),
            })
        })
    }
}

impl Exchange {
    /// The field of the request that names what an account keeps, and a deployment of that account.
    fn pinned_by(&self) -> Option<(String, Name)> {
        let pin = self.flow.facts().pinned?;
        let (request, _) = self.outgoing.as_ref()?;
        let field = request.kept.first()?.field.clone();
        let name = self.worker.app.snapshot.load().names.get(&pin.deployment).cloned();
        Some((field, name.unwrap_or_else(|| "one that was removed".into())))
    }

    /// Says of an error that nobody else could be asked, if that is so.
    pub(super) fn saying_pinned(&self, mut error: ErrorBody) -> ErrorBody {
        if error.code.as_deref() != Some(UNAVAILABLE)
            && let Some((field, name)) = self.pinned_by()
        {
            let text = format!(
                "; `{field}` pins this request to the account of deployment `{name}`, so no other was asked"
            );
            error.message.push_str(&text);
        }
        error
    }

    /// The account that keeps what the request names cannot serve it.
    pub(super) fn error_of_pin(&self) -> ErrorBody {
        let (field, name) = self.pinned_by().unwrap_or_else(|| ("the request".to_owned(), "unknown".into()));
        let text = format!(
            "`{field}` names what only the account of deployment `{name}` keeps, and that account cannot serve this request \
             now or later (see x-pointsman-decision); send what it names itself to be served by others"
        );
        ErrorBody::router(400, "invalid_request_error", UNAVAILABLE, text).with_param(field)
    }
}

impl Issues {
    /// The answer turns out to be a stream.
    pub(super) fn of_stream(&mut self) {
        self.watch = Watch::of_stream();
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, data: &Bytes) {
        let Self { app, tenant_hash, pin, watch } = self;
        watch.push(data, |id| note(app, *tenant_hash, *pin, id));
    }

    /// The answer is there as a whole.
    pub(super) fn finish(mut self) {
        let Self { app, tenant_hash, pin, watch } = &mut self;
        watch.finish(|id| note(app, *tenant_hash, *pin, id));
    }
}

fn note(app: &App, tenant_hash: u64, pin: Pin, id: &str) {
    app.issued().note(tenant_hash, kept_hash(id, tenant_hash), pin, clock::now());
}
