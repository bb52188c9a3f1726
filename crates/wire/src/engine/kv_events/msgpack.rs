//! As much of MessagePack as events need: a cursor that never recurses and never allocates.

/// A cursor over bytes. Every method gives `None` where what is there is something else, or is cut off.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.bytes(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.number(bytes)?).ok()
    }

    /// The length of an array.
    pub(super) fn array(&mut self) -> Option<usize> {
        match self.bytes(1)?[0] {
            short @ 0x90..=0x9f => Some(usize::from(short & 0x0f)),
            0xdc => self.length(2),
            0xdd => self.length(4),
            _ => None,
        }
    }

    /// The length of a map, if it is one; nothing is consumed otherwise.
    pub(super) fn map(&mut self) -> Option<usize> {
        let length = match self.rest.first()? {
            short @ 0x80..=0x8f => {
                let length = usize::from(short & 0x0f);
                self.bytes(1)?;
                return Some(length);
            }
            0xde => 2,
            0xdf => 4,
            _ => return None,
        };
        self.bytes(1)?;
        self.length(length)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = match self.bytes(1)?[0] {
            short @ 0xa0..=0xbf => usize::from(short & 0x1f),
            0xd9 => self.length(1)?,
            0xda => self.length(2)?,
            0xdb => self.length(4)?,
            _ => return None,
        };
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    /// Steps over a nil, if there is one.
    pub(super) fn nil(&mut self) -> bool {
        let is_nil = self.rest.first() == Some(&0xc0);
        if is_nil {
            self.rest = &self.rest[1..];
        }
        is_nil
    }

    pub(super) fn unsigned(&mut self) -> Option<u64> {
        match self.bytes(1)?[0] {
            small @ 0..=0x7f => Some(u64::from(small)),
            0xcc => self.number(1),
            0xcd => self.number(2),
            0xce => self.number(4),
            0xcf => self.number(8),
            _ => None,
        }
    }

    /// Steps over one value, whatever it is and however deep.
    pub(super) fn skip(&mut self) -> Option<()> {
        let mut left: usize = 1;
        while left > 0 {
            left -= 1;
            let inside = match self.bytes(1)?[0] {
                0..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
                short @ 0x80..=0x8f => 2 * usize::from(short & 0x0f),
                short @ 0x90..=0x9f => usize::from(short & 0x0f),
                short @ 0xa0..=0xbf => self.over(usize::from(short & 0x1f))?,
                0xc4 | 0xd9 => self.over_long(1, 0)?,
                0xc5 | 0xda => self.over_long(2, 0)?,
                0xc6 | 0xdb => self.over_long(4, 0)?,
                0xc7 => self.over_long(1, 1)?,
                0xc8 => self.over_long(2, 1)?,
                0xc9 => self.over_long(4, 1)?,
                0xcc | 0xd0 => self.over(1)?,
                0xcd | 0xd1 | 0xd4 => self.over(2)?,
                0xd5 => self.over(3)?,
                0xca | 0xce | 0xd2 => self.over(4)?,
                0xd6 => self.over(5)?,
                0xcb | 0xcf | 0xd3 => self.over(8)?,
                0xd7 => self.over(9)?,
                0xd8 => self.over(17)?,
                0xdc => self.length(2)?,
                0xdd => self.length(4)?,
                0xde => self.length(2)?.checked_mul(2)?,
                0xdf => self.length(4)?.checked_mul(2)?,
                0xc1 => return None,
            };
            left = left.checked_add(inside)?;
            // Every value has a byte at least.
            if left > self.rest.len() {
                return None;
            }
        }
        Some(())
    }

    fn over(&mut self, bytes: usize) -> Option<usize> {
        self.bytes(bytes).map(|_| 0)
    }

    fn over_long(&mut self, length_bytes: usize, more: usize) -> Option<usize> {
        let length = self.length(length_bytes)?;
        self.over(length.checked_add(more)?)
    }
}
