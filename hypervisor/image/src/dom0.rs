//! Building dom0 from the loader's modules.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use oxen_abi::xen::{Dom0VgaConsoleInfo, VmAssistType, VgaTextMode3, VgaType, VgaVesaLfb};
use oxen_abi::zerocopy::IntoBytes;
use oxen_builder::{Built, GuestMemory, Plan, PlanInput, Role, build as build_memory, load_initrd, load_kernel, pv_hypercall_page};
use oxen_core::Hypervisor;
use oxen_core::domain::{DomainSpec, Privileges};
use oxen_core::start::Start;
use oxen_hal::{Frames, Platform, Processors};
use oxen_kernel_image::{Kernel, KernelFile};
use oxen_machine::boot::Module;
use oxen_machine::boot::multiboot2::Screen;
use oxen_machine::{MACHINE, X86, fatal, info, log, memory};
use oxen_mm::MAX_ORDER;
use oxen_options::Options;
use oxen_types::{DomId, Mfn, Pfn, VcpuId};

/// Most vCPUs that dom0 gets.
const MAX_VCPUS: u32 = 64;
/// Shift from pages to MiB.
const MIB_SHIFT: u32 = 8;

/// dom0's kernel in memory, ready to be read.
pub struct Unpacked {
    module: Module,
    /// Where a compressed kernel was unpacked to.
    buffer: Option<&'static mut [u8]>,
}

impl Unpacked {
    fn bytes(&self) -> &[u8] {
        match &self.buffer {
            Some(buffer) => buffer,
            None => self.module.bytes(),
        }
    }
}

/// Recognises dom0's kernel and unpacks it, while large pieces of memory are still to be had.
pub fn unpack(module: Option<Module>) -> Unpacked {
    let Some(module) = module else {
        fatal::cannot_go_on(format_args!("No dom0 kernel: give it to GRUB as the first module2 of this entry."));
    };
    let file = match KernelFile::open(module.bytes()) {
        Ok(file) => file,
        Err(error) => fatal::cannot_go_on(format_args!("The dom0 kernel cannot be used: {error}")),
    };
    info!("dom0 kernel: {}, {}, {} KiB unpacked", file.container(), file.compression(), file.unpacked_len() >> 10);
    if file.stored().is_some() {
        return Unpacked { module, buffer: None };
    }
    let Some(buffer) = memory::early_buffer(file.unpacked_len()) else {
        fatal::cannot_go_on(format_args!("Too little memory to unpack the dom0 kernel: {} KiB in one piece", file.unpacked_len() >> 10));
    };
    if let Err(error) = file.unpack_into(buffer) {
        fatal::cannot_go_on(format_args!("The dom0 kernel cannot be used: {error}"));
    }
    Unpacked { module, buffer: Some(buffer) }
}

/// dom0's memory: stretches of machine frames, in the order of its own numbering.
struct Memory {
    /// (first PFN, first MFN, frames).
    stretches: Vec<(u64, Mfn, u64)>,
}

impl Memory {
    /// Takes `pages` for dom0, in stretches as large as there are.
    fn allocate(hv: &Hypervisor<X86>, pages: u64) -> Option<Self> {
        let mut stretches: Vec<(u64, Mfn, u64)> = Vec::new();
        let (mut have, mut order) = (0, MAX_ORDER);
        while have < pages {
            order = order.min((pages - have).ilog2());
            match hv.memory.alloc_for(DomId::DOM0, order, 0) {
                Ok(mfn) => {
                    match stretches.last_mut() {
                        Some((_, first, count)) if first.0 + *count == mfn.0 => *count += 1 << order,
                        _ => stretches.push((have, mfn, 1 << order)),
                    }
                    have += 1 << order;
                }
                Err(_) if order > 0 => order -= 1,
                Err(_) => return None,
            }
        }
        Some(Self { stretches })
    }

    fn mfn(&self, pfn: Pfn) -> Option<Mfn> {
        let index = self.stretches.partition_point(|s| s.0 <= pfn.0).checked_sub(1)?;
        let (first, mfn, count) = *self.stretches.get(index)?;
        (pfn.0 - first < count).then(|| mfn.offset(pfn.0 - first))
    }
}

/// A PFN that dom0 does not have: a bug in the plan.
#[derive(Debug)]
struct NoSuchFrame(Pfn);

impl GuestMemory for Memory {
    type Error = NoSuchFrame;

    fn mfns(&self, first: Pfn, out: &mut [u64]) -> Result<(), NoSuchFrame> {
        for (i, slot) in out.iter_mut().enumerate() {
            let pfn = first.offset(i as u64);
            *slot = self.mfn(pfn).ok_or(NoSuchFrame(pfn))?.0;
        }
        Ok(())
    }

    fn write(&mut self, pfn: Pfn, offset: usize, bytes: &[u8]) -> Result<(), NoSuchFrame> {
        MACHINE.write_bytes(self.mfn(pfn).ok_or(NoSuchFrame(pfn))?, offset, bytes);
        Ok(())
    }

    /// The frames were cleared when they were allocated.
    fn zero(&mut self, _: Pfn, _: usize, _: usize) -> Result<(), NoSuchFrame> {
        Ok(())
    }
}

/// Builds dom0 and makes its first vCPU ready to run.
pub fn build(hv: &Hypervisor<X86>, options: &Options, kernel: Unpacked, initrd: Option<Module>, screen: Option<Screen>, efi: bool) {
    let parsed = match Kernel::parse(kernel.bytes()) {
        Ok(parsed) => parsed,
        Err(error) => fatal::cannot_go_on(format_args!("The dom0 kernel cannot be used: {error}")),
    };
    let pages = size(hv, options);
    let input = PlanInput {
        nr_pages: pages,
        initrd_len: initrd.as_ref().map_or(0, |m| m.bytes().len() as u64),
        role: Role::Dom0 { vga: screen.map(vga), pm_bits: 0 },
    };
    let plan = match Plan::new(parsed.info(), &input) {
        Ok(plan) => plan,
        Err(error) => fatal::cannot_go_on(format_args!("dom0 cannot be built with {} MiB: {error}", pages >> MIB_SHIFT)),
    };
    let vcpus = options.dom0_max_vcpus.count(MACHINE.online().len(), MAX_VCPUS);
    let spec = DomainSpec::new(DomId::DOM0, Privileges { control: true, hardware: true }, vcpus);
    let (Some(mut memory), Ok(domain)) = (Memory::allocate(hv, pages), hv.add_domain(&spec)) else {
        fatal::cannot_go_on(format_args!("Too little memory: dom0 was to have {} MiB", pages >> MIB_SHIFT));
    };
    let mut line = String::from(kernel.module.command_line());
    if !options.dom0_args.is_empty() {
        line.push(' ');
        line.push_str(&options.dom0_args);
    }
    // Where the firmware is UEFI the kernel finds the ACPI tables nowhere else: it sees no EFI system table.
    if efi && let Some(rsdp) = MACHINE.acpi_rsdp() {
        let _ = write!(line, " acpi_rsdp={rsdp}");
    }
    info!("dom0 command line: {line}");
    let built = fill(&plan, &parsed, initrd.as_ref(), &mut memory, domain.shared_info.mfn(), &line);
    for &(pfn, mfn, count) in &memory.stretches {
        for i in 0..count {
            MACHINE.set_m2p(mfn.offset(i), pfn + i);
        }
    }
    let extended_cr3 = parsed.info().pae;
    drop(parsed);
    give_back(hv, kernel, initrd);
    hv.add_vcpus(&domain, options.dom0_vcpus_pin);
    if extended_cr3 {
        domain.vm_assist.fetch_or(1 << VmAssistType::PAE_EXTENDED_CR3.raw(), core::sync::atomic::Ordering::Relaxed);
    }
    let start = Start { rip: built.rip, rsp: built.rsp, rsi: built.rsi, root: built.cr3 };
    if let Err(error) = hv.set_start(&domain, &start) {
        panic!("dom0's page tables as built are not valid: {error}");
    }
    log!("dom0: {} MiB, {vcpus} vCPUs, entry {}", pages >> MIB_SHIFT, start.rip);
    if let Some(vcpu) = domain.vcpu(VcpuId(0)) {
        hv.bring_up(MACHINE.this_cpu(), vcpu);
    }
}

/// dom0's size in pages; its limit is set on its account.
fn size(hv: &Hypervisor<X86>, options: &Options) -> u64 {
    let total: u64 = MACHINE
        .memory_map()
        .iter()
        .filter(|r| r.kind == oxen_hal::MemoryKind::Ram)
        .map(|r| (r.end.0 - r.start.0) >> 12)
        .sum();
    let free = hv.memory.free_frames();
    let wanted = options.dom0_mem.pages(total, free);
    if let Some(note) = &wanted.note {
        log!("{note}");
    }
    if let Some(account) = hv.memory.account(DomId::DOM0) {
        account.set_limit(wanted.max);
    }
    wanted.initial
}

fn fill(plan: &Plan, kernel: &Kernel<'_>, initrd: Option<&Module>, memory: &mut Memory, shared_info: Mfn, line: &str) -> Built {
    let filled = load_kernel(kernel, memory)
        .and_then(|()| initrd.map_or(Ok(()), |m| load_initrd(plan, m.bytes(), memory)))
        .and_then(|()| plan.hypercall_page.map_or(Ok(()), |pfn| memory.write(pfn, 0, &pv_hypercall_page())))
        .and_then(|()| build_memory(plan, shared_info.maddr(), line.as_bytes(), memory));
    match filled {
        Ok(built) => {
            if built.cmdline_cut {
                log!("dom0's command line was too long and has been cut");
            }
            built
        }
        Err(NoSuchFrame(pfn)) => panic!("dom0's plan names {pfn}, which it does not have"),
    }
}

/// Gives the modules' memory to the allocator.
fn give_back(hv: &Hypervisor<X86>, kernel: Unpacked, initrd: Option<Module>) {
    if let Some(buffer) = kernel.buffer {
        let (first, count) = memory::buffer_frames(buffer);
        hv.memory.add_range(first, count);
    }
    for module in [Some(kernel.module), initrd].into_iter().flatten() {
        let (first, count) = module.into_frames();
        hv.memory.add_range(first, count);
    }
}

/// The screen as dom0's kernel wants it described.
fn vga(screen: Screen) -> Dom0VgaConsoleInfo {
    let mut info = Dom0VgaConsoleInfo::default();
    let mut put = |kind: VgaType, bytes: &[u8]| {
        info.video_type = kind;
        if let Some(place) = info.u.as_mut_bytes().get_mut(..bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    match screen {
        Screen::Text { columns, rows, .. } => {
            let text = VgaTextMode3 { font_height: 16, rows: rows as u16, columns: columns as u16, ..VgaTextMode3::default() };
            put(VgaType::TEXT_MODE_3, text.as_bytes());
        }
        Screen::Pixels(p) => {
            let bytes = u64::from(p.pitch) * u64::from(p.height);
            let lfb = VgaVesaLfb {
                width: p.width as u16,
                height: p.height as u16,
                bytes_per_line: p.pitch as u16,
                bits_per_pixel: p.bits_per_pixel.into(),
                lfb_base: p.address as u32,
                lfb_size: bytes.div_ceil(64 << 10) as u32,
                red_pos: p.red.0,
                red_size: p.red.1,
                green_pos: p.green.0,
                green_size: p.green.1,
                blue_pos: p.blue.0,
                blue_size: p.blue.1,
                ext_lfb_base: (p.address >> 32) as u32,
                ..VgaVesaLfb::default()
            };
            put(VgaType::VESA_LFB, lfb.as_bytes());
        }
    }
    info
}
