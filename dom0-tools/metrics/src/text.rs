//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

/// A label's name and value.
pub type Label = (&'static str, String);

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// It goes up and down.
    Gauge,
    /// It only goes up while its subject exists.
    Counter,
}

/// The text.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric.
    pub fn family(&mut self, name: &'static str, about: &str, kind: Kind) -> Family<'_> {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.line(format_args!("# HELP {name} {about}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        Family { page: self, name }
    }

    /// The whole text.
    pub fn finish(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A metric.
#[derive(Debug)]
pub struct Family<'p> {
    page: &'p mut Page,
    name: &'static str,
}

impl Family<'_> {
    /// Adds a value.
    pub fn sample(&mut self, labels: &[Label], value: u64) {
        self.add(labels, &value.to_string());
    }

    /// Adds a time, which the format wants in seconds.
    pub fn nanoseconds(&mut self, labels: &[Label], value: u64) {
        self.add(labels, &format!("{}.{:09}", value / 1_000_000_000, value % 1_000_000_000));
    }

    fn add(&mut self, labels: &[Label], value: &str) {
        let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
        let name = self.name;
        if labels.is_empty() {
            self.page.line(format_args!("{name} {value}"));
        } else {
            self.page.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }
}

/// A label's value: backslash, quote and line feed are escaped.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
