//! Bounds, with their names.

use std::time::Duration;

/// The longest a deployment or credential is left alone on a provider's word.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(5);
/// How long a credential is left alone after its first 429 that does not say; doubles with each further one.
pub const COOLING_MIN: Duration = Duration::from_secs(1);
/// The longest that doubling goes.
pub const COOLING_MAX: Duration = Duration::from_mins(1);
/// What a failure counts as where latencies are compared, unless the provider asked for longer (the load biaser of
/// linkerd2-proxy uses the same).
pub const FAILURE_LATENCY: Duration = Duration::from_secs(5);
/// Time after which what is known of latency or failures has lost two thirds of its weight.
pub const DECAY: Duration = Duration::from_secs(10);
/// The same for times to connect: kept connections make new ones rare, and distances do not change.
pub const CONNECT_DECAY: Duration = Duration::from_mins(10);
/// Output tokens that a request is thought to use when it does not say.
pub const TOKENS_OUT_ASSUMED: u64 = 256;
/// Tokens in or out that the usage of one answer is believed to have at most.
pub const USAGE_TOKENS_MAX: u64 = 1 << 24;
/// The least that a client is told to wait when all is full.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// Time after which one who waits for a slot looks again, whatever it was told to wait for.
pub const QUEUE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// The window that `rpm` and `tpm` speak of.
pub const QUOTA_WINDOW: Duration = Duration::from_mins(1);
/// How long a deployment is believed that said it does not have an operation or a model.
pub const MISSING_BELIEVED: Duration = Duration::from_mins(1);
/// Tenants of whom it is remembered what they were served, for each class of each model; more share one account.
pub const TENANTS_MAX: usize = 1_024;
/// Tenants that are shown of each class of each model.
pub const TENANTS_SHOWN_MAX: usize = 32;
/// Waiters that one decision or release looks at because what they could use is no longer what it was.
pub const WAITERS_MOVED_MAX: usize = 32;
/// How long a deployment that is slow is passed over without another look at its times.
pub const SLOW_BELIEVED: Duration = Duration::from_secs(3);
/// A wait that is given up by a request that looks whether a deployment works again, and counts against it where nobody
/// knows how long it should take.
pub const PROBE_LATE: Duration = Duration::from_secs(1);
/// How long a deployment's usual time to first content keeps away requests that have less time.
pub const SPEED_BELIEVED: Duration = Duration::from_secs(30);
/// Prompt tokens that a deployment is thought to keep in its cache where nobody says.
pub const CACHE_TOKENS_ASSUMED: u64 = 1 << 20;
/// Beginnings of prompts that are remembered per deployment, whatever its cache holds.
pub const PREFIX_NODES_MAX: usize = 16_384;
/// Sessions per model whose deployment is remembered.
pub const SESSIONS_MAX: usize = 65_536;
/// Ids of kept answers and the like whose account is remembered, of all tenants.
pub const ISSUED_MAX: usize = 262_144;
/// The same of one tenant.
pub const ISSUED_OF_TENANT_MAX: usize = 16_384;
/// How long they are remembered: as long as providers keep answers.
pub const ISSUED_TTL: Duration = Duration::from_hours(30 * 24);
/// Tenants per model whose usual output is remembered.
pub const OUTPUTS_MAX: usize = 1_024;
