//! A folder as a browser sees it: headless Chromium, which has its own mind about caches and ranges.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::support::{Launch, Server, wait_until};

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>seen</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="look/style.css">
<p id="styled">text</p>
<img id="picture" src="picture.png" alt="">
<video id="video" src="video.webm" preload="metadata" muted></video>
<script src="script.js"></script>
"#;

const STYLE: &str = "#styled { color: rgb(1, 2, 3) }";

/// Says what it sees in the query of a request; then loads the page once more, and says it again.
const SCRIPT: &str = r#"
"use strict";
function event(of, name) {
    return new Promise(seen => of.addEventListener(name, seen, { once: true }));
}
async function see() {
    if (document.readyState !== "complete") await event(window, "load");
    const picture = document.getElementById("picture");
    const video = document.getElementById("video");
    if (video.readyState < 1) await event(video, "loadedmetadata");
    const far = 0.8 * video.duration;
    const ranges = video.buffered;
    const buffered = ranges.length > 0 ? ranges.end(ranges.length - 1) : 0;
    const seeked = event(video, "seeked");
    video.currentTime = far;
    await seeked;
    const visit = 1 + Number(sessionStorage.getItem("visits"));
    sessionStorage.setItem("visits", visit);
    const seen = {
        visit,
        color: getComputedStyle(document.getElementById("styled")).color.replaceAll(" ", ""),
        picture: picture.naturalWidth + "x" + picture.naturalHeight,
        video: video.videoWidth + "x" + video.videoHeight,
        skipped: buffered < far,
        arrived: video.readyState >= 2 && Math.abs(video.currentTime - far) < 1,
    };
    await fetch("/report?" + Object.entries(seen).map(pair => pair.join("=")).join("&"));
    if (visit === 1) location.reload();
}
see().catch(error => fetch("/report?error=" + encodeURIComponent(error)));
"#;

#[test]
fn a_page_is_loaded_with_all_its_parts_and_revalidated() {
    let launch = Launch::regrow().args(["--processPool", "2", "--cacheControl", "no-cache"]);
    let site = launch.folder().join("site");
    write_site(&site);
    let server = launch.arg(site).start();

    let browser = Browser::open(&server, "/");
    let first = report(&server, &browser, 1);
    assert!(first.contains("&color=rgb(1,2,3)&"), "the style: {first}");
    assert!(first.contains("&picture=80x60&"), "the picture: {first}");
    assert!(first.contains("&video=160x120&"), "the video: {first}");
    assert!(first.contains("&skipped=true&arrived=true "), "the place sought in the video: {first}");
    // From its start, and from the place that was sought.
    wait_until(&format!("two parts of the video in {}", server.access_log()), || {
        (lines(&server, "GET /video.webm ", 206).len() >= 2).then_some(())
    });

    let second = report(&server, &browser, 2);
    assert_eq!(first.split_once("visit=1&").map(seen), second.split_once("visit=2&").map(seen));
    for target in ["/", "/look/style.css", "/script.js", "/picture.png"] {
        let request = format!("GET {target} ");
        wait_until(&format!("304 for {target}"), || (lines(&server, &request, 304).len() == 1).then_some(()));
        assert_eq!(lines(&server, &request, 200).len(), 1, "{target}\n{}", server.access_log());
    }
}

fn seen<'a>((_, rest): (&str, &'a str)) -> Option<&'a str> {
    rest.split(' ').next()
}

#[test]
fn a_listing_is_a_page_with_a_row_for_everything() {
    let launch = Launch::regrow().args(["--processPool", "2", "--listing", "1"]);
    let site = launch.folder().join("site");
    fs::create_dir_all(site.join("a folder")).unwrap();
    for (name, length) in [("plain.txt", 5), ("<script>alert(1)<", 6), ("50% & more?.txt", 7), ("ü#.txt", 8)] {
        fs::write(site.join(name), vec![b'x'; length]).unwrap();
    }
    let server = launch.arg(site).start();

    let dom = Browser::dump(&server, "/");
    for row in [
        r#"plain.txt">plain.txt<"#,
        "&lt;script&gt;alert(1)&lt;",
        "50% &amp; more?.txt",
        r#"50%25%20%26%20more%3F.txt""#,
        r#"a%20folder/">a folder/<"#,
        "ü#.txt",
    ] {
        assert!(dom.contains(row), "no {row} in\n{dom}");
    }
    assert!(!dom.contains("<script>alert"), "{dom}");
}

/// The browser's own report of the visit, as the server has logged it.
fn report(server: &Server, browser: &Browser, visit: usize) -> String {
    let wanted = format!("/report?visit={visit}&");
    wait_until(&format!("what the browser saw at visit {visit}\n{}", browser.complaints()), || {
        let log = server.access_log();
        assert!(!log.contains("/report?error"), "{log}");
        log.lines().find(|line| line.contains(&wanted)).map(ToOwned::to_owned)
    })
}

/// The lines of the access log about such requests with that status.
fn lines(server: &Server, request: &str, status: u16) -> Vec<String> {
    let log = server.access_log();
    let (request, status) = (format!("\"{request}"), format!("\" {status} "));
    log.lines().filter(|line| line.contains(&request) && line.contains(&status)).map(ToOwned::to_owned).collect()
}

fn write_site(site: &Path) {
    fs::create_dir_all(site.join("look")).unwrap();
    fs::write(site.join("index.html"), PAGE).unwrap();
    fs::write(site.join("look/style.css"), STYLE).unwrap();
    fs::write(site.join("script.js"), SCRIPT).unwrap();
    let test_picture = |scene| ["-f", "lavfi", "-i", scene];
    let one_picture = ["-frames:v", "1"];
    ffmpeg(&test_picture("testsrc2=size=80x60:duration=1"), &one_picture, &site.join("picture.png"));
    // Noise does not compress: many megabytes quickly, of which a browser loads only the beginning on its own.
    let noise = test_picture("testsrc2=size=160x120:rate=10:duration=20,noise=alls=100:allf=t");
    let quick =
        ["-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "16", "-b:v", "1200k", "-qmax", "4", "-g", "10"];
    let (short, long) = (site.with_file_name("short.webm"), site.join("video.webm"));
    ffmpeg(&noise, &quick, &short);
    ffmpeg(&["-stream_loop", "15", "-i", short.to_str().unwrap()], &["-c", "copy"], &long);
    let length = fs::metadata(long).unwrap().len();
    assert!(length > 50_000_000, "{length}");
}

fn ffmpeg(from: &[&str], how: &[&str], to: &Path) {
    let output = Command::new("ffmpeg").args(["-v", "error", "-nostdin"]).args(from).args(how).arg(to).output();
    let output = output.unwrap_or_else(|cause| panic!("ffmpeg: {cause}; Debian: apt-get install ffmpeg"));
    assert!(output.status.success(), "ffmpeg: {}", String::from_utf8_lossy(&output.stderr));
}

/// A browser with a profile of its own; gone, with all its processes, when the test ends.
struct Browser {
    child: Child,
    profile: TempDir,
}

impl Browser {
    /// Visits a page, and stays there.
    fn open(server: &Server, target: &str) -> Self {
        // With a port for its debugger, it does not end by itself.
        Self::start(server, target, "--remote-debugging-port=0")
    }

    /// What it has made of a page once that is loaded.
    fn dump(server: &Server, target: &str) -> String {
        let mut browser = Self::start(server, target, "--dump-dom");
        let status = wait_until("the end of the browser", || browser.child.try_wait().unwrap());
        assert!(status.success(), "{status}\n{}", browser.complaints());
        fs::read_to_string(browser.profile.path().join("stdout")).unwrap()
    }

    fn start(server: &Server, target: &str, purpose: &str) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("chromium");
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required", "--no-proxy-server"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.arg(purpose).arg(format!("http://{}{target}", server.address()));
        command.env("HOME", profile.path()).process_group(0).stdin(Stdio::null());
        let capture = |name| File::create(profile.path().join(name)).unwrap();
        command.stdout(capture("stdout")).stderr(capture("stderr"));
        let child = command.spawn();
        let child = child.unwrap_or_else(|cause| panic!("chromium: {cause}; Debian: apt-get install chromium"));
        Self { child, profile }
    }

    fn complaints(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.profile.path().join("stderr")).unwrap_or_default()).into_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- chromium\n{}---", self.complaints());
        }
    }
}
