//! Which tablespace of this node stands for which of another node.

/// Which tablespace a node has for one of another node, as written in its configuration: `theirs=ours, ...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Map(Vec<(String, String)>);

impl Map {
    /// What is not a pair of names says nothing.
    pub fn read(text: &str) -> Map {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        Map(pairs.map(|(theirs, ours)| (theirs.trim().to_owned(), ours.trim().to_owned())).collect())
    }

    /// The tablespace here for the one that is called `theirs` there, if the configuration names one.
    pub fn find(&self, theirs: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == theirs).map(|(_, ours)| ours.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Map;

    #[test]
    fn a_map_is_pairs_of_names() {
        let map = Map::read(" fast = nvme1,slow=disks, nonsense ,=");
        assert_eq!(map.find("fast"), Some("nvme1"));
        assert_eq!(map.find("slow"), Some("disks"));
        assert_eq!(map.find("nonsense"), None);
        assert_eq!(Map::read("").find("fast"), None);
    }
}
