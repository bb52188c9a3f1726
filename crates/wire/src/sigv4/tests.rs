use super::*;

/// 2015-08-30T12:36:00Z
const THEN: u64 = 1_440_938_160;
const SCOPE: Scope<'static> = Scope { region: "us-east-1", service: "service" };
const UNRESERVED: &str = "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The token of AWS's own tests.
const TOKEN: &str = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==";

fn credentials(token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: token.map(str::to_owned),
    }
}

#[track_caller]
fn check(method: &str, url: &str, more: &[(&str, &str)], body: &str, names: &str, signature: &str) {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let mut headers = vec![("Host", "example.amazonaws.com")];
    headers.extend(more);
    let payload = Payload::Bytes(body.as_bytes());
    let request =
        Request { method, path, query, headers: &headers, payload, path_style: PathStyle::default() };
    let token = names.contains("security-token").then_some(TOKEN);
    let signed = sign(&credentials(token), SCOPE, THEN, &request);
    assert_eq!(
        signed.authorization,
        format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, Signature={signature}"
        ),
        "{method} {url}"
    );
}

/// The vectors that AWS publishes for implementations.
#[test]
fn awss_own_vectors_of_paths_and_queries() {
    let get = |url: &str, signature: &str| check("GET", url, &[], "", "host;x-amz-date", signature);
    let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    for url in ["/", "/example/..", "/example1/example2/../..", "//", "/./"] {
        get(url, vanilla);
    }
    get("/./example", "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5");
    get("//example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84");
    get("/example space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741");
    get(&format!("/{UNRESERVED}"), "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
    get("/ሴ", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85");
    get("/?Param1=value1", "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb");
    get("/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    get(
        &format!("/?{UNRESERVED}={UNRESERVED}"),
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    );
    get("/?ሴ=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
    let post = |url: &str, signature: &str| check("POST", url, &[], "", "host;x-amz-date", signature);
    post("/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    post("/?Param1=value1", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11");
    post(
        "/?%40%23%24%25%5E=&%2B=%2F%2C%3F%3E%3C%60%22%3B%3A%5C%7C%5D%5B%7B%7D",
        "66c82657c86e26fb25238d0e69f011edc4c6df5ae71119d7cb98ed9b87393c1e",
    );
    post("/?p=", "e71688addb58a26418614085fb730ba3faa623b461c17f48f2fbdb9361b94a9b");
}

#[test]
fn awss_own_vectors_of_headers_and_bodies() {
    let one = "host;my-header1;x-amz-date";
    let get = |more: &[(&str, &str)], signature: &str| check("GET", "/", more, "", one, signature);
    get(
        &[("My-Header1", "value2"), ("My-Header1", "value2"), ("My-Header1", "value1")],
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    );
    get(
        &[
            ("My-Header1", "value4"),
            ("My-Header1", "value1"),
            ("My-Header1", "value3"),
            ("My-Header1", "value2"),
        ],
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    );
    check(
        "GET",
        "/",
        &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")],
        "",
        "host;my-header1;my-header2;x-amz-date",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    );
    let post = |more: &[(&str, &str)], body: &str, names: &str, signature: &str| {
        check("POST", "/", more, body, names, signature);
    };
    post(
        &[("My-Header1", "value1")],
        "",
        one,
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    );
    post(
        &[("My-Header1", "VALUE1")],
        "",
        one,
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    );
    post(
        &[],
        "",
        "host;x-amz-date;x-amz-security-token",
        "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead",
    );
    let form = "content-type;host;x-amz-date";
    post(
        &[("Content-Type", "application/x-www-form-urlencoded")],
        "Param1=value1",
        form,
        "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
    );
    post(
        &[("Content-Type", "application/x-www-form-urlencoded; charset=utf8")],
        "Param1=value1",
        form,
        "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
    );
}

/// Signatures that botocore makes of the same requests.
#[test]
fn requests_to_bedrock_are_signed_as_awss_own_client_signs_them() {
    let path = crate::bedrock::DEF.dialect.path("us.anthropic.claude-sonnet-4-5-20250929-v1:0", true);
    let signature = "7d08e2d5c7a0db17e4a0fe5b8b15bc6b62f13a533bd43fac5f2b9a327334a937";
    assert!(bedrock(&path, None).authorization.ends_with(signature));
    let arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.amazon.nova-pro-v1:0";
    let signed = bedrock(&crate::bedrock::DEF.dialect.path(arn, false), Some("TOKEN//x=="));
    let signature = "8b370663b08989a9c9be104875c35988ce0380cbac4f18f8df88f7c3b669a71f";
    assert!(signed.authorization.ends_with(signature), "{}", signed.authorization);
    let names: Vec<&str> = signed.headers().map(|(name, _)| name).collect();
    assert_eq!(names, ["x-amz-date", "authorization", "x-amz-security-token"]);
}

fn bedrock(path: &str, token: Option<&str>) -> Signed {
    let request = Request {
        method: "POST",
        path,
        query: "",
        headers: &[("content-type", "application/json"), ("host", "bedrock-runtime.us-east-1.amazonaws.com")],
        payload: Payload::Bytes(br#"{"messages":[]}"#),
        path_style: PathStyle::EncodedAgain,
    };
    // 2026-11-21T18:00:00Z
    sign(&credentials(token), Scope { region: "us-east-1", service: "bedrock" }, 1_795_284_000, &request)
}

fn canonical_text(path: &str, query: &str, path_style: PathStyle, payload: Payload<'_>) -> String {
    let request = Request { method: "GET", path, query, headers: &[], payload, path_style };
    let mut text = Vec::new();
    canonical(&request, vec![("host", "h")], &mut |piece| text.extend_from_slice(piece));
    String::from_utf8(text).unwrap()
}

#[test]
fn paths_are_encoded_once_more_but_for_s3() {
    let text = canonical_text("/model/a%3Ab/../c%2Fd", "b=%2f&a", PathStyle::EncodedAgain, Payload::Unsigned);
    assert_eq!(text, "GET\n/model/c%252Fd\na=&b=%2F\nhost:h\n\nhost\nUNSIGNED-PAYLOAD");
    let text = canonical_text("/bucket//a%3Ab", "", PathStyle::AsSent, Payload::Unsigned);
    assert!(text.starts_with("GET\n/bucket//a%3Ab\n\n"), "{text}");
    let odd = canonical_text("/", "x=%+1%zz%", PathStyle::EncodedAgain, Payload::Unsigned);
    assert!(odd.contains("x=%25%2B1%25zz%25"), "{odd}");
}

#[test]
fn a_body_in_pieces_is_the_same_body() {
    let mut hash = PayloadHash::default();
    hash.update(b"Param1=");
    hash.update(b"value1");
    let whole = canonical_text("/", "", PathStyle::EncodedAgain, Payload::Bytes(b"Param1=value1"));
    assert_eq!(canonical_text("/", "", PathStyle::EncodedAgain, hash.finish()), whole);
    let empty = canonical_text("/", "", PathStyle::EncodedAgain, PayloadHash::default().finish());
    assert!(empty.ends_with(EMPTY_SHA256));
}

#[test]
fn secrets_do_not_show() {
    let credentials = credentials(Some("TOKEN"));
    let signed = bedrock("/", Some("TOKEN"));
    let shown = format!("{credentials:?} {signed:?} {:?}", PayloadHash::default());
    assert!(!shown.contains("TOKEN") && !shown.contains("wJalr") && !shown.contains("Signature="), "{shown}");
}
