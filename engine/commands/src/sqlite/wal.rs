//! Being told when somebody writes to the write-ahead log, where the kernel does that.
//!
//! It tells before the commit can be seen, and about writes that are none: so it says when to poll, and never that there is something.

pub(crate) use self::kernel::{Waker, WalWatch};

#[cfg(target_os = "linux")]
mod kernel {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;
    use std::time::Duration;

    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
    use rustix::io::{Errno, read, write};

    /// Ends a wait early.
    #[derive(Debug)]
    pub(crate) struct Waker(OwnedFd);

    impl Waker {
        pub(crate) fn new() -> io::Result<Waker> {
            Ok(Waker(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }

        /// For good: nothing takes it back.
        pub(crate) fn wake(&self) {
            // It fails only if it was woken 2^64 times.
            let _ = write(&self.0, &1u64.to_ne_bytes());
        }
    }

    /// A file that is watched.
    #[derive(Debug)]
    pub(crate) struct WalWatch(OwnedFd);

    impl WalWatch {
        pub(crate) fn new(file: &Path) -> io::Result<WalWatch> {
            let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            inotify::add_watch(&watch, file, WatchFlags::MODIFY)?;
            Ok(WalWatch(watch))
        }

        /// Whether the file was written to since the last wait; waits for it.
        pub(crate) fn wait(&self, waker: &Waker, at_most: Duration) -> io::Result<bool> {
            let mut ends = [PollFd::new(&self.0, PollFlags::IN), PollFd::new(&waker.0, PollFlags::IN)];
            let at_most = Timespec { tv_sec: at_most.as_secs().cast_signed(), tv_nsec: at_most.subsec_nanos().into() };
            match poll(&mut ends, Some(&at_most)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut events = [0; 1024];
            let mut any = false;
            loop {
                match read(&self.0, &mut events) {
                    Ok(0) | Err(Errno::AGAIN) => return Ok(any),
                    Ok(_) => any = true,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    /// There is no wait to end.
    #[derive(Debug)]
    pub(crate) struct Waker(());

    impl Waker {
        pub(crate) fn new() -> io::Result<Waker> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn wake(&self) {}
    }

    /// Never made: the poll goes on all the time.
    #[derive(Debug)]
    pub(crate) enum WalWatch {}

    impl WalWatch {
        pub(crate) fn new(_file: &Path) -> io::Result<WalWatch> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub(crate) fn wait(&self, _waker: &Waker, _at_most: Duration) -> io::Result<bool> {
            match *self {}
        }
    }
}
