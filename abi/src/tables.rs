//! Every layout and number of this crate under its C name, for comparison with the public headers.
//!
//! The tables are built from the same lines as the types, so they cannot fall behind.

/// A structure.
#[derive(Clone, Copy, Debug)]
pub struct Struct {
    /// The C type, such as `struct xen_domctl` or `xen_cpuid_leaf_t`; `struct start_info::console.domU` is the type of that member.
    pub c_name: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// The fields in order, padding included.
    pub fields: &'static [Field],
}

/// A field of a [`Struct`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The C member designator (`u.unbound.dom` is possible). Names that start with an underscore are padding, or bit fields that C
    /// cannot take the offset of.
    pub c_name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

impl Field {
    /// Whether this is padding that the header need not name.
    pub fn is_padding(&self) -> bool {
        self.c_name.starts_with('_')
    }
}

/// A number.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// The macro or enumerator in the header.
    pub c_name: &'static str,
    /// Its value; unsigned types keep their unsigned value.
    pub value: i128,
}

/// The size of the field that `_project` selects.
pub(crate) const fn size_of_field<S, F>(_project: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// The structures, one slice per header.
pub const STRUCTS: &[&[Struct]] = &[
    crate::arch_x86_64::STRUCTS,
    crate::callback::STRUCTS,
    crate::domctl::STRUCTS,
    crate::domctl::payload::STRUCTS,
    crate::event_channel::STRUCTS,
    crate::grant_table::STRUCTS,
    crate::hvm::dm_op::STRUCTS,
    crate::hvm::hvm_op::STRUCTS,
    crate::hvm::info_table::STRUCTS,
    crate::hvm::ioreq::STRUCTS,
    crate::hvm::save::STRUCTS,
    crate::hvm::vcpu::STRUCTS,
    crate::hypfs::STRUCTS,
    crate::io::console::STRUCTS,
    crate::io::xs_wire::STRUCTS,
    crate::mca::STRUCTS,
    crate::memory::STRUCTS,
    crate::nmi::STRUCTS,
    crate::physdev::STRUCTS,
    crate::platform::STRUCTS,
    crate::sched::STRUCTS,
    crate::start_info::STRUCTS,
    crate::sysctl::STRUCTS,
    crate::vcpu::STRUCTS,
    crate::version::STRUCTS,
    crate::xen::STRUCTS,
    crate::xenpmu::STRUCTS,
];

/// The constants and the members of open enums, one slice per header and kind.
pub const CONSTANTS: &[&[Constant]] = &[
    crate::arch_x86_64::CONSTS,
    crate::callback::CONSTS,
    crate::callback::ENUMS,
    crate::cpuid::CONSTS,
    crate::domctl::CONSTS,
    crate::domctl::ENUMS,
    crate::elfnote::ENUMS,
    crate::errno::CONSTS,
    crate::event_channel::CONSTS,
    crate::event_channel::ENUMS,
    crate::features::CONSTS,
    crate::grant_table::CONSTS,
    crate::grant_table::ENUMS,
    crate::hvm::dm_op::CONSTS,
    crate::hvm::dm_op::ENUMS,
    crate::hvm::hvm_op::CONSTS,
    crate::hvm::hvm_op::ENUMS,
    crate::hvm::info_table::CONSTS,
    crate::hvm::ioreq::CONSTS,
    crate::hvm::ioreq::ENUMS,
    crate::hvm::params::CONSTS,
    crate::hvm::params::ENUMS,
    crate::hvm::save::CONSTS,
    crate::hvm::save::ENUMS,
    crate::hvm::vcpu::CONSTS,
    crate::hypfs::CONSTS,
    crate::hypfs::ENUMS,
    crate::io::xenbus::ENUMS,
    crate::io::xs_wire::CONSTS,
    crate::io::xs_wire::ENUMS,
    crate::mca::CONSTS,
    crate::mca::ENUMS,
    crate::memory::CONSTS,
    crate::memory::ENUMS,
    crate::nmi::ENUMS,
    crate::physdev::CONSTS,
    crate::physdev::ENUMS,
    crate::platform::CONSTS,
    crate::platform::ENUMS,
    crate::sched::ENUMS,
    crate::start_info::CONSTS,
    crate::start_info::ENUMS,
    crate::sysctl::CONSTS,
    crate::sysctl::ENUMS,
    crate::vcpu::CONSTS,
    crate::vcpu::ENUMS,
    crate::version::ENUMS,
    crate::xen::CONSTS,
    crate::xen::ENUMS,
    crate::xenpmu::CONSTS,
    crate::xenpmu::ENUMS,
];
