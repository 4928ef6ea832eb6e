//! What is answered to those who ask whether to send work here: functions of a snapshot, and of nothing else.
//!
//! | question | yes means, when it was answered |
//! |---|---|
//! | ready | clients of the databases here are let in, and (with a lag) no more positions were missing than that |
//! | writable | besides, a commit could be had: a majority was in touch, and this node takes writes |
//! | synced | everything that anybody had been told before the question is visible here |
//!
//! Without a database it is about all of those that this node takes part in, and there must be one.

use super::snapshot::{Database, Service, Snapshot};

/// What cannot be so, in words.
pub type Verdict = Result<(), String>;

/// Clients can read here.
pub fn ready(snapshot: &Snapshot, database: Option<&str>, lag: Option<u64>) -> Verdict {
    for seen in serving(snapshot, database)? {
        let Some(lag) = lag else { continue };
        let behind = behind(seen)?;
        if behind > lag {
            return Err(format!("database \"{}\" is {behind} positions behind", seen.name));
        }
    }
    Ok(())
}

/// A commit could be had here.
pub fn writable(snapshot: &Snapshot, database: Option<&str>) -> Verdict {
    serving(snapshot, database)?;
    if !snapshot.kind.takes_writes() {
        return Err("the node is query-only: it takes no writes".to_owned());
    }
    if !snapshot.status.quorum {
        return Err("no majority of the group can be reached".to_owned());
    }
    Ok(())
}

/// Everything that the group had ordered is visible here.
pub fn synced(snapshot: &Snapshot, database: Option<&str>) -> Verdict {
    ready(snapshot, database, Some(0))
}

fn behind(seen: &Database) -> Result<u64, String> {
    let unknown = || format!("how far database \"{}\" is behind is not known: the group does not answer in time", seen.name);
    let of_group = seen.of_group.ok_or_else(unknown)?;
    Ok(of_group.0.saturating_sub(seen.applied.0))
}

/// The databases that are asked about, each of which lets clients in.
fn serving<'a>(snapshot: &'a Snapshot, database: Option<&str>) -> Result<Vec<&'a Database>, String> {
    if let Some(why) = &snapshot.removed {
        return Err(why.clone());
    }
    if !snapshot.kind.has_databases() {
        return Err("the node is a witness: it has no databases".to_owned());
    }
    if snapshot.is_draining {
        return Err("the node is being drained".to_owned());
    }
    let is_here = |seen: &&Database| seen.service != Service::Absent;
    let asked = |seen: &&Database| database.is_none_or(|database| database == seen.name);
    let found: Vec<&Database> = snapshot.databases.iter().filter(is_here).filter(asked).collect();
    match (found.is_empty(), database) {
        (true, Some(database)) => return Err(format!("database \"{database}\" is not replicated on this node")),
        (true, None) => return Err("no database is replicated on this node".to_owned()),
        _ => {}
    }
    for seen in &found {
        let what = match seen.service {
            Service::Serving => continue,
            Service::Absent => "is not replicated on this node",
            Service::Detached => "is not attached: its PostgreSQL is not connected",
            Service::Attaching => "is attaching",
            Service::OutOfService => "is out of service",
            Service::CatchingUp => "is catching up",
        };
        return Err(format!("database \"{}\" {what}", seen.name));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use gcs_writeset::link::GroupStatus;
    use gcs_writeset::{NodeId, NodeKind, Position};

    use super::*;

    fn good() -> Snapshot {
        let database = Database {
            name: "shop".to_owned(),
            service: Service::Serving,
            ordered: Position(9),
            of_group: Some(Position(9)),
            applied: Position(7),
            ..Database::default()
        };
        let status = GroupStatus { quorum: true, leader: Some(NodeId(1)), term: 1, members: Vec::new() };
        Snapshot { databases: vec![database], status, ..Snapshot::default() }
    }

    fn with(change: impl FnOnce(&mut Snapshot)) -> Snapshot {
        let mut snapshot = good();
        change(&mut snapshot);
        snapshot
    }

    fn reason(verdict: Verdict) -> String {
        verdict.unwrap_err()
    }

    #[test]
    fn a_node_that_serves_is_ready_within_its_lag() {
        assert_eq!(ready(&good(), None, None), Ok(()));
        assert_eq!(ready(&good(), Some("shop"), Some(2)), Ok(()));
        assert_eq!(reason(ready(&good(), None, Some(1))), "database \"shop\" is 2 positions behind");
        assert!(reason(synced(&good(), None)).contains("2 positions"));
        assert_eq!(synced(&with(|it| it.databases[0].applied = Position(9)), None), Ok(()));
        assert!(reason(ready(&good(), Some("bank"), None)).contains("not replicated"));
    }

    #[test]
    fn what_the_group_does_not_say_is_not_claimed() {
        let deaf = with(|it| (it.databases[0].of_group, it.databases[0].applied) = (None, Position(9)));
        assert_eq!(ready(&deaf, None, None), Ok(()));
        assert!(reason(ready(&deaf, None, Some(1_000))).contains("not known"));
        assert!(reason(synced(&deaf, None)).contains("not known"));
    }

    #[test]
    fn without_a_majority_it_reads_and_does_not_write() {
        let cut_off = with(|it| it.status.quorum = false);
        assert_eq!(ready(&cut_off, None, None), Ok(()));
        assert!(reason(writable(&cut_off, None)).contains("majority"));
        assert_eq!(writable(&good(), None), Ok(()));
        assert_eq!(writable(&with(|it| it.status.leader = None), None), Ok(()), "a commit waits for the next leader");
    }

    #[test]
    fn who_sends_clients_away_is_neither_ready_nor_writable() {
        let away: [fn(&mut Snapshot); 7] = [
            |it| it.is_draining = true,
            |it| it.removed = Some("removed".to_owned()),
            |it| it.kind = NodeKind::Witness,
            |it| it.databases.clear(),
            |it| it.databases[0].service = Service::Detached,
            |it| it.databases[0].service = Service::OutOfService,
            |it| it.databases.push(Database { service: Service::CatchingUp, ..Database::default() }),
        ];
        for change in away {
            let snapshot = with(change);
            assert!(ready(&snapshot, None, None).is_err(), "{snapshot:?}");
            assert!(writable(&snapshot, None).is_err() && synced(&snapshot, None).is_err());
        }
        let query_only = with(|it| it.kind = NodeKind::QueryOnly);
        assert_eq!(ready(&query_only, None, None), Ok(()));
        assert!(reason(writable(&query_only, None)).contains("query-only"));
        let other = with(|it| it.databases.push(Database { name: "new".to_owned(), ..Database::default() }));
        assert_eq!(ready(&other, None, None), Ok(()), "what was never here is not missed");
    }
}
