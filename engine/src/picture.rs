//! Nodes and edges in the formats other programs read: JSON and Graphviz DOT, written by hand so that the engine needs no serialiser.

use std::fmt;

use crate::neighbour::{Condition, NodeLabel};

/// What is written.
pub(crate) struct Picture {
    pub(crate) commit: u64,
    pub(crate) nodes: Vec<Shown>,
    pub(crate) edges: Vec<Line>,
    pub(crate) cut: bool,
}

pub(crate) struct Shown {
    pub(crate) label: NodeLabel,
    pub(crate) condition: Condition,
    pub(crate) made: Option<u64>,
    pub(crate) source: bool,
}

pub(crate) struct Line {
    pub(crate) dependant: u32,
    pub(crate) dependency: u32,
    pub(crate) current: bool,
}

impl Picture {
    pub(crate) fn json(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{{\"commit\":{},\"cut\":{},\"nodes\":[", self.commit, self.cut)?;
        for (at, Shown { label, condition, made, source }) in self.nodes.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}\n{{\"id\":{},\"version\":{},\"function\":", label.id.slot(), label.id.version())?;
            write_json(out, &label.function)?;
            out.write_str(",\"key\":")?;
            match &label.key {
                Some(key) => write_json(out, key)?,
                None => out.write_str("null")?,
            }
            write!(out, ",\"state\":\"{condition}\",\"made\":")?;
            match made {
                Some(made) => write!(out, "{made}")?,
                None => out.write_str("null")?,
            }
            write!(out, ",\"source\":{source}}}")?;
        }
        out.write_str("],\"edges\":[")?;
        for (at, Line { dependant, dependency, current }) in self.edges.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(out, "{comma}\n{{\"dependant\":{dependant},\"dependency\":{dependency},\"current\":{current}}}")?;
        }
        out.write_str("]}\n")
    }

    pub(crate) fn dot(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        out.write_str("digraph wellspring {\n  rankdir=LR;\n  node [shape=box, style=filled, fontname=\"sans-serif\"];\n")?;
        let cut = if self.cut { ", cut at a limit: more was left out" } else { "" };
        writeln!(out, "  label=\"commit {}: {} nodes, {} edges{cut}\";", self.commit, self.nodes.len(), self.edges.len())?;
        for Shown { label, condition, source, .. } in &self.nodes {
            write!(out, "  n{} [label=", label.id.slot())?;
            write_dot(out, &label.to_string())?;
            let colour = match condition {
                Condition::Fresh => "palegreen",
                Condition::Stale => "salmon",
                Condition::MaybeStale => "khaki",
                Condition::Computing => "lightblue",
                Condition::Evicted => "honeydew",
                Condition::Absent => "lightgrey",
            };
            let shape = if *source { ", shape=ellipse" } else { "" };
            writeln!(out, ", tooltip=\"{condition}\", fillcolor={colour}{shape}];")?;
        }
        for Line { dependant, dependency, current } in &self.edges {
            let style = if *current { "" } else { " [style=dashed]" };
            writeln!(out, "  n{dependency} -> n{dependant}{style};")?;
        }
        out.write_str("}\n")
    }
}

fn write_json(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            // Graphviz reads entities in labels.
            '&' => out.write_str("&amp;")?,
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            // The separators are valid JSON, but end a line in older JavaScript.
            c if u32::from(c) < 0x20 || c == '\u{2028}' || c == '\u{2029}' => write!(out, "\\u{:04x}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

/// A DOT string: only quotes need escaping, but a backslash would begin one of Graphviz' own sequences.
fn write_dot(out: &mut dyn fmt::Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            c if c.is_control() => write!(out, "\\\\u{{{:x}}}", u32::from(c))?,
            c => out.write_char(c)?,
        }
    }
    out.write_char('"')
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn written(write: fn(&mut dyn fmt::Write, &str) -> fmt::Result, text: &str) -> String {
        let mut out = String::new();
        write(&mut out, text).expect("a string takes everything");
        out
    }

    #[test]
    fn every_character_is_escaped_where_it_must_be() {
        let json = written(write_json, "a\"b\\c\nd\u{1}ß\u{2028}");
        assert_eq!(json, r#""a\"b\\c\u000ad\u0001ß\u2028""#);
        assert_eq!(written(write_dot, "a\"b\\l\n"), r#""a\"b\\l\\u{a}""#);
    }
}
