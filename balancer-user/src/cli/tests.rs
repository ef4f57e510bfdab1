//! What may be typed, what is printed for it, and what it exits with.

mod command_line;
mod exits;
mod tables;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::import::{Import, NginxArgs};
use super::layout::Palette;
use super::watch::Watch;
use super::{
    Build, Cli, DrainArgs, EventsArgs, FailoverArgs, FlowsArgs, LogFormat, MaintArgs, Output, ReadyArgs,
    ResumeArgs, Resumption, RunArgs, StatsArgs, StatusArgs, TraceArgs, Verb, Wait, WhyArgs,
};
use crate::control::client::ClientError;
use crate::exit::{Exit, Failure};

const HASH: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn try_parse(line: &str) -> Result<Cli, clap::Error> {
    let build = Build { version: "0.1.0", layout: 1, object: Some(HASH.to_owned()) };
    super::parse(line.split(' '), &build)
}

#[track_caller]
fn parse(line: &str) -> Cli {
    try_parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[track_caller]
fn refused(line: &str) -> clap::Error {
    match try_parse(line) {
        Ok(cli) => panic!("{line} is taken as {cli:?}"),
        Err(error) => error,
    }
}
