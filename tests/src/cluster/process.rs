//! The driver's end of the conversation, and what it does to a member.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{oneshot, watch};

use super::BoxError;
use super::line::{Answer, Ask, Line, News, Question};
use super::setup::Setup;

/// After which time something that is waited for is not coming any more.
const LIMIT: Duration = Duration::from_secs(60);

/// A member, and all that its driver knows of it. It is killed when this is dropped.
pub struct Member {
    child: tokio::sync::Mutex<Child>,
    pid: Pid,
    input: tokio::sync::Mutex<ChildStdin>,
    heard: Arc<Heard>,
    numbers: AtomicU64,
}

/// What a member has said.
struct Heard {
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    ready: watch::Sender<bool>,
    news: watch::Sender<Vec<News>>,
}

/// The member has ended and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the member is gone")
    }
}

impl std::error::Error for Gone {}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// What should come in time.
///
/// # Panics
/// If it does not, with what it was.
async fn in_time<T>(what: impl fmt::Display, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(value) => value,
        Err(_) => panic!("not within {LIMIT:?}: {what}"),
    }
}

impl Member {
    /// Starts a member and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started, or ends at once.
    ///
    /// # Panics
    /// If it does neither serve nor end.
    pub async fn start(program: &Path, setup: &Setup) -> Result<Arc<Member>, BoxError> {
        let mut child = Command::new(program)
            .arg(serde_json::to_string(setup)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else { return Err("no pipes".into()) };
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("no process")?;
        let heard = Arc::new(Heard {
            waiting: Mutex::new(Some(HashMap::new())),
            ready: watch::Sender::new(false),
            news: watch::Sender::new(Vec::new()),
        });
        let listening = heard.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            // What a killed process has not written to the end is no line.
            while let Ok(Some(text)) = lines.next_line().await {
                match serde_json::from_str(&text) {
                    Ok(line) => listening.hear(line),
                    Err(_) => break,
                }
            }
            listening.waiting().take();
            listening.ready.send_replace(false);
        });
        let mut ready = heard.ready.subscribe();
        let member = Member { child: child.into(), pid, input: input.into(), heard, numbers: AtomicU64::new(0) };
        let served = in_time("a member serves", async {
            tokio::select! {
                served = ready.wait_for(|ready| *ready) => served.is_ok(),
                _ = member.ended() => false,
            }
        });
        if served.await { Ok(Arc::new(member)) } else { Err("the member has ended before it served".into()) }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`Gone`]
    ///
    /// # Panics
    /// If it neither answers nor ends.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, Gone> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        self.heard.waiting().as_mut().ok_or(Gone)?.insert(number, tell);
        let what = format!("the answer of process {} to {ask:?}", self.pid);
        let Ok(mut text) = serde_json::to_string(&Question { number, ask }) else { return Err(Gone) };
        text.push('\n');
        in_time(what, async {
            self.input.lock().await.write_all(text.as_bytes()).await.map_err(|_| Gone)?;
            told.await.map_err(|_| Gone)
        })
        .await
    }

    /// Waits for news.
    ///
    /// # Panics
    /// If they do not come.
    pub async fn hear(&self, what: &str, mut enough: impl FnMut(&[News]) -> bool) -> Vec<News> {
        let mut news = self.heard.news.subscribe();
        let heard = in_time(format!("process {} tells: {what}", self.pid), news.wait_for(|news| enough(news))).await;
        // The sender is this member's.
        heard.map(|news| news.clone()).unwrap_or_default()
    }

    /// All it has told so far.
    pub fn news(&self) -> Vec<News> {
        self.heard.news.borrow().clone()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // One that has ended and was not waited for is still there to be signalled.
        let _ = kill_process(self.pid, signal);
    }

    /// Stops it where it is.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// `kill -9`, and waits until it is dead.
    pub async fn kill(&self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// Waits for its end; whether it was killed.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn ended(&self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        let status = in_time(format!("the end of process {}", self.pid), async { self.child.lock().await.wait().await }).await;
        status.is_ok_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }
}

impl Heard {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, line: Line) {
        match line {
            Line::Ready => {
                self.ready.send_replace(true);
            }
            Line::Answer { number, answer } => {
                let asker = self.waiting().as_mut().and_then(|waiting| waiting.remove(&number));
                if let Some(asker) = asker {
                    // Whoever asked may have lost patience.
                    let _ = asker.send(answer);
                }
            }
            Line::News(news) => self.news.send_modify(|all| all.push(news)),
        }
    }
}
