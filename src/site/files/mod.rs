//! Static files: a folder whose files are answers. Knows nothing of what stands above its URLs, nor how
//! responses travel.

mod answer;
mod cache;
mod found;
mod listing;
mod lookup;
mod media_type;
mod path;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::{Body, Request, Response};
use crate::h1::coding::prefer;
use crate::sys::directory::{Entry, EntryKind};
use crate::sys::open_beneath::{Confinement, Failure, Kind, Reason, Root};

pub(crate) use answer::{reads, without_file};
use found::{Form, Found};
use lookup::{Lookup, Place};
pub(crate) use media_type::{by_name, is_compressible};
pub(crate) use path::UrlPath;

/// A folder whose files are the site.
#[derive(Debug)]
pub(crate) struct Folder {
    lookup: Lookup,
    options: Options,
}

/// What there may be to serve at a path.
#[derive(Debug)]
pub(crate) enum Target {
    /// A folder: what lies below a prefix lies below it.
    Folder(Folder),
    /// The file of that name in a folder.
    File(Folder, Vec<u8>),
}

/// How a [`Folder`] is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// What is served for a folder: the first of these files that it has.
    pub index: Vec<String>,
    /// Whether a folder without such a file is listed.
    pub listing: bool,
    /// Whether names that begin with a dot are served.
    pub dotfiles: bool,
    /// Whether links may lead out of the folder.
    pub follow_symlinks: bool,
    /// Whether neighbours that were compressed are sent to clients that take them.
    pub precompressed: bool,
    /// What is said of how long files may be stored.
    pub cache_control: Option<HeaderValue>,
    /// The file that answers where there is none, relative to the folder.
    pub fallback: Option<String>,
}

/// Why a request is not answered with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A page with this status answers.
    Status(StatusCode),
    /// It is to be asked for again.
    Changing,
}

/// A file is being changed at this very moment: in the next it can be told what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changing;

/// How much of a folder is listed.
const MOST_LISTED: usize = 10_000;

impl Target {
    /// The folder or, where it `is_file`, the file at `path`, one of so many `targets` that share what files may hold.
    ///
    /// A file that is named by itself is served whatever its name and wherever links lead from there.
    pub(crate) fn new(path: &Path, is_file: bool, options: Options, targets: usize) -> Self {
        match (path.parent(), path.file_name()) {
            (Some(folder), Some(name)) if is_file => {
                let options = Options { dotfiles: true, follow_symlinks: true, ..options };
                Self::File(Folder::new(folder, options, targets), name.as_bytes().to_vec())
            }
            (Some(_) | None, _) => Self::Folder(Folder::new(path, options, targets)),
        }
    }
}

impl Folder {
    /// The folder at `path`, one of so many `folders` that share what files may hold. It is opened when it is asked for,
    /// and then again and again: a folder that is away for a while is no reason to serve nothing else.
    pub(crate) fn new(path: &Path, options: Options, folders: usize) -> Self {
        let confinement = if options.follow_symlinks { Confinement::LinksLeadAnywhere } else { Confinement::Beneath };
        Self::confined(path, options, folders, confinement)
    }

    fn confined(path: &Path, options: Options, folders: usize, confinement: Confinement) -> Self {
        Self { lookup: Lookup::new(path, confinement, folders, &options), options }
    }

    /// Answers GET or HEAD for `relative`, a part of `path`.
    ///
    /// # Errors
    /// What answers instead, or when.
    pub(crate) fn serve(
        &self,
        request: &Request,
        path: &UrlPath,
        relative: &[u8],
        now: Duration,
    ) -> Result<Response, Refusal> {
        if !self.options.dotfiles && path::has_dotfile(relative) {
            return Err(StatusCode::NOT_FOUND.into());
        }
        if path.directory {
            return self.serve_directory(request, path, relative, now);
        }
        match self.find(relative, now)? {
            Place::File(found) => Ok(answer::with_file(request, &self.best_form(request, relative, found, now))?),
            Place::Directory => Ok(answer::redirect_into(path, request.uri())?),
            Place::Other => Err(StatusCode::FORBIDDEN.into()),
            Place::Absent => self.serve_fallback(request, StatusCode::NOT_FOUND, now),
        }
    }

    /// Answers GET or HEAD with the file `relative`, whatever the URL is.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub(crate) fn serve_file(&self, request: &Request, relative: &[u8], now: Duration) -> Result<Response, Refusal> {
        match self.find(relative, now)? {
            Place::File(found) => Ok(answer::with_file(request, &self.best_form(request, relative, found, now))?),
            Place::Other => Err(StatusCode::FORBIDDEN.into()),
            Place::Directory | Place::Absent => Err(StatusCode::NOT_FOUND.into()),
        }
    }

    fn serve_directory(
        &self,
        request: &Request,
        path: &UrlPath,
        relative: &[u8],
        now: Duration,
    ) -> Result<Response, Refusal> {
        for index in &self.options.index {
            let relative = join(relative, index.as_bytes());
            match self.find(&relative, now)? {
                Place::File(found) => {
                    return Ok(answer::with_file(request, &self.best_form(request, &relative, found, now))?);
                }
                Place::Other => return Err(StatusCode::FORBIDDEN.into()),
                Place::Directory | Place::Absent => {}
            }
        }
        let status = match self.lookup.find_directory(relative, now)? {
            Some(root) if self.options.listing => return self.list(&root, request, path, relative, now),
            Some(_) => StatusCode::FORBIDDEN,
            None => StatusCode::NOT_FOUND,
        };
        self.serve_fallback(request, status, now)
    }

    /// Answers where there is nothing: with the fallback, or with `status`.
    fn serve_fallback(&self, request: &Request, status: StatusCode, now: Duration) -> Result<Response, Refusal> {
        let Some(fallback) = &self.options.fallback else { return Err(status.into()) };
        let relative = fallback.as_bytes();
        match self.find(relative, now)? {
            Place::File(found) => Ok(answer::with_fallback(request, &self.best_form(request, relative, found, now))?),
            Place::Directory | Place::Other | Place::Absent => Err(status.into()),
        }
    }

    fn find(&self, relative: &[u8], now: Duration) -> Result<Place, Refusal> {
        Ok(self.lookup.find(relative, Form::Plain, now)?)
    }

    /// Whether folders may be listed, which takes time.
    pub(crate) fn lists(&self) -> bool {
        self.options.listing
    }

    /// The body of the folder's own page for `status`: `404.html`, say.
    ///
    /// # Errors
    /// None but that it is changing: what else is wrong with a page is no reason to say less than its status.
    pub(crate) fn page(&self, request: &Request, status: StatusCode, now: Duration) -> Result<Option<Body>, Changing> {
        let relative = format!("{}.html", status.as_str()).into_bytes();
        match self.find(&relative, now) {
            Ok(Place::File(found)) => Ok(Some(self.best_form(request, &relative, found, now).page())),
            Err(Refusal::Changing) => Err(Changing),
            Ok(Place::Directory | Place::Other | Place::Absent) | Err(Refusal::Status(_)) => Ok(None),
        }
    }

    /// The form of a file that the client likes best. Parts are always those of the plain file, so that whoever asks
    /// for them need not know of others.
    fn best_form(&self, request: &Request, relative: &[u8], plain: Arc<Found>, now: Duration) -> Arc<Found> {
        let mut neighbours = plain.neighbours;
        if neighbours.are_none() || answer::asks_for_parts(request) {
            return plain;
        }
        while let Some(coding) = prefer(request.headers(), |coding| neighbours.has(coding)) {
            match self.lookup.find(relative, Form::Coded(coding), now) {
                Ok(Place::File(coded)) => return coded,
                // It went away, or is just being made.
                Ok(Place::Directory | Place::Other | Place::Absent) | Err(_) => {}
            }
            neighbours = neighbours.without(coding);
        }
        plain
    }

    fn list(
        &self,
        root: &Root,
        request: &Request,
        path: &UrlPath,
        relative: &[u8],
        now: Duration,
    ) -> Result<Response, Refusal> {
        // The page's links count on a URL without empty segments.
        if request.uri().path().matches('/').count() != path.segments().count() + 1 {
            return Ok(answer::redirect_into(path, request.uri())?);
        }
        let (entries, truncated) = self.lookup.read_directory(root, relative, MOST_LISTED, now)?;
        let mut items: Vec<_> = entries.into_iter().filter_map(|entry| self.listed(root, relative, entry)).collect();
        if self.options.precompressed {
            remove_neighbours(&mut items);
        }
        let page = listing::Page { path: &path.decoded, items, truncated, query: request.uri().query() };
        let mut response = Response::new(Body::from(listing::html(page)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        Ok(response)
    }

    /// An entry of a folder as it is listed; nothing for one that is not served.
    fn listed(&self, root: &Root, relative: &[u8], entry: Entry) -> Option<listing::Item> {
        let hidden = !self.options.dotfiles && entry.name.starts_with(b".");
        if hidden || !path::can_be_asked_for(&entry.name) {
            return None;
        }
        let Entry { name, kind, len, modified } = entry;
        match kind {
            EntryKind::File => Some(listing::Item { name, folder: false, len, modified }),
            EntryKind::Directory => Some(listing::Item { name, folder: true, len: 0, modified }),
            EntryKind::Link => {
                let seen = root.look(&join(relative, &name)).ok().filter(|seen| seen.kind != Kind::Other)?;
                let (folder, len) = (seen.kind == Kind::Directory, seen.version.len);
                Some(listing::Item { name, folder, len, modified: seen.version.modified() })
            }
            EntryKind::Other => None,
        }
    }

    /// Lets go of what nobody asks for; whether anything is still kept.
    pub(crate) fn tidy(&self, now: Duration) -> bool {
        self.lookup.tidy(now)
    }
}

/// What a failure means to the client.
impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Status(match failure.reason {
            Reason::Contended => return Self::Changing,
            Reason::Absent | Reason::Outside => StatusCode::NOT_FOUND,
            Reason::Special | Reason::Denied => StatusCode::FORBIDDEN,
            Reason::Exhausted | Reason::Rootless => StatusCode::SERVICE_UNAVAILABLE,
            Reason::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        })
    }
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::Status(status)
    }
}

/// Leaves out what is sent in place of another file of the list.
fn remove_neighbours(items: &mut Vec<listing::Item>) {
    let plain: HashSet<Box<[u8]>> = items.iter().map(|item| item.name.as_slice().into()).collect();
    items.retain(|item| !Form::plain_name(&item.name).is_some_and(|name| plain.contains(name)));
}

fn join(relative: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(relative.len() + 1 + name.len());
    path.extend_from_slice(relative);
    if !relative.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
