//! Calls the hypervisor from dom0 user space.


