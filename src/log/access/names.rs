//! What is known of the clients' host names, and the lines that wait for one: a bounded cache with expiry, and a
//! deadline for every name that is asked for. Pure: it is told the time and the answers, and asks nobody.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// How long a name is believed.
const NAME_TIMEOUT: Duration = Duration::from_secs(600);

/// How long it is believed that there is none.
const NO_NAME_TIMEOUT: Duration = Duration::from_secs(60);

/// How long lines wait for a name, from the moment it was asked for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Of how many addresses something is known; the one that was met first makes room.
const KNOWN_MAX: usize = 4096;

/// How much waits at most, in bytes; lines beyond are written with the address.
const HELD_MAX: usize = 1 << 20;

/// The names of the clients of one loop.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<IpAddr, Known>,
    /// The addresses of `known`, oldest first.
    order: VecDeque<IpAddr>,
    /// Asked for and not yet answered, and the lines that wait for it.
    asked: HashMap<IpAddr, Vec<u8>>,
    /// Until when the lines of an address wait, soonest first. Some have been answered since.
    deadlines: VecDeque<(Duration, IpAddr)>,
    held: usize,
}

#[derive(Debug)]
struct Known {
    name: Option<Box<str>>,
    until: Duration,
}

/// How far the search for a name has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search<'a> {
    /// There is this name, or none.
    Over(Option<&'a str>),
    Underway,
    /// To be asked for.
    Due,
}

impl Names {
    /// How far the search for the name of this address is.
    pub fn search(&self, address: IpAddr, now: Duration) -> Search<'_> {
        match self.known.get(&address) {
            Some(known) if now < known.until => Search::Over(known.name.as_deref()),
            Some(_) | None if self.asked.contains_key(&address) => Search::Underway,
            Some(_) | None => Search::Due,
        }
    }

    /// The name was asked for: its lines can be [held](Self::hold).
    pub fn begin_search(&mut self, address: IpAddr, now: Duration) {
        self.asked.entry(address).or_default();
        self.deadlines.push_back((now.saturating_add(ANSWER_TIMEOUT), address));
    }

    /// Keeps a whole line until the name is known; or does not, when too much is kept or nothing was asked.
    pub fn hold(&mut self, address: IpAddr, line: &[u8]) -> bool {
        let Some(lines) = self.asked.get_mut(&address).filter(|_| self.held + line.len() <= HELD_MAX) else {
            return false;
        };
        lines.extend_from_slice(line);
        self.held += line.len();
        true
    }

    /// Whether a line waits.
    pub const fn is_holding(&self) -> bool {
        self.held > 0
    }

    /// Takes an answer in, also one that comes too late for its lines; returns those that have waited for it.
    pub fn learn(&mut self, address: IpAddr, name: Option<&str>, now: Duration) -> Vec<u8> {
        let timeout = if name.is_some() { NAME_TIMEOUT } else { NO_NAME_TIMEOUT };
        let known = Known { name: name.map(Box::from), until: now.saturating_add(timeout) };
        if self.known.insert(address, known).is_none() {
            self.order.push_back(address);
        }
        if self.known.len() > KNOWN_MAX {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.known.remove(&oldest));
        }
        let lines = self.asked.remove(&address).unwrap_or_default();
        self.held -= lines.len();
        lines
    }

    /// The lines of one address that have waited long enough: as long as nothing else is learnt, it has no name.
    pub fn give_up(&mut self, now: Duration) -> Option<Vec<u8>> {
        while let Some(&(deadline, address)) = self.deadlines.front() {
            let is_waiting = self.asked.contains_key(&address);
            if is_waiting && now < deadline {
                return None;
            }
            self.deadlines.pop_front();
            if is_waiting {
                return Some(self.learn(address, None, now));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const ADA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const BOB: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);

    fn address(n: usize) -> IpAddr {
        std::net::Ipv4Addr::from(u32::try_from(n).unwrap()).into()
    }

    fn asked(addresses: &[IpAddr], now: Duration) -> Names {
        let mut names = Names::default();
        for &address in addresses {
            names.begin_search(address, now);
        }
        names
    }

    #[test]
    fn lines_wait_for_their_own_name_and_come_back_in_order() {
        let mut names = asked(&[ADA, BOB], S);
        assert_eq!(names.search(ADA, S), Search::Underway);
        assert!(names.hold(ADA, b"1\n") && names.hold(BOB, b"2\n") && names.hold(ADA, b"3\n"));
        assert_eq!(names.learn(ADA, Some("ada.example"), S), b"1\n3\n");
        assert!(names.is_holding());
        assert_eq!(names.learn(BOB, None, S), b"2\n");
        assert!(!names.is_holding());
        assert_eq!(names.search(ADA, S), Search::Over(Some("ada.example")));
        assert_eq!(names.search(BOB, S), Search::Over(None));
    }

    #[test]
    fn nothing_is_held_for_what_nobody_has_asked() {
        let mut names = Names::default();
        assert_eq!(names.search(ADA, S), Search::Due);
        assert!(!names.hold(ADA, b"1\n") && !names.is_holding());
    }

    #[test]
    fn an_answer_is_believed_for_its_time_and_no_name_for_less() {
        let mut names = asked(&[ADA, BOB], S);
        names.learn(ADA, Some("ada.example"), S);
        names.learn(BOB, None, S);
        assert_eq!(names.search(BOB, 60 * S), Search::Over(None));
        assert_eq!(names.search(BOB, 61 * S), Search::Due);
        assert_eq!(names.search(ADA, 600 * S), Search::Over(Some("ada.example")));
        assert_eq!(names.search(ADA, 601 * S), Search::Due);
        names.begin_search(ADA, 601 * S);
        assert_eq!(names.search(ADA, 601 * S), Search::Underway);
    }

    #[test]
    fn lines_wait_no_longer_than_the_deadline_of_their_address() {
        let mut names = asked(&[ADA], S);
        names.begin_search(BOB, 2 * S);
        assert!(names.hold(ADA, b"1\n") && names.hold(BOB, b"2\n"));
        assert_eq!(names.give_up(Duration::from_millis(2_999)), None);
        assert_eq!(names.give_up(3 * S).unwrap(), b"1\n");
        assert_eq!(names.give_up(3 * S), None);
        assert_eq!(names.search(ADA, 3 * S), Search::Over(None));
        assert_eq!(names.give_up(Duration::MAX).unwrap(), b"2\n");
        assert!(names.give_up(Duration::MAX).is_none() && !names.is_holding());
    }

    #[test]
    fn an_answer_that_comes_too_late_is_known_from_then_on() {
        let mut names = asked(&[ADA], S);
        names.give_up(3 * S);
        assert_eq!(names.learn(ADA, Some("ada.example"), 9 * S), b"");
        assert_eq!(names.search(ADA, 9 * S), Search::Over(Some("ada.example")));
    }

    #[test]
    fn what_was_answered_does_not_run_out_and_leaves_nothing() {
        let mut names = asked(&[ADA, BOB], S);
        names.learn(ADA, Some("ada.example"), S);
        assert_eq!(names.give_up(S), None);
        assert_eq!(names.deadlines.len(), 1);
        names.learn(BOB, None, S);
        assert_eq!(names.give_up(3 * S), None);
        assert!(names.deadlines.is_empty() && names.asked.is_empty());
    }

    #[test]
    fn lines_beyond_the_bound_are_not_held() {
        let mut names = asked(&[ADA, BOB], S);
        assert!(names.hold(ADA, &vec![b'x'; HELD_MAX - 1]));
        assert!(!names.hold(BOB, b"1\n") && names.hold(BOB, b"\n") && !names.hold(ADA, b"\n"));
        assert_eq!(names.learn(ADA, None, S).len(), HELD_MAX - 1);
        assert!(names.hold(BOB, b"2\n"));
        assert_eq!(names.learn(BOB, None, S), b"\n2\n");
    }

    #[test]
    fn the_oldest_of_too_many_addresses_makes_room() {
        let mut names = Names::default();
        for n in 0..KNOWN_MAX {
            names.learn(address(n), Some("a"), S);
        }
        names.learn(address(0), Some("b"), S);
        assert_eq!(names.search(address(0), S), Search::Over(Some("b")));
        names.learn(address(KNOWN_MAX), Some("c"), S);
        assert_eq!(names.search(address(0), S), Search::Due);
        assert_eq!(names.search(address(1), S), Search::Over(Some("a")));
        assert_eq!((names.known.len(), names.order.len()), (KNOWN_MAX, KNOWN_MAX));
    }
}
