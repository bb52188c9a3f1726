use bytes::Bytes;

use super::*;
use crate::openai::request::Operation;
use crate::openai::rewrite::{UsageAsk, literal, rewrite};

fn read(method: Method, body: &str) -> Result<Request, Invalid> {
    parse(method, "m@2", body.as_bytes(), &BodyLimits::default(), 1)
}

fn generate(body: &str) -> Request {
    read(Method::GenerateContent, body).unwrap()
}

const CONTENTS: &str = r#""contents":[{"role":"user","parts":[{"text":"Hello you"}]}]"#;

#[test]
fn facts_in_both_spellings() {
    for (config, output) in
        [("generationConfig", "maxOutputTokens"), ("generation_config", "max_output_tokens")]
    {
        let body = format!(
            r#"{{{CONTENTS},"{config}":{{"temperature":0.5,"{output}":100,"candidateCount":2,"seed":-7}}}}"#
        );
        let request = generate(&body);
        assert_eq!((request.model.as_str(), request.version.as_deref()), ("m", Some("2")));
        assert_eq!((request.tokens_out_max, request.choices, request.params.seed), (Some(100), 2, Some(-7)));
        assert_eq!((request.prompt_bytes, request.messages, request.stream), (9, 1, false));
    }
    let streamed = read(Method::StreamGenerateContent, &format!("{{{CONTENTS}}}")).unwrap();
    assert!(streamed.stream && streamed.operation == Operation::Chat);
}

#[test]
fn needs_are_seen() {
    let body = r#"{"contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"AA=="}},{"text":"?"}]}],
        "tools":[{"functionDeclarations":[{"name":"f"}]}],"cachedContent":"cachedContents/1",
        "generationConfig":{"responseMimeType":"application/json","responseSchema":{"type":"STRING"}}}"#;
    let asked = read(Method::GenerateContent, body).unwrap();
    let request = &asked;
    assert!(request.needs.vision && request.needs.tools && request.needs.json_schema && request.formatted);
    assert!(asked.kept_by_provider && request.images == 1);
    let plain = generate(&format!(r#"{{{CONTENTS},"tools":[],"generationConfig":null}}"#));
    assert!(!plain.needs.tools && !plain.needs.json_schema && !plain.formatted);
}

#[track_caller]
fn refused(method: Method, body: &str, param: Option<&str>) {
    let invalid = read(method, body).unwrap_err();
    assert_eq!((invalid.status, invalid.param.as_deref()), (400, param), "{invalid}");
    if let Some(param) = param {
        let last = param.rsplit('.').next().unwrap();
        assert!(invalid.message.contains(last), "{invalid}");
    }
}

#[test]
fn errors_name_the_field() {
    let check = |body: &str, param: &str| refused(Method::GenerateContent, body, Some(param));
    check("{}", "contents");
    check(r#"{"contents":[]}"#, "contents");
    check(r#"{"contents":"Hi"}"#, "contents");
    check(r#"{"contents":["Hi"]}"#, "contents[0]");
    check(r#"{"contents":[{"role":7}]}"#, "contents[0].role");
    check(r#"{"contents":[{"parts":{"text":"Hi"}}]}"#, "contents[0].parts");
    check(r#"{"contents":[{"parts":[{"text":1}]}]}"#, "contents[0].parts[0].text");
    check(&format!(r#"{{{CONTENTS},"tools":{{}}}}"#), "tools");
    check(&format!(r#"{{{CONTENTS},"generationConfig":[]}}"#), "generationConfig");
    check(
        &format!(r#"{{{CONTENTS},"generationConfig":{{"temperature":3}}}}"#),
        "generationConfig.temperature",
    );
    check(
        &format!(r#"{{{CONTENTS},"generationConfig":{{"max_output_tokens":-1}}}}"#),
        "generationConfig.maxOutputTokens",
    );
    check(&format!(r#"{{{CONTENTS},"generationConfig":{{"seed":"x"}}}}"#), "generationConfig.seed");
    refused(Method::EmbedContent, "{}", Some("content"));
    refused(Method::BatchEmbedContents, r#"{"requests":[{}]}"#, Some("requests[0].content"));
    refused(Method::CountTokens, r#"{"generateContentRequest":{}}"#, Some("generateContentRequest.contents"));
    refused(Method::GenerateContent, "[]", None);
    refused(Method::GenerateContent, "{", None);
}

#[test]
fn c3_what_is_nested_too_deep_is_refused() {
    let deep = format!(r#"{{{CONTENTS},"x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    refused(Method::GenerateContent, &deep, None);
}

#[test]
fn c4_a_field_is_read_once_and_the_model_is_that_of_the_path() {
    let check = |body: &str, param: &str| refused(Method::GenerateContent, body, Some(param));
    check(&format!("{{{CONTENTS},{CONTENTS}}}"), "contents");
    check(&format!(r#"{{{CONTENTS},"generationConfig":{{}},"generation_config":{{}}}}"#), "generationConfig");
    check(&format!(r#"{{{CONTENTS},"generationConfig":{{"topP":1,"top_p":0}}}}"#), "generationConfig.topP");
    check(r#"{"contents":[{"role":"user","role":"model","parts":[]}]}"#, "contents[0].role");
    check(r#"{"Contents":[]}"#, "contents");
    check(&format!(r#"{{{CONTENTS},"GenerationConfig":{{}}}}"#), "generationConfig");
    check(&format!(r#"{{{CONTENTS},"model":"models/other"}}"#), "model");
    check(&format!(r#"{{{CONTENTS},"mod\u0065l":"x"}}"#), "model");
    check(&format!(r#"{{{CONTENTS},"api_base":"http://evil"}}"#), "api_base");
    check(&format!(r#"{{{CONTENTS},"vertex_project":"p"}}"#), "vertex_");
    check(&format!(r#"{{{CONTENTS},"generationConfig":{{"api_key":"k"}}}}"#), "generationConfig.api_key");
    check(r#"{"contents":[{"parts":[],"aws_sts_endpoint":"u"}]}"#, "contents[0].aws_");
    let within = r#"{"requests":[{"content":{"parts":[{"text":"x"}]},"extra_body":{}}]}"#;
    refused(Method::BatchEmbedContents, within, Some("requests[0].extra_body"));
    let within = format!(r#"{{"generateContentRequest":{{{CONTENTS},"user_config":{{}}}}}}"#);
    refused(Method::CountTokens, &within, Some("generateContentRequest.user_config"));
}

#[test]
fn c5_numbers_and_texts_that_others_choke_on_are_refused_or_kept() {
    refused(Method::GenerateContent, &format!(r#"{{{CONTENTS},"x":NaN}}"#), None);
    refused(
        Method::GenerateContent,
        &format!(r#"{{{CONTENTS},"generationConfig":{{"temperature":1e400}}}}"#),
        Some("generationConfig.temperature"),
    );
    let invalid = parse(Method::GenerateContent, "m", b"{\"contents\":\"\xff\"}", &BodyLimits::default(), 1);
    assert_eq!(invalid.unwrap_err().status, 400);
    generate(r#"{"contents":[{"parts":[{"text":"\ud800"}]}],"x":1e400}"#);
}

#[test]
fn c6_what_is_not_known_is_passed_on_untouched() {
    let body = Bytes::from(format!(r#"{{{CONTENTS},"new_field":{{"a":[1e400,null]}},"toolConfig":{{}}}}"#));
    let asked = parse(Method::GenerateContent, "m", &body, &BodyLimits::default(), 1).unwrap();
    assert_eq!(rewrite(&asked, &body, &literal("gemini-2.5-flash"), UsageAsk::AsSent).concat(), body);
}

#[test]
fn the_model_is_put_in_wherever_the_body_names_it() {
    let body = Bytes::from_static(
        br#"{"requests":[{"model":"models/m","content":{"parts":[{"text":"aaaaaaaaaaaaaaaa"}]}},{"content":{"parts":[{"text":"b"}]},"model":"models/m"}]}"#,
    );
    let asked = parse(Method::BatchEmbedContents, "m", &body, &BodyLimits::default(), 1).unwrap();
    assert_eq!((asked.messages, asked.tokens_in_min), (2, 2));
    assert_eq!(asked.operation, Operation::Embedding);
    let sent = rewrite(&asked, &body, &literal("text-embedding-004"), UsageAsk::AsSent).concat();
    let sent = std::str::from_utf8(&sent).unwrap();
    assert_eq!(
        sent,
        std::str::from_utf8(&body).unwrap().replace("models/m\"", "models/text-embedding-004\"")
    );
}

#[test]
fn prompts_that_begin_alike_are_known() {
    let long = "x".repeat(5_000);
    let body = |end: &str| {
        format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{long}"}},{{"text":"{end}"}}]}}]}}"#)
    };
    let (one, other) = (generate(&body("a")), generate(&body("b")));
    assert!(one.prefix_hash.is_some() && one.prefix_hash == other.prefix_hash);
    assert!(!one.prefix.is_empty() && one.prefix[0] == other.prefix[0] && one.prefix != other.prefix);
}
