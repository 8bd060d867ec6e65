//! What `statfs` says of file systems that wait for nobody but a disk, and of which the kernel knows all that happens.

/// In statfs(2): ext, XFS, Btrfs, F2FS, tmpfs, ramfs, overlayfs, SquashFS, EROFS, ZFS, Bcachefs, ISO 9660, FAT, exFAT.
pub(crate) const KINDS: [u32; 14] = [
    0xef53,
    0x5846_5342,
    0x9123_683e,
    0xf2f5_2010,
    0x0102_1994,
    0x8584_58f6,
    0x794c_7630,
    0x7371_7368,
    0xe0f5_e1e2,
    0x2fc1_2fc1,
    0xca45_1a4e,
    0x9660,
    0x4d44,
    0x2011_bab0,
];
