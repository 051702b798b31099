//! What came of it, as numbers and as the table that is printed at the end.

use std::fmt;

use indicatif::BinaryBytes;

use crate::h1::Coding;

/// Counts neighbours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tally {
    made: [Made; Coding::ALL.len()],
    pub(super) up_to_date: usize,
    pub(super) not_smaller: usize,
    /// Also folders that could not be read.
    pub(super) failed: usize,
}

/// The neighbours of one coding that were made.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    coding: Coding,
    files: usize,
    /// Their bytes before.
    from: u64,
    /// Their bytes after.
    to: u64,
}

impl Default for Tally {
    fn default() -> Self {
        let made = Coding::ALL.map(|coding| Made { coding, files: 0, from: 0, to: 0 });
        Self { made, up_to_date: 0, not_smaller: 0, failed: 0 }
    }
}

impl Tally {
    pub(super) fn add_made(&mut self, coding: Coding, from: u64, to: u64) {
        for made in self.made.iter_mut().filter(|made| made.coding == coding) {
            made.files += 1;
            made.from += from;
            made.to += to;
        }
    }

    pub(super) fn plus(mut self, other: &Self) -> Self {
        for (own, other) in self.made.iter_mut().zip(&other.made) {
            own.files += other.files;
            own.from += other.from;
            own.to += other.to;
        }
        self.up_to_date += other.up_to_date;
        self.not_smaller += other.not_smaller;
        self.failed += other.failed;
        self
    }

    pub(super) fn files_made(&self) -> usize {
        self.made.iter().map(|made| made.files).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "neighbours       made          from            to")?;
        for Made { coding, files, from, to } in &self.made {
            let (before, after) = (BinaryBytes(*from).to_string(), BinaryBytes(*to).to_string());
            write!(f, ".{:<10} {files:>10}  {before:>12}  {after:>12}", coding.extension())?;
            match (to * 100).checked_div(*from) {
                Some(percent) => writeln!(f, "  ({percent} %)")?,
                None => writeln!(f)?,
            }
        }
        writeln!(f, "{:<11} {:>10}", "up to date", self.up_to_date)?;
        writeln!(f, "{:<11} {:>10}", "not smaller", self.not_smaller)?;
        writeln!(f, "{:<11} {:>10}", "failed", self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_for_each_coding_and_each_other_outcome() {
        let mut tally = Tally { up_to_date: 7, ..Tally::default() };
        tally.add_made(Coding::Brotli, 3000, 500);
        tally.add_made(Coding::Brotli, 1000, 500);
        let mut other = Tally { failed: 1, not_smaller: 2, ..Tally::default() };
        other.add_made(Coding::Gzip, 3 << 20, 1 << 20);
        let tally = tally.plus(&other);
        assert_eq!(tally.files_made(), 3);
        assert_eq!(
            tally.to_string(),
            "neighbours       made          from            to\n\
             .br                  2      3.91 KiB        1000 B  (25 %)\n\
             .zst                 0           0 B           0 B\n\
             .gz                  1      3.00 MiB      1.00 MiB  (33 %)\n\
             up to date           7\n\
             not smaller          2\n\
             failed               1\n"
        );
    }
}
