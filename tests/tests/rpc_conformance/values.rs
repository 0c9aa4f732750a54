//! What can be said: `IDemo.EchoAny` gives back whatever it is given.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wellspring_rpc::{CallError, Remote};

use crate::setup::{Site, call, try_call};

async fn echoes<T: Serialize + DeserializeOwned + PartialEq + Debug>(remote: &Remote, value: T) {
    let echo: T = call(remote, "IDemo.EchoAny:2", (&value,)).await;
    assert_eq!(echo, value);
}

pub(crate) async fn nothing_and_truth_come_back(site: Site) {
    let remote = site.remote();
    echoes(&remote, ()).await;
    echoes(&remote, Value::Null).await;
    echoes(&remote, None::<i64>).await;
    echoes(&remote, Some(0)).await;
    echoes(&remote, [true, false]).await;
    echoes(&remote, true).await;
}

pub(crate) async fn integers_of_every_width_come_back(site: Site) {
    let remote = site.remote();
    // Around each width's ends, and each form's.
    for bits in [5, 7, 8, 15, 16, 31, 32, 53, 63] {
        for near in -1..=1 {
            let number = (1_i128 << bits) + near;
            if let Ok(number) = i64::try_from(number) {
                echoes(&remote, number).await;
                echoes(&remote, -number).await;
            }
            echoes(&remote, u64::try_from(number).expect("positive")).await;
        }
    }
    echoes(&remote, [u64::MIN, u64::MAX]).await;
    echoes(&remote, [i64::MIN, i64::MAX]).await;
    echoes(&remote, (i8::MIN, u8::MAX, i16::MIN, u16::MAX, i32::MIN, u32::MAX)).await;
}

pub(crate) async fn floats_come_back(site: Site) {
    let remote = site.remote();
    for number in [0.5, -0.0, 1.0 / 3.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324, 1e21, 123_456_789.000_000_01] {
        let echo: f64 = call(&remote, "IDemo.EchoAny:2", (number,)).await;
        assert_eq!(echo.to_bits(), number.to_bits(), "{number}");
    }
    echoes(&remote, [f32::MIN, f32::MAX, 0.1]).await;
    assert_eq!(call::<f64>(&remote, "IDemo.EchoAny:2", (10,)).await, 10.0, "an integer where a fraction is expected");
}

pub(crate) async fn texts_come_back_whatever_is_in_them(site: Site) {
    let remote = site.remote();
    let controls: String = (0..32_u8).map(char::from).collect();
    for text in ["", "plain", "\"\\/", "\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}", "\u{1F600}\u{10ffff}", "<&>'+", "\n\u{1e}\u{1f}", &controls] {
        echoes(&remote, text.to_owned()).await;
        echoes(&remote, BTreeMap::from([(text.to_owned(), vec![text.to_owned()])])).await;
    }
    // Around the ends of each form.
    for length in [31, 32, 255, 256, 65_535, 65_536] {
        echoes(&remote, "x".repeat(length)).await;
    }
}

pub(crate) async fn lists_and_maps_within_each_other_come_back(site: Site) {
    let remote = site.remote();
    let value = json!({
        "nothing": null, "truth": [true, false], "numbers": [0, -1, 1.5, 4_294_967_296_u64, i64::MIN, u64::MAX],
        "text": "\u{1F600}", "": {"": {"": [[], {}, [[null]]]}}, "list": [1, "two", [3, {"four": 4}], null],
    });
    echoes(&remote, value).await;
    for length in [0, 15, 16, 65_535, 65_536] {
        echoes(&remote, (0..length).collect::<Vec<u32>>()).await;
    }
    echoes(&remote, (0..20).map(|number| (format!("key {number}"), number)).collect::<BTreeMap<String, u8>>()).await;
    echoes(&remote, BTreeMap::from([(-1_i64, "one".to_owned()), (i64::MAX, "two".to_owned())])).await;
    let deep = (0..60).fold(json!("deep"), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "in": inner }) });
    echoes(&remote, deep).await;
}

pub(crate) async fn megabytes_come_back_and_what_is_too_large_is_not_sent(site: Site) {
    let remote = site.remote();
    echoes(&remote, "m\u{1F600}".repeat(1 << 20)).await;
    let refused = try_call::<String>(&remote, "IDemo.EchoAny:2", ("x".repeat(17 << 20),)).await;
    assert!(matches!(refused, Err(CallError::Unsendable(_))), "{:?}", refused.map(|text| text.len()));
    assert_eq!(call::<i64>(&remote, "IDemo.Add:3", (1, 2)).await, 3, "and the connection is as it was");
}
