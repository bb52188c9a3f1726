//! Reading a request's body whole, within its limits; and giving its memory back.

use std::future::poll_fn;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use hyper::body::Incoming;
use pointsman_wire::openai::error::ErrorBody;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// Capacity taken on the client's word; more is taken as bytes come.
const PREALLOCATED_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Time before the rate of a body is judged.
const RATE_GRACE: Duration = Duration::from_secs(5);
/// A body of at least so many bytes leaves memory behind that is worth giving back.
const LARGE_BYTES: usize = 128 * 1024;
/// Bytes of pieces that, freed, have mimalloc look what it can give back, and how long each is held: a little more than what
/// mimalloc waits. The first is of a region that holds many, with bodies of up to 16 MiB; the other is a region of its own.
const PIECES: [(usize, Duration); 2] =
    [(128 * 1024, Duration::from_millis(12)), (17 * 1024 * 1024, Duration::from_millis(120))];

thread_local! {
    /// Told when a large body is freed, one for each of [`PIECES`].
    static FREED: Rc<[Notify; PIECES.len()]> = Rc::default();
}

/// What a body must keep to.
#[derive(Debug, Clone, Copy)]
pub struct BodyRules {
    /// Bytes it may have.
    pub bytes_max: u64,
    /// Time it may take in all.
    pub time_max: Duration,
    /// Bytes a second it must come with, judged after a grace of five seconds.
    pub bytes_per_s_min: u64,
}

/// Reads a body whole.
pub async fn read(body: Incoming, rules: BodyRules) -> Result<Bytes, ErrorBody> {
    let announced = body.size_hint().lower();
    if announced > rules.bytes_max {
        return Err(ErrorBody::too_big(rules.bytes_max));
    }
    let mut body = pin!(body);
    let mut watch = Watch::new(rules);
    let mut whole = Whole::default();
    loop {
        let received = whole.len() as u64;
        let Some(frame) = poll_fn(|cx| watch.poll(cx, received, body.as_mut())).await? else { break };
        let Ok(data) = frame.into_data() else { continue };
        if received + data.len() as u64 > rules.bytes_max {
            return Err(ErrorBody::too_big(rules.bytes_max));
        }
        if whole.is_empty() {
            if body.is_end_stream() {
                // Small bodies come in one piece, which is then passed on as it is.
                return Ok(data);
            }
            whole.0.reserve(announced.min(PREALLOCATED_BYTES_MAX) as usize);
        }
        whole.push(&data);
    }
    Ok(whole.freeze())
}

/// A body, which tells [`give_back`] when it is freed if it is large.
#[derive(Default)]
pub struct Whole(BytesMut);

impl Whole {
    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts bytes behind those that are there.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The body, to be passed on.
    pub fn freeze(mut self) -> Bytes {
        if self.0.len() < LARGE_BYTES {
            std::mem::take(&mut self.0).freeze()
        } else {
            Bytes::from_owner(self)
        }
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.0.capacity() >= LARGE_BYTES {
            // A thread that ends has no use for it any more.
            let _ = FREED.try_with(|freed| freed.iter().for_each(Notify::notify_one));
        }
    }
}

/// Gives the memory of this thread's large bodies back to the system as long as it is polled. Left to itself the allocator
/// would keep all that the last of them took until there are others.
pub async fn give_back() {
    let freed = FREED.with(Rc::clone);
    let hold = async |at: usize| {
        let (bytes, held) = PIECES[at];
        loop {
            freed[at].notified().await;
            // Never written to, so that it takes no memory itself.
            let piece = black_box(Vec::<u8>::with_capacity(bytes));
            sleep(held).await;
            drop(piece);
        }
    };
    tokio::join!(hold(0), hold(1));
}

fn too_slow_error(received: u64, took: Duration) -> ErrorBody {
    let text = format!("the request body came too slowly: {received} bytes in {} ms", took.as_millis());
    ErrorBody::router(408, "invalid_request_error", "request_timeout", text)
}

/// A look at how a body comes.
pub(crate) struct Watch {
    rules: BodyRules,
    /// When it had to be waited for first, and the next look at how it comes.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Since when nobody asks for more.
    resting: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(rules: BodyRules) -> Self {
        Self { rules, timer: None, resting: None }
    }

    /// Nobody asks for more before the next poll: what passes until then is not the client's time.
    pub(crate) fn rest(&mut self) {
        self.resting = self.timer.is_some().then(Instant::now);
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        received: u64,
        body: Pin<&mut Incoming>,
    ) -> Poll<Result<Option<http_body::Frame<Bytes>>, ErrorBody>> {
        if let (Some(since), Some((began, _))) = (self.resting.take(), &mut self.timer) {
            *began += since.elapsed();
        }
        if let Poll::Ready(frame) = body.poll_frame(cx) {
            return Poll::Ready(frame.transpose().map_err(|error| {
                ErrorBody::malformed(format!("the request body could not be read: {error}"))
            }));
        }
        // No timer is made for a body that is there already, which is nearly every one.
        let rules = self.rules;
        let next = |began: Instant, now: Instant| (now + Duration::from_secs(1)).min(began + rules.time_max);
        let (began, timer) = self.timer.get_or_insert_with(|| {
            let began = Instant::now();
            (began, Box::pin(sleep_until(next(began, began))))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            let took = now - *began;
            let too_slow = took > RATE_GRACE && received < rules.bytes_per_s_min * took.as_secs();
            if took >= rules.time_max || too_slow {
                return Poll::Ready(Err(too_slow_error(received, took)));
            }
            timer.as_mut().reset(next(*began, now));
        }
    }
}
