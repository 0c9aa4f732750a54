//! Beside salsa: one thread, 256 trees of four tracked functions over an input, the shape of salsa's own query benchmark.
//!
//! `salsa/hit`: every root again, nothing changed. Ours asks with `get`, no pin held.
//! `salsa/deep-verify`: an input all trees read changes, the lowest function of each tree runs and returns what it returned
//! before, and everything above is verified without running. Ours rests on the cut-off rule, salsa on backdating.
//! `salsa/deep-verify/unrelated`: something no tree reads changes. salsa walks each tree to find that out; we are told by
//! the sweep, which marks nothing.

use std::hint::black_box;

use wellspring::{Engine, Function, Source};

use super::Scenario;
use crate::rounds::nanos_each;
use crate::{Plan, Row};

/// The rows of this module.
pub const SCENARIOS: &[Scenario] = &[Scenario { name: "salsa/hit", run: hit }, Scenario { name: "salsa/deep-verify", run: deep_verify }];

/// Roots of a forest.
pub const ROOTS: u64 = 256;

/// Our 256 trees: root(i) reads upper(i) and middle(i), upper reads middle, middle reads leaf, leaf reads the clock.
#[derive(Debug)]
pub struct Forest {
    engine: Engine,
    clock: Source<u64, u64>,
    unrelated: Source<u64, u64>,
    root: Function<u64, u64>,
    turn: u64,
}

impl Forest {
    /// Builds and computes the trees.
    pub fn new() -> Self {
        let engine = Engine::new();
        let named = "the name is free";
        let clock = engine.source("clock", |_: &u64| 0u64).expect(named);
        let unrelated = engine.source("unrelated", |_: &u64| 0u64).expect(named);
        let leaf = tracked(&engine, "leaf", {
            let clock = clock.clone();
            move |cx, key| (read(clock.get(cx, &0)) & (1 << 63)) + key
        });
        let middle = tracked(&engine, "middle", move |cx, key| read(leaf.get(cx, &key)) + 1);
        let upper = tracked(&engine, "upper", {
            let middle = middle.clone();
            move |cx, key| read(middle.get(cx, &key)) + 1
        });
        let root = tracked(&engine, "root", move |cx, key| read(upper.get(cx, &key)) + read(middle.get(cx, &key)));
        let mut this = Self { engine, clock, unrelated, root, turn: 0 };
        this.sum();
        this
    }

    /// Asks for every root.
    pub fn sum(&mut self) -> u64 {
        (0..ROOTS).fold(0u64, |sum, key| sum + read(self.root.get(&self.engine, &key)))
    }

    /// Moves the clock without changing any leaf.
    pub fn tick(&mut self) {
        self.turn += 1;
        self.clock.set(&0, self.turn);
    }

    /// Changes what nobody reads.
    pub fn tick_unrelated(&mut self) {
        self.turn += 1;
        self.unrelated.set(&0, self.turn);
    }
}

impl Default for Forest {
    fn default() -> Self {
        Self::new()
    }
}

fn tracked(engine: &Engine, name: &str, body: impl Fn(&wellspring::Cx, u64) -> u64 + Send + Sync + 'static) -> Function<u64, u64> {
    engine.define(name).cut_off_eq().function(move |cx, &key: &u64| body(cx, key)).expect("the name is free")
}

fn read(value: Result<u64, wellspring::Fault>) -> u64 {
    value.expect("no body fails")
}

/// Nanoseconds per root over 100 turns of `step`.
fn per_root(step: &mut dyn FnMut() -> u64) -> f64 {
    const TURNS: usize = 100;
    nanos_each(TURNS * ROOTS as usize, || {
        black_box((0..TURNS).fold(0u64, |sum, _| sum.wrapping_add(step())));
    })
}

#[cfg(not(feature = "peers"))]
mod rows {
    use super::*;
    use crate::Unit;
    use crate::rounds::alternate;
    use crate::scenario::NOT_BUILT;

    fn alone(name: &str, plan: Plan, step: &mut dyn FnMut() -> u64) -> Row {
        let [ours] = alternate(plan.rounds(), [&mut || per_root(step)]);
        Row::alone(name, 1, Unit::NANOS, &ours, format!("salsa: {NOT_BUILT}"))
    }

    pub(super) fn hit(name: &str, plan: Plan) -> Vec<Row> {
        let mut forest = Forest::new();
        vec![alone(name, plan, &mut || forest.sum())]
    }

    pub(super) fn deep_verify(name: &str, plan: Plan) -> Vec<Row> {
        let mut forest = Forest::new();
        let verified = alone(name, plan, &mut || {
            forest.tick();
            forest.sum()
        });
        let unrelated = alone(&format!("{name}/unrelated"), plan, &mut || {
            forest.tick_unrelated();
            forest.sum()
        });
        vec![verified, unrelated]
    }
}

#[cfg(feature = "peers")]
mod rows {
    use super::peer::SalsaForest;
    use super::*;
    use crate::Unit;
    use crate::rounds::alternate;

    fn versus(name: &str, plan: Plan, ours: &mut dyn FnMut() -> u64, theirs: &mut dyn FnMut() -> u64) -> Row {
        assert_eq!(ours(), theirs(), "both sides compute the same sums");
        let [ours, theirs] = alternate(plan.rounds(), [&mut || per_root(ours), &mut || per_root(theirs)]);
        Row::versus(name, 1, Unit::NANOS, &ours, "salsa tracked functions", &theirs)
    }

    pub(super) fn hit(name: &str, plan: Plan) -> Vec<Row> {
        let (mut forest, salsa) = (Forest::new(), SalsaForest::new());
        vec![versus(name, plan, &mut || forest.sum(), &mut || salsa.sum())]
    }

    pub(super) fn deep_verify(name: &str, plan: Plan) -> Vec<Row> {
        let (mut forest, mut salsa) = (Forest::new(), SalsaForest::new());
        let verified = versus(
            name,
            plan,
            &mut || {
                forest.tick();
                forest.sum()
            },
            &mut || {
                salsa.tick();
                salsa.sum()
            },
        );
        let unrelated = versus(
            &format!("{name}/unrelated"),
            plan,
            &mut || {
                forest.tick_unrelated();
                forest.sum()
            },
            &mut || {
                salsa.tick_unrelated();
                salsa.sum()
            },
        );
        vec![verified, unrelated]
    }
}

use rows::{deep_verify, hit};

#[cfg(feature = "peers")]
pub use peer::StableSalsa;

#[cfg(feature = "peers")]
mod peer {
    use salsa::{Database, DatabaseImpl, Durability, Setter};

    use super::ROOTS;
    use crate::scenario::compute::Stable;

    #[salsa::input]
    struct Clock {
        #[returns(copy)]
        now: u64,
    }

    #[salsa::input]
    struct Tree {
        #[returns(copy)]
        key: u64,
        #[returns(copy)]
        clock: Clock,
    }

    #[salsa::tracked(returns(copy))]
    fn leaf(db: &dyn Database, tree: Tree) -> u64 {
        (tree.clock(db).now(db) & (1 << 63)) + tree.key(db)
    }

    #[salsa::tracked(returns(copy))]
    fn middle(db: &dyn Database, tree: Tree) -> u64 {
        leaf(db, tree) + 1
    }

    #[salsa::tracked(returns(copy))]
    fn upper(db: &dyn Database, tree: Tree) -> u64 {
        middle(db, tree) + 1
    }

    #[salsa::tracked(returns(copy))]
    fn root(db: &dyn Database, tree: Tree) -> u64 {
        upper(db, tree) + middle(db, tree)
    }

    pub(super) struct SalsaForest {
        db: DatabaseImpl,
        clock: Clock,
        trees: Vec<Tree>,
        turn: u64,
    }

    impl SalsaForest {
        pub(super) fn new() -> Self {
            let db = DatabaseImpl::default();
            let clock = Clock::new(&db, 0);
            let trees = (0..ROOTS).map(|key| Tree::new(&db, key, clock)).collect();
            let this = Self { db, clock, trees, turn: 0 };
            this.sum();
            this
        }

        pub(super) fn sum(&self) -> u64 {
            self.trees.iter().fold(0u64, |sum, &tree| sum + root(&self.db, tree))
        }

        pub(super) fn tick(&mut self) {
            self.turn += 1;
            self.clock.set_now(&mut self.db).to(self.turn);
        }

        pub(super) fn tick_unrelated(&mut self) {
            self.db.synthetic_write(Durability::LOW);
        }
    }

    #[salsa::input]
    struct Cell {
        #[returns(copy)]
        value: u64,
    }

    #[salsa::input]
    struct Sum {
        #[returns(ref)]
        cells: Vec<Cell>,
    }

    #[salsa::tracked(returns(copy))]
    fn total(db: &dyn Database, sum: Sum) -> u64 {
        sum.cells(db).iter().fold(0u64, |total, cell| total.wrapping_add(cell.value(db)))
    }

    /// [`Stable`] in salsa.
    pub struct StableSalsa {
        db: DatabaseImpl,
        cells: Vec<Cell>,
        sums: Vec<Sum>,
        turn: u64,
    }

    impl std::fmt::Debug for StableSalsa {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("StableSalsa").field("turn", &self.turn).finish_non_exhaustive()
        }
    }

    impl StableSalsa {
        /// Builds and computes it.
        pub fn new() -> Self {
            let db = DatabaseImpl::default();
            let cells: Vec<Cell> = (0..Stable::RESULTS).map(|_| Cell::new(&db, 0)).collect();
            let sums =
                Stable::deps().into_iter().map(|deps| Sum::new(&db, deps.into_iter().map(|dep| cells[dep as usize]).collect())).collect();
            let mut this = Self { db, cells, sums, turn: 0 };
            this.round();
            this
        }

        /// Sets every input and fetches every sum.
        pub fn round(&mut self) -> u64 {
            self.turn += 1;
            for (index, cell) in self.cells.iter().enumerate() {
                cell.set_value(&mut self.db).to(self.turn + index as u64);
            }
            self.sums.iter().fold(0u64, |sum, &node| sum.wrapping_add(total(&self.db, node)))
        }
    }

    impl Default for StableSalsa {
        fn default() -> Self {
            Self::new()
        }
    }
}
