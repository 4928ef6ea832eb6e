//! Do the nodes have the same definitions? As pg_dump shows them: with owners, privileges and comments.

use std::process::Command;

use gcs::playground::NodeNumber;

use super::Group;

/// The schema, without what names the dump itself.
fn dump(group: &Group, number: NodeNumber) -> Result<String, String> {
    let cluster = group.playground.cluster(number);
    let mut program = Command::new(cluster.bin.join("pg_dump"));
    let output = program.args(["-s", &cluster.uri(group.database())]).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\')).collect();
    Ok(lines.join("\n"))
}

/// Fails unless all nodes have the same schema; gives it. Settles the group first.
pub fn assert_same(group: &Group) -> String {
    group.settle();
    let dumps: Vec<String> = group
        .numbers()
        .into_iter()
        .map(|number| dump(group, number).unwrap_or_else(|error| panic!("{number:?}: {error}")))
        .collect();
    for (index, other) in dumps.iter().enumerate().skip(1) {
        let here: Vec<&str> = other.lines().filter(|line| !dumps[0].contains(line)).collect();
        let missing: Vec<&str> = dumps[0].lines().filter(|line| !other.contains(line)).collect();
        assert_eq!(*other, dumps[0], "node {} differs: + {here:#?} - {missing:#?}", index + 1);
    }
    dumps.into_iter().next().unwrap_or_default()
}
