//! The parts of a vCPU's state that only saving tools ask for.

use crate::ctx::Ctx;
use crate::domain::Domain;
use crate::vcpu::{Callback, Vcpu};
use alloc::sync::Arc;
use oxen_abi::Errno;
use oxen_abi::domctl::{ExtVcpuContext, VcpuExtState, VcpuMsr, VcpuMsrs};
use oxen_emul::{cpuid, msr};
use oxen_hal::Machine;
use oxen_types::{Gva, VcpuId};

/// Bytes before the XSAVE area: XCR0, and all components that were ever enabled.
const HEAD_BYTES: usize = 16;
/// Where the header of an XSAVE area begins and ends (Intel SDM vol. 1, "XSAVE Header").
const HEADER: core::ops::Range<usize> = 512..576;
/// Bytes of [`ExtVcpuContext`] up to the machine-check registers, which is the least that can be set.
const EXT_LEAST: u32 = 32;
/// Registers that a vCPU can have values of.
const NR_MSRS: u32 = 1;

impl<M: Machine> Ctx<'_, M> {
    fn vcpu_to_save<'a>(&self, target: &'a Arc<Domain>, number: u32) -> Result<&'a Arc<Vcpu>, Errno> {
        target.vcpu(VcpuId(number)).ok_or(Errno::ESRCH)
    }

    pub(super) fn ext_context(&self, target: &Arc<Domain>, request: &mut ExtVcpuContext) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target).map_err(|_| Errno::ESRCH)?;
        let callbacks = self.hv.with_stopped(vcpu, |state| state.callbacks);
        *request = ExtVcpuContext {
            vcpu: request.vcpu,
            size: size_of::<ExtVcpuContext>() as u32,
            syscall32_callback_eip: callbacks.syscall32.address,
            sysenter_callback_eip: callbacks.sysenter.address,
            syscall32_disables_events: callbacks.syscall32.masks_events.into(),
            sysenter_disables_events: callbacks.sysenter.masks_events.into(),
            // Guests see no machine-check registers.
            ..ExtVcpuContext::default()
        };
        Ok(())
    }

    pub(super) fn set_ext_context(&self, target: &Arc<Domain>, request: &ExtVcpuContext) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target).map_err(|_| Errno::ESRCH)?;
        let canonical = Gva(request.syscall32_callback_eip).is_canonical() && Gva(request.sysenter_callback_eip).is_canonical();
        if request.size < EXT_LEAST || !canonical {
            return Err(Errno::EINVAL);
        }
        self.hv.with_stopped(vcpu, |state| {
            let callback = |address: u64, masks: u8| Callback { address, masks_events: masks != 0 };
            state.callbacks.syscall32 = callback(request.syscall32_callback_eip, request.syscall32_disables_events);
            state.callbacks.sysenter = callback(request.sysenter_callback_eip, request.sysenter_disables_events);
            state.fast_paths_stale = true;
        });
        Ok(())
    }

    /// The components of extended state that there are.
    fn components(&self) -> u64 {
        cpuid::xstates(&|leaf, subleaf| self.machine().cpuid(leaf, subleaf))
    }

    /// Bytes of an XSAVE area with these components (Intel SDM vol. 1, "Standard Format of XSAVE Area").
    fn area_bytes(&self, components: u64) -> usize {
        let end = |component: u32| {
            let [size, offset, ..] = self.machine().cpuid(0xd, component);
            offset as usize + size as usize
        };
        (2..63).filter(|n| components >> n & 1 != 0).map(end).fold(HEADER.end, usize::max)
    }

    /// Tells the size of a vCPU's extended state, or, for a buffer of that size, the state.
    pub(super) fn ext_state(&self, target: &Arc<Domain>, request: &mut VcpuExtState) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target)?;
        let (components, size) = (self.components(), HEAD_BYTES + self.machine().fpu_bytes());
        if request.size == 0 && request.xfeature_mask == 0 {
            request.xfeature_mask = components;
            request.size = size as u64;
            return Ok(());
        }
        if request.size != size as u64 || request.xfeature_mask != components {
            return Err(Errno::EINVAL);
        }
        let (xcr0, area) = self.hv.with_stopped(vcpu, |state| (state.context.xcr0, state.context.fpu.clone()));
        let to = request.buffer.address();
        self.write(Gva(to), &[xcr0, components])?;
        let area = area.as_bytes().get(..size - HEAD_BYTES).ok_or(Errno::EINVAL)?;
        self.write(Gva(to.wrapping_add(HEAD_BYTES as u64)), area)
    }

    pub(super) fn set_ext_state(&self, target: &Arc<Domain>, request: &VcpuExtState) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target)?;
        let most = self.machine().fpu_bytes();
        let bytes = usize::try_from(request.size).ok().and_then(|size| size.checked_sub(HEAD_BYTES)).ok_or(Errno::EINVAL)?;
        if bytes > most {
            return Err(Errno::EINVAL);
        }
        let from = request.buffer.address();
        let [xcr0, enabled]: [u64; 2] = self.read(Gva(from))?;
        let mut area = oxen_hal::FpuArea::new(most);
        let content = area.as_mut_bytes().get_mut(..bytes).ok_or(Errno::EINVAL)?;
        self.machine().copy_from_guest(content, Gva(from.wrapping_add(HEAD_BYTES as u64))).map_err(|_| Errno::EFAULT)?;
        if enabled == 0 {
            // A vCPU that never used any of it: the state stays as it began.
            return if xcr0 == 0 { Ok(()) } else { Err(Errno::EINVAL) };
        }
        let valid = |value: u64| cpuid::valid_xcr0(value, &|leaf, subleaf| self.machine().cpuid(leaf, subleaf));
        let header: [u8; HEADER.end - HEADER.start] = area.as_bytes().get(HEADER).and_then(|h| h.try_into().ok()).ok_or(Errno::EINVAL)?;
        let ([present, compact, reserved @ ..], _) = header.as_chunks::<8>() else { return Err(Errno::EINVAL) };
        if u64::from_le_bytes(*compact) >> 63 != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let plain = reserved.iter().chain([compact]).all(|word| *word == [0; 8]) && u64::from_le_bytes(*present) & !enabled == 0;
        if !plain || !valid(xcr0) || !valid(enabled) || xcr0 & !enabled != 0 || bytes != self.area_bytes(enabled) {
            return Err(Errno::EINVAL);
        }
        self.hv.with_stopped(vcpu, |state| {
            state.context.fpu = area;
            state.context.xcr0 = xcr0;
            state.fpu_given = true;
        });
        Ok(())
    }

    /// Tells the registers that are not zero, or, without a buffer, how many there can be.
    pub(super) fn msrs(&self, target: &Arc<Domain>, request: &mut VcpuMsrs) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target)?;
        if request.msrs.is_null() {
            request.msr_count = NR_MSRS;
            return Ok(());
        }
        let value = self.hv.with_stopped(vcpu, |state| state.context.tsc_aux);
        let room = core::mem::take(&mut request.msr_count);
        if value == 0 {
            return Ok(());
        }
        if room == 0 {
            return Err(Errno::ENOBUFS);
        }
        let entry = VcpuMsr { index: msr::number::TSC_AUX, value: value.into(), ..VcpuMsr::default() };
        self.write(Gva(request.msrs.address()), &entry)?;
        request.msr_count = 1;
        Ok(())
    }

    pub(super) fn set_msrs(&self, target: &Arc<Domain>, request: &VcpuMsrs) -> Result<(), Errno> {
        let vcpu = self.vcpu_to_save(target, request.vcpu)?;
        self.require_other(target)?;
        if request.msr_count > NR_MSRS {
            return Err(Errno::EINVAL);
        }
        for index in 0..request.msr_count {
            let entry: VcpuMsr = self.read_element(Gva(request.msrs.address()), index.into())?;
            let value = u32::try_from(entry.value).ok().filter(|_| entry.index == msr::number::TSC_AUX && entry.reserved == 0);
            let value = value.ok_or(Errno::EINVAL)?;
            self.hv.with_stopped(vcpu, |state| state.context.tsc_aux = value);
        }
        Ok(())
    }
}
