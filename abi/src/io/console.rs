//! `io/console.h`: the console ring.

abi_structs! {
    /// The page between a domain and the console daemon. Indices run freely; the low bits are positions.
    pub struct XenconsInterface = "struct xencons_interface"[3088] {
        /// To the domain.
        [0] input: [u8; 1024] as "in",
        /// From the domain.
        [1024] output: [u8; 2048] as "out",
        [3072] in_cons: u32,
        [3076] in_prod: u32,
        [3080] out_cons: u32,
        [3084] out_prod: u32,
    }
}
