//! The promises of `GetVaultToken` that need no vault.
