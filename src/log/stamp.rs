//! Instants as text: HTTP dates, the stamps of the access log and those of the error log.
//!
//! All are UTC and fields of the HTTP date, rearranged. The clock is read elsewhere.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// 9999-12-31T23:59:59Z: a clock beyond it, or before 1970, is shown as the nearest instant that has four-digit years.
const LAST_SECOND: u64 = 253_402_300_799;

/// `2026-11-22T17:03:07.123Z` (RFC 3339), in ASCII.
pub(crate) type IsoStamp = [u8; 24];

/// The stamps of the current second, formatted anew only when it changes.
#[derive(Debug)]
pub(crate) struct DateCache {
    second: u64,
    http_date: [u8; 29],
    combined: [u8; 26],
    iso: IsoStamp,
}

impl DateCache {
    pub fn new() -> Self {
        Self::of_second(0)
    }

    /// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
    pub fn http_date(&mut self, now: SystemTime) -> &[u8; 29] {
        self.refresh(now);
        &self.http_date
    }

    /// `06/Nov/1994:08:49:37 +0000` (the `%t` of Apache's combined log format).
    pub fn combined(&mut self, now: SystemTime) -> &[u8; 26] {
        self.refresh(now);
        &self.combined
    }

    /// `1994-11-06T08:49:37.000Z` with the milliseconds of `now`.
    pub fn iso(&mut self, now: SystemTime) -> IsoStamp {
        let millis = self.refresh(now);
        let mut stamp = self.iso;
        let _ = write!(&mut stamp[20..], "{millis:03}Z"); // 4 bytes: millis < 1000
        stamp
    }

    /// Moves to the second of `now` and returns the milliseconds in it.
    fn refresh(&mut self, now: SystemTime) -> u32 {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let second = since_epoch.as_secs().min(LAST_SECOND);
        if second != self.second {
            *self = Self::of_second(second);
        }
        since_epoch.subsec_millis()
    }

    /// `second` is at most [`LAST_SECOND`]: httpdate panics beyond it.
    fn of_second(second: u64) -> Self {
        let instant = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
        let mut http_date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        let _ = write!(&mut http_date[..], "{instant}"); // always 29 bytes
        Self { second, combined: combined(&http_date), iso: iso(&http_date), http_date }
    }
}

/// `2026-11-22T17:03:07.123Z` for a single line, as the error log has them.
pub(crate) fn iso_stamp(now: SystemTime) -> IsoStamp {
    DateCache::new().iso(now)
}

fn combined(http_date: &[u8; 29]) -> [u8; 26] {
    let mut stamp = *b"dd/mmm/yyyy:hh:mm:ss +0000";
    stamp[0..2].copy_from_slice(&http_date[5..7]);
    stamp[3..6].copy_from_slice(&http_date[8..11]);
    stamp[7..11].copy_from_slice(&http_date[12..16]);
    stamp[12..20].copy_from_slice(&http_date[17..25]);
    stamp
}

fn iso(http_date: &[u8; 29]) -> IsoStamp {
    let mut stamp = *b"yyyy-mm-ddThh:mm:ss.000Z";
    stamp[0..4].copy_from_slice(&http_date[12..16]);
    stamp[5..7].copy_from_slice(month(&http_date[8..11]));
    stamp[8..10].copy_from_slice(&http_date[5..7]);
    stamp[11..19].copy_from_slice(&http_date[17..25]);
    stamp
}

fn month(name: &[u8]) -> &'static [u8; 2] {
    match name {
        b"Jan" => b"01",
        b"Feb" => b"02",
        b"Mar" => b"03",
        b"Apr" => b"04",
        b"May" => b"05",
        b"Jun" => b"06",
        b"Jul" => b"07",
        b"Aug" => b"08",
        b"Sep" => b"09",
        b"Oct" => b"10",
        b"Nov" => b"11",
        _ => b"12",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22T17:03:07.123Z
    fn instant() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_366_987_123)
    }

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap()
    }

    #[test]
    fn one_instant_has_three_forms() {
        let mut cache = DateCache::new();
        assert_eq!(text(cache.http_date(instant())), "Sun, 22 Nov 2026 17:03:07 GMT");
        assert_eq!(text(cache.combined(instant())), "22/Nov/2026:17:03:07 +0000");
        assert_eq!(text(&cache.iso(instant())), "2026-11-22T17:03:07.123Z");
        assert_eq!(iso_stamp(instant()), cache.iso(instant()));
    }

    #[test]
    fn a_new_second_changes_every_form_and_time_may_go_back() {
        let mut cache = DateCache::new();
        cache.http_date(instant());
        let later = instant() + Duration::from_millis(900);
        assert_eq!(text(&cache.iso(later)), "2026-11-22T17:03:08.023Z");
        assert_eq!(text(cache.combined(later)), "22/Nov/2026:17:03:08 +0000");
        assert_eq!(text(cache.http_date(instant())), "Sun, 22 Nov 2026 17:03:07 GMT");
    }

    #[test]
    fn every_month_has_its_number() {
        for number in 1..=12 {
            let days = (number - 1) * 31; // 1970 has no month long enough to be missed
            let stamp = iso_stamp(UNIX_EPOCH + Duration::from_secs(days * 86_400));
            assert_eq!(text(&stamp)[5..7], format!("{number:02}"), "{}", text(&stamp));
        }
    }

    #[test]
    fn a_clock_out_of_range_does_not_panic() {
        let mut cache = DateCache::new();
        assert_eq!(text(cache.http_date(UNIX_EPOCH - Duration::from_secs(1))), "Thu, 01 Jan 1970 00:00:00 GMT");
        let far = UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 86_400);
        assert_eq!(text(cache.combined(far)), "31/Dec/9999:23:59:59 +0000");
    }
}
