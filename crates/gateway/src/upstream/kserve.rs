//! The heads of requests by the Open Inference Protocol, whose paths name the model.

use bytes::{BufMut, Bytes, BytesMut};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pointsman_wire::kserve::HEADER_LENGTH;
use pointsman_wire::openai::request::Request;

use super::target::Endpoint;

/// What cannot stand for itself in a part of a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The beginning of the head of every inference request to a deployment.
#[derive(Debug)]
pub struct TensorsHead(Bytes);

impl TensorsHead {
    /// Of a model and version as the provider names them.
    pub fn new(endpoint: &Endpoint, model: &str, version: Option<&str>) -> Self {
        let model = escaped(model);
        Self(endpoint.tensors_head(&match version.filter(|version| !version.is_empty()) {
            Some(version) => format!("/models/{model}/versions/{}/infer", escaped(version)),
            None => format!("/models/{model}/infer"),
        }))
    }

    /// Writes it, and how the body is to be read.
    pub fn write_head(&self, head: &mut BytesMut, request: &Request) {
        head.put_slice(&self.0);
        match request.tensors.and_then(|tensors| tensors.json_bytes) {
            None => head.put_slice(b"content-type: application/json\r\n"),
            Some(bytes) => {
                head.put_slice(b"content-type: application/octet-stream\r\n");
                head.put_slice(HEADER_LENGTH.as_bytes());
                head.put_slice(b": ");
                head.put_slice(itoa::Buffer::new().format(bytes).as_bytes());
                head.put_slice(b"\r\n");
            }
        }
    }
}

/// A name as one part of a path. Dots alone would lead elsewhere.
fn escaped(name: &str) -> String {
    match name {
        "." | ".." => name.replace('.', "%2E"),
        _ => utf8_percent_encode(name, ESCAPED).to_string(),
    }
}

/// What precedes `/v2`: people give base URLs with what the provider's other API has, with `/v2`, and with neither.
pub(super) fn prefix(path: &str, usual: &str) -> String {
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/v2").unwrap_or(path);
    path.strip_suffix(usual).unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use pointsman_settings::egress::EgressConfig;
    use pointsman_settings::providers::ProviderConfig;

    use super::*;
    use crate::upstream::target::endpoint;

    #[test]
    fn models_and_versions_stand_in_the_path() {
        for (base_url, model, version, line) in [
            ("http://h:1", "m", None, "POST /v2/models/m/infer HTTP/1.1"),
            ("http://h:1/v2/", "m", Some("3"), "POST /v2/models/m/versions/3/infer HTTP/1.1"),
            ("http://h:1/v1", "a/b c", Some(""), "POST /v2/models/a%2Fb%20c/infer HTTP/1.1"),
            (
                "http://h:1/team",
                "..",
                Some("1\r\n"),
                "POST /team/v2/models/%2E%2E/versions/1%0D%0A/infer HTTP/1.1",
            ),
        ] {
            let config = ProviderConfig {
                kind: "triton".to_owned(),
                base_url: Some(base_url.to_owned()),
                ..ProviderConfig::default()
            };
            let head = TensorsHead::new(&endpoint("p", &config, &EgressConfig::default()), model, version).0;
            let head = String::from_utf8(head.to_vec()).expect("text");
            assert_eq!(head.lines().next(), Some(line));
            assert!(
                head.contains("host: h:1\r\n") && head.ends_with("\r\n") && !head.contains("\r\n\r\n"),
                "{head}"
            );
        }
    }
}
