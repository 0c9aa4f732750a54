//! Random programs: a few functions of several kinds, each with a body for every key.

use arbitrary::{Arbitrary, Unstructured};

use crate::expr::{Dialect, Expr, Outcome, Read, Stop};

/// Sources: the first half inline numbers, the second half boxed values.
pub const SOURCES: usize = 8;
/// Keys of each function.
pub const KEYS: usize = 3;
/// What source `n` holds until it is set.
pub fn initial(source: usize) -> i64 {
    source as i64 * 5 % 7
}

/// How a function is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sync, word key, inline value: reads take no pin.
    Word,
    /// Sync, word key, boxed value.
    Boxed,
    /// Sync, `String` key, boxed value.
    Text,
    /// Async, word key, inline value.
    AsyncWord,
    /// Async, word key, boxed value.
    AsyncBoxed,
}

impl Kind {
    /// Whether its body is a future.
    pub fn is_async(self) -> bool {
        matches!(self, Kind::AsyncWord | Kind::AsyncBoxed)
    }

    /// Whether its values live behind a pointer.
    pub fn is_boxed(self) -> bool {
        !matches!(self, Kind::Word | Kind::AsyncWord)
    }
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How it is registered.
    pub kind: Kind,
    /// Whether an equal result changes nothing downstream.
    pub cut_off: bool,
    /// The body for each key.
    pub bodies: [Expr; KEYS],
}

/// A program: node `function * KEYS + key` reads nodes of lower number only, so there are no cycles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Synchronous functions first, so that asynchronous ones never stand below them.
    pub rules: Vec<Rule>,
    /// How many of the sources bodies read: with few, one source has many dependants.
    pub read: usize,
}

/// Source or node, resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Source by number.
    Source(usize),
    /// Node by number.
    Node(usize),
}

impl Program {
    /// A program from parts; sync rules are moved in front of async ones.
    pub fn new(mut rules: Vec<Rule>) -> Program {
        rules.sort_by_key(|rule| rule.kind.is_async());
        Program { rules, read: SOURCES }
    }

    /// A program of the dialect from bytes.
    ///
    /// # Errors
    /// If the bytes end too early.
    pub fn from_bytes(dialect: Dialect, bytes: &mut Unstructured<'_>) -> arbitrary::Result<Program> {
        // What meets a fault is not cached, so a faulty program costs what an uncached one does: keep it small.
        let (most, depth) = if dialect == Dialect::Faulty { (2, 2) } else { (5, 3) };
        let head = u8::arbitrary(bytes)? as usize;
        // One program in four is as wide as programs are, over two sources.
        let (count, read) = if head >> 6 == 3 { (most, 2) } else { (1 + head % most, SOURCES) };
        let mut rules = Vec::new();
        for _ in 0..count {
            let shape = u8::arbitrary(bytes)?;
            let kind = [Kind::Word, Kind::Boxed, Kind::Text, Kind::AsyncWord, Kind::AsyncBoxed][shape as usize % 5];
            let bodies = [dialect.expr(bytes, depth)?, dialect.expr(bytes, depth)?, dialect.expr(bytes, 2)?];
            rules.push(Rule { kind, cut_off: shape & 128 != 0, bodies });
        }
        Ok(Program { read, ..Program::new(rules) })
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.rules.len() * KEYS
    }

    /// The function of a node.
    pub fn rule(&self, node: usize) -> &Rule {
        &self.rules[node / KEYS]
    }

    /// The body of a node.
    pub fn body(&self, node: usize) -> &Expr {
        &self.rule(node).bodies[node % KEYS]
    }

    /// What a read in `node`'s body means; `None` if there is no node it could read.
    pub fn resolve(&self, node: usize, read: Read) -> Option<Place> {
        match read {
            Read::Source(source) => Some(Place::Source(source as usize % self.read)),
            Read::Node(other) => {
                // All synchronous nodes come first: what a synchronous body may read is what is below it anyway.
                (node > 0).then(|| Place::Node(other as usize % node))
            }
        }
    }

    /// What every node is worth when all is evaluated from the sources: no cache, no engine. `Err` is a body that panics.
    pub fn evaluate(&self, sources: &[i64; SOURCES]) -> Vec<Result<Outcome, Stop>> {
        let mut known: Vec<Result<Outcome, Stop>> = Vec::new();
        for node in 0..self.nodes() {
            let result = self.body(node).eval(&mut |read, _| {
                Ok(match self.resolve(node, read) {
                    None => Ok(0),
                    Some(Place::Source(source)) => Ok(sources[source]),
                    // A body that reads a node whose body panics gets a fault, and says so in its result.
                    Some(Place::Node(other)) => known[other].unwrap_or(Err(crate::expr::BROKEN)),
                })
            });
            known.push(result);
        }
        known
    }

    /// Whether a body of the program contains such an expression.
    pub fn any(&self, test: impl Fn(&Expr) -> bool) -> bool {
        self.rules.iter().flat_map(|rule| &rule.bodies).any(|body| body.any(&test))
    }
}
