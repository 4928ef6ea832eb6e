//! What `gcs doctor` says: how bad, what, with which figures, and what to do.

use serde::Serialize;

/// The worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// It could not be found out.
    Unknown,
    Warning,
    Critical,
}

impl Severity {
    /// As plugins of Nagios end.
    pub fn exit_status(self) -> u8 {
        match self {
            Severity::Ok => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
            Severity::Unknown => 3,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Severity::Ok => "ok",
            Severity::Unknown => "unknown",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// A word of a fixed list, for scripts.
    pub name: &'static str,
    /// The node, database, file that it is about.
    pub subject: String,
    pub message: String,
    /// A command, or what to do in words; none where nothing is to be done.
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(name: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Ok, name, subject, message, None)
    }

    pub fn unknown(name: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Finding {
        Finding::new(Severity::Unknown, name, subject, message, None)
    }

    pub fn warning(
        name: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Warning, name, subject, message, Some(remedy.into()))
    }

    pub fn critical(
        name: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(Severity::Critical, name, subject, message, Some(remedy.into()))
    }

    pub fn new(
        severity: Severity,
        name: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        remedy: Option<String>,
    ) -> Finding {
        Finding { severity, name, subject: subject.into(), message: message.into(), remedy }
    }
}

/// What is said where the daemon of this node would have to be asked, and cannot be.
pub fn not_known(name: &'static str, node: &str) -> Vec<Finding> {
    vec![Finding::unknown(name, node, "the daemon of this node cannot be asked")]
}

/// Of all that was found.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Unknown)
}

/// A line a finding, the worst first; behind each that is not ok, what to do.
pub fn to_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { severity, name, subject, message, remedy } in findings {
        text += &format!("{:<9} {name:<12} {subject}: {message}\n", severity.name());
        if let Some(remedy) = remedy {
            text += &format!("{:<9} {:<12} do: {remedy}\n", "", "");
        }
    }
    let count = |wanted: Severity| findings.iter().filter(|finding| finding.severity == wanted).count();
    let (critical, warnings) = (count(Severity::Critical), count(Severity::Warning));
    let (unknown, ok) = (count(Severity::Unknown), count(Severity::Ok));
    text + &format!("{}: {critical} critical, {warnings} warnings, {unknown} unknown, {ok} ok\n", worst(findings).name())
}

#[derive(Serialize)]
struct Json<'a> {
    status: Severity,
    findings: &'a [Finding],
}

pub fn to_json(findings: &[Finding]) -> String {
    // Strings always have a JSON form.
    serde_json::to_string(&Json { status: worst(findings), findings }).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_decides_and_what_is_not_known_is_less_than_what_is_known_to_be_wrong() {
        let (ok, unknown) = (Finding::ok("disk", "d", "m"), Finding::unknown("lag", "n", "m"));
        let (warning, critical) =
            (Finding::warning("clock", "n", "m", "r"), Finding::critical("daemon", "n", "m", "gcs run"));
        assert_eq!(worst(std::slice::from_ref(&ok)).exit_status(), 0);
        assert_eq!(worst(&[ok.clone(), unknown.clone()]).exit_status(), 3);
        assert_eq!(worst(&[warning.clone(), unknown.clone()]).exit_status(), 1);
        assert_eq!(worst(&[warning, critical.clone(), ok.clone()]).exit_status(), 2);
        assert_eq!(worst(&[]).exit_status(), 3);
        let text = to_text(&[critical.clone(), ok]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("critical  daemon ") && lines[1].trim_start() == "do: gcs run", "{text}");
        assert_eq!(lines[3], "critical: 1 critical, 0 warnings, 0 unknown, 1 ok");
        let json = to_json(&[critical]);
        assert!(
            json.starts_with("{\"status\":\"critical\",\"findings\":[{\"severity\":\"critical\",\"name\":\"daemon\""),
            "{json}"
        );
    }
}
