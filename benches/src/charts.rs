//! The plots of a run: throughput by clients for each load, processor time by nodes, time by the size of a transaction.

use crate::events::Figure;
use crate::goals::Run;
use crate::measure::Measured;
use crate::plots::{Bars, Chart, Error, Line, bar_chart, line_chart};

/// Of the overview.
const CLIENTS: u32 = 32;

/// Names of files, and what they hold.
pub fn all(run: Run<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut loads: Vec<&str> = run.measured.iter().map(|one| one.load).collect();
    loads.dedup();
    let mut charts: Vec<(String, Chart)> =
        loads.into_iter().map(|load| (format!("{load}.svg"), throughput(load, run.measured))).collect();
    charts.extend(nodes(run.figures).map(|chart| ("nodes.svg".to_owned(), chart)));
    charts.extend(sizes(run.figures).map(|chart| ("sizes.svg".to_owned(), chart)));
    let mut drawn: Vec<(String, String)> =
        charts.into_iter().map(|(name, chart)| Ok((name, line_chart(&chart)?))).collect::<Result<_, Error>>()?;
    if let Some(bars) = overview(run.measured) {
        drawn.push(("overview.svg".to_owned(), bar_chart(&bars)?));
    }
    Ok(drawn)
}

/// Of each load, every replicated system's throughput to that of one server of its sort. None if that number of clients was not measured.
fn overview(measured: &[Measured]) -> Option<Bars> {
    let with_clients: Vec<&Measured> = measured.iter().filter(|one| one.clients == CLIENTS).collect();
    let mut groups: Vec<(String, Vec<(String, f64)>)> = Vec::new();
    for one in with_clients.iter().filter(|one| one.system != one.reference) {
        let is_reference = |other: &&&Measured| other.load == one.load && other.system == one.reference;
        let Some(reference) = with_clients.iter().find(is_reference).filter(|other| other.medians.tps > 0.0) else {
            continue;
        };
        let bar = (one.system.to_owned(), one.medians.tps / reference.medians.tps);
        match groups.last_mut().filter(|(load, _)| load == one.load) {
            Some((_, bars)) => bars.push(bar),
            None => groups.push((one.load.to_owned(), vec![bar])),
        }
    }
    let title = format!("{CLIENTS} clients: transactions a second, to one server");
    Some(Bars { title, y: "ratio".to_owned(), groups }).filter(|bars| !bars.groups.is_empty())
}

fn throughput(load: &str, measured: &[Measured]) -> Chart {
    let of_load: Vec<&Measured> = measured.iter().filter(|one| one.load == load).collect();
    let mut systems: Vec<&str> = Vec::new();
    for one in &of_load {
        if !systems.contains(&one.system) {
            systems.push(one.system);
        }
    }
    let line = |system: &str| {
        let of_system = of_load.iter().filter(|one| one.system == system);
        let points = of_system.map(|one| (f64::from(one.clients), one.medians.tps)).collect();
        Line { name: system.to_owned(), points }
    };
    Chart {
        title: load.to_owned(),
        x: "clients".to_owned(),
        y: "transactions a second".to_owned(),
        log_x: true,
        lines: systems.into_iter().map(line).collect(),
    }
}

/// None if that was not measured.
fn nodes(figures: &[Figure]) -> Option<Chart> {
    let line =
        |name: &str, prefix: &str| Line { name: name.to_owned(), points: numbered(figures, "growth", prefix, " nodes") };
    let lines = vec![
        line("whole machine", "processor time of a transaction, "),
        line("client backends", "of that client backends, "),
        line("gcs", "of that gcs, "),
        line("remote backends", "of that remote backends, "),
    ];
    let chart = Chart {
        title: "simple-update, 8 clients: processor time of a transaction".to_owned(),
        x: "nodes".to_owned(),
        y: "µs".to_owned(),
        log_x: false,
        lines,
    };
    Some(chart).filter(|chart| chart.lines.iter().any(|line| !line.points.is_empty()))
}

/// None if that was not measured.
fn sizes(figures: &[Figure]) -> Option<Chart> {
    let ratio =
        Line { name: "group".to_owned(), points: numbered(figures, "sizes", "plain's time to the group's, ", " rows") };
    let chart = Chart {
        title: "UPDATE of so many rows by one client, to plain".to_owned(),
        x: "rows".to_owned(),
        y: "plain's time to the group's".to_owned(),
        log_x: true,
        lines: vec![ratio],
    };
    Some(chart).filter(|chart| !chart.lines[0].points.is_empty())
}

/// Medians of figures whose names differ in a number only.
fn numbered(figures: &[Figure], event: &str, prefix: &str, suffix: &str) -> Vec<(f64, f64)> {
    let number = |figure: &Figure| figure.name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok();
    let of_event = figures.iter().filter(|figure| figure.event == event);
    of_event.filter_map(|figure| Some((number(figure)?, figure.median))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Figures;
    use crate::systems::kind::Kind;

    #[test]
    fn a_run_has_a_chart_for_each_load_and_for_what_grows() {
        let mut measured = Measured::new(Kind::Group, "simple-update", 8);
        measured.add(Figures { tps: 1234.0, ..Figures::default() });
        let figure = Figure { event: "sizes", ..Figure::one("plain's time to the group's, 100 rows", "", 0.5) };
        assert_eq!(
            numbered(std::slice::from_ref(&figure), "sizes", "plain's time to the group's, ", " rows"),
            [(100.0, 0.5)]
        );
        let charts = all(Run { measured: &[measured], figures: &[figure] }).unwrap();
        let names: Vec<&str> = charts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["simple-update.svg", "sizes.svg"]);
        assert!(charts[0].1.contains("group") && charts[1].1.contains("rows"));
    }
}
