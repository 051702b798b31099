//! What was said, in layers: defaults < file < environment < flags. The stronger layer wins.
//!
//! Names are judged here and values by their rows; nothing is taken back when something else is wrong, so that all
//! mistakes are found at once.

use std::path::{Path, PathBuf};

use super::ini::{self, Item};
use super::kind::Kind;
use super::mistake::{Mistake, Wrong, nearest};
use super::options::{Choice, Row, SECTIONS, Section, option, options};
use super::{Origin, Setting, Sources, StaticContent};

/// What the environment's names begin with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "REGROW_";

/// Everything that was said about the options, weakest layer first.
#[derive(Default)]
pub(crate) struct Layers {
    said: Vec<Said>,
    /// What `[staticContent]` and FOLDER say.
    pub(crate) static_content: Vec<StaticContent>,
    /// Everything that is wrong, in no order.
    pub mistakes: Vec<Mistake>,
}

/// One option as it was said.
struct Said {
    row: &'static Row,
    text: String,
    origin: Origin,
    base: PathBuf,
    understood: bool,
}

impl Layers {
    /// Takes in every layer.
    pub fn collect(sources: &Sources) -> Self {
        let mut layers = Self::default();
        if let Some(file) = &sources.file {
            layers.hear_file(&file.name, &file.bytes, &file.folder);
        }
        for (name, text) in &sources.environment {
            layers.hear_variable(name, text, &sources.current_folder);
        }
        for (name, text) in &sources.flags {
            layers.hear_flag(name, text, &sources.current_folder);
        }
        if let Some(folder) = &sources.folder {
            layers.hear_argument(&sources.current_folder.join(folder));
        }
        layers.settle_conflicts();
        layers
    }

    /// The value that holds: the last one said and understood, or the default.
    pub(super) fn read<T>(&self, name: &str, default: &str, kind: &Kind<T>) -> Result<Setting<T>, Wrong> {
        let holds = |said: &&Said| said.row.name == name && said.understood;
        let (value, origin) = match self.said.iter().rfind(holds) {
            Some(said) => (kind.read(&said.text, &said.base)?, said.origin.clone()),
            None => (kind.read(default, Path::new(""))?, Origin::Default),
        };
        Ok(Setting { value, origin })
    }

    fn hear_file(&mut self, file: &str, bytes: &[u8], folder: &Path) {
        let (lines, mistakes) = ini::parse(file, bytes);
        self.mistakes.extend(mistakes);
        let mut section = Heading::None;
        for ini::Line { origin, item } in lines {
            match item {
                Item::Section(name) => section = self.heading(&name, origin),
                Item::Entry { name, value } => match section {
                    Heading::Unknown => {}
                    Heading::None => self.outside(&name, &value, origin),
                    Heading::Known(section) if section.entries.is_some() => {
                        self.hear_static_content(&name, &value, &origin, folder);
                    }
                    Heading::Known(section) => {
                        self.hear_entry(section, &name, &value, origin, folder);
                    }
                },
            }
        }
    }

    fn heading(&mut self, name: &str, origin: Origin) -> Heading {
        if let Some(section) = SECTIONS.iter().find(|s| s.name == name) {
            return Heading::Known(section);
        }
        let names = || SECTIONS.iter().map(|s| s.name);
        let remedy = match nearest(name, names()) {
            Some(near) => format!("did you mean [{near}]?"),
            None => format!("the sections are [{}]", names().collect::<Vec<_>>().join("] [")),
        };
        let wrong = Wrong::new("no such section", remedy);
        self.mistakes.push(Mistake::new(origin, format!("[{name}]"), wrong));
        Heading::Unknown
    }

    fn outside(&mut self, name: &str, value: &str, origin: Origin) {
        let section = option(name).map_or("server", |row| row.section);
        let wrong = Wrong::new("stands before any section", format!("put it below a line [{section}]"));
        self.mistakes.push(Mistake::of_value(origin, name, value, wrong));
    }

    fn hear_entry(&mut self, section: &Section, name: &str, value: &str, origin: Origin, folder: &Path) {
        let wrong = match option(name) {
            None => unknown(name, ""),
            Some(row) if row.section != section.name => {
                Wrong::new(format!("not an option of [{}]", section.name), format!("put it below [{}]", row.section))
            }
            // The file is heard first, so whatever was said of this option stands in it too.
            Some(row) => match self.said.iter().find(|said| said.row.name == row.name) {
                Some(first) => Wrong::new(format!("already said at {}", first.origin), "remove one of the two lines"),
                None => return self.hear_option(row, value, origin, folder),
            },
        };
        self.mistakes.push(Mistake::of_value(origin, name, value, wrong));
    }

    /// Names that begin in lower case are ours. Others only resemble ours: a service manager may inject
    /// `REGROW_PORT`, so these are refused only where they spell an option in another way.
    fn hear_variable(&mut self, variable: &str, text: &str, folder: &Path) {
        let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else {
            return;
        };
        let origin = Origin::Environment(variable.to_owned());
        if let Some(row) = option(name) {
            return self.hear_option(row, text, origin, folder);
        }
        let joined = name.replace('_', "");
        let ours = name.starts_with(|c: char| c.is_ascii_lowercase());
        if ours || options().any(|row| row.name.eq_ignore_ascii_case(&joined)) {
            let wrong = unknown(&joined, ENVIRONMENT_PREFIX);
            self.mistakes.push(Mistake::new(origin, text, wrong));
        }
    }

    fn hear_flag(&mut self, name: &str, text: &str, folder: &Path) {
        let origin = Origin::Flag(name.to_owned());
        match option(name) {
            Some(row) => self.hear_option(row, text, origin, folder),
            None => self.mistakes.push(Mistake::new(origin, text, unknown(name, "--"))),
        }
    }

    fn hear_option(&mut self, row: &'static Row, text: &str, origin: Origin, base: &Path) {
        let judged = if text.is_empty() {
            let remedy = format!("write {}, or leave it out", row.shape.accepts());
            Err(Wrong::new("no value", remedy))
        } else {
            (row.check)(text, base).map_err(|wrong| with_comment_hint(wrong, text, &origin))
        };
        let understood = judged.is_ok();
        if let Err(wrong) = judged {
            let mistake = Mistake::of_value(origin.clone(), row.name, text, wrong);
            self.mistakes.push(mistake);
        }
        self.said.push(Said { row, text: text.to_owned(), origin, base: base.to_owned(), understood });
    }

    fn hear_static_content(&mut self, name: &str, value: &str, origin: &Origin, base: &Path) {
        let judged = read_prefix(name).and_then(|prefix| match value {
            "" => Err(Wrong::new("no folder or file", format!("write {name} = folder"))),
            _ => Ok(prefix),
        });
        let judged = judged.and_then(|prefix| match self.static_content.iter().find(|s| s.prefix == prefix) {
            Some(first) => {
                Err(Wrong::new(format!("{prefix} is already said at {}", first.origin), "remove one of the two lines"))
            }
            None => Ok(prefix),
        });
        match judged {
            Ok(prefix) => {
                self.static_content.push(StaticContent { prefix, path: base.join(value), origin: origin.clone() });
            }
            Err(wrong) => {
                let mistake = Mistake::of_value(origin.clone(), name, value, wrong);
                self.mistakes.push(mistake);
            }
        }
    }

    /// FOLDER is `/ = FOLDER`, and wins like any flag.
    fn hear_argument(&mut self, folder: &Path) {
        self.static_content.retain(|s| s.prefix != "/");
        self.static_content.push(StaticContent {
            prefix: "/".to_owned(),
            path: folder.to_owned(),
            origin: Origin::Argument,
        });
    }

    /// Of a choice, two options said in one layer are a mistake; in two, the stronger layer wins, as it does for one. A
    /// switch that is off chooses nothing.
    fn settle_conflicts(&mut self) {
        for choice in Choice::ALL {
            let rows = options().filter(|row| row.choice == Some(choice));
            let last = |row: &Row| self.said.iter().rfind(|said| said.row.name == row.name);
            let mut chosen: Vec<_> = rows.filter_map(last).filter(|said| !said.row.is_off(&said.text)).collect();
            chosen.sort_by(|a, b| a.origin.cmp(&b.origin));
            let strongest = chosen.last().map(|said| said.origin.layer());
            let beaten = chosen.iter().take_while(|said| Some(said.origin.layer()) < strongest).count();
            let (beaten, holding) = chosen.split_at(beaten);
            for (index, said) in holding.iter().enumerate().skip(1) {
                self.mistakes.push(conflict(said, &holding[..index]));
            }
            let beaten: Vec<_> = beaten.iter().map(|said| said.row.name).collect();
            self.said.retain(|said| !beaten.contains(&said.row.name));
        }
    }
}

fn conflict(said: &Said, earlier: &[&Said]) -> Mistake {
    let earlier: Vec<_> = earlier.iter().map(|said| format!("{} ({})", said.row.name, said.origin)).collect();
    let wrong = Wrong::new(format!("conflicts with {}", earlier.join(" and ")), "keep one of them");
    Mistake::of_value(said.origin.clone(), said.row.name, &said.text, wrong)
}

/// The section that an entry of the file stands in.
enum Heading {
    None,
    Known(&'static Section),
    /// Its entries are skipped: the mistake is the heading's.
    Unknown,
}

fn unknown(name: &str, prefix: &str) -> Wrong {
    let remedy = match nearest(name, options().map(|row| row.name)) {
        Some(near) => format!("did you mean {prefix}{near}?"),
        None => "`regrow options` lists all there are".to_owned(),
    };
    Wrong::new("no such option", remedy)
}

/// Whoever comments at the end of a line learns that it became a part of the value.
fn with_comment_hint(mut wrong: Wrong, text: &str, origin: &Origin) -> Wrong {
    let in_file = matches!(origin, Origin::File { .. });
    if in_file && [" #", " ;", "\t#", "\t;"].iter().any(|c| text.contains(c)) {
        wrong.remedy += " (a comment stands on a line of its own)";
    }
    wrong
}

/// A prefix as requests are compared with it: it begins with `/` and ends with none, save the root itself.
fn read_prefix(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        return Err(Wrong::new("a prefix begins with /", format!("write /{text} = folder")));
    }
    if text.contains(['?', '#', '%']) {
        return Err(Wrong::new("a prefix is a plain path", "write it decoded, without ?, # or %"));
    }
    let path = text.strip_suffix('/').unwrap_or(text);
    let empty_or_dots = |segment: &str| matches!(segment, "" | "." | "..");
    if path.split('/').skip(1).any(empty_or_dots) {
        return Err(Wrong::new("a prefix has no empty, . or .. segments", "write it as requests name it"));
    }
    Ok(if path.is_empty() { "/" } else { path }.to_owned())
}

#[cfg(test)]
mod tests;
