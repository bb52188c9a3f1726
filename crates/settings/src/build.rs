//! From the configuration to what routing and the protocols want to know.

use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::catalog::{
    Capabilities, Catalog, CredentialSpec, DeploymentSpec, HedgeSpec, ModelSpec, Name, ProviderSpec,
    RegionSpec, RetrySpec, SplitSpec, Sticky,
};
use pointsman_routing::mirror::MirrorSpec;
use pointsman_wire::dialect::CLIENTS;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::rules::{Abilities, ModelRules};
use pointsman_wire::prices::{self, Price};
use pointsman_wire::tasks::Task;
use pointsman_wire::vendor::Kserve;

use crate::Config;
use crate::auth::LaneName;
use crate::limits::DRAIN_MS_USUAL;
use crate::models::{Capability, DeploymentConfig, ModelConfig, RegionBy, StickyConfig, StickyName};
use crate::pools::PreemptConfig;
use crate::providers::ProviderConfig;
use crate::tensors;

/// Sends of a request where nothing is configured.
const ATTEMPTS_MAX: u32 = 3;

impl Config {
    /// What exists, for the fleet.
    pub fn catalog(&self) -> Catalog {
        let providers = self.providers.iter().map(|(name, provider)| (name.as_str().into(), provider.spec()));
        let models =
            self.models.iter().map(|(name, model)| (name.as_str().into(), self.model_spec(name, model)));
        let tenants = self.tenants.iter().map(|(name, tenant)| (name.as_str().into(), tenant.spec()));
        let pools = self.pools.iter().map(|(name, pool)| (name.as_str().into(), pool.spec()));
        Catalog {
            providers: providers.collect(),
            tenants: tenants.collect(),
            pools: pools.collect(),
            models: models.collect(),
        }
    }

    /// What a deployment of the model called `model` costs, if that is known: what it says itself, or the list of prices.
    pub fn price_of(&self, model: &str, deployment: &DeploymentConfig) -> Option<Price> {
        if let Some(price) = &deployment.price {
            return Some(price.price());
        }
        let kind = &self.providers.get(&deployment.provider)?.kind;
        prices::price(&self.price_list, kind, deployment.model.as_deref().unwrap_or(model))
    }

    /// The pool that a deployment takes slots from, if it does.
    pub fn pool_of<'c>(&'c self, deployment: &'c DeploymentConfig) -> Option<&'c str> {
        deployment.pool.as_deref().or_else(|| self.providers.get(&deployment.provider)?.slot_pool.as_deref())
    }

    /// What requests for a model must keep to, whichever deployment serves them: the widest of its deployments.
    pub fn rules(&self, model: &str) -> ModelRules {
        let Some(config) = self.models.get(model) else { return ModelRules::default() };
        let able = config
            .deployments
            .iter()
            .map(|deployment| capabilities(deployment, config, self.providers.get(&deployment.provider)));
        let able = able.reduce(Capabilities::with).unwrap_or_else(|| of_list(config.capabilities.as_deref()));
        let has = |capability| able.contains(capability);
        let ranges = config.params.iter().map(|(param, range)| {
            (*param, range.min.unwrap_or(f64::NEG_INFINITY)..=range.max.unwrap_or(f64::INFINITY))
        });
        ModelRules {
            capabilities: Abilities {
                chat: has(Capabilities::CHAT),
                completions: has(Capabilities::COMPLETIONS),
                embeddings: has(Capabilities::EMBEDDINGS),
                infer: has(Capabilities::INFER),
                rerank: has(Capabilities::RERANK),
                moderations: has(Capabilities::MODERATIONS),
                images: has(Capabilities::IMAGES),
                speech: has(Capabilities::SPEECH),
                transcriptions: has(Capabilities::TRANSCRIPTIONS),
                responses: has(Capabilities::ANSWERS),
                tools: has(Capabilities::TOOLS),
                vision: has(Capabilities::VISION),
                json_schema: has(Capabilities::JSON_SCHEMA),
            },
            context_tokens_max: widest(config, |d| d.context_tokens_max, config.context_tokens_max),
            output_tokens_max: widest(config, |d| d.output_tokens_max, config.output_tokens_max),
            signature: Arc::new(tensors::signature(config)),
            ranges: ranges.collect(),
        }
    }

    /// Whether a deployment takes requests of the Responses API as they come.
    pub fn takes_responses(&self, model: &ModelConfig, deployment: &DeploymentConfig) -> bool {
        let provider = self.providers.get(&deployment.provider);
        capabilities(deployment, model, provider).contains(Capabilities::RESPONSES)
    }

    /// The models that say they can do a thing, in their own list or in one of a deployment.
    pub fn models_listing(&self, wanted: Capabilities) -> impl Iterator<Item = &str> {
        let lists =
            move |list: Option<&[Capability]>| list.is_some_and(|list| of_list(Some(list)).contains(wanted));
        let listing = move |model: &ModelConfig| {
            let of_deployments = model.deployments.iter().map(|one| one.capabilities.as_deref());
            of_deployments.chain([model.capabilities.as_deref()]).any(lists)
        };
        self.models.iter().filter(move |(_, model)| listing(model)).map(|(name, _)| name.as_str())
    }

    /// Where copies of a model's requests go, if anywhere.
    pub fn mirror(&self, model: &str) -> Option<MirrorSpec> {
        let mirror = self.models.get(model)?.mirror.as_ref()?;
        Some(MirrorSpec { to: mirror.to.as_str().into(), share: mirror.share })
    }

    fn model_spec(&self, name: &str, model: &ModelConfig) -> ModelSpec {
        let order = self.region.iter().chain(&model.regions.order).map(|region| region.as_str().into());
        ModelSpec {
            strategy: model.strategy.clone(),
            tier_strategies: model
                .tiers
                .iter()
                .map(|(tier, config)| (*tier, config.strategy.clone()))
                .collect(),
            split: model.split.as_ref().map(|split| SplitSpec {
                sticky: match split.sticky {
                    StickyName::Session => Sticky::Session,
                    StickyName::Tenant => Sticky::Tenant,
                    StickyName::User => Sticky::User,
                    StickyName::Request => Sticky::Request,
                },
                arms: split.arms.iter().map(|(arm, weight)| (arm.as_str().into(), *weight)).collect(),
            }),
            sticky: model.sticky.map(StickyConfig::spec),
            region: RegionSpec { order: order.collect(), by_latency: model.regions.by == RegionBy::Latency },
            queue: model.queue.over(&self.queue, model.lanes.batch.over(&self.lanes.batch)),
            preempt: model.preempt.map(PreemptConfig::spec),
            timeouts: model.timeouts.over(&self.timeouts),
            attempts_max: model.attempts_max.unwrap_or(ATTEMPTS_MAX),
            health: model.breaker.over(&self.breaker),
            retry: RetrySpec {
                unsure: model.retry.unsure,
                content_policy: model.retry.content_policy,
                continuation: model.retry.continuation,
            },
            hedge: model.hedge.map(|hedge| HedgeSpec { after: hedge.after }),
            deployments: model.deployments.iter().map(|one| self.deployment_spec(name, model, one)).collect(),
        }
    }

    fn deployment_spec(
        &self,
        name: &str,
        model: &ModelConfig,
        deployment: &DeploymentConfig,
    ) -> DeploymentSpec {
        let provider = self.providers.get(&deployment.provider);
        // Where there are keys the provider's domain is theirs.
        let keyless = provider.filter(|provider| provider.keys.is_empty());
        let quota_domain = deployment.quota_domain.as_deref().or_else(|| keyless?.quota_domain.as_deref());
        let region = deployment.region.as_deref().or_else(|| provider?.region.as_deref());
        let slots = deployment.slots.or_else(|| provider?.slots);
        DeploymentSpec {
            name: deployment.name_in(name).into(),
            provider: deployment.provider.as_str().into(),
            version: deployment.version.as_deref().map(Name::from),
            weight: deployment.weight,
            tier: deployment.tier,
            slots,
            slots_learnt: slots.is_none() && provider.is_some_and(ProviderConfig::learns_slots),
            tokens_inflight_max: deployment.tokens_inflight_max.or_else(|| provider?.tokens_inflight_max),
            pool: self.pool_of(deployment).map(Name::from),
            count_foreign: deployment
                .count_foreign
                .unwrap_or_else(|| provider.is_some_and(|provider| provider.count_foreign)),
            limiter: deployment.limiter.over(&model.limiter),
            cache_tokens: deployment.cache_tokens,
            region: region.map(Arc::from),
            quota_domain: quota_domain.map(Name::from),
            tags: deployment.tags.iter().map(|tag| tag.as_str().into()).collect(),
            arm: deployment.arm.as_deref().map(Name::from),
            capabilities: capabilities(deployment, model, provider).with(continuation(provider)),
            context_tokens_max: deployment.context_tokens_max.or(model.context_tokens_max),
            output_tokens_max: deployment.output_tokens_max.or(model.output_tokens_max),
            free: deployment.free.unwrap_or_else(|| provider.is_some_and(ProviderConfig::is_free)),
            draining: deployment.draining,
            drain: Duration::from_millis(deployment.drain_ms.unwrap_or(DRAIN_MS_USUAL)),
        }
    }
}

impl ProviderConfig {
    fn spec(&self) -> ProviderSpec {
        let credentials = self.keys.iter().enumerate().map(|(at, key)| CredentialSpec {
            name: key.name_at(at).into(),
            rpm: key.rpm,
            tpm: key.tpm,
            quota_domain: key.quota_domain.as_deref().or(self.quota_domain.as_deref()).map(Name::from),
            lane: key.lane.map(LaneName::lane),
            revision: key.revision(),
        });
        ProviderSpec { credentials: credentials.collect() }
    }
}

/// The widest limit of the deployments; `None` if any has none.
fn widest(
    model: &ModelConfig,
    own: fn(&DeploymentConfig) -> Option<u32>,
    general: Option<u32>,
) -> Option<u32> {
    let limits = model.deployments.iter().map(|deployment| own(deployment).or(general));
    limits.reduce(|a, b| Some(a?.max(b?))).unwrap_or(general)
}

fn capabilities(
    deployment: &DeploymentConfig,
    model: &ModelConfig,
    provider: Option<&ProviderConfig>,
) -> Capabilities {
    let listed = of_list(deployment.capabilities.as_deref().or(model.capabilities.as_deref()));
    let listed = match provider.map_or(Kserve::No, ProviderConfig::kserve) {
        Kserve::No => listed.without(Capabilities::INFER),
        Kserve::Also => listed,
        // No client of a chat dialect has anything to ask there.
        Kserve::Only => return listed.without(listed.without(Capabilities::INFER)),
    };
    let dialect =
        provider.and_then(ProviderConfig::dialect).unwrap_or(&pointsman_wire::openai::chat::provider::DEF);
    // Chats and responses are turned into other dialects; all else is taken as it comes, or not at all. What is listed for
    // a deployment is believed.
    let known = deployment.capabilities.is_some() || provider.is_none_or(ProviderConfig::has_responses);
    let listed = if known { listed } else { listed.without(Capabilities::RESPONSES) };
    let operations = [
        (Operation::Completion, Capabilities::COMPLETIONS),
        (Operation::Embedding, Capabilities::EMBEDDINGS),
        (Operation::Task(Task::Rerank), Capabilities::RERANK),
        (Operation::Task(Task::Moderation), Capabilities::MODERATIONS),
        (Operation::Task(Task::ImageGeneration), Capabilities::IMAGES),
        (Operation::Task(Task::Speech), Capabilities::SPEECH),
        (Operation::Task(Task::Transcription), Capabilities::TRANSCRIPTIONS),
        (Operation::Response, Capabilities::RESPONSES),
    ];
    let taken = |one: Operation| dialect.relays.iter().any(|relay| relay.operations.contains(&one));
    let able = operations
        .into_iter()
        .filter(|(operation, _)| !taken(*operation))
        .fold(listed, |all, (_, one)| all.without(one));
    let answers = able.contains(Capabilities::CHAT) || able.contains(Capabilities::RESPONSES);
    let able = if answers { able.with(Capabilities::ANSWERS) } else { able };
    (0..)
        .zip(CLIENTS)
        .filter(|(_, client)| dialect.relays.iter().any(|relay| relay.client == client.name))
        .fold(able, |all, (place, _)| all.with(Capabilities::own(place)))
}

/// What a provider's way to go on with broken answers adds to the capabilities of its deployments.
fn continuation(provider: Option<&ProviderConfig>) -> Capabilities {
    let style = provider.and_then(ProviderConfig::continuation_style);
    style.map_or(Capabilities::NONE, |_| Capabilities::CONTINUATION)
}

/// The set of a list; no list is everything.
fn of_list(list: Option<&[Capability]>) -> Capabilities {
    let Some(list) = list else {
        return Capabilities::NAMES.into_iter().fold(Capabilities::NONE, |all, (one, _)| all.with(one));
    };
    list.iter().fold(Capabilities::NONE, |all, capability| {
        all.with(match capability {
            Capability::Chat => Capabilities::CHAT,
            Capability::Completions => Capabilities::COMPLETIONS,
            Capability::Embeddings => Capabilities::EMBEDDINGS,
            Capability::Infer => Capabilities::INFER,
            Capability::Rerank => Capabilities::RERANK,
            Capability::Moderations => Capabilities::MODERATIONS,
            Capability::Images => Capabilities::IMAGES,
            Capability::Speech => Capabilities::SPEECH,
            Capability::Transcriptions => Capabilities::TRANSCRIPTIONS,
            Capability::Responses => Capabilities::RESPONSES,
            Capability::Tools => Capabilities::TOOLS,
            Capability::Vision => Capabilities::VISION,
            Capability::JsonSchema => Capabilities::JSON_SCHEMA,
        })
    })
}
