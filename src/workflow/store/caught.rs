//! sled panics on files that are not what it wrote. That is an answer, and no reason to frighten people with a backtrace.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

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
}
