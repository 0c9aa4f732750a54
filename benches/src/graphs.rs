//! The shapes a sweep runs over, and the plain breadth-first search that is its bound.

use crate::keys::Dice;

/// A dependency graph in which every node is reachable from `root`.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What each node reads.
    pub reads: Vec<Vec<u32>>,
    /// Who reads each node.
    pub dependants: Vec<Vec<u32>>,
    /// Every node after everything it reads.
    pub order: Vec<u32>,
    /// The node whose change reaches all others.
    pub root: u32,
}

impl Shape {
    /// Builds the shape in which node `n` reads `reads(n)`, all of which are below `n`.
    fn from_reads(nodes: u32, mut reads: impl FnMut(u32) -> Vec<u32>) -> Self {
        let reads: Vec<Vec<u32>> = (0..nodes).map(&mut reads).collect();
        Self { dependants: turned(&reads), reads, order: (0..nodes).collect(), root: 0 }
    }

    /// Node `n + 1` reads node `n`.
    pub fn chain(nodes: u32) -> Self {
        Self::from_reads(nodes, |node| node.checked_sub(1).into_iter().collect())
    }

    /// Every node reads the root.
    pub fn star(nodes: u32) -> Self {
        Self::from_reads(nodes, |node| if node == 0 { vec![] } else { vec![0] })
    }

    /// Every node is read by ten others.
    pub fn tree(nodes: u32) -> Self {
        Self::from_reads(nodes, |node| node.checked_sub(1).map(|below| below / 10).into_iter().collect())
    }

    /// Every node reads `fan_in` different lower ones, early ones more often: out-degrees follow a power law.
    pub fn random(nodes: u32, fan_in: u32) -> Self {
        let mut dice = Dice::new(0x5eed);
        Self::from_reads(nodes, |node| {
            let mut reads: Vec<u32> = Vec::new();
            while reads.len() < fan_in.min(node) as usize {
                let lower = (f64::from(node) * dice.unit().powi(2)) as u32;
                if !reads.contains(&lower) {
                    reads.push(lower);
                }
            }
            reads
        })
    }

    /// A ladder of diamonds: two paths per rung, 2^rungs paths from end to end.
    pub fn ladder(rungs: u32) -> Self {
        Self::from_reads(1 + 3 * rungs, |node| match node.checked_sub(1) {
            None => vec![],
            Some(step) if step % 3 == 2 => vec![node - 2, node - 1],
            Some(step) => vec![node - 1 - step % 3],
        })
    }

    /// A shop's graph under one price list: 68,000 prices read it, 156,000 basket totals read a zipf-like handful of
    /// prices each, and 2,469 households and 457 stores read the totals. Synthetic, with the counts of the real one
    /// (about 230,000 nodes and 1.5 million edges).
    pub fn shop() -> Self {
        const PRODUCTS: u32 = 68_000;
        const BASKETS: u32 = 156_000;
        const HOUSEHOLDS: u32 = 2_469;
        const STORES: u32 = 457;
        let mut dice = Dice::new(0x5409);
        let first_basket = 1 + PRODUCTS;
        let first_household = first_basket + BASKETS;
        let mut sums = vec![Vec::new(); (HOUSEHOLDS + STORES) as usize];
        for basket in first_basket..first_household {
            sums[dice.below(HOUSEHOLDS) as usize].push(basket);
            sums[(HOUSEHOLDS + dice.below(STORES)) as usize].push(basket);
        }
        Self::from_reads(first_household + HOUSEHOLDS + STORES, |node| {
            if node == 0 {
                vec![]
            } else if node < first_basket {
                vec![0]
            } else if node < first_household {
                // 1 to 14 lines, popular products far more often than the rest.
                let lines = 1 + dice.below(14) as usize;
                let mut products: Vec<u32> = Vec::with_capacity(lines);
                while products.len() < lines {
                    let product = 1 + (f64::from(PRODUCTS) * dice.unit().powi(3)) as u32;
                    if !products.contains(&product) {
                        products.push(product);
                    }
                }
                products
            } else {
                std::mem::take(&mut sums[(node - first_household) as usize])
            }
        })
    }

    /// The same graph with its nodes numbered, and so allocated, in random order.
    pub fn shuffled(self) -> Self {
        let place = Dice::new(0x0dd5).shuffled(self.nodes());
        let mut reads = vec![Vec::new(); place.len()];
        for (node, list) in self.reads.into_iter().enumerate() {
            reads[place[node] as usize] = list.into_iter().map(|read| place[read as usize]).collect();
        }
        let order = self.order.into_iter().map(|node| place[node as usize]).collect();
        Self { dependants: turned(&reads), reads, order, root: place[self.root as usize] }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> u32 {
        self.reads.len() as u32
    }

    /// How many edges there are.
    pub fn edges(&self) -> usize {
        self.reads.iter().map(Vec::len).sum()
    }
}

fn turned(reads: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut dependants = vec![Vec::new(); reads.len()];
    for (node, list) in reads.iter().enumerate() {
        for &read in list {
            dependants[read as usize].push(node as u32);
        }
    }
    dependants
}

/// A breadth-first search with a queue and a visited bitmap, both reused between runs.
#[derive(Debug, Default)]
pub struct Search {
    queue: Vec<u32>,
    visited: Vec<u64>,
}

impl Search {
    /// Visits all that `root` reaches and returns how many nodes that was, the root included.
    pub fn run(&mut self, dependants: &[Vec<u32>], root: u32) -> usize {
        self.visited.clear();
        self.visited.resize(dependants.len().div_ceil(64), 0);
        self.queue.clear();
        self.queue.push(root);
        self.visited[root as usize / 64] |= 1 << (root % 64);
        let mut next = 0;
        while let Some(&node) = self.queue.get(next) {
            next += 1;
            for &dependant in &dependants[node as usize] {
                let (word, bit) = (dependant as usize / 64, 1u64 << (dependant % 64));
                if self.visited[word] & bit == 0 {
                    self.visited[word] |= bit;
                    self.queue.push(dependant);
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_reachable_from_its_root_and_ordered() {
        let shapes = [
            Shape::chain(100),
            Shape::star(100),
            Shape::tree(1_000),
            Shape::random(1_000, 5),
            Shape::ladder(64),
            Shape::chain(100).shuffled(),
            Shape::tree(1_000).shuffled(),
        ];
        for shape in shapes {
            assert_eq!(Search::default().run(&shape.dependants, shape.root), shape.nodes() as usize);
            let mut done = vec![false; shape.nodes() as usize];
            for &node in &shape.order {
                assert!(shape.reads[node as usize].iter().all(|&read| done[read as usize]));
                done[node as usize] = true;
            }
            assert!(done.into_iter().all(|done| done));
        }
    }

    #[test]
    fn the_shop_has_the_counts_its_name_promises() {
        let shop = Shape::shop();
        assert!((220_000..240_000).contains(&shop.nodes()), "{}", shop.nodes());
        assert!((1_400_000..1_700_000).contains(&shop.edges()), "{}", shop.edges());
    }

    #[test]
    fn a_ladder_has_two_paths_a_rung() {
        let ladder = Shape::ladder(64);
        let mut paths = vec![0u128; ladder.nodes() as usize];
        paths[0] = 1;
        for node in 1..ladder.nodes() {
            paths[node as usize] = ladder.reads[node as usize].iter().map(|&read| paths[read as usize]).sum();
        }
        assert_eq!(paths.last().copied(), Some(1 << 64));
    }
}
