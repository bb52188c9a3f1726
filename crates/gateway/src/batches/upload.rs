//! Files as clients send them: `multipart/form-data`, written to disk as it comes and never held whole.

use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyDataStream;
use hyper::body::Incoming;
use multer::{Constraints, Field, Multipart, SizeLimit};
use pointsman_wire::openai::error::ErrorBody;

use super::files;
use super::params::{seconds, wrong};
use crate::http::body::{BodyRules, Watch};
use crate::http::route::printable;

/// Bytes of the fields beside the file.
const FIELD_BYTES_MAX: u64 = 1024;
/// Bytes of boundaries and of the fields' heads, beside the file.
const AROUND_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that may have come and not be written: heads of fields, and what one read takes in.
const AHEAD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Fields of one upload.
const FIELDS_MAX: usize = 16;
/// Characters of a file's name that are kept.
const NAME_CHARS_MAX: usize = 255;
/// The longest that an upload may take, however steadily it comes.
const TIME_MAX: Duration = Duration::from_hours(1);

/// A file as it was sent.
#[derive(Debug)]
pub struct Uploaded {
    /// What the client calls it.
    pub filename: String,
    /// Its bytes.
    pub bytes: u64,
    /// How long it is to be kept, if the client says.
    pub keep_s: Option<i64>,
}

/// What an upload must keep to.
#[derive(Debug, Clone, Copy)]
pub struct UploadRules {
    /// Bytes of the file.
    pub file_bytes_max: u64,
    /// Bytes a second that it must come with.
    pub bytes_per_s_min: u64,
}

/// Why a body could not be read further, as the client is told.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
struct Broken(ErrorBody);

/// A body that must keep coming.
struct Watched {
    body: Incoming,
    watch: Watch,
    received: u64,
    /// Bytes of them that are written.
    written: Arc<AtomicU64>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let Self { body, watch, received, written } = &mut *self;
        let frame = std::task::ready!(watch.poll(cx, *received, Pin::new(body)));
        if let Ok(Some(data)) = frame.as_ref().map(|frame| frame.as_ref().and_then(Frame::data_ref)) {
            *received += data.len() as u64;
            if received.saturating_sub(written.load(Ordering::Relaxed)) > AHEAD_BYTES_MAX {
                let error = ErrorBody::malformed("the head of a field does not end");
                return Poll::Ready(Some(Err(Broken(error))));
            }
        }
        Poll::Ready(frame.map_err(Broken).transpose())
    }
}

/// What has been read of the fields.
#[derive(Default)]
struct Fields {
    file: Option<(String, u64)>,
    purpose: Option<String>,
    anchor: Option<String>,
    seconds: Option<String>,
}

/// Writes the file of an upload where `path` says, without putting it in place.
///
/// # Errors
/// What the client is told. What was written is then gone.
pub async fn receive(
    content_type: Option<&str>,
    body: Incoming,
    rules: UploadRules,
    path: &Path,
) -> Result<(Uploaded, std::fs::File), ErrorBody> {
    let boundary = content_type.and_then(|kind| multer::parse_boundary(kind).ok()).ok_or_else(|| {
        let text = "a file is sent as multipart/form-data, with the fields `file` and `purpose`";
        ErrorBody::router(415, "invalid_request_error", "unsupported_media_type", text)
    })?;
    let whole = rules.file_bytes_max + AROUND_BYTES_MAX;
    if body.size_hint().lower() > whole {
        return Err(too_big(rules.file_bytes_max));
    }
    let paced = BodyRules { bytes_max: whole, time_max: TIME_MAX, bytes_per_s_min: rules.bytes_per_s_min };
    let written = Arc::new(AtomicU64::new(0));
    let watched = Watched { body, watch: Watch::new(paced), received: 0, written: Arc::clone(&written) };
    let limits = SizeLimit::new().whole_stream(whole).per_field(FIELD_BYTES_MAX);
    let limits = limits.for_field("file", rules.file_bytes_max);
    let form = Multipart::with_constraints(
        BodyDataStream::new(watched),
        boundary,
        Constraints::new().size_limit(limits),
    );
    let file = files::create(path).map_err(|error| cannot_write(&error))?;
    let received = gather(form, &file, &written, rules.file_bytes_max).await.and_then(Fields::check);
    match received {
        Ok(uploaded) => Ok((uploaded, file)),
        Err(error) => {
            files::remove(path);
            Err(error)
        }
    }
}

async fn gather(
    mut form: Multipart<'_>,
    file: &std::fs::File,
    written: &AtomicU64,
    file_bytes_max: u64,
) -> Result<Fields, ErrorBody> {
    let mut fields = Fields::default();
    let told = |error: multer::Error| told(error, file_bytes_max);
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(told)? {
        count += 1;
        if count > FIELDS_MAX {
            return Err(ErrorBody::malformed(format!("an upload has {FIELDS_MAX} fields at most")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let slot = match name.as_str() {
            "file" if fields.file.is_some() => {
                return Err(wrong("file", "invalid_value", "`file` is there twice; send one file at a time"));
            }
            "file" => {
                let filename = field.file_name().unwrap_or("file").chars().take(NAME_CHARS_MAX).collect();
                fields.file = Some((filename, write(field, file, written, file_bytes_max).await?));
                continue;
            }
            "purpose" => &mut fields.purpose,
            "expires_after[anchor]" => &mut fields.anchor,
            "expires_after[seconds]" => &mut fields.seconds,
            // Clients send what newer versions of the API know.
            _ => {
                field.bytes().await.map_err(told)?;
                continue;
            }
        };
        *slot = Some(field.text().await.map_err(told)?);
    }
    Ok(fields)
}

/// Writes the pieces as they come, on threads that may wait for the disk.
async fn write(
    mut field: Field<'_>,
    file: &std::fs::File,
    so_far: &AtomicU64,
    file_bytes_max: u64,
) -> Result<u64, ErrorBody> {
    let mut bytes = 0;
    while let Some(piece) = field.chunk().await.map_err(|error| told(error, file_bytes_max))? {
        bytes += piece.len() as u64;
        so_far.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let mut file = file.try_clone().map_err(|error| cannot_write(&error))?;
        let written = tokio::task::spawn_blocking(move || file.write_all(&piece)).await;
        written.map_err(io::Error::other).flatten().map_err(|error| cannot_write(&error))?;
    }
    Ok(bytes)
}

impl Fields {
    fn check(self) -> Result<Uploaded, ErrorBody> {
        let missing =
            |name: &str| wrong(name, "missing_required_parameter", format!("the field `{name}` is missing"));
        let (filename, bytes) = self.file.ok_or_else(|| missing("file"))?;
        let purpose = self.purpose.ok_or_else(|| missing("purpose"))?;
        if purpose != "batch" {
            return Err(wrong(
                "purpose",
                "invalid_value",
                "`purpose` must be `batch`: this gateway keeps files for batches only",
            ));
        }
        if bytes == 0 {
            return Err(wrong("file", "empty_file", "the file is empty"));
        }
        let keep_s = match (self.anchor.as_deref(), &self.seconds) {
            (None, None) => None,
            (Some("created_at"), given) => {
                let given = given.as_ref().and_then(|given| given.parse().ok());
                Some(seconds("expires_after[seconds]", given)?)
            }
            (Some(_) | None, _) => {
                let text = "`expires_after[anchor]` must be `created_at`";
                return Err(wrong("expires_after[anchor]", "invalid_value", text));
            }
        };
        Ok(Uploaded { filename, bytes, keep_s })
    }
}

fn too_big(file_bytes_max: u64) -> ErrorBody {
    let text = format!("the file is larger than the {file_bytes_max} bytes that are accepted; split it");
    ErrorBody::router(413, "invalid_request_error", "file_too_large", text).with_param("file")
}

pub(super) fn cannot_write(error: &io::Error) -> ErrorBody {
    tracing::error!(%error, "cannot write an uploaded file");
    let text = "the file cannot be stored at the moment; the gateway's log says why";
    ErrorBody::router(503, "server_error", "storage_unavailable", text)
}

fn told(error: multer::Error, file_bytes_max: u64) -> ErrorBody {
    if let multer::Error::FieldSizeExceeded { field_name: Some(name), .. } = &error
        && name != "file"
    {
        return wrong(name, "invalid_value", format!("the field `{}` is too long", printable(name)));
    }
    if matches!(error, multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. }) {
        return too_big(file_bytes_max);
    }
    if let multer::Error::StreamReadFailed(error) = error {
        return match error.downcast::<Broken>() {
            Ok(broken) => broken.0,
            Err(other) => ErrorBody::malformed(format!("the body could not be read: {other}")),
        };
    }
    ErrorBody::malformed(format!("the body is not the multipart/form-data it says: {error}"))
}
