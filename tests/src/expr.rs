//! Bodies of random functions: small expression trees over sources and other nodes, with conditionals.

use arbitrary::{Arbitrary, Unstructured};

/// What a function returns: a number, or an error code of its own. Errors are results.
pub type Outcome = Result<i64, u8>;

/// The error a body returns when a read of it met a fault of the engine.
pub const BROKEN: u8 = 255;

/// Sums stop here, so that they stay monotone.
pub const CAP: i64 = 1 << 40;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A number.
    Const(u8),
    /// A source, by number.
    Source(u8),
    /// Another node, by a number that the program maps to a node of lower rank.
    Node(u8),
    /// Both sides, added.
    Sum(Box<Expr>, Box<Expr>),
    /// Both sides, exclusive or.
    Xor(Box<Expr>, Box<Expr>),
    /// The larger side.
    Max(Box<Expr>, Box<Expr>),
    /// Half of it: what cut-off rules live from.
    Half(Box<Expr>),
    /// The second if the first is odd, else the third: the untaken side is not read.
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// The second, plus the third once the first is above the threshold. Monotone, with dynamic dependencies.
    Step(Box<Expr>, u8, Box<Expr>, Box<Expr>),
    /// The value, read without recording.
    Untracked(Box<Expr>),
    /// An error if it is a multiple of three.
    Fail(Box<Expr>),
    /// A panic if it is a multiple of four.
    Panic(Box<Expr>),
}

/// Why an evaluation ended without an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The body panics here.
    Panic,
    /// A value is not at hand yet (asynchronous bodies).
    Await,
}

/// What an expression reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// A source, by number as written.
    Source(u8),
    /// A node, by number as written.
    Node(u8),
}

/// How an expression reads: what, and whether the read is recorded.
pub type Reader<'r> = dyn FnMut(Read, bool) -> Result<Outcome, Stop> + 'r;

impl Expr {
    /// Evaluates left to right. `Ok(Err(_))` is an error result, `Err(_)` a body that did not end.
    pub fn eval(&self, read: &mut Reader<'_>) -> Result<Outcome, Stop> {
        self.eval_in(read, true)
    }

    fn eval_in(&self, read: &mut Reader<'_>, tracked: bool) -> Result<Outcome, Stop> {
        // An error result ends the evaluation of what contains it.
        macro_rules! number {
            ($part:expr) => {
                match $part.eval_in(read, tracked)? {
                    Ok(number) => number,
                    Err(code) => return Ok(Err(code)),
                }
            };
        }
        Ok(Ok(match self {
            Expr::Const(n) => i64::from(*n),
            Expr::Source(source) => return read(Read::Source(*source), tracked),
            Expr::Node(node) => return read(Read::Node(*node), tracked),
            Expr::Sum(a, b) => (number!(a) + number!(b)).min(CAP),
            Expr::Xor(a, b) => number!(a) ^ number!(b),
            Expr::Max(a, b) => number!(a).max(number!(b)),
            Expr::Half(a) => number!(a) / 2,
            Expr::If(test, yes, no) => {
                if number!(test) % 2 == 1 {
                    number!(yes)
                } else {
                    number!(no)
                }
            }
            Expr::Step(test, above, low, more) => {
                let over = number!(test) > i64::from(*above);
                let low = number!(low);
                if over { (low + number!(more)).min(CAP) } else { low }
            }
            Expr::Untracked(inner) => return inner.eval_in(read, false),
            Expr::Fail(inner) => match number!(inner) {
                n if n % 3 == 0 => return Ok(Err((n % 7) as u8)),
                n => n,
            },
            Expr::Panic(inner) => match number!(inner) {
                n if n % 4 == 0 => return Err(Stop::Panic),
                n => n,
            },
        }))
    }

    /// Whether `test` holds for the expression or a part of it.
    pub fn any(&self, test: &dyn Fn(&Expr) -> bool) -> bool {
        test(self)
            || match self {
                Expr::Const(_) | Expr::Source(_) | Expr::Node(_) => false,
                Expr::Sum(a, b) | Expr::Xor(a, b) | Expr::Max(a, b) => a.any(test) || b.any(test),
                Expr::Half(a) | Expr::Untracked(a) | Expr::Fail(a) | Expr::Panic(a) => a.any(test),
                Expr::If(a, b, c) | Expr::Step(a, _, b, c) => a.any(test) || b.any(test) || c.any(test),
            }
    }
}

/// Which expressions a generated program may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Everything but panics: results are always stored, so counts are exact.
    Exact,
    /// Panics too, but no untracked reads: a result is what direct evaluation says, cached or not.
    Faulty,
    /// Monotone in every source: an old value shows as one that is too small.
    Monotone,
}

impl Dialect {
    /// An expression of the dialect from bytes.
    ///
    /// # Errors
    /// None in practice: at the end of the bytes everything is a constant.
    pub fn expr(self, bytes: &mut Unstructured<'_>, depth: u32) -> arbitrary::Result<Expr> {
        let leaf = depth == 0;
        let tag = u8::arbitrary(bytes)? % if leaf { 3 } else { 14 };
        let part = |bytes: &mut Unstructured<'_>| self.expr(bytes, depth - 1).map(Box::new);
        Ok(match tag {
            0 => Expr::Source(u8::arbitrary(bytes)?),
            1 => Expr::Node(u8::arbitrary(bytes)?),
            2 if leaf => Expr::Const(u8::arbitrary(bytes)?),
            2 | 3 => Expr::Node(u8::arbitrary(bytes)?),
            4 => Expr::Sum(part(bytes)?, part(bytes)?),
            5 => Expr::Half(part(bytes)?),
            6 => Expr::Max(part(bytes)?, part(bytes)?),
            7 | 8 if self == Dialect::Monotone => Expr::Step(part(bytes)?, u8::arbitrary(bytes)?, part(bytes)?, part(bytes)?),
            7 => Expr::Xor(part(bytes)?, part(bytes)?),
            8 | 9 if self != Dialect::Monotone => Expr::If(part(bytes)?, part(bytes)?, part(bytes)?),
            10 if self != Dialect::Monotone => Expr::Fail(part(bytes)?),
            11 if self == Dialect::Exact => Expr::Untracked(part(bytes)?),
            11 if self == Dialect::Faulty => Expr::Panic(part(bytes)?),
            // A branch in four bytes: dependencies that change with one set.
            12 | 13 if self != Dialect::Monotone => {
                let mut source = || Ok::<_, arbitrary::Error>(Box::new(Expr::Source(u8::arbitrary(bytes)?)));
                Expr::If(source()?, source()?, source()?)
            }
            _ => Expr::Sum(part(bytes)?, part(bytes)?),
        })
    }
}
