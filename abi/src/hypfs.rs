//! `hypfs.h`: what the hypervisor tells, as a tree of named entries.

abi_consts! {
    /// The version of this interface.
    pub const XEN_HYPFS_VERSION: u32 = 1 => "XEN_HYPFS_VERSION";
    /// Most bytes of a path, its terminating zero included.
    pub const XEN_HYPFS_MAX_PATHLEN: u64 = 1024 => "XEN_HYPFS_MAX_PATHLEN";
    /// [`HypfsDirentry::encoding`]: the content as it is.
    pub const XEN_HYPFS_ENC_PLAIN: u8 = 0 => "XEN_HYPFS_ENC_PLAIN";
    /// [`HypfsDirentry::encoding`]: compressed by gzip.
    pub const XEN_HYPFS_ENC_GZIP: u8 = 1 => "XEN_HYPFS_ENC_GZIP";
}

abi_enums! {
    /// The commands of `hypfs_op`.
    pub enum HypfsOp: u32 {
        /// Returns [`XEN_HYPFS_VERSION`].
        GET_VERSION = 0 => "XEN_HYPFS_OP_get_version",
        /// Path, its length with the terminating zero, buffer, its size: [`HypfsDirentry`] and the content.
        READ = 1 => "XEN_HYPFS_OP_read",
        /// Path, its length with the terminating zero, new content, its size.
        WRITE_CONTENTS = 2 => "XEN_HYPFS_OP_write_contents",
    }

    /// What an entry is ([`HypfsDirentry::kind`]).
    pub enum HypfsType: u8 {
        /// A directory: its content is one [`HypfsDirlistentry`] after the other.
        DIR = 0 => "XEN_HYPFS_TYPE_DIR",
        /// Bytes.
        BLOB = 1 => "XEN_HYPFS_TYPE_BLOB",
        /// Text with a terminating zero.
        STRING = 2 => "XEN_HYPFS_TYPE_STRING",
        /// A number of 1, 2, 4 or 8 bytes.
        UINT = 3 => "XEN_HYPFS_TYPE_UINT",
        /// The same with a sign.
        INT = 4 => "XEN_HYPFS_TYPE_INT",
        /// One byte, 0 or 1.
        BOOL = 5 => "XEN_HYPFS_TYPE_BOOL",
    }
}

abi_structs! {
    /// What an entry is and how long.
    pub struct HypfsDirentry = "struct xen_hypfs_direntry"[12] {
        [0] kind: HypfsType as "type",
        [1] encoding: u8,
        [2] pad: u16,
        /// Bytes of the content.
        [4] content_len: u32,
        /// Most bytes that can be written; 0 for what cannot be.
        [8] max_write_len: u32,
    }

    /// An entry of a directory; its name, ended by a zero and padded to a multiple of four bytes, begins at byte [`HypfsDirlistentry::NAME`].
    pub struct HypfsDirlistentry = "struct xen_hypfs_dirlistentry"[16] {
        [0] e: HypfsDirentry,
        /// Bytes to the next one; 0 in the last.
        [12] off_next: u16,
        [14] _name: [u8; 2],
    }
}

impl HypfsDirlistentry {
    /// Where the name begins.
    pub const NAME: usize = 14;
}
