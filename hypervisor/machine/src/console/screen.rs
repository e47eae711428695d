//! The screen that the boot loader left: VGA text, or a linear framebuffer on which characters are drawn.
//!
//! What is shown is kept in a copy of characters, as reading a screen's memory is slow; scrolling draws only what changes.

use crate::boot::multiboot2::{PixelScreen, Screen as Found};
use crate::layout::direct;
use crate::paging::{self, Access};
use oxen_types::Maddr;

const MAX_COLUMNS: usize = 240;
const MAX_ROWS: usize = 100;
/// Pixels of a character cell: an 8 by 8 font with every line drawn twice.
const CELL_WIDTH: u32 = 8;
const CELL_HEIGHT: u32 = 16;
/// Light grey on black, in VGA text and as intensity of the three colours.
const TEXT_ATTRIBUTE: u16 = 0x0700;
const FOREGROUND: u32 = 0xaa;

/// How characters get onto the screen.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text { pitch: u32 },
    Pixels(PixelScreen),
}

/// A screen in use.
#[derive(Debug)]
pub(super) struct Screen {
    form: Form,
    address: Maddr,
    /// Where the screen's memory is mapped.
    mapped: u64,
    columns: usize,
    rows: usize,
    column: usize,
    row: usize,
    cells: [[u8; MAX_COLUMNS]; MAX_ROWS],
}

impl Screen {
    pub(super) const fn new() -> Self {
        Self {
            form: Form::Text { pitch: 160 },
            address: Maddr(0),
            mapped: 0,
            columns: 0,
            rows: 0,
            column: 0,
            row: 0,
            cells: [[b' '; MAX_COLUMNS]; MAX_ROWS],
        }
    }

    /// Takes the screen as the loader describes it; nothing is drawn. On the boot tables, which show the first 4 GiB only; a screen above comes to
    /// life in [`Screen::remap`].
    pub(super) fn start(&mut self, found: Found) {
        let (columns, rows) = match found {
            Found::Text { address, pitch, columns, rows } => {
                self.form = Form::Text { pitch };
                self.address = Maddr(address);
                (columns, rows)
            }
            Found::Pixels(pixels) => {
                if !matches!(pixels.bits_per_pixel, 15 | 16 | 24 | 32) || pixels.pitch < pixels.width * u32::from(pixels.bits_per_pixel.div_ceil(8)) {
                    return;
                }
                self.form = Form::Pixels(pixels);
                self.address = Maddr(pixels.address);
                (pixels.width / CELL_WIDTH, pixels.height / CELL_HEIGHT)
            }
        };
        self.columns = (columns as usize).min(MAX_COLUMNS);
        self.rows = (rows as usize).min(MAX_ROWS);
        if self.columns == 0 || self.rows == 0 {
            return;
        }
        if self.address.0 + self.bytes() <= 1 << 32 {
            self.mapped = direct(self.address);
        }
    }

    /// Whether there is memory to draw on.
    pub(super) const fn is_mapped(&self) -> bool {
        self.mapped != 0
    }

    /// Bytes of the screen's memory.
    fn bytes(&self) -> u64 {
        match self.form {
            Form::Text { pitch } => u64::from(pitch) * self.rows as u64,
            Form::Pixels(pixels) => u64::from(pixels.pitch) * u64::from(pixels.height),
        }
    }

    /// Maps the screen in the final tables.
    pub(super) fn remap(&mut self) {
        if self.columns == 0 || self.rows == 0 {
            return;
        }
        self.mapped = paging::map_physical(self.address, self.bytes(), Access::WriteCombining);
    }

    /// Empties the screen, whatever was on it.
    pub(super) fn clear(&mut self) {
        if self.mapped == 0 {
            return;
        }
        (self.row, self.column) = (0, 0);
        if let Form::Pixels(pixels) = self.form {
            for line in 0..pixels.height {
                for x in 0..pixels.width {
                    self.draw_pixel(pixels, x, line, false);
                }
            }
        }
        for row in 0..self.rows {
            for column in 0..self.columns {
                self.cells[row][column] = b' ';
                self.draw(row, column);
            }
        }
    }

    pub(super) fn write(&mut self, text: &[u8]) {
        if self.mapped == 0 {
            return;
        }
        for &byte in text {
            match byte {
                b'\n' => self.new_line(),
                b'\r' => self.column = 0,
                b'\t' => self.column = (self.column + 8) & !7,
                byte => {
                    if self.column >= self.columns {
                        self.new_line();
                    }
                    self.cells[self.row][self.column] = if byte.is_ascii_graphic() { byte } else { b' ' };
                    self.draw(self.row, self.column);
                    self.column += 1;
                }
            }
        }
    }

    fn new_line(&mut self) {
        self.column = 0;
        if self.row + 1 < self.rows {
            self.row += 1;
            return;
        }
        for row in 0..self.rows {
            for column in 0..self.columns {
                let below = if row + 1 < self.rows { self.cells[row + 1][column] } else { b' ' };
                if self.cells[row][column] != below {
                    self.cells[row][column] = below;
                    self.draw(row, column);
                }
            }
        }
    }

    fn draw(&self, row: usize, column: usize) {
        let byte = self.cells[row][column];
        match self.form {
            Form::Text { pitch } => {
                let at = self.mapped + row as u64 * u64::from(pitch) + column as u64 * 2;
                // SAFETY: row and column are inside the screen, whose memory is mapped.
                unsafe { (at as *mut u16).write_volatile(TEXT_ATTRIBUTE | u16::from(byte)) };
            }
            Form::Pixels(pixels) => {
                let glyph = font8x8::legacy::BASIC_LEGACY.get(usize::from(byte)).copied().unwrap_or([0; 8]);
                for line in 0..CELL_HEIGHT {
                    let bits = glyph[(line / 2) as usize];
                    for x in 0..CELL_WIDTH {
                        self.draw_pixel(pixels, column as u32 * CELL_WIDTH + x, row as u32 * CELL_HEIGHT + line, bits >> x & 1 != 0);
                    }
                }
            }
        }
    }

    fn draw_pixel(&self, pixels: PixelScreen, x: u32, y: u32, set: bool) {
        let field = |(position, size): (u8, u8)| (FOREGROUND >> 8_u8.saturating_sub(size)).checked_shl(position.into()).unwrap_or(0);
        let colour = if set { field(pixels.red) | field(pixels.green) | field(pixels.blue) } else { 0 };
        let bytes = u32::from(pixels.bits_per_pixel.div_ceil(8));
        let at = (self.mapped + u64::from(y) * u64::from(pixels.pitch) + u64::from(x * bytes)) as *mut u8;
        // SAFETY: x and y are inside the screen, whose lines have room for their pixels and whose memory is mapped.
        unsafe {
            match bytes {
                4 => at.cast::<u32>().write_volatile(colour),
                2 => at.cast::<u16>().write_volatile(colour as u16),
                _ => {
                    for (i, byte) in colour.to_le_bytes().into_iter().take(3).enumerate() {
                        at.add(i).write_volatile(byte);
                    }
                }
            }
        }
    }
}
