//! What throughput does not show: pauses that others feel, what comes after a failure, single large jobs, and how costs grow.
//!
//! Each event is a function that is given a [`bed::Bed`] (a group of three, and one plain server beside it) and returns [`Figure`]s. They run one
//! after the other, on a machine where nothing else runs. [`bystanders`] are clients that commit a row again and again while something else happens;
//! most events are told by their pauses.

pub mod bed;
pub mod bulk;
pub mod bystanders;
pub mod catchup;
pub mod failover;
pub mod figure;
pub mod growth;
pub mod large;
pub mod levels;
pub mod profile;
pub mod sizes;
pub mod slow_links;
pub mod steady;
pub mod studies;
pub mod tables;

use bed::Bed;
pub use figure::{Extent, Figure, Result};

/// Something that can happen, by its name.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub name: &'static str,
    run: fn(&mut Bed, Extent) -> Result<Vec<Figure>>,
}

/// In the order in which they run.
const EVENTS: [Event; 12] = [
    Event { name: "sizes", run: sizes::run },
    Event { name: "levels", run: levels::run },
    Event { name: "bulk", run: bulk::run },
    Event { name: "large", run: large::run },
    Event { name: "catchup", run: catchup::run },
    Event { name: "failover", run: failover::run },
    Event { name: "profile", run: profile::run },
    Event { name: "steady", run: steady::run },
    Event { name: "growth", run: growth::run },
    Event { name: "rows", run: studies::rows },
    Event { name: "hundred", run: studies::hundred },
    Event { name: "slow-links", run: slow_links::run },
];

/// All events, or those that are named. An unknown name is an error.
pub fn pick(names: Option<&str>) -> std::result::Result<Vec<Event>, String> {
    let Some(names) = names else { return Ok(EVENTS.to_vec()) };
    let find = |name: &str| {
        let known: Vec<&str> = EVENTS.iter().map(|event| event.name).collect();
        let found = EVENTS.into_iter().find(|event| event.name == name);
        found.ok_or_else(|| format!("there is no event {name}; there are {}", known.join(", ")))
    };
    names.split_whitespace().map(find).collect()
}

/// What one could not measure is said in `left_out`, and the others go on; a group that breaks (the harness panics) ends them all. After each of them `seen` is shown what there is.
///
/// # Errors
/// No group to begin with, or what `seen` returns.
pub fn run(
    events: &[Event],
    extent: Extent,
    left_out: &mut Vec<String>,
    mut seen: impl FnMut(&[Figure]) -> Result<()>,
) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    if events.is_empty() {
        return Ok(figures);
    }
    let mut bed = Bed::start()?;
    for event in events {
        eprintln!("event {}", event.name);
        match (event.run)(&mut bed, extent) {
            Ok(of_event) => figures.extend(of_event.into_iter().map(|figure| Figure { event: event.name, ..figure })),
            Err(error) => {
                eprintln!("event {}: {error}", event.name);
                left_out.push(format!("event {}: {error}", event.name));
            }
        }
        seen(&figures)?;
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_picked_by_name() {
        assert_eq!(pick(None).unwrap().len(), EVENTS.len());
        assert_eq!(pick(Some("")).unwrap().len(), 0);
        assert_eq!(
            pick(Some("bulk steady")).unwrap().iter().map(|event| event.name).collect::<Vec<_>>(),
            ["bulk", "steady"]
        );
        assert!(pick(Some("nothing")).unwrap_err().contains("failover"));
    }
}
