//! Which folder or file answers which URL. Knows nothing of what is in the folders.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};

use super::files::{Changing, Folder, Refusal, Target, UrlPath, reads, without_file};
use super::{Exchange, Handler, Request, Responder, Response};
use crate::sys;

/// Folders and files under prefixes of the URL's path; the longest prefix that matches answers.
#[derive(Debug)]
pub(crate) struct Routes {
    /// The longest prefix first.
    routes: Vec<Route>,
    /// Requests for files that were being written to.
    waiting: Mutex<Vec<Waiting>>,
    /// On the monotonic clock, in microseconds; [`NEVER`] while there is nothing to do.
    deadline: AtomicU64,
}

#[derive(Debug)]
struct Route {
    /// Written like [`UrlPath::decoded`].
    prefix: Vec<u8>,
    folder: Folder,
    /// The one file of the folder that is the target.
    file: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    responder: Responder,
    attempts: u32,
}

const NEVER: u64 = u64::MAX;

/// How long a request waits for a file that is being written to, before it asks again: a tick of the clock that file
/// systems stamp their files with, on most machines. And how often it asks.
const MOMENT: Duration = Duration::from_millis(5);
const MOST_ATTEMPTS: u32 = 20;

/// How often the folders are told to let go of what nobody asks for.
const TIDY_EVERY: Duration = Duration::from_secs(5);

impl Routes {
    /// Prefixes are written plainly, not percent-encoded, and match whole segments: `/a` is for `/a` and `/a/b`, not
    /// for `/ab`. A slash at the end makes no difference. The folder sees what follows its prefix.
    pub(crate) fn new(targets: Vec<(String, Target)>) -> Self {
        let mut routes: Vec<_> = targets.into_iter().map(|(prefix, target)| Route::new(&prefix, target)).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix.len()));
        Self { routes, waiting: Mutex::default(), deadline: AtomicU64::new(NEVER) }
    }

    fn answer(&self, request: &Request, now: Duration) -> Result<Response, Changing> {
        let path = UrlPath::resolve(request.uri().path());
        let route = path.as_ref().ok().and_then(|path| self.routes.iter().find(|route| route.matches(path)));
        let asked = reads(request.method()).and(path).map_err(Refusal::from);
        let served = asked.and_then(|path| match route {
            Some(route) => route.serve(request, &path, now),
            None => Err(StatusCode::NOT_FOUND.into()),
        });
        match served {
            Ok(response) => self.with_page(response, request, route, now),
            Err(Refusal::Status(status)) => self.with_page(without_file(status), request, route, now),
            Err(Refusal::Changing) => Err(Changing),
        }
    }

    /// Of a refusal: with the page for its status of the folder that was asked, of the one at `/`, or our own.
    fn with_page(
        &self,
        mut response: Response,
        request: &Request,
        asked: Option<&Route>,
        now: Duration,
    ) -> Result<Response, Changing> {
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let is_asked = |route: &Route| asked.is_some_and(|asked| std::ptr::eq(asked, route));
            let root = self.routes.iter().find(|route| route.prefix.is_empty() && !is_asked(route));
            let pages = asked.into_iter().chain(root).filter(|route| route.file.is_none());
            for route in pages {
                if let Some(page) = route.folder.page(request, status, now)? {
                    response.headers_mut().remove(CONTENT_TYPE);
                    // As of an empty file: HEAD is to say so too.
                    if page.is_empty() {
                        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                    }
                    *response.body_mut() = page;
                    break;
                }
            }
        }
        Ok(response)
    }

    fn answer_or_wait(&self, request: Request, responder: Responder, attempts: u32, now: Duration) {
        match self.answer(&request, now) {
            Ok(response) => responder.respond(response),
            Err(Changing) if attempts < MOST_ATTEMPTS => {
                self.lock().push(Waiting { request, responder, attempts: attempts + 1 });
                self.call_at(now + MOMENT);
            }
            Err(Changing) => {
                let path = request.uri().path();
                ::log::warn!("the file for {path:?} is written to without a pause; answering 503");
                responder.respond(without_file(StatusCode::SERVICE_UNAVAILABLE));
            }
        }
    }

    /// Asks to be called then, or before.
    fn call_at(&self, deadline: Duration) {
        self.deadline.fetch_min(micros(deadline), Ordering::Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        // The list is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handler for Routes {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        let now = sys::clock::monotonic();
        self.answer_or_wait(request, responder, 0, now);
        if self.deadline.load(Ordering::Relaxed) == NEVER {
            self.call_at(now + TIDY_EVERY);
        }
    }

    /// To read and sort a long folder takes some milliseconds.
    fn may_block(&self, request: &Request) -> bool {
        self.routes.iter().any(|route| route.folder.lists())
            && UrlPath::resolve(request.uri().path()).is_ok_and(|path| path.directory)
    }

    fn next_deadline(&self) -> Option<Duration> {
        let deadline = self.deadline.load(Ordering::Relaxed);
        (deadline != NEVER).then(|| Duration::from_micros(deadline))
    }

    fn tend(&self, now: Duration) {
        // Of several threads that come for one deadline, one does it: else requests would ask again too soon, and be given
        // up before their file is settled.
        let take = |deadline| (deadline <= micros(now)).then_some(NEVER);
        if self.deadline.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return;
        }
        let waiting = std::mem::take(&mut *self.lock());
        for Waiting { request, responder, attempts } in waiting {
            self.answer_or_wait(request, responder, attempts, now);
        }
        // Not `any`: each is to be told.
        let kept = self.routes.iter().filter(|route| route.folder.tidy(now)).count();
        if kept > 0 {
            self.call_at(now + TIDY_EVERY);
        }
    }
}

impl Route {
    fn new(prefix: &str, target: Target) -> Self {
        let segments = prefix.split('/').filter(|segment| !segment.is_empty());
        let prefix = segments.collect::<Vec<_>>().join("/").into_bytes();
        match target {
            Target::Folder(folder) => Self { prefix, folder, file: None },
            Target::File(folder, name) => Self { prefix, folder, file: Some(name) },
        }
    }

    fn matches(&self, path: &UrlPath) -> bool {
        match &self.file {
            None => path.below(&self.prefix).is_some(),
            Some(_) => path.decoded == self.prefix && !path.directory,
        }
    }

    fn serve(&self, request: &Request, path: &UrlPath, now: Duration) -> Result<Response, Refusal> {
        match &self.file {
            None => self.folder.serve(request, path, path.below(&self.prefix).unwrap_or_default(), now),
            Some(name) => self.folder.serve_file(request, name, now),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::SystemTime;

    use http::Method;
    use tempfile::TempDir;

    use super::*;
    use crate::site::RequestBody;
    use crate::site::files::Options;
    use crate::site::testing::{answer, answer_to, field, get, text};

    fn options() -> Options {
        Options { index: vec!["index.html".into()], ..Options::default() }
    }

    /// A folder with a file `name` that says `whose` it is.
    fn folder(dir: &Path, whose: &str) -> Folder {
        let path = dir.join(whose);
        std::fs::create_dir_all(path.join("sub")).unwrap();
        for file in ["name", "index.html", "sub/name"] {
            std::fs::write(path.join(file), whose).unwrap();
        }
        Folder::new(&path, options(), 1)
    }

    fn routes(prefixes: &[&str]) -> (Routes, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let named =
            |(n, prefix): (usize, &&str)| ((*prefix).to_owned(), Target::Folder(folder(dir.path(), &n.to_string())));
        (Routes::new(prefixes.iter().enumerate().map(named).collect()), dir)
    }

    #[test]
    fn longest_prefix_answers() {
        let (routes, _dir) = routes(&["/", "/a", "/a/b/", "/long name", "/.well-known"]);
        for (target, whose) in [
            ("/name", "0"),
            ("/sub/name", "0"),
            ("/a/name", "1"),
            ("/a/", "1"),
            ("//a//name", "1"),
            ("/%61/name", "1"),
            ("/x/../a/name", "1"),
            ("/a/../name", "0"),
            ("/a/b/name", "2"),
            ("/a/b/sub/name", "2"),
            ("/long%20name/name", "3"),
            ("/.well-known/name", "4"),
        ] {
            assert_eq!(text(get(&routes, target)), whose, "{target}");
        }
        assert_eq!(get(&routes, "/ab/name").status(), 404);
        assert_eq!(get(&routes, "/a/b/../../../name").status(), 400);
    }

    #[test]
    fn a_file_is_its_prefix_and_nothing_below() {
        let dir = tempfile::tempdir().unwrap();
        let single = Target::File(folder(dir.path(), "1"), b"name".to_vec());
        let whole = Target::Folder(folder(dir.path(), "0"));
        let routes = Routes::new(vec![("/".into(), whole), ("/sub/name".into(), single)]);
        for (target, whose) in [("/sub/name", "1"), ("/sub//name", "1"), ("/name", "0")] {
            assert_eq!(text(get(&routes, target)), whose, "{target}");
        }
        for target in ["/sub/name/", "/sub/name/x", "/sub/name/index.html"] {
            assert_eq!(get(&routes, target).status(), 404, "{target}");
        }
    }

    #[test]
    fn redirect_keeps_the_prefix() {
        let (routes, _dir) = routes(&["/a/b"]);
        for (target, location) in [("/a/b", "/a/b/"), ("/a/b?q", "/a/b/?q"), ("//a/b/sub", "/a/b/sub/")] {
            let response = get(&routes, target);
            assert_eq!(response.status(), 301, "{target}");
            assert_eq!(field(&response, "location"), location, "{target}");
        }
    }

    #[test]
    fn unrouted_is_not_found() {
        let (routes, _dir) = routes(&["/a"]);
        for target in ["/", "/b", "/ab", "/b/../ab"] {
            assert_eq!(get(&routes, target).status(), 404, "{target}");
        }
        assert_eq!(answer(&routes, Method::POST, "/a/").status(), 405);
        assert_eq!(answer(&routes, Method::OPTIONS, "*").status(), 204);
    }

    #[test]
    fn pages_of_the_folder_go_before_those_of_the_root() {
        let (routes, dir) = routes(&["/", "/a"]);
        std::fs::write(dir.path().join("0/404.html"), "root's 404").unwrap();
        std::fs::write(dir.path().join("0/405.html"), "root's 405").unwrap();
        std::fs::write(dir.path().join("0/400.html"), "root's 400").unwrap();
        std::fs::write(dir.path().join("1/400.html"), "never: where the path leads is not known").unwrap();
        std::fs::write(dir.path().join("1/404.html"), "a's 404").unwrap();
        std::fs::write(dir.path().join("1/405.html"), "a's 405").unwrap();
        for (method, target, status, page) in [
            (Method::GET, "/missing", 404, "root's 404"),
            (Method::GET, "/a/missing", 404, "a's 404"),
            (Method::POST, "/name", 405, "root's 405"),
            (Method::POST, "/a/name", 405, "a's 405"),
            (Method::GET, "/a/%00", 400, "root's 400"),
        ] {
            let response = answer(&routes, method, target);
            assert_eq!(response.status(), status, "{target}");
            assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
            assert_eq!(field(&response, "etag"), "");
            assert_eq!(text(response), page);
        }
        assert_eq!(field(&answer(&routes, Method::POST, "/"), "allow"), "GET, HEAD, OPTIONS");
        std::fs::write(dir.path().join("0/416.html"), "root's 416").unwrap();
        let request = http::Request::builder().uri("/a/name").header("range", "bytes=9-").body(RequestBody::default());
        let response = answer_to(&routes, request.unwrap());
        assert_eq!((response.status().as_u16(), field(&response, "content-range")), (416, "bytes */1"));
        assert_eq!(text(response), "root's 416");
        assert_eq!(text(get(&routes, "/404.html")), "root's 404");
        assert_eq!(get(&routes, "/404.html").status(), 200);
    }

    #[test]
    fn head_says_of_an_empty_page_that_it_is_empty() {
        let (routes, dir) = routes(&["/"]);
        std::fs::write(dir.path().join("0/404.html"), "").unwrap();
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(field(&answer(&routes, method, "/missing"), "content-length"), "0");
        }
    }

    #[test]
    fn a_request_that_waits_asks_again_no_sooner_for_being_tended_often() {
        struct Crowd(Routes);
        impl Handler for Crowd {
            fn handle(&self, exchange: Exchange) {
                self.0.handle(exchange);
                (0..=MOST_ATTEMPTS).for_each(|_| self.0.tend(Duration::ZERO));
            }
            fn next_deadline(&self) -> Option<Duration> {
                self.0.next_deadline()
            }
            fn tend(&self, now: Duration) {
                (0..=MOST_ATTEMPTS).for_each(|_| self.0.tend(now));
            }
        }
        let (routes, dir) = routes(&["/"]);
        let file = std::fs::File::options().append(true).open(dir.path().join("0/name")).unwrap();
        // As if it were written just now, and for some milliseconds more.
        file.set_modified(SystemTime::now() + Duration::from_millis(15)).unwrap();
        assert_eq!(get(&Crowd(routes), "/name").status(), 200);
    }

    #[test]
    fn what_nobody_asks_for_is_let_go_and_then_there_is_nothing_to_do() {
        let (routes, _dir) = routes(&["/", "/a"]);
        assert_eq!(routes.next_deadline(), None);
        get(&routes, "/name");
        let first = routes.next_deadline().unwrap();
        get(&routes, "/a/name");
        assert_eq!(routes.next_deadline(), Some(first));
        routes.tend(first);
        assert_eq!(routes.next_deadline(), Some(first + TIDY_EVERY));
        routes.tend(first + Duration::from_secs(60));
        assert_eq!(routes.next_deadline(), None);
    }
}
