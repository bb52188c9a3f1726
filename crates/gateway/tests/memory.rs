//! What large bodies took is given back, with the allocator of the binary.
#![cfg(target_os = "linux")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use pointsman::http::body::{Whole, give_back};
use tokio::task::{LocalSet, spawn_local, yield_now};
use tokio::time::sleep;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many, and of how many bytes each.
const BODIES: [(usize, usize); 3] = [(8, 1 << 20), (6, 4 << 20), (4, 20 << 20)];
const PATIENCE: Duration = Duration::from_secs(20);

fn body(bytes: usize) -> Bytes {
    let mut body = Whole::default();
    body.push(&vec![7; bytes]);
    body.freeze()
}

/// What a thread may keep for the next body, and a little for what is around it.
const KEPT_BYTES_MAX: usize = 3 << 20;

#[tokio::test(flavor = "current_thread")]
async fn memory_of_large_bodies_is_given_back() {
    let resident_bytes = || pointsman::memory::resident_bytes() as usize;
    LocalSet::new()
        .run_until(async {
            // Others of the same thread live on, as they always do.
            let others: Vec<_> = (0..1000).map(|size| vec![1_u8; size]).collect();
            spawn_local(give_back());
            yield_now().await;
            for (count, bytes) in BODIES {
                let idle_bytes = resident_bytes();
                let bodies: Vec<_> = (0..count).map(|_| body(bytes)).collect();
                // What they are turned into goes through the allocator.
                let turned: Vec<_> = bodies.iter().map(|body| body.to_vec()).collect();
                assert!(resident_bytes() > idle_bytes + 2 * count * bytes, "{bytes}: all of it is there");
                drop(bodies);
                let left_bytes = resident_bytes();
                assert!(
                    left_bytes < idle_bytes + count * bytes + KEPT_BYTES_MAX,
                    "{bytes}: {left_bytes} at once"
                );
                drop(turned);
                let began = Instant::now();
                while resident_bytes() > idle_bytes + count * bytes / 4 {
                    let left_bytes = resident_bytes();
                    assert!(began.elapsed() < PATIENCE, "{bytes}: {left_bytes} are left");
                    sleep(Duration::from_millis(5)).await;
                }
            }
            drop(others);
        })
        .await;
}
