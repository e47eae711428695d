//! `xen_version`: what hypervisor this is.

use crate::buffer::text;
use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::version::{
    BuildId, CAPABILITIES_LEN, CHANGESET_LEN, COMMANDLINE_LEN, CompileInfo, EXTRAVERSION_LEN,
    PlatformParameters, VersionOp,
};
use oxen_abi::zerocopy::{FromBytes, Immutable, IntoBytes};
use oxen_abi::{Errno, Hypercall};

/// What the hypervisor says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VersionInfo {
    /// Major version of the interface.
    pub major: u32,
    /// Minor version of the interface.
    pub minor: u32,
    /// The rest of the version, such as `.7`.
    pub extra: String,
    /// How it was built.
    pub compiled: CompiledBy,
    /// The kinds of guests that it runs, separated by spaces.
    pub capabilities: String,
    /// The source revision.
    pub changeset: String,
    /// First address of its part of PV address spaces.
    pub virt_start: u64,
    /// Bytes per page.
    pub page_size: u32,
    /// Its command line.
    pub command_line: String,
    /// Its build id, if it has one.
    pub build_id: Option<Vec<u8>>,
}

/// How the hypervisor was built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompiledBy {
    /// The compiler.
    pub compiler: String,
    /// The user.
    pub by: String,
    /// The user's domain.
    pub domain: String,
    /// The date.
    pub date: String,
}

/// A command that fills a structure.
///
/// # Safety
///
/// The command must fill exactly this structure, and the structure must hold no addresses.
unsafe trait Filled: Default + IntoBytes + FromBytes + Immutable {
    /// The command.
    const OP: VersionOp;
    /// Its name in errors.
    const CALL: &'static str;
}

// SAFETY: the structure is the command's in the public header, and holds text only.
unsafe impl Filled for CompileInfo {
    const OP: VersionOp = VersionOp::COMPILE_INFO;
    const CALL: &'static str = "xen_version compile_info";
}

// SAFETY: the structure is the command's in the public header; its address is the hypervisor's own, which nothing follows.
unsafe impl Filled for PlatformParameters {
    const OP: VersionOp = VersionOp::PLATFORM_PARAMETERS;
    const CALL: &'static str = "xen_version platform_parameters";
}

/// A command that fills text.
struct Text {
    op: VersionOp,
    call: &'static str,
    /// The bytes that it fills, from the public header.
    len: usize,
}

const EXTRAVERSION: Text = Text {
    op: VersionOp::EXTRAVERSION,
    call: "xen_version extraversion",
    len: EXTRAVERSION_LEN,
};
const CAPABILITIES: Text = Text {
    op: VersionOp::CAPABILITIES,
    call: "xen_version capabilities",
    len: CAPABILITIES_LEN,
};
const CHANGESET: Text = Text {
    op: VersionOp::CHANGESET,
    call: "xen_version changeset",
    len: CHANGESET_LEN,
};
const COMMANDLINE: Text = Text {
    op: VersionOp::COMMANDLINE,
    call: "xen_version commandline",
    len: COMMANDLINE_LEN,
};

impl Xen {
    /// Everything that the hypervisor says about itself.
    pub fn version(&self) -> Result<VersionInfo> {
        let version = self.version_number("xen_version version", VersionOp::VERSION)?;
        let compiled: CompileInfo = self.version_struct()?;
        let platform: PlatformParameters = self.version_struct()?;
        Ok(VersionInfo {
            major: version >> 16,
            minor: version & 0xffff,
            extra: self.version_text(&EXTRAVERSION)?,
            compiled: CompiledBy {
                compiler: text(&compiled.compiler),
                by: text(&compiled.compile_by),
                domain: text(&compiled.compile_domain),
                date: text(&compiled.compile_date),
            },
            capabilities: self.version_text(&CAPABILITIES)?,
            changeset: self.version_text(&CHANGESET)?,
            virt_start: platform.virt_start,
            page_size: self.version_number("xen_version pagesize", VersionOp::PAGESIZE)?,
            command_line: self.version_text(&COMMANDLINE)?,
            build_id: self.build_id()?,
        })
    }

    /// A command that takes no argument and returns a number.
    fn version_number(&self, call: &'static str, op: VersionOp) -> Result<u32> {
        // SAFETY: the only address is null.
        unsafe { self.hypercall(call, Hypercall::XEN_VERSION, &[u64::from(op.raw()), 0]) }
    }

    /// A command that fills a structure.
    fn version_struct<T: Filled>(&self) -> Result<T> {
        let op = u64::from(T::OP.raw());
        // SAFETY: `Filled` says that the command fills a `T` and follows no address in it.
        unsafe { self.hypercall_in_out(T::CALL, Hypercall::XEN_VERSION, Some(op), &T::default()) }
    }

    /// A command that fills text.
    fn version_text(&self, text: &Text) -> Result<String> {
        let buffer = self.buffer(text.len)?;
        // SAFETY: `buffer` has the bytes that the command fills; the constants above pair commands and lengths.
        unsafe {
            self.hypercall(
                text.call,
                Hypercall::XEN_VERSION,
                &[u64::from(text.op.raw()), buffer.address()],
            )?
        };
        Ok(buffer.text())
    }

    /// The build id; `None` when the hypervisor has none.
    fn build_id(&self) -> Result<Option<Vec<u8>>> {
        const CALL: &str = "xen_version build_id";
        let len = match self.version_number(CALL, VersionOp::BUILD_ID) {
            Ok(len) => len,
            Err(error) if matches!(error.errno(), Some(Errno::ENODATA | Errno::ENOSYS)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let header = size_of::<BuildId>();
        let mut buffer = self.buffer(header + len as usize)?;
        if let Some(to) = buffer.bytes_mut().get_mut(..header) {
            to.copy_from_slice(&len.to_ne_bytes());
        }
        let op = u64::from(VersionOp::BUILD_ID.raw());
        // SAFETY: the buffer starts with the number of bytes that follow, as the command wants it, and has that many.
        unsafe { self.hypercall(CALL, Hypercall::XEN_VERSION, &[op, buffer.address()])? };
        match buffer.bytes().get(header..) {
            Some(id) => Ok(Some(id.to_vec())),
            None => Err(Error::BadAnswer { call: CALL }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    /// A hypervisor without build id, or with the given one.
    fn hypervisor(id: Option<&'static [u8]>) -> Xen {
        fake::xen(move |op, args| {
            assert_eq!(op, Hypercall::XEN_VERSION);
            let text = |text: &str| fake::write_bytes(args[1], text.as_bytes());
            match VersionOp(args[0] as u32) {
                VersionOp::VERSION => return Ok(4 << 16 | 17),
                VersionOp::PAGESIZE => return Ok(4096),
                VersionOp::EXTRAVERSION => text(".7"),
                VersionOp::CAPABILITIES => text("xen-3.0-x86_64 "),
                VersionOp::CHANGESET => text("abcd"),
                VersionOp::COMMANDLINE => text("console=com1"),
                VersionOp::PLATFORM_PARAMETERS => {
                    fake::write(args[1], &PlatformParameters { virt_start: 7 })
                }
                VersionOp::COMPILE_INFO => {
                    let mut info = CompileInfo::default();
                    info.compiler[..5].copy_from_slice(b"rustc");
                    fake::write(args[1], &info);
                }
                VersionOp::BUILD_ID => {
                    let id = id.ok_or(Errno::ENODATA)?;
                    if args[1] != 0 {
                        let room: u32 = fake::read(args[1]);
                        assert_eq!(room as usize, id.len());
                        fake::write_bytes(args[1] + 4, id);
                    }
                    return Ok(id.len() as u32);
                }
                other => panic!("{other:?} was not asked for"),
            }
            Ok(0)
        })
    }

    #[test]
    fn version_is_put_together() {
        let info = hypervisor(Some(&[1, 2, 3])).version().unwrap();
        assert_eq!((info.major, info.minor, info.extra.as_str()), (4, 17, ".7"));
        assert_eq!((info.page_size, info.virt_start), (4096, 7));
        assert_eq!(info.compiled.compiler, "rustc");
        assert_eq!(info.command_line, "console=com1");
        assert_eq!(info.build_id, Some(vec![1, 2, 3]));
    }

    #[test]
    fn a_hypervisor_without_build_id_is_no_failure() {
        assert_eq!(hypervisor(None).version().unwrap().build_id, None);
    }
}
