//! The words of a statement's text: every name that it can mention is made of them.
//!
//! Two statements of one node may run at the same time. Elsewhere they run one after the other, so the later one's text is read when
//! the earlier one is already in the catalogs. It means the same there if it mentions no name that the earlier one made, renamed or
//! dropped. Nobody parses names for that: a text that mentions a name holds the name's words, wherever they stand, in quotes, in a
//! string or in a function's body. So sharing a word is more than sharing a name, never less.
//!
//! Words are runs of ASCII letters, digits, underscores and whatever is not ASCII; case does not count; as with names, what is beyond
//! [`NAME_BYTES_MAX`] does not either. A name in a text may be spelt with escapes, or a string in two parts: such a text has no words
//! that one could go by, and [`of`] gives none.
//!
//! A name is looked for in the schema that the text puts before it, or in those of the search path. So a name of one schema is nothing to a text in
//! whose words, and in whose search path, that schema does not occur ([`place`]).

use std::collections::BTreeSet;

use gcs_writeset::key::{mix, name_hash};

/// PostgreSQL's names are that long at most.
pub const NAME_BYTES_MAX: usize = 63;

/// Different words that a text may have; one that has more is not told apart from others.
pub const WORDS_MAX: usize = 1024;

/// The hashes of a text's words.
pub type Words = BTreeSet<u64>;

/// None if its words do not show what it mentions, or are too many.
pub fn of(text: &str) -> Option<Words> {
    if hides_names(text) {
        return None;
    }
    let words: Words = runs(text).map(hash).collect();
    (words.len() <= WORDS_MAX).then_some(words)
}

/// The words of one name; none if there is no letter in it.
pub fn of_name(name: &str) -> Option<Words> {
    let words: Words = runs(name).map(hash).collect();
    (!words.is_empty()).then_some(words)
}

/// The name without the number that PostgreSQL puts behind a name that it makes up when the first choice is taken. None if the first
/// choice was cut to the length of a name, and so may have been another one.
pub fn first_choice(name: &str) -> Option<&str> {
    (name.len() + 1 < NAME_BYTES_MAX).then(|| name.trim_end_matches(|c: char| c.is_ascii_digit()))
}

/// The name that PostgreSQL tried before this one, if it has made this one up for a relation and put a number behind it. Unknown for a name that
/// is as long as names can be: it was cut, by whole characters, and the one before it at another place.
pub fn made_up_before(name: &str) -> Option<String> {
    if name.len() + 4 >= NAME_BYTES_MAX {
        return None;
    }
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = name[stem.len()..].parse().ok()?;
    let is_made_up = ["_seq", "_idx", "_pkey", "_key", "_excl"].iter().any(|label| stem.ends_with(label));
    (is_made_up && number > 0).then(|| if number == 1 { stem.to_owned() } else { format!("{stem}{}", number - 1) })
}

/// What a word of a name in this schema goes by; without one, what it goes by wherever the name may be looked for.
pub fn place(schema: Option<Schema>, word: u64) -> u64 {
    schema.map_or(word, |Schema(schema)| mix(schema.rotate_left(17) ^ word))
}

/// A schema that a text mentions if it has this one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Schema(u64);

impl Schema {
    /// None if its name is not one word, and that of plain letters: then it can't be told which texts mention it.
    pub fn of_name(name: &str) -> Option<Schema> {
        let is_one_word = name.is_ascii() && name.len() <= NAME_BYTES_MAX && runs(name).eq([name]);
        is_one_word.then(|| Schema(hash(name)))
    }
}

/// The schemas that a text mentions, as `is_schema` tells names of schemas. Of a word that is spelt in capitals it is asked for both spellings.
pub fn schemas(text: &str, is_schema: impl Fn(&str) -> bool) -> BTreeSet<Schema> {
    let words: BTreeSet<&str> =
        runs(text).filter(|word| word.is_ascii()).map(|word| &word[..word.len().min(NAME_BYTES_MAX)]).collect();
    let is_any = |word: &&&str| {
        is_schema(word) || word.bytes().any(|b| b.is_ascii_uppercase()) && is_schema(&word.to_ascii_lowercase())
    };
    words.iter().filter(is_any).filter_map(|word| Schema::of_name(word)).collect()
}

fn runs(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_').filter(|run| !run.is_empty())
}

fn hash(word: &str) -> u64 {
    let end = (0..=NAME_BYTES_MAX.min(word.len())).rev().find(|&at| word.is_char_boundary(at)).unwrap_or(0);
    name_hash(&[&word[..end].to_ascii_lowercase()])
}

fn hides_names(text: &str) -> bool {
    let has_escapes = text.contains('\\') || text.as_bytes().windows(2).any(|pair| pair.eq_ignore_ascii_case(b"u&"));
    let has_long_quotes = text.split('"').skip(1).step_by(2).any(|quoted| quoted.len() > NAME_BYTES_MAX);
    has_escapes || has_long_quotes || has_strings_in_parts(text)
}

/// SQL joins 'ab' and 'cd' if there is a line's end between them.
fn has_strings_in_parts(text: &str) -> bool {
    let mut parts = text.split('\'');
    parts.next();
    parts.any(|between| between.contains(['\n', '\r']) && between.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mentions(text: &str, name: &str) -> bool {
        of(text).unwrap().is_superset(&of_name(name).unwrap())
    }

    #[test]
    fn a_made_up_name_with_a_number_follows_another() {
        assert_eq!(made_up_before("t_id_seq"), None);
        assert_eq!(made_up_before("t_id_seq1").as_deref(), Some("t_id_seq"));
        assert_eq!(made_up_before("t_pkey12").as_deref(), Some("t_pkey11"));
        assert_eq!(made_up_before("t1"), None);
        assert_eq!(made_up_before("t_idx0"), None);
        assert_eq!(made_up_before(&format!("{}_seq1", "t".repeat(58))), None);
    }

    #[test]
    fn a_text_mentions_the_schemas_that_it_has_words_of() {
        let schemas_of = |text| schemas(text, |name| ["shop", "Loud", "public"].contains(&name));
        let some = |names: &[&str]| names.iter().filter_map(|name| Schema::of_name(name)).collect::<BTreeSet<_>>();
        assert_eq!(schemas_of("CREATE TABLE shop.orders (n int)"), some(&["shop"]));
        assert_eq!(schemas_of("create table SHOP.orders; select 'public.t'"), some(&["shop", "public"]));
        assert_eq!(schemas_of(r#"CREATE INDEX ON "Loud".orders (shopping)"#), some(&["loud"]));
        assert_eq!(schemas_of("VALUES (1)"), some(&[]));
    }

    #[test]
    fn a_schema_whose_name_is_not_one_plain_word_is_none_to_be_told_by() {
        for name in ["two words", "m\u{fc}ller", "", "a-b"] {
            assert_eq!(Schema::of_name(name), None, "{name}");
        }
        let (shop, other) = (Schema::of_name("shop"), Schema::of_name("other"));
        assert!(place(shop, 1) != place(other, 1) && place(shop, 1) != place(shop, 2) && place(None, 1) == 1);
    }

    #[test]
    fn a_text_mentions_a_name_however_it_is_spelt() {
        assert!(mentions("ALTER TABLE Orders ADD x int", "orders"));
        assert!(mentions(r#"ALTER TABLE "Two Words" ADD x int"#, "Two Words"));
        assert!(mentions("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $body$SELECT n FROM orders$body$", "orders"));
        assert!(mentions("ALTER TABLE t ALTER x SET DEFAULT nextval('public.numbers'::regclass)", "numbers"));
        assert!(mentions("CREATE VIEW größe AS SELECT 1", "größe"));
        assert!(!mentions("CREATE TABLE orders_old (n int)", "orders"));
        let long = "n".repeat(80);
        assert!(mentions(&format!("CREATE TABLE {long} (n int)"), &long[..NAME_BYTES_MAX]));
        assert_eq!(of_name("--"), None);
    }

    #[test]
    fn a_text_that_can_hide_a_name_has_no_words() {
        for text in [
            r#"ALTER TABLE U&"d\0061ta" ADD x int"#,
            r#"ALTER TABLE u&"d!0061ta" UESCAPE '!' ADD x int"#,
            r"ALTER TABLE t ALTER x SET DEFAULT nextval(E'\x61'::regclass)",
            "ALTER TABLE t ALTER x SET DEFAULT nextval('num'\n 'bers'::regclass)",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(of(&format!(r#"ALTER TABLE "a {}" ADD x int"#, "b".repeat(80))), None);
        let many: String = (0..=WORDS_MAX).map(|n| format!("w{n} ")).collect();
        assert_eq!(of(&many), None);
    }

    #[test]
    fn a_made_up_name_goes_back_to_its_first_choice() {
        assert_eq!(first_choice("t_a_idx12"), Some("t_a_idx"));
        assert_eq!(first_choice("t_a_idx"), Some("t_a_idx"));
        assert_eq!(first_choice(&"x".repeat(62)), None);
    }
}
