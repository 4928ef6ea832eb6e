//! What one module declares, what it imports, and the paths in its code. What is compiled for tests only is left out.

use std::collections::BTreeSet;

use super::words::{Word, is_identifier, words};

/// A path in code, segment by segment.
pub type Path = Vec<String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Items declared here: functions, types, constants ...
    pub declared: BTreeSet<String>,
    pub modules: Vec<Module>,
    pub imports: Vec<Import>,
    /// Paths that stand in the code itself; a name by itself is a path of one segment.
    pub paths: BTreeSet<Path>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    pub name: String,
    /// `None` if it stands in a file of its own.
    pub content: Option<Names>,
}

/// One name that a `use` brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    pub path: Path,
    /// What it is called here; `None` for `*`.
    pub name: Option<String>,
    /// Passed on to others: `pub use`.
    pub is_passed_on: bool,
}

pub fn names(text: &str) -> Names {
    let words = words(text);
    let mut reader = Reader { words: &words, at: 0 };
    reader.module()
}

const KINDS_OF_ITEMS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

struct Reader<'a> {
    words: &'a [Word<'a>],
    at: usize,
}

impl<'a> Reader<'a> {
    fn word(&self, offset: usize) -> &'a str {
        self.words.get(self.at + offset).map_or("", |word| word.text)
    }

    fn previous(&self) -> &'a str {
        self.at.checked_sub(1).map_or("", |at| self.words[at].text)
    }

    /// Up to the brace that closes the module, or to the end of the file.
    fn module(&mut self) -> Names {
        let mut names = Names::default();
        let mut depth = 0;
        while self.at < self.words.len() {
            match self.word(0) {
                "#" => self.attribute(),
                "use" if is_identifier(self.word(1)) || matches!(self.word(1), "{" | "::") => self.import(&mut names),
                "mod" if is_identifier(self.word(1)) => self.inner_module(&mut names),
                "{" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" if depth == 0 => {
                    self.at += 1;
                    return names;
                }
                "}" => {
                    depth -= 1;
                    self.at += 1;
                }
                kind if depth == 0 && KINDS_OF_ITEMS.contains(&kind) => {
                    self.at += 1;
                    let name = if self.word(0) == "!" { self.word(1) } else { self.word(0) };
                    // Not the second word of `const fn f`.
                    if !KINDS_OF_ITEMS.contains(&name) {
                        names.declared.insert(name.to_owned());
                    }
                }
                word if is_identifier(word) => self.path(&mut names),
                _ => self.at += 1,
            }
        }
        names
    }

    /// Steps over an attribute, and over the item behind it if that is for tests only.
    fn attribute(&mut self) {
        let inner = self.word(1) == "!";
        self.at += if inner { 2 } else { 1 };
        if self.word(0) != "[" {
            return;
        }
        let start = self.at;
        self.skip_group();
        let words: Vec<&str> = self.words[start + 1..self.at].iter().map(|word| word.text).collect();
        let for_tests = words.first() == Some(&"cfg") && words.contains(&"test") && !words.contains(&"not");
        if for_tests && !inner {
            self.skip_item();
        }
    }

    /// From an opening bracket to behind the one that closes it.
    fn skip_group(&mut self) {
        let mut depth = 0;
        while self.at < self.words.len() {
            match self.word(0) {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_item(&mut self) {
        while self.at < self.words.len() {
            match self.word(0) {
                ";" => {
                    self.at += 1;
                    return;
                }
                "{" => return self.skip_group(),
                "(" | "[" => self.skip_group(),
                _ => self.at += 1,
            }
        }
    }

    fn inner_module(&mut self, names: &mut Names) {
        let name = self.word(1).to_owned();
        let has_content = self.word(2) == "{";
        self.at += 3;
        let content = has_content.then(|| self.module());
        names.modules.push(Module { name, content });
    }

    fn import(&mut self, names: &mut Names) {
        let is_passed_on = self.previous() == "pub" || self.is_behind_restricted_pub();
        self.at += 1;
        self.tree(Vec::new(), is_passed_on, &mut names.imports);
    }

    /// `pub(crate)`, `pub(in some::path)`.
    fn is_behind_restricted_pub(&self) -> bool {
        let before = &self.words[..self.at];
        before.last().is_some_and(|word| word.text == ")")
            && before.iter().rposition(|word| word.text == "(").is_some_and(|at| at > 0 && before[at - 1].text == "pub")
    }

    /// One branch of a `use`, up to the comma, brace or semicolon behind it.
    fn tree(&mut self, mut path: Path, is_passed_on: bool, imports: &mut Vec<Import>) {
        loop {
            match self.word(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.word(0), "}" | "") {
                        self.tree(path.clone(), is_passed_on, imports);
                        if self.word(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "*" => {
                    self.at += 1;
                    imports.push(Import { path, name: None, is_passed_on });
                    return;
                }
                "as" => {
                    let name = Some(self.word(1).to_owned());
                    self.at += 2;
                    imports.push(Import { path, name, is_passed_on });
                    return;
                }
                word if is_identifier(word) => {
                    path.push(word.to_owned());
                    self.at += 1;
                }
                _ => {
                    if path.last().is_some_and(|last| last == "self") {
                        path.pop();
                    }
                    let name = path.last().cloned();
                    imports.push(Import { path, name, is_passed_on });
                    return;
                }
            }
        }
    }

    fn path(&mut self, names: &mut Names) {
        let is_continued = matches!(self.previous(), "." | "::");
        let mut path = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && is_identifier(self.word(1)) {
            path.push(self.word(1).to_owned());
            self.at += 2;
        }
        if !is_continued {
            names.paths.insert(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(path: &str, name: Option<&str>, is_passed_on: bool) -> Import {
        Import { path: path.split("::").map(str::to_owned).collect(), name: name.map(str::to_owned), is_passed_on }
    }

    #[test]
    fn every_name_of_a_use_is_found() {
        let found = names("use a::{self, b::*, c::{d as e, f}};\npub(crate) use crate::g;");
        let expected = [
            import("a", Some("a"), false),
            import("a::b", None, false),
            import("a::c::d", Some("e"), false),
            import("a::c::f", Some("f"), false),
            import("crate::g", Some("g"), true),
        ];
        assert_eq!(found.imports, expected);
    }

    #[test]
    fn items_modules_and_paths_are_told_apart() {
        let found = names(
            "mod a;\nmod b { fn inner() {} }\npub const fn f(x: super::X) -> u8 { let y = a::g::<u8>(x.z); y }\nstruct S;",
        );
        assert_eq!(found.declared, ["f", "S"].map(str::to_owned).into());
        let modules: Vec<_> = found.modules.iter().map(|module| (module.name.as_str(), module.content.is_some())).collect();
        assert_eq!(modules, [("a", false), ("b", true)]);
        let has = |path: &str| found.paths.contains(&path.split("::").map(str::to_owned).collect::<Path>());
        assert!(has("super::X") && has("a::g") && !has("z"), "{:?}", found.paths);
    }

    #[test]
    fn what_is_for_tests_only_is_left_out() {
        let found = names("#[cfg(test)]\n#[allow(x)]\nmod tests { use crate::a; }\n#[cfg(not(test))]\nuse crate::b;");
        assert_eq!((found.imports, found.modules), (vec![import("crate::b", Some("b"), false)], vec![]));
    }
}
