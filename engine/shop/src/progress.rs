//! Telling how the run goes, on standard error: one line that is rewritten, or plain lines where there is no terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::ShopError;
use crate::readers::Shared;

/// The display.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    every: Duration,
    next: Instant,
    drawn: bool,
}

impl Progress {
    /// Looks where standard error goes. A run of `total` gets about ten plain lines, at most one a second.
    pub(crate) fn new(total: Duration) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stderr().is_terminal() && !dumb;
        let every = if terminal { Duration::from_millis(200) } else { (total / 10).max(Duration::from_secs(1)) };
        Self { terminal, every, next: Instant::now() + every, drawn: false }
    }

    /// Counts the time to the first [`tick`](Self::tick) from now.
    pub(crate) fn start(&mut self) {
        self.next = Instant::now() + self.every;
    }

    /// Prints one line of the run's own output.
    pub(crate) fn print(&mut self, line: &str) -> Result<(), ShopError> {
        self.end();
        crate::say(&format!("{line}\n"))
    }

    /// Says one thing that was done.
    pub(crate) fn note(&mut self, text: &str) {
        self.end();
        tell(&format!("{text}\n"));
    }

    /// When [`tick`](Self::tick) has something to draw next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Draws how far the run is, if it is time.
    pub(crate) fn tick(&mut self, shared: &Shared<'_>, total: Duration) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.every;
        let elapsed = shared.started.elapsed().min(total);
        let text = format!(
            "{:5.1} s of {:.1} s  {} lookups  {} SQL calls  {} updates",
            elapsed.as_secs_f64(),
            total.as_secs_f64(),
            shared.lookups.load(Ordering::Relaxed),
            shared.sql_calls.load(Ordering::Relaxed),
            shared.updates.load(Ordering::Relaxed),
        );
        if self.terminal {
            // Back to the start, and clear what the last, perhaps longer, text left.
            tell(&format!("\r{text}\x1b[K"));
            self.drawn = true;
        } else {
            tell(&format!("{text}\n"));
        }
    }

    /// Ends a line that was being rewritten.
    pub(crate) fn end(&mut self) {
        if self.drawn {
            tell("\r\x1b[K");
            self.drawn = false;
        }
    }
}

/// A display that cannot be written to is no reason to stop.
fn tell(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}
