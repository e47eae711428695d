//! Boot menus: GRUB's `grub.cfg` and the older `menu.lst`.
//!
//! `grub.cfg` is a script. Of it, menus, entries, assignments of plain values and the commands that load a kernel are read; conditions
//! are not decided, their branches are read one after the other. That fits what `grub-mkconfig` writes.

mod grub;
mod legacy;

pub use grub::{parse as parse_grub, parse_environment};
pub use legacy::parse as parse_legacy;

/// The most items of all menus together.
const MAX_ITEMS: usize = 1000;
/// How deep submenus may nest.
const MAX_DEPTH: usize = 8;

/// What an entry loads. Paths are as the file has them, on its file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// The entry's title.
    pub title: String,
    /// The kernel.
    pub kernel: String,
    /// The initial RAM disk.
    pub ramdisk: Option<String>,
    /// The kernel's command line.
    pub arguments: String,
}

/// A menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Menu {
    /// What it shows.
    pub items: Vec<Item>,
    /// The item that is taken unless told otherwise: a number from 0, a title or an identifier, with `>` before items of submenus.
    pub default: Option<String>,
}

/// An item of a menu.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// Its title.
    pub title: String,
    /// Its identifier.
    pub id: Option<String>,
    /// What it leads to.
    pub leads_to: LeadsTo,
}

/// What an item leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeadsTo {
    /// Nothing that can be booted here, such as firmware settings or another hypervisor.
    #[default]
    Nothing,
    /// A kernel.
    Boot(Boot),
    /// Another menu.
    Menu(Vec<Item>),
}

impl Menu {
    /// The entry that `wanted` names, else the default, else the first that has a kernel.
    ///
    /// # Errors
    ///
    /// When `wanted` names none: the titles that there are.
    pub fn choose(&self, wanted: Option<&str>) -> Result<&Boot, String> {
        if let Some(wanted) = wanted {
            return lookup(&self.items, wanted)
                .or_else(|| anywhere(&self.items, wanted))
                .ok_or_else(|| {
                    format!(
                        "the boot menu has no entry `{wanted}`; it has {}",
                        self.titles()
                    )
                });
        }
        self.default
            .as_deref()
            .and_then(|default| lookup(&self.items, default))
            .or_else(|| first(&self.items))
            .ok_or_else(|| "the boot menu has no entry with a kernel".to_owned())
    }

    /// The titles of the items, in one line.
    fn titles(&self) -> String {
        let titles: Vec<String> = self
            .items
            .iter()
            .take(20)
            .map(|item| format!("`{}`", item.title))
            .collect();
        if titles.is_empty() {
            "none".to_owned()
        } else {
            titles.join(", ")
        }
    }
}

/// The entry at `path`: items with `>` between.
fn lookup<'a>(items: &'a [Item], path: &str) -> Option<&'a Boot> {
    // A title may have a `>` in it.
    if let Some(item) = named(items, path) {
        return boot_of(item);
    }
    let (head, tail) = path.split_once('>')?;
    match &named(items, head)?.leads_to {
        LeadsTo::Menu(inner) => lookup(inner, tail),
        _ => None,
    }
}

/// The item with a number, a title or an identifier.
fn named<'a>(items: &'a [Item], name: &str) -> Option<&'a Item> {
    let name = name.trim();
    if let Ok(number) = name.parse::<usize>() {
        return items.get(number);
    }
    items
        .iter()
        .find(|item| item.title == name || item.id.as_deref() == Some(name))
}

/// What an item boots; of a menu, its first entry.
fn boot_of(item: &Item) -> Option<&Boot> {
    match &item.leads_to {
        LeadsTo::Nothing => None,
        LeadsTo::Boot(boot) => Some(boot),
        LeadsTo::Menu(items) => first(items),
    }
}

/// The first entry with a kernel.
fn first(items: &[Item]) -> Option<&Boot> {
    items.iter().find_map(boot_of)
}

/// The entry with a title or identifier, in whatever submenu.
fn anywhere<'a>(items: &'a [Item], name: &str) -> Option<&'a Boot> {
    if name.parse::<usize>().is_ok() {
        return None;
    }
    items.iter().find_map(|item| match &item.leads_to {
        LeadsTo::Menu(inner) => anywhere(inner, name),
        LeadsTo::Boot(boot) if item.title == name || item.id.as_deref() == Some(name) => Some(boot),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
