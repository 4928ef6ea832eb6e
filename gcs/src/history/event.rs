//! An event: one line of JSON in the file, on the local socket, and on the standard input of a hook.
//!
//! Fields are only ever added; whoever reads passes over what it does not know. A kind is one of a fixed list (docs/operations.md), the text is for people.

use serde::{Deserialize, Serialize};

use crate::introduction::clock_ms;
use crate::tls::moment::Moment;

/// Characters of a text. What is longer is cut.
const TEXT_CHARS_MAX: usize = 1_000;

/// What a person's command may say has happened: comparisons and repairs are made by PostgreSQL, and the daemon does not see them.
pub const TOLD_BY_COMMANDS: [&str; 3] = ["verified", "divergence", "repair"];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// One more than that of the event before, also across restarts of the daemon.
    pub number: u64,
    /// Milliseconds of Unix time, by the clock of this machine.
    pub at_ms: i64,
    pub group: String,
    /// Whose daemon saw it.
    pub node: String,
    #[serde(flatten)]
    pub happened: Happening,
}

/// What has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Happening {
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What it is now, and what it was, in the words of `gcs status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub was: Option<String>,
    pub text: String,
}

impl std::ops::Deref for Event {
    type Target = Happening;

    fn deref(&self) -> &Happening {
        &self.happened
    }
}

impl Happening {
    pub fn new(kind: &str, text: String) -> Happening {
        Happening { kind: kind.to_owned(), text, ..Happening::default() }
    }

    pub fn of_member(self, member: &str) -> Happening {
        Happening { member: Some(member.to_owned()), ..self }
    }

    pub fn of_database(self, database: &str) -> Happening {
        Happening { database: Some(database.to_owned()), ..self }
    }

    pub fn from_to(self, was: Option<&str>, state: &str) -> Happening {
        Happening { was: was.map(str::to_owned), state: Some(state.to_owned()), ..self }
    }
}

impl Event {
    pub fn new(number: u64, group: &str, node: &str, happened: Happening) -> Event {
        let text = happened.text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect();
        let happened = Happening { text, ..happened };
        Event { number, at_ms: clock_ms(), group: group.to_owned(), node: node.to_owned(), happened }
    }

    /// Without the end of the line.
    pub fn to_json(&self) -> String {
        // Strings and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For people: when, and what.
    pub fn line(&self) -> String {
        format!("{}  {}", Moment::new(self.at_ms.div_euclid(1_000)), self.text)
    }
}

/// The events of a text, a line each. A line that is none (cut off by a crash) is passed over.
pub fn parse_lines(text: &[u8]) -> impl Iterator<Item = Event> + '_ {
    text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_that_can_be_read_back_whatever_its_text() {
        let happening = Happening::new("member-state", "n2:\nunreachable\u{7}é".to_owned() + &"x".repeat(2_000));
        let event = Event::new(7, "g", "n1", happening.of_member("n2").from_to(Some("online"), "unreachable"));
        let json = event.to_json();
        assert!(!json.contains('\n') && json.contains("\"was\":\"online\""), "{json}");
        let text = format!("{{\"number\": 6, \"ki\n{json}\n");
        assert!(parse_lines(text.as_bytes()).eq([event.clone()]));
        assert_eq!(event.text.chars().count(), TEXT_CHARS_MAX);
        assert!(event.line().contains("UTC  n2: unreachable"), "{}", event.line());
    }
}
