//! `xen_version`: what hypervisor this is.

use crate::buffer::text;
use crate::error::{Error, Result};
use crate::privcmd::Xen;
use oxen_abi::version::{
    BuildId, CAPABILITIES_LEN, CHANGESET_LEN, COMMANDLINE_LEN, CompileInfo, EXTRAVERSION_LEN,
    PlatformParameters, VersionOp,
};
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

impl Xen {
    /// Everything that the hypervisor says about itself.
    pub fn version(&self) -> Result<VersionInfo> {
        let version = self.version_number("xen_version version", VersionOp::VERSION)?;
        let compiled: CompileInfo =
            self.version_struct("xen_version compile_info", VersionOp::COMPILE_INFO)?;
        let platform: PlatformParameters = self.version_struct(
            "xen_version platform_parameters",
            VersionOp::PLATFORM_PARAMETERS,
        )?;
        Ok(VersionInfo {
            major: version >> 16,
            minor: version & 0xffff,
            extra: self.version_text(
                "xen_version extraversion",
                VersionOp::EXTRAVERSION,
                EXTRAVERSION_LEN,
            )?,
            compiled: CompiledBy {
                compiler: text(&compiled.compiler),
                by: text(&compiled.compile_by),
                domain: text(&compiled.compile_domain),
                date: text(&compiled.compile_date),
            },
            capabilities: self.version_text(
                "xen_version capabilities",
                VersionOp::CAPABILITIES,
                CAPABILITIES_LEN,
            )?,
            changeset: self.version_text(
                "xen_version changeset",
                VersionOp::CHANGESET,
                CHANGESET_LEN,
            )?,
            virt_start: platform.virt_start,
            page_size: self.version_number("xen_version pagesize", VersionOp::PAGESIZE)?,
            command_line: self.version_text(
                "xen_version commandline",
                VersionOp::COMMANDLINE,
                COMMANDLINE_LEN,
            )?,
            build_id: self.build_id()?,
        })
    }

    /// A command that takes no argument and returns a number.
    fn version_number(&self, call: &'static str, op: VersionOp) -> Result<u32> {
        // SAFETY: the only address is null.
        unsafe { self.hypercall(call, Hypercall::XEN_VERSION, &[u64::from(op.raw()), 0]) }
    }

    /// A command that fills a structure.
    fn version_struct<T>(&self, call: &'static str, op: VersionOp) -> Result<T>
    where
        T: Default
            + oxen_abi::zerocopy::IntoBytes
            + oxen_abi::zerocopy::FromBytes
            + oxen_abi::zerocopy::Immutable,
    {
        // SAFETY: the callers name the structure that belongs to the command; it holds no addresses.
        unsafe {
            self.hypercall_in_out(
                call,
                Hypercall::XEN_VERSION,
                Some(u64::from(op.raw())),
                &T::default(),
            )
        }
    }

    /// A command that fills `len` bytes of text.
    fn version_text(&self, call: &'static str, op: VersionOp, len: usize) -> Result<String> {
        let buffer = self.buffer(len)?;
        // SAFETY: the callers give the command's own length, and `buffer` has that many bytes.
        unsafe {
            self.hypercall(
                call,
                Hypercall::XEN_VERSION,
                &[u64::from(op.raw()), buffer.address()],
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
