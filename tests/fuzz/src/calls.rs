//! The calls, and what their arguments are made of.

use crate::values::{Kind, Values};
use Kind::{
    Any, Below, Context, Count, DescriptorAddress, Domain, Entry, EntryAddress, Flags, Foreign, Frame, GrantFlags, Guest, Handle, Is, Page, Pointer, Port, Reference, Time, Vcpu, Zero,
};
use oxen_abi::Hypercall as H;
use oxen_types::DomId;

/// A field: bytes, meaning.
type Field = (usize, Kind);

/// Arguments of a call.
enum Form {
    /// Words in registers.
    Words(&'static [Kind]),
    /// (command, pointer to a structure).
    Command(&'static [(u64, &'static [Field])]),
    /// (command, vCPU, pointer to a structure).
    VcpuCommand(&'static [(u64, &'static [Field])]),
    /// (pointer to a structure that begins with the command and an interface version), for the second number of the tuple.
    Operation(u32, &'static [(u64, &'static [Field])]),
    /// (pointer to structures, how many, words).
    List(&'static [Field], &'static [Kind]),
    /// (command, pointer to structures, how many).
    CommandList(&'static [(u64, &'static [Field])]),
}

struct Call {
    number: H,
    /// How often, among the others.
    odds: u64,
    form: Form,
}

const RESERVATION: &[Field] = &[(8, Pointer), (8, Count), (4, Below(2)), (4, Below(40)), (2, Domain), (6, Zero)];
/// Stands for registers that the argument itself points to.
const INITIALISE: &[Field] = &[(0, Context)];
const TRAP: &[Field] = &[(1, Any), (1, Below(8)), (2, Any), (4, Zero), (8, Is(crate::world::CODE))];
const CALLBACK: &[Field] = &[(2, Below(8)), (2, Below(2)), (4, Zero), (8, Is(crate::world::CODE))];
const DOMCTL_DOMAIN: Field = (2, Guest);
const PAD6: Field = (6, Zero);

const CALLS: &[Call] = &[
    Call { number: H::MMU_UPDATE, odds: 60, form: Form::List(&[(8, EntryAddress), (8, Entry)], &[Pointer, Foreign]) },
    Call { number: H::MMUEXT_OP, odds: 60, form: Form::List(&[(4, Below(22)), (4, Zero), (8, Frame), (8, Pointer)], &[Pointer, Foreign]) },
    Call { number: H::UPDATE_VA_MAPPING, odds: 20, form: Form::Words(&[Page, Entry, Below(12)]) },
    Call { number: H::UPDATE_VA_MAPPING_OTHERDOMAIN, odds: 10, form: Form::Words(&[Page, Entry, Below(12), Guest]) },
    Call { number: H::SET_TRAP_TABLE, odds: 2, form: Form::List(TRAP, &[]) },
    Call { number: H::SET_GDT, odds: 4, form: Form::List(&[(8, Frame)], &[]) },
    Call { number: H::STACK_SWITCH, odds: 2, form: Form::Words(&[Is(0xe02b), Pointer]) },
    Call { number: H::SET_CALLBACKS, odds: 2, form: Form::Words(&[Is(crate::world::CODE), Is(crate::world::CODE), Is(crate::world::CODE)]) },
    Call { number: H::FPU_TASKSWITCH, odds: 1, form: Form::Words(&[Below(3)]) },
    Call { number: H::SET_DEBUGREG, odds: 2, form: Form::Words(&[Below(9), Any]) },
    Call { number: H::GET_DEBUGREG, odds: 1, form: Form::Words(&[Below(9)]) },
    Call { number: H::UPDATE_DESCRIPTOR, odds: 6, form: Form::Words(&[DescriptorAddress, Any]) },
    Call { number: H::SET_TIMER_OP, odds: 3, form: Form::Words(&[Time]) },
    Call { number: H::XEN_VERSION, odds: 3, form: Form::Command(&[(0, &[]), (1, &[]), (2, &[]), (3, &[]), (4, &[]), (5, &[]), (6, &[(4, Below(3))]), (7, &[]), (8, &[]), (9, &[]), (10, &[(4, Below(64))]), (11, &[])]) },
    Call { number: H::CONSOLE_IO, odds: 2, form: Form::Words(&[Below(3), Below(300), Pointer]) },
    Call { number: H::VM_ASSIST, odds: 2, form: Form::Words(&[Below(3), Below(8)]) },
    Call { number: H::IRET, odds: 3, form: Form::Words(&[]) },
    Call { number: H::SET_SEGMENT_BASE, odds: 2, form: Form::Words(&[Below(5), Pointer]) },
    Call { number: H::NMI_OP, odds: 1, form: Form::Command(&[(0, &[(8, Is(crate::world::CODE))]), (1, &[])]) },
    Call { number: H::CALLBACK_OP, odds: 3, form: Form::Command(&[(0, CALLBACK), (1, CALLBACK)]) },
    Call {
        number: H::MEMORY_OP,
        odds: 40,
        form: Form::Command(&[
            (0, RESERVATION),
            (1, RESERVATION),
            (2, &[]),
            (3, &[(2, Domain)]),
            (4, &[(2, Domain)]),
            (5, &[(4, Count), (4, Zero), (8, Pointer), (4, Zero)]),
            (6, RESERVATION),
            (7, &[(2, Domain), (2, Count), (4, Below(5)), (8, Any), (8, Frame)]),
            (9, &[(4, Count), (4, Zero), (8, Pointer)]),
            (10, &[(4, Count), (4, Zero), (8, Pointer)]),
            (11, &[(8, Pointer), (8, Is(1)), (4, Is(0)), (4, Below(40)), (2, Foreign), (6, Zero), (8, Pointer), (8, Is(1)), (4, Is(0)), (4, Below(40)), (2, Foreign), (6, Zero), (8, Is(0))]),
            (12, &[]),
            (13, &[(2, Domain), (6, Zero), (4, Count), (4, Zero), (8, Pointer)]),
            (14, &[(2, Domain)]),
            (15, &[(2, Domain), (6, Zero), (8, Frame)]),
            (24, RESERVATION),
            (28, &[(2, Domain), (2, Below(3)), (4, Below(3)), (4, Count), (4, Zero), (8, Below(3)), (8, Pointer)]),
        ]),
    },
    Call {
        number: H::EVENT_CHANNEL_OP,
        odds: 50,
        form: Form::Command(&[
            (0, &[(2, Domain), (2, Zero), (4, Port), (4, Zero)]),
            (1, &[(4, Below(24)), (4, Vcpu), (4, Zero)]),
            (2, &[(4, Below(40)), (4, Below(2)), (4, Zero)]),
            (3, &[(4, Port)]),
            (4, &[(4, Port)]),
            (5, &[(2, Domain), (2, Zero), (4, Port), (16, Zero)]),
            (6, &[(2, Domain), (2, Domain), (4, Zero)]),
            (7, &[(4, Vcpu), (4, Zero)]),
            (8, &[(4, Port), (4, Vcpu)]),
            (9, &[(4, Port)]),
            (11, &[(8, Frame), (4, Below(520)), (4, Vcpu), (8, Zero)]),
            (12, &[(8, Frame)]),
            (13, &[(4, Port), (4, Below(18))]),
        ]),
    },
    Call {
        number: H::VCPU_OP,
        odds: 15,
        form: Form::VcpuCommand(&[
            (0, INITIALISE),
            (1, &[]),
            (2, &[]),
            (3, &[]),
            (4, &[]),
            (5, &[(8, Pointer)]),
            (6, &[(8, Below(20_000_000))]),
            (7, &[]),
            (8, &[(8, Time), (4, Below(2))]),
            (9, &[]),
            (10, &[(8, Frame), (4, Below(4100)), (4, Zero)]),
            (11, &[]),
            (12, &[]),
            (13, &[(8, Pointer)]),
        ]),
    },
    Call {
        number: H::SCHED_OP,
        odds: 12,
        form: Form::Command(&[
            (0, &[]),
            (1, &[]),
            (3, &[(8, Pointer), (4, Below(4)), (4, Zero), (8, Time)]),
            (5, &[(4, Below(7))]),
            (6, &[(4, Below(4)), (4, Below(300))]),
            (7, &[(4, Below(4))]),
        ]),
    },
    Call { number: H::EVENT_CHANNEL_OP, odds: 1, form: Form::Command(&[(10, &[(2, Domain)])]) },
    Call { number: H::HYPFS_OP, odds: 1, form: Form::Words(&[Below(4), Pointer, Below(1030), Pointer, Below(5000)]) },
    Call { number: H::DOMCTL, odds: 2, form: Form::Operation(0x15, &[(2, &[DOMCTL_DOMAIN, PAD6])]) },
    Call { number: H::SCHED_OP, odds: 1, form: Form::Command(&[(2, &[(4, Below(7))]), (4, &[(2, Domain), (2, Zero), (4, Below(7))])]) },
    Call {
        number: H::PHYSDEV_OP,
        odds: 20,
        form: Form::Command(&[
            (5, &[(4, Below(40)), (4, Zero)]),
            (6, &[(4, Below(5))]),
            (7, &[(8, Pointer), (4, Below(70_000))]),
            (8, &[(8, Is(0xfec0_0000)), (4, Below(60)), (4, Zero)]),
            (9, &[(8, Is(0xfec0_0000)), (4, Below(60)), (4, Any)]),
            (10, &[(4, Below(40)), (4, Zero)]),
            (12, &[(4, Below(40))]),
            (13, &[(2, Domain), (2, Zero), (4, Below(5)), (4, Below(40)), (4, Below(60)), (4, Below(2)), (4, Below(256)), (4, Below(3)), (4, Zero), (8, Frame)]),
            (14, &[(2, Domain), (2, Zero), (4, Below(60))]),
            (15, &[(1, Below(2)), (1, Any)]),
            (16, &[(1, Below(2)), (1, Any)]),
            (17, &[(8, Frame)]),
            (19, &[(1, Below(2)), (1, Any)]),
            (21, &[(4, Below(40)), (1, Below(2)), (1, Below(2))]),
            (23, &[(4, Below(3)), (4, Zero)]),
            (24, &[(8, Any), (2, Zero), (1, Zero), (1, Any), (4, Flags)]),
            (25, &[(2, Below(2)), (1, Below(2)), (1, Any), (4, Flags), (4, Zero)]),
            (26, &[(2, Below(2)), (1, Below(2)), (1, Any)]),
            (28, &[(8, Frame)]),
            (30, &[(2, Below(2)), (1, Below(2)), (1, Any)]),
            (31, &[(2, Below(2)), (1, Below(2)), (1, Any)]),
        ]),
    },
    Call {
        number: H::GRANT_TABLE_OP,
        odds: 60,
        form: Form::CommandList(&[
            (0, &[(8, Page), (4, GrantFlags { by_entry: false }), (4, Reference), (2, Guest), (2, Zero), (4, Zero), (8, Zero)]),
            (0, &[(8, Page), (4, GrantFlags { by_entry: false }), (4, Reference), (2, Guest), (2, Zero), (4, Zero), (8, Zero)]),
            (0, &[(8, EntryAddress), (4, GrantFlags { by_entry: true }), (4, Reference), (2, Guest), (2, Zero), (4, Zero), (8, Zero)]),
            (1, &[(8, Page), (8, Zero), (4, Handle), (2, Zero), (2, Zero)]),
            (1, &[(8, Page), (8, Frame), (4, Handle), (2, Zero), (2, Zero)]),
            (1, &[(8, EntryAddress), (8, Zero), (4, Handle), (2, Zero), (2, Zero)]),
            (2, &[(2, Domain), (2, Zero), (4, Below(5)), (8, Zero), (8, Pointer)]),
            (4, &[(8, Frame), (2, Domain), (2, Zero), (4, Reference), (8, Zero)]),
            (5, &[(8, Reference), (2, Domain), (2, Below(4200)), (4, Zero), (8, Frame), (2, Domain), (2, Below(4200)), (4, Zero), (2, Below(4200)), (2, Below(4)), (4, Zero)]),
            (6, &[(2, Domain), (2, Zero), (4, Zero), (4, Zero), (4, Zero)]),
            (7, &[(8, Page), (8, Page), (4, Handle), (4, Zero)]),
            (8, &[(4, Below(4))]),
            (9, &[(4, Below(3)), (2, Domain), (2, Zero), (8, Pointer)]),
            (10, &[(2, Domain), (2, Zero), (4, Zero)]),
            (11, &[(4, Reference), (4, Reference), (4, Zero)]),
            (12, &[(8, EntryAddress), (2, Below(4200)), (2, Below(4200)), (4, Below(4))]),
            (12, &[(8, Frame), (2, Below(4200)), (2, Below(4200)), (4, Flags)]),
        ]),
    },
    Call {
        number: H::SYSCTL,
        odds: 8,
        form: Form::Operation(
            0x15,
            &[
                (1, &[(1, Below(2)), (1, Below(2)), (2, Zero), (4, Below(4000)), (8, Pointer), (4, Below(4000))]),
                (3, &[]),
                (4, &[]),
                (6, &[(2, Domain), (2, Zero), (4, Below(20)), (8, Pointer)]),
                (7, &[(8, Pointer), (4, Below(4))]),
                (8, &[(4, Count), (4, Zero), (8, Pointer)]),
                (9, &[(4, Zero), (4, Zero), (4, Zero)]),
                (16, &[(4, Count), (4, Zero), (8, Pointer)]),
                (17, &[(4, Count), (4, Zero), (8, Pointer), (8, Pointer)]),
                (18, &[(4, Below(9)), (4, Below(2)), (4, Zero), (4, Domain), (4, Below(3)), (4, Zero), (8, Pointer), (4, Below(300))]),
                (19, &[(4, Below(2)), (4, Is(5)), (4, Below(3)), (4, Zero), (4, Below(50)), (4, Below(2000)), (4, Below(2000))]),
                (26, &[(4, Below(6)), (4, Below(30)), (8, Pointer)]),
                (29, &[(4, Below(7)), (4, Below(200)), (4, Below(5)), (4, Zero), (8, Pointer), (8, Pointer)]),
            ],
        ),
    },
    Call {
        number: H::DOMCTL,
        odds: 100,
        form: Form::Operation(
            0x15,
            &[
                (1, &[(2, Below(6)), PAD6, (4, Zero), (16, Any), (4, Below(2)), (4, Zero), (4, Below(5)), (4, Below(2000)), (4, Below(6)), (4, Below(6)), (4, Below(2)), (4, Zero), (4, Zero), (4, Zero), (8, Zero)]),
                (3, &[DOMCTL_DOMAIN, PAD6]),
                (4, &[DOMCTL_DOMAIN, PAD6]),
                (4, &[DOMCTL_DOMAIN, PAD6]),
                (5, &[DOMCTL_DOMAIN, PAD6]),
                (9, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Below(4)), (8, Pointer), (4, Below(80)), (4, Zero), (8, Pointer), (4, Below(80))]),
                (11, &[DOMCTL_DOMAIN, PAD6, (8, Below(1200))]),
                (12, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Zero), (8, Context)]),
                (13, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Zero), (8, Pointer)]),
                (14, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu)]),
                (15, &[DOMCTL_DOMAIN, PAD6, (4, Below(5))]),
                (16, &[DOMCTL_DOMAIN, PAD6, (4, Is(5)), (4, Below(4)), (2, Any), (2, Below(300))]),
                (17, &[DOMCTL_DOMAIN, PAD6, (16, Any)]),
                (19, &[DOMCTL_DOMAIN, PAD6, (4, Below(60)), (1, Below(2))]),
                (20, &[DOMCTL_DOMAIN, PAD6, (8, Below(1200)), (8, Below(5)), (1, Below(2))]),
                (21, &[DOMCTL_DOMAIN, PAD6, (4, Below(1000)), (4, Below(9)), (1, Below(2))]),
                (22, &[DOMCTL_DOMAIN, PAD6, (8, Frame)]),
                (24, &[DOMCTL_DOMAIN, PAD6, (8, Any)]),
                (25, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Below(4)), (8, Pointer), (4, Below(300)), (4, Zero), (8, Pointer), (4, Below(300))]),
                (27, &[DOMCTL_DOMAIN, PAD6]),
                (28, &[DOMCTL_DOMAIN, PAD6, (4, Below(5)), (4, Vcpu)]),
                (29, &[DOMCTL_DOMAIN, PAD6, (4, Port)]),
                (35, &[DOMCTL_DOMAIN, PAD6, (4, Is(64))]),
                (42, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Is(64)), (8, Any), (8, Any), (8, Any)]),
                (43, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu)]),
                (36, &[DOMCTL_DOMAIN, PAD6]),
                (59, &[DOMCTL_DOMAIN, PAD6]),
                (60, &[DOMCTL_DOMAIN, PAD6, (4, Below(4)), (4, Zero), (4, Zero), (4, Zero), (8, Zero)]),
                (61, &[DOMCTL_DOMAIN, PAD6, (8, Below(20)), (8, Pointer)]),
                (62, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Zero), (8, Is(3)), (8, Below(1000)), (8, Pointer)]),
                (63, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Zero), (8, Is(3)), (8, Below(1000)), (8, Pointer)]),
                (66, &[DOMCTL_DOMAIN, PAD6, (4, Below(26))]),
                (68, &[DOMCTL_DOMAIN, PAD6, (8, Pointer), (4, Below(80))]),
                (69, &[DOMCTL_DOMAIN, PAD6, (8, Pointer), (4, Below(80))]),
                (72, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Below(3)), (8, Pointer)]),
                (73, &[DOMCTL_DOMAIN, PAD6, (4, Vcpu), (4, Below(3)), (8, Pointer)]),
                (82, &[DOMCTL_DOMAIN, PAD6, (4, Below(200)), (4, Below(5)), (8, Pointer), (8, Pointer)]),
                (83, &[DOMCTL_DOMAIN, PAD6, (4, Below(30)), (4, Below(2)), (8, Pointer), (8, Pointer)]),
            ],
        ),
    },
    Call {
        number: H::PLATFORM_OP,
        odds: 3,
        form: Form::Operation(
            0x0300_0001,
            &[(17, &[(4, Any), (4, Below(1_000_000_000)), (8, Any), (4, Zero)]), (51, &[(4, Below(12)), (4, Below(4))]), (54, &[(8, Any), (8, Pointer)]), (55, &[(4, Below(4)), (4, Zero)]), (63, &[(4, Below(4)), (4, Any)])],
        ),
    },
];

/// A call ready to be made: number and argument words.
#[derive(Clone, Copy, Debug)]
pub struct Prepared {
    pub number: u32,
    pub args: [u64; 6],
}

impl Values<'_> {
    /// Makes up a call, and puts what it points to into the caller's memory.
    pub fn call(&mut self) -> Prepared {
        if self.rng.one_in(4)
            && let Some((page, entry)) = self.repair()
        {
            return Prepared { number: H::UPDATE_VA_MAPPING.0, args: [page, entry, 2, 0, 0, 0] };
        }
        if self.rng.one_in(12) {
            return self.multicall();
        }
        self.single()
    }

    fn single(&mut self) -> Prepared {
        if self.rng.one_in(40) {
            let number = if self.rng.one_in(4) { self.rng.next_u64() as u32 } else { self.rng.below(64) as u32 };
            let args = std::array::from_fn(|_| self.value(Any));
            // The end of dom0 is the end of the test.
            return if number == H::SCHED_OP.0 || number == H::SCHED_OP_COMPAT.0 { self.single() } else { Prepared { number, args } };
        }
        let total: u64 = CALLS.iter().map(|call| call.odds).sum();
        let mut at = self.rng.below(total);
        let call = CALLS.iter().find(|call| {
            let here = at < call.odds;
            at = at.wrapping_sub(call.odds);
            here
        });
        let Some(call) = call else { return Prepared { number: 0, args: [0; 6] } };
        let is_end = call.number == H::SCHED_OP && call.odds == 1;
        if is_end && self.caller == DomId::DOM0 && !self.rng.one_in(20) {
            return self.single();
        }
        let for_control = [H::SYSCTL, H::DOMCTL, H::PLATFORM_OP].contains(&call.number);
        if for_control && self.caller != DomId::DOM0 && !self.rng.one_in(20) {
            return self.single();
        }
        Prepared { number: call.number.0, args: self.form(&call.form) }
    }

    fn form(&mut self, form: &Form) -> [u64; 6] {
        let mut args = [0; 6];
        match form {
            Form::Words(kinds) => self.words(&mut args, kinds),
            Form::Command(commands) => {
                let (command, fields) = *self.rng.pick(commands);
                args = [command, self.structures(fields, 1, 0), 0, 0, 0, 0];
            }
            Form::VcpuCommand(commands) => {
                let (command, fields) = *self.rng.pick(commands);
                let at = match fields {
                    [(0, kind)] => self.value(*kind),
                    [] if self.rng.one_in(2) => 0,
                    _ => self.structures(fields, 1, 0),
                };
                args = [command, self.value(Vcpu), at, 0, 0, 0];
            }
            Form::Operation(version, commands) => {
                let (command, fields) = *self.rng.pick(commands);
                let header = command & 0xffff_ffff | u64::from(*version) << 32;
                args[0] = self.structures(fields, 1, header);
            }
            Form::List(fields, more) => {
                let count = self.count();
                args[0] = self.structures(fields, count, 0);
                args[1] = count;
                self.words(&mut args[2..], more);
            }
            Form::CommandList(commands) => {
                let (command, fields) = *self.rng.pick(commands);
                let count = self.count();
                args = [command, self.structures(fields, count, 0), count, 0, 0, 0];
            }
        }
        args
    }

    /// How many structures: one, most of the time.
    fn count(&mut self) -> u64 {
        if self.rng.one_in(2) { 1 } else { self.value(Count) }
    }

    fn words(&mut self, args: &mut [u64], kinds: &[Kind]) {
        for (arg, kind) in args.iter_mut().zip(kinds) {
            *arg = self.value(*kind);
        }
    }

    /// Writes structures to the caller's memory; gives their address. What they point to is filled too.
    fn structures(&mut self, fields: &[Field], count: u64, header: u64) -> u64 {
        let mut bytes = Vec::new();
        if header != 0 {
            bytes.extend(header.to_le_bytes());
        }
        for _ in 0..count.min(8) {
            for &(size, kind) in fields {
                let value = self.value(kind);
                if matches!(kind, Pointer) {
                    self.fill(value);
                }
                let value = value.to_le_bytes();
                bytes.extend((0..size).map(|i| value.get(i % 8).copied().unwrap_or(0)));
            }
        }
        bytes.extend([0; 64]);
        let at = if self.rng.one_in(30) { self.value(Pointer) } else { self.buffer() };
        self.world.write(self.cpu, at, &bytes);
        at
    }

    /// Puts a list of something where a pointer points to.
    fn fill(&mut self, at: u64) {
        let (size, kind) = *self.rng.pick(&[(8, Frame), (8, Frame), (4, Port), (8, Below(16)), (8, Any), (1, Below(4))]);
        let mut bytes = Vec::new();
        for _ in 0..8 {
            let value = self.value(kind).to_le_bytes();
            bytes.extend(&value[..size]);
        }
        self.world.write(self.cpu, at, &bytes);
    }

    fn multicall(&mut self) -> Prepared {
        let count = 1 + self.rng.below(5);
        let mut bytes = Vec::new();
        for _ in 0..count {
            let call = self.single();
            bytes.extend(u64::from(call.number).to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            call.args.iter().for_each(|arg| bytes.extend(arg.to_le_bytes()));
        }
        let at = self.buffer();
        self.world.write(self.cpu, at, &bytes);
        Prepared { number: H::MULTICALL.0, args: [at, count, 0, 0, 0, 0] }
    }
}
