//! How much each system does and how fast: every load with every number of clients, system after system, round after round.

use std::error::Error;

use crate::measure::{Measured, measure};
use crate::settings::Settings;
use crate::systems::{System, Systems};

/// All that was measured, load by load and number of clients by number of clients. After each load `seen` is shown what there is.
pub fn run(
    systems: &Systems,
    settings: &Settings,
    mut seen: impl FnMut(&[Measured]) -> Result<(), Box<dyn Error>>,
) -> Result<Vec<Measured>, Box<dyn Error>> {
    let all = systems.all();
    let mut measured = Vec::new();
    for load in &settings.loads {
        let running: Vec<&System> = all.iter().filter(|system| system.kind.runs(load)).collect();
        for &clients in &settings.clients {
            let mut of_systems: Vec<Measured> =
                running.iter().map(|system| Measured::new(system.kind, load.name, clients)).collect();
            for round in 1..=settings.rounds {
                eprintln!("{}, {clients} clients, round {round} of {}", load.name, settings.rounds);
                for (system, measured) in running.iter().zip(&mut of_systems) {
                    let figures = measure(system, load, clients, settings.time(), systems.directory()).map_err(|error| {
                        format!("{} with {clients} clients on {}: {error}", load.name, system.kind.name())
                    })?;
                    measured.add(figures);
                }
            }
            measured.extend(of_systems);
        }
        seen(&measured)?;
    }
    Ok(measured)
}
