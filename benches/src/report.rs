//! What was measured, as tables for people (Markdown).

use std::fmt::Write;

use crate::measure::{Figures, Measured};

/// One table a load, with ratios of each system to one server of its own sort (plain, mariadb), one line for each system and number of clients, and where the processor time went with most clients.
pub fn tables(all: &[Measured]) -> String {
    let mut out = String::new();
    let mut loads: Vec<&str> = all.iter().map(|one| one.load).collect();
    loads.dedup();
    for load in loads {
        let of_load: Vec<&Measured> = all.iter().filter(|one| one.load == load).collect();
        let _ = writeln!(out, "## {load}\n");
        table(&mut out, &of_load);
        kinds(&mut out, &of_load);
    }
    out
}

fn table(out: &mut String, measured: &[&Measured]) {
    out.push_str("| clients | system | tps | ratio | p50 ms | p99 | p99.9 | longest | lost | processor µs | switches | loopback bytes | written bytes |\n");
    out.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for one in measured {
        let f = &one.medians;
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {} | {:.2} | {:.2} | {:.2} | {:.1} | {:.3} | {:.0} | {:.1} | {:.0} | {:.0} |",
            one.clients,
            one.system,
            f.tps,
            ratio(measured, one),
            f.latency_ms.p50,
            f.latency_ms.p99,
            f.latency_ms.p999,
            f.latency_ms.longest,
            f.retries,
            f.processor_us,
            f.context_switches,
            f.loopback_bytes,
            f.written_bytes,
        );
    }
    out.push('\n');
}

fn ratio(measured: &[&Measured], one: &Measured) -> String {
    let reference = measured.iter().find(|other| other.system == one.reference && other.clients == one.clients);
    match reference {
        Some(reference) if reference.medians.tps > 0.0 => format!("{:.2}", one.medians.tps / reference.medians.tps),
        _ => "-".to_owned(),
    }
}

fn kinds(out: &mut String, measured: &[&Measured]) {
    let Some(most) = measured.iter().map(|one| one.clients).max() else { return };
    let _ = writeln!(out, "Processor time of a transaction with {most} clients, µs:\n");
    for one in measured.iter().filter(|one| one.clients == most) {
        let _ = writeln!(out, "- {}: {}", one.system, by_kind(&one.medians));
    }
    out.push('\n');
}

/// The largest first; the rest is clients, the kernel's own work, and whatever ended before it could be asked.
fn by_kind(figures: &Figures) -> String {
    let mut kinds: Vec<(&String, f64)> = figures.processor_us_by_kind.iter().map(|(kind, &us)| (kind, us)).collect();
    kinds.sort_by(|a, b| b.1.total_cmp(&a.1));
    let known: f64 = kinds.iter().map(|(_, us)| us).sum();
    let mut parts: Vec<String> =
        kinds.iter().filter(|(_, us)| *us >= 1.0).map(|(kind, us)| format!("{kind} {us:.0}")).collect();
    parts.push(format!("clients and the rest {:.0}", (figures.processor_us - known).max(0.0)));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::systems::kind::Kind;

    fn measured(kind: Kind, clients: u32, tps: f64) -> Measured {
        let mut one = Measured::new(kind, "insert-only", clients);
        let by_kind = [("gcs".to_owned(), 30.0)].into();
        one.add(Figures { tps, processor_us: 100.0, processor_us_by_kind: by_kind, ..Figures::default() });
        one
    }

    #[test]
    fn a_table_has_ratios_to_the_plain_server_with_as_many_clients() {
        let all = [(Kind::Plain, 8, 1000.0), (Kind::Group, 8, 500.0), (Kind::Group, 32, 700.0)];
        let text = tables(&all.map(|(kind, clients, tps)| measured(kind, clients, tps)));
        assert!(text.contains("| 8 | group | 500 | 0.50 |"), "{text}");
        assert!(text.contains("| 32 | group | 700 | - |"), "{text}");
        assert!(text.contains("- group: gcs 30, clients and the rest 70"), "{text}");
    }

    #[test]
    fn a_galera_cluster_is_compared_with_one_mariadb() {
        let all = [(Kind::Plain, 1000.0), (Kind::Mariadb, 800.0), (Kind::Galera, 200.0)];
        let text = tables(&all.map(|(kind, tps)| measured(kind, 8, tps)));
        assert!(text.contains("| 8 | galera | 200 | 0.25 |"), "{text}");
        assert!(text.contains("| 8 | mariadb | 800 | 1.00 |"), "{text}");
    }
}
