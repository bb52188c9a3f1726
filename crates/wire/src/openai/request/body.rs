//! The members of the body, one after the other.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json::{Kind, Scanner, Span, Text};
use crate::openai::error::Invalid;

use super::fields::{Field, Name, Spelling, lookup, same};
use super::kept::{Kept, KeptKind};
use super::prompt::Prompt;
use super::shape::Shape;
use super::values::{absent, boolean, count, integer, number, text, wrong_type};
use super::{BodyLimits, Forbidden, Needs, Operation, Params, Request, Spans, StreamOptions};
use super::{impossible_model, shown, split_version};

pub(super) struct Reader<'a, 'l> {
    pub(super) scanner: Scanner<'a>,
    pub(super) text: &'a str,
    pub(super) limits: &'l BodyLimits,
    pub(super) prompt: Prompt<'a>,
    pub(super) needs: Needs,
    operation: Operation,
    pub(super) shape: Shape,
    formatted: bool,
    pub(super) salt: u64,
    seen: u64,
    model: Option<(Text<'a>, Span)>,
    stream: bool,
    include_usage: Option<bool>,
    tokens_out_max: Option<u64>,
    params: Params,
    pub(super) user_hash: Option<u64>,
    pub(super) kept: Vec<Kept>,
    forbidden: Vec<Forbidden>,
    pub(super) fallbacks: Vec<String>,
    pub(super) spans: Spans,
}

impl<'a, 'l> Reader<'a, 'l> {
    pub(super) fn new(
        shape: Shape,
        operation: Operation,
        text: &'a str,
        limits: &'l BodyLimits,
        salt: u64,
    ) -> Self {
        Self {
            scanner: Scanner::new(text, limits.depth_max),
            text,
            limits,
            prompt: Prompt::new(operation, salt),
            needs: Needs::default(),
            operation,
            shape,
            formatted: false,
            salt,
            seen: 0,
            model: None,
            stream: false,
            include_usage: None,
            tokens_out_max: None,
            params: Params::default(),
            user_hash: None,
            kept: Vec::new(),
            forbidden: Vec::new(),
            fallbacks: Vec::new(),
            spans: Spans::default(),
        }
    }

    pub(super) fn read(mut self) -> Result<Request, Invalid> {
        let kind = self.scanner.peek()?;
        if kind != Kind::Object {
            return Err(Invalid::body(format!("the body must be a JSON object, not {}", kind.name())));
        }
        let mut members = self.scanner.object()?;
        self.spans.body_start = self.scanner.at();
        let mut before = self.scanner.at();
        let mut ordinal = 0;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            if let Some(last) = self.forbidden.last_mut().filter(|last| last.ordinal + 1 == ordinal) {
                last.next = Some(key.span().start);
            }
            match lookup(self.shape, &key) {
                Name::Known(Field::Fallbacks) => {
                    // Meant for this router alone, and so dropped like what is forbidden.
                    let value = self.scanner.clone().skip_value()?;
                    self.known(Field::Fallbacks)?;
                    let member = Span { start: key.span().start, end: value.end };
                    let name = Field::Fallbacks.name();
                    self.forbidden.push(Forbidden { name, ordinal, before, member, next: None });
                }
                Name::Known(field) => self.known(field)?,
                Name::Misspelt(field) => return Err(misspelt(&key, field.name(), field.name())),
                Name::Forbidden(name) => {
                    let value = self.scanner.skip_value()?;
                    let member = Span { start: key.span().start, end: value.end };
                    self.forbidden.push(Forbidden { name, ordinal, before, member, next: None });
                }
                Name::Other => drop(self.scanner.skip_value()?),
            }
            before = self.scanner.at();
            ordinal += 1;
        }
        self.scanner.clone().finish()?;
        self.finish()
    }

    fn known(&mut self, field: Field) -> Result<(), Invalid> {
        if self.seen & field.bit() != 0 {
            let name = field.name();
            return Err(Invalid::field(name, format!("`{name}` appears twice in the body; send it once")));
        }
        self.seen |= field.bit();
        match field {
            Field::Model => self.read_model(),
            Field::Messages if self.operation == Operation::Chat => self.read_messages(),
            Field::Prompt if self.operation == Operation::Completion => self.read_texts("prompt"),
            Field::Input if self.operation == Operation::Embedding => self.read_texts("input"),
            Field::Input if self.operation == Operation::Response => self.read_input(),
            Field::Instructions if self.operation == Operation::Response => {
                self.read_instructions("instructions")
            }
            Field::Text if self.operation == Operation::Response => self.read_format_within("text"),
            Field::Prompt | Field::PreviousResponse | Field::Conversation
                if self.operation == Operation::Response =>
            {
                self.read_kept(field.name(), KeptKind::Answer)
            }
            Field::Container => self.read_kept("container", KeptKind::File),
            Field::System => self.read_instructions("system"),
            Field::OutputConfig => self.read_format_within("output_config"),
            Field::OutputFormat => self.read_format("output_format"),
            Field::Thinking => self.read_object("thinking"),
            Field::Metadata => self.read_metadata(),
            Field::StopSequences => self.read_stop_sequences(),
            Field::Messages
            | Field::Prompt
            | Field::Input
            | Field::Instructions
            | Field::Text
            | Field::PreviousResponse
            | Field::Conversation => {
                // Belongs to another operation: passed on for the upstream to judge.
                self.scanner.skip_value()?;
                Ok(())
            }
            Field::StreamOptions => self.read_stream_options(),
            Field::Fallbacks => self.read_fallbacks(),
            Field::Tools | Field::Functions => self.read_tools(field.name()),
            Field::ToolChoice => self.read_tool_choice(),
            Field::ResponseFormat => self.read_format("response_format"),
            Field::User => self.read_user(),
            Field::Stream
            | Field::MaxTokens
            | Field::MaxCompletionTokens
            | Field::MaxOutputTokens
            | Field::N
            | Field::BestOf
            | Field::Temperature
            | Field::TopP
            | Field::PresencePenalty
            | Field::FrequencyPenalty
            | Field::TopLogprobs
            | Field::Logprobs
            | Field::Seed => self.read_param(field),
        }
    }

    /// Parameters with a plain range.
    fn read_param(&mut self, field: Field) -> Result<(), Invalid> {
        let name = field.name();
        let scanner = &mut self.scanner;
        let params = &mut self.params;
        let choices = (1, u64::from(self.limits.choices_max));
        match field {
            Field::Stream => self.stream = boolean(scanner, name)?.unwrap_or(false),
            Field::MaxTokens | Field::MaxCompletionTokens | Field::MaxOutputTokens => {
                let value = scanner.clone().skip_value()?;
                // Anthropic's 0 fills the provider's cache and asks for no answer.
                let tokens_min = u64::from(!self.shape.is_anthropic());
                let tokens = count(scanner, name, (tokens_min, self.limits.tokens_out_max))?;
                if tokens.is_some() {
                    self.spans.tokens_out.push(value);
                }
                // With both spellings the larger counts: what is planned for must cover what may come.
                self.tokens_out_max = self.tokens_out_max.max(tokens);
            }
            Field::N => params.n = count(scanner, name, choices)?,
            Field::BestOf => params.best_of = count(scanner, name, choices)?,
            Field::Temperature => {
                let max = if self.shape.is_anthropic() { 1.0 } else { 2.0 };
                params.temperature = number(scanner, name, (0.0, max))?;
            }
            Field::TopP => params.top_p = number(scanner, name, (0.0, 1.0))?,
            Field::PresencePenalty => params.presence_penalty = number(scanner, name, (-2.0, 2.0))?,
            Field::FrequencyPenalty => params.frequency_penalty = number(scanner, name, (-2.0, 2.0))?,
            Field::TopLogprobs => params.top_logprobs = count(scanner, name, (0, 20))?,
            Field::Logprobs if scanner.peek()? == Kind::Bool => {
                params.logprobs = boolean(scanner, name)?.map(u64::from);
            }
            Field::Logprobs => params.logprobs = count(scanner, name, (0, 20))?,
            Field::Seed => params.seed = integer(scanner, name)?,
            Field::Model
            | Field::Messages
            | Field::Prompt
            | Field::Input
            | Field::StreamOptions
            | Field::Fallbacks
            | Field::Tools
            | Field::ToolChoice
            | Field::Functions
            | Field::ResponseFormat
            | Field::Text
            | Field::Instructions
            | Field::PreviousResponse
            | Field::Conversation
            | Field::Container
            | Field::System
            | Field::Thinking
            | Field::OutputConfig
            | Field::OutputFormat
            | Field::Metadata
            | Field::StopSequences
            | Field::User => drop(scanner.skip_value()?),
        }
        Ok(())
    }

    fn read_model(&mut self) -> Result<(), Invalid> {
        let got = self.scanner.peek()?;
        if got != Kind::String {
            return Err(wrong_type("model", "a string", got));
        }
        let model = self.scanner.string()?;
        self.model = Some((model, model.span()));
        Ok(())
    }

    fn read_stream_options(&mut self) -> Result<(), Invalid> {
        const PARAM: &str = "stream_options";
        match self.scanner.peek()? {
            Kind::Object => {}
            Kind::Null => {
                self.spans.stream_options = Some(StreamOptions::Null(self.scanner.skip_value()?));
                return Ok(());
            }
            got @ (Kind::Array | Kind::String | Kind::Number | Kind::Bool) => {
                return Err(wrong_type(PARAM, "an object", got));
            }
        }
        let mut members = self.scanner.object()?;
        let inside = self.scanner.at();
        let mut empty = true;
        let mut found = None;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            empty = false;
            match same(&key, "include_usage") {
                Some(Spelling::Exact) if found.is_some() => {
                    let param = "stream_options.include_usage";
                    return Err(Invalid::field(param, format!("`{param}` appears twice; send it once")));
                }
                Some(Spelling::Exact) => {
                    let value = self.scanner.clone().skip_value()?;
                    self.include_usage = boolean(&mut self.scanner, "stream_options.include_usage")?;
                    found = Some(value);
                }
                Some(Spelling::Differs) => {
                    return Err(misspelt(&key, "include_usage", "stream_options.include_usage"));
                }
                None => drop(self.scanner.skip_value()?),
            }
        }
        self.spans.stream_options =
            Some(found.map_or(StreamOptions::Without { inside, empty }, StreamOptions::With));
        Ok(())
    }

    fn read_tools(&mut self, param: &str) -> Result<(), Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Array {
            return Err(wrong_type(param, "an array", got));
        }
        let start = self.scanner.at();
        let mut elements = self.scanner.array()?;
        let mut index = 0_usize;
        while self.scanner.next_element(&mut elements)? {
            let got = self.scanner.peek()?;
            if got != Kind::Object {
                return Err(wrong_type(&format!("{param}[{index}]"), "an object", got));
            }
            self.scanner.skip_value()?;
            index += 1;
        }
        if index > 0 {
            self.needs.tools = true;
            // The definitions are part of what the model reads, nearly as they stand.
            let end = self.scanner.at();
            self.prompt.add_bytes(end - start);
            self.prompt.beginnings.head(&self.text.as_bytes()[start..end]);
        }
        Ok(())
    }

    fn read_tool_choice(&mut self) -> Result<(), Invalid> {
        match self.scanner.peek()? {
            Kind::String | Kind::Object | Kind::Null => {
                self.scanner.skip_value()?;
                Ok(())
            }
            got @ (Kind::Array | Kind::Number | Kind::Bool) => {
                Err(wrong_type("tool_choice", "a string or an object", got))
            }
        }
    }

    /// Options in which the format of the answer stands: `text` of a response, Anthropic's `output_config`.
    fn read_format_within(&mut self, param: &str) -> Result<(), Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type(param, "an object", got));
        }
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            if key.is("format") {
                self.read_format(&format!("{param}.format"))?;
            } else {
                self.scanner.skip_value()?;
            }
        }
        Ok(())
    }

    fn read_format(&mut self, param: &str) -> Result<(), Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type(param, "an object", got));
        }
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            if key.is("type") {
                let format = text(&mut self.scanner, &format!("{param}.type"))?;
                self.needs.json_schema |= format.is_some_and(|format| format.is("json_schema"));
                self.formatted |= format.is_some_and(|format| !format.is("text"));
            } else {
                self.scanner.skip_value()?;
            }
        }
        Ok(())
    }

    fn read_user(&mut self) -> Result<(), Invalid> {
        let Some(user) = text(&mut self.scanner, "user")?.filter(|user| !user.is_empty()) else {
            return Ok(());
        };
        let meant = user.decode();
        let name = meant.as_deref().unwrap_or_else(|| user.raw());
        self.user_hash = Some(xxh3_64_with_seed(name.as_bytes(), self.salt));
        Ok(())
    }

    fn finish(self) -> Result<Request, Invalid> {
        let (model, version, span) = self.finish_model()?;
        self.require_prompt()?;
        self.require_limit()?;
        let choices = self.params.n.max(self.params.best_of).unwrap_or(1);
        Ok(Request {
            shape: self.shape,
            model,
            version,
            stream: self.stream,
            include_usage: self.include_usage,
            needs: self.needs,
            prompt_bytes: self.prompt.bytes,
            prompt_tokens_given: self.prompt.tokens_given,
            tokens_in_min: self.prompt.longest_tokens_min.unwrap_or(self.prompt.tokens_min()),
            messages: self.prompt.messages,
            images: self.prompt.images,
            tokens_out_max: self.tokens_out_max,
            choices: u32::try_from(choices).unwrap_or(u32::MAX),
            params: self.params,
            user_hash: self.user_hash,
            prefix_hash: self.prompt.prefix_hash(self.salt),
            prefix: self.prompt.beginnings.finish(),
            kept_by_provider: self.kept.iter().any(|kept| kept.kind != KeptKind::Thoughts),
            kept: self.kept,
            formatted: self.formatted,
            forbidden: self.forbidden,
            fallbacks: self.fallbacks,
            spans: Spans { model: span, ..self.spans },
            ..Request::of(self.operation)
        })
    }

    fn finish_model(&self) -> Result<(String, Option<String>, Span), Invalid> {
        let Some((model, span)) = self.model else {
            return Err(Invalid::field("model", "`model` is missing; name the model to use"));
        };
        if model.is_empty() {
            return Err(Invalid::field("model", "`model` is empty; name the model to use"));
        }
        if model.meant_bytes() > self.limits.model_bytes_max {
            return Err(impossible_model(&format!("is longer than {} bytes", self.limits.model_bytes_max)));
        }
        let name = model.decode().ok_or_else(|| impossible_model("is not text"))?;
        if name.chars().any(char::is_control) {
            return Err(impossible_model("contains control characters"));
        }
        let (name, version) = split_version(&name);
        Ok((name.to_owned(), version.map(str::to_owned), span))
    }

    fn require_prompt(&self) -> Result<(), Invalid> {
        let field = match self.operation {
            Operation::Chat => Field::Messages,
            Operation::Completion => Field::Prompt,
            // A response may be made from a stored prompt template instead.
            Operation::Response if self.seen & Field::Prompt.bit() != 0 => return Ok(()),
            // Has a reader of its own, which asks for its fields.
            Operation::Task(_) => return Ok(()),
            Operation::Embedding | Operation::Response => Field::Input,
            // Read by another dialect, and not by this one.
            Operation::Infer => return Err(Invalid::body("tensors are sent to /v2/models/{model}/infer")),
        };
        if self.seen & field.bit() != 0 {
            return Ok(());
        }
        let name = field.name();
        Err(Invalid::field(name, format!("`{name}` is missing")))
    }

    /// Anthropic's answers have a limit that the client sets.
    fn require_limit(&self) -> Result<(), Invalid> {
        if self.shape != Shape::AnthropicMessages || self.tokens_out_max.is_some() {
            return Ok(());
        }
        let message = "`max_tokens` is missing; say how many tokens the answer may have";
        Err(Invalid::field("max_tokens", message))
    }
}

fn misspelt(key: &Text<'_>, name: &str, param: &str) -> Invalid {
    let got = shown(&key.decode().unwrap_or_default());
    Invalid::field(param, format!("the field {got} differs from `{name}` only in case; spell it `{name}`"))
}
