//! Who is believed: addresses, networks and the Unix socket. Pure; knows nothing of what they are believed in.

use std::fmt;
use std::net::IpAddr;

use super::Wrong;

/// A set of senders. None of them is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Senders {
    networks: Vec<Network>,
    /// Whoever can connect to `socketFile`.
    unix: bool,
}

/// All addresses whose first `prefix` bits are those of `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Senders {
    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether an address is among them; `None` is the Unix socket. An IPv4 address in IPv6's clothes
    /// (RFC 4291, section 2.5.5.2) is that address.
    pub fn contain(&self, address: Option<IpAddr>) -> bool {
        match address {
            None => self.unix,
            Some(address) => self.networks.iter().any(|network| network.contains(address.to_canonical())),
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut senders = Self::default();
        for word in text.split_whitespace() {
            match word {
                "unix" | "unix:" => senders.unix = true,
                _ => senders.networks.push(Network::parse(word)?),
            }
        }
        Ok(senders)
    }
}

impl fmt::Display for Senders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix = self.unix.then(|| "unix".to_owned());
        let words: Vec<_> = unix.into_iter().chain(self.networks.iter().map(Network::to_string)).collect();
        f.write_str(&words.join(" "))
    }
}

impl Network {
    fn parse(word: &str) -> Result<Self, Wrong> {
        let (address, prefix) = word.split_once('/').map_or((word, None), |(address, prefix)| (address, Some(prefix)));
        let unknown =
            || Wrong::new(format!("{word:?} is no address"), "write addresses, networks like 10.0.0.0/8, or unix");
        let first: IpAddr = address.parse().map_err(|_| unknown())?;
        let bits = width(first);
        let prefix = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(|| {
                Wrong::new(format!("{word:?} has no such prefix"), format!("write {address}/N with N from 0 to {bits}"))
            })?,
        };
        let network = Self { first: cut(first, prefix), prefix };
        if network.first == first {
            Ok(network)
        } else {
            Err(Wrong::new(format!("{word:?} has bits behind its prefix"), format!("write {network}")))
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        width(address) == width(self.first) && cut(address, self.prefix) == self.first
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.prefix == width(self.first) { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Bits of an address.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all bits behind the first `prefix` cleared.
fn cut(address: IpAddr, prefix: u8) -> IpAddr {
    let behind = u32::from(width(address).saturating_sub(prefix));
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(behind).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(behind).unwrap_or(0)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(text: &str) -> Senders {
        Senders::parse(text).unwrap()
    }

    #[test]
    fn an_address_is_among_them_when_its_network_is() {
        let some = senders("127.0.0.1 10.0.0.0/8 2001:db8::/32 ::1");
        for inside in ["127.0.0.1", "10.255.0.3", "2001:db8:ffff::1", "::1", "::ffff:10.1.2.3"] {
            assert!(some.contain(Some(inside.parse().unwrap())), "{inside}");
        }
        for outside in ["127.0.0.2", "11.0.0.0", "2001:db9::1", "::2", "::ffff:11.1.2.3", "0.0.0.0"] {
            assert!(!some.contain(Some(outside.parse().unwrap())), "{outside}");
        }
        assert!(!some.contain(None));
        assert!(senders("unix").contain(None));
        assert!(!senders("unix").contain(Some("127.0.0.1".parse().unwrap())));
        let all = senders("0.0.0.0/0 ::/0");
        assert!(all.contain(Some("9.9.9.9".parse().unwrap())) && all.contain(Some("9::".parse().unwrap())));
        assert!(Senders::default().is_empty() && !all.is_empty() && !senders("unix").is_empty());
    }

    #[test]
    fn they_are_shown_as_they_are_said() {
        for text in ["", "unix", "127.0.0.1", "unix 10.0.0.0/8 ::1 fd00::/8"] {
            assert_eq!(senders(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_is_meant() {
        let wrong = |text| Senders::parse(text).unwrap_err();
        assert!(wrong("localhost").problem.contains("\"localhost\" is no address"));
        assert!(wrong("10.0.0.0/33").remedy.contains("from 0 to 32"), "{:?}", wrong("10.0.0.0/33"));
        assert!(wrong("10.0.0.0/x").problem.contains("no such prefix"));
        assert!(wrong("10.1.2.3/8").remedy.contains("write 10.0.0.0/8"));
        assert!(wrong("::1 fd00::1/8").remedy.contains("write fd00::/8"));
    }
}
