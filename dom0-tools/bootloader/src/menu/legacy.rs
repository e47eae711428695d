//! `menu.lst` of GRUB before version 2.

use super::{Boot, Item, LeadsTo, MAX_ITEMS, Menu};

/// Reads a menu.
pub fn parse(text: &str) -> Menu {
    let mut menu = Menu::default();
    for line in text.lines() {
        let line = line.trim();
        let (command, rest) = line.split_once([' ', '\t', '=']).unwrap_or((line, ""));
        let rest = rest.trim();
        match command {
            "default" if rest.parse::<usize>().is_ok() => menu.default = Some(rest.to_owned()),
            "title" if menu.items.len() < MAX_ITEMS => menu.items.push(Item {
                title: rest.to_owned(),
                ..Item::default()
            }),
            "kernel" => {
                // Options of GRUB's come before the file.
                let mut words = rest
                    .split_whitespace()
                    .skip_while(|word| word.starts_with("--"));
                if let (Some(kernel), Some(item)) = (words.next(), menu.items.last_mut()) {
                    item.leads_to = LeadsTo::Boot(Boot {
                        title: item.title.clone(),
                        kernel: kernel.to_owned(),
                        ramdisk: None,
                        arguments: words.collect::<Vec<_>>().join(" "),
                    });
                }
            }
            "initrd" if !rest.is_empty() => {
                if let Some(Item {
                    leads_to: LeadsTo::Boot(boot),
                    ..
                }) = menu.items.last_mut()
                {
                    boot.ramdisk = rest.split_whitespace().next().map(str::to_owned);
                }
            }
            _ => {}
        }
    }
    menu
}
