//! The ABI crate agrees with the public headers.

use oxen_abi_headers::{constants, differences, families, include_directory, run, rust_facts};
use std::collections::HashSet;

#[test]
fn every_size_offset_and_number_agrees() {
    let scratch = std::env::temp_dir().join(format!("oxen-abi-headers-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).expect("the temporary directory is writable");
    let result = run(&scratch);
    let _ = std::fs::remove_dir_all(&scratch);

    let rust = rust_facts();
    let c = result.unwrap_or_else(|message| panic!("{message}"));
    let wrong = differences(&rust, &c);
    assert!(
        wrong.is_empty(),
        "{} of {} facts differ:\n{}",
        wrong.len(),
        rust.len(),
        wrong.join("\n")
    );
    println!("{} facts agree", rust.len());
}

#[test]
fn no_member_of_a_family_is_missing() {
    let include = include_directory().unwrap_or_else(|message| panic!("{message}"));
    let known: HashSet<&str> = constants().map(|constant| constant.c_name).collect();
    let lacking: Vec<String> = families::FAMILIES
        .iter()
        .flat_map(|family| {
            families::missing(family, &include, &known)
                .unwrap_or_else(|message| panic!("{message}"))
        })
        .collect();
    assert!(lacking.is_empty(), "the ABI crate lacks {lacking:?}");
}

#[test]
fn no_name_is_stated_twice() {
    let mut seen = HashSet::new();
    for constant in constants() {
        assert!(
            seen.insert(constant.c_name),
            "{} is in the tables twice",
            constant.c_name
        );
    }
}
