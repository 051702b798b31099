//! Kinds of values that are texts with a form of their own: names, paths, values of fields.

use super::super::mistake::Wrong;
use super::{Kind, Shape};

/// File names separated by blanks.
pub(crate) const fn file_names() -> Kind<Vec<String>> {
    Kind {
        shape: Shape::plain("NAMES", "file names separated by blanks"),
        read: |shape, text, _| {
            let names: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            let is_name = |name: &String| !name.contains('/') && name != "." && name != "..";
            if names.is_empty() || !names.iter().all(is_name) {
                return Err(shape.refuse("not file names"));
            }
            Ok(names)
        },
        show: |names| names.join(" "),
    }
}

/// The path of a file within a folder, or none.
pub(crate) const fn path_within() -> Kind<Option<String>> {
    Kind {
        shape: Shape::plain("PATH", "a path within the folder"),
        read: |shape, text, _| {
            let is_name = |segment: &str| !matches!(segment, "" | "." | "..");
            match text {
                "" => Ok(None),
                _ if text.starts_with('/') => {
                    Err(Wrong::new("not a path within the folder", format!("write {}", text.trim_start_matches('/'))))
                }
                _ if text.split('/').all(is_name) => Ok(Some(text.to_owned())),
                _ => Err(shape.refuse("has empty, . or .. segments")),
            }
        },
        show: |path| path.clone().unwrap_or_default(),
    }
}

/// The value of a header field (RFC 9110, section 5.5), or none.
pub(crate) const fn field_value() -> Kind<Option<String>> {
    Kind {
        shape: Shape::plain("VALUE", "the value of a header field in ASCII"),
        read: |shape, text, _| {
            let is_fine = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
            if is_fine {
                Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
            } else {
                Err(shape.refuse("contains what no field can"))
            }
        },
        show: |value| value.clone().unwrap_or_default(),
    }
}

/// The path and query of a URL, or none.
pub(crate) const fn url_path() -> Kind<Option<String>> {
    Kind {
        shape: Shape::plain("PATH", "a path that begins with /, percent-encoded"),
        read: |shape, text, _| {
            let is_fine = text.starts_with('/') && text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && byte != b'#');
            match text {
                "" => Ok(None),
                _ if is_fine => Ok(Some(text.to_owned())),
                _ => Err(shape.refuse("not the path of a URL")),
            }
        },
        show: |path| path.clone().unwrap_or_default(),
    }
}

/// A user or a group, by name or number, or none. Whether there is one is not known here.
pub(crate) const fn account() -> Kind<Option<String>> {
    Kind {
        shape: Shape::plain("NAME", "a name or a number, without blanks or colons"),
        read: |shape, text, _| {
            if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':') {
                return Err(shape.refuse("neither a name nor a number"));
            }
            Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
        },
        show: |name| name.clone().unwrap_or_default(),
    }
}
