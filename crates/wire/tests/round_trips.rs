//! What is written in another dialect and read again means what it meant (C12): whatever a conversation says is still
//! there, or stands among the losses of the one who wrote it.
//!
//! Conversations are made up in the neutral form. Each is written and read in a dialect A, so that it is one that a client
//! of A may send; then it is written as a request for B and read as B's clients' requests are, and from there once more in
//! A. After each writing all that is said is compared, feature by feature: one that is gone or other than before fails the
//! test unless a loss of that writing names it. What may differ without a loss stands in [`SAME`] with its reason.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test stops at the first surprise, and names no files"
)]

use std::collections::{BTreeMap, BTreeSet};

use pointsman_wire::chat::{
    Conversation, Effort, Format, Loss, Losses, Media, MediaKind, Message, Part, Reasoning, Role, Sampling,
    Source, Tool, ToolChoice,
};
use pointsman_wire::dialect::{client, provider};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;

/// Dialects with a reader and a writer of requests, and models whose requests are written in different ways.
const DIALECTS: [(&str, &[&str]); 4] = [
    ("openai", &["m"]),
    ("anthropic", &["m", "claude-sonnet-4-5", "claude-opus-4-8"]),
    ("gemini", &["gemini-2.5-pro", "gemini-3-pro"]),
    ("ollama", &["m", "gpt-oss:20b"]),
];

/// What one dialect says otherwise than it was said, and why nothing is lost by it: dialect (`*`: each), feature, reason.
const SAME: [(&str, &str, &str); 9] = [
    ("*", "format.name", "a schema's name is a handle that nobody answers with; chat completions demand one"),
    ("*", "format.strict", "who takes a schema without the word holds answers to it always"),
    ("*", "reasoning.degree", "each dialect has its own degrees and budgets; that there is one is compared"),
    (
        "*",
        "reasoning.visible",
        "who thinks and can show it does; a wish that stands alone is compared as `reasoning`",
    ),
    ("anthropic", "max_tokens", "the dialect demands one, so that it is made up"),
    ("ollama", "tools[0].strict", "only `true` asks for something, and that is a loss"),
    ("ollama", "tools[1].strict", "as above"),
    (
        "gemini",
        "tools[0].strict",
        "all tools are held to their schemas or none, which is a loss where it is asked for",
    ),
    ("gemini", "tools[1].strict", "as above"),
];

fn words() -> impl Strategy<Value = String> {
    "[a-zé]{1,6}( [a-z\"\\\\<]{1,5}){0,2}"
}

fn text() -> impl Strategy<Value = Part> {
    (words(), prop::bool::weighted(0.2)).prop_map(|(text, marked)| Part::Text {
        text,
        cache: marked.then(|| r#"{"type":"ephemeral"}"#.to_owned()),
        citations: None,
    })
}

fn media() -> impl Strategy<Value = Part> {
    let image = (any::<bool>(), of(select(vec!["low", "high"]))).prop_map(|(here, detail)| Media {
        kind: MediaKind::Image,
        media_type: here.then(|| "image/png".to_owned()),
        source: if here {
            Source::Base64("iVBORw0KGgo=".to_owned())
        } else {
            Source::Url("https://example.org/a.png".to_owned())
        },
        name: None,
        detail: detail.map(str::to_owned),
        cache: None,
    });
    let other = |kind, media_type: &str, data: &str, name: Option<&str>| Media {
        kind,
        media_type: Some(media_type.to_owned()),
        source: Source::Base64(data.to_owned()),
        name: name.map(str::to_owned),
        detail: None,
        cache: None,
    };
    let document = other(MediaKind::Document, "application/pdf", "JVBERi0=", Some("a.pdf"));
    let sound = other(MediaKind::Audio, "audio/wav", "UklGRg==", None);
    prop_oneof![4 => image, 1 => Just(document), 1 => Just(sound)].prop_map(Part::Media)
}

/// What a user says, and what an assistant answers with the results of its calls.
#[derive(Debug, Clone)]
struct Round {
    asked: Vec<Part>,
    thought: Option<(String, Option<String>)>,
    hidden: bool,
    said: Option<Part>,
    calls: Vec<Called>,
}

/// A call and what came of it.
#[derive(Debug, Clone)]
struct Called {
    tool: usize,
    arguments: &'static str,
    signature: Option<String>,
    result: String,
    pictured: bool,
    failed: bool,
}

fn signature() -> impl Strategy<Value = Option<String>> {
    of(select(vec!["c2lnMQ==".to_owned(), "c2lnLTI=".to_owned()]))
}

fn called() -> impl Strategy<Value = Called> {
    let arguments = select(vec!["{}", r#"{"city":"Oslo"}"#, r#"{"n":[1,2.5,null],"s":"\"ü"}"#]);
    let result = prop_oneof![words(), Just(r#"{"degrees":9}"#.to_owned())];
    let odds = (prop::bool::weighted(0.2), prop::bool::weighted(0.3));
    (0..2_usize, arguments, signature(), result, odds).prop_map(
        |(tool, arguments, signature, result, (pictured, failed))| Called {
            tool,
            arguments,
            signature,
            result,
            pictured,
            failed,
        },
    )
}

/// A citation that only one dialect has a word for.
const CITATION: &str = r#"[{"type":"char_location","cited_text":"x","document_index":0,"document_title":null,"start_char_index":0,"end_char_index":1}]"#;

fn round() -> impl Strategy<Value = Round> {
    let asked = (text(), vec(media(), 0..2)).prop_map(|(text, media)| {
        let mut parts = vec![text];
        parts.extend(media);
        parts
    });
    let thought = of((words(), signature()));
    let said = (words(), prop::bool::weighted(0.2)).prop_map(|(text, cites)| Part::Text {
        text,
        cache: None,
        citations: cites.then(|| CITATION.to_owned()),
    });
    (asked, thought, prop::bool::weighted(0.1), of(said), vec(called(), 0..3))
        .prop_map(|(asked, thought, hidden, said, calls)| Round { asked, thought, hidden, said, calls })
}

fn messages(rounds: Vec<Round>, name: Option<String>) -> Vec<Message> {
    let message = |role, parts| Message { role, name: None, parts };
    let (mut out, mut count) = (Vec::new(), 0);
    for round in rounds {
        out.push(message(Role::User, round.asked));
        let mut parts: Vec<Part> =
            round.thought.map(|(text, signature)| Part::Thinking { text, signature }).into_iter().collect();
        if round.hidden {
            parts.push(Part::HiddenThinking { data: "aGlkZGVu".to_owned() });
        }
        let silent = round.said.is_none() && round.calls.is_empty();
        parts.extend(round.said.or_else(|| silent.then(|| Part::text("well"))));
        let mut results = Vec::new();
        for call in round.calls {
            let (id, name) = (format!("call_{count}"), format!("f{}", call.tool));
            count += 1;
            let (arguments, signature) = (call.arguments.to_owned(), call.signature);
            parts.push(Part::ToolCall { id: id.clone(), name: name.clone(), arguments, signature });
            let mut given = vec![Part::text(call.result)];
            if call.pictured {
                given.push(Part::Media(Media {
                    kind: MediaKind::Image,
                    media_type: Some("image/png".to_owned()),
                    source: Source::Base64("iVBORw0KGgo=".to_owned()),
                    name: None,
                    detail: None,
                    cache: None,
                }));
            }
            results.push(Part::ToolResult { id, name: Some(name), parts: given, is_error: call.failed });
        }
        out.push(message(Role::Assistant, parts));
        if !results.is_empty() {
            out.push(message(Role::Tool, results));
        }
    }
    out.push(Message { name, ..message(Role::User, vec![Part::text("and now?")]) });
    out
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let schema = r#"{"type":"object","properties":{"city":{"type":"string"}},"additionalProperties":false}"#;
    let tool = (of(words()), prop::bool::weighted(0.8), of(any::<bool>()), prop::bool::weighted(0.2));
    vec(tool, 0..3).prop_map(move |tools| {
        let tool = |(at, (description, typed, strict, marked)): (usize, (_, bool, _, bool))| Tool {
            name: format!("f{at}"),
            description,
            parameters: typed.then(|| schema.to_owned()),
            strict,
            cache: marked.then(|| r#"{"type":"ephemeral"}"#.to_owned()),
        };
        tools.into_iter().enumerate().map(tool).collect()
    })
}

fn format() -> impl Strategy<Value = Format> {
    let schema = (of(Just("shape".to_owned())), of(words()), of(any::<bool>())).prop_map(
        |(name, description, strict)| Format::Schema {
            name,
            description,
            schema: r#"{"type":"object","properties":{"a":{"type":"string"}}}"#.to_owned(),
            strict,
        },
    );
    prop_oneof![2 => Just(Format::Text), 1 => Just(Format::Json), 2 => schema]
}

fn reasoning() -> impl Strategy<Value = Option<Reasoning>> {
    let effort =
        select(vec![Effort::None, Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::Max]);
    prop_oneof![
        3 => Just(None),
        2 => effort.prop_map(|effort| Some(Reasoning { effort: Some(effort), ..Reasoning::default() })),
        1 => select(vec![0, 2_000, 20_000]).prop_map(|tokens| Some(Reasoning { tokens: Some(tokens), ..Reasoning::default() })),
        1 => any::<bool>().prop_map(|visible| Some(Reasoning { visible: Some(visible), ..Reasoning::default() })),
    ]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let number = |numbers: Vec<f64>| of(select(numbers));
    let seed = of(select(vec![7, -3, i64::MAX]));
    let drawn = (number(vec![0.0, 0.5, 1.5]), number(vec![0.5, 1.0]), of(select(vec![1_u64, 40])));
    (drawn, number(vec![-1.0, 0.5]), number(vec![-1.0, 0.5]), seed).prop_map(
        |((temperature, top_p, top_k), presence_penalty, frequency_penalty, seed)| Sampling {
            temperature,
            top_p,
            top_k,
            presence_penalty,
            frequency_penalty,
            seed,
        },
    )
}

prop_compose! {
    fn conversation()(
        system in vec(text(), 0..3),
        rounds in vec(round(), 0..3),
        tools in tools(),
        choice in 0..6_usize,
        parallel in of(any::<bool>()),
        format in format(),
        reasoning in reasoning(),
        sampling in sampling(),
        limits in (of(select(vec![1_u64, 5_000, 50_000])), vec(words(), 0..3), 1..3_u64, of(0..3_u64)),
        who in (of(Just("anna".to_owned())), of(select(vec!["default", "flex", "priority"])), any::<bool>(), of(Just("anna".to_owned()))),
    ) -> Conversation {
        let tool_choice = match choice {
            _ if tools.is_empty() => None,
            0 => Some(ToolChoice::Auto),
            1 => Some(ToolChoice::None),
            2 => Some(ToolChoice::Any),
            3 => Some(ToolChoice::Tool("f0".to_owned())),
            _ => None,
        };
        let (tokens_out_max, stop, choices, logprobs) = limits;
        Conversation {
            system,
            messages: messages(rounds, who.3),
            tools,
            tool_choice,
            parallel_tool_calls: parallel,
            format,
            reasoning,
            sampling,
            tokens_out_max,
            stop,
            choices,
            logprobs,
            stream: who.2,
            user: who.0,
            service_tier: who.1.map(str::to_owned),
            ..Conversation::default()
        }
    }
}

/// Each turn of a conversation: the messages of one side in a row, which some dialects part and others join.
fn turns(all: &Conversation) -> Vec<usize> {
    let (mut turns, mut turn, mut last) = (Vec::new(), 0, None);
    for message in &all.messages {
        let said_by_model = message.role == Role::Assistant;
        turn += usize::from(last.is_some_and(|last| last != said_by_model));
        last = Some(said_by_model);
        turns.push(turn);
    }
    turns
}

/// What a conversation says, feature by feature; what asks for nothing is left out.
#[derive(Debug, Default)]
struct Said(BTreeMap<String, String>);

impl Said {
    fn put(&mut self, feature: impl Into<String>, value: impl ToString) {
        let known = self.0.entry(feature.into()).or_default();
        known.push_str(&value.to_string());
    }

    fn put_if(&mut self, feature: impl Into<String>, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.put(feature, value);
        }
    }

    fn part(&mut self, turn: &str, part: &Part, calls: &mut Vec<String>) {
        match part {
            // How texts are parted is not meaning, nor is the space where they were joined.
            Part::Text { text, cache, citations } => {
                self.put(format!("{turn}.text"), squeezed(text));
                self.put_if(format!("{turn}.cache_control"), cache.as_ref().map(|_| "+"));
                self.put_if(format!("{turn}.citations"), citations.as_ref());
            }
            Part::Refusal(text) => self.put(format!("{turn}.text"), squeezed(text)),
            Part::Media(media) => {
                self.put(format!("{turn}.{:?}", media.kind), format!("{:?};", media.source));
                self.put_if(format!("{turn}.detail"), media.detail.as_ref());
                self.put_if(format!("{turn}.title"), media.name.as_ref());
                self.put_if(format!("{turn}.cache_control"), media.cache.as_ref().map(|_| "+"));
            }
            Part::ToolCall { id, name, arguments, signature } => {
                let at = calls.len();
                calls.push(id.clone());
                let arguments: serde_json::Value = serde_json::from_str(arguments).unwrap();
                self.put(format!("{turn}.call[{at}]"), format!("{name} {arguments}"));
                self.put_if(format!("{turn}.signature[{at}]"), signature.as_ref());
            }
            Part::ToolResult { id, name: _, parts, is_error } => {
                let at = calls.iter().position(|call| call == id).unwrap_or(usize::MAX);
                self.put(format!("{turn}.result[{at}]"), "");
                for part in parts {
                    match part {
                        Part::Text { text, .. } => self.put(format!("{turn}.result[{at}]"), squeezed(text)),
                        // Media stand inside of results in some dialects and behind them in others.
                        Part::Media(_)
                        | Part::ToolCall { .. }
                        | Part::ToolResult { .. }
                        | Part::Thinking { .. }
                        | Part::HiddenThinking { .. }
                        | Part::Refusal(_) => self.part(turn, part, &mut Vec::new()),
                    }
                }
                self.put_if(format!("{turn}.is_error[{at}]"), is_error.then_some("failed"));
            }
            Part::Thinking { text, signature } => {
                self.put(format!("{turn}.thinking"), squeezed(text));
                self.put_if(format!("{turn}.thinking.signature"), signature.as_ref());
            }
            Part::HiddenThinking { data } => self.put(format!("{turn}.hidden"), data),
        }
    }
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn said(all: &Conversation) -> Said {
    let (mut said, mut calls) = (Said::default(), Vec::new());
    for part in &all.system {
        said.part("system", part, &mut calls);
    }
    for (message, turn) in all.messages.iter().zip(turns(all)) {
        said.put_if(format!("turn[{turn}].name"), message.name.as_ref());
        for part in &message.parts {
            said.part(&format!("turn[{turn}]"), part, &mut calls);
        }
    }
    // Without tools there is nothing to choose; `auto` is what is done where nothing is said, and so is several at once.
    let hidden = all.tool_choice == Some(ToolChoice::None);
    for (at, tool) in all.tools.iter().enumerate().filter(|_| !hidden) {
        let parameters = tool.parameters.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#);
        let parameters: serde_json::Value = serde_json::from_str(parameters).unwrap();
        said.put(format!("tools[{at}]"), format!("{} {:?} {parameters}", tool.name, tool.description));
        said.put_if(format!("tools[{at}].strict"), tool.strict.filter(|strict| *strict));
        said.put_if(format!("tools[{at}].cache_control"), tool.cache.as_ref().map(|_| "+"));
    }
    if !all.tools.is_empty() && !hidden {
        let choice = all.tool_choice.as_ref().filter(|choice| **choice != ToolChoice::Auto);
        said.put_if("tool_choice", choice.map(|choice| format!("{choice:?}")));
        said.put_if("parallel_tool_calls", all.parallel_tool_calls.filter(|several| !*several));
    }
    settings(all, &mut said);
    said
}

fn settings(all: &Conversation, said: &mut Said) {
    match &all.format {
        Format::Text => {}
        Format::Json => said.put("response_format", "json"),
        Format::Schema { name, description, schema, strict } => {
            let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
            said.put("response_format", schema);
            said.put_if("format.name", name.as_ref());
            said.put_if("response_format.description", description.as_ref());
            said.put_if("format.strict", *strict);
        }
    }
    if let Some(Reasoning { effort, tokens, visible }) = all.reasoning {
        let off = tokens == Some(0) || effort == Some(Effort::None);
        let on = effort.is_some() || tokens.is_some();
        match (off, on) {
            (true, _) => said.put("reasoning", "off"),
            (false, true) => said.put("reasoning", "on"),
            // A wish to see them is one to have them, and not to see them is said by having none.
            (false, false) => {
                said.put_if("reasoning", visible.map(|visible| if visible { "on" } else { "off" }));
            }
        }
        said.put_if("reasoning.degree", effort.map(|effort| format!("{effort:?}")));
        said.put_if("reasoning.degree", tokens);
        said.put_if("reasoning.visible", visible);
    }
    let sampling = &all.sampling;
    said.put_if("temperature", sampling.temperature);
    said.put_if("top_p", sampling.top_p);
    said.put_if("top_k", sampling.top_k);
    said.put_if("presence_penalty", sampling.presence_penalty);
    said.put_if("frequency_penalty", sampling.frequency_penalty);
    said.put_if("seed", sampling.seed);
    said.put_if("max_tokens", all.tokens_out_max);
    said.put_if("stop", (!all.stop.is_empty()).then(|| format!("{:?}", all.stop)));
    said.put_if("n", Some(all.choices).filter(|choices| *choices > 1));
    said.put_if("logprobs", all.logprobs);
    said.put_if("stream", all.stream.then_some("stream"));
    said.put_if("user", all.user.as_ref());
    // The usual tier is what is given where nothing is said.
    said.put_if("service_tier", all.service_tier.as_ref().filter(|tier| *tier != "default"));
}

/// Whether a loss names a feature of what was written.
fn names(loss: &Loss, all: &Conversation, feature: &str) -> bool {
    let (place, rest) = match loss.field.strip_prefix("messages[").and_then(|rest| rest.split_once(']')) {
        Some((at, rest)) => (format!("turn[{}]", turns(all)[at.parse::<usize>().unwrap()]), rest),
        None => match loss.field.strip_prefix("system") {
            Some(rest) => ("system".to_owned(), rest),
            // `think` and the like are words for one feature.
            None => {
                if loss.field == "toolConfig.functionCallingConfig.mode" {
                    return feature.starts_with("tools[") && feature.ends_with("].strict");
                }
                let alias = match loss.field.as_str() {
                    "reasoning_effort" | "think" => "reasoning",
                    "format.description" => "response_format.description",
                    other => other,
                };
                return feature == alias;
            }
        },
    };
    let Some(kind) = feature.strip_prefix(&place).and_then(|kind| kind.strip_prefix('.')) else {
        return false;
    };
    let last = rest.rsplit('.').next().unwrap_or_default();
    match last {
        "cache_control" | "citations" | "detail" | "title" | "name" => kind == last,
        "signature" => kind.starts_with("signature") || kind == "thinking.signature",
        "is_error" => kind.starts_with("is_error"),
        "thinking" => kind.starts_with("thinking") || kind == "hidden",
        // A part as a whole: what else than text and calls it may be.
        _ => {
            let media = ["Image", "Document", "Audio", "detail", "title"].contains(&kind);
            media || kind.starts_with("thinking") || kind == "hidden"
        }
    }
}

/// Writes a conversation in a dialect and reads it again; what it says then, and what was lost.
fn through(all: &Conversation, dialect: &str, model: &str) -> (Conversation, Losses) {
    let mut losses = Losses::default();
    let body = provider(dialect).unwrap().dialect.request(all, model, &mut losses);
    let read = client(dialect).unwrap().conversation(&body);
    let mut read = read.unwrap_or_else(|error| panic!("{dialect} refuses what it wrote: {error}\n{body}"));
    if dialect == "gemini" {
        // There it stands in the path.
        read.stream = all.stream;
    }
    // Its clients may say what others cannot be told.
    losses.extend(std::mem::take(&mut read.losses));
    (read, losses)
}

/// Holds what is said after a writing against what was said before; what differs stands in `wrong`.
fn hold(before: &Conversation, dialect: &str, model: &str, wrong: &mut Vec<String>) -> Conversation {
    let (after, losses) = through(before, dialect, model);
    let (had, has) = (said(before), said(&after));
    let features: BTreeSet<&String> = had.0.keys().chain(has.0.keys()).collect();
    for feature in features {
        let (was, is) = (had.0.get(feature), has.0.get(feature));
        let may_differ =
            SAME.iter().any(|(name, same, _)| (*name == "*" || *name == dialect) && *same == feature);
        let named = losses.named().iter().any(|loss| names(loss, before, feature));
        let made_up = was.is_none() && is_filled_in(dialect, feature, is.map_or("", String::as_str));
        if was != is && !may_differ && !named && !made_up && losses.count() == losses.named().len() {
            wrong.push(format!("{feature} for {dialect} ({model}): {was:?} became {is:?}"));
        }
    }
    after
}

/// Whether a dialect says more than was said, because it must.
fn is_filled_in(dialect: &str, feature: &str, value: &str) -> bool {
    // A file has a name there.
    let unnamed = dialect == "openai" && feature.ends_with(".title") && value.starts_with("document.pdf");
    // What Google documents for calls of other models.
    unnamed
        || dialect == "gemini"
            && feature.contains(".signature[")
            && value == "skip_thought_signature_validator"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c12_what_is_said_in_a_is_said_in_b_and_again_in_a(all in conversation(), pick in any::<usize>()) {
        let mut wrong = Vec::new();
        for (from, own_models) in DIALECTS {
            let own_model = own_models[pick % own_models.len()];
            // Whatever A cannot say, it names as well.
            let asked = hold(&all, from, own_model, &mut wrong);
            for (to, models) in DIALECTS {
                let there = hold(&asked, to, models[pick % models.len()], &mut wrong);
                hold(&there, from, own_model, &mut wrong);
            }
        }
        prop_assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
