//! The words of a spec: identifiers, numbers, punctuation and SQL blocks (PostgreSQL's specscanner.l).

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Unquoted, so it may be a keyword.
    Plain(String),
    Quoted(String),
    Number(usize),
    /// What stands between braces, without the white space at both ends.
    Sql(String),
    Punctuation(char),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Wrong {
    pub line: usize,
    pub what: String,
}

pub fn wrong(line: usize, what: impl Into<String>) -> Wrong {
    Wrong { line, what: what.into() }
}

/// The words with the line each starts on.
pub fn words(text: &str) -> Result<Vec<(Word, usize)>, Wrong> {
    let mut lexer = Lexer { rest: text.chars().peekable(), line: 1 };
    let mut words = Vec::new();
    while let Some(c) = lexer.next() {
        let line = lexer.line;
        let word = match c {
            '#' => {
                lexer.take_while(|c| c != '\n');
                continue;
            }
            c if c.is_whitespace() => continue,
            '{' => Word::Sql(lexer.until('}', "SQL block")?.trim().to_owned()),
            '"' => Word::Quoted(lexer.until('"', "quoted name")?),
            ',' | '(' | ')' | '*' => Word::Punctuation(c),
            c if c.is_ascii_digit() => {
                let digits = format!("{c}{}", lexer.take_while(|c| c.is_ascii_digit()));
                Word::Number(digits.parse().map_err(|_| wrong(line, format!("{digits} is too large")))?)
            }
            c if c.is_alphabetic() || c == '_' => {
                Word::Plain(format!("{c}{}", lexer.take_while(|c| c.is_alphanumeric() || c == '_' || c == '$')))
            }
            c => return Err(wrong(line, format!("unexpected character {c:?}"))),
        };
        words.push((word, line));
    }
    Ok(words)
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while self.rest.peek().is_some_and(|&c| wanted(c)) {
            text.extend(self.next());
        }
        text
    }

    fn until(&mut self, end: char, what: &str) -> Result<String, Wrong> {
        let line = self.line;
        let text = self.take_while(|c| c != end);
        self.next().map(|_| text).ok_or_else(|| wrong(line, format!("{what} without its end")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_white_space_are_no_words() {
        let found: Vec<Word> = words("a # b\n\"c d\"(*, 3) {  SELECT 1 }").unwrap().into_iter().map(|(w, _)| w).collect();
        let p = Word::Punctuation;
        let wanted = [
            Word::Plain("a".into()),
            Word::Quoted("c d".into()),
            p('('),
            p('*'),
            p(','),
            Word::Number(3),
            p(')'),
            Word::Sql("SELECT 1".into()),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_has_no_end_names_the_line_it_starts_on() {
        assert_eq!(words("a\n{ SELECT").unwrap_err().line, 2);
    }
}
