//! Providers in clouds, their credentials, and the examples of docs/clouds.md.

use pointsman_wire::sigv4::Credentials;

use super::read;
use crate::clouds::CredentialForm;
use crate::{Config, Sources, diff, parse};

const ACCOUNT: &str = r#"{"type":"service_account","project_id":"p","private_key":"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n","client_email":"a@p.iam.gserviceaccount.com"}"#;

fn text(provider: &str) -> String {
    format!("providers:\n  c: {{ {provider} }}\nmodels:\n  m: {{ deployments: [ {{ provider: c }} ] }}\n")
}

fn told(provider: &str) -> String {
    let found = read(&text(provider)).map(|_| ()).unwrap_err();
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn places_follow_from_location_and_project() {
    let provider = |provider: &str| read(&text(provider)).unwrap().providers["c"].clone();
    let aws = provider("kind: bedrock, location: eu-west-1, keys: [ an-api-key ]");
    assert_eq!(aws.base_url_in_use().as_deref(), Some("https://bedrock-runtime.eu-west-1.amazonaws.com"));
    assert_eq!(aws.path_prefix(), "");
    let inside =
        provider("kind: bedrock, location: eu-west-1, base_url: 'https://vpce-1.example', keys: [ a ]");
    assert_eq!(inside.base_url_in_use().as_deref(), Some("https://vpce-1.example"));
    let google = provider("kind: vertex, location: global, project: my-project");
    assert_eq!(google.base_url_in_use().as_deref(), Some("https://aiplatform.googleapis.com"));
    assert_eq!(google.path_prefix(), "/v1/projects/my-project/locations/global");
    assert_eq!(provider("kind: openai").base_url_in_use().as_deref(), Some("https://api.openai.com"));
}

#[test]
fn what_a_cloud_needs_and_what_it_does_not_use_is_told() {
    let check = |provider: &str, expected: &str| {
        let told = told(provider);
        assert!(told.contains(expected), "{told}");
    };
    check("kind: bedrock", "providers of kind `bedrock` need a `location`; the region of AWS");
    check("kind: bedrock, location: us-east", "`us-east` is no location of `bedrock`");
    check("kind: vertex, location: us-east5", "providers of kind `vertex` need a `project`");
    check("kind: vertex, project: p, location: evil.test/", "`evil.test/` is no location of `vertex`");
    check(
        "kind: openai, location: us-east-1",
        "providers of kind `openai` have no `location`; remove the key",
    );
    check("kind: openai, api_version: x", "have no `api_version`");
    check("kind: azure, base_url: 'https://x.openai.azure.com', project: p", "have no `project`");
    check(
        "kind: vertex, project: p, location: eu, token_uri: 'ftp://x'",
        "token_uri: must begin with http:// or https://",
    );
    check("kind: bedrock, location: us-east-1, health: {}", "have no page that shows they are up");
    let header = "headers: { X-Amz-Date: now }";
    check(
        &format!("kind: bedrock, location: us-east-1, {header}"),
        "`x-amz-date` is written where requests are signed",
    );
}

#[test]
fn credentials_are_one_thing_and_fit_their_provider() {
    let check = |kind: &str, key: &str, expected: &str| {
        let told = told(&format!("{kind}, keys: [ {key} ]"));
        assert!(told.contains(expected) && !told.contains("hunter2"), "{told}");
    };
    let aws = "kind: bedrock, location: us-east-1";
    check(aws, "{ name: a }", "keys[0]: `key` is missing");
    check(aws, "{ access_key_id: AKID }", "`secret_access_key` is missing");
    check(aws, "{ secret_access_key: '${KEY}' }", "`access_key_id` is missing");
    check(
        aws,
        "{ key: '${KEY}', access_key_id: AKID, secret_access_key: x }",
        "is several credentials at once",
    );
    check(
        aws,
        "{ access_key_id: AKID, secret_access_key: 'a b' }",
        "secret_access_key: the key is empty, or has spaces",
    );
    check(
        aws,
        &format!("{{ service_account: '{ACCOUNT}' }}"),
        "providers of kind `bedrock` have keys, no `service_account`",
    );
    check(
        "kind: openai",
        "{ access_key_id: AKID, secret_access_key: '${KEY}' }",
        "kind `openai` have keys, no `access_key_id`",
    );
    let google = "kind: vertex, project: p, location: global";
    check(google, "{ service_account: '{}' }", "service_account: the service account has no `type`");
    check(google, "{ service_account: '${KEY}' }", "service_account: the service account is no JSON object");
    check(google, "{ service_acount: x }", "unknown key `service_acount`; did you mean `service_account`?");
}

#[test]
fn an_access_key_may_have_a_session_and_an_empty_one_is_none() {
    let form = |session: &str| {
        let key =
            format!("{{ access_key_id: AKID, secret_access_key: '${{KEY}}', session_token: '{session}' }}");
        let config = read(&text(&format!("kind: bedrock, location: us-east-1, keys: [ {key} ]"))).unwrap();
        let CredentialForm::Aws(Credentials { secret_access_key, session_token, .. }) =
            config.providers["c"].keys[0].form().unwrap()
        else {
            panic!("another form");
        };
        assert_eq!(secret_access_key, "sk-hunter2-hunter2");
        session_token
    };
    assert_eq!(form("${NUMBER}"), Some("7".to_owned()));
    assert_eq!(form("${EMPTY}"), None);
    assert_eq!(form("${UNSET:-}"), None);
}

#[test]
fn m1_credentials_of_clouds_are_never_printed_and_changes_are_seen() {
    let config = |secret: &str, account: &str| {
        let text = format!(
            "providers:\n  a: {{ kind: bedrock, location: us-east-1, keys: [ {{ access_key_id: AKIDHUNTER, \
             secret_access_key: {secret}, session_token: tok-hunter }} ] }}\n  g: {{ kind: vertex, project: p, location: \
             global, keys: [ {{ service_account: '{account}' }} ] }}\n"
        );
        read(&text).unwrap()
    };
    let (one, other) = (config("s-hunter", ACCOUNT), config("t-hunter", &ACCOUNT.replace("a@p", "b@p")));
    for shown in [format!("{one:?}"), one.redacted().to_string(), diff(&one, &other).join("\n")] {
        assert!(!shown.to_lowercase().contains("hunter") && !shown.contains("PRIVATE"), "{shown}");
    }
    assert_eq!(
        diff(&one, &other),
        [
            "providers.a.keys.key-1.secret_access_key: another secret",
            "providers.g.keys.key-1.service_account: another secret"
        ]
    );
    let revision =
        |config: &Config, provider: &str| config.catalog().providers[provider].credentials[0].revision;
    assert_ne!(revision(&one, "a"), revision(&other, "a"));
    assert_ne!(revision(&one, "g"), revision(&other, "g"));
}

#[test]
fn the_examples_of_the_page_are_good_configurations() {
    let page = include_str!("../../../../docs/clouds.md");
    let examples: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(examples.len() >= 4, "{}", examples.len());
    let env = |name: &str| Some(format!("value-of-{}", name.to_lowercase()));
    let file = |_: &str| Ok(ACCOUNT.to_owned());
    for example in examples {
        let read = parse(example, &Sources { env: &env, file: &file });
        assert!(read.is_ok(), "{:?}\n{example}", read.unwrap_err());
    }
}
