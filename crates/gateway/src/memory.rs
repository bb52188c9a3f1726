//! How much memory the process uses and may use. What follows from it is decided in `routing::shed`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use pointsman_routing::shed::Grade;

use crate::app::App;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What Linux calls "no limit" in version 1 is a number as large as fits in pages; anything near is none.
const UNLIMITED_BYTES: u64 = 1 << 60;
/// The size of a page where it is not told.
const PAGE_BYTES: u64 = 4096;

/// How short the process is of memory.
#[derive(Debug, Default)]
pub struct Memory {
    grade: AtomicU8,
    changing: Mutex<()>,
}

/// In the order in which they stand for numbers.
const GRADES: [Grade; 4] = [Grade::None, Grade::Batch, Grade::New, Grade::Connections];

impl Memory {
    /// Who is turned away now.
    pub fn grade(&self) -> Grade {
        GRADES.get(usize::from(self.grade.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// So much is used of so much; `None`: of any amount.
    pub fn note(&self, used_bytes: u64, bytes_max: Option<u64>) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.grade();
        let share = bytes_max.map_or(0.0, |bytes_max| used_bytes as f64 / bytes_max.max(1) as f64);
        let grade = before.next(share);
        if grade == before {
            return;
        }
        let at = GRADES.iter().position(|known| *known == grade).unwrap_or(0);
        self.grade.store(u8::try_from(at).unwrap_or(0), Ordering::Relaxed);
        let percent = share * 100.0;
        if grade > before {
            tracing::warn!(used_bytes, bytes_max, percent, refused = grade.name(), "short of memory");
        } else {
            tracing::info!(
                used_bytes,
                bytes_max,
                percent,
                refused = grade.name(),
                "more memory is free again"
            );
        }
    }
}

/// Looks at the memory for ever.
pub async fn run(app: std::sync::Arc<App>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let of_cgroup = cgroup_bytes_max(&|path| std::fs::read_to_string(path).ok());
    loop {
        look.tick().await;
        let bytes_max = bytes_max(app.snapshot.load().config.limits.memory_bytes_max, of_cgroup);
        app.metrics.memory_limit_bytes.set(bytes_max.map_or(-1, |bytes| bytes as i64));
        app.memory.note(resident_bytes(), bytes_max);
    }
}

/// Resident memory as Linux tells it; 0 elsewhere.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

/// What holds: the configured limit, or else the cgroup's.
fn bytes_max(configured: u64, of_cgroup: Option<u64>) -> Option<u64> {
    Some(configured).filter(|bytes| *bytes > 0).or(of_cgroup)
}

/// The least that the cgroup of the process and those above it allow, by what `read` finds in files; both versions.
fn cgroup_bytes_max(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let own = read(Path::new("/proc/self/cgroup"))?;
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return None;
        };
        // A container sees its own cgroup as the root, whatever its path is called outside.
        let folder = PathBuf::from(root).join(path.trim().trim_start_matches('/'));
        let folders = folder.ancestors().take_while(|folder| folder.starts_with(root));
        let limits = folders.filter_map(|folder| read(&folder.join(file))?.trim().parse::<u64>().ok());
        limits.filter(|bytes| *bytes < UNLIMITED_BYTES).min()
    };
    own.lines().filter_map(of_line).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Option<u64> {
        cgroup_bytes_max(&|path| {
            let known = files.iter().find(|(name, _)| Path::new(name) == path);
            known.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn n7_the_cap_is_the_least_of_the_cgroup_and_those_above() {
        let own = ("/proc/self/cgroup", "0::/a/b\n");
        for (name, files, expected) in [
            ("no cgroups", &[][..], None),
            ("no limit", &[own, ("/sys/fs/cgroup/a/b/memory.max", "max\n")], None),
            ("its own", &[own, ("/sys/fs/cgroup/a/b/memory.max", "1000000\n")], Some(1_000_000)),
            (
                "one above",
                &[own, ("/sys/fs/cgroup/a/b/memory.max", "5000"), ("/sys/fs/cgroup/a/memory.max", "4000")],
                Some(4000),
            ),
            ("in a container", &[own, ("/sys/fs/cgroup/memory.max", "77\n")], Some(77)),
            (
                "version 1",
                &[
                    ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/x\n"),
                    ("/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes", "9223372036854771712"),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "123456"),
                ],
                Some(123_456),
            ),
        ] {
            assert_eq!(found(files), expected, "{name}");
        }
        assert_eq!(
            (bytes_max(7, Some(9)), bytes_max(0, Some(9)), bytes_max(0, None)),
            (Some(7), Some(9), None)
        );
    }

    #[test]
    fn n7_threads_follow_what_the_process_may_use() {
        // The standard library reads the affinity and the cgroup's CPU quota, of both versions.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:"));
        let allowed: u32 = allowed
            .map_or(u32::MAX, |mask| mask.chars().filter_map(|c| c.to_digit(16)).map(u32::count_ones).sum());
        assert!(threads >= 1 && threads as u64 <= u64::from(allowed), "{threads} of {allowed}");
    }

    #[test]
    fn a_reading_without_a_cap_never_turns_anybody_away() {
        let memory = Memory::default();
        memory.note(u64::MAX, None);
        assert_eq!(memory.grade(), Grade::None);
        memory.note(96, Some(100));
        assert_eq!(memory.grade(), Grade::Connections);
        memory.note(10, Some(100));
        assert_eq!(memory.grade(), Grade::None);
        assert!(resident_bytes() > 0);
    }
}
