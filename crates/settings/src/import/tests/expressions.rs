//! Values of JavaScript and TypeScript, and whole files of them.

use super::*;

/// What becomes of `config: { baseURL: EXPRESSION }`; `None` if only the program knows it.
fn read(expression: &str) -> Option<String> {
    let text = format!(
        "{{ providers: [{{ name: 'x', model: 'm', region: {expression}, baseURL: 'http://localhost' }}] }}"
    );
    let imported = neurolink(&text).expect(expression);
    checked(&imported);
    let told = imported
        .notes
        .iter()
        .any(|note| note.path == "providers[0].region" && note.text == node::NOT_UNDERSTOOD);
    let value = imported.yaml.lines().find_map(|line| line.strip_prefix("  \"x\": ")).expect("a provider");
    let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
    let region = value["region"].as_str().map(str::to_owned);
    assert_eq!(told, region.is_none(), "{expression}: {imported:#?}");
    region
}

#[test]
fn variables_are_read_where_they_can_be_said_and_told_where_not() {
    for (expression, wanted) in [
        ("process.env.A_1", Some("${A_1}")),
        ("process.env.A!", Some("${A}")),
        ("process?.env?.A", Some("${A}")),
        ("process.env['A']", Some("${A}")),
        ("process.env?.[\"A\"]", Some("${A}")),
        ("`${process.env.A!}`", Some("${A}")),
        ("`${process.env.A ?? 'x'}`", Some("${A:-x}")),
        ("`${ process.env.A || \"\" }`", Some("${A}")),
        ("`eu-${process.env.A ?? 'x'}-${process.env['B']}!`", Some("eu-${A:-x}-${B}!")),
        ("process.env.A ?? `x`", Some("${A:-x}")),
        ("process.env.A || undefined", Some("${A}")),
        ("(process.env.A as string) ?? 'x' as const", Some("${A:-x}")),
        ("process.env.A as string | undefined || 'x'", Some("${A:-x}")),
        ("process.env.A ?? 'a$'", Some("${A:-a$}")),
        ("'${A}'", Some("$${A}")),
        ("`\\${A}`", Some("$${A}")),
        ("'a' /* b */ // c\n", Some("a")),
        ("<string>process.env.A", None),
        ("process.env[\"GROQ KEY\"]", None),
        ("process.env['A' + 'B']", None),
        ("process.env[A]", None),
        ("process.env.\u{e4}", None),
        ("process.env.A.trim()", None),
        ("process.env.A !== 'x'", None),
        ("process.env.A || 'a}b'", None),
        ("process.env.A || process.env.B", None),
        ("process.env.A ?? 3", None),
        ("process.env", None),
        ("`$${process.env.A}`", None),
        ("`${region()}`", None),
        ("'a' + 'b'", None),
        ("'a' ? 'b' : 'c'", None),
        ("cond ? 'b' : 'c'", None),
        ("/^[\"']$/", None),
        ("'a\\101'", None),
    ] {
        assert_eq!(read(expression).as_deref(), wanted, "{expression}");
    }
}

#[test]
fn escapes_of_strings_are_the_languages() {
    for (expression, wanted) in [
        (r"'\x41\u0042\u{43}\u{01F600}'", "ABC\u{1f600}"),
        (r"'\ud83d\ude00\'\q\\'", "\u{1f600}'q\\"),
        ("'a\\\nb\\\r\nc'", "abc"),
        ("`a\\`\\x41`", "a`A"),
    ] {
        assert_eq!(read(expression).as_deref(), Some(wanted), "{expression}");
    }
}

#[test]
fn regular_expressions_and_broken_lines_do_not_hide_what_follows() {
    for before in [
        "const A = { match: /^[\"']$/ };\n",
        "const A = x.replace(/[/'\"`{]/g, '{');\n",
        "const a = b / c, d = '}' / 2;\n",
        "it's broken {{{ ((( \n",
        "const A = (<p className='x'>don't</p>);\n",
        "type T = { providers: string[]; other: number };\n",
        "const A = { providers: [] };\n",
        "const A = { b, c() { return { d: 1 }; }, ...{ e: [ } };\n",
    ] {
        let text = format!(
            "{before}\nnew NeuroLink({{ match: /^[\"'}}]$/,\n providers: [{{ name: 'groq', model: 'm' }}] }});\n"
        );
        let imported = neurolink(&text).expect(before);
        assert!(checked(&imported).models.contains_key("default"), "{before}");
        noted(&imported, 2 + before.matches('\n').count() as u64, "match", "no counterpart");
    }
}

/// Files of a kind that is nested, repeated or broken: each is read in a number of steps that grows with its length alone.
#[test]
fn no_file_takes_more_than_its_length() {
    let data =
        "  { id: 1, name: \"it's one\", tags: ['a', 'b'], of: { x: -1.5e-3, y: `${z}` } },\n".repeat(2_000);
    let config = "export default { providers: [{ name: 'groq', model: 'm' }] };\n";
    let imported = neurolink(&format!("const DATA = [\n{data}];\n{config}")).expect("behind 6,000 braces");
    assert_eq!(checked(&imported).models["default"].deployments.len(), 1);
    for (name, unit) in [
        ("objects", "{a:"),
        ("lists", "["),
        ("lists in an object", "{a:["),
        ("brackets", "("),
        ("mixed", "{a:([`${"),
        ("templates", "`${"),
        ("closers", "}])"),
        ("holes", "`${}"),
        ("strings", "'\\'"),
        ("quotes", "\"'`"),
        ("regular expressions", "=/["),
        ("comments", "/*"),
        ("line comments", "//\n"),
        ("escapes", "\\u{"),
        ("escaped", "{a:'\\u{'},"),
        ("spreads", "{..."),
        ("dots", "."),
        ("methods", "async "),
        ("stars", "*"),
        ("keys", "{[a]:{"),
        ("blocks", "{if(a){b;}"),
        ("fallbacks", "a??"),
        ("variables", "process.env.A||"),
        ("types", "a as "),
        ("signs", "{a:-"),
        ("members", "process?."),
        ("providers", "{providers:[{"),
        ("closed", "{providers:[]},"),
    ] {
        for (before, behind) in [("", ""), ("x = {a: ", "}"), ("x = [`${{", "}}`]"), ("{providers: [", "]}")]
        {
            let steps = |count: usize| {
                let text = format!("{before}{}{behind}\n{config}", unit.repeat(count));
                let steps = literal::steps(&text, "providers");
                assert!(steps <= 12 * text.len() + 1_000, "{name}: {steps} steps for {} bytes", text.len());
                steps
            };
            let (once, twice) = (steps(2_000), steps(4_000));
            assert!(twice <= 3 * once, "{name}: {once}, {twice}");
        }
    }
}

/// Every beginning of a file, and every file with a piece missing, is read or refused.
#[test]
fn no_piece_of_a_file_makes_it_panic() {
    for text in [fixtures::NEUROLINK_FILE, NEUROLINK] {
        for at in (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at)) {
            let _ = literal::find_object(&text[..at], "providers");
            let _ = literal::find_object(&text[at..], "providers");
        }
    }
    for text in [fixtures::LITELLM_FILE, LITELLM] {
        for at in (0..text.len()).step_by(97).filter(|at| text.is_char_boundary(*at)) {
            if let Ok(root) = node::of_yaml(&text[..at]) {
                let _ = litellm::gathered(&root);
            }
        }
    }
}

/// Variables in base URLs, whole or in part, also with something to stand in for them.
#[test]
fn base_urls_are_put_together_of_variables() {
    for (expression, wanted) in [
        ("process.env.A_URL", "${A_URL}"),
        ("`${process.env.A_URL}/v1`", "${A_URL}/v1"),
        ("`${process.env.A_URL ?? 'http://localhost:1'}/v1`", "${A_URL:-http://localhost:1}/v1"),
        ("`http://${process.env.HOST}:${process.env.PORT}/v1`", "http://${HOST}:${PORT}/v1"),
        ("`http://localhost:${process.env.PORT || '80'}`", "http://localhost:${PORT:-80}"),
    ] {
        let text = format!("{{ providers: [{{ name: 'x', model: 'm', baseURL: {expression} }}] }}");
        let imported = neurolink(&text).expect(expression);
        assert_eq!(checked(&imported).models["default"].deployments.len(), 1, "{expression}");
        assert!(imported.yaml.contains(&format!("\"base_url\":\"{wanted}\"")), "{}", imported.yaml);
        assert!(imported.notes.is_empty(), "{imported:#?}");
    }
    for (expression, says) in [
        ("`${process.env.SCHEME}://localhost`", ""),
        ("process.env.A_URL ?? 'nowhere'", "must begin with http://"),
        ("`http://localhost:${process.env.PORT || 'x'}`", "must have a port"),
    ] {
        let text = format!("{{ providers: [{{ name: 'x', model: 'm', baseURL: {expression} }}] }}");
        let imported = neurolink(&text).expect(expression);
        match imported.notes.first() {
            None => {
                assert!(says.is_empty() && imported.yaml.contains("${SCHEME}://localhost"), "{imported:#?}");
            }
            Some(note) => assert!(!says.is_empty() && note.text.contains(says), "{imported:#?}"),
        }
    }
}
