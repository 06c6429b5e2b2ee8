//! Whether the state file can be written right now.

use std::fmt;

use tokio::sync::watch;

/// What keeps the state file from being written and passes by itself, or when a person mends it. Nothing is lost meanwhile:
/// no new work is taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room.
    Full,
    /// Another process holds the write lock.
    Busy,
    /// The file or its directory cannot be written by us.
    ReadOnly,
    /// The system refused a write: over quota, past a limit on the size of files, or a device that fails.
    Refused,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the disk that holds the state file is full; make room, and the daemon goes on by itself",
            Self::Busy => {
                "another process has held the write lock of the state file for more than 10 s; when it lets go, the daemon \
                 goes on by itself"
            }
            Self::ReadOnly => {
                "the state file or its directory is read-only for this user or file system; make it writable for the \
                 daemon's user"
            }
            Self::Refused => {
                "the system refuses to write the state file (quota, limit on file sizes, or a failing device; see the \
                 kernel's log); when it lets us, the daemon goes on by itself"
            }
        })
    }
}

/// What the writer thread knows of the file; everybody may listen.
#[derive(Debug, Clone)]
pub(super) struct Health(watch::Sender<Option<Trouble>>);

impl Health {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn listen(&self) -> watch::Receiver<Option<Trouble>> {
        self.0.subscribe()
    }

    pub(super) fn is_troubled(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Tells listeners only when it is something else than before.
    pub(super) fn set(&self, trouble: Option<Trouble>) {
        self.0.send_if_modified(|known| std::mem::replace(known, trouble) != trouble);
    }
}
