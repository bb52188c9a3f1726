//! The newest decision records, in memory and bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::record::{Record, RequestId};

/// The newest decision records. Pushing is O(1); looking one up is O(n) and only done by people.
pub struct Ring {
    records: Mutex<VecDeque<Arc<Record>>>,
    records_max: usize,
}

impl Ring {
    /// A ring that keeps the newest `records_max`.
    pub fn new(records_max: usize) -> Self {
        Self { records: Mutex::new(VecDeque::new()), records_max }
    }

    /// Adds a record and forgets the oldest if the ring is full.
    pub fn push(&self, record: Arc<Record>) {
        if self.records_max == 0 {
            return;
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = (records.len() >= self.records_max).then(|| records.pop_front());
        records.push_back(record);
        drop(records);
        // The oldest is freed outside the lock.
        drop(oldest);
    }

    /// The record of one request, if it is still there.
    pub fn find(&self, id: RequestId) -> Option<Arc<Record>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().rev().find(|record| record.id == id).cloned()
    }

    /// The newest `limit` records, newest first.
    pub fn newest(&self, limit: usize) -> Vec<Arc<Record>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().rev().take(limit).cloned().collect()
    }
}
