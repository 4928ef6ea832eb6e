//! A spec, parsed and checked: names resolved, nothing left to go wrong while it runs.

use std::collections::BTreeSet;
use std::iter::Peekable;

use super::lexer::{self, Word, Wrong, wrong};
use crate::harness::node;
use gcs::playground::NodeNumber;

#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Run on node 1, one after the other.
    pub setups: Vec<String>,
    pub teardown: Option<String>,
    pub sessions: Vec<Session>,
    pub permutations: Vec<Vec<Start>>,
}

#[derive(Clone, Debug)]
pub struct Session {
    pub name: String,
    pub node: NodeNumber,
    pub setup: Option<String>,
    pub teardown: Option<String>,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub name: String,
    pub sql: String,
}

/// Which step of which session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepId {
    pub session: usize,
    pub step: usize,
}

/// A step's place in a permutation.
#[derive(Clone, Debug)]
pub struct Start {
    pub step: StepId,
    pub markers: Vec<Marker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// `*`: reported as waiting in any case.
    Waits,
    /// Not reported as completed while that step is active.
    After(StepId),
    /// Not reported as completed before that step's session has sent so many notices.
    Notices(StepId, usize),
    /// The group is not settled after it.
    Async,
}

impl Spec {
    pub fn step(&self, id: StepId) -> &Step {
        &self.sessions[id.session].steps[id.step]
    }

    pub fn parse(text: &str) -> Result<Spec, Wrong> {
        let words = lexer::words(text)?;
        let last_line = words.last().map_or(1, |(_, line)| *line);
        let mut parser = Parser { words: words.into_iter().peekable(), line: last_line };
        let spec = parser.spec()?;
        Ok(spec)
    }

    fn find(&self, name: &str, line: usize) -> Result<StepId, Wrong> {
        let mut ids = self.sessions.iter().enumerate().flat_map(|(session, s)| {
            s.steps.iter().enumerate().map(move |(step, found)| (StepId { session, step }, &found.name))
        });
        ids.find(|(_, found)| *found == name)
            .map(|(id, _)| id)
            .ok_or_else(|| wrong(line, format!("there is no step \"{name}\"")))
    }

    fn check_names(&self) -> Result<(), Wrong> {
        let mut steps = BTreeSet::new();
        let mut sessions = BTreeSet::new();
        for session in &self.sessions {
            if !sessions.insert(&session.name) {
                return Err(wrong(1, format!("two sessions are named \"{}\"", session.name)));
            }
            for step in &session.steps {
                if !steps.insert(&step.name) {
                    return Err(wrong(1, format!("two steps are named \"{}\"", step.name)));
                }
            }
        }
        Ok(())
    }

    /// All interleavings, each session's steps in their order.
    fn interleavings(&self) -> Vec<Vec<Start>> {
        let mut found = Vec::new();
        let mut next = vec![0; self.sessions.len()];
        self.interleave(&mut next, &mut Vec::new(), &mut found);
        found
    }

    fn interleave(&self, next: &mut [usize], chosen: &mut Vec<Start>, found: &mut Vec<Vec<Start>>) {
        let mut is_complete = true;
        for session in 0..self.sessions.len() {
            if next[session] == self.sessions[session].steps.len() {
                continue;
            }
            is_complete = false;
            chosen.push(Start { step: StepId { session, step: next[session] }, markers: Vec::new() });
            next[session] += 1;
            self.interleave(next, chosen, found);
            next[session] -= 1;
            chosen.pop();
        }
        if is_complete {
            found.push(chosen.clone());
        }
    }
}

struct Parser {
    words: Peekable<std::vec::IntoIter<(Word, usize)>>,
    line: usize,
}

impl Parser {
    fn spec(&mut self) -> Result<Spec, Wrong> {
        let mut spec = Spec::default();
        while self.keyword("setup") {
            spec.setups.push(self.sql()?);
        }
        spec.teardown = self.optional_sql("teardown")?;
        while self.keyword("session") {
            spec.sessions.push(self.session()?);
        }
        if spec.sessions.is_empty() {
            return Err(wrong(self.line, "a spec needs a session"));
        }
        spec.check_names()?;
        while self.keyword("permutation") {
            let starts = self.permutation(&spec)?;
            spec.permutations.push(starts);
        }
        if let Some((word, line)) = self.words.next() {
            return Err(wrong(line, format!("unexpected {word:?}")));
        }
        if spec.permutations.is_empty() {
            spec.permutations = spec.interleavings();
        }
        Ok(spec)
    }

    fn session(&mut self) -> Result<Session, Wrong> {
        let name = self.name()?;
        let node = if self.keyword("on") { self.node()? } else { node(1) };
        let setup = self.optional_sql("setup")?;
        let mut steps = Vec::new();
        while self.keyword("step") {
            steps.push(Step { name: self.name()?, sql: self.sql()? });
        }
        let teardown = self.optional_sql("teardown")?;
        Ok(Session { name, node, setup, teardown, steps })
    }

    fn node(&mut self) -> Result<NodeNumber, Wrong> {
        let name = self.name()?;
        let number = name.strip_prefix('n').and_then(|number| number.parse().ok()).filter(|&number| number > 0);
        number.map(node).ok_or_else(|| wrong(self.line, format!("\"{name}\" is no node; the first is n1")))
    }

    fn permutation(&mut self, spec: &Spec) -> Result<Vec<Start>, Wrong> {
        let mut starts = Vec::new();
        while let Some((Word::Plain(_) | Word::Quoted(_), _)) = self.words.peek() {
            if self.peek_keyword("permutation") {
                break;
            }
            let name = self.name()?;
            let step = spec.find(&name, self.line)?;
            let mut markers = Vec::new();
            if self.punctuation('(') {
                markers.push(self.marker(spec)?);
                while self.punctuation(',') {
                    markers.push(self.marker(spec)?);
                }
                if !self.punctuation(')') {
                    return Err(wrong(self.line, "the markers of a step end with )"));
                }
            }
            starts.push(Start { step, markers });
        }
        Ok(starts)
    }

    fn marker(&mut self, spec: &Spec) -> Result<Marker, Wrong> {
        if self.punctuation('*') {
            return Ok(Marker::Waits);
        }
        if self.keyword("async") {
            return Ok(Marker::Async);
        }
        let name = self.name()?;
        let step = spec.find(&name, self.line)?;
        if !self.keyword("notices") {
            return Ok(Marker::After(step));
        }
        match self.words.next() {
            Some((Word::Number(count), _)) => Ok(Marker::Notices(step, count)),
            _ => Err(wrong(self.line, "how many notices?")),
        }
    }

    fn peek_keyword(&mut self, keyword: &str) -> bool {
        matches!(self.words.peek(), Some((Word::Plain(word), _)) if word == keyword)
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = self.peek_keyword(keyword);
        if found {
            self.advance();
        }
        found
    }

    fn punctuation(&mut self, wanted: char) -> bool {
        let found = matches!(self.words.peek(), Some((Word::Punctuation(c), _)) if *c == wanted);
        if found {
            self.advance();
        }
        found
    }

    fn advance(&mut self) -> Option<Word> {
        let (word, line) = self.words.next()?;
        self.line = line;
        Some(word)
    }

    fn name(&mut self) -> Result<String, Wrong> {
        match self.advance() {
            Some(Word::Plain(name) | Word::Quoted(name)) => Ok(name),
            other => Err(wrong(self.line, format!("a name is missing before {other:?}"))),
        }
    }

    fn sql(&mut self) -> Result<String, Wrong> {
        match self.advance() {
            Some(Word::Sql(sql)) => Ok(sql),
            other => Err(wrong(self.line, format!("an SQL block is missing before {other:?}"))),
        }
    }

    fn optional_sql(&mut self, keyword: &str) -> Result<Option<String>, Wrong> {
        if self.keyword(keyword) { self.sql().map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
        setup { CREATE TABLE t () } teardown { DROP TABLE t }
        session s1 setup { BEGIN } step a { SELECT 1 } step b { COMMIT }
        session \"s2\" on n2 step c { SELECT 2 }";

    #[test]
    fn a_session_is_on_the_first_node_unless_it_says_otherwise() {
        let spec = Spec::parse(TWO).unwrap();
        assert_eq!(spec.sessions.iter().map(|session| session.node).collect::<Vec<_>>(), [node(1), node(2)]);
        assert_eq!(spec.sessions[0].setup.as_deref(), Some("BEGIN"));
    }

    #[test]
    fn without_permutations_there_are_all_interleavings() {
        let spec = Spec::parse(TWO).unwrap();
        let names: Vec<String> = spec
            .permutations
            .iter()
            .map(|starts| starts.iter().map(|start| spec.step(start.step).name.as_str()).collect())
            .collect();
        assert_eq!(names, ["abc", "acb", "cab"]);
    }

    #[test]
    fn markers_name_steps_of_any_session() {
        let spec = Spec::parse(&format!("{TWO} permutation a(*) c(a, b notices 2, async) b")).unwrap();
        let (b, a) = (StepId { session: 0, step: 1 }, StepId { session: 0, step: 0 });
        assert_eq!(spec.permutations[0][0].markers, [Marker::Waits]);
        assert_eq!(spec.permutations[0][1].markers, [Marker::After(a), Marker::Notices(b, 2), Marker::Async]);
    }

    #[test]
    fn an_unknown_step_is_an_error_with_its_line() {
        assert_eq!(Spec::parse(&format!("{TWO}\npermutation a d")).unwrap_err().line, 5);
    }

    #[test]
    fn two_steps_of_one_name_are_an_error() {
        assert!(Spec::parse("session s step a {} session t step a {}").is_err());
    }
}
