//! What must hold under every interleaving, driven through the production modules: exhaustively by loom for the races of
//! two or three actors, by seeded schedules of shuttle for the whole engine.

#[cfg(all(shuttle, not(loom)))]
mod lives;
#[cfg(loom)]
mod races;
#[cfg(all(shuttle, not(loom)))]
mod schedules;
