//! Families of numbers that the ABI crate must state completely.

use std::collections::HashSet;
use std::path::Path;

/// All macros of one header whose names start with a prefix.
pub struct Family {
    /// The header, relative to the include directory.
    pub header: &'static str,
    /// What the macros' names start with.
    pub prefix: &'static str,
    /// Names that start so but are left out, because they are aliases, helpers, unused or obsolete. A final `*` stands for any ending.
    pub except: &'static [&'static str],
}

impl Family {
    /// Whether `name` is an exception.
    fn excepts(&self, name: &str) -> bool {
        self.except
            .iter()
            .any(|exception| match exception.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => *exception == name,
            })
    }
}

/// The families.
pub const FAMILIES: &[Family] = &[
    Family {
        header: "xen/xen.h",
        prefix: "__HYPERVISOR_",
        except: &["__HYPERVISOR_dom0_op", "__HYPERVISOR_arch_*"],
    },
    Family {
        header: "xen/xen.h",
        prefix: "VIRQ_",
        except: &["VIRQ_ARCH_*"],
    },
    Family {
        header: "xen/xen.h",
        prefix: "MMU_",
        except: &[],
    },
    Family {
        header: "xen/xen.h",
        prefix: "MMUEXT_",
        except: &[],
    },
    Family {
        header: "xen/xen.h",
        prefix: "DOMID_",
        except: &[],
    },
    Family {
        header: "xen/xen.h",
        prefix: "SIF_",
        except: &[],
    },
    Family {
        header: "xen/event_channel.h",
        prefix: "EVTCHNOP_",
        except: &["EVTCHNOP_reset_cont"],
    },
    Family {
        header: "xen/event_channel.h",
        prefix: "EVTCHNSTAT_",
        except: &[],
    },
    Family {
        header: "xen/sched.h",
        prefix: "SCHEDOP_",
        except: &[],
    },
    Family {
        header: "xen/sched.h",
        prefix: "SHUTDOWN_",
        except: &["SHUTDOWN_MAX"],
    },
    Family {
        header: "xen/vcpu.h",
        prefix: "VCPUOP_",
        except: &[],
    },
    Family {
        header: "xen/vcpu.h",
        prefix: "RUNSTATE_",
        except: &[],
    },
    Family {
        header: "xen/grant_table.h",
        prefix: "GNTTABOP_",
        except: &["GNTTABOP_error_msgs"],
    },
    Family {
        header: "xen/grant_table.h",
        prefix: "GNTST_",
        except: &[],
    },
    Family {
        header: "xen/grant_table.h",
        prefix: "GNTMAP_",
        except: &[],
    },
    Family {
        header: "xen/grant_table.h",
        prefix: "GTF_",
        except: &[],
    },
    Family {
        header: "xen/physdev.h",
        prefix: "PHYSDEVOP_",
        except: &[
            "PHYSDEVOP_IRQ_STATUS_QUERY",
            "PHYSDEVOP_SET_IOPL",
            "PHYSDEVOP_SET_IOBITMAP",
            "PHYSDEVOP_APIC_READ",
            "PHYSDEVOP_APIC_WRITE",
            "PHYSDEVOP_ASSIGN_VECTOR",
            "PHYSDEVOP_FREE_VECTOR",
            "PHYSDEVOP_IRQ_NEEDS_UNMASK_NOTIFY",
            "PHYSDEVOP_IRQ_SHARED",
            "PHYSDEVOP_pirq_eoi_gmfn",
        ],
    },
    Family {
        header: "xen/version.h",
        prefix: "XENVER_",
        except: &[],
    },
    Family {
        header: "xen/features.h",
        prefix: "XENFEAT_",
        except: &[
            "XENFEAT_grant_map_identity",
            "XENFEAT_ARM_SMCCC_supported",
            "XENFEAT_NR_SUBMAPS",
        ],
    },
    Family {
        header: "xen/callback.h",
        prefix: "CALLBACKOP_",
        except: &[],
    },
    Family {
        header: "xen/callback.h",
        prefix: "CALLBACKTYPE_",
        except: &[],
    },
    Family {
        header: "xen/elfnote.h",
        prefix: "XEN_ELFNOTE_",
        except: &[
            "XEN_ELFNOTE_MAX",
            "XEN_ELFNOTE_CRASH_*",
            "XEN_ELFNOTE_DUMPCORE_*",
        ],
    },
    Family {
        header: "xen/domctl.h",
        prefix: "XEN_DOMINF_",
        except: &[],
    },
    Family {
        header: "xen/domctl.h",
        prefix: "XEN_DOMCTL_CDF_",
        except: &["XEN_DOMCTL_CDF_MAX"],
    },
    Family {
        header: "xen/domctl.h",
        prefix: "XEN_SCHEDULER_",
        except: &[],
    },
    Family {
        header: "xen/sysctl.h",
        prefix: "XEN_SYSCTL_PHYSCAP_",
        except: &["XEN_SYSCTL_PHYSCAP_MAX"],
    },
    Family {
        header: "xen/sysctl.h",
        prefix: "XEN_SYSCTL_CPUPOOL_OP_",
        except: &[],
    },
    Family {
        header: "xen/hvm/params.h",
        prefix: "HVM_PARAM_",
        except: &["HVM_PARAM_CALLBACK_TYPE_PPI*"],
    },
    Family {
        header: "xen/hvm/hvm_op.h",
        prefix: "HVMOP_",
        except: &[
            "HVMOP_set_pci_intx_level",
            "HVMOP_set_isa_irq_level",
            "HVMOP_set_pci_link_route",
            "HVMOP_set_mem_access",
            "HVMOP_get_mem_access",
            "HVMOP_altp2m_*",
            "HVMOP_ALTP2M_*",
        ],
    },
    Family {
        header: "xen/hvm/dm_op.h",
        prefix: "XEN_DMOP_",
        except: &["XEN_DMOP_IOREQ_MEM_ACCESS_*"],
    },
    Family {
        header: "xen/io/xs_wire.h",
        prefix: "XENSTORE_",
        except: &[],
    },
];

/// The macros that start with a family's prefix and are in neither `known` nor the exceptions. Macros with arguments do not count.
pub fn missing(
    family: &Family,
    include: &Path,
    known: &HashSet<&str>,
) -> Result<Vec<String>, String> {
    let path = include.join(family.header);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("#define")?.split_whitespace().next())
        .filter(|name| name.starts_with(family.prefix) && !name.contains('('))
        .filter(|name| !known.contains(name) && !family.excepts(name))
        .map(str::to_owned)
        .collect())
}
