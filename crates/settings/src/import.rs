//! Configurations of other routers, read and written anew as ours. What has no place here is told with its line, never
//! dropped in silence.

mod litellm;
mod literal;
mod neurolink;
mod node;
mod plan;
mod stand_in;
mod upstream;

use crate::limits::TEXT_BYTES_MAX;

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The configuration, as the text of a file.
    pub yaml: String,
    /// What was not taken over as it stood, in order of lines.
    pub notes: Vec<Note>,
}

/// Something that was not taken over as it stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The line in what was read.
    pub line: u64,
    /// Where in it, such as `router_settings.redis_host`.
    pub path: String,
    /// What became of it.
    pub text: String,
}

/// Reads a configuration of LiteLLM's proxy (YAML).
///
/// # Errors
/// When it cannot be read at all.
pub fn litellm(text: &str) -> Result<Imported, String> {
    bounded(text)?;
    litellm::import(&node::of_yaml(text)?)
}

/// Reads the object that NeuroLink is made with, as JSON or as a literal within TypeScript.
///
/// # Errors
/// When there is no such object, or it cannot be read.
pub fn neurolink(text: &str) -> Result<Imported, String> {
    bounded(text)?;
    neurolink::import(&literal::find_object(text, "providers")?)
}

fn bounded(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the file has {} bytes, {TEXT_BYTES_MAX} are allowed", text.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
