//! Handles to what the fleet holds. They stay valid across reloads and never point at a successor: an index is
//! reused only with a new generation.

use serde::{Deserialize, Serialize};

macro_rules! handle {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name {
            pub(crate) index: u32,
            pub(crate) generation: u32,
        }

        impl crate::slab::Handle for $name {
            fn new(index: u32, generation: u32) -> Self {
                Self { index, generation }
            }

            fn index(self) -> usize {
                self.index as usize
            }

            fn generation(self) -> u32 {
                self.generation
            }
        }
    };
}

handle!(
    /// A model of the fleet.
    ModelId
);
handle!(
    /// A deployment of a model.
    DeploymentId
);
handle!(
    /// A credential of a provider.
    CredentialId
);

handle!(
    /// What a tenant was served of a model.
    AccountId
);

/// Which request came before which. Grows with arrival, and stays the same however often a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Arrival(pub(crate) u64);

/// A request that waits for a slot. Grows with every wait, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket(pub u64);
