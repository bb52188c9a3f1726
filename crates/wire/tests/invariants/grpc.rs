//! What holds of any bytes taken for a message of the Open Inference Protocol, or for what it is over HTTP.
#![expect(clippy::unwrap_used, reason = "a broken invariant has to stop the run")]

use bytes::Bytes;
use pointsman_wire::kserve::{self, grpc, grpc::turn};
use pointsman_wire::openai::BodyLimits;

/// A message that is accepted is over HTTP what it was, and nothing breaks.
pub(crate) fn kserve_grpc(input: &[u8]) {
    let message = Bytes::copy_from_slice(input);
    let _ = grpc::unframe(&message);
    let _ = std::str::from_utf8(input).ok().map(grpc::timeout);
    match grpc::decode_request(message.clone()).and_then(|request| Ok((turn::to_http(&request)?, request))) {
        Err(invalid) => assert!(invalid.status == 400 && !invalid.message.is_empty()),
        Ok((whole, request)) => {
            let read = kserve::parse(&whole.body, whole.json_bytes, &BodyLimits::default());
            if let Ok(read) = read {
                let (back, wants) = turn::of_http(whole.json_bytes, &whole.body).unwrap();
                assert_eq!(back.inputs.len(), read.inputs.len());
                assert_eq!(back.raw.len(), request.inputs.len());
                assert!(request.raw.is_empty() || back.raw == request.raw);
                assert!(request.outputs.iter().all(|output| wants.binary(&output.name)));
                for (ours, theirs) in back.inputs.iter().zip(&request.inputs) {
                    assert_eq!((&ours.name, &ours.shape), (&theirs.name, &theirs.shape));
                }
            }
        }
    }
    if let Ok(response) = grpc::decode_response(message.clone()) {
        for wants in [turn::Wants::all(), turn::Wants::default()] {
            if let Ok(whole) = turn::answer_to_http(&response, &wants) {
                let back = turn::answer_of_http(whole.json_bytes, &whole.body);
                // Nested too deep, or a datatype that is none: only in binary, and only then unread.
                assert!(back.is_ok_and(|back| back.outputs.len() == response.outputs.len()));
            }
        }
    }
    for json_bytes in [None, input.first().map(|byte| u64::from(*byte))] {
        let _ = turn::of_http(json_bytes, &message);
        let _ = turn::answer_of_http(json_bytes, &message);
    }
}
