//! What vLLM and SGLang publish of their KV cache: ZeroMQ messages of three frames, a topic, a number in sequence, and a
//! batch of events in MessagePack. Events are arrays or maps, by version. What the events name blocks by is the engine's
//! own, so blocks are counted here and not told apart.

mod msgpack;
pub mod zmtp;

use msgpack::Reader;

/// Events of one batch that are read.
const EVENTS_MAX: usize = 100_000;

/// Something that happened to a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvEvent {
    /// Blocks were stored.
    Stored {
        /// How many.
        blocks: u64,
        /// Tokens of each.
        block_tokens: u64,
    },
    /// Blocks had to go.
    Removed {
        /// How many.
        blocks: u64,
    },
    /// All went.
    Cleared,
}

/// What a message says; `None` where it is not one of these. What happens in host memory or on disks is left out.
pub fn read(frames: &[Vec<u8>]) -> Option<(u64, Vec<KvEvent>)> {
    let [_topic, number, batch] = frames else { return None };
    let number = u64::from_be_bytes(number.as_slice().try_into().ok()?);
    let mut reader = Reader::new(batch);
    if reader.array()? < 2 {
        return None;
    }
    reader.skip()?;
    let count = reader.array()?;
    let mut events = Vec::new();
    for _ in 0..count.min(EVENTS_MAX) {
        event(&mut reader, &mut events)?;
    }
    (count <= EVENTS_MAX).then_some((number, events))
}

/// What is known of an event while it is read.
#[derive(Default)]
struct Event {
    kind: Option<String>,
    blocks: u64,
    block_tokens: u64,
    elsewhere: bool,
}

impl Event {
    fn take(&mut self, field: &str, reader: &mut Reader<'_>) -> Option<()> {
        match field {
            "type" => self.kind = Some(reader.text()?.to_owned()),
            "block_hashes" => {
                let blocks = reader.array()?;
                self.blocks = blocks as u64;
                for _ in 0..blocks {
                    reader.skip()?;
                }
            }
            "block_size" => self.block_tokens = reader.unsigned()?,
            "medium" => self.elsewhere = !reader.nil() && reader.text()? != "GPU",
            _ => reader.skip()?,
        }
        Some(())
    }

    fn put(self, events: &mut Vec<KvEvent>) -> Option<()> {
        let event = match self.kind?.as_str() {
            "BlockStored" => KvEvent::Stored { blocks: self.blocks, block_tokens: self.block_tokens },
            "BlockRemoved" => KvEvent::Removed { blocks: self.blocks },
            "AllBlocksCleared" => KvEvent::Cleared,
            // Engines learn new words; this one is none of ours.
            _ => return Some(()),
        };
        if !self.elsewhere {
            events.push(event);
        }
        Some(())
    }
}

const STORED: [&str; 6] =
    ["block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium"];
const REMOVED: [&str; 2] = ["block_hashes", "medium"];

fn event(reader: &mut Reader<'_>, events: &mut Vec<KvEvent>) -> Option<()> {
    let mut event = Event::default();
    if let Some(fields) = reader.map() {
        for _ in 0..fields {
            let field = reader.text()?.to_owned();
            event.take(&field, reader)?;
        }
        return event.put(events);
    }
    let fields = reader.array()?;
    event.take("type", reader)?;
    let names: &[&str] = match event.kind.as_deref() {
        Some("BlockStored") => &STORED,
        Some("BlockRemoved") => &REMOVED,
        Some(_) | None => &[],
    };
    for at in 1..fields {
        event.take(names.get(at - 1).copied().unwrap_or_default(), reader)?;
    }
    event.put(events)
}

/// What a number in sequence says of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is the next.
    Next,
    /// It is the first that was seen: what was before is not known.
    First,
    /// Some were missed.
    Gap,
    /// The engine began anew.
    Restart,
}

/// The numbers of messages so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sequence {
    last: Option<u64>,
}

impl Sequence {
    /// Takes the next number.
    pub fn step(&mut self, number: u64) -> Step {
        match self.last.replace(number) {
            None if number == 0 => Step::Next,
            None => Step::First,
            Some(last) if last.checked_add(1) == Some(number) => Step::Next,
            Some(last) if number <= last => Step::Restart,
            Some(_) => Step::Gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(batch: &[u8]) -> Vec<Vec<u8>> {
        vec![b"kv-events".to_vec(), 7_u64.to_be_bytes().to_vec(), batch.to_vec()]
    }

    /// `[1.5, [event…]]`
    fn batch(events: &[Vec<u8>]) -> Vec<u8> {
        let head = [&[0x92, 0xcb][..], &1.5_f64.to_be_bytes(), &[0x90 | events.len() as u8]].concat();
        [head, events.concat()].concat()
    }

    fn text(text: &str) -> Vec<u8> {
        [&[0xa0 | text.len() as u8][..], text.as_bytes()].concat()
    }

    #[test]
    fn events_are_arrays_or_maps() {
        let hashes = vec![0x92, 0xcf, 1, 2, 3, 4, 5, 6, 7, 8, 0xc4, 2, 9, 9];
        let tokens = vec![0x93, 1, 0xcd, 1, 0, 0xff];
        let array = [
            vec![0x97],
            text("BlockStored"),
            hashes.clone(),
            vec![0xc0],
            tokens,
            vec![16, 0xc0],
            text("GPU"),
        ];
        let map = [
            vec![0x83],
            text("type"),
            text("BlockRemoved"),
            text("block_hashes"),
            hashes,
            text("medium"),
            vec![0xc0],
        ];
        let cpu = [vec![0x93], text("BlockRemoved"), vec![0x91, 5], text("CPU")];
        let new = [vec![0x92], text("BlockMoved"), vec![0x80]];
        let cleared = [vec![0x91], text("AllBlocksCleared")];
        let events = batch(&[array.concat(), map.concat(), cpu.concat(), new.concat(), cleared.concat()]);
        let expected = vec![
            KvEvent::Stored { blocks: 2, block_tokens: 16 },
            KvEvent::Removed { blocks: 2 },
            KvEvent::Cleared,
        ];
        assert_eq!(read(&frames(&events)), Some((7, expected)));
        for end in 0..events.len() {
            assert_eq!(read(&frames(&events[..end])), None, "cut at {end}");
        }
        assert_eq!(read(&frames(&[0x92, 1, 0xdd, 0xff, 0xff, 0xff, 0xff])), None, "more than there can be");
        assert_eq!(read(&frames(&events)[..2]), None);
    }

    #[test]
    fn gaps_and_restarts_are_seen() {
        let mut sequence = Sequence::default();
        let steps: Vec<Step> = [5, 6, 8, 9, 0, 1].into_iter().map(|number| sequence.step(number)).collect();
        assert_eq!(steps, [Step::First, Step::Next, Step::Gap, Step::Next, Step::Restart, Step::Next]);
        assert_eq!(Sequence::default().step(0), Step::Next, "all was seen");
    }
}
