//! Bootable ISO images. Two forms: a small one made in a fraction of a second, for tests that boot many machines, and
//! the distributable hybrid one by `grub-mkrescue`, which also boots from a USB stick.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::Tool;
use crate::setup;
use crate::workspace::{Key, Workspace};

/// Raise when the layout of the images changes.
const RECIPE: u32 = 1;

/// GRUB modules for both firmwares: the loader, the file systems it may meet, the console and the screen.
const MODULES: &[&str] = &["normal", "configfile", "echo", "multiboot2", "linux", "iso9660", "gzio", "serial", "terminal", "search", "search_fs_file", "reboot", "halt", "video", "all_video"];

/// What GRUB says before it loads anything; boot times are counted from here.
pub const GRUB_SAYS: &str = "Loading...";

/// What GRUB finds on the image and how it starts it.
#[derive(Debug, Clone, Default)]
pub struct BootFiles {
    /// The multiboot2 program, `oxen.gz` or Xen, with its command line; without one, the kernel is booted directly.
    pub hypervisor: Option<(PathBuf, String)>,
    /// The modules in order, each with its command line: the dom0 kernel, then usually its initrd.
    pub modules: Vec<(PathBuf, String)>,
    /// Load everything, then reset instead of starting it: what remains is the loader's own cost.
    pub only_load: bool,
}

impl BootFiles {
    /// A hypervisor with a dom0 kernel and optionally an initrd.
    pub fn new(hypervisor: &Path, options: &str, kernel: &Path, cmdline: &str, initrd: Option<&Path>) -> Self {
        Self { hypervisor: Some((hypervisor.to_path_buf(), options.to_owned())), ..Self::bare(kernel, cmdline, initrd) }
    }

    /// A kernel without a hypervisor.
    pub fn bare(kernel: &Path, cmdline: &str, initrd: Option<&Path>) -> Self {
        let mut modules = vec![(kernel.to_path_buf(), cmdline.to_owned())];
        modules.extend(initrd.map(|path| (path.to_path_buf(), String::new())));
        Self { hypervisor: None, modules, only_load: false }
    }

    /// The hypervisor's name on the image; GRUB unpacks gzip by its content, people go by the name.
    fn hypervisor_name(&self) -> Option<&'static str> {
        let (path, _) = self.hypervisor.as_ref()?;
        Some(if path.extension().is_some_and(|ext| ext == "gz") { "/boot/hypervisor.gz" } else { "/boot/hypervisor" })
    }

    /// The modules' names on the image.
    fn module_names(&self) -> Vec<String> {
        let names = ["vmlinuz".to_owned(), "initrd".to_owned()].into_iter().chain((2..).map(|n| format!("module{n}")));
        names.take(self.modules.len()).map(|name| format!("/boot/{name}")).collect()
    }

    /// Each file with its name on the image.
    fn files(&self) -> Vec<(String, &Path)> {
        let hypervisor = self.hypervisor_name().zip(self.hypervisor.as_ref()).map(|(name, (path, _))| (name.to_owned(), path.as_path()));
        let modules = self.module_names().into_iter().zip(self.modules.iter().map(|(path, _)| path.as_path()));
        hypervisor.into_iter().chain(modules).collect()
    }

    /// GRUB's configuration: one entry, started by itself after `timeout` seconds, on serial and screen.
    fn grub_cfg(&self, timeout: u32) -> String {
        let mut cfg = format!(
            "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\nset default=0\nset timeout={timeout}\nmenuentry 'Oxen' {{\n  echo {GRUB_SAYS}\n"
        );
        if let Some((name, (_, options))) = self.hypervisor_name().zip(self.hypervisor.as_ref()) {
            cfg.push_str(&format!("  multiboot2 {name} {}\n", grub_words(options)));
        }
        for (n, (name, (_, cmdline))) in self.module_names().into_iter().zip(&self.modules).enumerate() {
            // The kernel and the initrd are unpacked by those who need them; GRUB would only be slower at it.
            let command = match (self.hypervisor.is_some(), n) {
                (true, _) => "module2 --nounzip",
                (false, 0) => "linux",
                (false, _) => "initrd",
            };
            cfg.push_str(&format!("  {command} {name} {}\n", grub_words(cmdline)));
        }
        if self.only_load {
            cfg.push_str("  reboot\n");
        }
        cfg.push_str("}\n");
        cfg
    }

    fn key(&self) -> Result<Key> {
        let mut key = Key::new("iso", RECIPE).value(self.grub_cfg(0));
        for (_, path) in self.files() {
            key = key.file(path)?;
        }
        Ok(key)
    }
}

/// Command-line words as GRUB's shell reads them: quoted where they hold more than plain characters.
fn grub_words(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,=:/+@%".contains(c);
    text.split_whitespace()
        .map(|word| if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "")) })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Makes a small image for emulated machines at `out`; BIOS and UEFI.
pub fn quick(ws: &Workspace, files: &BootFiles, out: &Path) -> Result<()> {
    let loader = loader(ws)?;
    let scratch = tempfile::tempdir()?;
    let cfg = scratch.path().join("grub.cfg");
    fs::write(&cfg, files.grub_cfg(0))?;
    let mut grafts = vec![
        format!("/boot/grub/core.img={}", loader.join("core.img").display()),
        format!("/boot/grub/efi.img={}", loader.join("efi.img").display()),
        format!("/boot/grub/grub.cfg={}", cfg.display()),
    ];
    grafts.extend(files.files().iter().map(|(name, path)| format!("{name}={}", path.display())));
    Tool::new(ws, "xorriso", "Writing an ISO image")
        .args(["-as", "mkisofs", "-quiet", "-graft-points", "-R", "-V", "OXEN"])
        .args(["-b", "boot/grub/core.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"])
        .args(["-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot", "-o"])
        .args([out])
        .args(grafts)
        .run_quietly()
        .map(drop)
}

/// Like [`quick`], in the cache under a name made from the content; an image that exists is not made again.
pub fn cached(ws: &Workspace, files: &BootFiles) -> Result<PathBuf> {
    let dir = ws.cache.join("iso");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{}.iso", files.key()?.finish()));
    if !path.exists() {
        let scratch = tempfile::Builder::new().suffix(".iso").tempfile_in(&dir)?;
        quick(ws, files, scratch.path())?;
        scratch.persist(&path)?;
    }
    Ok(path)
}

/// Makes the distributable image: hybrid, so that it can also be written to a USB stick.
pub fn distributable(ws: &Workspace, files: &BootFiles, out: &Path) -> Result<()> {
    let stamp = ws.cache.join("dist-iso.key");
    let key = files.key()?.finish();
    if out.exists() && fs::read_to_string(&stamp).is_ok_and(|old| old == key) {
        return Ok(());
    }
    setup::image_tools(ws)?;
    let scratch = tempfile::tempdir_in(&ws.cache)?;
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("boot/grub"))?;
    fs::write(tree.join("boot/grub/grub.cfg"), files.grub_cfg(2))?;
    for (name, path) in files.files() {
        fs::copy(path, tree.join(name.trim_start_matches('/'))).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Tool::new(ws, "grub-mkrescue", "Making the bootable image")
        .args(["--fonts=", "--locales=", "--themes=", "-o"])
        .args([out, &tree])
        .run()?;
    fs::write(stamp, key)?;
    Ok(())
}

/// Makes GRUB ahead of the first image, so that threads making images find it.
pub fn prepare(ws: &Workspace) -> Result<()> {
    loader(ws).map(drop)
}

/// GRUB itself, made once: `core.img` for BIOS and `efi.img`, a FAT file system with the UEFI program.
fn loader(ws: &Workspace) -> Result<PathBuf> {
    let dir = ws.cache.join(format!("grub-{}", Key::new("grub", RECIPE).value(MODULES).finish()));
    if dir.exists() {
        return Ok(dir);
    }
    setup::image_tools(ws)?;
    let scratch = tempfile::tempdir_in(&ws.cache)?;
    let at = |name: &str| scratch.path().join(name);
    // UEFI firmware starts GRUB from the FAT image; it has to find the ISO around it.
    fs::write(at("efi.cfg"), "search --file --set=root /boot/grub/core.img\nset prefix=($root)/boot/grub\n")?;
    Tool::new(ws, "grub-mkimage", "Making GRUB for BIOS")
        .args(["-O", "i386-pc-eltorito", "-p", "/boot/grub", "-o"])
        .args([at("core.img")])
        .args(MODULES)
        .args(["biosdisk"])
        .run_quietly()?;
    Tool::new(ws, "grub-mkimage", "Making GRUB for UEFI")
        .args(["-O", "x86_64-efi", "-p", "/boot/grub", "-c"])
        .args([at("efi.cfg")])
        .args(["-o"])
        .args([at("bootx64.efi")])
        .args(MODULES)
        .run_quietly()?;
    let image = at("efi.img");
    fs::write(&image, vec![0; 2 << 20])?;
    let tool = |program: &str, args: &[&str]| Tool::new(ws, program, "Making the UEFI boot file system").args(["-i"]).args([&image]).args(args).run_quietly();
    tool("mformat", &["-F", "-v", "OXEN", "::"]).or_else(|_| tool("mformat", &["-v", "OXEN", "::"]))?;
    tool("mmd", &["::/EFI", "::/EFI/BOOT"])?;
    tool("mcopy", &[&at("bootx64.efi").to_string_lossy(), "::/EFI/BOOT/BOOTX64.EFI"])?;
    fs::rename(scratch.keep(), &dir)?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_names_every_file_with_its_words() {
        let mut files = BootFiles::new(Path::new("/x/oxen.gz"), "com1=115200,8n1 console=com1", Path::new("/x/k"), "console=hvc0 a=$b", Some(Path::new("/x/i")));
        let cfg = files.grub_cfg(0);
        assert!(cfg.contains("multiboot2 /boot/hypervisor.gz com1=115200,8n1 console=com1\n"));
        assert!(cfg.contains("module2 --nounzip /boot/vmlinuz console=hvc0 'a=$b'\n"));
        assert!(cfg.contains("module2 --nounzip /boot/initrd \n"));
        files.modules.clear();
        assert!(!files.grub_cfg(0).contains("module2"));
    }
}
