//! The name that a certificate gives its holder: `gcs://GROUP/NODE`, as a URI among its subject alternative names.
//!
//! A URI and no host name: a node keeps its name when its address changes, names of nodes may have characters that host names may
//! not have, and a certificate that some other service of the same authority was given for the same machine means nothing here.

use std::fmt;

use crate::config::is_name;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeName {
    pub group: String,
    pub node: String,
}

const SCHEME: &str = "gcs://";

impl NodeName {
    pub fn new(group: &str, node: &str) -> NodeName {
        NodeName { group: group.to_owned(), node: node.to_owned() }
    }

    /// `None` for a URI that is none of ours.
    pub fn parse(uri: &str) -> Option<NodeName> {
        let (group, node) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        (is_name(group) && is_name(node)).then(|| NodeName::new(group, node))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.group, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_a_group_and_a_node_and_nothing_else() {
        assert_eq!(NodeName::parse("gcs://g/n_1.x"), Some(NodeName::new("g", "n_1.x")));
        for other in
            ["gcs://g", "gcs://g/", "gcs:///n", "gcs://g/n/x", "gcs://g/n 1", "GCS://g/n", "https://g/n", "gcs://g/n?x", ""]
        {
            assert_eq!(NodeName::parse(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(group in "[a-zA-Z0-9_.-]{1,63}", node in "[a-zA-Z0-9_.-]{1,63}") {
            let name = NodeName::new(&group, &node);
            prop_assert_eq!(NodeName::parse(&name.to_string()), Some(name));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            let _ = NodeName::parse(&text);
        }
    }
}
