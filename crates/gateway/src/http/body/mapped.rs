//! The memory of large bodies. Each has a mapping of its own, so that the system has the memory back in the moment in which
//! the last of them is freed; an allocator keeps what is freed for a while, in case it is wanted again.

use std::cell::RefCell;
use std::io;
use std::ops::Deref;

use memmap2::MmapMut;

/// Mappings are a multiple of so many bytes, so that the next body can use that of the last.
const GRAIN_BYTES: usize = 64 * 1024;
/// What a thread keeps of freed bodies for the next ones while others live: to have new pages from the system costs more than
/// all else that is done with a body.
const SPARE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What it keeps when none lives.
const SPARE_BYTES_IDLE: usize = 512 * 1024;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { maps: Vec::new(), kept_bytes: 0, live_bytes: 0, on: false }) };
}

/// What a thread keeps.
struct Spare {
    maps: Vec<MmapMut>,
    kept_bytes: usize,
    /// Bytes of bodies that are not freed.
    live_bytes: usize,
    /// Whether anything is kept: somebody is there who gives it back.
    on: bool,
}

impl Spare {
    fn take(&mut self, bytes: usize) -> Option<MmapMut> {
        // A small body would hold the pages of a large one for as long as it lives.
        let most = 4 * bytes.next_multiple_of(GRAIN_BYTES);
        let fits = self.maps.iter().enumerate().filter(|(_, map)| (bytes..=most).contains(&map.len()));
        let (least, _) = fits.min_by_key(|(_, map)| map.len())?;
        let map = self.maps.swap_remove(least);
        self.kept_bytes -= map.len();
        Some(map)
    }

    fn put(&mut self, map: MmapMut) {
        self.live_bytes = self.live_bytes.saturating_sub(map.len());
        self.kept_bytes += map.len();
        self.maps.push(map);
        let most = match self.live_bytes {
            _ if !self.on => 0,
            0 => SPARE_BYTES_IDLE,
            1.. => SPARE_BYTES_MAX,
        };
        while self.kept_bytes > most
            && let Some(map) = self.maps.pop()
        {
            self.kept_bytes -= map.len();
        }
    }
}

/// Bytes in a mapping of their own, which grows with them.
pub(super) struct Mapped {
    /// Behind `len` may be what is left of an earlier body; nobody is shown it.
    map: MmapMut,
    len: usize,
}

impl Mapped {
    /// Room for so many bytes, at least.
    pub(super) fn with_capacity(bytes: usize) -> io::Result<Self> {
        // A thread that ends has nothing.
        let spare = SPARE.try_with(|spare| spare.borrow_mut().take(bytes));
        let map = match spare.ok().flatten() {
            Some(map) => map,
            None => MmapMut::map_anon(bytes.next_multiple_of(GRAIN_BYTES))?,
        };
        let _ = SPARE.try_with(|spare| spare.borrow_mut().live_bytes += map.len());
        Ok(Self { map, len: 0 })
    }

    /// Puts bytes behind those that are there.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len + bytes.len();
        if len > self.map.len() {
            let mut larger = Self::with_capacity(len.max(2 * self.map.len()))?;
            larger.push(self)?;
            std::mem::replace(self, larger).spare();
        }
        self.map[self.len..len].copy_from_slice(bytes);
        self.len = len;
        Ok(())
    }

    /// Keeps its memory for the next if there is not enough kept already; else the system has it back.
    pub(super) fn spare(self) {
        let _ = SPARE.try_with(|spare| spare.borrow_mut().put(self.map));
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[..self.len]
    }
}

/// Gives back what is kept on this thread, and has it keep some from now on: who calls this calls it again.
pub(super) fn give_back() {
    SPARE.with_borrow_mut(|spare| {
        (spare.maps, spare.kept_bytes, spare.on) = (Vec::new(), 0, true);
    });
}
