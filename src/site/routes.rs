//! Which folder answers which URL. Knows nothing of what is in the folders.

use http::StatusCode;

use super::files::{Folder, UrlPath, asked_path, without_file};
use super::{Exchange, Handler, Request};

/// Folders under prefixes of the URL's path; the longest prefix that matches answers.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Written like [`UrlPath::decoded`], the longest first.
    folders: Vec<(Vec<u8>, Folder)>,
}

impl Routes {
    /// Prefixes are written plainly, not percent-encoded, and match whole segments: `/a` is for `/a` and `/a/b`, not
    /// for `/ab`. A slash at the end makes no difference. The folder sees what follows its prefix.
    pub(crate) fn new(folders: Vec<(String, Folder)>) -> Self {
        let mut folders: Vec<_> = folders.into_iter().map(|(prefix, folder)| (decoded(&prefix), folder)).collect();
        folders.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self { folders }
    }

    fn find<'a>(&self, path: &'a UrlPath) -> Option<(&Folder, &'a [u8])> {
        self.folders.iter().find_map(|(prefix, folder)| Some((folder, path.below(prefix)?)))
    }
}

impl Handler for Routes {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        let response = asked_path(&request).and_then(|path| {
            let (folder, rest) = self.find(&path).ok_or(StatusCode::NOT_FOUND)?;
            folder.serve(&request, rest, path.directory)
        });
        responder.respond(response.unwrap_or_else(without_file));
    }

    fn may_block(&self, _request: &Request) -> bool {
        false
    }
}

fn decoded(prefix: &str) -> Vec<u8> {
    prefix.split('/').filter(|segment| !segment.is_empty()).collect::<Vec<_>>().join("/").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Method;
    use tempfile::TempDir;

    use super::*;
    use crate::site::files::Options;
    use crate::site::testing::{answer, field, get, text};

    /// A folder with a file `name` that says `whose` it is.
    fn folder(dir: &Path, whose: &str) -> Folder {
        let path = dir.join(whose);
        std::fs::create_dir_all(path.join("sub")).unwrap();
        for file in ["name", "index.html", "sub/name"] {
            std::fs::write(path.join(file), whose).unwrap();
        }
        let options = Options { index: vec!["index.html".into()], dotfiles: false, follow_symlinks: false };
        Folder::open(&path, options).unwrap()
    }

    fn routes(prefixes: &[&str]) -> (Routes, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let named = |(n, prefix): (usize, &&str)| ((*prefix).to_owned(), folder(dir.path(), &n.to_string()));
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
}
