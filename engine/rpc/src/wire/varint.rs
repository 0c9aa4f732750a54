//! LEB128: seven bits a byte, the lowest first.

/// Reads one from the front. None if there is none, or it is of more than 64 bits.
#[inline]
pub(crate) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
        if shift > 63 {
            return None;
        }
    }
}

/// As [`read`], of at most 32 bits in at most five bytes.
pub(crate) fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    let before = bytes.len();
    let value = u32::try_from(read(bytes)?).ok()?;
    (before - bytes.len() <= 5).then_some(value)
}

/// The bytes of the longest.
pub(crate) const MOST: usize = 10;

/// Writes the shortest form to the front of at least [`MOST`] bytes: of so many.
#[inline]
pub(crate) fn put(bytes: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        bytes[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    bytes[at] = value as u8;
    at + 1
}

/// Writes the shortest form.
pub(crate) fn write(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; MOST];
    let length = put(&mut bytes, value);
    out.extend_from_slice(&bytes[..length]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]) {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!((read(&mut rest), rest.len()), (Some(value), 0));
            assert_eq!(read_u32(&mut bytes.as_slice()), u32::try_from(value).ok());
        }
    }

    #[test]
    fn what_is_too_long_or_not_all_there_is_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 9], &[0xff; 10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02]] {
            assert_eq!(read(&mut &bytes[..]), None, "{bytes:?}");
        }
        // A form that is longer than it need be is one all the same.
        assert_eq!(read_u32(&mut &[0x85, 0x80, 0x80, 0x80, 0x00][..]), Some(5));
        assert_eq!(read_u32(&mut &[0x85, 0x80, 0x80, 0x80, 0x80, 0x00][..]), None);
        assert_eq!(read_u32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None);
    }
}
