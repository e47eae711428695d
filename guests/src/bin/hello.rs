//! Prints a line and the verdict: the least that a hypervisor must do.
#![cfg_attr(target_os = "none", no_std, no_main)]

oxen_guests::test_kernel!("hello", run);

fn run() {
    oxen_guests::say!("hello from a PV kernel");
}
