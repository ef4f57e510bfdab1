//! `balancer`: reads the command line, has it carried out, exits with the contract's code.

use std::process::ExitCode;

use balancer_common::abi::LAYOUT_VERSION;
use balancer_common::verdict::Reason;
use balancer_user::cli::import::{Import, NginxArgs};
use balancer_user::cli::remains::Remains;
use balancer_user::cli::{self, Build, CheckArgs, Cli, Paths, RunArgs, Verb};
use balancer_user::config::{self, nginx};
use balancer_user::exit::{Exit, Failure};
use balancer_user::{daemon, dataplane, doctor, panics, privileges, program};

fn main() -> ExitCode {
    let build = Build {
        version: env!("CARGO_PKG_VERSION"),
        layout: LAYOUT_VERSION,
        object: dataplane::object::hash().map(ToOwned::to_owned),
    };
    let cli = match cli::parse(std::env::args_os(), &build) {
        Ok(cli) => cli,
        Err(error) => return cli::usage(&error).into(),
    };
    match carry_out(&cli, &build) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.report();
            failure.exit.into()
        }
    }
}

fn carry_out(cli: &Cli, build: &Build) -> Result<Exit, Failure> {
    match &cli.verb {
        Verb::Run(arguments) => {
            program::close_inherited_descriptors();
            panics::end_the_process();
            let log = privileges::without_any(|| cli::log::start(arguments.log_format));
            let _written_at_the_end = log.map_err(|error| Failure::new(Exit::Failed, error))?;
            daemon::run(&options(cli, arguments, build))
        }
        Verb::Check(CheckArgs { no_resolve, explain }) => {
            let Paths { config, pin_dir, state_dir, .. } = &cli.paths;
            let how = daemon::Checking { no_resolve: *no_resolve, explain: *explain };
            let daemon::Checkup { found, words } = daemon::check(config, pin_dir, state_dir, how)?;
            cli::check::run(&found, &words, cli.output())
        }
        Verb::Status(arguments) => cli::status::run(&cli.paths, arguments, cli.output(), REMAINS),
        Verb::Flows(arguments) => cli::flows::run(&cli.paths, arguments, cli.output(), REMAINS),
        Verb::Stats(arguments) => cli::stats::run(&cli.paths, arguments, cli.output(), (REMAINS, meaning)),
        Verb::Top => cli::top::run(&cli.paths, REMAINS),
        Verb::Events(arguments) => cli::events::run(&cli.paths, arguments, cli.output()),
        Verb::Trace(arguments) => cli::trace::run(&cli.paths, arguments, cli.output()),
        Verb::Why(arguments) => cli::why::run(&cli.paths, arguments, cli.output()),
        Verb::Failover(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Failback(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Drain(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Maint(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Ready(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Resume(arguments) => cli::operate::operate(&cli.paths, arguments, cli.output()),
        Verb::Reload(arguments) => cli::reload::run(&cli.paths, arguments, cli.output()),
        Verb::Doctor => cli::doctor::run(&doctor::examine(&places(cli)), cli.output()),
        Verb::Import(Import::Nginx(arguments)) => nginx::run(&nginx_request(arguments)),
        Verb::Detach => daemon::detach(&cli.paths.pin_dir),
        Verb::Schema(arguments) => cli::schema::run(*arguments, config::schema),
        Verb::Completions(arguments) => cli::manual::completions(*arguments),
        Verb::Man(arguments) => cli::manual::man(arguments, build),
    }
}

/// What answers where no daemon does.
const REMAINS: Remains = Remains {
    status: |paths| daemon::remains::status(&left(paths)),
    stats: |paths| daemon::remains::stats(&left(paths)),
    flows: |paths, query, visit| daemon::remains::flows(&left(paths), query, visit),
};

fn left(paths: &Paths) -> daemon::remains::Places {
    let Paths { config, state_dir, pin_dir, socket: _ } = paths.clone();
    daemon::remains::Places { config, state_dir, pin_dir }
}

fn options(cli: &Cli, arguments: &RunArgs, build: &Build) -> daemon::Options {
    let paths = cli.paths.clone();
    daemon::Options {
        config: paths.config,
        socket: paths.socket,
        state_dir: paths.state_dir,
        pin_dir: paths.pin_dir,
        replace: arguments.replace,
        detach_on_exit: arguments.detach_on_exit,
        version: build.version,
    }
}

fn places(cli: &Cli) -> doctor::Places {
    let paths = cli.paths.clone();
    doctor::Places {
        config: paths.config,
        socket: paths.socket,
        state_dir: paths.state_dir,
        pin_dir: paths.pin_dir,
    }
}

fn nginx_request(arguments: &NginxArgs) -> nginx::Request {
    let NginxArgs { file, interfaces, vip, separate } = arguments.clone();
    nginx::Request { file, interfaces, vip, separate }
}

/// One line for each reason of a drop.
fn meaning(name: &str) -> Option<&'static str> {
    Reason::ALL.iter().find(|reason| reason.name() == name).map(|reason| reason.meaning())
}
