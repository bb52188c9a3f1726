//! Clouds whose models are served below an account: where they are, and what their addresses and paths depend on.

use serde::Deserialize;

use crate::vertex;

/// A cloud that a vendor is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cloud {
    /// AWS Bedrock: a host for each region, and requests that are signed.
    Bedrock,
    /// Google's Vertex AI: a host for each location, paths below a project, and tokens that a service account is given.
    Vertex,
    /// Azure OpenAI: a host for each resource, and versions of the API.
    Azure,
}

impl Cloud {
    /// What signatures of requests are good for, if it wants them signed.
    pub const fn signing_service(self) -> Option<&'static str> {
        match self {
            Self::Bedrock => Some("bedrock"),
            Self::Vertex | Self::Azure => None,
        }
    }

    /// Whether it says with a location where it is.
    pub const fn has_locations(self) -> bool {
        match self {
            Self::Bedrock | Self::Vertex => true,
            Self::Azure => false,
        }
    }

    /// Where it is in a location; `None` if that is no location, so that it cannot name another host.
    pub fn base_url(self, location: &str) -> Option<String> {
        let host = match self {
            Self::Bedrock => bedrock_host(location),
            Self::Vertex => vertex::host(location),
            Self::Azure => None,
        };
        host.map(|host| format!("https://{host}"))
    }
}

/// The host that serves Bedrock's models in a region.
fn bedrock_host(region: &str) -> Option<String> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let in_form = region.split('-').count() >= 3 && region.split('-').all(|part| !part.is_empty());
    if region.len() > 32 || !in_form || !region.bytes().all(sound) {
        return None;
    }
    let end = if region.starts_with("cn-") { ".cn" } else { "" };
    Some(format!("bedrock-runtime.{region}.amazonaws.com{end}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i2_a_location_never_names_another_host() {
        let bedrock = |region| Cloud::Bedrock.base_url(region);
        assert_eq!(bedrock("us-east-1").as_deref(), Some("https://bedrock-runtime.us-east-1.amazonaws.com"));
        assert_eq!(
            bedrock("us-gov-west-1").as_deref(),
            Some("https://bedrock-runtime.us-gov-west-1.amazonaws.com")
        );
        assert_eq!(
            bedrock("cn-north-1").as_deref(),
            Some("https://bedrock-runtime.cn-north-1.amazonaws.com.cn")
        );
        for wrong in ["", "us", "us-east", "evil.test/-a-b", "US-EAST-1", "us--1", "a-b-c@x", "us-east-1\n"] {
            assert_eq!(bedrock(wrong), None, "{wrong}");
        }
        assert_eq!(
            Cloud::Vertex.base_url("us-east5").as_deref(),
            Some("https://us-east5-aiplatform.googleapis.com")
        );
        assert_eq!(Cloud::Azure.base_url("westeurope"), None);
    }
}
