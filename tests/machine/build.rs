//! Links the test as the hypervisor is linked, with its script.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = format!("{folder}/../../hypervisor/image/oxen.ld");
    println!("cargo:rerun-if-changed={script}");
    for argument in [format!("-T{script}"), "--no-pie".into(), "-zmax-page-size=4096".into(), "--no-dynamic-linker".into()] {
        println!("cargo:rustc-link-arg-bin=machine-test={argument}");
    }
}
