//! Figures of events as tables for people (Markdown), one for each event.

use std::fmt::Write;

use super::figure::Figure;

pub fn tables(figures: &[Figure]) -> String {
    let mut out = String::new();
    let mut events: Vec<&str> = figures.iter().map(|figure| figure.event).collect();
    events.dedup();
    for event in events {
        let _ = writeln!(out, "## {event}\n\n| what | median | most | of | unit |\n|---|---|---|---|---|");
        for figure in figures.iter().filter(|figure| figure.event == event) {
            let Figure { name, unit, median, most, values, .. } = figure;
            let _ = writeln!(out, "| {name} | {} | {} | {} | {unit} |", shown(*median), shown(*most), values.len());
        }
        out.push('\n');
    }
    out
}

/// Three digits that mean something, more of a large number.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_table() {
        let of = |event, name: &str, value| Figure { event, ..Figure::one(name, "ms", value) };
        let text = tables(&[of("bulk", "one", 0.123), of("bulk", "two", 12.34), of("sizes", "three", 1234.5)]);
        assert_eq!(text.matches("## ").count(), 2);
        assert!(text.contains("| one | 0.12 | 0.12 | 1 | ms |") && text.contains("| two | 12.3 |"), "{text}");
        assert!(text.contains("| three | 1234 |"), "{text}");
    }
}
