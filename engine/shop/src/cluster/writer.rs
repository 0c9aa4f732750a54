//! One of those who write: a thread that hands its updates to one server, and measures how long they take to the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::ShopError;
use crate::latency::Histogram;
use crate::line::{UnitPrice, decimal};
use crate::workload::Population;

use super::fleet::{Fleet, failed};
use super::line::{Answer, Line, Unanswered};

/// How long an update may take while servers are killed: a few starts of one.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a writer did.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Updates that were answered, each done once.
    pub(super) updates: u64,
    /// Those of them that added a line.
    pub(super) lines: u64,
    /// Those of them that were asked more than once.
    pub(super) repeated: u64,
    /// From the call to the answer.
    pub(super) update: Histogram,
    /// From the moment an update was due to its answer, however often it was asked and whatever was waited for before.
    pub(super) due: Histogram,
    /// From the call to the moment at which the price was stale on another server: more than it took from the commit.
    pub(super) from_call: Histogram,
    /// From the answer to that moment, zero where it was before the answer: less than it took from the commit.
    pub(super) after_answer: Histogram,
    /// From the call to the moment at which the price was stale on every server.
    pub(super) everywhere: Histogram,
    /// The prices as they should be at the end.
    pub(super) prices: Vec<(u32, UnitPrice)>,
    /// Where in the log the last update is that each server has answered, since who waits for one has not waited for those before it.
    pub(super) positions: HashMap<usize, String>,
}

/// A writer.
#[derive(Debug)]
pub(super) struct Writer<'f> {
    fleet: &'f Fleet,
    /// The server it writes to, as long as that answers.
    home: usize,
    /// A conversation with each server it has written to.
    lines: Vec<Option<Line>>,
    /// Another with each server that is to tell when a price is stale, since that one waits meanwhile.
    probes: Vec<Option<Line>>,
    population: &'f Population,
    /// The products whose prices it sets, and nobody else: so a price that becomes stale is stale by its update.
    products: Vec<u32>,
    random: fastrand::Rng,
    /// Part of the names of its commands: no two runs share them.
    name: String,
    prices: HashMap<u32, UnitPrice>,
    written: Written,
}

impl<'f> Writer<'f> {
    pub(super) fn new(fleet: &'f Fleet, home: usize, population: &'f Population, products: &[u32], seed: u64, run: &str) -> Self {
        let none = || (0..fleet.size()).map(|_| None).collect();
        Self {
            fleet,
            home,
            lines: none(),
            probes: none(),
            population,
            products: products.iter().copied().skip(home).step_by(fleet.size()).collect(),
            random: fastrand::Rng::with_seed(seed.wrapping_add(home as u64)),
            name: format!("{run}-{home}"),
            prices: HashMap::new(),
            written: Written::default(),
        }
    }

    /// Writes at a pace until told to stop.
    pub(super) fn run(mut self, pace: Duration, stop: &AtomicBool) -> Result<Written, ShopError> {
        // Not all writers at the same moments.
        let mut next = Instant::now() + pace.mul_f64(self.random.f64());
        while !stop.load(Ordering::Relaxed) {
            if Instant::now() < next {
                thread::park_timeout(next.saturating_duration_since(Instant::now()));
                continue;
            }
            match self.random.u32(..10) {
                0..7 if !self.products.is_empty() => self.set_price(next)?,
                _ => self.add_line(next)?,
            }
            // Each is due at its own time, also if the one before took longer: a server that hangs would else be asked less, and look
            // better for it. There is one at a time, so what is made up for is no storm.
            next += pace;
        }
        self.written.prices = self.prices.into_iter().collect();
        Ok(self.written)
    }

    /// Sets a price, a fifth of the time to what it is already.
    fn set_price(&mut self, due: Instant) -> Result<(), ShopError> {
        let product = self.products[self.random.usize(..self.products.len())];
        let (answer, _) = self.tell(&format!("get price:{product}"))?;
        let now = answer.text.rsplit(' ').next().and_then(|money| decimal(money, 5));
        let percent = if self.random.u32(..5) > 0 { self.random.i64(80..=120) } else { 100 };
        let price = UnitPrice(now.map_or(199_000, |price| (price * percent / 100).clamp(0, MOST_EXPENSIVE)));

        let others: Vec<usize> = (0..self.fleet.size()).filter(|server| *server != self.home).collect();
        let armed: Vec<usize> = others.iter().copied().filter(|server| self.arm(*server, product)).collect();
        let began = clock::now();
        let (answer, repeated) = self.change(due, &format!("set price:{product} {price}"))?;
        self.prices.insert(product, price);
        let answered = Duration::from_nanos(answer.field("at_ns")?);
        let mut last = answered;
        let mut heard = 0;
        for server in armed {
            let Some(at) = self.hear(server)? else { continue };
            // A repeat may have been done at an earlier try; and it is a restart that would be measured.
            if !repeated && at >= began {
                self.written.from_call.record(at.saturating_sub(began));
                self.written.after_answer.record(at.saturating_sub(answered));
                (last, heard) = (last.max(at), heard + 1);
            }
        }
        // None was, where the update was repeated.
        if heard == others.len() && heard > 0 {
            self.written.everywhere.record(last.saturating_sub(began));
        }
        Ok(())
    }

    fn add_line(&mut self, due: Instant) -> Result<(), ShopError> {
        let (basket, product) = self.population.basket_and_product(&mut self.random);
        let quantity = self.population.quantity(&mut self.random);
        self.change(due, &format!("add-line {basket} {product} {quantity}"))?;
        self.written.lines += 1;
        Ok(())
    }

    /// Has something changed, under a name, so that it is done once whoever of those asked has done it.
    fn change(&mut self, due: Instant, request: &str) -> Result<(Answer, bool), ShopError> {
        let request = format!("{request} as {}-{}", self.name, self.written.updates);
        let (answer, (server, repeated)) = self.tell(&request)?;
        self.written.due.record(due.elapsed());
        self.written.updates += 1;
        self.written.repeated += u64::from(repeated);
        if !repeated {
            self.written.update.record(Duration::from_nanos(answer.field("took_ns")?));
        }
        self.written.positions.insert(server, answer.field("position")?);
        Ok((answer, repeated))
    }

    /// Asks the server at home, or the next one if that is gone; who has answered, and whether it was asked more than once.
    fn tell(&mut self, request: &str) -> Result<(Answer, (usize, bool)), ShopError> {
        let end = Instant::now() + PATIENCE;
        let (mut server, mut repeated) = (self.home, false);
        loop {
            let error = match ask(self.fleet, server, &mut self.lines[server], request) {
                Ok(answer) => return Ok((answer, (server, repeated))),
                Err(error) => error,
            };
            if matches!(error, Unanswered::Refused(_)) || Instant::now() > end {
                return Err(failed(server, request, &error));
            }
            (server, repeated) = ((server + 1) % self.fleet.size(), true);
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has a server watch a price; whether it does. One that is being replaced does not.
    fn arm(&mut self, server: usize, product: u32) -> bool {
        ask(self.fleet, server, &mut self.probes[server], &format!("until-stale price:{product}")).is_ok()
    }

    /// When the watched price has become stale; none if the server is gone.
    fn hear(&mut self, server: usize) -> Result<Option<Duration>, ShopError> {
        let Some(line) = &mut self.probes[server] else { return Ok(None) };
        match line.hear() {
            Ok(answer) => Ok(Some(Duration::from_nanos(answer.field("at_ns")?))),
            Err(Unanswered::Broken(_)) => {
                self.probes[server] = None;
                Ok(None)
            }
            Err(error) => Err(failed(server, "until-stale", &error)),
        }
    }
}

/// However long a run: a thousand for one piece is where prices stop rising.
const MOST_EXPENSIVE: i64 = 100_000_000;

/// Asks on an open line, or on one that is opened for it. It is kept unless it broke.
fn ask(fleet: &Fleet, server: usize, line: &mut Option<Line>, request: &str) -> Result<Answer, Unanswered> {
    let mut open = match line.take() {
        Some(open) => open,
        None => fleet.call(server)?,
    };
    let answer = open.ask(request);
    if !matches!(answer, Err(Unanswered::Broken(_))) {
        *line = Some(open);
    }
    answer
}
