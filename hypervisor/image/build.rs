//! Passes the linker its script, so that the image needs no flags of its own on the command line.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo:rerun-if-changed=oxen.ld");
    println!("cargo:rustc-link-arg-bin=oxen=-T{folder}/oxen.ld");
    println!("cargo:rustc-link-arg-bin=oxen=--no-pie");
    println!("cargo:rustc-link-arg-bin=oxen=-zmax-page-size=4096");
    println!("cargo:rustc-link-arg-bin=oxen=--no-dynamic-linker");
}
