//! What is recorded: sled behind a narrow interface.
//!
//! [`Store`] is a handle to one OS thread, the only one that touches sled. A [`Store::write`] is durable when it returns.
//!
//! | file | subject |
//! |---|---|
//! | `handle.rs` | [`Store`]: what the rest of `mt` holds |
//! | `thread.rs` | the thread: group commit, and when to let the store go |
//! | `lock.rs` | turns between processes |
//! | `open.rs`, `caught.rs` | sled, opened and synced with every care it needs |
//! | `sidecar.rs` | `store.json`: what the store must at least contain |
//! | `view.rs`, `tx.rs` | what can be read and written |
//! | `overlay.rs` | changes that are not in sled yet |
//! | `keys.rs`, `record.rs` | how keys and values lie on disk |
//! | `retention.rs`, `export.rs` | removing old runs; everything as text |
//! | `state_dir.rs`, `error.rs` | where it is; what can go wrong |

mod caught;
mod error;
mod export;
mod handle;
mod keys;
mod lock;
mod open;
mod overlay;
mod record;
mod retention;
mod sidecar;
mod state_dir;
mod thread;
mod tx;
mod view;

pub use error::{
    BUSY, CLOSED, DAMAGED, EXPLANATIONS, HolderState, IO, MISSING, MISUSED, NEWER, NO_SPACE, PERMISSION, StoreError,
};
pub use export::ExportError;
pub use handle::{Access, Options, Stats, Store};
pub use keys::{Shelf, Tree, of_run};
pub use open::MIN_FREE;
pub(crate) use record::try_record;
pub use retention::{PruneReport, Retention};
pub use state_dir::StateDir;
pub(crate) use state_dir::name_of;
pub use tx::{Tx, hash_of_definition};
pub(crate) use view::find_in_none;
pub use view::{Found, KnownUid, SHORTEST_PREFIX, View};
