//! Positions that a remote backend could not apply ahead of their turn, as the servers' logs say.
//!
//! Such a position is applied in its turn and nothing comes of it, but a key is missing that would have said what it depends on: the next one
//! may be applied ahead of its turn and come out wrong. So tests look for them where nothing else shows.

use super::group::Group;

/// The lines, each with its DETAIL.
pub fn found(group: &Group) -> Vec<String> {
    let logs = group.numbers().into_iter().map(|number| group.dir().join(format!("node{}/postgres.log", number.0)));
    let texts = logs.map(|log| std::fs::read_to_string(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display())));
    let lines = texts.flat_map(|text| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.windows(2).filter(|pair| pair[0].contains("ahead of its turn")).map(|pair| pair.join("\n")).collect::<Vec<_>>()
    });
    lines.collect()
}

pub fn assert_none(group: &Group) {
    assert_eq!(found(group), Vec::<String>::new());
}
