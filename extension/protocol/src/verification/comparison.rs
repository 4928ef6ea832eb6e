//! Compares what the nodes say, look by look, and says what to look at next.

use std::collections::{BTreeMap, BTreeSet};

use super::sums::{Bucket, Sums};
use super::{Answer, Depth, Differing, EVERYTHING, Finding, Look, Part, Row, Trouble, Verdict};

/// Rows that are named one by one; where more are left in the parts that differ, the parts are taken apart further.
pub const ROWS_NAMED_MAX: u64 = 1000;

/// Parts that are followed at a time. More that differ, with more rows than can be named, are no small range: nothing is named.
const BUCKETS_MAX: usize = 16;

/// Objects that are taken apart at a time.
const OBJECTS_MAX: usize = 64;

/// Digits of the smallest parts: beyond it there are too many rows of one identity.
const DIGITS_MAX: u32 = 16;

/// How often a node that could not say is asked again.
const TRIES_MAX: u32 = 4;

/// What a node has of an object, as last seen as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// The node has not answered.
    Nothing,
    Missing,
    Sums(Sums),
    Trouble(Trouble),
}

impl Seen {
    /// What can be compared with others.
    fn value(&self) -> Option<Option<Sums>> {
        match self {
            Seen::Missing => Some(None),
            Seen::Sums(sums) => Some(Some(*sums)),
            Seen::Nothing | Seen::Trouble(_) => None,
        }
    }
}

struct Object {
    seen: Vec<Seen>,
    /// Rows that are not as the group has them, of each node, once they were named.
    differing: Option<Vec<Vec<Differing>>>,
    next: Option<Look>,
    tries: u32,
    /// Two looks one after the other have found that nodes differ.
    is_confirmed: bool,
}

/// All that is known.
pub struct Comparison {
    /// Why a node does not answer, if it does not.
    lost: Vec<Option<String>>,
    /// The node that asks, whose rows others are compared with where no majority agrees.
    me: usize,
    objects: BTreeMap<String, Object>,
}

/// By node, all that it said; none if it did not answer.
pub type Answers = Vec<Option<Vec<Answer>>>;

impl Comparison {
    pub fn new(nodes: usize, me: usize) -> Comparison {
        Comparison { lost: vec![None; nodes], me, objects: BTreeMap::new() }
    }

    /// The node is not asked any more.
    pub fn lose(&mut self, node: usize, why: &str) {
        self.lost[node].get_or_insert_with(|| why.to_owned());
    }

    pub fn is_lost(&self, node: usize) -> bool {
        self.lost[node].is_some()
    }

    /// What is to be looked at now; nothing if all is said that can be.
    pub fn next(&self) -> Vec<Look> {
        let taken_apart = self.objects.values().filter_map(|object| object.next.clone());
        taken_apart.take(OBJECTS_MAX).collect()
    }

    /// What the nodes said to a look at everything, or at the objects named.
    pub fn take_all(&mut self, answers: &Answers) {
        let names: BTreeSet<&String> = answers.iter().flatten().flatten().map(|answer| &answer.object).collect();
        for name in names.into_iter().filter(|name| *name != EVERYTHING) {
            let look = Look { object: name.clone(), buckets: Vec::new(), depth: Depth::Whole };
            self.take(&look, answers);
        }
    }

    /// What the nodes said of one object.
    pub fn take(&mut self, look: &Look, answers: &Answers) {
        let of_object: Vec<Option<Vec<&Part>>> = answers
            .iter()
            .map(|answers| {
                let is_of = |answer: &&Answer| answer.object == look.object || answer.object == EVERYTHING;
                let parts = answers.as_ref()?.iter().filter(is_of);
                Some(parts.map(|answer| &answer.part).collect())
            })
            .collect();
        let nodes = self.lost.len();
        let object = self.objects.entry(look.object.clone()).or_insert_with(|| Object {
            seen: vec![Seen::Nothing; nodes],
            differing: None,
            next: None,
            tries: 0,
            is_confirmed: false,
        });
        object.next = None;
        match look.depth {
            Depth::Whole => object.take_whole(look, &of_object),
            Depth::Buckets => object.take_buckets(look, &of_object),
            Depth::Rows => object.take_rows(look, &of_object, self.me),
        }
    }

    pub fn findings(&self) -> Vec<Finding> {
        let nodes = 0..self.lost.len();
        let of_object = |(name, object): (&String, &Object)| {
            nodes.clone().map(|node| self.finding(name, object, node)).collect::<Vec<_>>()
        };
        self.objects.iter().flat_map(of_object).collect()
    }

    fn finding(&self, name: &str, object: &Object, node: usize) -> Finding {
        let seen = &object.seen[node];
        let (verdict, detail) = self.verdict(object, node);
        let rows = match seen {
            Seen::Sums(sums) => Some(sums.rows),
            _ => None,
        };
        let differing = object.differing.as_ref().filter(|_| verdict == Verdict::Different && rows.is_some());
        let differing = differing.map(|of_nodes| of_nodes[node].clone());
        Finding { object: name.to_owned(), node, verdict, rows, differing, detail }
    }

    fn verdict(&self, object: &Object, node: usize) -> (Verdict, Option<String>) {
        let Some(value) = object.seen[node].value() else {
            return match &object.seen[node] {
                Seen::Trouble(trouble) if !trouble.passes() => (Verdict::Unreadable, Some(trouble.text().to_owned())),
                Seen::Trouble(trouble) => (Verdict::NotKnown, Some(trouble.text().to_owned())),
                _ => (Verdict::NotKnown, Some(self.lost[node].clone().unwrap_or_else(|| "no answer".to_owned()))),
            };
        };
        if object.known() == 1 && self.lost.len() > 1 {
            return (Verdict::NotKnown, Some("no other node could say".to_owned()));
        }
        match object.reference() {
            Some(reference) if reference == value => (Verdict::Equal, None),
            _ if !object.is_confirmed => {
                (Verdict::NotKnown, Some("it differs, and time was over before a second look".to_owned()))
            }
            Some(None) => (Verdict::Different, Some("only here".to_owned())),
            Some(Some(_)) if value.is_none() => (Verdict::Different, Some("missing".to_owned())),
            Some(Some(reference)) => {
                let rows = value.map_or(0, |sums| sums.rows);
                (Verdict::Different, (rows != reference.rows).then(|| format!("others have {} rows", reference.rows)))
            }
            None => (Verdict::Different, Some("no majority agrees".to_owned())),
        }
    }
}

impl Object {
    fn known(&self) -> usize {
        self.seen.iter().filter(|seen| seen.value().is_some()).count()
    }

    fn is_equal(&self) -> bool {
        let mut values = self.seen.iter().filter_map(Seen::value);
        let first = values.next();
        values.all(|value| Some(value) == first)
    }

    /// What more nodes have than have anything else.
    fn reference(&self) -> Option<Option<Sums>> {
        let values: Vec<_> = self.seen.iter().filter_map(Seen::value).collect();
        let count = |wanted| values.iter().filter(|&&value| value == wanted).count();
        let best = *values.iter().max_by_key(|&&value| count(value))?;
        let rival = values.iter().filter(|&&value| value != best).map(|&value| count(value)).max().unwrap_or(0);
        (count(best) > rival).then_some(best)
    }

    fn look_again(&mut self, look: &Look) {
        self.tries += 1;
        if self.tries < TRIES_MAX {
            self.next = Some(Look { object: look.object.clone(), buckets: Vec::new(), depth: Depth::Whole });
        }
    }

    fn passes(&self) -> bool {
        self.seen.iter().any(|seen| matches!(seen, Seen::Trouble(trouble) if trouble.passes()))
    }

    /// Takes over what all nodes have at one position. What a node had at another is worth nothing any more.
    fn see(&mut self, of_nodes: &[Option<Vec<&Part>>]) {
        self.seen = of_nodes.iter().map(|parts| parts.as_ref().map_or(Seen::Nothing, |parts| whole(parts))).collect();
        self.is_confirmed = false;
    }

    fn take_whole(&mut self, look: &Look, of_nodes: &[Option<Vec<&Part>>]) {
        self.see(of_nodes);
        if self.passes() {
            self.look_again(look);
        } else if !self.is_equal() {
            self.next = Some(Look { object: look.object.clone(), buckets: Vec::new(), depth: Depth::Buckets });
        }
    }

    fn take_buckets(&mut self, look: &Look, of_nodes: &[Option<Vec<&Part>>]) {
        if look.buckets.is_empty() {
            self.see(of_nodes);
            if self.passes() {
                return self.look_again(look);
            }
            if self.is_equal() {
                return;
            }
            self.is_confirmed = true;
            if self.seen.contains(&Seen::Missing) {
                // That says it all.
                return;
            }
        }
        let by_node: Vec<BTreeMap<Bucket, Sums>> = of_nodes.iter().flatten().filter_map(|parts| buckets(parts)).collect();
        let all: BTreeSet<Bucket> = by_node.iter().flat_map(BTreeMap::keys).copied().collect();
        let of = |sums: &BTreeMap<Bucket, Sums>, bucket: &Bucket| sums.get(bucket).copied().unwrap_or_default();
        let differs = |bucket: &&Bucket| by_node.iter().any(|sums| of(sums, bucket) != of(&by_node[0], bucket));
        let differing: Vec<Bucket> = all.iter().filter(differs).copied().collect();
        let rows = |sums: &BTreeMap<Bucket, Sums>| differing.iter().map(|bucket| of(sums, bucket).rows).sum::<u64>();
        let rows = by_node.iter().map(rows).max().unwrap_or(0);
        let Some(digits) = differing.first().map(|bucket| bucket.digits) else { return };
        let depth = if rows <= ROWS_NAMED_MAX {
            Depth::Rows
        } else if differing.len() <= BUCKETS_MAX && digits < DIGITS_MAX {
            Depth::Buckets
        } else {
            return;
        };
        self.next = Some(Look { object: look.object.clone(), buckets: differing, depth });
    }

    fn take_rows(&mut self, look: &Look, of_nodes: &[Option<Vec<&Part>>], me: usize) {
        let by_node: Vec<Option<BTreeMap<u128, Identity>>> = of_nodes.iter().map(|parts| rows(parts.as_ref()?)).collect();
        let agreed = self.reference();
        let is_agreed = |&node: &usize| by_node[node].is_some() && self.seen[node].value() == agreed;
        let reference = (0..by_node.len()).find(is_agreed).unwrap_or(me);
        let Some(right) = &by_node[reference] else { return };
        let differing = |rows: &Option<BTreeMap<u128, Identity>>| {
            let Some(rows) = rows else { return Vec::new() };
            let identities: BTreeSet<&u128> = rows.keys().chain(right.keys()).collect();
            let wrong = identities
                .into_iter()
                .filter(|identity| rows.get(identity).map(|row| &row.hashes) != right.get(identity).map(|row| &row.hashes));
            let text = |identity: &u128| rows.get(identity).or(right.get(identity)).map_or("", |row| row.text);
            wrong.map(|&identity| Differing { identity, text: text(&identity).to_owned() }).collect()
        };
        let of_nodes: Vec<Vec<Differing>> = by_node.iter().map(differing).collect();
        if of_nodes.iter().all(Vec::is_empty) {
            // The rows that differed have been written anew since.
            return self.look_again(look);
        }
        self.differing = Some(of_nodes);
    }
}

/// Rows of one identity; there may be several where nothing forbids it.
struct Identity<'a> {
    hashes: Vec<u128>,
    text: &'a str,
}

fn whole(parts: &[&Part]) -> Seen {
    let mut sums: Option<Sums> = None;
    for part in parts {
        match part {
            Part::Trouble(trouble) => return Seen::Trouble(trouble.clone()),
            Part::Whole(found) | Part::Bucket(_, found) => sums = Some(sums.unwrap_or_default().plus(*found)),
            Part::Row(_) => {}
        }
    }
    sums.map_or(Seen::Missing, Seen::Sums)
}

/// None if the node could not say.
fn buckets(parts: &[&Part]) -> Option<BTreeMap<Bucket, Sums>> {
    let mut found = BTreeMap::new();
    for part in parts {
        match part {
            Part::Bucket(bucket, sums) => _ = found.insert(*bucket, *sums),
            Part::Trouble(_) => return None,
            Part::Whole(_) | Part::Row(_) => {}
        }
    }
    Some(found)
}

fn rows<'a>(parts: &[&'a Part]) -> Option<BTreeMap<u128, Identity<'a>>> {
    let mut found: BTreeMap<u128, Identity<'a>> = BTreeMap::new();
    for part in parts {
        match part {
            Part::Row(Row { identity, hash, text }) => {
                found.entry(*identity).or_insert(Identity { hashes: Vec::new(), text }).hashes.push(*hash);
            }
            Part::Trouble(_) => return None,
            Part::Whole(_) | Part::Bucket(..) => {}
        }
    }
    found.values_mut().for_each(|row| row.hashes.sort_unstable());
    Some(found)
}

#[cfg(test)]
mod tests;
