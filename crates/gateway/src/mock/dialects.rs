//! The mock in other dialects than its own: what it is asked is turned into its own, and what it says into the other.

use pointsman_wire::chat::Losses;
use pointsman_wire::dialect::{self, Asked, CONVERTED_DEPTH_MAX, ClientDef, ReadStream, Told, WriteStream};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::chat::provider;
use serde_json::Value;

/// The mock's own dialect.
const OWN: &str = "openai";

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
        let (def, asked) = dialect::route(path).filter(|(def, _)| def.name != OWN)?;
        Some(Self { def, asked, model: String::new() })
    }

    /// The body in the mock's own dialect, or what is wrong with it.
    pub(super) fn own(&mut self, body: &str) -> Result<Value, String> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX).map_err(|error| error.to_string())?;
        let named = tree.get("model").and_then(Tree::text).map(str::to_owned);
        self.model = self.asked.model.clone().or(named).unwrap_or_else(|| "mock-model".to_owned());
        let streams = tree.get("stream").and_then(Tree::boolean);
        let mut all = self.def.dialect.conversation(tree).map_err(|invalid| invalid.message)?;
        all.stream = self.asked.stream.or(streams).unwrap_or(all.stream);
        let own = provider::DEF.dialect.request(&all, &self.model, &mut Losses::default());
        serde_json::from_str(&own).map_err(|error| error.to_string())
    }

    /// The media type of streams.
    pub(super) fn stream_type(&self) -> &'static str {
        self.def.stream_type
    }

    fn told(&self) -> Told {
        Told { model: self.model.clone(), now_unix_s: 0, id: "mock".to_owned(), stream_usage: true }
    }

    /// A whole answer of the mock's, said in the dialect.
    pub(super) fn whole(&self, own: &Value) -> String {
        let Ok(answer) = provider::DEF.dialect.answer(&own.to_string()) else { return own.to_string() };
        self.def.dialect.answer(&answer, &self.told(), &mut Losses::default())
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
