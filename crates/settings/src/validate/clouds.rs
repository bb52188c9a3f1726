//! Providers in clouds: what each needs, and that nothing is given which it does not use.

use pointsman_wire::cloud::Cloud;
use pointsman_wire::vertex::account::ServiceAccount;

use super::check_text;
use super::provider::{check_http_url, has_header};
use crate::clouds::CredentialForm;
use crate::diagnostic::Problem;
use crate::providers::{CredentialConfig, HealthChoice, ProviderConfig};
use crate::tree::join;

/// Headers that only a signature may give.
const SIGNED_HEADERS: [&str; 2] = ["x-amz-date", "x-amz-security-token"];

pub(super) fn check_cloud(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    let cloud = provider.cloud();
    let has_locations = cloud.is_some_and(Cloud::has_locations);
    for (key, value, used) in [
        ("location", &provider.location, has_locations),
        ("project", &provider.project, cloud == Some(Cloud::Vertex)),
        ("token_uri", &provider.token_uri, cloud == Some(Cloud::Vertex)),
        ("api_version", &provider.api_version, cloud == Some(Cloud::Azure)),
    ] {
        let path = join(path, key);
        check_text(&path, value.as_deref(), found);
        if value.is_some() && !used {
            let text = format!("providers of kind `{}` have no `{key}`", provider.kind);
            found.push(Problem::new(path, text).help("remove the key"));
        }
    }
    if let Some(Err(why)) = provider.token_uri.as_deref().map(check_http_url) {
        found.push(Problem::new(join(path, "token_uri"), why));
    }
    let Some(cloud) = cloud.filter(|_| has_locations) else { return };
    let mut needed = vec![("location", provider.location.is_none())];
    if cloud == Cloud::Vertex {
        needed.push(("project", provider.project.is_none()));
    }
    for (key, _) in needed.iter().filter(|(_, missing)| *missing) {
        let text = format!("providers of kind `{}` need a `{key}`", provider.kind);
        let example = match (cloud, *key) {
            (Cloud::Bedrock, _) => "the region of AWS, such as `location: us-east-1`",
            (Cloud::Vertex | Cloud::Azure, "location") => "such as `location: us-east5`, or `global`",
            (Cloud::Vertex | Cloud::Azure, _) => "the id of the project at Google Cloud",
        };
        found.push(Problem::new(path, text).help(example));
    }
    if let Some(location) = provider.location.as_deref().filter(|one| cloud.base_url(one).is_none()) {
        let text = format!("`{location}` is no location of `{}`", provider.kind);
        found.push(Problem::new(join(path, "location"), text));
    }
    if matches!(&provider.health, Some(HealthChoice::On(health)) if health.path.is_none()) {
        let text = format!("providers of kind `{}` have no page that shows they are up", provider.kind);
        let help = "name one by `path`, or leave `health` out: failing requests are noticed without it";
        found.push(Problem::new(join(path, "health"), text).help(help));
    }
    if cloud.signing_service().is_some() {
        for name in SIGNED_HEADERS.iter().filter(|name| has_header(provider, name)) {
            found.push(Problem::new(
                join(&join(path, "headers"), name),
                format!("`{name}` is written where requests are signed"),
            ));
        }
    }
}

/// Whether a credential is one that its provider can use.
pub(super) fn check_form(
    path: &str,
    provider: &ProviderConfig,
    key: &CredentialConfig,
    found: &mut Vec<Problem>,
) {
    let form = match key.form() {
        Ok(form) => form,
        Err(why) => {
            found.push(Problem::new(path, why));
            return;
        }
    };
    let cloud = provider.cloud();
    let wrong = match form {
        CredentialForm::Key(_) => None,
        CredentialForm::Aws(_) => cloud.and_then(Cloud::signing_service).is_none().then_some("access_key_id"),
        CredentialForm::ServiceAccount(_) => (cloud != Some(Cloud::Vertex)).then_some("service_account"),
    };
    if let Some(name) = wrong {
        let text = format!("providers of kind `{}` have keys, no `{name}`", provider.kind);
        found.push(Problem::new(join(path, name), text));
        return;
    }
    match form {
        CredentialForm::Key(key) => check_secret(path, key.expose(), found),
        CredentialForm::Aws(_) => {
            for (name, secret) in
                key.secrets().filter(|(name, secret)| *name != "session_token" || !secret.is_empty())
            {
                check_secret(&join(path, name), secret, found);
            }
        }
        CredentialForm::ServiceAccount(account) => {
            if let Err(why) = ServiceAccount::parse(account.expose()) {
                found.push(Problem::new(join(path, "service_account"), why.to_string()));
            }
        }
    }
}

fn check_secret(path: &str, secret: &str, found: &mut Vec<Problem>) {
    if secret.is_empty() || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        let text = "the key is empty, or has spaces or characters that cannot stand in a header";
        found.push(Problem::new(path, text));
    }
}
