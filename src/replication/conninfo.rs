//! libpq connection strings: `host=.. port=..` and `postgresql://` URIs, as `primary_conninfo` and `-d` take them.
//!
//! PostgreSQL: interfaces/libpq/fe-connect.c, conninfo_parse. Missing values come from the PG* environment, then defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A connection string that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConnInfoError {
    /// A word without `=`.
    #[error("missing \"=\" after \"{0}\" in connection info string")]
    MissingEquals(String),
    /// A quote that never ends.
    #[error("unterminated quoted string in connection info string")]
    UnterminatedQuote,
    /// A keyword libpq does not know.
    #[error("invalid connection option \"{0}\"")]
    UnknownOption(String),
    /// A port that is no port.
    #[error("invalid port number: \"{0}\"")]
    InvalidPort(String),
    /// A malformed URI.
    #[error("invalid URI: {0}")]
    InvalidUri(String),
}

const KEYWORDS: &[&str] = &[
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "passfile",
    "application_name",
    "fallback_application_name",
    "connect_timeout",
    "options",
    "sslmode",
    "sslcompression",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "requirepeer",
    "channel_binding",
    "target_session_attrs",
    "replication",
    "client_encoding",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "service",
];

/// Keyword and value pairs, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnInfo {
    values: BTreeMap<String, String>,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP host and port.
    Tcp(String, u16),
    /// Unix-domain socket file.
    Unix(PathBuf),
}

impl ConnInfo {
    /// Parses either form.
    ///
    /// # Errors
    /// [`ConnInfoError`] with libpq's wording.
    pub fn parse(text: &str) -> Result<Self, ConnInfoError> {
        let uri = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        match uri {
            Some(rest) => Self::parse_uri(rest),
            None => Self::parse_pairs(text),
        }
    }

    fn parse_pairs(text: &str) -> Result<Self, ConnInfoError> {
        let mut info = Self::default();
        let mut chars = text.chars().peekable();
        loop {
            while chars.peek().is_some_and(|c| c.is_whitespace()) {
                chars.next();
            }
            if chars.peek().is_none() {
                return Ok(info);
            }
            let mut key = String::new();
            while let Some(&c) = chars.peek() {
                if c == '=' || c.is_whitespace() {
                    break;
                }
                key.push(c);
                chars.next();
            }
            while chars.peek().is_some_and(|c| c.is_whitespace()) {
                chars.next();
            }
            if chars.next() != Some('=') {
                return Err(ConnInfoError::MissingEquals(key));
            }
            while chars.peek().is_some_and(|c| c.is_whitespace()) {
                chars.next();
            }
            let mut value = String::new();
            if chars.peek() == Some(&'\'') {
                chars.next();
                loop {
                    match chars.next() {
                        None => return Err(ConnInfoError::UnterminatedQuote),
                        Some('\'') => break,
                        Some('\\') => value.extend(chars.next()),
                        Some(c) => value.push(c),
                    }
                }
            } else {
                while let Some(&c) = chars.peek() {
                    if c.is_whitespace() {
                        break;
                    }
                    chars.next();
                    if c == '\\' {
                        value.extend(chars.next());
                    } else {
                        value.push(c);
                    }
                }
            }
            info.set(&key, value)?;
        }
    }

    fn parse_uri(rest: &str) -> Result<Self, ConnInfoError> {
        let mut info = Self::default();
        let (main, query) = rest.split_once('?').map_or((rest, None), |(m, q)| (m, Some(q)));
        let (authority, dbname) = main.split_once('/').map_or((main, None), |(a, d)| (a, Some(d)));
        let hosts = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => {
                let (user, password) = credentials.split_once(':').map_or((credentials, None), |(u, p)| (u, Some(p)));
                info.set("user", unescape(user)?)?;
                if let Some(password) = password {
                    info.set("password", unescape(password)?)?;
                }
                hosts
            }
            None => authority,
        };
        let (host, port) = match hosts.strip_prefix('[') {
            Some(v6) => {
                let (host, tail) = v6.split_once(']').ok_or_else(|| ConnInfoError::InvalidUri(rest.to_owned()))?;
                (host, tail.strip_prefix(':'))
            }
            None => hosts.rsplit_once(':').map_or((hosts, None), |(h, p)| (h, Some(p))),
        };
        if !host.is_empty() {
            info.set("host", unescape(host)?)?;
        }
        if let Some(port) = port {
            info.set("port", port.to_owned())?;
        }
        if let Some(dbname) = dbname.filter(|d| !d.is_empty()) {
            info.set("dbname", unescape(dbname)?)?;
        }
        for pair in query.into_iter().flat_map(|q| q.split('&')) {
            let (key, value) = pair.split_once('=').ok_or_else(|| ConnInfoError::MissingEquals(pair.to_owned()))?;
            info.set(&unescape(key)?, unescape(value)?)?;
        }
        Ok(info)
    }

    /// Sets one keyword; an empty value unsets it, as in libpq.
    ///
    /// # Errors
    /// [`ConnInfoError::UnknownOption`].
    pub fn set(&mut self, key: &str, value: impl Into<String>) -> Result<(), ConnInfoError> {
        if !KEYWORDS.contains(&key) {
            return Err(ConnInfoError::UnknownOption(key.to_owned()));
        }
        let value = value.into();
        if value.is_empty() {
            self.values.remove(key);
        } else {
            self.values.insert(key.to_owned(), value);
        }
        Ok(())
    }

    /// The value given in the string.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The value, else the environment variable libpq would read.
    pub fn get_or_env(&self, key: &str, variable: &str) -> Option<String> {
        self.get(key).map(str::to_owned).or_else(|| std::env::var(variable).ok().filter(|v| !v.is_empty()))
    }

    /// User name: given, PGUSER, or the operating system's.
    pub fn user(&self) -> String {
        self.get_or_env("user", "PGUSER").unwrap_or_else(os_user)
    }

    /// Addresses to try in turn.
    ///
    /// # Errors
    /// [`ConnInfoError::InvalidPort`].
    pub fn addresses(&self) -> Result<Vec<Address>, ConnInfoError> {
        let hosts = self
            .get("hostaddr")
            .map(str::to_owned)
            .or_else(|| self.get_or_env("host", "PGHOST"))
            .unwrap_or_else(|| "/var/run/postgresql".to_owned());
        let ports = self.get_or_env("port", "PGPORT").unwrap_or_else(|| "5432".to_owned());
        let ports: Vec<&str> = ports.split(',').collect();
        hosts
            .split(',')
            .enumerate()
            .map(|(i, host)| {
                let text = ports.get(i).or(ports.last()).copied().unwrap_or("5432").trim();
                let port = if text.is_empty() {
                    5432
                } else {
                    text.parse::<u16>().ok().filter(|&p| p > 0).ok_or_else(|| ConnInfoError::InvalidPort(text.to_owned()))?
                };
                Ok(if host.starts_with('/') {
                    Address::Unix(PathBuf::from(format!("{host}/.s.PGSQL.{port}")))
                } else if host.is_empty() {
                    Address::Unix(PathBuf::from(format!("/var/run/postgresql/.s.PGSQL.{port}")))
                } else {
                    Address::Tcp(host.trim().to_owned(), port)
                })
            })
            .collect()
    }

    /// The string again, passwords included, quoted so that [`ConnInfo::parse`] reads it back.
    pub fn to_text(&self) -> String {
        self.values
            .iter()
            .map(|(key, value)| {
                if value.is_empty() || value.contains([' ', '\'', '\\']) {
                    format!("{key}='{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
                } else {
                    format!("{key}={value}")
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// As `primary_conninfo` of a standby of this server: what the environment adds is written down, the database left out.
    #[must_use]
    pub fn for_standby(&self) -> Self {
        let mut info = self.clone();
        for key in ["dbname", "replication", "fallback_application_name"] {
            info.values.remove(key);
        }
        info.values.insert("user".to_owned(), self.user());
        for (key, variable) in [("host", "PGHOST"), ("port", "PGPORT"), ("password", "PGPASSWORD"), ("passfile", "PGPASSFILE")] {
            if let Some(value) = self.get_or_env(key, variable) {
                info.values.insert(key.to_owned(), value);
            }
        }
        info
    }

    /// The string with the password hidden, for views and the log.
    pub fn to_display(&self) -> String {
        let mut shown = self.clone();
        for secret in ["password", "sslpassword"] {
            if let Some(value) = shown.values.get_mut(secret) {
                *value = "********".to_owned();
            }
        }
        shown.to_text()
    }
}

fn os_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    std::fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid).then(|| name.to_owned())
        })
        .unwrap_or_else(|| "postgres".to_owned())
}

fn unescape(text: &str) -> Result<String, ConnInfoError> {
    let bad = || ConnInfoError::InvalidUri(format!("invalid percent-encoded token: \"{text}\""));
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let pair = [bytes.next().ok_or_else(bad)?, bytes.next().ok_or_else(bad)?];
            let hex = std::str::from_utf8(&pair).map_err(|_| bad())?;
            out.push(u8::from_str_radix(hex, 16).map_err(|_| bad())?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_uris_agree() {
        let pairs = ConnInfo::parse("host=127.0.0.1 port = 5433 user='a b' password='it\\'s' application_name=x").unwrap();
        let uri = ConnInfo::parse("postgresql://a%20b:it's@127.0.0.1:5433?application_name=x").unwrap();
        assert_eq!(pairs, uri);
        assert_eq!(pairs.addresses().unwrap(), [Address::Tcp("127.0.0.1".into(), 5433)]);
        assert_eq!(ConnInfo::parse(&pairs.to_text()).unwrap(), pairs);
        assert!(!pairs.to_display().contains("it"));
    }

    #[test]
    fn mistakes_have_libpqs_words() {
        assert_eq!(ConnInfo::parse("host").unwrap_err().to_string(), "missing \"=\" after \"host\" in connection info string");
        assert_eq!(ConnInfo::parse("hots=1").unwrap_err().to_string(), "invalid connection option \"hots\"");
        assert_eq!(ConnInfo::parse("host='x").unwrap_err(), ConnInfoError::UnterminatedQuote);
        assert!(ConnInfo::parse("host=x port=99999").unwrap().addresses().is_err());
    }
}
