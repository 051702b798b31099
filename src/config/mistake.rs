//! What is wrong with something said: where, the offending text, the problem and its remedy.
//!
//! Knows nothing of options; it only words what others found.

use std::fmt;

use super::Origin;

/// A value that is refused: why, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// What is wrong with it.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl Wrong {
    pub fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// One mistake of the configuration. Displays as one line: where, the offending text, the problem; the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where it was said.
    pub origin: Origin,
    /// The offending text.
    pub quote: String,
    /// Why it is refused.
    pub wrong: Wrong,
}

impl Mistake {
    pub fn new(origin: Origin, quote: impl Into<String>, wrong: Wrong) -> Self {
        let quote = quote.into();
        Self { origin, quote, wrong }
    }

    /// The mistake of an option's value. Flags and variables name the option in their origin already.
    pub fn of_value(origin: Origin, name: &str, text: &str, wrong: Wrong) -> Self {
        let quote = match origin {
            Origin::Default | Origin::File { .. } => format!("{name} = {text}"),
            Origin::Environment(_) | Origin::Flag(_) | Origin::Argument => text.to_owned(),
        };
        Self::new(origin, quote, wrong)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = printable(&self.quote);
        match &self.origin {
            Origin::Default => write!(f, "{quote}")?,
            Origin::File { .. } => write!(f, "{}: {quote}", self.origin)?,
            Origin::Environment(name) => write!(f, "{name}={quote}")?,
            Origin::Flag(_) | Origin::Argument => write!(f, "{} {quote}", self.origin)?,
        }
        write!(f, ": {}; {}", printable(&self.wrong.problem), printable(&self.wrong.remedy))
    }
}

/// The text as a terminal may see it: control characters escaped, cut where it gets long.
fn printable(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown = String::new();
    for c in text.chars().take(LONGEST) {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// The known name nearest to `name`, where one is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    // A quarter of the letters: `socketprt` is meant as `socketPort`, `sslKeyFile` is not meant as `socketFile`.
    let tolerated = (name.chars().count() / 4).max(1);
    known
        .map(|k| (strsim::damerau_levenshtein(&name, &k.to_lowercase()), k))
        .filter(|(distance, _)| *distance <= tolerated)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_what_why_and_the_remedy() {
        let wrong = Wrong::new("out of range", "say less");
        let file = Origin::File { file: "site.conf".into(), line: 3 };
        let cases = [
            (file, "site.conf:3: a = 1: out of range; say less"),
            (Origin::Flag("a".into()), "--a 1: out of range; say less"),
            (Origin::Environment("REGROW_a".into()), "REGROW_a=1: out of range; say less"),
            (Origin::Argument, "FOLDER 1: out of range; say less"),
            (Origin::Default, "a = 1: out of range; say less"),
        ];
        for (origin, line) in cases {
            let mistake = Mistake::of_value(origin, "a", "1", wrong.clone());
            assert_eq!(mistake.to_string(), line);
        }
    }

    #[test]
    fn a_quote_cannot_drive_the_terminal_nor_flood_it() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable(&"é".repeat(300)).chars().count(), 201);
    }

    #[test]
    fn only_a_near_name_is_a_hint() {
        let known = ["socketPort", "socketFile", "index"];
        let hint = |name| nearest(name, known.into_iter());
        assert_eq!(hint("socketprt"), Some("socketPort"));
        assert_eq!(hint("SOCKETPORT"), Some("socketPort"));
        assert_eq!(hint("inedx"), Some("index"));
        assert_eq!(hint("sslKeyFile"), None);
        assert_eq!(hint("forking"), None);
    }
}
