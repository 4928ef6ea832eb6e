//! Code as words: identifiers, numbers, `::`, and every other character by itself. Comments are left out, and so is what stands
//! between quotes: a string or character is one word, `""`.

/// A word of code and the line that it stands in, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    pub text: &'a str,
    pub line: usize,
}

/// The place of any literal between quotes.
pub const QUOTED: &str = "\"\"";

pub fn words(text: &str) -> Vec<Word<'_>> {
    let mut reader = Reader { text, at: 0, line: 1 };
    std::iter::from_fn(|| reader.next()).collect()
}

pub fn is_identifier(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<Word<'a>> {
        self.skip_blanks_and_comments();
        let (line, rest) = (self.line, self.rest());
        let first = rest.chars().next()?;
        if let Some(length) = quoted(rest) {
            self.advance(length);
            return Some(Word { text: QUOTED, line });
        }
        let length = match first {
            // A lifetime, with the name that follows; a raw identifier.
            '\'' => 1 + identifier(&rest[1..]),
            'r' if rest.starts_with("r#") => 2 + identifier(&rest[2..]),
            c if c.is_alphanumeric() || c == '_' => identifier(rest),
            ':' if rest.starts_with("::") => 2,
            c => c.len_utf8(),
        };
        self.advance(length);
        Some(Word { text: &rest[..length], line })
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn advance(&mut self, length: usize) {
        self.line += self.rest()[..length].matches('\n').count();
        self.at += length;
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = self.rest();
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                block_comment(rest)
            } else {
                rest.len() - rest.trim_start().len()
            };
            if length == 0 {
                return;
            }
            self.advance(length);
        }
    }
}

fn identifier(rest: &str) -> usize {
    rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
}

/// The length of a block comment, which may hold others.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The length of the string or character at the front, if there is one.
fn quoted(rest: &str) -> Option<usize> {
    let after_prefix = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - after_prefix.len();
    if prefix > 1 {
        return None;
    }
    let length = match after_prefix.chars().next()? {
        '"' => escaped(after_prefix, '"'),
        '\'' if is_character(after_prefix) => escaped(after_prefix, '\''),
        'r' => raw_string(after_prefix)?,
        _ => return None,
    };
    Some(prefix + length)
}

/// Whether a quote opens a character and not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => true,
        (Some(_), next) => next == Some('\''),
        _ => false,
    }
}

fn escaped(rest: &str, end: char) -> usize {
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            c if c == end => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
    let content = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opening = 1 + hashes + 1;
    Some(content.find(&end).map_or(rest.len(), |at| opening + at + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(code: &str) -> Vec<&str> {
        words(code).into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn code_is_cut_into_words_and_knows_its_lines() {
        let code = "use crate::a;\nfn f(x: &'a str) {}";
        assert_eq!(texts(code), ["use", "crate", "::", "a", ";", "fn", "f", "(", "x", ":", "&", "'a", "str", ")", "{", "}"]);
        assert_eq!(words(code).last().map(|word| word.line), Some(2));
    }

    #[test]
    fn comments_and_what_is_quoted_are_no_code() {
        let code = r####"a /* b /* c */ d */ "e \" //" // f
            'g' b'\'' r#"h " i"# 'static r#type"####;
        assert_eq!(texts(code), ["a", QUOTED, QUOTED, QUOTED, QUOTED, "'static", "r#type"]);
        assert_eq!(words("\"two\nlines\" x")[1].line, 2);
    }
}
