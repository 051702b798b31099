//! A folder as the clients of every day see it: curl and Python, with ranges, conditions and codings.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{Launch, Server, curl, pattern};

const LENGTH: usize = 300_000;

/// A served folder with a large file, and a place for what clients keep.
struct Site {
    server: Server,
}

/// What curl has received.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Site {
    fn new() -> Self {
        let launch = Launch::regrow().args(["--processPool", "2"]);
        let root = launch.folder().join("site");
        fs::create_dir(&root).unwrap();
        write_aged(&root.join("large.bin"), &pattern(LENGTH));
        write_aged(&root.join("page.html"), page().as_bytes());
        Self { server: launch.arg(root).start() }
    }

    fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.server.address())
    }

    /// A file that clients do not see.
    fn own(&self, name: &str) -> PathBuf {
        self.server.folder().join(name)
    }

    fn served(&self, name: &str) -> PathBuf {
        self.own("site").join(name)
    }

    /// curl, which must succeed, with these options.
    fn curl(&self, target: &str, options: &[&str]) -> Reply {
        let (head, body) = (self.own("head"), self.own("body"));
        let _ = fs::remove_file(&body);
        let mut args = vec!["--dump-header", path(&head), "--output", path(&body)];
        args.extend(options);
        let url = self.url(target);
        args.push(&url);
        let output = curl(&args);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        let head = fs::read_to_string(head).unwrap();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).expect("a status line");
        // Where nothing comes, curl makes no file; to HEAD, it makes one with the head.
        let body = if options.contains(&"--head") { Vec::new() } else { fs::read(body).unwrap_or_default() };
        Reply { status, head, body }
    }
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = fields.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice in {}", self.head);
        value
    }
}

#[test]
fn curl_gets_the_ranges_it_asks_for() {
    let site = Site::new();
    let whole = pattern(LENGTH);
    let full = site.curl("/large.bin", &[]);
    assert_eq!((full.status, full.field("accept-ranges")), (200, Some("bytes")), "{}", full.head);
    assert!(full.body == whole);
    for (range, start, end) in [
        ("0-99", 0, 100),
        ("0-0", 0, 1),
        ("-100", LENGTH - 100, LENGTH),
        ("100-", 100, LENGTH),
        ("299999-", LENGTH - 1, LENGTH),
        ("70000-299999", 70_000, LENGTH),
        ("299000-400000", 299_000, LENGTH),
        ("-400000", 0, LENGTH),
    ] {
        let part = site.curl("/large.bin", &["-r", range]);
        assert_eq!(part.status, 206, "{range}: {}", part.head);
        let content_range = format!("bytes {start}-{}/{LENGTH}", end - 1);
        assert_eq!(part.field("content-range"), Some(content_range.as_str()), "{range}");
        assert_eq!(part.field("content-length"), Some((end - start).to_string().as_str()), "{range}");
        assert_eq!(part.field("etag"), full.field("etag"), "{range}");
        assert_eq!(part.field("last-modified"), full.field("last-modified"), "{range}");
        assert!(part.body == whole[start..end], "{range}");
    }
    let beyond = site.curl("/large.bin", &["-r", "300000-"]);
    assert_eq!((beyond.status, beyond.field("content-range")), (416, Some("bytes */300000")), "{}", beyond.head);
    let head = site.curl("/large.bin", &["--head", "-r", "0-99"]);
    assert_eq!((head.status, head.field("content-length")), (200, Some("300000")), "{}", head.head);
}

#[test]
fn curl_gets_several_ranges_in_one_answer() {
    let site = Site::new();
    let whole = pattern(LENGTH);
    let reply = site.curl("/large.bin", &["-r", "0-9,50000-50059,-5,100000-199999"]);
    assert_eq!(reply.status, 206, "{}", reply.head);
    assert_eq!(reply.field("content-range"), None, "RFC 9110 section 15.3.7.2");
    assert_eq!(reply.field("content-length"), Some(reply.body.len().to_string().as_str()));
    let parts = multipart(&reply);
    let expected: Vec<_> = [(0, 10), (50_000, 50_060), (LENGTH - 5, LENGTH), (100_000, 200_000)]
        .map(|(start, end)| (format!("bytes {start}-{}/{LENGTH}", end - 1), whole[start..end].to_vec()))
        .into();
    assert!(parts == expected, "{:?}", parts.iter().map(|(range, body)| (range, body.len())).collect::<Vec<_>>());

    // Neighbours may come in one part (RFC 9110 section 15.3.7.2).
    let reply = site.curl("/large.bin", &["-r", "0-9,50-59"]);
    assert_eq!(reply.status, 206, "{}", reply.head);
    match reply.field("content-range") {
        Some(range) => assert!(range == "bytes 0-59/300000" && reply.body == whole[..60], "{range}"),
        None => assert_eq!(
            multipart(&reply).into_iter().flat_map(|(_, body)| body).collect::<Vec<_>>(),
            [&whole[..10], &whole[50..60]].concat()
        ),
    }

    // One of two is there: one part, in whichever form.
    let reply = site.curl("/large.bin", &["-r", "0-9,300000-"]);
    assert_eq!(reply.status, 206, "{}", reply.head);
    let body = if reply.field("content-range").is_some() { reply.body } else { multipart(&reply).remove(0).1 };
    assert!(body == whole[..10]);
}

/// The parts of a `multipart/byteranges`, each with its Content-Range (RFC 9110 section 14.6, RFC 2046 section 5.1.1).
fn multipart(reply: &Reply) -> Vec<(String, Vec<u8>)> {
    let media_type = reply.field("content-type").expect("a type");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{media_type}"));
    let dashes = format!("--{}", boundary.trim_matches('"'));
    let mut rest = reply.body.strip_prefix(b"\r\n").unwrap_or(&reply.body);
    rest = rest.strip_prefix(dashes.as_bytes()).expect("the boundary");
    let delimiter = format!("\r\n{dashes}");
    let mut parts = Vec::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let blank = find(part, b"\r\n\r\n").expect("the end of a part's head");
        let head = String::from_utf8_lossy(&part[..blank]);
        assert!(head.to_ascii_lowercase().contains("content-type: application/octet-stream"), "{head}");
        let range = head.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| is_content_range(name)));
        let body = &part[blank + 4..];
        let end = find(body, delimiter.as_bytes()).expect("the boundary behind a part");
        parts.push((range.expect("a range").1.to_owned(), body[..end].to_vec()));
        rest = &body[end + delimiter.len()..];
    }
    assert!(matches!(rest, b"--" | b"--\r\n"), "the end {:?}", rest.escape_ascii().to_string());
    parts
}

fn is_content_range(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-range")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[test]
fn curl_resumes_a_download() {
    let site = Site::new();
    let whole = pattern(LENGTH);
    let (partial, url) = (site.own("partial"), site.url("/large.bin"));
    for kept in [1, 100_000, LENGTH - 1] {
        fs::write(&partial, &whole[..kept]).unwrap();
        let output = curl(&["--fail", "-C", "-", "--output", path(&partial), &url]);
        assert!(output.status.success(), "{kept}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(&partial).unwrap() == whole, "resumed after {kept} bytes");
    }
    // Whole already: 416, whose page curl leaves out.
    let output = curl(&["-C", "-", "--output", path(&partial), &url]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read(&partial).unwrap() == whole);
    if wget_is_installed() {
        fs::write(&partial, &whole[..50_000]).unwrap();
        let mut wget = Command::new("wget");
        wget.args(["--quiet", "--continue", "--output-document"]).arg(&partial).arg(&url);
        assert!(wget.status().unwrap().success());
        assert!(fs::read(&partial).unwrap() == whole, "resumed by wget");
    }
}

fn wget_is_installed() -> bool {
    Command::new("wget").arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_download_resumed_after_the_file_has_changed_is_the_new_file() {
    let site = Site::new();
    let old = site.curl("/large.bin", &["-r", "0-99999"]);
    let (tag, date) = (field_line("If-Range", &old, "etag"), field_line("If-Range", &old, "last-modified"));
    for validator in [&tag, &date] {
        let rest = site.curl("/large.bin", &["-r", "100000-", "-H", validator]);
        assert_eq!((rest.status, rest.body.len()), (206, LENGTH - 100_000), "{validator}: {}", rest.head);
    }
    let new = pattern(LENGTH + 77).split_off(77);
    replace(&site.served("large.bin"), &new);
    crate::support::wait_until("the new file", || (site.curl("/large.bin", &[]).body == new).then_some(()));
    for validator in [&tag, &date] {
        let reply = site.curl("/large.bin", &["-r", "100000-", "-H", validator]);
        assert_eq!((reply.status, reply.field("content-range")), (200, None), "{validator}: {}", reply.head);
        assert!(reply.body == new, "{validator}");
    }
    let refused = site.curl("/large.bin", &["-H", &field_line("If-Match", &old, "etag")]);
    assert_eq!(refused.status, 412, "{}", refused.head);
}

/// A request's field with what a response had in another.
fn field_line(name: &str, reply: &Reply, from: &str) -> String {
    format!("{name}: {}", reply.field(from).unwrap_or_else(|| panic!("no {from} in {}", reply.head)))
}

#[test]
fn curl_asks_only_for_what_has_changed() {
    let site = Site::new();
    let tags = site.own("tags");
    let full = site.curl("/page.html", &["--etag-save", path(&tags)]);
    let tag = full.field("etag").expect("a tag");
    assert_eq!((full.status, fs::read_to_string(&tags).unwrap().trim()), (200, tag));
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "a strong tag: {tag}");

    let served = site.served("page.html");
    for condition in [["--etag-compare", path(&tags)], ["-z", path(&served)]] {
        for head in [None, Some("--head")] {
            let options: Vec<_> = condition.into_iter().chain(head).collect();
            let reply = site.curl("/page.html", &options);
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{options:?}: {}", reply.head);
            assert_eq!(reply.field("etag"), Some(tag), "{options:?}");
            assert_eq!(reply.field("content-range"), None, "{options:?}");
        }
    }
    // If-None-Match decides where both are there (RFC 9110 section 13.2.2).
    let reply = site.curl("/page.html", &["-z", path(&served), "-H", "If-None-Match: \"other\""]);
    assert_eq!(reply.status, 200, "{}", reply.head);

    replace(&served, b"<h1>changed</h1>");
    crate::support::wait_until("the change", || {
        let reply = site.curl("/page.html", &["--etag-compare", path(&tags)]);
        (reply.status == 200 && reply.body == b"<h1>changed</h1>").then_some(())
    });
}

#[test]
fn curl_is_given_the_compressed_neighbour_it_understands() {
    let site = Site::new();
    compress(&site.served("page.html"));
    let plain = site.curl("/page.html", &[]);
    assert_eq!((plain.status, plain.field("content-encoding")), (200, None), "{}", plain.head);
    assert_eq!(plain.field("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
    assert!(plain.body == page().as_bytes());

    let gzip_length = fs::metadata(site.served("page.html.gz")).unwrap().len();
    let reply = site.curl("/page.html", &["-H", "Accept-Encoding: gzip"]);
    assert_eq!((reply.status, reply.field("content-encoding")), (200, Some("gzip")), "{}", reply.head);
    assert_eq!(reply.body.len() as u64, gzip_length);
    assert_eq!(reply.field("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
    assert_eq!(reply.field("content-type"), plain.field("content-type"));
    assert_ne!(reply.field("etag"), plain.field("etag"), "each has its own");

    // What this curl can decode, it asks for, and decodes; some need --compressed to be built in.
    let decoded = site.curl("/page.html", &["--compressed"]);
    assert!(decoded.field("content-encoding").is_some(), "{}", decoded.head);
    assert!(decoded.body == page().as_bytes());
    for neighbour in neighbours(&site.served("page.html")) {
        let reply = site.curl("/page.html", &["-H", &format!("Accept-Encoding: {}", neighbour.coding)]);
        assert_eq!(reply.field("content-encoding"), Some(neighbour.coding), "{}", reply.head);
        assert!(reply.body == fs::read(&neighbour.path).unwrap(), "{}", neighbour.coding);
        let not_modified = field_line("If-None-Match", &reply, "etag");
        let again =
            site.curl("/page.html", &["-H", &format!("Accept-Encoding: {}", neighbour.coding), "-H", &not_modified]);
        assert_eq!((again.status, again.field("etag")), (304, reply.field("etag")), "{}", again.head);
    }
    // Parts are parts of the file itself.
    let part = site.curl("/page.html", &["-H", "Accept-Encoding: gzip, br, zstd", "-r", "10-19"]);
    assert_eq!((part.status, part.field("content-encoding")), (206, None), "{}", part.head);
    assert_eq!(part.field("etag"), plain.field("etag"));
    assert!(part.body == page().as_bytes()[10..20]);
    // A neighbour that is older than its file is not used.
    write_aged(&site.served("page.html.gz"), b"forgotten");
    replace(&site.served("page.html"), b"new");
    crate::support::wait_until("the file itself", || {
        let reply = site.curl("/page.html", &["--compressed"]);
        (reply.field("content-encoding").is_none() && reply.body == b"new").then_some(())
    });
}

/// A compressed neighbour of a file.
struct Neighbour {
    coding: &'static str,
    path: PathBuf,
}

fn neighbours(of: &Path) -> Vec<Neighbour> {
    let all = [("br", "br"), ("gzip", "gz"), ("zstd", "zst")];
    let all = all.map(|(coding, ending)| Neighbour { coding, path: format!("{}.{ending}", of.display()).into() });
    all.into_iter().filter(|neighbour| neighbour.path.exists()).collect()
}

/// Makes a neighbour with everything that can be had: Python has gzip, of the others the programs may be there.
fn compress(file: &Path) {
    let gzip = "import gzip, sys; f = sys.argv[1]; open(f + '.gz', 'wb').write(gzip.compress(open(f, 'rb').read()))";
    assert!(Command::new("python3").args(["-c", gzip]).arg(file).status().unwrap().success());
    for program in ["brotli", "zstd"] {
        let _ = Command::new(program).args(["-q", "-k"]).arg(file).status();
    }
}

const PYTHON: &str = r#"
import http.client, sys, urllib.error, urllib.request
host, port = sys.argv[1].split(":")

kept = http.client.HTTPConnection(host, int(port), timeout=20)
def ask(method, **fields):
    kept.request(method, "/page.html", headers={name.replace("_", "-"): value for name, value in fields.items()})
    reply = kept.getresponse()
    return reply.status, reply.headers, reply.read()

status, whole, body = ask("GET")
assert status == 200 and len(body) == int(whole["Content-Length"]), (status, whole.items())
tag, date = whole["ETag"], whole["Last-Modified"]
past = "Sun, 06 Nov 1994 08:49:37 GMT"
for expected, conditions in [
    (304, {"If_None_Match": tag}),
    (304, {"If_None_Match": "W/" + tag}),
    (304, {"If_None_Match": '"x", ' + tag}),
    (304, {"If_None_Match": "*"}),
    (304, {"If_Modified_Since": date}),
    (200, {"If_Modified_Since": past}),
    (200, {"If_Modified_Since": "yesterday"}),
    (200, {"If_None_Match": '"x"', "If_Modified_Since": date}),
    (200, {"If_Match": tag}),
    (200, {"If_Match": "*"}),
    (412, {"If_Match": '"x"'}),
    (412, {"If_Match": "W/" + tag}),
    (200, {"If_Unmodified_Since": date}),
    (412, {"If_Unmodified_Since": past}),
    (304, {"If_Match": tag, "If_None_Match": tag}),
    (304, {"If_None_Match": tag, "Range": "bytes=0-9"}),
]:
    for method in ["GET", "HEAD"]:
        status, fields, received = ask(method, **conditions)
        assert status == expected, (method, conditions, status)
        if status == 304:
            assert received == b"" and fields["ETag"] == tag, (method, conditions, fields.items())
        if method == "GET" and status == 200:
            assert received == body, (method, conditions)

request = urllib.request.Request("http://%s:%s/page.html" % (host, port), headers={"If-None-Match": tag})
try:
    urllib.request.urlopen(request, timeout=20)
    raise AssertionError("not modified, and yet sent")
except urllib.error.HTTPError as error:
    assert error.code == 304, error
request = urllib.request.Request("http://%s:%s/page.html" % (host, port), headers={"Range": "bytes=5-9"})
with urllib.request.urlopen(request, timeout=20) as part:
    assert part.status == 206 and part.read() == body[5:10]

kept.request("OPTIONS", "/page.html")
reply = kept.getresponse()
reply.read()
assert reply.status in (200, 204) and reply.headers["Allow"] == "GET, HEAD, OPTIONS", (reply.status, reply.headers.items())
print("all as expected")
"#;

#[test]
fn python_is_answered_by_its_conditions() {
    let site = Site::new();
    let address = site.server.address().to_string();
    let output = Command::new("python3").args(["-c", PYTHON, &address]).output().expect("python3 is installed");
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said == "all as expected\n", "{said}{complaint}");
}

fn page() -> String {
    format!("<!doctype html><title>page</title>{}", "<p>the same again and again</p>\n".repeat(200))
}

/// A file that was changed a minute ago.
fn write_aged(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
}

/// Another file by the same name, from one moment to the next.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).unwrap();
    fs::rename(new, path).unwrap();
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
