//! Guest pointers.

use core::fmt;
use core::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A guest virtual address of an array of `T` (`XEN_GUEST_HANDLE(T)`), 8 bytes.
///
/// It is only a number: nothing says that the guest has memory there. For PV guests it is translated by the guest kernel's page
/// table, for HVM guests by the caller's current one.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct GuestHandle<T> {
    address: u64,
    target: PhantomData<T>,
}

impl<T> GuestHandle<T> {
    /// The null handle, by which many calls mean "no array given".
    pub const NULL: Self = Self::new(0);

    /// A handle for the array at guest virtual `address`.
    pub const fn new(address: u64) -> Self {
        Self {
            address,
            target: PhantomData,
        }
    }

    /// The guest virtual address.
    pub const fn address(self) -> u64 {
        self.address
    }

    /// Whether this is the null handle.
    pub const fn is_null(self) -> bool {
        self.address == 0
    }

    /// The same address as a handle of something else.
    pub const fn cast<U>(self) -> GuestHandle<U> {
        GuestHandle::new(self.address)
    }

    /// The handle of element `index`; `None` when the address overflows.
    pub const fn element(self, index: u64) -> Option<Self> {
        match index.checked_mul(size_of::<T>() as u64) {
            Some(offset) => match self.address.checked_add(offset) {
                Some(address) => Some(Self::new(address)),
                None => None,
            },
            None => None,
        }
    }
}

impl<T> Clone for GuestHandle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for GuestHandle<T> {}

impl<T> Default for GuestHandle<T> {
    fn default() -> Self {
        Self::NULL
    }
}

impl<T> PartialEq for GuestHandle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}

impl<T> Eq for GuestHandle<T> {}

impl<T> fmt::Debug for GuestHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_spaced_by_the_size_of_the_target() {
        let handle = GuestHandle::<u64>::new(0x1000);
        assert_eq!(handle.element(3).map(GuestHandle::address), Some(0x1018));
        assert_eq!(
            handle.cast::<u32>().element(3).map(GuestHandle::address),
            Some(0x100c)
        );
    }

    #[test]
    fn element_refuses_to_wrap() {
        assert_eq!(GuestHandle::<u64>::new(u64::MAX - 7).element(1), None);
        assert_eq!(GuestHandle::<u64>::new(0).element(u64::MAX), None);
    }

    #[test]
    fn is_eight_plain_bytes() {
        assert_eq!(size_of::<GuestHandle<[u8; 4096]>>(), 8);
        assert_eq!(
            GuestHandle::<u8>::new(0x1122).as_bytes(),
            [0x22, 0x11, 0, 0, 0, 0, 0, 0]
        );
    }
}
