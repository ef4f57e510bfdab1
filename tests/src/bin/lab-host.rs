//! What runs on the hosts of a lab: a TLS server, TLS clients, plain TCP for measuring, and, to look around by hand, the
//! lab itself.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use balancer_tests::{
    lab::{Lab, Topology},
    plain, probe_bench,
    traffic::{
        attempt::Target,
        echo,
        ending::Ending,
        load::{self, Plan},
        server, transfer, watch,
    },
};
use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "Servers and clients for balancer's labs")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Answer HTTPS requests with a name; prints `ready` once listening
    Serve {
        #[arg(long, required = true)]
        listen: Vec<SocketAddr>,
        #[arg(long, value_name = "PEM")]
        cert: PathBuf,
        #[arg(long, value_name = "PEM")]
        key: PathBuf,
        #[arg(long)]
        name: String,
    },
    /// Make many connections and print one JSON report, at SIGTERM too; exit 1 if any of them failed
    Load {
        #[command(flatten)]
        target: TargetArguments,
        /// How many in all, at most a million
        #[arg(long, default_value_t = 100)]
        connections: u64,
        /// How many at a time
        #[arg(long, default_value_t = 1)]
        parallel: usize,
        /// New connections a second [default: as many as possible]
        #[arg(long)]
        rate: Option<f64>,
        /// No new ones after this long
        #[arg(long, value_parser = duration)]
        duration: Option<Duration>,
        /// Who has to answer
        #[arg(long, value_name = "NAME")]
        expect: Option<String>,
    },
    /// Make a connection every so often and print a JSON line for each
    Watch {
        #[command(flatten)]
        target: TargetArguments,
        #[arg(long, value_parser = duration, default_value = "100ms")]
        interval: Duration,
        /// End after this long [default: never]
        #[arg(long, value_parser = duration)]
        duration: Option<Duration>,
    },
    /// Send back what comes, without TLS; prints `ready` once listening
    Echo {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Hold connections to `echo`, and print one JSON report at SIGTERM; `ready` once all are open
    Hold {
        #[arg(long, value_name = "ADDRESS:PORT")]
        target: SocketAddr,
        #[arg(long, default_value_t = 100)]
        flows: u64,
        /// From one record of a connection to the next
        #[arg(long, value_parser = duration, default_value = "200ms")]
        every: Duration,
    },
    /// Move bytes in one connection and print a JSON report; exit 1 if they don't all come through
    Transfer {
        #[command(flatten)]
        target: TargetArguments,
        /// How many to the server
        #[arg(long, default_value_t = 0)]
        up: u64,
        /// How many from the server
        #[arg(long, default_value_t = 0)]
        down: u64,
    },
    /// Be handshaken with, and print when each connection was opened; prints `ready` once listening
    Handshakes {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long, value_name = "PEM")]
        cert: PathBuf,
        #[arg(long, value_name = "PEM")]
        key: PathBuf,
    },
    /// Plain TCP as fast as it goes; each client prints one JSON report
    Plain {
        /// Stay on this CPU, from 0
        #[arg(long)]
        cpu: Option<usize>,
        #[command(subcommand)]
        verb: plain::Verb,
    },
    /// Build a lab, print its name, hosts and namespaces, and end it when stdin does
    Lab {
        #[arg(value_enum)]
        topology: Shape,
        #[arg(long, default_value = "by_hand")]
        label: String,
    },
}

#[derive(Args)]
struct TargetArguments {
    #[arg(long, value_name = "ADDRESS:PORT")]
    target: SocketAddr,
    /// The server name to ask for and to verify
    #[arg(long)]
    sni: String,
    /// The only authority to trust
    #[arg(long, value_name = "PEM")]
    ca: PathBuf,
    /// For a whole attempt, from SYN to answer
    #[arg(long, value_parser = duration, default_value = "5s")]
    timeout: Duration,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shape {
    OneArmed,
    TwoArmed,
}

fn main() -> Result<ExitCode> {
    // Two threads: the labs share small machines with the daemon under test.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match Arguments::parse().verb {
        Verb::Serve { listen, cert, key, name } => {
            runtime.block_on(server::serve(&listen, &cert, &key, &name))?
        }
        Verb::Load { target, connections, parallel, rate, duration, expect } => {
            let plan = Plan { connections, parallel, rate, duration, expect };
            let target = target.into_target()?;
            let loaded = async { load::load(&target, &plan, &Ending::by_sigterm()?).await };
            let report = runtime.block_on(loaded)?;
            let is_flawless = report.is_flawless();
            println!("{}", report.to_json());
            if !is_flawless {
                return Ok(ExitCode::FAILURE);
            }
        }
        Verb::Watch { target, interval, duration } => {
            runtime.block_on(watch::watch(&target.into_target()?, interval, duration))?;
        }
        Verb::Echo { listen } => runtime.block_on(echo::serve(listen))?,
        Verb::Hold { target, flows, every } => {
            let held = async { echo::hold(target, flows, every, &Ending::by_sigterm()?).await };
            println!("{}", runtime.block_on(held)?);
        }
        Verb::Transfer { target, up, down } => {
            println!("{}", runtime.block_on(transfer::transfer(&target.into_target()?, up, down))?);
        }
        Verb::Handshakes { listen, cert, key } => {
            runtime.block_on(probe_bench::serve(listen, &cert, &key))?;
        }
        Verb::Plain { cpu, verb } => {
            cpu.map(plain::stay_on).transpose()?;
            if let Some(report) = verb.run()? {
                println!("{report}");
            }
        }
        Verb::Lab { topology, label } => hold_lab(topology, &label)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl TargetArguments {
    fn into_target(self) -> Result<Target> {
        Target::new(self.target, &self.sni, &self.ca, self.timeout)
    }
}

fn hold_lab(shape: Shape, label: &str) -> Result<()> {
    let topology = match shape {
        Shape::OneArmed => Topology::one_armed(),
        Shape::TwoArmed => Topology::two_armed(),
    };
    let lab = Lab::new(label, &topology)?;
    println!("{}", lab.name());
    for host in [lab.gateway()].into_iter().chain(lab.clients()).chain(lab.backends()) {
        println!("{:10} {:15} nsenter --net=/run/netns/{}", host.role(), host.address(), host.namespace());
    }
    println!("{:10} {:15}", "vip", lab.vip());
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink()).context("read stdin")?;
    Ok(())
}

/// `3333us`, `250ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_us = match &text[digits.len()..] {
        "us" => 1,
        "ms" => 1000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        _ => return Err("write it as 3333us, 250ms, 5s or 2m".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a number"))?;
    count.checked_mul(unit_us).map(Duration::from_micros).ok_or_else(|| "too long".to_owned())
}
