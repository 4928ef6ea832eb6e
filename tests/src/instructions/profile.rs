//! What callgrind wrote of one process.
//!
//! Of its format (Valgrind's manual, "Callgrind Format Specification") two things count here: the sum of all instructions, and the calls. A call stands
//! in two lines behind the name of the function that is called:
//!
//! ```text
//! cfn=(12) gcs_writeset::writeset::Envelope::encode
//! calls=100 57
//! +3 84200
//! ```
//!
//! says that it was called 100 times, from one place, which took 84,200 instructions, with all that it called in its turn. A name is
//! given once, with a number; later only the number stands there.
//!
//! A function that calls itself is counted for its inner calls too, so such ones must not be asked for. One that the compiler
//! has put into its caller is not there at all.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub calls: u64,
    /// With what they called.
    pub instructions: u64,
}

#[derive(Debug, Default)]
pub struct Profile {
    /// Of the whole process.
    pub instructions: u64,
    called: HashMap<String, Calls>,
}

impl Profile {
    pub fn read(path: &Path) -> Result<Profile, String> {
        let text = fs::read(path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
        Profile::parse(&String::from_utf8_lossy(&text)).map_err(|why| format!("{}: {why}", path.display()))
    }

    pub fn parse(text: &str) -> Result<Profile, String> {
        let mut profile = Profile::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let mut called = "";
        let mut lines = text.lines();
        let mut is_whole = false;
        while let Some(line) = lines.next() {
            let Some((key, value)) = line.split_once(['=', ':']) else { continue };
            match key {
                "fn" | "cfn" => {
                    let name = named(&mut names, value);
                    called = if key == "cfn" { name } else { called };
                }
                "calls" => {
                    let cost = lines.next().and_then(|cost| cost.split(' ').nth(1)?.parse::<u64>().ok());
                    let calls = value.split(' ').next().and_then(|calls| calls.parse::<u64>().ok());
                    let (Some(calls), Some(cost)) = (calls, cost) else {
                        return Err(format!("not understood, of a call of {called}: {line}"));
                    };
                    let sum = profile.called.entry(called.to_owned()).or_default();
                    sum.calls += calls;
                    sum.instructions += cost;
                }
                // The last line.
                "totals" => {
                    profile.instructions = value.trim().parse().map_err(|_| format!("not understood: {line}"))?;
                    is_whole = true;
                }
                _ => {}
            }
        }
        if is_whole { Ok(profile) } else { Err("no line \"totals\": its process has not ended, or was killed".to_owned()) }
    }

    /// All calls of all functions of that name.
    pub fn calls(&self, function: &str) -> Calls {
        self.called.get(function).copied().unwrap_or_default()
    }
}

/// `(12) name` the first time, `(12)` afterwards.
fn named<'a>(names: &mut HashMap<&'a str, &'a str>, value: &'a str) -> &'a str {
    match value.split_once(' ') {
        Some((number, name)) => {
            // Of calls within calls callgrind keeps the depth: `f'2`.
            let name = name.split_once('\'').map_or(name, |(name, _)| name);
            names.insert(number, name);
            name
        }
        None => names.get(value).copied().unwrap_or(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version: 1\npositions: line\nevents: Ir\nsummary: 1000\n\n\
        fl=(1) a.rs\nfn=(1) main\n10 5\ncfn=(2) work::step\ncalls=3 7\n+1 300\n\
        fn=(3) other\ncfi=(2) b.rs\ncfn=(2)\ncalls=1 7\n* 90\n4 6\n\ntotals: 1000\n";

    #[test]
    fn calls_from_several_places_are_added() {
        let profile = Profile::parse(TEXT).unwrap();
        assert_eq!(profile.instructions, 1000);
        assert_eq!(profile.calls("work::step"), Calls { calls: 4, instructions: 390 });
        assert_eq!(profile.calls("main"), Calls::default());
    }

    #[test]
    fn half_a_file_is_an_error() {
        let (half, _) = TEXT.split_once("\ntotals").unwrap();
        assert!(Profile::parse(half).unwrap_err().contains("has not ended"));
        assert!(Profile::parse("fn=(1) a\ncfn=(2) b\ncalls=x\n").unwrap_err().contains("not understood, of a call of b"));
    }
}
