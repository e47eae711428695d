use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// In the manner of grub-mkconfig.
const GRUB: &str = r#"
# generated
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
else
   set default="0"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
menuentry 'Guest OS' --class guest $menuentry_id_option 'simple-1234' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
	search --no-floppy --fs-uuid --set=root 1234
	echo	'Loading Linux 6.1 ...'
	linux	/boot/vmlinuz-6.1 root=UUID=1234 ro  quiet
	initrd	/boot/initrd.img-6.1
}
submenu 'Advanced options' $menuentry_id_option 'advanced-1234' {
	menuentry 'Linux 6.1' --id 'v61' {
		linux /boot/vmlinuz-6.1 root=UUID=1234 ro
		initrd /boot/initrd.img-6.1
	}
	menuentry 'Linux 5.10' --id 'v510' {
		linux /boot/vmlinuz-5.10 \
			root=UUID=1234 ro $extra
	}
}
menuentry 'Firmware settings' { fwsetup }
"#;

fn grub(text: &str) -> Menu {
    parse_grub(text, &BTreeMap::new())
}

#[test]
fn the_default_of_a_generated_menu() {
    let menu = grub(GRUB);
    assert_eq!(menu.items.len(), 3);
    let boot = menu.choose(None).unwrap();
    assert_eq!(
        (boot.title.as_str(), boot.kernel.as_str()),
        ("Guest OS", "/boot/vmlinuz-6.1")
    );
    assert_eq!(boot.ramdisk.as_deref(), Some("/boot/initrd.img-6.1"));
    assert_eq!(boot.arguments, "root=UUID=1234 ro quiet");
}

#[test]
fn entries_are_found_by_number_title_and_identifier() {
    let menu = grub(GRUB);
    let kernel = |wanted: &str| menu.choose(Some(wanted)).map(|boot| boot.kernel.clone());
    for wanted in [
        "1>1",
        "advanced-1234>v510",
        "Advanced options>Linux 5.10",
        "v510",
        "Linux 5.10",
    ] {
        assert_eq!(
            kernel(wanted).as_deref(),
            Ok("/boot/vmlinuz-5.10"),
            "{wanted}"
        );
    }
    assert_eq!(kernel("simple-1234").as_deref(), Ok("/boot/vmlinuz-6.1"));
    assert_eq!(
        menu.choose(Some("v510")).unwrap().arguments,
        "root=UUID=1234 ro"
    );
    for wanted in ["7", "1>7", "2", "Windows"] {
        assert!(
            kernel(wanted).unwrap_err().contains("`Guest OS`"),
            "{wanted}"
        );
    }
}

#[test]
fn a_saved_default_comes_from_the_environment() {
    let text = GRUB.replace("default=\"0\"", "default=\"${saved_entry}\"");
    let environment =
        parse_environment("# GRUB Environment Block\nsaved_entry=advanced-1234>v510\n#####");
    assert_eq!(
        parse_grub(&text, &environment).choose(None).unwrap().kernel,
        "/boot/vmlinuz-5.10"
    );
    assert_eq!(
        grub(&text).choose(None).unwrap().kernel,
        "/boot/vmlinuz-6.1"
    );
}

#[test]
fn the_old_menu() {
    let text = "# old\ndefault 1\ntimeout=5\n\ntitle  One\nroot (hd0,0)\nkernel /vmlinuz-1 root=/dev/xvda1 ro\ninitrd /initrd-1\n\
                title Two\nkernel --no-mem-option (hd0,0)/vmlinuz-2\n";
    let menu = parse_legacy(text);
    assert_eq!(menu.choose(None).unwrap().kernel, "(hd0,0)/vmlinuz-2");
    let one = menu.choose(Some("One")).unwrap();
    assert_eq!(
        (one.arguments.as_str(), one.ramdisk.as_deref()),
        ("root=/dev/xvda1 ro", Some("/initrd-1"))
    );
}

#[test]
fn depth_and_number_are_bounded() {
    let deep = format!("{}{}", "submenu a { ".repeat(10_000), "}".repeat(10_000));
    assert!(grub(&deep).choose(None).is_err());
    let many = "menuentry a { linux /k\n}\n".repeat(5_000);
    assert_eq!(grub(&many).items.len(), MAX_ITEMS);
    let doubling = format!(
        "a=xxxxxxxx\n{}menuentry t {{ linux /k $a\n }}",
        "a=$a$a\n".repeat(200)
    );
    assert!(grub(&doubling).choose(None).unwrap().arguments.len() <= 4096);
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,300}", pieces in prop::collection::vec(prop::sample::select(&["menuentry ", "submenu ", "'", "\"", "{", "}", "\n", ";", "$", "${", "\\", "linux /k ", "initrd /i", "set ", "a=b", "then ", "title x\n", "kernel /k\n", "#", "--id ", "é"][..]), 0..60)) {
        for text in [text, pieces.concat()] {
            for menu in [grub(&text), parse_legacy(&text)] {
                let _ = menu.choose(None);
                let _ = menu.choose(Some("1>0"));
            }
            parse_environment(&text);
        }
    }
}
