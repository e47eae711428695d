//! The processor that runs the calling code: its set-up, and the registers of the guest that it runs.

mod fast;
mod features;
mod fpu;
mod msr;
mod registers;
mod segments;
mod start;

pub use features::{Features, features};
pub(crate) use registers::{cr2, invlpg};
pub(crate) use start::{CR4_PGE, start};
pub use start::{prepare, start_boot_cpu};

use crate::X86;
use crate::percpu::{MODE_SLOW, MODE_USER, current};
use crate::port;
use core::arch::asm;
use features::features_ref;
use oxen_hal::{CpuOps, FastPaths, GuestFrame, VcpuContext};
use oxen_types::{Gva, Mfn};
use registers::xsetbv;
use start::{CR0_TS, CR4_GUEST};

/// DR6 with no condition reported (SDM vol. 3, "Debug Status Register").
pub(crate) const DR6_CLEAR: u64 = 0xffff_0ff0;
/// DR7 with no watchpoint.
pub(crate) const DR7_CLEAR: u64 = 0x400;
/// The enable bits of DR7.
const DR7_ACTIVE: u64 = 0xff;

fn set_ts(set: bool) {
    let cpu = current();
    let value = cpu.cr0.get();
    if (value & CR0_TS != 0) == set {
        return;
    }
    cpu.cr0.set(value ^ CR0_TS);
    if set {
        // SAFETY: TS only makes FPU instructions fault, which the hypervisor does not use.
        unsafe { registers::set_cr0(value | CR0_TS) };
    } else {
        // SAFETY: as above.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }
}

fn load_debug(context: &VcpuContext) {
    let cpu = current();
    let [d0, d1, d2, d3, _, _, dr6, dr7] = context.debug;
    // SAFETY: the values of a context have been checked when the guest set them.
    unsafe {
        for (number, (value, loaded)) in [d0, d1, d2, d3].into_iter().zip(&cpu.debug).enumerate() {
            if loaded.replace(value) != value {
                registers::set_debug_register(number, value);
            }
        }
        if dr7 & DR7_ACTIVE != 0 {
            registers::set_debug_register(6, dr6);
        }
        if cpu.dr7.replace(dr7) != dr7 {
            registers::set_debug_register(7, dr7);
        }
    }
}

fn load_selectors(context: &VcpuContext) -> bool {
    // Selectors of the GDT or LDT of the guest before must go even where the number stays: their hidden parts belong to it.
    segments::load_ds(context.ds) & segments::load_es(context.es) & segments::load_fs(context.fs) & segments::load_gs(context.gs)
}

impl CpuOps for X86 {
    fn fpu_bytes(&self) -> usize {
        features_ref().fpu_bytes
    }

    fn save_context(&self, context: &mut VcpuContext, frame: &GuestFrame) {
        context.frame = *frame;
        [context.ds, context.es, context.fs, context.gs] = self.data_selectors();
        context.fs_base = segments::fs_base();
        let (active, inactive) = (segments::gs_base(), segments::inactive_gs_base());
        (context.gs_base_kernel, context.gs_base_user) = if context.in_kernel { (active, inactive) } else { (inactive, active) };
        if context.debug[7] & DR7_ACTIVE != 0 {
            context.debug[6] = registers::debug_register(6);
        }
        set_ts(false);
        fpu::save(features_ref(), &mut context.fpu);
    }

    fn load_context(&self, context: &VcpuContext, frame: &mut GuestFrame) -> bool {
        let features = features_ref();
        *frame = context.frame;
        current().fast.mode.set(if context.in_kernel { MODE_SLOW } else { MODE_SLOW | MODE_USER });
        self.set_guest_cr4(context.cr4);
        let loaded = load_selectors(context);
        segments::set_fs_base(context.fs_base);
        let (active, inactive) =
            if context.in_kernel { (context.gs_base_kernel, context.gs_base_user) } else { (context.gs_base_user, context.gs_base_kernel) };
        segments::set_gs_base(active);
        segments::set_inactive_gs_base(inactive);
        load_debug(context);
        if features.tsc_aux && current().tsc_aux.replace(context.tsc_aux) != context.tsc_aux {
            self.wrmsr(msr::TSC_AUX, context.tsc_aux.into());
        }
        set_ts(false);
        if !fpu::load(features, &context.fpu, context.xcr0) {
            crate::log!("{}: a vCPU's extended state is not one that the processor has; it starts afresh", current().cpu);
        }
        set_ts(context.task_switched);
        loaded
    }

    #[inline(always)]
    fn swap_gs(&self) {
        segments::swapgs();
        let mode = &current().fast.mode;
        mode.set(mode.get() ^ MODE_USER);
    }

    #[inline(always)]
    fn guest_in_kernel(&self) -> bool {
        current().fast.mode.get() & MODE_USER == 0
    }

    fn set_fast_paths(&self, paths: Option<&FastPaths>) {
        fast::set(paths);
    }

    #[inline]
    fn set_fast_stack(&self, kernel_sp: Gva) {
        fast::set_stack(kernel_sp);
    }

    #[inline]
    fn set_fast_kernel_root(&self, root: Mfn) {
        current().fast.kernel_cr3.set(root.maddr().0);
    }

    #[inline]
    fn set_fast_user_root(&self, root: Mfn) {
        current().fast.user_cr3.set(root.maddr().0);
    }

    #[inline]
    fn fs_base(&self) -> u64 {
        segments::fs_base()
    }

    #[inline]
    fn set_fs_base(&self, base: u64) {
        segments::set_fs_base(base);
    }

    #[inline]
    fn gs_base(&self) -> u64 {
        segments::gs_base()
    }

    #[inline]
    fn set_gs_base(&self, base: u64) {
        segments::set_gs_base(base);
    }

    #[inline]
    fn inactive_gs_base(&self) -> u64 {
        segments::inactive_gs_base()
    }

    #[inline]
    fn set_inactive_gs_base(&self, base: u64) {
        segments::set_inactive_gs_base(base);
    }

    fn load_user_gs_selector(&self, selector: u16) {
        segments::swapgs();
        segments::load_gs(selector);
        segments::swapgs();
    }

    fn data_selectors(&self) -> [u16; 4] {
        [segments::ds(), segments::es(), segments::fs(), segments::gs()]
    }

    fn clear_data_selectors(&self) {
        segments::load_ds(0);
        segments::load_es(0);
        segments::load_fs(0);
        segments::load_gs(0);
    }

    #[inline]
    fn set_task_switched(&self, set: bool) {
        set_ts(set);
    }

    fn give_up_smap(&self) -> bool {
        let cpu = current();
        let value = cpu.cr4.get();
        if value & start::CR4_SMAP == 0 {
            return false;
        }
        cpu.cr4.set(value & !start::CR4_SMAP);
        // SAFETY: without SMAP the hypervisor runs as well, only less guarded against its own mistakes.
        unsafe { registers::set_cr4(value & !start::CR4_SMAP) };
        true
    }

    fn set_guest_cr4(&self, bits: u64) {
        let cpu = current();
        let supported = if features_ref().fsgsbase { CR4_GUEST } else { CR4_GUEST & !start::CR4_FSGSBASE };
        let value = cpu.cr4.get() & !CR4_GUEST | bits & supported;
        if cpu.cr4.replace(value) != value {
            // SAFETY: only bits that change what guests may do differ from the value with which the hypervisor already runs.
            unsafe { registers::set_cr4(value) };
        }
    }

    #[inline]
    fn fault_address(&self) -> Gva {
        Gva(cr2())
    }

    fn cr0(&self) -> u64 {
        current().cr0.get()
    }

    fn cr4(&self) -> u64 {
        current().cr4.get()
    }

    fn set_debug_register(&self, number: usize, value: u64) {
        let cpu = current();
        if let Some(copy) = cpu.debug.get(number) {
            copy.set(value);
        } else if number == 7 {
            cpu.dr7.set(value);
        }
        // SAFETY: the caller has checked the value.
        unsafe { registers::set_debug_register(number, value) };
    }

    fn debug_register(&self, number: usize) -> u64 {
        registers::debug_register(number)
    }

    fn xcr0(&self) -> u64 {
        current().xcr0.get()
    }

    fn set_xcr0(&self, value: u64) {
        if features_ref().xsave && xsetbv(value & features_ref().xcr0) {
            current().xcr0.set(value & features_ref().xcr0);
        }
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    }

    fn rdmsr(&self, msr: u32) -> Option<u64> {
        registers::rdmsr(msr)
    }

    fn wrmsr(&self, msr: u32, value: u64) -> bool {
        // SAFETY: the caller decides by the guest's MSR policy, which lists the registers that do not concern the hypervisor.
        unsafe { registers::wrmsr(msr, value) }
    }

    fn port_in(&self, port: u16, bytes: u8) -> u32 {
        // SAFETY: the caller decides by the guest's I/O permissions, which leave out the hypervisor's own ports.
        unsafe {
            match bytes {
                1 => port::in8(port).into(),
                2 => port::in16(port).into(),
                _ => port::in32(port),
            }
        }
    }

    fn port_out(&self, port: u16, bytes: u8, value: u32) {
        // SAFETY: as in `port_in`.
        unsafe {
            match bytes {
                1 => port::out8(port, value as u8),
                2 => port::out16(port, value as u16),
                _ => port::out32(port, value),
            }
        }
    }

    fn wbinvd(&self) {
        // SAFETY: writes caches back; no value changes.
        unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
    }
}
