//! Conditional requests (RFC 9110 section 13): whether a request wants the version that we have. Knows nothing
//! of files and of how validators are made.

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue};
use httpdate::HttpDate;
use memchr::memchr;

/// What identifies the version of a representation (RFC 9110 section 8.8).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validators<'a> {
    /// A strong entity tag with its quotes (`"5f-2a"`).
    pub etag: &'a [u8],
    /// When it was last modified, as `Last-Modified` says it.
    pub modified: Option<HttpDate>,
    /// Whether `modified` is old enough to be a strong validator (section 8.8.2.2).
    pub modified_is_strong: bool,
}

/// What the preconditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They hold, or there are none.
    Proceed,
    /// The client has this version: 304.
    NotModified,
    /// The client wants another version: 412.
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD of a thing that exists, in the order of RFC 9110 section 13.2.2.
/// `If-Range` comes after them, in [`range_holds`].
///
/// A malformed `If-Match` or `If-None-Match` matches nothing, so that the one fails and the other holds. A date that
/// is invalid or stands there twice is ignored (sections 13.1.3 and 13.1.4).
pub(crate) fn evaluate(headers: &HeaderMap, of: &Validators<'_>) -> Verdict {
    let is_wanted = matches(headers, &IF_MATCH, |tag| !tag.is_weak && tag.opaque == of.etag)
        .or_else(|| is_modified_since(headers, &IF_UNMODIFIED_SINCE, of).map(|is_modified| !is_modified));
    if is_wanted == Some(false) {
        return Verdict::Failed;
    }
    let is_had = matches(headers, &IF_NONE_MATCH, |tag| tag.opaque == of.etag)
        .or_else(|| is_modified_since(headers, &IF_MODIFIED_SINCE, of).map(|is_modified| !is_modified));
    if is_had == Some(true) { Verdict::NotModified } else { Verdict::Proceed }
}

/// Whether `Range` may be honoured: `If-Range` names this version, or is not there (RFC 9110 section 13.1.5).
/// A date must be a strong validator and the very one; a weak tag, a malformed value and a list are never.
pub(crate) fn range_holds(headers: &HeaderMap, of: &Validators<'_>) -> bool {
    if !headers.contains_key(IF_RANGE) {
        return true;
    }
    // Our tag is strong, so equal bytes are equal in the strong comparison.
    only(headers, &IF_RANGE).is_some_and(|value| {
        value.as_bytes() == of.etag
            || of.modified_is_strong && date(value).is_some_and(|date| of.modified == Some(date))
    })
}

/// The value of a field that stands there once.
pub(super) fn only<'a>(headers: &'a HeaderMap, field: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(field).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether it was modified after the date in `field`; None where that or our own date is not to be had.
fn is_modified_since(headers: &HeaderMap, field: &HeaderName, of: &Validators<'_>) -> Option<bool> {
    let since = date(only(headers, field)?)?;
    of.modified.map(|modified| modified > since)
}

/// A date in any of the three formats of RFC 9110 section 5.6.7.
fn date(value: &HeaderValue) -> Option<HttpDate> {
    value.to_str().ok()?.parse().ok()
}

/// Whether `field` lists a tag that `is_ours`, or is `*`; None where there is no such field. A malformed member
/// makes the whole field match nothing.
fn matches(headers: &HeaderMap, field: &HeaderName, is_ours: impl Fn(Tag<'_>) -> bool) -> Option<bool> {
    let mut lines = headers.get_all(field).iter().map(HeaderValue::as_bytes).peekable();
    lines.peek()?;
    if only(headers, field).is_some_and(|value| value == "*") {
        return Some(true);
    }
    let found = lines.try_fold(false, |found, line| Some(line_matches(line, &is_ours)? || found));
    Some(found.unwrap_or(false))
}

/// Whether one line of the list has a tag that `is_ours`; None where it is malformed. Members may be empty
/// (RFC 9110 section 5.6.1.2).
fn line_matches(line: &[u8], is_ours: impl Fn(Tag<'_>) -> bool) -> Option<bool> {
    let mut found = false;
    let mut rest = line.trim_ascii_start();
    loop {
        if rest.first().is_some_and(|&byte| byte != b',') {
            let (tag, after) = Tag::read(rest)?;
            found |= is_ours(tag);
            rest = after.trim_ascii_start();
        }
        match rest.split_first() {
            None => return Some(found),
            Some((b',', after)) => rest = after.trim_ascii_start(),
            Some(_) => return None,
        }
    }
}

/// An entity tag (RFC 9110 section 8.8.3).
#[derive(Clone, Copy)]
struct Tag<'a> {
    is_weak: bool,
    /// With its quotes.
    opaque: &'a [u8],
}

impl<'a> Tag<'a> {
    /// Reads the tag at the start of `text`, and what follows it. Blanks inside the quotes, which RFC 2616 allowed,
    /// are let pass; a backslash is a character like any other.
    fn read(text: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let weak = text.strip_prefix(b"W/");
        let quoted = weak.unwrap_or(text);
        let end = memchr(b'"', quoted.strip_prefix(b"\"")?)?;
        let (opaque, after) = quoted.split_at(end + 2); // both quotes are there
        Some((Self { is_weak: weak.is_some(), opaque }, after))
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Failed, NotModified, Proceed};
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const FUTURE: &str = "Fri, 31 Dec 9999 23:59:59 GMT";

    fn ours() -> Validators<'static> {
        Validators { etag: b"\"a\"", modified: MODIFIED.parse().ok(), modified_is_strong: true }
    }

    fn headers(fields: &[(HeaderName, &str)]) -> HeaderMap {
        let fields = fields.iter();
        fields.map(|(name, value)| (name.clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap())).fold(
            HeaderMap::new(),
            |mut map, (name, value)| {
                map.append(name, value);
                map
            },
        )
    }

    #[track_caller]
    fn check(section: &str, fields: &[(HeaderName, &str)], expected: Verdict) {
        assert_eq!(evaluate(&headers(fields), &ours()), expected, "section {section}: {fields:?}");
    }

    /// Values of one list field: whether a strong and a weak comparison find our tag.
    const LISTS: [(&str, &[&str], bool, bool); 37] = [
        ("13.1.1", &["\"a\""], true, true),
        ("13.1.1", &["\"b\""], false, false),
        ("13.1.1", &["\"b\", \"a\""], true, true),
        ("13.1.1", &["\"b\",\"c\""], false, false),
        ("13.1.1", &["*"], true, true),
        ("13.1.1: * is no list member", &["*, \"a\""], false, false),
        ("13.1.1: * is no list member", &["\"a\", *"], false, false),
        ("13.1.1: * is no list member", &["*", "\"a\""], false, false),
        ("13.1.1: * is no list member", &["*", "*"], false, false),
        ("13.1.1: * is no list member", &["*,"], false, false),
        ("13.1.1: a tag, not everything", &["\"*\""], false, false),
        ("5.3: several lines are one list", &["\"b\"", "\"a\""], true, true),
        ("5.3: several lines are one list", &["\"a\"", "\"b\""], true, true),
        ("5.6.1.2: empty members", &[""], false, false),
        ("5.6.1.2: empty members", &[","], false, false),
        ("5.6.1.2: empty members", &[",, \"a\"\t,,"], true, true),
        ("5.6.1.2: empty members", &["", "\"a\""], true, true),
        ("8.8.3: commas inside", &["\"b,\\\",\"a\""], true, true),
        ("8.8.3: commas inside", &["\",\"a\",\""], false, false),
        ("8.8.3: commas inside", &["\"x,y\", \"z,\""], false, false),
        ("8.8.3: blanks inside", &["\"b c\", \"a\""], true, true),
        ("8.8.3: blanks inside", &["\" a \""], false, false),
        ("8.8.3: obs-text inside", &["\"é\", \"a\""], true, true),
        ("8.8.3: the empty tag", &["\"\""], false, false),
        ("8.8.3: a backslash escapes nothing", &["\"\\\", \"a\""], true, true),
        ("8.8.3: case matters", &["\"A\""], false, false),
        ("8.8.3.2: weak tags", &["W/\"a\""], false, true),
        ("8.8.3.2: weak tags", &["W/\"b\", W/\"a\""], false, true),
        ("8.8.3.2: weak tags", &["W/\"b\""], false, false),
        ("8.8.3: W is case-sensitive", &["w/\"a\""], false, false),
        ("8.8.3: malformed", &["W/ \"a\""], false, false),
        ("8.8.3: malformed", &["a"], false, false),
        ("8.8.3: malformed", &["\"a"], false, false),
        ("8.8.3: malformed", &["a\""], false, false),
        ("8.8.3: malformed", &["\"a\"\"a\""], false, false),
        ("8.8.3: malformed", &["\"a\" \"b\""], false, false),
        ("8.8.3: one malformed member spoils all", &["\"a\", b"], false, false),
    ];

    #[test]
    fn if_match_compares_strongly_and_if_none_match_weakly() {
        for (section, values, strong, weak) in LISTS {
            let fields = |name: HeaderName| values.iter().map(|value| (name.clone(), *value)).collect::<Vec<_>>();
            check(section, &fields(IF_MATCH), if strong { Proceed } else { Failed });
            check(section, &fields(IF_NONE_MATCH), if weak { NotModified } else { Proceed });
        }
    }

    #[test]
    fn dates_are_compared_to_the_second() {
        let rows = [
            ("13.1.3", BEFORE, Proceed, Failed),
            ("13.1.3", MODIFIED, NotModified, Proceed),
            ("13.1.3", AFTER, NotModified, Proceed),
            ("13.1.3: no clock is asked", FUTURE, NotModified, Proceed),
            ("5.6.7: RFC 850", "Sunday, 06-Nov-94 08:49:36 GMT", Proceed, Failed),
            ("5.6.7: RFC 850", "Sunday, 06-Nov-94 08:49:37 GMT", NotModified, Proceed),
            ("5.6.7: asctime", "Sun Nov  6 08:49:36 1994", Proceed, Failed),
            ("5.6.7: asctime", "Sun Nov  6 08:49:37 1994", NotModified, Proceed),
        ];
        for (section, date, since, unmodified) in rows {
            check(section, &[(IF_MODIFIED_SINCE, date)], since);
            check(section, &[(IF_UNMODIFIED_SINCE, date)], unmodified);
        }
    }

    #[test]
    fn invalid_and_repeated_dates_are_ignored() {
        let invalid = [
            "",
            "0",
            "784111777",
            "yesterday",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Mon, 06 Nov 1994 08:49:37 GMT", // it was a Sunday
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 25:49:37 GMT",
            "Sun, 30 Feb 1994 08:49:37 GMT",
            "\"Sun, 06 Nov 1994 08:49:37 GMT\"",
            "Sun, 06 Nov 1994 08:49:37 GMT; length=5",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "é",
        ];
        for date in invalid {
            check("13.1.3", &[(IF_MODIFIED_SINCE, date)], Proceed);
            check("13.1.4", &[(IF_UNMODIFIED_SINCE, date)], Proceed);
        }
        check("13.1.3", &[(IF_MODIFIED_SINCE, AFTER), (IF_MODIFIED_SINCE, AFTER)], Proceed);
        check("13.1.4", &[(IF_UNMODIFIED_SINCE, BEFORE), (IF_UNMODIFIED_SINCE, BEFORE)], Proceed);
    }

    #[test]
    fn dates_are_ignored_where_we_have_none() {
        let of = Validators { modified: None, ..ours() };
        for fields in [[(IF_MODIFIED_SINCE, AFTER)], [(IF_UNMODIFIED_SINCE, BEFORE)]] {
            assert_eq!(evaluate(&headers(&fields), &of), Proceed, "sections 13.1.3 and 13.1.4: {fields:?}");
        }
    }

    #[test]
    fn preconditions_are_taken_in_order() {
        let (ours, other, bad) = ("\"a\"", "\"b\"", "b");
        check("13.2.2", &[], Proceed);
        check("13.2.2 step 1", &[(IF_NONE_MATCH, ours), (IF_MATCH, other)], Failed);
        check("13.2.2 step 1", &[(IF_NONE_MATCH, ours), (IF_MATCH, ours)], NotModified);
        check("13.2.2 step 1", &[(IF_NONE_MATCH, other), (IF_MATCH, ours)], Proceed);
        check("13.2.2 step 1", &[(IF_MODIFIED_SINCE, AFTER), (IF_MATCH, other)], Failed);
        check("13.2.2 step 1", &[(IF_MODIFIED_SINCE, AFTER), (IF_MATCH, ours)], NotModified);
        check("13.1.4", &[(IF_UNMODIFIED_SINCE, BEFORE), (IF_MATCH, ours)], Proceed);
        check("13.1.4", &[(IF_UNMODIFIED_SINCE, AFTER), (IF_MATCH, other)], Failed);
        check("13.1.4", &[(IF_UNMODIFIED_SINCE, AFTER), (IF_MATCH, bad)], Failed);
        check("13.2.2 step 2", &[(IF_UNMODIFIED_SINCE, BEFORE), (IF_NONE_MATCH, ours)], Failed);
        check("13.2.2 step 2", &[(IF_UNMODIFIED_SINCE, AFTER), (IF_NONE_MATCH, ours)], NotModified);
        check("13.2.2 step 2", &[(IF_UNMODIFIED_SINCE, MODIFIED), (IF_MODIFIED_SINCE, MODIFIED)], NotModified);
        check("13.1.3", &[(IF_MODIFIED_SINCE, AFTER), (IF_NONE_MATCH, other)], Proceed);
        check("13.1.3", &[(IF_MODIFIED_SINCE, BEFORE), (IF_NONE_MATCH, ours)], NotModified);
        check("13.1.3", &[(IF_MODIFIED_SINCE, AFTER), (IF_NONE_MATCH, bad)], Proceed);
        check("13.1.3", &[(IF_MODIFIED_SINCE, AFTER), (IF_NONE_MATCH, "")], Proceed);
        check("13.1.5: no part of this", &[(IF_RANGE, other)], Proceed);
    }

    #[test]
    fn if_range_names_exactly_this_version() {
        let rows: [(&str, &[&str], bool); 19] = [
            ("13.1.5: absent", &[], true),
            ("13.1.5", &["\"a\""], true),
            ("13.1.5", &["\"b\""], false),
            ("13.1.5: strong comparison", &["W/\"a\""], false),
            ("13.1.5: no *", &["*"], false),
            ("13.1.5: no list", &["\"a\", \"b\""], false),
            ("13.1.5: no list", &["\"a\"", "\"a\""], false),
            ("13.1.5: malformed", &[""], false),
            ("13.1.5: malformed", &["a"], false),
            ("13.1.5: malformed", &["\"a"], false),
            ("13.1.5: malformed", &["é"], false),
            ("13.1.5: the very date", &[MODIFIED], true),
            ("13.1.5: the very date", &["Sunday, 06-Nov-94 08:49:37 GMT"], true),
            ("13.1.5: the very date", &["Sun Nov  6 08:49:37 1994"], true),
            ("13.1.5: not before", &[BEFORE], false),
            ("13.1.5: not after", &[AFTER], false),
            ("13.1.5: not after", &[FUTURE], false),
            ("13.1.5: no list", &[MODIFIED, MODIFIED], false),
            ("13.1.5: invalid date", &["Mon, 06 Nov 1994 08:49:37 GMT"], false),
        ];
        for (section, values, expected) in rows {
            let fields: Vec<_> = values.iter().map(|value| (IF_RANGE, *value)).collect();
            assert_eq!(range_holds(&headers(&fields), &ours()), expected, "section {section}: {values:?}");
        }
    }

    #[test]
    fn if_range_takes_no_weak_or_missing_date() {
        let (date, tag) = (headers(&[(IF_RANGE, MODIFIED)]), headers(&[(IF_RANGE, "\"a\"")]));
        let weak = Validators { modified_is_strong: false, ..ours() };
        assert!(!range_holds(&date, &weak) && range_holds(&tag, &weak), "section 8.8.2.2");
        let none = Validators { modified: None, ..ours() };
        assert!(!range_holds(&date, &none) && range_holds(&tag, &none), "section 13.1.5");
    }

    /// A linear congruential generator, so that each run is the same.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % bound
        }
    }

    #[test]
    fn random_lists_match_as_their_members_say() {
        const MEMBERS: [&str; 10] =
            ["\"a\"", "W/\"a\"", "", "\"b\"", "\"a,\"", "W/\"\\\"", "\", b\"", "*", "a", "\"a\"a"];
        let mut random = Random(1);
        for _ in 0..30_000 {
            // The last three, all of them malformed in a list, are rare.
            let bound = if random.below(4) == 0 { MEMBERS.len() } else { 7 };
            let lines: Vec<Vec<&str>> = (0..=random.below(2))
                .map(|_| (0..=random.below(4)).map(|_| MEMBERS[random.below(bound)]).collect())
                .collect();
            let values: Vec<_> = lines.iter().map(|line| line.join([",", ", ", "\t,"][random.below(3)])).collect();
            let members = lines.concat();
            let is_well_formed = members.iter().all(|member| !MEMBERS[7..].contains(member));
            let is_any = members == ["*"];
            let strong = is_any || is_well_formed && members.contains(&"\"a\"");
            let weak = strong || is_well_formed && members.contains(&"W/\"a\"");
            let fields =
                |name: HeaderName| values.iter().map(|value| (name.clone(), value.as_str())).collect::<Vec<_>>();
            check("13.1.1", &fields(IF_MATCH), if strong { Proceed } else { Failed });
            check("13.1.2", &fields(IF_NONE_MATCH), if weak { NotModified } else { Proceed });
        }
    }

    #[test]
    fn no_value_panics() {
        const PIECES: [&str; 20] = [
            "\"",
            "\"a\"",
            "W/",
            "W",
            "/",
            "*",
            ",",
            " ",
            "\t",
            "a",
            "é",
            "\\",
            "Sun, ",
            "Sunday, ",
            "06 Nov ",
            "06-Nov-94 ",
            "1994 ",
            "08:49:37",
            " GMT",
            MODIFIED,
        ];
        const NAMES: [HeaderName; 5] = [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE, IF_RANGE];
        let mut random = Random(2);
        for _ in 0..30_000 {
            let mut map = HeaderMap::new();
            for _ in 0..=random.below(3) {
                let value: String = (0..random.below(8)).map(|_| PIECES[random.below(PIECES.len())]).collect();
                map.append(
                    NAMES[random.below(NAMES.len())].clone(),
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            let (verdict, range) = (evaluate(&map, &ours()), range_holds(&map, &ours()));
            assert!(range || map.contains_key(IF_RANGE), "{map:?}");
            assert!(
                verdict != Failed || map.contains_key(IF_MATCH) || map.contains_key(IF_UNMODIFIED_SINCE),
                "{map:?}"
            );
        }
    }
}
