//! Bedrock, Vertex AI and Azure OpenAI.

use super::*;

/// The provider of the only deployment of an entry of `model_list`, and the deployment's model.
#[track_caller]
fn made(params: &str) -> (Imported, serde_json::Value, String) {
    let text = format!("model_list:\n  - model_name: m\n    litellm_params:\n{params}");
    let imported = litellm(&text).expect("it is read");
    let config = checked(&imported);
    let deployment = &config.models.get("m").unwrap_or_else(|| panic!("{imported:#?}")).deployments[0];
    let (provider, model) = (deployment.provider.clone(), deployment.model.clone().expect("a model"));
    let value = imported.yaml.lines().find_map(|line| line.strip_prefix(&format!("  \"{provider}\": ")));
    let value = serde_json::from_str(value.expect("a provider")).expect("JSON");
    (imported, value, model)
}

#[test]
fn clouds_of_litellm_are_taken_over_with_all_they_need() {
    for (params, provider, model) in [
        (
            "      model: bedrock/us.amazon.nova-pro-v1:0\n      aws_region_name: us-east-1\n      aws_access_key_id: os.environ/ID\n      aws_secret_access_key: os.environ/SECRET\n      aws_session_token: os.environ/TOKEN\n",
            r#"{"kind": "bedrock", "location": "us-east-1", "keys": [{"access_key_id": "${ID}", "secret_access_key": "${SECRET}", "session_token": "${TOKEN}"}]}"#,
            "us.amazon.nova-pro-v1:0",
        ),
        (
            "      model: bedrock/converse/eu-west-3/anthropic.claude-v2\n",
            r#"{"kind": "bedrock", "location": "eu-west-3", "keys": [{"access_key_id": "${AWS_ACCESS_KEY_ID}", "secret_access_key": "${AWS_SECRET_ACCESS_KEY}", "session_token": "${AWS_SESSION_TOKEN:-}"}]}"#,
            "anthropic.claude-v2",
        ),
        (
            "      model: bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/x\n      aws_region_name: os.environ/AWS_REGION\n      api_key: os.environ/KEY\n",
            r#"{"kind": "bedrock", "location": "${AWS_REGION}", "keys": ["${KEY}"]}"#,
            "arn:aws:bedrock:us-east-1:1:inference-profile/x",
        ),
        (
            "      model: vertex_ai/gemini-2.5-pro\n      vertex_project: acme\n      vertex_location: global\n      vertex_credentials: /etc/acme/vertex.json\n",
            r#"{"kind": "vertex", "location": "global", "project": "acme", "keys": [{"service_account": "file:/etc/acme/vertex.json"}]}"#,
            "gemini-2.5-pro",
        ),
        (
            "      model: vertex_ai/claude-sonnet-4@20250514\n      vertex_ai_project: os.environ/P\n      vertex_ai_location: os.environ/THE_LOCATION\n      rpm: 7\n",
            r#"{"kind": "vertex_anthropic", "location": "${THE_LOCATION}", "project": "${P}", "keys": [{"service_account": "file:${GOOGLE_APPLICATION_CREDENTIALS}", "rpm": 7}]}"#,
            "claude-sonnet-4@20250514",
        ),
        (
            "      model: azure/my-deployment\n      api_base: https://acme.openai.azure.com\n      api_version: 2024-10-21-preview\n      api_key: os.environ/AZURE_KEY\n",
            r#"{"kind": "azure", "base_url": "https://acme.openai.azure.com", "api_version": "2024-10-21-preview", "keys": ["${AZURE_KEY}"]}"#,
            "my-deployment",
        ),
    ] {
        let (imported, value, name) = made(params);
        let wanted: serde_json::Value = serde_json::from_str(provider).expect("JSON");
        assert_eq!((value, name.as_str()), (wanted, model), "{params}");
        assert!(imported.notes.is_empty(), "{imported:#?}");
    }
}

#[test]
fn what_clouds_of_litellm_find_elsewhere_is_told() {
    for (params, line, path, says) in [
        ("      model: bedrock/x\n", 4, "model", "`location` is the variable AWS_REGION"),
        ("      model: vertex_ai/gemini-x\n", 4, "model", "`location` is us-central1"),
        ("      model: vertex_ai/gemini-x\n", 4, "model", "`project` is the variable VERTEXAI_PROJECT"),
        ("      model: azure/x\n", 4, "model", "`base_url` is the variable AZURE_API_BASE"),
        (
            "      model: bedrock/x\n      api_base: https://a.example\n      aws_bedrock_runtime_endpoint: https://b.example\n",
            6,
            "aws_bedrock_runtime_endpoint",
            "no counterpart",
        ),
        ("      model: ollama/x\n", 4, "model", "port 11434 of this machine"),
        ("      model: bedrock/x\n      aws_role_name: r\n", 5, "aws_role_name", "no counterpart"),
        (
            "      model: bedrock/x\n      aws_access_key_id: AKIA\n",
            5,
            "aws_access_key_id",
            "stands in the file",
        ),
        ("      model: gemini/x\n      vertex_project: p\n", 5, "vertex_project", "no counterpart"),
        (
            "      model: vertex_ai/gemini-x\n      vertex_credentials: os.environ/CREDENTIALS\n",
            5,
            "vertex_credentials",
            "the path of the key file",
        ),
    ] {
        let text = format!("model_list:\n  - model_name: m\n    litellm_params:\n{params}");
        let imported = litellm(&text).expect("it is read");
        noted(&imported, line, &format!("model_list[0].litellm_params.{path}"), says);
        assert!(imported.yaml.contains("deployments"), "{imported:#?}");
    }
}

/// A key that stands in the file itself is not copied, and neither is what else is secret in it.
#[test]
fn key_files_within_the_file_are_not_copied() {
    for credentials in ["'{\"private_key\": \"TOP\"}'", "{ private_key: TOP }"] {
        let (imported, value, _) = made(&format!(
            "      model: vertex_ai/gemini-x\n      vertex_credentials: {credentials}\n      vertex_project: p\n"
        ));
        assert!(!imported.yaml.contains("TOP"), "{}", imported.yaml);
        assert_eq!(value["keys"][0]["service_account"], "file:${GOOGLE_APPLICATION_CREDENTIALS}");
        noted(&imported, 5, "model_list[0].litellm_params.vertex_credentials", "not copied");
    }
}

#[test]
fn a_deployment_that_is_left_out_is_told_field_by_field() {
    let text = "model_list:\n  - model_name: m\n    rpm: 3\n    litellm_params:\n      model: vertex_ai/meta/llama\n      vertex_project: p\n      timeout: 3\n    model_info:\n      mode: chat\n";
    let imported = litellm(text).expect("it is read");
    let told: Vec<_> = imported.notes.iter().map(|note| (note.line, note.path.as_str())).collect();
    assert_eq!(
        told,
        [
            (3, "model_list[0].rpm"),
            (5, "model_list[0].litellm_params.model"),
            (6, "model_list[0].litellm_params.vertex_project"),
            (7, "model_list[0].litellm_params.timeout"),
            (9, "model_list[0].model_info.mode"),
        ]
    );
    noted(&imported, 5, "model_list[0].litellm_params.model", "only Google's and Anthropic's");
}

#[test]
fn clouds_of_neurolink_are_taken_over_with_all_they_need() {
    for (entry, provider, model) in [
        (
            "name: 'bedrock', region: 'eu', config: { region: 'eu-west-1', accessKeyId: process.env.ID, secretAccessKey: process.env.SECRET, model: 'nova' }",
            r#"{"kind": "bedrock", "location": "eu-west-1", "region": "eu", "keys": [{"access_key_id": "${ID}", "secret_access_key": "${SECRET}"}]}"#,
            "nova",
        ),
        (
            "name: 'bedrock', region: 'us-east-1', model: 'nova'",
            r#"{"kind": "bedrock", "location": "us-east-1", "keys": [{"access_key_id": "${AWS_ACCESS_KEY_ID}", "secret_access_key": "${AWS_SECRET_ACCESS_KEY}", "session_token": "${AWS_SESSION_TOKEN:-}"}]}"#,
            "nova",
        ),
        (
            "name: 'vertex', config: { projectId: 'acme', region: 'us-east5', model: 'claude-x' }",
            r#"{"kind": "vertex_anthropic", "location": "us-east5", "project": "acme", "keys": [{"service_account": "file:${GOOGLE_APPLICATION_CREDENTIALS}"}]}"#,
            "claude-x",
        ),
        (
            "name: 'azure-openai', config: { endpoint: 'https://acme.openai.azure.com', apiKey: process.env.KEY, deployment: 'gpt-4o-eu', apiVersion: '2024-10-21' }",
            r#"{"kind": "azure", "base_url": "https://acme.openai.azure.com", "api_version": "2024-10-21", "keys": ["${KEY}"]}"#,
            "gpt-4o-eu",
        ),
        (
            "name: 'groq', region: 'eu', model: 'm'",
            r#"{"kind": "groq", "region": "eu", "keys": ["${GROQ_API_KEY}"]}"#,
            "m",
        ),
    ] {
        let imported = neurolink(&format!("x = {{ providers: [{{ {entry} }}] }}")).expect("it is read");
        let config = checked(&imported);
        let wanted: serde_json::Value = serde_json::from_str(provider).expect("JSON");
        let line = imported
            .yaml
            .lines()
            .find_map(|line| line.strip_prefix("  \"").filter(|_| line.contains("kind")));
        let value = line.and_then(|line| line.split_once("\": ")).expect("a provider").1;
        assert_eq!(serde_json::from_str::<serde_json::Value>(value).expect("JSON"), wanted, "{entry}");
        assert_eq!(config.models["default"].deployments[0].model.as_deref(), Some(model));
        assert!(imported.notes.is_empty(), "{imported:#?}");
    }
}
