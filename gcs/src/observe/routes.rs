//! What is asked for, and what is answered: paths, methods, parameters, statuses, bodies.
//!
//! | path | 200 | 503 |
//! |---|---|---|
//! | `/metrics` | always | |
//! | `/healthz` | the process does what it has to | its event loop hangs |
//! | `/readyz` | clients can read here | not now |
//! | `/writable` | a commit could be had here | not now |
//! | `/synced` | everything ordered is visible here | not now |
//! | `/`, and what it consists of | always: the page for people ([`super::page`]) | |
//! | `/state` | what the page shows | the daemon starts, stops or hangs |
//!
//! 404 for other paths, 405 for other methods than GET and HEAD, 400 for parameters that mean nothing. Bodies of all but `/metrics` are one JSON
//! object.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response, StatusCode};
use serde::Serialize;

use super::asker::Asker;
use super::counted::{Counted, PATHS};
use super::metrics;
use super::page::{self, Part};
use super::pulse::{Phase, Pulse};
use super::snapshot::{Database, Service, Snapshot};
use super::verdicts::{self, Verdict};
use super::view::View;

pub struct Routes {
    pub asker: Asker,
    pub counted: Arc<Counted>,
    pub pulse: Arc<Pulse>,
}

/// What a request says behind its path.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    database: Option<String>,
    lag: Option<u64>,
}

#[derive(Debug, Default, Serialize)]
struct Body {
    ok: bool,
    /// Why not, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    state: &'static str,
    uptime_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    silence_ms: Option<u64>,
    #[serde(flatten)]
    group: Option<GroupBody>,
}

#[derive(Debug, Serialize)]
struct GroupBody {
    node: String,
    group: String,
    quorum: bool,
    leader: Option<String>,
    databases: Vec<DatabaseBody>,
}

#[derive(Debug, Serialize)]
struct DatabaseBody {
    name: String,
    state: &'static str,
    ordered: u64,
    received: u64,
    applied: u64,
    /// How many positions are missing here of what the group had when it was asked; null where it was not.
    behind: Option<u64>,
}

impl Routes {
    pub async fn answer(&self, method: &Method, path: &str, query: Option<&str>) -> Response<String> {
        let known = PATHS.into_iter().find(|known| *known == path);
        let response = match known {
            None => self.plain(StatusCode::NOT_FOUND, "no such path"),
            Some(_) if method != Method::GET && method != Method::HEAD => {
                let mut response = self.plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
            Some(path) => match parameters(path, query) {
                Ok(parameters) => self.ask(path, parameters).await,
                Err(message) => self.plain(StatusCode::BAD_REQUEST, &message),
            },
        };
        self.counted.answered(known.unwrap_or("other"), word(response.status()));
        response
    }

    async fn ask(&self, path: &'static str, Parameters { database, lag }: Parameters) -> Response<String> {
        match path {
            "/metrics" => {
                let snapshot = if self.pulse.phase() == Phase::Running { self.asker.look().await } else { None };
                match metrics::text(&self.counted, &self.pulse, snapshot) {
                    Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
                    Err(_) => self.plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written"),
                }
            }
            "/healthz" => {
                let problem = (!self.pulse.is_healthy()).then(|| "the event loop hangs".to_owned());
                self.json(problem.map_or(Ok(()), Err), None)
            }
            "/synced" => self.about(self.asker_lag(&database, 0), |seen| verdicts::synced(seen, database.as_deref())).await,
            "/readyz" => match lag {
                Some(lag) => {
                    let verdict = |seen: &Snapshot| verdicts::ready(seen, database.as_deref(), Some(lag));
                    self.about(self.asker_lag(&database, lag), verdict).await
                }
                None => self.about(self.asker.look(), |seen| verdicts::ready(seen, database.as_deref(), None)).await,
            },
            "/writable" => self.about(self.asker.look(), |seen| verdicts::writable(seen, database.as_deref())).await,
            "/state" => self.state().await,
            // Every path that is known and not above is a part of the page.
            path => page::part(path).map_or_else(|| self.plain(StatusCode::NOT_FOUND, "no such path"), of_page),
        }
    }

    fn asker_lag(&self, database: &Option<String>, lag: u64) -> impl Future<Output = Option<Snapshot>> {
        self.asker.lag(database.clone(), lag)
    }

    async fn state(&self) -> Response<String> {
        let seen = if self.pulse.phase() == Phase::Running { self.asker.page().await } else { None };
        let Some(seen) = seen else { return self.plain(StatusCode::SERVICE_UNAVAILABLE, self.why_silent()) };
        let view = View::new(seen, &self.pulse, self.counted.decided());
        match serde_json::to_string(&view) {
            Ok(text) => response(StatusCode::OK, "application/json", text),
            Err(_) => self.plain(StatusCode::INTERNAL_SERVER_ERROR, "the state could not be written"),
        }
    }

    /// Why there is no snapshot.
    fn why_silent(&self) -> &'static str {
        match self.pulse.phase() {
            Phase::Starting => "the daemon is starting, or joining the group",
            Phase::Stopping => "the daemon is stopping",
            Phase::Running => "the daemon's event loop does not answer",
        }
    }

    /// What follows from the state of the group.
    async fn about(
        &self,
        seen: impl Future<Output = Option<Snapshot>>,
        verdict: impl FnOnce(&Snapshot) -> Verdict,
    ) -> Response<String> {
        match self.pulse.phase() {
            Phase::Starting | Phase::Stopping => self.json(Err(self.why_silent().to_owned()), None),
            Phase::Running => match seen.await {
                Some(snapshot) => self.json(verdict(&snapshot), Some(snapshot)),
                None => self.json(Err(self.why_silent().to_owned()), None),
            },
        }
    }

    fn json(&self, verdict: Verdict, snapshot: Option<Snapshot>) -> Response<String> {
        let status = if verdict.is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = Body {
            ok: verdict.is_ok(),
            reason: verdict.err(),
            state: match self.pulse.phase() {
                Phase::Starting => "starting",
                Phase::Running => "running",
                Phase::Stopping => "stopping",
            },
            uptime_seconds: self.pulse.uptime().as_secs(),
            silence_ms: self.pulse.silence().map(|silence| silence.as_millis() as u64),
            group: snapshot.map(of_group),
        };
        // Strings, numbers and booleans always have a JSON form.
        response(status, "application/json", serde_json::to_string(&body).unwrap_or_default() + "\n")
    }

    /// Of a request that is wrong by itself.
    fn plain(&self, status: StatusCode, message: &str) -> Response<String> {
        let body = serde_json::json!({ "ok": false, "reason": message });
        response(status, "application/json", body.to_string() + "\n")
    }
}

fn of_page(part: &Part) -> Response<String> {
    let mut response = response(StatusCode::OK, part.content_type, part.text.to_owned());
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn of_group(seen: Snapshot) -> GroupBody {
    let leader = seen.status.members.iter().find(|member| Some(member.node) == seen.status.leader);
    let here = seen.databases.iter().filter(|it| it.service != Service::Absent);
    GroupBody {
        quorum: seen.status.quorum,
        leader: leader.map(|member| member.name.clone()),
        databases: here.map(of_database).collect(),
        node: seen.node,
        group: seen.group,
    }
}

fn of_database(it: &Database) -> DatabaseBody {
    DatabaseBody {
        name: it.name.clone(),
        state: it.service.name(),
        ordered: it.ordered.0,
        received: it.received.0,
        applied: it.applied.0,
        behind: it.of_group.map(|of_group| of_group.0.saturating_sub(it.applied.0)),
    }
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A label's form of those that are given.
fn word(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        400 => "400",
        404 => "404",
        405 => "405",
        503 => "503",
        _ => "500",
    }
}

/// A parameter that is not known, or not of this path, would be one that is silently left out.
fn parameters(path: &str, query: Option<&str>) -> Result<Parameters, String> {
    let mut found = Parameters::default();
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match (path, name) {
            ("/readyz" | "/writable" | "/synced", Cow::Borrowed("database")) if found.database.is_none() => {
                found.database = Some(value.into_owned());
            }
            ("/readyz", Cow::Borrowed("lag")) if found.lag.is_none() => {
                let lag = value.parse().map_err(|_| format!("lag is \"{value}\", but must be a number of positions"))?;
                found.lag = Some(lag);
            }
            (_, name) => return Err(format!("{path} has no parameter \"{name}\", or not twice")),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_path() {
        let of = |path, query| parameters(path, Some(query));
        let both = Parameters { database: Some("my shop".to_owned()), lag: Some(100) };
        assert_eq!(of("/readyz", "lag=100&database=my%20shop"), Ok(both));
        assert_eq!(parameters("/readyz", None), Ok(Parameters::default()));
        for (path, query) in [
            ("/readyz", "lag=-1"),
            ("/readyz", "lag="),
            ("/readyz", "lag=1&lag=2"),
            ("/readyz", "leg=1"),
            ("/writable", "lag=1"),
            ("/healthz", "database=shop"),
            ("/metrics", "x"),
        ] {
            assert!(of(path, query).is_err(), "{path}?{query}");
        }
    }
}
