//! The models that there are, as Gemini's clients ask for them: `/v1beta/models`.

use crate::json::write::{array, object};

/// A model as its clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Prompt plus output it accepts, in tokens, if that is known.
    pub context_tokens_max: Option<u64>,
    /// It answers chats.
    pub generates: bool,
    /// It embeds.
    pub embeds: bool,
}

/// One model.
pub fn model(model: &Listed<'_>) -> String {
    let methods = [
        ("generateContent", model.generates),
        ("streamGenerateContent", model.generates),
        ("countTokens", model.generates),
        ("embedContent", model.embeds),
    ];
    let methods = methods.into_iter().filter(|(_, can)| *can).map(|(name, _)| crate::json::quote(name));
    object(|it| {
        it.text("name", &format!("models/{}", model.name)).text("displayName", model.name);
        if let Some(tokens) = model.context_tokens_max {
            it.count("inputTokenLimit", tokens);
        }
        it.raw("supportedGenerationMethods", &array(methods));
    })
}

/// All of them, on one page.
pub fn models(models: &[Listed<'_>]) -> String {
    object(|it| _ = it.raw("models", &array(models.iter().map(model))))
}
