//! Content codings: the ways in which a body may be compressed, and which of them a client likes. Knows nothing
//! of compressing.

use std::cmp::Reverse;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// A content coding that we know (RFC 9110 section 8.4.1), the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Coding {
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them; where a client likes several equally, the first wins.
    pub const ALL: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }

    /// What the name of a file that was compressed so ends in.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Zstd => "zst",
            Self::Gzip => "gz",
        }
    }
}

/// Which of the `available` codings the client likes best; None for the uncompressed (RFC 9110 section 12.5.3).
/// Asks for no more of them than it must.
///
/// Without the field nothing is compressed, though the RFC would allow it. A coding is taken only where it, or `*`,
/// is listed; then it wins over `identity`, unless that is listed with a higher quality. Where all is refused, the
/// uncompressed is sent nevertheless, as the RFC advises.
pub(crate) fn prefer(headers: &HeaderMap, available: impl Fn(Coding) -> bool) -> Option<Coding> {
    let accepted = Accepted::read(headers)?;
    let mut codings = Coding::ALL;
    codings.sort_by_key(|&coding| Reverse(accepted.quality(coding))); // stable; so short an array is sorted in place
    let least = accepted.identity.unwrap_or(0).max(1);
    codings.into_iter().take_while(|&coding| accepted.quality(coding) >= least).find(|&coding| available(coding))
}

/// The qualities of `Accept-Encoding` in thousandths; None for what is not listed.
#[derive(Default)]
struct Accepted {
    /// As [`Coding::ALL`].
    codings: [Option<u16>; Coding::ALL.len()],
    identity: Option<u16>,
    /// `*`: all codings that are not listed.
    others: Option<u16>,
}

impl Accepted {
    /// None where there is no such field. Of a coding that is listed twice the first counts; a line that is not
    /// ASCII counts for nothing.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(ACCEPT_ENCODING).iter().peekable();
        lines.peek()?;
        let mut accepted = Self::default();
        for member in lines.filter_map(|line| HeaderValue::to_str(line).ok()).flat_map(|line| line.split(',')) {
            let (name, quality) = match member.split_once(';') {
                None => (member, 1000),
                Some((name, weight)) => (name, weight_quality(weight.trim_ascii())),
            };
            if let Some(place) = accepted.place(name.trim_ascii()) {
                place.get_or_insert(quality);
            }
        }
        Some(accepted)
    }

    /// `x-gzip` is gzip (RFC 9110 section 8.4.1.3).
    fn place(&mut self, name: &str) -> Option<&mut Option<u16>> {
        let is = |token: &str| name.eq_ignore_ascii_case(token);
        match Coding::ALL.iter().position(|coding| is(coding.token()) || *coding == Coding::Gzip && is("x-gzip")) {
            Some(at) => self.codings.get_mut(at),
            None if is("identity") => Some(&mut self.identity),
            None if name == "*" => Some(&mut self.others),
            None => None,
        }
    }

    fn quality(&self, coding: Coding) -> u16 {
        let listed =
            Coding::ALL.iter().zip(self.codings).find_map(|(known, quality)| quality.filter(|_| *known == coding));
        listed.or(self.others).unwrap_or(0)
    }
}

/// The quality of `q=0.5` in thousandths (RFC 9110 section 12.4.2). 0 where it is malformed: what cannot be read is
/// not taken for a wish.
fn weight_quality(weight: &str) -> u16 {
    weight.strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('=')).and_then(quality).unwrap_or(0)
}

/// `0` or `1`, then perhaps a point and up to three digits; not more than 1.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_decimal = decimals.len() <= 3 && decimals.bytes().all(|byte| byte.is_ascii_digit());
    let thousandths = || decimals.bytes().zip([100, 10, 1]).map(|(digit, unit)| u16::from(digit - b'0') * unit).sum();
    match whole {
        "0" if is_decimal => Some(thousandths()),
        "1" if is_decimal && decimals.bytes().all(|digit| digit == b'0') => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Coding::{Brotli, Gzip, Zstd};
    use super::*;

    fn preferred(lines: &[&str], available: &[Coding]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        prefer(&headers, |coding| available.contains(&coding))
    }

    #[test]
    fn the_best_listed_coding_is_preferred() {
        let rows: [(&str, &[&str], Option<Coding>); 67] = [
            ("12.5.3: absent", &[], None),
            ("12.5.3: empty", &[""], None),
            ("5.6.1.2: empty members", &[", ,"], None),
            ("5.6.1.2: empty members", &[",,gzip,"], Some(Gzip)),
            ("12.5.3: browsers", &["gzip, deflate, br, zstd"], Some(Brotli)),
            ("12.5.3: browsers", &["gzip, deflate"], Some(Gzip)),
            ("12.5.3: unknown ones", &["deflate, compress, dcb"], None),
            ("12.5.3: example", &["compress, gzip"], Some(Gzip)),
            ("12.5.3: example", &["*"], Some(Brotli)),
            ("12.5.3: example", &["compress;q=0.5, gzip;q=1.0"], Some(Gzip)),
            ("12.5.3: example", &["gzip;q=1.0, identity; q=0.5, *;q=0"], Some(Gzip)),
            ("12.4.2: the highest wins", &["br;q=0.5, gzip;q=0.6"], Some(Gzip)),
            ("12.4.2: the highest wins", &["br;q=0.998,gzip;q=0.999,zstd;q=0.997"], Some(Gzip)),
            ("12.4.2: the highest wins", &["br;q=0.9,gzip"], Some(Gzip)),
            ("12.4.2: the highest wins", &["br;q=0.1,zstd;q=0.2"], Some(Zstd)),
            ("12.4.2: the highest wins", &["br;q=0.09,zstd;q=0.1"], Some(Zstd)),
            ("our order", &["gzip;q=0.5,zstd;q=0.5,br;q=0.5"], Some(Brotli)),
            ("our order", &["gzip,zstd"], Some(Zstd)),
            ("our order", &["gzip;q=1.000,zstd;q=1."], Some(Zstd)),
            ("our order", &["gzip;q=0.5,zstd;q=0.500"], Some(Zstd)),
            ("12.4.2: 0 is refused", &["gzip;q=0"], None),
            ("12.4.2: 0 is refused", &["gzip;q=0."], None),
            ("12.4.2: 0 is refused", &["gzip;q=0.000"], None),
            ("12.4.2: the least", &["gzip;q=0.001"], Some(Gzip)),
            ("12.4.2: q has no case", &["br;Q=0.1,gzip;Q=0.2"], Some(Gzip)),
            ("12.4.2: blanks", &["br ; q=0.1 ,\tgzip\t;\tq=0.2"], Some(Gzip)),
            ("12.4.2: malformed is refused", &["gzip;q=1.001"], None),
            ("12.4.2: malformed is refused", &["gzip;q=2"], None),
            ("12.4.2: malformed is refused", &["gzip;q=0.1234"], None),
            ("12.4.2: malformed is refused", &["gzip;q=1.0000"], None),
            ("12.4.2: malformed is refused", &["gzip;q=.5"], None),
            ("12.4.2: malformed is refused", &["gzip;q=00.5"], None),
            ("12.4.2: malformed is refused", &["gzip;q=+1"], None),
            ("12.4.2: malformed is refused", &["gzip;q=-1"], None),
            ("12.4.2: malformed is refused", &["gzip;q=0.+1"], None),
            ("12.4.2: malformed is refused", &["gzip;q=1e0"], None),
            ("12.4.2: malformed is refused", &["gzip;q=0.5.5"], None),
            ("12.4.2: malformed is refused", &["gzip;q="], None),
            ("12.4.2: malformed is refused", &["gzip;q"], None),
            ("12.4.2: malformed is refused", &["gzip;"], None),
            ("12.4.2: malformed is refused", &["gzip;q =1"], None),
            ("12.4.2: malformed is refused", &["gzip;q= 1"], None),
            ("12.4.2: malformed is refused", &["gzip;level=9"], None),
            ("12.4.2: malformed is refused", &["gzip;q=1;level=9"], None),
            ("12.4.2: malformed is refused", &["gzip;q=a, *;q=0.5, br;q=0, zstd;q=0"], None),
            ("12.4.2: the others are read", &["br;q=a, gzip"], Some(Gzip)),
            ("12.5.3: * is what is not listed", &["br;q=0, *"], Some(Zstd)),
            ("12.5.3: * is what is not listed", &["*, br;q=0, zstd;q=0.999"], Some(Gzip)),
            ("12.5.3: * is what is not listed", &["*;q=0.5, gzip"], Some(Gzip)),
            ("12.5.3: * is what is not listed", &["gzip;q=0.4, *;q=0.5"], Some(Brotli)),
            ("12.5.3: * is what is not listed", &["*;q=0"], None),
            ("12.5.3: identity", &["identity"], None),
            ("12.5.3: identity", &["identity;q=0"], None),
            ("12.5.3: identity", &["identity;q=0.5, gzip;q=0.4"], None),
            ("12.5.3: identity", &["identity;q=0.5, gzip;q=0.5"], Some(Gzip)),
            ("12.5.3: identity", &["identity, *;q=0.5"], None),
            ("12.5.3: identity", &["Identity;q=0.5, zstd;q=0.4, gzip;q=0.6"], Some(Gzip)),
            ("12.5.3: identity by default", &["gzip;q=0.001, *;q=0"], Some(Gzip)),
            ("8.4.1: codings have no case", &["GZip"], Some(Gzip)),
            ("8.4.1.3: x-gzip", &["x-gzip"], Some(Gzip)),
            ("8.4.1.3: x-gzip", &["X-GZIP;q=0, *;q=0.1, br;q=0, zstd;q=0"], None),
            ("5.3: several lines are one list", &["br;q=0.5", "gzip"], Some(Gzip)),
            ("5.3: several lines are one list", &["deflate", "", "zstd"], Some(Zstd)),
            ("the first counts", &["gzip;q=0, gzip"], None),
            ("names are whole", &["gzipped, brr, z, x-br, xgzip"], None),
            ("not ASCII", &["gzip, \u{e9}", "zstd"], Some(Zstd)),
            ("no commas", &["gzip br"], None),
        ];
        for (section, lines, expected) in rows {
            assert_eq!(preferred(lines, &Coding::ALL), expected, "section {section}: {lines:?}");
        }
    }

    #[test]
    fn only_what_is_available_is_preferred() {
        let rows: [(&str, &[Coding], Option<Coding>); 8] = [
            ("gzip, deflate, br, zstd", &[Gzip], Some(Gzip)),
            ("gzip, deflate, br, zstd", &[Gzip, Zstd], Some(Zstd)),
            ("gzip, deflate, br, zstd", &[], None),
            ("gzip", &[Brotli, Zstd], None),
            ("gzip;q=0.5, br", &[Gzip], Some(Gzip)),
            ("br, identity;q=0.8, gzip;q=0.7", &[Gzip], None),
            ("br, gzip;q=0", &[Gzip], None),
            ("identity;q=0, *;q=0", &[Gzip], None),
        ];
        for (line, available, expected) in rows {
            assert_eq!(preferred(&[line], available), expected, "section 12.5.3: {line} of {available:?}");
        }
    }

    #[test]
    fn what_is_liked_less_is_not_asked_for() {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br;q=0.5, zstd;q=0"))]);
        let asked = std::cell::RefCell::new(Vec::new());
        let ask = |coding| {
            asked.borrow_mut().push(coding);
            coding == Brotli
        };
        assert_eq!(prefer(&headers, ask), Some(Brotli));
        assert_eq!(asked.take(), [Gzip, Brotli]);
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
    fn random_fields_prefer_only_what_they_list() {
        const PIECES: [&str; 20] = [
            "gzip", "x-gzip", "br", "zstd", "identity", "*", ",", ",", ",", ";q=", ";q=", ";q=0", ";q=1", "0.5",
            "0.25", "1", " ", "\t", ".", "é",
        ];
        let mut random = Random(1);
        let mut some = 0;
        for _ in 0..50_000 {
            let mut line = || (0..random.below(10)).map(|_| PIECES[random.below(PIECES.len())]).collect::<String>();
            let lines = [line(), line()];
            let available = &Coding::ALL[random.below(4)..];
            let found = preferred(&[&lines[0], &lines[1]], available);
            some += u32::from(found.is_some());
            let lists = |token: &str| lines.iter().any(|line| line.contains(token));
            let is_listed = |coding: Coding| available.contains(&coding) && (lists(coding.token()) || lists("*"));
            assert!(found.is_none_or(is_listed), "{lines:?} of {available:?}: {found:?}");
            if lines.concat().is_ascii() {
                assert_eq!(preferred(&[&lines.join(",")], available), found, "{lines:?} of {available:?}");
            }
        }
        assert!(some > 1000, "only {some} preferred anything");
    }
}
