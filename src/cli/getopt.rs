//! PostgreSQL's tools' command lines: `getopt_long` with options anywhere, clustered short options, and abbreviated long ones.

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It does not.
    Nothing,
    /// It must.
    Value,
    /// `--name=value` or nothing.
    Maybe,
}

/// An option: short letter (or NUL), long name (or empty), whether it takes a value, and the key the caller matches on.
pub type OptionSpec = (char, &'static str, Takes, &'static str);

/// A parsed command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Options in order, by key.
    pub options: Vec<(&'static str, Option<String>)>,
    /// What is no option.
    pub positional: Vec<String>,
}

impl Parsed {
    /// The last value given for `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find(|(k, _)| *k == key).and_then(|(_, v)| v.as_deref())
    }

    /// Whether `key` was given.
    pub fn has(&self, key: &str) -> bool {
        self.options.iter().any(|(k, _)| *k == key)
    }

    /// All values of `key`, in order.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(k, _)| *k == key).filter_map(|(_, v)| v.as_deref())
    }
}

/// Parses `args` (without the program name).
///
/// # Errors
/// The message `getopt_long` would print, without the program name.
pub fn parse(args: &[String], specs: &[OptionSpec]) -> Result<Parsed, String> {
    let mut out = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            out.positional.extend(rest.by_ref().cloned());
        } else if let Some(long) = arg.strip_prefix("--") {
            let (name, inline) = match long.split_once('=') {
                Some((n, v)) => (n, Some(v.to_owned())),
                None => (long, None),
            };
            let (_, full, takes, key) = find_long(name, specs)?;
            let value = match (takes, inline) {
                (Takes::Nothing, Some(_)) => return Err(format!("option '--{full}' doesn't allow an argument")),
                (Takes::Nothing, None) => None,
                (Takes::Maybe, inline) => inline,
                (Takes::Value, Some(v)) => Some(v),
                (Takes::Value, None) => Some(rest.next().cloned().ok_or_else(|| format!("option '--{full}' requires an argument"))?),
            };
            out.options.push((key, value));
        } else if arg.len() > 1 && arg.starts_with('-') {
            let mut letters = arg[1..].chars();
            while let Some(letter) = letters.next() {
                let Some((_, _, takes, key)) = specs.iter().find(|(s, ..)| *s == letter && letter != '\0') else {
                    return Err(format!("invalid option -- '{letter}'"));
                };
                if *takes != Takes::Value {
                    out.options.push((key, None));
                    continue;
                }
                let attached = letters.as_str();
                let value = if attached.is_empty() {
                    rest.next().cloned().ok_or_else(|| format!("option requires an argument -- '{letter}'"))?
                } else {
                    attached.to_owned()
                };
                out.options.push((key, Some(value)));
                break;
            }
        } else {
            out.positional.push(arg.clone());
        }
    }
    Ok(out)
}

fn find_long(name: &str, specs: &[OptionSpec]) -> Result<OptionSpec, String> {
    if let Some(exact) = specs.iter().find(|(_, long, ..)| *long == name && !name.is_empty()) {
        return Ok(*exact);
    }
    let mut begins = specs.iter().filter(|(_, long, ..)| !name.is_empty() && long.starts_with(name));
    match (begins.next(), begins.next()) {
        (Some(one), None) => Ok(*one),
        (Some(_), Some(_)) => Err(format!("option '--{name}' is ambiguous")),
        (None, _) => Err(format!("unrecognized option '--{name}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &[OptionSpec] = &[
        ('D', "pgdata", Takes::Value, "D"),
        ('s', "silent", Takes::Nothing, "s"),
        ('w', "wait", Takes::Nothing, "w"),
        ('W', "no-wait", Takes::Nothing, "W"),
    ];

    fn run(args: &[&str]) -> Result<Parsed, String> {
        parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>(), SPECS)
    }

    #[test]
    fn options_stand_anywhere_and_cluster() {
        let p = run(&["start", "-swD", "x", "--no-w", "more", "--pgdata=y"]).unwrap();
        assert_eq!(p.positional, ["start", "more"]);
        assert_eq!(p.value("D"), Some("y"));
        assert!(p.has("s") && p.has("w") && p.has("W"));
    }

    #[test]
    fn bad_options_are_named() {
        assert_eq!(run(&["--nope"]).unwrap_err(), "unrecognized option '--nope'");
        assert_eq!(run(&["-x"]).unwrap_err(), "invalid option -- 'x'");
        assert_eq!(run(&["-D"]).unwrap_err(), "option requires an argument -- 'D'");
    }
}
