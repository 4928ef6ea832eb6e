//! The group, as the daemon of this node knows it: the majority, the members, their clocks, how far each is, and whether the databases are the same.

use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, not_known};
use crate::examined::{Examination, Member};
use crate::tls::Moment;

/// Clocks may be so far apart.
const CLOCK_MS_MAX: i64 = 60_000;

/// Positions behind from which on it is long until a node is back.
const LAG_CRITICAL: u64 = 10_000;

pub fn majority(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.examination() else { return not_known("majority", &facts.here.node) };
    let reached = found.members.iter().filter(|member| member.is_connected).count();
    let of = format!("{reached} of {} members are in touch", found.members.len());
    vec![if !found.quorum {
        let remedy = "bring members back: start gcs there, mend the network; if a majority is lost for good: gcs recover";
        Finding::critical(
            "majority",
            &found.group,
            format!("no majority can be reached: {of}; writes are refused here"),
            remedy,
        )
    } else if let Some(leader) = &found.leader {
        Finding::ok("majority", &found.group, format!("{of}, \"{leader}\" leads"))
    } else {
        let remedy = "look again in some seconds; if it stays so, look at the logs of all daemons";
        Finding::warning("majority", &found.group, format!("{of}, but nobody leads"), remedy)
    }]
}

pub fn members(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.examination() else { return not_known("members", &facts.here.node) };
    let not_well: Vec<Finding> = found.members.iter().filter_map(of_member).collect();
    if !not_well.is_empty() {
        return not_well;
    }
    vec![Finding::ok("members", &found.group, format!("all {} are there", found.members.len()))]
}

fn of_member(member: &Member) -> Option<Finding> {
    let Member { name, address, state, .. } = member;
    Some(match state.as_str() {
        "unreachable" => {
            let remedy =
                format!("on {name}: systemctl start gcs; or mend the network to {address}; lost for good: gcs evict {name}");
            Finding::warning("members", name, format!("its daemon cannot be reached at {address}"), remedy)
        }
        "detached" => {
            let remedy = format!("on {name}: start PostgreSQL, and ask gcs doctor there");
            Finding::warning("members", name, "its daemon runs, but no PostgreSQL has attached", remedy)
        }
        "draining" => {
            let remedy = format!("when the work on it is done: gcs drain {name} --cancel, or restart it");
            Finding::warning("members", name, "is being drained: clients are sent elsewhere", remedy)
        }
        "copying" => Finding::warning("members", name, "gets a copy", "wait; gcs status says how far it is"),
        _ => return None,
    })
}

pub fn lag(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.examination() else { return not_known("lag", &facts.here.node) };
    let late: Vec<Finding> = found.members.iter().filter_map(of_lag).collect();
    if late.is_empty() {
        return vec![Finding::ok("lag", &found.group, "every member that is there shows what had been ordered")];
    }
    late
}

fn of_lag(member: &Member) -> Option<Finding> {
    let Member { name, lag, not_shown, .. } = member;
    if !member.is_connected || not_shown.is_empty() {
        return None;
    }
    let databases = not_shown.join(", ");
    let message =
        format!("has not shown within a second what had been ordered, in {databases}; it is {lag} positions behind");
    let remedy = format!(
        "on {name}: look for what holds its remote backends up (pg_stat_activity, postgres_r.large_transactions), at its processors and its disk"
    );
    let far = *lag >= LAG_CRITICAL;
    Some(if far { Finding::critical("lag", name, message, remedy) } else { Finding::warning("lag", name, message, remedy) })
}

/// Compared with what most say; of two nodes nobody knows which is right.
pub fn clock(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.examination() else { return not_known("clock", &facts.here.node) };
    let known: Vec<(&Member, i64)> =
        found.members.iter().filter_map(|member| Some((member, member.clock_ahead_ms?))).collect();
    if known.len() < 2 {
        return vec![Finding::ok("clock", &found.group, "no other daemon is there to be compared with")];
    }
    let usual = usual(known.iter().map(|(_, ahead)| *ahead).collect());
    let off: Vec<Finding> = known.iter().filter_map(|(member, ahead)| of_clock(member, *ahead, usual)).collect();
    if !off.is_empty() {
        return off;
    }
    let furthest = known.iter().map(|(_, ahead)| ahead.saturating_sub(usual).abs()).max().unwrap_or(0);
    vec![Finding::ok("clock", &found.group, format!("the clocks of {} members are within {furthest} ms", known.len()))]
}

fn usual(mut ahead: Vec<i64>) -> i64 {
    if ahead.len() < 3 {
        return 0;
    }
    ahead.sort_unstable();
    ahead[ahead.len() / 2]
}

fn of_clock(member: &Member, ahead_ms: i64, usual: i64) -> Option<Finding> {
    let off = ahead_ms.saturating_sub(usual);
    if off.saturating_abs() - member.clock_error_ms < CLOCK_MS_MAX {
        return None;
    }
    let (seconds, way) = (off.saturating_abs() / 1_000, if off > 0 { "ahead of" } else { "behind" });
    let name = &member.name;
    let message = format!("its daemon's clock is {seconds} s {way} the others'");
    Some(Finding::warning("clock", name, message, format!("on {name}: chronyc makestep, or timedatectl set-ntp true")))
}

/// Databases that hold something else than the group's: what could not be applied here, and what the last verification found.
pub fn divergence(facts: &Facts) -> Vec<Finding> {
    let mut found: Vec<Finding> = facts.examination().map(cannot_apply).unwrap_or_default();
    for verification in facts.verifications.iter().filter(|verification| verification.unequal > 0) {
        let at = Moment::new(verification.at);
        let more = verification.unequal.saturating_sub(verification.first.len());
        for unequal in &verification.first {
            let (table, node, database) = (&unequal.table, &unequal.node, &verification.database);
            let message =
                format!("table {table} of database \"{database}\" is {}, by the verification of {at}", unequal.verdict);
            let remedy = format!("on a node that is equal: gcs repair {node} {table} --database {database} --config FILE");
            found.push(if unequal.verdict == "not known" {
                Finding::warning(
                    "divergence",
                    node,
                    message,
                    format!("gcs verify {database} --config {}", facts.here.config_file),
                )
            } else {
                Finding::critical("divergence", node, message, remedy)
            });
        }
        if more > 0 {
            let message = format!("{more} more findings of the verification of {at} are not \"equal\"");
            let remedy = format!("gcs verify {} --config {}", verification.database, facts.here.config_file);
            found.push(Finding::critical("divergence", &verification.database, message, remedy));
        }
    }
    if !found.is_empty() {
        return found;
    }
    if facts.examination().is_none() {
        return not_known("divergence", &facts.here.node);
    }
    let last = facts.verifications.iter().map(|verification| Moment::new(verification.at)).max();
    let message = match last {
        Some(last) => format!("everything could be applied; the last verification, of {last}, found all equal"),
        None => "everything could be applied; nobody has compared the nodes yet (gcs verify)".to_owned(),
    };
    vec![Finding::ok("divergence", &facts.here.node, message)]
}

fn cannot_apply(examination: &Examination) -> Vec<Finding> {
    let different = examination.databases.iter().filter_map(|database| {
        let (position, name) = (database.cannot_apply?, &database.name);
        let message = format!("database \"{name}\" could not apply position {position} in its turn: it holds something else than the group");
        let remedy = format!(
            "it is copied anew by itself (postgres_r.auto_rebuild) where most members have applied it; else, in {name}: ALTER DATABASE {name} STOP REPLICATION, \
             then START REPLICATION IN GROUP {} WITH (OVERWRITE)",
            examination.group
        );
        Some(Finding::critical("divergence", &examination.node, message, remedy))
    });
    different.collect()
}

/// Whether the databases of this node, and of others as a whole, serve.
pub fn service(facts: &Facts) -> Vec<Finding> {
    let Some(found) = facts.examination() else { return not_known("service", &facts.here.node) };
    let mut out = Vec::new();
    for database in found.databases.iter().filter(|database| !matches!(database.service.as_str(), "serving" | "absent")) {
        let reason = facts.asked().and_then(|asked| asked.failures.iter().find(|failure| failure.database == database.name));
        let message = match reason {
            Some(failure) => {
                let (position, reason, code) = (failure.position, &failure.reason, &failure.sqlstate);
                format!("database \"{}\" is {}: position {position}: {reason} ({code})", database.name, database.service)
            }
            None => format!("database \"{}\" is {}", database.name, database.service),
        };
        let remedy = "see \"A node that is out of service\" in docs/operations.md; the reason stands in PostgreSQL's log";
        out.push(match database.service.as_str() {
            "out of service" => Finding::critical("service", &found.node, message, remedy),
            _ => Finding::warning("service", &found.node, message, remedy),
        });
    }
    for member in found.members.iter().filter(|member| !member.is_self && member.state == "out of service") {
        let remedy = format!("on {}: gcs doctor", member.name);
        out.push(Finding::critical("service", &member.name, "a database of it is out of service", remedy));
    }
    if out.is_empty() {
        out.push(Finding::ok("service", &found.node, "every database that is replicated here serves"));
    }
    out
}
