//! Options of commands, described to the parser only when they are needed.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use std::ops::Deref;

/// The options `T` of a command. The parser hears of them when the command is given or help is asked for: each start would describe the options of
/// all commands otherwise, which is most of what a short command does.
#[derive(Debug)]
pub struct Deferred<T>(T);

impl<T> Deref for Deferred<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: FromArgMatches> FromArgMatches for Deferred<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T: Args> Args for Deferred<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(describe::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        // Nothing is updated here; the descriptions differ in what is required only.
        command.defer(describe::<T>)
    }
}

/// The option that all commands have, and `xm` itself. Clap's global options would be copied into the descriptions of all commands at each start.
pub const JSON: &str = "json";

/// Adds the options `T` and `--json` to a command, which keeps its own description.
fn describe<T: Args>(command: Command) -> Command {
    let (about, long_about) = (command.get_about().cloned(), command.get_long_about().cloned());
    let json = Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("Print JSON instead of text");
    let mut command = T::augment_args(command).arg(json);
    if let Some(about) = about {
        command = command.about(about);
    }
    if let Some(long_about) = long_about {
        command = command.long_about(long_about);
    }
    command
}
