//! Which files are worth compressing, and which of their neighbours are to be made. Pure; sees names, sizes and times.

use std::time::SystemTime;

use crate::site::files::{by_name, is_compressible};

/// A smaller file fits with its head into the first packet, compressed or not; codings also add up to 20 bytes.
const SMALLEST: u64 = 256;

/// What is at the name of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Neighbour {
    Absent,
    /// A regular file that was last modified then.
    File(SystemTime),
    /// A folder, a link or the like, which somebody put there.
    Other,
}

/// What is to be done about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    UpToDate,
    Make,
    /// It is of another version of the file, and none of this is worth making.
    Remove,
    Nothing,
    /// Nothing may be put there.
    Taken,
}

/// Whether the file is one that the server looks for neighbours of. A neighbour is none: its own media type is that of
/// compressed data.
pub(super) fn has_neighbours(name: &[u8]) -> bool {
    !name.starts_with(b".") && is_compressible(&by_name(name))
}

/// A neighbour is outdated also where it is the newer one: the file can have been put back to an older version, with the
/// time of that, and the server would send the neighbour.
pub(super) fn judge(file_modified: SystemTime, size: u64, neighbour: Neighbour) -> Verdict {
    match neighbour {
        Neighbour::File(modified) if modified == file_modified => Verdict::UpToDate,
        Neighbour::File(_) if size < SMALLEST => Verdict::Remove,
        Neighbour::Absent | Neighbour::Other if size < SMALLEST => Verdict::Nothing,
        Neighbour::File(_) | Neighbour::Absent => Verdict::Make,
        Neighbour::Other => Verdict::Taken,
    }
}

/// Whether what was compressed is worth keeping. What saves less than a twentieth costs more than it gains: a second
/// file on the disk and in every cache, and the work of decompressing.
pub(super) fn is_smaller(from: u64, to: u64) -> bool {
    to < from - from / 20
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn text_has_neighbours() {
        for name in ["index.html", "app.js", "data.json", "logo.svg", "app.wasm", "odd.\u{e9}.css"] {
            assert!(has_neighbours(name.as_bytes()), "{name}");
        }
        for name in [".htaccess.txt", "photo.jpg", "README", "app.js.br", "app.js.zst", "app.js.gz", "a.html.GZ"] {
            assert!(!has_neighbours(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn only_a_neighbour_of_the_same_nanosecond_is_up_to_date() {
        let file = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let (older, newer) = (file - Duration::from_nanos(1), file + Duration::from_nanos(1));
        for (neighbour, verdict, of_small) in [
            (Neighbour::Absent, Verdict::Make, Verdict::Nothing),
            (Neighbour::File(older), Verdict::Make, Verdict::Remove),
            (Neighbour::File(file), Verdict::UpToDate, Verdict::UpToDate),
            (Neighbour::File(newer), Verdict::Make, Verdict::Remove),
            (Neighbour::Other, Verdict::Taken, Verdict::Nothing),
        ] {
            assert_eq!(judge(file, 256, neighbour), verdict, "{neighbour:?}");
            assert_eq!(judge(file, 255, neighbour), of_small, "{neighbour:?}");
        }
    }

    #[test]
    fn a_twentieth_must_be_saved() {
        for (from, to, kept) in [(1000, 949, true), (1000, 950, false), (1000, 2000, false), (0, 0, false)] {
            assert_eq!(is_smaller(from, to), kept, "{from} to {to}");
        }
        assert!(is_smaller(u64::MAX, 1));
    }
}
