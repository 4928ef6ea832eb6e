//! The direct serialization graph and its forbidden cycles.
//!
//! Edges from T to U: *ww*, U appended next after T; *wr*, U read what T appended last; *rw*, T read a version and U appended
//! next after it; *session*, U is the next transaction of T's client; *time*, U began after T was acknowledged. Session edges count like reads-from: a client that got its
//! COMMIT back must find its own past (strong session snapshot isolation; on one node PostgreSQL gives it). So do edges of time, where everybody
//! is to find everybody's past (strong snapshot isolation: Daudjee and Salem, VLDB 2006).
//!
//! Snapshot isolation allows exactly the cycles that have two rw edges in a row (write skew). So: any cycle without rw is G0 or G1c, with
//! one rw G-single, and one with several of which no two are neighbours is the long fork. All of them are cycles in the graph
//! of *spots*, (transaction, whether we came by rw), in which no rw edge leaves a spot that was reached by one. Serializability
//! allows no cycle at all: what is left then is G2.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::anomaly::{Anomaly, Isolation, Kind};
use super::history::{Element, History, Key, Op, Outcome, TxnId};
use super::versions::Versions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    Ww,
    Wr,
    Session,
    Time,
    Rw,
}

/// A transaction, and whether the path came to it by an rw edge.
type Spot = (TxnId, bool);
/// A cycle as (transaction, the edge that leaves it).
type Cycle = Vec<(TxnId, Edge)>;

/// Which paths are followed: edges of these kinds, and whether an rw edge may follow another.
#[derive(Clone, Copy, Debug)]
struct Paths {
    edges: &'static [Edge],
    rw_after_rw: bool,
}

const OVERWRITES: Paths = Paths { edges: &[Edge::Ww], rw_after_rw: false };
const INFORMATION: Paths = Paths { edges: &[Edge::Ww, Edge::Wr, Edge::Session, Edge::Time], rw_after_rw: false };
const SNAPSHOTS: Paths = Paths { edges: &[Edge::Ww, Edge::Wr, Edge::Session, Edge::Time, Edge::Rw], rw_after_rw: false };
const ALL: Paths = Paths { rw_after_rw: true, ..SNAPSHOTS };
/// In a knot of many cycles, so many places are tried for the shortest one to show.
const STARTS_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Graph {
    out: BTreeMap<TxnId, BTreeSet<(Edge, TxnId)>>,
}

impl Graph {
    pub fn build(history: &History, versions: &Versions, effective: &BTreeSet<TxnId>) -> Graph {
        let mut graph = Graph::default();
        for order in versions.order.values() {
            for pair in order.windows(2) {
                graph.connect_writers(versions, &pair[0], &pair[1]);
            }
        }
        for &(reader, key, length) in &versions.reads {
            let order = versions.order.get(&key).map_or(&[][..], Vec::as_slice);
            if let Some(&writer) = length.checked_sub(1).and_then(|last| versions.writer.get(&order[last])) {
                graph.add(writer, Edge::Wr, reader);
            }
            if let Some(&next) = order.get(length).and_then(|next| versions.writer.get(next)) {
                graph.add(reader, Edge::Rw, next);
            }
        }
        let mut last_of_session = HashMap::new();
        for &id in effective {
            if let Some(before) = last_of_session.insert(history[id].session, id) {
                graph.add(before, Edge::Session, id);
            }
        }
        graph.connect_in_time(history, effective);
        graph
    }

    /// Whoever began after another was acknowledged comes after it. Only what does not follow from other such edges is drawn: a transaction is
    /// connected with the last ones before it, and those are the ones that no other has begun after and been acknowledged before.
    fn connect_in_time(&mut self, history: &History, effective: &BTreeSet<TxnId>) {
        let mut moments = Vec::new();
        for &id in effective {
            let Some(span) = history[id].span else { continue };
            // At the same moment, beginnings come first: they follow nothing that ends then.
            moments.push((span.began, 0, id));
            if history[id].outcome == Outcome::Committed {
                moments.push((span.ended, 1, id));
            }
        }
        moments.sort();
        let mut last: BTreeSet<TxnId> = BTreeSet::new();
        let mut before: HashMap<TxnId, Vec<TxnId>> = HashMap::new();
        for (_, kind, id) in moments {
            if kind == 0 {
                last.iter().for_each(|&earlier| self.add(earlier, Edge::Time, id));
                before.insert(id, last.iter().copied().collect());
            } else {
                for earlier in before.remove(&id).unwrap_or_default() {
                    last.remove(&earlier);
                }
                last.insert(id);
            }
        }
    }

    fn connect_writers(&mut self, versions: &Versions, first: &Element, second: &Element) {
        if let (Some(&from), Some(&to)) = (versions.writer.get(first), versions.writer.get(second)) {
            self.add(from, Edge::Ww, to);
        }
    }

    fn add(&mut self, from: TxnId, edge: Edge, to: TxnId) {
        if from != to {
            self.out.entry(from).or_default().insert((edge, to));
        }
    }

    /// Where one can go on to from a spot, by allowed paths.
    fn steps(&self, (txn, by_rw): Spot, allowed: Paths) -> impl Iterator<Item = (Edge, Spot)> {
        let edges = self.out.get(&txn).into_iter().flatten();
        let may_follow = move |edge: Edge| allowed.edges.contains(&edge) && !(by_rw && edge == Edge::Rw);
        let by_rw = move |edge: Edge| edge == Edge::Rw && !allowed.rw_after_rw;
        edges.filter(move |(edge, _)| may_follow(*edge)).map(move |&(edge, to)| (edge, (to, by_rw(edge))))
    }

    /// One finding for each knot of cycles; the simplest kinds first, and no transaction is explained twice.
    pub fn find_cycles(&self, history: &History, isolation: Isolation, found: &mut Vec<Anomaly>) {
        let mut explained: BTreeSet<TxnId> = BTreeSet::new();
        let forbidden: &[Paths] = match isolation {
            Isolation::Snapshot => &[OVERWRITES, INFORMATION, SNAPSHOTS],
            Isolation::Serializable => &[OVERWRITES, INFORMATION, SNAPSHOTS, ALL],
        };
        for &allowed in forbidden {
            for knot in Tarjan::knots(self, allowed) {
                if knot.iter().any(|(txn, _)| explained.contains(txn)) {
                    continue;
                }
                if let Some(cycle) = self.shortest_cycle(&knot, allowed) {
                    found.push(describe(classify(history, &cycle), cycle));
                    explained.extend(knot.iter().map(|(txn, _)| *txn));
                }
            }
        }
    }

    fn shortest_cycle(&self, knot: &BTreeSet<Spot>, allowed: Paths) -> Option<Cycle> {
        let cycles = knot.iter().take(STARTS_MAX).filter_map(|&start| self.cycle_through(start, knot, allowed));
        cycles.min_by_key(Vec::len)
    }

    /// Breadth first from a spot back to it, within its knot.
    fn cycle_through(&self, start: Spot, knot: &BTreeSet<Spot>, allowed: Paths) -> Option<Cycle> {
        let mut came_from: HashMap<Spot, (Spot, Edge)> = HashMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(spot) = queue.pop_front() {
            for (edge, next) in self.steps(spot, allowed).filter(|(_, next)| knot.contains(next)) {
                if next == start {
                    return Some(unwind(&came_from, start, spot, edge));
                }
                came_from.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    (spot, edge)
                });
            }
        }
        None
    }
}

fn unwind(came_from: &HashMap<Spot, (Spot, Edge)>, start: Spot, end: Spot, last_edge: Edge) -> Cycle {
    let mut cycle = vec![(end.0, last_edge)];
    let mut spot = end;
    while spot != start {
        let (before, edge) = came_from[&spot];
        cycle.push((before.0, edge));
        spot = before;
    }
    cycle.reverse();
    cycle
}

fn classify(history: &History, cycle: &Cycle) -> Kind {
    match cycle.iter().filter(|(_, edge)| *edge == Edge::Rw).count() {
        0 if cycle.iter().all(|(_, edge)| *edge == Edge::Ww) => Kind::G0,
        0 => Kind::G1c,
        1 if is_lost_update(history, cycle) => Kind::LostUpdate,
        1 => Kind::GSingle,
        _ if has_adjacent_rw(cycle) => Kind::G2,
        _ => Kind::GNonadjacent,
    }
}

fn has_adjacent_rw(cycle: &Cycle) -> bool {
    let next = cycle.iter().cycle().skip(1);
    cycle.iter().zip(next).any(|((_, edge), (_, next))| *edge == Edge::Rw && *next == Edge::Rw)
}

/// The one that read a list and did not see the other's append appended to that list itself.
fn is_lost_update(history: &History, cycle: &Cycle) -> bool {
    let Some(position) = cycle.iter().position(|(_, edge)| *edge == Edge::Rw) else { return false };
    let (reader, next) = (cycle[position].0, cycle[(position + 1) % cycle.len()].0);
    let appends = |txn: TxnId| -> BTreeSet<Key> {
        let ops = history[txn].ops.iter();
        ops.filter_map(|op| if let Op::Append(key, _) = op { Some(*key) } else { None }).collect()
    };
    let both: BTreeSet<Key> = appends(reader).intersection(&appends(next)).copied().collect();
    history[reader].ops.iter().any(|op| matches!(op, Op::Read(key, _) if both.contains(key)))
}

fn describe(kind: Kind, cycle: Cycle) -> Anomaly {
    let mut text = String::new();
    for (txn, edge) in &cycle {
        text += &format!("T{} -{}-> ", txn.0, format!("{edge:?}").to_lowercase());
    }
    text += &format!("T{}", cycle[0].0.0);
    Anomaly::new(kind, cycle.into_iter().map(|(txn, _)| txn).collect(), text)
}

/// Strongly connected components (Tarjan 1972, without recursion).
#[derive(Default)]
struct Tarjan {
    index: HashMap<Spot, usize>,
    low: HashMap<Spot, usize>,
    stack: Vec<Spot>,
    on_stack: BTreeSet<Spot>,
    knots: Vec<BTreeSet<Spot>>,
}

impl Tarjan {
    /// The components of more than one spot.
    fn knots(graph: &Graph, allowed: Paths) -> Vec<BTreeSet<Spot>> {
        let mut tarjan = Tarjan::default();
        for &txn in graph.out.keys() {
            if !tarjan.index.contains_key(&(txn, false)) {
                tarjan.visit(graph, allowed, (txn, false));
            }
        }
        tarjan.knots
    }

    fn visit(&mut self, graph: &Graph, allowed: Paths, root: Spot) {
        let targets = |spot| -> VecDeque<Spot> { graph.steps(spot, allowed).map(|(_, to)| to).collect() };
        self.enter(root);
        let mut work = vec![(root, targets(root))];
        while let Some((spot, left)) = work.last_mut() {
            let spot = *spot;
            match left.pop_front() {
                Some(to) if !self.index.contains_key(&to) => {
                    self.enter(to);
                    work.push((to, targets(to)));
                }
                Some(to) => {
                    if self.on_stack.contains(&to) {
                        self.lower(spot, self.index[&to]);
                    }
                }
                None => {
                    work.pop();
                    if let Some((parent, _)) = work.last() {
                        self.lower(*parent, self.low[&spot]);
                    }
                    if self.low[&spot] == self.index[&spot] {
                        self.leave(spot);
                    }
                }
            }
        }
    }

    fn enter(&mut self, spot: Spot) {
        let number = self.index.len();
        self.index.insert(spot, number);
        self.low.insert(spot, number);
        self.stack.push(spot);
        self.on_stack.insert(spot);
    }

    fn lower(&mut self, spot: Spot, to: usize) {
        let low = self.low.entry(spot).or_insert(to);
        *low = (*low).min(to);
    }

    fn leave(&mut self, head: Spot) {
        let mut knot = BTreeSet::new();
        while let Some(spot) = self.stack.pop() {
            self.on_stack.remove(&spot);
            knot.insert(spot);
            if spot == head {
                break;
            }
        }
        if knot.len() > 1 {
            self.knots.push(knot);
        }
    }
}
