//! What the mock says of its load, in the spellings of engines.

use std::fmt::Write;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::control::Inner;

/// Whose spellings it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Spelling {
    /// vLLM since v1
    #[default]
    Vllm,
    /// vLLM before
    VllmV0,
    /// SGLang up to v0.5.3
    Sglang,
    /// SGLang after
    SglangUnderscore,
    /// Text Generation Inference
    Tgi,
    /// llama.cpp's server
    LlamaCpp,
    /// The same in the shape of its old builds
    LlamaCppOld,
    /// Ollama
    Ollama,
    /// trtllm-serve
    TensorrtLlm,
    /// Triton with its TensorRT-LLM backend
    Triton,
}

/// What is wrong with what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Metrics {
    /// Nothing
    #[default]
    Good,
    /// It says nothing: 404
    Off,
    /// It does not answer
    Hang,
    /// It answers with noise
    Garbage,
    /// Its answer has a gibibyte
    Endless,
    /// The number of requests that wait has another name
    Renamed,
    /// It says what cannot be
    Lies,
}

/// Tokens that its KV cache has, by its word.
const KV_TOKENS: u64 = 16_000;
/// Tokens of a block of it.
const BLOCK_TOKENS: u64 = 16;

/// The load at one moment.
struct Load {
    running: f64,
    waiting: f64,
    slots: u64,
    /// Share of the KV cache in use.
    used: f64,
    prompts: u64,
    started_s: u64,
    /// What the number of waiting requests is called after its usual name.
    renamed: &'static str,
}

impl Inner {
    fn load(&self) -> Load {
        let (settings, stats) = (&self.settings, &self.stats);
        let slots = if settings.slots == 0 { 256 } else { u64::from(settings.slots) };
        let lies = settings.metrics == Metrics::Lies;
        let waiting = stats.inflight.saturating_sub(stats.slots_busy);
        Load {
            running: if lies { -1e12 } else { stats.slots_busy as f64 },
            waiting: if lies { f64::NAN } else { waiting as f64 },
            slots,
            used: if lies { 42.0 } else { (stats.slots_busy as f64 / slots as f64).min(1.0) },
            prompts: stats.requests * 100,
            started_s: self.started_s,
            renamed: if settings.metrics == Metrics::Renamed { "_v2" } else { "" },
        }
    }

    /// What stands at a path, if anything does in the spelling that is set.
    pub(super) fn page(&self, path: &str, models: &[String]) -> Option<String> {
        let model = models.first().map_or("mock-model", String::as_str);
        let load = self.load();
        match (self.settings.engine, path) {
            (Spelling::Vllm, "/metrics") => Some(load.vllm(model, "kv_cache_usage_perc")),
            (Spelling::VllmV0, "/metrics") => Some(load.vllm(model, "gpu_cache_usage_perc")),
            (Spelling::Sglang, "/metrics") => Some(load.sglang(model, ':')),
            (Spelling::SglangUnderscore, "/metrics") => Some(load.sglang(model, '_')),
            (Spelling::Sglang | Spelling::SglangUnderscore, "/get_server_info") => Some(
                json!({"max_running_requests": load.slots, "max_total_num_tokens": KV_TOKENS}).to_string(),
            ),
            (Spelling::Tgi, "/metrics") => Some(load.tgi()),
            (Spelling::Tgi, "/info") => {
                Some(json!({"max_batch_total_tokens": KV_TOKENS, "max_batch_size": load.slots}).to_string())
            }
            (Spelling::LlamaCpp | Spelling::LlamaCppOld, "/metrics") => Some(load.llama_cpp()),
            (Spelling::LlamaCpp, "/slots") => Some(load.llama_slots(false)),
            (Spelling::LlamaCppOld, "/slots") => Some(load.llama_slots(true)),
            (Spelling::LlamaCpp, "/props") => Some(json!({"total_slots": load.slots}).to_string()),
            (Spelling::Ollama, "/api/ps") => {
                let loaded = models.iter().map(|model| json!({"name": model, "model": model}));
                Some(json!({"models": loaded.collect::<Vec<_>>()}).to_string())
            }
            (Spelling::TensorrtLlm, "/prometheus/metrics") => Some(load.tensorrt_llm(model)),
            (Spelling::Triton, "/metrics") => Some(load.triton()),
            (
                Spelling::Vllm
                | Spelling::VllmV0
                | Spelling::Sglang
                | Spelling::SglangUnderscore
                | Spelling::Tgi
                | Spelling::LlamaCpp
                | Spelling::LlamaCppOld
                | Spelling::Ollama
                | Spelling::TensorrtLlm
                | Spelling::Triton,
                _,
            ) => None,
        }
    }
}

/// A page of gauges: names with their labels, and values.
fn gauges(samples: &[(&str, &str, String, f64)]) -> String {
    let mut page = String::new();
    for (name, suffix, labels, value) in samples {
        let _ = writeln!(page, "# TYPE {name}{suffix} gauge\n{name}{suffix}{labels} {value:?}");
    }
    page
}

impl Load {
    fn vllm(&self, model: &str, kv_used: &str) -> String {
        let labels = format!("{{engine=\"0\",model_name=\"{model}\"}}");
        let of = |name: &str| format!("vllm:{name}");
        let (running, waiting, used) = (of("num_requests_running"), of("num_requests_waiting"), of(kv_used));
        let (asked, hit) = (of("prefix_cache_queries_total"), of("prefix_cache_hits_total"));
        let (awake, cache) = (of("engine_sleep_state"), of("cache_config_info"));
        let blocks = KV_TOKENS / BLOCK_TOKENS;
        gauges(&[
            ("process_start_time_seconds", "", String::new(), self.started_s as f64),
            (&running, "", labels.clone(), self.running),
            (&waiting, self.renamed, labels.clone(), self.waiting),
            (&used, "", labels.clone(), self.used),
            (&asked, "", labels.clone(), self.prompts as f64),
            (&hit, "", labels.clone(), 0.0),
            (&awake, "", format!("{{engine=\"0\",model_name=\"{model}\",sleep_state=\"awake\"}}"), 1.0),
            (
                &cache,
                "",
                format!("{{block_size=\"{BLOCK_TOKENS}\",engine=\"0\",num_gpu_blocks=\"{blocks}\"}}"),
                1.0,
            ),
        ])
    }

    fn sglang(&self, model: &str, mark: char) -> String {
        let labels = format!("{{engine_type=\"unified\",model_name=\"{model}\",tp_rank=\"0\"}}");
        let of = |name: &str| format!("sglang{mark}{name}");
        gauges(&[
            (&of("num_running_reqs"), "", labels.clone(), self.running),
            (&of("num_queue_reqs"), self.renamed, labels.clone(), self.waiting),
            (&of("token_usage"), "", labels.clone(), self.used),
            (&of("max_total_num_tokens"), "", labels, KV_TOKENS as f64),
        ])
    }

    fn tgi(&self) -> String {
        let none = String::new;
        gauges(&[
            ("tgi_batch_current_size", "", none(), self.running),
            ("tgi_queue_size", self.renamed, none(), self.waiting),
            ("tgi_batch_current_max_tokens", "", none(), self.used * KV_TOKENS as f64),
        ])
    }

    fn llama_cpp(&self) -> String {
        let none = String::new;
        gauges(&[
            ("llamacpp:requests_processing", "", none(), self.running),
            ("llamacpp:requests_deferred", self.renamed, none(), self.waiting),
        ])
    }

    fn llama_slots(&self, old: bool) -> String {
        let context = KV_TOKENS / self.slots;
        let slot = |at: u64| {
            let busy = (at as f64) < self.running;
            if old {
                json!({"id": at, "n_ctx": context, "state": u8::from(busy), "n_past": context})
            } else {
                json!({"id": at, "n_ctx": context, "is_processing": busy, "n_prompt_tokens": context})
            }
        };
        json!((0..self.slots).map(slot).collect::<Vec<_>>()).to_string()
    }

    fn tensorrt_llm(&self, model: &str) -> String {
        let labels = format!("{{engine_type=\"trtllm\",model_name=\"{model}\"}}");
        gauges(&[
            ("trtllm_num_requests_running", "", labels.clone(), self.running),
            ("trtllm_num_requests_waiting", self.renamed, labels.clone(), self.waiting),
            ("trtllm_kv_cache_utilization", "", labels, self.used),
            ("trtllm_kv_cache_max_blocks", "", String::new(), (KV_TOKENS / BLOCK_TOKENS) as f64),
            ("trtllm_kv_cache_tokens_per_block", "", String::new(), BLOCK_TOKENS as f64),
        ])
    }

    fn triton(&self) -> String {
        let requests =
            |kind: &str| format!("{{model=\"tensorrt_llm\",request_type=\"{kind}\",version=\"1\"}}");
        let blocks =
            |kind: &str| format!("{{kv_cache_block_type=\"{kind}\",model=\"tensorrt_llm\",version=\"1\"}}");
        let (of, cache) = ("nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics");
        gauges(&[
            (of, "", requests("scheduled"), self.running),
            (of, self.renamed, requests("waiting"), self.waiting),
            (of, "", requests("max"), self.slots as f64),
            (cache, "", blocks("fraction"), self.used),
            (cache, "", blocks("tokens_per"), BLOCK_TOKENS as f64),
            (cache, "", blocks("max"), (KV_TOKENS / BLOCK_TOKENS) as f64),
        ])
    }
}
