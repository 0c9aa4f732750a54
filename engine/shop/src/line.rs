//! One line of a basket, and what it is worth.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// The most of one product on one line that the shop accepts (the real data's largest is 89,638, of fuel).
pub const MAX_QUANTITY: u32 = 1_000_000;

/// The most money in one field of one line, in cents. With [`MAX_QUANTITY`] it keeps every sum inside 64 bits.
pub const MAX_CENTS: u32 = 10_000_000;

/// An amount of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cents(pub i64);

impl Add for Cents {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), Add::add)
    }
}

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", cents / 100, cents % 100)
    }
}

/// The price of one piece, in thousandths of a cent: fuel is sold in pieces that cost a quarter of a cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitPrice(pub i64);

impl fmt::Display for UnitPrice {
    /// In the same unit as [`Cents`], with as many decimals as it takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 100_000, self.0.unsigned_abs() % 100_000);
        let decimals = format!("{part:05}");
        let (cents, finer) = decimals.split_at(2);
        write!(f, "{sign}{whole}.{cents}{}", finer.trim_end_matches('0'))
    }
}

impl UnitPrice {
    /// The price of one piece when `quantity` of them have the shelf price `shelf`; none when there was no piece.
    pub fn of(shelf: Cents, quantity: u32) -> Option<Self> {
        let quantity = i64::from(quantity);
        (quantity > 0).then(|| Self((shelf.0 * 1000 + quantity / 2) / quantity))
    }

    /// What `quantity` pieces cost, rounded to the nearest cent.
    pub fn times(self, quantity: u32) -> Cents {
        Cents((self.0 * i64::from(quantity) + 500) / 1000)
    }
}

/// A decimal number such as `1.99` in units of its last decimal place, of which there may be `places` at most; none when the text is
/// something else or too large.
pub(crate) fn decimal(text: &str, places: usize) -> Option<i64> {
    let (whole, part) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > places || !digits {
        return None;
    }
    format!("{whole}{part:0<places$}").parse().ok()
}

/// One product in one basket, as the till recorded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What was bought.
    pub product: u32,
    /// How many; 0 is real, and common.
    pub quantity: u32,
    /// What the shop received for the line, in cents.
    pub sales: u32,
    /// Loyalty discount, in cents.
    pub retail_discount: u32,
    /// Manufacturer's coupon, in cents.
    pub coupon: u32,
    /// What the shop added to the coupon, in cents.
    pub coupon_match: u32,
}

impl Line {
    /// What the customer pays for this line at today's price.
    ///
    /// All discounts are taken from the price, and the shop gives no change on a coupon: discounts over the price make
    /// the line free, not negative. A line without a piece to price (quantity 0) or of a product that has no price
    /// stays as the till recorded it.
    pub fn amount(&self, price: Option<UnitPrice>) -> Cents {
        let before_coupon = match price {
            Some(price) if self.quantity > 0 => {
                price.times(self.quantity).0 - i64::from(self.retail_discount) - i64::from(self.coupon_match)
            }
            _ => i64::from(self.sales),
        };
        Cents((before_coupon - i64::from(self.coupon)).max(0))
    }

    /// The price of one piece before discounts, as far as this line tells.
    pub fn shelf_price(&self) -> Option<UnitPrice> {
        let shelf = i64::from(self.sales) + i64::from(self.retail_discount) + i64::from(self.coupon_match);
        UnitPrice::of(Cents(shelf), self.quantity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line { product: 1, quantity: 2, sales: 150, retail_discount: 50, coupon: 20, coupon_match: 0 };

    #[test]
    fn a_line_at_its_own_shelf_price_costs_what_was_recorded_less_the_coupon() {
        assert_eq!(LINE.shelf_price(), Some(UnitPrice(100_000)));
        assert_eq!(LINE.amount(LINE.shelf_price()), Cents(130));
    }

    #[test]
    fn discounts_over_the_price_make_a_line_free_and_never_negative() {
        assert_eq!(LINE.amount(Some(UnitPrice(10_000))), Cents(0));
        assert_eq!(Line { coupon: 500, ..LINE }.amount(LINE.shelf_price()), Cents(0));
    }

    #[test]
    fn quantity_zero_has_no_shelf_price_and_keeps_the_recorded_sales() {
        let line = Line { quantity: 0, ..LINE };
        assert_eq!(line.shelf_price(), None);
        assert_eq!(line.amount(Some(UnitPrice(999_000))), Cents(130));
    }

    #[test]
    fn a_product_without_a_price_keeps_the_recorded_sales() {
        assert_eq!(LINE.amount(None), Cents(130));
    }

    #[test]
    fn fuel_at_a_quarter_of_a_cent_is_not_rounded_away() {
        let fuel = Line { quantity: 10_000, sales: 2_500, retail_discount: 0, coupon: 0, ..LINE };
        assert_eq!(fuel.shelf_price(), Some(UnitPrice(250)));
        assert_eq!(fuel.amount(fuel.shelf_price()), Cents(2_500));
    }

    #[test]
    fn the_largest_line_the_shop_accepts_stays_inside_64_bits() {
        let all = MAX_CENTS;
        let line = Line { product: 1, quantity: 1, sales: all, retail_discount: all, coupon: 0, coupon_match: all };
        let price = line.shelf_price();
        let most = Line { quantity: MAX_QUANTITY, retail_discount: 0, coupon_match: 0, ..line };
        assert_eq!(most.amount(price), Cents(3 * i64::from(all) * i64::from(MAX_QUANTITY)));
    }

    #[test]
    fn money_prints_with_two_decimals_and_one_sign() {
        assert_eq!(Cents(-105).to_string(), "-1.05");
        assert_eq!(Cents(1234).to_string(), "12.34");
    }

    #[test]
    fn a_unit_price_prints_to_the_cent_or_as_fine_as_it_is() {
        for (price, text) in
            [(250, "0.0025"), (0, "0.00"), (199_000, "1.99"), (200_000, "2.00"), (-1, "-0.00001"), (123_456_780, "1234.5678")]
        {
            assert_eq!(UnitPrice(price).to_string(), text);
        }
    }

    #[test]
    fn money_is_read_as_it_is_printed() {
        for millicents in [0, 1, 250, 199_000, 100_000_000, 100_001] {
            assert_eq!(decimal(&UnitPrice(millicents).to_string(), 5), Some(millicents));
        }
        assert_eq!((decimal("3", 2), decimal("3.9", 2), decimal("3.98", 2)), (Some(300), Some(390), Some(398)));
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.999", "x", "9223372036854775807"] {
            assert_eq!(decimal(text, 2), None, "{text}");
        }
    }
}
