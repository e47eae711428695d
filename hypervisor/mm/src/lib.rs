//! Frame table, buddy allocator, PV page-table validation.
//!
//! [`Mm`] is the entry point; there is one per machine.
//!
//! ```text
//! let mm = Mm::new(machine);                       // machine: &'static impl Machine
//! mm.add_range(start, count);                      // RAM that nobody uses
//!
//! // Memory of the hypervisor and of domains.
//! let block = mm.alloc_zeroed(order, 0)?;          // FrameBlock: free(), assign(), share()
//! mm.account(domid)?.set_limit(pages);             // what the domain may have; pages() is what it has
//! let mfn = mm.alloc_for(domid, order, bits)?;     // zeroed, flushed, owned
//! mm.release(mfn, domid)?;                         // freed when the last user is gone
//! let block = mm.steal(mfn, domid)?;               // taken whole, for exchanges
//! let shared = mm.share(block, domid, true);       // shared_info, grant frames; later unshare(shared)
//!
//! // References.
//! let page = mm.get_page(mfn, domid)?;             // PageRef: not freed meanwhile; page.hold() to store it, put() to end
//! let page = mm.get_writable(mfn, domid, cpus)?;   // TypedRef: no page table or descriptor table meanwhile
//!
//! // Page tables, under the domain's lock (SpinLock<PageTables, PAGE_TABLES>).
//! let mut ctx = MmuContext::new(&mut *guard, domid, dirty_cpus, &policy, has_devices, budget).with_foreign(fd);
//! mm.update_entry(&mut ctx, table, index, new, preserve_ad)?;   // mmu_update
//! mm.update_va(&mut ctx, root, va, new)?;                       // update_va_mapping
//! mm.pin(&mut ctx, mfn, Level::L4)?;  mm.unpin(&mut ctx, mfn)?;
//! let root = mm.get_table(&mut ctx, mfn, Level::L4)?;           // CR3; later put_table(&mut ctx, root)
//! mm.walk(root.mfn(), va);
//! let gdt = mm.get_descriptors(&mut ctx, mfn)?;                 // set_gdt, LDT pages; later put_typed(gdt)
//! mm.update_descriptor(&mut ctx, mfn, index, descriptor)?;
//! mm.relinquish(&mut ctx, &mut cursor)?;                        // a dying domain
//! ctx.effects                                                   // what is left to the caller
//! ```
//!
//! `Err(MmError::Preempted)` means that the budget ran out and the same call, later, carries on.
//!
//! Locking: the allocator has its own lock (level `ALLOCATOR`). Functions that take an [`MmuContext`] run under the page-table lock of the
//! domain that owns the tables. All others may be called under any lock below that level.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod account;
mod buddy;
mod context;
pub mod entry;
mod error;
mod leaf;
mod memory;
mod quick;
mod record;
mod refs;
mod regions;
mod segment;
mod table;
mod teardown;
mod update;
mod walk;

pub use account::Account;
pub use buddy::MAX_ORDER;
pub use context::{Effects, MmioAccess, MmioPolicy, MmuContext, NoMmio, PageTables};
pub use error::{MmError, Purpose};
pub use memory::{FrameBlock, SharedFrame};
pub use quick::QuickTables;
pub use record::{FrameType, Level};
pub use refs::{FrameInfo, HeldPage, HeldTyped, PageRef, TypedRef};
pub use segment::checked_descriptor;
pub use table::HeldTable;
pub use update::MappingRef;
pub use walk::Translation;

use account::Accounts;
use buddy::Buddy;
use core::sync::atomic::{AtomicBool, AtomicU64};
use oxen_hal::{AddressSpace, Frames, Processors};
use oxen_sync::{SpinLock, level};

/// What memory management needs of the machine.
pub trait Hardware: Frames + AddressSpace + Processors + Send + Sync + 'static {}

impl<T: Frames + AddressSpace + Processors + Send + Sync + 'static> Hardware for T {}

/// The machine's memory.
#[derive(Debug)]
pub struct Mm<M: Hardware> {
    machine: &'static M,
    buddy: SpinLock<Buddy, { level::ALLOCATOR }>,
    /// Sum of all domains' claims; changed under the allocator's lock.
    claimed: AtomicU64,
    accounts: Accounts,
    /// A frame of a dying domain was freed.
    freed_of_dying: AtomicBool,
}

impl<M: Hardware> Mm<M> {
    /// Memory management without any free memory yet.
    #[must_use]
    pub const fn new(machine: &'static M) -> Self {
        Self { machine, buddy: SpinLock::new(Buddy::new()), claimed: AtomicU64::new(0), accounts: Accounts::new(), freed_of_dying: AtomicBool::new(false) }
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &'static M {
        self.machine
    }
}
