//! Builds domains of random shapes and reads them back through their page tables, as a processor would.

mod memory;
#[path = "../../kernel-image/tests/synth/mod.rs"]
mod synth;

use memory::{PAGE, Scattered, Walk};
use oxen_abi::xen::{ConsoleDom0, ConsoleDomU, Dom0VgaConsoleInfo, StartInfo, VgaType};
use oxen_abi::zerocopy::{FromBytes, IntoBytes};
use oxen_builder::{
    Built, PfnRange, Plan, PlanError, PlanInput, Role, TableLevel, build, load_initrd, load_kernel,
};
use oxen_kernel_image::{Features, Kernel, KernelInfo};
use oxen_types::{Maddr, Pfn};
use std::collections::{BTreeMap, HashMap};
use synth::Random;

const SHARED_INFO: Maddr = Maddr(0x7_654_000);

fn linux_like() -> KernelInfo {
    KernelInfo {
        entry: 0xffff_ffff_8300_0000,
        virt_base: 0xffff_ffff_8000_0000,
        paddr_offset: 0,
        virt_start: 0xffff_ffff_8100_0000,
        virt_end: 0xffff_ffff_84a0_0000,
        hypercall_page: None,
        hv_start_low: Some(0xffff_8000_0000_0000),
        init_p2m: Some(0x80_0000_0000),
        mod_start_pfn: true,
        pae: true,
        features: Features {
            supported: 0x8811,
            required: 1,
        },
        suspend_cancel: true,
        l1_mfn_valid: None,
        phys32_entry: None,
        guest_os: "linux".into(),
        guest_version: "2.6".into(),
    }
}

fn random_kernel(random: &mut Random) -> KernelInfo {
    let virt_base = random.pick(&[
        0xffff_ffff_8000_0000,
        0,
        0xffff_8800_0000_0000,
        0xffff_a000_3ff0_0000,
        0x12_3456_7000,
        0xffff_ffff_c012_3000,
    ]);
    let virt_start = virt_base + random.below(0x400) * PAGE;
    let virt_end = virt_start + 1 + random.below(0x80_0000);
    KernelInfo {
        entry: virt_start,
        virt_base,
        virt_start,
        virt_end,
        hypercall_page: None,
        init_p2m: (random.below(2) == 0).then(|| {
            random.pick(&[
                0x80_0000_0000,
                0x7fff_0000_0000,
                0x4000_3ffe_f000,
                0x40ff_ffff_f000,
            ])
        }),
        mod_start_pfn: random.below(2) == 0,
        ..linux_like()
    }
}

fn dom0() -> Role {
    Role::Dom0 {
        vga: None,
        pm_bits: 0,
    }
}

/// Every part of the layout; no two may overlap.
fn parts(plan: &Plan) -> Vec<(&'static str, PfnRange)> {
    let one = |pfn| PfnRange {
        first: pfn,
        count: 1,
    };
    let mut parts = vec![
        ("kernel", plan.kernel),
        ("p2m", plan.p2m.pfns),
        ("start info", one(plan.start_info)),
        ("tables", plan.table_pfns()),
        ("stack", one(plan.stack)),
    ];
    parts.extend(plan.initrd.map(|initrd| ("initrd", initrd.pfns)));
    parts.extend(plan.xenstore.map(|pfn| ("xenstore", one(pfn))));
    parts.extend(plan.console.map(|pfn| ("console", one(pfn))));
    parts.extend(plan.p2m.tables.map(|tables| {
        (
            "p2m tables",
            PfnRange {
                first: tables.first(TableLevel::L3),
                count: tables.total(),
            },
        )
    }));
    parts
}

fn check_layout(plan: &Plan, kernel: &KernelInfo, input: &PlanInput) {
    let mut sorted = parts(plan);
    sorted.sort_by_key(|(_, range)| range.first);
    for pair in sorted.windows(2) {
        assert!(pair[0].1.end() <= pair[1].1.first, "{pair:x?} overlap");
    }
    assert!(sorted.last().unwrap().1.end().0 <= input.nr_pages);
    assert_eq!(
        plan.va(plan.kernel.first).0,
        kernel.virt_start & !(PAGE - 1)
    );
    assert_eq!(
        plan.va(plan.kernel.end()).0,
        kernel.virt_end.next_multiple_of(PAGE)
    );
    assert_eq!(plan.p2m.pfns.count, (input.nr_pages * 8).div_ceil(PAGE));

    let spare = (plan.mapped - plan.stack.0 - 1) * PAGE;
    assert!(spare >= 512 << 10, "only {spare} bytes spare");
    let end = plan.virt_base.0 + plan.mapped * PAGE;
    assert_eq!(end % (4 << 20), 0);
    assert!(spare < (512 << 10) + (4 << 20), "more mapped than needed");
    assert_eq!(plan.stack, plan.table_pfns().end());
    if let Some(initrd) = plan.initrd {
        assert_eq!(initrd.va.is_some(), !kernel.mod_start_pfn);
        assert_eq!(initrd.pfns.first.0 < plan.mapped, !kernel.mod_start_pfn);
        assert_eq!(initrd.pfns.count, input.initrd_len.div_ceil(PAGE));
    }
}

fn check_tables(plan: &Plan, memory: &Scattered, built: &Built) {
    let walk = Walk::new(memory, built.cr3.0);
    let mut expected = BTreeMap::new();
    let tables = plan.table_pfns();
    for pfn in 0..plan.mapped {
        expected.insert(
            plan.va(Pfn(pfn)).0,
            (Scattered::mfn_of(pfn), !tables.contains(Pfn(pfn))),
        );
    }
    if plan.p2m.tables.is_some() {
        for n in 0..plan.p2m.pfns.count {
            expected.insert(
                plan.p2m.va.0 + n * PAGE,
                (Scattered::mfn_of(plan.p2m.pfns.first.0 + n), true),
            );
        }
    }
    assert!(
        walk.pages == expected,
        "the page tables do not map what the plan says"
    );
    for (va, (mfn, writable)) in &walk.pages {
        assert!(
            !(*writable && walk.tables.contains_key(mfn)),
            "page table mapped writable at {va:#x}"
        );
    }
    let planned: HashMap<u64, u64> = plan
        .table_frames()
        .map(|(pfn, level)| (Scattered::mfn_of(pfn.0), level as u64))
        .collect();
    assert!(
        walk.tables == planned,
        "the plan's list of page tables is not what the root reaches"
    );
    let in_use = plan.table_frames().count() as u64;
    assert_eq!(
        in_use,
        1 + plan.tables.total() + plan.p2m.tables.map_or(0, |tables| tables.total())
    );

    // The p2m, read at the address that the kernel will use.
    for pfn in (0..plan.nr_pages).step_by(211).chain([plan.nr_pages - 1]) {
        let (mfn, _) = walk.pages[&(plan.p2m.va.0 + pfn / 512 * PAGE)];
        assert_eq!(
            memory.entry(mfn, (pfn % 512) as usize),
            Scattered::mfn_of(pfn)
        );
    }
}

fn start_info(plan: &Plan, memory: &Scattered) -> StartInfo {
    StartInfo::read_from_prefix(memory.read(plan.start_info))
        .unwrap()
        .0
}

fn check_start_info(plan: &Plan, memory: &Scattered, input: &PlanInput, built: &Built) {
    let info = start_info(plan, memory);
    assert!(info.magic.starts_with(b"xen-3.0-x86_64"));
    assert_eq!(info.nr_pages, input.nr_pages);
    assert_eq!(info.shared_info, SHARED_INFO.0);
    assert_eq!(info.pt_base, plan.va(plan.root).0);
    assert_eq!(info.nr_pt_frames, plan.table_pfns().count);
    assert_eq!(info.mfn_list, plan.p2m.va.0);
    assert_eq!(&info.cmd_line[..13], b"console=hvc0\0");
    let by_pfn = info.flags & 8 != 0;
    match plan.initrd {
        None => assert_eq!((info.mod_start, info.mod_len, by_pfn), (0, 0, false)),
        Some(initrd) => {
            assert_eq!(info.mod_len, input.initrd_len);
            assert_eq!(by_pfn, initrd.va.is_none());
            assert_eq!(
                info.mod_start,
                if by_pfn {
                    initrd.pfns.first.0
                } else {
                    plan.va(initrd.pfns.first).0
                }
            );
        }
    }
    match plan.p2m.tables {
        None => assert_eq!((info.first_p2m_pfn, info.nr_p2m_frames), (0, 0)),
        Some(tables) => {
            assert_eq!(info.first_p2m_pfn, tables.first(TableLevel::L3).0);
            assert_eq!(
                info.first_p2m_pfn + info.nr_p2m_frames,
                plan.p2m.pfns.end().0
            );
        }
    }
    assert_eq!(built.rsi, plan.va(plan.start_info));
    assert_eq!(built.rsp.0, plan.va(plan.stack).0 + PAGE);
    assert_eq!(built.rip, plan.entry);
    assert_eq!(built.cr3.0, Scattered::mfn_of(plan.root.0));
    assert!(memory.read(plan.stack).iter().all(|byte| *byte == 0));
}

#[test]
fn domains_of_random_shape() {
    let mut random = Random(0xfeed_beef_0bad_cafe);
    let (mut built_ones, mut too_small) = (0, 0);
    for _ in 0..120 {
        let kernel = random_kernel(&mut random);
        let role = if random.below(2) == 0 {
            dom0()
        } else {
            Role::DomU {
                store_port: 1,
                console_port: 2,
            }
        };
        let some_len = random.below(8 << 20);
        let initrd_len = random.pick(&[0, 1, 4096, some_len]);
        let input = PlanInput {
            nr_pages: 1 + random.below(40_000),
            initrd_len,
            role,
        };
        let plan = match Plan::new(&kernel, &input) {
            Ok(plan) => plan,
            Err(PlanError::TooLittleMemory { need, have }) => {
                assert!(need > have && have == input.nr_pages);
                too_small += 1;
                continue;
            }
            Err(error) => panic!("{error}: {kernel:x?}"),
        };
        check_layout(&plan, &kernel, &input);
        let mut memory = Scattered::new(input.nr_pages);
        let built = build(&plan, SHARED_INFO, b"console=hvc0", &mut memory)
            .expect("nothing outside the domain is touched");
        check_tables(&plan, &memory, &built);
        check_start_info(&plan, &memory, &input, &built);
        built_ones += 1;
    }
    assert!(
        built_ones > 50 && too_small > 5,
        "{built_ones} built, {too_small} too small"
    );
}

#[test]
fn need_is_exact() {
    let kernel = linux_like();
    let input = |nr_pages| PlanInput {
        nr_pages,
        initrd_len: 5_000_000,
        role: dom0(),
    };
    let (mut refused, mut nr_pages) = (0, 0);
    // More pages mean a larger p2m, so the answer has to be asked for again.
    let plan = loop {
        match Plan::new(&kernel, &input(nr_pages)) {
            Ok(plan) => break plan,
            Err(PlanError::TooLittleMemory { need, .. }) => (refused, nr_pages) = (nr_pages, need),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(plan.p2m.pfns.end().0, nr_pages);
    assert!(refused < nr_pages && Plan::new(&kernel, &input(nr_pages - 1)).is_err());
}

/// The numbers of Debian's kernel in a domain of 2 GiB, worked out by hand.
#[test]
fn debian_in_two_gib() {
    let plan = Plan::new(
        &linux_like(),
        &PlanInput {
            nr_pages: 0x8_0000,
            initrd_len: 30 << 20,
            role: dom0(),
        },
    )
    .unwrap();
    assert_eq!(
        plan.kernel,
        PfnRange {
            first: Pfn(0x1000),
            count: 0x3a00
        }
    );
    assert_eq!(plan.start_info, Pfn(0x4a00));
    assert_eq!(plan.root, Pfn(0x4a01));
    // 76 MiB take 38 L1 tables, one L2, one L3.
    assert_eq!(plan.tables.total(), 40);
    assert_eq!(plan.stack, Pfn(0x4a2a));
    assert_eq!(plan.mapped, 0x4c00);
    assert_eq!(
        plan.initrd.unwrap().pfns,
        PfnRange {
            first: Pfn(0x4c00),
            count: 0x1e00
        }
    );
    let tables = plan.p2m.tables.unwrap();
    assert_eq!(
        (tables.first(TableLevel::L3), tables.total()),
        (Pfn(0x6a00), 4)
    );
    assert_eq!(
        plan.p2m.pfns,
        PfnRange {
            first: Pfn(0x6a04),
            count: 0x400
        }
    );
}

#[test]
fn kernel_and_initrd_land_where_the_tables_say() {
    let elf = synth::elf(&synth::linux_parts(100_000), &synth::linux_notes());
    let kernel = Kernel::parse(&elf).unwrap();
    let initrd: Vec<u8> = (0..10_000_u32).map(|n| n as u8).collect();
    let vga = Dom0VgaConsoleInfo {
        video_type: VgaType::EFI_LFB,
        u: [7; 9],
        ..Dom0VgaConsoleInfo::default()
    };
    let input = PlanInput {
        nr_pages: 30_000,
        initrd_len: initrd.len() as u64,
        role: Role::Dom0 {
            vga: Some(vga),
            pm_bits: 3,
        },
    };
    let plan = Plan::new(kernel.info(), &input).unwrap();
    let mut memory = Scattered::new(input.nr_pages);
    load_kernel(&kernel, &mut memory).unwrap();
    load_initrd(&plan, &initrd, &mut memory).unwrap();
    let long = vec![b'x'; 2000];
    let built = build(&plan, SHARED_INFO, &long, &mut memory).unwrap();
    assert!(built.cmdline_cut);

    let walk = Walk::new(&memory, built.cr3.0);
    let byte = |va: u64| memory.frames[&walk.pages[&(va & !(PAGE - 1))].0][(va % PAGE) as usize];
    for segment in kernel.segments() {
        let va = plan.virt_base.0 + segment.paddr;
        for (at, expected) in segment.data.iter().enumerate() {
            assert_eq!(byte(va + at as u64), *expected);
        }
        for at in segment.data.len() as u64..segment.mem_len {
            assert_eq!(byte(va + at), 0);
        }
    }
    let first = plan.initrd.unwrap().pfns.first;
    let read: Vec<u8> = (0..3).flat_map(|n| *memory.read(first.offset(n))).collect();
    assert_eq!(read[..initrd.len()], initrd);

    let info = start_info(&plan, &memory);
    assert!(info.magic.starts_with(b"xen-3.0-x86_64p\0"));
    assert_eq!(info.flags, 1 | 2 | 8 | 3 << 8);
    assert_eq!(info.cmd_line[1022..], *b"x\0");
    assert_eq!(
        info.console.read::<ConsoleDom0>(),
        ConsoleDom0 {
            info_off: 1168,
            info_size: 40
        }
    );
    assert_eq!(memory.read(plan.start_info)[1168..1208], *vga.as_bytes());
    assert!(
        memory.read(plan.start_info)[1208..]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn a_domu_gets_its_rings() {
    let role = Role::DomU {
        store_port: 5,
        console_port: 6,
    };
    let plan = Plan::new(
        &linux_like(),
        &PlanInput {
            nr_pages: 40_000,
            initrd_len: 0,
            role,
        },
    )
    .unwrap();
    let mut memory = Scattered::new(40_000);
    build(&plan, SHARED_INFO, b"", &mut memory).unwrap();
    let info = start_info(&plan, &memory);
    assert!(info.magic.starts_with(b"xen-3.0-x86_64\0"));
    assert_eq!(info.flags, 0);
    assert_eq!(
        (plan.xenstore, plan.console),
        (
            Some(plan.start_info.offset(1)),
            Some(plan.start_info.offset(2))
        )
    );
    assert_eq!(
        (info.store_mfn, info.store_evtchn),
        (Scattered::mfn_of(plan.start_info.0 + 1), 5)
    );
    let console = info.console.read::<ConsoleDomU>();
    assert_eq!(
        (console.mfn, console.evtchn),
        (Scattered::mfn_of(plan.start_info.0 + 2), 6)
    );
}

#[test]
fn refusals_name_the_cause() {
    let good = linux_like();
    let refusal = |kernel: &KernelInfo, role| {
        Plan::new(
            kernel,
            &PlanInput {
                nr_pages: 0x8_0000,
                initrd_len: 0,
                role,
            },
        )
        .expect_err("must be refused")
    };
    let features = Features {
        supported: 1,
        required: 1,
    };
    assert_eq!(
        refusal(
            &KernelInfo {
                features,
                ..good.clone()
            },
            dom0()
        ),
        PlanError::NotForDom0
    );
    let features = Features {
        supported: 0x8811,
        required: 1 << 3,
    };
    assert_eq!(
        refusal(
            &KernelInfo {
                features,
                ..good.clone()
            },
            dom0()
        ),
        PlanError::FeatureUnsupported("supervisor_mode_kernel")
    );
    let hv_start_low = Some(0xffff_c000_0000_0000);
    assert!(matches!(
        refusal(
            &KernelInfo {
                hv_start_low,
                ..good.clone()
            },
            dom0()
        ),
        PlanError::HypervisorRangeTooLow { .. }
    ));
    for (virt_base, init_p2m) in [
        (0xffff_8000_0000_0000, None),
        (0x7fff_ff00_0000, None),
        (0x8000_0000_0000, None),
        (0xffff_ffff_8000_0123, None),
        (0xffff_ffff_fe00_0000, None),
        (0xffff_ffff_8000_0000, Some(0xffff_8000_0000_0000)),
        (0xffff_ffff_8000_0000, Some(0x80_0000_0001)),
        (0xffff_ffff_8000_0000, Some(0xffff_ffff_0000_0000)),
        (0xffff_ffff_8000_0000, Some(0x7fff_ffff_f000)),
        (0xffff_ffff_8000_0000, Some(0x9000_0000_0000)),
    ] {
        let len = good.virt_end - good.virt_start;
        let virt_start = virt_base + 0x100_0000;
        let kernel = KernelInfo {
            virt_base,
            virt_start,
            virt_end: virt_start.saturating_add(len),
            init_p2m,
            ..good.clone()
        };
        let refused = refusal(&kernel, dom0());
        assert!(
            !matches!(refused, PlanError::TooLittleMemory { .. }),
            "{virt_base:#x} {init_p2m:x?}: {refused}"
        );
    }
}

/// Nothing that notes or a caller can state overflows.
#[test]
fn extreme_numbers() {
    let mut random = Random(0x5555_1234_8765_4321);
    let extreme = |random: &mut Random| {
        let n = 1_u64 << random.below(64);
        random.pick(&[
            0,
            1,
            n,
            n - 1,
            !n,
            u64::MAX,
            u64::MAX - 4095,
            0xffff_ffff_8000_0000,
            0x7fff_ffff_f000,
        ])
    };
    for _ in 0..200_000 {
        let kernel = KernelInfo {
            entry: extreme(&mut random),
            virt_base: extreme(&mut random),
            virt_start: extreme(&mut random),
            virt_end: extreme(&mut random),
            hypercall_page: Some(extreme(&mut random)),
            init_p2m: (random.below(2) == 0).then(|| extreme(&mut random)),
            mod_start_pfn: random.below(2) == 0,
            ..linux_like()
        };
        let input = PlanInput {
            nr_pages: extreme(&mut random),
            initrd_len: extreme(&mut random),
            role: dom0(),
        };
        if let Ok(plan) = Plan::new(&kernel, &input) {
            assert!(
                parts(&plan)
                    .iter()
                    .all(|(_, range)| range.end().0 <= input.nr_pages)
            );
        }
    }
}
