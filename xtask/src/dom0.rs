//! The dom0 image: a kernel as Debian ships it and an initramfs made from Debian's packages, our programs and the files
//! in `boot/dom0/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::compile;
use crate::cpio::Archive;
use crate::debian_tools;
use crate::debs;
use crate::kmod::Modules;
use crate::ui;
use crate::workspace::{Key, Workspace, write_if_changed};

/// Raise when the layout of the initramfs changes.
const RECIPE: u32 = 1;

/// Names another kernel than Debian's.
pub const KERNEL_VARIABLE: &str = "OXEN_DOM0_KERNEL";
/// Names another initrd than the assembled one.
pub const INITRD_VARIABLE: &str = "OXEN_DOM0_INITRD";

/// The kernels that dom0 is tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    /// Debian 12's kernel, 6.1.
    Stock,
    /// The same version built for real time.
    Realtime,
    /// The newer version that Debian 12's archive also has, 6.12.
    Newer,
}

impl Flavour {
    /// Debian's package that stands for the newest kernel of this flavour.
    pub fn meta_package(self) -> &'static str {
        match self {
            Self::Stock => "linux-image-amd64",
            Self::Realtime => "linux-image-rt-amd64",
            Self::Newer => "linux-image-6.12-amd64",
        }
    }
}

/// A kernel and the initramfs that fits it.
#[derive(Debug, Clone)]
pub struct Image {
    /// The kernel as the distribution ships it.
    pub kernel: PathBuf,
    /// The initramfs; a user's own kernel may come without.
    pub initrd: Option<PathBuf>,
}

/// What the user wants instead of the assembled image.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Use this dom0 kernel (bzImage or ELF) instead of Debian's
    #[arg(long, value_name = "FILE", env = KERNEL_VARIABLE)]
    pub dom0_kernel: Option<PathBuf>,
    /// Use this initrd instead of the assembled one
    #[arg(long, value_name = "FILE", env = INITRD_VARIABLE)]
    pub dom0_initrd: Option<PathBuf>,
}

/// The image that `run`, `iso` and most tests boot, with the user's overrides applied.
pub fn default_image(ws: &Workspace, overrides: &Overrides) -> Result<Image> {
    for file in [&overrides.dom0_kernel, &overrides.dom0_initrd].into_iter().flatten() {
        if !file.is_file() {
            bail!("{} is not a file", file.display());
        }
    }
    // A foreign kernel cannot load the modules of the assembled initramfs; without an initrd of its own it gets none.
    if let Some(kernel) = &overrides.dom0_kernel {
        return Ok(Image { kernel: kernel.clone(), initrd: overrides.dom0_initrd.clone() });
    }
    let image = image(ws, Flavour::Stock)?.context("Debian's archive has no linux-image-amd64")?;
    Ok(Image { initrd: overrides.dom0_initrd.clone().or(image.initrd), ..image })
}

/// The image of one flavour with the programs of `dom0-tools/`; `None` when the configured archive does not have it.
pub fn image(ws: &Workspace, flavour: Flavour) -> Result<Option<Image>> {
    let Some(kernel) = kernel(ws, flavour)? else { return Ok(None) };
    let initrd = initramfs(ws, &kernel, &own_programs(ws)?)?;
    Ok(Some(Image { kernel: kernel.bzimage, initrd: Some(initrd) }))
}

/// The stock image with our tools and Debian's own `xl` and xenstored.
pub fn image_with_xl(ws: &Workspace) -> Result<Option<Image>> {
    let Some(kernel) = kernel(ws, Flavour::Stock)? else { return Ok(None) };
    let mut extras = own_programs(ws)?;
    extras.extend(debian_tools::files(ws)?);
    let initrd = initramfs(ws, &kernel, &extras)?;
    Ok(Some(Image { kernel: kernel.bzimage, initrd: Some(initrd) }))
}

/// The static programs of `dom0-tools/` and where they go.
fn own_programs(ws: &Workspace) -> Result<Vec<(String, PathBuf)>> {
    Ok(as_programs(files_in(&compile::dom0_programs(ws)?)?))
}

fn as_programs(files: Vec<PathBuf>) -> Vec<(String, PathBuf)> {
    files.into_iter().map(|file| (format!("usr/sbin/{}", name_of(&file)), file)).collect()
}

/// The stock image with the micro-benchmarks.
pub fn image_with_bench(ws: &Workspace) -> Result<Option<Image>> {
    let Some(kernel) = kernel(ws, Flavour::Stock)? else { return Ok(None) };
    let programs = compile::static_programs(ws, "oxen-bench", &ws.target.join("bench-programs"))?;
    let initrd = initramfs(ws, &kernel, &as_programs(programs))?;
    Ok(Some(Image { kernel: kernel.bzimage, initrd: Some(initrd) }))
}

/// An unpacked kernel package.
pub struct Kernel {
    /// `6.1.0-56-amd64`.
    release: String,
    /// The boot file.
    pub bzimage: PathBuf,
    modules: PathBuf,
}

/// Fetches a kernel.
pub fn kernel(ws: &Workspace, flavour: Flavour) -> Result<Option<Kernel>> {
    let Some(package) = debs::newest_kernel(ws, flavour.meta_package())? else { return Ok(None) };
    let release = package.trim_start_matches("linux-image-").to_owned();
    // Sound, graphics, wireless and the like are most of the package's size and of no use here.
    let members = [
        "./boot/vmlinuz-*",
        "./*lib/modules/*/kernel/arch",
        "./*lib/modules/*/kernel/block",
        "./*lib/modules/*/kernel/crypto",
        "./*lib/modules/*/kernel/lib",
        "./*lib/modules/*/kernel/drivers/ata",
        "./*lib/modules/*/kernel/drivers/block",
        "./*lib/modules/*/kernel/drivers/cdrom",
        "./*lib/modules/*/kernel/drivers/dca",
        "./*lib/modules/*/kernel/drivers/i2c",
        "./*lib/modules/*/kernel/drivers/net/ethernet",
        "./*lib/modules/*/kernel/drivers/net/phy",
        "./*lib/modules/*/kernel/drivers/net/mdio",
        "./*lib/modules/*/kernel/drivers/net/*.ko*",
        "./*lib/modules/*/kernel/drivers/nvme",
        "./*lib/modules/*/kernel/drivers/pps",
        "./*lib/modules/*/kernel/drivers/ptp",
        "./*lib/modules/*/kernel/drivers/scsi",
        "./*lib/modules/*/kernel/drivers/virtio",
        "./*lib/modules/*/kernel/drivers/xen",
        "./*lib/modules/*/kernel/fs",
        "./*lib/modules/*/kernel/net",
    ];
    let unpacked = debs::unpack(ws, &package, &members)?;
    let bzimage = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    // Debian 13's merged file tree moved modules below /usr.
    let modules = ["lib", "usr/lib"]
        .iter()
        .map(|lib| unpacked.join(lib).join("modules").join(&release).join("kernel"))
        .find(|dir| dir.is_dir())
        .with_context(|| format!("{package} has no modules"))?;
    Ok(Some(Kernel { release, bzimage, modules }))
}

/// Assembles the initramfs of a kernel with extra programs, each with its place; once for each content.
fn initramfs(ws: &Workspace, kernel: &Kernel, extras: &[(String, PathBuf)]) -> Result<PathBuf> {
    let recipe = ws.root.join("boot/dom0");
    let mut own = files_in(&recipe)?;
    own.extend(files_in(&recipe.join("tests"))?);
    let mut key = Key::new("initramfs", RECIPE).value(&kernel.release);
    for file in &own {
        key = key.value(file).file(file)?;
    }
    for (place, file) in extras {
        key = key.value(place).file(file)?;
    }
    let path = ws.cache.join("initrd").join(format!("{}-{}.gz", kernel.release, key.finish()));
    if path.exists() {
        return Ok(path);
    }
    let busybox = debs::unpack(ws, "busybox-static", &[])?;
    let busybox = ["bin/busybox", "usr/bin/busybox"].iter().map(|file| busybox.join(file)).find(|file| file.exists()).context("busybox-static has no busybox")?;
    ui::step(&format!("Assembling dom0's initramfs for {}", kernel.release), || {
        let mut archive = Archive::default();
        base_files(&mut archive, &recipe, &busybox)?;
        for (place, file) in extras {
            archive.file(place, 0o755, &fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        }
        add_modules(ws, &mut archive, &recipe, kernel)?;
        write_if_changed(&path, &compile::gzip(&archive.finish())?)
    })?;
    Ok(path)
}

fn base_files(archive: &mut Archive, recipe: &Path, busybox: &Path) -> Result<()> {
    for dir in ["proc", "sys", "dev", "run", "tmp", "mnt", "root", "usr/bin"] {
        archive.directory(dir);
    }
    // The kernel opens the console before `init` can mount devtmpfs.
    archive.char_device("dev/console", 5, 1);
    archive.char_device("dev/null", 1, 3);
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    archive.link("bin/sh", "busybox");
    archive.file("init", 0o755, &fs::read(recipe.join("init"))?);
    archive.file("etc/udhcpc.sh", 0o755, &fs::read(recipe.join("udhcpc.sh"))?);
    archive.file("etc/poweroff", 0o755, &fs::read(recipe.join("poweroff"))?);
    archive.file("etc/passwd", 0o644, b"root::0:0:root:/root:/bin/sh\n");
    archive.file("etc/group", 0o644, b"root:x:0:\n");
    archive.file("etc/hostname", 0o644, b"dom0\n");
    for test in files_in(&recipe.join("tests"))? {
        archive.file(&format!("tests/{}", name_of(&test)), 0o644, &fs::read(&test)?);
    }
    Ok(())
}

/// Adds the modules of every group in `boot/dom0/modules` and one list per group in loading order.
fn add_modules(ws: &Workspace, archive: &mut Archive, recipe: &Path, kernel: &Kernel) -> Result<()> {
    let modules = Modules::scan(&kernel.modules)?;
    let mut added = std::collections::BTreeSet::new();
    for line in fs::read_to_string(recipe.join("modules"))?.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(group) = words.next() else { continue };
        let wanted: Vec<&str> = words.collect();
        let order = modules.resolve(ws, &wanted)?;
        let names: Vec<&str> = order.iter().map(|module| module.name.as_str()).collect();
        archive.file(&format!("lib/modules/{group}.order"), 0o644, (names.join("\n") + "\n").as_bytes());
        for module in &order {
            if added.insert(module.name.clone()) {
                archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.content);
            }
        }
    }
    Ok(())
}

/// The plain files of a directory, in name order.
fn files_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    Ok(files)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
