//! `fallbacks`: the models to try when the one asked for cannot serve. An extension of this router's own, which no upstream
//! gets to see.

use crate::json::Kind;
use crate::openai::error::Invalid;

use super::body::Reader;
use super::values::{absent, wrong_type};

/// Models a request may name.
pub const FALLBACKS_MAX: usize = 8;

const PARAM: &str = "fallbacks";

impl Reader<'_, '_> {
    pub(super) fn read_fallbacks(&mut self) -> Result<(), Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(());
        }
        let got = self.scanner.peek()?;
        if got != Kind::Array {
            return Err(wrong_type(PARAM, "an array of model names", got));
        }
        let mut elements = self.scanner.array()?;
        while self.scanner.next_element(&mut elements)? {
            let param = format!("{PARAM}[{}]", self.fallbacks.len());
            if self.fallbacks.len() == FALLBACKS_MAX {
                let message = format!("`{PARAM}` names more than {FALLBACKS_MAX} models");
                return Err(Invalid::field(PARAM, message));
            }
            let got = self.scanner.peek()?;
            if got != Kind::String {
                return Err(wrong_type(&param, "a string", got));
            }
            let name = self.scanner.string()?;
            let bytes_max = self.limits.model_bytes_max;
            let good = |name: &str| {
                !name.is_empty() && name.len() <= bytes_max && !name.chars().any(char::is_control)
            };
            let Some(name) = name.decode().filter(|name| good(name)) else {
                let message = format!(
                    "`{param}` must be a model's name: 1 to {bytes_max} bytes, no control characters"
                );
                return Err(Invalid::field(param, message));
            };
            self.fallbacks.push(name.into_owned());
        }
        Ok(())
    }
}
