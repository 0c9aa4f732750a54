//! Lists of which a peer says how long they are.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A list, or the pairs of a map, of at most so many: of more nothing is kept while they are read, and they are refused. Null is an empty one.
#[derive(Debug)]
pub(crate) struct AtMost<T, const MOST: usize>(pub(crate) Vec<T>);

/// As that, of the pairs of a map.
#[derive(Debug)]
pub(crate) struct PairsAtMost<K, V, const MOST: usize>(pub(crate) Vec<(K, V)>);

/// The first so many of a list, and one if there are more.
#[derive(Debug)]
pub(crate) struct First<T, const MOST: usize>(pub(crate) Vec<T>);

struct List<T, const MOST: usize>(PhantomData<T>);
struct Pairs<K, V, const MOST: usize>(PhantomData<(K, V)>);
struct Front<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
    type Value = AtMost<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {MOST} at most")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(AtMost(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MOST {
                return Err(A::Error::custom(format_args!("a list of more than {MOST}")));
            }
            list.push(item);
        }
        Ok(AtMost(list))
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>, const MOST: usize> Visitor<'de> for Pairs<K, V, MOST> {
    type Value = PairsAtMost<K, V, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map of {MOST} at most")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            if list.len() == MOST {
                return Err(A::Error::custom(format_args!("a map of more than {MOST}")));
            }
            list.push(pair);
        }
        Ok(PairsAtMost(list))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Front<T, MOST> {
    type Value = First<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while list.len() <= MOST {
            let Some(item) = items.next_element()? else { return Ok(First(list)) };
            list.push(item);
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(list))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<AtMost<T, MOST>, D::Error> {
        deserializer.deserialize_any(List(PhantomData))
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>, const MOST: usize> Deserialize<'de> for PairsAtMost<K, V, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PairsAtMost<K, V, MOST>, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for First<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<First<T, MOST>, D::Error> {
        deserializer.deserialize_seq(Front(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Arguments, Format, Writer};

    #[test]
    fn a_list_that_is_longer_than_it_may_be_is_refused_and_null_is_empty() {
        for format in Format::ALL {
            let written = |value: &dyn Fn(&mut Writer<'_>)| {
                let mut out = Vec::new();
                value(&mut Writer::new(format, &mut out));
                out
            };
            let list = |count: u64| written(&|out| out.value(&(0..count).collect::<Vec<_>>()).expect("written"));
            let read = |bytes: &[u8]| Arguments::new(format, bytes).read::<AtMost<u64, 3>>().map(|list| list.0);
            assert_eq!(read(&list(3)), Ok(vec![0, 1, 2]));
            assert!(read(&list(4)).is_err());
            assert_eq!(read(&written(&|out| out.value(&()).expect("written"))), Ok(Vec::new()));
            let first = |bytes: &[u8]| Arguments::new(format, bytes).read::<First<u64, 3>>().map(|list| list.0.len());
            assert_eq!((first(&list(3)), first(&list(4)), first(&list(400))), (Ok(3), Ok(4), Ok(4)));
            let map = |count: u64| {
                written(&|out| out.value(&(0..count).map(|at| (at, at)).collect::<std::collections::BTreeMap<_, _>>()).expect("written"))
            };
            let pairs = |bytes: &[u8]| Arguments::new(format, bytes).read::<PairsAtMost<u64, u64, 3>>().map(|list| list.0);
            assert_eq!(pairs(&map(2)), Ok(vec![(0, 0), (1, 1)]));
            assert!(pairs(&map(4)).is_err());
        }
    }
}
