//! `inet`, `cidr`, `macaddr`, `macaddr8`: text forms.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::datum::Inet;
use super::scalar::{bad_syntax, is_space};
use crate::sqlstate::{SqlError, SqlState};

impl Inet {
    /// Longest prefix of the address family.
    pub fn max_prefix(&self) -> u8 {
        if self.addr.is_ipv4() { 32 } else { 128 }
    }

    /// A host address.
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// Reads `inet`, or `cidr`, which must have no bits right of its mask and may leave out zero bytes.
    ///
    /// # Errors
    /// `22P02`.
    pub fn parse(text: &str, cidr: bool) -> Result<Self, SqlError> {
        let name = if cidr { "cidr" } else { "inet" };
        let fail = || bad_syntax(name, text);
        let (addr, prefix) = match text.split_once('/') {
            Some((a, p)) => (a, Some(p.parse::<u8>().map_err(|_| fail())?)),
            None => (text, None),
        };
        let (addr, implied) = if let Ok(a) = addr.parse::<IpAddr>() {
            (a, None)
        } else {
            // Short forms: 10, 10.1, 10.1.2.
            let parts: Vec<u8> = addr.split('.').map(str::parse).collect::<Result<_, _>>().map_err(|_| fail())?;
            if parts.is_empty() || parts.len() > 3 || (!cidr && prefix.is_none()) {
                return Err(fail());
            }
            let mut octets = [0u8; 4];
            octets[..parts.len()].copy_from_slice(&parts);
            let classful = match octets[0] {
                0..=127 => 8,
                128..=191 => 16,
                192..=223 => 24,
                224..=239 => 8,
                240..=255 => 32,
            };
            let given = u8::try_from(parts.len() * 8).unwrap_or(32);
            (IpAddr::V4(Ipv4Addr::from(octets)), Some(classful.max(given)))
        };
        let host = Self::host(addr);
        let prefix = prefix.or(implied).unwrap_or(host.prefix);
        if prefix > host.prefix {
            return Err(fail());
        }
        let v = Self { addr, prefix };
        if cidr && v.network().addr != addr {
            return Err(SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("invalid cidr value: \"{text}\""))
                .detail("Value has bits set to right of mask."));
        }
        Ok(v)
    }

    /// The address with the host part zero.
    #[must_use]
    pub fn network(&self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(a) & mask).into())
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(a) & mask).into())
            }
        };
        Self { addr, prefix: self.prefix }
    }

    /// Appends the text form; `inet` leaves out the prefix of a host.
    pub fn write(&self, cidr: bool, out: &mut String) {
        let _infallible = write!(out, "{}", self.addr);
        if cidr || self.prefix != self.max_prefix() {
            let _infallible = write!(out, "/{}", self.prefix);
        }
    }

    /// PostgreSQL's binary form.
    pub fn send(&self, cidr: bool, out: &mut Vec<u8>) {
        let (family, bytes) = match self.addr {
            IpAddr::V4(a) => (2, a.octets().to_vec()),
            IpAddr::V6(a) => (3, a.octets().to_vec()),
        };
        out.extend_from_slice(&[family, self.prefix, u8::from(cidr), u8::try_from(bytes.len()).unwrap_or(16)]);
        out.extend_from_slice(&bytes);
    }

    /// Reads PostgreSQL's binary form.
    ///
    /// # Errors
    /// `22P03`.
    pub fn recv(b: &[u8]) -> Result<Self, SqlError> {
        let bad = || SqlError::new(SqlState::INVALID_BINARY_REPRESENTATION, "invalid external \"inet\" value");
        let [_, prefix, _, _, rest @ ..] = b else { return Err(bad()) };
        let addr = if let Ok(v4) = <[u8; 4]>::try_from(rest) {
            IpAddr::from(v4)
        } else {
            IpAddr::from(<[u8; 16]>::try_from(rest).map_err(|_| bad())?)
        };
        let v = Self { addr, prefix: *prefix };
        if v.prefix > v.max_prefix() { Err(bad()) } else { Ok(v) }
    }
}

/// Reads `macaddr` (6 bytes) or `macaddr8` (8 bytes, six are widened).
///
/// # Errors
/// `22P02`.
pub fn parse_mac(text: &str, eight: bool) -> Result<[u8; 8], SqlError> {
    let name = if eight { "macaddr8" } else { "macaddr" };
    let s: String = text.trim_matches(is_space).chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
    let bytes = super::scalar::parse_hex(&s).map_err(|_| bad_syntax(name, text))?;
    match (bytes.as_slice(), eight) {
        ([a, b, c, d, e, f], false) => Ok([*a, *b, *c, *d, *e, *f, 0, 0]),
        ([a, b, c, d, e, f], true) => Ok([*a, *b, *c, 0xFF, 0xFE, *d, *e, *f]),
        ([a, b, c, d, e, f, g, h], true) => Ok([*a, *b, *c, *d, *e, *f, *g, *h]),
        _ => Err(bad_syntax(name, text)),
    }
}
