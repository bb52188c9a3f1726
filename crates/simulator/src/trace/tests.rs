//! Snippets of each format, and what is said of bad ones.

use super::*;

fn asks(text: &str) -> Vec<(u64, u32, u32)> {
    let workload = read(text.as_bytes()).expect("a good trace");
    workload.asks().iter().map(|ask| (ask.at_ns / 1_000_000, ask.tokens_in, ask.tokens_out)).collect()
}

fn error(text: &str) -> String {
    read(text.as_bytes()).expect_err("a bad trace").to_string()
}

#[test]
fn azure() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 18:17:03.9799600,4808,10\r\n\
                2023-11-16 18:17:04.0319600,3180,8\r\n\r\n";
    assert_eq!(asks(text), [(0, 4_808, 10), (52, 3_180, 8)]);
    assert_eq!(asks(&format!("\u{FEFF}{text}")).len(), 2, "a byte order mark");
    let bad = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,48o8,10\n";
    assert_eq!(error(bad), "line 2, column contexttokens: `48o8` is no number of tokens");
    let bad = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,48,10\nsoon,1,1\n";
    assert_eq!(error(bad), "line 3, column timestamp: `soon` is no time such as 2023-11-16 18:17:03.9799600");
    let bad = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,48\n";
    assert_eq!(error(bad), "line 2, column generatedtokens: is missing");
}

#[test]
fn mooncake() {
    let text = r#"{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [0, 1, 2]}
{"timestamp": 0, "input_length": 1024, "output_length": 6, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 600, "output_length": 7, "hash_ids": [0, 9]}
{"timestamp": 3000, "input_length": 100, "output_length": 8, "hash_ids": [4]}
"#;
    assert_eq!(asks(text), [(0, 1_100, 5), (1_500, 1_024, 6), (3_000, 600, 7), (4_500, 100, 8)], "spread");
    let workload = read(text.as_bytes()).expect("a good trace");
    let blocks: Vec<Vec<(u32, u64)>> =
        workload.asks().iter().map(|ask| workload.blocks(ask).collect()).collect();
    assert_eq!(blocks.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1, 0], "whole blocks alone");
    assert_eq!((blocks[0] == blocks[1], blocks[0][0] == blocks[2][0]), (true, true), "the same beginnings");
    assert_eq!((blocks[0][0].0, blocks[0][1].0), (512, 1_024));
    let bad = "{\"input_length\": 1, \"timestamp\": 0, \"output_length\": 2}\n{\"timestamp\": \"x\"}\n";
    assert_eq!(error(bad), "line 2, column 17: invalid type: string \"x\", expected u64");
}

#[test]
fn burst_gpt() {
    let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                5,a,1.5,ChatGPT,472,18,490,Conversation log\n5,b,0,GPT-4,100,0,100,Conversation log\n\
                5,,2,GPT-4,1087,230,1317,API log\n45,a,3,ChatGPT,417.0,276,693,Conversation log\n";
    assert_eq!(
        asks(text),
        [(0, 472, 18), (500, 1_087, 230), (40_000, 417, 276)],
        "without the one that failed"
    );
    let workload = read(text.as_bytes()).expect("a good trace");
    let sessions: Vec<u64> = workload.asks().iter().map(|ask| ask.session).collect();
    assert!(sessions[0] != 0 && sessions[0] == sessions[2] && sessions[1] == 0, "{sessions:?}");
    let older = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,472,18,490,API log\n";
    assert_eq!(asks(older), [(0, 472, 18)]);
    assert_eq!(
        error(&older.replace(",18,", ",-1,")),
        "line 2, column responsetokens: `-1` is no number of tokens"
    );
    assert_eq!(
        error(&older.replace("5,C", "now,C")),
        "line 2, column timestamp: `now` is no time in seconds"
    );
}

#[test]
fn decision_log() {
    let text = r#"{"request_id":"0","at_unix_ms":1000,"model":"m","tenant":"t","facts":{"tokens_in_estimate":900,"lane":"batch","session_hash":"00000000000000ff","prefix_chain":[[256,"000000000000000a"],[512,"000000000000000b"]]},"usage":{"tokens_in":1000,"tokens_out":20}}
{"request_id":"1","at_unix_ms":1500,"model":"m","tenant":"u","facts":{"tokens_in_estimate":70},"usage":null}
{"request_id":"2","at_unix_ms":1600,"model":null,"tenant":null,"facts":null,"usage":null}
"#;
    assert_eq!(asks(text), [(0, 1_000, 20), (500, 70, 256)], "what was invalid is left out");
    let workload = read(text.as_bytes()).expect("a good log");
    let first = workload.asks()[0];
    assert_eq!((first.session, first.lane.name(), workload.blocks(&first).len()), (255, "batch", 2));
    assert_eq!(&*workload.models[first.model as usize], "m");
    let message = error(&text.replace("000b", "zzzz"));
    assert_eq!(message, "line 1, column facts: a hash is 16 hexadecimal digits");
    let message = error(&text.replace("[512,", "[256,"));
    assert_eq!(message, "line 1, column facts.prefix_chain: its lengths must ascend");
}

#[test]
fn a_line_of_a_log_that_is_too_long_or_cut_off_is_left_out_and_told() {
    let line = |id: u64| {
        format!(
            "{{\"request_id\":\"{id}\",\"at_unix_ms\":{id},\"model\":\"m\",\"tenant\":\"t\",\"facts\":{{\"tokens_in_estimate\":70}}}}\n"
        )
    };
    let long = format!("{{\"request_id\":\"{}\"}}\n", "x".repeat(LINE_BYTES_MAX));
    for first in [String::new(), long.clone()] {
        let text = format!("{first}{}{long}{}{{\"request_id\":\"9\",\"at_un", line(1), line(2));
        let workload = read(text.as_bytes()).expect("a log");
        assert_eq!(workload.asks().len(), 2, "those before and behind it");
        let count = 2 + u64::from(!first.is_empty());
        assert_eq!(workload.left_out.count, count, "{:?}", workload.left_out);
        let last = workload.left_out.first.last().expect("named");
        assert_eq!((last.line, last.what.as_str()), (count + 2, "was cut off"));
    }
    let azure = format!("{}\nTIMESTAMP,ContextTokens,GeneratedTokens\n", "1".repeat(LINE_BYTES_MAX + 1));
    assert_eq!(error(&azure), "line 1: is longer than 16777216 bytes", "of other files all is needed");
}

#[test]
fn what_is_no_trace_is_told_what_would_be() {
    for bad in ["", "a,b,c\n1,2,3\n", "{\"a\": 1}\n", "\u{0}\u{1}"] {
        assert!(error(bad).contains("is of no known format: a trace is a CSV with"), "{bad:?}");
    }
    assert_eq!(error("TIMESTAMP,ContextTokens,GeneratedTokens\n"), "has no requests");
    let long = format!("TIMESTAMP,ContextTokens,GeneratedTokens\n{}", "1".repeat(LINE_BYTES_MAX + 1));
    assert_eq!(error(&long), "line 2: is longer than 16777216 bytes");
}
