//! Range requests (RFC 9110 section 14): which bytes a request asks for. Knows nothing of files, and of the
//! multipart body that carries several ranges.

use std::ops::Range;

use http::HeaderMap;
use http::header::RANGE;

use super::conditional::only;

/// What a part of a multipart body costs beside its bytes, about (RFC 9110 section 15.3.7.2). Ranges that are
/// nearer to each other than this are sent as one.
const PART_OVERHEAD: u64 = 80;

/// The most ranges of one request. Who asks for more attacks, or is better served by the whole
/// (RFC 9110 section 17.15).
const MAX_SPECS: usize = 32;

/// What to send of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selection {
    /// All of it, as if no range had been asked for: 200.
    Whole,
    /// One part, never empty: 206 with `Content-Range`.
    Part(Range<u64>),
    /// Two or more parts, none empty, in the order asked for, with gaps of at least [`PART_OVERHEAD`] between them:
    /// 206 with `multipart/byteranges`.
    Parts(Vec<Range<u64>>),
    /// None of what was asked for exists: 416 with [`unsatisfied`].
    Unsatisfiable,
}

/// What of `length` bytes the `Range` field of a GET asks for (RFC 9110 sections 14.1 and 14.2). A field that is
/// malformed, stands there twice or has another unit than bytes asks for nothing. Whether it may be honoured,
/// `If-Range` says: [`super::conditional::range_holds`].
pub(crate) fn select(headers: &HeaderMap, length: u64) -> Selection {
    let field = only(headers, &RANGE).and_then(|field| field.to_str().ok());
    let Some(specs) = field.and_then(range_set) else { return Selection::Whole };
    let parts = coalesce(specs.iter().filter_map(|spec| spec.within(length)));
    match parts.as_slice() {
        [] => Selection::Unsatisfiable,
        // A suffix of nothing: section 14.4 has no words for an empty range.
        [part] if part.is_empty() => Selection::Whole,
        [part] if specs.len() > 1 && *part == (0..length) => Selection::Whole,
        [part] => Selection::Part(part.clone()),
        [_, _, ..] if cost(&parts) >= length => Selection::Whole,
        [_, _, ..] => Selection::Parts(parts),
    }
}

/// `Content-Range` of a part (RFC 9110 section 14.4), which must not be empty: `bytes 0-4/10`.
pub(crate) fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end.saturating_sub(1))
}

/// `Content-Range` of a 416 (RFC 9110 section 14.4): `bytes */10`.
pub(crate) fn unsatisfied(length: u64) -> String {
    format!("bytes */{length}")
}

/// The ranges of a field; None where it is malformed, has another unit or too many of them.
fn range_set(field: &str) -> Option<Vec<Spec>> {
    let (_, set) = field.split_once('=').filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes"))?;
    let members = set.split(',').map(str::trim_ascii).filter(|member| !member.is_empty());
    let specs: Vec<_> = members.take(MAX_SPECS + 1).map(Spec::parse).collect::<Option<_>>()?;
    (1..=MAX_SPECS).contains(&specs.len()).then_some(specs)
}

/// One range as it was asked for. Numbers that do not fit are the largest that does, which no file reaches.
enum Spec {
    /// From the first byte to the last, both sent.
    Positions { first: u64, last: u64 },
    /// So many bytes at the end.
    Suffix(u64),
}

impl Spec {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-')? {
            ("", count) => number(count).map(Self::Suffix),
            (first, "") => number(first).map(|first| Self::Positions { first, last: u64::MAX }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Positions { first, last })
            }
        }
    }

    /// The bytes meant, of so many; None where it is unsatisfiable (RFC 9110 section 14.1.2). Empty where it is a
    /// suffix of nothing.
    fn within(&self, length: u64) -> Option<Range<u64>> {
        match *self {
            Self::Positions { first, last } => (first < length).then(|| first..last.saturating_add(1).min(length)),
            Self::Suffix(count) => (count > 0).then(|| length.saturating_sub(count)..length),
        }
    }
}

/// `1*DIGIT`, no sign. What is beyond 64 bits is the largest number.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let append = |number: u64, digit: u8| number.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| digits.bytes().fold(0, append))
}

/// Joins what overlaps or is nearer than [`PART_OVERHEAD`], at the place of the one asked for first
/// (RFC 9110 section 15.3.7.2). Quadratic in at most [`MAX_SPECS`].
fn coalesce(asked: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    for mut part in asked {
        let mut place = parts.len();
        while let Some(at) = parts.iter().position(|other| are_near(other, &part)) {
            let other = parts.remove(at);
            part = part.start.min(other.start)..part.end.max(other.end);
            place = place.min(at);
        }
        parts.insert(place, part); // each removal was at `place` or behind it, so it is no more than the length
    }
    parts
}

fn are_near(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start.saturating_sub(other.end) < PART_OVERHEAD && other.start.saturating_sub(one.end) < PART_OVERHEAD
}

/// About how long a multipart body of these parts is.
fn cost(parts: &[Range<u64>]) -> u64 {
    parts.iter().map(|part| (part.end - part.start).saturating_add(PART_OVERHEAD)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::Selection::{Part, Parts, Unsatisfiable, Whole};
    use super::*;

    const MAX: u64 = u64::MAX;

    fn selected(fields: &[&str], length: u64) -> Selection {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(RANGE, http::HeaderValue::from_bytes(field.as_bytes()).unwrap());
        }
        select(&headers, length)
    }

    #[track_caller]
    fn check(section: &str, field: &str, length: u64, expected: &Selection) {
        assert_eq!(&selected(&[field], length), expected, "section {section}: {field} of {length}");
    }

    #[test]
    fn one_range_is_one_part() {
        let rows = [
            ("14.1.2: first-last", "bytes=0-499", 10_000, Part(0..500)),
            ("14.1.2: first-last", "bytes=500-999", 10_000, Part(500..1000)),
            ("14.1.2: first-last", "bytes=0-0", 10_000, Part(0..1)),
            ("14.1.2: first-last", "bytes=9999-9999", 10_000, Part(9999..10_000)),
            ("14.1.2: first-last", "bytes=000-0004", 10_000, Part(0..5)),
            ("14.1.2: last is at most the end", "bytes=9500-10000", 10_000, Part(9500..10_000)),
            ("14.1.2: last is at most the end", "bytes=0-9999", 10_000, Part(0..10_000)),
            ("14.1.2: last is at most the end", "bytes=0-18446744073709551615", 10, Part(0..10)),
            ("14.1.2: beyond 64 bits", "bytes=5-99999999999999999999999999", 10, Part(5..10)),
            ("14.1.2: first-", "bytes=9500-", 10_000, Part(9500..10_000)),
            ("14.1.2: first-", "bytes=0-", 10, Part(0..10)),
            ("14.1.2: -suffix", "bytes=-500", 10_000, Part(9500..10_000)),
            ("14.1.2: -suffix", "bytes=-1", 1, Part(0..1)),
            ("14.1.2: -suffix", "bytes=-10", 10, Part(0..10)),
            ("14.1.2: a suffix beyond the start", "bytes=-11", 10, Part(0..10)),
            ("14.1.2: beyond 64 bits", "bytes=-18446744073709551616", 10, Part(0..10)),
            ("14.1: the unit has no case", "BYTES=0-4", 10, Part(0..5)),
            ("14.1: the unit has no case", "bYtes=0-4", 10, Part(0..5)),
            ("5.6.1.2: blanks", "bytes= 0-4", 10, Part(0..5)),
            ("5.6.1.2: empty members", "bytes=,\t, 0-4 ,,", 10, Part(0..5)),
            ("no overflow", "bytes=18446744073709551614-", MAX, Part(MAX - 1..MAX)),
            ("no overflow", "bytes=0-18446744073709551615", MAX, Part(0..MAX)),
            ("no overflow", "bytes=-18446744073709551615", MAX, Part(0..MAX)),
        ];
        for (section, field, length, expected) in rows {
            check(section, field, length, &expected);
        }
    }

    #[test]
    fn what_is_not_there_is_unsatisfiable() {
        let rows = [
            ("14.1.2", "bytes=10-", 10),
            ("14.1.2", "bytes=10-10", 10),
            ("14.1.2", "bytes=10-20,99-", 10),
            ("14.1.2", "bytes=-0", 10),
            ("14.1.2", "bytes=-000,10-", 10),
            ("14.1.2: beyond 64 bits", "bytes=18446744073709551616-", 10),
            ("14.1.2: beyond 64 bits", "bytes=18446744073709551616-", MAX),
            ("14.1.2: beyond 64 bits", "bytes=18446744073709551616-18446744073709551617", MAX),
            ("14.1.2: of nothing", "bytes=0-", 0),
            ("14.1.2: of nothing", "bytes=0-0", 0),
            ("14.1.2: of nothing", "bytes=-0", 0),
        ];
        for (section, field, length) in rows {
            check(section, field, length, &Unsatisfiable);
        }
    }

    /// RFC 9110 section 14.1.2: it is satisfiable, yet no `Content-Range` can say so.
    #[test]
    fn a_suffix_of_nothing_is_the_whole() {
        for field in ["bytes=-1", "bytes=-18446744073709551616", "bytes=-1,-2", "bytes=0-,-1", "bytes=-1,-0"] {
            check("14.1.2", field, 0, &Whole);
        }
    }

    #[test]
    fn malformed_fields_and_other_units_are_ignored() {
        let rows = [
            ("14.2: another unit", "items=0-4"),
            ("14.2: another unit", "none=0-4"),
            ("14.1.1: no unit", "=0-4"),
            ("14.1.1: no unit", "0-4"),
            ("14.1.1: no set", ""),
            ("14.1.1: no set", "bytes"),
            ("14.1.1: no set", "bytes="),
            ("5.6.1.2: at least one member", "bytes=,"),
            ("5.6.1.2: at least one member", "bytes= , ,"),
            ("14.1.1: blanks", "bytes =0-4"),
            ("14.1.1: blanks", "bytes=0 -4"),
            ("14.1.1: blanks", "bytes=0- 4"),
            ("14.1.1: blanks", "bytes=- 4"),
            ("14.1.1: blanks", "bytes=0-4 5-6"),
            ("14.1.1: no position", "bytes=-"),
            ("14.1.1: no dash", "bytes=4"),
            ("14.1.1: two dashes", "bytes=--4"),
            ("14.1.1: two dashes", "bytes=0--4"),
            ("14.1.1: two dashes", "bytes=0-4-"),
            ("14.1.1: digits only", "bytes=+0-4"),
            ("14.1.1: digits only", "bytes=0-+4"),
            ("14.1.1: digits only", "bytes=-+4"),
            ("14.1.1: digits only", "bytes=0x0-4"),
            ("14.1.1: digits only", "bytes=0.0-4"),
            ("14.1.1: digits only", "bytes=a-b"),
            ("14.1.1: digits only", "bytes=\u{660}-4"),
            ("14.1.1: other-range is for other units", "bytes=*"),
            ("14.1.1: the comma separates", "bytes=0-4;5-6"),
            ("14.1.1: one unit", "bytes=0-4,bytes=5-6"),
            ("14.1.1: last before first", "bytes=4-3"),
            ("14.1.1: last before first", "bytes=99-98"),
            ("14.1.1: one malformed range spoils all", "bytes=0-0,4-3"),
            ("14.1.1: one malformed range spoils all", "bytes=0-0,a"),
            ("14.1.1: one malformed range spoils all", "bytes=0-0,99-,-"),
        ];
        for (section, field) in rows {
            check(section, field, 10, &Whole);
        }
        assert_eq!(selected(&[], 10), Whole, "section 14.2: absent");
        assert_eq!(selected(&["bytes=0-4", "bytes=0-4"], 10), Whole, "section 14.2: twice");
    }

    #[test]
    fn several_ranges_keep_their_order() {
        let rows = [
            ("14.1.2", "bytes=0-0,-1", vec![0..1, 9999..10_000]),
            ("14.1.2", "bytes= 0-999, 4500-5499, -1000", vec![0..1000, 4500..5500, 9000..10_000]),
            ("15.3.7.2: order", "bytes=-1,0-0", vec![9999..10_000, 0..1]),
            ("15.3.7.2: order", "bytes=5000-5001,9000-9001,1-2", vec![5000..5002, 9000..9002, 1..3]),
            ("15.3.7.2: unsatisfiable ones are left out", "bytes=10000-,0-0,-0,-1", vec![0..1, 9999..10_000]),
            ("15.3.7.2: a gap of 80", "bytes=0-9,90-99", vec![0..10, 90..100]),
            ("15.3.7.2: the place of the first", "bytes=5000-5009,0-9,5010-5019", vec![5000..5020, 0..10]),
            (
                "15.3.7.2: the place of the first",
                "bytes=0-9,5010-5019,9000-,5000-5009",
                vec![0..10, 5000..5020, 9000..10_000],
            ),
            ("15.3.7.2: one joins many", "bytes=9000-9001,100-109,300-309,500-509,50-600", vec![9000..9002, 50..601]),
        ];
        for (section, field, expected) in rows {
            check(section, field, 10_000, &Parts(expected));
        }
    }

    #[test]
    fn near_ranges_are_coalesced() {
        let rows = [
            ("15.3.7.2: overlapping", "bytes=500-700,601-999", Part(500..1000)),
            ("15.3.7.2: adjacent", "bytes=500-600,601-999", Part(500..1000)),
            ("15.3.7.2: adjacent", "bytes=601-999,500-600", Part(500..1000)),
            ("15.3.7.2: a gap of 79", "bytes=0-9,89-99", Part(0..100)),
            ("15.3.7.2: the same twice", "bytes=0-9,0-9", Part(0..10)),
            ("15.3.7.2: one inside another", "bytes=0-99,10-19", Part(0..100)),
            ("15.3.7.2: one inside another", "bytes=10-19,0-99", Part(0..100)),
            ("15.3.7.2: one inside another", "bytes=-10,-5000,-20", Part(5000..10_000)),
            ("15.3.7.2: one satisfiable", "bytes=10000-,0-0,-0", Part(0..1)),
            ("14.2: all of it in pieces", "bytes=0-,0-", Whole),
            ("14.2: all of it in pieces", "bytes=0-4999,5000-", Whole),
            ("14.2: all of it in pieces", "bytes=0-4970,-5000", Whole),
        ];
        for (section, field, expected) in rows {
            check(section, field, 10_000, &expected);
        }
    }

    /// RFC 9110 section 14.2: a server may ignore the field.
    #[test]
    fn parts_that_cost_as_much_as_the_whole_are_the_whole() {
        check("14.2", "bytes=0-9,-10", 180, &Whole);
        check("14.2", "bytes=0-9,-10", 181, &Parts(vec![0..10, 171..181]));
        check("14.2: no overflow", "bytes=0-18446744073709551524,-1", MAX, &Whole);
    }

    #[test]
    fn more_ranges_than_any_client_needs_are_ignored() {
        let field = |count: u64| {
            let specs: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 1000, n * 1000 + 1)).collect();
            format!("bytes={}", specs.join(","))
        };
        let expected = (0..32).map(|n| n * 1000..n * 1000 + 2).collect();
        check("17.15", &field(32), 1_000_000, &Parts(expected));
        check("17.15", &field(33), 1_000_000, &Whole);
        check("17.15", &format!("bytes={}", ["0-"; 33].join(",")), 10, &Whole);
        check("17.15", &format!("bytes={}", ["10-"; 33].join(",")), 10, &Whole);
    }

    #[test]
    fn content_ranges_are_written_as_section_14_4_says() {
        assert_eq!(content_range(&(0..5), 10), "bytes 0-4/10");
        assert_eq!(content_range(&(42..1234), 1234), "bytes 42-1233/1234");
        assert_eq!(
            content_range(&(MAX - 1..MAX), MAX),
            "bytes 18446744073709551614-18446744073709551614/18446744073709551615"
        );
        assert_eq!(unsatisfied(10), "bytes */10");
        assert_eq!(unsatisfied(0), "bytes */0");
    }

    /// A linear congruential generator, so that each run is the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }

        fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
            all[usize::try_from(self.below(all.len() as u64)).unwrap()]
        }
    }

    /// The parts, which are as promised.
    fn parts(field: &str, length: u64) -> Vec<Range<u64>> {
        let parts = match selected(&[field], length) {
            Whole | Unsatisfiable => return Vec::new(),
            Part(part) => vec![part],
            Parts(parts) => {
                let sum: u64 = parts.iter().map(|part| part.end - part.start).sum();
                assert!(parts.len() > 1 && parts.len() <= MAX_SPECS && sum < length, "{field} of {length}: {parts:?}");
                parts
            }
        };
        assert!(parts.iter().all(|part| part.start < part.end && part.end <= length), "{field} of {length}: {parts:?}");
        let mut sorted = parts.clone();
        sorted.sort_by_key(|part| part.start);
        let is_apart = sorted.windows(2).all(|pair| pair[0].end < pair[1].start && pair[1].start - pair[0].end >= 80);
        assert!(is_apart, "{field} of {length}: {parts:?}");
        parts
    }

    #[test]
    fn random_fields_select_parts_that_are_apart() {
        const PIECES: [&str; 22] = [
            "-",
            "-",
            "-",
            ",",
            ",",
            ",",
            "0",
            "1",
            "5",
            "9",
            "10",
            "99",
            "100",
            "179",
            "300",
            "1000",
            " ",
            "\t",
            "+",
            "18446744073709551615",
            "18446744073709551616",
            "bytes=",
        ];
        let mut random = Random(1);
        let mut some = 0;
        for _ in 0..100_000 {
            let set: String = (0..random.below(12)).map(|_| random.one_of(&PIECES)).collect();
            let length = random.one_of(&[0, 1, 10, 100, 1000, 1 << 40, MAX - 1, MAX]);
            some += u32::from(!parts(&format!("bytes={set}"), length).is_empty());
        }
        assert!(some > 1000, "only {some} selected anything");
    }

    #[test]
    fn random_ranges_are_covered_without_much_else() {
        let mut random = Random(2);
        let mut several = 0;
        for _ in 0..20_000 {
            let length = 1 + random.below(3000);
            let asked: Vec<_> = (0..=random.below(6))
                .map(|_| (random.below(3200), random.below(100)))
                .map(|(first, more)| first..first + more + 1)
                .collect();
            let specs: Vec<_> = asked.iter().map(|asked| format!("{}-{}", asked.start, asked.end - 1)).collect();
            let field = format!("bytes={}", specs.join(","));
            let parts = parts(&field, length);
            several += u32::from(parts.len() > 1);
            let selection = selected(&[&field], length);
            assert_eq!(selection == Unsatisfiable, asked.iter().all(|asked| asked.start >= length), "{field}");
            if parts.is_empty() {
                continue;
            }
            let holds = |all: &[Range<u64>], at: u64| all.iter().any(|range| range.contains(&at));
            for at in 0..length {
                // What was not asked for lies in a gap of less than 80.
                let near = || holds(&asked, at) || (at.saturating_sub(79)..at + 79).any(|near| holds(&asked, near));
                let is_sent = holds(&parts, at);
                assert!(if is_sent { near() } else { !holds(&asked, at) }, "{at} of {field}: {parts:?}");
            }
        }
        assert!(several > 1000, "only {several} had several parts");
    }
}
