//! Nodes that hold rows in memory are looked at until all is said.

use std::collections::BTreeMap;

use super::super::sums::hash;
use super::*;

/// By table, rows of identity and value. A table that is not there is missing; None cannot be read.
type Node = BTreeMap<&'static str, Option<Vec<(u32, u32)>>>;

fn identity(row: (u32, u32)) -> u128 {
    hash(&row.0.to_le_bytes())
}

fn row_hash(row: (u32, u32)) -> u128 {
    hash(&[row.0.to_le_bytes(), row.1.to_le_bytes()].concat())
}

fn answer(node: &Node, looks: &[Look]) -> Vec<Answer> {
    let whole = |object: &&'static str| Look { object: (*object).to_owned(), buckets: Vec::new(), depth: Depth::Whole };
    let looks = if looks.is_empty() { node.keys().map(whole).collect() } else { looks.to_vec() };
    let mut answers = Vec::new();
    for look in looks {
        let mut say = |part| answers.push(Answer { object: look.object.clone(), part });
        let Some(table) = node.get(look.object.as_str()) else { continue };
        let Some(rows) = table else {
            say(Part::Trouble(Trouble::Unreadable("damaged".into())));
            continue;
        };
        let digits = look.buckets.first().map_or(0, |bucket| bucket.digits);
        let is_in =
            |row: &&(u32, u32)| look.buckets.is_empty() || look.buckets.contains(&Bucket::of(identity(**row), digits));
        let mut sums: BTreeMap<Bucket, Sums> = BTreeMap::new();
        for &row in rows.iter().filter(is_in) {
            match look.depth {
                Depth::Rows => {
                    say(Part::Row(Row { identity: identity(row), hash: row_hash(row), text: format!("(id)=({})", row.0) }));
                }
                Depth::Whole => sums.entry(Bucket::of(0, 0)).or_default().add(row_hash(row)),
                Depth::Buckets => sums.entry(Bucket::of(identity(row), digits + 2)).or_default().add(row_hash(row)),
            }
        }
        if sums.is_empty() && look.depth != Depth::Rows {
            sums.insert(Bucket::of(0, 0), Sums::default());
        }
        for (bucket, sums) in sums {
            say(if look.depth == Depth::Whole { Part::Whole(sums) } else { Part::Bucket(bucket, sums) });
        }
    }
    answers
}

/// Until nothing is left to look at; between looks, `meanwhile`.
fn verify(nodes: &mut [Option<Node>], mut meanwhile: impl FnMut(&mut [Option<Node>])) -> Vec<Finding> {
    let mut comparison = Comparison::new(nodes.len(), 0);
    let ask = |nodes: &[Option<Node>], looks: &[Look]| -> Answers {
        nodes.iter().map(|node| node.as_ref().map(|node| answer(node, looks))).collect()
    };
    for (node, _) in nodes.iter().enumerate().filter(|(_, node)| node.is_none()) {
        comparison.lose(node, "unreachable");
    }
    comparison.take_all(&ask(nodes, &[]));
    for _ in 0..20 {
        meanwhile(nodes);
        let looks = comparison.next();
        if looks.is_empty() {
            return comparison.findings();
        }
        let answers = ask(nodes, &looks);
        looks.iter().for_each(|look| comparison.take(look, &answers));
    }
    panic!("it does not end");
}

fn table(rows: u32) -> Option<Vec<(u32, u32)>> {
    Some((0..rows).map(|id| (id, id * 7)).collect())
}

fn three(tables: &[(&'static str, u32)]) -> Vec<Option<Node>> {
    let node: Node = tables.iter().map(|&(name, rows)| (name, table(rows))).collect();
    vec![Some(node.clone()), Some(node.clone()), Some(node)]
}

fn rows<'a>(nodes: &'a mut [Option<Node>], node: usize, name: &str) -> &'a mut Vec<(u32, u32)> {
    nodes[node].as_mut().unwrap().get_mut(name).unwrap().as_mut().unwrap()
}

fn wrong(findings: &[Finding]) -> Vec<(String, usize, Verdict, Option<String>)> {
    let wrong = findings.iter().filter(|finding| finding.verdict != Verdict::Equal);
    wrong.map(|finding| (finding.object.clone(), finding.node, finding.verdict, finding.key_range())).collect()
}

#[test]
fn equal_nodes_are_equal_and_nothing_more_is_asked() {
    let findings = verify(&mut three(&[("a", 0), ("b", 5000)]), |_| {});
    assert_eq!(findings.len(), 6);
    assert!(wrong(&findings).is_empty());
}

#[test]
fn a_row_that_differs_is_named_among_many() {
    for (change, id) in [(0, 77_u32), (1, 12_345), (2, 99_999)] {
        let mut nodes = three(&[("a", 20_000), ("b", 10)]);
        let rows = rows(&mut nodes, 1, "a");
        match change {
            0 => rows[id as usize].1 += 1,
            1 => _ = rows.remove(id as usize),
            _ => rows.push((id, 0)),
        }
        let findings = verify(&mut nodes, |_| {});
        let named = Some(format!("(id)=({id})"));
        assert_eq!(wrong(&findings), [("a".to_owned(), 1, Verdict::Different, named)]);
        let finding = findings.iter().find(|finding| finding.verdict == Verdict::Different).unwrap();
        assert_eq!(finding.differing.as_ref().unwrap()[0].identity, identity((id, 0)));
    }
}

#[test]
fn a_row_that_is_there_twice_is_a_difference() {
    let mut nodes = three(&[("a", 2000)]);
    rows(&mut nodes, 2, "a").push((5, 35));
    assert_eq!(wrong(&verify(&mut nodes, |_| {})), [("a".to_owned(), 2, Verdict::Different, Some("(id)=(5)".to_owned()))]);
}

#[test]
fn a_table_that_is_empty_on_one_node_is_no_small_range() {
    let mut nodes = three(&[("a", 20_000)]);
    rows(&mut nodes, 0, "a").clear();
    assert_eq!(wrong(&verify(&mut nodes, |_| {})), [("a".to_owned(), 0, Verdict::Different, None)]);
}

#[test]
fn a_table_that_is_missing_or_cannot_be_read_is_so_on_that_node() {
    let mut nodes = three(&[("a", 10), ("b", 10), ("c", 10)]);
    nodes[1].as_mut().unwrap().remove("a");
    nodes[2].as_mut().unwrap().insert("b", None);
    nodes[0].as_mut().unwrap().insert("only", table(1));
    let findings = verify(&mut nodes, |_| {});
    let expected = [
        ("a".to_owned(), 1, Verdict::Different, None),
        ("b".to_owned(), 2, Verdict::Unreadable, None),
        ("only".to_owned(), 0, Verdict::Different, None),
    ];
    assert_eq!(wrong(&findings), expected);
}

#[test]
fn nobody_is_right_where_no_majority_agrees() {
    let mut nodes = three(&[("a", 10)]);
    nodes.pop();
    rows(&mut nodes, 1, "a")[3].1 = 0;
    let wrong = wrong(&verify(&mut nodes, |_| {}));
    // Compared with the node that asks.
    let expected = [
        ("a".to_owned(), 0, Verdict::Different, None),
        ("a".to_owned(), 1, Verdict::Different, Some("(id)=(3)".to_owned())),
    ];
    assert_eq!(wrong, expected);
}

#[test]
fn a_node_that_is_away_is_not_known_and_two_that_are_away_leave_nobody_to_compare_with() {
    let mut nodes = three(&[("a", 10)]);
    nodes[2] = None;
    let findings = verify(&mut nodes, |_| {});
    assert_eq!(wrong(&findings), [("a".to_owned(), 2, Verdict::NotKnown, None)]);
    assert_eq!(findings[2].detail.as_deref(), Some("unreachable"));
    nodes[1] = None;
    assert_eq!(wrong(&verify(&mut nodes, |_| {})).len(), 3);
    assert!(wrong(&verify(&mut [nodes.swap_remove(0)], |_| {})).is_empty(), "the only member is equal to the group");
}

#[test]
fn what_is_written_over_meanwhile_is_equal_in_the_end() {
    for looks in 0..2 {
        let mut nodes = three(&[("a", 5000)]);
        rows(&mut nodes, 1, "a")[42].1 = 0;
        let mut count = 0;
        let findings = verify(&mut nodes, |nodes| {
            if count == looks {
                (0..3).for_each(|node| rows(nodes, node, "a")[42].1 = 9);
            }
            count += 1;
        });
        assert!(wrong(&findings).is_empty(), "after {looks} looks: {:?}", wrong(&findings));
    }
}

#[test]
fn rows_that_everybody_changes_meanwhile_make_no_difference() {
    let mut nodes = three(&[("a", 5000)]);
    rows(&mut nodes, 1, "a")[42].1 = 0;
    let mut count = 0;
    let findings = verify(&mut nodes, |nodes| {
        count += 1;
        for node in 0..3 {
            let rows = rows(nodes, node, "a");
            (100..4000).for_each(|row| rows[row].1 += count);
        }
    });
    assert_eq!(wrong(&findings), [("a".to_owned(), 1, Verdict::Different, Some("(id)=(42)".to_owned()))]);
}

#[test]
fn ranges_are_listed_or_spanned() {
    let mut nodes = three(&[("a", 100)]);
    (2..12).for_each(|row| rows(&mut nodes, 1, "a")[row].1 = 0);
    let range = Some("(id)=(2) to (id)=(11), 10".to_owned());
    assert_eq!(wrong(&verify(&mut nodes, |_| {})), [("a".to_owned(), 1, Verdict::Different, range)]);
}

#[test]
fn what_a_node_had_at_another_position_is_not_compared() {
    let mut nodes = three(&[("a", 10)]);
    let mut comparison = Comparison::new(3, 0);
    let changed = vec![Answer { object: "a".into(), part: Part::Trouble(Trouble::Changed) }];
    let said = |node: &Option<Node>| node.as_ref().map(|node| answer(node, &[]));
    comparison.take_all(&vec![Some(changed), said(&nodes[1]), said(&nodes[2])]);
    let looks = comparison.next();
    (0..3).for_each(|node| rows(&mut nodes, node, "a").push((10, 1)));
    comparison.take(&looks[0], &vec![said(&nodes[0]), said(&nodes[1]), None]);
    assert_eq!(wrong(&comparison.findings()), [("a".to_owned(), 2, Verdict::NotKnown, None)]);
    assert!(comparison.next().is_empty());
}

#[test]
fn a_difference_that_was_seen_once_is_none() {
    let mut nodes = three(&[("a", 10)]);
    rows(&mut nodes, 1, "a").pop();
    let mut comparison = Comparison::new(3, 0);
    comparison.take_all(&nodes.iter().map(|node| node.as_ref().map(|node| answer(node, &[]))).collect());
    assert_eq!(wrong(&comparison.findings()), [("a".to_owned(), 1, Verdict::NotKnown, None)]);
}

#[test]
fn a_node_that_could_say_nothing_misses_nothing() {
    let mut nodes = three(&[("a", 10)]);
    let mut comparison = Comparison::new(3, 0);
    let nothing = vec![Answer { object: EVERYTHING.into(), part: Part::Trouble(Trouble::Interrupted("ended".into())) }];
    let first = Some(answer(nodes[0].as_ref().unwrap(), &[]));
    comparison.take_all(&vec![first.clone(), first.clone(), Some(nothing.clone())]);
    let look = Look { object: "a".into(), buckets: Vec::new(), depth: Depth::Whole };
    assert_eq!(comparison.next(), std::slice::from_ref(&look));
    assert_eq!(wrong(&comparison.findings()), [("a".to_owned(), 2, Verdict::NotKnown, None)]);
    // Later it can.
    rows(&mut nodes, 0, "a").push((10, 70));
    (0..3).for_each(|node| rows(&mut nodes, node, "a").truncate(10));
    let answers = nodes.iter().map(|node| node.as_ref().map(|node| answer(node, std::slice::from_ref(&look)))).collect();
    comparison.take(&look, &answers);
    assert!(wrong(&comparison.findings()).is_empty() && comparison.next().is_empty());
}
