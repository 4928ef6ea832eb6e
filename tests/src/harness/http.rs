//! What a node's daemon tells over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gcs::playground::NodeNumber;

use super::{Group, wait};

/// No answer takes that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the node's daemon tells it.
pub fn address(group: &Group, number: NodeNumber) -> String {
    group.playground.http(number).unwrap_or_else(|| panic!("node {} tells nothing over HTTP", number.0))
}

/// Status and body.
pub fn get(group: &Group, number: NodeNumber, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address(group, number))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: gcs\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let no_answer = || std::io::Error::other(format!("no answer: {answer:?}"));
    let (headers, body) = answer.split_once("\r\n\r\n").ok_or_else(no_answer)?;
    let status = headers.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(no_answer)?;
    Ok((status, body.to_owned()))
}

pub fn status(group: &Group, number: NodeNumber, path: &str) -> u16 {
    get(group, number, path).unwrap_or_else(|error| panic!("node {}: {path}: {error}", number.0)).0
}

/// Until the answer has this status and this in its body: how long that took.
pub fn becomes(group: &Group, number: NodeNumber, path: &str, wanted: u16, text: &str, at_most: Duration) -> Duration {
    let ((), took) = wait::until(&format!("node {}: {path} is {wanted}", number.0), at_most, || {
        match get(group, number, path).map_err(|error| error.to_string())? {
            (status, body) if status == wanted && body.contains(text) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    took
}

/// The value of a metric, with its labels as they are written; none if it has none.
pub fn metric(group: &Group, number: NodeNumber, name: &str) -> Option<f64> {
    let (_, text) = get(group, number, "/metrics").ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Who asks again at once is told the same for a moment, so this waits for it.
pub fn metric_becomes(group: &Group, number: NodeNumber, name: &str, wanted: f64) {
    wait::until(&format!("node {}: {name} is {wanted}", number.0), PATIENCE, || match metric(group, number, name) {
        Some(found) if found == wanted => Ok(()),
        found => Err(format!("{found:?}")),
    });
}
