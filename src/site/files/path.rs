//! From the path of a URL to a path beneath a folder. Pure; knows no file system.
//!
//! Each segment is percent-decoded once. Then, and only then, `.` and empty segments vanish and `..` takes its
//! predecessor away, before any link is looked at (RFC 3986, section 5.2.4).

use http::StatusCode;

/// The path of a URL, decoded and without `.`, `..` and empty segments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UrlPath {
    /// Segments joined by `/`, without one at either end; empty for `/`.
    pub decoded: Vec<u8>,
    /// Whether it names a folder by ending in `/`, `/.` or `/..`.
    pub directory: bool,
}

impl UrlPath {
    /// Resolves the path of a URL, without its query.
    ///
    /// # Errors
    /// - 400 for a malformed escape, a control byte, a path that does not begin with `/` or one that goes above
    ///   the root.
    /// - 404 for a backslash or an encoded slash, which no file's name here contains and which other software may
    ///   take for a separator.
    pub(crate) fn resolve(path: &str) -> Result<Self, StatusCode> {
        let rest = path.strip_prefix('/').ok_or(StatusCode::BAD_REQUEST)?;
        let mut decoded = Vec::with_capacity(path.len());
        let mut directory = true;
        for segment in rest.split('/') {
            directory = push(&mut decoded, segment)?;
        }
        Ok(Self { decoded, directory })
    }

    /// Its segments; none for `/`.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &[u8]> {
        self.decoded.split(|&byte| byte == b'/').filter(|segment| !segment.is_empty())
    }

    /// What follows `prefix`, written like [`decoded`](Self::decoded), if it ends at the border of a segment.
    pub(crate) fn below(&self, prefix: &[u8]) -> Option<&[u8]> {
        let rest = self.decoded.strip_prefix(prefix)?;
        if prefix.is_empty() || rest.is_empty() { Some(rest) } else { rest.strip_prefix(b"/") }
    }
}

/// Whether any segment begins with a dot. (`.` and `..` are no longer there.)
pub(crate) fn has_dotfile(decoded: &[u8]) -> bool {
    decoded.split(|&byte| byte == b'/').any(|segment| segment.starts_with(b"."))
}

/// Whether [`UrlPath::resolve`] gives this name for any URL.
pub(crate) fn can_be_asked_for(name: &[u8]) -> bool {
    !name.iter().any(|byte| matches!(byte, 0..=0x1f | 0x7f | b'\\'))
}

/// Appends one segment; returns whether the path now names a folder.
fn push(decoded: &mut Vec<u8>, segment: &str) -> Result<bool, StatusCode> {
    let end = decoded.len();
    if end > 0 {
        decoded.push(b'/');
    }
    let start = decoded.len();
    decode(decoded, segment)?;
    let parent = match &decoded[start..] {
        b"" | b"." => end,
        b".." if end == 0 => return Err(StatusCode::BAD_REQUEST),
        b".." => decoded[..end].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
        _ => return Ok(false),
    };
    decoded.truncate(parent);
    Ok(true)
}

fn decode(decoded: &mut Vec<u8>, segment: &str) -> Result<(), StatusCode> {
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => escaped(bytes.next(), bytes.next()).ok_or(StatusCode::BAD_REQUEST)?,
            plain => plain,
        };
        match byte {
            0..=0x1f | 0x7f => return Err(StatusCode::BAD_REQUEST),
            b'/' | b'\\' => return Err(StatusCode::NOT_FOUND),
            fine => decoded.push(fine),
        }
    }
    Ok(())
}

/// The byte that two hexadecimal digits stand for.
fn escaped(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high?)? << 4 | digit(low?)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_resolve_by_the_table() {
        for (url, decoded, directory) in [
            ("/", "", true),
            ("/a", "a", false),
            ("/a/", "a/", true),
            ("/a/b.html", "a/b.html", false),
            ("/a%20b/%C3%A4", "a b/ä", false),
            ("/%41%6a%6A", "Ajj", false),
            ("/a+b;c=d", "a+b;c=d", false),
            ("//a///b//", "a/b/", true),
            ("/./a/./b/.", "a/b/", true),
            ("/a/../b", "b", false),
            ("/a/b/c/../../d", "a/d", false),
            ("/a/..", "", true),
            ("/a/b/..", "a/", true),
            ("/a//../b", "b", false),
            ("/a/%2e%2E/b/%2e", "b/", true),
            ("/...", "...", false),
            ("/a..b/..c", "a..b/..c", false),
            ("/%252e%252e/x", "%2e%2e/x", false),
            ("/%252f", "%2f", false),
        ] {
            let found = UrlPath::resolve(url).unwrap_or_else(|status| panic!("{url}: {status}"));
            assert_eq!(String::from_utf8_lossy(&found.decoded), decoded.trim_end_matches('/'), "{url}");
            assert_eq!(found.directory, directory, "{url}");
        }
    }

    #[test]
    fn bad_paths_are_refused_by_the_table() {
        for (url, status) in [
            ("", 400),
            ("*", 400),
            ("a", 400),
            ("/..", 400),
            ("/../etc/passwd", 400),
            ("/a/../..", 400),
            ("/%2e%2e/x", 400),
            ("/.%2E/x", 400),
            ("//../x", 400),
            ("/a/./../../x", 400),
            ("/%", 400),
            ("/%4", 400),
            ("/%4g", 400),
            ("/%+1", 400),
            ("/%-1/", 400),
            ("/% 1", 400),
            ("/%4/1", 400),
            ("/%00", 400),
            ("/a%0d%0ab", 400),
            ("/a\u{1}", 400),
            ("/%7f", 400),
            ("/a%2Fb", 404),
            ("/..%2f..%2fetc", 404),
            ("/a\\b", 404),
            ("/..%5c..", 404),
        ] {
            let found = UrlPath::resolve(url).map(|path| path.decoded);
            assert_eq!(found, Err(StatusCode::from_u16(status).unwrap()), "{url}");
        }
    }

    #[test]
    fn no_resolved_path_has_a_segment_to_climb_by() {
        let pieces = ["/", "..", ".", "a", "%2e", "%2F", "%5c", "%252e", "%"];
        let mut urls = vec![String::from("/")];
        for _ in 0..4 {
            let longer = |url: &String| pieces.map(|piece| format!("{url}{piece}"));
            urls = urls.iter().flat_map(longer).collect();
            for path in urls.iter().filter_map(|url| UrlPath::resolve(url).ok()) {
                let segments: Vec<_> = path.decoded.split(|&byte| byte == b'/').collect();
                let whole = path.decoded.is_empty() || !segments.iter().any(|s| matches!(*s, b"" | b"." | b".."));
                assert!(whole, "{path:?}");
            }
        }
    }

    #[test]
    fn dotfiles_are_segments_that_begin_with_a_dot() {
        for (decoded, expected) in
            [("", false), ("a.b/c.", false), (".git", true), ("a/.ht", true), ("...", true), (".a/b", true)]
        {
            assert_eq!(has_dotfile(decoded.as_bytes()), expected, "{decoded}");
        }
    }

    #[test]
    fn names_that_no_url_leads_to_are_told() {
        for byte in 0..=255_u8 {
            let resolved = UrlPath::resolve(&format!("/x%{byte:02x}"));
            let asked = can_be_asked_for(&[b'x', byte]);
            assert_eq!(resolved.is_ok_and(|path| path.decoded == [b'x', byte]), asked && byte != b'/', "{byte}");
        }
    }

    #[test]
    fn below_ends_at_the_border_of_a_segment() {
        let path = UrlPath::resolve("/a/bc/d").unwrap();
        for (prefix, rest) in
            [("", Some("a/bc/d")), ("a", Some("bc/d")), ("a/b", None), ("a/bc", Some("d")), ("a/bc/d", Some(""))]
        {
            assert_eq!(path.below(prefix.as_bytes()), rest.map(str::as_bytes), "{prefix}");
        }
    }
}
