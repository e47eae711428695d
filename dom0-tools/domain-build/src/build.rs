//! The steps, in order.

use crate::error::{BuildError, Purpose};
use crate::frames::{Frames, free_kib};
use crate::kernel::{Loaded, Ramdisk, file_error};
use crate::request::{Built, Request};
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::{
    CpuUserRegs, FLAT_KERNEL_CS, FLAT_KERNEL_DS, FLAT_KERNEL_SS, VGCF_IN_KERNEL, VGCF_ONLINE,
    VcpuGuestContext,
};
use oxen_abi::grant_table::{GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE, GTF_PERMIT_ACCESS};
use oxen_abi::memory::{E820Entry, ResourceType};
use oxen_abi::xen::{LEGACY_MAX_VCPUS, MAX_GUEST_CMDLINE};
use oxen_builder::{Plan, PlanInput, Role};
use oxen_kernel_image::Kernel;
use oxen_types::{Maddr, PAGE_SHIFT, Pfn};
use oxen_xenctl::{Error, NewDomain, Resource, Xen};

/// The limit on a domain's memory exceeds what it was promised by this much, for frames that the tools give it beyond its memory
/// (`LIBXL_MAXMEM_CONSTANT` of Xen's tools).
const MAX_MEMORY_SLACK_KIB: u64 = 1024;
/// IF.
const RFLAGS: u64 = 1 << 9;
/// DR6 and DR7 after reset. Intel SDM volume 3, "Processor State After Reset".
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
/// Bytes of an entry of a version 1 grant table.
const GRANT_ENTRY_LEN: usize = 8;
/// Bytes of a `vcpu_info`, and where the byte lies in it that masks upcalls.
const VCPU_INFO_LEN: usize = 64;
const UPCALL_MASK: usize = 1;

/// Builds a guest and leaves it paused.
///
/// # Errors
///
/// Every [`BuildError`]. The domain exists only if it was built whole.
pub fn build(xen: &Xen, request: &Request) -> Result<Built, BuildError> {
    check(request)?;
    let loaded = Loaded::open(&request.kernel, request.cache.as_deref(), request.identity)?;
    let built = build_loaded(xen, request, &loaded)?;
    loaded.keep();
    Ok(built)
}

/// As [`build`], with the kernel unpacked beforehand.
///
/// # Errors
///
/// As [`build`].
pub fn build_loaded(xen: &Xen, request: &Request, loaded: &Loaded) -> Result<Built, BuildError> {
    check(request)?;
    let kernel = loaded.parse()?;
    let ramdisk = request.ramdisk.as_deref().map(Ramdisk::open).transpose()?;
    // The ports are not known yet; they do not change the layout.
    let plan = |store_port, console_port| {
        let input = PlanInput {
            nr_pages: request.memory_kib / 4,
            initrd_len: ramdisk.as_ref().map_or(0, |disk| disk.len),
            role: Role::DomU {
                store_port,
                console_port,
            },
        };
        Plan::new(kernel.info(), &input).map_err(|source| BuildError::Plan {
            path: loaded.path().to_owned(),
            source,
        })
    };
    plan(0, 0)?;

    let new = NewDomain {
        nr_vcpus: request.domain.nr_vcpus.max(1),
        ..request.domain
    };
    let domid = xen
        .create_domain(&new)
        .map_err(call("creating the domain"))?;
    let result = set_up(xen, domid, &new, request).and_then(|ports| {
        let plan = plan(ports.store, ports.console)?;
        fill(
            xen,
            domid,
            &Contents {
                loaded,
                kernel: &kernel,
                ramdisk: ramdisk.as_ref(),
                plan: &plan,
                request,
            },
        )
    });
    result.map_err(|cause| match xen.destroy_domain(domid) {
        Ok(()) | Err(Error::NoSuchDomain { .. }) => cause,
        Err(destroy) => BuildError::Leftover {
            domid,
            cause: Box::new(cause),
            destroy,
        },
    })
}

/// Checks what needs no file.
fn check(request: &Request) -> Result<(), BuildError> {
    let max = MAX_GUEST_CMDLINE - 1;
    if request.command_line.len() > max {
        return Err(BuildError::CommandLine {
            len: request.command_line.len(),
            max,
        });
    }
    if request.max_memory_kib < request.memory_kib {
        return Err(BuildError::Limits {
            memory_kib: request.memory_kib,
            max_memory_kib: request.max_memory_kib,
        });
    }
    Ok(())
}

/// The guest's event channels.
struct Ports {
    store: u32,
    console: u32,
}

/// What goes into the guest's memory.
struct Contents<'a> {
    loaded: &'a Loaded,
    kernel: &'a Kernel<'a>,
    ramdisk: Option<&'a Ramdisk>,
    plan: &'a Plan,
    request: &'a Request,
}

/// Everything before memory.
fn set_up(xen: &Xen, domid: u16, new: &NewDomain, request: &Request) -> Result<Ports, BuildError> {
    xen.set_max_vcpus(domid, new.nr_vcpus)
        .map_err(call("allocating vCPUs"))?;
    if !request.cpuid.is_empty() {
        xen.set_cpu_policy(domid, &request.cpuid)
            .map_err(call("setting CPUID leaves"))?;
    }
    if request.time_offset != 0 {
        xen.set_time_offset(domid, request.time_offset)
            .map_err(call("setting the time offset"))?;
    }
    let limit = request.max_memory_kib.saturating_add(MAX_MEMORY_SLACK_KIB);
    xen.set_max_memory(domid, limit)
        .map_err(call("limiting the memory"))?;
    let map = [E820Entry::new(
        0,
        request.max_memory_kib.saturating_mul(1024),
        E820Entry::RAM,
    )];
    xen.set_memory_map(domid, &map)
        .map_err(call("setting the memory map"))?;
    let port = |remote, doing| xen.alloc_unbound_port(domid, remote).map_err(call(doing));
    Ok(Ports {
        store: port(request.store_domid, "allocating the xenstore event channel")?,
        console: port(
            request.console_domid,
            "allocating the console event channel",
        )?,
    })
}

/// Memory, what is in it, and registers.
fn fill(xen: &Xen, domid: u16, contents: &Contents<'_>) -> Result<Built, BuildError> {
    let Contents {
        loaded,
        kernel,
        ramdisk,
        plan,
        request,
    } = contents;
    claim(xen, domid, plan.nr_pages)?;
    let mut frames = Frames::populate(xen, domid, plan.nr_pages)?;
    loaded.load(kernel, &mut frames)?;
    if let (Some(initrd), Some(disk)) = (plan.initrd, ramdisk) {
        frames
            .load(initrd.pfns.first.0 << PAGE_SHIFT, &disk.file, 0, disk.len)?
            .map_err(|source| file_error(Purpose::Ramdisk, &disk.path, source))?;
    }
    let shared_info = init_shared_info(xen, domid)?;
    let start = oxen_builder::build(
        plan,
        Maddr(shared_info << PAGE_SHIFT),
        request.command_line.as_bytes(),
        &mut frames,
    )?;
    frames.unmap();
    if let Some(page) = plan.hypercall_page {
        xen.init_hypercall_page(domid, frames.mfn(page)?)
            .map_err(call("filling the hypercall page"))?;
    }
    xen.pin_root(domid, start.cr3.0)
        .map_err(call("pinning the page tables"))?;
    xen.set_vcpu_context(domid, 0, &context(&start))
        .map_err(call("setting the registers"))?;

    let mfn_of = |pfn: Option<Pfn>| pfn.map_or(Ok(0), |pfn| frames.mfn(pfn));
    let (store_mfn, console_mfn) = (mfn_of(plan.xenstore)?, mfn_of(plan.console)?);
    grant_rings(xen, domid, store_mfn, console_mfn, request)?;
    let (store_port, console_port) = match plan.role {
        Role::DomU {
            store_port,
            console_port,
        } => (store_port, console_port),
        Role::Dom0 { .. } => (0, 0),
    };
    Ok(Built {
        domid,
        nr_pages: plan.nr_pages,
        store_mfn,
        store_port,
        console_mfn,
        console_port,
        guest_os: kernel.info().guest_os.clone(),
    })
}

/// Sets memory aside, so that a guest that cannot have all of its memory is refused before any work.
fn claim(xen: &Xen, domid: u16, nr_pages: u64) -> Result<(), BuildError> {
    match xen.claim_pages(domid, nr_pages) {
        Ok(()) => Ok(()),
        // A hypervisor that knows no claims.
        Err(Error::NotImplemented { .. }) => Ok(()),
        Err(error) if error.errno() == Some(Errno::ENOMEM) => Err(BuildError::Memory {
            need_kib: nr_pages.saturating_mul(4),
            free_kib: free_kib(xen),
        }),
        Err(error) => Err(call("setting memory aside")(error)),
    }
}

/// Masks upcalls in the shared information page, as the guest expects it; returns the page's frame.
fn init_shared_info(xen: &Xen, domid: u16) -> Result<u64, BuildError> {
    const DOING: &str = "initialising the shared information page";
    let mfn = xen.domain(domid).map_err(call(DOING))?.shared_info_frame;
    let page = xen.map_foreign(domid, &[mfn], true).map_err(call(DOING))?;
    for vcpu in 0..LEGACY_MAX_VCPUS {
        // The 32 records lie in the first half of the page.
        page.write(vcpu * VCPU_INFO_LEN + UPCALL_MASK, &[1])
            .map_err(|_| {
                call(DOING)(Error::BadAnswer {
                    call: "domctl getdomaininfo",
                })
            })?;
    }
    Ok(mfn)
}

/// The first registers. Start of day of the public header `xen.h`.
fn context(start: &oxen_builder::Built) -> VcpuGuestContext {
    let mut context = VcpuGuestContext {
        flags: VGCF_IN_KERNEL | VGCF_ONLINE,
        user_regs: CpuUserRegs {
            rip: start.rip.0,
            rsp: start.rsp.0,
            rsi: start.rsi.0,
            rflags: RFLAGS,
            cs: FLAT_KERNEL_CS,
            ss: FLAT_KERNEL_SS,
            ds: FLAT_KERNEL_DS,
            es: FLAT_KERNEL_DS,
            fs: FLAT_KERNEL_DS,
            gs: FLAT_KERNEL_DS,
            ..CpuUserRegs::default()
        },
        kernel_ss: u64::from(FLAT_KERNEL_SS),
        kernel_sp: start.rsp.0,
        ..VcpuGuestContext::default()
    };
    let [_, _, _, cr3, ..] = &mut context.ctrlreg;
    *cr3 = start.cr3.0 << PAGE_SHIFT;
    let [.., dr6, dr7] = &mut context.debugreg;
    (*dr6, *dr7) = (DR6, DR7);
    context
}

/// Writes the grants by which the daemons map the rings, into the entries set aside for them.
fn grant_rings(
    xen: &Xen,
    domid: u16,
    store_mfn: u64,
    console_mfn: u64,
    request: &Request,
) -> Result<(), BuildError> {
    const DOING: &str = "granting the rings";
    let resource = Resource {
        domid,
        kind: ResourceType::GRANT_TABLE,
        id: 0,
        first: 0,
        count: 1,
    };
    let table = xen.map_resource(&resource, true).map_err(call(DOING))?;
    let wide = || {
        call(DOING)(Error::BadAnswer {
            call: "memory_op populate_physmap",
        })
    };
    for (reference, mfn, to) in [
        (GNTTAB_RESERVED_CONSOLE, console_mfn, request.console_domid),
        (GNTTAB_RESERVED_XENSTORE, store_mfn, request.store_domid),
    ] {
        let mut entry = [0; GRANT_ENTRY_LEN];
        let (head, frame) = entry.split_at_mut(4);
        let (flags, domain) = head.split_at_mut(2);
        flags.copy_from_slice(&GTF_PERMIT_ACCESS.to_le_bytes());
        domain.copy_from_slice(&to.to_le_bytes());
        // Version 1 entries have 32 bits for the frame.
        frame.copy_from_slice(&u32::try_from(mfn).map_err(|_| wide())?.to_le_bytes());
        table
            .write(reference as usize * GRANT_ENTRY_LEN, &entry)
            .map_err(|_| wide())?;
    }
    Ok(())
}

/// Makes the error of a failed call.
fn call(doing: &'static str) -> impl Fn(Error) -> BuildError {
    move |source| BuildError::Call { doing, source }
}
