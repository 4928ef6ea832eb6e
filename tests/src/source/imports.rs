//! Which file of a crate takes what from which other file.
//!
//! A path is followed to the file that declares what it names, through modules and through names that are passed on with
//! `pub use`. To declare a module (`mod a;`) or to pass a name on (`pub use a::Name;`) takes nothing from a file by itself: what
//! counts is who uses the name.
//!
//! Left out on purpose: names that macros make, and names that come in with a `pub use` of everything in the same module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::names::{Import, Names, names};
use super::tree::{read, root, shown};

/// For each file, by its path from the project's root, the files that it takes something from, and what.
pub type Imports = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The imports inside the crate whose Cargo.toml stands in `directory`.
pub fn imports(directory: &str) -> Imports {
    let source = root().join(directory).join("src");
    let main = ["lib.rs", "main.rs"].map(|name| source.join(name)).into_iter().find(|file| file.exists());
    let main = main.unwrap_or_else(|| panic!("{directory} has neither src/lib.rs nor src/main.rs"));
    let mut tree = Tree::default();
    tree.add(None, &main, &source, names(&read(&main)));
    tree.imports()
}

/// Deeper chains of names that are passed on than anybody would write.
const FOLLOWED_MAX: usize = 16;

#[derive(Default)]
struct Tree {
    modules: Vec<Node>,
}

struct Node {
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    file: String,
    names: Names,
}

/// Where a path leads.
enum Found {
    Module(usize),
    /// Declared in this module, under this name.
    Item(usize, String),
}

impl Tree {
    /// Adds a module and all below it. Files of modules inside it stand in `directory`.
    fn add(&mut self, parent: Option<usize>, file: &Path, directory: &Path, mut names: Names) -> usize {
        let modules = std::mem::take(&mut names.modules);
        let node = self.modules.len();
        self.modules.push(Node { parent, children: BTreeMap::new(), file: shown(file), names });
        for module in modules {
            let below = directory.join(&module.name);
            let child = match module.content {
                Some(content) => self.add(Some(node), file, &below, content),
                None => {
                    let candidates = [directory.join(format!("{}.rs", module.name)), below.join("mod.rs")];
                    let own = candidates.iter().find(|file| file.exists());
                    let own = own.unwrap_or_else(|| panic!("{}: no file for module {}", shown(file), module.name));
                    self.add(Some(node), own, &below, names_of(own))
                }
            };
            self.modules[node].children.insert(module.name, child);
        }
        node
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (at, node) in self.modules.iter().enumerate() {
            let taken = imports.entry(node.file.clone()).or_default();
            for (from, name) in self.taken_by(at) {
                let file = &self.modules[from].file;
                if *file != node.file {
                    taken.entry(file.clone()).or_default().insert(name);
                }
            }
        }
        imports
    }

    /// What a module takes, and from which.
    fn taken_by(&self, at: usize) -> Vec<(usize, String)> {
        let names = &self.modules[at].names;
        let mut taken = Vec::new();
        for import in names.imports.iter().filter(|import| !import.is_passed_on) {
            match (self.follow(at, &import.path, 0), &import.name) {
                (Some(Found::Item(module, name)), _) => taken.push((module, name)),
                (Some(Found::Module(module)), None) => taken.push((module, "*".to_owned())),
                // The paths that begin with the module's name say what is taken.
                _ => {}
            }
        }
        let is_passed_on = |name: &String| names.imports.iter().any(|i| i.is_passed_on && i.name.as_ref() == Some(name));
        for path in names.paths.iter().filter(|path| path.len() > 1 || is_passed_on(&path[0])) {
            if let Some(Found::Item(module, name)) = self.follow(at, path, 0) {
                taken.push((module, name));
            }
        }
        taken
    }

    /// Where a path in module `from` leads; `None` if that is outside of the crate, or no path at all.
    fn follow(&self, from: usize, path: &[String], followed: usize) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        let start = match first.as_str() {
            "crate" => Found::Module(0),
            "self" => Found::Module(from),
            "super" => Found::Module(self.modules[from].parent?),
            name => self.look_up(from, name, followed)?,
        };
        let mut module = match start {
            Found::Module(module) => module,
            item => return Some(item),
        };
        for segment in rest {
            match segment.as_str() {
                "super" => module = self.modules[module].parent?,
                "self" => {}
                name => match self.look_up(module, name, followed) {
                    Some(Found::Module(inner)) => module = inner,
                    Some(item) => return Some(item),
                    // From a macro, most likely.
                    None => return Some(Found::Item(module, name.to_owned())),
                },
            }
        }
        Some(Found::Module(module))
    }

    /// What a name means in a module.
    fn look_up(&self, at: usize, name: &str, followed: usize) -> Option<Found> {
        let node = &self.modules[at];
        if let Some(child) = node.children.get(name) {
            return Some(Found::Module(*child));
        }
        if node.names.declared.contains(name) {
            return Some(Found::Item(at, name.to_owned()));
        }
        if followed == FOLLOWED_MAX {
            return None;
        }
        let imports = &node.names.imports;
        if let Some(import) = imports.iter().find(|import| import.name.as_deref() == Some(name)) {
            return self.follow_import(at, import, followed);
        }
        imports.iter().filter(|import| import.name.is_none()).find_map(|everything| {
            match self.follow_import(at, everything, followed)? {
                Found::Module(module) => self.look_up(module, name, followed + 1),
                Found::Item(..) => None,
            }
        })
    }

    fn follow_import(&self, at: usize, import: &Import, followed: usize) -> Option<Found> {
        // `use a::a;` does not mean itself.
        let is_itself = import.path.len() == 1 && import.name.as_ref() == import.path.first();
        if is_itself { None } else { self.follow(at, &import.path, followed + 1) }
    }
}

fn names_of(file: &Path) -> Names {
    names(&read(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of a root and modules of these names, each with its code.
    fn crate_of(root: &str, modules: &[(&str, &str)]) -> Imports {
        let mut tree = Tree::default();
        let node = |parent, file: &str, code: &str| Node {
            parent,
            children: BTreeMap::new(),
            file: file.to_owned(),
            names: Names { modules: Vec::new(), ..names(code) },
        };
        tree.modules.push(node(None, "root", root));
        for (at, (name, code)) in modules.iter().enumerate() {
            tree.modules.push(node(Some(0), name, code));
            tree.modules[0].children.insert((*name).to_owned(), at + 1);
        }
        tree.imports()
    }

    fn shows(imports: &Imports, from: &str, to: &str, name: &str) -> bool {
        imports[from].get(to).is_some_and(|names| names.contains(name))
    }

    #[test]
    fn a_name_that_is_passed_on_leads_to_where_it_is_declared() {
        let root = "mod a; mod b; mod c; pub use a::A; pub use c::*;";
        let b = "use super::A; use crate::C; fn f() { crate::a::g() }";
        let found = crate_of(root, &[("a", "pub struct A; pub fn g() {}"), ("b", b), ("c", "pub struct C;")]);
        assert!(shows(&found, "b", "a", "A") && shows(&found, "b", "a", "g") && shows(&found, "b", "c", "C"), "{found:?}");
        assert!(found["root"].is_empty() && !found["b"].contains_key("root"), "{found:?}");
    }

    #[test]
    fn a_module_that_is_imported_counts_by_the_paths_that_begin_with_it() {
        let found = crate_of(
            "mod a; mod b; mod c;",
            &[("a", "pub fn g() {}"), ("b", "use super::a; fn f() { a::g() }"), ("c", "use super::a;")],
        );
        assert!(shows(&found, "b", "a", "g") && found["c"].is_empty(), "{found:?}");
    }

    #[test]
    fn a_parent_that_uses_what_it_passes_on_takes_it() {
        let found = crate_of("mod a; pub use a::A; fn f(a: A) {}", &[("a", "pub struct A; fn h() { super::f() }")]);
        assert!(shows(&found, "root", "a", "A") && shows(&found, "a", "root", "f"), "{found:?}");
    }

    #[test]
    fn names_from_other_crates_are_nobodys() {
        let found =
            crate_of("mod a; mod b;", &[("a", "use std::fmt; fn f() { fmt::Display::g(); tokio::spawn() }"), ("b", "")]);
        assert!(found["a"].is_empty(), "{found:?}");
    }
}
