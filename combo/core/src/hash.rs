//! A hash that is the same in every process, version and machine.

/// FNV-1a of 64 bits. Not for what an attacker chooses: it is easily made to collide.
#[must_use]
pub fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let add = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325_u64, add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As its authors publish it.
    #[test]
    fn it_is_fnv_1a() {
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(stable_hash(text.bytes()), hash, "{text}");
        }
    }
}
