//! Rerank, moderations, images and sounds: what is read of them, and what is forwarded.

use bytes::Bytes;
use pointsman_wire::chat::Losses;
use pointsman_wire::openai::{BodyLimits, ErrorBody, Invalid, UsageAsk, literal, rewrite};
use pointsman_wire::rerank::{self, Form, Told};
use pointsman_wire::tasks::multipart::{PartLimits, Scanner, Splice, boundary, read};
use pointsman_wire::tasks::{Task, TaskRequest, json};

fn parse(task: Task, body: &str) -> Result<TaskRequest, Invalid> {
    json::parse(task, body.as_bytes(), &BodyLimits::default())
}

#[test]
fn every_task_has_its_path() {
    for task in Task::ALL {
        assert_eq!(Task::of_path(&format!("/v1{}", task.path_suffix())), Some(task), "{}", task.name());
    }
    assert_eq!(
        (Task::of_path("/v2/rerank"), Task::of_path("/rerank")),
        (Some(Task::Rerank), Some(Task::Rerank))
    );
    assert_eq!((Task::of_path("/v1/chat/completions"), Task::of_path("/v2/moderations")), (None, None));
}

#[test]
fn facts_of_json_tasks() {
    let rerank = parse(Task::Rerank, r#"{"model":"r@2","query":"what","documents":["abcd",{"text":"e"}],"top_n":1,"return_documents":true}"#).unwrap();
    assert_eq!((rerank.model.as_deref(), rerank.version.as_deref()), (Some("r"), Some("2")));
    assert_eq!((rerank.items, rerank.top_n, rerank.return_documents), (2, Some(1), Some(true)));
    assert_eq!(rerank.text_bytes, 4 + 12 + 2 * 4, "the query is read with each document");
    assert_eq!(rerank.tokens_in_estimate(), 6);
    let moderation = parse(
        Task::Moderation,
        r#"{"input":[{"type":"text","text":"ab"},{"type":"image_url","image_url":{"url":"x"}},"c"]}"#,
    )
    .unwrap();
    assert_eq!(
        (moderation.model, moderation.items, moderation.images, moderation.text_bytes),
        (None, 3, 1, 3)
    );
    let image =
        parse(Task::ImageGeneration, r#"{"model":"i","prompt":"a cat","n":3,"stream":true}"#).unwrap();
    assert_eq!((image.items, image.stream, image.text_bytes), (3, true, 5));
    let speech =
        parse(Task::Speech, r#"{"model":"s","input":"Hi","voice":"alloy","stream_format":"sse"}"#).unwrap();
    assert!(speech.stream && speech.text_bytes == 2);
}

#[test]
fn c6_only_the_model_changes_and_it_is_put_in_where_it_was_left_out() {
    let check = |task: Task, body: &str, expected: &str| {
        let request = parse(task, body).unwrap().into_request();
        let sent =
            rewrite(&request, &Bytes::copy_from_slice(body.as_bytes()), &literal("up"), UsageAsk::AsSent);
        assert_eq!(sent.concat(), expected.as_bytes());
        assert_eq!(sent.len, expected.len() as u64);
    };
    check(
        Task::Speech,
        r#"{ "voice":"v","model" : "m","input":"a","x":1e400}"#,
        r#"{ "voice":"v","model" : "up","input":"a","x":1e400}"#,
    );
    check(Task::Moderation, r#"{ "input":"a"}"#, r#"{"model":"up", "input":"a"}"#);
    check(Task::Moderation, r#"{"api_key":"k","input":"a","base_url":"u"}"#, r#"{"model":"up","input":"a"}"#);
    check(
        Task::Rerank,
        r#"{"query":"q","timeout":1,"model":"m","documents":["d"]}"#,
        r#"{"query":"q","model":"up","documents":["d"]}"#,
    );
}

#[test]
fn c4_c5_bad_tasks_are_refused_and_the_field_is_named() {
    let check = |task: Task, body: &str, field: &str| {
        let invalid = parse(task, body).unwrap_err();
        assert_eq!(invalid.param.as_deref().unwrap_or(""), field, "{body}: {}", invalid.message);
    };
    check(Task::Rerank, r#"{"query":"q","documents":["d"]}"#, "model");
    check(Task::Rerank, r#"{"model":"m","documents":["d"]}"#, "query");
    check(Task::Rerank, r#"{"model":"m","query":"q"}"#, "documents");
    check(Task::Rerank, r#"{"model":"m","query":"q","documents":[]}"#, "documents");
    check(Task::Rerank, r#"{"model":"m","query":"q","documents":"d"}"#, "documents");
    check(Task::Rerank, r#"{"model":"m","query":"q","documents":["d",1]}"#, "documents[1]");
    check(Task::Rerank, r#"{"model":"m","query":"","documents":["d"]}"#, "query");
    check(Task::Rerank, r#"{"model":"m","query":"q","documents":["d"],"top_n":0}"#, "top_n");
    check(Task::Rerank, r#"{"model":"m","query":"q","documents":["d"],"Documents":["e"]}"#, "documents");
    check(Task::Rerank, r#"{"model":"m","query":"q","query":"r","documents":["d"]}"#, "query");
    check(Task::Moderation, r#"{"model":null,"input":"a"}"#, "model");
    check(Task::Moderation, r#"{"model":"m"}"#, "input");
    check(Task::ImageGeneration, r#"{"prompt":"a","n":0}"#, "n");
    check(Task::ImageGeneration, r#"{"prompt":["a"]}"#, "prompt");
    check(Task::Speech, r#"{"model":"m","input":"a"}"#, "voice");
    check(Task::Speech, r#"{"model":"m","input":["a"],"voice":"v"}"#, "input");
    check(Task::Speech, r#"{"model":"m","input":"a","voice":"v"} x"#, "");
    check(Task::Speech, "", "");
}

#[test]
fn rerank_in_either_form_means_the_same() {
    let cohere = r#"{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":2,"max_tokens_per_doc":100,"priority":1}"#;
    let asked = rerank::read(cohere).unwrap();
    let mut losses = asked.losses.clone();
    let jina = rerank::write(&asked, Form::Jina, "up", &mut losses);
    assert_eq!(
        jina,
        r#"{"model":"up","query":"q","documents":["a","b"],"top_n":2,"return_documents":false}"#
    );
    let lost: Vec<&str> = losses.named().iter().map(|loss| loss.field.as_str()).collect();
    assert_eq!(lost, ["priority", "max_tokens_per_doc"]);
    let back = rerank::write(&asked, Form::Cohere, "up", &mut Losses::default());
    assert_eq!(
        back,
        r#"{"model":"up","query":"q","documents":["a","b"],"top_n":2,"max_tokens_per_doc":100}"#
    );
    let image = rerank::read(r#"{"query":"q","documents":[{"image":"https://example.org/a.png"}]}"#).unwrap();
    let mut losses = Losses::default();
    assert!(rerank::write(&image, Form::Cohere, "up", &mut losses).contains(r#"["{\"image\""#));
    assert_eq!(losses.named()[0].field, "documents[0]");
}

#[test]
fn answers_of_a_rerank_in_either_form() {
    let asked = rerank::read(r#"{"query":"q","documents":["a","b"]}"#).unwrap();
    let told = Told { model: "asked".to_owned(), id: "req_1".to_owned() };
    let cohere = r#"{"id":"07734bd2","results":[{"index":1,"relevance_score":0.999071},{"index":0,"relevance_score":1e-3}],"meta":{"api_version":{"version":"2"},"billed_units":{"search_units":1}}}"#;
    let ranked = rerank::read_answer(cohere).unwrap();
    assert_eq!(
        rerank::write_answer(&ranked, &asked, Form::Jina, &told),
        r#"{"id":"07734bd2","model":"asked","object":"list","results":[{"index":1,"relevance_score":0.999071,"document":{"text":"b"}},{"index":0,"relevance_score":1e-3,"document":{"text":"a"}}],"meta":{"billed_units":{"search_units":1}}}"#
    );
    assert_eq!(
        rerank::write_answer(&ranked, &asked, Form::Cohere, &told),
        cohere,
        "there and back it is the same"
    );
    let jina = r#"{"model":"j","object":"list","usage":{"total_tokens":815},"results":[{"index":0,"document":{"text":"a"},"relevance_score":0.5},{"index":"x"}]}"#;
    let ranked = rerank::read_answer(jina).unwrap();
    assert_eq!((ranked.tokens, ranked.results.len()), (Some(815), 1));
    assert_eq!(
        rerank::write_answer(&ranked, &asked, Form::Cohere, &told),
        r#"{"id":"req_1","results":[{"index":0,"relevance_score":0.5}],"meta":{"api_version":{"version":"2"},"tokens":{"input_tokens":815}}}"#
    );
    assert_eq!(
        (Form::of_path("/v2/rerank"), Form::of_path("/rerank")),
        (Some(Form::Cohere), Some(Form::Jina))
    );
}

/// A part of a body with the boundary `b`.
fn part(head: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

fn transcription() -> Vec<u8> {
    let audio = part(
        "name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav",
        "RIFF\r\n--\r\n--c\r\n\r--b\n--b é",
    );
    let body = audio
        + &part("name=\"stream\"", "true")
        + &part("name=\"model\"", "whisper@1")
        + &part("name=\"empty\"", "")
        + "--b--\r\n";
    body.into_bytes()
}

fn scan(
    task: Task,
    body: &[u8],
    piece_bytes: usize,
) -> Result<pointsman_wire::tasks::multipart::Form, Invalid> {
    let mut scanner = Scanner::new(task, "b", PartLimits::default());
    for piece in body.chunks(piece_bytes.max(1)) {
        scanner.push(piece)?;
    }
    scanner.finish()
}

#[test]
fn c9_parts_cut_at_every_byte_are_the_same_parts() {
    let body = transcription();
    let whole = scan(Task::Transcription, &body, body.len()).unwrap();
    assert_eq!((whole.model.as_deref(), whole.version.as_deref()), (Some("whisper"), Some("1")));
    let at = whole.model_at.clone().unwrap();
    assert_eq!(&body[at.start as usize..at.end as usize], b"whisper@1");
    assert!(whole.stream);
    assert_eq!((whole.parts, whole.files, whole.file_bytes, whole.field_bytes), (4, 1, 26, 13));
    for cut in 0..=body.len() {
        let mut scanner = Scanner::new(Task::Transcription, "b", PartLimits::default());
        scanner.push(&body[..cut]).unwrap();
        scanner.push(&body[cut..]).unwrap();
        assert_eq!(scanner.finish().unwrap(), whole, "cut at {cut}");
        // What ends early is never taken for whole.
        let early = scan(Task::Transcription, &body[..cut], cut);
        assert_eq!(early.is_ok(), cut >= body.len() - 2, "ends at {cut}");
    }
    assert_eq!(scan(Task::Transcription, &body, 1).unwrap(), whole);
}

#[test]
fn the_model_of_a_stream_is_put_in_wherever_it_is_cut() {
    let body = Bytes::from(transcription());
    let at = scan(Task::Transcription, &body, body.len()).unwrap().model_at.unwrap();
    let mut expected = body[..at.start as usize].to_vec();
    expected.extend_from_slice(b"large-v3-turbo");
    expected.extend_from_slice(&body[at.end as usize..]);
    for piece_bytes in 1..=body.len() {
        let mut splice = Splice::new(at.clone(), Bytes::from_static(b"large-v3-turbo"));
        assert_eq!(splice.length(body.len() as u64), expected.len() as u64);
        let mut out = pointsman_wire::openai::Segments::new();
        for from in (0..body.len()).step_by(piece_bytes) {
            splice.push(&body.slice(from..(from + piece_bytes).min(body.len())), &mut out);
        }
        assert_eq!(out.concat(), expected, "pieces of {piece_bytes}");
    }
}

#[test]
fn c4_c9_bad_parts_are_refused_and_the_field_is_named() {
    let file = part("name=\"file\"; filename=\"a\"", "x");
    let model = part("name=\"model\"", "m");
    let check = |body: String, field: &str| {
        for piece_bytes in [1, 7, body.len()] {
            let invalid = scan(Task::Transcription, body.as_bytes(), piece_bytes).unwrap_err();
            assert_eq!(invalid.param.as_deref().unwrap_or(""), field, "{body}: {}", invalid.message);
        }
    };
    check(format!("{file}--b--"), "model");
    check(format!("{model}--b--"), "file");
    check(format!("{file}{model}{model}--b--"), "model");
    check(format!("{file}{model}{}--b--", part("name=\"Model\"", "n")), "model");
    check(format!("{file}{model}{}--b--", part("name=\"model[]\"", "n")), "model");
    check(format!("{file}{}--b--", part("name=\"model\"; filename=\"m\"", "m")), "model");
    check(format!("{file}{}--b--", part("name=\"model\"", "")), "model");
    check(format!("{file}{}--b--", part("name=\"model\"", "a\nb")), "model");
    check(format!("{file}{}--b--", part("name=\"model\"", &"m".repeat(300))), "model");
    check(format!("{file}{file}{model}--b--"), "file");
    check(format!("{model}{}--b--", part("name=\"file\"", "x")), "file");
    check(format!("{file}{model}{}--b--", part("name=\"api_base\"", "u")), "api_base");
    check(format!("{file}{model}{}--b--", part("name=\"prompt\"", "--b--")), "prompt");
    check(format!("{file}{model}--b-- and more"), "");
    check(format!("{file}{model}--bx\r\n"), "");
    check(format!("{file}{model}"), "");
    check(format!("preamble\r\n{file}{model}--b--"), "");
    check(String::from("--c\r\n"), "");
    check(format!("--b\r\nX: {}\r\n\r\n", "y".repeat(5000)), "");
    check(format!("{file}{model}{}--b--", part("name=\"x\"", "").repeat(100)), "");
}

#[test]
fn c9_a_large_file_passes_in_bounded_memory_and_too_large_a_one_is_refused() {
    let limits = PartLimits { file_bytes_max: 1 << 20, field_bytes_max: 100, ..PartLimits::default() };
    let mut scanner = Scanner::new(Task::Transcription, "b", limits.clone());
    scanner.push(b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n").unwrap();
    let refused = (0..40).find_map(|_| scanner.push(&vec![b'\r'; 64 << 10]).err()).unwrap();
    assert_eq!((refused.status, refused.param.as_deref()), (413, Some("file")));
    let mut scanner = Scanner::new(Task::Transcription, "b", limits);
    let body = part("name=\"prompt\"", &"p".repeat(101)) + "--b--";
    assert_eq!(scanner.push(body.as_bytes()).unwrap_err().param.as_deref(), Some("prompt"));
}

#[test]
fn edits_take_several_images_and_need_no_model() {
    let image = part("name=\"image[]\"; filename=\"a.png\"", "x");
    let body = format!("{image}{image}{}--b--", part("name=\"prompt\"", "a cat"));
    let form = scan(Task::ImageEdit, body.as_bytes(), 3).unwrap();
    assert_eq!((form.model, form.model_at, form.files), (None, None, 2));
    assert_eq!(boundary("multipart/form-data; boundary=b").unwrap(), "b");
}

#[test]
fn errors_of_a_rerank_are_where_its_clients_look() {
    let error = ErrorBody::model_not_found("x");
    let body = |form| serde_json::from_str::<serde_json::Value>(&rerank::error(form, &error, "id1")).unwrap();
    let (cohere, jina) = (body(Form::Cohere), body(Form::Jina));
    assert_eq!((&cohere["message"], &cohere["id"]), (&error.message.as_str().into(), &"id1".into()));
    assert_eq!(jina["detail"], error.message.as_str());
    assert_eq!(
        (&cohere["error"]["code"], &jina["error"]["who"]),
        (&"model_not_found".into(), &"router".into())
    );
}

#[test]
fn c12_a_bare_list_of_scores_is_an_answer_too() {
    let asked = rerank::read(r#"{"query":"q","documents":["a","b"],"top_n":1}"#).unwrap();
    let told = Told { model: "asked".to_owned(), id: "req_1".to_owned() };
    let list =
        r#"[{"score":0.9,"document":null,"index":1,"meta_info":{}},{"score":0.1,"document":"a","index":0}]"#;
    let ranked = rerank::read_answer(list).unwrap();
    assert_eq!(
        rerank::write_answer(&ranked, &asked, Form::Cohere, &told),
        r#"{"id":"req_1","results":[{"index":1,"relevance_score":0.9}],"meta":{"api_version":{"version":"2"}}}"#
    );
}

#[test]
fn a_model_that_no_part_names_is_put_before_the_others() {
    let image = part("name=\"image\"; filename=\"a.png\"", "x");
    let body = Bytes::from(format!("{image}{}--b--", part("name=\"prompt\"", "a cat")));
    let request =
        read(Task::ImageEdit, "multipart/form-data; boundary=b", &body, PartLimits::default()).unwrap();
    let parts = request.parts.unwrap();
    assert_eq!((request.model.as_str(), request.images), ("", 1));
    assert_eq!(parts.content_type(), "multipart/form-data; boundary=b");
    let (mut splice, mut out) = (parts.splice("up"), pointsman_wire::openai::Segments::new());
    splice.push(&body, &mut out);
    let sent = out.concat();
    assert_eq!(splice.length(body.len() as u64), sent.len() as u64);
    let named = scan(Task::ImageEdit, &sent, 5).unwrap();
    assert_eq!((named.model.as_deref(), named.files), (Some("up"), 1));
    let odd =
        read(Task::ImageEdit, "multipart/form-data; boundary=\"a b\"", b"--a b--", PartLimits::default());
    assert_eq!(odd.unwrap_err().param.as_deref(), Some("image"));
}
