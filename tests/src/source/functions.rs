//! Where each function begins and ends.

use super::words::{Word, is_identifier, words};

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Where it begins, from 1.
    pub line: usize,
    /// From its `fn` to its last brace.
    pub lines: usize,
}

pub fn functions(text: &str) -> Vec<Function> {
    let words = words(text);
    let mut found = Vec::new();
    for (at, pair) in words.windows(2).enumerate() {
        // `fn` without a name is the type of a function.
        if pair[0].text == "fn"
            && is_identifier(pair[1].text)
            && let Some(end) = end_of_body(&words[at..])
        {
            let line = pair[0].line;
            found.push(Function { name: pair[1].text.to_owned(), line, lines: end.line + 1 - line });
        }
    }
    found
}

/// The brace that closes the first body; `None` for a declaration without one.
fn end_of_body<'a>(words: &[Word<'a>]) -> Option<Word<'a>> {
    let mut depth = 0;
    for word in words {
        match word.text {
            // Array types have semicolons too: `[u8; 4]`.
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 => return Some(*word),
            "}" => depth -= 1,
            ";" if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_measured_from_its_first_word_to_its_last_brace() {
        let code =
            "trait T {\n fn declared(x: [u8; 4]);\n}\nfn outer(f: fn(u8)) {\n  let x = [{ 1 }; 2];\n  fn inner() {}\n}\n";
        let found = functions(code);
        let of = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        assert_eq!(found, [of("outer", 4, 4), of("inner", 6, 1)]);
    }
}
