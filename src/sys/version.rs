//! Versions of a file's content, told apart by what fstat(2) says. Reads no content.

use std::os::fd::AsFd;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::time::{ClockId, clock_gettime};

/// What changes when a file is written to, cut off or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    device: u64,
    inode: u64,
    /// In bytes.
    pub len: u64,
    modified: Stamp,
    /// Also of its owner, permissions and names.
    changed: Stamp,
}

/// A moment of a file system, before or after 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    seconds: i64,
    nanoseconds: i64,
}

/// How far the stamps of a file system may run ahead of the coarse clock: the finer ones of newer kernels (Linux 6.13)
/// by a tick of it. What is further in the future comes from another clock, and waiting for it would take long.
const AHEAD: Duration = Duration::from_millis(20);

impl Version {
    /// Of an open file, now.
    pub fn of(file: impl AsFd) -> Result<Self, Errno> {
        Ok(Self::from_stat(&fstat(file)?))
    }

    /// As plain numbers, for another process of this machine.
    pub fn to_words(self) -> [u64; 7] {
        let Self { device, inode, len, modified, changed } = self;
        let stamps = [modified.seconds, modified.nanoseconds, changed.seconds, changed.nanoseconds];
        let [a, b, c, d] = stamps.map(|part| u64::from_ne_bytes(part.to_ne_bytes()));
        [device, inode, len, a, b, c, d]
    }

    /// What [`to_words`](Self::to_words) was given.
    pub fn from_words([device, inode, len, a, b, c, d]: [u64; 7]) -> Self {
        let [a, b, c, d] = [a, b, c, d].map(|part| i64::from_ne_bytes(part.to_ne_bytes()));
        let modified = Stamp { seconds: a, nanoseconds: b };
        let changed = Stamp { seconds: c, nanoseconds: d };
        Self { device, inode, len, modified, changed }
    }

    pub(super) fn from_stat(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            len: u64::try_from(stat.st_size).unwrap_or(0),
            modified: Stamp { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec },
            changed: Stamp { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec },
        }
    }

    /// Whether an open file still has the content that it had as `earlier`. Its names and permissions may be others:
    /// a file that is replaced loses its name, and is still the same to those who have it open.
    pub fn has_content_of(&self, earlier: &Self) -> bool {
        self.len == earlier.len && self.modified == earlier.modified
    }

    /// Whether anything that is written later will show as another version, seen from `clock` that was read before the
    /// version was. Stamps are those of a clock that ticks some hundred times a second: what is written twice within a
    /// tick has one stamp.
    pub fn is_settled(&self, clock: Clock) -> bool {
        let ahead = clock.0.plus(AHEAD);
        self.modified < clock.0 || self.modified > ahead
    }

    /// Whether it was written so long before `clock`.
    pub fn is_older_than(&self, age: Duration, clock: Clock) -> bool {
        self.modified.plus(age) < clock.0
    }

    /// Whether it was written no earlier than another file's.
    pub fn is_as_new_as(&self, other: &Self) -> bool {
        self.modified >= other.modified
    }

    /// When it was written, as far as the clocks of the machine may be believed; `None` before 1970.
    pub fn modified(&self) -> Option<SystemTime> {
        let Stamp { seconds, nanoseconds } = self.modified;
        let since_epoch = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }

    /// Seconds and nanoseconds of when it was written, as the file system has them.
    pub fn modified_stamp(&self) -> (i64, i64) {
        (self.modified.seconds, self.modified.nanoseconds)
    }
}

impl Stamp {
    fn plus(self, time: Duration) -> Self {
        const SECOND: i64 = 1_000_000_000;
        let nanoseconds = self.nanoseconds + i64::from(time.subsec_nanos());
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let seconds = self.seconds.saturating_add(seconds).saturating_add(nanoseconds / SECOND);
        Self { seconds, nanoseconds: nanoseconds % SECOND }
    }
}

/// The clock that file systems stamp files with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Stamp);

impl Clock {
    /// What it shows now.
    pub fn read() -> Self {
        #[cfg(target_os = "linux")]
        const STAMPING: ClockId = ClockId::CLOCK_REALTIME_COARSE;
        #[cfg(not(target_os = "linux"))]
        const STAMPING: ClockId = ClockId::CLOCK_REALTIME;
        // The clock exists on every system we build for, and the call can fail in no other way (clock_gettime(2)).
        let (seconds, nanoseconds) = clock_gettime(STAMPING).map_or((0, 0), |now| (now.tv_sec(), now.tv_nsec()));
        Self(Stamp { seconds, nanoseconds })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    use super::*;

    fn stamp(seconds: i64, nanoseconds: i64) -> Stamp {
        Stamp { seconds, nanoseconds }
    }

    fn version(modified: Stamp) -> Version {
        Version { device: 1, inode: 2, len: 3, modified, changed: modified }
    }

    #[test]
    fn what_was_written_in_this_tick_is_not_settled() {
        let clock = Clock(stamp(100, 999_000_000));
        for (modified, settled) in [
            (stamp(100, 998_999_999), true),
            (stamp(100, 999_000_000), false),
            (stamp(101, 3_000_000), false),
            (stamp(101, 19_000_000), false),
            (stamp(101, 19_000_001), true),
            (stamp(4_000_000_000, 0), true),
            (stamp(-1, 0), true),
        ] {
            assert_eq!(version(modified).is_settled(clock), settled, "{modified:?}");
        }
    }

    #[test]
    fn age_is_counted_from_the_last_write() {
        let clock = Clock(stamp(100, 0));
        let age = Duration::from_millis(1500);
        for (modified, older) in
            [(stamp(98, 499_999_999), true), (stamp(98, 500_000_000), false), (stamp(99, 0), false)]
        {
            assert_eq!(version(modified).is_older_than(age, clock), older, "{modified:?}");
        }
    }

    #[test]
    fn a_file_that_is_written_to_or_cut_off_has_another_version() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"four").unwrap();
        let written = Version::of(&file).unwrap();
        assert_eq!(Version::of(&file).unwrap(), written);
        wait_for_next_tick(&written);
        file.write_all_at(b"F", 0).unwrap();
        let overwritten = Version::of(&file).unwrap();
        assert!(!overwritten.has_content_of(&written));
        file.set_len(2).unwrap();
        assert!(!Version::of(&file).unwrap().has_content_of(&overwritten));
    }

    #[test]
    fn a_version_survives_as_numbers() {
        let version = Version::of(tempfile::tempfile().unwrap()).unwrap();
        assert_eq!(Version::from_words(version.to_words()), version);
    }

    #[test]
    fn a_file_that_lost_its_name_has_the_same_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let named = Version::of(&file).unwrap();
        wait_for_next_tick(&named);
        std::fs::remove_file(path).unwrap();
        let nameless = Version::of(&file).unwrap();
        assert_ne!(nameless, named);
        assert!(nameless.has_content_of(&named));
    }

    fn wait_for_next_tick(version: &Version) {
        while !version.is_settled(Clock::read()) {
            std::thread::yield_now();
        }
    }
}
