//! A request whose body is not there as a whole: it passes by while it is sent. Only its beginning is kept, and once more
//! than that has left, the request cannot be sent again.

use super::{Flow, State};
use crate::time::Now;

/// What is there of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// All of it.
    Whole,
    /// Its beginning. The rest comes while it is sent, so that only one attempt at a time can have it.
    Passing,
    /// What comes now. What went by is gone.
    Gone,
}

impl Flow {
    /// The body is not there as a whole. To be said before the request arrives.
    pub fn pass_body(&mut self) {
        self.body = Body::Passing;
    }

    /// More of the body has left than is kept.
    pub fn note_gone(&mut self) {
        self.body = Body::Gone;
    }

    /// A part of the body left: a provider's time for its answer begins when it has what it is asked. Touches no fleet.
    pub fn on_upload(&mut self, now: Now) {
        let patience = self.patience();
        if let State::AwaitingHeaders { until } = &mut self.state {
            *until = now + patience;
        }
    }
}
