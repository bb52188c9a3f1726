//! What is asked for that is no chat: rerank, moderations, images, sounds.
//!
//! These are relayed as they come. Of a body is read what routing needs: the model's name and place, and how much there is to
//! do; [`json`] reads whole bodies, [`multipart`] those that come in parts and are never held as a whole.

pub mod json;
pub mod multipart;
mod request;
pub mod tail;

pub use json::TaskRequest;

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// `/v1/rerank`, `/v2/rerank`, `/rerank`
    Rerank,
    /// `/v1/moderations`
    Moderation,
    /// `/v1/images/generations`
    ImageGeneration,
    /// `/v1/images/edits`
    ImageEdit,
    /// `/v1/audio/speech`
    Speech,
    /// `/v1/audio/transcriptions`
    Transcription,
    /// `/v1/audio/translations`
    Translation,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 7] = [
        Self::Rerank,
        Self::Moderation,
        Self::ImageGeneration,
        Self::ImageEdit,
        Self::Speech,
        Self::Transcription,
        Self::Translation,
    ];

    /// The name in records and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rerank => "rerank",
            Self::Moderation => "moderation",
            Self::ImageGeneration => "image_generation",
            Self::ImageEdit => "image_edit",
            Self::Speech => "speech",
            Self::Transcription => "transcription",
            Self::Translation => "translation",
        }
    }

    /// The path clients call.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Rerank => "/v1/rerank",
            Self::Moderation => "/v1/moderations",
            Self::ImageGeneration => "/v1/images/generations",
            Self::ImageEdit => "/v1/images/edits",
            Self::Speech => "/v1/audio/speech",
            Self::Transcription => "/v1/audio/transcriptions",
            Self::Translation => "/v1/audio/translations",
        }
    }

    /// The path clients call, below `/v1`, and that of an upstream below its prefix.
    pub const fn path_suffix(self) -> &'static str {
        match self {
            Self::Rerank => "/rerank",
            Self::Moderation => "/moderations",
            Self::ImageGeneration => "/images/generations",
            Self::ImageEdit => "/images/edits",
            Self::Speech => "/audio/speech",
            Self::Transcription => "/audio/transcriptions",
            Self::Translation => "/audio/translations",
        }
    }

    /// The task of a path.
    pub fn of_path(path: &str) -> Option<Self> {
        if matches!(path, "/rerank" | "/v2/rerank") {
            return Some(Self::Rerank);
        }
        Self::ALL.into_iter().find(|task| task.path() == path)
    }

    /// Whether its body comes in parts.
    pub const fn is_multipart(self) -> bool {
        match self {
            Self::ImageEdit | Self::Transcription | Self::Translation => true,
            Self::Rerank | Self::Moderation | Self::ImageGeneration | Self::Speech => false,
        }
    }

    /// The fields that must be there, beside the model.
    pub const fn required(self) -> &'static [&'static str] {
        match self {
            Self::Rerank => &["query", "documents"],
            Self::Moderation => &["input"],
            Self::ImageGeneration => &["prompt"],
            Self::ImageEdit => &["image", "prompt"],
            Self::Speech => &["input", "voice"],
            Self::Transcription | Self::Translation => &["file"],
        }
    }

    /// Whether the model must be named. Where it need not, the upstream has a model of its own choice.
    pub const fn needs_model(self) -> bool {
        match self {
            Self::Moderation | Self::ImageGeneration | Self::ImageEdit => false,
            Self::Rerank | Self::Speech | Self::Transcription | Self::Translation => true,
        }
    }
}
