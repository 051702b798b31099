//! A version of a file, ready to be sent as often as it is asked for. Knows nothing of requests, nor how files are
//! looked up.

use std::borrow::Cow;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderName;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderValue, LAST_MODIFIED, VARY,
};
use httpdate::HttpDate;

use super::cache::Weight;
use super::media_type;
use crate::h1;
use crate::h1::coding::Coding;
use crate::h1::conditional::Validators;
use crate::site::{Body, FileRange, Passage, Piece};
use crate::sys::open_beneath::{Failure, Seen};
use crate::sys::version::{Clock, Version};

/// Files up to this many bytes are kept in memory, so that head and body leave in one write; larger ones are cheaper
/// sent from the page cache. The two cost the same at about this size.
pub(super) const READ_LIMIT: u64 = 16 * 1024;

/// A file that was written to later than so long ago may be written to again while it is sent.
const QUIET: Duration = Duration::from_secs(10);

/// What was read of a file so soon after it was written need not be what the file has now, though its stamps are the
/// same: some file systems stamp in whole seconds or pairs of them (ext3, ext4 with inodes of 128 bytes, FAT), and a
/// write stamps the file when it begins, not when all of it is there.
const YOUNG: Duration = Duration::from_secs(3);

/// A version of a file: all that is said of it in heads, and its bytes or its descriptor.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub version: Version,
    /// The neighbours that it may be sent as instead.
    pub neighbours: Neighbours,
    pub media_type: HeaderValue,
    etag: HeaderValue,
    modified: Option<HttpDate>,
    fields: Fields,
    content: Content,
    /// It was read while the file was [`YOUNG`].
    read_young: bool,
}

/// Its bytes, or the descriptor that they are sent from.
#[derive(Clone, Debug)]
enum Content {
    Memory(Bytes),
    File(Arc<File>),
}

/// As what a file is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// As its neighbour that was compressed so.
    Coded(Coding),
}

/// Which compressed neighbours a file has, as [`Coding::ALL`]: none that is older than the file, for that is of another
/// version of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Neighbours([bool; Coding::ALL.len()]);

/// What there is to say of a file besides what its name and version say.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    /// Of the plain file, also where its neighbour is sent.
    pub name: &'a [u8],
    pub form: Form,
    pub neighbours: Neighbours,
    pub cache_control: Option<&'a HeaderValue>,
}

impl Found {
    /// Takes over a file that has just been opened, when `clock` had been read. Small ones are read.
    ///
    /// # Errors
    /// [`Failure::CHANGING`] where it cannot be told whether all that is read is of one version: it was written to in
    /// this very tick of the clock, or while it was read.
    pub(super) fn take(file: File, seen: Seen, clock: Clock, about: &About<'_>) -> Result<Self, Failure> {
        let Seen { version, kind: _ } = seen;
        if !version.is_settled(clock) {
            return Err(Failure::CHANGING);
        }
        let content = if version.len > READ_LIMIT {
            Content::File(Arc::new(file))
        } else {
            let bytes = read(&file, usize::try_from(version.len).unwrap_or(0))?;
            let now = Version::of(&file).map_err(Failure::from)?;
            if !now.has_content_of(&version) {
                return Err(Failure::CHANGING);
            }
            if bytes.len() as u64 != version.len {
                // As those of sysfs(5) are.
                return Err(io::Error::other("shorter than it says").into());
            }
            Content::Memory(bytes)
        };
        let media_type = media_type::by_name(about.name);
        let etag = etag(&content, &version, about.form);
        let modified = version.modified().and_then(http_date);
        let fields = Fields::encode(about, &media_type, &etag, modified);
        let read_young = matches!(content, Content::Memory(_)) && !version.is_older_than(YOUNG, clock);
        Ok(Self { version, neighbours: about.neighbours, media_type, etag, modified, fields, content, read_young })
    }

    /// Whether the version alone is not enough to know that this is still what the file has.
    pub(super) fn must_be_read_again(&self) -> bool {
        self.read_young
    }

    /// Whether the open descriptor still gives this version. What is in memory is the version that it was.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.content {
            Content::Memory(_) => true,
            Content::File(file) => Version::of(file).is_ok_and(|now| now.has_content_of(&self.version)),
        }
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.version.len
    }

    pub(super) fn weight(&self) -> Weight {
        match &self.content {
            Content::Memory(bytes) => Weight { bytes: bytes.len(), descriptors: 0 },
            Content::File(_) => Weight { bytes: 0, descriptors: 1 },
        }
    }

    /// What conditions are held against. Whether the date is strong is found out on demand: it is once another write
    /// would have given another one (RFC 9110, section 8.8.2.2).
    pub(super) fn validators(&self, with_strong_date: bool) -> Validators<'_> {
        let second_ago = || SystemTime::now().checked_sub(Duration::from_secs(1));
        let settled = |modified: HttpDate| second_ago().is_some_and(|ago| SystemTime::from(modified) < ago);
        Validators {
            etag: self.etag.as_bytes(),
            modified: self.modified,
            modified_is_strong: with_strong_date && self.modified.is_some_and(settled),
        }
    }

    /// The same version, saying nothing of how long it may be stored.
    pub(super) fn without_cache_control(&self) -> Self {
        let mut found = self.clone();
        found.fields.all.truncate(self.fields.cache_control);
        found
    }

    /// The whole file, with every field.
    pub(super) fn whole(&self) -> Body {
        self.whole_with(self.fields.all.clone())
    }

    /// The whole file as the body of an answer that is about something else.
    pub(super) fn page(&self) -> Body {
        self.whole_with(self.fields.all.slice(..self.fields.validators))
    }

    /// No body, and the fields of a 304 (RFC 9110, section 15.4.5).
    pub(super) fn no_body(&self) -> Body {
        Body::empty().with_fields(self.fields.all.slice(self.fields.vary..))
    }

    /// A part of the file, with every field.
    pub(super) fn part(&self, part: std::ops::Range<u64>) -> Body {
        Body::from(self.piece(part)).with_fields(self.fields.all.clone())
    }

    /// Pieces of which some are the file's, with every field but those that say what it is.
    pub(super) fn pieces(&self, pieces: Vec<Piece>) -> Body {
        Body::from(pieces).with_fields(self.fields.all.slice(self.fields.vary..))
    }

    /// A part of its bytes.
    pub(super) fn piece(&self, part: std::ops::Range<u64>) -> Piece {
        match &self.content {
            Content::Memory(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                Piece::Bytes(bytes.slice(place(part.start)..place(part.end)))
            }
            Content::File(file) => Piece::File(FileRange {
                file: Arc::clone(file),
                range: part,
                version: Some(self.version),
                passage: self.passage(),
            }),
        }
    }

    fn whole_with(&self, fields: Bytes) -> Body {
        Body::from(self.piece(0..self.len())).with_fields(fields)
    }

    fn passage(&self) -> Passage {
        if self.version.is_older_than(QUIET, Clock::read()) { Passage::Sendfile } else { Passage::Copied }
    }
}

impl Form {
    /// The name of the file that a file of this name would be a neighbour of, if it may have any.
    pub(super) fn plain_name(name: &[u8]) -> Option<&[u8]> {
        let is_coded = |extension: &str| Coding::ALL.iter().any(|coding| coding.extension() == extension);
        let dot = name.iter().rposition(|&byte| byte == b'.')?;
        let (plain, extension) = (&name[..dot], std::str::from_utf8(&name[dot + 1..]).ok()?);
        (is_coded(extension) && media_type::is_compressible(&media_type::by_name(plain))).then_some(plain)
    }

    /// Where a file is that is asked for at `relative`.
    pub(super) fn path(self, relative: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Plain => relative.into(),
            Self::Coded(coding) => [relative, b".", coding.extension().as_bytes()].concat().into(),
        }
    }
}

impl Neighbours {
    /// The others.
    pub(super) fn without(self, coding: Coding) -> Self {
        Self::of(|known| known != coding && self.has(known))
    }

    /// Those for which `is_there`.
    pub(super) fn of(is_there: impl Fn(Coding) -> bool) -> Self {
        Self(Coding::ALL.map(is_there))
    }

    pub(super) fn has(self, coding: Coding) -> bool {
        Coding::ALL.iter().zip(self.0).any(|(known, is_there)| is_there && *known == coding)
    }

    pub(super) fn are_none(self) -> bool {
        self == Self::default()
    }
}

/// All fields of a whole file, encoded, and at which bytes of them some begin, so that answers can go without others.
#[derive(Clone, Debug)]
struct Fields {
    all: Bytes,
    /// `Vary`. Before it stands what the body is: its type and coding.
    vary: usize,
    /// Which version it is, and then that parts of it may be had.
    validators: usize,
    /// `Cache-Control`, the last.
    cache_control: usize,
}

impl Fields {
    fn encode(about: &About<'_>, media_type: &HeaderValue, etag: &HeaderValue, modified: Option<HttpDate>) -> Self {
        let mut all = Vec::with_capacity(256);
        let mut push = |name: HeaderName, value: Option<&HeaderValue>| {
            if let Some(value) = value {
                h1::encode_field(&mut all, &name, value);
            }
            all.len()
        };
        let (coding, varies) = match about.form {
            Form::Plain => (None, !about.neighbours.are_none()),
            Form::Coded(coding) => (Some(HeaderValue::from_static(coding.token())), true),
        };
        push(CONTENT_TYPE, Some(media_type));
        let vary = push(CONTENT_ENCODING, coding.as_ref());
        let validators = push(VARY, varies.then_some(&HeaderValue::from_static("accept-encoding")));
        push(ETAG, Some(etag));
        push(LAST_MODIFIED, modified.and_then(|date| HeaderValue::try_from(date.to_string()).ok()).as_ref());
        let cache_control = push(ACCEPT_RANGES, Some(&HeaderValue::from_static("bytes")));
        push(CACHE_CONTROL, about.cache_control);
        Self { all: all.into(), vary, validators, cache_control }
    }
}

/// A strong tag. What is in memory is told by a hash of it, so that files of reproducible builds, which all have one
/// time, are told apart, and a deployment that changes nothing but times is not noticed. Others are told by time and
/// length, for a file that could be written to twice at one time is not taken. Forms have tags of their own (RFC 9110,
/// section 8.8.3.3).
fn etag(content: &Content, version: &Version, form: Form) -> HeaderValue {
    let (dash, form) = match form {
        Form::Plain => ("", ""),
        Form::Coded(coding) => ("-", coding.token()),
    };
    let told = match content {
        Content::Memory(bytes) => {
            // Its keys are fixed: the machines of a site that run one build of Regrow agree on their tags.
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            format!("{:016x}", hasher.finish())
        }
        Content::File(_) => {
            let (seconds, nanoseconds) = version.modified_stamp();
            format!("{seconds:x}.{nanoseconds:x}")
        }
    };
    let text = format!("\"{told}-{:x}{dash}{form}\"", version.len);
    // Digits, letters and quotes are a value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Up to `len` bytes from the start: fewer where the file got shorter since it was opened.
fn read(file: &impl FileExt, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes.into())
}

/// Not later than now (RFC 9110, section 8.8.2.1). `None` for a time that the format has no room for: it ends with the
/// year 9999 (section 5.6.7).
fn http_date(time: SystemTime) -> Option<HttpDate> {
    const YEAR_10000: u64 = 253_402_300_800;
    let time = time.min(SystemTime::now());
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    (since_epoch.as_secs() < YEAR_10000).then(|| HttpDate::from(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_outside_the_format_and_in_the_future_are_not_said() {
        let at = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).and_then(http_date);
        assert_eq!(at(0).unwrap().to_string(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(at(784_111_777).unwrap().to_string(), "Sun, 06 Nov 1994 08:49:37 GMT");
        let future = SystemTime::now() + Duration::from_secs(86_400);
        assert!(SystemTime::from(http_date(future).unwrap()) <= SystemTime::now());
    }

    #[test]
    fn file_that_got_shorter_is_what_is_left_of_it() {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"secret").unwrap();
        assert_eq!(read(&file, 100).unwrap(), "secret");
        assert_eq!(read(&file, 3).unwrap(), "sec");
    }

    #[test]
    fn neighbours_are_told_apart() {
        let some = Neighbours::of(|coding| coding == Coding::Zstd);
        assert_eq!(Coding::ALL.map(|coding| some.has(coding)), [false, true, false]);
        assert!(!some.are_none() && Neighbours::default().are_none());
        assert_eq!(*Form::Coded(Coding::Zstd).path(b"a/b.js"), *b"a/b.js.zst");
        for (name, plain) in
            [("a.js.br", Some("a.js")), ("a.js", None), ("a.tar.gz", None), ("a.gz", None), ("gz", None), (".gz", None)]
        {
            assert_eq!(Form::plain_name(name.as_bytes()), plain.map(str::as_bytes), "{name}");
        }
    }
}
