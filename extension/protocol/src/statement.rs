//! `ALTER DATABASE ... START REPLICATION ...` and its kin, which PostgreSQL's grammar does not know, as read from what a client typed.
//!
//! ```text
//! ALTER DATABASE name START REPLICATION IN GROUP name [USING gcs] [;]
//! ALTER DATABASE name STOP REPLICATION [FORCE] [;]
//! ```
//!
//! Names are read as PostgreSQL reads them: folded to lower case unless quoted. Comments and white space may stand anywhere.

/// Longer texts are certainly not one of ours.
const STATEMENT_BYTES_MAX: usize = 4096;

/// What is to become of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Start {
        group: String,
    },
    /// With `force` also where the group cannot be told.
    Stop {
        force: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub database: String,
    pub wanted: Wanted,
}

/// `None` unless the whole text is one of our statements.
pub fn parse(text: &str) -> Option<Statement> {
    if text.len() > STATEMENT_BYTES_MAX {
        return None;
    }
    let mut tokens = tokenize(text)?;
    while tokens.last() == Some(&Token::Semicolon) {
        tokens.pop();
    }
    let mut tokens = tokens.as_slice();
    keywords(&mut tokens, &["alter", "database"])?;
    let database = name(&mut tokens)?;
    let wanted = if keywords(&mut tokens, &["stop", "replication"]).is_some() {
        let force = !tokens.is_empty();
        if force {
            keywords(&mut tokens, &["force"])?;
        }
        Wanted::Stop { force }
    } else {
        keywords(&mut tokens, &["start", "replication", "in", "group"])?;
        let group = name(&mut tokens)?;
        if !tokens.is_empty() {
            keywords(&mut tokens, &["using", "gcs"])?;
        }
        Wanted::Start { group }
    };
    tokens.is_empty().then_some(Statement { database, wanted })
}

/// The one of our statements that stands among others, if the parser stumbles over it `at` bytes into the text. PostgreSQL's own grammar takes
/// STOP REPLICATION without FORCE for an option, so that it never stumbles there.
pub fn among_others(text: &str, at: usize) -> Option<Wanted> {
    let (before, from) = text.split_at_checked(at)?;
    let begins = before.rfind(';').map_or(0, |end| end + 1);
    let ends = from.find(';').map_or(text.len(), |end| at + end);
    let statement = parse(&text[begins..ends])?;
    parse(text).is_none().then_some(statement.wanted)
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Folded to lower case, as PostgreSQL folds it.
    Word(String),
    Quoted(String),
    Semicolon,
}

fn keywords(tokens: &mut &[Token], wanted: &[&str]) -> Option<()> {
    let found =
        tokens.len() >= wanted.len() && tokens.iter().zip(wanted).all(|(t, w)| matches!(t, Token::Word(word) if word == w));
    found.then(|| *tokens = &tokens[wanted.len()..])
}

fn name(tokens: &mut &[Token]) -> Option<String> {
    let (first, rest) = tokens.split_first()?;
    let name = match first {
        Token::Word(name) | Token::Quoted(name) => name.clone(),
        Token::Semicolon => return None,
    };
    *tokens = rest;
    Some(name)
}

fn tokenize(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_space(rest)?;
        let Some(first) = rest.chars().next() else { return Some(tokens) };
        if first == ';' {
            tokens.push(Token::Semicolon);
            rest = &rest[1..];
        } else if first == '"' {
            let (name, after) = quoted(&rest[1..])?;
            tokens.push(Token::Quoted(name));
            rest = after;
        } else if first.is_alphabetic() || first == '_' || !first.is_ascii() {
            let end =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii())).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_ascii_lowercase()));
            rest = &rest[end..];
        } else {
            return None;
        }
    }
}

/// White space and comments; block comments nest. `None` when a comment does not end.
fn skip_space(mut rest: &str) -> Option<&str> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find(['\n', '\r']).map_or("", |end| &comment[end..]);
        } else if rest.starts_with("/*") {
            rest = skip_block_comment(rest)?;
        } else {
            return Some(rest);
        }
    }
}

fn skip_block_comment(text: &str) -> Option<&str> {
    let mut depth = 0;
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
        } else {
            let mut chars = rest.chars();
            chars.next()?;
            rest = chars.as_str();
        }
        if depth == 0 {
            return Some(rest);
        }
    }
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if text[index + 1..].starts_with('"') {
            name.push('"');
            chars.next();
        } else {
            return (!name.is_empty()).then_some((name, &text[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(database: &str, group: &str) -> Option<Statement> {
        Some(Statement { database: database.into(), wanted: Wanted::Start { group: group.into() } })
    }

    #[test]
    fn the_statement_as_documented_is_understood() {
        assert_eq!(parse("ALTER DATABASE shop START REPLICATION IN GROUP postgresr"), start("shop", "postgresr"));
        assert_eq!(parse("ALTER DATABASE shop START REPLICATION IN GROUP postgresr USING gcs;"), start("shop", "postgresr"));
        for (text, force) in
            [("ALTER DATABASE shop STOP REPLICATION", false), ("alter database SHOP stop replication Force;", true)]
        {
            assert_eq!(parse(text), Some(Statement { database: "shop".into(), wanted: Wanted::Stop { force } }), "{text}");
        }
    }

    #[test]
    fn case_space_comments_and_quotes_are_as_in_sql() {
        let text = "  alter\n\tDataBase -- which\n \"My \"\"Shop\"\"\"/* a /* nested */ one */Start REPLICATION in\tGROUP \"G\" ; ;";
        assert_eq!(parse(text), start("My \"Shop\"", "G"));
    }

    #[test]
    fn a_statement_among_others_is_seen_where_the_parser_stumbles() {
        for text in [
            "SELECT 1; ALTER DATABASE shop START REPLICATION IN GROUP g",
            "SELECT 'a;b', 2.5; ALTER DATABASE \"My shop\" /* here */ START REPLICATION IN GROUP g; SELECT 'x'",
            "alter database shop START REPLICATION in group \"g\"; SELECT 1",
            "ALTER DATABASE é START REPLICATION IN GROUP g; SELECT '\u{1F600}'",
        ] {
            let found = among_others(text, text.find("START").unwrap());
            assert!(matches!(found, Some(Wanted::Start { .. })), "{text}");
        }
        let forced = "SELECT 1; ALTER DATABASE shop STOP REPLICATION FORCE";
        assert_eq!(among_others(forced, forced.find("FORCE").unwrap()), Some(Wanted::Stop { force: true }));
        for text in [
            "SELECT 1; ALTER TABLE shop START REPLICATION IN GROUP g",
            "SELECT 1; ALTER DATABASE shop START SOMETHING",
            "SELECT 1; ALTER DATABASE shop owner START REPLICATION IN GROUP g",
            "SELECT 1 START",
            "SELECT 1; ALTER DATABASE shop START REPLICATION IN GROUP",
            "ALTER DATABASE shop START REPLICATION IN GROUP; SELECT 1",
            "ALTER DATABASE shop START REPLICATION IN GROUP g",
        ] {
            assert_eq!(among_others(text, text.find("START").unwrap()), None, "{text}");
        }
        assert!(among_others("é", 1).is_none() && among_others("", 7).is_none());
    }

    #[test]
    fn anything_else_is_left_alone() {
        for text in [
            "",
            "ALTER DATABASE shop START REPLICATION",
            "ALTER DATABASE shop START REPLICATION IN GROUP",
            "ALTER DATABASE shop START REPLICATION IN GROUP g USING tcp",
            "ALTER DATABASE shop START REPLICATION IN GROUP g; SELECT 1",
            "SELECT 1; ALTER DATABASE shop STOP REPLICATION",
            "ALTER DATABASE shop STOP REPLICATION NOW",
            "ALTER DATABASE shop STOP REPLICATION FORCE FORCE",
            "ALTER DATABASE shop STOP REPLICATION \"force\"",
            "ALTER DATABASE \"shop STOP REPLICATION",
            "ALTER DATABASE shop /* STOP REPLICATION",
            "ALTER DATABASE 'shop' STOP REPLICATION",
            "ALTER \"database\" shop STOP REPLICATION",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
