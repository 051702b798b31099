//! A folder served, as browsers and burglars see it.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Client, Launch, Server, pattern, request, wait_until};

/// A site in a folder beside a secret.
fn site() -> Server {
    let launch = Launch::regrow();
    let root = launch.folder().join("site");
    build(&root);
    launch.arg(root).args(["--processPool", "2", "--socketQueueSize", "1024"]).start()
}

fn build(root: &Path) {
    fs::create_dir_all(root.join("docs/deep")).unwrap();
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::write(root.parent().unwrap().join("secret"), "do not tell").unwrap();
    for (name, text) in [
        ("index.html", "<h1>home</h1>"),
        ("docs/index.html", "<h1>docs</h1>"),
        ("docs/a b.txt", "blank"),
        ("style.css", "b{}"),
        ("app.js", "1"),
        ("data.json", "{}"),
        ("picture.svg", "<svg/>"),
        ("no-extension", "x"),
        (".hidden", "hidden"),
        ("docs/deep/ü.html", "umlaut"),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::write(root.join("picture.png"), pattern(300_000)).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("/etc", root.join("etc")).unwrap();
    symlink("docs/a b.txt", root.join("within")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
}

#[test]
fn the_welcome_page_says_who_answered() {
    let server = Launch::regrow().start();
    let answer = Client::open(server.address()).get("/");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let text = answer.text();
    let pid = format!("<dd>{}</dd>", server.worker_pids()[0]);
    for said in ["<dd>0</dd>", "<dd>1</dd>", &pid] {
        assert!(text.contains(said), "no {said} in\n{text}");
    }
    assert_eq!(Client::open(server.address()).get("/other").status, 404);
}

#[test]
fn files_have_their_type_and_their_date() {
    let server = site();
    let mut client = Client::open(server.address());
    for (target, media_type, text) in [
        ("/", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/index.html", "text/html; charset=utf-8", "<h1>home</h1>"),
        ("/docs/", "text/html; charset=utf-8", "<h1>docs</h1>"),
        ("/docs/a%20b.txt", "text/plain; charset=utf-8", "blank"),
        ("/docs/deep/%C3%BC.html", "text/html; charset=utf-8", "umlaut"),
        ("/style.css?v=2", "text/css; charset=utf-8", "b{}"),
        ("/app.js", "text/javascript; charset=utf-8", "1"),
        ("/data.json", "application/json; charset=utf-8", "{}"),
        ("/picture.svg", "image/svg+xml; charset=utf-8", "<svg/>"),
        ("/no-extension", "application/octet-stream", "x"),
        ("/within", "application/octet-stream", "blank"),
        ("/x/../docs/./index.html", "text/html; charset=utf-8", "<h1>docs</h1>"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.text().as_str()), (200, text), "{target}");
        assert_eq!(answer.field("content-type"), Some(media_type), "{target}");
        let modified = answer.field("last-modified").unwrap_or_else(|| panic!("no date for {target}"));
        assert!(modified.ends_with(" GMT") && modified.len() == 29, "{modified}");
        client.send(request("HEAD", target));
        let head = client.answer_to("HEAD");
        assert_eq!((head.status, head.framing), (200, answer.framing), "{target}");
    }
    let picture = client.get("/picture.png");
    assert_eq!(picture.field("content-type"), Some("image/png"));
    assert!(picture.body == pattern(300_000));
}

#[test]
fn a_folder_without_a_slash_is_redirected_with_its_query() {
    let server = site();
    let mut client = Client::open(server.address());
    for (target, location) in [
        ("/docs", "/docs/"),
        ("/docs?a=b&c=%20", "/docs/?a=b&c=%20"),
        ("/docs/deep", "/docs/deep/"),
        ("//docs", "/docs/"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.field("location")), (301, Some(location)), "{target}");
    }
}

#[test]
fn what_is_not_there_or_not_for_all_has_a_page_that_says_so() {
    let server = site();
    let mut client = Client::open(server.address());
    for (target, status) in [
        ("/missing", 404),
        ("/docs/missing/x", 404),
        ("/index.html/", 404),
        ("/empty/", 403),
        ("/.hidden", 404),
        ("/fifo", 403),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, status, "{target}");
        assert!(answer.text().contains(&status.to_string()), "{target}");
    }
}

#[test]
fn nothing_outside_of_the_folder_can_be_had() {
    let server = site();
    for target in [
        "/../secret",
        "/docs/../../secret",
        "/%2e%2e/secret",
        "/.%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/docs/%2e%2e/%2e%2e/secret",
        "//../secret",
        "/./../secret",
        "/..%00/secret",
        "/out",
        "/etc/passwd",
        "/etc/",
        "/loop",
        "/%252e%252e/secret",
        "/..;/secret",
        "/...//secret",
        "/docs/..%c0%af..%c0%afsecret",
    ] {
        let mut client = Client::open(server.address());
        let answer = client.get(target);
        assert!((400..500).contains(&answer.status), "{target}: {}", answer.status);
        let text = answer.text();
        assert!(!text.contains("do not tell") && !text.contains("root:"), "{target}: {text}");
    }
}

#[test]
fn an_unreadable_file_is_forbidden_and_a_line_in_the_log() {
    let mut launch = Launch::regrow();
    let root = launch.folder().join("site");
    build(&root);
    let secret = root.join("style.css");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if File::open(&secret).is_ok() {
        // As root, who may read everything unless that is taken away.
        launch = launch.through(&["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]);
    }
    let server = launch.arg(root).start();
    let mut client = Client::open(server.address());
    assert_eq!(client.get("/style.css").status, 403);
    server.wait_for_log(&format!("cannot open {secret:?}: "));
    assert_eq!(client.get("/app.js").status, 200);
}

#[test]
fn prefixes_lead_to_folders_and_files_and_the_longest_wins() {
    let launch = Launch::regrow();
    let folder = launch.folder().to_owned();
    for (name, text) in [("root/a.txt", "root"), ("root/docs/a.txt", "hidden"), ("docs/a.txt", "docs"), (".one", "one")]
    {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), text).unwrap();
    }
    let config = folder.join("site.conf");
    fs::write(&config, "[staticContent]\n/ = root\n/docs = docs\n/docs/one.ico = .one\n").unwrap();
    let server = launch.arg("-c").arg(config).start();
    let mut client = Client::open(server.address());
    for (target, text) in [("/a.txt", "root"), ("/docs/a.txt", "docs"), ("/docs/one.ico", "one")] {
        assert_eq!(client.get(target).text(), text, "{target}");
    }
    assert_eq!(client.get("/docs/one.ico/").status, 404);
    let redirect = client.get("/docs?q");
    assert_eq!((redirect.status, redirect.field("location")), (301, Some("/docs/?q")));
}

#[test]
fn a_target_that_is_gone_takes_nothing_else_with_it() {
    let launch = Launch::regrow();
    let folder = launch.folder().to_owned();
    for name in ["root/a.txt", "docs/a.txt", "icon"] {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), name).unwrap();
    }
    let config = folder.join("site.conf");
    fs::write(&config, "[staticContent]\n/ = root\n/docs = docs\n/icon.ico = icon\n").unwrap();
    let server = launch.arg("-c").arg(config).start();
    fs::remove_file(folder.join("icon")).unwrap();
    fs::rename(folder.join("docs"), folder.join("away")).unwrap();
    let mark = server.log_mark();
    server.signal(server.worker_pids()[0], Signal::SIGKILL);
    server.wait_until_complete(mark);
    let mut client = Client::open(server.address());
    for (target, status) in [("/a.txt", 200), ("/docs/a.txt", 503), ("/icon.ico", 404)] {
        assert_eq!(client.get(target).status, status, "{target}");
    }
    server.wait_for_log("cannot open the folder");
    fs::rename(folder.join("away"), folder.join("docs")).unwrap();
    fs::write(folder.join("icon"), "again").unwrap();
    wait_until("all of it again", || {
        (client.get("/docs/a.txt").status == 200 && client.get("/icon.ico").text() == "again").then_some(())
    });
}

#[test]
fn a_link_that_leads_out_is_explained_in_the_log() {
    let server = site();
    assert_eq!(Client::open(server.address()).get("/out").status, 404);
    server.wait_for_log("/out\": a link leads out of the folder: it is not followed unless followSymlinks = 1");
}

#[test]
fn open_files_are_kept_within_a_bound() {
    let launch = Launch::regrow();
    let root = launch.folder().join("site");
    fs::create_dir(&root).unwrap();
    let files = 600;
    for n in 0..files {
        File::create(root.join(n.to_string())).unwrap().set_len(20_000).unwrap();
    }
    let server = launch.arg(root).start();
    let mut client = Client::open(server.address());
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", server.worker_pids()[0])).unwrap().count();
    assert_eq!(client.get("/0").body.len(), 20_000);
    let before = descriptors();
    for n in 0..files {
        assert_eq!(client.get(&format!("/{n}")).body.len(), 20_000);
    }
    let kept = descriptors() - before;
    assert!((100..=256).contains(&kept), "{kept} descriptors are kept");
}

#[test]
fn other_methods_are_told_which_there_are() {
    let server = site();
    let mut client = Client::open(server.address());
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        client.send(format!("{method} /index.html HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
    }
    for target in ["*", "/"] {
        client.send(request("OPTIONS", target));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn what_changes_on_the_disk_is_seen_within_a_second() {
    let server = site();
    let root = server.folder().join("site");
    let mut client = Client::open(server.address());
    for n in 0..6 {
        let text = "x".repeat(n * 5000);
        fs::write(root.join("new"), &text).unwrap();
        fs::rename(root.join("new"), root.join("page.html")).unwrap();
        let since = Instant::now();
        wait_until("the new page", || (client.get("/page.html").text() == text).then_some(()));
        // Half a second by our own clock, and as much again for a machine that is busy.
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    }
    fs::remove_file(root.join("page.html")).unwrap();
    wait_until("no page", || (client.get("/page.html").status == 404).then_some(()));
}

#[test]
fn a_large_file_that_is_written_to_in_place_is_sent_as_it_is_now() {
    let server = site();
    let path = server.folder().join("site/large");
    let mut client = Client::open(server.address());
    for n in 1..20 {
        let text = "x".repeat(n * 20_000);
        fs::write(&path, &text).unwrap();
        assert_eq!(client.get("/large").text().len(), text.len());
    }
}
