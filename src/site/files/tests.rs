use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use http::Method;

use super::*;
use crate::site::testing::{answer, answer_to, body, field, get, text};
use crate::site::{Exchange, Handler, Payload, RequestBody};
use crate::sys::clock;

const BOTH: [Confinement; 2] = [Confinement::Beneath, Confinement::BeneathByWalk];

/// The folder as a whole site.
impl Handler for Folder {
    fn handle(&self, exchange: Exchange) {
        let (request, responder) = exchange.into_parts();
        let answer = |path: UrlPath| loop {
            match self.serve(&request, &path, &path.decoded, clock::monotonic()) {
                Ok(response) => return Ok(response),
                Err(Refusal::Status(status)) => return Err(status),
                // Written in this very tick.
                Err(Refusal::Changing) => std::thread::yield_now(),
            }
        };
        let path = reads(request.method()).and(UrlPath::resolve(request.uri().path()));
        responder.respond(path.and_then(answer).unwrap_or_else(without_file));
    }
}

/// A folder `root` to be served, with `secret` outside it.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap() };
        site.write("secret", "secret");
        site.write("root/index.html", "home");
        site.write("root/docs/index.html", "docs");
        site.write("root/docs/a b.txt", "text");
        site.write("root/.hidden", "hidden");
        site.write("root/.git/config", "hidden");
        fs::create_dir(site.path("root/bare")).unwrap();
        site
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn folder(&self, confinement: Confinement) -> Folder {
        Folder::confined(&self.path("root"), options(), 1, confinement)
    }

    /// What both ways of opening answer.
    fn statuses(&self, target: &str) -> [u16; 2] {
        BOTH.map(|confinement| get(&self.folder(confinement), target).status().as_u16())
    }
}

fn options() -> Options {
    let index = vec!["index.html".into(), "index.htm".into()];
    Options { index, precompressed: true, ..Options::default() }
}

#[test]
fn files_and_indexes_are_served_with_their_fields() {
    let site = Site::new();
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    File::options().append(true).open(site.path("root/index.html")).unwrap().set_modified(modified).unwrap();
    for confinement in BOTH {
        let response = get(&site.folder(confinement), "/");
        assert_eq!(response.status(), 200);
        assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
        assert_eq!(field(&response, "last-modified"), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(text(response), "home");
        assert_eq!(text(get(&site.folder(confinement), "/index.html?x=/../")), "home");
        let response = get(&site.folder(confinement), "/docs/a%20b.txt");
        assert_eq!(field(&response, "content-type"), "text/plain; charset=utf-8");
        assert_eq!(text(response), "text");
    }
}

#[test]
fn later_index_serves_where_the_first_is_missing() {
    let site = Site::new();
    site.write("root/old/index.htm", "old");
    fs::create_dir(site.path("root/old/index.html")).unwrap();
    for confinement in BOTH {
        assert_eq!(text(get(&site.folder(confinement), "/old/")), "old");
    }
}

#[test]
fn what_is_not_there_is_answered_by_the_table() {
    let site = Site::new();
    let long = format!("/{}", "x".repeat(300));
    let deep = "/x".repeat(3000);
    let table = [
        ("/missing", 404),
        ("/missing/", 404),
        ("/docs/missing.html", 404),
        ("/index.html/", 404),
        ("/index.html/x", 404),
        ("/bare/", 403),
        ("/.hidden", 404),
        ("/.git/config", 404),
        ("/.git/", 404),
        ("/docs/%2e%2e%2findex.html", 404),
        ("/../secret", 400),
        ("/docs/../../secret", 400),
        ("/%00", 400),
        (&long, 404),
        (&deep, 404),
    ];
    for (target, status) in table {
        assert_eq!(site.statuses(target), [status; 2], "{target}");
    }
}

#[test]
fn dotfiles_are_served_where_allowed() {
    let site = Site::new();
    let folder = Folder::new(&site.path("root"), Options { dotfiles: true, ..options() }, 1);
    assert_eq!(text(get(&folder, "/.hidden")), "hidden");
    assert_eq!(text(get(&folder, "/.git/config")), "hidden");
    assert_eq!(get(&folder, "/..").status(), 400);
}

#[test]
fn folder_without_slash_is_redirected_on_this_host() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    for (target, location) in [
        ("/docs", "/docs/"),
        ("/docs?a=b&c", "/docs/?a=b&c"),
        ("/bare", "/bare/"),
        ("/%64ocs", "/docs/"),
        ("//docs", "/docs/"),
        ("///docs?//x", "/docs/?//x"),
        ("//evil.example/../docs", "/docs/"),
        ("/.//docs", "/docs/"),
        ("http://host.example/docs", "/docs/"),
    ] {
        let response = get(&folder, target);
        assert_eq!(response.status(), 301, "{target}");
        assert_eq!(field(&response, "location"), location, "{target}");
    }
    assert_eq!(get(&folder, "/\\docs").status(), 404);
}

#[test]
fn a_listing_of_the_root_under_another_name_is_redirected_to_one_slash() {
    let site = Site::new();
    let options = Options { index: vec!["none".into()], listing: true, ..options() };
    let folder = Folder::new(&site.path("root"), options, 1);
    for (target, location) in [("//", "/"), ("/./", "/"), ("/docs/../", "/"), ("/%2e/?a", "/?a"), ("//docs/", "/docs/")]
    {
        let response = get(&folder, target);
        assert_eq!(response.status(), 301, "{target}");
        assert_eq!(field(&response, "location"), location, "{target}");
    }
}

#[test]
fn other_methods_are_refused_and_options_are_told() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::TRACE] {
        let response = answer(&folder, method, "/");
        assert_eq!(response.status(), 405);
        assert_eq!(field(&response, "allow"), "GET, HEAD, OPTIONS");
    }
    for target in ["/", "*"] {
        let response = answer(&folder, Method::OPTIONS, target);
        assert_eq!(response.status(), 204);
        assert_eq!(field(&response, "allow"), "GET, HEAD, OPTIONS");
        assert!(response.body().is_empty());
    }
}

#[test]
fn head_has_the_fields_and_the_length_of_get() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    for target in ["/", "/docs/a%20b.txt", "/missing", "/docs"] {
        let (head, get) = (answer(&folder, Method::HEAD, target), get(&folder, target));
        assert_eq!(head.status(), get.status(), "{target}");
        assert_eq!(head.headers(), get.headers(), "{target}");
        assert_eq!(head.body().len(), get.body().len(), "{target}");
    }
}

#[test]
fn large_files_are_left_in_the_page_cache_and_small_ones_read() {
    let site = Site::new();
    for (len, is_file) in
        [(0, false), (1, false), (found::READ_LIMIT, false), (found::READ_LIMIT + 1, true), (1 << 20, true)]
    {
        let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        site.write("root/data", &content);
        let folder = site.folder(Confinement::Beneath);
        let response = get(&folder, "/data");
        assert_eq!(response.body().len(), Some(len));
        assert!(body(response) == content, "{len}");
        let (_, payload) = get(&folder, "/data").into_body().into_parts();
        assert_eq!(matches!(payload, Payload::File(_)), is_file, "{len}");
    }
}

#[test]
fn links_are_followed_inside_the_folder_only() {
    let site = Site::new();
    symlink("docs", site.path("root/inside")).unwrap();
    symlink("../index.html", site.path("root/docs/up.html")).unwrap();
    symlink("../secret", site.path("root/leak")).unwrap();
    symlink("..", site.path("root/out")).unwrap();
    symlink(site.path("root/index.html"), site.path("root/absolute")).unwrap();
    symlink("circle", site.path("root/circle")).unwrap();
    for (target, status) in [
        ("/inside/", 200),
        ("/inside", 301),
        ("/inside/up.html", 200),
        ("/leak", 404),
        ("/out/secret", 404),
        ("/out", 404),
        ("/out/", 404),
        ("/absolute", 404),
        ("/circle", 404),
    ] {
        assert_eq!(site.statuses(target), [status; 2], "{target}");
    }
    let folder = Folder::new(&site.path("root"), Options { follow_symlinks: true, ..options() }, 1);
    assert_eq!(text(get(&folder, "/leak")), "secret");
    assert_eq!(text(get(&folder, "/absolute")), "home");
    assert_eq!(get(&folder, "/../secret").status(), 400);
}

#[test]
fn fifos_devices_and_sockets_are_forbidden_without_waiting() {
    let site = Site::new();
    let fifo = std::process::Command::new("mkfifo").arg(site.path("root/fifo")).status().unwrap();
    assert!(fifo.success());
    let _listener = UnixListener::bind(site.path("root/socket")).unwrap();
    for target in ["/fifo", "/socket"] {
        assert_eq!(site.statuses(target), [403; 2], "{target}");
    }
    let dev = Folder::new(Path::new("/dev"), options(), 1);
    assert_eq!(get(&dev, "/null").status(), 403);
}

#[test]
fn unreadable_files_are_forbidden() {
    let site = Site::new();
    fs::set_permissions(site.path("root/index.html"), fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(site.path("root/index.html")).is_err() {
        assert_eq!(site.statuses("/index.html"), [403; 2]);
        assert_eq!(site.statuses("/"), [403; 2]);
    }
}

#[test]
fn failures_have_their_status() {
    for (reason, status) in [
        (Reason::Absent, 404),
        (Reason::Outside, 404),
        (Reason::Special, 403),
        (Reason::Denied, 403),
        (Reason::Exhausted, 503),
        (Reason::Rootless, 503),
        (Reason::Broken, 500),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(Refusal::from(Failure::example(reason)), Refusal::Status(status), "{reason:?}");
    }
    assert_eq!(Refusal::from(Failure::CHANGING), Refusal::Changing);
    assert_eq!(field(&without_file(StatusCode::SERVICE_UNAVAILABLE), "retry-after"), "1");
}

#[test]
fn folder_swapped_for_a_link_never_leaks() {
    for confinement in BOTH {
        let site = Site::new();
        site.write("root/real/file", "inside");
        site.write("outside/file", "secret");
        symlink("../outside", site.path("root/link")).unwrap();
        let folder = Root::open(&site.path("root"), confinement).unwrap();
        let (mut served, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| swap(&site.path("root")));
            while !swapping.is_finished() {
                // Not by a request, which for a while is answered without opening anything again.
                match folder.open_beneath(b"d/file").and_then(|(file, _)| Ok(std::io::read_to_string(file)?)) {
                    Ok(text) => {
                        assert_eq!(text, "inside");
                        served += 1;
                    }
                    Err(failure) => {
                        let expected = [Reason::Absent, Reason::Outside, Reason::Contended];
                        assert!(expected.contains(&failure.reason), "{failure}");
                        refused += 1;
                    }
                }
            }
        });
        assert!(served > 0 && refused > 0, "{served} served and {refused} refused: nothing raced");
    }
}

/// Lets `d` be a folder and a link by turns.
fn swap(root: &Path) {
    for _ in 0..5000 {
        for (from, to) in [("real", "d"), ("d", "real"), ("link", "d"), ("d", "link")] {
            fs::rename(root.join(from), root.join(to)).unwrap();
        }
    }
}

#[test]
fn a_folder_that_is_away_is_503_until_it_is_there() {
    let site = Site::new();
    let folder = Folder::new(&site.path("later"), options(), 1);
    assert_eq!(at(&folder, "/", START), Err(503));
    site.write("later/index.html", "at last");
    assert_eq!(at(&folder, "/", START + 499 * MS), Err(503));
    assert_eq!(at(&folder, "/", START + 500 * MS), Ok("at last".into()));
}

#[test]
fn a_file_that_became_a_folder_is_not_there() {
    let site = Site::new();
    let Target::File(folder, name) = Target::new(&site.path("root/docs"), true, options(), 1) else {
        panic!("it was a file");
    };
    let request = http::Request::builder().uri("/docs").body(RequestBody::default()).unwrap();
    let refusal = folder.serve_file(&request, &name, START).unwrap_err();
    assert_eq!(refusal, Refusal::Status(StatusCode::NOT_FOUND));
}

#[test]
fn names_that_are_not_utf8_are_served() {
    use std::os::unix::ffi::OsStrExt;
    let site = Site::new();
    fs::write(site.path("root").join(std::ffi::OsStr::from_bytes(b"\xfe.txt")), "bytes").unwrap();
    for confinement in BOTH {
        assert_eq!(text(get(&site.folder(confinement), "/%FE.txt")), "bytes");
    }
}

/// Lets all files of the site be as old as `age`.
fn age(path: &Path, age: Duration) {
    for entry in fs::read_dir(path).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            self::age(&entry.path(), age);
        } else {
            let file = File::options().append(true).open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }
    }
}

/// `GET target` with fields.
fn ask(handler: &impl Handler, target: &str, fields: &[(&str, &str)]) -> Response {
    let mut request = http::Request::builder().uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    answer_to(handler, request.body(RequestBody::default()).unwrap())
}

#[test]
fn a_version_is_known_again_by_its_tag_and_its_date() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    let first = get(&folder, "/");
    let (tag, date) = (field(&first, "etag").to_owned(), field(&first, "last-modified").to_owned());
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
    assert_eq!(field(&first, "accept-ranges"), "bytes");
    for (fields, status) in [
        (&[("if-none-match", &*tag)][..], 304),
        (&[("if-none-match", "\"other\""), ("if-modified-since", &date)], 200),
        (&[("if-modified-since", &date)], 304),
        (&[("if-match", &tag)], 200),
        (&[("if-match", "\"other\"")], 412),
        (&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], 412),
    ] {
        let response = ask(&folder, "/", fields);
        assert_eq!(response.status(), status, "{fields:?}");
        if status == 304 {
            assert_eq!(field(&response, "etag"), tag);
            assert_eq!(field(&response, "content-type"), "");
            assert!(response.body().is_empty());
        }
    }
    assert_eq!(ask(&folder, "/missing", &[("if-match", "*")]).status(), 404);
    assert_eq!(ask(&folder, "/docs", &[("if-none-match", "*")]).status(), 301);
}

#[test]
fn parts_of_a_file_are_those_asked_for() {
    let site = Site::new();
    for len in [1000, 100_000] {
        let content: Vec<u8> = (0..=250).cycle().take(len).collect();
        site.write("root/data.txt", &content);
        let folder = site.folder(Confinement::Beneath);
        let tag = field(&get(&folder, "/data.txt"), "etag").to_owned();
        let response = ask(&folder, "/data.txt", &[("range", "bytes=10-19")]);
        assert_eq!(response.status(), 206);
        assert_eq!(field(&response, "content-range"), format!("bytes 10-19/{len}"));
        assert_eq!(field(&response, "content-type"), "text/plain; charset=utf-8");
        assert_eq!(field(&response, "etag"), tag);
        assert_eq!(response.body().len(), Some(10));
        assert_eq!(body(response), content[10..20]);
        let response = ask(&folder, "/data.txt", &[("range", "bytes=-5"), ("if-range", &tag)]);
        assert_eq!(body(response), content[len - 5..]);
        let response = ask(&folder, "/data.txt", &[("range", "bytes=-5"), ("if-range", "\"other\"")]);
        assert_eq!((response.status().as_u16(), response.body().len()), (200, Some(len as u64)));
        let response = ask(&folder, "/data.txt", &[("range", "bytes=1000000-")]);
        assert_eq!(response.status(), 416);
        assert_eq!(field(&response, "content-range"), format!("bytes */{len}"));
        let head = http::Request::builder().method(Method::HEAD).uri("/data.txt").header("range", "bytes=0-4");
        let head = answer_to(&folder, head.body(RequestBody::default()).unwrap());
        assert_eq!((head.status().as_u16(), head.body().len()), (200, Some(len as u64)));
    }
}

#[test]
fn several_parts_come_in_one_body() {
    let site = Site::new();
    for len in [1000, 100_000] {
        let content: Vec<u8> = (b'a'..=b'z').cycle().take(len).collect();
        site.write("root/data.txt", &content);
        let folder = site.folder(Confinement::Beneath);
        let response = ask(&folder, "/data.txt", &[("range", "bytes=0-9, 500-509")]);
        assert_eq!(response.status(), 206);
        assert_eq!(field(&response, "content-range"), "");
        let boundary = field(&response, "content-type").strip_prefix("multipart/byteranges; boundary=").unwrap();
        let head = |range: &str| {
            format!("--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: {range}/{len}\r\n\r\n")
        };
        let mut expected = head("bytes 0-9").into_bytes();
        expected.extend_from_slice(&content[..10]);
        expected.extend_from_slice(format!("\r\n{}", head("bytes 500-509")).as_bytes());
        expected.extend_from_slice(&content[500..510]);
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(response.body().len(), Some(expected.len() as u64));
        assert_eq!(text(response), String::from_utf8(expected).unwrap());
    }
}

#[test]
fn compressed_neighbours_go_to_those_who_take_them() {
    let site = Site::new();
    site.write("root/app.js", "plain");
    age(&site.path("root"), Duration::from_secs(100));
    for (name, content) in [("root/app.js.br", "brotli"), ("root/app.js.gz", "gzip"), ("root/app.js.zst", "zstd")] {
        site.write(name, content);
        let file = File::options().append(true).open(site.path(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(50)).unwrap();
    }
    let folder = site.folder(Confinement::Beneath);
    let mut tags = Vec::new();
    for (accepted, coding, content) in [
        ("gzip, deflate, br", "br", "brotli"),
        ("gzip", "gzip", "gzip"),
        ("br;q=0.1, zstd", "zstd", "zstd"),
        ("deflate", "", "plain"),
    ] {
        let response = ask(&folder, "/app.js", &[("accept-encoding", accepted)]);
        assert_eq!(field(&response, "content-encoding"), coding, "{accepted}");
        assert_eq!(field(&response, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(field(&response, "vary"), "accept-encoding");
        tags.push(field(&response, "etag").to_owned());
        assert_eq!(text(response), content);
        let fields = [("accept-encoding", accepted), ("if-none-match", tags.last().unwrap())];
        let response = ask(&folder, "/app.js", &fields);
        assert_eq!((response.status().as_u16(), field(&response, "vary")), (304, "accept-encoding"));
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4);
    let response = ask(&folder, "/app.js", &[("accept-encoding", "br"), ("range", "bytes=0-1")]);
    assert_eq!(
        (field(&response, "content-encoding"), field(&response, "etag")),
        ("", field(&get(&folder, "/app.js"), "etag"))
    );
    assert_eq!(text(response), "pl");
    let response = ask(&folder, "/app.js.gz", &[("accept-encoding", "gzip")]);
    assert_eq!((field(&response, "content-encoding"), field(&response, "content-type")), ("", "application/gzip"));
    assert_eq!(field(&get(&folder, "/"), "vary"), "");
    let off = Folder::new(&site.path("root"), Options { precompressed: false, ..options() }, 1);
    assert_eq!(text(ask(&off, "/app.js", &[("accept-encoding", "br")])), "plain");
}

#[test]
fn a_neighbour_that_cannot_be_had_leaves_the_others() {
    let site = Site::new();
    site.write("root/app.js", "plain");
    age(&site.path("root"), Duration::from_secs(100));
    site.write("root/app.js.br", "brotli");
    site.write("root/app.js.gz", "gzip");
    let folder = site.folder(Confinement::Beneath);
    assert_eq!(at(&folder, "/app.js", START), Ok("plain".into()));
    fs::remove_file(site.path("root/app.js.br")).unwrap();
    let taken = || {
        let Ok(Place::File(plain)) = folder.lookup.find(b"app.js", Form::Plain, START) else { panic!("it is there") };
        let request = http::Request::builder().header("accept-encoding", "br, gzip").body(RequestBody::default());
        text(Response::new(folder.best_form(&request.unwrap(), b"app.js", plain, START).whole()))
    };
    // The other was written just now, and can be had in the next tick.
    while taken() != "gzip" {
        std::thread::yield_now();
    }
}

#[test]
fn tags_tell_contents_apart_that_have_one_time_and_one_length() {
    let site = Site::new();
    let tags = ["one", "two", "one"].map(|content| {
        site.write("root/page.html", content);
        let file = File::options().append(true).open(site.path("root/page.html")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        field(&get(&site.folder(Confinement::Beneath), "/page.html"), "etag").to_owned()
    });
    assert_ne!(tags[0], tags[1]);
    assert_eq!(tags[0], tags[2]);
}

#[test]
fn head_of_an_empty_file_says_that_it_is_empty() {
    let site = Site::new();
    site.write("root/empty", "");
    let response = answer(&site.folder(Confinement::Beneath), Method::HEAD, "/empty");
    assert_eq!(field(&response, "content-length"), "0");
}

#[test]
fn a_neighbour_that_is_older_than_its_file_is_of_another_version() {
    let site = Site::new();
    site.write("root/app.js.gz", "old");
    age(&site.path("root"), Duration::from_secs(100));
    site.write("root/app.js", "new");
    let folder = site.folder(Confinement::Beneath);
    let response = ask(&folder, "/app.js", &[("accept-encoding", "gzip")]);
    assert_eq!((field(&response, "content-encoding"), field(&response, "vary")), ("", ""));
    assert_eq!(text(response), "new");
}

#[test]
fn fallback_answers_unknown_paths_and_may_not_be_stored_under_their_names() {
    let site = Site::new();
    let cache_control = Some(HeaderValue::from_static("max-age=60"));
    let fallback = Some("index.html".to_owned());
    let folder = Folder::new(&site.path("root"), Options { cache_control, fallback, ..options() }, 1);
    for target in ["/app/route", "/app/route/", "/bare/"] {
        let response = get(&folder, target);
        assert_eq!((response.status().as_u16(), field(&response, "cache-control")), (200, "no-cache"), "{target}");
        let tag = field(&response, "etag").to_owned();
        assert_eq!(text(response), "home");
        for (fields, status) in [(("if-none-match", &*tag), 304), (("range", "bytes=0-1"), 206)] {
            let response = ask(&folder, target, &[fields]);
            assert_eq!(
                (response.status().as_u16(), field(&response, "cache-control")),
                (status, "no-cache"),
                "{target}"
            );
        }
    }
    let response = get(&folder, "/index.html");
    assert_eq!(field(&response, "cache-control"), "max-age=60");
    for (target, status) in [("/.git/config", 404), ("/docs", 301), ("/%00", 400)] {
        assert_eq!(get(&folder, target).status(), status, "{target}");
    }
}

#[test]
fn listing_shows_what_can_be_had() {
    let site = Site::new();
    site.write("root/bare/file.txt", "text");
    site.write("root/bare/sub/x", "x");
    symlink("../docs/index.html", site.path("root/bare/inside")).unwrap();
    symlink("../../secret", site.path("root/bare/leak")).unwrap();
    let fifo = std::process::Command::new("mkfifo").arg(site.path("root/bare/fifo")).status().unwrap();
    assert!(fifo.success());
    let folder = Folder::new(&site.path("root"), Options { listing: true, ..options() }, 1);
    let response = get(&folder, "/bare/?sort=size");
    assert_eq!(field(&response, "content-type"), "text/html; charset=utf-8");
    let html = text(response);
    for (name, shown) in [("file.txt", true), ("sub/", true), ("inside", true), ("leak", false), ("fifo", false)] {
        assert_eq!(html.contains(&format!("href=\"./{name}\"")), shown, "{name} in\n{html}");
    }
    assert!(!text(get(&folder, "/")).contains("<table"), "an index goes before a listing");
    site.write("root/bare/.hidden", "hidden");
    assert!(
        !text(get(&folder, "/bare/")).contains("./%2Ehidden") && !text(get(&folder, "/bare/")).contains(".hidden<")
    );
    for name in ["file.txt.gz", "other.txt.gz"] {
        site.write(&format!("root/bare/{name}"), "x");
    }
    let html = text(get(&folder, "/bare/"));
    assert!(!html.contains("file.txt.gz") && html.contains("other.txt.gz"), "{html}");
    fs::write(site.path("root/bare/back\\slash"), "x").unwrap();
    assert!(!text(get(&folder, "/bare/")).contains("slash<"), "no URL leads there");
    assert_eq!(get(&folder, "/none/").status(), 404);
    let response = get(&folder, "/bare//sub/?sort=size");
    assert_eq!((response.status().as_u16(), field(&response, "location")), (301, "/bare/sub/?sort=size"));
}

/// What a folder answers at this moment, to a request without fields.
fn at(folder: &Folder, target: &str, now: Duration) -> Result<String, u16> {
    let request = http::Request::builder().uri(target).body(RequestBody::default()).unwrap();
    let path = UrlPath::resolve(target).unwrap();
    loop {
        match folder.serve(&request, &path, &path.decoded, now) {
            Ok(response) => return Ok(text(response)),
            Err(Refusal::Status(status)) => return Err(status.as_u16()),
            Err(Refusal::Changing) => std::thread::yield_now(),
        }
    }
}

/// Counted from the start of the machine, as the clock does.
const START: Duration = Duration::from_secs(1000);
const MS: Duration = Duration::from_millis(1);

#[test]
fn what_changes_is_seen_after_half_a_second() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    let path = site.path("root/page.html");
    let mut now = START;
    site.write("root/page.html", "one");
    assert_eq!(at(&folder, "/page.html", now), Ok("one".into()));
    let mut seen_after = |expected: &Result<String, u16>, before: &Result<String, u16>| {
        assert_eq!(&at(&folder, "/page.html", now + 499 * MS), before);
        now += 500 * MS;
        assert_eq!(&at(&folder, "/page.html", now), expected);
    };
    let text = |text: &str| Ok(text.to_owned());
    site.write("root/page.html", "two");
    seen_after(&text("two"), &text("one"));
    site.write("root/new", "three");
    fs::rename(site.path("root/new"), &path).unwrap();
    seen_after(&text("three"), &text("two"));
    File::options().write(true).open(&path).unwrap().set_len(2).unwrap();
    seen_after(&text("th"), &text("three"));
    fs::remove_file(&path).unwrap();
    seen_after(&Err(404), &text("th"));
}

#[test]
fn what_was_read_soon_after_it_was_written_is_read_again() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    let found = |now| loop {
        match folder.lookup.find(b"index.html", Form::Plain, now) {
            Ok(Place::File(found)) => return found,
            Ok(Place::Directory | Place::Other | Place::Absent) => panic!("it is a file"),
            Err(failure) => assert_eq!(failure.reason, Reason::Contended),
        }
    };
    let at_once = found(START);
    assert!(Arc::ptr_eq(&at_once, &found(START + 499 * MS)));
    assert!(!Arc::ptr_eq(&at_once, &found(START + 500 * MS)));
    age(&site.path("root"), Duration::from_secs(4));
    let later = found(START + 1000 * MS);
    assert!(Arc::ptr_eq(&later, &found(START + 1500 * MS)));
}

#[test]
fn a_large_file_that_is_written_to_is_seen_at_once() {
    let site = Site::new();
    let folder = site.folder(Confinement::Beneath);
    for letter in ["a", "b"] {
        site.write("root/large", letter.repeat(50_000));
        assert_eq!(at(&folder, "/large", START), Ok(letter.repeat(50_000)));
    }
}

#[test]
fn a_link_to_another_folder_deploys_it() {
    let site = Site::new();
    site.write("one/index.html", "one");
    site.write("two/index.html", "two");
    site.write("two/new.html", "new");
    let switch = |release: &str| {
        symlink(release, site.path("next")).unwrap();
        fs::rename(site.path("next"), site.path("current")).unwrap();
    };
    switch("one");
    let folder = Folder::new(&site.path("current"), options(), 1);
    assert_eq!(at(&folder, "/", START), Ok("one".into()));
    switch("two");
    assert_eq!(at(&folder, "/", START + 499 * MS), Ok("one".into()));
    assert_eq!(at(&folder, "/", START + 500 * MS), Ok("two".into()));
    assert_eq!(at(&folder, "/new.html", START + 500 * MS), Ok("new".into()));
    fs::remove_file(site.path("current")).unwrap();
    assert_eq!(at(&folder, "/", START + 1000 * MS), Ok("two".into()), "a link that is away for a moment");
    switch("one");
    assert_eq!(at(&folder, "/", START + 1500 * MS), Ok("one".into()));
    assert_eq!(at(&folder, "/new.html", START + 1500 * MS), Err(404));
}

#[test]
fn a_file_by_itself_is_served_wherever_its_name_leads() {
    let site = Site::new();
    symlink("../secret", site.path("root/.chosen")).unwrap();
    let Target::File(folder, name) = Target::new(&site.path("root/.chosen"), true, options(), 1) else {
        panic!("a file is no folder");
    };
    assert_eq!(name, b".chosen");
    assert_eq!(at(&folder, "/.chosen", START), Ok("secret".into()));
    assert!(matches!(Target::new(&site.path("root"), false, options(), 1), Target::Folder(_)));
}
