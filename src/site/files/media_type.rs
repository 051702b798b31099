//! Which media type a file's name stands for. Pure; does not look into files.

use http::HeaderValue;

/// The value of `Content-Type` for a file of this name, by its extension. Text is said to be in UTF-8.
pub(crate) fn by_name(name: &[u8]) -> HeaderValue {
    let extension = extension(name).unwrap_or("");
    common(extension).or_else(|| common(&extension.to_ascii_lowercase())).unwrap_or_else(|| rare(extension))
}

/// Whether files of this type usually get smaller by compressing. Pictures, films and archives are compressed already.
pub(crate) fn is_compressible(media_type: &HeaderValue) -> bool {
    let value = media_type.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || matches!(
            essence,
            "application/json"
                | "application/x-ndjson"
                | "application/javascript"
                | "application/xml"
                | "application/yaml"
                | "application/toml"
                | "application/wasm"
                | "application/rtf"
                | "application/vnd.apple.mpegurl"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
                | "image/x-icon"
                | "image/vnd.microsoft.icon"
        )
}

/// What follows the last dot of the last segment, unless that dot is its first character.
fn extension(name: &[u8]) -> Option<&str> {
    let name = name.rsplit(|&byte| byte == b'/').next()?;
    let dot = name.iter().rposition(|&byte| byte == b'.').filter(|&dot| dot > 0)?;
    std::str::from_utf8(&name[dot + 1..]).ok()
}

/// What most requests ask for, without formatting; and what `mime_guess` has stale or not at all.
fn common(extension: &str) -> Option<HeaderValue> {
    let value = match extension {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" | "cjs" => "text/javascript; charset=utf-8", // RFC 9239
        "json" | "map" => "application/json; charset=utf-8",
        "txt" | "text" | "log" => "text/plain; charset=utf-8",
        "md" | "markdown" => "text/markdown; charset=utf-8", // RFC 7763
        "csv" => "text/csv; charset=utf-8",
        "svg" => "image/svg+xml; charset=utf-8",
        "xml" | "xsl" | "xsd" | "dtd" => "text/xml; charset=utf-8",
        "xhtml" => "application/xhtml+xml; charset=utf-8",
        "atom" => "application/atom+xml; charset=utf-8",
        "rss" => "application/rss+xml; charset=utf-8",
        "webmanifest" => "application/manifest+json; charset=utf-8",
        "yaml" | "yml" => "application/yaml; charset=utf-8", // RFC 9512
        "toml" => "application/toml; charset=utf-8",
        "ndjson" | "jsonl" => "application/x-ndjson; charset=utf-8",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd", // RFC 8878
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "jxl" => "image/jxl",
        "ico" => "image/x-icon",
        "woff" => "font/woff", // RFC 8081, as the next three
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "otf" => "font/otf",
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "ts" => "video/mp2t",
        "m3u8" => "application/vnd.apple.mpegurl", // RFC 8216
        "" => "application/octet-stream",
        _ => return None,
    };
    Some(HeaderValue::from_static(value))
}

fn rare(extension: &str) -> HeaderValue {
    let value = mime_guess::from_ext(extension).first_raw().unwrap_or("application/octet-stream");
    if value.starts_with("text/") || value.ends_with("xml") {
        // A media type and a charset are visible ASCII, so that the second value is never needed.
        HeaderValue::try_from(format!("{value}; charset=utf-8")).unwrap_or(HeaderValue::from_static("text/plain"))
    } else {
        HeaderValue::from_static(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_types() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("INDEX.HTM", "text/html; charset=utf-8"),
            ("a/b.c/style.css", "text/css; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.js.map", "application/json; charset=utf-8"),
            ("logo.SVG", "image/svg+xml; charset=utf-8"),
            ("main.rs", "text/x-rust; charset=utf-8"),
            ("feed.rdf", "application/rdf+xml; charset=utf-8"),
            ("app.wasm", "application/wasm"),
            ("font.woff2", "font/woff2"),
            ("backup.tar.gz", "application/gzip"),
            ("book.epub", "application/epub+zip"),
            ("README", "application/octet-stream"),
            ("a.b/README", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("a/.html", "application/octet-stream"),
            ("odd.", "application/octet-stream"),
            ("odd.unheard-of", "application/octet-stream"),
        ] {
            assert_eq!(by_name(name.as_bytes()), expected, "{name}");
        }
        assert_eq!(by_name(b"odd.\xff"), "application/octet-stream");
    }

    #[test]
    fn text_is_compressible_and_pictures_are_not() {
        for name in
            ["a.html", "a.css", "a.js", "a.json", "a.svg", "a.wasm", "a.xml", "a.atom", "a.ttf", "a.ico", "a.rs"]
        {
            assert!(is_compressible(&by_name(name.as_bytes())), "{name}");
        }
        for name in ["a.png", "a.jpg", "a.mp4", "a.woff2", "a.zip", "a.gz", "a.br", "a.pdf", "a", "a.bin"] {
            assert!(!is_compressible(&by_name(name.as_bytes())), "{name}");
        }
    }

    #[test]
    fn every_common_type_agrees_with_its_upper_case() {
        for extension in ["html", "json", "xhtml", "woff", "m3u8"] {
            assert_eq!(Some(by_name(format!("x.{}", extension.to_uppercase()).as_bytes())), common(extension));
        }
    }
}
