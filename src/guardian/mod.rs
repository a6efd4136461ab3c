//! The parent of every acting `mt`: ends what is left and cleans up when the worker dies.
//!
//! What `main` does, in this order, before any thread exists:
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use managed_tokens::{guardian, private_dir};
//! # let state = std::path::Path::new("/var/lib/managed-tokens");
//! guardian::refuse_root(state)?;
//! private_dir::set_umask();
//! let run_dir = state.join("run");
//! let owner = guardian::enter(guardian::Owner::take(&run_dir)?)?; // from here on we are the worker
//! for swept in guardian::sweep(&run_dir, &["/tmp".into()])? {
//!     // log swept.problems
//! }
//! // the runtime, the work
//! owner.leave();
//! # Ok(()) }
//! ```

mod descendants;
mod owner;
mod proc;
mod root;
mod sweep;
mod tell;
mod watch;

pub use owner::{Owner, owner_is_dead};
pub use root::{RootRefused, refuse_root};
pub use sweep::{Swept, bury, remove_marked, sweep};
pub use tell::{start_ticks, terminate};
pub(crate) use watch::is_ignored;
pub use watch::{EnterError, Impatience, enter};

use crate::workflow::code::Code;

/// Run as root.
pub const ROOT_REFUSED: Code = Code(90);
/// The guardian could not be started.
pub const NO_GUARDIAN: Code = Code(94);
/// Something of a dead process could not be ended or removed ([`Swept::problems`]).
pub const LEFTOVERS: Code = Code(95);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        ROOT_REFUSED,
        "mt refuses to run as root",
        "Files that root makes in the state directory could not be used by the account that mt runs as, and nothing\n\
         that mt does needs root.\n\
         Run it as the owner of the state directory:  runuser -u ACCOUNT -- mt ...\n\
         Commands that only read files and print, such as `mt workflow check`, run as anybody.",
    ),
    (
        NO_GUARDIAN,
        "the guardian process could not be started",
        "An acting mt first forks: the parent stays behind as a small guardian that ends every child when the worker dies.\n\
         The fork failed: most often the account has too many processes (ulimit -u), or memory is short.\n\
         Look with  ps -u ACCOUNT  and  free -m , then start mt again.",
    ),
    (
        LEFTOVERS,
        "something a dead mt left behind could not be removed",
        "When mt and its guardian are killed at once, the next start ends their children and removes their files.\n\
         The process or file named in the message would not go: it belongs to another account, or hangs in the kernel\n\
         (a dead file server). Everything else was done. The next start tries again; nothing is lost meanwhile.",
    ),
];
