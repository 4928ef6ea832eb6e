//! What is aimed at, beside what one run measured: a table with a line for each part of each goal.
//!
//! Nothing fails when a goal is missed: how far away it is, and what stands in the way, is for docs/benchmarks.md to say.

use std::fmt::Write;

use crate::events::Figure;
use crate::measure::{Figures, Measured};

/// What one run measured.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub measured: &'a [Measured],
    pub figures: &'a [Figure],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// One figure that there is a goal for, and the same figure of the best of a kind, where that was in the run.
#[derive(Clone, Debug, PartialEq)]
struct Aim {
    measure: String,
    here: Option<f64>,
    other: Option<(&'static str, f64)>,
    goal: Goal,
    unit: &'static str,
}

/// A Markdown table. What was not measured in this run has a dash.
pub fn table(run: Run<'_>) -> String {
    let mut out = "| measure | here | others, in the same run | goal | |\n|---|---|---|---|---|\n".to_owned();
    for aim in throughput(run).into_iter().chain(costs(run)).chain(events(run)) {
        let unit = aim.unit;
        let shown = |value: f64| match unit {
            "" => format!("{value:.2}"),
            "s" => format!("{value:.1} s"),
            _ => format!("{value:.0} {unit}"),
        };
        let here = aim.here.map_or("-".to_owned(), shown);
        let other = aim.other.map_or(String::new(), |(name, value)| format!("{name} {}", shown(value)));
        let goal = match aim.goal {
            Goal::AtLeast(goal) => format!("at least {}", shown(goal)),
            Goal::AtMost(goal) => format!("at most {}", shown(goal)),
        };
        let verdict = aim.here.map_or("", |here| if is_met(aim.goal, here) { "met" } else { "missed" });
        let _ = writeln!(out, "| {} | {here} | {other} | {goal} | {verdict} |", aim.measure);
    }
    out
}

fn is_met(goal: Goal, here: f64) -> bool {
    match goal {
        Goal::AtLeast(goal) => here >= goal,
        Goal::AtMost(goal) => here <= goal,
    }
}

impl Run<'_> {
    fn of(&self, load: &str, system: &str, clients: u32) -> Option<&Figures> {
        let is_it = |one: &&Measured| one.load == load && one.system == system && one.clients == clients;
        self.measured.iter().find(is_it).map(|one| &one.medians)
    }

    /// Transactions a second of one system to those of another.
    fn ratio(&self, load: &str, systems: [&str; 2], clients: u32) -> Option<f64> {
        let [one, other] = systems.map(|system| self.of(load, system, clients).map(|figures| figures.tps));
        Some(one? / other.filter(|tps| *tps > 0.0)?)
    }

    fn figure(&self, event: &str, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.event == event && figure.name == name)
    }
}

fn throughput(run: Run<'_>) -> Vec<Aim> {
    let to_plain = |load: &'static str, clients: u32, goal: f64, galera: bool| {
        let standbys = run.ratio(load, ["standbys", "plain"], clients).map(|ratio| ("standbys", ratio));
        let other = match galera {
            true => run.ratio(load, ["galera", "mariadb"], clients).map(|ratio| ("Galera", ratio)),
            false => standbys,
        };
        let measure = format!("{load}, {clients} clients on one node, to plain");
        Aim { measure, here: run.ratio(load, ["group", "plain"], clients), other, goal: Goal::AtLeast(goal), unit: "" }
    };
    let spread = |load: &'static str, clients: u32, goal: f64, galera: bool| Aim {
        measure: format!("{load}, {clients} clients, spread over three nodes to all on one"),
        here: run.ratio(load, ["spread", "group"], clients),
        other: run.ratio(load, ["galera-spread", "galera"], clients).filter(|_| galera).map(|ratio| ("Galera", ratio)),
        goal: Goal::AtLeast(goal),
        unit: "",
    };
    vec![
        to_plain("simple-update", 8, 0.50, false),
        to_plain("simple-update", 32, 0.65, false),
        to_plain("tpcb-like", 8, 0.50, false),
        to_plain("tpcb-like", 32, 0.65, false),
        to_plain("insert-only", 32, 0.55, false),
        to_plain("oltp_update_non_index", 32, 0.50, true),
        to_plain("oltp_write_only", 32, 0.55, true),
        spread("simple-update", 32, 0.95, false),
        spread("oltp_update_non_index", 32, 0.95, true),
        spread("oltp_write_only", 32, 0.95, true),
        spread("tpcb-hot", 32, 0.90, false),
        Aim {
            measure: "tpcb-hot, 32 clients spread: times lost for each transaction".to_owned(),
            here: run.of("tpcb-hot", "spread", 32).map(|figures| figures.retries),
            other: None,
            goal: Goal::AtMost(0.02),
            unit: "",
        },
        to_plain("select-only", 8, 0.99, false),
        to_plain("select-only", 32, 0.99, false),
    ]
}

fn costs(run: Run<'_>) -> Vec<Aim> {
    let latency = |system| run.of("simple-update", system, 1).map(|figures| figures.latency_ms.p50);
    let kind = |system, kind: &str| {
        run.of("simple-update", system, 32).and_then(|figures| figures.processor_us_by_kind.get(kind).copied())
    };
    let bytes = |system| run.of("simple-update", system, 8).map(|figures| figures.loopback_bytes);
    let over_plain = |system| Some(bytes(system)? - bytes("plain")?);
    vec![
        Aim {
            measure: "one client, simple-update: median latency to that of the standbys".to_owned(),
            here: latency("group").zip(latency("standbys")).map(|(group, standbys)| group / standbys),
            other: None,
            goal: Goal::AtMost(1.0),
            unit: "",
        },
        Aim {
            measure: "processor time to apply a simple-update on one node, to executing it on plain, 32 clients".to_owned(),
            here: kind("group", "remote backends")
                .zip(kind("plain", "client backends"))
                .map(|(apply, run)| apply / 2.0 / run),
            other: None,
            goal: Goal::AtMost(0.15),
            unit: "",
        },
        Aim {
            measure: "bytes among servers for a simple-update, 8 clients".to_owned(),
            here: over_plain("group"),
            other: over_plain("standbys").map(|bytes| ("standbys", bytes)),
            goal: Goal::AtMost(700.0),
            unit: "bytes",
        },
    ]
}

fn events(run: Run<'_>) -> Vec<Aim> {
    let aim = |event: &str, name: &str, goal: Goal, unit: &'static str, factor: f64| Aim {
        measure: name.to_owned(),
        here: run.figure(event, name).map(|figure| factor * if unit.is_empty() { figure.median } else { figure.most }),
        other: None,
        goal,
        unit,
    };
    let pause = |job: &str| {
        let name = |system: &str| format!("{system}: longest pause of a bystander, {job}");
        let mut aim = aim("large", &name("group"), Goal::AtMost(1_000.0), "ms", 1_000.0);
        aim.other = run.figure("large", &name("plain")).map(|figure| ("plain", 1_000.0 * figure.most));
        aim
    };
    vec![
        aim(
            "failover",
            "longest pause on the others after the leader's node lost its power",
            Goal::AtMost(1_000.0),
            "ms",
            1.0,
        ),
        aim("failover", "the same while that node comes back", Goal::AtMost(100.0), "ms", 1.0),
        aim("catchup", "from its start until it has everything", Goal::AtMost(6.0), "s", 1.0),
        pause("3 million rows"),
        pause("COPY of 2 GB"),
        pause("index build"),
        aim("bulk", "plain's time to the group's", Goal::AtLeast(0.5), "", 1.0),
        aim("steady", "group: longest", Goal::AtMost(50.0), "ms", 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::kind::Kind;

    fn measured(kind: Kind, load: &'static str, clients: u32, tps: f64) -> Measured {
        let mut one = Measured::new(kind, load, clients);
        one.add(Figures { tps, ..Figures::default() });
        one
    }

    #[test]
    fn a_goal_is_met_or_missed_or_was_not_measured() {
        let measured = [
            measured(Kind::Plain, "simple-update", 8, 1000.0),
            measured(Kind::Group, "simple-update", 8, 450.0),
            measured(Kind::Standbys, "simple-update", 8, 600.0),
        ];
        let stall = Figure::new("the same while that node comes back", "ms", vec![20.0, 99.0]);
        let figures = [Figure { event: "failover", ..stall }];
        let text = table(Run { measured: &measured, figures: &figures });
        assert!(
            text.contains("8 clients on one node, to plain | 0.45 | standbys 0.60 | at least 0.50 | missed |"),
            "{text}"
        );
        assert!(text.contains("| the same while that node comes back | 99 ms |  | at most 100 ms | met |"), "{text}");
        assert!(text.contains("| simple-update, 32 clients on one node, to plain | - |  | at least 0.65 |  |"), "{text}");
    }
}
