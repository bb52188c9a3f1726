//! What the mock's model says, in the shapes of the OpenAI API.

use bytes::Bytes;
use serde_json::{Value, json};

use super::dialects::Other;
use super::example;

/// What was asked.
pub(super) struct Asked {
    pub(super) path: String,
    /// The dialect it was asked in, if that is not its own; path and body are turned into its own.
    pub(super) other: Option<Other>,
    pub(super) body: Value,
    pub(super) body_bytes: usize,
    /// What follows the JSON.
    pub(super) tail: Bytes,
    /// The id of its response.
    pub(super) id: String,
}

const WORDS: [&str; 12] = [
    " one", " word", " after", " another", " until", " all", " tokens", " are", " out", " and", " then", ",",
];

const THOUGHTS: &str = "The mock thinks.";

impl Asked {
    pub(super) fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or("mock-model")
    }

    pub(super) fn streams(&self) -> bool {
        self.body["stream"] == json!(true)
    }

    pub(super) fn tokens_in(&self) -> usize {
        self.body_bytes / 4
    }

    /// Tokens to answer with.
    pub(super) fn tokens(&self, usual: u32) -> usize {
        let asked = ["max_tokens", "max_completion_tokens", "max_output_tokens"];
        let asked = asked.iter().find_map(|name| self.body[*name].as_u64());
        asked.map_or(usual as usize, |asked| (asked as usize).min(100_000))
    }

    fn word(&self, at: usize) -> String {
        if at == 0 {
            format!("This is the mock `{}`:", self.model())
        } else {
            WORDS[at % WORDS.len()].to_owned()
        }
    }

    fn choices(&self) -> u64 {
        self.body["n"].as_u64().unwrap_or(1).clamp(1, 16)
    }

    fn calls_tool(&self) -> Option<&str> {
        let forced = self.body["tool_choice"] == json!("required") || self.body["tool_choice"].is_object();
        let asks = self.body["messages"].as_array()?.last()?["content"]
            .as_str()
            .is_some_and(|text| text.contains("tool"));
        (forced || asks).then(|| self.body["tools"][0]["function"]["name"].as_str()).flatten()
    }

    /// The tool that is called, and its arguments.
    fn call(&self, tool: &str) -> Value {
        let arguments = example::of_schema(&self.body["tools"][0]["function"]["parameters"]);
        let arguments = if arguments.is_object() { arguments } else { json!({}) };
        json!({"name": tool, "arguments": arguments.to_string()})
    }

    /// What is said, token by token; in one piece where it has to fit a schema.
    fn words(&self, tokens: usize) -> Vec<String> {
        let format = &self.body["response_format"];
        match format["type"].as_str() {
            Some("json_schema") => vec![example::of_schema(&format["json_schema"]["schema"]).to_string()],
            Some("json_object") => vec![r#"{"mock":true}"#.to_owned()],
            Some(_) | None => (0..tokens).map(|at| self.word(at)).collect(),
        }
    }

    /// What it thinks before it answers, if it is asked to think.
    fn thoughts(&self) -> Option<&'static str> {
        self.body["reasoning_effort"].as_str().filter(|effort| *effort != "none").map(|_| THOUGHTS)
    }

    fn usage(&self, tokens: usize) -> Value {
        let tokens_in = self.tokens_in();
        let mut usage = json!({"prompt_tokens": tokens_in, "completion_tokens": tokens, "total_tokens": tokens_in + tokens});
        if let Some(thoughts) = self.thoughts() {
            let words = thoughts.split(' ').count().min(tokens);
            usage["completion_tokens_details"] = json!({"reasoning_tokens": words});
        }
        usage
    }

    /// The whole answer.
    pub(super) fn whole(&self, tokens: usize) -> Value {
        let text = self.words(tokens).concat();
        let logprobs = if self.body["logprobs"] == json!(true) {
            json!({"content": (0..tokens).map(|at| json!({"token": self.word(at), "logprob": -0.1, "bytes": null, "top_logprobs": []})).collect::<Vec<_>>(), "refusal": null})
        } else {
            Value::Null
        };
        match self.path.as_str() {
            "/v1/embeddings" => self.embeddings(),
            "/v1/responses" => self.response("completed", &text, tokens),
            "/v1/completions" => json!({
                "id": "cmpl-mock", "object": "text_completion", "created": 0, "model": self.model(),
                "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": null}],
                "usage": self.usage(tokens),
            }),
            _ => {
                let mut message = match self.calls_tool() {
                    Some(tool) => {
                        json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                        "tool_calls": [{"id": "call_mock", "type": "function", "function": self.call(tool)}]})
                    }
                    None => json!({"role": "assistant", "content": text, "refusal": null, "annotations": []}),
                };
                if let Some(thoughts) = self.thoughts() {
                    message["reasoning_content"] = thoughts.into();
                }
                let finish = if self.calls_tool().is_some() { "tool_calls" } else { "stop" };
                let choices = (0..self.choices()).map(|index| {
                    json!({"index": index, "message": message, "finish_reason": finish, "logprobs": logprobs})
                });
                json!({
                    "id": "chatcmpl-mock", "object": "chat.completion", "created": 0, "model": self.model(),
                    "choices": choices.collect::<Vec<_>>(), "usage": self.usage(tokens),
                })
            }
        }
    }

    fn embeddings(&self) -> Value {
        let inputs = self.body["input"]
            .as_array()
            .map_or(1, |input| if input.first().is_some_and(Value::is_number) { 1 } else { input.len() });
        let data = (0..inputs)
            .map(|index| json!({"object": "embedding", "index": index, "embedding": [0.1, 0.2, 0.3]}));
        let tokens = self.tokens_in();
        json!({"object": "list", "model": self.model(), "data": data.collect::<Vec<_>>(),
               "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
    }

    fn response(&self, status: &str, text: &str, tokens: usize) -> Value {
        let tokens_in = self.tokens_in();
        json!({
            "id": self.id, "object": "response", "created_at": 0, "status": status, "model": self.model(),
            "output": [{"id": "msg_mock", "type": "message", "role": "assistant", "status": status,
                        "content": [{"type": "output_text", "text": text, "annotations": []}]}],
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "previous_response_id": self.body["previous_response_id"], "store": self.body["store"] != json!(false),
            "usage": {"input_tokens": tokens_in, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": tokens,
                      "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": tokens_in + tokens},
        })
    }

    /// The answer as events, without their pauses: what comes at once, then a token each, then the end.
    pub(super) fn events(&self, tokens: usize) -> (Vec<String>, Vec<String>, Vec<String>) {
        if self.path == "/v1/responses" {
            return self.response_events(tokens);
        }
        let chat = self.path == "/v1/chat/completions";
        let chunk = |choice: Value| {
            let object = if chat { "chat.completion.chunk" } else { "text_completion" };
            let id = if chat { "chatcmpl-mock" } else { "cmpl-mock" };
            format!(
                "data: {}\n\n",
                json!({"id": id, "object": object, "created": 0, "model": self.model(), "choices": [choice]})
            )
        };
        let finish = if chat && self.calls_tool().is_some() { "tool_calls" } else { "stop" };
        let (mut first, mut middle, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.choices() {
            if chat {
                first.push(chunk(json!({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": null})));
            }
            if let Some(thoughts) = self.thoughts().filter(|_| chat) {
                first.push(chunk(
                    json!({"index": index, "delta": {"reasoning_content": thoughts}, "finish_reason": null}),
                ));
            }
            match self.calls_tool().filter(|_| chat) {
                Some(tool) => middle.push(chunk(json!({"index": index, "delta": {"tool_calls": [{"index": 0,
                    "id": "call_mock", "type": "function", "function": self.call(tool)}]}, "finish_reason": null}))),
                None => middle.extend(self.words(tokens).into_iter().map(|text| {
                    chunk(if chat {
                        json!({"index": index, "delta": {"content": text}, "finish_reason": null})
                    } else {
                        json!({"index": index, "text": text, "finish_reason": null})
                    })
                })),
            }
            let end = if chat {
                json!({"index": index, "delta": {}, "finish_reason": finish})
            } else {
                json!({"index": index, "text": "", "finish_reason": finish})
            };
            last.push(chunk(end));
        }
        if self.body["stream_options"]["include_usage"] == json!(true) {
            let object = if chat { "chat.completion.chunk" } else { "text_completion" };
            let usage = json!({"id": "mock", "object": object, "created": 0, "model": self.model(), "choices": [], "usage": self.usage(tokens)});
            last.push(format!("data: {usage}\n\n"));
        }
        last.push("data: [DONE]\n\n".to_owned());
        (first, middle, last)
    }

    fn response_events(&self, tokens: usize) -> (Vec<String>, Vec<String>, Vec<String>) {
        let event = |kind: &str, mut data: Value, number: usize| {
            data["type"] = kind.into();
            data["sequence_number"] = number.into();
            format!("event: {kind}\ndata: {data}\n\n")
        };
        let text: String = (0..tokens).map(|at| self.word(at)).collect();
        let item = json!({"id": "msg_mock", "type": "message", "role": "assistant", "status": "in_progress", "content": []});
        let first = vec![
            event("response.created", json!({"response": self.response("in_progress", "", 0)}), 0),
            event("response.output_item.added", json!({"output_index": 0, "item": item}), 1),
            event(
                "response.content_part.added",
                json!({"item_id": "msg_mock", "output_index": 0, "content_index": 0,
                "part": {"type": "output_text", "text": "", "annotations": []}}),
                2,
            ),
        ];
        let delta = |at: usize| {
            let data = json!({"item_id": "msg_mock", "output_index": 0, "content_index": 0, "delta": self.word(at), "logprobs": []});
            event("response.output_text.delta", data, 3 + at)
        };
        let last = vec![
            event(
                "response.output_text.done",
                json!({"item_id": "msg_mock", "output_index": 0, "content_index": 0, "text": text, "logprobs": []}),
                3 + tokens,
            ),
            event(
                "response.completed",
                json!({"response": self.response("completed", &text, tokens)}),
                4 + tokens,
            ),
        ];
        (first, (0..tokens).map(delta).collect(), last)
    }
}
