//! BurstGPT: a table of requests to two models, failures among them.

use super::TraceError;
use super::csv::{Columns, utf8};
use crate::workload::{Record, mix};

impl Columns {
    /// A request, or nothing if it failed: those have no answer.
    pub(super) fn burst(&self, line: &[u8]) -> Result<Option<Record>, TraceError> {
        let line = utf8(line)?;
        let at_s = self.seconds(line, "timestamp")?;
        let (tokens_in, tokens_out) =
            (self.tokens(line, "requesttokens")?, self.tokens(line, "responsetokens")?);
        if tokens_out == 0 {
            return Ok(None);
        }
        let session = self.field(line, "sessionid").filter(|id| !id.is_empty());
        let session = session.map_or(0, |id| id.bytes().fold(1, |hash, byte| mix(hash ^ u64::from(byte))));
        // Its two models are played on the one that is asked for, so their names are left out.
        Ok(Some(Record { at_ns: (at_s * 1e9) as u64, tokens_in, tokens_out, session, ..Record::default() }))
    }
}
