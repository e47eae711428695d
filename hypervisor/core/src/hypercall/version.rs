//! `xen_version`: what the hypervisor is and offers.

use super::{Answer, Args};
use crate::ctx::Ctx;
use alloc::string::String;
use oxen_abi::Errno;
use oxen_abi::arch_x86_64::HYPERVISOR_VIRT_START;
use oxen_abi::features::{
    XENFEAT_DIRECT_MAPPED, XENFEAT_DOM0, XENFEAT_GNTTAB_MAP_AVAIL_BITS, XENFEAT_HIGHMEM_ASSIST, XENFEAT_MEMORY_OP_VNODE_SUPPORTED,
    XENFEAT_MMU_PT_UPDATE_PRESERVE_AD, XENFEAT_PAE_PGDIR_ABOVE_4GB,
};
use oxen_abi::version::{CompileInfo, FeatureInfo, PlatformParameters, VersionOp};
use oxen_hal::Machine;
use oxen_types::Gva;

/// The version of the interface: 4.17.
pub(crate) const VERSION: i64 = 4 << 16 | 17;
/// Assist `pae_extended_cr3`.
const ASSIST_PAE_EXTENDED_CR3: u32 = 3;

/// Texts that `xen_version` gives.
#[derive(Clone, Debug, Default)]
pub struct VersionInfo {
    /// Follows "4.17": says that this is Oxen, at most 15 bytes.
    pub extra: String,
    /// Guest types, each followed by a space.
    pub capabilities: String,
    /// Revision of the source.
    pub changeset: String,
    /// Compiler.
    pub compiler: String,
    /// Who built it.
    pub compile_by: String,
    /// Where.
    pub compile_domain: String,
    /// When.
    pub compile_date: String,
}

/// A text as a zero-terminated array of `N` bytes.
fn text<const N: usize>(s: &str) -> [u8; N] {
    let mut out = [0; N];
    let n = s.len().min(N - 1);
    if let (Some(to), Some(from)) = (out.get_mut(..n), s.as_bytes().get(..n)) {
        to.copy_from_slice(from);
    }
    out
}

impl<M: Machine> Ctx<'_, M> {
    /// `(command, argument)`.
    pub(super) fn xen_version(&mut self, args: &Args) -> Answer {
        let op = VersionOp(super::low32(args[0]));
        // Guests call this with a null argument merely to have pending events delivered.
        if op == VersionOp::VERSION {
            return Ok(VERSION);
        }
        let to = Gva(args[1]);
        let unknown = VersionInfo::default();
        let info = self.hv.version.get().unwrap_or(&unknown);
        match op {
            VersionOp::EXTRAVERSION => self.write(to, &text::<16>(&info.extra))?,
            VersionOp::COMPILE_INFO => {
                let compile = CompileInfo {
                    compiler: text(&info.compiler),
                    compile_by: text(&info.compile_by),
                    compile_domain: text(&info.compile_domain),
                    compile_date: text(&info.compile_date),
                };
                self.write(to, &compile)?;
            }
            VersionOp::CAPABILITIES => self.write(to, &text::<1024>(&info.capabilities))?,
            VersionOp::CHANGESET => self.write(to, &text::<64>(&info.changeset))?,
            VersionOp::PLATFORM_PARAMETERS => self.write(to, &PlatformParameters { virt_start: HYPERVISOR_VIRT_START })?,
            VersionOp::GET_FEATURES => {
                let mut features: FeatureInfo = self.read(to)?;
                if features.submap_idx != 0 {
                    return Err(Errno::EINVAL);
                }
                features.submap = self.features();
                self.write(to, &features)?;
            }
            VersionOp::PAGESIZE => {
                if !to.is_null() {
                    return Err(Errno::EINVAL);
                }
                return Ok(4096);
            }
            VersionOp::GUEST_HANDLE => self.write(to, &*self.domain.handle.lock())?,
            VersionOp::COMMANDLINE => {
                let line = if self.domain.privileges.control { self.hv.config.command_line.as_str() } else { "<denied>" };
                self.write(to, &text::<1024>(line))?;
            }
            VersionOp::BUILD_ID => return Err(Errno::ENODATA),
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    /// The feature bits of a PV guest.
    fn features(&self) -> u32 {
        let bit = |n: u32| 1_u32 << n;
        let mut bits = bit(XENFEAT_MMU_PT_UPDATE_PRESERVE_AD)
            | bit(XENFEAT_HIGHMEM_ASSIST)
            | bit(XENFEAT_GNTTAB_MAP_AVAIL_BITS)
            | bit(XENFEAT_MEMORY_OP_VNODE_SUPPORTED)
            | bit(XENFEAT_DIRECT_MAPPED);
        if self.domain.has_assist(ASSIST_PAE_EXTENDED_CR3) {
            bits |= bit(XENFEAT_PAE_PGDIR_ABOVE_4GB);
        }
        if self.domain.privileges.hardware {
            bits |= bit(XENFEAT_DOM0);
        }
        bits
    }
}
