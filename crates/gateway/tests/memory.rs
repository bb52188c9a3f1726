//! What large bodies took is given back, with the allocator of the binary.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use pointsman::http::body::{Whole, give_back};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODIES: usize = 8;
const BODY_BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

fn body() -> Bytes {
    let mut body = Whole::default();
    body.push(&vec![7; BODY_BYTES]);
    body.freeze()
}

/// Left alone, the allocator keeps what the last of them took until there are others.
#[tokio::test(flavor = "current_thread")]
async fn memory_of_large_bodies_is_given_back() {
    let resident_bytes = || pointsman::memory::resident_bytes() as usize;
    LocalSet::new()
        .run_until(async {
            // Others of the same thread live on, as they always do.
            let others: Vec<_> = (0..1000).map(|size| vec![1_u8; size]).collect();
            let idle_bytes = resident_bytes();
            spawn_local(give_back());
            let bodies: Vec<_> = (0..BODIES).map(|_| body()).collect();
            drop(bodies);
            let freed_bytes = resident_bytes();
            assert!(freed_bytes > idle_bytes + BODIES * BODY_BYTES / 2, "it is not free at once");
            let began = Instant::now();
            while resident_bytes() > idle_bytes + BODIES * BODY_BYTES / 4 {
                assert!(began.elapsed() < PATIENCE, "{} of {freed_bytes} bytes are left", resident_bytes());
                sleep(Duration::from_millis(5)).await;
            }
            drop(others);
        })
        .await;
}
