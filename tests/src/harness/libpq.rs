//! Where libpq is led to, given several hosts and what a session must be like.

use std::process::Command;

use super::{Group, node};

/// What psql makes of these nodes, in this order: the one it was led to, or its complaint.
///
/// # Errors
/// The complaint.
pub fn led_to(group: &Group, nodes: &[usize], attributes: &str) -> Result<String, String> {
    let ports: Vec<String> = nodes.iter().map(|&number| group.playground.cluster(node(number)).port.to_string()).collect();
    let hosts = vec!["127.0.0.1"; nodes.len()].join(",");
    let target =
        format!("host={hosts} port={} user=postgres dbname=shop target_session_attrs={attributes}", ports.join(","));
    let psql = Command::new("psql").args(["-XAtc", "SHOW port", &target]).env("PGOPTIONS", "").output();
    let output = psql.map_err(|error| format!("psql: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let port = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let found = ports.iter().position(|other| *other == port).unwrap_or_else(|| panic!("port {port}"));
    Ok(format!("node{}", nodes[found]))
}
