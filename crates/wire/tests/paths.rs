//! Where requests go below a provider's prefix: nowhere that the name of a model leads.

use pointsman_wire::dialect::PROVIDERS;

#[test]
fn i8_no_model_name_leaves_its_segment_in_any_dialect() {
    let names = [
        "../../v1/files",
        "..",
        ".",
        "a/../b",
        "a?x=1",
        "a#b",
        "a b",
        "a\r\nhost: evil",
        "a%2e%2e%2fb",
        "models/../x",
        "tunedModels/../../x",
        "a\\b",
        "a\0b",
        "é",
        "a:delete?",
    ];
    for def in PROVIDERS {
        for stream in [false, true] {
            let plain = def.dialect.path("plain", stream);
            let (plain_head, plain_query) = plain.split_once('?').unwrap_or((&plain, ""));
            for name in names {
                let path = def.dialect.path(name, stream);
                let told = format!("{} {name:?}: {path}", def.name);
                assert!(path.bytes().all(|byte| byte.is_ascii_graphic()), "{told}");
                let (head, query) = path.split_once('?').unwrap_or((&path, ""));
                assert_eq!(query, plain_query, "{told}");
                assert!(!head.contains(['#', '\\']), "{told}");
                assert!(!head.split('/').any(|part| matches!(part, "." | "..")), "{told}");
                assert_eq!(head.matches('/').count(), plain_head.matches('/').count(), "{told}");
            }
        }
    }
}
