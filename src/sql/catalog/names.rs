//! Identifiers as text: quoting, and lists of them in settings.

/// Key words that cannot stand alone as an identifier; PostgreSQL: all but the unreserved ones of parser/kwlist.h.
const QUOTED_KEYWORDS: &str = " all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean \
both case cast char character check coalesce collate collation column concurrently constraint create cross \
current_catalog current_date current_role current_schema current_time current_timestamp current_user dec decimal \
default deferrable desc distinct do else end except exists extract false fetch float for foreign freeze from full \
grant greatest group grouping having ilike in initially inner inout int integer intersect interval into is isnull \
join lateral leading least left like limit localtime localtimestamp national natural nchar none normalize not notnull \
null nullif numeric offset on only or order out outer overlaps overlay placing position precision primary real \
references returning right row select session_user setof similar smallint some substring symmetric table tablesample \
then time timestamp to trailing treat trim true union unique user using values varchar variadic verbose when where \
window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot \
xmlserialize xmltable ";

/// The identifier, in double quotes if it needs them. PostgreSQL: `quote_identifier`.
pub fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && !QUOTED_KEYWORDS.contains(&format!(" {name} "));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// `schema.name`, each quoted as needed.
pub fn quote_qualified(schema: Option<&str>, name: &str) -> String {
    match schema {
        Some(schema) => format!("{}.{}", quote_identifier(schema), quote_identifier(name)),
        None => quote_identifier(name),
    }
}

/// The string as an SQL literal.
pub fn quote_literal(text: &str) -> String {
    let quoted = format!("'{}'", text.replace('\'', "''"));
    if text.contains('\\') { format!("E{}", quoted.replace('\\', "\\\\")) } else { quoted }
}

/// Splits a comma-separated list of identifiers; unquoted ones are folded to lower case. `None`: not such a list.
/// PostgreSQL: `SplitIdentifierString`.
pub fn split_identifiers(text: &str, separator: char) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Some(out);
    }
    loop {
        let name;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut value = String::new();
            let mut tail = quoted;
            loop {
                let (before, after) = tail.split_once('"')?;
                value.push_str(before);
                if let Some(more) = after.strip_prefix('"') {
                    value.push('"');
                    tail = more;
                } else {
                    rest = after.trim_start();
                    break;
                }
            }
            name = value;
        } else {
            let end = rest.find(|c: char| c == separator || c.is_whitespace()).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if word.is_empty() {
                return None;
            }
            name = word.to_lowercase();
            rest = after.trim_start();
        }
        out.push(name);
        if rest.is_empty() {
            return Some(out);
        }
        rest = rest.strip_prefix(separator)?.trim_start();
    }
}

/// Cuts a name to what `name` holds, 63 bytes, at a character boundary.
pub fn truncate(name: &str) -> &str {
    const MAX: usize = 63;
    if name.len() <= MAX {
        return name;
    }
    let end = (0..=MAX).rev().find(|&i| name.is_char_boundary(i)).unwrap_or(0);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted_when_they_must() {
        assert_eq!(quote_identifier("abc_1"), "abc_1");
        assert_eq!(quote_identifier("Abc"), "\"Abc\"");
        assert_eq!(quote_identifier("select"), "\"select\"");
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_identifier("name"), "name");
        assert_eq!(quote_literal("it's \\"), "E'it''s \\\\'");
    }

    #[test]
    fn lists_of_identifiers_split() {
        let split = |s| split_identifiers(s, ',');
        assert_eq!(split("\"$user\", public").unwrap(), ["$user", "public"]);
        assert_eq!(split(" A ,\"b\"\"C\"").unwrap(), ["a", "b\"C"]);
        assert_eq!(split("").unwrap(), Vec::<String>::new());
        assert!(split("a,,b").is_none());
        assert!(split("\"a").is_none());
        assert!(split("a b").is_none());
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(truncate(&"x".repeat(70)).len(), 63);
        assert_eq!(truncate(&"é".repeat(40)).len(), 62);
    }
}
