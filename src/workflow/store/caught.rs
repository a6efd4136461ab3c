//! sled panics on files that are not what it wrote. That is an answer, and no reason to frighten people with a backtrace.

use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Once, mpsc};
use std::time::Duration;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

static QUIET: Once = Once::new();

/// The threads that sled starts have names that begin so.
const OF_SLED: &str = "sled";

/// Does something with sled. `Err`: it panicked, and why. Nothing is printed then; the log has it at level debug.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if DEPTH.get() > 0 || std::thread::current().name().is_some_and(|name| name.starts_with(OF_SLED)) {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%place, "sled panicked: {}", of_hook(info));
            } else {
                loud(info);
            }
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done.map_err(|why| message(&*why))
}

/// Drops something of sled's that may be broken. After some errors sled then waits for ever for a buffer that nobody will
/// write (after a blob that could not be written, for one). So another thread does it. `false`: it has not come back so far,
/// and has all of it still.
pub(super) fn drop_within<T: Send + 'static>(broken: T, limit: Duration) -> bool {
    let (done, dropped) = mpsc::sync_channel(1);
    // Where there is no thread to be had it stays: this one could not drop it either.
    let broken = ManuallyDrop::new(broken);
    let thread = std::thread::Builder::new().name("mt-store-drop".to_owned()).spawn(move || {
        let _ = caught(|| drop(ManuallyDrop::into_inner(broken)));
        // Whoever waits may have given up.
        let _ = done.send(());
    });
    thread.is_ok() && dropped.recv_timeout(limit).is_ok()
}

/// Something of sled's, which may panic when it is dropped: sled writes what it has left then.
#[derive(Debug)]
pub(super) struct Held<T: Send + 'static> {
    held: ManuallyDrop<T>,
    /// How long dropping it may take, if it may be left to itself then.
    limit: Option<Duration>,
}

impl<T: Send + 'static> Held<T> {
    pub(super) fn new(held: T) -> Self {
        Self { held: ManuallyDrop::new(held), limit: None }
    }

    /// Is waited for so long when it is dropped without [`Held::close`], see [`drop_within`]. For what nobody relies on.
    pub(super) fn dropped_within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Drops it. `Err`: sled panicked, and why.
    pub(super) fn close(self) -> Result<(), String> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, so nobody takes it again.
        let held = unsafe { ManuallyDrop::take(&mut this.held) };
        caught(|| drop(held))
    }
}

impl<T: Send + 'static> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.held
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: it is used no more.
        let held = unsafe { ManuallyDrop::take(&mut self.held) };
        match self.limit {
            // Whoever wants to know closes it.
            None => {
                let _ = caught(|| drop(held));
            }
            Some(limit) => {
                let _ = drop_within(held, limit);
            }
        }
    }
}

fn of_hook(info: &PanicHookInfo<'_>) -> String {
    message(info.payload())
}

fn message(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text =
        text.or_else(|| why.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it did not say why".to_owned());
    // Some of its messages go on for pages.
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_as_an_error_and_the_thread_goes_on() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(
            caught(|| -> u8 { panic!("tried to {}\nand more", "serialize") }),
            Err("tried to serialize".to_owned())
        );
        assert_eq!(caught(|| caught(|| -> u8 { panic!("inside") })), Ok(Err("inside".to_owned())));
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn what_panics_when_it_is_dropped_ends_nobody_and_is_told_to_whoever_closes_it() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("no room");
            }
        }
        drop(Held::new(Bad));
        assert_eq!(Held::new(Bad).close(), Err("no room".to_owned()));
        assert_eq!(Held::new(()).close(), Ok(()));
    }

    #[test]
    fn what_never_comes_to_an_end_when_it_is_dropped_is_left_to_itself() {
        struct Endless(mpsc::Receiver<()>);
        impl Drop for Endless {
            fn drop(&mut self) {
                // Its sender lives.
                let _ = self.0.recv();
            }
        }
        let endless = || {
            let (sender, receiver) = mpsc::channel();
            (sender, Endless(receiver))
        };
        let (_sender, broken) = endless();
        assert!(!drop_within(broken, Duration::from_millis(1)));
        let (_sender, broken) = endless();
        drop(Held::new(broken).dropped_within(Duration::from_millis(1)));
        let (sender, broken) = endless();
        drop(sender);
        assert!(drop_within(broken, Duration::from_secs(60)));
    }
}
