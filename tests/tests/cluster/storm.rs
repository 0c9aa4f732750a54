//! Four servers, random commands, random faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use wellspring_commands::LogPosition;
use wellspring_tests::cluster::{
    Answer, Ask, Database, Fail, GROUPS, Job, LANES, Ledger, Member, News, Place, ROWS, Setup, group_key, lane_key,
};

use crate::crowd::{Crowd, done, run, well};
use crate::stranger::Stranger;
use crate::{seed, torture_time};

/// By how much their clocks are wrong: minutes, and both ways.
const SKEWS: [i64; 4] = [0, 300, -240, 60];

/// Whose clock is the fastest: to whom everything is old enough to be trimmed.
const FASTEST: usize = 1;

/// Servers in a storm.
pub(crate) struct Storm {
    seed: u64,
    database: Database,
    crowd: Crowd,
    until: Instant,
    ledger: Mutex<Ledger>,
    wrong: Mutex<Vec<String>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Storm {
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.counts.lock().expect("no panic").entry(what).or_default() += 1;
    }

    fn ledger<T>(&self, with: impl FnOnce(&mut Ledger) -> T) -> T {
        with(&mut self.ledger.lock().expect("no panic"))
    }

    /// A caller: one command after the other, on any server, until each is acknowledged, refused or given up.
    async fn call(self: Arc<Storm>, lane: u32) {
        let mut random = fastrand::Rng::with_seed(self.seed ^ u64::from(lane) << 32);
        // Of the lane's own row: what it was set to last, and where that is in the log.
        let mut set = None;
        let mut number = 0;
        while !self.is_over() {
            number += 1;
            let id = format!("{}-{lane}-{number}", self.seed);
            let own = random.u32(..3) == 0;
            let job = match random.u32(..12) {
                _ if own => Job::put(lane_key(lane), number),
                0 => Job::Fail(Fail { key: group_key(random.u32(..GROUPS), random.u32(..ROWS)), late: random.bool() }),
                _ => Job::random(&mut random),
            };
            self.ledger(|ledger| ledger.asked(&id));
            let mut certain = true;
            while !self.is_over() {
                let member = self.crowd.member(random.usize(..self.crowd.len())).await;
                match run(&member, &id, &job).await {
                    Ok(Answer::Done { token, position, repeated }) => {
                        self.ledger(|ledger| ledger.done(&id, token));
                        self.count(if repeated { "done before" } else { "done" });
                        if own {
                            set = Some((number, position));
                            // Whoever has the reply reads what it is about, without waiting for anything.
                            self.read(lane, number, &member, "who has replied to that").await;
                        }
                        if let Some((value, position)) = set {
                            self.look(lane, value, position, random.usize(..self.crowd.len())).await;
                        }
                        break;
                    }
                    Ok(Answer::Refused { certain: true, .. }) => {
                        let fails = matches!(job, Job::Fail(_));
                        if fails || (!own && random.bool()) {
                            // Of an earlier try nothing may be known.
                            if fails || certain {
                                self.ledger(|ledger| ledger.refused(&id));
                            }
                            self.count("refused");
                            break;
                        }
                        self.count("tried again");
                        // The database may be away, which is said at once.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Ok(_) | Err(_) => {
                        certain = false;
                        self.count("nobody knows");
                        if !own && random.u32(..4) == 0 {
                            break;
                        }
                    }
                }
            }
        }
    }

    /// What a server that has applied an operation reads is no older.
    async fn look(&self, lane: u32, set: i64, position: LogPosition, index: usize) {
        let member = self.crowd.member(index).await;
        if member.ask(Ask::Wait { position }).await.is_ok() {
            self.read(lane, set, &member, &format!("server {index}, which had waited for that,")).await;
        }
    }

    async fn read(&self, lane: u32, set: i64, member: &Member, who: &str) {
        if let Ok(Answer::Value(value)) = member.ask(Ask::Row { key: lane_key(lane) }).await
            && value != Some(set)
        {
            let text = format!("lane {lane} was set to {set}, and {who} read {value:?}");
            self.wrong.lock().expect("no panic").push(text);
        }
    }

    /// Whatever may happen to servers.
    async fn rage(self: Arc<Storm>) {
        let mut random = fastrand::Rng::with_seed(self.seed);
        while !self.is_over() {
            let index = random.usize(..self.crowd.len());
            match random.u32(..8) {
                6 | 7 => self.disconnect(&mut random).await,
                0..=2 => {
                    self.look_for_losses(index).await;
                    self.crowd.kill(index).await;
                    self.count("killed");
                }
                3 | 4 => {
                    let member = self.crowd.member(index).await;
                    member.stop();
                    tokio::time::sleep(Duration::from_millis(random.u64(50..1000))).await;
                    if random.bool() {
                        let other = if index == FASTEST { 0 } else { FASTEST };
                        // Not for longer: the log may be locked by the one that is stopped.
                        let _ = tokio::time::timeout(Duration::from_millis(500), self.trim(other, 0).await).await;
                    }
                    member.go_on();
                    self.count("stopped");
                }
                _ => drop(self.trim(index, random.u64(..500)).await),
            }
            tokio::time::sleep(Duration::from_millis(random.u64(..200))).await;
        }
    }

    /// Ends some of the members' sessions on the database's side.
    async fn disconnect(&self, random: &mut fastrand::Rng) {
        let Database::Postgres { schema, .. } = &self.database else { return };
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity
             WHERE application_name = '{schema}' AND pid <> pg_backend_pid() ORDER BY random() LIMIT {}) AS chosen",
            random.u32(1..6)
        );
        self.database.execute(&sql).await.expect("disconnected");
        self.count("disconnected");
    }

    /// What a member has told of lost coverage is counted before it is killed, and at the end.
    async fn look_for_losses(&self, index: usize) {
        let news = self.crowd.member(index).await.news();
        news.iter().filter(|news| matches!(news, News::Lost(_))).for_each(|_| self.count("lost coverage"));
    }

    async fn trim(self: &Arc<Storm>, index: usize, keep_ms: u64) -> JoinHandle<()> {
        let member = self.crowd.member(index).await;
        let storm = self.clone();
        tokio::spawn(async move {
            if member.ask(Ask::Trim { keep_ms }).await == Ok(Answer::Well) {
                storm.count("trimmed");
            }
        })
    }
}

/// Lets it rage for a while, and then looks at what is left.
pub(crate) async fn storm<F: Future<Output = ()>>(place: &Place, seed: u64, weather: impl FnOnce(Arc<Storm>) -> F) {
    let setup = |skew_seconds| Setup { skew_seconds, moody: Some(seed), ..Setup::of(&place.backend) };
    let storm = Arc::new(Storm {
        seed,
        database: place.backend.database.clone(),
        crowd: Crowd::start(SKEWS.map(setup).into()).await,
        until: Instant::now() + torture_time(),
        ledger: Mutex::default(),
        wrong: Mutex::default(),
        counts: Mutex::default(),
    });
    let lanes: Vec<_> = (0..LANES).map(|lane| tokio::spawn(storm.clone().call(lane))).collect();
    weather(storm.clone()).await;
    for lane in lanes {
        lane.await.expect("no panic");
    }
    // The last word of every server has to reach every other.
    let mut positions = Vec::new();
    for index in 0..storm.crowd.len() {
        let (id, job) = (format!("{seed}-last-{index}"), Job::add(group_key(0, 0), 1));
        let (token, position, _) = done(&*storm.crowd.member(index).await, &id, &job).await;
        storm.ledger(|ledger| ledger.done(&id, token));
        positions.push(position);
    }
    for index in 0..storm.crowd.len() {
        for &position in &positions {
            well(&*storm.crowd.member(index).await, Ask::Wait { position }).await;
        }
    }
    let when = format!("WELLSPRING_SEED={seed}");
    let cached = storm.crowd.check(&when).await;
    for index in 0..storm.crowd.len() {
        let Ok(Answer::Stats(figures)) = storm.crowd.member(index).await.ask(Ask::Stats).await else { panic!("{when}: no figures") };
        assert_eq!((figures.poisoned, figures.is_blind), (0, false), "{when}");
        storm.look_for_losses(index).await;
    }
    let dump = place.backend.database.dump().await.expect("dumped");
    let mut wrong = storm.wrong.lock().expect("no panic").clone();
    wrong.extend(storm.ledger(|ledger| ledger.compare(&dump, true)));
    assert!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
    let acknowledged = storm.ledger(|ledger| ledger.acknowledged());
    println!("{acknowledged} commands acknowledged, {} done, {:?}", dump.done.len(), storm.counts.lock().expect("no panic"));
    println!("{cached} cached values are fresh");
    assert!(cached > 0 && acknowledged > 50, "hardly anything was done");
}

everywhere!(after_a_storm_every_server_is_fresh_and_every_command_done_once, |place| {
    let seed = seed("storm");
    // As long as it stands, nothing is trimmed.
    let stranger = match seed % 2 {
        0 => Stranger::begin(&place.backend.database).await,
        _ => None,
    };
    storm(&place, seed, Storm::rage).await;
    if let Some(stranger) = stranger {
        stranger.end().await;
    }
});
