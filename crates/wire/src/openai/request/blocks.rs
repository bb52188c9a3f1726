//! What only a body of Anthropic's has: blocks with sources, results of tools, the system prompt's place.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json::{Kind, Text};
use crate::openai::error::Invalid;

use super::body::Reader;
use super::kept::KeptKind;
use super::values::{absent, text, wrong_type};

impl<'a> Reader<'a, '_> {
    /// A member of a block beside its type and text. `false` if it is none that is read.
    pub(super) fn read_block_member(
        &mut self,
        key: &Text<'a>,
        param: &dyn Fn() -> String,
    ) -> Result<bool, Invalid> {
        let kind = self.scanner.peek()?;
        match key.raw() {
            "source" if kind == Kind::Object => self.read_source(param)?,
            // What a tool gave.
            "content" if matches!(kind, Kind::String | Kind::Array) => {
                self.read_inner(&|| format!("{}.content", param()))?;
            }
            // What a tool was called with.
            "input" if kind == Kind::Object => drop(self.prompt_raw()?),
            "thinking" | "title" | "context" if kind == Kind::String => {
                let text = self.scanner.string()?;
                self.prompt.add_text(text);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A text, or blocks. The scanner bounds how deep this calls itself.
    fn read_inner(&mut self, param: &dyn Fn() -> String) -> Result<(), Invalid> {
        if self.scanner.peek()? == Kind::String {
            let text = self.scanner.string()?;
            self.prompt.add_text(text);
            return Ok(());
        }
        let mut blocks = self.scanner.array()?;
        let mut index = 0;
        while self.scanner.next_element(&mut blocks)? {
            self.read_part(&|| format!("{}[{index}]", param()))?;
            index += 1;
        }
        Ok(())
    }

    /// Where media are. A plain text counts as one, blocks as what they are, anything else is not looked into.
    fn read_source(&mut self, param: &dyn Fn() -> String) -> Result<(), Invalid> {
        let span = self.scanner.clone().skip_value()?;
        let (mut plain, mut nested, mut data) = (false, false, None);
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            let kind = self.scanner.peek()?;
            match key.raw() {
                "type" if kind == Kind::String => plain = self.scanner.string()?.is("text"),
                "file_id" if kind == Kind::String => {
                    let id = self.scanner.string()?;
                    self.keep(|| format!("{}.source.file_id", param()), &id, KeptKind::File);
                }
                "data" if kind == Kind::String => data = Some(self.scanner.string()?),
                "content" if matches!(kind, Kind::String | Kind::Array) => {
                    nested = true;
                    self.read_inner(&|| format!("{}.source.content", param()))?;
                }
                _ => drop(self.scanner.skip_value()?),
            }
        }
        match data {
            Some(text) if plain => self.prompt.add_text(text),
            Some(_) | None if nested => {}
            Some(_) | None => {
                self.prompt.beginnings.media(&self.text.as_bytes()[span.start..span.end]);
            }
        }
        Ok(())
    }

    /// Only who asks matters of what is known of a request.
    pub(super) fn read_metadata(&mut self) -> Result<(), Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type("metadata", "an object", got));
        }
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            if key.is("user_id") {
                let user = text(&mut self.scanner, "metadata.user_id")?.filter(|user| !user.is_empty());
                self.user_hash = user.map(|user| {
                    let meant = user.decode();
                    xxh3_64_with_seed(meant.as_deref().unwrap_or_else(|| user.raw()).as_bytes(), self.salt)
                });
            } else {
                self.scanner.skip_value()?;
            }
        }
        Ok(())
    }

    /// An object that is only passed on.
    pub(super) fn read_object(&mut self, param: &str) -> Result<(), Invalid> {
        match self.scanner.peek()? {
            Kind::Object | Kind::Null => drop(self.scanner.skip_value()?),
            got @ (Kind::Array | Kind::String | Kind::Number | Kind::Bool) => {
                return Err(wrong_type(param, "an object", got));
            }
        }
        Ok(())
    }

    /// Texts that end the answer.
    pub(super) fn read_stop_sequences(&mut self) -> Result<(), Invalid> {
        const PARAM: &str = "stop_sequences";
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Array {
            return Err(wrong_type(PARAM, "an array of strings", got));
        }
        let mut elements = self.scanner.array()?;
        let mut index = 0_usize;
        while self.scanner.next_element(&mut elements)? {
            let got = self.scanner.peek()?;
            if got != Kind::String {
                return Err(wrong_type(&format!("{PARAM}[{index}]"), "a string", got));
            }
            self.scanner.string()?;
            index += 1;
        }
        Ok(())
    }
}
