//! Whose a certificate is and when it is good, in words. Pure: the time is told.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::log::Level;
use x509_cert::Certificate;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::{DateTime, Decode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::Wrong;

/// So long before its end, a certificate that should have been renewed was not: authorities and their clients renew at
/// thirty days.
const SOON: Duration = Duration::from_secs(14 * DAY);

const DAY: u64 = 24 * 3600;

/// So many names are shown; a certificate may have hundreds.
const NAMES_SHOWN: usize = 5;

/// Whose a certificate is, and when it is good. Displays as `example.org, www.example.org, until 2027-02-01 12:00 UTC`.
#[derive(Clone, Debug)]
pub(crate) struct Validity {
    names: String,
    from: DateTime,
    until: DateTime,
}

impl Validity {
    pub(super) fn of(certificate: &[u8]) -> Result<Self, String> {
        let parsed = Certificate::from_der(certificate).map_err(|cause| cause.to_string())?;
        let validity = &parsed.tbs_certificate.validity;
        let (from, until) = (validity.not_before.to_date_time(), validity.not_after.to_date_time());
        Ok(Self { names: names(&parsed), from, until })
    }

    /// What the operator is to know of it at this time: an error where clients refuse it, a warning where they soon will.
    pub fn concern(&self, now: SystemTime) -> Option<(Level, Wrong)> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (from, until) = (self.from.unix_duration(), self.until.unix_duration());
        let (to_come, left, over) = (from.saturating_sub(now), until.saturating_sub(now), now.saturating_sub(until));
        if !over.is_zero() {
            let problem = format!("expired {}, {} ago: clients refuse it", Minute(self.until), days(over));
            return Some((Level::Error, Wrong::new(problem, RENEW)));
        }
        if !to_come.is_zero() {
            let problem = format!("is not valid before {}, in {}: clients refuse it", Minute(self.from), days(to_come));
            let remedy = "see whether the clock of this machine is right, or wait until then";
            return Some((Level::Error, Wrong::new(problem, remedy)));
        }
        (left < SOON)
            .then(|| (Level::Warn, Wrong::new(format!("expires {}, in {}", Minute(self.until), days(left)), RENEW)))
    }
}

/// What is missing where each certificate of a chain should be issued by the next one. The last may be issued by an
/// authority that clients know, and a certificate alone by its own key.
pub(super) fn gap(chain: &[impl AsRef<[u8]>]) -> Option<Wrong> {
    let parsed: Vec<_> = chain.iter().filter_map(|der| Certificate::from_der(der.as_ref()).ok()).collect();
    let issued = |by: &Certificate, it: &Certificate| by.tbs_certificate.subject == it.tbs_certificate.issuer;
    if let [alone] = parsed.as_slice() {
        let remedy = "unless they do, put the chain behind it; of certbot, name fullchain.pem";
        return (!issued(alone, alone))
            .then(|| Wrong::new("has no chain behind it: clients must know its issuer", remedy));
    }
    let place = parsed.windows(2).position(|pair| !issued(&pair[1], &pair[0]))?;
    let problem =
        format!("certificate number {} did not issue number {}: some clients refuse it", place + 2, place + 1);
    Some(Wrong::new(problem, "put each certificate behind the one that it issued"))
}

const RENEW: &str = "renew the certificate, and stop and start the server, which reads it once";

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, until {}", self.names, Minute(self.until))
    }
}

struct Minute(DateTime);

impl fmt::Display for Minute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.0;
        let (year, month, day, hour, minute) = (date.year(), date.month(), date.day(), date.hour(), date.minutes());
        write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

fn days(span: Duration) -> String {
    match span.as_secs() / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

/// The alternative names, for clients look at nothing else; without one, the common name, for it is what a person gave.
fn names(certificate: &Certificate) -> String {
    let alternative = certificate.tbs_certificate.get::<SubjectAltName>().ok().flatten();
    let mut names: Vec<_> = alternative.iter().flat_map(|(_, names)| &names.0).filter_map(name).collect();
    if names.is_empty() {
        names.push(common_name(certificate).unwrap_or_else(|| "nobody".to_owned()));
    }
    let more = names.len().saturating_sub(NAMES_SHOWN);
    names.truncate(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(printable(name.as_str())),
        GeneralName::IpAddress(bytes) => {
            let (v4, v6) = (bytes.as_bytes().try_into(), bytes.as_bytes().try_into());
            let v4 = v4.ok().map(|v4: [u8; 4]| IpAddr::from(v4));
            v4.or_else(|| v6.ok().map(|v6: [u8; 16]| IpAddr::from(v6))).map(|address| address.to_string())
        }
        // Names of people and things, which are nothing to a client of HTTPS.
        GeneralName::OtherName(_)
        | GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::UniformResourceIdentifier(_)
        | GeneralName::RegisteredId(_) => None,
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let parts = certificate.tbs_certificate.subject.0.iter().flat_map(|part| part.0.iter());
    let found = parts.into_iter().find(|part| part.oid == COMMON_NAME)?;
    Some(printable(std::str::from_utf8(found.value.value()).ok()?))
}

/// A name as a terminal and a log may see it, and not without end.
fn printable(name: &str) -> String {
    const LONGEST: usize = 253; // of a domain name (RFC 1035, section 2.3.4)
    name.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validity() -> Validity {
        let date = |year, month| DateTime::new(year, month, 1, 12, 0, 0).unwrap();
        Validity { names: "example.org".into(), from: date(2026, 11), until: date(2027, 2) }
    }

    /// So long before the end, what is said.
    fn said(before_end: i64) -> Option<String> {
        let validity = validity();
        let end = validity.until.to_system_time();
        let span = Duration::from_secs(before_end.unsigned_abs());
        let (level, wrong) = validity.concern(if before_end < 0 { end + span } else { end - span })?;
        Some(format!("{level} {}", wrong.problem))
    }

    #[test]
    fn a_certificate_is_good_until_it_expires_and_two_weeks_before_that_it_is_said() {
        const DAYS: i64 = 24 * 3600;
        let soon = |left: &str| Some(format!("WARN expires 2027-02-01 12:00 UTC, in {left}"));
        assert_eq!(said(30 * DAYS), None);
        assert_eq!(said(14 * DAYS), None);
        assert_eq!(said(14 * DAYS - 1), soon("13 days"));
        assert_eq!(said(DAYS), soon("1 day"));
        assert_eq!(said(0), soon("less than a day"), "it is good in its last second (RFC 5280, section 4.1.2.5)");
        let expired = |ago: &str| Some(format!("ERROR expired 2027-02-01 12:00 UTC, {ago} ago: clients refuse it"));
        assert_eq!(said(-1), expired("less than a day"));
        assert_eq!(said(-40 * DAYS), expired("40 days"));
    }

    #[test]
    fn before_its_time_the_clock_is_in_doubt() {
        let (level, wrong) = validity().concern(UNIX_EPOCH).unwrap();
        assert_eq!(level, Level::Error);
        assert!(wrong.problem.starts_with("is not valid before 2026-11-01 12:00 UTC, in 20758 days"), "{wrong:?}");
        assert!(wrong.remedy.contains("clock"), "{wrong:?}");
        assert!(validity().concern(validity().from.to_system_time()).is_none());
        assert!(validity().concern(UNIX_EPOCH - Duration::from_secs(1)).is_some(), "a clock before 1970");
    }

    #[test]
    fn it_is_shown_with_its_end() {
        assert_eq!(validity().to_string(), "example.org, until 2027-02-01 12:00 UTC");
    }
}
