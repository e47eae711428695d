//! Reading a command line.

use crate::complaint::Complaint;
use crate::options::Options;
use crate::table::{OptionSpec, SWITCH_SYNTAX, Setter, TABLE};
use crate::value;
use alloc::string::String;
use alloc::vec::Vec;

/// Separates the hypervisor's options from words for domain 0's kernel.
const SEPARATOR: &str = "--";

/// Reads a command line: options separated by white space, each `name`, `no-name` or `name=value`; where an option is given twice, the last
/// one counts. A first word that starts with `/` or `(` is the file name that some loaders put there. What follows a word `--` is for
/// domain 0's kernel.
#[must_use]
pub fn parse(cmdline: &str) -> (Options, Vec<Complaint>) {
    let mut options = Options::default();
    let mut complaints = Vec::new();
    let mut words = cmdline.split_ascii_whitespace().enumerate();
    for (index, word) in words.by_ref() {
        if index == 0 && word.starts_with(['/', '(']) {
            continue;
        }
        if word == SEPARATOR {
            break;
        }
        if let Err(complaint) = take(word, &mut options) {
            complaints.push(complaint);
        }
    }
    for (_, word) in words {
        if !options.dom0_args.is_empty() {
            options.dom0_args.push(' ');
        }
        options.dom0_args.push_str(word);
    }
    (options, complaints)
}

fn take(word: &str, options: &mut Options) -> Result<(), Complaint> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let (spec, negated) = find(name).ok_or_else(|| Complaint::Unknown {
        name: String::from(name),
        value: value.map(String::from),
    })?;
    let malformed = |expected| Complaint::Malformed {
        name: String::from(name),
        value: value.map(String::from),
        expected,
    };
    match (spec.setter, value) {
        (Setter::Switch(set), value) => {
            let on = match value {
                None => true,
                Some(text) => value::boolean(text).ok_or_else(|| malformed(SWITCH_SYNTAX))?,
            };
            set(options, on != negated);
        }
        (Setter::Bare, None) if !negated => {}
        (Setter::Bare, _) => return Err(malformed("the bare name")),
        (Setter::Value(set), Some(text)) if !negated => {
            set(options, text).ok_or_else(|| malformed(spec.syntax))?
        }
        (Setter::Value(_), _) => return Err(malformed(spec.syntax)),
    }
    Ok(())
}

/// The option of this name, and whether the name is its negation.
fn find(name: &str) -> Option<(&'static OptionSpec, bool)> {
    let of_name = |name: &str| TABLE.iter().find(|spec| spec.name == name);
    of_name(name)
        .map(|spec| (spec, false))
        .or_else(|| of_name(name.strip_prefix("no-")?).map(|spec| (spec, true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Amount, ClockSource, ConsoleSet, Dom0Vcpus, LogLevel, LogThreshold, Parity};
    use std::string::ToString;

    fn parse_clean(cmdline: &str) -> Options {
        let (options, complaints) = parse(cmdline);
        assert_eq!(complaints, [], "{cmdline}");
        options
    }

    fn complaint(cmdline: &str) -> String {
        let (options, complaints) = parse(cmdline);
        assert_eq!(options, Options::default(), "{cmdline}");
        let [complaint] = complaints.as_slice() else {
            panic!("{cmdline}: {complaints:?}")
        };
        complaint.to_string()
    }

    #[test]
    fn empty_line_gives_the_defaults() {
        assert_eq!(parse(""), (Options::default(), Vec::new()));
        assert_eq!(parse(" \t\n "), (Options::default(), Vec::new()));
    }

    #[test]
    fn a_usual_line() {
        let options = parse_clean(
            "/boot/oxen.gz com1=115200,8n1 console=com1,vga dom0_mem=2G,max:4G dom0_max_vcpus=2 \
             dom0_vcpus_pin loglvl=all guest_loglvl=info/all noreboot maxcpus=4",
        );
        let com1 = options.com1.expect("com1 is set");
        assert_eq!(
            (com1.baud, com1.data_bits, com1.parity, com1.stop_bits),
            (Some(115_200), 8, Parity::None, 1)
        );
        assert_eq!(
            options.console,
            ConsoleSet {
                com1: true,
                com2: false,
                vga: true
            }
        );
        assert_eq!(
            options.dom0_mem.size,
            Some(Amount {
                bytes: 2 << 30,
                percent: 0,
                all_but: false
            })
        );
        assert_eq!(
            options.dom0_mem.max,
            Some(Amount {
                bytes: 4 << 30,
                percent: 0,
                all_but: false
            })
        );
        assert_eq!(options.dom0_max_vcpus, Dom0Vcpus { min: 2, max: 2 });
        assert_eq!(
            options.loglvl,
            LogThreshold {
                always: LogLevel::Debug,
                rate_limited: LogLevel::Debug
            }
        );
        assert_eq!(
            options.guest_loglvl,
            LogThreshold {
                always: LogLevel::Info,
                rate_limited: LogLevel::Debug
            }
        );
        assert!(options.dom0_vcpus_pin && options.noreboot);
        assert_eq!(options.maxcpus, Some(4));
    }

    #[test]
    fn switches() {
        assert!(!parse_clean("no-x2apic").x2apic);
        assert!(!parse_clean("x2apic=off").x2apic);
        assert!(parse_clean("no-x2apic=off").x2apic);
        assert!(!parse_clean("smap=0 smep=false").smap);
        assert!(!parse_clean("noreboot noreboot=no").noreboot);
        assert!(parse_clean("nosmp").nosmp);
        assert_eq!(parse_clean("sched_credit_tslice_ms=1000").sched_credit_tslice_ms, 1000);
        assert_eq!(parse_clean("sched_ratelimit_us=0").sched_ratelimit_us, 0);
        assert_eq!(
            parse_clean("clocksource=hpet").clocksource,
            Some(ClockSource::Hpet)
        );
        assert!(parse_clean("vga=current,keep").vga_keep);
    }

    #[test]
    fn what_follows_the_separator_is_for_dom0() {
        let options = parse_clean("noreboot -- console=hvc0  root=/dev/sda1 quiet");
        assert_eq!(options.dom0_args, "console=hvc0 root=/dev/sda1 quiet");
        assert_eq!(parse_clean("--").dom0_args, "");
    }

    #[test]
    fn mistakes_are_named_and_skipped() {
        assert_eq!(
            complaint("frobnicate=7"),
            "command line: unknown option \"frobnicate=7\", ignored"
        );
        assert_eq!(
            complaint("x/y"),
            "command line: unknown option \"x/y\", ignored"
        );
        assert!(complaint("dom0_mem=lots").starts_with(
            "command line: bad value in \"dom0_mem=lots\", ignored; expected <amount>"
        ));
        for bad in [
            "dom0_mem",
            "dom0_mem=",
            "dom0_mem=1G,",
            "dom0_mem=mid:1G",
            "dom0_mem=--1G",
            "dom0_mem=101%",
            "dom0_mem=99999999999G",
            "dom0_mem=+1G",
            "no-dom0_mem=1G",
            "dom0_max_vcpus=0",
            "dom0_max_vcpus=-",
            "dom0_max_vcpus=4-2",
            "dom0_max_vcpus=4294967296",
            "com1=",
            "com1=0",
            "com1=115200/3686400",
            "com1=115200,9n1",
            "com1=115200,8x1",
            "com1=115200,8n3",
            "com1=115200,8n1,0x10000",
            "com1=1,8n1,,,1",
            "console=com9",
            "console=",
            "loglvl=loud",
            "loglvl=all/",
            "maxcpus=0",
            "noreboot=maybe",
            "sched=credit2",
            "no-lapic",
            "lapic=1",
            "sched_credit_tslice_ms=0",
            "sched_credit_tslice_ms=1001",
            "sched_ratelimit_us=99",
            "sched_ratelimit_us=500001",
            "clocksource=sundial",
            "conring_size=1G",
            "vga=text-80x25",
        ] {
            assert!(complaint(bad).contains(bad), "{bad}");
        }
        let (options, complaints) = parse("bogus noreboot maxcpus=x dom0_max_vcpus=1");
        assert!(options.noreboot && options.dom0_max_vcpus.max == 1);
        assert_eq!(complaints.len(), 2);
    }

    #[test]
    fn serial_ports() {
        let com2 = parse_clean("com2=auto/1843200,7e2,0x2f8,3")
            .com2
            .expect("com2 is set");
        assert_eq!(com2.baud, None);
        assert_eq!(
            (com2.data_bits, com2.parity, com2.stop_bits),
            (7, Parity::Even, 2)
        );
        assert_eq!((com2.io_base, com2.irq), (Some(0x2f8), Some(3)));
        let com1 = parse_clean("com1=9600,,0x3f8").com1.expect("com1 is set");
        assert_eq!(
            (com1.data_bits, com1.io_base, com1.irq),
            (8, Some(0x3f8), None)
        );
    }

    /// Random lines made of what real lines are made of.
    #[test]
    fn no_line_panics() {
        const PIECES: &[&str] = &[
            " ",
            "=",
            ",",
            "-",
            "no-",
            "--",
            "/",
            ":",
            "%",
            "+",
            "0",
            "1",
            "9",
            "18446744073709551615",
            "0x",
            "f",
            "K",
            "G",
            "T",
            "b",
            "8n1",
            "min",
            "max",
            "auto",
            "\u{e9}",
            "\u{1f402}",
            "\0",
            "\n",
            "all",
            "none",
            "com1",
            "on",
            "off",
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % bound as u64) as usize
        };
        for _ in 0..200_000 {
            let mut line = String::new();
            for _ in 0..random(12) {
                if random(3) == 0 {
                    line.push_str(TABLE[random(TABLE.len())].name);
                } else {
                    line.push_str(PIECES[random(PIECES.len())]);
                }
            }
            let (options, complaints) = parse(&line);
            let _ = options.dom0_mem.pages(1 << random(36), 1 << random(30));
            let _ = options.dom0_max_vcpus.count(random(300) as u32, 128);
            for complaint in complaints {
                assert!(complaint.to_string().len() > 20);
            }
        }
    }
}
