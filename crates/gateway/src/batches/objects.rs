//! Files and batches as OpenAI's clients read them.

use serde_json::{Value, json};

use super::rows::{BatchRow, FileRow, WINDOW_S};

/// A file.
pub fn file(file: &FileRow) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": null,
    })
}

/// A batch.
pub fn batch(batch: &BatchRow) -> Value {
    let (input, cached, output) = batch.tokens;
    json!({
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": batch.errors,
        "input_file_id": batch.input_file_id,
        "completion_window": format!("{}h", WINDOW_S / 3600),
        "status": batch.status.name(),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "created_at": batch.created_at,
        "in_progress_at": batch.in_progress_at,
        "expires_at": batch.expires_at,
        "finalizing_at": batch.finalizing_at,
        "completed_at": batch.completed_at,
        "failed_at": batch.failed_at,
        "expired_at": batch.expired_at,
        "cancelling_at": batch.cancelling_at,
        "cancelled_at": batch.cancelled_at,
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": {
            "input_tokens": input,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            // Who answers tells of reasoning in the answers, not in sums.
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + output,
        },
        "metadata": batch.metadata,
    })
}

/// A page of a list.
pub fn list(data: &[Value], has_more: bool) -> Value {
    let id = |one: Option<&Value>| one.map_or(Value::Null, |one| one["id"].clone());
    json!({
        "object": "list",
        "first_id": id(data.first()),
        "last_id": id(data.last()),
        "data": data,
        "has_more": has_more,
    })
}
