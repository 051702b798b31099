//! The syntax of the configuration file: bytes in; section headers, entries and mistakes out.
//!
//! `[section]`, `name = value`, comments (`#` or `;`) on lines of their own. The value is the rest of the line without
//! surrounding blanks, or stands in double quotes. Knows no option and no section by name.

use super::Origin;
use super::mistake::{Mistake, Wrong};

/// A line that says something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it stands.
    pub origin: Origin,
    /// What it says.
    pub item: Item,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// `[name]`
    Section(String),
    /// `name = value`
    Entry {
        /// Left of the first `=`, never empty.
        name: String,
        /// Right of it, unquoted; may be empty.
        value: String,
    },
}

/// Reads a whole file; a line that is wrong does not hide the mistakes of the following ones.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> (Vec<Line>, Vec<Mistake>) {
    let (mut lines, mut mistakes) = (Vec::new(), Vec::new());
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    for (index, raw) in bytes.split(|&b| b == b'\n').enumerate() {
        let file = file.to_owned();
        let line = index + 1;
        let origin = Origin::File { file, line };
        match parse_line(raw) {
            Ok(None) => {}
            Ok(Some(item)) => lines.push(Line { origin, item }),
            Err(wrong) => {
                let quote = String::from_utf8_lossy(raw);
                mistakes.push(Mistake::new(origin, quote.trim(), wrong));
            }
        }
    }
    (lines, mistakes)
}

fn parse_line(raw: &[u8]) -> Result<Option<Item>, Wrong> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    let Ok(text) = std::str::from_utf8(raw) else {
        return Err(Wrong::new("not UTF-8", "save the file as UTF-8"));
    };
    if let Some(control) = text.chars().find(|c| c.is_control() && *c != '\t') {
        let problem = format!("contains the control character U+{:04X}", u32::from(control));
        return Err(Wrong::new(problem, "remove it"));
    }
    let text = trim(text);
    if text.is_empty() || text.starts_with(['#', ';']) {
        Ok(None)
    } else if let Some(rest) = text.strip_prefix('[') {
        section(rest).map(Some)
    } else {
        entry(text).map(Some)
    }
}

fn section(rest: &str) -> Result<Item, Wrong> {
    match rest.split_once(']') {
        Some((name, "")) => Ok(Item::Section(trim(name).to_owned())),
        Some(_) => {
            Err(Wrong::new("text after the section", "end the line with `]`; a comment stands on a line of its own"))
        }
        None => Err(Wrong::new("the `]` is missing", "write a section as [name]")),
    }
}

fn entry(text: &str) -> Result<Item, Wrong> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Wrong::new("no `=`", "write name = value, or begin a comment with #"));
    };
    let (name, value) = (trim(name).to_owned(), unquote(trim(value))?.to_owned());
    if name.is_empty() {
        return Err(Wrong::new("no name before the `=`", "write name = value"));
    }
    Ok(Item::Entry { name, value })
}

fn unquote(value: &str) -> Result<&str, Wrong> {
    let Some(rest) = value.strip_prefix('"') else {
        return Ok(value);
    };
    match rest.split_once('"') {
        Some((inner, "")) => Ok(inner),
        Some(_) => Err(Wrong::new(
            "text after the closing quote",
            "quote the whole value; it cannot contain a double quote itself, nor be followed by a comment",
        )),
        None => Err(Wrong::new("the closing quote is missing", "end the value with a double quote")),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<Item> {
        let (lines, mistakes) = parse("f", text.as_bytes());
        assert_eq!(mistakes, []);
        lines.into_iter().map(|l| l.item).collect()
    }

    fn mistakes(bytes: &[u8]) -> Vec<String> {
        let (_, mistakes) = parse("f", bytes);
        mistakes.iter().map(ToString::to_string).collect()
    }

    fn entry(name: &str, value: &str) -> Item {
        Item::Entry { name: name.into(), value: value.into() }
    }

    #[test]
    fn sections_entries_comments_and_blanks_are_told_apart() {
        let text = "\u{feff}# one\n  ; two\n\n[ server ]\r\n\tsocketPort\t=  80 \r\na=b=c\n[x]";
        let expected =
            [Item::Section("server".into()), entry("socketPort", "80"), entry("a", "b=c"), Item::Section("x".into())];
        assert_eq!(items(text), expected);
    }

    #[test]
    fn quotes_keep_blanks_and_comment_signs() {
        assert_eq!(items("a = \" # x \""), [entry("a", " # x ")]);
        assert_eq!(items("a = \"\""), [entry("a", "")]);
        assert_eq!(items("a = x \"y\""), [entry("a", "x \"y\"")]);
        assert_eq!(items("a ="), [entry("a", "")]);
    }

    #[test]
    fn a_comment_sign_in_a_value_belongs_to_it() {
        assert_eq!(items("a = /x#y ; z"), [entry("a", "/x#y ; z")]);
    }

    #[test]
    fn every_wrong_line_is_reported_with_its_number() {
        let text = b"fine = 1\nwhat\n= 3\n[server\n[server] # x\na = \"b\na = \"b\" c\nn\0ul = 1\n\xff = 1";
        let found = mistakes(text);
        let wanted = [
            "f:2: what: no `=`;",
            "f:3: = 3: no name",
            "f:4: [server: the `]` is missing",
            "f:5: [server] # x: text after the section",
            "f:6: a = \"b: the closing quote is missing",
            "f:7: a = \"b\" c: text after the closing quote",
            "f:8: n\\u{0}ul = 1: contains the control character U+0000",
            "f:9: \u{fffd} = 1: not UTF-8",
        ];
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.starts_with(wanted), "{found}");
        }
    }

    #[test]
    fn a_lone_carriage_return_is_a_mistake() {
        assert_eq!(mistakes(b"a = 1\rb = 2").len(), 1);
    }
}
