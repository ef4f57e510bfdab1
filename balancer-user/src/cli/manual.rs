//! `man` and `completions`: what the command line knows of itself, for man(1) and for shells.
//!
//! Made from the same words as `--help`, so there is nothing to keep in step. Deliberately not here: where a system keeps such
//! files; a package knows.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Build, Cli};
use crate::exit::{Exit, Failure, print};

/// `balancer completions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// The shell to write them for
    pub shell: Shell,
}

/// `balancer man`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ManArgs {
    /// The verb to write the page of [default: the page of the program]
    #[arg(conflicts_with = "dir")]
    pub verb: Option<String>,
    /// Write all pages into this directory instead: balancer.1, and one for each verb
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Writes the completions of a shell to stdout.
///
/// # Errors
/// When stdout takes nothing.
pub fn completions(arguments: CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "balancer", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}

/// Writes one page to stdout, or all of them into a directory.
///
/// # Errors
/// When there is no such verb, or a file can't be written.
pub fn man(arguments: &ManArgs, build: &Build) -> Result<Exit, Failure> {
    let program = built(build);
    match (&arguments.dir, &arguments.verb) {
        (Some(dir), _) => {
            for command in [&program].into_iter().chain(program.get_subcommands()) {
                let path = dir.join(format!("{}.1", name_of(command)));
                std::fs::write(&path, page(command)?).map_err(|error| failed(&path, &error))?;
            }
        }
        (None, None) => print(&page(&program)?)?,
        (None, Some(verb)) => {
            let found = program.find_subcommand(verb).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("there is no verb `{verb}`: see `balancer --help`"))
            })?;
            print(&page(found)?)?;
        }
    }
    Ok(Exit::Ok)
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, format!("{}: cannot write it: {error}", path.display()))
}

/// With everything in its place that parsing would put there: each verb has the global flags, and its whole name.
fn built(build: &Build) -> Command {
    let mut program = Cli::command().version(build.version);
    program.build();
    program
}

fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> Result<String, Failure> {
    let examples = command.get_after_help().map(ToString::to_string);
    // Filled into paragraphs, as the other sections are, examples would be of no use.
    let man = Man::new(command.clone().after_help("")).manual("balancer").section("1");
    let mut page = Vec::new();
    let render = |page: &mut Vec<u8>| -> io::Result<()> {
        man.render_title(page)?;
        man.render_name_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        if command.has_subcommands() {
            man.render_subcommands_section(page)?;
        }
        Ok(())
    };
    render(&mut page).map_err(|error| Failure::new(Exit::Failed, error))?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if let Some(examples) = examples {
        page += ".SH EXAMPLES\n.nf\n";
        page.extend(examples.lines().skip_while(|line| *line == "Examples:").map(as_it_is));
        page += ".fi\n";
    }
    page += ".SH \"SEE ALSO\"\n";
    page += if command.has_subcommands() { "systemd(1), bpf(2)\n" } else { "balancer(1)\n" };
    Ok(page)
}

/// A line of text that troff takes for text, whatever is in it.
fn as_it_is(line: &str) -> String {
    let escaped = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    // `\&` is nothing, and keeps a dot from being the first.
    format!("\\&{escaped}\n")
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn program() -> Command {
        built(&Build { version: "0.1.0", layout: 1, object: None })
    }

    #[test]
    fn every_verb_has_a_page_with_its_flags_and_its_examples() {
        let program = program();
        for command in program.get_subcommands() {
            let page = page(command).unwrap();
            assert!(page.contains(&format!("balancer\\-{}", command.get_name())), "{page}");
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                let flag = flag.replace('-', "\\-");
                assert!(page.contains(&format!("\\-\\-{flag}")), "{flag} in {page}");
            }
            assert_eq!(page.contains(".SH EXAMPLES"), command.get_after_help().is_some(), "{page}");
        }
        let page = page(&program).unwrap();
        for command in program.get_subcommands() {
            assert!(page.contains(&format!("balancer\\-{}(1)", command.get_name())), "{page}");
        }
    }

    #[test]
    fn every_shell_completes_every_verb() {
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "balancer", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in program().get_subcommands() {
                assert!(script.contains(command.get_name()), "{} for {shell}", command.get_name());
            }
        }
    }

    #[test]
    fn a_line_of_an_example_is_no_request() {
        assert_eq!(as_it_is(".SH it's -o \\n"), "\\&.SH it\\(aqs \\-o \\en\n");
    }
}
