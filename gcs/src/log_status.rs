//! What `gcs status` says of the log: for how long a node can be away, and in which format it is written.

use bytesize::ByteSize;
use gcs_writeset::link::LogStatus;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub struct LogJson {
    bytes_kept: u64,
    bytes_max: u64,
    bytes_left: u64,
    bytes_per_second: u64,
    /// Until the oldest end goes, if as much is written as in the last minutes; none if nothing is.
    seconds_left: Option<u64>,
}

impl LogJson {
    pub fn of(log: &LogStatus) -> LogJson {
        let LogStatus { bytes_kept, bytes_max, bytes_a_second, .. } = *log;
        let bytes_left = bytes_max.saturating_sub(bytes_kept);
        let seconds_left = bytes_left.checked_div(bytes_a_second);
        LogJson { bytes_kept, bytes_max, bytes_left, bytes_per_second: bytes_a_second, seconds_left }
    }
}

pub fn line(log: &LogStatus) -> String {
    let of = LogJson::of(log);
    let size = |bytes| ByteSize(bytes).display().si().to_string();
    let kept = format!("log {} of {}", size(of.bytes_kept), size(of.bytes_max));
    match of.seconds_left {
        None => format!("{kept}, nothing is written\n"),
        Some(left) => {
            let pace = size(of.bytes_per_second);
            format!("{kept}, {pace}/s are written: a node can be away for {}\n", duration(left))
        }
    }
}

/// The format of the group, and why it is not a newer one.
#[derive(Debug, Serialize)]
pub struct FormatJson<'a> {
    written: u16,
    /// By this node.
    read: u16,
    waits_for: &'a [String],
}

impl FormatJson<'_> {
    pub fn of(log: &LogStatus) -> FormatJson<'_> {
        FormatJson { written: log.format, read: log.reads, waits_for: &log.waits_for }
    }
}

pub fn format_line(log: &LogStatus) -> String {
    let LogStatus { format, reads, waits_for, .. } = log;
    match (format == reads, waits_for.is_empty()) {
        (true, _) => format!("format {format}\n"),
        (false, true) => format!("format {format}, soon {reads}\n"),
        (false, false) => format!("format {format}: {reads} as soon as {} can read it\n", waits_for.join(", ")),
    }
}

/// In the two largest units, which is all that an estimate is good for.
fn duration(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let first = units.iter().position(|(_, length)| seconds >= *length).unwrap_or(units.len() - 1);
    let mut left = seconds;
    let mut parts = Vec::new();
    for (name, length) in units.into_iter().skip(first).take(2) {
        parts.push(format!("{} {name}", left / length));
        left %= length;
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_in_bytes_and_in_time() {
        let log = |bytes_a_second| LogStatus {
            bytes_kept: 1_000_000_000,
            bytes_max: 16_000_000_000,
            bytes_a_second,
            ..LogStatus::default()
        };
        assert_eq!(line(&log(0)), "log 1.0 GB of 16.0 GB, nothing is written\n");
        assert_eq!(line(&log(2_000_000)), "log 1.0 GB of 16.0 GB, 2.0 MB/s are written: a node can be away for 2 h 5 min\n");
        assert_eq!(duration(59), "59 s");
        assert_eq!(duration(200_000), "2 d 7 h");
    }
}
