//! Entries that are no hypercalls: exceptions of the guest's, with an instruction for the hypervisor to decode, and system calls of its user mode.

use crate::values::{Kind, Values};
use crate::world::{BASE, CODE, Cpu, DATA_PAGES, PAGES, World, stack};
use oxen_abi::arch_x86_64::{FLAT_KERNEL_CS, FLAT_KERNEL_SS};
use oxen_hal::{GuestFrame, VECTOR_HYPERCALL, VECTOR_SYSCALL32, VECTOR_SYSENTER};
use oxen_types::{Gva, VcpuId};

/// Where the instruction lies that is said to have caused the exception.
const INSTRUCTION: u64 = CODE + 0x800;
/// Longest instruction that processors accept.
const LONGEST: usize = 15;
const GENERAL_PROTECTION: u32 = 13;
const PAGE_FAULT: u32 = 14;
/// Error code of a page fault: a write by user-mode code to a page that is there.
const WRITE_TO_PRESENT: u32 = 7;

/// Instructions that write to (rdi), as kernels write to page tables.
const WRITES: &[&[u8]] = &[
    &[0x48, 0x89, 0x07],             // mov [rdi], rax
    &[0x89, 0x07],                   // mov [rdi], eax
    &[0x48, 0xc7, 0x07, 0, 0, 0, 0], // mov qword [rdi], 0
    &[0x48, 0x87, 0x07],             // xchg [rdi], rax
    &[0xf0, 0x48, 0x0f, 0xb1, 0x0f], // lock cmpxchg [rdi], rcx
    &[0xf0, 0x48, 0x0f, 0xc1, 0x07], // lock xadd [rdi], rax
    &[0xf0, 0x48, 0x0f, 0xba, 0x2f, 1], // lock bts qword [rdi], 1
    &[0xf0, 0x48, 0x0f, 0xba, 0x37, 1], // lock btr qword [rdi], 1
    &[0x48, 0x83, 0x0f, 0x20],       // or qword [rdi], 0x20
    &[0xf0, 0x48, 0x83, 0x27, 0xfd], // lock and qword [rdi], -3
    &[0x48, 0x83, 0x07, 1],          // add qword [rdi], 1
    &[0x48, 0xab],                   // stosq
    &[0xf3, 0x48, 0xab],             // rep stosq
    &[0x48, 0xa5],                   // movsq
    &[0xf3, 0x48, 0xa5],             // rep movsq
    &[0x66, 0x89, 0x07],             // mov [rdi], ax
    &[0x88, 0x07],                   // mov [rdi], al
];

/// Instructions that user mode may not use, and the hypervisor carries out for a guest's kernel.
const PRIVILEGED: &[&[u8]] = &[
    &[0x0f, 0xa2],                   // cpuid
    &[0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2], // the forced cpuid
    &[0x0f, 0x32],                   // rdmsr
    &[0x0f, 0x30],                   // wrmsr
    &[0x0f, 0x31],                   // rdtsc
    &[0x0f, 0x20, 0xc0],             // mov rax, cr0
    &[0x0f, 0x20, 0xd8],             // mov rax, cr3
    &[0x0f, 0x20, 0xe0],             // mov rax, cr4
    &[0x0f, 0x22, 0xc0],             // mov cr0, rax
    &[0x0f, 0x22, 0xd8],             // mov cr3, rax
    &[0x0f, 0x22, 0xe0],             // mov cr4, rax
    &[0x0f, 0x23, 0xf8],             // mov dr7, rax
    &[0x0f, 0x06],                   // clts
    &[0x0f, 0x09],                   // wbinvd
    &[0xfa],                         // cli
    &[0xfb],                         // sti
    &[0xf4],                         // hlt
    &[0xe4, 0x60],                   // in al, 0x60
    &[0xed],                         // in eax, dx
    &[0xef],                         // out dx, eax
    &[0xf3, 0x6d],                   // rep insd
    &[0xf3, 0x6e],                   // rep outsb
    &[0x0f, 0x01, 0x3f],             // invlpg [rdi]
    &[0x0f, 0x01, 0xd0],             // xgetbv
    &[0x0f, 0x01, 0xd1],             // xsetbv
    &[0x0f, 0x00, 0xd8],             // ltr ax
    &[0x0f, 0x01, 0x17],             // lgdt [rdi]
];

/// Model-specific registers that kernels use.
const MSRS: &[u64] = &[0x10, 0x1b, 0x8b, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0x277, 0x4000_0000];

impl Values<'_> {
    /// Prepares an entry by something that is no hypercall; gives its vector.
    pub fn trap(&mut self, vcpu: VcpuId) -> u32 {
        let (vector, instruction, error_code) = match self.rng.below(12) {
            0..=4 => (PAGE_FAULT, self.instruction(WRITES), WRITE_TO_PRESENT),
            5..=8 => (GENERAL_PROTECTION, self.instruction(PRIVILEGED), 0),
            9 => (self.rng.below(32) as u32, self.instruction(PRIVILEGED), self.rng.below(1 << 16) as u32),
            10 => (PAGE_FAULT, self.instruction(WRITES), self.rng.below(32) as u32),
            _ => (*self.rng.pick(&[VECTOR_SYSCALL32, VECTOR_SYSENTER]), Vec::new(), 0),
        };
        self.world.write(self.cpu, INSTRUCTION, &instruction);
        let target = self.target();
        self.world.machine.set_fault_address(self.cpu, Gva(target));
        let frame = GuestFrame {
            rip: INSTRUCTION,
            rdi: target,
            rsi: self.value(Kind::Pointer),
            rax: if self.rng.one_in(2) { self.value(Kind::Entry) } else { self.value(Kind::Any) },
            rcx: if vector == GENERAL_PROTECTION { *self.rng.pick(MSRS) } else { self.value(Kind::Entry) },
            rdx: self.value(Kind::Below(70_000)),
            error_code,
            ..base_frame(vcpu)
        };
        self.world.cpus[self.cpu as usize].borrow_mut().frame = frame;
        vector
    }

    fn instruction(&mut self, known: &[&[u8]]) -> Vec<u8> {
        let mut bytes = self.rng.pick(known).to_vec();
        if self.rng.one_in(6) {
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] = self.rng.next_u64() as u8;
        }
        while bytes.len() < LONGEST {
            bytes.push(self.rng.next_u64() as u8);
        }
        bytes
    }

    /// An address to write to: an entry of a page table, most of the time.
    fn target(&mut self) -> u64 {
        match self.rng.below(8) {
            0 => self.value(Kind::Pointer),
            // In the part of the address space where the processor's view of a guest's LDT may be.
            1 => 0xffff_8200_0000_0000 + self.rng.below(1 << 24),
            _ => BASE + (DATA_PAGES + self.rng.below(PAGES - DATA_PAGES)) * 4096 + self.rng.below(512) * 8,
        }
    }

    /// Puts on the stack what the `iret` call reads: rax, r11, rcx, flags, rip, cs, rflags, rsp, ss.
    pub fn iret_frame(&mut self, vcpu: VcpuId) {
        let cs = *self.rng.pick(&[0xe033, 0xe033, 0xe030, 0x33, 0x10, 0]);
        let flags = *self.rng.pick(&[0, 0, 0x100, 0xffff]);
        let rip = if self.rng.one_in(8) { self.value(Kind::Any) } else { CODE };
        let words = [0, 0x202, CODE, flags, rip, cs, self.value(Kind::Flags) | 0x200, stack(vcpu), 0xe02b];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.world.write(self.cpu, stack(vcpu) - bytes.len() as u64, &bytes);
    }
}

/// Registers of a guest's kernel.
pub fn base_frame(vcpu: VcpuId) -> GuestFrame {
    GuestFrame {
        rip: CODE + 2,
        rcx: CODE + 2,
        cs: FLAT_KERNEL_CS.into(),
        ss: FLAT_KERNEL_SS.into(),
        rsp: stack(vcpu),
        rflags: 1 << 9 | 2,
        ..GuestFrame::default()
    }
}

/// A guest that is in its user mode makes a system call.
pub fn system_call(world: &World, cpu: u32, vcpu: VcpuId) {
    let Cpu { frame, .. } = &mut *world.cpus[cpu as usize].borrow_mut();
    *frame = base_frame(vcpu);
    frame.entry_vector = VECTOR_HYPERCALL;
}
