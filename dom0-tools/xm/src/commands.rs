//! Tables of commands. A start describes only the command that it is given to the parser: describing all of them would be most of what a short command does.

use clap::{Arg, ArgAction, ArgMatches, Command, Error};

/// The option that all commands have, and `xm` itself. Clap's global options would be copied into the descriptions of all commands at each start.
pub const JSON: &str = "json";

/// The option [`JSON`] for the parser.
pub fn json_option() -> Arg {
    Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("Print JSON instead of text")
}

/// A command that reads as `T`.
pub struct Entry<T> {
    /// Its name.
    pub name: &'static str,
    /// The lines of its description: what it does in one sentence, and after an empty line more of it.
    pub lines: &'static [&'static str],
    /// Whether lists of commands leave it out.
    pub hidden: bool,
    /// Adds its options.
    pub options: fn(Command) -> Command,
    /// Reads what was found.
    pub read: fn(&mut ArgMatches) -> Result<T, Error>,
}

impl<T> Entry<T> {
    /// The command for the parser.
    pub fn describe(&self) -> Command {
        let command = (self.options)(Command::new(self.name)).arg(json_option()).hide(self.hidden);
        let mut paragraphs = self.lines.split(|line| line.is_empty()).map(|lines| lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "));
        let sentence = paragraphs.next().unwrap_or_default();
        let about = sentence.strip_suffix('.').unwrap_or(&sentence).to_owned();
        let more: Vec<_> = paragraphs.collect();
        // Otherwise the description of the structure of its options would be its own.
        let command = if more.is_empty() { command.long_about(None) } else { command.long_about(format!("{sentence}\n\n{}", more.join("\n\n"))) };
        command.about(about)
    }
}

/// Declares commands: an enumeration with the options of each, and the table of them.
macro_rules! commands {
    ($(#[$outer:meta])* pub enum $commands:ident { $($(#[doc = $line:literal])+ $name:literal $($hidden:ident)? => $variant:ident($options:ty),)+ }) => {
        $(#[$outer])*
        #[derive(Debug)]
        pub enum $commands { $($(#[doc = $line])+ $variant($options),)+ }

        impl $commands {
            /// The commands.
            pub const LIST: &[$crate::commands::Entry<Self>] = &[$($crate::commands::Entry {
                name: $name,
                lines: &[$($line),+],
                hidden: $crate::commands::commands!(@hidden $($hidden)?),
                options: <$options as clap::Args>::augment_args,
                read: |matches| <$options as clap::FromArgMatches>::from_arg_matches_mut(matches).map(Self::$variant),
            }),+];
        }
    };
    (@hidden hidden) => { true };
    (@hidden) => { false };
}
pub(crate) use commands;
