//! The names of what is in the database: quoted, and derived from the schema.

use xxhash_rust::xxh3::xxh3_64;

use super::neighbours::{HORIZON, NEIGHBOURS};

/// A schema and what is derived from its name.
#[derive(Debug)]
pub(super) struct Names {
    schema: String,
    quoted: String,
}

impl Names {
    pub(super) fn new(schema: &str) -> Names {
        Names { schema: schema.to_owned(), quoted: quote(schema) }
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// Whether the database can have a schema of this name. A longer one it would cut off, so that two would share their tables.
    pub(super) fn is_possible(schema: &str) -> bool {
        (1..=63).contains(&schema.len()) && !schema.contains('\0')
    }

    /// A statement with the schema in the place of `{s}`, in literals of `{in_text}`. The locks of its partitions are the 1,024 from
    /// `{lanes}` on: one transaction with events in very many partitions would use up the lock table of the whole cluster.
    /// `{neighbours}` is a query and `{horizon}` an expression, see there.
    pub(super) fn fill(&self, sql: &str) -> String {
        let salt = self.lock("partition", "");
        let sql = sql.replace("{horizon}", HORIZON).replace("{neighbours}", NEIGHBOURS);
        let sql = sql.replace("{salt}", &salt.to_string()).replace("{lanes}", &(salt & !1023).to_string());
        // The name may hold anything, also what looks like a place to fill: nothing is filled after it.
        let texts: Vec<String> = sql.split("{in_text}").map(|part| part.replace("{s}", &self.quoted)).collect();
        texts.join(&self.quoted.replace('\'', "''"))
    }

    /// The key of an advisory lock, which are one space per database, shared with everybody else in it: 64 bits are far enough apart.
    pub(super) fn lock(&self, purpose: &str, name: &str) -> i64 {
        let text = format!("wellspring\0{purpose}\0{}\0{name}", self.schema);
        i64::from_ne_bytes(xxh3_64(text.as_bytes()).to_ne_bytes())
    }

    /// The channel of the hints, quoted. Channels are one space per database; a name over 63 bytes would be an error.
    pub(super) fn channel(&self) -> String {
        let plain = format!("wellspring_{}", self.schema);
        quote(&if plain.len() <= 63 { plain } else { format!("wellspring_{:016x}", xxh3_64(self.schema.as_bytes())) })
    }
}

/// An identifier as SQL.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_with_a_quote_in_its_name_stays_one_identifier() {
        let names = Names::new("a\"b; drop");
        assert_eq!(names.fill("select from {s}.operations"), "select from \"a\"\"b; drop\".operations");
    }

    #[test]
    fn a_schema_with_quotes_of_both_kinds_stays_one_name_in_a_literal() {
        let names = Names::new("it's \"{s}\"");
        assert_eq!(names.fill("nextval('{in_text}.seq') from {s}.t"), "nextval('\"it''s \"\"{s}\"\"\".seq') from \"it's \"\"{s}\"\"\".t");
    }

    #[test]
    fn a_name_that_the_database_cannot_keep_is_not_possible() {
        let (long, longer) = ("x".repeat(63), "x".repeat(64));
        assert_eq!(["a", &long, &longer, "", "a\0b"].map(Names::is_possible), [true, true, false, false, false]);
    }

    #[test]
    fn a_channel_name_is_never_too_long_for_the_database() {
        let (a, b) = ("x".repeat(60), "x".repeat(61));
        assert!(Names::new(&a).channel().len() <= 65);
        assert_ne!(Names::new(&a).channel(), Names::new(&b).channel());
    }
}
