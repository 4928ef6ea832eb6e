//! `ALTER DATABASE ... START REPLICATION ...` and its kin, which PostgreSQL's grammar does not know, as read from what a client typed.
//!
//! ```text
//! ALTER DATABASE name START REPLICATION IN GROUP name [USING gcs] [WITH (option [, ...])] [;]
//! ALTER DATABASE name STOP REPLICATION [FORCE] [;]
//!
//! option := OVERWRITE [= {true | false | on | off | 1 | 0}]
//! ```
//!
//! Names are read as PostgreSQL reads them: folded to lower case unless quoted. Comments and white space may stand anywhere. A list of options
//! that is well-formed, but says what nobody knows or says it twice, makes the text one of ours all the same: the client is told which option it
//! is ([`OptionError`]), where a syntax error would point at the word START.

/// Longer texts are certainly not one of ours.
const STATEMENT_BYTES_MAX: usize = 4096;

/// What is to become of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// With `overwrite` also where the database has contents: the group's take their place.
    Start { group: String, overwrite: bool },
    /// With `force` also where the group cannot be told.
    Stop { force: bool },
}

#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    pub database: String,
    pub wanted: Wanted,
}

/// What is wrong with a list of options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionError {
    /// No option has this name.
    Unknown(String),
    /// This option is given more than once.
    Repeated(String),
    /// This option is true or false, and is given something else.
    NotBoolean(String),
}

/// `None` unless the whole text is one of our statements.
pub fn parse(text: &str) -> Option<Result<Statement, OptionError>> {
    if text.len() > STATEMENT_BYTES_MAX {
        return None;
    }
    let mut tokens = tokenize(text)?;
    while tokens.last() == Some(&Token::Symbol(';')) {
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
        let _ = keywords(&mut tokens, &["using", "gcs"]);
        let options = options(&mut tokens)?;
        match is_overwriting(&options) {
            Ok(overwrite) => Wanted::Start { group, overwrite },
            Err(error) => return tokens.is_empty().then_some(Err(error)),
        }
    };
    tokens.is_empty().then_some(Ok(Statement { database, wanted }))
}

/// An option as it is written: its name, and its value if it has one.
type Given = (String, Option<String>);

/// `WITH (...)`, if it is there. `None` if it is not well-formed.
fn options(tokens: &mut &[Token]) -> Option<Vec<Given>> {
    let mut found = Vec::new();
    if keywords(tokens, &["with"]).is_none() {
        return Some(found);
    }
    symbol(tokens, '(')?;
    loop {
        let option = name(tokens)?;
        let value = match symbol(tokens, '=') {
            Some(()) => Some(value(tokens)?),
            None => None,
        };
        found.push((option, value));
        if symbol(tokens, ',').is_none() {
            symbol(tokens, ')')?;
            return Some(found);
        }
    }
}

/// What the options of START come to. An option without a value is on, as in PostgreSQL's own lists.
fn is_overwriting(options: &[Given]) -> Result<bool, OptionError> {
    let mut overwrite = None;
    for (option, value) in options {
        if option != "overwrite" {
            return Err(OptionError::Unknown(option.clone()));
        }
        let is_on = match value.as_deref() {
            None | Some("true" | "on" | "1") => true,
            Some("false" | "off" | "0") => false,
            Some(_) => return Err(OptionError::NotBoolean(option.clone())),
        };
        if overwrite.replace(is_on).is_some() {
            return Err(OptionError::Repeated(option.clone()));
        }
    }
    Ok(overwrite.unwrap_or(false))
}

/// The one of our statements that stands among others, if the parser stumbles over it `at` bytes into the text. PostgreSQL's own grammar takes
/// STOP REPLICATION without FORCE for an option, so that it never stumbles there.
pub fn among_others(text: &str, at: usize) -> Option<Result<Wanted, OptionError>> {
    let (before, from) = text.split_at_checked(at)?;
    let begins = before.rfind(';').map_or(0, |end| end + 1);
    let ends = from.find(';').map_or(text.len(), |end| at + end);
    let statement = parse(&text[begins..ends])?;
    parse(text).is_none().then_some(statement.map(|statement| statement.wanted))
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Folded to lower case, as PostgreSQL folds it.
    Word(String),
    Quoted(String),
    Number(String),
    /// One of [`SYMBOLS`].
    Symbol(char),
}

const SYMBOLS: [char; 5] = [';', '(', ')', ',', '='];

fn keywords(tokens: &mut &[Token], wanted: &[&str]) -> Option<()> {
    let found =
        tokens.len() >= wanted.len() && tokens.iter().zip(wanted).all(|(t, w)| matches!(t, Token::Word(word) if word == w));
    found.then(|| *tokens = &tokens[wanted.len()..])
}

fn symbol(tokens: &mut &[Token], wanted: char) -> Option<()> {
    let (first, rest) = tokens.split_first()?;
    (*first == Token::Symbol(wanted)).then(|| *tokens = rest)
}

fn name(tokens: &mut &[Token]) -> Option<String> {
    let (first, rest) = tokens.split_first()?;
    let name = match first {
        Token::Word(name) | Token::Quoted(name) => name.clone(),
        Token::Number(_) | Token::Symbol(_) => return None,
    };
    *tokens = rest;
    Some(name)
}

/// Of an option.
fn value(tokens: &mut &[Token]) -> Option<String> {
    let (first, rest) = tokens.split_first()?;
    let value = match first {
        Token::Word(value) | Token::Number(value) => value.clone(),
        Token::Quoted(_) | Token::Symbol(_) => return None,
    };
    *tokens = rest;
    Some(value)
}

fn tokenize(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_space(rest)?;
        let Some(first) = rest.chars().next() else { return Some(tokens) };
        if SYMBOLS.contains(&first) {
            tokens.push(Token::Symbol(first));
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
        } else if first.is_ascii_digit() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            // No digits that a name, or a fraction, goes on with.
            if rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_' || !c.is_ascii()) {
                return None;
            }
            tokens.push(Token::Number(rest[..end].to_owned()));
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

    type Parsed = Option<Result<Statement, OptionError>>;

    fn start_with(database: &str, group: &str, overwrite: bool) -> Parsed {
        Some(Ok(Statement { database: database.into(), wanted: Wanted::Start { group: group.into(), overwrite } }))
    }

    fn start(database: &str, group: &str) -> Parsed {
        start_with(database, group, false)
    }

    #[test]
    fn the_statement_as_documented_is_understood() {
        assert_eq!(parse("ALTER DATABASE shop START REPLICATION IN GROUP postgresr"), start("shop", "postgresr"));
        assert_eq!(parse("ALTER DATABASE shop START REPLICATION IN GROUP postgresr USING gcs;"), start("shop", "postgresr"));
        for (text, force) in
            [("ALTER DATABASE shop STOP REPLICATION", false), ("alter database SHOP stop replication Force;", true)]
        {
            let statement = Statement { database: "shop".into(), wanted: Wanted::Stop { force } };
            assert_eq!(parse(text), Some(Ok(statement)), "{text}");
        }
    }

    #[test]
    fn options_are_lists_as_postgresql_has_them() {
        for (options, overwrite) in [
            ("WITH (OVERWRITE)", true),
            ("USING gcs WITH (OVERWRITE);", true),
            ("with(overwrite)", true),
            ("With /* a list */ ( \"overwrite\" = TRUE ) ; ;", true),
            ("WITH (Overwrite = on)", true),
            ("WITH (OVERWRITE=1)", true),
            ("WITH (OVERWRITE = false)", false),
            ("WITH (OVERWRITE = Off)", false),
            ("WITH (OVERWRITE = 0)", false),
        ] {
            let text = format!("ALTER DATABASE shop START REPLICATION IN GROUP g {options}");
            assert_eq!(parse(&text), start_with("shop", "g", overwrite), "{text}");
        }
    }

    #[test]
    fn an_option_that_nobody_knows_is_named_and_so_is_one_that_is_given_twice_or_is_no_boolean() {
        let unknown = |name: &str| OptionError::Unknown(name.into());
        for (options, error) in [
            ("WITH (FORCE)", unknown("force")),
            ("WITH (\"OVERWRITE\")", unknown("OVERWRITE")),
            ("WITH (OVERWRITE, copy_from = n1)", unknown("copy_from")),
            ("WITH (OVERWRITE, overwrite)", OptionError::Repeated("overwrite".into())),
            ("WITH (OVERWRITE = on, OVERWRITE = off)", OptionError::Repeated("overwrite".into())),
            ("WITH (OVERWRITE = maybe)", OptionError::NotBoolean("overwrite".into())),
            ("WITH (OVERWRITE = 2)", OptionError::NotBoolean("overwrite".into())),
        ] {
            let text = format!("ALTER DATABASE shop START REPLICATION IN GROUP g {options}");
            assert_eq!(parse(&text), Some(Err(error.clone())), "{text}");
            let among = format!("SELECT 1; {text}");
            assert_eq!(among_others(&among, among.find("START").unwrap()), Some(Err(error)), "{among}");
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
            "SELECT (1, 2); ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE); SELECT 2",
        ] {
            let found = among_others(text, text.find("START").unwrap());
            assert!(matches!(found, Some(Ok(Wanted::Start { .. }))), "{text}");
        }
        let forced = "SELECT 1; ALTER DATABASE shop STOP REPLICATION FORCE";
        assert_eq!(among_others(forced, forced.find("FORCE").unwrap()), Some(Ok(Wanted::Stop { force: true })));
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
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH OVERWRITE",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH ()",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE,)",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE) WITH (OVERWRITE)",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE) USING gcs",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE true)",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE =)",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (OVERWRITE = 1x)",
            "ALTER DATABASE shop START REPLICATION IN GROUP g WITH (FORCE); SELECT 1",
            "ALTER DATABASE shop START REPLICATION IN GROUP g (OVERWRITE)",
            "ALTER DATABASE shop STOP REPLICATION WITH (FORCE)",
            "ALTER DATABASE 7 STOP REPLICATION",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
