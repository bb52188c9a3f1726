//! `egress`, `prices` and vendors that need a base URL, as files say them.

use super::*;

#[track_caller]
fn problems(text: &str) -> Vec<String> {
    let found = parse(text, &sources()).expect_err("it is wrong");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn i2_providers_that_can_never_be_reached_are_told_at_check() {
    let found = problems(
        "egress: { allow: [api.openai.com, 10.0.0.0/33, 'x:80'], private: false }\n\
         providers:\n  a: { kind: groq }\n  b: { kind: vllm, base_url: 'http://10.0.0.5:8000' }\n  \
         c: { kind: openai }\n  d: { kind: vllm, base_url: 'http://2130706433:8000' }\n",
    );
    let expected = [
        "egress.allow[1]: has more bits than its address",
        "egress.allow[2]: must be a host",
        "providers.a: host `api.groq.com` is not in `egress.allow`",
        "providers.b.base_url: neither `10.0.0.5` nor 10.0.0.5 is in `egress.allow`",
        "providers.d.base_url: `2130706433` is an address in an unusual spelling",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for part in expected {
        assert!(found.iter().any(|line| line.contains(part)), "{part}: {found:#?}");
    }
    let found = problems(
        "egress: { private: false }\nproviders: { a: { kind: vllm, base_url: 'http://127.0.0.1:1' } }\n",
    );
    assert!(found[0].contains("127.0.0.1 is a private address") && found.len() == 1, "{found:#?}");
    for egress in ["{}", "{ private: true }", "{ private: false }", "{ allow: [169.254.0.0/16] }"] {
        let url = "http://169.254.169.254/v1";
        let found =
            problems(&format!("egress: {egress}\nproviders: {{ a: {{ kind: vllm, base_url: '{url}' }} }}\n"));
        let told = "providers.a.base_url: 169.254.169.254 may be a cloud's metadata service";
        assert!(found[0].contains(told) && found.len() == 1, "{egress}: {found:#?}");
    }
}

#[test]
fn a_base_url_with_placeholders_is_told_with_its_form() {
    let found = problems("providers: { a: { kind: cloudflare } }\n");
    assert!(found[0].contains("need a `base_url`") && found[0].contains("accounts/ACCOUNT_ID"), "{found:#?}");
    let form = "https://api.cloudflare.com/client/v4/accounts/ACCOUNT_ID";
    let found = problems(&format!("providers: {{ a: {{ kind: cloudflare, base_url: '{form}' }} }}\n"));
    assert!(found[0].contains("`ACCOUNT_ID` stands for your own"), "{found:#?}");
    let own = form.replace("ACCOUNT_ID", "0a1b");
    parse(&format!("providers: {{ a: {{ kind: cloudflare, base_url: '{own}' }} }}\n"), &sources())
        .expect("fine");
}

fn sources() -> Sources<'static> {
    Sources {
        env: &|_| None,
        file: &|name| match name {
            "prices.toml" => {
                Ok("[[price]]\nvendor = 'groq'\nmodels = ['m']\ninput = 1\noutput = 2\n".to_owned())
            }
            "other.toml" => {
                Ok("[[price]]\nvendor = 'groq'\nmodels = ['m']\ninput = 3\noutput = 2\n".to_owned())
            }
            "bad.toml" => Ok("[[price]]\nvendor = 'grok2'\n".to_owned()),
            other => Err(format!("{other} is not there")),
        },
    }
}

#[test]
fn prices_come_from_the_deployment_then_the_file_then_the_bundled_list() {
    let text = |file: &str| {
        format!(
            "prices: {file}\nproviders: {{ g: {{ kind: groq }}, o: {{ kind: openai }}, v: {{ kind: vllm, base_url: 'http://v' }} }}\n\
             models:\n  m: {{ deployments: [{{ provider: g }}, {{ provider: o, model: gpt-4o-2024-08-06 }}, \
             {{ provider: o, model: gpt-4o, price: {{ input: 7, output: 8, cached_input: 1 }} }}, {{ provider: v }}] }}\n"
        )
    };
    let config = parse(&text("prices.toml"), &sources()).expect("fine");
    let inputs = |config: &Config| -> Vec<Option<f64>> {
        let deployments = config.models["m"].deployments.iter();
        deployments.map(|one| config.price_of("m", one).map(|price| price.input)).collect()
    };
    assert_eq!(inputs(&config), [Some(1.0), Some(2.5), Some(7.0), None]);
    let other = parse(&text("other.toml"), &sources()).expect("fine");
    assert_eq!(inputs(&other)[0], Some(3.0));
    let reread = Config { prices: config.prices.clone(), ..other };
    assert!(config != reread, "a reload takes the new prices");
    assert_eq!(diff(&config, &reread), ["prices: the file says something else"]);
    for (file, says) in [("none.toml", "cannot read `none.toml`"), ("bad.toml", "`bad.toml`: ")] {
        let found = problems(&text(file));
        assert!(found[0].contains("prices: ") && found[0].contains(says), "{found:#?}");
    }
}
