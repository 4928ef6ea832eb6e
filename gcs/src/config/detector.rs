//! `[detector]` in the configuration: how soon a silent member is suspected.
//!
//! A profile gives all of it; each part can be set by itself. Times are whole ticks of the core's clock.

use std::time::Duration;

use gcs_core::Detector;
use serde::Deserialize;

use crate::bounds::TICK;

/// A leader may speak so often and so rarely.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 100..=5_000;
const ELECTION_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 600..=60_000;
/// So many heartbeats in a row may be lost before anybody stands for election.
const HEARTBEATS_MIN: u64 = 4;

/// The table as it stands in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    #[serde(default)]
    profile: Profile,
    heartbeat_ms: Option<u64>,
    election_timeout_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Profile {
    #[default]
    Lan,
    Wan,
}

/// Keys of the table, for the hint about an unknown one.
pub(super) const KEYS: [&str; 4] = ["detector", "profile", "heartbeat_ms", "election_timeout_ms"];

impl Table {
    pub(super) fn resolve(&self) -> Result<Detector, String> {
        let profile = match self.profile {
            Profile::Lan => Detector::LAN,
            Profile::Wan => Detector::WAN,
        };
        let heartbeat = ticks("heartbeat_ms", self.heartbeat_ms, HEARTBEAT_MS)?;
        let election = ticks("election_timeout_ms", self.election_timeout_ms, ELECTION_TIMEOUT_MS)?;
        let heartbeat_ticks = heartbeat.unwrap_or(profile.heartbeat_ticks);
        let election_ticks = election.unwrap_or(profile.election_ticks);
        if election_ticks < HEARTBEATS_MIN * heartbeat_ticks {
            let tick_ms = TICK.as_millis() as u64;
            let (heartbeat, election) = (heartbeat_ticks * tick_ms, election_ticks * tick_ms);
            return Err(format!(
                "detector.election_timeout_ms is {election}, but must be at least {HEARTBEATS_MIN} times heartbeat_ms ({heartbeat})"
            ));
        }
        Ok(Detector { heartbeat_ticks, election_ticks })
    }
}

fn ticks(key: &str, ms: Option<u64>, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, String> {
    let tick_ms = TICK.as_millis() as u64;
    let Some(ms) = ms else { return Ok(None) };
    if !range.contains(&ms) || ms % tick_ms != 0 {
        let (least, most) = range.into_inner();
        return Err(format!("detector.{key} is {ms}, but must be a multiple of {tick_ms} from {least} to {most}"));
    }
    Ok(Some(ms / tick_ms))
}

/// After so long without a word from a peer its connections are dropped.
pub fn peer_silence_max(detector: Detector) -> Duration {
    TICK * u32::try_from(detector.quorum_ticks_max()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Detector, String> {
        toml::from_str::<Table>(text).map_err(|error| error.message().to_owned())?.resolve()
    }

    #[test]
    fn a_profile_is_a_beginning_and_each_part_can_be_set() {
        assert_eq!(of(""), Ok(Detector::LAN));
        assert_eq!(of("profile = \"wan\""), Ok(Detector::WAN));
        let set = of("profile = \"wan\"\nelection_timeout_ms = 10000");
        assert_eq!(set, Ok(Detector { heartbeat_ticks: 5, election_ticks: 100 }));
        assert_eq!(peer_silence_max(Detector::LAN), Duration::from_millis(1_500));
        assert_eq!(peer_silence_max(Detector::WAN), Duration::from_millis(7_900));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, expected) in [
            ("heartbeat_ms = 150", "multiple of 100 from 100 to 5000"),
            ("heartbeat_ms = 0", "multiple of 100"),
            ("election_timeout_ms = 90000", "from 600 to 60000"),
            ("heartbeat_ms = 300", "must be at least 4 times heartbeat_ms (300)"),
            ("profile = \"man\"", "unknown variant"),
            ("timeout = 1", "unknown field"),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
