//! Who may use the admin API.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use crate::app::App;

/// With admin keys, one is needed for everything but the health pages. Without, the listener is on loopback, and only
/// requests that a web page could not have caused are served: the host is this machine, and there is no origin.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let who = match allowed(&app, request.headers(), &path) {
        Ok(who) => who,
        Err(problem) => return problem.into_response(),
    };
    let response = next.run(request).await;
    if method != Method::GET {
        tracing::info!(%method, path, who, status = response.status().as_u16(), "admin");
    }
    response
}

fn allowed(app: &App, headers: &HeaderMap, path: &str) -> Result<String, Problem> {
    if matches!(path, "/livez" | "/readyz" | "/healthz") {
        return Ok("anybody".to_owned());
    }
    let snapshot = app.snapshot.load();
    let keys = &snapshot.keys;
    let forbidden = |detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    if keys.has_admins() {
        return match keys.authenticate_admin(headers) {
            Some(name) => Ok(name.to_string()),
            None if keys.is_client(headers) => forbidden("a client key opens nothing here; use an admin key"),
            None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                "send an admin key as `authorization: Bearer KEY`",
            )),
        };
    }
    if keys.is_client(headers) {
        return forbidden("a client key opens nothing here");
    }
    if headers.contains_key(header::ORIGIN) {
        return forbidden("requests of web pages are refused while there are no admin keys");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_this_machine(host) {
        return forbidden(
            "the host header does not name this machine; configure `auth.admin_keys` to use another name",
        );
    }
    Ok("loopback".to_owned())
}

/// Whether a host header names this machine by what only this machine can be called.
fn is_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn h9_names_that_dns_could_rebind_are_not_this_machine() {
        for host in ["localhost", "LOCALHOST:8081", "127.0.0.1:8081", "[::1]:8081", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example:8081", "10.0.0.1", "127.0.0.1.nip.io"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
