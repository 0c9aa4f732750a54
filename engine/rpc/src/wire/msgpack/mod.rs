//! MessagePack for serde, as the peer reads and writes it.
//!
//! `rmp-serde` was weighed and left: it has no limit on depth, reads no integer out of a float (JavaScript writes whole numbers above 32 bits as
//! floats), and its writer is several times slower than the copying it does. The format itself is one page.

mod de;
mod reader;
mod ser;

pub(super) use self::de::read;
pub(super) use self::reader::Reader;
pub(super) use self::ser::{begin_list, write};

/// The name by which [`Raw`](super::Raw) asks for the bytes as they are.
pub(super) const RAW: &str = "$wellspring::Raw";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::IgnoredAny;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::wire::limits;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn written<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, value).expect("written");
        out
    }

    fn whole<'a, T: Deserialize<'a>>(mut bytes: &'a [u8]) -> Option<T> {
        read(&mut bytes).ok().filter(|_| bytes.is_empty())
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        Number(u8),
        Pair(u8, String),
        Named { first: i64, second: Option<bool> },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row<'a> {
        id: u32,
        name: &'a str,
        tags: Vec<String>,
    }

    #[test]
    fn integers_take_their_shortest_form_and_are_read_from_any() {
        let cases: [(i64, &str); 14] = [
            (0, "00"),
            (127, "7f"),
            (128, "cc80"),
            (255, "ccff"),
            (256, "cd0100"),
            (65_535, "cdffff"),
            (65_536, "ce00010000"),
            (4_294_967_296, "cf0000000100000000"),
            (-1, "ff"),
            (-32, "e0"),
            (-33, "d0df"),
            (-129, "d1ff7f"),
            (-32_769, "d2ffff7fff"),
            (-2_147_483_649, "d3ffffffff7fffffff"),
        ];
        for (number, text) in cases {
            assert_eq!(hex(&written(&number)), text);
            assert_eq!(whole::<i64>(&written(&number)), Some(number));
            // As JavaScript writes what has more than 32 bits.
            assert_eq!(whole::<i64>(&written(&(number as f64))), Some(number));
        }
        assert_eq!(whole::<u8>(&[0xcf, 0, 0, 0, 0, 0, 0, 0, 9]), Some(9));
        assert_eq!(whole::<u8>(&[0xd3, 0, 0, 0, 0, 0, 0, 1, 0]), None);
        assert_eq!(whole::<u64>(&written(&1.5)), None);
        assert_eq!(whole::<u64>(&written(&-1.0)), None);
        assert_eq!(whole::<f64>(&[0x0a]), Some(10.0));
        assert_eq!(whole::<f32>(&written(&0.5_f64)), Some(0.5));
        assert_eq!(whole::<u64>(&written(&u64::MAX)), Some(u64::MAX));
        assert_eq!(whole::<i64>(&written(&1e300)), None);
    }

    #[test]
    fn every_shape_of_serde_comes_back() {
        for shape in [
            Shape::Nothing,
            Shape::Number(9),
            Shape::Pair(1, "ä".into()),
            Shape::Named { first: -5, second: None },
            Shape::Named { first: i64::MIN, second: Some(true) },
        ] {
            assert_eq!(whole::<Shape>(&written(&shape)), Some(shape));
        }
        let row = Row { id: 7, name: "seven", tags: vec!["a".into(), "b".repeat(300)] };
        assert_eq!(whole::<Row<'_>>(&written(&row)), Some(row));
        let map: BTreeMap<u64, Option<char>> = (0..20).map(|key| (key * 1000, Some('x').filter(|_| key > 3))).collect();
        assert_eq!(whole(&written(&map)), Some(map));
        assert_eq!(whole::<((), bool, [i8; 3])>(&written(&((), true, [1_i8, -1, 5]))), Some(((), true, [1, -1, 5])));
    }

    #[test]
    fn a_class_may_come_by_names_or_by_order() {
        let by_order = written(&(7, "seven", ["a"]));
        assert_eq!(whole::<Row<'_>>(&by_order), Some(Row { id: 7, name: "seven", tags: vec!["a".into()] }));
    }

    #[test]
    fn members_come_in_any_order_and_those_that_are_left_out_or_not_known_are_no_matter() {
        const LONG: &str = "a_name_that_is_longer_than_a_short_text_may_be";

        #[derive(Debug, Default, PartialEq, Deserialize)]
        #[serde(default)]
        struct Class {
            #[serde(alias = "first")]
            one: u8,
            two: u8,
            a_name_that_is_longer_than_a_short_text_may_be: u8,
        }
        let class = |members: &[(&str, u8)]| {
            let mut out = vec![0x80 | members.len() as u8];
            for (name, value) in members {
                write(&mut out, name).expect("written");
                out.push(*value);
            }
            out
        };
        let read =
            |bytes: &[u8]| whole::<Class>(bytes).map(|class| [class.one, class.two, class.a_name_that_is_longer_than_a_short_text_may_be]);
        for (bytes, expected) in [
            (class(&[("one", 1), ("two", 2), (LONG, 3)]), [1, 2, 3]),
            (class(&[("two", 2)]), [0, 2, 0]),
            (class(&[("two", 2), (LONG, 3)]), [0, 2, 3]),
            (class(&[(LONG, 3), ("two", 2), ("one", 1)]), [1, 2, 3]),
            (class(&[("first", 1), ("two", 2)]), [1, 2, 0]),
            (class(&[("oné", 9), ("one", 1), ("tw", 9), ("twoo", 9), ("two", 2)]), [1, 2, 0]),
        ] {
            assert_eq!(read(&bytes), Some(expected), "{bytes:x?}");
            for short in 0..bytes.len() {
                assert!(read(&bytes[..short]).is_none(), "{bytes:x?} to {short}");
            }
        }
        assert!(read(&class(&[("one", 1), ("one", 1)])).is_none(), "twice");
        assert!(read(&[0x81, 0xa3, b'o', b'n', 0xff, 1]).is_none(), "no text");
    }

    #[test]
    fn a_key_of_a_class_is_read_in_whatever_way_it_is_asked_for() {
        use std::fmt;

        use serde::de::{Deserializer, MapAccess, Visitor};

        #[derive(Debug, PartialEq, Deserialize)]
        struct Name(Option<String>);

        /// Written by hand, with keys that are not read as names.
        #[derive(Debug, PartialEq)]
        struct Pairs(Vec<(Name, u8)>);

        impl<'de> Deserialize<'de> for Pairs {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
                struct Class;

                impl<'de> Visitor<'de> for Class {
                    type Value = Pairs;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a class")
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                        let mut pairs = Vec::new();
                        while let Some(pair) = map.next_entry()? {
                            pairs.push(pair);
                        }
                        Ok(Pairs(pairs))
                    }
                }

                deserializer.deserialize_struct("Pairs", &["one", "two"], Class)
            }
        }

        let name = |name: &str| Name(Some(name.to_owned()));
        let bytes = written(&BTreeMap::from([("one", 1), ("two", 2)]));
        assert_eq!(whole(&bytes), Some(Pairs(vec![(name("one"), 1), (name("two"), 2)])));
    }

    #[test]
    fn what_is_no_text_is_not_read_as_one_however_long_it_is() {
        for length in [1, 5, 8, 20, 31, 32, 100, 255, 256, 1000] {
            let mut text = "x".repeat(length);
            for at in [0, length / 2, length - 1] {
                let mut bytes = written(&text);
                let begin = bytes.len() - length;
                bytes[begin + at] = 0xff;
                assert!(whole::<String>(&bytes).is_none(), "{length} with no text at {at}");
                assert!(whole::<&str>(&bytes).is_none(), "{length} with no text at {at}");
            }
            assert_eq!(whole(&written(&text)), Some(text.clone()));
            text.push('ä');
            assert_eq!(whole(&written(&text)), Some(text));
        }
    }

    #[test]
    fn what_is_not_wanted_is_passed_over_whatever_it_is() {
        let values = [
            "c0",
            "c2",
            "05",
            "e1",
            "a3616263",
            "c403010203",
            "d6ff00000001",
            "d7ff0000000100000002",
            "c70305010203",
            "9301c0a0",
            "81a16190",
            "ca3f800000",
            "cb3ff0000000000000",
            "d90161",
            "dc000101",
            "de00010101",
            "c8000105ff",
        ];
        for value in values {
            let bytes: Vec<u8> = (0..value.len()).step_by(2).map(|at| u8::from_str_radix(&value[at..at + 2], 16).expect("hex")).collect();
            assert!(whole::<IgnoredAny>(&bytes).is_some(), "{value}");
            for short in 0..bytes.len() {
                assert!(whole::<IgnoredAny>(&bytes[..short]).is_none(), "{value} to {short}");
            }
        }
        assert!(whole::<IgnoredAny>(&[0xc1]).is_none());
    }

    #[test]
    fn depth_and_lengths_are_limited() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert!(whole::<IgnoredAny>(&nested(limits::DEPTH)).is_some());
        assert!(whole::<IgnoredAny>(&nested(limits::DEPTH + 1)).is_none());
        assert!(whole::<IgnoredAny>(&nested(1_000_000)).is_none());
        assert!(whole::<serde_json::Value>(&nested(1_000_000)).is_none());
        // Four thousand million values, of which none is there.
        assert!(whole::<Vec<u64>>(&[0xdd, 0xff, 0xff, 0xff, 0xff]).is_none());
        assert!(whole::<&str>(&[0xdb, 0xff, 0xff, 0xff, 0xff, 0x61]).is_none());
    }
}
