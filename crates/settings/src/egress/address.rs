//! What an address stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who is reached at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anybody in the internet.
    Public,
    /// Somebody inside: this machine, its network, a carrier's, or one for tests.
    Private,
    /// The metadata service of a cloud, which gives out credentials of the machine, or where one may be.
    Metadata,
    /// No server: multicast, broadcast.
    Never,
}

/// The metadata services of Alibaba, Oracle of old, and Azure's wire server. All others have an address that is link-local:
/// the clouds have used several (169.254.169.254, 169.254.170.2, 169.254.170.23, 169.254.0.23), so none of those is told
/// apart.
const METADATA_V4: [(Ipv4Addr, u32); 4] = [
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(100, 100, 100, 200), 32),
    (Ipv4Addr::new(192, 0, 0, 192), 32),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
];

/// The metadata services in IPv6: of EC2, of EKS, of Google, of Oracle, and of OpenStack.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// Networks that are not the internet (IANA's registry of special addresses).
const PRIVATE_V4: [(Ipv4Addr, u32); 12] = [
    // Dialled, all of it is this machine.
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

const PRIVATE_V6: [(Ipv6Addr, u32); 9] = [
    // Unspecified, loopback, and IPv4 in the form of old.
    (Ipv6Addr::UNSPECIFIED, 96),
    // Local NAT64.
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    // Discard only.
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    // Teredo, whose address of the other side is hidden inside.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

/// The address that is really reached: IPv4 within IPv6 (mapped, NAT64, 6to4) is IPv4.
pub fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let parts = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

/// Who is reached at an address.
pub fn reach(address: IpAddr) -> Reach {
    match unmapped(address) {
        IpAddr::V4(address) if METADATA_V4.iter().any(|(net, bits)| within_v4(address, *net, *bits)) => {
            Reach::Metadata
        }
        IpAddr::V4(address) if address.is_multicast() || address.is_broadcast() => Reach::Never,
        IpAddr::V4(address) if PRIVATE_V4.iter().any(|(net, bits)| within_v4(address, *net, *bits)) => {
            Reach::Private
        }
        IpAddr::V6(address) if METADATA_V6.contains(&address) => Reach::Metadata,
        IpAddr::V6(address) if address.is_multicast() => Reach::Never,
        IpAddr::V6(address) if PRIVATE_V6.iter().any(|(net, bits)| within_v6(address, *net, *bits)) => {
            Reach::Private
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Reach::Public,
    }
}

fn within_v4(address: Ipv4Addr, net: Ipv4Addr, bits: u32) -> bool {
    let differ = address.to_bits() ^ net.to_bits();
    bits == 0 || differ.leading_zeros() >= bits
}

fn within_v6(address: Ipv6Addr, net: Ipv6Addr, bits: u32) -> bool {
    let differ = address.to_bits() ^ net.to_bits();
    bits == 0 || differ.leading_zeros() >= bits
}

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u32,
}

impl Net {
    /// Reads a network or an address; `None` if the text looks like neither.
    pub fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>() else {
            return if bits.is_some() { Err("must be a network such as `10.0.0.0/8`") } else { Ok(None) };
        };
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(str::parse::<u32>) {
            None => all,
            Some(Ok(bits)) if bits <= all => bits,
            Some(Ok(_) | Err(_)) => return Err("has more bits than its address"),
        };
        // A network of mapped addresses would never match, for addresses are compared unmapped.
        let net = match unmapped(address) {
            inner @ IpAddr::V4(_) if address.is_ipv6() && bits >= 96 => {
                Self { address: inner, bits: bits - 96 }
            }
            IpAddr::V4(_) | IpAddr::V6(_) => Self { address, bits },
        };
        Ok(Some(net))
    }

    /// Whether an address lies in it. The address is one that [`unmapped`] gave.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => within_v4(address, net, self.bits),
            (IpAddr::V6(net), IpAddr::V6(address)) => within_v6(address, net, self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether it is one address.
    pub const fn is_single(&self) -> bool {
        self.bits == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// Endings of names that the internet does not have (RFC 6761, 6762, 8375; ICANN on `.internal`).
const PRIVATE_ENDINGS: [&str; 8] =
    [".localhost", ".local", ".internal", ".lan", ".home.arpa", ".intranet", ".test", ".cluster.local"];

/// Names of metadata services, which end like private ones.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "instance-data.ec2.internal"];

/// Whether a name can only stand for somebody inside. The name is in lower case, without the dot of the root.
pub fn is_private_name(host: &str) -> bool {
    if host.is_empty() || ends_in_number(host) || host.contains(':') || METADATA_NAMES.contains(&host) {
        return false;
    }
    !host.contains('.') || PRIVATE_ENDINGS.iter().any(|ending| host.ends_with(ending))
}

/// Whether a host that is no address in the usual form may yet be taken for one by the system: `2130706433`, `0x7f.1`,
/// `0177.0.0.1`, `127.1` (as the URL standard tells them).
pub fn ends_in_number(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return false;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let digits = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    digits || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}
