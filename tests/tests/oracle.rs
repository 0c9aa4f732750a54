//! Random programs against the oracle.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use wellspring::{Capacity, Engine};
use wellspring_tests::concurrent::{self, Act};
use wellspring_tests::expr::{Dialect, Expr};
use wellspring_tests::op::Op;
use wellspring_tests::program::{Kind, Program, Rule, SOURCES};
use wellspring_tests::sequential::{run_exact, run_faulty};

fn config(cases: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    Config {
        cases,
        max_shrink_iters: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    }
}

fn expr(dialect: Dialect, depth: u32) -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        1 => any::<u8>().prop_map(Expr::Const),
        4 => any::<u8>().prop_map(Expr::Source),
        5 => any::<u8>().prop_map(Expr::Node),
    ];
    leaf.prop_recursive(depth, 12, 3, move |part| {
        let part = part.prop_map(Box::new);
        let two = || (part.clone(), part.clone());
        let three = || (part.clone(), part.clone(), part.clone());
        let shared = prop_oneof![
            two().prop_map(|(a, b)| Expr::Sum(a, b)),
            two().prop_map(|(a, b)| Expr::Max(a, b)),
            part.clone().prop_map(Expr::Half),
        ];
        let step = (three(), any::<u8>()).prop_map(|((a, b, c), at)| Expr::Step(a, at % 16, b, c));
        let free = prop_oneof![
            1 => two().prop_map(|(a, b)| Expr::Xor(a, b)),
            3 => three().prop_map(|(a, b, c)| Expr::If(a, b, c)),
            1 => part.clone().prop_map(Expr::Fail),
        ];
        match dialect {
            Dialect::Monotone => prop_oneof![shared, step].boxed(),
            Dialect::Exact => prop_oneof![4 => shared, 5 => free, 1 => part.clone().prop_map(Expr::Untracked)].boxed(),
            Dialect::Faulty => prop_oneof![4 => shared, 4 => free, 2 => part.clone().prop_map(Expr::Panic)].boxed(),
        }
    })
}

fn program(dialect: Dialect, most: usize, depth: u32) -> impl Strategy<Value = Program> {
    let kind = prop_oneof![Just(Kind::Word), Just(Kind::Boxed), Just(Kind::Text), Just(Kind::AsyncWord), Just(Kind::AsyncBoxed)];
    let bodies = [expr(dialect, depth), expr(dialect, depth), expr(dialect, depth)];
    let rule = (kind, any::<bool>(), bodies).prop_map(|(kind, cut_off, bodies)| Rule { kind, cut_off, bodies });
    // Few sources: long lists of dependants.
    let read = prop_oneof![3 => Just(SOURCES), 1 => Just(2)];
    (proptest::collection::vec(rule, 1..=most), read).prop_map(|(rules, read)| Program { read, ..Program::new(rules) })
}

fn op() -> impl Strategy<Value = Op> {
    let number = any::<u8>;
    prop_oneof![
        8 => number().prop_map(Op::Get),
        5 => (number(), number()).prop_map(|(source, value)| Op::Set(source, value)),
        1 => number().prop_map(Op::SetSame),
        2 => (proptest::collection::vec((number(), number()), 0..4), proptest::collection::vec(number(), 0..3))
            .prop_map(|(sets, marks)| Op::Batch(sets, marks)),
        1 => number().prop_map(Op::ThereAndBack),
        1 => number().prop_map(Op::GetMany),
        1 => number().prop_map(Op::Resolve),
        2 => number().prop_map(Op::Hold),
        2 => number().prop_map(Op::Watch),
        1 => number().prop_map(Op::Update),
        1 => number().prop_map(Op::Release),
        2 => number().prop_map(Op::Invalidate),
        1 => number().prop_map(Op::InvalidateAll),
        1 => Just(Op::Everything),
        1 => number().prop_map(Op::Remove),
        1 => number().prop_map(Op::Reborn),
        1 => Just(Op::Collect),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let number = any::<u8>;
    prop_oneof![
        8 => number().prop_map(Act::Get),
        2 => number().prop_map(Act::Peek),
        2 => number().prop_map(Act::Fresh),
        2 => (number(), number()).prop_map(|(a, b)| Act::Snapshot(a, b)),
        3 => number().prop_map(Act::Raise),
        1 => (number(), number()).prop_map(|(a, b)| Act::RaiseTwo(a, b)),
        1 => number().prop_map(Act::Invalidate),
        1 => number().prop_map(Act::Remove),
        1 => number().prop_map(Act::Leave),
        1 => Just(Act::Collect),
    ]
}

proptest! {
    #![proptest_config(config(1500))]

    /// I1, I8-I14, I16-I19, I21-I25, I31, I32, I34 after every operation: see `sequential`.
    #[test]
    fn one_thread_does_exactly_what_the_oracle_says(
        program in program(Dialect::Exact, 5, 3),
        ops in proptest::collection::vec(op(), 1..60),
        parallel in any::<bool>(),
    ) {
        run_exact(&program, &ops, parallel);
    }

    /// I1, I26, I27, I31 with bodies that panic.
    #[test]
    fn panics_are_faults_for_those_who_asked_and_are_never_cached(
        program in program(Dialect::Faulty, 2, 2),
        ops in proptest::collection::vec(op(), 1..40),
        parallel in any::<bool>(),
    ) {
        run_faulty(&program, &ops, parallel);
    }
}

proptest! {
    #![proptest_config(config(150))]

    /// I20: sequential and parallel sweeps leave the same events behind. I40: so does running the program again.
    #[test]
    fn the_same_program_leaves_the_same_events_however_sweeps_are_shared(
        program in program(Dialect::Exact, 4, 3),
        ops in proptest::collection::vec(op(), 1..40),
    ) {
        let sorted = |parallel| {
            // Within a commit the order of marks is the sweep's own; a key's slot does not depend on it.
            let mut events = run_exact(&program, &ops, parallel);
            events.sort_by_key(|event| (event.commit, event.slot, format!("{:?}", event.what)));
            events
        };
        let first = sorted(false);
        prop_assert_eq!(&first, &sorted(false), "I40");
        prop_assert_eq!(&first, &sorted(true), "I20");
    }
}

proptest! {
    #![proptest_config(config(500))]

    /// I1, I2, I3, I4, I7, I26 while three threads run; I5, I8-I14, I31 when they have stopped.
    #[test]
    fn threads_never_see_an_old_value_and_agree_at_the_end(
        program in program(Dialect::Monotone, 4, 3),
        scripts in proptest::collection::vec(proptest::collection::vec(act(), 1..60), 2..4),
        parallel in any::<bool>(),
    ) {
        let builder = Engine::builder();
        let builder = if parallel { builder.sweep_threads(2).parallel_threshold(1) } else { builder.sweep_threads(1) };
        concurrent::run(&program, &scripts, builder);
    }

    /// The same while the engine holds fewer nodes than there are: I30. What is not kept costs what it would without a cache, so the
    /// programs are small.
    #[test]
    fn threads_never_see_an_old_value_whatever_is_evicted(
        program in program(Dialect::Monotone, 2, 2),
        scripts in proptest::collection::vec(proptest::collection::vec(act(), 1..40), 2..4),
        entries in 2..5_usize,
    ) {
        concurrent::run(&program, &scripts, Engine::builder().sweep_threads(1).capacity(Capacity::entries(entries)));
    }
}
