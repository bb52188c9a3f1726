//! Idle connections of one worker, by endpoint. Not shared between threads, so taking one is a pop.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use pointsman_routing::Now;
use rustc_hash::FxHashMap;

use super::connection;
use super::stream::Stream;
use super::target::Endpoint;

/// Idle connections of one worker.
#[derive(Default)]
pub struct Pool {
    idle: RefCell<FxHashMap<Arc<str>, VecDeque<Idle>>>,
}

struct Idle {
    stream: Stream,
    until: Now,
}

impl Pool {
    /// An idle connection to the endpoint, newest first, if there is a good one.
    ///
    /// One that the provider has closed meanwhile is seen as closed here, so that a request is not spent on it.
    pub fn take(&self, endpoint: &Endpoint, now: Now) -> Option<Stream> {
        let mut pools = self.idle.borrow_mut();
        let idle = pools.get_mut(&endpoint.pool_key)?;
        while let Some(mut newest) = idle.pop_back() {
            if now < newest.until && connection::is_idle(&mut newest.stream) {
                return Some(newest.stream);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless enough are kept.
    pub fn put(&self, endpoint: &Endpoint, stream: Stream, now: Now) {
        let mut pools = self.idle.borrow_mut();
        let idle = match pools.get_mut(&endpoint.pool_key) {
            Some(idle) => idle,
            None => pools.entry(Arc::clone(&endpoint.pool_key)).or_default(),
        };
        if idle.len() < endpoint.idle_max {
            idle.push_back(Idle { stream, until: now + endpoint.idle_time });
        }
    }

    /// Closes what has been idle too long.
    pub fn sweep(&self, now: Now) {
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain(|one| now < one.until);
            !idle.is_empty()
        });
    }
}
