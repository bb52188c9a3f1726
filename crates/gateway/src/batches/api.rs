//! The endpoints for files and batches, on the clients' side.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use pointsman_settings::batches::BatchesConfig;
use pointsman_wire::openai::error::ErrorBody;
use serde_json::{Value, json};

use super::files::{self, FileBody};
use super::objects;
use super::params;
use super::rows::{self, BatchRow, Creation, Deletion, FileRow, NewBatch};
use super::store::StoreError;
use super::upload::{self, UploadRules};
use super::{Batches, rows::Page};
use crate::exchange::RouterBody;
use crate::http::auth::ClientKey;
use crate::http::body::{self, BodyRules};
use crate::http::respond;
use crate::http::route::printable;
use crate::http::server::Worker;
use crate::snapshot::Snapshot;

/// Entries of a page of files: usually, and at most.
const FILES: (u32, u32) = (1_000, 10_000);
/// The same for batches.
const BATCHES: (u32, u32) = (20, 100);
/// Bytes of the body of a new batch.
const BODY_BYTES_MAX: u64 = 64 * 1024;

/// What of the files and batches a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// All files.
    Files,
    /// One file.
    File(String),
    /// What is in it.
    Content(String),
    /// All batches.
    Batches,
    /// One batch.
    Batch(String),
    /// Its end.
    Cancel(String),
}

impl Place {
    /// What a path names, if it is one of these.
    pub fn of(path: &str) -> Option<Self> {
        let id = |id: &str| (!id.is_empty()).then(|| id.to_owned());
        let mut parts = path.strip_prefix("/v1/")?.split('/');
        let place = match (parts.next()?, parts.next(), parts.next()) {
            ("files", None, None) => Self::Files,
            ("files", Some(file), None) => Self::File(id(file)?),
            ("files", Some(file), Some("content")) => Self::Content(id(file)?),
            ("batches", None, None) => Self::Batches,
            ("batches", Some(batch), None) => Self::Batch(id(batch)?),
            ("batches", Some(batch), Some("cancel")) => Self::Cancel(id(batch)?),
            _ => return None,
        };
        parts.next().is_none().then_some(place)
    }

    /// The name in records.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Files | Self::File(_) | Self::Content(_) => "files",
            Self::Batches | Self::Batch(_) | Self::Cancel(_) => "batches",
        }
    }

    /// The methods it takes.
    pub const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Files | Self::Batches => &[Method::GET, Method::POST],
            Self::File(_) => &[Method::GET, Method::DELETE],
            Self::Content(_) | Self::Batch(_) => &[Method::GET],
            Self::Cancel(_) => &[Method::POST],
        }
    }
}

/// One request for files or batches.
pub struct Asked<'a> {
    /// The configuration in force.
    pub snapshot: &'a Snapshot,
    /// Who asks.
    pub client: &'a ClientKey,
    /// What for.
    pub place: Place,
    /// Its head.
    pub head: &'a Parts,
}

/// Answers a request for files or batches.
///
/// # Errors
/// What the client is told.
pub async fn serve(
    worker: &Rc<Worker>,
    asked: Asked<'_>,
    body: Incoming,
) -> Result<Response<RouterBody>, ErrorBody> {
    let call = Call::new(worker, asked)?;
    let post = call.asked.head.method == Method::POST;
    let answer = match call.asked.place.clone() {
        Place::Files if post => call.upload(body).await?,
        Place::Files => call.files().await?,
        Place::File(id) if call.asked.head.method == Method::DELETE => call.delete(id).await?,
        Place::File(id) => objects::file(&call.file(id).await?),
        Place::Content(id) => return call.content(id).await,
        Place::Batches if post => call.create(body).await?,
        Place::Batches => call.list().await?,
        Place::Batch(id) => objects::batch(&call.batch(id).await?),
        Place::Cancel(id) => call.cancel(id, body).await?,
    };
    Ok(respond::json(StatusCode::OK, answer.to_string().into()))
}

/// A request with what it needs.
struct Call<'a> {
    worker: &'a Rc<Worker>,
    batches: Arc<Batches>,
    config: &'a BatchesConfig,
    asked: Asked<'a>,
}

impl From<StoreError> for Told {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store of batches failed");
        Self(unreachable_now())
    }
}

fn unreachable_now() -> ErrorBody {
    let text = "files and batches cannot be reached at the moment; the gateway's log says why";
    ErrorBody::router(503, "server_error", "storage_unavailable", text)
}

/// An error on its way to the client.
struct Told(ErrorBody);

impl From<Told> for ErrorBody {
    fn from(told: Told) -> Self {
        told.0
    }
}

impl<'a> Call<'a> {
    fn new(worker: &'a Rc<Worker>, asked: Asked<'a>) -> Result<Self, ErrorBody> {
        let off = |text: &str| ErrorBody::router(501, "server_error", "batches_not_configured", text);
        let Some(config) = &asked.snapshot.config.batches else {
            return Err(off(
                "this gateway keeps no files and batches; its operator can set `batches.directory`",
            ));
        };
        let Some(batches) = worker.app.batches.get() else {
            if worker.app.batches_trouble.get().is_some() {
                return Err(unreachable_now());
            }
            return Err(off(
                "`batches.directory` was set after this gateway started; it holds from the next start",
            ));
        };
        Ok(Self { worker, batches: Arc::clone(batches), config, asked })
    }

    fn tenant(&self) -> String {
        self.asked.client.tenant.to_string()
    }

    fn id(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.worker.next_id())
    }

    async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        self.batches.store.call(work).await.map_err(|error| Told::from(error).into())
    }

    fn page(&self, (usual, most): (u32, u32)) -> Result<Page, ErrorBody> {
        params::page(self.asked.head.uri.query(), usual, most)
    }

    async fn upload(&self, body: Incoming) -> Result<Value, ErrorBody> {
        let Some(_uploading) = self.batches.begin_upload() else {
            return Err(ErrorBody::overloaded("too many files are being uploaded; try again shortly"));
        };
        let (tenant, limits) = (self.tenant(), self.config.clone());
        let full = self.store(move |db| no_room(db, &tenant, 0, &limits)).await?;
        full.map_or(Ok(()), |text| Err(no_room_for(&text)))?;
        let id = self.id("file-");
        let path = self.batches.path_of(&id);
        let kind = self.asked.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let rules = UploadRules {
            file_bytes_max: self.config.file_bytes_max,
            bytes_per_s_min: self.asked.snapshot.config.limits.body_min_bytes_per_s,
        };
        let mut whole = Unkept(Some(path.clone()));
        let (uploaded, file) = upload::receive(kind, body, rules, &path).await?;
        let place = path.clone();
        let placed = tokio::task::spawn_blocking(move || files::put_in_place(&file, &place)).await;
        placed.map_err(std::io::Error::other).flatten().map_err(|error| upload::cannot_write(&error))?;
        let now_s = self.batches.now_s();
        let row = FileRow {
            id,
            tenant: self.tenant(),
            filename: uploaded.filename,
            purpose: "batch".to_owned(),
            bytes: uploaded.bytes.cast_signed(),
            created_at: now_s,
            expires_at: now_s + uploaded.keep_s.unwrap_or(self.config.keep_hours.cast_signed() * 3600),
        };
        let object = objects::file(&row);
        // Once asked for, the row comes even if the client leaves, and then the file must stay.
        whole.0 = None;
        let limits = self.config.clone();
        let kept = self.store(move |db| match no_room(db, &row.tenant, uploaded.bytes, &limits)? {
            Some(full) => Ok(Some(full)),
            None => row.add(db).map(|()| None),
        });
        let refused = match kept.await {
            Ok(None) => return Ok(object),
            Ok(Some(full)) => no_room_for(&full),
            Err(error) => error,
        };
        whole.0 = Some(path);
        Err(refused)
    }

    async fn files(&self) -> Result<Value, ErrorBody> {
        let (tenant, page, now_s) = (self.tenant(), self.page(FILES)?, self.batches.now_s());
        let listed = self.store(move |db| rows::files(db, &tenant, &page, now_s)).await?;
        let (found, more) = listed.ok_or_else(|| unknown_after("file"))?;
        Ok(objects::list(&found.iter().map(objects::file).collect::<Vec<_>>(), more))
    }

    async fn file(&self, id: String) -> Result<FileRow, ErrorBody> {
        let (tenant, now_s, asked) = (self.tenant(), self.batches.now_s(), id.clone());
        let found = self.store(move |db| FileRow::find(db, &tenant, &asked, now_s)).await?;
        found.ok_or_else(|| no_such("File", &id, "file_id"))
    }

    async fn content(&self, id: String) -> Result<Response<RouterBody>, ErrorBody> {
        let row = self.file(id).await?;
        let file = tokio::fs::File::open(self.batches.path_of(&row.id)).await.map_err(|error| {
            tracing::error!(file = row.id, %error, "a file that should be there cannot be read");
            let text = "the file cannot be read at the moment; the gateway's log says why";
            ErrorBody::router(503, "server_error", "storage_unavailable", text)
        })?;
        let mut response =
            Response::new(RouterBody::File(Box::new(FileBody::new(file, row.bytes.cast_unsigned()))));
        let kind = HeaderValue::from_static("application/octet-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    async fn delete(&self, id: String) -> Result<Value, ErrorBody> {
        let (tenant, asked) = (self.tenant(), id.clone());
        match self.store(move |db| rows::delete_file(db, &tenant, &asked)).await? {
            Deletion::Done => {
                let path = self.batches.path_of(&id);
                let _ = tokio::task::spawn_blocking(move || files::remove(&path)).await;
                Ok(json!({"id": id, "object": "file", "deleted": true}))
            }
            Deletion::NotThere => Err(no_such("File", &id, "file_id")),
            Deletion::InUse(batch) => {
                let text =
                    format!("the file is the input of batch `{batch}`, which is not over; cancel it first");
                Err(ErrorBody::router(409, "invalid_request_error", "file_in_use", text)
                    .with_param("file_id"))
            }
        }
    }

    async fn read(&self, body: Incoming) -> Result<bytes::Bytes, ErrorBody> {
        let limits = &self.asked.snapshot.config.limits;
        let rules = BodyRules {
            bytes_max: BODY_BYTES_MAX,
            time_max: Duration::from_millis(limits.body_read_ms),
            bytes_per_s_min: limits.body_min_bytes_per_s,
        };
        body::read(body, rules).await
    }

    async fn create(&self, body: Incoming) -> Result<Value, ErrorBody> {
        let wanted = params::new_batch(&self.read(body).await?)?;
        let new = NewBatch {
            id: self.id("batch_"),
            tenant: self.tenant(),
            key: self.asked.client.name.as_deref().map(str::to_owned),
            endpoint: wanted.endpoint.path().to_owned(),
            input_file_id: wanted.input_file_id.clone(),
            metadata: wanted.metadata,
            output_keep_s: wanted.output_keep_s,
        };
        let (most, now_s) = (self.config.batches_max_per_tenant, self.batches.now_s());
        let created = self.store(move |db| rows::create(db, &new, most, now_s)).await?;
        match created {
            Creation::Done(batch) => {
                self.batches.changed.notify_one();
                Ok(objects::batch(&batch))
            }
            Creation::NoFile => Err(no_such("File", &wanted.input_file_id, "input_file_id")),
            Creation::OtherPurpose(purpose) => {
                let text = format!("the file's purpose is `{purpose}`; upload one with purpose `batch`");
                Err(params::wrong("input_file_id", "invalid_file_purpose", text))
            }
            Creation::TooMany(count) => {
                let text =
                    format!("{count} batches are not over, and {most} may be; wait for some, or cancel them");
                Err(ErrorBody::router(429, "insufficient_quota", "batch_limit_exceeded", text))
            }
        }
    }

    async fn list(&self) -> Result<Value, ErrorBody> {
        let (tenant, page) = (self.tenant(), self.page(BATCHES)?);
        let listed = self.store(move |db| rows::batches(db, Some(&tenant), &page)).await?;
        let (found, more) = listed.ok_or_else(|| unknown_after("batch"))?;
        Ok(objects::list(&found.iter().map(objects::batch).collect::<Vec<_>>(), more))
    }

    async fn batch(&self, id: String) -> Result<BatchRow, ErrorBody> {
        let (tenant, asked) = (self.tenant(), id.clone());
        let found = self.store(move |db| BatchRow::find(db, Some(&tenant), &asked)).await?;
        found.ok_or_else(|| no_such("Batch", &id, "batch_id"))
    }

    async fn cancel(&self, id: String, body: Incoming) -> Result<Value, ErrorBody> {
        // Clients send an empty object, or nothing.
        self.read(body).await?;
        let (tenant, asked, now_s) = (self.tenant(), id.clone(), self.batches.now_s());
        let found = self.store(move |db| rows::cancel(db, Some(&tenant), &asked, now_s)).await?;
        let batch = found.ok_or_else(|| no_such("Batch", &id, "batch_id"))?;
        if batch.cancelling_at.is_none() {
            let text = format!("a batch with status `{}` cannot be cancelled", batch.status.name());
            return Err(ErrorBody::router(409, "invalid_request_error", "batch_not_cancellable", text)
                .with_param("batch_id"));
        }
        self.batches.changed.notify_one();
        Ok(objects::batch(&batch))
    }
}

/// Why a tenant may not have one more file of so many bytes, if it may not.
fn no_room(
    db: &rusqlite::Connection,
    tenant: &str,
    bytes: u64,
    limits: &BatchesConfig,
) -> rusqlite::Result<Option<String>> {
    let (count, stored) = rows::stored(db, tenant)?;
    let (files_max, bytes_max) = (limits.files_max_per_tenant, limits.bytes_max_per_tenant);
    Ok(if count >= u64::from(files_max) {
        Some(format!("there are {count} files, and {files_max} may be kept"))
    } else if stored.saturating_add(bytes) > bytes_max {
        Some(format!("the files have {stored} bytes, and {bytes_max} may be kept"))
    } else {
        None
    })
}

fn no_room_for(text: &str) -> ErrorBody {
    let text = format!("{text}; delete some that are not needed any more");
    ErrorBody::router(429, "insufficient_quota", "storage_quota_exceeded", text).with_param("file")
}

/// A file that no row knows yet: taken from the disk if that does not come, on whatever way the upload ends.
struct Unkept(Option<std::path::PathBuf>);

impl Drop for Unkept {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        // Clients that leave must not make this thread wait for the disk.
        tokio::task::spawn_blocking(move || files::remove(&path));
    }
}

fn no_such(kind: &str, id: &str, param: &str) -> ErrorBody {
    let text = format!("No such {kind} object: {}", printable(id));
    ErrorBody::router(404, "invalid_request_error", "not_found", text).with_param(param)
}

fn unknown_after(kind: &str) -> ErrorBody {
    params::wrong("after", "invalid_value", format!("`after` must be the id of a {kind} of yours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_their_paths() {
        let some = |id: &str| id.to_owned();
        for (path, place) in [
            ("/v1/files", Some(Place::Files)),
            ("/v1/files/file-1", Some(Place::File(some("file-1")))),
            ("/v1/files/file-1/content", Some(Place::Content(some("file-1")))),
            ("/v1/batches", Some(Place::Batches)),
            ("/v1/batches/b", Some(Place::Batch(some("b")))),
            ("/v1/batches/b/cancel", Some(Place::Cancel(some("b")))),
            ("/v1/files/", None),
            ("/v1/files/a/b", None),
            ("/v1/batches/b/cancel/now", None),
            ("/v1/models", None),
            ("/files", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }
}
