//! The names of what is compared, and which program's loads each can run.

use crate::load::{Load, Tool};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One PostgreSQL.
    Plain,
    /// The same server, whose clients do not wait for the disk.
    Async,
    /// Two physical standbys; both have applied a transaction before it is acknowledged.
    Standbys,
    /// The same servers; one of the standbys has a transaction on its disk before it is acknowledged.
    Any1,
    /// A group of three, its clients on one node.
    Group,
    /// The same group, its clients spread over all nodes.
    Spread,
    /// One MariaDB.
    Mariadb,
    /// A Galera cluster of three, its clients on one node.
    Galera,
    /// The same cluster, its clients spread over all nodes.
    GaleraSpread,
}

pub const KINDS: [Kind; 9] = [
    Kind::Plain,
    Kind::Async,
    Kind::Standbys,
    Kind::Any1,
    Kind::Group,
    Kind::Spread,
    Kind::Mariadb,
    Kind::Galera,
    Kind::GaleraSpread,
];

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Async => "async",
            Kind::Standbys => "standbys",
            Kind::Any1 => "any1",
            Kind::Group => "group",
            Kind::Spread => "spread",
            Kind::Mariadb => "mariadb",
            Kind::Galera => "galera",
            Kind::GaleraSpread => "galera-spread",
        }
    }

    /// What its figures are compared with: one server of its own sort.
    pub fn reference(self) -> Kind {
        if self.is_mariadb() { Kind::Mariadb } else { Kind::Plain }
    }

    pub fn is_mariadb(self) -> bool {
        matches!(self, Kind::Mariadb | Kind::Galera | Kind::GaleraSpread)
    }

    /// pgbench knows PostgreSQL only.
    pub fn runs(self, load: &Load) -> bool {
        !self.is_mariadb() || load.tool == Tool::Sysbench
    }

    /// All of them, or those that `names` picks. An unknown name is an error.
    pub fn pick(names: Option<&str>) -> Result<Vec<Kind>, String> {
        let Some(names) = names else { return Ok(KINDS.to_vec()) };
        let find =
            |name| KINDS.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("there is no system {name}"));
        names.split_whitespace().map(find).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_picked_by_name_and_have_a_reference_of_their_own_sort() {
        assert_eq!(Kind::pick(None).unwrap().len(), KINDS.len());
        assert_eq!(Kind::pick(Some("galera spread")), Ok(vec![Kind::Galera, Kind::Spread]));
        assert_eq!(Kind::pick(Some("oracle")), Err("there is no system oracle".to_owned()));
        assert_eq!(Kind::GaleraSpread.reference(), Kind::Mariadb);
        assert_eq!(Kind::Spread.reference(), Kind::Plain);
    }

    #[test]
    fn mariadb_runs_only_loads_of_sysbench() {
        let loads = Load::pick(Some("tpcb-like oltp_write_only")).unwrap();
        assert_eq!(loads.iter().map(|load| Kind::Galera.runs(load)).collect::<Vec<_>>(), [false, true]);
        assert!(loads.iter().all(|load| Kind::Group.runs(load)));
    }
}
