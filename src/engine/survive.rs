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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_nothing_and_everything_else_what_it_is() {
        assert_eq!(survive(|| 7), Some(7));
        assert_eq!(survive(|| -> u8 { panic!("poison") }), None);
        assert_eq!(survive_async(async { 7 }).await, Some(7));
        let late = survive_async(async {
            tokio::task::yield_now().await;
            panic!("poison, later");
        });
        assert_eq!(late.await, None::<u8>);
    }
}
