//! The first run: without a config, model servers on loopback and keys in the environment are found and served, or a
//! mock if there is nothing.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use http::HeaderValue;
use pointsman_settings::Config;
use pointsman_settings::egress::EgressConfig;
use pointsman_settings::models::{DeploymentConfig, ModelConfig};
use pointsman_settings::providers::{CredentialConfig, ProviderConfig};
use pointsman_wire::vendor::{Vendor, vendors};
use serde_json::{Value, json};

use crate::mock::{MockArgs, MockServer};
use crate::upstream::probe;
use crate::upstream::target;

/// Time for a server on this machine to answer.
const LOOPBACK_TIMEOUT: Duration = Duration::from_millis(300);
/// Time for a vendor elsewhere to list its models.
const VENDOR_TIMEOUT: Duration = Duration::from_secs(5);
/// Models taken from one listing.
const MODELS_MAX: usize = 200;
/// The model of the built-in mock.
const MOCK_MODEL: &str = "mock-model";
/// The built-in mocks, and the ports they are written down with: those of the first run are taken as they come.
const MOCKS: [(&str, u16); 2] = [("mock-a", 9100), ("mock-b", 9101)];

/// What was found.
pub struct Found {
    /// A configuration that serves it.
    pub config: Config,
    /// What was looked at and what came of it.
    lines: Vec<String>,
    /// Ports of this machine where a model server is, by vendor.
    ports: Vec<u16>,
    /// Ports of this machine where nobody is, with the vendor they were tried for.
    silent: Vec<String>,
    /// Environment variables that are not set.
    unset: Vec<&'static str>,
    /// Environment variables behind the credentials, by provider.
    variables: BTreeMap<String, String>,
    mocks: Vec<MockServer>,
}

/// Looks around.
///
/// # Errors
/// When not even the built-in mock can be started.
pub fn discover() -> anyhow::Result<Found> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut found = Found {
        config: Config::default(),
        lines: Vec::new(),
        ports: Vec::new(),
        silent: Vec::new(),
        unset: Vec::new(),
        variables: BTreeMap::new(),
        mocks: Vec::new(),
    };
    runtime.block_on(async {
        for vendor in vendors() {
            found.look_for(vendor).await;
        }
    });
    if found.config.models.is_empty() {
        found.add_mocks()?;
    }
    Ok(found)
}

impl Found {
    /// Ports of this machine where model servers are.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// What was found, and why the rest was not. `program` is what this program is called by.
    pub fn told(&self, program: &str) -> String {
        let mut text = String::from(
            "no config file; looked for model servers on this machine and keys in the environment:\n",
        );
        for line in &self.lines {
            let _ = writeln!(text, "  {line}");
        }
        for (title, skipped) in [
            ("nothing listens on 127.0.0.1:", self.silent.join(", ")),
            ("not set:", self.unset.iter().map(|name| format!("${name}")).collect::<Vec<_>>().join(", ")),
        ] {
            if !skipped.is_empty() {
                let _ = writeln!(text, "  {title} {skipped}");
            }
        }
        if !self.mocks.is_empty() {
            text.push_str("nothing found, so a built-in mock model is served; its answers are made up\n");
        }
        let _ = writeln!(text, "to keep this as a file: {program} serve --print-config > pointsman.yaml");
        text
    }

    /// The configuration as a file. Secrets stand in it by the names of their variables.
    pub fn yaml(&self, program: &str) -> String {
        let mut providers = serde_json::Map::new();
        for (name, provider) in &self.config.providers {
            let mut entry = json!({"kind": provider.kind});
            let mock = MOCKS.iter().find(|(mock, _)| mock == name);
            let url = mock.map(|(_, port)| format!("http://127.0.0.1:{port}")).or(provider.base_url.clone());
            if let Some(url) = url {
                entry["base_url"] = json!(url);
            }
            if let Some(slots) = provider.slots {
                entry["slots"] = json!(slots);
            }
            if let Some(variable) = self.variables.get(name) {
                entry["keys"] = json!([format!("${{{variable}}}")]);
            }
            providers.insert(name.clone(), entry);
        }
        let models = self
            .config
            .models
            .iter()
            .map(|(name, model)| (name.clone(), json!({"deployments": model.deployments})));
        let models: serde_json::Map<String, Value> = models.collect();
        // JSON is YAML; a line for each provider and model keeps it readable.
        let mut text = String::from("# Written by `pointsman serve --print-config`.\n");
        if !self.mocks.is_empty() {
            text.push_str("# Nothing was found, so this serves two mocks. Start them first:\n");
            for (_, port) in MOCKS {
                let _ = writeln!(text, "#   {program} mock --listen 127.0.0.1:{port} &");
            }
        }
        let usual = Config::default();
        for (key, address, usual) in
            [("listen", self.config.listen, usual.listen), ("admin", self.config.admin, usual.admin)]
        {
            if address != usual {
                let _ = writeln!(text, "{key}: {}", Value::from(address.to_string()));
            }
        }
        for (section, entries) in [("providers", providers), ("models", models)] {
            let _ = writeln!(text, "{section}:");
            for (name, entry) in entries {
                let _ = writeln!(text, "  {}: {entry}", Value::from(name));
            }
        }
        text
    }

    async fn look_for(&mut self, vendor: &'static Vendor) {
        if let Some(port) = vendor.port {
            let url = format!("http://127.0.0.1:{port}");
            let provider = ProviderConfig {
                kind: vendor.kind.clone(),
                base_url: Some(url.clone()),
                ..Default::default()
            };
            match list(&provider, None, LOOPBACK_TIMEOUT).await {
                Ok(models) => {
                    self.lines.push(format!("{:<20} {url}: {} models", vendor.kind, models.len()));
                    self.ports.push(port);
                    self.add(&vendor.kind, provider, models);
                }
                Err(why) if why.starts_with(probe::NO_CONNECTION) => {
                    self.silent.push(format!("{port} ({})", vendor.kind));
                }
                Err(why) => self.lines.push(format!("{:<20} {url}: {why}", vendor.kind)),
            }
        }
        if !vendor.discover || vendor.needs_base_url() && !vendor.engine {
            return;
        }
        let set = vendor
            .env
            .iter()
            .find_map(|name| Some((name, std::env::var(name).ok().filter(|key| !key.is_empty())?)));
        let Some((variable, key)) = set else {
            self.unset.extend(vendor.env.iter().map(String::as_str));
            return;
        };
        let credential = CredentialConfig::of_key(&key);
        let provider =
            ProviderConfig { kind: vendor.kind.clone(), keys: vec![credential], ..Default::default() };
        match list(&provider, Some(&key), VENDOR_TIMEOUT).await {
            Ok(models) => {
                self.lines.push(format!("{:<20} ${variable}: {} models", vendor.kind, models.len()));
                self.variables.insert(vendor.kind.clone(), variable.clone());
                self.add(&vendor.kind, provider, models);
            }
            Err(why) => self.lines.push(format!(
                "{:<20} ${variable} is set, but its models cannot be listed: {why}",
                vendor.kind
            )),
        }
    }

    fn add(&mut self, name: &str, provider: ProviderConfig, models: Vec<String>) {
        self.config.providers.insert(name.to_owned(), provider);
        for model in models.into_iter().take(MODELS_MAX).filter(|model| !model.contains('@')) {
            let deployment =
                DeploymentConfig { provider: name.to_owned(), weight: 1, tier: 1, ..Default::default() };
            self.config.models.entry(model).or_default().deployments.push(deployment);
        }
    }

    fn add_mocks(&mut self) -> anyhow::Result<()> {
        let mut deployments = Vec::new();
        for (name, _) in MOCKS {
            let mock = MockServer::spawn(MockArgs {
                models: vec![MOCK_MODEL.to_owned()],
                ..MockArgs::on_any_port()
            })?;
            let base_url = Some(format!("http://{}", mock.address()));
            let provider =
                ProviderConfig { kind: "mock".to_owned(), base_url, slots: Some(4), ..Default::default() };
            self.config.providers.insert(name.to_owned(), provider);
            deployments.push(DeploymentConfig {
                name: Some(name.to_owned()),
                provider: name.to_owned(),
                weight: 1,
                tier: 1,
                ..Default::default()
            });
            self.mocks.push(mock);
        }
        let model = ModelConfig { deployments, ..Default::default() };
        self.config.models.insert(MOCK_MODEL.to_owned(), model);
        Ok(())
    }
}

/// The models that a server lists.
async fn list(
    provider: &ProviderConfig,
    key: Option<&str>,
    timeout: Duration,
) -> Result<Vec<String>, String> {
    let endpoint = target::endpoint(&provider.kind, provider, &EgressConfig::default());
    let auth: Option<HeaderValue> = key.and_then(|key| endpoint.auth_value(key));
    let probe::Answer { status, body, .. } =
        probe::get(&endpoint, &endpoint.models_path(), auth.as_ref(), timeout).await?;
    if status != 200 {
        return Err(format!("GET {} gave {status}", endpoint.models_path()));
    }
    let body: Value =
        serde_json::from_slice(&body).map_err(|_| "its list of models is not JSON".to_owned())?;
    let models = body["data"].as_array().ok_or("it lists no models")?;
    if models.iter().any(|model| model["owned_by"] == "pointsman") {
        return Err("this is Pointsman itself, another one".to_owned());
    }
    Ok(models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect())
}
