//! What is recorded: sled behind a narrow interface.
//!
//! [`Store`] is a handle to one OS thread, the only one that touches sled. A [`Store::write`] is durable when it returns.
//!
//! | file | subject |
//! |---|---|
//! | `handle.rs` | [`Store`]: what the rest of `mt` holds |
//! | `thread.rs` | the thread: group commit, and when to let the store go |
//! | `lock.rs` | turns between processes |
//! | `open.rs`, `caught.rs` | sled, opened with every care it needs |
//! | `durable.rs` | what sled takes for durable is durable |
//! | `sidecar.rs` | `store.json`: what the store must at least contain |
//! | `view.rs`, `tx.rs` | what can be read and written |
//! | `overlay.rs` | changes that are not in sled yet |
//! | `keys.rs`, `record.rs` | how keys and values lie on disk |
//! | `retention.rs` | removing old runs |
//! | `fresh.rs`, `compact.rs` | making a store; copying one into a smaller one |
//! | `export.rs`, `import.rs` | everything as text, and back |
//! | `verify.rs`, `check.rs` | is it whole? What becomes of a run that is not |
//! | `source.rs`, `salvage.rs`, `sled_log.rs` | what can be read of a store that cannot be opened |
//! | `state_dir.rs`, `error.rs` | where it is; what can go wrong |

mod caught;
mod check;
mod compact;
mod durable;
mod error;
mod export;
mod fresh;
mod handle;
mod import;
mod keys;
mod lock;
mod open;
mod overlay;
mod record;
mod retention;
mod salvage;
mod sidecar;
mod sled_log;
mod source;
mod state_dir;
mod thread;
mod tx;
mod verify;
mod view;

pub use compact::{Compacted, compact, compact_if_due};
pub use error::{
    BUSY, CLOSED, DAMAGED, EXPLANATIONS, HolderState, IO, MISSING, MISUSED, NEWER, NO_SPACE, NOT_IMPORTED, PERMISSION,
    StoreError,
};
pub use export::{ExportError, Exported, export};
pub use handle::{Access, Options, Stats, Store};
pub use import::{From, ImportError, ImportOrder, Imported, import};
pub use keys::{Shelf, Tree, of_run};
pub use open::MIN_FREE;
pub(crate) use record::try_record;
pub use retention::{PruneReport, Retention};
pub use state_dir::StateDir;
pub(crate) use state_dir::name_of;
pub use tx::{Tx, hash_of_definition};
pub use verify::{TreeReport, Verification, verify};
pub(crate) use view::find_in_none;
pub use view::{Found, KnownUid, SHORTEST_PREFIX, View};
