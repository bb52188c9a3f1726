//! Providers: where they are, what is sent to them, and their keys.

use std::collections::BTreeSet;

use pointsman_wire::cloud::Cloud;
use pointsman_wire::vendor::{self, Kserve};

use super::check_text;
use crate::diagnostic::Problem;
use crate::providers::{HealthChoice, ProviderConfig, ProviderHealth};
use crate::tree::join;

pub(super) fn check_provider(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    match vendor::vendor(&provider.kind) {
        Err(error) => {
            let kinds = vendor::vendors().iter().map(|vendor| vendor.kind.as_str()).collect::<Vec<_>>();
            let help = error.nearest.as_ref().map_or_else(
                || format!("known: {}", kinds.join(", ")),
                |nearest| format!("did you mean `{nearest}`?"),
            );
            let text = format!("unknown provider kind `{}`", provider.kind);
            found.push(Problem::new(join(path, "kind"), text).help(help));
        }
        Ok(vendor) => {
            let placed = provider.cloud().is_some_and(Cloud::has_locations);
            if provider.base_url.is_none() && vendor.needs_base_url() && !placed {
                let text = format!("providers of kind `{}` need a `base_url`", provider.kind);
                let form = vendor.base_url_form.as_ref();
                let help = form.map(|form| format!("write {form}, with your own in place of the capitals"));
                found.push(Problem { help, ..Problem::new(path, text) });
            }
            if !provider.keys.is_empty() && has_header(provider, vendor.auth.header()) {
                let text = format!("`{}` is where the keys go", vendor.auth.header());
                found.push(
                    Problem::new(join(path, "headers"), text).help("give `keys` or the header, not both"),
                );
            }
        }
    }
    let form = vendor::vendor(&provider.kind).ok().and_then(|vendor| vendor.base_url_form.as_deref());
    let left = form.into_iter().flat_map(|form| form.split(['/', '.', ':'])).find(|part| {
        let in_capitals =
            part.len() > 2 && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        in_capitals
            && provider
                .base_url
                .as_ref()
                .is_some_and(|url| url.split(['/', '.', ':']).any(|own| own == *part))
    });
    if let Some(part) = left {
        let text = format!("`{part}` stands for your own; put it in");
        found.push(Problem::new(join(path, "base_url"), text));
    }
    // The URL is not repeated: one that is refused may carry a password.
    if let Some(Err(why)) = provider.base_url.as_deref().map(check_url) {
        found.push(Problem::new(join(path, "base_url"), why));
    } else if provider.is_grpc() && vendor::vendor(&provider.kind).is_ok_and(|one| one.kserve == Kserve::No) {
        let text = format!("providers of kind `{}` are not spoken to over gRPC", provider.kind);
        let help = "the kinds `kserve` and `triton` are; for others give a URL with http:// or https://";
        found.push(Problem::new(join(path, "base_url"), text).help(help));
    }
    super::clouds::check_cloud(path, provider, found);
    check_text(&join(path, "region"), provider.region.as_deref(), found);
    check_text(&join(path, "quota_domain"), provider.quota_domain.as_deref(), found);
    for (at, key) in provider.keys.iter().enumerate() {
        check_text(&format!("{path}.keys[{at}].quota_domain"), key.quota_domain.as_deref(), found);
    }
    if let Some(HealthChoice::On(ProviderHealth { path: Some(asked), .. })) = &provider.health
        && (!asked.starts_with('/') || !asked.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        let text = "must begin with `/` and have neither spaces nor characters beyond ASCII";
        found.push(Problem::new(format!("{path}.health.path"), text));
    }
    super::engine::check(&join(path, "engine"), provider, found);
    check_headers(&join(path, "headers"), provider, found);
    check_credentials(path, provider, found);
}

pub(super) fn has_header(provider: &ProviderConfig, wanted: &str) -> bool {
    provider.headers.keys().any(|name| name.eq_ignore_ascii_case(wanted))
}

/// Headers that the gateway writes itself, or that end at each hop.
const OWN_HEADERS: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn check_headers(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (name, value) in &provider.headers {
        let path = join(path, name);
        let lower = name.to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            found.push(Problem::new(&path, "a header's name has letters, digits, `-` and `_` only"));
        } else if OWN_HEADERS.contains(&lower.as_str()) || lower.starts_with("x-pointsman-") {
            found.push(Problem::new(&path, format!("`{name}` is written by the gateway")));
        }
        if !names.insert(lower) {
            found.push(Problem::new(&path, format!("`{name}` is given twice, for case does not count")));
        }
        if value.expose().bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 127) {
            found.push(Problem::new(&path, "the value has control characters"));
        }
    }
}

fn check_credentials(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (at, key) in provider.keys.iter().enumerate() {
        let name = key.name_at(at);
        let path = format!("{path}.keys[{at}]");
        super::clouds::check_form(&path, provider, key, found);
        check_text(&path, Some(&name), found);
        if !names.insert(name.clone()) {
            found.push(Problem::new(&path, format!("there is another credential named `{name}`")));
        }
    }
}

/// Why a base URL cannot be used.
fn check_url(url: &str) -> Result<(), &'static str> {
    let rest = ["grpc://", "grpcs://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.map_or_else(|| check_http_url(url), check_place)
}

/// Why a URL of HTTP cannot be used.
pub(super) fn check_http_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    check_place(rest.ok_or("must begin with http:// or https://")?)
}

/// Why what follows a URL's scheme cannot be used.
fn check_place(rest: &str) -> Result<(), &'static str> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("must not carry a user or password; use `keys`");
    }
    if path.contains(['?', '#']) || authority.contains(['?', '#']) {
        return Err("must not have a query or fragment");
    }
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
        .map_or(authority, |(host, _)| host);
    let port = authority[host.len()..].strip_prefix(':');
    if host.is_empty() || rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("must name a host");
    }
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err("must have a port from 1 to 65535");
    }
    Ok(())
}
