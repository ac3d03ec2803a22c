//! `pg_hba.conf` and `pg_ident.conf`: who may log in, from where, and how. PostgreSQL: `hba.c`.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use regex::Regex;

/// Which connections a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Local,
    Host,
    HostSsl,
    HostNoSsl,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Trust,
    Reject,
    Scram,
    Md5,
    Password,
    Peer,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Reject => "reject",
            Self::Scram => "scram-sha-256",
            Self::Md5 => "md5",
            Self::Password => "password",
            Self::Peer => "peer",
        }
    }
}

#[derive(Clone, Debug)]
enum Address {
    /// Unix socket.
    None,
    All,
    SameHost,
    Net(IpAddr, IpAddr),
    Host(String),
}

/// A word and whether it was quoted, which takes its special meaning away.
#[derive(Clone, Debug)]
struct Word {
    text: String,
    quoted: bool,
}

impl Word {
    fn is(&self, keyword: &str) -> bool {
        !self.quoted && self.text == keyword
    }
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    kind: Kind,
    databases: Vec<Word>,
    users: Vec<Word>,
    address: Address,
    pub(super) method: Method,
    pub(super) map: Option<String>,
    pub(super) line: u32,
}

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Hba {
    rules: Vec<Rule>,
    idents: Vec<Ident>,
}

#[derive(Clone, Debug)]
struct Ident {
    map: String,
    system: Result<Regex, String>,
    role: String,
}

/// What a client asks for.
pub(super) struct Request<'a> {
    pub(super) database: &'a str,
    pub(super) user: &'a str,
    /// Physical replication.
    pub(super) replication: bool,
    /// `None` for a Unix socket.
    pub(super) address: Option<IpAddr>,
    /// Whether `user` is a member of the role.
    pub(super) member_of: &'a dyn Fn(&str) -> bool,
}

impl Hba {
    /// Reads both files. A bad line makes the whole file unusable, as in PostgreSQL: half the rules could let people in.
    ///
    /// # Errors
    /// One text per problem.
    pub(super) fn load(hba_file: &Path, ident_file: &Path) -> Result<Self, Vec<String>> {
        let text =
            fs::read_to_string(hba_file).map_err(|e| vec![format!("could not open configuration file \"{}\": {e}", hba_file.display())])?;
        let mut hba = Self::parse(&text, hba_file)?;
        // No map file is no maps.
        if let Ok(text) = fs::read_to_string(ident_file) {
            hba.idents = parse_idents(&text);
        }
        Ok(hba)
    }

    fn parse(text: &str, file: &Path) -> Result<Self, Vec<String>> {
        let mut rules = Vec::new();
        let mut problems = Vec::new();
        let mut pending = String::new();
        for (number, raw) in (1_u32..).zip(text.lines()) {
            if let Some(begun) = raw.strip_suffix('\\') {
                pending.push_str(begun);
                continue;
            }
            pending.push_str(raw);
            let fields = fields_of(&std::mem::take(&mut pending), file.parent());
            if fields.is_empty() {
                continue;
            }
            match rule(&fields, number) {
                Ok(r) => rules.push(r),
                Err(e) => problems.push(format!("{e}, line {number} of configuration file \"{}\"", file.display())),
            }
        }
        if problems.is_empty() && rules.is_empty() {
            problems.push(format!("configuration file \"{}\" contains no entries", file.display()));
        }
        if problems.is_empty() { Ok(Self { rules, idents: Vec::new() }) } else { Err(problems) }
    }

    /// The first rule that fits.
    pub(super) fn find(&self, request: &Request<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(request))
    }

    /// Whether the operating system user may log in as `role` by `map`; without a map the names must be equal.
    pub(super) fn may_use(&self, map: Option<&str>, system_user: &str, role: &str) -> bool {
        let Some(map) = map.filter(|m| !m.is_empty()) else { return system_user == role };
        self.idents.iter().filter(|i| i.map == map).any(|i| match &i.system {
            Ok(regex) => regex.captures(system_user).is_some_and(|found| {
                let wanted = match found.get(1) {
                    Some(group) => i.role.replace("\\1", group.as_str()),
                    None => i.role.clone(),
                };
                wanted == role
            }),
            Err(plain) => plain == system_user && i.role == role,
        })
    }
}

impl Rule {
    fn fits(&self, request: &Request<'_>) -> bool {
        let kind = match (self.kind, request.address) {
            (Kind::Local, None) | (Kind::Host | Kind::HostNoSsl, Some(_)) => true,
            (Kind::Local, Some(_)) | (Kind::Host | Kind::HostNoSsl | Kind::HostSsl, None) | (Kind::HostSsl, Some(_)) => false,
        };
        kind && self.fits_address(request.address) && self.fits_database(request) && self.fits_user(request)
    }

    fn fits_address(&self, address: Option<IpAddr>) -> bool {
        let Some(ip) = address else { return matches!(self.address, Address::None) };
        // An IPv4 client of a dual-stack socket.
        let ip = match ip {
            IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
            IpAddr::V4(_) => ip,
        };
        match &self.address {
            Address::None => false,
            Address::All => true,
            Address::SameHost => ip.is_loopback(),
            Address::Net(net, mask) => match (ip, net, mask) {
                (IpAddr::V4(a), IpAddr::V4(n), IpAddr::V4(m)) => a.to_bits() & m.to_bits() == n.to_bits() & m.to_bits(),
                (IpAddr::V6(a), IpAddr::V6(n), IpAddr::V6(m)) => a.to_bits() & m.to_bits() == n.to_bits() & m.to_bits(),
                (IpAddr::V4(_), ..) | (IpAddr::V6(_), ..) => false,
            },
            Address::Host(name) => {
                use std::net::ToSocketAddrs as _;
                (name.as_str(), 0).to_socket_addrs().is_ok_and(|mut found| found.any(|a| a.ip() == ip))
            }
        }
    }

    fn fits_database(&self, request: &Request<'_>) -> bool {
        self.databases.iter().any(|word| {
            // Physical replication is matched by its keyword only, never by "all" or a name.
            if request.replication {
                return word.is("replication");
            }
            if word.is("all") {
                return true;
            }
            if word.is("sameuser") {
                return request.database == request.user;
            }
            if word.is("samerole") || word.is("samegroup") {
                return (request.member_of)(request.database);
            }
            if word.is("replication") {
                return false;
            }
            word.text == request.database
        })
    }

    fn fits_user(&self, request: &Request<'_>) -> bool {
        self.users.iter().any(|word| {
            if let Some(role) = word.text.strip_prefix('+').filter(|_| !word.quoted) {
                return (request.member_of)(role);
            }
            word.is("all") || word.text == request.user
        })
    }
}

/// Fields of a line, each a comma-separated list of words; `@file` reads more words from a file beside this one.
fn fields_of(line: &str, dir: Option<&Path>) -> Vec<Vec<Word>> {
    let mut fields: Vec<Vec<Word>> = Vec::new();
    let mut chars = line.chars().peekable();
    let mut joins_last = false;
    loop {
        while chars.peek().is_some_and(|c| c.is_whitespace()) {
            chars.next();
        }
        let Some(&c) = chars.peek() else { break };
        if c == '#' {
            break;
        }
        if c == ',' {
            chars.next();
            joins_last = true;
            continue;
        }
        let mut text = String::new();
        let mut quoted = false;
        let mut inside = false;
        while let Some(&c) = chars.peek() {
            if c == '"' {
                inside = !inside;
                quoted = true;
                chars.next();
                continue;
            }
            if !inside && (c.is_whitespace() || c == ',' || c == '#') {
                break;
            }
            text.push(c);
            chars.next();
        }
        let mut words = Vec::new();
        match text.strip_prefix('@').filter(|f| !quoted && !f.is_empty()) {
            Some(file) => {
                let path = dir.map_or_else(|| Path::new(file).to_owned(), |d| d.join(file));
                for line in fs::read_to_string(path).unwrap_or_default().lines() {
                    words.extend(fields_of(line, dir).into_iter().flatten());
                }
            }
            None => words.push(Word { text, quoted }),
        }
        match fields.last_mut().filter(|_| joins_last) {
            Some(last) => last.extend(words),
            None => fields.push(words),
        }
        joins_last = false;
    }
    fields
}

fn rule(fields: &[Vec<Word>], line: u32) -> Result<Rule, String> {
    let mut rest = fields.iter();
    let single = |field: Option<&Vec<Word>>, what: &str| -> Result<String, String> {
        match field.map(Vec::as_slice) {
            Some([one]) => Ok(one.text.clone()),
            Some(_) => Err(format!("multiple values specified for {what}")),
            None => Err(format!("end-of-line before {what} specification")),
        }
    };
    let kind = match single(rest.next(), "connection type")?.as_str() {
        "local" => Kind::Local,
        "host" | "hostnogssenc" => Kind::Host,
        "hostssl" | "hostgssenc" => Kind::HostSsl,
        "hostnossl" => Kind::HostNoSsl,
        other => return Err(format!("invalid connection type \"{other}\"")),
    };
    let databases = rest.next().cloned().ok_or("end-of-line before database specification")?;
    let users = rest.next().cloned().ok_or("end-of-line before role specification")?;
    let address = if kind == Kind::Local {
        Address::None
    } else {
        let text = single(rest.next(), "host address")?;
        match text.as_str() {
            "all" => Address::All,
            "samehost" | "samenet" => Address::SameHost,
            _ => match text.split_once('/') {
                Some((ip, bits)) => {
                    let ip: IpAddr = ip.parse().map_err(|_| format!("invalid IP address \"{ip}\""))?;
                    let mask = mask(ip, bits).ok_or_else(|| format!("invalid CIDR mask in address \"{text}\""))?;
                    Address::Net(ip, mask)
                }
                None => match text.parse::<IpAddr>() {
                    Ok(ip) => {
                        let mask = single(rest.next(), "netmask")?;
                        let mask: IpAddr = mask.parse().map_err(|_| format!("invalid IP mask \"{mask}\""))?;
                        if ip.is_ipv4() != mask.is_ipv4() {
                            return Err("IP address and mask do not match".into());
                        }
                        Address::Net(ip, mask)
                    }
                    Err(_) => Address::Host(text),
                },
            },
        }
    };
    let method = match single(rest.next(), "authentication method")?.as_str() {
        "trust" => Method::Trust,
        "reject" => Method::Reject,
        "scram-sha-256" => Method::Scram,
        "md5" => Method::Md5,
        "password" => Method::Password,
        "peer" if kind == Kind::Local => Method::Peer,
        "ident" if kind == Kind::Local => Method::Peer,
        "peer" => return Err("peer authentication is only supported on local sockets".into()),
        other => return Err(format!("invalid authentication method \"{other}\"")),
    };
    let mut map = None;
    for word in rest.flatten() {
        match word.text.split_once('=') {
            Some(("map", value)) => map = Some(value.to_owned()),
            Some((name, _)) => return Err(format!("unrecognized authentication option name: \"{name}\"")),
            None => return Err(format!("authentication option not in name=value format: {}", word.text)),
        }
    }
    Ok(Rule { kind, databases, users, address, method, map, line })
}

fn mask(ip: IpAddr, bits: &str) -> Option<IpAddr> {
    let bits: u32 = bits.parse().ok()?;
    match ip {
        IpAddr::V4(_) if bits <= 32 => Some(IpAddr::V4(u32::MAX.checked_shl(32 - bits).unwrap_or(0).into())),
        IpAddr::V6(_) if bits <= 128 => Some(IpAddr::V6(u128::MAX.checked_shl(128 - bits).unwrap_or(0).into())),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn parse_idents(text: &str) -> Vec<Ident> {
    text.lines()
        .filter_map(|line| {
            let fields = fields_of(line, None);
            let [map, system, role] = fields.as_slice() else { return None };
            let system = &system.first()?.text;
            let system = match system.strip_prefix('/') {
                Some(pattern) => Ok(Regex::new(pattern).ok()?),
                None => Err(system.clone()),
            };
            Some(Ident { map: map.first()?.text.clone(), system, role: role.first()?.text.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(text: &str, database: &str, user: &str, replication: bool, ip: Option<&str>) -> Option<Method> {
        let hba = Hba::parse(text, Path::new("/x/pg_hba.conf")).unwrap();
        let request = Request { database, user, replication, address: ip.map(|i| i.parse().unwrap()), member_of: &|role| role == "staff" };
        hba.find(&request).map(|r| r.method)
    }

    const FILE: &str = "# c\nlocal all all peer\nhost replication rep 10.0.0.0/8 scram-sha-256\nhost \"all\",app bob,+staff 127.0.0.1/32 md5\nhost all all ::1/128 trust\nhost all all 0.0.0.0 0.0.0.0 reject\n";

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(method(FILE, "x", "y", false, None), Some(Method::Peer));
        assert_eq!(method(FILE, "x", "rep", true, Some("10.1.2.3")), Some(Method::Scram));
        assert_eq!(method(FILE, "all", "z", false, Some("127.0.0.1")), Some(Method::Md5));
        assert_eq!(method(FILE, "other", "z", false, Some("127.0.0.1")), Some(Method::Reject));
        assert_eq!(method(FILE, "other", "z", false, Some("::1")), Some(Method::Trust));
        assert_eq!(method(FILE, "x", "rep", true, Some("127.0.0.1")), None);
        assert_eq!(method(FILE, "x", "y", false, Some("::2")), None);
    }

    #[test]
    fn bad_lines_are_named() {
        let err = Hba::parse("local all all\n", Path::new("f")).unwrap_err();
        assert_eq!(err, ["end-of-line before authentication method specification, line 1 of configuration file \"f\""]);
    }
}
