//! A result as isolationtester prints it: libpq's PQprint with a header, aligned, without outer borders.

use std::fmt::Write;

use postgres::SimpleQueryMessage;

/// Appends every result that has columns.
pub fn print(messages: &[SimpleQueryMessage], out: &mut String) {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(described) => {
                columns = described.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect());
            }
            SimpleQueryMessage::CommandComplete(_) if !columns.is_empty() => {
                one(&columns, &rows, out);
                columns.clear();
                rows.clear();
            }
            _ => {}
        }
    }
}

fn one(columns: &[String], rows: &[Vec<String>], out: &mut String) {
    let values = |at: usize| rows.iter().map(move |row| row[at].as_str());
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| values(at).chain([columns[at].as_str()]).map(|text| text.chars().count()).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> =
        (0..columns.len()).map(|at| values(at).all(|value| value.is_empty() || is_numeric(value))).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().enumerate().map(|(at, cell)| {
            let width = widths[at];
            if numeric[at] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("|")
    };
    let border: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let _ = writeln!(out, "{}\n{}", line(columns), border.join("+"));
    for row in rows {
        let _ = writeln!(out, "{}", line(row));
    }
    let _ = writeln!(out, "({} row{})\n", rows.len(), if rows.len() == 1 { "" } else { "s" });
}

/// What libpq takes for a number.
fn is_numeric(value: &str) -> bool {
    value.chars().all(|c| c.is_ascii_digit() || ".Ee -".contains(c))
        && !value.starts_with(['E', 'e'])
        && value.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_everything_else_left() {
        let text = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let mut out = String::new();
        one(&text(&["k", "value"]), &[text(&["10", "a"]), text(&["9", ""])], &mut out);
        assert_eq!(out, " k|value\n--+-----\n10|a    \n 9|     \n(2 rows)\n\n");
    }
}
