//! Several members over one database.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::RwLock;
use wellspring_tests::cluster::{Answer, Ask, Gone, Job, Member, News, Setup};

/// Members, each replaceable.
pub(crate) struct Crowd {
    setups: Vec<Setup>,
    slots: Vec<RwLock<Arc<Member>>>,
}

pub(crate) async fn start(setup: &Setup) -> Arc<Member> {
    Member::start(Path::new(env!("CARGO_BIN_EXE_member")), setup).await.expect("a member starts")
}

impl Crowd {
    pub(crate) async fn start(setups: Vec<Setup>) -> Crowd {
        let mut slots = Vec::new();
        for setup in &setups {
            slots.push(RwLock::new(start(setup).await));
        }
        Crowd { setups, slots }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The member that is there now, or the next one if it is being replaced.
    pub(crate) async fn member(&self, index: usize) -> Arc<Member> {
        self.slots[index].read().await.clone()
    }

    /// Puts a new member into the place of one that is dead.
    pub(crate) async fn replace(&self, index: usize) -> Arc<Member> {
        let mut slot = self.slots[index].write().await;
        *slot = start(&self.setups[index]).await;
        slot.clone()
    }

    /// `kill -9`, and another in its place. Who asks for it meanwhile waits.
    pub(crate) async fn kill(&self, index: usize) {
        let mut slot = self.slots[index].write().await;
        slot.kill().await;
        *slot = start(&self.setups[index]).await;
    }

    /// Compares what is cached on every member with direct SQL; how many values that were.
    pub(crate) async fn check(&self, when: &str) -> usize {
        let mut all = 0;
        for index in 0..self.len() {
            all += check(&*self.member(index).await, &format!("member {index}, {when}")).await;
        }
        all
    }
}

pub(crate) async fn check(member: &Member, when: &str) -> usize {
    match member.ask(Ask::Check).await {
        Ok(Answer::Checked { cached, wrong }) => {
            assert!(wrong.is_empty(), "stale: {when}:\n{}", wrong.join("\n"));
            cached
        }
        other => panic!("{when}: not checked: {other:?}"),
    }
}

pub(crate) async fn run(member: &Member, id: &str, job: &Job) -> Result<Answer, Gone> {
    member.ask(Ask::Run { id: id.to_owned(), job: job.clone() }).await
}

/// Runs a command that has to be done.
pub(crate) async fn done(member: &Member, id: &str, job: &Job) -> (i64, wellspring_commands::LogPosition, bool) {
    match run(member, id, job).await {
        Ok(Answer::Done { token, position, repeated }) => (token, position, repeated),
        other => panic!("command {id}, {job:?}, was not done: {other:?}"),
    }
}

/// Asks for what has to be so.
pub(crate) async fn well(member: &Member, ask: Ask) {
    let answer = member.ask(ask.clone()).await;
    assert_eq!(answer, Ok(Answer::Well), "{ask:?}");
}

/// How often a member has told that it lost coverage, other than by a relay's first words.
pub(crate) fn losses(member: &Member) -> usize {
    member.news().iter().filter(|news| matches!(news, News::Lost(reason) if !reason.contains("the relay starts here"))).count()
}
