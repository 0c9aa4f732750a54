//! Entries that another program, another version or a mistake has put into the log: nothing panics, exactly what they say is stale, all
//! that they might mean where they cannot be read, and the entry after them is applied like any other.
#![no_main]

use std::collections::BTreeSet;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wellspring::{Engine, Function, Key};
use wellspring_commands::memory::Memory;
use wellspring_commands::{
    Body, Command, Entry, InvalidateError, LogPosition, LoggedFunctions, LoggedKey, Op, OperationId, OperationLog, Place, Server, ServerId,
};

/// A function's name, or nearly.
const NAMES: [&str; 7] = ["number", "pair", "choice", "total", "nobody", "Number", ""];
/// What is cached of each function; keys near these are the interesting ones.
const NUMBERS: [u8; 3] = [0, 7, 255];
const WORDS: [&str; 3] = ["", "a", "\u{e4}\"\\"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Choice {
    One,
    Two(i8),
    Three { deep: Option<String> },
}

#[derive(Arbitrary, Debug)]
enum RawBody {
    /// Whatever.
    Bytes(Vec<u8>),
    Keys(Vec<(u8, RawKey)>),
}

#[derive(Arbitrary, Debug)]
enum RawKey {
    All,
    Number(u8),
    Pair(u8, u8),
    Choice(u8),
    Text(String),
}

impl RawKey {
    fn json(self) -> Option<String> {
        let word = |index: u8| WORDS[usize::from(index) % WORDS.len()].to_owned();
        let number = |index: u8| NUMBERS[usize::from(index) % NUMBERS.len()];
        let json = match self {
            RawKey::All => return None,
            RawKey::Text(text) => return Some(text),
            RawKey::Number(index) => serde_json::to_string(&number(index)),
            RawKey::Pair(index, word_index) => serde_json::to_string(&(number(index), word(word_index))),
            RawKey::Choice(index) => serde_json::to_string(&choices()[usize::from(index) % 4]),
        };
        Some(json.expect("plain data"))
    }
}

impl RawBody {
    fn text(self) -> String {
        match self {
            RawBody::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            RawBody::Keys(keys) => {
                let key =
                    |(name, key): (u8, RawKey)| LoggedKey { function: NAMES[usize::from(name) % NAMES.len()].to_owned(), key: key.json() };
                let body = Body { command: "Foreign".to_owned(), keys: keys.into_iter().map(key).collect(), ..Body::default() };
                serde_json::to_string(&body).expect("plain data")
            }
        }
    }
}

fn choices() -> [Choice; 4] {
    [Choice::One, Choice::Two(-1), Choice::Three { deep: None }, Choice::Three { deep: Some(WORDS[2].to_owned()) }]
}

fn pairs() -> Vec<(u8, String)> {
    NUMBERS.iter().flat_map(|number| WORDS.map(|word| (*number, word.to_owned()))).collect()
}

/// What is stale of a function by a body.
fn stale<K: DeserializeOwned + Ord + Clone>(name: &str, cached: &[K], body: &str) -> BTreeSet<K> {
    let all = || cached.iter().cloned().collect();
    let Ok(body) = serde_json::from_str::<Body>(body) else { return all() };
    let mut stale = BTreeSet::new();
    for LoggedKey { function, key } in body.keys {
        if function.is_empty() {
            return all();
        }
        if function != name {
            continue;
        }
        match key.map(|key| serde_json::from_str::<K>(&key)) {
            Some(Ok(key)) => _ = stale.insert(key),
            None | Some(Err(_)) => return all(),
        }
    }
    stale
}

/// Every key of a function cached, and what is expected of each.
fn check<K: Key + Ord + DeserializeOwned>(engine: &Engine, function: &Function<K, u8>, cached: &[K], body: &str) {
    let expected = stale(function.name(), cached, body);
    let pin = engine.pin();
    for key in cached {
        let is_there = function.peek(&pin, key).is_some();
        assert_eq!(is_there, !expected.contains(key), "{}: {body:?}", function.name());
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct Good(u8);

impl Command for Good {
    const NAME: &'static str = "Good";
    type Output = ();
    type Error = InvalidateError;
}

#[derive(Arbitrary, Debug)]
struct Input {
    bodies: Vec<RawBody>,
}

async fn run(bodies: Vec<RawBody>) {
    let (engine, memory) = (Engine::builder().sweep_threads(1).build(), Memory::new());
    let number = engine.function("number", |_, key: &u8| *key).expect("registered");
    let pair = engine.function("pair", |_, key: &(u8, String)| key.0).expect("registered");
    let choice = engine.function("choice", |_, _: &Choice| 0).expect("registered");
    // Not logged: stale by what it depends on, and as a whole where it is named.
    let each = number.clone();
    let total =
        engine.function("total", move |cx, (): &()| NUMBERS.iter().map(|key| u64::from(each.get(cx, key).unwrap_or(0))).sum::<u64>());
    let total = total.expect("registered");
    let functions = LoggedFunctions::new(&engine);
    let logged = functions.log(&number).expect("logged");
    functions.log(&pair).expect("logged");
    functions.log(&choice).expect("logged");
    let handler = move |Good(key): Good, op: Op<Memory>| {
        let logged = logged.clone();
        async move { op.invalidate(&logged, &key) }
    };
    let server = Server::builder(&engine, memory.clone()).functions(&functions).handler(handler).check_every(Duration::from_secs(3_600));
    let server = server.start().await.expect("started");
    let (pairs, choices) = (pairs(), choices());
    let cache = || {
        NUMBERS.iter().for_each(|key| drop(number.get(&engine, key)));
        pairs.iter().for_each(|key| drop(pair.get(&engine, key)));
        choices.iter().for_each(|key| drop(choice.get(&engine, key)));
        assert_eq!(total.get(&engine, &()), Ok(262));
    };
    for (body, operation) in bodies.into_iter().zip(1..) {
        cache();
        let (body, operation) = (body.text(), OperationId::from_u128(operation));
        let entry = Entry { place: Place::default(), operation, origin: ServerId::from_u128(1), body: body.clone() };
        let place = memory.append_raw(entry);
        server.wait_for(LogPosition { log: memory.id(), place, operation }).await.expect("the same log");
        check(&engine, &number, &NUMBERS, &body);
        check(&engine, &pair, &pairs, &body);
        check(&engine, &choice, &choices, &body);
        let moved = !stale("number", &NUMBERS, &body).is_disjoint(&NUMBERS.into()) || !stale("total", &[()], &body).is_empty();
        assert_eq!(total.peek(&engine.pin(), &()).is_none(), moved, "total: {body:?}");
        engine.assert_consistent();
    }
    cache();
    let done = server.call(Good(NUMBERS[1])).await.expect("done");
    assert!(number.peek(&engine.pin(), &NUMBERS[1]).is_none(), "the entry after them was not applied");
    assert!(number.peek(&engine.pin(), &NUMBERS[0]).is_some());
    server.wait_for(done.position).await.expect("the same log");
    engine.assert_consistent();
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return Corpus::Reject };
    if input.bodies.len() > 16 {
        return Corpus::Reject;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(run(input.bodies));
    Corpus::Keep
});
