//! Ollama: `/api/ps` says which models are in memory. It says nothing of its queue.

use serde::Deserialize;

use super::{Ask, Family, Misread, Reading, Signal};

pub(super) static FAMILY: Family = Family {
    name: "ollama",
    tells_slots: false,
    publishes: false,
    asks: &[Ask { path: "/api/ps", metrics: false, rarely: false, expected: &[Signal::Awake], read }],
};

#[derive(Deserialize)]
struct Processes {
    models: Option<Vec<Loaded>>,
}

#[derive(Deserialize)]
struct Loaded {
    name: Option<String>,
    model: Option<String>,
}

impl Loaded {
    fn is(&self, wanted: &str) -> bool {
        let same = |name: &String| name == wanted || name.strip_suffix(":latest") == Some(wanted);
        self.name.as_ref().is_some_and(same) || self.model.as_ref().is_some_and(same)
    }
}

fn read(answer: &[u8], model: &str) -> Result<Reading, Misread> {
    let processes: Processes = serde_json::from_slice(answer).map_err(Misread::json)?;
    let loaded = processes.models.map(|models| models.iter().any(|loaded| loaded.is(model)));
    Ok(Reading { awake: loaded, ..Reading::default() })
}
