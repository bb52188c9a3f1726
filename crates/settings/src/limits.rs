//! Bounds of what can be configured.

/// Bytes of a config file.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nesting of a config file.
pub const DEPTH_MAX: usize = 32;
/// Maps, lists and values of a config file.
pub const NODES_MAX: usize = 250_000;
/// Uses of YAML anchors in a config file.
pub const ALIASES_MAX: usize = 1_000;
/// Nodes that the uses of anchors may stand for.
pub const ALIAS_NODES_MAX: usize = 50_000;
/// Deployments of what is imported, those that stand in for others included.
pub const IMPORTED_DEPLOYMENTS_MAX: usize = 50_000;
/// Problems that are told at once.
pub const PROBLEMS_MAX: usize = 32;
/// Places of a config file with mistakes that are stood in for, to read on.
pub const STAND_INS_MAX: usize = 100;
/// Bytes of a name.
pub const NAME_BYTES_MAX: usize = 256;
/// The longest time, milliseconds: a day.
pub const TIME_MS_MAX: u64 = 86_400_000;
/// The longest that a drained deployment may go on with what is in flight, milliseconds.
pub const DRAIN_MS_MAX: u64 = 120_000;
/// The same, where it is not configured.
pub(crate) const DRAIN_MS_USUAL: u64 = 60_000;
/// The longest that a session is remembered, seconds: a day.
pub const STICKY_TTL_S_MAX: u32 = 86_400;
/// The shortest time between two health checks of a provider, milliseconds.
pub const HEALTH_INTERVAL_MS_MIN: u64 = 100;
/// The shortest time between two looks at an idle engine's metrics, milliseconds.
pub const ENGINE_IDLE_MS_MIN: u64 = 100;
/// The longest.
pub const ENGINE_IDLE_MS_MAX: u64 = 60_000;
/// The shortest time between two looks at a busy engine's metrics, milliseconds.
pub const ENGINE_BUSY_MS_MIN: u64 = 10;
/// The longest time that one look may take, milliseconds.
pub const ENGINE_TIMEOUT_MS_MAX: u64 = 10_000;
/// Connections, slots, queued requests and records.
pub const COUNT_MAX: u64 = 1_000_000;
/// Tokens in flight.
pub const TOKENS_MAX: u64 = 1_000_000_000_000;
/// How often a batch request may have to give its slot away.
pub const PREEMPT_TIMES_MAX: u32 = 100;
/// The greatest weight of a deployment or an arm.
pub const WEIGHT_MAX: u32 = 10_000;
/// Entries of the list of hosts and networks that may be connected to.
pub const EGRESS_ENTRIES_MAX: usize = 1_000;
/// Sends of one request.
pub const ATTEMPTS_MAX: u32 = 10;
/// Threads that serve clients.
pub const WORKERS_MAX: usize = 256;
/// The least that request bodies can be limited to, bytes.
pub const BODY_BYTES_MIN: u64 = 1024;
/// The greatest request body, bytes: 1 GiB.
pub const BODY_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of the files of one tenant: 1 PiB.
pub const STORED_BYTES_MAX: u64 = 1 << 50;
/// The longest that files are kept, hours: ten years.
pub const KEEP_HOURS_MAX: u64 = 87_600;
/// Requests of one batch.
pub const BATCH_LINES_MAX: u32 = 1_000_000;
/// The shortest time after which what a process holds may be taken over, milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The longest, milliseconds.
pub const LEASE_MS_MAX: u64 = 600_000;
/// The least memory that the process can be limited to, bytes: 32 MiB.
pub const MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;
/// Characters a client key has at least.
pub const KEY_CHARS_MIN: usize = 8;
