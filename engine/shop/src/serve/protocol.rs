//! What a server is asked, line by line.
//!
//! An answer is one line, before which there may be details: lines that begin with two spaces. One that begins with `error: ` says
//! what was wrong, and the conversation goes on.

use std::fmt;
use std::str::FromStr;

use wellspring_commands::{CommandId, LogPosition, Place};

use crate::figure::Figure;
use crate::line::{Cents, MAX_CENTS, MAX_QUANTITY, UnitPrice, decimal};

/// What `help` answers, a line each.
pub(crate) const HELP: [&str; 12] = [
    "get FIGURE                      its value, such as of price:1110843 or basket_total:33002280318",
    "set price:PRODUCT MONEY         sets a price, such as 1.99",
    "add-line BASKET PRODUCT N [MONEY]  adds N pieces to a basket, at today's price or for the money said",
    "wait POSITION                   until the operation at this position of the log is applied here; not all before it need be",
    "until-stale FIGURE              its value, and a second answer as soon as it is out of date",
    "warm                            computes every value there is",
    "load N                          reads N figures a second from now on",
    "stats                           counters, and how long this server has been up",
    "check                           compares every cached value with the database; nobody may write meanwhile",
    "quit                            ends the conversation",
    "help                            this text",
    "set and add-line may end in: as NAME. A repeat under the same name, on any server, changes nothing and gets the first answer.",
];

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Get(Figure),
    SetPrice { product: u32, price: UnitPrice, id: Option<CommandId> },
    AddLine { basket: i64, product: u32, quantity: u32, sales: Option<u32>, id: Option<CommandId> },
    Wait(LogPosition),
    UntilStale(Figure),
    Warm,
    Load(u32),
    Stats,
    Check,
    Help,
    Quit,
}

/// The most figures a second that a server can be told to read.
pub(crate) const MOST_READS: u32 = 1_000_000;

impl FromStr for Request {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        let alone = |request| if rest.is_empty() { Ok(request) } else { Err(format!("{word} takes nothing, and not {rest:?}")) };
        match word {
            "get" => figure(rest).map(Self::Get),
            "set" => set(rest),
            "add-line" => add_line(rest),
            "wait" => rest.parse().map(|Position(position)| Self::Wait(position)),
            "until-stale" => figure(rest).map(Self::UntilStale),
            "load" => rest
                .parse()
                .ok()
                .filter(|reads| *reads <= MOST_READS)
                .map(Self::Load)
                .ok_or_else(|| format!("load {rest:?}: not a number from 0 to {MOST_READS}")),
            "warm" => alone(Self::Warm),
            "stats" => alone(Self::Stats),
            "check" => alone(Self::Check),
            "help" => alone(Self::Help),
            "quit" => alone(Self::Quit),
            _ => Err(format!("{word:?} is not known; see help")),
        }
    }
}

fn figure(text: &str) -> Result<Figure, String> {
    text.parse().map_err(|error| match error {
        crate::ShopError::Usage(text) => text,
        other => other.to_string(),
    })
}

fn set(rest: &str) -> Result<Request, String> {
    let (words, id) = named(rest)?;
    let [price, money] = words[..] else { return Err("set takes price:PRODUCT and MONEY, such as: set price:7 1.99".to_owned()) };
    let Figure::Price(product) = figure(price)? else { return Err(format!("{price:?} cannot be set, only prices can")) };
    Ok(Request::SetPrice { product, price: self::price(money)?, id })
}

/// A price as a person writes it.
pub(super) fn price(money: &str) -> Result<UnitPrice, String> {
    // A thousand times what one field of a line may be is far from the end of 64 bits, also times the largest quantity.
    let most = i64::from(MAX_CENTS) * 1000;
    let price = decimal(money, 5).filter(|millicents| (0..=most).contains(millicents)).map(UnitPrice);
    price.ok_or_else(|| format!("{money:?} is not an amount from 0 to {}, such as 1.99", UnitPrice(most)))
}

fn add_line(rest: &str) -> Result<Request, String> {
    let (words, id) = named(rest)?;
    let (basket, product, quantity, sales) = match words[..] {
        [basket, product, quantity] => (basket, product, quantity, None),
        [basket, product, quantity, sales] => (basket, product, quantity, Some(sales)),
        _ => return Err("add-line takes BASKET PRODUCT N and perhaps MONEY, such as: add-line 33002280318 7 2 3.98".to_owned()),
    };
    let most = i64::from(MAX_CENTS);
    let sales = sales.map(|money| {
        let cents = decimal(money, 2).filter(|cents| (0..=most).contains(cents)).and_then(|cents| u32::try_from(cents).ok());
        cents.ok_or_else(|| format!("{money:?} is not an amount from 0 to {}, such as 3.98", Cents(most)))
    });
    Ok(Request::AddLine {
        basket: basket.parse().map_err(|_| format!("{basket:?} is not a basket's number"))?,
        product: product.parse().map_err(|_| format!("{product:?} is not a product's number"))?,
        quantity: quantity
            .parse()
            .ok()
            .filter(|quantity| *quantity <= MAX_QUANTITY)
            .ok_or_else(|| format!("{quantity:?} is not a number of pieces from 0 to {MAX_QUANTITY}"))?,
        sales: sales.transpose()?,
        id,
    })
}

/// The words, and the name that `as NAME` at the end gives.
fn named(text: &str) -> Result<(Vec<&str>, Option<CommandId>), String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    if let [.., "as", name] = words[..] {
        let id = CommandId::new(name).map_err(|error| error.to_string())?;
        words.truncate(words.len() - 2);
        return Ok((words, Some(id)));
    }
    Ok((words, None))
}

/// A position of the log as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(pub(crate) LogPosition);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogPosition { log, place, operation } = self.0;
        write!(f, "{log}/{}.{}/{operation}", place.major, place.minor)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let read = || {
            let (log, rest) = word.split_once('/')?;
            let (place, operation) = rest.split_once('/')?;
            let (major, minor) = place.split_once('.')?;
            let place = Place::new(major.parse().ok()?, minor.parse().ok()?);
            Some(LogPosition { log: log.parse().ok()?, place, operation: operation.parse().ok()? })
        };
        read().map(Self).ok_or_else(|| format!("{word:?} is not a position, such as set and add-line answer"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wellspring_commands::{LogId, OperationId};

    fn id(name: &str) -> Option<CommandId> {
        Some(CommandId::new(name).expect("a name"))
    }

    #[test]
    fn every_request_is_read_as_a_person_types_it() {
        let line = |sales, id| Request::AddLine { basket: 42, product: 7, quantity: 2, sales, id };
        for (text, request) in [
            ("get price:7", Request::Get(Figure::Price(7))),
            ("  get\tdepartment_revenue:DRUG GM ", Request::Get(Figure::DepartmentRevenue("DRUG GM".to_owned()))),
            ("set price:7 199", Request::SetPrice { product: 7, price: UnitPrice(19_900_000), id: None }),
            ("set price:7 0.0025 as till-3", Request::SetPrice { product: 7, price: UnitPrice(250), id: id("till-3") }),
            ("add-line 42 7 2", line(None, None)),
            ("add-line 42 7 2 3.98", line(Some(398), None)),
            ("add-line 42 7 2 3.9 as x", line(Some(390), id("x"))),
            ("until-stale price:7", Request::UntilStale(Figure::Price(7))),
            ("warm", Request::Warm),
            ("load 0", Request::Load(0)),
            ("stats", Request::Stats),
            ("check", Request::Check),
            ("help", Request::Help),
            ("quit", Request::Quit),
        ] {
            assert_eq!(text.parse(), Ok(request), "{text}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused_with_the_offending_word() {
        for (text, word) in [
            ("gte price:7", "\"gte\""),
            ("get", "\"\": not a figure"),
            ("get cost:7", "cost:7"),
            ("set price:7", "set takes"),
            ("set price:x 1", "price:x"),
            ("set basket_total:7 1", "basket_total:7"),
            ("set price:7 -1", "\"-1\""),
            ("set price:7 1.999999", "1.999999"),
            ("set price:7 1,99", "1,99"),
            ("set price:7 99999999999999999999", "99999999999999999999"),
            ("set price:7 100000.01", "100000.01"),
            ("set price:7 1 2", "set takes"),
            ("add-line 42 7", "add-line takes"),
            ("add-line x 7 1", "\"x\""),
            ("add-line 42 -7 1", "\"-7\""),
            ("add-line 42 7 1000001", "1000001"),
            ("add-line 42 7 1 3.981", "3.981"),
            ("add-line 42 7 1 as", "\"as\""),
            ("wait", "\"\" is not a position"),
            ("wait 1/2/3", "1/2/3"),
            ("load many", "many"),
            ("load -1", "-1"),
            ("load 1000001", "1000001"),
            ("stats now", "now"),
            ("", "\"\" is not known"),
        ] {
            let refused = text.parse::<Request>().expect_err(text);
            assert!(refused.contains(word), "{text}: {refused}");
        }
        let long = "x".repeat(CommandId::MOST_BYTES + 1);
        assert!(format!("set price:7 1 as {long}").parse::<Request>().is_err());
    }

    #[test]
    fn a_position_comes_back_from_its_word() {
        let position = Position(LogPosition { log: LogId::random(), place: Place::new(u64::MAX, 17), operation: OperationId::new() });
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!(format!("wait {position}").parse(), Ok(Request::Wait(position.0)));
    }
}
