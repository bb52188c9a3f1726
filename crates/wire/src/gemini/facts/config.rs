//! `generationConfig`, held to types and ranges.

use crate::json::{Kind, Scanner};
use crate::openai::error::Invalid;
use crate::openai::request::BodyLimits;
use crate::openai::request::foreign::{expect, member_of};
use crate::openai::request::values::{absent, boolean, count, integer, number, text};

use super::{Config, once};

/// Fields that are acted on, in both spellings.
const FIELDS: [(&str, &str); 12] = [
    ("temperature", "temperature"),
    ("topP", "top_p"),
    ("presencePenalty", "presence_penalty"),
    ("frequencyPenalty", "frequency_penalty"),
    ("candidateCount", "candidate_count"),
    ("maxOutputTokens", "max_output_tokens"),
    ("responseLogprobs", "response_logprobs"),
    ("logprobs", "logprobs"),
    ("seed", "seed"),
    ("responseMimeType", "response_mime_type"),
    ("responseSchema", "response_schema"),
    ("responseJsonSchema", "response_json_schema"),
];

pub(super) fn read(
    scanner: &mut Scanner<'_>,
    at: &str,
    limits: &BodyLimits,
    config: &mut Config,
) -> Result<(), Invalid> {
    if absent(scanner)? {
        return Ok(());
    }
    expect(scanner, Kind::Object, || at.to_owned())?;
    let path = format!("{at}.");
    let (mut members, mut seen) = (scanner.object()?, 0_u32);
    while let Some(key) = scanner.next_key(&mut members)? {
        let Some(field) = member_of(&key, &FIELDS, &path)? else {
            scanner.skip_value()?;
            continue;
        };
        let name = FIELDS[field].0;
        let at = format!("{path}{name}");
        once(&mut seen, field, || at.clone())?;
        let params = &mut config.params;
        match name {
            "temperature" => params.temperature = number(scanner, &at, (0.0, 2.0))?,
            "topP" => params.top_p = number(scanner, &at, (0.0, 1.0))?,
            "presencePenalty" => params.presence_penalty = number(scanner, &at, (-2.0, 2.0))?,
            "frequencyPenalty" => params.frequency_penalty = number(scanner, &at, (-2.0, 2.0))?,
            "candidateCount" => params.n = count(scanner, &at, (1, u64::from(limits.choices_max)))?,
            "maxOutputTokens" => config.tokens_out_max = count(scanner, &at, (1, limits.tokens_out_max))?,
            "responseLogprobs" => params.logprobs = boolean(scanner, &at)?.map(u64::from),
            "logprobs" => params.top_logprobs = count(scanner, &at, (0, 20))?,
            "seed" => params.seed = integer(scanner, &at)?,
            "responseMimeType" => {
                let media_type = text(scanner, &at)?;
                config.formatted |= media_type.is_some_and(|kind| !kind.is_empty() && !kind.is("text/plain"));
            }
            _ => {
                let schema = !absent(scanner)?;
                if schema {
                    scanner.skip_value()?;
                }
                config.schema |= schema;
                config.formatted |= schema;
            }
        }
    }
    Ok(())
}
