//! The table: columns, order, text.

use super::rows::{Row, SECTOR};
use super::view::Parts;
use std::cmp::Ordering;
use std::fmt::Write;

/// What rows are ordered by: names from the first, numbers from the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// The id, from the lowest.
    #[default]
    Id,
    /// The name.
    Name,
    /// The state.
    State,
    /// Processor time.
    Time,
    /// Processor time since the last look.
    Cpu,
    /// Memory.
    Memory,
    /// The most memory that it may have.
    MaxMemory,
    /// vCPUs.
    Vcpus,
    /// Network cards.
    Nets,
    /// What it has sent.
    NetTx,
    /// What it has received.
    NetRx,
    /// Disks.
    Vbds,
    /// How often disks had no room for another request.
    VbdOo,
    /// Requests to read.
    VbdRd,
    /// Requests to write.
    VbdWr,
    /// Sectors read.
    VbdRsect,
    /// Sectors written.
    VbdWsect,
    /// The security label.
    Ssid,
}

/// A column, as in xentop.
pub struct Column {
    /// Its head.
    pub head: &'static str,
    /// Its least width.
    width: usize,
    /// The order by what it shows.
    order: Order,
    /// The cell of a row.
    cell: fn(&Row) -> String,
}

const fn column(head: &'static str, width: usize, order: Order, cell: fn(&Row) -> String) -> Column {
    Column { head, width, order, cell }
}

/// All columns.
pub const COLUMNS: &[Column] = &[
    column("NAME", 10, Order::Name, |row| row.name.clone()),
    column("STATE", 6, Order::State, |row| row.state.clone()),
    column("CPU(sec)", 10, Order::Time, |row| format!("{:.0}", row.cpu_time_s.trunc())),
    column("CPU(%)", 6, Order::Cpu, |row| format!("{:.1}", row.cpu_percent.unwrap_or(0.0))),
    column("MEM(k)", 10, Order::Memory, |row| row.memory_kib.to_string()),
    column("MEM(%)", 6, Order::Memory, |row| format!("{:.1}", row.memory_percent)),
    column("MAXMEM(k)", 10, Order::MaxMemory, |row| row.max_memory_kib.map_or_else(|| "no limit".to_owned(), |most| most.to_string())),
    column("MAXMEM(%)", 9, Order::MaxMemory, |row| row.max_memory_percent.map_or_else(|| "n/a".to_owned(), |most| format!("{most:.1}"))),
    column("VCPUS", 5, Order::Vcpus, |row| row.vcpus.to_string()),
    column("NETS", 4, Order::Nets, |row| row.networks.to_string()),
    column("NETTX(k)", 8, Order::NetTx, |row| row.sent_kib.to_string()),
    column("NETRX(k)", 8, Order::NetRx, |row| row.received_kib.to_string()),
    column("VBDS", 4, Order::Vbds, |row| row.disks.to_string()),
    column("VBD_OO", 8, Order::VbdOo, |row| row.out_of_requests.to_string()),
    column("VBD_RD", 8, Order::VbdRd, |row| row.reads.to_string()),
    column("VBD_WR", 8, Order::VbdWr, |row| row.writes.to_string()),
    column("VBD_RSECT", 10, Order::VbdRsect, |row| row.read_sectors.to_string()),
    column("VBD_WSECT", 10, Order::VbdWsect, |row| row.written_sectors.to_string()),
    column("SSID", 4, Order::Ssid, |row| row.ssid.to_string()),
];

impl Order {
    /// The order after this one, which a key chooses: by the columns from the left, then by id.
    pub fn next(self) -> Self {
        let mut orders = COLUMNS.iter().map(|column| column.order);
        match self {
            Self::Id => orders.next(),
            order => orders.skip_while(|other| *other != order).find(|other| *other != order),
        }
        .unwrap_or(Self::Id)
    }

    /// The order before this one.
    pub fn previous(self) -> Self {
        let before = COLUMNS.iter().map(|column| column.order).take_while(|other| *other != self);
        before.last().unwrap_or(Self::Id)
    }

    /// The head of the first column that it goes by; `None` for the id, which has none.
    pub fn head(self) -> Option<&'static str> {
        COLUMNS.iter().find(|column| column.order == self).map(|column| column.head)
    }

    /// Puts `rows` in order.
    pub fn sort(self, rows: &mut [Row]) {
        rows.sort_by(|a, b| self.compare(a, b).then(a.id.cmp(&b.id)));
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        match self {
            Self::Id => Ordering::Equal,
            Self::Name => a.name.cmp(&b.name),
            // `r` comes before `b` before `p` and so on.
            Self::State => state_rank(a).cmp(&state_rank(b)),
            Self::Time => b.cpu_time_s.total_cmp(&a.cpu_time_s),
            Self::Cpu => b.cpu_percent.unwrap_or(0.0).total_cmp(&a.cpu_percent.unwrap_or(0.0)),
            Self::Memory => b.memory_kib.cmp(&a.memory_kib),
            // No limit is more than any.
            Self::MaxMemory => b.max_memory_kib.unwrap_or(u64::MAX).cmp(&a.max_memory_kib.unwrap_or(u64::MAX)),
            Self::Vcpus => b.vcpus.cmp(&a.vcpus),
            Self::Nets => b.networks.cmp(&a.networks),
            Self::NetTx => b.sent_kib.cmp(&a.sent_kib),
            Self::NetRx => b.received_kib.cmp(&a.received_kib),
            Self::Vbds => b.disks.cmp(&a.disks),
            Self::VbdOo => b.out_of_requests.cmp(&a.out_of_requests),
            Self::VbdRd => b.reads.cmp(&a.reads),
            Self::VbdWr => b.writes.cmp(&a.writes),
            Self::VbdRsect => b.read_sectors.cmp(&a.read_sectors),
            Self::VbdWsect => b.written_sectors.cmp(&a.written_sectors),
            Self::Ssid => b.ssid.cmp(&a.ssid),
        }
    }
}

/// The place of the first letter of a row's state.
fn state_rank(row: &Row) -> usize {
    row.state.find(|letter| letter != '-').unwrap_or(row.state.len())
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The heads.
    Heads,
    /// The cells of a domain, in the order of [`COLUMNS`].
    Cells(Vec<String>),
    /// A part of a domain.
    Part(String),
}

/// The lines of a table: heads first (`repeat`: before each domain), then each domain with those of its parts that are shown.
pub fn lines(rows: &[Row], parts: Parts, repeat: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        if index > 0 && repeat {
            lines.push(Line::Heads);
        }
        lines.push(Line::Cells(COLUMNS.iter().map(|column| (column.cell)(row)).collect()));
        lines.extend(part_lines(row, parts).into_iter().map(Line::Part));
    }
    lines
}

/// What xentop shows below a domain.
fn part_lines(row: &Row, parts: Parts) -> Vec<String> {
    let mut lines = Vec::new();
    if parts.vcpus {
        let times = row.parts.vcpus.iter().map(|(vcpu, ns)| format!(" {vcpu:4}:{:10}s", ns / 1_000_000_000));
        lines.push(format!("VCPUs(sec): {}", times.collect::<String>()));
    }
    if parts.networks {
        lines.extend(row.parts.cards.iter().map(|card| {
            let side = |name, bytes, packets, errors, dropped| format!("{name}: {bytes:8}bytes {packets:8}pkts {errors:8}err {dropped:8}drop");
            let received = side("RX", card.received_bytes, card.received_packets, card.received_errors, card.received_dropped);
            let sent = side("TX", card.sent_bytes, card.sent_packets, card.sent_errors, card.sent_dropped);
            format!("Net{} {received}  {sent}", card.devid)
        }));
    }
    if parts.disks {
        lines.extend(row.parts.disks.iter().map(|disk| {
            format!(
                "VBD BlkBack {:6}  OO: {:8}   RD: {:8}   WR: {:8}  RSECT: {:10}  WSECT: {:10}",
                disk.devid,
                disk.out_of_requests,
                disk.reads,
                disk.writes,
                disk.read_bytes / SECTOR,
                disk.written_bytes / SECTOR
            )
        }));
    }
    lines
}

/// The widths of the columns that `lines` need.
pub fn widths(lines: &[Line]) -> Vec<usize> {
    let mut widths: Vec<usize> = COLUMNS.iter().map(|column| column.head.len().max(column.width)).collect();
    for line in lines {
        if let Line::Cells(cells) = line {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
    }
    widths
}

/// A table as text.
pub fn text(rows: &[Row], parts: Parts, repeat: bool) -> String {
    let mut all = vec![Line::Heads];
    all.extend(lines(rows, parts, repeat));
    let widths = widths(&all);
    let mut out = String::new();
    for line in &all {
        // Writing to a string cannot fail.
        let _ = match line {
            Line::Heads => writeln!(out, "{}", aligned(COLUMNS.iter().map(|column| column.head), &widths)),
            Line::Cells(cells) => writeln!(out, "{}", aligned(cells.iter().map(String::as_str), &widths)),
            Line::Part(text) => writeln!(out, "{text}"),
        };
    }
    out
}

/// Cells in their columns.
fn aligned<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let cells: Vec<String> = cells.zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
    cells.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u16, name: &str) -> Row {
        Row { id, name: name.to_owned(), state: "------".to_owned(), ..Row::default() }
    }

    fn names(order: Order, rows: &[Row]) -> String {
        let mut rows = rows.to_vec();
        order.sort(&mut rows);
        rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_table_has_xentop_s_columns() {
        let rows = [Row { cpu_time_s: 1.9, memory_kib: 65_536, memory_percent: 6.25, ssid: 5, ..row(3, "web") }];
        let table = text(&rows, Parts::default(), false);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "      NAME  STATE   CPU(sec) CPU(%)     MEM(k) MEM(%)  MAXMEM(k) MAXMEM(%) VCPUS NETS NETTX(k) NETRX(k) VBDS   VBD_OO   VBD_RD   VBD_WR  VBD_RSECT  VBD_WSECT SSID",
                "       web ------          1    0.0      65536    6.2   no limit       n/a     0    0        0        0    0        0        0        0          0          0    5",
            ]
        );
        // A long name moves all columns.
        let long = text(&[row(1, "a-name-of-many-letters"), row(2, "b")], Parts::default(), false);
        let widths: Vec<usize> = long.lines().map(str::len).collect();
        assert!(widths.iter().all(|width| *width == lines[0].len() + 12), "{long}");
    }

    #[test]
    fn each_order_goes_by_its_column() {
        let (low, high) = (row(1, "a"), row(2, "b"));
        type Raise = fn(&mut Row);
        let number: &[(Order, Raise)] = &[
            (Order::Time, |row| row.cpu_time_s = 1.0),
            (Order::Cpu, |row| row.cpu_percent = Some(1.0)),
            (Order::Memory, |row| row.memory_kib = 1),
            (Order::Vcpus, |row| row.vcpus = 1),
            (Order::Nets, |row| row.networks = 1),
            (Order::NetTx, |row| row.sent_kib = 1),
            (Order::NetRx, |row| row.received_kib = 1),
            (Order::Vbds, |row| row.disks = 1),
            (Order::VbdOo, |row| row.out_of_requests = 1),
            (Order::VbdRd, |row| row.reads = 1),
            (Order::VbdWr, |row| row.writes = 1),
            (Order::VbdRsect, |row| row.read_sectors = 1),
            (Order::VbdWsect, |row| row.written_sectors = 1),
            (Order::Ssid, |row| row.ssid = 1),
        ];
        for (order, raise) in number {
            let mut raised = high.clone();
            raise(&mut raised);
            assert_eq!(names(*order, &[low.clone(), raised.clone()]), "b a", "{order:?}");
            // By id where there is no difference.
            assert_eq!(names(*order, &[high.clone(), low.clone()]), "a b", "{order:?}");
        }
        assert_eq!(names(Order::Id, &[high.clone(), low.clone()]), "a b");
        assert_eq!(names(Order::Name, &[row(1, "z"), row(2, "a")]), "a z");
        let limited = Row { max_memory_kib: Some(1 << 30), ..row(1, "limited") };
        assert_eq!(names(Order::MaxMemory, &[limited, row(2, "free")]), "free limited");
        let state = |id, name, state: &str| Row { state: state.to_owned(), ..row(id, name) };
        assert_eq!(names(Order::State, &[state(1, "idle", "------"), state(2, "blocked", "-b----"), state(3, "running", "r-----")]), "running blocked idle");
    }
}
