//! The dom0 image: a kernel as Debian ships it and an initramfs made from Debian's packages, our programs and the files
//! in `boot/dom0/`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::compile;
use crate::debian_tools;
use crate::debs;
use crate::domu;
use crate::initramfs::{Member, Recipe, files_in, name_of};
use crate::workspace::Workspace;

/// Names another kernel than Debian's.
pub const KERNEL_VARIABLE: &str = "OXEN_DOM0_KERNEL";
/// Names another initrd than the assembled one.
pub const INITRD_VARIABLE: &str = "OXEN_DOM0_INITRD";

/// The kernels that dom0 is tested with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavour {
    /// Debian 12's kernel, 6.1.
    Stock,
    /// The newer version that Debian 12's archive also has, 6.12.
    Newer,
}

impl Flavour {
    /// Debian's package that stands for the newest kernel of this flavour.
    pub fn meta_package(self) -> &'static str {
        match self {
            Self::Stock => "linux-image-amd64",
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
    let image = image_with_guest(ws)?.context("Debian's archive has no linux-image-amd64")?;
    Ok(Image { initrd: overrides.dom0_initrd.clone().or(image.initrd), ..image })
}

/// The image of one flavour with the programs of `dom0-tools/`; `None` when the configured archive does not have it.
pub fn image(ws: &Workspace, flavour: Flavour) -> Result<Option<Image>> {
    image_with(ws, flavour, own_programs(ws)?)
}

/// The stock image with our tools and Debian's own `xl` and xenstored, and a guest to create.
pub fn image_with_xl(ws: &Workspace) -> Result<Option<Image>> {
    image_with(ws, Flavour::Stock, tools_and_guest(ws)?)
}

/// Our tools, Debian's and a guest.
fn tools_and_guest(ws: &Workspace) -> Result<Vec<Member>> {
    let mut members = own_programs(ws)?;
    members.extend(debian_tools::files(ws)?.into_iter().map(|(place, file)| Member::program(place, file)));
    members.extend(domu::members(ws)?.unwrap_or_default());
    Ok(members)
}

/// [`image_with_xl`] with the small guest that tests of the control stack create in numbers.
pub fn image_with_small_guest(ws: &Workspace) -> Result<Option<Image>> {
    let small = compile::guests(ws)?.into_iter().find(|(name, _)| name == "small-guest").context("guests/ has no small-guest")?.1;
    let mut extras = tools_and_guest(ws)?;
    extras.push(Member::data(format!("{}/small-guest", domu::PLACE), small));
    image_with(ws, Flavour::Stock, extras)
}

/// The stock image with our tools and a guest to create.
pub fn image_with_guest(ws: &Workspace) -> Result<Option<Image>> {
    let mut extras = own_programs(ws)?;
    extras.extend(domu::members(ws)?.unwrap_or_default());
    image_with(ws, Flavour::Stock, extras)
}

/// The stock image with our tools, a guest to create and Debian's GRUB for guests.
pub fn image_with_pvgrub(ws: &Workspace) -> Result<Option<Image>> {
    let mut extras = own_programs(ws)?;
    extras.extend(domu::members(ws)?.unwrap_or_default());
    extras.push(domu::pvgrub(ws)?);
    image_with(ws, Flavour::Stock, extras)
}

/// The stock image with the micro-benchmarks.
pub fn image_with_bench(ws: &Workspace) -> Result<Option<Image>> {
    image_with(ws, Flavour::Stock, as_programs(compile::static_programs(ws, &["oxen-bench"], &ws.target.join("bench-programs"))?))
}

/// The stock image with both control stacks, guests to create, and what measures them.
pub fn image_with_control_bench(ws: &Workspace) -> Result<Option<Image>> {
    let programs = as_programs(compile::static_programs(ws, &["oxen-bench", "oxen-control-bench"], &ws.target.join("bench-programs"))?);
    let mut extras = own_programs(ws)?;
    extras.extend(debian_tools::files_for_devices(ws)?.into_iter().map(|(place, file)| Member::program(place, file)));
    extras.extend(domu::members_for_bench(ws, &programs)?.unwrap_or_default());
    extras.extend(programs);
    image_with(ws, Flavour::Stock, extras)
}

fn image_with(ws: &Workspace, flavour: Flavour, extras: Vec<Member>) -> Result<Option<Image>> {
    let Some(kernel) = kernel(ws, flavour)? else { return Ok(None) };
    let initrd = initramfs(ws, &kernel, extras)?;
    Ok(Some(Image { kernel: kernel.bzimage, initrd: Some(initrd) }))
}

/// The static programs of `dom0-tools/` and where they go.
fn own_programs(ws: &Workspace) -> Result<Vec<Member>> {
    Ok(as_programs(compile::dom0_programs(ws)?))
}

fn as_programs(files: Vec<PathBuf>) -> Vec<Member> {
    files.into_iter().map(|file| Member::program(format!("usr/sbin/{}", name_of(&file)), file)).collect()
}

/// An unpacked kernel package.
pub struct Kernel {
    /// `6.1.0-56-amd64`.
    pub release: String,
    /// The boot file.
    pub bzimage: PathBuf,
    /// Its directory of modules.
    pub modules: PathBuf,
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

/// Assembles the initramfs of a kernel with more files than every dom0 has.
fn initramfs(ws: &Workspace, kernel: &Kernel, extras: Vec<Member>) -> Result<PathBuf> {
    let folder = ws.root.join("boot/dom0");
    let mut members = vec![
        Member::program("init", folder.join("init")),
        Member::program("etc/udhcpc.sh", folder.join("udhcpc.sh")),
        Member::program("etc/poweroff", folder.join("poweroff")),
    ];
    members.extend(files_in(&folder.join("tests"))?.into_iter().map(|test| Member::data(format!("tests/{}", name_of(&test)), test)));
    members.extend(extras);
    Recipe { name: "dom0", release: &kernel.release, modules: &kernel.modules, groups: folder.join("modules"), members }.assemble(ws)
}
