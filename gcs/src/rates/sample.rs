//! One look at the daemon's metrics: the text of OpenMetrics, as far as the daemon writes it, by name and labels.

use std::collections::BTreeSet;
use std::time::Instant;

#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
struct Line {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Line {
    fn of(text: &str) -> Option<Line> {
        let (head, value) = text.rsplit_once(' ')?;
        let (name, labels) = match head.split_once('{') {
            Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)),
            None => (head, Vec::new()),
        };
        Some(Line { name: name.to_owned(), labels, value: value.parse().ok()? })
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// `a="b",c="d"`; in a value a backslash stands in front of quotes and backslashes, and `\n` for the end of a line.
fn labels(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((key, behind)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut is_escaped = false;
        let mut end = behind.len();
        for (at, c) in behind.char_indices() {
            match c {
                'n' if is_escaped => value.push('\n'),
                _ if is_escaped => value.push(c),
                '\\' => {}
                '"' => {
                    end = at + 1;
                    break;
                }
                _ => value.push(c),
            }
            is_escaped = c == '\\' && !is_escaped;
        }
        found.push((key.trim_start_matches(',').to_owned(), value));
        rest = behind.get(end..).unwrap_or_default();
    }
    found
}

impl Sample {
    pub fn of(text: &str, at: Instant) -> Sample {
        let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(Line::of);
        Sample { at, lines: lines.collect() }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.name == name)
    }

    /// 0 where it has none.
    pub fn value(&self, name: &str) -> f64 {
        self.named(name).next().map_or(0.0, |line| line.value)
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.named(name).map(|line| line.value).sum()
    }

    /// None where it has none.
    pub fn max(&self, name: &str) -> Option<f64> {
        self.named(name).map(|line| line.value).reduce(f64::max)
    }

    /// With this label.
    pub fn get(&self, name: &str, key: &str, label: &str) -> Option<f64> {
        self.named(name).find(|line| line.label(key) == Some(label)).map(|line| line.value)
    }

    pub fn labelled(&self, name: &str, key: &str, label: &str) -> f64 {
        self.get(name, key, label).unwrap_or(0.0)
    }

    /// What stands at this label, each once.
    pub fn labels(&self, name: &str, key: &str) -> BTreeSet<String> {
        self.named(name).filter_map(|line| line.label(key)).map(str::to_owned).collect()
    }

    /// In the words of `gcs status`.
    pub fn state_of(&self, member: &str) -> String {
        let is_in = |line: &&Line| line.label("member") == Some(member) && line.value > 0.0;
        let state = self.named("gcs_member_state").find(is_in).and_then(|line| line.label("state"));
        state.map_or_else(|| "not known".to_owned(), |state| state.replace('_', " "))
    }

    #[cfg(test)]
    pub fn clone_at(&self, at: Instant) -> Sample {
        Sample { at, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_labels_whatever_these_say() {
        let text =
            "# TYPE a gauge\na{database=\"my \\\"shop\\\" {1} \\\\\",state=\"out_of_service\"} 3\nb 2.5\nbroken\n# EOF\n";
        let sample = Sample::of(text, Instant::now());
        assert_eq!(sample.get("a", "database", "my \"shop\" {1} \\"), Some(3.0));
        assert_eq!(sample.get("a", "state", "out_of_service"), Some(3.0));
        assert_eq!((sample.value("b"), sample.max("c"), sample.sum("c")), (2.5, None, 0.0));
        let text =
            "gcs_member_state{member=\"n1\",state=\"online\"} 0\ngcs_member_state{member=\"n1\",state=\"out_of_service\"} 1";
        assert_eq!(Sample::of(text, Instant::now()).state_of("n1"), "out of service");
    }
}
