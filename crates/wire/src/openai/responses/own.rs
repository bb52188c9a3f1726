//! What only the Responses API has, and only its providers can go on with.

/// Why a tool is lost that its provider runs, or an item that says what such a tool did; `None` for what is not known.
pub(super) fn why_lost(kind: &str) -> Option<&'static str> {
    const WHYS: [(&str, &str); 14] = [
        ("web_search", "`web_search` is run by a provider of the Responses API; others have none"),
        ("file_search", "`file_search` is run by a provider of the Responses API; others have none"),
        (
            "code_interpreter",
            "`code_interpreter` is run by a provider of the Responses API; others have none",
        ),
        (
            "image_generation",
            "`image_generation` is run by a provider of the Responses API; others have none",
        ),
        ("computer", "`computer` is a tool of the Responses API; others have none"),
        ("mcp", "`mcp` servers are called by a provider of the Responses API; others call none"),
        ("local_shell", "`local_shell` is a tool of the Responses API; others have none"),
        ("shell", "`shell` is a tool of the Responses API; others have none"),
        ("apply_patch", "`apply_patch` is a tool of the Responses API; others have none"),
        ("custom", "`custom` tools take free text, which is a thing of the Responses API; others have none"),
        ("tool_search", "`tool_search` is run by a provider of the Responses API; others have none"),
        ("namespace", "a `namespace` of tools is a thing of the Responses API; others have none"),
        ("compaction", "only the provider that compacted a conversation can read what came of it"),
        ("additional_tools", "`additional_tools` are a thing of the Responses API; others have none"),
    ];
    // Kinds have dates, versions, and `_call` and the like behind them.
    WHYS.iter().find(|(own, _)| kind.starts_with(own)).map(|(_, why)| *why)
}

/// Why a thought is lost that another provider wrote for itself.
pub(super) const OTHER_THOUGHTS: &str = "only the provider that encrypted it can read it";

/// Whether what proves a thought may be of a provider of another dialect: OpenAI encrypts its own with Fernet, whose tokens
/// all begin with the same version and the high bits of the time.
pub(super) fn is_readable_elsewhere(signature: &str) -> bool {
    !signature.starts_with("gAAAAA")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_and_what_they_did_are_known_by_their_kind() {
        for kind in [
            "web_search_preview_2025_03_11",
            "web_search_call",
            "mcp_approval_request",
            "computer_use_preview",
            "shell_call_output",
            "custom_tool_call",
        ] {
            let word = kind.split('_').next().unwrap();
            assert!(why_lost(kind).is_some_and(|why| why.contains(word)), "{kind}");
        }
        assert_eq!(why_lost("function_call"), None);
    }
}
