//! Answers, read.

use crate::chat::{Answer, CHOICES_MAX, Choice, Losses, Part, Stop};
use crate::json::tree::{Members, Tree};

use super::contents::{inline, push_text, take_call};
use super::grounding::{self, Found};
use super::words::{
    logprobs_of, made_up, says_nothing, stop_of, take, take_count, take_items, take_members, take_text,
    usage_of,
};

/// Why a member of an answer is lost.
pub(super) const NO_WORD: &str = "other dialects have no word for it";

/// What there is of an answer in one body, or in one event of a stream.
pub(super) struct Reply {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) candidates: Vec<(u32, Candidate)>,
    pub(super) usage: Option<crate::chat::Usage>,
    /// The prompt was refused, so that there are no candidates.
    pub(super) blocked: bool,
    pub(super) losses: Losses,
}

/// One candidate, or a piece of it.
pub(super) struct Candidate {
    pub(super) parts: Vec<Part>,
    pub(super) reason: String,
    pub(super) logprobs: Vec<crate::chat::Logprob>,
    /// Which of the parts is the text of each part of the answer.
    texts: Vec<Option<usize>>,
    pub(super) grounds: Vec<Found>,
}

impl Candidate {
    pub(super) fn calls(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::ToolCall { .. }))
    }
}

/// Reads one. `answer` is its id, if one came before; `calls` counts the calls of each candidate so far.
pub(super) fn read(tree: Tree<'_>, answer: &str, calls: &mut dyn FnMut(u32) -> u64) -> Reply {
    let mut body = tree.into_members();
    let mut losses = Losses::default();
    let id = take_text(&mut body, "responseId").unwrap_or_default();
    let seed = if answer.is_empty() { id.clone() } else { answer.to_owned() };
    let mut candidates = Vec::new();
    for (at, candidate) in take_items(&mut body, "candidates").into_iter().enumerate() {
        let mut candidate = candidate.into_members();
        let index = take_count(&mut candidate, "index").unwrap_or(at as u64);
        let Some(index) = u32::try_from(index).ok().filter(|index| *index < CHOICES_MAX) else { continue };
        let read = read_candidate(candidate, index, &mut losses, &mut |name, arguments| {
            made_up(&seed, name, arguments, calls(index))
        });
        candidates.push((index, read));
    }
    let mut feedback = take_members(&mut body, "promptFeedback");
    let blocked = take_text(&mut feedback, "blockReason").is_some_and(|reason| {
        !matches!(reason.as_str(), "" | "BLOCK_REASON_UNSPECIFIED" | "BLOCKED_REASON_UNSPECIFIED")
    });
    for (name, _) in feedback.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("promptFeedback.{name}"), NO_WORD);
    }
    let model = take_text(&mut body, "modelVersion").unwrap_or_default();
    let usage = take(&mut body, "usageMetadata").map(usage_of);
    body.take("createTime");
    for (name, _) in body.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(name, NO_WORD);
    }
    Reply { id, model, usage, blocked: blocked && candidates.is_empty(), candidates, losses }
}

fn read_candidate(
    mut candidate: Members<'_>,
    index: u32,
    losses: &mut Losses,
    id_of: &mut dyn FnMut(&str, &str) -> String,
) -> Candidate {
    let path = format!("candidates[{index}]");
    let mut content = take_members(&mut candidate, "content");
    let (mut parts, mut texts) = (Vec::new(), Vec::new());
    for (at, part) in take_items(&mut content, "parts").into_iter().enumerate() {
        let path = format!("{path}.content.parts[{at}]");
        let before = parts.len();
        read_part(part.into_members(), &path, losses, id_of, &mut parts);
        texts.push(Some(before).filter(|at| matches!(parts.get(*at), Some(Part::Text { .. }))));
    }
    let grounds = take_members(&mut candidate, "groundingMetadata");
    let grounds = grounding::read(grounds, &format!("{path}.groundingMetadata"), losses);
    let reason = take_text(&mut candidate, "finishReason").unwrap_or_default();
    if stop_of(&reason, false) == Some(Stop::Other) && reason != "OTHER" {
        losses.note(format!("{path}.finishReason"), "other dialects have no word for this reason");
    }
    let logprobs = logprobs_of(take(&mut candidate, "logprobsResult"));
    // Both follow from what is carried.
    candidate.take("avgLogprobs");
    candidate.take("tokenCount");
    for (name, _) in candidate.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}.{name}"), NO_WORD);
    }
    Candidate { parts, reason, logprobs, texts, grounds }
}

fn read_part(
    mut part: Members<'_>,
    path: &str,
    losses: &mut Losses,
    id_of: &mut dyn FnMut(&str, &str) -> String,
    out: &mut Vec<Part>,
) {
    let thought = take(&mut part, "thought").and_then(|thought| thought.boolean()).unwrap_or(false);
    let signature = take_text(&mut part, "thoughtSignature").filter(|signature| !signature.is_empty());
    let text = take_text(&mut part, "text").filter(|text| !text.is_empty());
    if let Some(call) = take(&mut part, "functionCall") {
        let (id, name, arguments) = take_call(call);
        let made = id_of(&name, &arguments);
        out.push(Part::ToolCall { id: id.unwrap_or(made), name, arguments, signature });
    } else if let Some(blob) = take(&mut part, "inlineData") {
        out.push(Part::Media(inline(blob.into_members())));
    } else {
        push_text(text, thought, signature, out);
    }
    for (name, _) in part.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}.{name}"), NO_WORD);
    }
}

/// Reads a whole answer.
pub(super) fn read_answer(tree: Tree<'_>) -> Answer {
    let mut calls = vec![0_u64; CHOICES_MAX as usize];
    let mut reply = read(tree, "", &mut |choice| {
        let count = &mut calls[choice as usize];
        *count += 1;
        *count - 1
    });
    let (mut choices, mut candidates) = (Vec::new(), reply.candidates);
    candidates.sort_by_key(|(index, _)| *index);
    for (_, mut candidate) in candidates {
        grounding::cite(&candidate.grounds, &mut candidate.parts, &candidate.texts, &mut reply.losses);
        let stop = stop_of(&candidate.reason, candidate.calls());
        choices.push(Choice {
            parts: candidate.parts,
            stop,
            stop_sequence: None,
            logprobs: candidate.logprobs,
        });
    }
    if reply.blocked {
        choices.push(Choice { stop: Some(Stop::Filtered), ..Choice::default() });
    }
    Answer {
        id: reply.id,
        model: reply.model,
        created_s: None,
        choices,
        usage: reply.usage,
        service_tier: None,
        losses: reply.losses,
    }
}
