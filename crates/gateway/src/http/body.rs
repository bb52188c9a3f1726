//! Reading a request's body whole, within its limits; and giving its memory back.

use std::cell::Cell;
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

use mapped::Mapped;

mod mapped;

/// Capacity taken on the client's word; more is taken as bytes come.
const PREALLOCATED_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Time before the rate of a body is judged.
const RATE_GRACE: Duration = Duration::from_secs(5);
/// From so many bytes on a body has memory of its own.
const LARGE_BYTES: usize = 32 * 1024;
/// Bytes of pieces that, freed, have mimalloc look what it can give back, and how long each is held: a little more than what
/// mimalloc waits. The first is of a region that holds many; the other is a region of its own, as has what a body of more
/// than 16 MiB is turned into.
const PIECES: [(usize, Duration); 2] =
    [(128 * 1024, Duration::from_millis(12)), (17 * 1024 * 1024, Duration::from_millis(120))];

thread_local! {
    /// Told when a large body is freed.
    static FREED: Rc<Freed> = Rc::default();
}

/// Large bodies that were freed on a thread.
#[derive(Default)]
struct Freed {
    count: Cell<u64>,
    /// One for each of [`PIECES`].
    notify: [Notify; PIECES.len()],
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
            whole.reserve(announced.min(PREALLOCATED_BYTES_MAX) as usize);
        }
        whole.push(&data);
    }
    Ok(whole.freeze())
}

/// A body, which tells [`give_back`] when it is freed if it is large.
pub struct Whole(Memory);

enum Memory {
    /// Of the allocator.
    Small(BytesMut),
    /// Its own.
    Large(Mapped),
}

impl Whole {
    /// Bytes that are there.
    pub fn len(&self) -> usize {
        self.as_ref().len()
    }

    /// Whether none are.
    pub fn is_empty(&self) -> bool {
        self.as_ref().is_empty()
    }

    /// Takes room for so many bytes.
    fn reserve(&mut self, bytes: usize) {
        match &mut self.0 {
            Memory::Small(small) if bytes < LARGE_BYTES => small.reserve(bytes),
            Memory::Small(small) => {
                if let Some(large) = moved(small, bytes) {
                    self.0 = Memory::Large(large);
                }
            }
            Memory::Large(_) => {}
        }
    }

    /// Puts bytes behind those that are there.
    pub fn push(&mut self, bytes: &[u8]) {
        let len = self.len() + bytes.len();
        if len >= LARGE_BYTES {
            self.reserve(2 * len);
        }
        match &mut self.0 {
            Memory::Small(small) => small.extend_from_slice(bytes),
            Memory::Large(large) => {
                // A system that gives no mapping may still have memory elsewhere.
                if large.push(bytes).is_err() {
                    let mut small = BytesMut::with_capacity(len);
                    small.extend_from_slice(large);
                    small.extend_from_slice(bytes);
                    self.retire();
                    self.0 = Memory::Small(small);
                }
            }
        }
    }

    /// Gives up memory of its own.
    fn retire(&mut self) {
        if let Memory::Large(large) = std::mem::replace(&mut self.0, Memory::Small(BytesMut::new())) {
            large.spare();
            // A thread that ends has no use for it any more.
            let _ = FREED.try_with(|freed| {
                freed.count.set(freed.count.get() + 1);
                freed.notify.iter().for_each(Notify::notify_one);
            });
        }
    }

    /// The body, to be passed on.
    pub fn freeze(mut self) -> Bytes {
        match &mut self.0 {
            Memory::Small(small) => std::mem::take(small).freeze(),
            Memory::Large(_) => Bytes::from_owner(self),
        }
    }
}

/// The same bytes in memory of their own, with room for so many; `None` if the system has no mapping to give.
fn moved(small: &BytesMut, bytes: usize) -> Option<Mapped> {
    let mut large = Mapped::with_capacity(bytes).ok()?;
    large.push(small).ok()?;
    Some(large)
}

impl Default for Whole {
    fn default() -> Self {
        Self(Memory::Small(BytesMut::new()))
    }
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Memory::Small(small) => small,
            Memory::Large(large) => large,
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.retire();
    }
}

/// Gives the memory that this thread's large bodies leave behind back to the system, as long as it is polled: what is kept of
/// them for the next, once none came for a moment, and what went through the allocator for their sake. Left to itself that
/// would keep all that the last of them took until there are others.
pub async fn give_back() {
    let freed = FREED.with(Rc::clone);
    let hold = async |at: usize| {
        let (bytes, held) = PIECES[at];
        loop {
            freed.notify[at].notified().await;
            let count = freed.count.get();
            // Never written to, so that it takes no memory itself.
            let piece = black_box(Vec::<u8>::with_capacity(bytes));
            sleep(held).await;
            drop(piece);
            if freed.count.get() == count {
                mapped::give_back();
            }
        }
    };
    mapped::give_back();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_grows_as_it_comes_and_keeps_its_bytes() {
        let bytes: Vec<u8> = (0_u32..700_000).flat_map(u32::to_le_bytes).collect();
        for piece in [1_000, 70_000, 300_000, bytes.len()] {
            let mut body = Whole::default();
            bytes.chunks(piece).for_each(|piece| body.push(piece));
            assert_eq!(body.len(), bytes.len());
            assert!(body.freeze() == bytes, "in pieces of {piece}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_kept_of_one_body_is_not_shown_by_the_next() {
        let local = tokio::task::LocalSet::new();
        local.spawn_local(give_back());
        local
            .run_until(async {
                tokio::task::yield_now().await;
                let body = |byte: u8, bytes: usize| {
                    let mut body = Whole::default();
                    body.push(&vec![byte; bytes]);
                    body.freeze()
                };
                // While one lives what others leave is kept.
                let living = body(9, 100_000);
                let mut places = Vec::new();
                for (byte, bytes) in [(1, 400_000), (2, 300_000), (3, 400_000), (4, 40_000)] {
                    let next = body(byte, bytes);
                    assert!(next.len() == bytes && next.iter().all(|one| *one == byte));
                    places.push(next.as_ptr());
                }
                assert!(places[..3].iter().all(|place| *place == places[0]), "the same pages");
                assert!(places[3] != places[0], "a small one gets none of so large a one");
                assert!(living.iter().all(|one| *one == 9));
            })
            .await;
    }
}
