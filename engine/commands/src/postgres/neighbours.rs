//! Transactions of the cluster's other databases.
//!
//! Transaction ids are the whole cluster's, and so are snapshots: a transaction of another database that lives for hours is among those that
//! run for as long. But a transaction stays in the database it began in, so that one never has an operation here. Readers and trimming
//! pass over it. One of this database that is not ours may still append by itself, so nobody passes over that.
//!
//! Who runs where is looked at after the snapshot. A session that has an id which was running in the snapshot has had it all the
//! while, so its database is that of the transaction. Whoever has ended by then, or is not found, counts as one of this database.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cursor::Origin;
use super::snapshot::Snapshot;

/// The `xid`s of transactions that run in other databases: what `{neighbours}` stands for in a statement.
pub(super) const NEIGHBOURS: &str = "
    SELECT backend_xid AS xid FROM pg_stat_activity WHERE backend_xid IS NOT NULL
        AND datid <> (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT transaction FROM pg_prepared_xacts WHERE database <> current_database()";

/// The first transaction that runs in this database, or would be the next to begin: what `{horizon}` stands for. All below had ended that
/// can have an operation.
pub(super) const HORIZON: &str = "coalesce(
    (SELECT id FROM pg_snapshot_xip(pg_current_snapshot()) AS id WHERE id::xid NOT IN (SELECT xid FROM ({neighbours}) AS others)
        ORDER BY id LIMIT 1), pg_snapshot_xmax(pg_current_snapshot()))";

/// A reading looks at most so often: whom this is about lives for longer.
const PERIOD: Duration = Duration::from_secs(1);

/// What the readers of one log know of transactions of other databases.
#[derive(Debug, Default)]
pub(super) struct Neighbours(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Within which ids mean what they say.
    origin: Option<Origin>,
    /// Found at the last look, in ascending order.
    known: Vec<u64>,
    /// Found at the look before, and ended since: a reader may have a cursor from then.
    ended: Vec<u64>,
    looked: Option<Instant>,
}

impl Neighbours {
    /// Whether the reading that is made now is to look. The one that is told so does it for all.
    pub(super) fn is_look_due(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.looked.is_none_or(|looked| looked.elapsed() >= PERIOD);
        if due {
            state.looked = Some(Instant::now());
        }
        due
    }

    /// Adds what a look at a moment of this snapshot or later has found, if there was one, and says what is known, in any order.
    ///
    /// Sessions show the lower half of an id. Those that were running in one snapshot are within a range in which that is enough; an older
    /// cursor's need not be, so only ids of this one are learned.
    pub(super) fn learn(&self, origin: &Origin, snapshot: &Snapshot, found: Option<&[u32]>) -> Vec<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.origin.as_ref() != Some(origin) {
            *state = State { origin: Some(origin.clone()), looked: state.looked, ..State::default() };
        }
        if let Some(found) = found {
            let is_found = |id: &u64| found.contains(&((id & u64::from(u32::MAX)) as u32));
            let known = snapshot.running.iter().copied().filter(is_found).collect();
            state.ended = std::mem::replace(&mut state.known, known);
        }
        state.known.iter().chain(&state.ended).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LogId;

    fn origin(boot: &str) -> Origin {
        Origin { log: LogId::from_u128(1), timeline: "1".into(), boot: boot.into(), tables: 7 }
    }

    #[test]
    fn a_neighbour_is_known_until_a_look_after_its_end_and_in_no_other_origin() {
        let (here, neighbours) = (origin("a"), Neighbours::default());
        let running: Snapshot = "4294967300:4294967320:4294967300,4294967305".parse().expect("a snapshot");
        let later: Snapshot = "4294967305:4294967330:4294967305".parse().expect("a snapshot");
        assert!(neighbours.learn(&here, &running, None).is_empty());
        // The one of the sessions found is none of the snapshot.
        assert_eq!(neighbours.learn(&here, &running, Some(&[4, 77])), [4_294_967_300]);
        assert_eq!(neighbours.learn(&here, &later, None), [4_294_967_300]);
        assert_eq!(neighbours.learn(&here, &later, Some(&[])), [4_294_967_300]);
        assert_eq!(neighbours.learn(&here, &later, Some(&[9])), [4_294_967_305]);
        assert!(neighbours.learn(&origin("b"), &later, None).is_empty());
    }
}
