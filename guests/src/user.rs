//! A user address space: a second L4 table with one 2 MiB region, shared with the kernel's L4.

use crate::hypercall::{self, Rc};
use crate::mem::{self, P, PAGE, Page, RO_PAGE, RW, RW_PAGE, US};
use crate::probe::Probe;
use crate::{check, sys};

/// First user address: L4 slot 16.
pub const USER_BASE: u64 = 16 << 39;
/// Address of the code page.
pub const USER_CODE: u64 = USER_BASE;
/// Address of the data page.
pub const USER_DATA: u64 = USER_BASE + PAGE;
/// Address of the stack page.
pub const USER_STACK: u64 = USER_BASE + 2 * PAGE;
/// First address of the region that is not mapped.
pub const USER_UNMAPPED: u64 = USER_BASE + 3 * PAGE;

/// Table entries of levels 2 to 4.
const TABLE: u64 = P | RW | US | mem::A | mem::D;

/// The user address space.
#[derive(Clone, Copy, Debug)]
pub struct UserSpace {
    /// User L4.
    pub l4: Page,
    /// L3, shared with the kernel's L4.
    pub l3: Page,
    /// L2.
    pub l2: Page,
    /// L1 of the region.
    pub l1: Page,
    /// Page behind [`USER_CODE`].
    pub code: Page,
    /// Page behind [`USER_DATA`].
    pub data: Page,
    /// Page behind [`USER_STACK`].
    pub stack: Page,
}

impl UserSpace {
    /// Builds the tables and puts the region into the kernel's address space too; the user base pointer is not set.
    pub fn build() -> Self {
        let (code, data, stack) = (mem::alloc_page(), mem::alloc_page(), mem::alloc_page());
        let l1 = mem::make_table(&[(0, code.pte(RO_PAGE)), (1, data.pte(RW_PAGE)), (2, stack.pte(RW_PAGE))]);
        let l2 = mem::make_table(&[(0, l1.pte(TABLE))]);
        let l3 = mem::make_table(&[(0, l2.pte(TABLE))]);
        let l4 = mem::make_table(&[(16, l3.pte(TABLE))]);
        let rc = hypercall::write_pte(mem::l4_maddr() + 16 * 8, l3.pte(TABLE));
        check!("user.kernel_slot", rc.is_ok());
        Self { l4, l3, l2, l1, code, data, stack }
    }

    /// Builds the tables and makes them the user address space of this vCPU.
    pub fn install() -> Self {
        let space = Self::build();
        check!("user.new_user_baseptr", space.activate().is_ok());
        space
    }

    /// Makes these tables the user address space of this vCPU.
    pub fn activate(&self) -> Rc {
        hypercall::mmuext(sys::MMUEXT_NEW_USER_BASEPTR, self.l4.mfn(), 0)
    }

    /// A probe in user mode.
    pub fn probe<'a>(&self, code: &'a [u8]) -> Probe<'a> {
        Probe::user(code, self.code, USER_CODE, USER_STACK + PAGE)
    }

    /// Writes the L1 entry that maps `va` of the region.
    pub fn set_entry(&self, va: u64, entry: u64) -> Rc {
        let index = mem::index_of(va, 1) as u64;
        let rc = hypercall::write_pte(self.l1.maddr() + index * 8, entry);
        hypercall::mmuext(sys::MMUEXT_TLB_FLUSH_LOCAL, 0, 0);
        rc
    }
}
