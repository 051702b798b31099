//! Static files: a folder whose files are answers. Knows nothing of what stands above its URLs, nor how
//! responses travel.

mod answer;
mod media_type;
mod path;
mod recent;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};

use super::{Request, Response};
use crate::sys;
use crate::sys::open_beneath::{Confinement, Failure, Kind, Opened, Reason, Root};

pub(crate) use answer::{asked_path, without_file};
pub(crate) use path::UrlPath;
use recent::{Content, Found, Recent};

/// A folder whose files are the site.
///
/// It is opened once: what is served stays beneath the very folder that was there at the start, even when another
/// takes its name.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Root,
    path: PathBuf,
    index: Vec<String>,
    dotfiles: bool,
    /// The last open failed for want of descriptors or memory, and that was logged.
    starved: AtomicBool,
    recent: Recent,
}

/// How a [`Folder`] is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// What is served for a folder: the first of these files that it has.
    pub index: Vec<String>,
    /// Whether names that begin with a dot are served.
    pub dotfiles: bool,
    /// Whether links may lead out of the folder.
    pub follow_symlinks: bool,
}

/// What a path leads to.
enum Entry {
    File(Found),
    Directory,
    Other,
}

/// A folder cannot be served.
#[derive(Debug)]
pub(crate) struct Error {
    path: PathBuf,
    cause: io::Error,
}

/// Files up to this many bytes are read, so that head and body leave in one write; larger ones are cheaper sent
/// from the page cache. The two cost the same at about this size.
const READ_LIMIT: u64 = 16 * 1024;

impl Folder {
    /// Opens the folder at `path`.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Self, Error> {
        let confinement = if options.follow_symlinks { Confinement::LinksLeadAnywhere } else { Confinement::Beneath };
        Self::open_confined(path, options, confinement)
    }

    fn open_confined(path: &Path, options: Options, confinement: Confinement) -> Result<Self, Error> {
        let path = path.to_owned();
        match Root::open(&path, confinement) {
            Ok(root) => {
                let Options { index, dotfiles, follow_symlinks: _ } = options;
                Ok(Self { root, path, index, dotfiles, starved: AtomicBool::new(false), recent: Recent::default() })
            }
            Err(cause) => Err(Error { path, cause }),
        }
    }

    /// Answers GET or HEAD for `relative`, a part of [`UrlPath::decoded`], that the URL writes as a `directory` or not.
    ///
    /// # Errors
    /// The status of the page that answers instead.
    pub(crate) fn serve(&self, request: &Request, relative: &[u8], directory: bool) -> Result<Response, StatusCode> {
        if !self.dotfiles && path::has_dotfile(relative) {
            return Err(StatusCode::NOT_FOUND);
        }
        if directory {
            return self.serve_index(relative);
        }
        match self.find(relative).map_err(|failure| self.status(relative, &failure))? {
            Entry::File(found) => Ok(found.into_response()),
            Entry::Directory => answer::redirect_into(request.uri()),
            Entry::Other => Err(StatusCode::FORBIDDEN),
        }
    }

    fn serve_index(&self, relative: &[u8]) -> Result<Response, StatusCode> {
        for index in &self.index {
            let relative = join(relative, index);
            match self.find(&relative) {
                Ok(Entry::File(found)) => return Ok(found.into_response()),
                Ok(Entry::Directory) => {}
                Ok(Entry::Other) => return Err(StatusCode::FORBIDDEN),
                Err(failure) if failure.reason == Reason::Absent => {}
                Err(failure) => return Err(self.status(&relative, &failure)),
            }
        }
        match self.find(relative).map_err(|failure| self.status(relative, &failure))? {
            Entry::Directory => Err(StatusCode::FORBIDDEN),
            Entry::File(_) | Entry::Other => Err(StatusCode::NOT_FOUND),
        }
    }

    /// What there is at `relative`; a file that was opened a moment ago is not opened again.
    fn find(&self, relative: &[u8]) -> Result<Entry, Failure> {
        let now = sys::clock::monotonic();
        if let Some(found) = self.recent.find(relative, now) {
            return Ok(Entry::File(found));
        }
        let opened = self.open_beneath(relative).or_else(|failure| match failure.reason {
            Reason::Exhausted => {
                self.recent.clear();
                self.open_beneath(relative)
            }
            Reason::Absent | Reason::Special | Reason::Denied | Reason::Contended | Reason::Broken => Err(failure),
        })?;
        match opened.kind {
            Kind::Directory => Ok(Entry::Directory),
            Kind::Other => Ok(Entry::Other),
            Kind::File => {
                let found = found(relative, opened)?;
                self.recent.keep(relative, now, &found);
                Ok(Entry::File(found))
            }
        }
    }

    fn open_beneath(&self, relative: &[u8]) -> Result<Opened, Failure> {
        let opened = self.root.open_beneath(relative)?;
        if self.starved.load(Ordering::Relaxed) {
            self.starved.store(false, Ordering::Relaxed);
        }
        Ok(opened)
    }

    /// What a failed open means to the client, and to the log where somebody has to do something about it.
    fn status(&self, relative: &[u8], failure: &Failure) -> StatusCode {
        match failure.reason {
            Reason::Absent => StatusCode::NOT_FOUND,
            Reason::Special => StatusCode::FORBIDDEN,
            Reason::Denied => {
                let file = self.shown(relative);
                log::warn!("cannot open {file}: {failure}; it and its folders must be readable for the worker's user");
                StatusCode::FORBIDDEN
            }
            Reason::Exhausted => {
                // Once until a file can be opened again: the cause is one, the requests are many.
                if !self.starved.swap(true, Ordering::Relaxed) {
                    let file = self.shown(relative);
                    log::error!("cannot open {file}: {failure}; answering 503 until there is room again");
                }
                StatusCode::SERVICE_UNAVAILABLE
            }
            Reason::Contended => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Broken => {
                log::error!("cannot open {}: {failure}", self.shown(relative));
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    /// For a log line, which what clients make up must not break.
    fn shown(&self, relative: &[u8]) -> String {
        let path = self.path.join(String::from_utf8_lossy(relative).as_ref());
        format!("{:?}", path.to_string_lossy())
    }
}

fn join(relative: &[u8], index: &str) -> Vec<u8> {
    let mut path = Vec::with_capacity(relative.len() + 1 + index.len());
    path.extend_from_slice(relative);
    if !relative.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(index.as_bytes());
    path
}

fn found(relative: &[u8], opened: Opened) -> Result<Found, Failure> {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_TYPE, media_type::by_name(relative));
    if let Some(modified) = opened.modified.and_then(http_date) {
        headers.insert(LAST_MODIFIED, modified);
    }
    let content = match opened.len {
        len if len > READ_LIMIT => Content::File(Arc::new(opened.file), len),
        len => Content::Bytes(read(&opened.file, usize::try_from(len).unwrap_or(0))?),
    };
    Ok(Found { headers, content })
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

/// `None` for a time that the format has no room for: it ends with the year 9999 (RFC 9110, section 5.6.7).
fn http_date(time: SystemTime) -> Option<HeaderValue> {
    const YEAR_10000: u64 = 253_402_300_800;
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    if since_epoch.as_secs() >= YEAR_10000 {
        return None;
    }
    HeaderValue::try_from(httpdate::fmt_http_date(time)).ok()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match self.cause.kind() {
            io::ErrorKind::NotFound => "create it, or name another folder",
            io::ErrorKind::NotADirectory => "name the folder that the file is in",
            io::ErrorKind::PermissionDenied => "let the worker's user enter it and every folder above it",
            _ => "see that it can be entered by the worker's user",
        };
        write!(f, "cannot open the folder {:?} to serve it: {}; {remedy}", self.path.to_string_lossy(), self.cause)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}
