//! The processors.

use crate::{Cached, Event, FakeMachine, lock};
use oxen_hal::{Clock, CpuOps, FastPaths, GuestFrame, Processors, VcpuContext, WallClock};
use oxen_types::{CpuId, CpuSet, Gva, Mfn};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

/// One processor.
#[derive(Debug)]
pub(crate) struct FakeCpu {
    state: Mutex<CpuState>,
}

/// What one processor holds.
#[derive(Debug)]
pub(crate) struct CpuState {
    pub root: Option<Mfn>,
    pub tlb: BTreeMap<u64, Cached>,
    pub last_flush: u32,
    pub gdt: Vec<Mfn>,
    pub ldt_entries: u32,
    pub ldt_pages: BTreeMap<usize, Mfn>,
    pub deadline_ns: Option<u64>,
    /// Live registers, in the form in which they are saved.
    pub live: VcpuContext,
    pub bad_selectors: bool,
    pub fault_address: Gva,
    pub msrs: BTreeMap<u32, u64>,
    pub kicked: bool,
}

impl FakeCpu {
    pub fn new() -> Self {
        Self {
            state: Mutex::new(CpuState {
                root: None,
                tlb: BTreeMap::new(),
                last_flush: 1,
                gdt: Vec::new(),
                ldt_entries: 0,
                ldt_pages: BTreeMap::new(),
                deadline_ns: None,
                live: VcpuContext::new(576),
                bad_selectors: false,
                fault_address: Gva::NULL,
                msrs: BTreeMap::new(),
                kicked: false,
            }),
        }
    }
}

impl FakeMachine {
    pub(crate) fn cpu(&self, cpu: u32) -> MutexGuard<'_, CpuState> {
        lock(&self.cpus[cpu as usize].state)
    }

    /// Makes the next [`CpuOps::load_context`] on `cpu` find a selector that cannot be loaded.
    pub fn refuse_selectors(&self, cpu: u32) {
        self.cpu(cpu).bad_selectors = true;
    }

    /// Sets what [`CpuOps::fault_address`] says on `cpu`.
    pub fn set_fault_address(&self, cpu: u32, va: Gva) {
        self.cpu(cpu).fault_address = va;
    }

    /// Gives `cpu` a model-specific register; without, reading and writing it is refused.
    pub fn set_msr(&self, cpu: u32, msr: u32, value: u64) {
        self.cpu(cpu).msrs.insert(msr, value);
    }

    /// Changes the live registers of `cpu`, as the running guest would.
    pub fn with_live<T>(&self, cpu: u32, f: impl FnOnce(&mut VcpuContext) -> T) -> T {
        f(&mut self.cpu(cpu).live)
    }

    /// True where `cpu` was kicked since the last call.
    pub fn was_kicked(&self, cpu: u32) -> bool {
        std::mem::take(&mut self.cpu(cpu).kicked)
    }

    fn mine(&self) -> MutexGuard<'_, CpuState> {
        self.cpu(self.this())
    }
}

impl CpuOps for FakeMachine {
    fn fpu_bytes(&self) -> usize {
        self.config.fpu_bytes
    }

    fn save_context(&self, context: &mut VcpuContext, frame: &GuestFrame) {
        let live = &self.mine().live;
        context.clone_from(live);
        context.frame = *frame;
    }

    fn load_context(&self, context: &VcpuContext, frame: &mut GuestFrame) -> bool {
        let mut state = self.mine();
        state.live.clone_from(context);
        *frame = context.frame;
        let refused = std::mem::take(&mut state.bad_selectors);
        if refused {
            state.live.ds = 0;
        }
        !refused
    }

    fn swap_gs(&self) {
        let live = &mut self.mine().live;
        live.in_kernel = !live.in_kernel;
    }

    fn guest_in_kernel(&self) -> bool {
        self.mine().live.in_kernel
    }

    fn set_fast_paths(&self, _paths: Option<&FastPaths>) {}

    fn set_fast_stack(&self, _kernel_sp: Gva) {}

    fn set_fast_kernel_root(&self, _root: Mfn) {}

    fn set_fast_user_root(&self, _root: Mfn) {}

    fn fs_base(&self) -> u64 {
        self.mine().live.fs_base
    }

    fn set_fs_base(&self, base: u64) {
        self.mine().live.fs_base = base;
    }

    fn gs_base(&self) -> u64 {
        let live = &self.mine().live;
        if live.in_kernel { live.gs_base_kernel } else { live.gs_base_user }
    }

    fn set_gs_base(&self, base: u64) {
        let live = &mut self.mine().live;
        if live.in_kernel {
            live.gs_base_kernel = base;
        } else {
            live.gs_base_user = base;
        }
    }

    fn inactive_gs_base(&self) -> u64 {
        let live = &self.mine().live;
        if live.in_kernel { live.gs_base_user } else { live.gs_base_kernel }
    }

    fn set_inactive_gs_base(&self, base: u64) {
        let live = &mut self.mine().live;
        if live.in_kernel {
            live.gs_base_user = base;
        } else {
            live.gs_base_kernel = base;
        }
    }

    fn load_user_gs_selector(&self, selector: u16) {
        self.mine().live.gs = selector;
    }

    fn data_selectors(&self) -> [u16; 4] {
        let live = &self.mine().live;
        [live.ds, live.es, live.fs, live.gs]
    }

    fn clear_data_selectors(&self) {
        let live = &mut self.mine().live;
        (live.ds, live.es, live.fs, live.gs) = (0, 0, 0, 0);
    }

    fn set_task_switched(&self, set: bool) {
        self.mine().live.task_switched = set;
    }

    fn give_up_smap(&self) -> bool {
        false
    }

    fn set_guest_cr4(&self, bits: u64) {
        self.mine().live.cr4 = bits;
    }

    fn fault_address(&self) -> Gva {
        self.mine().fault_address
    }

    fn cr0(&self) -> u64 {
        0x8005_0033 | u64::from(self.mine().live.task_switched) << 3
    }

    fn cr4(&self) -> u64 {
        0x6f0 | self.mine().live.cr4
    }

    fn set_debug_register(&self, number: usize, value: u64) {
        self.mine().live.debug[number] = value;
    }

    fn debug_register(&self, number: usize) -> u64 {
        self.mine().live.debug[number]
    }

    fn xcr0(&self) -> u64 {
        self.mine().live.xcr0
    }

    fn set_xcr0(&self, value: u64) {
        self.mine().live.xcr0 = value;
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        lock(&self.devices).cpuid.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }

    fn rdmsr(&self, msr: u32) -> Option<u64> {
        self.mine().msrs.get(&msr).copied()
    }

    fn wrmsr(&self, msr: u32, value: u64) -> bool {
        self.mine().msrs.get_mut(&msr).map(|v| *v = value).is_some()
    }

    fn port_in(&self, port: u16, bytes: u8) -> u32 {
        let value = lock(&self.devices).ports.get(&port).copied().unwrap_or(u32::MAX);
        match bytes {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        }
    }

    fn port_out(&self, port: u16, bytes: u8, value: u32) {
        self.event(Event::PortOut(port, bytes, value));
    }

    fn wbinvd(&self) {
        self.event(Event::WriteBack(CpuId(self.this())));
    }
}

impl Processors for FakeMachine {
    fn this_cpu(&self) -> CpuId {
        CpuId(self.this())
    }

    fn online(&self) -> &CpuSet {
        &self.online
    }

    fn kick(&self, cpu: CpuId) {
        self.cpu(cpu.0).kicked = true;
        self.event(Event::Kick(cpu));
    }

    fn wait_for_interrupt(&self) {
        self.event(Event::Wait(CpuId(self.this())));
        if let Some(hook) = self.idle_hook.get() {
            hook();
        }
    }

    fn cpu_identity(&self, cpu: CpuId) -> Option<(u32, u32)> {
        (cpu.0 < self.config.cpus).then(|| (cpu.0 * 2, cpu.0))
    }

    fn topology(&self, cpu: CpuId) -> Option<(u32, u32, u32)> {
        (cpu.0 < self.config.cpus).then_some((cpu.0, 0, 0))
    }
}

impl Clock for FakeMachine {
    fn now_ns(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst)
    }

    fn tsc(&self) -> u64 {
        (u128::from(self.now_ns()) * u128::from(self.config.tsc_khz) / 1_000_000) as u64
    }

    fn tsc_khz(&self) -> u64 {
        self.config.tsc_khz
    }

    fn tsc_to_ns(&self, tsc: u64) -> u64 {
        (u128::from(tsc) * 1_000_000 / u128::from(self.config.tsc_khz)) as u64
    }

    fn tsc_scale(&self) -> (u32, i8) {
        // ns = (tsc << shift) * mul >> 32, with the largest mul that fits.
        let mut scaled = (1_000_000_u128 << 32) / u128::from(self.config.tsc_khz);
        let mut shift = 0_i8;
        while scaled > u128::from(u32::MAX) {
            scaled >>= 1;
            shift += 1;
        }
        while scaled <= u128::from(u32::MAX / 2) {
            scaled <<= 1;
            shift -= 1;
        }
        (scaled as u32, shift)
    }

    fn tsc_is_stable(&self) -> bool {
        true
    }

    fn set_deadline(&self, deadline_ns: Option<u64>) {
        self.mine().deadline_ns = deadline_ns;
    }

    fn wall_clock_at_zero(&self) -> WallClock {
        lock(&self.devices).wall_clock
    }

    fn set_wall_clock_at_zero(&self, clock: WallClock) {
        lock(&self.devices).wall_clock = clock;
    }
}
