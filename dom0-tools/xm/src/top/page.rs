//! A whole screen of `xm top`, as lines.

use super::columns::{COLUMNS, Line, lines, widths};
use super::rows::{Look, Row};
use super::view::View;

/// Lines above the table: the summary and the heads.
const ABOVE: usize = 4;
/// Lines below it: the keys.
const BELOW: usize = 1;
/// The keys, as the line at the bottom shows them: what stands before the letter, the letter, and what follows.
const KEYS: &[(&str, &str, &str)] = &[
    ("", "D", "elay"),
    ("", "N", "etworks"),
    ("v", "B", "ds"),
    ("", "V", "CPUs"),
    ("", "R", "epeat heads"),
    ("", "S", "ort order"),
    ("", "I", "nvert"),
    ("", "Q", "uit"),
];

/// What does not change.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The hypervisor's version.
    pub version: String,
    /// The frequency of pCPUs in MHz.
    pub cpu_mhz: u32,
}

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As everything else.
    Plain,
    /// Light and dark exchanged.
    Reverse,
    /// Bold.
    Bold,
}

/// Text of one style.
pub type Span = (Style, String);

/// The size of a screen in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

impl Size {
    /// How many lines of the table fit below its heads.
    pub fn table(self) -> usize {
        self.height.saturating_sub(ABOVE + BELOW)
    }
}

/// The lines of a screen that shows `look`, as many as `size` has and none wider. `view` is moved to where the table is.
pub fn page(look: &Look, facts: &Facts, view: &mut View, size: Size) -> Vec<Vec<Span>> {
    let mut rows = look.rows.clone();
    view.order.sort(&mut rows);
    if view.reverse {
        rows.reverse();
    }
    let table = lines(&rows, view.parts, view.repeat);
    view.clamp(table.len(), size.table());
    let columns = Columns::new(view.first_column, &table, size.width);
    let plain = |text: String| vec![(Style::Plain, text)];
    let mut page = summary(look, facts).map(plain).to_vec();
    page.push(columns.heads(view));
    for line in table.iter().skip(view.first_line).take(size.table()) {
        page.push(match line {
            Line::Heads => columns.heads(view),
            Line::Cells(cells) => plain(columns.cells(cells)),
            Line::Part(text) => plain(text.clone()),
        });
    }
    page.truncate(size.height.saturating_sub(BELOW));
    page.resize(size.height.saturating_sub(BELOW), Vec::new());
    page.push(bottom(view));
    page.truncate(size.height);
    page.into_iter().map(|line| clipped(line, size.width)).collect()
}

/// The host and how many domains are in each state.
fn summary(look: &Look, facts: &Facts) -> [String; 3] {
    let count = |holds: fn(&Row) -> bool| look.rows.iter().filter(|row| holds(row)).count();
    let domains = format!(
        "{} domains: {} running, {} blocked, {} paused, {} crashed, {} dying, {} shutdown",
        look.rows.len(),
        count(|row| row.states.running),
        count(|row| row.states.blocked),
        count(|row| row.states.paused),
        count(|row| row.states.crashed),
        count(|row| row.states.dying),
        count(|row| row.states.shutdown)
    );
    let host = format!(
        "Mem: {}k total, {}k used, {}k free    CPUs: {} @ {}MHz, {:.1}% busy",
        look.memory_kib,
        look.memory_kib.saturating_sub(look.free_kib),
        look.free_kib,
        look.cpus,
        facts.cpu_mhz,
        busy_percent(look)
    );
    [format!("xm top   Xen {}", facts.version), domains, host]
}

/// The processor time of all domains since the last look, in percent of all pCPUs.
fn busy_percent(look: &Look) -> f64 {
    // The sum of no numbers would be minus zero.
    let used = look.rows.iter().filter_map(|row| row.cpu_percent).fold(0.0, |sum, part| sum + part);
    used / f64::from(look.cpus.max(1))
}

/// The columns that fit: the name, and those from the first that the view is moved to.
struct Columns {
    /// Number and width of each.
    shown: Vec<(usize, usize)>,
}

impl Columns {
    fn new(first: usize, table: &[Line], screen: usize) -> Self {
        let widths = widths(table);
        let mut used = 0;
        let wanted = widths.iter().copied().enumerate().filter(|(column, _)| *column == 0 || *column >= first);
        let shown = wanted.take_while(|(column, width)| {
            used += width + usize::from(*column > 0);
            *column == 0 || used <= screen
        });
        Self { shown: shown.collect() }
    }

    /// The heads; that of the order stands out.
    fn heads(&self, view: &View) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for (column, width) in &self.shown {
            let head = COLUMNS.get(*column).map_or("", |column| column.head);
            let style = if view.order.head() == Some(head) { Style::Bold } else { Style::Reverse };
            if *column > 0 {
                spans.push((Style::Reverse, " ".to_owned()));
            }
            spans.push((style, format!("{head:>width$}")));
        }
        spans
    }

    fn cells(&self, cells: &[String]) -> String {
        let cells: Vec<String> = self.shown.iter().filter_map(|(column, width)| Some(format!("{:>width$}", cells.get(*column)?))).collect();
        cells.join(" ")
    }
}

/// The line at the bottom: what is being typed, what was wrong, or the keys.
fn bottom(view: &View) -> Vec<Span> {
    if let Some(typed) = &view.typed {
        return vec![(Style::Plain, format!("Delay in seconds (now {}): {typed}", view.delay_s)), (Style::Reverse, " ".to_owned())];
    }
    if let Some(message) = &view.message {
        return vec![(Style::Bold, message.clone())];
    }
    let keys = KEYS.iter().flat_map(|(before, key, after)| [(Style::Plain, format!("  {before}")), (Style::Reverse, (*key).to_owned()), (Style::Plain, (*after).to_owned())]);
    let order = format!("   by {}{}", view.order.head().unwrap_or("ID"), if view.reverse { ", inverted" } else { "" });
    keys.chain([(Style::Plain, order)]).collect()
}

/// A line without what is right of `width`.
fn clipped(line: Vec<Span>, width: usize) -> Vec<Span> {
    let mut left = width;
    let mut clipped = Vec::new();
    for (style, text) in line {
        let text: String = text.chars().take(left).collect();
        left = left.saturating_sub(text.chars().count());
        if !text.is_empty() {
            clipped.push((style, text));
        }
    }
    clipped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, HostCommand};
    use crate::top::columns::Order;
    use oxen_abi::domctl::{DOMINF_BLOCKED, DOMINF_RUNNING};
    use oxen_metrics::{Disk, Domain, Host, Snapshot};
    use std::time::Instant;

    fn view() -> View {
        match Cli::read(["xm", "top"]).unwrap().command {
            Command::Host(HostCommand::Top(options)) => View::new(&options),
            _ => unreachable!(),
        }
    }

    fn domain(domid: u16, name: &str, flags: u32) -> Domain {
        Domain { domid, name: name.to_owned(), flags, memory: 64 << 20, ..Domain::default() }
    }

    fn look(domains: Vec<Domain>) -> Look {
        let host = Host { cpus: 2, memory: 1 << 30, free: 1 << 29, ..Host::default() };
        let disks = vec![Disk { domid: 3, devid: 51712, ..Disk::default() }];
        Look::new(Snapshot { host: Some(host), domains, disks, ..Snapshot::default() }, Instant::now(), None)
    }

    fn two() -> Look {
        look(vec![domain(0, "Domain-0", DOMINF_RUNNING), domain(3, "web", DOMINF_BLOCKED)])
    }

    fn facts() -> Facts {
        Facts { version: "4.17.Oxen-0.1.0".to_owned(), cpu_mhz: 2394 }
    }

    /// The text of a screen.
    fn screen(look: &Look, view: &mut View, width: usize, height: usize) -> Vec<String> {
        let page = page(look, &facts(), view, Size { width, height });
        page.iter().map(|line| line.iter().map(|(_, text)| text.as_str()).collect()).collect()
    }

    #[test]
    fn the_screen_is_xentop_s() {
        let expected = [
            "xm top   Xen 4.17.Oxen-0.1.0",
            "2 domains: 1 running, 1 blocked, 0 paused, 0 crashed, 0 dying, 0 shutdown",
            "Mem: 1048576k total, 524288k used, 524288k free    CPUs: 2 @ 2394MHz, 0.0% busy",
            "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS",
            "  Domain-0 r-----          0    0.0      65536    6.2   no limit       n/a     0",
            "       web -b----          0    0.0      65536    6.2   no limit       n/a     0",
            "",
            "  Delay  Networks  vBds  VCPUs  Repeat heads  Sort order  Invert  Quit   by ID",
        ];
        assert_eq!(screen(&two(), &mut view(), 83, 8), expected);
    }

    #[test]
    fn a_narrow_screen_shows_whole_columns_from_the_one_that_is_chosen() {
        let mut view = view();
        view.first_column = 4;
        let lines = screen(&two(), &mut view, 30, 8);
        assert_eq!(lines[3..6], ["      NAME     MEM(k) MEM(%)", "  Domain-0      65536    6.2", "       web      65536    6.2"]);
        assert!(lines.iter().all(|line| line.chars().count() <= 30), "{lines:#?}");
    }

    #[test]
    fn every_size_has_as_many_lines_as_it_says() {
        let mut view = view();
        (view.parts.disks, view.parts.networks, view.parts.vcpus, view.repeat) = (true, true, true, true);
        for height in 0..20 {
            for width in [0, 1, 9, 40, 200] {
                let lines = screen(&two(), &mut view, width, height);
                assert_eq!(lines.len(), height);
                assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            }
        }
    }

    #[test]
    fn long_tables_are_moved_through() {
        let look = look((0..30).map(|domid| domain(domid, &format!("d{domid}"), 0)).collect());
        let mut view = view();
        let names = |view: &mut View| -> Vec<String> {
            let lines = screen(&look, view, 80, 8);
            lines[4..7].iter().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
        };
        assert_eq!(names(&mut view), ["d0", "d1", "d2"]);
        view.first_line = usize::MAX;
        assert_eq!(names(&mut view), ["d27", "d28", "d29"]);
        assert_eq!(view.first_line, 27);
        (view.reverse, view.first_line) = (true, 1);
        assert_eq!(names(&mut view), ["d28", "d27", "d26"]);
    }

    #[test]
    fn parts_stand_below_their_domain_and_heads_can_be_repeated() {
        let mut view = view();
        (view.parts.disks, view.repeat) = (true, true);
        let lines = screen(&two(), &mut view, 120, 10);
        let starts: Vec<&str> = lines[3..8].iter().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(starts, ["NAME", "Domain-0", "NAME", "web", "VBD"]);
    }

    #[test]
    fn the_column_of_the_order_stands_out() {
        let mut view = view();
        let bold = |view: &mut View| -> Vec<String> {
            let page = page(&two(), &facts(), view, Size { width: 200, height: 8 });
            page.concat().into_iter().filter(|(style, _)| *style == Style::Bold).map(|(_, text)| text.trim().to_owned()).collect()
        };
        assert!(bold(&mut view).is_empty());
        view.order = Order::VbdWr;
        assert_eq!(bold(&mut view), ["VBD_WR"]);
        assert!(screen(&two(), &mut view, 200, 8)[7].ends_with("by VBD_WR"));
    }

    #[test]
    fn the_bottom_line_asks_and_complains() {
        let mut view = view();
        view.typed = Some("12".to_owned());
        assert_eq!(screen(&two(), &mut view, 80, 8)[7], "Delay in seconds (now 3): 12 ");
        (view.typed, view.message) = (None, Some("no".to_owned()));
        assert_eq!(screen(&two(), &mut view, 80, 8)[7], "no");
    }

    #[test]
    fn names_do_not_control_the_terminal() {
        let look = look(vec![domain(1, "a\x1b[2Jb\n", 0)]);
        let lines = screen(&look, &mut view(), 80, 8);
        assert!(lines[4].starts_with("   a?[2Jb? "), "{lines:#?}");
    }
}
