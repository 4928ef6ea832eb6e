//! What `gcs recover` says: what this node has, what becomes of it, and what may be lost.

use std::fmt;

use gcs_core::Member;
use gcs_core::remains::{Remainder, Remains};
use gcs_writeset::link::MemberRole;

use crate::config::Config;
use crate::tls::Moment;

pub struct Report<'a> {
    pub config: &'a Config,
    pub found: &'a Remains,
    /// When the log was last written to.
    pub written: Option<Moment>,
    pub now: Moment,
}

/// 2000-01-01, with which PostgreSQL's times begin.
const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { config, found, written, now } = self;
        writeln!(
            f,
            "node \"{}\" of group \"{}\", data directory \"{}\"",
            config.name,
            config.group,
            config.data_directory.display()
        )?;
        writeln!(f, "  log ends at      term {}, index {}", found.last_term, found.last.0)?;
        let undecided = found.last.0.saturating_sub(found.committed.0);
        writeln!(
            f,
            "  known committed  at least up to index {}; the {undecided} behind it will count too",
            found.committed.0
        )?;
        match written {
            Some(written) => writeln!(f, "  last written     {written}, {} before now", Span(now.seconds_since(*written)))?,
            None => writeln!(f, "  last written     not known")?,
        }
        writeln!(f, "databases, by the last position that this node has:")?;
        for database in &found.databases {
            self.database(f, database)?;
        }
        if found.databases.is_empty() {
            writeln!(f, "  none")?;
        }
        let (stays, go): (Vec<&Member>, Vec<&Member>) =
            found.membership.members.iter().partition(|member| member.node == found.node);
        writeln!(f, "members that go:")?;
        for member in go {
            writeln!(f, "  {:<20} {:<24} {}", member.name, member.address, member.role.name(member.kind))?;
        }
        if stays.iter().any(|member| member.role == MemberRole::Learner) {
            writeln!(
                f,
                "note: this node has no vote yet. It may have been given less than a voter, and its PostgreSQL may not be whole."
            )?;
        }
        f.write_str(WHAT_IT_MEANS)
    }
}

const WHAT_IT_MEANS: &str = "\
kept: what this node told its clients.
may be lost: whatever the members that go committed without this node, which is anything that they acknowledged after the end of this log.
  What stands in this log and was not known to be committed counts from now on.
compare: type this on every node whose data directory is left, and go on with the one that has the highest term, and of the same term
  the highest index. Go on with one only.
afterwards: the members that go must never run with their data directories while this node is not running, or a majority of them goes on
  without it. Remove the directories; the names may join again.
";

impl Report<'_> {
    fn database(&self, f: &mut fmt::Formatter<'_>, database: &Remainder) -> fmt::Result {
        let Remainder { name, head, dated, ends } = database;
        write!(f, "  {name:<16} position {head}, ")?;
        match dated.and_then(|(position, at)| Some((position, from_postgres(at)?))) {
            Some((position, at)) => {
                let ago = Span(self.now.seconds_since(at));
                write!(f, "COMMIT of {position} at {at} by the clock of its node, {ago} before now")?;
            }
            None => write!(f, "whose time is not in the log")?,
        }
        if *ends {
            write!(f, "; this node takes no part in it: it ends")?;
        }
        writeln!(f)
    }
}

fn from_postgres(microseconds: i64) -> Option<Moment> {
    microseconds.div_euclid(1_000_000).checked_add(POSTGRES_EPOCH_UNIX_SECONDS).map(Moment::new)
}

/// Seconds, as people say them.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ ..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_postgresql_are_moments_and_spans_are_said_in_one_unit() {
        let said = from_postgres(817_632_161_999_999).map(|moment| moment.to_string());
        assert_eq!(said.as_deref(), Some("2025-11-28 08:02:41 UTC"));
        assert_eq!(from_postgres(i64::MAX).map(|moment| moment.to_string().is_empty()), Some(false));
        let spans = [-3, 119, 120, 7_199, 7_200, 172_800].map(|seconds| Span(seconds).to_string());
        assert_eq!(spans, ["-3 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
