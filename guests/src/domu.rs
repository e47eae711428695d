//! Other domains, as a control domain makes, fills, runs and ends them.

use crate::hypercall::{self, Rc, handle};
use crate::mem::{self, P, PAGE, Page, RO_PAGE, RW_PAGE, US};
use crate::sys::{self, nr};
use crate::{cpu, event, time};
use oxen_abi::GuestHandle;
use oxen_abi::arch_x86_64::{VGCF_IN_KERNEL, VGCF_ONLINE, VcpuGuestContext};
use oxen_abi::domctl::{CreateDomain, Domctl, DomctlCmd, GetDomainInfo, MaxMem, MaxVcpus, VcpuContext};
use oxen_abi::sysctl::{PhysInfo, Sysctl, SysctlCmd};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where a child's pages are in its own address space.
pub const CHILD_BASE: u64 = sys::VIRT_BASE;
/// The child's page with its program.
pub const CODE: usize = 0;
/// The child's page with its data; the stack grows down from its end.
pub const DATA: usize = 1;
/// The child's tables of level 1 to 4 are in the pages 2 to 5.
const TABLES: usize = 2;
/// Pages that are free for a test.
pub const SPARE: usize = 6;
/// Pages of a child.
pub const CHILD_PAGES: usize = 16;

/// A domctl; gives what the call returned, and the payload as it came back.
pub fn domctl<T: FromBytes + IntoBytes + Immutable>(cmd: DomctlCmd, domain: u16, request: T) -> (Rc, T) {
    let mut op = Domctl::new(cmd, domain, &request);
    let rc = Rc(hypercall::raw(nr::DOMCTL, [handle(&mut op), 0, 0, 0, 0]));
    (rc, op.u.read())
}

/// A domctl without payload.
pub fn domctl_plain(cmd: DomctlCmd, domain: u16) -> Rc {
    domctl(cmd, domain, 0_u64).0
}

/// What most children are made with: `max_vcpus` vCPUs and the hypervisor's own limits.
pub fn description(max_vcpus: u32) -> CreateDomain {
    CreateDomain { max_vcpus, max_evtchn_port: 1023, max_grant_frames: -1, max_maptrack_frames: -1, grant_opts: 1, ..CreateDomain::default() }
}

/// createdomain; gives the number that was chosen, or the error.
pub fn create(wanted: u16, request: &CreateDomain) -> Result<u16, Rc> {
    let mut op = Domctl::new(DomctlCmd::CREATEDOMAIN, wanted, request);
    let rc = Rc(hypercall::raw(nr::DOMCTL, [handle(&mut op), 0, 0, 0, 0]));
    if rc.is_ok() { Ok(op.domain) } else { Err(rc) }
}

/// getdomaininfo of the domain with that number, or of the one that follows.
pub fn info(domain: u16) -> (Rc, GetDomainInfo) {
    domctl(DomctlCmd::GETDOMAININFO, domain, GetDomainInfo::default())
}

/// Whether there is a domain of that number, if only a dead one.
pub fn exists(domain: u16) -> bool {
    let (rc, info) = info(domain);
    rc.is_ok() && info.domain == domain
}

/// Free frames of the machine.
pub fn free_frames() -> u64 {
    let mut op = Sysctl::new(SysctlCmd::PHYSINFO, &PhysInfo::default());
    let rc = Rc(hypercall::raw(nr::SYSCTL, [handle(&mut op), 0, 0, 0, 0]));
    assert!(rc.is_ok(), "physinfo: {rc}");
    let info: PhysInfo = op.u.read();
    info.free_pages + info.scrub_pages
}

/// A domain that this kernel made.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Its number.
    pub id: u16,
    /// Its frames, by its own numbering.
    pub frames: [u64; CHILD_PAGES],
}

impl Child {
    /// A domain with memory and vCPUs and nothing in them.
    ///
    /// # Panics
    /// Where a step fails.
    pub fn new(max_vcpus: u32) -> Self {
        let id = create(0, &description(max_vcpus)).unwrap_or_else(|rc| panic!("createdomain: {rc}"));
        Self::furnish(id, max_vcpus).unwrap_or_else(|rc| panic!("max_vcpus, max_mem or populate_physmap: {rc}"))
    }

    /// Gives a new domain vCPUs and memory.
    ///
    /// # Errors
    /// What the first step that failed returned.
    pub fn furnish(id: u16, max_vcpus: u32) -> Result<Self, Rc> {
        done(domctl(DomctlCmd::MAX_VCPUS, id, MaxVcpus { max: max_vcpus }).0)?;
        done(domctl(DomctlCmd::MAX_MEM, id, MaxMem { max_memkb: CHILD_PAGES as u64 * PAGE / 1024 }).0)?;
        let mut frames: [u64; CHILD_PAGES] = core::array::from_fn(|pfn| pfn as u64);
        let mut reservation = mem::reservation(&mut frames, 0, id);
        let rc = Rc(hypercall::raw(nr::MEMORY_OP, [6, handle(&mut reservation), 0, 0, 0]));
        if rc == Rc(CHILD_PAGES as i64) { Ok(Self { id, frames }) } else { Err(rc) }
    }

    /// Lets `work` have one of the child's frames in a page of this kernel's.
    ///
    /// # Errors
    /// Why it cannot be mapped.
    pub fn try_with_frame<R>(&self, window: Page, mfn: u64, work: impl FnOnce(Page) -> R) -> Result<R, Rc> {
        done(map_foreign(window, mfn, self.id, RW_PAGE))?;
        let result = work(window);
        assert!(window.make_writable().is_ok());
        Ok(result)
    }

    /// Lets `work` have one of the child's pages.
    ///
    /// # Panics
    /// Where it cannot be mapped.
    pub fn with_page<R>(&self, window: Page, page: usize, work: impl FnOnce(Page) -> R) -> R {
        let result = self.try_with_frame(window, self.frames[page], work);
        result.unwrap_or_else(|rc| panic!("mapping page {page} of the child: {rc}"))
    }

    /// Fills the child's pages: `program`, and tables that map all of them at [`CHILD_BASE`].
    ///
    /// # Errors
    /// Why a page cannot be mapped.
    pub fn fill(&self, window: Page, program: &[u8]) -> Result<(), Rc> {
        let with_page = |page: usize, work: &dyn Fn(Page)| self.try_with_frame(window, self.frames[page], work);
        with_page(CODE, &|page| {
            page.clear();
            page.write_bytes(0, program);
        })?;
        with_page(DATA, &Page::clear)?;
        // The mask of vCPU 0's upcalls: the child has no handler for them.
        self.try_with_frame(window, self.info().1.shared_info_frame, |page| page.write_bytes(1, &[1]))?;
        with_page(TABLES, &|page| {
            page.clear();
            for (index, mfn) in self.frames.iter().enumerate() {
                let is_table = (TABLES..TABLES + 4).contains(&index);
                page.write(mem::index_of(CHILD_BASE, 1) + index, mfn * PAGE | if is_table { RO_PAGE } else { RW_PAGE });
            }
        })?;
        for level in 2..=4 {
            with_page(TABLES + level - 1, &|page| {
                page.clear();
                let below = self.frames[TABLES + level - 2] * PAGE;
                page.write(mem::index_of(CHILD_BASE, level as u32), below | P | mem::RW | US | mem::A | mem::D);
            })?;
        }
        Ok(())
    }

    /// Frame of the child's root table.
    pub fn root(&self) -> u64 {
        self.frames[TABLES + 3]
    }

    /// Pins the child's root table.
    pub fn pin(&self) -> Rc {
        hypercall::mmuext_foreign(sys::MMUEXT_PIN_L1_TABLE + 3, self.root(), 0, self.id.into())
    }

    /// The registers with which a vCPU of the child starts at the first byte of its program.
    pub fn start_context(&self) -> VcpuGuestContext {
        let mut context = VcpuGuestContext { flags: VGCF_IN_KERNEL | VGCF_ONLINE, ..VcpuGuestContext::default() };
        context.user_regs.rip = CHILD_BASE + CODE as u64 * PAGE;
        context.user_regs.rsp = CHILD_BASE + (DATA as u64 + 1) * PAGE;
        context.user_regs.cs = sys::FLAT_CS64 as u16;
        context.user_regs.ss = sys::FLAT_SS as u16;
        context.user_regs.rflags = 1 << 9;
        context.kernel_ss = sys::FLAT_SS;
        context.kernel_sp = context.user_regs.rsp;
        context.ctrlreg[3] = self.root() * PAGE;
        context
    }

    /// setvcpucontext.
    pub fn set_context(&self, vcpu: u32, context: &mut VcpuGuestContext) -> Rc {
        let request = VcpuContext { vcpu, ctxt: GuestHandle::new(handle(context)), ..VcpuContext::default() };
        domctl(DomctlCmd::SETVCPUCONTEXT, self.id, request).0
    }

    /// getvcpucontext.
    pub fn context(&self, vcpu: u32, context: &mut VcpuGuestContext) -> Rc {
        let request = VcpuContext { vcpu, ctxt: GuestHandle::new(handle(context)), ..VcpuContext::default() };
        domctl(DomctlCmd::GETVCPUCONTEXT, self.id, request).0
    }

    /// A child that runs `program` as soon as it is unpaused.
    ///
    /// # Panics
    /// Where a step fails.
    pub fn ready(window: Page, program: &[u8]) -> Self {
        let child = Self::new(1);
        child.prepare(window, program).unwrap_or_else(|rc| panic!("fill, pin or setvcpucontext: {rc}"));
        child
    }

    /// Fills the child, pins its tables and sets its vCPU up.
    ///
    /// # Errors
    /// What the first step that failed returned.
    pub fn prepare(&self, window: Page, program: &[u8]) -> Result<(), Rc> {
        self.fill(window, program)?;
        done(self.pin())?;
        done(self.set_context(0, &mut self.start_context()))
    }

    /// unpausedomain.
    pub fn unpause(&self) -> Rc {
        domctl_plain(DomctlCmd::UNPAUSEDOMAIN, self.id)
    }

    /// getdomaininfo.
    pub fn info(&self) -> (Rc, GetDomainInfo) {
        info(self.id)
    }

    /// destroydomain. The hypervisor makes this kernel repeat the call until it is done.
    pub fn destroy(&self) -> Rc {
        domctl_plain(DomctlCmd::DESTROYDOMAIN, self.id)
    }
}

fn done(rc: Rc) -> Result<(), Rc> {
    if rc.is_ok() { Ok(()) } else { Err(rc) }
}

/// Maps a frame of domain `owner` at a page of this kernel's.
pub fn map_foreign(window: Page, mfn: u64, owner: u16, flags: u64) -> Rc {
    let args = [window.va(), mfn * PAGE | flags, sys::UVMF_INVLPG, owner.into(), 0];
    Rc(hypercall::raw(nr::UPDATE_VA_MAPPING_OTHERDOMAIN, args))
}

/// Gives the processor to others until `condition` holds; false where it does not within `seconds`.
pub fn wait_until(seconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = time::now_on(0) + seconds * 1_000_000_000;
    while !condition() {
        if time::now_on(0) > end {
            return false;
        }
        hypercall::raw(nr::SCHED_OP, [0, 0, 0, 0, 0]);
        cpu::relax();
    }
    true
}

/// Takes a pending event of `port`, in the 2-level structures, after at most `seconds`.
pub fn take_event(port: u32, seconds: u64) -> bool {
    let came = wait_until(seconds, || event::is_pending(port));
    event::clear_pending(port);
    came
}

// Carries out, one after the other, the hypercalls that its maker describes in its data: a word that is not zero while one waits, number, five
// arguments, result.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".pushsection .rodata, \"a\"",
    "domu_remote:",
    "movabs rbx, {data}",
    "2: mov eax, 29", // sched_op yield
    "xor edi, edi",
    "xor esi, esi",
    "syscall",
    "cmp qword ptr [rbx], 0",
    "je 2b",
    "mov rax, [rbx + 8]",
    "mov rdi, [rbx + 16]",
    "mov rsi, [rbx + 24]",
    "mov rdx, [rbx + 32]",
    "mov r10, [rbx + 40]",
    "mov r8, [rbx + 48]",
    "syscall",
    "mov [rbx + 56], rax",
    "mov qword ptr [rbx], 0",
    "jmp 2b",
    "domu_remote_end:",
    ".popsection",
    data = const CHILD_BASE + DATA as u64 * PAGE,
);

#[cfg(target_os = "none")]
fn remote_program() -> &'static [u8] {
    // SAFETY: the two symbols are those of the assembler above.
    unsafe extern "C" {
        static domu_remote: u8;
        static domu_remote_end: u8;
    }
    let (start, end) = (&raw const domu_remote, &raw const domu_remote_end);
    // SAFETY: the assembler above put the bytes between the two symbols.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

#[cfg(not(target_os = "none"))]
fn remote_program() -> &'static [u8] {
    &[]
}

/// Offset in the child's data where the structures of its calls are put.
const REMOTE_ARGUMENT: usize = 512;

/// A child that makes the hypercalls it is told to.
#[derive(Debug)]
pub struct Remote {
    /// The child.
    pub child: Child,
    /// Its data, mapped.
    data: Page,
}

impl Remote {
    /// Makes the child and lets it run. It keeps `data` until [`Remote::end`].
    ///
    /// # Panics
    /// Where a step fails.
    pub fn start(window: Page, data: Page) -> Self {
        let child = Child::ready(window, remote_program());
        let rc = map_foreign(data, child.frames[DATA], child.id, RW_PAGE);
        assert!(rc.is_ok(), "mapping the child's data: {rc}");
        let rc = child.unpause();
        assert!(rc.is_ok(), "unpause: {rc}");
        Self { child, data }
    }

    /// Address in the child of what [`Remote::put`] puts there.
    pub fn argument(&self) -> u64 {
        CHILD_BASE + DATA as u64 * PAGE + REMOTE_ARGUMENT as u64
    }

    /// Puts a structure for a call into the child.
    pub fn put<T: IntoBytes + Immutable>(&self, value: &T) {
        self.data.write_bytes(REMOTE_ARGUMENT, value.as_bytes());
    }

    /// Reads what a call left of its structure.
    ///
    /// # Panics
    /// For structures that are not a multiple of 8 bytes long.
    pub fn get<T: FromBytes + IntoBytes>(&self) -> T {
        let mut value = T::new_zeroed();
        let (words, rest) = value.as_mut_bytes().as_chunks_mut::<8>();
        assert!(rest.is_empty());
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.data.read(REMOTE_ARGUMENT / 8 + index).to_ne_bytes();
        }
        value
    }

    /// Has the child make a hypercall.
    ///
    /// # Panics
    /// Where the child does not answer within 20 s.
    pub fn call(&self, number: u64, args: [u64; 5]) -> Rc {
        self.data.write(1, number);
        for (index, arg) in args.into_iter().enumerate() {
            self.data.write(2 + index, arg);
        }
        self.data.write(0, 1);
        assert!(wait_until(20, || self.data.read(0) == 0), "the child does not answer");
        Rc(self.data.read(7) as i64)
    }

    /// Has the child make a hypercall of a command and a structure.
    pub fn op<T: IntoBytes + Immutable>(&self, number: u64, command: u64, argument: &T) -> Rc {
        self.put(argument);
        self.call(number, [command, self.argument(), 0, 0, 0])
    }

    /// Destroys the child. Pages that this kernel has mapped of it keep it from going for good.
    ///
    /// # Panics
    /// Where a step fails.
    pub fn end(self) {
        assert!(self.data.make_writable().is_ok());
        let rc = self.child.destroy();
        assert!(rc.is_ok(), "destroydomain: {rc}");
    }
}
