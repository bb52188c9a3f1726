//! A panic while a request is served ends that request alone.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::counter::Counter;

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

/// A response's body that breaks off if it panics.
pub struct GuardedBody<B> {
    /// Gone after a panic.
    body: Option<B>,
    panics: Counter,
}

impl<B> GuardedBody<B> {
    /// Guards `body` and counts its panics.
    pub fn new(body: B, panics: Counter) -> Self {
        Self { body: Some(body), panics }
    }
}

impl<B: Body<Error = io::Error> + Unpin> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, io::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        // As above: after a panic the body is only ever dropped.
        if let Ok(poll) = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx))) {
            return poll;
        }
        self.panics.inc();
        tracing::error!("a response panicked; please report it with the lines before this one");
        let body = self.body.take();
        if catch_unwind(AssertUnwindSafe(|| drop(body))).is_err() {
            tracing::error!("what the panic left could not be settled");
        }
        Poll::Ready(Some(Err(io::Error::other("the response met a defect of the gateway"))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn l9_a_panic_is_an_outcome() {
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        assert_eq!(Guard::new(pin!(async { panic!("on purpose") })).await, None::<()>);
        std::panic::set_hook(quiet);
        assert_eq!(Guard::new(pin!(async { 7 })).await, Some(7));
    }

    /// Gives one piece, then panics.
    struct Panicky(Option<Bytes>);

    impl Body for Panicky {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            let piece = self.0.take().expect("on purpose");
            Poll::Ready(Some(Ok(Frame::data(piece))))
        }
    }

    #[test]
    fn l9_a_body_that_panics_breaks_off_and_is_counted() {
        let panics = Counter::default();
        let mut body = GuardedBody::new(Panicky(Some(Bytes::from_static(b"x"))), panics.clone());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut poll =
            || Pin::new(&mut body).poll_frame(&mut cx).map(|frame| frame.map(|frame| frame.is_ok()));
        assert_eq!((poll(), panics.get()), (Poll::Ready(Some(true)), 0));
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let second = poll();
        std::panic::set_hook(quiet);
        assert_eq!((second, panics.get()), (Poll::Ready(Some(false)), 1));
        assert_eq!((poll(), panics.get()), (Poll::Ready(None), 1));
    }
}
