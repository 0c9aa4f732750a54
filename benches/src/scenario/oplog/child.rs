//! A server in a process of its own, and the pipe to it.
//!
//! One word a line, and one line for an answer. `watch`: computes the value and answers `watching`, and when the value is stale says
//! since when. `processor`: the processor time of the process. The end of its input is its end.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{self, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::site::{Site, text};
use super::{MEMBER, clock, runtime};

/// The key that is watched.
pub(super) const WATCHED: u64 = 7;

/// A server that hears nothing for so long says so.
const PATIENCE: Duration = Duration::from_secs(20);

/// A child process that is a server.
pub(super) struct Child {
    process: process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    pub(super) fn join(site: &Site) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(text)?;
        let mut command = Command::new(program);
        command.arg(MEMBER).args(site.words()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(text)?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("a child without pipes".to_owned());
        };
        let mut child = Child { process, input: Some(input), output: BufReader::new(output) };
        child.expect("joined")?;
        Ok(child)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("the other process has ended".to_owned()),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(format!("the other process: {error}")),
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let line = self.line()?;
        if line == word { Ok(()) } else { Err(format!("the other process said `{line}` instead of `{word}`")) }
    }

    pub(super) fn number(&mut self) -> Result<u64, String> {
        let line = self.line()?;
        line.parse().map_err(|_| format!("the other process said `{line}`"))
    }

    fn say(&mut self, word: &str) -> Result<(), String> {
        let Some(input) = &mut self.input else { return Err("the other process is not asked any more".to_owned()) };
        writeln!(input, "{word}").and_then(|()| input.flush()).map_err(text)
    }

    /// Has it watch the value; [`number`](Child::number) is when it was stale.
    pub(super) fn watch(&mut self) -> Result<(), String> {
        self.say("watch")?;
        self.expect("watching")
    }

    /// Its processor time in nanoseconds.
    pub(super) fn processor(&mut self) -> Result<u64, String> {
        self.say("processor")?;
        self.number()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.input.take());
        // It ends because its input has.
        let _ = self.process.wait();
    }
}

/// The child's side.
pub(super) fn run(words: &[String]) -> Result<(), String> {
    let site = Site::from_words(words)?;
    let runtime = runtime()?;
    let member = runtime.block_on(site.join(false))?;
    let mut out = io::stdout();
    let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(text);
    say("joined".to_owned())?;
    for line in io::stdin().lock().lines() {
        match line.map_err(text)?.as_str() {
            "watch" => {
                let computed = member.row.computed(&member.engine, &WATCHED).map_err(text)?;
                let stale = computed.invalidated();
                say("watching".to_owned())?;
                let heard = runtime.block_on(async { tokio::time::timeout(PATIENCE, stale).await.map(|_| clock::now()) });
                say(heard.map_or_else(|_| format!("nothing for {PATIENCE:?}"), |at| at.to_string()))?;
            }
            "processor" => say(clock::processor().to_string())?,
            other => return Err(format!("asked for `{other}`")),
        }
    }
    runtime.block_on(member.leave());
    Ok(())
}
