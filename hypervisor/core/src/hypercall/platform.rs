//! `platform_op`: the machine around the processors, for the hardware domain.

use super::{Answer, Args};
use crate::ctx::Ctx;
use oxen_abi::Errno;
use oxen_abi::platform::{EnterAcpiSleep, FirmwareInfo, FirmwareInfoType, PcpuInfo, PlatformCmd, PlatformOp, SetProcessorPminfo, Settime64, XENPF_INTERFACE_VERSION, XEN_PCPU_FLAGS_INVALID, XEN_PCPU_FLAGS_ONLINE};
use oxen_hal::{Machine, PowerAction, WallClock};
use oxen_types::{CpuId, Gva};

/// Highest type of `XENPF_set_processor_pminfo`: Cx, Px, Tx and PDC are 0 to 3.
const MAX_PM_TYPE: u32 = 3;
/// Flag of `XENPF_enter_acpi_sleep`: the values are for the sleep control registers of hardware-reduced ACPI, which are not used.
const EXTENDED_SLEEP: u32 = 1;
const NANOS_PER_SEC: u64 = 1_000_000_000;
/// ACPI state in which the machine is off.
const S5: u32 = 5;

impl<M: Machine> Ctx<'_, M> {
    /// `(operation)`.
    pub(super) fn platform_op(&mut self, args: &Args) -> Answer {
        let argument = Gva(args[0]);
        if !self.domain.privileges.hardware && !self.domain.privileges.control {
            return Err(Errno::EPERM);
        }
        let mut op: PlatformOp = self.read(argument)?;
        if op.interface_version != XENPF_INTERFACE_VERSION {
            return Err(Errno::EACCES);
        }
        match op.cmd {
            PlatformCmd::SETTIME64 => {
                let request: Settime64 = op.u.read();
                if request.mbz != 0 || u64::from(request.nsecs) >= NANOS_PER_SEC {
                    return Err(Errno::EINVAL);
                }
                self.set_wall_clock(&request);
            }
            PlatformCmd::FIRMWARE_INFO => {
                let mut request: FirmwareInfo = op.u.read();
                self.firmware_info(&mut request)?;
                op.u.write(&request);
                self.write(argument, &op)?;
            }
            PlatformCmd::ENTER_ACPI_SLEEP => self.enter_sleep(&op.u.read())?,
            PlatformCmd::GET_CPUINFO => {
                let mut request: PcpuInfo = op.u.read();
                self.cpu_info(&mut request)?;
                op.u.write(&request);
                self.write(argument, &op)?;
            }
            PlatformCmd::CPU_ONLINE | PlatformCmd::CPU_OFFLINE => {
                // The number comes first in the command's structure. Processors that start-up brought up stay up.
                let cpu = CpuId(op.u.read::<u32>());
                if self.machine().cpu_identity(cpu).is_none() {
                    return Err(Errno::EINVAL);
                }
                return Err(Errno::EOPNOTSUPP);
            }
            PlatformCmd::SET_PROCESSOR_PMINFO => {
                let request: SetProcessorPminfo = op.u.read();
                return Err(if request.kind <= MAX_PM_TYPE { Errno::ENOSYS } else { Errno::EINVAL });
            }
            // No symbol is given to guests, so every number is beyond the end of the list.
            PlatformCmd::GET_SYMBOL => return Err(Errno::ERANGE),
            _ => return Err(Errno::ENOSYS),
        }
        Ok(0)
    }

    fn set_wall_clock(&self, request: &Settime64) {
        let now = u128::from(request.secs) * u128::from(NANOS_PER_SEC) + u128::from(request.nsecs);
        let at_zero = now.saturating_sub(request.system_time.into());
        let secs = u64::try_from(at_zero / u128::from(NANOS_PER_SEC)).unwrap_or(u64::MAX);
        let nanos = (at_zero % u128::from(NANOS_PER_SEC)) as u32;
        self.machine().set_wall_clock_at_zero(WallClock { secs, nanos });
        for domain in self.hv.domains.snapshot() {
            self.hv.update_wall_clock(&domain);
        }
    }

    /// What the firmware left: nothing is known of disks and screens, so that loops over them end at once.
    fn firmware_info(&self, request: &mut FirmwareInfo) -> Result<(), Errno> {
        match request.kind {
            FirmwareInfoType::KBD_SHIFT_FLAGS => {
                request.u = Default::default();
                Ok(())
            }
            FirmwareInfoType::DISK_INFO | FirmwareInfoType::DISK_MBR_SIGNATURE => Err(Errno::ESRCH),
            FirmwareInfoType::VBEDDC_INFO => Err(Errno::ESRCH),
            FirmwareInfoType::EFI_INFO => Err(Errno::ENOSYS),
            _ => Err(Errno::EINVAL),
        }
    }

    /// dom0 hands over the values of its own tables; its kernel never touches the registers itself.
    fn enter_sleep(&self, request: &EnterAcpiSleep) -> Result<(), Errno> {
        if request.flags == EXTENDED_SLEEP {
            return Err(Errno::EPERM);
        }
        if request.flags != 0 || request.sleep_state == 0 || request.sleep_state > S5 {
            return Err(Errno::EINVAL);
        }
        let action = PowerAction::Sleep { pm1a: request.val_a, pm1b: request.val_b, state: request.sleep_state as u8 };
        if request.sleep_state != S5 {
            self.hv.log(format_args!("ACPI sleep state S{} is not supported", request.sleep_state));
            return Err(Errno::EOPNOTSUPP);
        }
        self.hv.log(format_args!("dom0 switches the machine off (S5)"));
        self.hv.console_end_well();
        self.machine().power(action);
        Err(Errno::EPERM)
    }

    fn cpu_info(&self, request: &mut PcpuInfo) -> Result<(), Errno> {
        let cpu = CpuId(request.xen_cpuid);
        let Some((apic, acpi)) = self.machine().cpu_identity(cpu) else {
            request.flags = XEN_PCPU_FLAGS_INVALID;
            return Ok(());
        };
        let online = self.machine().online();
        request.max_present = online.iter().last().map_or(0, |c| c.0);
        request.flags = if online.contains(cpu) { XEN_PCPU_FLAGS_ONLINE } else { 0 };
        request.apic_id = apic;
        request.acpi_id = acpi;
        Ok(())
    }
}
