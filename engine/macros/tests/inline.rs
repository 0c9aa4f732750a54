//! `#[derive(Inline)]` on the newtypes it is for.

#![forbid(unsafe_code)]

use std::marker::PhantomData;

use wellspring::{Engine, Inline};

#[derive(Clone, Copy, Debug, PartialEq, Inline)]
struct Cents(i64);

#[derive(Clone, Copy, Debug, PartialEq, Inline)]
struct Total {
    cents: Cents,
}

#[derive(Clone, Copy, Debug, PartialEq, Inline)]
#[repr(transparent)]
struct Id<T> {
    id: u32,
    of: PhantomData<fn() -> T>,
}

#[derive(Clone, Copy, Debug, PartialEq, Inline)]
#[repr(transparent)]
struct Wrapped<T: Send>(T);

fn is_inline<T: Inline>() -> usize {
    size_of::<T>()
}

#[test]
fn newtypes_over_inline_types_are_inline() {
    assert_eq!(is_inline::<Cents>(), 8);
    assert_eq!(is_inline::<Total>(), 8);
    assert_eq!(is_inline::<Id<bool>>(), 4);
    assert_eq!(is_inline::<Wrapped<Cents>>(), 8);
}

#[test]
fn an_inline_newtype_comes_back_as_it_was_stored() {
    let engine = Engine::new();
    let total = engine.define::<u32, Total>("total").cut_off_eq().inline();
    let total = total.function(|_, product| Total { cents: Cents(-i64::from(*product)) }).unwrap();
    assert_eq!(total.get(&engine, &7), Ok(Total { cents: Cents(-7) }));
    assert_eq!(total.get(&engine, &7), Ok(Total { cents: Cents(-7) }));
}
