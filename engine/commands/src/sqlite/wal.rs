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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_write_ends_the_wait_and_is_told_once() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let (watch, waker) = (WalWatch::new(file.path()).expect("watched"), Waker::new().expect("a waker"));
        assert!(!watch.wait(&waker, Duration::from_millis(1)).expect("waited"));
        for _ in 0..1000 {
            file.write_all(b"x").expect("written");
        }
        assert!(watch.wait(&waker, LONG).expect("waited"));
        assert!(!watch.wait(&waker, Duration::from_millis(1)).expect("waited"));
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| watch.wait(&waker, LONG).expect("waited"));
            file.write_all(b"x").expect("written");
            assert!(wait.join().expect("no panic"));
        });
    }

    #[test]
    fn a_wait_can_be_ended_before_and_while_it_lasts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let (watch, waker) = (WalWatch::new(file.path()).expect("watched"), Waker::new().expect("a waker"));
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| watch.wait(&waker, LONG).expect("waited"));
            waker.wake();
            assert!(!wait.join().expect("no panic"));
        });
        assert!(!watch.wait(&waker, LONG).expect("waited"));
    }
}
