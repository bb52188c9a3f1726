//! Where connections may go: judged on the address that is dialled, not on the name that was asked for.
//!
//! A name can point anywhere, and at another place with the next lookup (DNS rebinding). So every address is judged in
//! the moment it is dialled, after the last lookup, and what is dialled is what was judged.

mod address;

use std::net::IpAddr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::providers::ProviderConfig;
pub use address::{Net, Reach, ends_in_number, is_private_name, reach, unmapped};

/// Where connections to providers may go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Hosts (`api.openai.com`, `*.openai.azure.com`) and networks (`10.0.0.0/8`, `192.0.2.7`) that connections may go to;
    /// all others are refused when they are dialled, and by `check` where the configuration alone tells. A network opens
    /// its addresses even where they are private. Default: every provider's host.
    pub allow: Vec<String>,
    /// Whether providers may be at private addresses: loopback, RFC 1918, and their like in IPv6. Default: those
    /// may whose `base_url` says such an address or a name that only stands for one (`localhost`, one without a dot,
    /// `.internal`, `.local`), and own engines and what else is free; a paid vendor's public name that resolves to one may
    /// not. Addresses of a cloud's metadata service, and all of 169.254.0.0/16, are refused in any case but where `allow`
    /// names this very address.
    pub private: Option<bool>,
}

/// An entry of `egress.allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A host by its name.
    Host(String),
    /// Every host below this name, which begins with a dot.
    Below(String),
    /// Addresses.
    Net(Net),
}

impl Entry {
    /// Reads an entry; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(net) = Net::parse(text)? {
            return Ok(Self::Net(net));
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with('.') || name.contains("..") {
            return Err("must be a host, `*.` and a host, an address, or a network such as `10.0.0.0/8`");
        }
        if ends_in_number(name) {
            return Err("write the address as four numbers with dots, such as 127.0.0.1");
        }
        let name = canonical(name);
        Ok(if below { Self::Below(format!(".{name}")) } else { Self::Host(name) })
    }

    fn names(&self, host: &str) -> bool {
        match self {
            Self::Host(name) => host == name,
            Self::Below(end) => host.ends_with(end.as_str()),
            Self::Net(_) => false,
        }
    }
}

/// A host as it is compared: without case and the dot of the root.
fn canonical(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// What connections of one provider may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    host: String,
    /// The address, where the host is one.
    literal: Option<IpAddr>,
    /// Whether any public address is fine, because there is no list or the host is on it.
    listed: bool,
    private: bool,
    nets: Arc<[Net]>,
}

/// Why an address is not dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody is there, or everybody.
    #[error("{address} is no address of a server")]
    Never {
        /// The address.
        address: IpAddr,
    },
    /// Credentials of the machine can be had there.
    #[error(
        "{address} may be a cloud's metadata service; only `egress.allow` with this very address opens it"
    )]
    Metadata {
        /// The address.
        address: IpAddr,
    },
    /// The provider is not one to be inside.
    #[error(
        "{address} is a private address; if `{host}` is meant to be there, set `private: true` for the provider or list the network in `egress.allow`"
    )]
    Private {
        /// The address.
        address: IpAddr,
        /// The host that resolved to it.
        host: String,
    },
    /// It is not on the list.
    #[error("neither `{host}` nor {address} is in `egress.allow`")]
    Unlisted {
        /// The address.
        address: IpAddr,
        /// The host that resolved to it.
        host: String,
    },
    /// The host is an address in a spelling that is not the usual one.
    #[error("`{host}` is an address in an unusual spelling; write it as four numbers with dots")]
    Spelling {
        /// The host.
        host: String,
    },
}

impl Refused {
    /// The word in metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Never { .. } => "no_server",
            Self::Metadata { .. } => "metadata",
            Self::Private { .. } => "private",
            Self::Unlisted { .. } => "not_listed",
            Self::Spelling { .. } => "spelling",
        }
    }
}

impl Guard {
    /// The guard of a provider. What is not an entry of the list is left out; `check` has told of it.
    pub fn new(egress: &EgressConfig, provider: &ProviderConfig) -> Self {
        let url = provider.base_url_in_use().unwrap_or_default();
        let host = canonical(host_of(&url));
        let entries: Vec<Entry> = egress.allow.iter().filter_map(|text| Entry::parse(text).ok()).collect();
        let literal = host.parse::<IpAddr>().ok().map(unmapped);
        let named_private =
            literal.is_some_and(|address| reach(address) == Reach::Private) || is_private_name(&host);
        let private =
            provider.private.or(egress.private).unwrap_or_else(|| named_private || provider.is_free());
        let nets = entries.iter().filter_map(|entry| match entry {
            Entry::Net(net) => Some(*net),
            Entry::Host(_) | Entry::Below(_) => None,
        });
        Self {
            listed: egress.allow.is_empty() || entries.iter().any(|entry| entry.names(&host)),
            nets: nets.collect(),
            literal,
            private,
            host,
        }
    }

    /// Whether this address may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let address = unmapped(address);
        let host = || self.host.clone();
        let net = self.nets.iter().filter(|net| net.contains(address)).max_by_key(|net| net.is_single());
        let reach = reach(address);
        match reach {
            Reach::Never => return Err(Refused::Never { address }),
            // A `base_url` alone does not open it: it may come from whoever wrote one provider, and takes the key along.
            Reach::Metadata if !net.is_some_and(Net::is_single) => {
                return Err(Refused::Metadata { address });
            }
            Reach::Public | Reach::Private | Reach::Metadata => {}
        }
        if net.is_some() {
            return Ok(());
        }
        if !self.listed {
            return Err(Refused::Unlisted { address, host: host() });
        }
        match reach {
            Reach::Private if !self.private => Err(Refused::Private { address, host: host() }),
            Reach::Public | Reach::Private | Reach::Metadata | Reach::Never => Ok(()),
        }
    }

    /// The addresses that may be dialled; if none may, why.
    pub fn filter<T>(&self, found: Vec<T>, address: impl Fn(&T) -> IpAddr) -> Result<Vec<T>, Refused> {
        self.check_host()?;
        let mut refused = None;
        let kept: Vec<T> = found
            .into_iter()
            .filter(|one| match self.check(address(one)) {
                Ok(()) => true,
                Err(why) => {
                    refused.get_or_insert(why);
                    false
                }
            })
            .collect();
        match refused {
            Some(why) if kept.is_empty() => Err(why),
            Some(_) | None => Ok(kept),
        }
    }

    fn check_host(&self) -> Result<(), Refused> {
        if self.literal.is_none() && ends_in_number(&self.host) {
            return Err(Refused::Spelling { host: self.host.clone() });
        }
        Ok(())
    }

    /// What is wrong with the provider's host already, before any lookup.
    pub(crate) fn problem(&self) -> Option<String> {
        let refused =
            self.check_host().and_then(|()| self.literal.map_or(Ok(()), |address| self.check(address)));
        // A network may have what a name resolves to.
        let unlisted = self.literal.is_none() && !self.listed && self.nets.is_empty();
        let told = refused.err().map(|why| why.to_string());
        told.or_else(|| unlisted.then(|| format!("host `{}` is not in `egress.allow`", self.host)))
    }
}

/// The host of a base URL: without scheme, port, path and brackets.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match authority.strip_prefix('[').and_then(|inside| inside.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
