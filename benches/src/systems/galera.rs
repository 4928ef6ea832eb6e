//! A Galera cluster on loopback. Each node has, beside the one for clients, ports for the group, for missing transactions and for copies of all files.

use std::error::Error;
use std::path::PathBuf;

use postgres_r_tests::harness::ports;

use super::mariadb::Mariadb;
use super::site::Site;
use crate::server::Server;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

pub const LIBRARY: &str = "/usr/lib/galera/libgalera_smm.so";
const STATE: &str = "SELECT variable_value FROM information_schema.global_status \
                     WHERE variable_name IN ('wsrep_local_state_comment', 'wsrep_cluster_size') ORDER BY variable_name";

/// The first founded it.
pub struct Galera {
    nodes: Vec<Mariadb>,
}

impl Galera {
    pub fn start(site: &Site, nodes: usize) -> Result<Galera> {
        let group_ports = ports::free(nodes);
        let mut galera = Galera { nodes: Vec::new() };
        for number in 1..=nodes {
            let mut settings = settings(number, &group_ports);
            if number == 1 {
                settings.push("--wsrep-new-cluster".to_owned());
            }
            let mut node = Mariadb::start(site, &format!("galera{number}"), &settings)?;
            let waited = node.wait_for(STATE, &format!("{number}\nSynced"));
            galera.nodes.push(node);
            waited?;
        }
        galera.nodes[0].make_database()?;
        Ok(galera)
    }

    pub fn servers(&self) -> Vec<Server> {
        self.nodes.iter().map(Mariadb::server).collect()
    }

    pub fn directories(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(Mariadb::data).collect()
    }

    /// Returns once each node has what was committed on any.
    pub fn settle(&self) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.execute("SET SESSION wsrep_sync_wait = 1; SELECT 1").map(drop))
    }
}

impl Drop for Galera {
    fn drop(&mut self) {
        // The founder last, so that a majority is there until the end.
        while self.nodes.pop().is_some() {}
    }
}

fn settings(number: usize, group_ports: &[u16]) -> Vec<String> {
    let peers: Vec<String> = group_ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let own = &peers[number - 1];
    let (missing, copies) = (ports::free_one(), ports::free_one());
    vec![
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
        "--wsrep-on=ON".to_owned(),
        format!("--wsrep-provider={LIBRARY}"),
        "--wsrep-cluster-name=bench".to_owned(),
        format!("--wsrep-cluster-address=gcomm://{}", peers.join(",")),
        format!("--wsrep-node-name=galera{number}"),
        format!("--wsrep-node-address={own}"),
        "--wsrep-sst-method=rsync".to_owned(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{copies}"),
        "--wsrep-slave-threads=4".to_owned(),
        format!("--wsrep-provider-options=gmcast.listen_addr=tcp://{own};ist.recv_addr=127.0.0.1:{missing}"),
    ]
}
