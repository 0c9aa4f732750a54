//! One conversation: requests in, answers out.

use std::io::{BufRead, Read, Write};
use std::time::Duration;

use super::protocol::{HELP, Position, Request};
use super::{Service, moment};
use crate::check::Check;
use crate::clock;
use crate::error::ShopError;
use crate::figure::Figure;
use crate::keys::Keys;
use crate::line::{Line, UnitPrice};

/// What is printed where a person is to type.
pub(crate) const PROMPT: &str = "> ";

/// The longest request; what is longer is no conversation.
const LONGEST: u64 = 4096;

/// How long is waited for a position or for a change before the answer is that there was none.
const PATIENCE: Duration = Duration::from_secs(60);

/// One side of a conversation.
#[derive(Debug)]
pub(crate) struct Session<'s> {
    pub(crate) service: &'s Service,
    /// Whether it is held over the port: whoever can connect may be anybody's program, and may be cut off.
    pub(crate) port: bool,
    pub(crate) prompt: bool,
}

impl Session<'_> {
    /// Answers until the other side ends it.
    pub(crate) fn converse(&self, mut requests: impl BufRead, mut answers: impl Write) -> Result<(), ShopError> {
        let failed = |error: std::io::Error| ShopError::File(format!("a conversation: {error}").into());
        let mut line = Vec::new();
        loop {
            if self.prompt {
                answers.write_all(PROMPT.as_bytes()).and_then(|()| answers.flush()).map_err(failed)?;
            }
            line.clear();
            let read = (&mut requests).take(LONGEST).read_until(b'\n', &mut line).map_err(failed)?;
            let mut say = |answer: &str| answers.write_all(format!("{answer}\n").as_bytes()).and_then(|()| answers.flush()).map_err(failed);
            if read as u64 == LONGEST && line.last() != Some(&b'\n') {
                return say(&format!("error: a request has at most {LONGEST} bytes"));
            }
            if read == 0 {
                return Ok(());
            }
            // Half of a request may be another one: `set price:7 12` of `set price:7 12.50`.
            if self.port && line.last() != Some(&b'\n') {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            if self.port && is_http(&text) {
                return Ok(());
            }
            let request = match text.parse() {
                Ok(Request::Quit) => return say("bye"),
                Ok(request) => request,
                // A person who types nothing wants nothing.
                Err(_) if text.trim().is_empty() => continue,
                Err(refused) => {
                    say(&format!("error: {refused}"))?;
                    continue;
                }
            };
            // The first error of the answers' side is the end of it; any other is an answer.
            let mut broken = Ok(());
            let mut tell = |answer: &str| {
                if broken.is_ok() {
                    broken = say(answer);
                }
            };
            if let Err(error) = self.answer(request, &mut tell) {
                tell(&format!("error: {}", error.to_string().replace('\n', " ")));
            }
            broken?;
        }
    }

    fn answer(&self, request: Request, say: &mut dyn FnMut(&str)) -> Result<(), ShopError> {
        let Service { shop, desk, reads, started, .. } = self.service;
        match request {
            Request::Get(figure) => {
                self.service.asked().insert(figure.clone());
                say(&format!("{figure} is {}", figure.read(shop)?.value));
            }
            Request::SetPrice { product, price, id } => {
                let began = clock::now();
                let position = desk.set_price(product, price, id)?;
                say(&format!("price:{product} is {price}, done {}", done(began, Position(position))));
            }
            Request::AddLine { basket, product, quantity, sales, id } => {
                let line = self.line(product, quantity, sales)?;
                let began = clock::now();
                let position = desk.add_line(basket, line, id)?;
                say(&format!("basket:{basket} has one line more, done {}", done(began, Position(position))));
            }
            Request::Wait(position) => say(&format!("applied here by commit {}", desk.wait_for(position, PATIENCE)?)),
            Request::UntilStale(figure) => self.until_stale(&figure, say)?,
            Request::Warm => {
                shop.warm(&Keys::read(shop.database())?)?;
                say(&format!("values={} are cached", shop.engine.stats().nodes));
            }
            Request::Load(per_second) => {
                reads.set(per_second)?;
                say(&format!("reading {per_second} figures a second"));
            }
            Request::Stats => {
                let stats = shop.engine.stats();
                say(&format!(
                    "up {:.1} s, values={} computed={} marked={} verified={} reads={} failed_reads={} {}",
                    started.elapsed().as_secs_f64(),
                    stats.nodes,
                    stats.computes,
                    stats.marked,
                    stats.verified,
                    reads.read(),
                    reads.failed(),
                    desk.stats(),
                ));
            }
            Request::Check => {
                let mut keys = Keys::read(shop.database())?;
                keys.include(&*self.service.asked());
                let check = Check::run(shop, &keys)?;
                for stale in &check.stale {
                    say(&format!("  stale: {stale}"));
                }
                let Check { checked, served, cached, ref stale } = check;
                say(&format!("{check}, checked={checked} served={served} cached={cached} stale={}", stale.len()));
            }
            Request::Help => {
                for line in HELP {
                    say(&format!("  {line}"));
                }
                say("FIGURE is such as price:7, basket_total:42, household_spend:7, store_revenue:7, department_revenue:GROCERY");
            }
            Request::Quit => {}
        }
        Ok(())
    }

    /// The line as a till would record it: at today's price, if nothing else was said; a product without a price costs nothing.
    fn line(&self, product: u32, quantity: u32, sales: Option<u32>) -> Result<Line, ShopError> {
        let sales = match sales {
            Some(sales) => sales,
            None => {
                // It is cached even if there is no such product and the line is refused.
                self.service.asked().insert(Figure::Price(product));
                let price = self.service.shop.books.price(&self.service.shop.engine, product)?;
                let sales = price.unwrap_or(UnitPrice(0)).times(quantity).0;
                u32::try_from(sales).map_err(|_| ShopError::Data(format!("{quantity} pieces of {product} cost too much for one line")))?
            }
        };
        Ok(Line { product, quantity, sales, retail_discount: 0, coupon: 0, coupon_match: 0 })
    }

    fn until_stale(&self, figure: &Figure, say: &mut dyn FnMut(&str)) -> Result<(), ShopError> {
        self.service.asked().insert(figure.clone());
        let mut reading = figure.read(&self.service.shop)?;
        let value = std::mem::take(&mut reading.value);
        let moment = moment::of(&mut reading.ended, PATIENCE, || say(&format!("{figure} is {value}")));
        let at = moment.ok_or_else(|| ShopError::Data(format!("{figure} was still fresh after {} s", PATIENCE.as_secs())))?;
        say(&format!("{figure} is stale, at_ns={}", at.as_nanos()));
        Ok(())
    }
}

/// Whether a browser has been made to send this, by any page it shows: its body would be requests. No request of ours is such a line.
fn is_http(line: &str) -> bool {
    let word = line.split_whitespace().next().unwrap_or_default();
    let method = !word.is_empty() && word.chars().all(|char| char.is_ascii_uppercase());
    method || word.ends_with(':')
}

/// What took how long until when, for a person and for a program.
fn done(began: Duration, position: Position) -> String {
    let at = clock::now();
    let took = at.saturating_sub(began);
    format!("in {:.1} ms, took_ns={} at_ns={} position={position}", took.as_secs_f64() * 1e3, took.as_nanos(), at.as_nanos())
}
