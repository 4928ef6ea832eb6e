//! The configuration file that `gcs init` and `gcs join` write: the only place that writes one for people to go on with.

use std::path::Path;

use gcs_writeset::NodeKind;

/// What a new node's file says.
#[derive(Clone, Debug)]
pub struct Written<'a> {
    /// The command that writes it.
    pub by: &'a str,
    pub name: &'a str,
    pub group: &'a str,
    pub data_directory: &'a Path,
    pub local_socket: &'a Path,
    pub peer_address: &'a str,
    pub kind: NodeKind,
    /// Where to ask to be added to a group that is there; empty for the first node.
    pub join: &'a [String],
    pub ca_file: &'a Path,
    pub certificate_file: &'a Path,
    pub key_file: &'a Path,
    /// Where a copy of another member's server is to be, and how it is started.
    pub postgresql: Option<(&'a Path, &'a [String])>,
    /// On the node that signs.
    pub ca_key_file: Option<&'a Path>,
}

impl Written<'_> {
    pub fn text(&self) -> String {
        let mut text = format!("# Written by {}. docs/operations.md has every key.\n", self.by);
        let mut line = |key: &str, value: &str| text += &format!("{key} = {}\n", quote(value));
        line("name", self.name);
        line("group", self.group);
        line("data_directory", &self.data_directory.display().to_string());
        line("local_socket", &self.local_socket.display().to_string());
        line("peer_address", self.peer_address);
        if self.kind != NodeKind::Full {
            line("role", self.kind.name());
        }
        if !self.join.is_empty() {
            let addresses: Vec<String> = self.join.iter().map(|address| quote(address)).collect();
            text += &format!("join = [{}]\n", addresses.join(", "));
        }
        if let Some((directory, start)) = self.postgresql {
            text += &format!("\n[postgresql]\ndata_directory = {}\n", quote(&directory.display().to_string()));
            if !start.is_empty() {
                let words: Vec<String> = start.iter().map(|word| quote(word)).collect();
                text += &format!("start = [{}]\n", words.join(", "));
            }
        }
        text += "\n[tls]\n";
        let files = [("ca_file", self.ca_file), ("certificate_file", self.certificate_file), ("key_file", self.key_file)];
        for (key, path) in files.into_iter().chain(self.ca_key_file.map(|path| ("ca_key_file", path))) {
            text += &format!("{key} = {}\n", quote(&path.display().to_string()));
        }
        text
    }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
