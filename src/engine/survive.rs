//! A panic over one event or one action ends that one thing only. What is decided here comes from outside and passes through
//! interpreters that others wrote; without this, one poisoned event would stop the daemon, and again after each restart.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

/// What is recorded about it; where the panic happened is on standard error.
pub(super) const WORDS: &str = "the program failed in itself; please report this with the log";

/// The result, or `None` after a panic. Nothing that `work` borrows may be left half done; our callers only read.
pub(super) fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// The same for a future.
pub(super) async fn survive_async<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}
