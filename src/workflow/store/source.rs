//! Where the records of an export or a check come from: the store as it is used, or what can be read of a damaged one.

use std::path::PathBuf;

use super::error::StoreError;
use super::handle::{Access, Options, Store};
use super::lock::Line;
use super::salvage::Salvaged;
use super::state_dir::StateDir;
use super::view::View;

pub(super) enum Source {
    /// Opened by sled, and handed over to whoever waits between two looks.
    Store(Store),
    /// Read without sled.
    Salvaged {
        from: Box<Salvaged>,
        path: PathBuf,
        /// Why sled was not used.
        why: StoreError,
    },
}

impl Source {
    /// The best there is. A store that another process holds is waited for.
    ///
    /// # Errors
    /// If nothing can be read at all: no state directory, no store in it, a holder that does not let go, a newer store.
    pub(super) fn of(state: &StateDir, options: &Options) -> Result<Self, StoreError> {
        match Store::open_with(state, Access::ReadOnly, options.clone()) {
            Ok(store) if store.read_blocking(|view| view.is_there())? => Ok(Self::Store(store)),
            // Not an empty one: nobody is to take it for a backup, or for a store in good order.
            Ok(_) => Err(StoreError::Missing { path: state.store() }),
            // sled writes when it opens a store: a full disk or one that is read-only keeps nobody from reading. And it
            // gives up at the first bad sector.
            Err(
                why @ (StoreError::Damaged { .. }
                | StoreError::NoSpace { .. }
                | StoreError::Permission { .. }
                | StoreError::Io { .. }),
            ) => Self::salvaged(state, options, why),
            Err(
                other @ (StoreError::Busy { .. }
                | StoreError::Newer { .. }
                | StoreError::Hangs { .. }
                | StoreError::Missing { .. }
                | StoreError::Closed
                | StoreError::ReadOnly
                | StoreError::OutOfOrder { .. }
                | StoreError::Unstorable { .. }),
            ) => Err(other),
        }
    }

    /// What can be read without sled.
    pub(super) fn salvaged(state: &StateDir, options: &Options, why: StoreError) -> Result<Self, StoreError> {
        let _turn = Line::new(state).turn(options.patience)?;
        let from = Box::new(Salvaged::of(state)?);
        Ok(Self::Salvaged { from, path: state.store(), why })
    }

    /// Looks at a consistent state.
    pub(super) fn look<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        F: FnOnce(&View<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        match self {
            Self::Store(store) => store.read_blocking(look)?,
            Self::Salvaged { from, path, .. } => look(&View::new(None, Some(&from.records), path)),
        }
    }

    /// Lets the store go.
    pub(super) fn close(self) {
        match self {
            Self::Store(store) => store.close(),
            Self::Salvaged { .. } => {}
        }
    }
}
