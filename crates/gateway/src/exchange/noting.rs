//! What is noted of an answer while it is read: what is worth telling of it, and whether it fits its schema.

use std::sync::Arc;

use pointsman_wire::chat::{Answer, Event, Finding, Findings, Tally};

use crate::structured::{Misfit, Schema, Watch};

/// What is noted of one answer.
#[derive(Default)]
pub(super) struct Noting {
    schema: Option<Arc<Schema>>,
    /// Whether nothing of the answer is passed on before it was checked.
    holds: bool,
    watch: Option<Box<Watch>>,
    tally: Tally,
    findings: Findings,
    misfit: Option<Box<Misfit>>,
}

impl Noting {
    /// For an answer that has to fit `schema`, if that is given; one that was not asked for as a stream is held back.
    pub(super) fn of(schema: Option<&Arc<Schema>>, streams: bool) -> Self {
        Self { schema: schema.map(Arc::clone), holds: schema.is_some() && !streams, ..Self::default() }
    }

    /// Whether nothing of the answer is passed on before it was checked.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// A stream begins.
    pub(super) fn begin_stream(&mut self) {
        let schema = self.schema.as_ref();
        self.watch = schema.map(|schema| Box::new(Watch::new(Arc::clone(schema), None)));
    }

    /// Takes the next event of a stream in.
    pub(super) fn take(&mut self, event: &Event) {
        self.tally.take(event);
        if let Some(watch) = &mut self.watch {
            watch.take(event);
        }
    }

    /// Takes a whole answer in.
    pub(super) fn take_whole(&mut self, answer: &Answer) {
        self.findings = Findings::of_answer(answer);
        let Some(misfit) = self.schema.as_ref().and_then(|schema| schema.check(answer)) else { return };
        self.findings.insert(Finding::SchemaMismatch);
        self.misfit = Some(Box::new(misfit)).filter(|_| self.holds);
    }

    /// What was held back and does not fit, once.
    pub(super) fn take_misfit(&mut self) -> Option<Box<Misfit>> {
        self.misfit.take()
    }

    /// Whether something was held back that does not fit.
    pub(super) fn is_misfit(&self) -> bool {
        self.misfit.is_some()
    }

    /// What is worth telling of the answer. Asked when its attempt is over.
    pub(super) fn findings(&mut self) -> Findings {
        let mut findings = self.findings;
        findings.extend(self.tally.findings());
        if self.watch.take().is_some_and(|mut watch| watch.is_misfit()) {
            self.findings.insert(Finding::SchemaMismatch);
            findings.insert(Finding::SchemaMismatch);
        }
        findings
    }
}
