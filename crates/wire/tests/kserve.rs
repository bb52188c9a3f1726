//! Inference requests: what is read of them, what is refused before anything is sent, and in which words.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::kserve::answer::{self, Answered, Indexed};
use pointsman_wire::kserve::{Datatype, Signature, TensorSpec, check, parse};
use pointsman_wire::openai::request::FORBIDDEN;
use pointsman_wire::openai::{BodyLimits, Invalid};

fn read(body: &str) -> Result<(), Invalid> {
    parse(body.as_bytes(), None, &BodyLimits::default()).map(drop)
}

fn with_data(datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
}

#[track_caller]
fn refused(result: Result<(), Invalid>, param: &str, words: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
    for word in words {
        assert!(error.message.contains(word), "{word} in {error}");
    }
}

/// A request in binary: the JSON, its length, and what follows it.
fn binary(datatype: &str, shape: &str, data: &[u8], size: usize) -> Result<(), Invalid> {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","parameters":{{"binary_data_size":{size}}}}}]}}"#
    );
    let body = [json.as_bytes(), data].concat();
    parse(&body, Some(json.len() as u64), &BodyLimits::default()).map(drop)
}

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec(), optional: false }
}

#[test]
fn a_request_is_read_whole() {
    let body = r#"{"id":"42","parameters":{"priority":3},"inputs":[
        {"name":"a","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[3e1,-4]]},
        {"data":["x","y"],"name":"b\u0062","datatype":"BYTES","shape":[2],"parameters":{"content_type":"str"}}],
        "outputs":[{"name":"y","parameters":{"binary_data":false}}],"later":{"extension":[1]}}"#;
    let request = parse(body.as_bytes(), None, &BodyLimits::default()).unwrap();
    let told: Vec<_> = request.inputs.iter().map(|i| (&*i.name, i.datatype, &*i.shape, i.elements)).collect();
    assert_eq!(told, [("a", Datatype::Fp32, &[2, 2][..], 4), ("bb", Datatype::Bytes, &[2][..], 2)]);
    assert_eq!(request.outputs.as_slice(), ["y"]);
    assert_eq!((request.json_bytes, request.bytes), (None, body.len() as u64));
}

#[test]
fn every_datatype_has_its_elements_and_ranges() {
    for (datatype, good, bad) in [
        ("BOOL", "[true,false]", "[true,0]"),
        ("UINT8", "[0,255]", "[0,256]"),
        ("UINT16", "[0,65535]", "[0,-1]"),
        ("UINT32", "[0,4294967295]", "[0,4294967296]"),
        ("UINT64", "[0,18446744073709551615]", "[0,18446744073709551616]"),
        ("INT8", "[-128,127]", "[-129,0]"),
        ("INT16", "[-32768,32767]", "[32768,0]"),
        ("INT32", "[-2147483648,2147483647]", "[2147483648,0]"),
        ("INT64", "[-9223372036854775808,9223372036854775807]", "[9223372036854775808,0]"),
        ("FP16", "[-65504,0.1]", "[65520,0]"),
        ("FP32", "[3.4e38,-0.0]", "[3.5e38,0]"),
        ("FP64", "[1.7e308,1e-400]", "[1e400,0]"),
        ("BYTES", r#"["","é\n"]"#, "[1,2]"),
        ("BF16", "[3.38e38,1]", "[3.4e38,0]"),
    ] {
        assert_eq!(read(&with_data(datatype, "[2]", good)), Ok(()), "{datatype}");
        refused(read(&with_data(datatype, "[2]", bad)), "inputs[0].data", &["\"x\"", "element", datatype]);
        let takes = Datatype::of(datatype).unwrap().takes();
        refused(read(&with_data(datatype, "[2]", "[null,null]")), "inputs[0].data", &["null", takes]);
        refused(read(&with_data(datatype, "[3]", good)), "inputs[0].data", &["2 elements", "[3]", "takes 3"]);
    }
    refused(read(&with_data("INT32", "[1]", "[1.0]")), "inputs[0].data", &["1.0", "no integer"]);
    refused(read(&with_data("FLOAT", "[1]", "[1]")), "inputs[0].datatype", &["\"FLOAT\"", "FP32", "BF16"]);
    refused(read(&with_data("fp32", "[1]", "[1]")), "inputs[0].datatype", &["\"fp32\"", "FP32"]);
}

#[test]
fn data_is_checked_wherever_it_stands() {
    let early = |data: &str| {
        format!(r#"{{"inputs":[{{"data":{data},"shape":[1,2],"datatype":"INT8","name":"x"}}]}}"#)
    };
    assert_eq!(read(&early("[[1,2]]")), Ok(()));
    assert_eq!(read(&early("[1,2]")), Ok(()));
    refused(read(&early("[[1,2],[3,4]]")), "inputs[0].data", &["axis 0", "\"x\"", "[1, 2]"]);
    refused(read(&early("[1,200]")), "inputs[0].data", &["element 1 is 200", "-128 to 127"]);
    refused(read(&early("7")), "inputs[0].data", &["must be an array, not a number"]);
    refused(read(&with_data("INT8", "[1,2]", "[[[1,2]]]")), "inputs[0].data", &["nested", "[1, 2]"]);
}

#[test]
fn what_a_request_lacks_is_named() {
    let input = |members: &str| read(&format!(r#"{{"inputs":[{{{members}}}]}}"#));
    refused(input(r#""shape":[1],"datatype":"INT8","data":[1]"#), "inputs[0].name", &["no `name`"]);
    refused(input(r#""name":"x","shape":[1],"data":[1]"#), "inputs[0].datatype", &["no `datatype`"]);
    refused(input(r#""name":"x","datatype":"INT8","data":[1]"#), "inputs[0].shape", &["no `shape`"]);
    refused(input(r#""name":"x","datatype":"INT8","shape":[1]"#), "inputs[0].data", &["no `data`"]);
    refused(input(r#""name":"","datatype":"INT8","shape":[1],"data":[1]"#), "inputs[0].name", &["1 to 1024"]);
    refused(read("{}"), "inputs", &["missing"]);
    refused(read(r#"{"inputs":[]}"#), "inputs", &["empty"]);
    refused(read(r#"{"inputs":{}}"#), "inputs", &["array"]);
    refused(read(r#"{"inputs":[3]}"#), "inputs[0]", &["object"]);
    refused(read(r#"{"id":3,"inputs":[]}"#), "id", &["string"]);
    assert!(read("[]").unwrap_err().message.contains("JSON object"));
    for shape in ["[-1]", "[1.5]", r#"["1"]"#, "[9223372036854775808]"] {
        refused(read(&with_data("INT8", shape, "[1]")), "inputs[0].shape", &["shape[0]", "at least 0"]);
    }
    refused(read(&with_data("INT8", "3", "[1]")), "inputs[0].shape", &["array"]);
    let many = format!("[{}]", vec!["1"; 33].join(","));
    refused(read(&with_data("INT8", &many, "[1]")), "inputs[0].shape", &["32 axes"]);
    let huge = "[4611686018427387904,4,4]";
    refused(read(&with_data("INT8", huge, "[1]")), "inputs[0].shape", &["counted"]);
    let none = "[4611686018427387904,4,0]";
    assert_eq!(read(&with_data("INT8", none, "[]")), Ok(()));
    refused(read(&with_data("INT8", none, "[1]")), "inputs[0].data", &["1 elements", "takes 0"]);
}

#[test]
fn c4_what_could_be_read_in_two_ways_is_refused() {
    let one = r#"{"name":"x","shape":[1],"datatype":"INT8","data":[1]}"#;
    refused(read(&format!(r#"{{"inputs":[{one}],"inputs":[{one}]}}"#)), "inputs", &["more than once"]);
    refused(read(&format!(r#"{{"inputs":[{one}],"Inputs":[{one}]}}"#)), "inputs", &["capitals"]);
    refused(read(&format!(r#"{{"inputs":[{one},{one}]}}"#)), "inputs", &["\"x\"", "more than one"]);
    for double in [
        "\"name\":\"y\"",
        "\"shape\":[1]",
        "\"datatype\":\"INT8\"",
        "\"data\":[2]",
        "\"DATA\":[2]",
        "\"d\\u0061ta\":[2]",
    ] {
        let two = one.replacen('{', &format!("{{{double},"), 1);
        let error = read(&format!(r#"{{"inputs":[{two}]}}"#)).unwrap_err();
        assert!(error.param.is_some_and(|param| param.starts_with("inputs[0].")), "{double}");
    }
    let outputs = r#""outputs":[{"name":"y"},{"name":"y"}]"#;
    refused(read(&format!(r#"{{"inputs":[{one}],{outputs}}}"#)), "outputs", &["\"y\""]);
}

#[test]
fn c6_what_nobody_here_knows_passes() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"content_type":"np","headers":{"a":[1]}},"more":null}],"extra":1e400}"#;
    assert_eq!(read(body), Ok(()));
}

#[test]
fn memory_shared_with_a_server_is_refused() {
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"shared_memory_region":"r","shared_memory_byte_size":1}}]}"#;
    refused(read(body), "inputs[0].parameters.shared_memory_region", &["router", "send the data"]);
    let body = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}],"outputs":[{"name":"y","parameters":{"shared_memory_region":"r"}}]}"#;
    refused(read(body), "outputs[0].parameters.shared_memory_region", &["router"]);
}

#[test]
fn binary_tensors_follow_the_json() {
    for (datatype, width) in
        [("BOOL", 1), ("INT8", 1), ("UINT16", 2), ("FP16", 2), ("BF16", 2), ("FP32", 4), ("INT64", 8)]
    {
        assert_eq!(binary(datatype, "[2,3]", &vec![0; 6 * width], 6 * width), Ok(()), "{datatype}");
        let size = "inputs[0].parameters.binary_data_size";
        let needs = format!("takes {}", 6 * width);
        refused(
            binary(datatype, "[2,3]", &vec![0; 7 * width], 7 * width),
            size,
            &["\"x\"", &needs, datatype, "[2, 3]"],
        );
    }
    let size = "inputs[0].parameters.binary_data_size";
    refused(binary("FP32", "[1]", &[0; 3], 4), size, &["is 4", "only 3"]);
    refused(binary("FP32", "[1]", &[0; 3], usize::MAX), size, &["only 3"]);
    refused(binary("BOOL", "[2]", &[1, 2], 2), size, &["element 1 is 2"]);
    refused(binary("INT64", "[4611686018427387904]", &[0; 8], 8), size, &["counted"]);
    let error = binary("INT8", "[1]", &[0, 0], 1).unwrap_err();
    assert!(error.message.contains("1 bytes behind the JSON"), "{error}");
    let texts = b"\x01\0\0\0a\0\0\0\0\x02\0\0\0\xff\xfe";
    assert_eq!(binary("BYTES", "[3]", texts, texts.len()), Ok(()));
    refused(binary("BYTES", "[2]", texts, texts.len()), size, &["3 elements", "takes 2"]);
    refused(binary("BYTES", "[3]", &texts[..14], 14), size, &["element 2", "2 bytes", "only 1"]);
    refused(binary("BYTES", "[2]", &texts[..10], 10), size, &["too few for a length"]);
    let both = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]}"#;
    refused(
        parse(format!("{both}\0").as_bytes(), Some(both.len() as u64), &BodyLimits::default()).map(drop),
        "inputs[0].data",
        &["both"],
    );
    let json =
        r#"{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}]}"#;
    refused(read(json), size, &["inference-header-content-length"]);
    let beyond = parse(json.as_bytes(), Some(1000), &BodyLimits::default()).map(drop);
    refused(beyond, "inference-header-content-length", &["1000", "only"]);
    assert!(parse(json.as_bytes(), Some(10), &BodyLimits::default()).is_err());
    refused(read(&json.replace(":1}", ":-1}")), size, &["number of bytes"]);
    let (a, b) = (
        r#"{"name":"a","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}"#,
        r#"{"name":"b","shape":[2],"datatype":"INT16","parameters":{"binary_data_size":4}}"#,
    );
    let json = format!(r#"{{"inputs":[{a},{{"name":"c","shape":[1],"datatype":"INT8","data":[1]}},{b}]}}"#);
    let body = [json.as_bytes(), &[0; 5]].concat();
    let request = parse(&body, Some(json.len() as u64), &BodyLimits::default()).unwrap();
    assert_eq!(
        request.inputs.iter().map(|input| input.binary_bytes).collect::<Vec<_>>(),
        [Some(1), None, Some(4)]
    );
}

#[test]
fn c5_texts_that_are_none_are_refused() {
    assert!(read("\u{feff}{}").unwrap_err().message.contains("byte order mark"));
    let error = parse(b"{\"inputs\":\xff}", None, &BodyLimits::default()).unwrap_err();
    assert!(error.message.contains("not UTF-8"), "{error}");
    for data in ["[NaN]", "[Infinity]", "[+1]", "[01]", "[1,]", "[0x1]", "[1 2]", "[.5]", "[5.]"] {
        assert_eq!(read(&with_data("FP32", "[1]", data)).unwrap_err().status, 400, "{data}");
    }
    let error = read(&format!("{} x", with_data("FP32", "[1]", "[1]"))).unwrap_err();
    assert!(error.message.contains("not valid JSON"), "{error}");
}

#[test]
fn c3_depth_is_limited() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [deep.clone(), with_data("FP32", "[1]", &deep), format!(r#"{{"inputs":[],"x":{deep}}}"#)] {
        assert_eq!(read(&body).unwrap_err().status, 400);
    }
}

#[test]
fn a_registered_model_is_held_to() {
    let signature = Signature {
        inputs: vec![
            spec("x", Datatype::Fp32, &[-1, 3]),
            TensorSpec { optional: true, ..spec("mask", Datatype::Bool, &[1]) },
        ],
        outputs: vec![spec("y", Datatype::Fp32, &[-1])],
    };
    let ask = |inputs: &str, outputs: &str| {
        let body = format!(r#"{{"inputs":[{inputs}],"outputs":[{outputs}]}}"#);
        let limits = BodyLimits::default();
        check(&parse(body.as_bytes(), None, &limits).unwrap(), "m", &signature)
    };
    let x = |datatype: &str, shape: &str, data: &str| {
        format!(r#"{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
    };
    let good = x("FP32", "[1,3]", "[1,2,3]");
    let mask = r#"{"name":"mask","shape":[1],"datatype":"BOOL","data":[true]}"#;
    assert_eq!(ask(&good, ""), Ok(()));
    assert_eq!(ask(&format!("{mask},{good}"), r#"{"name":"y"}"#), Ok(()));
    assert_eq!(ask(&x("FP32", "[2,3]", "[[1,2,3],[1,2,3]]"), ""), Ok(()));
    assert_eq!(ask(&x("FP32", "[0,3]", "[]"), ""), Ok(()));
    refused(
        ask(&x("INT64", "[1,3]", "[1,2,3]"), ""),
        "inputs[0].datatype",
        &["`x`", "INT64", "takes FP32", "`m`"],
    );
    refused(
        ask(&x("FP32", "[3]", "[1,2,3]"), ""),
        "inputs[0].shape",
        &["`x`", "[3]", "[-1, 3]", "any length"],
    );
    refused(ask(&x("FP32", "[1,2]", "[1,2]"), ""), "inputs[0].shape", &["[1, 2]", "[-1, 3]"]);
    refused(
        ask(&format!("{good},{}", mask.replace("mask", "z")), ""),
        "inputs[1].name",
        &["no input \"z\"", "`x` (FP32 [-1, 3])"],
    );
    refused(ask(mask, ""), "inputs", &["`x` is missing", "`m`"]);
    refused(ask(&good, r#"{"name":"z"}"#), "outputs[0].name", &["no output \"z\"", "`y`"]);
    let body = with_data("INT8", "[1]", "[1]");
    let anything = parse(body.as_bytes(), None, &BodyLimits::default()).unwrap();
    assert_eq!(check(&anything, "m", &Signature::default()), Ok(()), "nothing is registered");
}

#[test]
fn servers_and_models_say_what_they_are() {
    let signature = Signature { inputs: vec![spec("x\"", Datatype::Bytes, &[-1, 2])], outputs: Vec::new() };
    assert_eq!(
        answer::model("m", &["1", "2"], &signature),
        r#"{"name":"m","versions":["1","2"],"platform":"pointsman","inputs":[{"name":"x\"","datatype":"BYTES","shape":[-1,2]}],"outputs":[]}"#
    );
    assert_eq!(
        answer::server("1.2"),
        r#"{"name":"pointsman","version":"1.2","extensions":["binary_tensor_data","model_repository"]}"#
    );
    let up = Indexed { name: "m".to_owned(), version: Some("1".to_owned()), why_not: None };
    let down = Indexed { version: None, why_not: Some("open"), ..up.clone() };
    assert_eq!(
        answer::index(&[up, down]),
        r#"[{"name":"m","version":"1","state":"READY","reason":""},{"name":"m","state":"UNAVAILABLE","reason":"open"}]"#
    );
    assert_eq!(answer::error("a \"b\""), r#"{"error":"a \"b\""}"#);
}

#[test]
fn c4_c5_a_question_for_the_index_is_read_strictly() {
    for (body, ready) in [
        (r#"{"ready":true}"#, true),
        (r#" { "ready" : false , "other" : [1] } "#, false),
        (r#"{"ready":true,"ready\u0000":1}"#, true),
        ("{}", false),
        ("", false),
        (" \n", false),
    ] {
        assert_eq!(answer::wants_ready_only(body.as_bytes()), Ok(ready), "{body}");
    }
    for (body, param) in [
        ("not json", None),
        (r#"{"ready": tru"#, None),
        (r#"{"ready":true"#, None),
        (r#"{"ready":true} x"#, None),
        ("[", None),
        ("[]", None),
        ("true", None),
        ("\u{feff}{}", None),
        (r#"{"ready":true,"ready":false}"#, Some("ready")),
        (r#"{"ready":true,"r\u0065ady":true}"#, Some("ready")),
        (r#"{"Ready":true}"#, Some("ready")),
        (r#"{"ready":1}"#, Some("ready")),
        (r#"{"ready":null}"#, Some("ready")),
        (r#"{"ready":"true"}"#, Some("ready")),
    ] {
        let refused = answer::wants_ready_only(body.as_bytes()).expect_err(body);
        assert_eq!((refused.status, refused.param.as_deref()), (400, param), "{body}");
    }
    assert!(answer::wants_ready_only(b"{\"a\":\"\xff\"}").is_err());
}

#[test]
fn i2_c11_no_client_says_where_tensors_go() {
    let body = |top: &str, parameters: &str, of_tensor: &str| {
        let text = format!(
            r#"{{{top}"parameters":{{{parameters}}},"inputs":[{{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{{{of_tensor}}}}}]}}"#
        );
        parse(text.as_bytes(), None, &BodyLimits::default()).map(drop).map_err(|invalid| invalid.param)
    };
    for name in FORBIDDEN {
        let member = format!(r#""{name}":"http://evil""#);
        let at = |path: &str| Err(Some(format!("{path}{name}")));
        assert_eq!(body(&format!("{member},"), "", ""), at(""), "{name}");
        // Triton's and MLServer's own.
        let expected = |path| if matches!(name, "timeout" | "headers") { Ok(()) } else { at(path) };
        assert_eq!(body("", &member, ""), expected("parameters."), "{name}");
        assert_eq!(body("", "", &member), expected("inputs[0].parameters."), "{name}");
    }
    for name in ["AWS_sts_endpoint", "vertex\\u005fproject", "langsmith_base_url", "API_BASE"] {
        assert!(body("", &format!(r#""{name}":"x""#), "").is_err(), "{name}");
    }
    assert_eq!(
        body(r#""id":"7","more":1,"#, r#""priority":1,"sequence_id":2,"my_own":3"#, r#""mine":4"#),
        Ok(())
    );
}

#[test]
fn answers_are_counted_as_far_as_they_go() {
    let json = r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2,3],"data":[1,2,3,4,5,6]},
        {"name":"z","datatype":"INT8","shape":[4],"parameters":{"binary_data_size":4}}]}"#;
    let all = Answered { tensors: 2, elements: 10, binary_bytes: 4 };
    assert_eq!(answer::read(json.as_bytes()), Some(all));
    assert_eq!(answer::read(&[json.as_bytes(), &[1, 255, 3, 4]].concat()), Some(all));
    let first = Answered { tensors: 1, elements: 6, binary_bytes: 0 };
    let cut = json.find(",\n").unwrap();
    assert_eq!(answer::read(&json.as_bytes()[..cut]), Some(first));
    assert_eq!(answer::read(br#"{"error":"no"}"#), None);
    assert_eq!(answer::read(b"\xff"), None);
    let lies = r#"{"outputs":[{"shape":[9223372036854775807,9]},{"shape":[-1]},{"shape":"x"},7]}"#;
    assert_eq!(answer::read(lies.as_bytes()), Some(Answered { tensors: 3, ..Answered::default() }));
}
