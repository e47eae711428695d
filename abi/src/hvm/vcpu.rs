//! `hvm/hvm_vcpu.h`: the state in which an HVM vCPU starts.

use crate::Payload;

abi_consts! {
    /// [`VcpuHvmContext::mode`]: 32 bits.
    pub const VCPU_HVM_MODE_32B: u32 = 0;
    /// [`VcpuHvmContext::mode`]: 64 bits.
    pub const VCPU_HVM_MODE_64B: u32 = 1;
}

abi_structs! {
    /// The argument of `VCPUOP_initialise` for HVM vCPUs.
    pub struct VcpuHvmContext = "struct vcpu_hvm_context"[128] {
        /// [`VCPU_HVM_MODE_32B`] or [`VCPU_HVM_MODE_64B`].
        [0] mode: u32,
        /// Zero.
        [4] pad: u32,
        /// [`VcpuHvmX86_32`] or [`VcpuHvmX86_64`].
        [8] cpu_regs: Payload<15>,
    }

    /// Protected or real mode; segment attributes as in the VMCS.
    pub struct VcpuHvmX86_32 = "struct vcpu_hvm_x86_32"[120] {
        [0] eax: u32,
        [4] ecx: u32,
        [8] edx: u32,
        [12] ebx: u32,
        [16] esp: u32,
        [20] ebp: u32,
        [24] esi: u32,
        [28] edi: u32,
        [32] eip: u32,
        [36] eflags: u32,
        [40] cr0: u32,
        [44] cr3: u32,
        [48] cr4: u32,
        [52] pad1: u32,
        [56] efer: u64,
        [64] cs_base: u32,
        [68] ds_base: u32,
        [72] ss_base: u32,
        [76] es_base: u32,
        [80] tr_base: u32,
        [84] cs_limit: u32,
        [88] ds_limit: u32,
        [92] ss_limit: u32,
        [96] es_limit: u32,
        [100] tr_limit: u32,
        [104] cs_ar: u16,
        [106] ds_ar: u16,
        [108] ss_ar: u16,
        [110] es_ar: u16,
        [112] tr_ar: u16,
        [114] pad2: [u16; 3],
    }

    /// Long mode with flat segments.
    pub struct VcpuHvmX86_64 = "struct vcpu_hvm_x86_64"[112] {
        [0] rax: u64,
        [8] rcx: u64,
        [16] rdx: u64,
        [24] rbx: u64,
        [32] rsp: u64,
        [40] rbp: u64,
        [48] rsi: u64,
        [56] rdi: u64,
        [64] rip: u64,
        [72] rflags: u64,
        [80] cr0: u64,
        [88] cr3: u64,
        [96] cr4: u64,
        [104] efer: u64,
    }
}
