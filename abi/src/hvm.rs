//! `hvm/*.h`: what only HVM and PVH guests, and those who build and serve them, use.

pub mod dm_op;
pub mod hvm_op;
pub mod info_table;
pub mod ioreq;
pub mod params;
pub mod save;
pub mod vcpu;
