//! Requests that were running when workers died: one may be a coincidence, three are not. Pure.

use std::fmt;
use std::time::Duration;

/// How long a death is held against a request.
const MEMORY: Duration = Duration::from_secs(3600);

/// How many requests are remembered; the one that was seen last longest ago makes room.
const ROOM: usize = 64;

/// From so many deaths on a request is pointed out.
const POINTED_OUT_FROM: u32 = 3;

/// The requests that were there.
#[derive(Debug, Default)]
pub(super) struct Offenders(Vec<Offender>);

#[derive(Debug)]
struct Offender {
    request: String,
    deaths: u32,
    last: Duration,
}

/// A request that was there too often.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offence {
    request: String,
    deaths: u32,
}

impl Offenders {
    /// A worker died while this request, `METHOD target`, was running. What is behind `?` differs from one to the next, and
    /// is left out. Returns what is to be said about it: at the third death, and whenever there are twice as many.
    pub fn note(&mut self, request: &str, now: Duration) -> Option<Offence> {
        self.0.retain(|offender| now.saturating_sub(offender.last) < MEMORY);
        let request = request.split('?').next().unwrap_or(request);
        let deaths = if let Some(offender) = self.0.iter_mut().find(|offender| offender.request == request) {
            offender.last = now;
            offender.deaths = offender.deaths.saturating_add(1);
            offender.deaths
        } else {
            self.make_room();
            self.0.push(Offender { request: request.to_owned(), deaths: 1, last: now });
            1
        };
        let doublings = deaths / POINTED_OUT_FROM;
        let is_news = deaths % POINTED_OUT_FROM == 0 && doublings.is_power_of_two();
        is_news.then(|| Offence { request: request.to_owned(), deaths })
    }

    fn make_room(&mut self) {
        if self.0.len() >= ROOM {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, offender)| offender.last).map(|(place, _)| place);
            oldest.into_iter().for_each(|place| drop(self.0.swap_remove(place)));
        }
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, deaths } = self;
        write!(
            f,
            "{request} was running in {deaths} workers when they died: it may be what kills them; see what its handler does, \
             or keep such requests away"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_request_is_pointed_out_at_the_third_death_and_then_more_and_more_seldom() {
        let mut offenders = Offenders::default();
        let told = (1..=12).filter(|n| offenders.note(&format!("GET /boom?{n}"), *n * MINUTE).is_some());
        assert_eq!(told.collect::<Vec<_>>(), [3, 6, 12]);
    }

    #[test]
    fn what_was_long_ago_is_forgotten_and_others_are_not_to_blame() {
        let mut offenders = Offenders::default();
        for n in 0..6 {
            assert_eq!(offenders.note("GET /rare", n * 61 * MINUTE), None);
        }
        for request in ["GET /a", "GET /b", "POST /a", "GET /a", "GET /b"] {
            assert_eq!(offenders.note(request, MINUTE), None, "{request}");
        }
        let offence = offenders.note("GET /a?x", MINUTE).unwrap().to_string();
        assert!(offence.starts_with("GET /a was running in 3 workers"), "{offence}");
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let mut offenders = Offenders::default();
        for n in 0..1000 {
            offenders.note(&format!("GET /{n}"), n * Duration::from_secs(1));
        }
        assert_eq!(offenders.0.len(), ROOM);
        assert!(offenders.0.iter().any(|offender| offender.request == "GET /999"));
    }
}
