//! Keys in words: for `why`, exports and reports. Keys need not be `Debug`, so a function is told how to print them.

use std::any::{Any, TypeId};
use std::fmt::{Debug, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::key::Key;

/// How a function's keys are printed.
pub(crate) type Describe<K> = fn(&K) -> String;

/// Bytes of a key's text; the rest is cut.
const LONGEST: usize = 200;

fn debug_of<K: Key, T: Debug + 'static>(key: &K) -> String {
    (key as &dyn Any).downcast_ref::<T>().map_or_else(String::new, |key| by_debug(key))
}

/// The key's `Debug`, no further than it is shown.
pub(crate) fn by_debug<T: Debug>(key: &T) -> String {
    struct Bounded(String);
    impl Write for Bounded {
        fn write_str(&mut self, part: &str) -> std::fmt::Result {
            self.0.push_str(part);
            if self.0.len() > LONGEST { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    let mut text = Bounded(String::new());
    // The error only says that it was long enough.
    let _ = write!(text, "{key:?}");
    text.0
}

/// Word keys and text print themselves without being asked to.
pub(crate) fn default_describe<K: Key>() -> Option<Describe<K>> {
    let id = TypeId::of::<K>();
    macro_rules! among {
        ($($t:ty),+) => {
            $(if id == TypeId::of::<$t>() {
                return Some(debug_of::<K, $t>);
            })+
        };
    }
    among!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char, (), String, &'static str);
    None
}

/// What the user's code says, shortened; nothing if it panics.
pub(crate) fn text_of<K>(key: &K, describe: Describe<K>) -> Option<String> {
    let mut text = catch_unwind(AssertUnwindSafe(|| describe(key))).ok()?;
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    Some(text)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn words_and_text_print_themselves_and_other_keys_do_not() {
        assert_eq!(default_describe::<u32>().map(|describe| describe(&7)), Some("7".into()));
        assert_eq!(default_describe::<String>().map(|describe| describe(&"a\"b".into())), Some("\"a\\\"b\"".into()));
        assert!(default_describe::<Vec<u32>>().is_none());
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_and_a_panic_is_no_text() {
        let text = text_of(&"ß".repeat(1 << 20), by_debug::<String>).expect("a text");
        assert!(text.len() <= LONGEST + '…'.len_utf8() && text.ends_with("ß…"));
        assert_eq!(text_of(&0_u8, |_| panic!("no")), None);
    }
}
