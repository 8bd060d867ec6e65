//! Takes bytes, gives the number that stands for them: FNV-1a of 128 bits. Pure.
//!
//! Of all builds the same, whatever the compiler, so that it can be an entity tag. Nobody who would look
//! for two files of one number writes the files that are embedded.

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

pub(crate) fn of(bytes: &[u8]) -> u128 {
    let mut hash = OFFSET;
    for byte in bytes {
        hash = (hash ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of these are those of the authors.
    #[test]
    fn it_is_that_of_fowler_noll_and_vo() {
        assert_eq!(of(b""), OFFSET);
        assert_eq!(of(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(of(b"foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
        assert_ne!(of(b"ab"), of(b"ba"));
    }
}
