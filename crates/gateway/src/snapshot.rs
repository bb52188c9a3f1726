//! What is configured, made ready for requests: immutable, swapped whole. A request keeps the snapshot it arrived
//! under until it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::{Class, Lane};
use pointsman_routing::flow::Usage;
use pointsman_routing::flow::misfit::OnMismatch;
use pointsman_routing::mirror::MirrorSpec;
use pointsman_routing::{CredentialId, DeploymentId, Fleet, ModelId};
use pointsman_settings::Config;
use pointsman_settings::auth::{ClassName, LaneName};
use pointsman_settings::models::LossesConfig;
use pointsman_settings::providers::ProviderConfig;
use pointsman_wire::openai::continuation::Style;
use pointsman_wire::openai::literal;
use pointsman_wire::openai::rules::ModelRules;
use pointsman_wire::openai::usage;
use pointsman_wire::prices::Price;
use rustc_hash::FxHashMap;

use crate::http::auth::Keys;
use crate::http::respond;
use crate::telemetry::metrics::{DeploymentMetrics, Metrics, ModelMetrics};
use crate::upstream::credential::Credential;
use crate::upstream::kserve::TensorsHead;
use crate::upstream::target::{self, Endpoint};

/// The configuration, ready for requests.
pub struct Snapshot {
    /// Counts the snapshots of this process, from 1.
    pub generation: u64,
    /// What was configured, admin changes included.
    pub config: Arc<Config>,
    /// Who may ask.
    pub keys: Keys,
    /// Models by name and by alias.
    pub models: FxHashMap<Name, Arc<Model>>,
    /// Where each deployment is.
    pub targets: FxHashMap<DeploymentId, Arc<Target>>,
    /// What each credential sends.
    pub credentials: FxHashMap<CredentialId, Credential>,
    /// Names of deployments, for records that outlive the snapshot.
    pub names: Arc<BTreeMap<DeploymentId, Name>>,
}

/// A model as requests meet it.
pub struct Model {
    /// Its handle in the fleet.
    pub id: ModelId,
    /// Its own name, whatever alias it was asked for by.
    pub name: Name,
    /// What requests for it must keep to.
    pub rules: ModelRules,
    /// The lane of all its requests, if it has one of its own.
    pub lane: Option<Lane>,
    /// The class of its requests where neither they nor their key say.
    pub class: Option<Class>,
    /// Whether it refuses what a deployment's dialect has no word for, rather than leave it out.
    pub refuses_losses: bool,
    /// What becomes of answers that do not fit the schema that their request holds them to; `None`: they are not checked.
    pub on_mismatch: Option<OnMismatch>,
    /// Where copies of its requests go, if anywhere.
    pub mirror: Option<MirrorSpec>,
    /// Where its requests are counted.
    pub metrics: ModelMetrics,
}

/// A deployment as an attempt meets it.
pub struct Target {
    /// Its handle in the fleet.
    pub id: DeploymentId,
    /// Its name, unique within its model.
    pub name: Name,
    /// The provider's name.
    pub provider: Name,
    /// The name as `x-pointsman-served-by` has it.
    pub served_by: HeaderValue,
    /// The model name the provider knows, as it stands in a body.
    pub upstream_model: Bytes,
    /// The same as text.
    pub upstream_model_name: Name,
    /// Where connections go.
    pub endpoint: Arc<Endpoint>,
    /// How the head of an inference request to it begins.
    pub tensors: TensorsHead,
    /// Whether it takes requests of the Responses API as they come.
    pub responses: bool,
    /// Whether the provider accepts `stream_options.include_usage`.
    pub stream_usage: bool,
    /// How it is told to go on with an answer that broke off elsewhere, if it can.
    pub continuation: Option<Style>,
    /// What it costs, if known.
    pub price: Option<Price>,
    /// Where its attempts are counted.
    pub metrics: DeploymentMetrics,
}

impl Target {
    /// What an answer cost, millionths of a USD; `None` if any part of it has no known price.
    pub fn cost_micro_usd(&self, used: &Usage) -> Option<u64> {
        self.price?.micro_usd(&usage::Usage {
            tokens_in: used.tokens_in,
            tokens_in_cached: used.tokens_in_cached,
            tokens_in_cache_written: used.tokens_in_cache_written,
            tokens_in_cache_written_1h: used.tokens_in_cache_written_1h,
            tokens_in_image: used.tokens_in_image,
            tokens_in_audio: used.tokens_in_audio,
            tokens_out_reasoning: used.tokens_out_reasoning,
            tokens_out_audio: used.tokens_out_audio,
            tokens_out: used.tokens_out,
            off_list: used.off_list,
        })
    }
}

impl Snapshot {
    /// Applies `config` to the fleet and makes the snapshot that belongs to it. Both happen under the fleet's lock,
    /// so that no decision can name a deployment that the newest snapshot does not know.
    pub fn build(generation: u64, config: &Arc<Config>, fleet: &mut Fleet, metrics: &Metrics) -> Self {
        fleet.apply(&config.catalog(), crate::clock::now());
        let mut snapshot = Self {
            generation,
            keys: Keys::new(&config.auth),
            models: FxHashMap::default(),
            targets: FxHashMap::default(),
            credentials: FxHashMap::default(),
            names: Arc::default(),
            config: Arc::clone(config),
        };
        let endpoints = snapshot.add_providers(fleet, metrics);
        let mut names = BTreeMap::new();
        for (name, model) in &config.models {
            let Some(id) = fleet.model(name) else { continue };
            let name: Name = name.as_str().into();
            for deployment in &model.deployments {
                let deployment_name: Name = deployment.name_in(&name).into();
                let (Some(id), Some(endpoint)) =
                    (fleet.deployment(id, &deployment_name), endpoints.get(deployment.provider.as_str()))
                else {
                    continue;
                };
                names.insert(id, Name::clone(&deployment_name));
                let target = Target {
                    id,
                    metrics: metrics.deployment(&name, &deployment_name, &deployment.provider),
                    served_by: respond::text_value(&deployment_name),
                    name: deployment_name,
                    provider: deployment.provider.as_str().into(),
                    upstream_model: literal(deployment.model.as_deref().unwrap_or(&name)),
                    upstream_model_name: deployment.model.as_deref().unwrap_or(&name).into(),
                    tensors: TensorsHead::new(
                        endpoint,
                        deployment.model.as_deref().unwrap_or(&name),
                        deployment.upstream_version.as_deref().or(deployment.version.as_deref()),
                    ),
                    endpoint: Arc::clone(endpoint),
                    responses: config.takes_responses(model, deployment),
                    stream_usage: endpoint.vendor.stream_usage,
                    continuation: config
                        .providers
                        .get(&deployment.provider)
                        .and_then(ProviderConfig::continuation_style),
                    price: config.price_of(&name, deployment),
                };
                snapshot.targets.insert(id, Arc::new(target));
            }
            snapshot.add_model(id, &name, &model.aliases, metrics);
        }
        snapshot.names = Arc::new(names);
        snapshot
    }

    fn add_providers(&mut self, fleet: &Fleet, metrics: &Metrics) -> BTreeMap<String, Arc<Endpoint>> {
        let mut endpoints = BTreeMap::new();
        for (name, provider) in &self.config.providers {
            let endpoint = target::endpoint(name, provider, &self.config.egress);
            for (at, key) in provider.keys.iter().enumerate() {
                let key_name = key.name_at(at);
                if let Some(id) = fleet.credential(name, &key_name)
                    && let Some(credential) =
                        Credential::of(&endpoint, provider, (&key_name, key), &self.config.egress, metrics)
                {
                    self.credentials.insert(id, credential);
                }
            }
            endpoints.insert(name.clone(), Arc::new(endpoint));
        }
        endpoints
    }

    /// Keeps the tokens of accounts that were there before.
    pub fn inherit(&mut self, before: &Self) {
        for (id, credential) in &mut self.credentials {
            let kept = before.credentials.get(id).and_then(Credential::tokens);
            if let (Credential::Google(tokens), Some(kept)) = (credential, kept)
                && tokens.is_same(kept)
            {
                *tokens = Arc::clone(kept);
            }
        }
    }

    fn add_model(&mut self, id: ModelId, name: &Name, aliases: &[String], metrics: &Metrics) {
        let config = self.config.models.get(&**name);
        let model = Arc::new(Model {
            id,
            name: Name::clone(name),
            rules: self.config.rules(name),
            lane: config.and_then(|model| model.lane).map(LaneName::lane),
            class: config.and_then(|model| model.priority).map(ClassName::class),
            refuses_losses: config.is_some_and(|model| model.conversion.losses == LossesConfig::Refuse),
            on_mismatch: config.and_then(|model| model.structured_output.on_mismatch.policy()),
            mirror: self.config.mirror(name),
            metrics: metrics.model(name),
        });
        for alias in aliases {
            self.models.insert(alias.as_str().into(), Arc::clone(&model));
        }
        self.models.insert(Name::clone(name), model);
    }

    /// The models that `may_use` lets through, by name, aliases left out.
    pub fn listed(&self, may_use: impl Fn(&str) -> bool) -> Vec<&Arc<Model>> {
        self.config
            .models
            .keys()
            .filter(|name| may_use(name))
            .filter_map(|name| self.models.get(name.as_str()))
            .collect()
    }
}
