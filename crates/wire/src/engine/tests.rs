//! Pages as engines give them, cut to what matters and a few lines around it.

use super::*;

/// What the first ask of a family makes of an answer.
fn read(name: &str, model: &str, answer: &str) -> Reading {
    at(name, 0, model, answer)
}

fn at(name: &str, ask: usize, model: &str, answer: &str) -> Reading {
    let family = family(name).expect("a family");
    family.asks[ask].read(answer.as_bytes(), model).expect("it is understood")
}

const VLLM_1: &str = r#"
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79034730342e+09
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="org/model"} 7.0
vllm:num_requests_waiting{engine="0",model_name="org/model"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="org/model",reason="capacity"} 9.0
vllm:engine_sleep_state{engine="0",model_name="org/model",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",model_name="org/model",sleep_state="weights_offloaded"} 0.0
vllm:kv_cache_usage_perc{engine="0",model_name="org/model"} 0.62
vllm:prefix_cache_queries_total{engine="0",model_name="org/model"} 1000.0
vllm:prefix_cache_queries_created{engine="0",model_name="org/model"} 1.79e+09
vllm:prefix_cache_hits_total{engine="0",model_name="org/model"} 600.0
vllm:num_preemptions_total{engine="0",model_name="org/model"} 2.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="org/model"} 204.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="573",sliding_window="None"} 1.0
"#;

#[test]
fn vllm_speaks_in_its_new_words_and_its_old_ones() {
    let new = Reading {
        running: Some(7),
        waiting: Some(3),
        kv_used: Some(0.62),
        kv_capacity_tokens: Some(573 * 16),
        awake: Some(true),
        preemptions: Some(2),
        prefix_tokens: Some(1000),
        prefix_tokens_hit: Some(600),
        started_s: Some(1_790_347_303),
        ..Reading::default()
    };
    assert_eq!(read("vllm", "org/model", VLLM_1), new);
    assert_eq!(read("vllm", "a-lora-of-it", VLLM_1), new, "one model is named, so it is the one");
    let renamed_by_an_exporter = VLLM_1.replace("vllm:", "vllm_");
    assert_eq!(read("vllm", "org/model", &renamed_by_an_exporter), new);
    let old = "vllm:num_requests_running{model_name=\"m\"} 2.0\nvllm:num_requests_waiting{model_name=\"m\"} 1\n\
               vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\nvllm:gpu_prefix_cache_hit_rate{model_name=\"m\"} -1.0\n";
    let expected = Reading { running: Some(2), waiting: Some(1), kv_used: Some(0.5), ..Reading::default() };
    assert_eq!(read("vllm", "m", old), expected);
    let both = format!("{VLLM_1}vllm:gpu_cache_usage_perc{{engine=\"0\",model_name=\"org/model\"}} 0.1\n");
    assert_eq!(read("vllm", "org/model", &both).kv_used, Some(0.62), "the newest spelling counts");
    let asleep = VLLM_1.replace("sleep_state=\"awake\"} 1.0", "sleep_state=\"awake\"} 0.0");
    assert_eq!(read("vllm", "org/model", &asleep).awake, Some(false));
    let told = "vllm:cache_config_info{block_size=\"16\",kv_cache_size_tokens=\"1000000\",num_gpu_blocks=\"None\"} 1\n";
    assert_eq!(read("vllm", "m", told).kv_capacity_tokens, Some(1_000_000));
}

#[test]
fn ranks_are_added_up_and_copies_are_not() {
    let ranks = "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 4\n\
                 vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 2\n\
                 vllm:kv_cache_usage_perc{engine=\"0\",model_name=\"m\"} 0.9\n\
                 vllm:kv_cache_usage_perc{engine=\"1\",model_name=\"m\"} 0.1\n\
                 vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"100\"} 1\n\
                 vllm:cache_config_info{block_size=\"16\",engine=\"1\",num_gpu_blocks=\"100\"} 1\n";
    let reading = read("vllm", "m", ranks);
    assert_eq!((reading.running, reading.kv_capacity_tokens), (Some(6), Some(3200)));
    assert!(reading.kv_used.is_some_and(|used| (used - 0.5).abs() < 1e-6));
    let copies = "sglang:num_queue_reqs{engine_type=\"unified\",model_name=\"g\",tp_rank=\"0\"} 3.0\n\
                  sglang:num_queue_reqs{engine_type=\"unified\",model_name=\"g\",tp_rank=\"1\"} 3.0\n\
                  sglang:num_running_reqs{dp_rank=\"0\",model_name=\"g\",tp_rank=\"0\"} 5.0\n\
                  sglang:num_running_reqs{dp_rank=\"0\",model_name=\"g\",tp_rank=\"1\"} 5.0\n\
                  sglang:num_running_reqs{dp_rank=\"1\",model_name=\"g\",tp_rank=\"0\"} 1.0\n";
    let reading = read("sglang", "g", copies);
    assert_eq!((reading.waiting, reading.running), (Some(3), Some(6)));
}

#[test]
fn each_of_several_models_has_its_own_numbers() {
    let two = "vllm:num_requests_running{model_name=\"a\"} 1\nvllm:num_requests_running{model_name=\"b\"} 2\n\
               vllm:num_requests_waiting{model_name=\"b\"} 3\n";
    assert_eq!(read("vllm", "a", two).running, Some(1));
    assert_eq!(read("vllm", "b", two).running, Some(2));
    assert_eq!(read("vllm", "c", two).running, None, "nobody knows which it would be");
}

#[test]
fn sglang_speaks_with_a_colon_and_with_an_underscore() {
    let page = "# TYPE sglang:num_running_reqs gauge\nsglang:num_running_reqs{model_name=\"m\"} 3.0\n\
                sglang:num_queue_reqs{model_name=\"m\"} 0.0\nsglang:token_usage{model_name=\"m\"} 0.284\n\
                sglang:full_token_usage{model_name=\"m\"} 0.9\nsglang:num_queue_reqs_total{model_name=\"m\"} 999\n\
                sglang:cache_config_info{num_pages=\"11147\",page_size=\"64\"} 1.0\n\
                sglang:prompt_tokens_total{model_name=\"m\"} 5000.0\nsglang:cached_tokens_total{model_name=\"m\"} 25.0\n";
    let expected = Reading {
        running: Some(3),
        waiting: Some(0),
        kv_used: Some(0.284),
        kv_capacity_tokens: Some(11147 * 64),
        prefix_tokens: Some(5000),
        prefix_tokens_hit: Some(25),
        ..Reading::default()
    };
    assert_eq!(read("sglang", "m", page), expected);
    assert_eq!(read("sglang", "m", &page.replace("sglang:", "sglang_")), expected);
    let info = r#"{"max_running_requests": null, "max_total_num_tokens": 471258, "version": "0.5",
                   "internal_states": [{"effective_max_running_requests_per_dp": 24}, {"effective_max_running_requests_per_dp": 24}]}"#;
    let told = at("sglang", 1, "m", info);
    assert_eq!((told.slots, told.kv_capacity_tokens), (Some(48), Some(471_258)));
    assert_eq!(at("sglang", 1, "m", r#"{"max_running_requests": 12}"#).slots, Some(12));
}

#[test]
fn tgi_tells_its_use_of_tokens_by_its_budget() {
    let page = "tgi_queue_size 5\ntgi_batch_current_size 8\ntgi_batch_current_max_tokens 2048\n\
                tgi_request_duration_bucket{le=\"0.1\"} 7\n";
    let mut reading = read("tgi", "m", page);
    assert_eq!((reading.running, reading.waiting, reading.kv_share()), (Some(8), Some(5), None));
    reading.fill_from(&at(
        "tgi",
        1,
        "m",
        r#"{"model_id": "m", "max_batch_total_tokens": 8192, "max_batch_size": null}"#,
    ));
    assert_eq!((reading.kv_share(), reading.slots), (Some(0.25), None));
}

#[test]
fn llama_cpp_shows_its_slots_in_old_shapes_and_new_ones() {
    let new = r#"[{"id":0,"n_ctx":2048,"speculative":false,"is_processing":false},
        {"id":1,"n_ctx":2048,"is_processing":true,"id_task":1,"n_prompt_tokens":512,"n_prompt_tokens_processed":31,
         "params":{"seed":4294967295,"max_tokens":400},"next_token":[{"has_next_token":true,"n_remain":358,"n_decoded":42}]}]"#;
    let reading = read("llama_cpp", "m", new);
    assert_eq!((reading.running, reading.slots, reading.kv_capacity_tokens), (Some(1), Some(2), Some(4096)));
    assert_eq!((reading.kv_share(), reading.waiting), (Some(0.125), None));
    let old = r#"[{"id":0,"task_id":3,"state":1,"n_ctx":1024,"n_past":512,"prompt":"once","next_token":{"n_remain":-1}},
        {"id":1,"state":0,"n_ctx":1024,"n_past":100}]"#;
    let reading = read("llama_cpp", "m", old);
    assert_eq!((reading.running, reading.slots, reading.kv_share()), (Some(1), Some(2), Some(0.25)));
    let unknown = r#"[{"id":0,"busy":true}]"#;
    assert_eq!(read("llama_cpp", "m", unknown).running, None, "a field that was renamed is not an idle slot");
    let metrics = "llamacpp:prompt_tokens_total 100\nllamacpp:prompt_tokens_cached_total 300\n\
                   llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:kv_cache_usage_ratio 0.25\n";
    let reading = at("llama_cpp", 1, "m", metrics);
    assert_eq!((reading.running, reading.waiting, reading.kv_used), (Some(2), Some(1), Some(0.25)));
    assert_eq!((reading.prefix_tokens, reading.prefix_tokens_hit), (Some(400), Some(300)));
    assert_eq!(at("llama_cpp", 2, "m", r#"{"total_slots": 4, "model_alias": "m"}"#).slots, Some(4));
}

#[test]
fn f12_ollama_tells_which_models_are_loaded_and_nothing_else() {
    let ps = r#"{"models":[{"name":"llama3.2:latest","model":"llama3.2:latest","size":1,"expires_at":"2026-01-01T00:00:00Z"}]}"#;
    for (model, loaded) in
        [("llama3.2", true), ("llama3.2:latest", true), ("llama3.2:3b", false), ("qwen3", false)]
    {
        let expected = Reading { awake: Some(loaded), ..Reading::default() };
        assert_eq!(read("ollama", model, ps), expected, "{model}");
    }
    assert_eq!(read("ollama", "m", r#"{"models":null}"#).awake, None);
}

#[test]
fn tensorrt_llm_alone_and_behind_triton() {
    let page = "trtllm_num_requests_running{engine_type=\"trtllm\",model_name=\"m\"} 4\n\
                trtllm_num_requests_waiting{engine_type=\"trtllm\",model_name=\"m\"} 1\n\
                trtllm_kv_cache_utilization{engine_type=\"trtllm\",model_name=\"m\"} 0.62\n\
                trtllm_kv_cache_max_blocks 100\ntrtllm_kv_cache_tokens_per_block 32\n";
    let reading = read("tensorrt_llm", "m", page);
    assert_eq!((reading.running, reading.waiting, reading.kv_used), (Some(4), Some(1), Some(0.62)));
    assert_eq!(reading.kv_capacity_tokens, Some(3200));
    let page = r#"
nv_inference_pending_request_count{model="ensemble",version="1"} 4
nv_inference_pending_request_count{model="postprocessing",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.6
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;
    let reading = read("triton", "ensemble", page);
    assert_eq!((reading.running, reading.waiting, reading.slots), (Some(4), Some(3), Some(512)));
    assert_eq!((reading.kv_used, reading.kv_capacity_tokens), (Some(0.6), Some(6239 * 64)));
    let others = "nv_inference_pending_request_count{model=\"a\",version=\"1\"} 4\n\
                  nv_inference_pending_request_count{model=\"b\",version=\"1\"} 7\n";
    assert_eq!(read("triton", "b", others), Reading { waiting: Some(7), ..Reading::default() });
}

#[test]
fn f8_lies_are_clamped_and_what_is_no_number_was_not_said() {
    let check = |running: &str, expected: Option<u32>| {
        let page = format!("vllm:num_requests_running{{model_name=\"m\"}} {running}\n");
        assert_eq!(read("vllm", "m", &page).running, expected, "{running}");
    };
    check("-3", Some(0));
    check("1e300", Some(REQUESTS_MAX));
    check("2.6", Some(3));
    check("NaN", None);
    check("+Inf", None);
    check("four", None);
    for (used, expected) in [("-0.5", Some(0.0)), ("97.5", Some(1.0)), ("NaN", None)] {
        assert_eq!(read("vllm", "m", &format!("vllm:kv_cache_usage_perc {used}")).kv_used, expected);
    }
    let renamed = VLLM_1.replace("num_requests_waiting", "requests_queued");
    assert_eq!(read("vllm", "org/model", &renamed).waiting, None, "what was renamed is not 0");
    for family in ALL {
        for ask in family.asks {
            for garbage in [&b""[..], b"<html>no</html>", b"{", b"[1]", b"\xff\xfe", b"nv_ 1\n"] {
                if let Ok(reading) = ask.read(garbage, "m") {
                    assert_eq!((reading.running, reading.waiting), (None, None), "{family:?} {}", ask.path);
                }
            }
        }
    }
}
