//! Files that import each other in a circle: whoever wants to understand one must have understood the others first.

use std::collections::BTreeSet;

use super::imports::Imports;

/// Each circle as a text: its files, and what each takes from which other.
pub fn circles(imports: &Imports) -> Vec<String> {
    let reached = |from: &str| {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(file) = open.pop() {
            for next in imports.get(&file).into_iter().flat_map(|taken| taken.keys()) {
                if seen.insert(next.clone()) {
                    open.push(next.clone());
                }
            }
        }
        seen
    };
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for file in imports.keys() {
        let reachable = reached(file);
        if told.contains(file) || !reachable.contains(file) {
            continue;
        }
        let circle: BTreeSet<String> = reachable.into_iter().filter(|other| reached(other).contains(file)).collect();
        found.push(describe(&circle, imports));
        told.extend(circle);
    }
    found
}

fn describe(circle: &BTreeSet<String>, imports: &Imports) -> String {
    let mut text = format!("a circle of {} files", circle.len());
    for file in circle {
        for (from, names) in imports[file].iter().filter(|(from, _)| circle.contains(*from)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text += &format!("\n    {file} takes from {from}: {}", names.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imports(arrows: &[(&str, &str)]) -> Imports {
        let mut imports = Imports::new();
        for (from, to) in arrows {
            imports.entry((*to).to_owned()).or_default();
            imports.entry((*from).to_owned()).or_default().entry((*to).to_owned()).or_default().insert("X".to_owned());
        }
        imports
    }

    #[test]
    fn a_circle_is_told_once_with_what_ties_it_and_what_hangs_on_it_is_not_in_it() {
        let found = circles(&imports(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"), ("c", "e")]));
        assert_eq!(found.len(), 1);
        let expected = "a circle of 3 files\n    a takes from b: X\n    b takes from c: X\n    c takes from a: X";
        assert_eq!(found[0], expected);
    }

    #[test]
    fn two_circles_that_do_not_touch_are_two() {
        assert_eq!(circles(&imports(&[("a", "b"), ("b", "a"), ("b", "c"), ("c", "d"), ("d", "c")])).len(), 2);
        assert!(circles(&imports(&[("a", "b"), ("a", "c"), ("b", "c")])).is_empty());
    }
}
