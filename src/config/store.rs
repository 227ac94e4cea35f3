//! The section `[store]`: where tracked messages are kept, and how many.
//!
//! Pure, like the rest of the configuration.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::config::ConfigError;
use crate::limits::{QUEUE_MESSAGES_MAX, STORE_BYTES_MAX, STORE_MESSAGES_MAX};

/// The store of tracked messages.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The folder of its files.
    pub folder: PathBuf,
    /// The bytes of the messages that it holds at the most.
    pub bytes: usize,
    /// The messages that it holds at the most.
    pub messages: usize,
    /// The messages that wait for one service at the most.
    pub queue_messages: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawStore {
    folder: PathBuf,
    #[serde(default = "default_store_bytes")]
    bytes: usize,
    #[serde(default = "default_store_messages")]
    messages: usize,
    #[serde(default = "default_queue_messages")]
    queue_messages: usize,
}

const fn default_store_bytes() -> usize {
    STORE_BYTES_MAX
}

const fn default_store_messages() -> usize {
    STORE_MESSAGES_MAX
}

const fn default_queue_messages() -> usize {
    QUEUE_MESSAGES_MAX
}

/// The section, valid.
pub(super) fn store(
    raw: Spanned<RawStore>,
    folder: &Path,
    problem: &impl Fn(Range<usize>, &str, &str) -> ConfigError,
) -> Result<StoreConfig, ConfigError> {
    let (span, store) = (raw.span(), raw.into_inner());
    if store.bytes == 0 || store.messages == 0 || store.queue_messages == 0 {
        let help = "leave it out for the default";
        return Err(problem(
            span,
            "a store that holds nothing would refuse everything",
            help,
        ));
    }
    Ok(StoreConfig {
        folder: folder.join(store.folder),
        bytes: store.bytes,
        messages: store.messages,
        queue_messages: store.queue_messages,
    })
}
