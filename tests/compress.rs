//! `regrow compress`: neighbours that decode to their file, or none; never half of one, and nothing elsewhere.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

use super::support::{skip, wait_until};

const EXTENSIONS: [&str; 3] = ["br", "zst", "gz"];

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
    command.arg("compress").arg(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn compress(folder: &Path) -> Said {
    command(folder).output().unwrap().into()
}

#[track_caller]
fn compress_well(folder: &Path) -> String {
    let said = compress(folder);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{}", said.out);
    said.out
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// Text that half of can be saved of, and that differs by its seed.
fn text(seed: u64, size: usize) -> String {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut text = String::with_capacity(size + 64);
    while text.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "let x{} = {:#x};", state >> 60, state >> 32);
    }
    text.truncate(size);
    text
}

/// So much that it is not compressed within the time of a test.
fn endless() -> String {
    text(1, 24 << 20)
}

/// A file of a type that is compressed, whose bytes cannot be.
fn noise(size: usize) -> Vec<u8> {
    let mut noise = vec![0; size];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    noise
}

fn neighbour(path: &Path, extension: &str) -> PathBuf {
    PathBuf::from(format!("{}.{extension}", path.display()))
}

fn decoded(path: &Path) -> Vec<u8> {
    let file = File::open(path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    let mut decoder: Box<dyn Read> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("br") => Box::new(brotli::Decompressor::new(file, 4096)),
        Some("zst") => {
            let mut decoder = zstd::stream::read::Decoder::new(file).unwrap();
            // As browsers do, RFC 9659.
            decoder.window_log_max(23).unwrap();
            Box::new(decoder)
        }
        Some("gz") => Box::new(flate2::read::GzDecoder::new(file)),
        other => panic!("{other:?} is no coding"),
    };
    let mut bytes = Vec::new();
    decoder.read_to_end(&mut bytes).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()));
    bytes
}

#[track_caller]
fn assert_compressed(path: &Path) {
    let (bytes, metadata) = (fs::read(path).unwrap(), fs::metadata(path).unwrap());
    for extension in EXTENSIONS {
        let neighbour = neighbour(path, extension);
        assert!(decoded(&neighbour) == bytes, "{} is another version", neighbour.display());
        let its = fs::metadata(&neighbour).unwrap();
        assert_eq!((its.mtime(), its.mtime_nsec()), (metadata.mtime(), metadata.mtime_nsec()));
        assert!(its.len() < metadata.len());
    }
}

/// Every name in the folder and below, sorted; folders end in a slash.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            names.extend(self::names(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
            names.push(name + "/");
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}

fn drafts(folder: &Path) -> Vec<String> {
    names(folder).into_iter().filter(|name| name.contains(".regrow-")).collect()
}

fn with_neighbours(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned()];
    all.extend(EXTENSIONS.map(|extension| format!("{name}.{extension}")));
    all.sort();
    all
}

#[test]
fn every_neighbour_decodes_to_its_file_with_its_time_and_permissions() {
    let folder = folder();
    let sizes = [("index.html", 256), ("a/b c/é.css", 65_536), ("a/data.json", 65_537), ("a/app.js", 700_001)];
    let paths = sizes.map(|(name, size)| write(folder.path(), name, text(size as u64, size)));
    fs::set_permissions(&paths[2], fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&paths[3], fs::Permissions::from_mode(0o444)).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().append(true).open(&paths[0]).unwrap().set_modified(long_ago).unwrap();
    if Uid::effective().is_root() {
        std::os::unix::fs::chown(&paths[1], Some(1234), Some(1235)).unwrap();
    }
    let table = compress_well(folder.path());
    assert!(table.contains(".br                  4 "), "{table}");
    for path in &paths {
        assert_compressed(path);
        let identity = |path: &Path| fs::metadata(path).map(|m| (m.mode(), m.uid(), m.gid())).unwrap();
        for extension in EXTENSIONS {
            assert_eq!(identity(&neighbour(path, extension)), identity(path));
        }
    }
    assert_eq!(drafts(folder.path()), [""; 0]);
}

#[test]
fn gzip_itself_agrees() {
    let folder = folder();
    let path = write(folder.path(), "app.js", text(7, 100_000));
    compress_well(folder.path());
    let gzip = Command::new("gzip").arg("-dc").arg(neighbour(&path, "gz")).output().unwrap();
    assert!(gzip.status.success() && gzip.stdout == fs::read(&path).unwrap());
}

#[test]
fn a_person_sees_how_far_it_is() {
    let folder = folder();
    write(folder.path(), "app.js", text(1, 300_000));
    let line = format!("{} compress {}", env!("CARGO_BIN_EXE_regrow"), folder.path().display());
    let seen = Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains(" of 878.91 KiB, "), "the bar, of three times the file: {seen}");
    assert!(seen.contains(".br                  1 "), "{seen}");
}

#[test]
fn a_second_run_touches_nothing() {
    let folder = folder();
    let path = write(folder.path(), "app.js", text(1, 5000));
    compress_well(folder.path());
    let identities = || {
        EXTENSIONS
            .map(|extension| fs::metadata(neighbour(&path, extension)).map(|m| (m.ino(), m.ctime_nsec())).unwrap())
    };
    let before = identities();
    let table = compress_well(folder.path());
    assert_eq!(identities(), before);
    assert!(table.contains("up to date           3"), "{table}");
}

#[test]
fn a_file_that_changed_gets_new_neighbours_also_where_it_is_an_older_version() {
    let folder = folder();
    let path = write(folder.path(), "app.js", text(1, 5000));
    let first = fs::metadata(&path).unwrap().modified().unwrap();
    compress_well(folder.path());
    for (seed, modified) in [(2, first + Duration::from_nanos(1)), (3, first - Duration::from_secs(3600))] {
        fs::write(&path, text(seed, 5000)).unwrap();
        File::options().append(true).open(&path).unwrap().set_modified(modified).unwrap();
        compress_well(folder.path());
        assert_compressed(&path);
    }
}

#[test]
fn what_does_not_shrink_has_no_neighbour_and_loses_an_outdated_one() {
    let folder = folder();
    let path = write(folder.path(), "noise.txt", noise(5000));
    let [outdated, newer, _] = EXTENSIONS.map(|extension| neighbour(&path, extension));
    fs::write(&outdated, "old").unwrap();
    fs::write(&newer, "of a newer version that was taken back").unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let set = |path: &Path, time| File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    set(&outdated, modified - Duration::from_nanos(1));
    set(&newer, modified + Duration::from_secs(1));
    let table = compress_well(folder.path());
    assert_eq!(names(folder.path()), ["noise.txt"]);
    assert!(table.contains("not smaller          3"), "{table}");
}

#[test]
fn a_small_file_loses_the_neighbours_of_what_it_was() {
    let folder = folder();
    let path = write(folder.path(), "app.js", text(1, 5000));
    compress_well(folder.path());
    fs::write(&path, "1").unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(1000);
    File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    compress_well(folder.path());
    assert_eq!(names(folder.path()), ["app.js"]);
}

#[test]
fn what_is_small_hidden_compressed_or_special_is_left_alone() {
    let folder = folder();
    let text = text(1, 5000);
    write(folder.path(), "small.html", &text[..255]);
    for name in [".hidden.html", ".git/app.js", "photo.jpg", "README", "app.js.gz", "app.js.br", "app.js.zst"] {
        write(folder.path(), name, &text);
    }
    nix::unistd::mkfifo(&folder.path().join("fifo.html"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let before = names(folder.path());
    compress_well(folder.path());
    assert_eq!(names(folder.path()), before);
}

#[test]
fn nothing_is_touched_through_a_link() {
    let (folder, outside) = (folder(), folder());
    let kept = write(outside.path(), "kept.br", "kept");
    let file = write(outside.path(), "outside.js", text(1, 5000));
    symlink(outside.path(), folder.path().join("linked")).unwrap();
    symlink(&file, folder.path().join("linked.js")).unwrap();
    let own = write(folder.path(), "own.js", text(2, 5000));
    symlink(&kept, neighbour(&own, "br")).unwrap();
    let said = compress(folder.path());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("own.js.br\": something that is no regular file has that name; rename"), "{}", said.err);
    assert_eq!(names(outside.path()), ["kept.br", "outside.js"]);
    assert_eq!(fs::read(&kept).unwrap(), b"kept");
    let mut expected = with_neighbours("own.js");
    expected.splice(0..0, ["linked".to_owned(), "linked.js".to_owned()]);
    assert_eq!(names(folder.path()), expected);
}

#[test]
fn the_folder_itself_may_be_a_link() {
    let (folder, elsewhere) = (folder(), folder());
    let path = write(folder.path(), "app.js", text(1, 5000));
    let current = elsewhere.path().join("current");
    symlink(folder.path(), &current).unwrap();
    compress_well(&current);
    assert_compressed(&path);
}

#[test]
fn a_folder_that_is_missing_or_none_exits_2_with_a_remedy() {
    let folder = folder();
    let file = write(folder.path(), "file", "");
    for (path, told) in [(folder.path().join("gone"), "no such folder; create it"), (file, "not a folder; name")] {
        let said = compress(&path);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
        assert!(said.err.contains(told) && said.err.starts_with("FOLDER /"), "{}", said.err);
    }
}

#[test]
fn what_fails_is_said_and_the_rest_goes_on() {
    let folder = folder();
    let blocked = write(folder.path(), "blocked.js", text(1, 5000));
    let fine = write(folder.path(), "fine.js", text(2, 5000));
    fs::create_dir(neighbour(&blocked, "zst")).unwrap();
    let said = compress(folder.path());
    assert_eq!(said.code, Some(1));
    let lines: Vec<_> = said.err.lines().collect();
    assert!(lines[0].starts_with("regrow: cannot make \"") && lines[0].contains("blocked.js.zst\": "), "{lines:?}");
    assert_eq!(lines[1..], ["regrow: 1 failed, as said above; the rest is done"]);
    assert!(said.out.contains("failed               1"), "{}", said.out);
    assert_compressed(&fine);
    assert_eq!(decoded(&neighbour(&blocked, "br")), fs::read(&blocked).unwrap());
}

#[test]
fn a_neighbour_that_cannot_be_written_whole_is_not_there() {
    let folder = folder();
    write(folder.path(), "app.js", text(1, 200_000));
    let script = format!("ulimit -f 4; exec {} compress \"$0\"", env!("CARGO_BIN_EXE_regrow"));
    let said: Said = Command::new("sh").args(["-c", &script]).arg(folder.path()).output().unwrap().into();
    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.matches("raise the limit (ulimit -f), then run again").count(), 3, "{}", said.err);
    assert_eq!(names(folder.path()), ["app.js"]);
}

#[test]
fn what_this_user_may_not_do_is_said() {
    if !Uid::effective().is_root() {
        return skip("what_this_user_may_not_do_is_said", "only root can run it as another user");
    }
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("regrow");
    fs::copy(env!("CARGO_BIN_EXE_regrow"), &program).unwrap();
    let site = folder.path().join("site");
    let secret = write(&site, "secret.js", text(1, 5000));
    write(&site, "public.js", text(1, 5000));
    let closed = site.join("closed");
    fs::create_dir(&closed).unwrap();
    for (path, mode) in [(&secret, 0o600), (&closed, 0o700)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program).arg("compress").arg(&site);
    let said: Said = command.output().unwrap().into();
    assert_eq!(said.code, Some(1));
    for told in ["read the folder \"", "read \"", "write beside \""] {
        assert!(said.err.contains(&format!("regrow: cannot {told}")), "{told} is missing in {}", said.err);
    }
    assert!(said.err.contains("give this user the right, or run as one who has it"), "{}", said.err);
    assert_eq!(names(&site), ["closed/", "public.js", "secret.js"]);
}

/// A run in the middle of a file; gone, whatever happens, when the test ends.
struct Run(Child);

impl Run {
    fn amid(folder: &Path) -> Self {
        let run = Self(command(folder).spawn().unwrap());
        wait_until("a draft", || (!drafts(folder).is_empty()).then_some(()));
        run
    }

    fn end_by(mut self, signal: Signal) -> Said {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, signal).unwrap();
        let status = wait_until("its end", || self.0.try_wait().unwrap());
        let mut said = Said { code: status.code(), out: String::new(), err: String::new() };
        self.0.stdout.take().unwrap().read_to_string(&mut said.out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut said.err).unwrap();
        said
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_signal_leaves_nothing_half_done() {
    let folder = folder();
    write(folder.path(), "app.js", endless());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let said = Run::amid(folder.path()).end_by(signal);
        assert_eq!(said.code, Some(1), "{signal}");
        assert_eq!(said.err, "regrow: stopped by a signal, with 0 of 3 neighbours made; run it again for the rest\n");
        assert_eq!(names(folder.path()), ["app.js"], "{signal}");
    }
}

#[test]
fn what_a_killed_run_leaves_the_next_one_sweeps_away() {
    let folder = folder();
    let path = write(folder.path(), "app.js", endless());
    Run::amid(folder.path()).end_by(Signal::SIGKILL);
    assert!(!drafts(folder.path()).is_empty());
    write(folder.path(), ".regrow-mine", "mine");
    fs::write(&path, text(2, 5000)).unwrap();
    compress_well(folder.path());
    assert_eq!(drafts(folder.path()), [".regrow-mine"]);
    assert_compressed(&path);
}

#[test]
fn a_run_keeps_its_hands_off_the_drafts_of_another() {
    let folder = folder();
    let path = write(folder.path(), "endless.js", endless());
    let first = Run::amid(folder.path());
    fs::rename(&path, folder.path().join("endless")).unwrap();
    let held = drafts(folder.path());
    compress_well(folder.path());
    // The first run may be at another draft already, for the file that is gone.
    assert!(held.iter().any(|draft| folder.path().join(draft).exists()), "{held:?} are gone");
    first.end_by(Signal::SIGTERM);
}

#[test]
fn a_file_that_keeps_changing_is_not_kept() {
    let folder = folder();
    let path = write(folder.path(), "app.js", text(1, 600_000));
    let file = File::options().append(true).open(&path).unwrap();
    let done = AtomicBool::new(false);
    let said = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                file.set_modified(SystemTime::now()).unwrap();
            }
        });
        let said = compress(folder.path());
        done.store(true, Ordering::Relaxed);
        said
    });
    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.matches("app.js\": it changed twice while it was read; run again").count(), 3, "{}", said.err);
    assert_eq!(names(folder.path()), ["app.js"]);
}

#[test]
fn a_file_that_is_replaced_meanwhile_is_compressed_anew() {
    let folder = folder();
    let (old, new) = (text(1, 400_000), text(2, 360_000));
    let path = write(folder.path(), "app.js", &old);
    let old_modified = fs::metadata(&path).unwrap().mtime_nsec();
    let mut run = Run::amid(folder.path());
    let next = write(folder.path(), "next", &new);
    fs::rename(next, &path).unwrap();
    let code = wait_until("its end", || run.0.try_wait().unwrap()).code();
    assert_eq!(code, Some(0));
    // What was finished before the new version came is marked as one of the old.
    for extension in EXTENSIONS {
        let neighbour = neighbour(&path, extension);
        let is_old = fs::metadata(&neighbour).unwrap().mtime_nsec() == old_modified;
        assert!(decoded(&neighbour) == if is_old { old.as_bytes() } else { new.as_bytes() }, "{extension}");
    }
    compress_well(folder.path());
    assert_compressed(&path);
}

#[test]
fn two_runs_at_once_leave_what_one_leaves() {
    let folder = folder();
    let paths: Vec<_> = (0..40).map(|n| write(folder.path(), &format!("{n}.js"), text(n, 20_000))).collect();
    let runs = [(); 3].map(|()| command(folder.path()).spawn().unwrap());
    for run in runs {
        let said = Said::from(run.wait_with_output().unwrap());
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    }
    for path in &paths {
        assert_compressed(path);
    }
    assert_eq!(names(folder.path()).len(), 4 * paths.len());
}
