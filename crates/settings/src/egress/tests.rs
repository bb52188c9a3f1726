use super::*;

fn provider(kind: &str, base_url: &str) -> ProviderConfig {
    let base_url = (!base_url.is_empty()).then(|| base_url.to_owned());
    ProviderConfig { kind: kind.to_owned(), base_url, ..ProviderConfig::default() }
}

fn egress(allow: &[&str], private: Option<bool>) -> EgressConfig {
    EgressConfig { allow: allow.iter().map(|&text| text.to_owned()).collect(), private }
}

#[track_caller]
fn check(egress: &EgressConfig, provider: &ProviderConfig, address: &str, expected: Result<(), &str>) {
    let guard = Guard::new(egress, provider);
    let address: IpAddr = address.parse().expect("an address");
    let got = guard.filter(vec![address], |address| *address).map(drop).map_err(|why| why.reason());
    assert_eq!(got, expected, "{address} for {provider:?}");
}

/// Private in every spelling that a resolver may answer with.
const INSIDE: [&str; 21] = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.1.2.3",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "198.18.0.1",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:0a00:0001::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fec0::1",
    "2001::1",
];

const METADATA: [&str; 17] = [
    "169.254.169.254",
    "169.254.0.1",
    "169.254.0.23",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.169.253",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "fd00:ec2::254",
    "100.100.100.200",
    "2002:a9fe:a9fe::1",
];

#[test]
fn i2_i3_a_public_name_never_leads_inside() {
    let none = EgressConfig::default();
    for (kind, url) in [("openai", ""), ("openai_compatible", "https://llm.example.com"), ("groq", "")] {
        let paid = provider(kind, url);
        for address in INSIDE {
            check(&none, &paid, address, Err("private"));
        }
        for address in METADATA {
            check(&none, &paid, address, Err("metadata"));
        }
        for address in ["224.0.0.1", "255.255.255.255", "ff02::1"] {
            check(&none, &paid, address, Err("no_server"));
        }
        for address in
            ["1.1.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "172.32.0.1", "100.128.0.1", "169.253.0.1"]
        {
            check(&none, &paid, address, Ok(()));
        }
    }
}

#[test]
fn i2_what_is_configured_inside_goes_on_without_new_keys() {
    let none = EgressConfig::default();
    for (kind, url, address) in [
        ("openai_compatible", "http://10.0.0.5:8000", "10.0.0.5"),
        ("openai", "http://127.0.0.1:4010/v1", "127.0.0.1"),
        ("openai", "http://[::1]:4010", "::1"),
        ("openai", "http://[::ffff:127.0.0.1]:4010", "127.0.0.1"),
        ("openai_compatible", "http://0.0.0.0:8000", "0.0.0.0"),
        ("openai_compatible", "http://localhost:8000", "::1"),
        ("openai_compatible", "http://LOCALHOST.:8000", "127.0.0.1"),
        ("openai_compatible", "http://gateway:8000", "172.18.0.4"),
        ("openai_compatible", "http://llm.prod.svc.cluster.local", "10.96.0.9"),
        ("vllm", "https://gpu.example.com", "10.0.0.9"),
        ("ollama", "http://gpu.example.com:11434", "100.64.3.2"),
    ] {
        check(&none, &provider(kind, url), address, Ok(()));
    }
    // An own engine is inside, but nobody's engine is a metadata service.
    check(&none, &provider("vllm", "http://gpu.example.com"), "169.254.169.254", Err("metadata"));
    check(&none, &provider("vllm", "http://metadata.google.internal"), "169.254.169.254", Err("metadata"));
}

#[test]
fn i2_only_the_list_opens_a_metadata_service_and_only_with_its_address() {
    let there = |host: &str| provider("openai_compatible", &format!("http://{host}"));
    for (address, host) in [
        ("169.254.169.254", "169.254.169.254"),
        ("169.254.169.254", "[::ffff:169.254.169.254]"),
        ("169.254.10.1", "169.254.10.1"),
        ("fd00:ec2::254", "[fd00:ec2::254]"),
        ("100.100.100.200", "100.100.100.200"),
    ] {
        for private in [None, Some(true), Some(false)] {
            let open = ProviderConfig { private: Some(true), ..there(host) };
            for one in [there(host), open] {
                check(&egress(&[], private), &one, address, Err("metadata"));
                assert!(Guard::new(&egress(&[], private), &one).problem().is_some(), "{host}: `check` tells");
                check(
                    &egress(&["169.254.0.0/16", "fd00::/8", "100.64.0.0/10"], private),
                    &one,
                    address,
                    Err("metadata"),
                );
                check(&egress(&[address], private), &one, address, Ok(()));
                assert_eq!(Guard::new(&egress(&[address], private), &one).problem(), None, "{host}");
            }
        }
    }
    check(&egress(&["169.254.169.254"], None), &there("169.254.169.253"), "169.254.169.253", Err("metadata"));
}

#[test]
fn i2_addresses_in_other_spellings_are_refused() {
    let none = EgressConfig::default();
    for host in ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.", "0x", "1.2.3.4.5"]
    {
        let one = provider("vllm", &format!("http://{host}:8000"));
        let expected = if host == "127.0.0.1." { Ok(()) } else { Err("spelling") };
        check(&none, &one, "127.0.0.1", expected);
        assert_eq!(Guard::new(&none, &one).problem().is_some(), expected.is_err(), "{host}");
    }
}

#[test]
fn i2_the_provider_and_the_section_say_who_may_be_inside() {
    let paid = || provider("openai_compatible", "https://llm.example.com");
    let with = |private| ProviderConfig { private, ..paid() };
    check(&egress(&[], Some(true)), &paid(), "10.0.0.1", Ok(()));
    check(&egress(&[], Some(true)), &paid(), "169.254.169.254", Err("metadata"));
    check(&egress(&[], None), &with(Some(true)), "10.0.0.1", Ok(()));
    check(&egress(&[], Some(false)), &with(Some(true)), "10.0.0.1", Ok(()));
    check(&egress(&[], Some(true)), &with(Some(false)), "10.0.0.1", Err("private"));
    let local = provider("vllm", "http://10.0.0.1:8000");
    check(&egress(&[], Some(false)), &local, "10.0.0.1", Err("private"));
    check(&egress(&["10.0.0.0/8"], Some(false)), &local, "10.0.0.1", Ok(()));
}

#[test]
fn i2_with_a_list_only_what_is_listed_is_dialled() {
    let openai = provider("openai", "");
    check(&egress(&["api.openai.com"], None), &openai, "1.1.1.1", Ok(()));
    check(&egress(&["API.OpenAI.com."], None), &openai, "1.1.1.1", Ok(()));
    check(&egress(&["*.openai.com"], None), &openai, "1.1.1.1", Ok(()));
    check(&egress(&["openai.com"], None), &openai, "1.1.1.1", Err("not_listed"));
    check(&egress(&["*.api.openai.com"], None), &openai, "1.1.1.1", Err("not_listed"));
    check(&egress(&["1.1.0.0/16"], None), &openai, "1.1.1.1", Ok(()));
    check(&egress(&["1.1.0.0/16"], None), &openai, "::ffff:1.1.1.1", Ok(()));
    check(&egress(&["1.1.0.0/16"], None), &openai, "1.2.1.1", Err("not_listed"));
    // A listed name is no way inside, a listed network is, and only a listed address opens a metadata service.
    check(&egress(&["api.openai.com"], None), &openai, "10.0.0.1", Err("private"));
    check(&egress(&["api.openai.com", "10.0.0.0/8"], None), &openai, "10.0.0.1", Ok(()));
    check(&egress(&["169.254.0.0/16"], None), &openai, "169.254.169.254", Err("metadata"));
    check(&egress(&["169.254.169.254"], None), &openai, "169.254.169.254", Ok(()));
    // Own engines are on the list or not reached.
    check(
        &egress(&["api.openai.com"], None),
        &provider("vllm", "http://10.0.0.1"),
        "10.0.0.1",
        Err("not_listed"),
    );
}

#[test]
fn what_is_refused_is_left_out_and_what_is_not_is_dialled() {
    let guard = Guard::new(&EgressConfig::default(), &provider("openai", ""));
    let found: Vec<IpAddr> = ["10.0.0.1", "1.1.1.1"].iter().map(|text| text.parse().expect("one")).collect();
    assert_eq!(guard.filter(found.clone(), |address| *address).expect("one is left"), found[1..]);
    assert!(guard.filter(Vec::<IpAddr>::new(), |address| *address).expect("nothing to refuse").is_empty());
}

#[test]
fn entries_that_cannot_be_read_are_told() {
    for text in ["", "10.0.0.0/33", "10.0.0/8", "a b", "*.", "https://x", "0x7f.1", "a..b", "127.1", "x:80"] {
        assert!(Entry::parse(text).is_err(), "{text}");
    }
    for text in
        ["::1", "[::1]", "fd00::/8", "a-b.example", "*.example.com", "localhost", "::ffff:10.0.0.0/104"]
    {
        assert!(Entry::parse(text).is_ok(), "{text}");
    }
}
