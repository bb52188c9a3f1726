//! A panic while a request is served ends that request alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Polls a future and gives `None` if it panics.
pub struct Guard<'f, F>(Pin<&'f mut F>);

impl<'f, F: Future> Guard<'f, F> {
    /// Guards `future`.
    pub fn new(future: Pin<&'f mut F>) -> Self {
        Self(future)
    }
}

impl<F: Future> Future for Guard<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is never polled again after a panic, so what it left half done is only ever dropped.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn l9_a_panic_is_an_outcome() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        assert_eq!(Guard::new(pin!(async { panic!("on purpose") })).await, None::<()>);
        std::panic::set_hook(quiet);
        assert_eq!(Guard::new(pin!(async { 7 })).await, Some(7));
    }
}
