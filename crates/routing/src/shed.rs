//! Who is turned away when there is too much of everything, and in which order: batch traffic first, then all new
//! requests, then connections. What is under way is never touched.
//!
//! Two measures. The memory of the process as a share of what it may have decides in grades, as Envoy's overload manager
//! does; a grade is left only some way below where it was entered, so that it does not flap. Each lane of a model has a
//! queue of its own.
//!
//! Pure and small: whoever reads the memory gives it here, and does what comes out before a body is read.

use crate::facts::Lane;

/// Share of memory from which batch requests are turned away.
pub const MEMORY_BATCH: f64 = 0.85;
/// Share of memory from which all new requests are.
pub const MEMORY_NEW: f64 = 0.92;
/// Share of memory from which connections are.
pub const MEMORY_CONNECTIONS: f64 = 0.95;
/// How far memory has to fall below where a grade begins for it to end.
const MEMORY_BACK: f64 = 0.02;

/// How much is turned away, by memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Grade {
    /// Nothing.
    #[default]
    None,
    /// New batch requests.
    Batch,
    /// All new requests.
    New,
    /// New connections too, and those there are close after their next answer.
    Connections,
}

impl Grade {
    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Batch => "batch",
            Self::New => "new",
            Self::Connections => "connections",
        }
    }

    /// The grade after this one, now that such a share of memory is used.
    #[must_use]
    pub fn next(self, memory_used: f64) -> Self {
        let of = |used: f64| match used {
            used if used >= MEMORY_CONNECTIONS => Self::Connections,
            used if used >= MEMORY_NEW => Self::New,
            used if used >= MEMORY_BATCH => Self::Batch,
            _ => Self::None,
        };
        // Up at once, down some way below.
        of(memory_used).max(self.min(of(memory_used + MEMORY_BACK)))
    }

    /// Why a new request of a lane is turned away, if it is.
    pub const fn against(self, lane: Lane) -> Option<Reason> {
        match (self, lane) {
            (Self::None, _) | (Self::Batch, Lane::Live) => None,
            (Self::Batch, Lane::Batch) => Some(Reason::MemoryBatch),
            (Self::New | Self::Connections, _) => Some(Reason::MemoryNew),
        }
    }

    /// Whether connections are turned away.
    pub const fn refuses_connections(self) -> bool {
        matches!(self, Self::Connections)
    }
}

/// Why something was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Memory is short, and it was batch traffic.
    MemoryBatch,
    /// Memory is shorter, and it was a new request.
    MemoryNew,
    /// Memory is nearly out, and it was a new connection.
    MemoryConnection,
    /// The queue of its lane was full.
    QueueFull,
    /// The lane is overloaded, newest first, and it had waited too long to be next.
    QueueOverloaded,
    /// It could not have been served by its deadline.
    TooLate,
}

impl Reason {
    /// The name in metrics and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MemoryBatch => "memory_batch",
            Self::MemoryNew => "memory_new",
            Self::MemoryConnection => "memory_connection",
            Self::QueueFull => "queue_full",
            Self::QueueOverloaded => "queue_overloaded",
            Self::TooLate => "too_late",
        }
    }
}

/// Whether the queue of a lane of at most `most` in which `waiting` wait has room for one more.
pub const fn queue_has_room(waiting: u32, most: u32) -> bool {
    waiting < most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b11_memory_turns_away_in_grades_and_comes_back_late() {
        let mut grade = Grade::None;
        for (used, expected) in [
            (0.10, Grade::None),
            (0.849, Grade::None),
            (0.85, Grade::Batch),
            (0.84, Grade::Batch),
            (0.92, Grade::New),
            (0.91, Grade::New),
            (0.89, Grade::Batch),
            (0.82, Grade::None),
            (0.99, Grade::Connections),
            (0.94, Grade::Connections),
            (0.925, Grade::New),
            (10.0, Grade::Connections),
            (0.5, Grade::None),
        ] {
            grade = grade.next(used);
            assert_eq!(grade, expected, "at {used}");
        }
    }

    #[test]
    fn b11_batch_goes_before_live_and_live_before_connections() {
        for (grade, live, batch, connections) in [
            (Grade::None, None, None, false),
            (Grade::Batch, None, Some(Reason::MemoryBatch), false),
            (Grade::New, Some(Reason::MemoryNew), Some(Reason::MemoryNew), false),
            (Grade::Connections, Some(Reason::MemoryNew), Some(Reason::MemoryNew), true),
        ] {
            assert_eq!((grade.against(Lane::Live), grade.against(Lane::Batch)), (live, batch), "{grade:?}");
            assert_eq!(grade.refuses_connections(), connections, "{grade:?}");
        }
    }
}
