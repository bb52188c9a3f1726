//! The mock in other dialects than its own: what it is asked is turned into its own, and what it says into the other.

use pointsman_wire::chat::Losses;
use pointsman_wire::dialect::{
    self, Asked, CONVERTED_DEPTH_MAX, ClientDef, Elsewhere, ReadStream, Told, WriteStream,
};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::BodyLimits;
use pointsman_wire::openai::chat::provider;
use pointsman_wire::openai::request::Operation;
use serde_json::{Value, json};

/// A dialect that the mock is asked in, other than its own.
#[derive(Clone)]
pub(super) struct Other {
    def: &'static ClientDef,
    asked: Asked,
    model: String,
}

impl Other {
    /// The dialect of a path, unless it is the mock's own.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let (def, asked) = dialect::route(path, query).filter(|(def, _)| !def.is_openai())?;
        Some(Self { def, asked, model: String::new() })
    }

    /// The path in the mock's own dialect.
    pub(super) const fn own_path(&self) -> &'static str {
        if self.embeds() { "/v1/embeddings" } else { "/v1/chat/completions" }
    }

    const fn embeds(&self) -> bool {
        matches!(self.asked.operation, Operation::Embedding)
    }

    /// The body in the mock's own dialect, or what is wrong with it.
    pub(super) fn own(&mut self, body: &str) -> Result<Value, String> {
        let limits = BodyLimits::default();
        let request =
            (self.def.read)(&self.asked, body.as_bytes(), &limits, 0).map_err(|invalid| invalid.message)?;
        self.model = request.model_asked();
        if self.embeds() || self.asked.elsewhere == Elsewhere::Estimated {
            let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
            let texts = body["requests"].as_array().map_or(1, Vec::len);
            return Ok(json!({"model": self.model, "input": vec![""; texts]}));
        }
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX).map_err(|error| error.to_string())?;
        let mut all = self.def.dialect.conversation(tree).map_err(|invalid| invalid.message)?;
        all.stream = request.stream;
        let own = provider::DEF.dialect.request(&all, &self.model, &mut Losses::default());
        serde_json::from_str(&own).map_err(|error| error.to_string())
    }

    /// The media type of streams.
    pub(super) fn stream_type(&self) -> &'static str {
        (self.def.stream_type)(&self.asked)
    }

    fn told(&self) -> Told {
        Told {
            call: self.asked.call,
            model: self.model.clone(),
            now_unix_s: 0,
            id: "mock".to_owned(),
            stream_usage: true,
            ..Told::default()
        }
    }

    /// A whole answer of the mock's, said in the dialect.
    pub(super) fn whole(&self, own: &Value) -> String {
        if self.asked.elsewhere == Elsewhere::Estimated {
            return self.def.dialect.counted(own["usage"]["prompt_tokens"].as_u64().unwrap_or(0));
        }
        if self.embeds() {
            return self.embedded(own);
        }
        let Ok(answer) = provider::DEF.dialect.answer(&own.to_string()) else { return own.to_string() };
        self.def.dialect.answer(&answer, &self.told(), &mut Losses::default())
    }

    /// Embeddings as Gemini has them, the only other dialect that knows some.
    fn embedded(&self, own: &Value) -> String {
        let all = own["data"].as_array().into_iter().flatten();
        let mut all: Vec<Value> = all.map(|one| json!({"values": one["embedding"]})).collect();
        match self.asked.call {
            "batchEmbedContents" => json!({"embeddings": all}),
            _ => json!({"embedding": all.pop()}),
        }
        .to_string()
    }

    /// Says the events of a stream of the mock's in the dialect, one after the other.
    pub(super) fn stream(&self) -> Interpreter {
        Interpreter { reader: provider::DEF.dialect.stream(), writer: self.def.dialect.stream(self.told()) }
    }
}

/// Says events in another dialect.
pub(super) struct Interpreter {
    reader: Box<dyn ReadStream>,
    writer: Box<dyn WriteStream>,
}

impl Interpreter {
    /// What an event is in the dialect; nothing for one that is not shown there.
    pub(super) fn say(&mut self, own: &str) -> String {
        let (mut events, mut text) = (Vec::new(), String::new());
        if self.reader.push(own.as_bytes(), &mut events).is_ok() {
            for event in &events {
                self.writer.write(event, &mut text);
            }
        }
        text
    }
}
