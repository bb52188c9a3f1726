//! What a client may say about its request besides the body: the `x-pointsman-*` hints. None is ever forwarded.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use pointsman_routing::Now;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::{Class, Lane, Objective};
use pointsman_settings::auth::Hint;
use pointsman_wire::openai::error::ErrorBody;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::auth::ClientKey;
use crate::snapshot::Model;

/// Tags a request may ask for.
const TAGS_MAX: usize = 8;
/// Bytes a hint may have.
const HINT_BYTES_MAX: usize = 256;

/// What a client said about its request.
#[derive(Debug, Default)]
pub struct Hints {
    /// Hash of the session, salted with the tenant.
    pub session_hash: Option<u64>,
    /// The region it would like.
    pub region: Option<Name>,
    /// Tags the deployment must carry.
    pub tags: SmallVec<[Name; 2]>,
    /// When it wants the whole answer.
    pub deadline: Option<Now>,
    /// How fast it would like the answer.
    pub objective: Objective,
    /// The lane it wants to be in.
    pub lane: Option<Lane>,
    /// The class it wants to be of.
    pub class: Option<Class>,
}

/// The lane of a request whose other hints are not read yet; a hint that is wrong is told of later.
pub fn lane(headers: &HeaderMap, client: &ClientKey) -> Lane {
    const LANE: HeaderName = HeaderName::from_static(Hint::Lane.header());
    let hint = headers.get(LANE).filter(|_| client.may_hint(Hint::Lane));
    match hint.map(|value| value.as_bytes().trim_ascii()) {
        Some(b"batch") => Lane::Batch,
        Some(b"live") => Lane::Live,
        Some(_) | None => client.lane.unwrap_or_default(),
    }
}

fn millis(value: &str) -> Result<Duration, &'static str> {
    let millis = value.parse().ok().filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or("must be a whole number of milliseconds above 0")
}

/// Why a class that was asked for is not given.
enum ClassRefused {
    Unknown,
    TooHigh(Class),
}

impl ClassRefused {
    fn error(&self, header: &'static str) -> ErrorBody {
        let error = match self {
            Self::Unknown => {
                let text = "must be `system`, `interactive`, `standard` or `batch`";
                ErrorBody::malformed(format!("header `{header}` {text}"))
            }
            Self::TooHigh(most) => {
                let text = format!(
                    "this key may ask for the class `{}` at most; its operator can allow more with `priority_max`",
                    most.name()
                );
                ErrorBody::router(403, "invalid_request_error", "priority_not_allowed", text)
            }
        };
        error.with_param(header)
    }
}

/// The class that a request asks for by name.
fn class(value: &str, client: &ClientKey) -> Result<Class, ClassRefused> {
    let class = Class::ALL.into_iter().find(|class| class.name() == value).ok_or(ClassRefused::Unknown)?;
    if class < client.class_max { Err(ClassRefused::TooHigh(client.class_max)) } else { Ok(class) }
}

/// The lane and class of a request. The lane is that of its model if it has one, else as it says, else as its key has it;
/// the class as it says, else as its key has it, else as its model has.
pub fn rank(hints: &Hints, client: &ClientKey, model: &Model) -> (Lane, Class) {
    let lane = model.lane.or(hints.lane).or(client.lane).unwrap_or_default();
    let of_lane = match lane {
        Lane::Live => Class::Standard,
        Lane::Batch => Class::Batch,
    };
    let class = hints.class.or(client.class).or(model.class).unwrap_or(of_lane);
    (lane, class.max(client.class_max))
}

/// Reads the hints that the client's tenant may set; the others are as if they were not there.
pub fn read(headers: &HeaderMap, client: &ClientKey, now: Now) -> Result<Hints, ErrorBody> {
    let mut hints = Hints::default();
    if !headers.keys().any(|name| name.as_str().starts_with("x-pointsman-")) {
        return Ok(hints);
    }
    for hint in Hint::ALL {
        let name = hint.header();
        let Some(value) = headers.get(name).filter(|_| client.may_hint(hint)) else { continue };
        let bad = |text: &str| ErrorBody::malformed(format!("header `{name}` {text}")).with_param(name);
        let value = value.to_str().map_err(|_| bad("is not plain text"))?.trim();
        if value.is_empty() || value.len() > HINT_BYTES_MAX {
            return Err(bad("must have 1 to 256 bytes"));
        }
        match hint {
            Hint::Session => {
                hints.session_hash = Some(xxh3_64_with_seed(value.as_bytes(), client.tenant_hash));
            }
            Hint::Region => hints.region = Some(value.into()),
            Hint::Tags => {
                hints.tags =
                    value.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(Name::from).collect();
                if hints.tags.len() > TAGS_MAX {
                    return Err(bad("may name 8 tags at most"));
                }
            }
            Hint::DeadlineMs => {
                hints.deadline = Some(now + millis(value).map_err(bad)?);
            }
            Hint::FirstTokenMs => hints.objective.first_token = Some(millis(value).map_err(bad)?),
            Hint::PerTokenMs => hints.objective.per_token = Some(millis(value).map_err(bad)?),
            Hint::Lane => {
                hints.lane = Some(match value {
                    "live" => Lane::Live,
                    "batch" => Lane::Batch,
                    _ => return Err(bad("must be `live` or `batch`")),
                });
            }
            Hint::Priority => {
                hints.class = Some(class(value, client).map_err(|refused| refused.error(name))?);
            }
        }
    }
    Ok(hints)
}
