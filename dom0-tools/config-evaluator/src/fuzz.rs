//! No input panics, whatever it is.

use super::evaluate::read_off_as_evaluated;
use super::tests::both_ways;
use oxen_config_file::{HostFacts, OPTIONS, Override, Request, Source};
use proptest::prelude::*;

/// Pieces that reach deep into the reader when put together at random.
const PIECES: &[&str] = &[
    "name",
    "memory",
    "disk",
    "vif",
    "cpus",
    "vcpus",
    "kernel",
    "uuid",
    "import os",
    "raise",
    "is",
    "not",
    "def f(x):",
    "if",
    "else:",
    "for i in",
    "range(3)",
    "lambda x:",
    "return",
    "os.uname()",
    "re.search(",
    "re.sub('(', 'a', 'b')",
    "xm_vars.var('v', default=1)",
    "print(",
    "'phy:a,xvda,w'",
    "\"mac=00:16:3e:00:00:01\"",
    "'%s' % ",
    "\"\"\"",
    "'''",
    "'",
    "\"",
    "=",
    "==",
    "+=",
    "+",
    "*",
    "%",
    "/",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    ":",
    ";",
    ".",
    "\n",
    "\n    ",
    "\t",
    " ",
    "\\",
    "\\\n",
    "#",
    "0",
    "1",
    "-1",
    "99999999999999999999",
    "1.5",
    "None",
    "True",
    "é",
    "\u{1F600}",
    "\r\n",
];

fn nothing_panics(text: &str, words: &[Override]) {
    read_off_as_evaluated(text);
    let source = Source {
        name: "fuzz".to_owned(),
        text: text.to_owned(),
    };
    match both_ways(&Request { source, overrides: words.to_vec(), host: HostFacts::default() }) {
        Ok(reading) => assert!(reading.config.check().is_empty()),
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                let line = error.to_string();
                assert!(
                    !line.contains("asks for more than can be evaluated"),
                    "a panic was caught: {text:?}"
                );
            }
        }
    }
}

/// Literals, and now and then something that is none.
fn literal() -> impl Strategy<Value = String> {
    const SPECIAL: &[&str] = &["None", "True", "False", "0x1f", "0o17", "1e3", "-True", "- 5", "--5", "+5", "x", "1 + 1", "'a' 'b'", "r'\\n'", "{}", "(1)", "(1,)", "[]"];
    let plain = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<i128>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        "\\PC{0,12}".prop_map(|text| format!("{text:?}")),
        "[a-z\\\\nx0-9']{0,12}".prop_map(|text| format!("'{text}'")),
        prop::sample::select(SPECIAL).prop_map(str::to_owned),
    ];
    plain.prop_recursive(6, 24, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))))
}

#[test]
fn what_files_mostly_are_is_read_off() {
    const READ_OFF: &[&str] = &[
        "",
        "# nothing\n",
        "name = 'a'\nmemory = 64; vcpus = 2\n",
        "disk = [ 'a',\n 'b', ]\nextra = \"\"\nvif = ['']\nx = (1, [2])\n",
        "'''text'''\na = -1\n",
    ];
    const EVALUATED: &[&str] = &[
        "a = 1\nb = a\n",
        "a = 1 + 1\n",
        "def f():\n    pass\n",
        "if 1:\n    a = 2\n",
        "a, b = 1, 2\n",
        "True = False\n",
        "print('x')\n",
        "a = [[[[[1]]]]]\n",
    ];
    assert!(READ_OFF.iter().all(|text| read_off_as_evaluated(text)));
    assert!(!EVALUATED.iter().any(|text| read_off_as_evaluated(text)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn literals_read_off_are_as_evaluated(values in prop::collection::vec((prop::sample::select(&["a", "b", "name", "True"][..]), literal()), 0..5)) {
        read_off_as_evaluated(&values.iter().map(|(name, value)| format!("{name} = {value}\n")).collect::<String>());
    }

    #[test]
    fn random_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..40)) {
        nothing_panics(&pieces.concat(), &[]);
        nothing_panics(&pieces.join(" "), &[]);
    }

    #[test]
    fn random_text(text in "\\PC{0,200}") {
        nothing_panics(&text, &[]);
    }

    #[test]
    fn random_values_of_options(option in prop::sample::select(OPTIONS), value in "\\PC{0,30}", number in any::<i64>()) {
        nothing_panics(&format!("name='a'\nkernel='/k'\n{option} = {value:?}\n"), &[]);
        nothing_panics(&format!("name='a'\nkernel='/k'\n{option} = {number}\n"), &[]);
        nothing_panics(&format!("name='a'\nkernel='/k'\n{option} = [{value:?}, {number}]\n"), &[]);
        let word = Override { name: option.to_owned(), value };
        nothing_panics("name='a'\nkernel='/k'\n", &[word]);
    }

    #[test]
    fn random_devices(text in "[a-z0-9:=,/!. ]{0,40}") {
        if let Ok(disk) = text.parse::<oxen_guest_config::Disk>() {
            let again = disk.to_string().parse::<oxen_guest_config::Disk>();
            prop_assert_eq!(again.as_ref(), Ok(&disk));
        }
        if let Ok(vif) = text.parse::<oxen_guest_config::Vif>() {
            let again = vif.to_string().parse::<oxen_guest_config::Vif>();
            prop_assert_eq!(again.as_ref(), Ok(&vif));
        }
        if let Ok(set) = text.parse::<oxen_guest_config::CpuSet>() {
            let again = set.to_string().parse::<oxen_guest_config::CpuSet>();
            prop_assert_eq!(again.as_ref(), Ok(&set));
        }
    }
}
