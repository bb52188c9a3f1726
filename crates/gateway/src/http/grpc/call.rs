//! Calls that the router answers by itself.

use bytes::Bytes;
use pointsman_wire::kserve::answer::{self, NAME};
use pointsman_wire::kserve::grpc::{
    self, Flag, Index, IndexRequest, IndexedModel, Method, ModelMetadata, ModelRequest, ServerMetadata,
    TensorMetadata, decode, frame,
};
use pointsman_wire::kserve::rules::TensorSpec;
use pointsman_wire::openai::error::ErrorBody;

use crate::app::App;
use crate::http::auth::ClientKey;
use crate::http::kserve::{Wanted, find, indexed, is_ready, versions};
use crate::snapshot::Snapshot;

/// The name of a method in records.
pub(super) const fn operation(method: Method) -> &'static str {
    match method {
        Method::ServerLive | Method::ServerReady => "health",
        Method::ServerMetadata => "server",
        Method::ModelReady | Method::ModelMetadata | Method::RepositoryIndex => "models",
        Method::ModelInfer => "infer",
    }
}

/// Answers what the router knows itself: a message in its frame.
pub(super) fn tell(
    app: &App,
    snapshot: &Snapshot,
    client: &ClientKey,
    method: Method,
    body: &Bytes,
) -> Result<Bytes, ErrorBody> {
    let message = grpc::unframe(body)?;
    match method {
        Method::ServerLive => Ok(frame(&Flag { is: true })),
        Method::ServerReady => Ok(frame(&Flag { is: !app.is_draining() })),
        Method::ServerMetadata => Ok(frame(&ServerMetadata {
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: answer::EXTENSIONS.map(str::to_owned).to_vec(),
        })),
        Method::ModelReady => {
            let wanted = wanted(message)?;
            let model = find(snapshot, client, &wanted)?;
            Ok(frame(&Flag { is: is_ready(app, &model, wanted.version.as_deref()) }))
        }
        Method::ModelMetadata => {
            let wanted = wanted(message)?;
            let model = find(snapshot, client, &wanted)?;
            let all = || versions(snapshot, &model).into_iter().map(str::to_owned).collect();
            let signature = &model.rules.signature;
            Ok(frame(&ModelMetadata {
                name: model.name.to_string(),
                versions: wanted.version.map_or_else(all, |version| vec![version]),
                platform: NAME.to_owned(),
                inputs: signature.inputs.iter().map(tensor).collect(),
                outputs: signature.outputs.iter().map(tensor).collect(),
            }))
        }
        Method::RepositoryIndex => {
            let asked: IndexRequest = decode(message)?;
            let models = indexed(app, snapshot, client, asked.ready);
            let models = models.iter().map(|model| IndexedModel {
                name: model.name.clone(),
                version: model.version.clone().unwrap_or_default(),
                state: model.state().to_owned(),
                reason: model.why_not.unwrap_or_default().to_owned(),
            });
            Ok(frame(&Index { models: models.collect() }))
        }
        // Goes the way of all requests that are sent on.
        Method::ModelInfer => Err(ErrorBody::internal("an inference request lost its way")),
    }
}

fn wanted(message: Bytes) -> Result<Wanted, ErrorBody> {
    let asked: ModelRequest = decode(message)?;
    Ok(Wanted { model: asked.name, version: Some(asked.version).filter(|version| !version.is_empty()) })
}

fn tensor(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.clone(),
    }
}
