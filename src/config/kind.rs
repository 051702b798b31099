//! The kinds of values: how a text is read into a type, how the value is shown again, what a refusal says.
//!
//! Knows nothing of the table of options; a remedy may name one.

mod modes;
mod texts;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::mistake::Wrong;
use super::{AccessFormat, LogTarget, Senders};
pub(crate) use modes::{forking, process_pool, thread_pool, threading};
pub(crate) use texts::{account, field_value, file_names, path_within, url_path};

/// How a value of type `T` is written: `show` undoes `read`.
#[derive(Clone, Copy)]
pub(crate) struct Kind<T> {
    /// What to say about it to a person.
    pub shape: Shape,
    read: fn(&Shape, &str, &Path) -> Result<T, Wrong>,
    show: fn(&T) -> String,
}

impl<T> Kind<T> {
    /// Reads what was said; a relative path is relative to `base`. The empty text is the default of what has none.
    pub fn read(&self, text: &str, base: &Path) -> Result<T, Wrong> {
        (self.read)(&self.shape, text, base)
    }

    /// The value as one would say it.
    pub fn show(&self, value: &T) -> String {
        (self.show)(value)
    }
}

/// What a person needs to know to write a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The value's name in a usage line: `PORT`.
    pub value: &'static str,
    what: &'static str,
    range: Option<Range>,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    min: u64,
    max: u64,
    /// 0 is accepted though it lies below `min`.
    zero: bool,
    show: fn(u64) -> String,
}

impl Shape {
    const fn plain(value: &'static str, what: &'static str) -> Self {
        let range = None;
        Self { value, what, range }
    }

    /// What is accepted, as a remedy says it: `a whole number from 1 to 1000`.
    pub fn accepts(&self) -> String {
        let Some(range) = self.range else {
            return self.what.to_owned();
        };
        let zero = if range.zero { ", or 0" } else { "" };
        let (min, max) = ((range.show)(range.min), (range.show)(range.max));
        format!("{} from {min} to {max}{zero}", self.what)
    }

    fn refuse(&self, problem: &str) -> Wrong {
        Wrong::new(problem, format!("write {}", self.accepts()))
    }

    /// The number as a `T`, where it lies in the range.
    fn within<T: TryFrom<u64>>(&self, number: u64) -> Result<T, Wrong> {
        let fits =
            self.range.is_none_or(|range| (range.min..=range.max).contains(&number) || (range.zero && number == 0));
        T::try_from(number).ok().filter(|_| fits).ok_or_else(|| self.refuse("out of range"))
    }
}

/// A whole number.
pub(crate) const fn number<T: TryFrom<u64> + ToString>(value: &'static str, min: u64, max: u64) -> Kind<T> {
    let range = Some(Range { min, max, zero: false, show: |n| n.to_string() });
    let what = "a number";
    Kind {
        shape: Shape { value, what, range },
        read: |shape, text, _| shape.within(digits(shape, text)?),
        show: T::to_string,
    }
}

fn digits(shape: &Shape, text: &str) -> Result<u64, Wrong> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(shape.refuse("not a whole number"));
    }
    text.parse().map_err(|_| shape.refuse("out of range"))
}

/// Bytes, with `k`, `m` or `g` for powers of 1024.
pub(crate) const fn size<T: TryFrom<u64> + Copy + TryInto<u64>>(min: u64, max: u64) -> Kind<T> {
    let range = Some(Range { min, max, zero: false, show: show_size });
    let what = "a size";
    Kind {
        shape: Shape { value: "SIZE", what, range },
        read: |shape, text, _| shape.within(measure(shape, text, &SIZES, "k, m, g or bare bytes")?),
        show: |size| (*size).try_into().map_or(String::new(), show_size),
    }
}

/// Time, with `ms`, `s`, `m` or `h`; the bounds are milliseconds.
pub(crate) const fn duration(min: u64, max: u64) -> Kind<Duration> {
    duration_where(false, min, max)
}

/// Time where 0, without a unit, has a meaning too.
pub(crate) const fn duration_or_zero(min: u64, max: u64) -> Kind<Duration> {
    duration_where(true, min, max)
}

const fn duration_where(zero: bool, min: u64, max: u64) -> Kind<Duration> {
    let range = Some(Range { min, max, zero, show: show_millis });
    let what = "a time";
    Kind {
        shape: Shape { value: "TIME", what, range },
        read: |shape, text, _| {
            let bare = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            if bare && text.bytes().any(|b| b != b'0') {
                return Err(Wrong::new("the unit is missing", format!("say {text}s")));
            }
            let millis = measure(shape, text, &TIMES, "ms, s, m or h")?;
            shape.within(millis).map(Duration::from_millis)
        },
        // What is read has at most a few days of milliseconds.
        show: |time| u64::try_from(time.as_millis()).map_or(String::new(), show_millis),
    }
}

type Units = [(&'static str, u64)];

const SIZES: [(&str, u64); 4] = [("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)];
/// A bare number passes as milliseconds here: only 0 comes without a unit.
const TIMES: [(&str, u64); 5] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1), ("", 1)];

/// A whole number and its unit, multiplied; `known` lists the units for the remedy.
fn measure(shape: &Shape, text: &str, units: &Units, known: &str) -> Result<u64, Wrong> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(shape.refuse("does not begin with a number"));
    }
    let number = digits(shape, number)?;
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(no_such_unit(number, unit, units, known));
    };
    number.checked_mul(*factor).ok_or_else(|| shape.refuse("out of range"))
}

/// Says what was probably meant by `10 s`, `16MB` or `1.5s`.
fn no_such_unit(number: u64, unit: &str, units: &Units, known: &str) -> Wrong {
    if unit.starts_with('.') {
        return Wrong::new("not a whole number", format!("write it with a smaller unit ({known})"));
    }
    let meant = unit.trim_start().to_ascii_lowercase();
    let near = units.iter().find(|(name, _)| !name.is_empty() && (meant == *name || meant == format!("{name}b")));
    let remedy = match near {
        Some((name, _)) => format!("write {number}{name}"),
        None => format!("write {number} with {known}"),
    };
    Wrong::new(format!("no unit {unit:?}"), remedy)
}

fn show_size(bytes: u64) -> String {
    let exact = |(_, factor): &&(&str, u64)| bytes != 0 && bytes % factor == 0;
    let (unit, factor) = SIZES.iter().find(exact).unwrap_or(&("", 1));
    format!("{}{unit}", bytes / factor)
}

/// Seconds up to two minutes, as people say them: 75s, 2m, 1h, 250ms.
fn show_millis(millis: u64) -> String {
    let exact = |(unit, factor): &&(&str, u64)| {
        let common = *unit == "h" || millis >= 2 * factor || *factor <= 1_000;
        millis >= *factor && millis % factor == 0 && common
    };
    let (unit, factor) = TIMES.iter().find(exact).unwrap_or(&("", 1));
    format!("{}{unit}", millis / factor)
}

/// 0 or 1.
pub(crate) const fn switch() -> Kind<bool> {
    Kind {
        shape: Shape::plain("0|1", "0 or 1"),
        read: |shape, text, _| match text {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(shape.refuse("neither 0 nor 1")),
        },
        show: |on| u8::from(*on).to_string(),
    }
}

/// The permissions of a file, in octal.
pub(crate) const fn permissions() -> Kind<u32> {
    Kind {
        shape: Shape::plain("MODE", "octal permissions from 0000 to 0777"),
        read: |shape, text, _| {
            let octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            let mode = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o777);
            mode.filter(|_| octal).ok_or_else(|| shape.refuse("not octal permissions"))
        },
        show: |mode| format!("{mode:04o}"),
    }
}

/// Permissions in octal, or none.
pub(crate) const fn optional_permissions() -> Kind<Option<u32>> {
    const PERMISSIONS: Kind<u32> = permissions();
    Kind {
        shape: PERMISSIONS.shape,
        read: |_, text, base| if text.is_empty() { Ok(None) } else { PERMISSIONS.read(text, base).map(Some) },
        show: |mode| mode.map(|mode| (PERMISSIONS.show)(&mode)).unwrap_or_default(),
    }
}

/// A host name or an address, without a port.
pub(crate) const fn host() -> Kind<String> {
    Kind {
        shape: Shape::plain("HOST", "a host name or an address"),
        read: |shape, text, _| {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            if text.parse::<IpAddr>().is_ok() {
                return Ok(text.to_owned());
            }
            if bare.parse::<IpAddr>().is_ok() {
                return Err(Wrong::new("an address in brackets", format!("write {bare}")));
            }
            match text {
                "*" => Err(Wrong::new("not an address", "write :: or 0.0.0.0 for all of them")),
                _ if text.contains([':', '/']) => {
                    Err(Wrong::new("not a host name", "write the host alone; the port has an option of its own"))
                }
                "" => Err(shape.refuse("no host name")),
                _ if text.contains(char::is_whitespace) => Err(shape.refuse("contains a blank")),
                _ => Ok(text.to_owned()),
            }
        },
        show: String::clone,
    }
}

/// The path of a Unix socket, or none.
pub(crate) const fn socket_file() -> Kind<Option<PathBuf>> {
    Kind {
        shape: Shape::plain("FILE", "a path of at most 107 bytes"),
        read: |shape, text, base| {
            // unix(7): sun_path has 108 bytes, the last is NUL.
            const LONGEST: usize = 107;
            if text.is_empty() {
                return Ok(None);
            }
            let path = base.join(text);
            if path.as_os_str().len() > LONGEST {
                return Err(shape.refuse("too long for the address of a socket"));
            }
            Ok(Some(path))
        },
        show: |path| path.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
    }
}

/// The path of a file, or none.
pub(crate) const fn file() -> Kind<Option<PathBuf>> {
    Kind {
        shape: Shape::plain("FILE", "a file"),
        read: |_, text, base| Ok(Some(base.join(text)).filter(|_| !text.is_empty())),
        show: |path| path.as_deref().map(|p| p.display().to_string()).unwrap_or_default(),
    }
}

/// A port, or none; 0 is any that is free.
pub(crate) const fn optional_port() -> Kind<Option<u16>> {
    const PORT: Kind<u16> = number("PORT", 0, 65_535);
    Kind {
        shape: PORT.shape,
        read: |_, text, base| if text.is_empty() { Ok(None) } else { PORT.read(text, base).map(Some) },
        show: |port| port.map(|port| port.to_string()).unwrap_or_default(),
    }
}

/// Who is believed.
pub(crate) const fn senders() -> Kind<Senders> {
    Kind {
        shape: Shape::plain("NETWORKS", "addresses, networks (10.0.0.0/8) and unix, separated by blanks"),
        read: |_, text, _| Senders::parse(text),
        show: Senders::to_string,
    }
}

/// Where a log goes.
pub(crate) const fn log_target() -> Kind<LogTarget> {
    Kind {
        shape: Shape::plain("FILE|stdout|stderr|off", "a file, or stdout, stderr or off"),
        read: |shape, text, base| match text {
            "" => Err(shape.refuse("no file name")),
            "stdout" => Ok(LogTarget::Stdout),
            "stderr" => Ok(LogTarget::Stderr),
            "off" => Ok(LogTarget::Off),
            _ => Ok(LogTarget::File(base.join(text))),
        },
        show: LogTarget::to_string,
    }
}

/// How a line of the access log is written.
pub(crate) const fn access_format() -> Kind<AccessFormat> {
    Kind {
        shape: Shape::plain("combined|json", "combined or json"),
        read: |shape, text, _| match text {
            "combined" => Ok(AccessFormat::Combined),
            "json" => Ok(AccessFormat::Json),
            _ => Err(shape.refuse("no such format")),
        },
        show: |format| match format {
            AccessFormat::Combined => "combined".into(),
            AccessFormat::Json => "json".into(),
        },
    }
}

/// How much the error log says.
pub(crate) const fn level() -> Kind<LevelFilter> {
    Kind {
        shape: Shape::plain("error|warn|info|debug|trace", "error, warn, info, debug or trace"),
        read: |shape, text, _| match text {
            "error" => Ok(LevelFilter::Error),
            "warn" => Ok(LevelFilter::Warn),
            "info" => Ok(LevelFilter::Info),
            "debug" => Ok(LevelFilter::Debug),
            "trace" => Ok(LevelFilter::Trace),
            _ => Err(shape.refuse("no such level")),
        },
        show: |level| level.as_str().to_lowercase(),
    }
}

#[cfg(test)]
mod tests;
